//! A cluster of real processes, and the files, drives and networks that it lives by.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use deadwax_dht::{Map, Volume};
use deadwax_track::{KIB, MIB};
use toml::Table;

use super::drives::{self, Rotten};
use super::errands::{Errands, Step};
use super::fault::{MASTERS, PLACES, ZONES, name, zone_of};
use super::journal::Journal;
use super::network;
use super::processes::Fleet;

/// Bytes of a drive of our own: no more are taken than are written, and weights, which go by GiB, can differ by a tenth.
pub(crate) const DRIVE_BYTES: u64 = 12 * 1024 * MIB;
const SEGMENT_BYTES: u64 = 32 * MIB;
const RESERVE_BYTES: u64 = 64 * MIB;
const IO_MEMORY_BYTES: u64 = 8 * MIB;
const TRANSFERS_MAX: u64 = 16;
const CONNECTIONS_MAX: u64 = 512;
/// Rot is to be found within seconds, as the run is to end within minutes.
const SCRUB_BYTES_PER_SECOND: u64 = 48 * MIB;
/// So that one that is stopped for some seconds is given up.
const STALL_TIMEOUT_S: u64 = 5;
/// Less than is put within seconds, so that most reads go to masters.
const CACHE_BYTES: u64 = 4 * MIB;
const KNOWN_BYTES_MAX: u64 = 16 * MIB;
/// What a gateway holds for one request: 4 MiB for each of three holders (`put_queue_bytes_max`), or the chunks of a get.
const GATEWAY_REQUEST_BYTES: u64 = 14 * MIB;

/// What a master logs that opens a volume again by itself.
const REVIVED: &str = "the drive answers again";

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// All of it.
    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// A master's settings, key and system state.
    pub(crate) fn master(&self, node: usize) -> PathBuf {
        self.0.join("cluster").join(name(node))
    }

    pub(crate) fn master_config(&self, node: usize) -> PathBuf {
        self.master(node).join("master.toml")
    }

    /// The map by which commands find the cluster: that with which it began, or a later one.
    fn map(&self) -> PathBuf {
        self.0.join("cluster/cluster.toml")
    }

    fn admin_key(&self) -> PathBuf {
        self.0.join("cluster/admin.key")
    }

    pub(crate) fn gateway_config(&self) -> PathBuf {
        self.0.join("cluster/gateway/gateway.toml")
    }

    pub(crate) fn drive(&self, node: usize) -> PathBuf {
        self.0.join("drives").join(name(node))
    }

    /// The drive that a master is given, and that is taken away again.
    pub(crate) fn second(&self, node: usize) -> PathBuf {
        self.0.join("drives").join(format!("{}-second", name(node)))
    }

    fn second_volume(&self, node: usize) -> PathBuf {
        self.second(node).join("volume")
    }

    /// The volumes that a master may have.
    pub(crate) fn volumes(&self, node: usize) -> [PathBuf; 2] {
        [self.volume(node), self.second_volume(node)]
    }

    pub(crate) fn volume(&self, node: usize) -> PathBuf {
        self.drive(node).join("volume")
    }

    pub(crate) fn segments(&self, node: usize) -> PathBuf {
        self.volume(node).join("segments")
    }

    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.0.join("logs").join(format!("{process}.log"))
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.0.join("journal.txt")
    }
}

/// The cluster. Dropped, its processes die and its drives are taken away; its files are the caller's.
pub(crate) struct Site {
    pub(crate) fleet: Fleet,
    pub(crate) files: Files,
    pub(crate) gateway: SocketAddr,
    pub(crate) journal: Arc<Journal>,
    /// What was made to rot and is not mended yet.
    pub(crate) rotten: Vec<Rotten>,
    /// What the operator is at.
    pub(crate) errands: Errands,
    /// The drives that hang.
    pub(crate) hung: Hung,
    /// Weights with which founding masters began.
    weights: Vec<u32>,
    masters: Vec<SocketAddr>,
    pub(crate) staged: bool,
    tls: bool,
}

