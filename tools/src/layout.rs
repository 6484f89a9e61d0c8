//! Where a cluster's files lie on one machine, and how they are made.
//!
//! ```text
//! DIR/cluster.toml             the map: nodes, volumes, policy
//! DIR/master-N/master.toml     settings, and the node's keys beside them
//! DIR/master-N/volume/         its drive, unless it was given others
//! DIR/gateway/gateway.toml     settings of the gateway, and its key beside them
//! DIR/admin.key                the key of whoever may command the nodes
//! DIR/logs/                    what the processes say
//! DIR/up.lock                  held by the `deadwax up` that runs here
//! ```

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use deadwax_dht::log::VOTERS_MIN;
use deadwax_dht::{ClusterId, MAP_VERSION, Map, MapSpec, Policy};
use deadwax_dht_tls::load_or_make_key;
use deadwax_node::Place;

use crate::children::Program;
use crate::node_spec::NodeSpec;
use crate::settings::{self, Admitted};

/// Where a gateway listens unless told otherwise.
pub const GATEWAY_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7878);
/// Masters take the free ports from here on.
pub const MASTER_PORT_FIRST: u16 = 7881;

const MAP: &str = "cluster.toml";
const LOCK: &str = "up.lock";
const LOGS: &str = "logs";
const GATEWAY: &str = "gateway";
const ADMIN_KEY: &str = "admin.key";
/// There while a layout is being made: nothing was started yet, and the next call goes on.
const UNFINISHED: &str = "unfinished";

/// What is to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The masters.
    pub nodes: Vec<NodeSpec>,
    /// Where the gateway is to listen.
    pub gateway: SocketAddr,
    /// Whether what has no TLS may listen elsewhere than on loopback, although nobody is asked who he is.
    pub insecure_listen: bool,
    /// Whether nodes and gateway speak TLS with one another. They have keys in any case.
    pub tls: bool,
    /// Whether the nodes keep the map in a log of their own, where there are enough of them: [`Plan::has_log`].
    pub log: bool,
    /// Cores that serve, a master; nothing for all.
    pub shards: Option<usize>,
    /// Bytes of a segment file; nothing for the engine's default.
    pub segment_bytes: Option<u64>,
    /// Bytes of each drive that puts leave free; nothing for the master's default.
    pub reserve_bytes: Option<u64>,
}

/// A cluster's files on this machine.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
    masters: usize,
}

/// Kept while a `deadwax up` runs; a second one on the same directory is refused.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock ends with the file")] File);

impl Plan {
    /// A plan for this machine alone: `masters` on free loopback ports from `port_first` on, sharing its cores, each
    /// with one volume in `dir`, and in the zones by turns; where none is named, all in one.
    pub fn loopback(
        dir: &Path,
        (masters, zones): (u16, &[String]),
        gateway: SocketAddr,
        port_first: u16,
    ) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let masters = usize::from(masters.max(1));
        let addresses = free_addresses(masters, port_first, gateway)?;
        let distinct: BTreeSet<&String> = zones.iter().filter(|zone| !zone.is_empty()).collect();
        if zones.len() > masters || distinct.len() < zones.len() {
            bail!("{masters} masters cannot be in the zones `{}`: name as many at most, each once", zones.join(","));
        }
        let zone = |index: usize| zones.get(index % zones.len().max(1)).map_or("local", String::as_str);
        let node = |(index, address)| NodeSpec {
            zone: zone(index).to_owned(),
            address,
            volumes: vec![master_dir(dir, index).join("volume")],
        };
        Ok(Self {
            nodes: addresses.into_iter().enumerate().map(node).collect(),
            gateway,
            insecure_listen: false,
            tls: false,
            log: true,
            shards: Some((cores / masters).max(1)),
            segment_bytes: Some(256 * deadwax_track::MIB),
            // They share a drive that is not theirs alone: the default would take a gibibyte of it from each.
            reserve_bytes: Some(64 * deadwax_track::MIB),
        })
    }

    /// Whether the nodes are to keep the map in a log, and are as many as that takes: three.
    #[must_use]
    pub const fn has_log(&self) -> bool {
        self.log && self.nodes.len() >= VOTERS_MIN
    }
}

