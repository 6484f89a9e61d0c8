//! What TLS costs, in time of one core, whatever else runs. Run small with the tests so that it does not rot; for figures:
//! `DEADWAX_TLS_MIB=2048 cargo test --release -p deadwax-dht-tls --test speed -- --nocapture`.

use std::hint::black_box;
use std::io::IoSlice;
use std::time::Duration;

use deadwax_dht::NodeKey;
use deadwax_dht_tls::{Identity, Read, Session};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 5;
/// As a node sends a track: frames' payloads as they lie on the drive, 16 to a frame of the wire.
const SLICE_BYTES: usize = 65_496;
const SLICES: usize = 16;

fn mib() -> usize {
    std::env::var("DEADWAX_TLS_MIB").map_or(8, |text| text.parse().expect("a number of MiB"))
}

/// The time that this thread had a core.
fn core_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().expect("positive"), time.tv_nsec.try_into().expect("below a second"))
}

/// Carries what one end has to send to the other.
fn carry(from: &mut Session, to: &mut Session) {
    while !from.outgoing().is_empty() {
        let space = to.space(1).expect("room");
        let count = from.outgoing().len().min(space.len());
        space[..count].copy_from_slice(&from.outgoing()[..count]);
        from.sent(count);
        to.received(count);
    }
}

fn shake_hands(client: &Identity, server: &Identity) -> (Session, Session) {
    let (mut client, mut server) = (client.connect(), server.accept());
    while server.handshake().expect("good keys").is_none() {
        assert!(client.handshake().expect("good keys").is_some() || !client.outgoing().is_empty(), "it stands still");
        carry(&mut client, &mut server);
        if server.handshake().expect("good keys").is_some() {
            break;
        }
        carry(&mut server, &mut client);
    }
    (client, server)
}

/// Seconds to encrypt so many bytes, and to decrypt them.
fn transfer(from: &mut Session, to: &mut Session, mib: usize) -> (Duration, Duration) {
    let (bytes, mut into) = (vec![0x5a; SLICE_BYTES], vec![0; 1 << 20]);
    let (mut encrypting, mut decrypting) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..mib {
        let mut slices = [IoSlice::new(&bytes); SLICES];
        let mut slices = slices.as_mut_slice();
        loop {
            let began = core_time();
            from.write(&mut slices).expect("open");
            encrypting += core_time() - began;
            if from.outgoing().is_empty() {
                break;
            }
            while !from.outgoing().is_empty() {
                // Not counted: the socket's copy, which a plain connection has, too.
                let space = to.space(16_384).expect("room");
                let count = from.outgoing().len().min(space.len());
                space[..count].copy_from_slice(&from.outgoing()[..count]);
                from.sent(count);
                to.received(count);
                let began = core_time();
                while let Read::Bytes(count) = to.read(&mut into.as_mut_slice()).expect("whole") {
                    black_box(&into[..count]);
                }
                decrypting += core_time() - began;
            }
        }
    }
    (encrypting, decrypting)
}

/// Memory that this process has.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("a number of pages") * 4_096
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[test]
fn what_tls_costs() {
    let (client, server) =
        (Identity::new(&NodeKey::from_bytes(&[1; 32])), Identity::new(&NodeKey::from_bytes(&[2; 32])));
    let (mib, mut shakes, mut encrypts, mut decrypts) = (mib(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = core_time();
        for _ in 0..mib.min(200) {
            black_box(shake_hands(&client, &server));
        }
        shakes.push((core_time() - began).as_secs_f64() * 1e6 / mib.min(200) as f64);
        let (mut up, mut down) = shake_hands(&client, &server);
        let (encrypting, decrypting) = transfer(&mut down, &mut up, mib);
        let gigabytes = (mib * SLICES * SLICE_BYTES) as f64 / 1e9;
        encrypts.push(gigabytes / encrypting.as_secs_f64());
        decrypts.push(gigabytes / decrypting.as_secs_f64());
    }
    let before = resident_bytes();
    let idle: Vec<_> = (0..mib.min(1_000)).map(|_| shake_hands(&client, &server)).collect();
    let each = resident_bytes().saturating_sub(before) / (2 * idle.len());
    println!("an idle session: {each} bytes");
    let [shake, encrypt, decrypt] = [shakes, encrypts, decrypts].map(median);
    println!(
        "handshake, both ends: {shake:.0} us; encrypt {encrypt:.2} GB/s, decrypt {decrypt:.2} GB/s (medians of {ROUNDS})"
    );
    assert!(shake > 0.0 && encrypt > 0.0 && decrypt > 0.0);
}
