//! A process whose files may not grow beyond a limit (RLIMIT_FSIZE). The system answers a write beyond it with EFBIG, and
//! with SIGXFSZ, which kills whoever does not ignore it.

use std::process::{Command, Output};

use rustix::process::{Resource, Rlimit, setrlimit};
use tempfile::TempDir;

use super::*;

/// Set for the process that has the limit, to what it does and to the volume's directory.
const VARIABLE: &str = "DEADWAX_ENGINE_TEST_LIMITED";
/// Below the size of a segment, above that of the tracks.
const LIMIT_BYTES: u64 = 4 * MIB;

/// A volume of some tracks of 1 MiB, in a segment of 8 MiB.
fn volume_of(tracks: u64) -> (TempDir, VolumeConfig) {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    format_volume(dir.path(), &IDENTITY).expect("formats");
    let config = config(dir.path());
    run(async {
        let (volume, _) = open(&config).await;
        for seed in 0..tracks {
            put(&volume, &audio(seed, MIB)).await.expect("puts");
        }
        volume.close().await;
    });
    (dir, config)
}

fn limit_files(bytes: Option<u64>) {
    // The hard limit stays, so that the soft one can be lifted again.
    let limit = Rlimit { current: bytes, maximum: None };
    setrlimit(Resource::Fsize, limit).expect("sets a limit");
}

/// Not a test of its own: the process that the others start, for a limit is the whole process's.
#[test]
fn works_as_a_process() {
    let Ok(orders) = std::env::var(VARIABLE) else { return };
    let (what, dir) = orders.split_once(' ').expect("orders");
    let config = config(Path::new(dir));
    match what {
        "open" => run(async {
            limit_files(Some(LIMIT_BYTES));
            let Err(error) = Volume::open(GlommioHost::new(), config).await else { panic!("opened") };
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            let message = error.to_string();
            assert!(message.contains("ulimit -f") && message.contains("4194304"), "{message}");
        }),
        "go_on" => run(go_on_below_a_limit(config)),
        other => panic!("no {other} is known"),
    }
}

async fn go_on_below_a_limit(config: VolumeConfig) {
    let (volume, recovery) = open(&config).await;
    assert_eq!(recovery.tracks, 3);
    limit_files(Some(LIMIT_BYTES));
    let mut refused = 0;
    for seed in 100..106 {
        let track = audio(seed, MIB);
        if let Err(error) = put(&volume, &track).await {
            assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace), "{error}");
            assert_absent(&volume, &track).await;
            refused += 1;
        }
    }
    assert!(refused >= 5, "{refused}: the fourth MiB ends at the limit, if it fits at all");
    for seed in 0..3 {
        assert_whole(&volume, &audio(seed, MIB)).await;
    }
    limit_files(None);
    for seed in 200..206 {
        let track = audio(seed, MIB);
        put(&volume, &track).await.expect("puts, without reopening");
        assert_whole(&volume, &track).await;
    }
    volume.close().await;
}

/// Runs this program anew, with SIGXFSZ at its default or ignored: what ignores it hands that on through exec.
fn start(what: &str, dir: &Path, ignore_signal: bool) -> Output {
    let trap = if ignore_signal { "trap '' XFSZ;" } else { "" };
    Command::new("sh")
        .args(["-c", &format!("{trap} exec \"$0\" --exact limit::works_as_a_process --nocapture")])
        .arg(std::env::current_exe().expect("this program"))
        .env(VARIABLE, format!("{what} {}", dir.display()))
        .output()
        .expect("runs")
}

fn assert_ends_well(output: &Output) {
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{errors}", output.status);
}

#[test]
fn a_process_that_may_not_write_a_whole_segment_opens_no_volume_and_lives() {
    for ignore_signal in [false, true] {
        // None yet, one that ends below the limit, and one that ends beyond it.
        for tracks in [0, 3, 6] {
            let (dir, config) = volume_of(tracks);
            assert_ends_well(&start("open", dir.path(), ignore_signal));
            run(async {
                let (volume, recovery) = open(&config).await;
                assert_eq!((recovery.tracks, recovery.torn, recovery.damaged), (tracks, 0, 0));
                put(&volume, &audio(100, MIB)).await.expect("puts without the limit");
            });
        }
    }
}

#[test]
fn a_limit_that_comes_later_refuses_puts_and_goes_as_it_came() {
    let (dir, config) = volume_of(3);
    assert_ends_well(&start("go_on", dir.path(), true));
    run(async {
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.torn, recovery.damaged), (0, 0));
        for seed in (0..3).chain(200..206) {
            assert_whole(&volume, &audio(seed, MIB)).await;
        }
    });
}
