//! A connection's first words: who is there, whether he is admitted, and which protocol both speak.

use std::sync::Arc;
use std::time::Duration;

use deadwax_dht::wire::{BadFrame, ErrorCode, Joining, Kind, Message, negotiate};
use deadwax_dht::{Node as Entry, TokenSecret};
use glommio::timer::sleep;

use super::{Connection, End};
use crate::admission::{Caller, Place};
use crate::operators;
use crate::refusal::Refusal;
use crate::shard::Node;
use crate::socket::{ReceiveError, Received};

/// How long all of it may take, however many parts it comes in: whoever connects and says nothing, or a byte at a time,
/// holds a place among the connections.
const GREETING: Duration = Duration::from_secs(10);

/// What a node says that shows a token.
pub(super) struct Shown {
    request: u32,
    within_ms: u32,
    secret: TokenSecret,
    entry: Box<Entry>,
}

/// Why a stranger is to be shut out, and his place until he is.
struct Stranger<'a> {
    why: Refusal,
    _place: Place<'a>,
}

impl Connection {
    /// Greets the peer, who is admitted then; or hears what a node has to show that is to be admitted.
    pub(super) async fn greet(&mut self) -> Result<Option<Shown>, End> {
        let patience = self.greeting_patience();
        let greeted = in_time(patience, self.greet_at_leisure()).await;
        if greeted.is_err() {
            self.shard.node.counters.greetings_failed.add(1);
        }
        greeted
    }

    /// Only lets him in, to be told something in a way that he understands.
    pub(super) async fn let_in(&mut self) -> Result<(), End> {
        let patience = self.greeting_patience();
        let node = Arc::clone(&self.shard.node);
        let stranger = in_time(patience, self.admit(&node)).await?;
        stranger.map_or(Ok(()), |stranger| Err(self.shut_out(0, stranger.why)))
    }

    /// Brings a node into the map that shows a token, says what came of it, and is done with the connection.
    pub(super) async fn join(&mut self, shown: Shown) -> Result<(), End> {
        let Shown { request, within_ms, secret, entry } = shown;
        let node = Arc::clone(&self.shard.node);
        let answer = operators::join(&node, self.caller, within_ms, &secret, entry).await;
        let answer = answer.map_err(|why| End::Refused(request, why))?;
        self.last_word(request, &answer).await;
        Err(End::Closed)
    }

    fn greeting_patience(&self) -> Duration {
        GREETING.min(self.shard.node.config.stall_timeout())
    }

    async fn greet_at_leisure(&mut self) -> Result<Option<Shown>, End> {
        let own = Arc::clone(&self.shard.node);
        let stranger = self.admit(&own).await?;
        let header = self.socket.header().await?;
        let request = header.stamp.request;
        if let Some(stranger) = stranger.filter(|_| header.kind != Kind::Join) {
            return Err(self.shut_out(request, stranger.why));
        }
        let refuse = |code, why: String| Err(End::Refused(request, Refusal::new(code, why)));
        // Others may be long, and nobody knows yet who sends them.
        if !matches!(header.kind, Kind::Hello | Kind::Who | Kind::Join) {
            return refuse(ErrorCode::Invalid, format!("a connection begins with Hello, got {:?}", header.kind));
        }
        let Received { message, .. } = self.socket.receive_after(header).await?;
        let (protocol_min, protocol_max, cluster, node) = match message {
            Ok(Message::Hello { protocol_min, protocol_max, cluster, node }) => {
                (protocol_min, protocol_max, cluster, node)
            }
            Ok(Message::Joining(Joining::Join { within_ms, secret, node: entry })) => {
                return Ok(Some(Shown { request, within_ms, secret, entry }));
            }
            Ok(Message::Who) => {
                let spoken = own.config.protocols();
                let (protocol_min, protocol_max) = (spoken.oldest(), spoken.newest());
                let here = Message::Here { cluster: own.cluster, node: own.id, protocol_min, protocol_max };
                self.last_word(request, &here).await;
                return Err(End::Closed);
            }
            Ok(other) => {
                return refuse(ErrorCode::Invalid, format!("a connection begins with Hello, got {:?}", other.kind()));
            }
            Err(why) => return refuse(ErrorCode::Invalid, why.to_string()),
        };
        let spoken = own.config.protocols();
        let Some(protocol) = negotiate(spoken.oldest()..=spoken.newest(), protocol_min, protocol_max) else {
            let ours = format!("{} to {}", spoken.oldest(), spoken.newest());
            let why = format!("this node speaks protocol {ours}, you {protocol_min} to {protocol_max}");
            return refuse(ErrorCode::Version, why);
        };
        if cluster != own.cluster || header.stamp.cluster != own.cluster.prefix() {
            let why = format!("this node is in cluster {}, you mean {cluster}", own.cluster);
            return refuse(ErrorCode::WrongCluster, why);
        }
        if let Some(meant) = node.filter(|meant| *meant != own.id) {
            return refuse(ErrorCode::WrongNode, format!("this is node {}, you mean {meant}", own.id));
        }
        self.socket.agree_on(protocol);
        let welcome = Message::Welcome { protocol, node: own.id, epoch: own.epoch() };
        self.reply(request, &welcome).await.map(|()| None)
    }

