//! What an operator sets for one node.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use deadwax_dht::wire::{ADMITTED_MAX, PROTOCOL_MIN, PROTOCOL_OF_NODES, PROTOCOL_VERSION, Protocols};
use deadwax_dht::{IssuerKey, NodeId};
use deadwax_track::MIB;
use serde::{Deserialize, Serialize};

use crate::{Error, issuers};

/// The most shards of a node.
pub const SHARDS_MAX: usize = 1024;
const IO_MEMORY_BYTES_MIN: u64 = 8 * MIB;

/// One node's settings. What the cluster must agree on is in the map, not here.
///
/// **Memory.** Resident bytes stay below
///
/// ```text
/// 48 MiB                                         program, tables, a ring and a stack a shard
///   + shards x max(io_memory_bytes,              drive buffers: touched at start up to io_memory_bytes; beyond it as
///                  transfers_max x 7 MiB)        transfers need them (each takes 7 MiB at most, and all on one volume
///                                                216 MiB: `deadwax_engine::VolumeConfig::memory_bytes_max`)
///   + shards x transfers_max x 3.3 MiB           receive and crossing buffers, three at most of 1.1 MiB, as needed
///   + connections_max x 24 KiB                   an idle connection holds 4 KiB of buffer; 32 KiB with TLS
///   + shards x transfers_max x 0.3 MiB           with TLS: records on their way, each way
///   + tracks x 18 bytes                          the engine's index: 10 million tracks, 180 MB
///   + 28 MiB                                     with a log, while much is missing or moves: 65,536 tracks that are wanted
///                                                (16 MB; more are found again later), and messages that wait for the core
///   + 48 MiB                                     with a log, once its map has changed: the last changes, as bytes 4 MiB at
///                                                most, and some 7 MB a map; what a change leaves in heaps
/// ```
///
/// so that an idle node holds its slabs, its index, and some 35 MiB; once its map was changed often, some 60 MiB.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The node's directory: holds `node.key` (readable by its owner only) and a lock. Required. Losing the key makes
    /// the volumes foreign to whatever replaces the node.
    pub dir: PathBuf,

    /// Address and port to serve. Required. The map must name this node at this address, or at the same port where
    /// this is the unspecified address (`0.0.0.0`, `::`).
    pub listen: SocketAddr,

    /// `host:port` that others reach the node at, where it is not `listen`. Default: `listen`. `init` writes it into
    /// the map's entry, and the map must name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,

    /// The cluster's map (TOML). Required. Where the cluster has a log ([`log`](Self::log)) it is the map that the log
    /// began with, and names addresses to ask first; else it is the map, read at the start and on SIGHUP.
    pub map: PathBuf,

    /// Whether the cluster keeps its map in a log of its own. Default false; `cluster init` sets it, for three
    /// nodes or more. Then the node compares what it holds with the others, and gets from them what it lacks; what it
    /// must remember of the cluster is in `DIR/system`. Never take it back: what the log said since would not count.
    #[serde(default)]
    pub log: bool,

    /// Who may take tracks down by the cluster's log: Ed25519 public keys, the same list on every master. Default none:
    /// then a takedown goes to each holder, and needs all of them. `cluster init --log` makes a key for each voter. Only
    /// with [`log`](Self::log). **To add one:** `deadwax cluster issuer` makes its key; name that here on *every* master,
    /// restart them one after the other, and only then set `issuer_key` on the one that has it: a master that meets a
    /// takedown of a key that it does not know stops serving. Never take one out.
    #[serde(default)]
    pub issuers: Vec<IssuerKey>,

    /// The file of this node's own issuer's key, as `node.key` is. Default none: it follows takedowns and signs none.
    /// Hazard: no two nodes may have the same key, and no old copy of `system` may come back beside it: two takedowns of
    /// one number are an alarm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_key: Option<PathBuf>,

    /// The volumes' directories, one a drive, each on its own file system. Required. A volume that the map gives this
    /// node and that is missing here keeps the node from starting. Read again on SIGHUP: see [`run`](crate::run).
    pub volumes: Vec<PathBuf>,

    /// How many cores serve. Default: all that the process may use. Each costs `io_memory_bytes` and a ring; more
    /// shards than cores only add waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<NonZeroUsize>,

    /// Whether each shard keeps to one core. Default: yes, unless `listen` is loopback. It buys steady latency on a
    /// machine of the node's own; where other programs share the cores a pinned shard waits behind them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<bool>,

    /// Bytes of drive buffers a shard keeps, resident from the start, on huge pages where the kernel allows. Default
    /// 64 MiB; at least 8 MiB. Should be twice the bytes in flight on the shard's drives: beyond it, buffers come from
    /// memory that is touched for the first time, which is slower, and stay resident afterwards.
    #[serde(default = "default::io_memory_bytes")]
    pub io_memory_bytes: u64,

    /// Bytes of a segment file. Default 1 GiB. Smaller ones make recycling finer and restart slower.
    #[serde(default = "default::segment_bytes")]
    pub segment_bytes: u64,

    /// Bytes of each volume's file system that puts leave free. Default 1 GiB. Too small, and a full drive refuses
    /// deletes as well.
    #[serde(default = "default::reserve_bytes")]
    pub reserve_bytes: u64,

    /// Bytes a second that each volume reads to check all that it holds, over and over, where nothing more urgent is to
    /// be done. Default 4 MiB: 10 TiB a month. 0: never. Rot that nobody looks for is found when the other copies are
    /// gone.
    #[serde(default = "default::scrub_bytes_per_second")]
    pub scrub_bytes_per_second: u64,

    /// Whether a volume's drive rotates. Default `detect`: what sysfs says of it. A rotating drive is served by one
    /// shard, so that it writes in one place; any other by all shards. Changing it moves no bytes.
    #[serde(default)]
    pub rotating: Rotating,

    /// The most connections at once; the next one is answered Busy and closed. Default 4096. Each is a descriptor and
    /// some KiB.
    #[serde(default = "default::connections_max")]
    pub connections_max: usize,

    /// The most puts and gets at once a shard; the next one is answered Busy. Default 64. See the memory formula.
    #[serde(default = "default::transfers_max")]
    pub transfers_max: usize,

    /// Seconds that a connection may be silent between requests. Default 300. Then the node closes it.
    #[serde(default = "default::idle_timeout_s")]
    pub idle_timeout_s: u64,

    /// Seconds that a peer may take to send, or to take, the next bytes of a request. Default 30. Then the node closes
    /// the connection, and an unfinished put is forgotten. So it does where, of the time that it waits for a peer, so many
    /// seconds bring less than 8 KiB each on the average: who uploads through a gateway by less than 64 kbit/s is cut off.
    /// Too small cuts off slow networks; too large lets stalled clients hold transfers.
    #[serde(default = "default::stall_timeout_s")]
    pub stall_timeout_s: u64,

    /// Seconds that a stopping node gives to requests that are under way. Default 10.
    #[serde(default = "default::drain_timeout_s")]
    pub drain_timeout_s: u64,

    /// Whether connections, to this node and from it, are TLS 1.3, and both ends prove who they are by their keys. Default
    /// false; set it in the settings of all nodes and gateways, or of none. Then the map's nodes are admitted, and those
    /// below. Costs some 0.25 CPU seconds a GB, each way, and 7 KiB an idle connection.
    #[serde(default)]
    pub tls: bool,

    /// Names of the keys (64 hexadecimal digits) whose owners may read, store and take down tracks: gateways. Counts with
    /// [`tls`](Self::tls). Default: none. Read again on SIGHUP; who is not named any more is refused from his next request
    /// on.
    #[serde(default)]
    pub clients: Vec<NodeId>,

    /// The same for operators' tools: their owners may command, too.
    #[serde(default)]
    pub admins: Vec<NodeId>,

    /// The newest version of the protocol that the node speaks. Default: the newest that the program does. Set, it holds a
    /// new program back: the node is to others as one of that version, as long as the cluster is not finalised at a later
    /// one. Where the map has a log it is 3 at least. Take it out before the cluster is finalised: nothing else
    /// reminds of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_max: Option<u8>,

    /// Allows listening where others can reach without [`tls`](Self::tls). Default false. Connections then carry neither
    /// encryption nor authentication: whoever reaches the port reads, stores and takes down tracks, and speaks for any
    /// node.
    #[serde(default)]
    pub insecure_listen: bool,

    /// The file that the settings were read from, to be read again on SIGHUP. No setting: [`load`](Self::load) fills it
    /// in.
    #[serde(skip)]
    pub source: Option<PathBuf>,
}