/// What kind of cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Whether there are networks and drives of our own.
    pub(crate) staged: bool,
    /// Whether masters and the gateway speak TLS.
    pub(crate) tls: bool,
}

impl Site {
    /// Makes a cluster with a log and starts it: six masters in two zones, and a gateway. It does not serve yet.
    pub(crate) fn start(deadwax: &Path, files: &Files, kind: Kind, journal: &Arc<Journal>) -> anyhow::Result<Self> {
        let Kind { staged, tls } = kind;
        std::fs::create_dir_all(files.log("all").parent().context("a log is in a folder")?)?;
        let (masters, gateway) = network::addresses(staged)?;
        let (fleet, rotten, errands) = (Fleet::new(deadwax, files, staged, journal), Vec::new(), Errands::default());
        let (files, journal) = (files.clone(), Arc::clone(journal));
        // From here on it is taken down where something fails.
        let (hung, weights) = (Hung::default(), Vec::new());
        let mut site = Self { fleet, files, gateway, journal, rotten, errands, hung, weights, masters, staged, tls };
        if staged {
            network::build()?;
            (0..MASTERS).try_for_each(|node| drives::build(&site.files.drive(node), DRIVE_BYTES))?;
        }
        site.init(deadwax)?;
        site.weights = (0..MASTERS).map(|node| Ok(site.first_volume(node)?.weight)).collect::<anyhow::Result<_>>()?;
        (0..MASTERS).try_for_each(|node| site.fleet.start_master(node, None))?;
        site.fleet.start_gateway()?;
        Ok(site)
    }

    fn init(&self, deadwax: &Path) -> anyhow::Result<()> {
        let mut init = Command::new(deadwax);
        init.args(["cluster", "init", "--insecure-listen", "--listen", &self.gateway.to_string(), "--data"]);
        init.arg(self.files.0.join("cluster"));
        init.args(self.tls.then_some("--tls"));
        for node in 0..MASTERS {
            init.arg("--node").arg(self.spec(node));
        }
        let output = init.output().with_context(|| format!("run {}", deadwax.display()))?;
        ensure!(output.status.success(), "cluster init: {}", String::from_utf8_lossy(&output.stderr));
        (0..MASTERS).try_for_each(|node| self.settle_in(node))?;
        set(&self.files.gateway_config(), |settings| {
            settings.insert("cache_bytes".to_owned(), i64::try_from(CACHE_BYTES)?.into());
            settings.insert("threads".to_owned(), 1.into());
            let limits = settings.entry("limits").or_insert_with(|| Table::new().into());
            let limits = limits.as_table_mut().context("limits is a table")?;
            limits.insert("known_bytes_max".to_owned(), i64::try_from(KNOWN_BYTES_MAX)?.into());
            Ok(())
        })
    }

    /// Gives a master settings by which its faults show within seconds, and it shares the machine with others.
    pub(crate) fn settle_in(&self, node: usize) -> anyhow::Result<()> {
        set(&self.files.master_config(node), |settings| {
            let numbers = [
                ("shards", 1),
                ("segment_bytes", SEGMENT_BYTES),
                ("reserve_bytes", RESERVE_BYTES),
                ("io_memory_bytes", IO_MEMORY_BYTES),
                ("transfers_max", TRANSFERS_MAX),
                ("connections_max", CONNECTIONS_MAX),
                ("scrub_bytes_per_second", SCRUB_BYTES_PER_SECOND),
                ("stall_timeout_s", STALL_TIMEOUT_S),
            ];
            for (name, value) in numbers {
                settings.insert(name.to_owned(), i64::try_from(value)?.into());
            }
            settings.insert("pin".to_owned(), false.into());
            settings.insert("rotating".to_owned(), "no".into());
            Ok(())
        })
    }

    /// A master as commands are told of it.
    fn spec(&self, node: usize) -> String {
        format!("{}@{}={}", ZONES[zone_of(node)], self.masters[node], self.files.volume(node).display())
    }

    pub(crate) fn address(&self, node: usize) -> String {
        self.masters[node].to_string()
    }

