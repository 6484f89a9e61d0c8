//! The system drive hangs: the node says so and goes down, and its process ends all the same.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::time::Duration;

use deadwax_dht::takedown::Heads;
use deadwax_dht::wire::{ErrorCode, Feed, Message};
use deadwax_track::TrackId;

use crate::cluster::{Process, Running, Site};
use crate::drives::Drive;
use crate::heal::{HEALED, until};
use crate::operators::core_status;
use crate::takedowns::issue;

/// Within what time the node says so: it is to be 5 s.
const SAID: Duration = Duration::from_secs(15);
/// Within what time it ends: it goes down after 20 s, and then has its second for requests, and 20.
const ENDED: Duration = Duration::from_secs(60);

/// Gives a node that does not run a system drive of its own.
fn move_system(site: &Site) -> Option<Drive> {
    let drive = Drive::mount(&site.path("drive"))?;
    let (old, new) = (site.config.dir.join("system"), drive.0.join("system"));
    fs::create_dir(&new).expect("made");
    for file in fs::read_dir(&old).expect("there") {
        let file = file.expect("readable");
        fs::copy(file.path(), new.join(file.file_name())).expect("copied");
    }
    fs::remove_dir_all(&old).expect("removed");
    symlink(&new, &old).expect("linked");
    Some(drive)
}

/// The state of a process's thread of this name, as `proc_pid_stat(5)` has it.
fn state(process: &Process, thread: impl Fn(&str) -> bool) -> Result<char, String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.child.id())).map_err(|why| why.to_string())?;
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let mut states = stats.filter_map(|stat| {
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        thread(name).then(|| rest.trim_start().chars().next())?
    });
    states.next().ok_or_else(|| "there is none".to_owned())
}

/// Three nodes, of which the third's system drive hangs with something to be kept. `meanwhile` sees that it ends.
fn hangs(meanwhile: impl FnOnce(&Site, &Process)) {
    let sites = Site::trio_with(|config| config.drain_timeout_s = 1);
    let Some(drive) = move_system(&sites[2]) else { return };
    let running = [sites[0].start(), sites[1].start()];
    let mut third = sites[2].spawn();
    until("it takes part", HEALED, || match core_status(&mut sites[2].connect()) {
        Some(status) if status.may_serve && status.seat.is_some() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let frozen = drive.freeze();
    let id = TrackId::of(b"nobody ever stored this");
    issue(&sites[0], id);
    until("it waits for its drive", SAID, || match state(&third, |name| name == "system")? {
        'D' => Ok(()),
        other => Err(other.to_string()),
    });
    meanwhile(&sites[2], &third);
    // But for the thread that nothing can wake: the process as such has exited.
    let leads = fs::read_to_string(format!("/proc/{}/comm", third.child.id())).expect("it is there");
    until("the process ends", ENDED, || match state(&third, |name| name == leads.trim())? {
        'Z' => Ok(()),
        other => Err(other.to_string()),
    });
    assert!(TcpStream::connect(sites[2].config.listen).is_err(), "nobody takes it for a node that is there");
    drop(frozen);
    assert_eq!(third.child.wait().expect("ends").code(), Some(1));
    let third = sites[2].start();
    let known = Message::Feed(Feed::TakedownsAfter { known: Heads::default(), wait_ms: 1_000, limit: 10 });
    until("it has what it missed", HEALED, || match sites[2].connect().ask(&known) {
        Message::Feed(Feed::Takedowns(records)) if records.iter().any(|record| record.track == id) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    third.stop();
    running.into_iter().for_each(Running::stop);
}

#[test]
fn a_node_whose_system_drive_hangs_says_so_within_seconds_and_goes_down() {
    hangs(|site, _| {
        let mut peer = site.connect();
        let message = until("it says so", SAID, || match peer.ask(&Message::AskCore) {
            Message::Error { code: ErrorCode::Busy, message } => Ok(message),
            other => Err(format!("{other:?}")),
        });
        assert!(message.contains("system drive has not answered"), "{message}");
    });
}

#[test]
fn a_node_whose_system_drive_hangs_ends_at_the_first_signal() {
    hangs(|_, process| process.signal("-TERM"));
}