/// The first `count` loopback addresses from `port_first` on that nobody listens at and that are not `except`.
fn free_addresses(count: usize, port_first: u16, except: SocketAddr) -> anyhow::Result<Vec<SocketAddr>> {
    let addresses = (port_first..=u16::MAX).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let free: Vec<_> =
        addresses.filter(|at| at.port() != except.port() && TcpListener::bind(at).is_ok()).take(count).collect();
    if free.len() < count {
        bail!("no {count} free ports from {port_first} on");
    }
    Ok(free)
}

fn master_dir(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("master-{}", index + 1))
}

impl Layout {
    /// What [`create`](Self::create) made in `dir`, or nothing where it did not, or not to the end.
    pub fn open(dir: &Path) -> anyhow::Result<Option<Self>> {
        if dir.join(UNFINISHED).exists() || !dir.join(MAP).exists() {
            return Ok(None);
        }
        let dir = absolute(dir)?;
        let map = Map::load(&dir.join(MAP))?;
        let masters = (0..map.spec().nodes.len()).take_while(|index| master_dir(&dir, *index).is_dir()).count();
        Ok(Some(Self { dir, masters }))
    }

    /// Makes keys, volumes, the map and commented settings in `dir`, which must be new or empty. A call that was cut
    /// off is made good by the next.
    pub fn create(dir: &Path, plan: &Plan) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let dir = absolute(dir)?;
        check_free(&dir).with_context(|| format!("cannot use {}", dir.display()))?;
        let unfinished = dir.join(UNFINISHED);
        let again = unfinished.exists();
        File::create(&unfinished).with_context(|| format!("cannot write to {}", dir.display()))?;
        let map_path = dir.join(MAP);
        let gateway = dir.join(GATEWAY);
        fs::create_dir_all(&gateway).with_context(|| format!("cannot make {}", gateway.display()))?;
        let admitted = Admitted {
            clients: vec![load_or_make_key(&settings::gateway_key(&gateway))?.node_id()],
            admins: vec![load_or_make_key(&dir.join(ADMIN_KEY))?.node_id()],
        };
        let (mut nodes, mut configs) = (Vec::new(), Vec::new());
        for (index, spec) in plan.nodes.iter().enumerate() {
            let home = master_dir(&dir, index);
            let config = settings::master(&home, &map_path, spec, plan, &admitted)?;
            let place = Place { zone: spec.zone.clone(), rack: None, weight: None };
            nodes.push(deadwax_node::init(&config, &place)?);
            if again {
                forget_founding(&home)?;
            }
            configs.push(config);
        }
        let mut name = [0; 16];
        getrandom::fill(&mut name).map_err(|error| anyhow::anyhow!("no randomness from the system: {error}"))?;
        let map = Map::new(MapSpec {
            version: MAP_VERSION,
            cluster: ClusterId::from_bytes(name),
            epoch: 1,
            policy: policy(nodes.len()),
            nodes,
            overrides: Vec::new(),
        })?;
        if plan.has_log() {
            name_issuers(map.spec(), &mut configs)?;
        }
        for config in &configs {
            write(&config.dir.join("master.toml"), &settings::master_text(config)?)?;
        }
        write(&gateway.join("gateway.toml"), &settings::gateway_text(&gateway, &map_path, plan)?)?;
        map.save(&map_path)?;
        for config in configs.iter().filter(|config| config.log) {
            deadwax_node::found(config)?;
        }
        fs::remove_file(&unfinished).and_then(|()| File::open(&dir)?.sync_all()).context("cannot finish")?;
        Ok(Self { dir, masters: plan.nodes.len() })
    }

    /// Takes the directory for one `deadwax up`. Makes it where it is missing.
    pub fn lock(dir: &Path) -> anyhow::Result<Lock> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join(LOCK);
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.with_context(|| format!("cannot write to {}", dir.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                bail!("another `deadwax up` runs in {} (process {})", dir.display(), holder.trim());
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).context("cannot write the lock")?;
        Ok(Lock(file))
    }

    /// The data directory, absolute.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many of the map's masters have their settings here.
    #[must_use]
    pub const fn masters(&self) -> usize {
        self.masters
    }

    /// The zones that its first masters were made in, in the order in which they were named.
    pub fn zones(&self) -> anyhow::Result<Vec<String>> {
        let map = Map::load(&self.map())?;
        let mut zones: Vec<String> = Vec::new();
        for node in &map.spec().nodes {
            if !zones.contains(&node.zone) {
                zones.push(node.zone.clone());
            }
        }
        Ok(zones)
    }

    /// The map's file.
    #[must_use]
    pub fn map(&self) -> PathBuf {
        self.dir.join(MAP)
    }

    /// The settings of master `index`, from 0.
    #[must_use]
    pub fn master_config(&self, index: usize) -> PathBuf {
        master_dir(&self.dir, index).join("master.toml")
    }

    /// The key of whoever may command the nodes.
    #[must_use]
    pub fn admin_key(&self) -> PathBuf {
        self.dir.join(ADMIN_KEY)
    }

    /// The key by which masters know the gateway.
    #[must_use]
    pub fn gateway_key(&self) -> PathBuf {
        settings::gateway_key(&self.dir.join(GATEWAY))
    }

    /// The settings of the gateway.
    #[must_use]
    pub fn gateway_config(&self) -> PathBuf {
        self.dir.join(GATEWAY).join("gateway.toml")
    }

    /// How to run master `index`, from 0, with the given `deadwax`.
    #[must_use]
    pub fn master(&self, index: usize, executable: &Path) -> Program {
        self.program(format!("master-{}", index + 1), "master", &self.master_config(index), executable)
    }

    /// How to run the gateway with the given `deadwax`.
    #[must_use]
    pub fn gateway(&self, executable: &Path) -> Program {
        self.program(GATEWAY.to_owned(), "gateway", &self.gateway_config(), executable)
    }

    fn program(&self, name: String, command: &str, config: &Path, executable: &Path) -> Program {
        let arguments: [OsString; 3] = [command.into(), "--config".into(), config.into()];
        let log = self.dir.join(LOGS).join(format!("{name}.log"));
        Program { name, executable: executable.to_owned(), arguments: arguments.into(), log }
    }
}

