//! The settings files that `deadwax up` and `deadwax cluster init` write: TOML, with what each setting does.
//!
//! Every setting is there: one that is at its default stands in a comment. Values come from the `Config` types
//! themselves, so that no default is written down twice.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Context;
use deadwax_dht::NodeId;
use deadwax_dht::wire::PROTOCOL_VERSION;
use deadwax_gateway::Config as GatewayConfig;
use deadwax_node::{Config as MasterConfig, SHARDS_MAX};
use serde::Serialize;
use toml::{Table, Value};

use crate::layout::Plan;
use crate::node_spec::NodeSpec;

/// Whose keys a master knows beside those of the map's nodes.
pub(crate) struct Admitted {
    pub(crate) clients: Vec<NodeId>,
    pub(crate) admins: Vec<NodeId>,
}

/// Where the drives of a node are: a master may be started from anywhere.
pub(crate) fn drives(spec: &NodeSpec) -> anyhow::Result<Vec<PathBuf>> {
    let drives = spec.volumes.iter().map(std::path::absolute).collect::<Result<Vec<PathBuf>, _>>();
    drives.context("cannot tell where the volumes are")
}

/// The settings of the master that lives in `home`.
pub(crate) fn master(
    home: &Path,
    map: &Path,
    spec: &NodeSpec,
    plan: &Plan,
    admitted: &Admitted,
) -> anyhow::Result<MasterConfig> {
    let mut config = MasterConfig::new(home.to_owned(), spec.address, map.to_owned(), drives(spec)?);
    config.shards = plan.shards.and_then(NonZeroUsize::new);
    if let Some(bytes) = plan.segment_bytes {
        config.segment_bytes = bytes;
    }
    if let Some(bytes) = plan.reserve_bytes {
        config.reserve_bytes = bytes;
    }
    config.log = plan.has_log();
    config.tls = plan.tls;
    (config.clients, config.admins) = (admitted.clients.clone(), admitted.admins.clone());
    config.insecure_listen = plan.insecure_listen && !plan.tls && !spec.address.ip().is_loopback();
    Ok(config)
}

/// A setting in a file: its name, with dots where it is in a table, and what it does.
type Setting = (&'static str, &'static str);

const INSECURE_LISTEN: &str = "insecure_listen";

