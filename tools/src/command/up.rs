//! `deadwax up`: a whole cluster on this machine, as long as the command runs.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use deadwax_track::TrackId;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::say;
use crate::album::{self, SONGS};
use crate::cli::Up;
use crate::cluster::{Cluster, Start};
use crate::importer::{self, Line, Summary};
use crate::layout::{GATEWAY_DEFAULT, Layout, MASTER_PORT_FIRST, Plan};
use crate::progress::Progress;
use crate::settings;
use crate::unread::tell;
use crate::upload::Outcome;

const MASTERS_DEFAULT: u16 = 3;

pub(super) async fn run(up: Up, log_json: bool) -> anyhow::Result<bool> {
    let mut signals = Signals::new()?;
    let _lock = Layout::lock(&up.data)?;
    let layout = prepare(&up)?;
    let recorded = settings::load_gateway(&layout.gateway_config())?;
    let listen = up.listen.unwrap_or(recorded.listen);
    permit(listen, up.insecure_listen || recorded.insecure_listen)?;
    let executable = std::env::current_exe().context("cannot tell which program this is")?;
    let mut cluster = Cluster::start(Start {
        layout: &layout,
        executable: &executable,
        listen,
        insecure_listen: up.insecure_listen,
        log_json,
    })?;
    let lived = tokio::select! {
        lived = live(&mut cluster, &layout, &up) => lived,
        () = signals.next() => Ok(()),
    };
    tell(format_args!("\nStopping ..."));
    tokio::select! {
        () = cluster.stop() => {}
        // Asked twice: whoever is left is killed, which costs nothing that was acknowledged.
        () = signals.next() => bail!("killed before all had stopped"),
    }
    lived.map(|()| true)
}

fn prepare(up: &Up) -> anyhow::Result<Layout> {
    let Some(layout) = Layout::open(&up.data)? else {
        let gateway = up.listen.unwrap_or(GATEWAY_DEFAULT);
        let masters = up.masters.unwrap_or(MASTERS_DEFAULT);
        permit(gateway, up.insecure_listen)?;
        let mut plan = Plan::loopback(&up.data, (masters, &up.zones), gateway, MASTER_PORT_FIRST)?;
        plan.insecure_listen = up.insecure_listen;
        plan.log = !up.no_log;
        let layout = Layout::create(&up.data, &plan)?;
        tell(format_args!("Made a new cluster of {masters} masters in {}.", layout.dir().display()));
        return Ok(layout);
    };
    if up.no_log && has_log(&layout)? {
        bail!("{} has a log, which is for good: leave out --no-log", layout.dir().display());
    }
    if !up.zones.is_empty() {
        let zones = layout.zones()?;
        if up.zones != zones {
            let (dir, zones) = (layout.dir().display(), zones.join(","));
            bail!("{dir} has masters in the zones {zones}, and `up` moves none: leave out --zones");
        }
    }
    match up.masters {
        Some(masters) if usize::from(masters) != layout.masters() => bail!(
            "{} has {} masters, not {masters}; `up` neither adds nor takes nodes (in a cluster with a log `deadwax cluster \
             join` does)",
            layout.dir().display(),
            layout.masters()
        ),
        _ => Ok(layout),
    }
}

/// Whether the cluster's masters keep their map in a log.
fn has_log(layout: &Layout) -> anyhow::Result<bool> {
    let mut files = (0..layout.masters()).map(|index| layout.master_config(index));
    files.next().map_or(Ok(false), |file| Ok(deadwax_node::Config::load(&file)?.log))
}

fn permit(listen: SocketAddr, insecure: bool) -> anyhow::Result<()> {
    if !listen.ip().is_loopback() && !insecure {
        bail!(
            "{listen} is not loopback, and whoever reaches it could read, store and take down tracks; where the network \
             is trusted, add --insecure-listen"
        );
    }
    Ok(())
}