/// Whether a volume's drive rotates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotating {
    /// Ask sysfs.
    #[default]
    Detect,
    /// All do.
    Yes,
    /// None does.
    No,
}

/// The defaults, one a setting.
mod default {
    use deadwax_track::MIB;

    pub(super) const fn io_memory_bytes() -> u64 {
        64 * MIB
    }
    pub(super) const fn segment_bytes() -> u64 {
        1024 * MIB
    }
    pub(super) const fn reserve_bytes() -> u64 {
        1024 * MIB
    }
    pub(super) const fn scrub_bytes_per_second() -> u64 {
        4 * MIB
    }
    pub(super) const fn connections_max() -> usize {
        4096
    }
    pub(super) const fn transfers_max() -> usize {
        64
    }
    pub(super) const fn idle_timeout_s() -> u64 {
        300
    }
    pub(super) const fn stall_timeout_s() -> u64 {
        30
    }
    pub(super) const fn drain_timeout_s() -> u64 {
        10
    }
}

impl Config {
    /// The settings with all defaults.
    #[must_use]
    pub fn new(dir: PathBuf, listen: SocketAddr, map: PathBuf, volumes: Vec<PathBuf>) -> Self {
        Self {
            dir,
            listen,
            advertise: None,
            map,
            log: false,
            issuers: Vec::new(),
            issuer_key: None,
            volumes,
            shards: None,
            pin: None,
            io_memory_bytes: default::io_memory_bytes(),
            segment_bytes: default::segment_bytes(),
            reserve_bytes: default::reserve_bytes(),
            scrub_bytes_per_second: default::scrub_bytes_per_second(),
            rotating: Rotating::default(),
            connections_max: default::connections_max(),
            transfers_max: default::transfers_max(),
            idle_timeout_s: default::idle_timeout_s(),
            stall_timeout_s: default::stall_timeout_s(),
            drain_timeout_s: default::drain_timeout_s(),
            tls: false,
            clients: Vec::new(),
            admins: Vec::new(),
            protocol_max: None,
            insecure_listen: false,
            source: None,
        }
    }

