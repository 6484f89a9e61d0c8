//! `deadwax-perf sim`: whole clusters of the real cores in virtual time, for longer than the tests; and what placement and
//! routing give at scale.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use deadwax_dht::{ClusterId, MAP_VERSION, Map, MapSpec, Node, NodeId, PartitionBytes, Plan, Policy, Volume, VolumeId};
use deadwax_dht_sim::{FaultKind, Probes, Scale, Scenario, Summary};
use deadwax_track::{Partition, TrackId};
use serde_json::json;

use crate::report::{Board, Report};

#[path = "../../dht/tests/rules/routing/net.rs"]
#[allow(dead_code, reason = "the tests of routing use the rest")]
mod net;
#[path = "../../dht/tests/rules/random.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod random;

/// How many seeds are run between two lines of progress.
const CHUNK: u64 = 500;
/// Volumes of the cluster whose placement is looked at, one a node.
const VOLUMES: u64 = 100;
/// Nodes of the network in which partitions are looked up.
const ROUTERS: usize = 10_000;
/// Faults of a large cluster.
const FAULTS_AN_HOUR: u64 = 12;

/// What to run.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Small clusters, a seed each, with all kinds of fault.
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// How many clusters live at once [default: one for each core].
    #[arg(long)]
    threads: Option<usize>,
    /// Only this part; may be repeated [default: all].
    #[arg(long)]
    only: Vec<Part>,
    /// One large cluster of so many nodes, a multiple of ten, instead of the two of `scale`.
    #[arg(long)]
    nodes: Option<usize>,
    /// How many simulated minutes of it.
    #[arg(long, default_value_t = 60, requires = "nodes")]
    minutes: u64,
}

/// A part of the command.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// Small clusters, with all kinds of fault.
    Seeds,
    /// Each mistake on purpose, until a checker finds it. With the feature `planted` only.
    Planted,
    /// How even placement is, and how much a change moves.
    Placement,
    /// Lookups in a network of 10,000 nodes without the map.
    Lookups,
    /// 1,000 nodes for 24 simulated hours, and 10,000 for one. A seventh faster with huge pages: set
    /// `GLIBC_TUNABLES=glibc.malloc.hugetlb=1`.
    Scale,
}

/// The first seed that breaks a rule ends the run with an error that says how to replay it.
pub(crate) fn run(options: &Options, seed: u64) -> anyhow::Result<Report> {
    let threads = match options.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().context("count the cores")?.get(),
    };
    ensure!(threads > 0, "no thread would run anything");
    let wanted = |part: Part| options.only.is_empty() || options.only.contains(&part);
    let mut board = Board::default();
    if wanted(Part::Placement) {
        placement(seed, &mut board)?;
    }
    if wanted(Part::Lookups) {
        lookups(seed, &mut board)?;
    }
    if let Some(nodes) = options.nodes {
        ensure!(nodes > 10 && nodes.is_multiple_of(10), "--nodes is a multiple of ten, at least 20, not {nodes}");
        let one = Scale { nodes, minutes: options.minutes, faults: FAULTS_AN_HOUR };
        scale(seed, one, "sim_s", &mut board)?;
    } else if wanted(Part::Scale) {
        let long = Scale { nodes: 1_000, minutes: 24 * 60, faults: 48 };
        scale(seed, long, "sim_1k_nodes_24h_s", &mut board)?;
        let large = Scale { nodes: 10_000, minutes: 60, faults: FAULTS_AN_HOUR };
        scale(seed, large, "sim_10k_nodes_1h_s", &mut board)?;
    }
    if wanted(Part::Seeds) {
        seeds(options.seeds, threads, seed, &mut board)?;
    }
    if wanted(Part::Planted) {
        planted(threads, &mut board)?;
    }
    let settings = json!({ "seeds": options.seeds, "threads": threads, "seed": seed });
    Ok(Report::new(settings, board.figures()))
}