    /// The volume with which the master in a founder's place began, and the weight of the founder.
    pub(crate) fn share(&self, node: usize) -> anyhow::Result<(String, u32)> {
        Ok((self.first_volume(node)?.id.to_string(), self.weights[node]))
    }

    fn first_volume(&self, node: usize) -> anyhow::Result<Volume> {
        let (map, address) = (Map::load(&self.files.map())?, self.address(node));
        let found = map.nodes().iter().find(|each| each.address == address).and_then(|node| node.volumes.first());
        found.copied().with_context(|| format!("{} is not in the map", name(node)))
    }

    /// A tenth of a founder's weight: what is given so much is given it at once.
    fn tenth(&self) -> String {
        (self.weights[0] / 10).max(1).to_string()
    }

    /// `deadwax cluster apply`.
    pub(crate) fn change(&self, change: &[&str]) -> Step {
        let mut arguments: Vec<String> = ["cluster", "apply"].map(str::to_owned).to_vec();
        arguments.extend(self.whom());
        arguments.extend(change.iter().map(|word| (*word).to_owned()));
        Step::Run(arguments)
    }

    /// `deadwax volume add` of a master's second drive.
    pub(crate) fn add_volume(&self, node: usize) -> anyhow::Result<Step> {
        let path = |path: PathBuf| drives::path(&path).map(str::to_owned);
        let (drive, config) = (path(self.files.second_volume(node))?, path(self.files.master_config(node))?);
        let words = ["volume", "add", &drive, "--config", &config, "--weight", &self.tenth()];
        Ok(Step::Run(words.map(str::to_owned).into_iter().chain(self.whom()).collect()))
    }

    /// `deadwax volume retire`, until it has nothing left.
    pub(crate) fn retire_volume(&self, volume: &str) -> Vec<String> {
        let words = ["volume", "retire", volume, "--wait"];
        words.map(str::to_owned).into_iter().chain(self.whom()).collect()
    }

    /// Takes the second drive out of a master's settings.
    pub(crate) fn forget_second(&self, node: usize) -> anyhow::Result<()> {
        let first = drives::path(&self.files.volume(node))?.to_owned();
        set(&self.files.master_config(node), |settings| {
            settings.insert("volumes".to_owned(), vec![first].into());
            Ok(())
        })
    }

    /// From now on commands find the cluster by the map that a master was given when it joined: founders whose names the
    /// first map has may be gone.
    pub(crate) fn publish_map_of(&self, node: usize) -> anyhow::Result<()> {
        let map = self.files.master(node).join("cluster.toml");
        std::fs::copy(&map, self.files.map()).with_context(|| format!("copy {}", map.display()))?;
        Ok(())
    }

    /// `deadwax cluster join` for who comes into a place: with a tenth of a founder's weight into the seventh's, with a founder's
    /// into his.
    pub(crate) fn join(&self, node: usize) -> anyhow::Result<Step> {
        let weight = self.weights.get(node).map_or_else(|| self.tenth(), u32::to_string);
        let path = |path: PathBuf| drives::path(&path).map(str::to_owned);
        let like = self.files.master_config((node + 1) % MASTERS);
        let (data, like, spec) = (path(self.files.master(node))?, path(like)?, self.spec(node));
        let words = ["cluster", "join", &spec, "--data", &data, "--like", &like, "--weight", &weight];
        let mut arguments: Vec<String> = words.map(str::to_owned).to_vec();
        arguments.extend((!self.tls).then(|| "--insecure-listen".to_owned()));
        arguments.extend(self.whom());
        Ok(Step::Run(arguments))
    }