    /// Reads and validates a TOML file. A wrong key or value is named with its line.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let fail = |why: String| Error::ConfigFile { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|why| fail(why.to_string()))?;
        let mut config: Self = toml::from_str(&text).map_err(|why| fail(why.to_string()))?;
        config.source = Some(path.to_owned());
        config.validate()?;
        Ok(config)
    }

    /// The settings as a TOML file.
    ///
    /// # Panics
    /// Where a path is not UTF-8: TOML is.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("settings are plain values, and their paths UTF-8")
    }

    /// Whether the values make sense, each alone. [`run`](crate::run) and [`init`](crate::init) ask this first.
    pub fn validate(&self) -> Result<(), Error> {
        let fail = |setting: &'static str, why: String| Err(Error::Setting { setting, why });
        if self.listen.port() == 0 {
            return fail("listen", "port 0 would differ at each start; the map needs a fixed one".into());
        }
        if self.volumes.is_empty() {
            return fail("volumes", "a node has at least one volume".into());
        }
        if self.volumes.len() > deadwax_dht::wire::VOLUMES_PER_NODE_MAX {
            return fail("volumes", format!("at most {}", deadwax_dht::wire::VOLUMES_PER_NODE_MAX));
        }
        if let Some(dir) = self.volumes.iter().enumerate().find(|(n, dir)| self.volumes[..*n].contains(dir)) {
            return fail("volumes", format!("{} is named twice", dir.1.display()));
        }
        if self.shards.is_some_and(|shards| shards.get() > SHARDS_MAX) {
            return fail("shards", format!("at most {SHARDS_MAX}"));
        }
        if self.io_memory_bytes < IO_MEMORY_BYTES_MIN || self.io_memory_bytes > 64 * 1024 * MIB {
            return fail("io_memory_bytes", format!("from {IO_MEMORY_BYTES_MIN} (8 MiB) to 64 GiB a shard"));
        }
        let positive = [
            ("connections_max", self.connections_max as u64),
            ("transfers_max", self.transfers_max as u64),
            ("idle_timeout_s", self.idle_timeout_s),
            ("stall_timeout_s", self.stall_timeout_s),
        ];
        if let Some((setting, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return fail(setting, "at least 1".into());
        }
        for (setting, names) in [("clients", &self.clients), ("admins", &self.admins)] {
            if names.len() > ADMITTED_MAX {
                return fail(setting, format!("at most {ADMITTED_MAX}"));
            }
        }
        if !self.log && (!self.issuers.is_empty() || self.issuer_key.is_some()) {
            return fail("issuers", "takedowns are signed for a cluster's log: set `log`, if there is one".into());
        }
        issuers::check(&self.issuers)?;
        let least = if self.log { PROTOCOL_OF_NODES } else { PROTOCOL_MIN };
        if self.protocol_max.is_some_and(|max| !(least..=PROTOCOL_VERSION).contains(&max)) {
            return fail("protocol_max", format!("from {least} to {PROTOCOL_VERSION}, or not set"));
        }
        if !self.listen.ip().is_loopback() && !self.tls && !self.insecure_listen {
            return Err(Error::InsecureListen(self.listen));
        }
        Ok(())
    }

    /// `host:port` that others reach the node at.
    #[must_use]
    pub fn advertised(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.to_string())
    }

    /// Which versions of the protocol the node speaks.
    pub(crate) fn protocols(&self) -> Protocols {
        let newest = self.protocol_max.unwrap_or(PROTOCOL_VERSION);
        Protocols::new(PROTOCOL_MIN, newest).unwrap_or(Protocols::BUILD)
    }

    pub(crate) fn shard_count(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.shards.map_or(cores, NonZeroUsize::get).min(SHARDS_MAX)
    }

    pub(crate) fn pinned(&self) -> bool {
        self.pin.unwrap_or(!self.listen.ip().is_loopback())
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_s)
    }

    pub(crate) fn stall_timeout(&self) -> Duration {
        Duration::from_secs(self.stall_timeout_s)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "dir = '/n'\nlisten = '127.0.0.1:7881'\nmap = '/n/map.toml'\nvolumes = ['/v']\n";

    #[test]
    fn the_smallest_file_gives_the_defaults_and_comes_back() {
        let config: Config = toml::from_str(SMALLEST).expect("parses");
        let expected = Config::new(
            "/n".into(),
            "127.0.0.1:7881".parse().expect("address"),
            "/n/map.toml".into(),
            vec!["/v".into()],
        );
        assert_eq!(config, expected);
        assert_eq!(toml::from_str::<Config>(&config.to_toml()).expect("parses"), config);
        assert!(config.validate().is_ok());
        assert!(!config.pinned());
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let why = toml::from_str::<Config>(&format!("{SMALLEST}shardz = 2\n")).expect_err("unknown key").to_string();
        assert!(why.contains("shardz") && why.contains("line 5"), "{why}");
        let why = toml::from_str::<Config>(&format!("{SMALLEST}shards = 0\n")).expect_err("zero").to_string();
        assert!(why.contains("line 5"), "{why}");
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        let good: Config = toml::from_str(SMALLEST).expect("parses");
        let refused = |change: fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            config.validate().expect_err("refused").to_string()
        };
        assert!(refused(|c| c.listen = "0.0.0.0:7881".parse().expect("address")).contains("insecure_listen"));
        assert!(refused(|c| c.clients = vec![NodeId::from_bytes([1; 32]); 5_000]).contains("clients"));
        let secure = Config { listen: "0.0.0.0:7881".parse().expect("address"), tls: true, ..good.clone() };
        assert!(secure.validate().is_ok(), "who listens with TLS may do so anywhere");
        assert!(refused(|c| c.listen = "127.0.0.1:0".parse().expect("address")).contains("port 0"));
        assert!(refused(|c| c.volumes.clear()).contains("volumes"));
        assert!(refused(|c| c.volumes.push("/v".into())).contains("twice"));
        assert!(refused(|c| c.io_memory_bytes = 1).contains("io_memory_bytes"));
        assert!(refused(|c| c.transfers_max = 0).contains("transfers_max"));
        for max in [0, PROTOCOL_MIN - 1, PROTOCOL_VERSION + 1] {
            let mut config = Config { protocol_max: Some(max), ..good.clone() };
            assert!(config.validate().expect_err("refused").to_string().contains("protocol_max"), "{max}");
            (config.protocol_max, config.log) = (Some(PROTOCOL_MIN), true);
            assert!(config.validate().expect_err("no log then").to_string().contains("protocol_max"));
        }
        let held = Config { protocol_max: Some(PROTOCOL_MIN), ..good.clone() };
        assert!(held.validate().is_ok());
        assert_eq!((held.protocols().newest(), good.protocols()), (PROTOCOL_MIN, Protocols::BUILD));
    }
}
