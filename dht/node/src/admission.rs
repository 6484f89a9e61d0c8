//! Who may speak to this node, and what he may ask: the one place that decides it.
//!
//! With TLS everyone has proved which key he has. The map's nodes are admitted, and the owners of the keys that the
//! settings name; anyone else is told so once, and his connection is closed: while there are tokens, after the one frame
//! that may show one. Without TLS nobody is asked who he is, and
//! all are admitted: such a node listens on loopback only, unless it was told otherwise.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use deadwax_dht::wire::{Admits, ErrorCode};
use deadwax_dht::{IssuerKey, NodeId};

use crate::Config;
use crate::refusal::Refusal;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Caller {
    /// Nobody knows: the connection has no TLS.
    Anyone,
    /// The owner of this key, and what he may.
    Known { id: NodeId, is_node: bool, is_admin: bool },
    /// The owner of this key, whom nobody named: he may show a token, and nothing else.
    Stranger { id: NodeId },
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone: the connection has no TLS"),
            Self::Known { id, .. } | Self::Stranger { id } => id.fmt(f),
        }
    }
}

impl Caller {
    /// Whether he may speak as this node: nobody speaks for another.
    pub(crate) fn may_speak_for(&self, node: &NodeId) -> Result<(), Refusal> {
        match self {
            Self::Known { id, is_node: false, .. } | Self::Stranger { id } => Err(not_for(id, node)),
            Self::Known { id, .. } if id != node => Err(not_for(id, node)),
            Self::Anyone | Self::Known { .. } => Ok(()),
        }
    }

    /// Whether he may command: change the map, or what a node does.
    pub(crate) fn may_command(&self) -> Result<(), Refusal> {
        match self {
            Self::Known { id, is_admin: false, .. } | Self::Stranger { id } => Err(refused(format!(
                "{id} may not command this node: add it to `admins` in the node's settings, and send the node SIGHUP"
            ))),
            Self::Anyone | Self::Known { .. } => Ok(()),
        }
    }

    /// Whether he may bring this node into the map, with a token that is good: each may bring himself.
    pub(crate) fn may_join_as(&self, node: &NodeId) -> Result<(), Refusal> {
        match self {
            Self::Anyone => Err(refused(
                "tokens are for clusters that speak TLS: nobody proves here which key he has; name a master by --node"
                    .to_owned(),
            )),
            Self::Known { id, .. } | Self::Stranger { id } if id == node => Ok(()),
            Self::Known { id, .. } | Self::Stranger { id } => Err(not_for(id, node)),
        }
    }

    /// Whether he may know whom the settings name: a node lets in the same.
    pub(crate) fn may_ask_admits(&self) -> Result<(), Refusal> {
        match self {
            Self::Known { is_node: false, is_admin: false, id } | Self::Stranger { id } => {
                Err(refused(format!("{id} may not ask who is let in: nodes may, and `admins`")))
            }
            Self::Anyone | Self::Known { .. } => Ok(()),
        }
    }
}

fn not_for(id: &NodeId, node: &NodeId) -> Refusal {
    refused(format!(
        "{id} speaks for node {node}: only a node of the map may, and each for itself; end whatever runs with a copy of its \
         settings and another key"
    ))
}

/// The most connections at once of which nobody knows yet who is there: each may hold its place for the time that a
/// greeting may take.
pub(crate) const HANDSHAKES_MAX: usize = 512;
/// The most nodes that wait at once for their tokens to be used. Who has one could take all the room that commands have.
pub(crate) const JOINS_MAX: usize = 4;

/// How many do something of which at most `MAX` may be done at once.
#[derive(Default)]
pub(crate) struct Places<const MAX: usize>(AtomicUsize);

/// The place of one of them, until it is dropped.
pub(crate) struct Place<'a>(&'a AtomicUsize);