#[expect(clippy::cast_precision_loss, reason = "counts, far below 2^52")]
const fn float(count: u64) -> f64 {
    count as f64
}

/// Many small clusters.
fn seeds(count: u64, threads: usize, first: u64, board: &mut Board) -> anyhow::Result<()> {
    let started = Instant::now();
    let (mut runs, mut events, mut settled) = (0, 0, 0);
    let (mut probes, mut faults) = (Probes::default(), vec![0; FaultKind::ALL.len()]);
    while runs < count {
        let next = first + runs;
        let summary = Summary::of(next..next + CHUNK.min(count - runs), threads, 1, &Scenario::new);
        if let Some(failure) = summary.failures.first() {
            anyhow::bail!("a cluster broke a rule\n{failure}");
        }
        runs += summary.runs;
        events += summary.events;
        settled = settled.max(summary.settled_after.0);
        probes.merge(&summary.probes);
        faults.iter_mut().zip(&summary.faults).for_each(|(sum, more)| *sum += more);
        eprintln!("{} s: {runs} clusters, {events} events, no rule broken", started.elapsed().as_secs());
    }
    let missing: Vec<&str> = probes.missing().into_iter().map(|probe| probe.text()).collect();
    ensure!(count < 1_000 || missing.is_empty(), "states that no cluster came to: {missing:?}");
    let idle = FaultKind::missing(&faults);
    ensure!(count < 1_000 || idle.is_empty(), "faults that struck in no cluster: {idle:?}");
    board.add_plain("seeds", "clusters", float(runs));
    // The first one would have ended the run.
    board.add_plain("violations", "rules", 0.0);
    board.add_plain("fault_kinds", "kinds", float(faults.iter().map(|count| u64::from(*count > 0)).sum()));
    board.add_plain("seeds_per_s", "clusters/s", float(runs) / started.elapsed().as_secs_f64());
    board.add_plain("settled_after_max_s", "s", float(settled));
    Ok(())
}

/// Each mistake on purpose.
#[cfg(feature = "planted")]
fn planted(threads: usize, board: &mut Board) -> anyhow::Result<()> {
    use deadwax_dht_sim::{PLANTED_SEEDS_MAX, Search};
    let mut caught = 0;
    for bug in deadwax_dht::core::Bug::ALL {
        let Search { found, by_others } = Search::of(bug, threads);
        for report in by_others {
            eprintln!("{bug:?}: seed {}, by another rule: {}", report.seed, report.violations[0]);
        }
        let report = found.with_context(|| format!("{bug:?} is not found by {PLANTED_SEEDS_MAX} seeds"))?;
        eprintln!("{bug:?}: found with seed {}: {}", report.seed, report.violations[0]);
        caught += 1;
    }
    board.add_plain("planted_bugs_caught", "bugs", float(caught));
    Ok(())
}

/// Each mistake on purpose: this program makes none.
#[cfg(not(feature = "planted"))]
#[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
fn planted(_: usize, _: &mut Board) -> anyhow::Result<()> {
    eprintln!("planted_bugs_caught is not measured: build with --features planted");
    Ok(())
}

/// A large cluster.
fn scale(seed: u64, scale: Scale, name: &str, board: &mut Board) -> anyhow::Result<()> {
    eprintln!("{} nodes for {} simulated minutes", scale.nodes, scale.minutes);
    let started = Instant::now();
    let report = deadwax_dht_sim::run(&Scenario { scale: Some(scale), ..Scenario::new(seed) });
    let seconds = started.elapsed();
    ensure!(report.violations.is_empty(), "a large cluster broke a rule\n{report}");
    eprintln!("{} events, {} steps of cores, epoch {}", report.events, report.steps, report.epoch);
    board.add_plain(name, "s", seconds.as_secs_f64());
    let per_node = seconds / u32::try_from(scale.nodes).context("too many nodes")?;
    board.add_plain(&format!("{name}_us_per_node_s"), "us", nanos(per_node) * 1e6 / (report.time as f64) / 1e3);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "times, far below 2^52")]
