//! `deadwax-perf placement`: how long it takes to work out who holds what after a change of a large cluster's map.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use deadwax_dht::{ClusterId, Map, MapSpec, Node, NodeId, PartitionBytes, Plan, Policy, Volume, VolumeId};
use deadwax_track::TrackId;
use serde_json::json;

use crate::cpu;
use crate::report::{Board, Report, median};

/// Drives of a node.
const VOLUMES_PER_NODE: usize = 10;
/// Bytes of a partition. They change no time.
const BYTES: u64 = 4 << 30;

/// How large a cluster.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Volumes, ten a node, in two zones.
    #[arg(long, default_value_t = 10_000)]
    volumes: usize,
    /// Changes of each kind.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

/// The cluster's names follow from `seed`. Times are of the processor. Each change is planned whole, on one core: the map is checked, holders are
/// drawn, volumes evened out, and shares added up.
pub(crate) fn run(options: &Options, seed: u64) -> anyhow::Result<Report> {
    ensure!(options.volumes >= 6 * VOLUMES_PER_NODE, "fewer than {} volumes are no cluster", 6 * VOLUMES_PER_NODE);
    let mut board = Board::default();
    let nodes = 0..options.volumes / VOLUMES_PER_NODE;
    let nodes = nodes.map(|number| node(seed, number, VOLUMES_PER_NODE)).collect();
    let (version, cluster) = (deadwax_dht::MAP_VERSION, ClusterId::from_bytes([0; 16]));
    let spec = MapSpec { version, cluster, epoch: 1, policy: Policy::default(), nodes, overrides: Vec::new() };
    let started = cpu::spent();
    let mut map = Map::settled(spec).context("place a new cluster")?;
    board.add_plain("placement_settle_ms", "ms", milliseconds(started));
    let mut all = Vec::new();
    for round in 0..options.rounds as usize {
        for kind in ["join", "leave", "weight"] {
            let mut next = map.spec().clone();
            next.epoch += 1;
            let largest = next.nodes.iter_mut().max_by_key(|node| node.volumes.len()).context("no nodes")?;
            match kind {
                "join" => next.nodes.push(node(seed, options.volumes + round, 1)),
                "leave" => drop(largest.volumes.pop()),
                _ => largest.volumes[0].weight = 3000,
            }
            let started = cpu::spent();
            let plan = Plan::new(&map, next, PartitionBytes::Uniform(BYTES)).context("plan a change")?;
            let took = milliseconds(started);
            board.add_plain(&format!("placement_{kind}_ms"), "ms", took);
            all.push(took);
            map = plan.into_map();
        }
    }
    board.add_plain("placement_incremental_ms", "ms", median(all).context("no change was planned")?);
    #[expect(clippy::cast_precision_loss, reason = "at most 65,536")]
    board.add_plain("placement_overrides", "entries", map.spec().overrides.len() as f64);
    let settings = json!({ "volumes": options.volumes, "rounds": options.rounds, "seed": seed });
    Ok(Report::new(settings, board.figures()))
}

/// Drives of 1, 2 and 4 TB.
fn node(seed: u64, number: usize, volumes: usize) -> Node {
    let id = name(&[seed, number as u64]);
    let volume = |at: usize| {
        let id = name(&[seed, number as u64, at as u64]);
        let id = VolumeId::from_bytes(*id.first_chunk().expect("32 bytes have 16"));
        Volume { id, weight: 1000 << ((number + at) % 3) }
    };
    let zone = ["a", "b"][number % 2].to_owned();
    let (id, address) = (NodeId::from_bytes(id), format!("node-{number}:7800"));
    Node { id, zone, rack: None, address, volumes: (0..volumes).map(volume).collect() }
}

/// Bytes that look random and follow from these numbers.
fn name(numbers: &[u64]) -> [u8; 32] {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    *TrackId::of(&bytes).as_bytes()
}

/// Of one core: what takes turns with others on a busy machine is not counted.
fn milliseconds(since: Duration) -> f64 {
    (cpu::spent() - since).as_secs_f64() * 1000.0
}
