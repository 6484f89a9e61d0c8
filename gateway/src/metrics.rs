//! What the gateway counts, and its text for Prometheus.

use std::fmt::Write;
use std::time::Duration;

use deadwax_cache::Stats;
use deadwax_dht::wire::{VolumeState, VolumeStatus};
use deadwax_dht_client::NodeReport;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The upper bounds of the latency buckets, in seconds: from a cached chunk to a cluster in trouble.
const SECONDS_BUCKETS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What a request is counted under.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(crate) struct Outcome {
    pub(crate) route: &'static str,
    pub(crate) method: &'static str,
    pub(crate) status: u16,
}

/// The counters. Shared by all threads.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<Outcome, Counter>,
    head_seconds: Histogram,
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) fetch_failures: Counter,
    pub(crate) pieces_refused: Counter,
    pub(crate) takedowns_seen: Counter,
    pub(crate) takedowns_heard: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("deadwax_gateway");
        let requests = Family::default();
        registry.register("requests", "Requests answered", requests.clone());
        let head_seconds = Histogram::new(SECONDS_BUCKETS);
        let help = "From a request's headers to its answer's; an upload's answer comes after its body";
        registry.register_with_unit("head", help, Unit::Seconds, head_seconds.clone());
        let mut counter = |name, help| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let sent_bytes = counter("track_sent_bytes", "Bytes of tracks handed to connections");
        let received_bytes = counter("track_received_bytes", "Bytes of uploads taken in");
        let connections_refused = counter("connections_refused", "Connections beyond connections_max");
        let fetch_failures = counter("fetch_failures", "Fetches from masters that ended early");
        let pieces_refused = counter("pieces_refused", "Pieces from masters that the manifest did not prove");
        let takedowns_seen = counter("takedowns_seen", "Tracks found taken down while they were served");
        let takedowns_heard = counter("takedowns_heard", "Takedowns that masters told of");
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        Self {
            registry,
            requests,
            head_seconds,
            sent_bytes,
            received_bytes,
            connections,
            connections_refused,
            fetch_failures,
            pieces_refused,
            takedowns_seen,
            takedowns_heard,
        }
    }

    /// Counts one answered request.
    pub(crate) fn answered(&self, outcome: &Outcome, after: Duration) {
        self.requests.get_or_create(outcome).inc();
        self.head_seconds.observe(after.as_secs_f64());
    }

    /// All figures as OpenMetrics text. The cache's, and `known` tracks and their bytes, are of this moment;
    /// the `nodes` are as they were last heard of.
    pub(crate) fn text(&self, cache: &Stats, known: (usize, usize), nodes: &[NodeReport]) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        // The encoder ends the text; what follows belongs before the end.
        let end = text.strip_suffix("# EOF\n").map_or(text.len(), str::len);
        text.truncate(end);
        let counters = [
            ("cache_hits", "Chunks found complete", cache.hits),
            ("cache_misses", "Chunks that had to be fetched", cache.misses),
            ("cache_waits", "Chunks found while they were fetched", cache.waits),
            ("cache_bypasses", "Chunks served around the cache", cache.bypasses),
            ("cache_evictions", "Chunks given up for others", cache.evictions),
        ];
        for (name, help, value) in counters {
            let name = format!("deadwax_gateway_{name}");
            write!(text, "# HELP {name} {help}.\n# TYPE {name} counter\n{name}_total {value}\n").expect("a string");
        }
        let gauges = [
            ("cache_chunks", "Chunks in the cache", cache.chunks),
            ("cache_bytes", "Readable bytes in the cache", cache.bytes),
            ("cache_slots", "Slots of the cache", cache.slots),
            ("known_tracks", "Tracks whose tags and manifest are in memory", known.0 as u64),
            ("known_bytes", "Memory that those take", known.1 as u64),
        ];
        for (name, help, value) in gauges {
            let name = format!("deadwax_gateway_{name}");
            write!(text, "# HELP {name} {help}.\n# TYPE {name} gauge\n{name} {value}\n").expect("a string");
        }
        volumes(&mut text, nodes);
        text.push_str("# EOF\n");
        text
    }
}

