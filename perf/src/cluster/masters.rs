//! Three masters on loopback, as `deadwax up` makes and starts them, and what they cost.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use deadwax::children;
use deadwax::layout::{Layout, Plan};
use deadwax_dht::Map;
use deadwax_dht_client::{Client, ClientConfig, Presence};
use deadwax_dht_tls::{Identity, load_key};
use deadwax_track::TrackId;
use tokio::process::Child;

use super::Mode;

const COUNT: u16 = 3;
/// Below the ports that the system gives to clients.
const PORT_FIRST: u16 = 17_881;
const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(20);

/// Three masters that run, and a client of theirs.
pub(super) struct Masters {
    deadwax: PathBuf,
    layout: Layout,
    children: Vec<Child>,
    pub(super) client: Client,
}

/// What processes have spent since they began.
#[derive(Clone, Copy, Default)]
pub(super) struct Spent {
    /// CPU time, the kernel's for them included, seconds.
    pub(super) cpu_s: f64,
    /// How often a thread waited for something.
    pub(super) waits: f64,
}

impl Masters {
    /// Makes a cluster in `dir`, starts its masters, and waits until they know what they do not have.
    pub(super) async fn start(deadwax: &Path, dir: &Path, mode: Mode) -> anyhow::Result<Self> {
        let gateway = SocketAddr::from(([127, 0, 0, 1], PORT_FIRST - 1));
        let mut plan = Plan::loopback(dir, (COUNT, &[]), gateway, PORT_FIRST)?;
        (plan.log, plan.tls) = (mode.log, mode.tls);
        let layout = Layout::create(dir, &plan)?;
        let start = |index| layout.master(index, deadwax).start();
        let children = (0..layout.masters()).map(start).collect::<Result<_, _>>().context("start a master")?;
        let identity = mode.tls.then(|| load_key(&layout.gateway_key())).transpose()?.map(|key| Identity::new(&key));
        let client =
            Client::new(Arc::new(Map::load(&layout.map())?), ClientConfig { identity, ..ClientConfig::default() });
        let (started, never_stored) = (Instant::now(), TrackId::of(&[]));
        loop {
            match client.presence(never_stored).await {
                Ok(Presence::Absent) => return Ok(Self { deadwax: deadwax.to_owned(), layout, children, client }),
                said => ensure!(started.elapsed() < START_MAX, "not ready within {START_MAX:?}: {said:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the masters and this process have spent.
    pub(super) fn spent(&self) -> anyhow::Result<Spent> {
        let ids = self.children.iter().filter_map(Child::id).chain([std::process::id()]);
        ids.map(spent).try_fold(Spent::default(), |sum, one| {
            let one = one?;
            Ok(Spent { cpu_s: sum.cpu_s + one.cpu_s, waits: sum.waits + one.waits })
        })
    }

    /// What each master has spent.
    pub(super) fn each_spent(&self) -> anyhow::Result<Vec<Spent>> {
        self.children.iter().filter_map(Child::id).map(spent).collect()
    }

    /// The bytes of each master that are in memory.
    pub(super) fn each_resident(&self) -> anyhow::Result<Vec<u64>> {
        let of = |id: u32| crate::process::status_of(&id.to_string(), "VmRSS:");
        self.children.iter().filter_map(Child::id).map(of).collect()
    }

    /// Takes all tracks from a master, as a drive that was replaced in its place, and starts it again.
    pub(super) async fn empty(&mut self, index: usize) -> anyhow::Result<()> {
        self.children[index].kill().await.context("kill a master")?;
        let volume = self.layout.master_config(index).with_file_name("volume");
        for part in ["segments", "snapshots"] {
            for file in std::fs::read_dir(volume.join(part)).with_context(|| format!("list {}", volume.display()))? {
                std::fs::remove_file(file?.path())?;
            }
        }
        self.children[index] = self.layout.master(index, &self.deadwax).start().context("start a master")?;
        Ok(())
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        for mut child in self.children {
            children::stop(&mut child, STOP_MAX).await?;
        }
        Ok(())
    }
}

impl Spent {
    pub(super) fn since(self, before: Self) -> Self {
        Self { cpu_s: self.cpu_s - before.cpu_s, waits: self.waits - before.waits }
    }
}

/// What one process has spent. Source: proc(5), `stat` and `status`; threads that ended have no waits any more.
fn spent(id: u32) -> anyhow::Result<Spent> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).context("a master ended")?;
    // Its name is in parentheses and may have spaces: what follows counts from field 3.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|ticks| ticks.parse::<f64>().ok());
    let (user, system) = ticks(14).zip(ticks(15)).context("/proc/PID/stat has no CPU time")?;
    let mut waits = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{id}/task"))?.flatten() {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        waits += line.and_then(|count| count.trim().parse::<f64>().ok()).unwrap_or(0.0);
    }
    #[expect(clippy::cast_precision_loss, reason = "a hundred")]
    let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
    Ok(Spent { cpu_s: (user + system) / ticks_per_s, waits })
}