/// Ends only where the cluster cannot go on.
async fn live(cluster: &mut Cluster, layout: &Layout, up: &Up) -> anyhow::Result<()> {
    cluster.ready().await?;
    if up.json {
        say(serving(cluster, layout)?)?;
        if up.demo {
            let (_, lines) = store_demo(cluster, layout).await?;
            songs(cluster, &lines).map(|song| json!({"song": song})).try_for_each(say)?;
        }
        bail!("{}", cluster.broken().await)
    }
    let url = cluster.client().url();
    say(format_args!("Deadwax is up: the gateway is {url}, {} masters behind it.", layout.masters()))?;
    say(format_args!("Data, settings and logs are in {}.", layout.dir().display()))?;
    if up.demo {
        play_demo(cluster, layout).await?;
    } else {
        say("Bring music in with:  deadwax import DIR")?;
    }
    say("Ctrl-C stops everything; started again, everything is there.")?;
    bail!("{}", cluster.broken().await)
}

/// What serves, for programs.
fn serving(cluster: &Cluster, layout: &Layout) -> anyhow::Result<Value> {
    let text = |path: PathBuf| path.display().to_string();
    let master = |index| {
        let file = layout.master_config(index);
        let address = deadwax_node::Config::load(&file)?.listen;
        Ok(json!({"address": address, "config": text(file)}))
    };
    let masters = (0..layout.masters()).map(master).collect::<anyhow::Result<Vec<_>>>()?;
    let gateway = cluster.client().url().to_string();
    let (data, map, admin_key) = (layout.dir().display().to_string(), text(layout.map()), text(layout.admin_key()));
    Ok(json!({"gateway": gateway, "masters": masters, "data": data, "map": map, "admin_key": admin_key}))
}

/// A song of the demo that is stored: what `up --json` prints.
#[derive(Serialize)]
struct DemoSong {
    title: &'static str,
    id: TrackId,
    length_ms: u32,
    url: String,
    outcome: Outcome,
}

async fn play_demo(cluster: &Cluster, layout: &Layout) -> anyhow::Result<()> {
    let (summary, lines) = store_demo(cluster, layout).await?;
    say(format_args!("The demo's album: {summary}."))?;
    say("\nListen, in a browser:\n")?;
    for song in songs(cluster, &lines) {
        let seconds = song.length_ms / 1000;
        say(format_args!("  {:<14} {}:{:02}  {}", song.title, seconds / 60, seconds % 60, song.url))?;
    }
    if let Some(DemoSong { url, .. }) = songs(cluster, &lines).next() {
        say("\nOr from a shell:\n")?;
        say(format_args!("  ffplay -nodisp -autoexit {url}"))?;
        say(format_args!("  curl -o lead-in.wav {url}"))?;
        say(format_args!("  curl {url}/tags\n"))?;
    }
    Ok(())
}

/// Brings the album into the store: what came of it, and of each song in order.
async fn store_demo(cluster: &Cluster, layout: &Layout) -> anyhow::Result<(Summary, Vec<Line>)> {
    let folder = layout.dir().join("demo");
    let writing = tokio::task::spawn_blocking(move || album::write(&folder));
    let paths = writing.await?.context("cannot make the demo's album")?;
    let progress = Progress::new("importing", true);
    let mut lines = Vec::new();
    // One at a time, so that they are listed in the album's order.
    let summary = importer::import(cluster.client(), paths, 1, &progress, |line| lines.push(line.clone())).await;
    progress.finish();
    if let Some(line) = lines.iter().find(|line| line.error.is_some()) {
        bail!("the demo was not stored: {}: {}", line.path, line.error.as_deref().unwrap_or_default());
    }
    Ok((summary, lines))
}

fn songs(cluster: &Cluster, lines: &[Line]) -> impl Iterator<Item = DemoSong> {
    SONGS.iter().zip(lines).filter_map(|(song, line)| {
        let id = line.id?;
        let url = format!("{}/v1/tracks/{id}", cluster.client().url());
        Some(DemoSong { title: song.title, id, length_ms: song.length_ms(), url, outcome: line.outcome })
    })
}

/// What ends `up`: Ctrl-C, SIGTERM, and the terminal's end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