/// Makes a key for each voter, by which it takes tracks down, and names them in all settings: voters are spread over zones,
/// and follow the receipts.
fn name_issuers(spec: &MapSpec, configs: &mut [deadwax_node::Config]) -> anyhow::Result<()> {
    let voters = deadwax_node::founding_voters(spec);
    let mut issuers = Vec::with_capacity(voters.len());
    for (node, config) in spec.nodes.iter().zip(&mut *configs) {
        if voters.contains(&node.id) {
            let (path, key) = deadwax_node::make_issuer(&config.dir)?;
            config.issuer_key = Some(path);
            issuers.push(key);
        }
    }
    configs.iter_mut().for_each(|config| config.issuers.clone_from(&issuers));
    Ok(())
}

/// As many copies as there are nodes, up to three, of which all but one make a put durable.
fn policy(nodes: usize) -> Policy {
    let copies = u8::try_from(nodes.min(3)).expect("at most three");
    Policy { copies, write_quorum: copies.min(2), ..Policy::default() }
}

fn absolute(dir: &Path) -> anyhow::Result<PathBuf> {
    dir.canonicalize().with_context(|| format!("cannot use {}", dir.display()))
}

/// Refuses a directory with anything in it that an unfinished [`Layout::create`] did not leave.
fn check_free(dir: &Path) -> anyhow::Result<()> {
    if dir.join(UNFINISHED).exists() {
        return Ok(());
    }
    if dir.join(MAP).exists() {
        bail!("a cluster is there already");
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name != LOCK && name != LOGS {
            bail!("it is neither empty nor a cluster's (it has {name})");
        }
    }
    Ok(())
}

/// Removes what a call that was cut off made a node remember of its cluster: nothing was started with it.
fn forget_founding(home: &Path) -> anyhow::Result<()> {
    let system = home.join("system");
    match fs::remove_dir_all(&system) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", system.display()))
        }
        _ => Ok(()),
    }
}

