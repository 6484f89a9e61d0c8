//! Why a node did not start, or stopped.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use deadwax_dht::wire::Unfit;
use deadwax_dht::{NodeId, VolumeId};
use deadwax_dht_tls::KeyError;

use crate::fitness::Check;

/// What keeps a node from running. All are for the operator: none is worth a retry without a change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The config file does not parse; the text names the line.
    #[error("read config {path}: {why}")]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
    /// A setting's value makes no sense.
    #[error("setting `{setting}`: {why}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The machine is not fit to run a node: see [`fitness`](crate::fitness).
    #[error("this machine is not fit: {0}")]
    Unfit(Box<Check>),
    /// A directory cannot be used.
    #[error("use directory {dir}: {why}")]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        why: io::Error,
    },
    /// A key, the node's or its issuer's, cannot be read or written.
    #[error(transparent)]
    Key(KeyError),
    /// Another process runs this node.
    #[error("node directory {0} is in use by another process")]
    Running(PathBuf),
    /// Nothing was made here yet.
    #[error("{what} is not initialised: {path}; run `deadwax cluster init` (or `deadwax up`) first")]
    NotInitialised {
        /// The node or a volume.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The engine refused a volume.
    #[error("volume {dir}: {why}")]
    Volume {
        /// Its directory.
        dir: PathBuf,
        /// The engine's word.
        why: deadwax_engine::Error,
    },
    /// A volume is another node's.
    #[error("volume {dir} belongs to node {owner}, this is node {node}")]
    ForeignVolume {
        /// Its directory.
        dir: PathBuf,
        /// Whose it is.
        owner: NodeId,
        /// Who we are.
        node: NodeId,
    },
    /// A drive does not answer.
    #[error("volume {dir}: its drive did not answer within {seconds} s")]
    Silent {
        /// The volume's directory.
        dir: PathBuf,
        /// How long it was given.
        seconds: u64,
    },
    /// The same volume is in two directories: one drive is a copy of the other.
    #[error(
        "volume {id} is in {first} and in {second}: one is a copy of the other; name only the one that was served last, \
         and format the other anew"
    )]
    SameVolume {
        /// The volume.
        id: VolumeId,
        /// A directory that has it.
        first: PathBuf,
        /// Another one.
        second: PathBuf,
    },
    /// The cluster's map does not parse, or does not describe this node.
    #[error("map {path}: {why}")]
    Map {
        /// The map file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The node has a part in a cluster's log, and what it kept of it is not there.
    #[error(
        "{0} is not there, though `log` is set: of a new cluster, run `deadwax cluster init`; where it was lost, \
         `deadwax cluster rejoin` takes it from the other nodes, and the tracks stay"
    )]
    NoSystem(PathBuf),
    /// Another process of this node's name and key runs, and started later.
    #[error(
        "another process runs under this node's name and key since {since_ms} (ms since 1970): end one of them, and do not copy keys"
    )]
    Superseded {
        /// When it started.
        since_ms: u64,
    },
    /// The node does not speak the version of the protocol at which its cluster is finalised.
    #[error("this node takes no part in its cluster: {0}")]
    Protocol(#[from] Unfit),
    /// The system drive's state has records of the map's log that this program cannot read.
    #[error("system state {path}: {why}: a later version of the program wrote it; run that one, or a later one")]
    SystemLater {
        /// The file.
        path: PathBuf,
        /// Which record, and what is unknown in it.
        why: String,
    },
    /// The system drive's state is not what was written. What the node promised since is not known.
    #[error(
        "system state {dir}/{file} is damaged: {why}; remove {dir}, then `deadwax cluster rejoin` takes it from the other nodes, its tracks stay; never put a copy of {dir} back: the node would break what it promised since"
    )]
    SystemDamaged {
        /// The directory of the state.
        dir: PathBuf,
        /// Which of its files.
        file: &'static str,
        /// What is wrong, and where.
        why: String,
    },
    /// The system drive's state was written by a later version.
    #[error("system state {path} is of version {got}, this program reads version {known}: run a newer one")]
    SystemVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        got: u32,
        /// The only one that is read.
        known: u32,
    },
    /// There is a state already where one was to be made.
    #[error("{0} holds a system state already: this node is in a cluster, or was told to join one")]
    SystemTaken(PathBuf),
    /// The cluster's log cannot begin anew at this node, or need not.
    #[error("the log is not begun anew: {0}")]
    Refounding(String),
    /// The system drive refuses. Where it did so to a write, what is durable is not known: the process must end.
    #[error("{doing} system state {path}: {why}")]
    SystemIo {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What is wrong.
        why: io::Error,
    },
    /// An earlier write to the system drive failed. The process must end; a new one finds what is durable.
    #[error("system state {0} failed before: restart the node")]
    SystemPoisoned(PathBuf),
    /// The system drive hung, for long enough that the node went down; its threads could be ended.
    #[error("the system drive did not answer for {0} s, so the node went down: start it again once the drive is well")]
    SystemSilent(u32),
    /// The address is taken or not ours.
    #[error("listen on {address}: {why}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What is wrong.
        why: io::Error,
    },
    /// Listening where others can reach without TLS.
    #[error(
        "refuse to listen on {0}: it is not loopback, and connections carry neither encryption nor authentication; set \
         `tls = true`, here and in all other nodes' and gateways' settings, or `insecure_listen = true` if the network is \
         trusted"
    )]
    InsecureListen(SocketAddr),
    /// The system refused a thread, a ring or a signal handler.
    #[error("start {what}: {why}")]
    Start {
        /// What could not be started.
        what: String,
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// Whether it is a drive that hangs: it may answer again by itself.
    pub(crate) const fn hangs(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Volume { why: deadwax_engine::Error::Hung(_), .. })
    }
}