impl<const MAX: usize> Places<MAX> {
    /// A place, if there is one.
    pub(crate) fn enter(&self) -> Option<Place<'_>> {
        let place = Place(&self.0);
        (self.0.fetch_add(1, Ordering::Relaxed) < MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who is admitted, as all shards know it.
pub(crate) struct Admission {
    lists: RwLock<Lists>,
    /// Counts their changes: whoever is connected is judged again after one.
    version: AtomicU64,
    /// The second of the node's life in which it was last logged that somebody was refused.
    logged_s: AtomicU64,
    /// The same, of a command: strangers, however many, do not hide those.
    forbidden_s: AtomicU64,
}

struct Lists {
    nodes: BTreeSet<NodeId>,
    clients: BTreeSet<NodeId>,
    admins: BTreeSet<NodeId>,
}

impl Admission {
    /// The map's nodes, and whom the settings name.
    pub(crate) fn new(nodes: BTreeSet<NodeId>, config: &Config) -> Self {
        let (clients, admins) = people(config);
        Self {
            lists: RwLock::new(Lists { nodes, clients, admins }),
            version: AtomicU64::new(0),
            logged_s: AtomicU64::new(u64::MAX),
            forbidden_s: AtomicU64::new(u64::MAX),
        }
    }

    /// The map has changed.
    pub(crate) fn set_nodes(&self, nodes: BTreeSet<NodeId>) {
        self.change(|lists| lists.nodes = nodes);
    }

    /// The settings were read again.
    pub(crate) fn set_people(&self, config: &Config) {
        let (clients, admins) = people(config);
        self.change(|lists| (lists.clients, lists.admins) = (clients, admins));
    }

    fn change(&self, change: impl FnOnce(&mut Lists)) {
        change(&mut self.lists.write().unwrap_or_else(PoisonError::into_inner));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// What [`admit`](Self::admit) answers holds as long as this is the same; read before it is asked.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whom the settings name.
    pub(crate) fn admits(&self, issuers: &[IssuerKey]) -> Admits {
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        let list = |ids: &BTreeSet<NodeId>| ids.iter().copied().collect();
        Admits { clients: list(&lists.clients), admins: list(&lists.admins), issuers: issuers.to_vec() }
    }

    /// Whether a refusal is worth a line of the log: one a second is, however many strangers there are.
    pub(crate) fn is_logged(&self, now_s: u64) -> bool {
        self.logged_s.swap(now_s, Ordering::Relaxed) != now_s
    }

    /// The same, of one who is admitted and may not command.
    pub(crate) fn is_forbidden_logged(&self, now_s: u64) -> bool {
        self.forbidden_s.swap(now_s, Ordering::Relaxed) != now_s
    }

    /// Whether the map has this node.
    pub(crate) fn is_node(&self, id: &NodeId) -> bool {
        self.lists.read().unwrap_or_else(PoisonError::into_inner).nodes.contains(id)
    }

    /// Lets in who has proved that he has the key `id`.
    pub(crate) fn admit(&self, id: NodeId) -> Result<Caller, Refusal> {
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        let (is_node, is_admin) = (lists.nodes.contains(&id), lists.admins.contains(&id));
        if is_node || is_admin || lists.clients.contains(&id) {
            return Ok(Caller::Known { id, is_node, is_admin });
        }
        Err(refused(format!(
            "{id} is not admitted: it is no node of this node's map, and is named neither in `clients` nor in `admins` of \
             its settings; add it there, and send the node SIGHUP"
        )))
    }
}

fn people(config: &Config) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
    (config.clients.iter().copied().collect(), config.admins.iter().copied().collect())
}

fn refused(why: String) -> Refusal {
    Refusal::new(ErrorCode::NotAdmitted, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn admission() -> Admission {
        let address = "127.0.0.1:7881".parse().expect("an address");
        let mut config = Config::new("node".into(), address, "map".into(), vec!["volume".into()]);
        (config.clients, config.admins) = (vec![id(3)], vec![id(4)]);
        Admission::new([id(1), id(2)].into(), &config)
    }

    #[test]
    fn each_may_what_he_is_named_for() {
        let admission = admission();
        for (number, is_node, is_admin) in [(1, true, false), (3, false, false), (4, false, true)] {
            let caller = admission.admit(id(number)).unwrap_or_else(|why| panic!("{number}: {}", why.message));
            assert_eq!(caller.may_speak_for(&id(number)).is_ok(), is_node);
            assert_eq!(caller.may_command().is_ok(), is_admin);
            assert_eq!(caller.may_speak_for(&id(2)).map_err(|why| why.code), Err(ErrorCode::NotAdmitted));
        }
        let why = admission.admit(id(5)).expect_err("nobody knows it");
        assert!(why.code == ErrorCode::NotAdmitted && why.message.contains(&id(5).to_string()), "{}", why.message);
        assert!(Caller::Anyone.may_speak_for(&id(1)).is_ok() && Caller::Anyone.may_command().is_ok());
    }

    #[test]
    fn a_stranger_may_bring_himself_and_nothing_else() {
        let stranger = Caller::Stranger { id: id(5) };
        assert!(stranger.may_join_as(&id(5)).is_ok());
        for refused in [
            stranger.may_join_as(&id(6)),
            stranger.may_speak_for(&id(5)),
            stranger.may_command(),
            stranger.may_ask_admits(),
            Caller::Anyone.may_join_as(&id(5)),
        ] {
            assert_eq!(refused.map_err(|why| why.code), Err(ErrorCode::NotAdmitted));
        }
        let asks = |number| admission().admit(id(number)).is_ok_and(|caller| caller.may_ask_admits().is_ok());
        assert_eq!([1, 3, 4].map(asks), [true, false, true], "a node, a client, an admin");
    }

    #[test]
    fn refusals_do_not_fill_the_log() {
        let admission = admission();
        let lines = (0..1_000).filter(|tick| admission.is_logged(tick / 500)).count();
        assert_eq!(lines, 2);
        assert!(admission.is_forbidden_logged(1), "strangers do not hide a forbidden command");
        assert!(!admission.is_forbidden_logged(1));
    }

    #[test]
    fn places_are_bounded_and_left() {
        let handshakes = Places::<9>::default();
        for _ in 0..2 {
            let places: Vec<_> = (0..12).map_while(|_| handshakes.enter()).collect();
            assert_eq!(places.len(), 9);
            assert!(handshakes.enter().is_none());
        }
    }

    #[test]
    fn a_change_is_seen_by_those_who_are_in() {
        let admission = admission();
        let before = admission.version();
        admission.set_nodes([id(2)].into());
        assert_ne!(admission.version(), before);
        assert!(admission.admit(id(1)).is_err() && !admission.is_node(&id(1)));
        assert!(admission.admit(id(3)).is_ok(), "the settings' are still named");
    }
}
