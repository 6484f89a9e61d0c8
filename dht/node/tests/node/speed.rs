//! What TLS costs a node: seconds of a core for a GB put and a GB got, beside the same without it. The rounds of both take
//! turns. For figures: `DEADWAX_TLS_MIB=2048 cargo test --release -p deadwax-node --test node -- speed --nocapture`.

use std::time::Instant;

use deadwax_dht_tls::Identity;
use deadwax_track::TrackId;

use crate::cluster::{Process, Site};
use crate::peer::audio;

const ROUNDS: usize = 5;
const TRACK_BYTES: usize = 4 << 20;
/// `USER_HZ` of Linux.
const TICKS_PER_SECOND: f64 = 100.0;
const HANDSHAKES: u32 = 50;

/// Tracks a round.
fn tracks() -> u32 {
    std::env::var("DEADWAX_TLS_MIB").map_or(2, |text| text.parse::<u32>().expect("a number of MiB") / 4)
}

/// Seconds of cores that a process has had.
fn core_seconds(process: &Process) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.child.id())).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("its name ends");
    let ticks = |index: usize| fields.split_whitespace().nth(index).and_then(|field| field.parse::<f64>().ok());
    (ticks(11).expect("utime") + ticks(12).expect("stime")) / TICKS_PER_SECOND
}

/// Core seconds a GB put, and a GB got.
fn round(site: &Site, process: &Process, round: usize) -> [f64; 2] {
    let mut peer = site.connect();
    let gigabytes = f64::from(tracks()) * TRACK_BYTES as f64 / 1e9;
    let seed = 1 + u32::try_from(round).expect("few") * tracks();
    let all: Vec<Vec<u8>> = (0..tracks()).map(|track| audio(seed + track, TRACK_BYTES)).collect();
    let began = core_seconds(process);
    for bytes in &all {
        peer.put(site.volumes[0], bytes, "a track");
    }
    let put = core_seconds(process);
    for bytes in &all {
        let got = peer.get(site.volumes[0], TrackId::of(bytes), 0, bytes.len() as u64);
        assert!(got == *bytes);
    }
    [(put - began) / gigabytes, (core_seconds(process) - put) / gigabytes]
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[test]
fn what_tls_costs() {
    let sites = [Site::new(1, 1), Site::secure_with(1)];
    let processes = [sites[0].spawn(), sites[1].spawn()];
    let mut figures = [[vec![], vec![]], [vec![], vec![]]];
    for number in 0..ROUNDS {
        for ((site, process), figures) in sites.iter().zip(&processes).zip(&mut figures) {
            let [put, get] = round(site, process, number);
            figures[0].push(put);
            figures[1].push(get);
        }
    }
    let [[put, get], [secure_put, secure_get]] = figures.map(|figures| figures.map(median));
    println!("core seconds a GB: put {put:.2}, with TLS {secure_put:.2}; get {get:.2}, with TLS {secure_get:.2}");
    let (identity, began) = (Identity::new(&Site::client()), Instant::now());
    for _ in 0..HANDSHAKES {
        let mut peer = sites[1].connect_raw();
        assert_eq!(peer.secure(&identity), Ok(sites[1].node));
    }
    println!("a handshake: {:.0} us", began.elapsed().as_secs_f64() * 1e6 / f64::from(HANDSHAKES));
}