const fn nanos(time: Duration) -> f64 {
    time.as_nanos() as f64
}

/// How full the fullest volume is beside its fair share, and what joins, leaves and new weights move beside the unavoidable:
/// the greatest of all.
fn placement(seed: u64, board: &mut Board) -> anyhow::Result<()> {
    let spec = MapSpec {
        version: MAP_VERSION,
        cluster: ClusterId::from_bytes([0; 16]),
        epoch: 1,
        policy: Policy::default(),
        nodes: (0..VOLUMES).map(|number| node(seed, number)).collect(),
        overrides: Vec::new(),
    };
    let mut map = Map::settled(spec).context("place a new cluster")?;
    let (mut fullest, mut moved) = (0.0_f64, 0.0_f64);
    for round in 0..12 {
        let mut next = map.spec().clone();
        next.epoch += 1;
        match round % 3 {
            0 => next.nodes.push(node(seed, VOLUMES + round)),
            1 => drop(next.nodes.remove(7 * usize::try_from(round).expect("few"))),
            _ => next.nodes[11].volumes[0].weight *= 2,
        }
        let plan = Plan::new(&map, next, PartitionBytes::Uniform(1)).context("plan a change")?;
        let fullness = plan.shares().iter().map(|share| share.fullness_ppm).max().unwrap_or(0);
        fullest = fullest.max(float(fullness) / 1e6);
        #[expect(clippy::cast_precision_loss, reason = "at most 65,536 partitions of one byte")]
        let ratio = plan.bytes_to_move() as f64 / plan.bytes_unavoidable().max(1) as f64;
        moved = moved.max(ratio);
        map = plan.into_map();
    }
    board.add_plain("placement_max_over_fair", "ratio", fullest);
    board.add_plain("placement_moved_over_ideal", "ratio", moved);
    Ok(())
}

fn node(seed: u64, number: u64) -> Node {
    let bytes: Vec<u8> = [seed, number].iter().flat_map(|number| number.to_le_bytes()).collect();
    let id = *TrackId::of(&bytes).as_bytes();
    let volume = VolumeId::from_bytes(*id.first_chunk().expect("32 bytes have 16"));
    let volumes =
        vec![Volume { id: volume, weight: [1_000, 2_000, 4_000][usize::try_from(number % 3).expect("small")] }];
    let (zone, address) = (["a", "b"][usize::try_from(number % 2).expect("small")].to_owned(), format!("n{number}:7"));
    Node { id: NodeId::from_bytes(id), zone, rack: None, address, volumes }
}

/// How many rounds lookups take where nobody has the map.
fn lookups(seed: u64, board: &mut Board) -> anyhow::Result<()> {
    let settings = deadwax_dht::routing::RouterSettings { map_missing_ms: net::HOUR, ..Default::default() };
    let mut net = net::Net::new(seed, settings);
    net.seed(ROUTERS);
    let partition = |number: u16| Partition(number.wrapping_mul(40_503).wrapping_add(17));
    for number in 0..50 {
        let node = net.random_living();
        let (_, enough) = net.publish(node, partition(number), 1);
        ensure!(enough, "too few nodes keep a record");
    }
    for (name, dead) in [("lookup_rounds_p99_10k", 0), ("lookup_rounds_p99_10k_fifth_dead", ROUTERS / 5)] {
        for _ in 0..dead {
            let node = net.random_living();
            net.kill(node);
        }
        let which: Vec<(usize, Partition)> =
            (0..1_000).map(|number| (net.random_living(), partition(number % 50))).collect();
        let ends = net.resolve(&which);
        let p99 = net::percentile(ends.iter().map(|end| end.rounds), 99);
        board.add_plain(name, "rounds", f64::from(p99));
    }
    Ok(())
}
