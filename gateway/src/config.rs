//! Settings of a gateway, as they stand in its TOML file.

use std::net::SocketAddr;
use std::path::PathBuf;

use deadwax_track::MIB;
use serde::{Deserialize, Serialize};

use crate::StartError;

/// A gateway's settings. All but `map` and `spool` have defaults.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen. Default `127.0.0.1:7878`; port 0 takes any free one.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Listen elsewhere than on loopback although HTTP has neither TLS nor authorisation yet. Default false. Hazard:
    /// whoever reaches the port reads, stores and takes down tracks.
    #[serde(default)]
    pub insecure_listen: bool,
    /// Whether the masters are spoken to by TLS. Default false; as their settings say. Needs `key`.
    #[serde(default)]
    pub tls: bool,
    /// The file of the key by which masters know the gateway: their settings name it (`clients`). Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The cluster's map file.
    pub map: PathBuf,
    /// The zone that the gateway is in, as the map calls it: masters there are asked first. Default empty: none is
    /// preferred.
    #[serde(default)]
    pub zone: String,
    /// A directory on a local drive for uploads whose id is not known yet; made if it is not there. Needs room for
    /// `limits.spools_max` times 512 MiB at worst. Nothing in it outlives the process.
    pub spool: PathBuf,
    /// Memory of the cache, in bytes. Default 256 MiB; 0 switches the cache off. It is taken as the cache fills.
    #[serde(default = "default_cache_bytes")]
    pub cache_bytes: u64,
    /// Threads that serve, each with its own runtime and its own connections to masters. Default 0: one a core.
    #[serde(default)]
    pub threads: usize,
    /// For how many days a drive that holds tracks may not have been read and checked to the end before the cluster's status
    /// is unhealthy. Default 60.
    #[serde(default = "default_verified_within_days")]
    pub verified_within_days: u64,
    /// What bounds a client's demands.
    #[serde(default)]
    pub limits: Limits,
}

/// How much a client may ask for, and how long it may take.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections a thread. Default 4,096. One more is answered 503 and closed.
    pub connections_max: usize,
    /// Bytes of a request's line and headers. Default 64 KiB, at least 8 KiB; more is answered 431. Tags travel in a
    /// header and take up to 16 KiB before JSON escapes them.
    pub header_bytes_max: usize,
    /// Seconds from when a connection could send a request until its headers have arrived; idle connections
    /// are closed by it. Default 60.
    pub header_seconds_max: u64,
    /// Seconds that an upload may send nothing. Default 25; then it is answered 408. Below the 30 after which masters
    /// give a silent put up: beyond that it would be answered 503, as is one of less than 64 kbit/s, which they give up too.
    pub receive_stall_seconds_max: u64,
    /// Seconds that a client may take nothing of an answer. Default 300; then the connection is closed. A player
    /// that pauses longer asks again with a range.
    pub send_stall_seconds_max: u64,
    /// Seconds that requests may go on after a signal to stop. Default 10; then they are cut off.
    pub drain_seconds_max: u64,
    /// Uploads without a known id at once. Default 16; one more is answered 503. Each takes up to 512 MiB of the
    /// spool directory and about 2 MiB of memory.
    pub spools_max: usize,
    /// Memory for what is known of tracks (length, tags, manifest), in bytes. Default 64 MiB.
    pub known_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            header_bytes_max: 64 * 1024,
            header_seconds_max: 60,
            receive_stall_seconds_max: 25,
            send_stall_seconds_max: 300,
            drain_seconds_max: 10,
            spools_max: 16,
            known_bytes_max: 64 * 1024 * 1024,
        }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7878))
}

fn default_cache_bytes() -> u64 {
    256 * MIB
}

fn default_verified_within_days() -> u64 {
    deadwax_dht_client::ClientConfig::default().verified_within_s / 86_400
}

impl Config {
    /// The defaults, with the two paths that have none.
    #[must_use]
    pub fn new(map: PathBuf, spool: PathBuf) -> Self {
        Self {
            listen: default_listen(),
            insecure_listen: false,
            tls: false,
            key: None,
            map,
            zone: String::new(),
            spool,
            cache_bytes: default_cache_bytes(),
            threads: 0,
            verified_within_days: default_verified_within_days(),
            limits: Limits::default(),
        }
    }

    /// What is wrong with the values themselves, before anything is opened.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        if !self.listen.ip().is_loopback() && !self.insecure_listen {
            return Err(StartError::InsecureListen(self.listen));
        }
        if self.tls && self.key.is_none() {
            return Err(StartError::Setting { key: "key", why: "must name a key's file where `tls` is set" });
        }
        let limits = &self.limits;
        let positive = [
            ("limits.connections_max", limits.connections_max as u64),
            ("limits.header_seconds_max", limits.header_seconds_max),
            ("limits.receive_stall_seconds_max", limits.receive_stall_seconds_max),
            ("limits.send_stall_seconds_max", limits.send_stall_seconds_max),
            ("limits.spools_max", limits.spools_max as u64),
            ("limits.known_bytes_max", limits.known_bytes_max as u64),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(StartError::Setting { key, why: "must be at least 1" });
        }
        // The HTTP library's own lower bound; below it, it panics.
        if limits.header_bytes_max < 8192 {
            return Err(StartError::Setting { key: "limits.header_bytes_max", why: "must be at least 8192" });
        }
        if self.verified_within_days > 36_500 {
            return Err(StartError::Setting { key: "verified_within_days", why: "must be at most 36500" });
        }
        if self.threads > 1024 {
            return Err(StartError::Setting { key: "threads", why: "must be at most 1024" });
        }
        Ok(())
    }

    /// How many threads serve.
    pub(crate) fn thread_count(&self) -> usize {
        if self.threads > 0 { self.threads } else { std::thread::available_parallelism().map_or(1, usize::from) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_beyond_loopback_wants_to_be_told_so() {
        let mut config = Config::new("map".into(), "spool".into());
        assert!(config.check().is_ok());
        config.listen = "0.0.0.0:7878".parse().expect("an address");
        let refused = config.check().expect_err("no TLS, no tokens").to_string();
        assert!(refused.contains("insecure_listen = true") && refused.contains("0.0.0.0:7878"), "{refused}");
        config.insecure_listen = true;
        assert!(config.check().is_ok());
        config.listen = "[::1]:0".parse().expect("an address");
        config.insecure_listen = false;
        assert!(config.check().is_ok());
    }

    #[test]
    fn unknown_keys_and_senseless_values_are_named() {
        let parsed = serde_json::from_str::<Config>(r#"{"map":"m","spool":"s","lisen":1}"#);
        assert!(parsed.expect_err("a typing error").to_string().contains("lisen"));
        let mut config: Config = serde_json::from_str(r#"{"map":"m","spool":"s"}"#).expect("defaults");
        assert_eq!(config, Config::new("m".into(), "s".into()));
        config.tls = true;
        assert!(config.check().expect_err("without a key").to_string().contains("setting key "));
        config.key = Some("gateway.key".into());
        assert!(config.check().is_ok());
        config.limits.header_bytes_max = 100;
        assert!(config.check().expect_err("too small").to_string().contains("limits.header_bytes_max"));
    }
}