    /// Where the node speaks TLS: the handshake, and whether who is there may come in. While there are tokens, one whom nobody
    /// knows is given back, to be heard a moment longer: in the place that he has.
    async fn admit<'a>(&mut self, node: &'a Node) -> Result<Option<Stranger<'a>>, End> {
        let Some(identity) = &node.identity else { return Ok(None) };
        // One more is closed without a word, which would cost as much as to prove it.
        let Some(place) = node.handshakes.enter() else {
            node.counters.connections_refused.add(1);
            return Err(End::Closed);
        };
        if !self.socket.begins_secure().await? {
            return Err(self.refuse_plain().await);
        }
        let id = self.socket.secure(identity.accept()).await?;
        self.judged = node.admission.version();
        match node.admission.admit(id) {
            Ok(caller) => self.caller = caller,
            Err(why) if operators::has_tokens(node) => {
                self.caller = Caller::Stranger { id };
                return Ok(Some(Stranger { why, _place: place }));
            }
            Err(why) => return Err(self.shut_out(0, why)),
        }
        Ok(None)
    }

    fn shut_out(&self, request: u32, why: Refusal) -> End {
        let node = &self.shard.node;
        if node.admission.is_logged(node.started.elapsed().as_secs()) {
            tracing::warn!(why = why.message, "a connection is refused");
        }
        End::Refused(request, why)
    }

    /// What to say to one who speaks the wire protocol without TLS: he must be able to read it. To anything else, as ever.
    async fn refuse_plain(&mut self) -> End {
        // Not the payload, which may be long: nobody has been let in.
        let request = match self.socket.header().await {
            Ok(header) => header.stamp.request,
            Err(why) => return why.into(),
        };
        let why = "this node speaks TLS only: give the command a key with --key, and set `tls = true` and `key` in the \
                   settings of a gateway, `tls = true` in those of a node";
        let node = &self.shard.node;
        if node.admission.is_logged(node.started.elapsed().as_secs()) {
            tracing::warn!("a connection without TLS is refused: whatever asks lacks `tls = true` in its settings");
        }
        // A code that every version of the protocol has.
        End::Refused(request, Refusal::new(ErrorCode::Version, why))
    }

    /// Judges again who was admitted, where the map or the settings changed since.
    pub(super) fn judge_again(&mut self, request: u32) -> Result<(), End> {
        let (admission, version) = (&self.shard.node.admission, self.shard.node.admission.version());
        if let Caller::Known { id, .. } = self.caller
            && version != self.judged
        {
            self.judged = version;
            self.caller = admission.admit(id).map_err(|why| End::Refused(request, why))?;
            if let Some((node, _)) = &self.peer {
                self.caller.may_speak_for(node).map_err(|why| End::Refused(request, why))?;
            }
        }
        Ok(())
    }
}

async fn in_time<T>(patience: Duration, greeting: impl Future<Output = Result<T, End>>) -> Result<T, End> {
    let late = async {
        sleep(patience).await;
        Err(End::Lost(std::io::ErrorKind::TimedOut.into()))
    };
    futures_lite::future::or(greeting, late).await
}

impl From<ReceiveError> for End {
    fn from(why: ReceiveError) -> Self {
        match why {
            ReceiveError::Closed => Self::Closed,
            ReceiveError::Io(why) => Self::Lost(why),
            ReceiveError::Frame(why @ (BadFrame::Version(_) | BadFrame::Newer(_))) => {
                Self::Refused(0, Refusal::new(ErrorCode::Version, why.to_string()))
            }
            // A TLS hello: kind 22, version 3.x (RFC 8446, section 5.1).
            ReceiveError::Frame(BadFrame::Magic([22, 3, ..])) => {
                let why = "this is TLS, which this node does not speak: set `tls = true` in its settings";
                Self::Refused(0, Refusal::new(ErrorCode::Version, why))
            }
            ReceiveError::Frame(why) => Self::Refused(0, Refusal::invalid(why.to_string())),
        }
    }
}