/// Writes a file, durably.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_something_else_is_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("thesis.txt"), "years of work").expect("written");
        let plan = Plan::loopback(dir.path(), (1, &[]), GATEWAY_DEFAULT, MASTER_PORT_FIRST).expect("a plan");
        let error = Layout::create(dir.path(), &plan).expect_err("refused");
        assert!(format!("{error:#}").contains("thesis.txt"), "{error:#}");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1);
        assert!(Layout::open(dir.path()).expect("readable").is_none());
    }

    #[test]
    fn what_is_made_is_found_again_and_not_made_twice() {
        let dir = tempfile::tempdir().expect("a folder");
        let plan = Plan::loopback(dir.path(), (3, &[]), GATEWAY_DEFAULT, MASTER_PORT_FIRST).expect("a plan");
        let made = Layout::create(dir.path(), &plan).expect("made");
        let nodes = |made: &Layout| Map::load(&made.map()).expect("a map").spec().nodes.clone();
        let first = nodes(&made);
        let error = Layout::create(dir.path(), &plan).expect_err("refused");
        assert!(format!("{error:#}").contains("there already"), "{error:#}");

        // As if the call had been cut off before its end: the next goes on with the same keys and volumes.
        File::create(dir.path().join(UNFINISHED)).expect("made");
        fs::remove_file(made.map()).expect("removed");
        assert!(Layout::open(dir.path()).expect("readable").is_none());
        let made = Layout::create(dir.path(), &plan).expect("made");
        assert_eq!(nodes(&made), first);

        let found = Layout::open(dir.path()).expect("readable").expect("there");
        assert_eq!((made.masters(), found.masters()), (3, 3));
        for (index, spec) in plan.nodes.iter().enumerate() {
            let config = deadwax_node::Config::load(&found.master_config(index)).expect("good settings");
            assert_eq!((config.listen, config.segment_bytes), (spec.address, plan.segment_bytes.expect("set")));
        }
        let map = Map::load(&found.map()).expect("a map");
        assert_eq!((map.spec().nodes.len(), map.spec().policy.copies), (3, 3));
    }

    #[test]
    fn masters_keep_a_log_where_they_are_enough_unless_told_otherwise() {
        let dir = tempfile::tempdir().expect("a folder");
        for (masters, log) in [(1, true), (2, true), (3, true), (3, false)] {
            let dir = dir.path().join(format!("{masters} {log}"));
            let plan = Plan::loopback(&dir, (masters, &[]), GATEWAY_DEFAULT, MASTER_PORT_FIRST).expect("a plan");
            let layout = Layout::create(&dir, &Plan { log, ..plan }).expect("made");
            for index in 0..layout.masters() {
                let config = deadwax_node::Config::load(&layout.master_config(index)).expect("good settings");
                assert_eq!(config.log, masters == 3 && log, "master {index} of {masters}");
            }
        }
    }

    #[test]
    fn masters_are_dealt_out_to_zones() {
        let dir = tempfile::tempdir().expect("a folder");
        let zones = ["a", "b"].map(str::to_owned);
        let plan = |masters, zones: &[String]| {
            Plan::loopback(dir.path(), (masters, zones), GATEWAY_DEFAULT, MASTER_PORT_FIRST)
        };
        let layout = Layout::create(dir.path(), &plan(5, &zones).expect("a plan")).expect("made");
        let map = Map::load(&layout.map()).expect("a map");
        let in_zones: Vec<&str> = map.spec().nodes.iter().map(|node| node.zone.as_str()).collect();
        assert_eq!(in_zones, ["a", "b", "a", "b", "a"]);
        assert_eq!(layout.zones().expect("readable"), zones);
        let few = plan(1, &zones).expect_err("one master cannot be in two zones");
        assert!(few.to_string().contains("a,b"), "{few}");
        assert!(plan(2, &[String::new()]).is_err(), "a zone has a name");
        let twice = ["a", "a"].map(str::to_owned);
        assert!(plan(2, &twice).is_err(), "two of one name are one");
    }

    #[test]
    fn one_up_a_directory() {
        let dir = tempfile::tempdir().expect("a folder");
        let lock = Layout::lock(dir.path()).expect("free");
        let error = Layout::lock(dir.path()).expect_err("taken");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(lock);
        Layout::lock(dir.path()).expect("free again");
    }

    #[test]
    fn ports_that_are_taken_are_passed_over() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = taken.local_addr().expect("an address").port();
        let free = free_addresses(2, port, GATEWAY_DEFAULT).expect("free ports");
        assert!(free.iter().all(|at| at.port() > port), "{free:?}");
        assert_ne!(free[0], free[1]);
    }
}