/// How the masters' volumes are: each as one line a figure.
fn volumes(text: &mut String, nodes: &[NodeReport]) {
    let all = || nodes.iter().flat_map(|node| node.volumes.iter().map(move |volume| (node, volume)));
    let labels = |node: &NodeReport, volume: &VolumeStatus| {
        let dir = escaped(&volume.dir);
        format!("node=\"{}\",volume=\"{}\",dir=\"{dir}\"", escaped(&node.address), volume.id)
    };
    let mut gauge = |name: &str, help: &str, lines: &mut dyn Iterator<Item = (String, u64)>| {
        let name = format!("deadwax_volume_{name}");
        write!(text, "# HELP {name} {help}.\n# TYPE {name} gauge\n").expect("a string");
        lines.for_each(|(labels, value)| writeln!(text, "{name}{{{labels}}} {value}").expect("a string"));
    };
    let state = |volume: &VolumeStatus| match volume.state {
        VolumeState::Serving => 0,
        VolumeState::ReadOnly => 1,
        VolumeState::Fenced => 2,
    };
    let help = "0: serves; 1: reads only; 2: fenced, takes no part";
    gauge("state", help, &mut all().map(|(node, volume)| (labels(node, volume), state(volume))));
    let help = "Why a volume reads only or is fenced, as a label";
    let reasons = all().filter_map(|(node, volume)| {
        let reason = escaped(volume.reason.as_ref()?);
        Some((format!("{},reason=\"{reason}\"", labels(node, volume)), 1))
    });
    gauge("trouble", help, &mut { reasons });
    let help = "Bytes that a volume can still take in";
    gauge("free_bytes", help, &mut all().map(|(node, volume)| (labels(node, volume), volume.free_bytes)));
    let help = "Whether a volume has no room for more tracks";
    gauge("full", help, &mut all().map(|(node, volume)| (labels(node, volume), u64::from(volume.is_full()))));
}

/// As a label's value is written.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_each_figure_once_and_ends_once() {
        let metrics = Metrics::new();
        let outcome = Outcome { route: "track", method: "GET", status: 206 };
        metrics.answered(&outcome, Duration::from_millis(3));
        metrics.sent_bytes.inc_by(7);
        let volume = |state: &str, reason: Option<&str>| {
            serde_json::json!({
                "id": "a".repeat(32), "dir": "/mnt/\"a\"", "capacity_bytes": 2_000_000_000, "free_bytes": 1_000_000_000,
                "tracks": 3, "track_bytes": 5, "record_bytes": 6, "takedowns": 0, "state": state, "reason": reason,
            })
        };
        let node = serde_json::json!({
            "id": "1".repeat(64), "zone": "local", "address": "127.0.0.1:1", "up": true, "version": "", "uptime_s": 1,
            "epoch": 1, "shards": 1, "resident_bytes": 1, "counters": {},
            "volumes": [volume("serving", None), volume("fenced", Some("it hangs"))],
        });
        let node = serde_json::from_value(node).expect("a report");
        let text = metrics.text(&Stats { hits: 5, ..Stats::default() }, (2, 900), &[node]);
        let requests = "deadwax_gateway_requests_total{route=\"track\",method=\"GET\",status=\"206\"} 1\n";
        for line in [requests, "deadwax_gateway_track_sent_bytes_total 7\n", "deadwax_gateway_cache_hits_total 5\n"] {
            assert_eq!(text.matches(line).count(), 1, "{line} in\n{text}");
        }
        let labels = format!("node=\"127.0.0.1:1\",volume=\"{}\",dir=\"/mnt/\\\"a\\\"\"", "a".repeat(32));
        for line in [
            format!("deadwax_volume_state{{{labels}}} 0\n"),
            format!("deadwax_volume_state{{{labels}}} 2\n"),
            format!("deadwax_volume_trouble{{{labels},reason=\"it hangs\"}} 1\n"),
        ] {
            assert_eq!(text.matches(&line).count(), 1, "{line} in\n{text}");
        }
        assert!(text.contains("deadwax_gateway_known_bytes 900\n") && text.ends_with("\n# EOF\n"));
        assert_eq!(text.matches("# EOF").count(), 1);
    }
}