    /// `deadwax status`: whether it ends with 0, and what it says.
    pub(crate) fn says_healthy(&self) -> anyhow::Result<Result<(), String>> {
        let output = Command::new(self.fleet.deadwax()).arg("status").args(self.whom()).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok(if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) })
    }

    /// Which masters commands go to, and who gives them.
    fn whom(&self) -> Vec<String> {
        let mut arguments = vec!["--map".to_owned(), self.files.map().display().to_string()];
        if self.tls {
            arguments.extend(["--key".to_owned(), self.files.admin_key().display().to_string()]);
        }
        arguments
    }

    /// Puts a new drive into a master's place, and nothing of who was there before.
    pub(crate) fn furnish(&self, node: usize) -> anyhow::Result<()> {
        drives::remove(&self.files.master(node))?;
        self.insert(&self.files.drive(node))
    }

    /// Puts a new drive there.
    pub(crate) fn insert(&self, drive: &Path) -> anyhow::Result<()> {
        if self.staged { drives::build(drive, DRIVE_BYTES) } else { drives::remove(drive) }
    }

    /// Takes a master's drives and all else that it has away.
    pub(crate) fn clear(&self, node: usize) -> anyhow::Result<()> {
        [self.files.drive(node), self.files.second(node)]
            .iter()
            .try_for_each(|drive| drives::destroy(drive, self.staged))?;
        drives::remove(&self.files.master(node))
    }

    /// The masters that are there now.
    pub(crate) fn members(&self) -> impl Iterator<Item = usize> {
        let there: Vec<usize> = (0..PLACES).filter(|node| self.files.master_config(*node).exists()).collect();
        there.into_iter()
    }

    /// How often a master brought back a volume whose drive had hung, as far as their logs tell.
    pub(crate) fn revived(&self) -> usize {
        let log = |node| std::fs::read_to_string(self.files.log(&name(node))).unwrap_or_default();
        (0..PLACES).map(|node| log(node).matches(REVIVED).count()).sum()
    }

    /// Forgets what was mended; what is left.
    pub(crate) fn still_rotten(&mut self) -> &[Rotten] {
        self.rotten.retain(|rotten| !rotten.is_mended());
        &self.rotten
    }

    /// The processes whose memory went beyond what their settings promise, with how much that was and how much it may be.
    pub(crate) fn too_large(&self, clients: usize, tracks: usize) -> Vec<(String, u64, u64)> {
        let all: BTreeSet<_> = self.fleet.peaks().iter().collect();
        all.into_iter()
            .map(|(name, peak)| (name.clone(), *peak, memory_max(name, clients, tracks)))
            .filter(|(_, peak, max)| peak > max)
            .collect()
    }
}

/// Drives that hang, as their masters say: not only those that were made to. All drives of a run are one drive of the
/// machine, which others use, too: where that stands still for some seconds, every master gives its own up at once.
#[derive(Default)]
pub(crate) struct Hung {
    now: BTreeSet<String>,
    /// How often one came to hang.
    pub(crate) times: usize,
}

impl Hung {
    /// These hang now. Those that are new.
    pub(crate) fn set(&mut self, now: BTreeSet<String>) -> Vec<String> {
        let new: Vec<String> = now.difference(&self.now).cloned().collect();
        self.times += new.len();
        self.now = now;
        new
    }

    pub(crate) fn any(&self) -> bool {
        !self.now.is_empty()
    }
}

/// The most memory that a process may take, by its settings.
pub(crate) fn memory_max(process: &str, clients: usize, tracks: usize) -> u64 {
    if process == "gateway" {
        // The program, its cache, what it knows of tracks, and what is under way.
        return 48 * MIB + CACHE_BYTES + KNOWN_BYTES_MAX + clients as u64 * GATEWAY_REQUEST_BYTES;
    }
    // Below what `deadwax_node::Config` says for one shard: nothing is allowed for the log.
    let buffers = IO_MEMORY_BYTES.max(TRANSFERS_MAX * 7 * MIB);
    let receive = TRANSFERS_MAX * 3_380 * KIB;
    48 * MIB + buffers + receive + CONNECTIONS_MAX * 24 * KIB + tracks as u64 * 18
}

/// Changes a settings file.
fn set(path: &Path, change: impl FnOnce(&mut Table) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut settings: Table = std::fs::read_to_string(path)?.parse()?;
    change(&mut settings)?;
    std::fs::write(path, settings.to_string()).with_context(|| format!("write {}", path.display()))
}

impl Drop for Site {
    fn drop(&mut self) {
        self.fleet.end();
        if self.staged {
            drives::unmount_all(&self.files);
        }
    }
}