const MASTER: [Setting; 25] = [
    ("dir", "Where the node's key lies. Keep it: a node without it is another node."),
    ("map", "The cluster's map, the same on every node; with a log, the map that the log began with."),
    (
        "log",
        "Whether the cluster keeps its map in a log of its own, which takes three nodes: then nodes compare what they
         hold and mend it from one another. Never take it back.",
    ),
    (
        "issuers",
        "The public keys of those who may take tracks down, the same on every master. To add one, run `deadwax cluster
         issuer` where it is to be, name it on all masters and restart them in turns, and only then set `issuer_key`.
         Never take one out: a master without it would not know what that one took down.",
    ),
    (
        "issuer_key",
        "issuer_key: the file of this node's own key, if it is one of them. A key is one node's: two that sign with
         the same one, or an old copy of `system` beside it, are an alarm.",
    ),
    ("listen", "Where other nodes and gateways reach this one. The map says so too: change both."),
    ("advertise", "host:port that others reach it at, where that is not `listen`. The map must say the same."),
    (
        "tls",
        "Whether nodes and gateways speak TLS with one another, and prove who they are by their keys; the same on all of
         them. The map's nodes are admitted, and those below.",
    ),
    (
        "clients",
        "Names of the keys whose owners may read, store and take down tracks, where `tls` is set: gateways. SIGHUP reads
         them again.",
    ),
    ("admins", "The same for operators' tools, which may command, too. cluster.toml's folder has their key, admin.key."),
    (
        INSECURE_LISTEN,
        "Allows to listen elsewhere than on loopback without `tls`. Then nothing is encrypted and nobody is asked who he
         is: whoever reaches the port reads, stores and takes down tracks.",
    ),
    (
        "protocol_max",
        "The newest version of the protocol that the node speaks; what the program does, unless set. Holds a new
         program back while a cluster is upgraded. Take it out before the cluster is finalised at a later version:
         the node would stop.",
    ),
    ("volumes", "A directory for each drive, each on its own file system. Which volume is whose stands in the map."),
    ("shards", "How many cores serve; all of this machine, unless set. Each takes `io_memory_bytes`."),
    (
        "pin",
        "Whether each shard keeps to its core; yes, unless it listens on loopback. Steadier where the machine is
         its own; slower where other programs want the same cores.",
    ),
    (
        "io_memory_bytes",
        "Bytes of drive buffers a shard, resident from the start. Twice what is in flight: less is much slower.",
    ),
    (
        "segment_bytes",
        "Bytes of a segment file, taken from the drive at once; at least one a shard and volume.
         Smaller ones are recycled sooner and make a restart slower.",
    ),
    ("reserve_bytes", "Bytes of each drive that puts leave free, so that deletes work on a full one."),
    (
        "scrub_bytes_per_second",
        "Bytes a second that each volume reads to find rot, when nothing else is to be done; 0 for never.",
    ),
    ("rotating", "\"yes\", \"no\" or \"detect\": a drive that rotates is served by one core."),
    ("connections_max", "Connections at once; one more is turned away as busy. Up to 24 KiB each."),
    (
        "transfers_max",
        "Puts and gets at once, a shard; one more is turned away as busy. Up to 10.3 MiB each while they last.",
    ),
    ("idle_timeout_s", "Seconds that a connection may be silent between requests. Longer holds more of them open."),
    (
        "stall_timeout_s",
        "Seconds that a peer may take for the next bytes of a request; while it is waited for, so many bring 8 KiB each at
         least. Shorter cuts off slow networks; longer lets stalled peers hold transfers.",
    ),
    ("drain_timeout_s", "Seconds that requests under way get when it stops. Then they are cut off."),
];

const GATEWAY: [Setting; 18] = [
    ("listen", "Where clients reach it, by HTTP."),
    (
        INSECURE_LISTEN,
        "Allows to listen elsewhere than on loopback. HTTP is not encrypted and nobody is asked who he is yet: whoever
         reaches the port reads, stores and takes down tracks.",
    ),
    ("tls", "Whether masters are spoken to by TLS; as their settings say."),
    ("key", "The key by which masters know this gateway, where `tls` is set; their `clients` names it."),
    ("map", "The cluster's map, as the masters have it."),
    ("zone", "Which of the map's zones it is in: masters there are asked first; \"\" prefers none."),
    ("spool", "Where uploads wait whose id is not known yet: up to 512 MiB each. Nothing in it outlives the process."),
    ("cache_bytes", "Memory of the cache, taken as it fills; 0 for none."),
    ("threads", "How many cores serve, each with its own connections to masters; 0 for all."),
    (
        "verified_within_days",
        "Its status is unhealthy where a drive that holds tracks was not read and checked within so many days.",
    ),
    ("limits.connections_max", "Connections a thread; one more is answered 503. Each is a descriptor and some KiB."),
    (
        "limits.header_bytes_max",
        "Bytes of a request's line and headers, tags among them; more is answered 431. Each connection may take it.",
    ),
    (
        "limits.header_seconds_max",
        "Seconds that a connection may be idle, or take to send its headers. Longer holds more of them open.",
    ),
    (
        "limits.receive_stall_seconds_max",
        "Seconds that an upload may send nothing; then it is answered 408. Longer lets stalled ones hold transfers.",
    ),
    (
        "limits.send_stall_seconds_max",
        "Seconds that a client may take nothing of an answer; then it is cut off. A paused player counts.",
    ),
    ("limits.drain_seconds_max", "Seconds that requests under way get when it stops. Then they are cut off."),
    (
        "limits.spools_max",
        "Uploads without a known id at once; one more is answered 503. Each takes up to 512 MiB of `spool` and
         2 MiB of memory.",
    ),
    ("limits.known_bytes_max", "Memory for what is known of tracks (length, tags, proofs). Less asks masters more."),
];

/// The file: what differs from `defaults` is set, the rest stands in comments.
fn text(title: &str, config: &Table, defaults: &Table, settings: &[Setting]) -> String {
    let mut out = format!("# {title}\n# What stands in a comment is the default.\n");
    for (name, doc) in settings {
        out.push('\n');
        for line in doc.lines() {
            out.push_str(&format!("# {}\n", line.trim()));
        }
        let default = lookup(defaults, name);
        // Where it is in neither, a test says so.
        let Some(value) = lookup(config, name).or(default) else { continue };
        let comment = if Some(value) == default { "# " } else { "" };
        out.push_str(&format!("{comment}{name} = {value}\n"));
    }
    out
}

fn lookup<'a>(table: &'a Table, name: &str) -> Option<&'a Value> {
    match name.split_once('.') {
        Some((table_name, name)) => lookup(table.get(table_name)?.as_table()?, name),
        None => table.get(name),
    }
}

fn table(config: &impl Serialize) -> anyhow::Result<Table> {
    Table::try_from(config).context("settings must be UTF-8, their paths too")
}

/// The defaults, without the settings that have none.
fn defaults(config: &impl Serialize, without: &[&str]) -> anyhow::Result<Table> {
    let mut table = table(config)?;
    table.retain(|name, _| !without.contains(&name));
    Ok(table)
}

/// The file for a master's settings.
pub(crate) fn master_text(config: &MasterConfig) -> anyhow::Result<String> {
    let MasterConfig { dir, listen, map, volumes, .. } = config.clone();
    let mut default = MasterConfig::new(dir, listen, map, volumes);
    // What these are where they are not set follows from the rest, or from the machine.
    default.advertise = Some(default.advertised());
    default.protocol_max = Some(PROTOCOL_VERSION);
    default.pin = Some(!listen.ip().is_loopback());
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    default.shards = Some(cores.min(NonZeroUsize::new(SHARDS_MAX).expect("some")));
    let defaults = defaults(&default, &["dir", "listen", "map", "volumes"])?;
    let title = "A Deadwax master. Start it with: deadwax master --config THIS_FILE";
    Ok(text(title, &table(config)?, &defaults, &MASTER))
}

/// The file for the settings of the gateway that lives in `home`.
pub(crate) fn gateway_text(home: &Path, map: &Path, plan: &Plan) -> anyhow::Result<String> {
    let mut config = GatewayConfig::new(map.to_owned(), home.join("spool"));
    // Written even where it is the default: the plan says so, and clients are told.
    let defaults = defaults(&config, &["listen", "map", "spool"])?;
    config.listen = plan.gateway;
    config.tls = plan.tls;
    config.key = Some(gateway_key(home));
    config.insecure_listen = plan.insecure_listen && !plan.gateway.ip().is_loopback();
    let title = "A Deadwax gateway. Start it with: deadwax gateway --config THIS_FILE";
    Ok(text(title, &table(&config)?, &defaults, &GATEWAY))
}

/// Where the key of the gateway lies that lives in `home`.
pub(crate) fn gateway_key(home: &Path) -> PathBuf {
    home.join("gateway.key")
}

/// Reads a gateway's settings; what is wrong with them is named with its line.
pub fn load_gateway(path: &Path) -> anyhow::Result<GatewayConfig> {
    let read = || format!("read config {}", path.display());
    let text = std::fs::read_to_string(path).with_context(read)?;
    toml::from_str(&text).with_context(read)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The file with every setting set.
    fn uncommented(text: &str) -> String {
        let is_setting = |line: &str| {
            let name = line.split_once(" = ").map_or("", |(name, _)| name);
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.'))
        };
        let set = |line| match str::strip_prefix(line, "# ") {
            Some(setting) if is_setting(setting) => setting,
            _ => line,
        };
        text.lines().map(set).collect::<Vec<_>>().join("\n")
    }

    /// The names of all settings in a table, with dots.
    fn names(table: &Table, within: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for (name, value) in table {
            match value {
                Value::Table(inner) => all.append(&mut names(inner, &format!("{within}{name}."))),
                _ => drop(all.insert(format!("{within}{name}"))),
            }
        }
        all
    }

    /// That `text` sets all that the config type knows, once uncommented.
    fn assert_complete(text: &str, parsed: &Table) {
        let written: Table = toml::from_str(text).expect("TOML");
        assert_eq!(names(&written, ""), names(parsed, ""), "in\n{text}");
    }

    fn plan(gateway: &str) -> Plan {
        let gateway = gateway.parse().expect("an address");
        Plan {
            nodes: Vec::new(),
            gateway,
            insecure_listen: true,
            tls: false,
            log: true,
            shards: None,
            segment_bytes: None,
            reserve_bytes: None,
        }
    }

    #[test]
    fn a_masters_file_has_every_setting_at_what_it_is() {
        let plan = Plan { shards: Some(1), reserve_bytes: Some(7), ..plan("127.0.0.1:7878") };
        for address in ["127.0.0.1:7881", "10.1.2.3:7881"] {
            let address = address.parse().expect("an address");
            let spec = NodeSpec { zone: "a".to_owned(), address, volumes: vec!["/drives/a \"b\"".into()] };
            let admitted =
                Admitted { clients: vec![NodeId::from_bytes([1; 32])], admins: vec![NodeId::from_bytes([2; 32])] };
            let home = Path::new("/home");
            let mut config = master(home, Path::new("/map.toml"), &spec, &plan, &admitted).expect("settings");
            let text = master_text(&config).expect("UTF-8");
            assert_eq!(toml::from_str::<MasterConfig>(&text).expect("parses"), config, "{text}");
            let all = uncommented(&text);
            let parsed: MasterConfig = toml::from_str(&all).unwrap_or_else(|error| panic!("{error} in\n{all}"));
            parsed.validate().expect("good settings");
            (config.advertise, config.pin) = (Some(address.to_string()), Some(!address.ip().is_loopback()));
            config.protocol_max = Some(PROTOCOL_VERSION);
            assert_eq!(parsed, config);
            assert_complete(&all, &table(&parsed).expect("UTF-8"));
        }
    }

    #[test]
    fn a_gateways_file_has_every_setting_at_what_it_is() {
        for listen in ["127.0.0.1:7878", "10.1.2.3:80"] {
            let text = gateway_text(Path::new("/home"), Path::new("/map.toml"), &plan(listen)).expect("UTF-8");
            assert!(text.contains(&format!("\nlisten = \"{listen}\"\n")), "{text}");
            let mut config = GatewayConfig::new("/map.toml".into(), "/home/spool".into());
            config.listen = listen.parse().expect("an address");
            config.insecure_listen = !config.listen.ip().is_loopback();
            config.key = Some("/home/gateway.key".into());
            let all = uncommented(&text);
            for text in [&text, &all] {
                assert_eq!(toml::from_str::<GatewayConfig>(text).expect("parses"), config, "{text}");
            }
            assert_complete(&all, &table(&config).expect("UTF-8"));
        }
    }
}
