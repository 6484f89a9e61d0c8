//! A connection to another node, from this one.

use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use deadwax_dht::NodeId;
use deadwax_dht::wire::{ErrorCode, Message, PROTOCOL_OF_NODES, Stamp};
use glommio::net::TcpStream;
use glommio::timer::sleep;

use crate::buffers::Buffers;
use crate::refusal::Refusal;
use crate::shard::Node;
use crate::socket::{ReceiveError, Received, Socket};

/// How long a node may take to accept a connection, and for the next bytes until it has greeted.
const CONNECT: Duration = Duration::from_secs(4);
/// How long it may take to greet, however many parts that comes in.
const GREETING: Duration = Duration::from_secs(8);
/// How long it may take for the next bytes, either way.
const STALL: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    /// There is no connection, or it broke, or what came over it made no sense.
    #[error("{0}")]
    Lost(String),
    /// The node says why not.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

impl From<std::io::Error> for PeerError {
    fn from(why: std::io::Error) -> Self {
        Self::Lost(why.to_string())
    }
}

impl From<ReceiveError> for PeerError {
    fn from(why: ReceiveError) -> Self {
        Self::Lost(why.to_string())
    }
}

/// A greeted connection, on which this node has said who it is.
pub(super) struct Peer {
    pub(super) socket: Socket,
    pub(super) node: NodeId,
    request: u32,
}

impl Peer {
    /// Connects to the node at `address`, which must be `meant` where that is known.
    pub(super) async fn connect(
        node: &Node,
        buffers: Rc<Buffers>,
        address: &str,
        meant: Option<NodeId>,
    ) -> Result<Self, PeerError> {
        let stream = TcpStream::connect_timeout(resolve(address).await?, CONNECT)
            .await
            .map_err(|why| PeerError::Lost(why.to_string()))?;
        let late = async {
            sleep(GREETING).await;
            Err(PeerError::Lost(format!("it did not greet within {} s", GREETING.as_secs())))
        };
        futures_lite::future::or(Self::greet(node, buffers, stream, meant), late).await
    }

    /// Finds out who is there, and says who this node is.
    async fn greet(
        node: &Node,
        buffers: Rc<Buffers>,
        stream: TcpStream,
        meant: Option<NodeId>,
    ) -> Result<Self, PeerError> {
        let spoken = node.config.protocols();
        let mut socket = Socket::new(stream, buffers, STALL, spoken.newest())?;
        socket.rest(CONNECT);
        let proved = secure(node, &mut socket, meant).await?;
        let mut peer = Self { socket, node: node.id, request: 0 };
        let hello = Message::Hello {
            protocol_min: spoken.oldest(),
            protocol_max: spoken.newest(),
            cluster: node.cluster,
            node: meant,
        };
        match peer.ask(node, &hello).await? {
            Message::Welcome { protocol, .. } if protocol < PROTOCOL_OF_NODES => Err(PeerError::Lost(format!(
                "it speaks protocol {protocol}, in which nodes do not speak to one another"
            ))),
            Message::Welcome { node: id, .. } if proved.is_some_and(|proved| proved != id) => {
                Err(PeerError::Lost(format!("it says that it is node {id}, and does not have that key")))
            }
            Message::Welcome { node: id, protocol, .. } => {
                peer.node = id;
                peer.socket.agree_on(protocol.min(spoken.newest()));
                let own = Message::Introduction { node: node.id, address: node.config.advertised() };
                peer.send(node, &own).await?;
                peer.socket.rest(STALL);
                Ok(peer)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Sends something that is not answered.
    pub(super) async fn send(&mut self, node: &Node, message: &Message) -> Result<(), PeerError> {
        let stamp = self.stamp(node);
        Ok(self.socket.send(message, stamp).await?)
    }

    /// Sends a request, and waits for the first word of its answer.
    pub(super) async fn ask(&mut self, node: &Node, message: &Message) -> Result<Message, PeerError> {
        self.request = self.request.wrapping_add(1);
        self.send(node, message).await?;
        self.hear().await
    }

    /// The next word.
    pub(super) async fn hear(&mut self) -> Result<Message, PeerError> {
        let received = self.socket.receive().await?;
        heard(received)
    }

    fn stamp(&self, node: &Node) -> Stamp {
        node.stamp(self.request)
    }
}

/// Where this node speaks TLS: shakes hands, and finds out whose key the other end has. It must be `meant`, or, where nobody
/// in particular is, a node of the map: what a stranger says of the cluster is of no worth.
async fn secure(node: &Node, socket: &mut Socket, meant: Option<NodeId>) -> Result<Option<NodeId>, PeerError> {
    let Some(identity) = &node.identity else { return Ok(None) };
    let id = socket.secure(identity.connect()).await?;
    match meant {
        Some(meant) if meant != id => {
            Err(PeerError::Lost(format!("whoever is there has the key of {id}, not of {meant}")))
        }
        None if !node.admission.is_node(&id) => {
            Err(PeerError::Lost(format!("whoever is there has the key of {id}, which is no node of the map")))
        }
        _ => Ok(Some(id)),
    }
}

/// The message, if it is no refusal.
pub(super) fn heard(received: Received) -> Result<Message, PeerError> {
    match received.message {
        Ok(Message::Error { code, message }) => Err(PeerError::Refused(Refusal::new(code, message))),
        Ok(message) => Ok(message),
        Err(why) => Err(PeerError::Lost(why.to_string())),
    }
}

pub(super) fn unexpected(message: &Message) -> PeerError {
    PeerError::Lost(format!("it answered {:?}", message.kind()))
}

/// Where `host:port` is. Names are looked up on a thread that may wait.
async fn resolve(address: &str) -> Result<SocketAddr, PeerError> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let name = address.to_owned();
    let looked_up = glommio::executor().spawn_blocking(move || name.to_socket_addrs().map(|mut found| found.next()));
    let late = async {
        sleep(CONNECT).await;
        Err(std::io::ErrorKind::TimedOut.into())
    };
    match futures_lite::future::or(looked_up, late).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(PeerError::Lost(format!("nothing is known of the name in {address}"))),
        Err(why) => Err(PeerError::Lost(format!("look up {address}: {why}"))),
    }
}

impl PeerError {
    /// What the other node said, if it did.
    pub(super) const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Lost(_) => None,
            Self::Refused(why) => Some(why.code),
        }
    }
}
