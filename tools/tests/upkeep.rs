//! `deadwax up` and the commands that talk to it, as real processes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadwax::album;
use deadwax::layout::{Layout, Plan};
use deadwax::settings;
use deadwax_track::{TRACK_BYTES_MAX, TrackId};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

const DEADWAX: &str = env!("CARGO_BIN_EXE_deadwax");
const PATIENCE: Duration = Duration::from_secs(60);

/// A port that nobody has, below those that the system gives to clients; each test process looks in its own corner.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let corner = 12_000 + u16::try_from(std::process::id() % 1_000).expect("below 1,000") * 20;
    loop {
        let port = corner + NEXT.fetch_add(1, Ordering::Relaxed) % 20;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A running `deadwax up`. Dropped, it is killed, and its children die with it.
struct Up {
    child: Child,
    gateway: SocketAddr,
    said: String,
}

impl Up {
    /// A cluster of one master in `dir`, made where it is not there, up and ready.
    fn start(dir: &Path, arguments: &[&str]) -> Self {
        Self::start_with(dir, 1, arguments)
    }

    /// The same, of so many masters.
    fn start_with(dir: &Path, masters: u16, arguments: &[&str]) -> Self {
        let layout = Layout::open(dir).expect("readable").unwrap_or_else(|| {
            let gateway = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let plan = Plan::loopback(dir, (masters, &[]), gateway, free_port()).expect("a plan");
            Layout::create(dir, &plan).expect("made")
        });
        let gateway = settings::load_gateway(&layout.gateway_config()).expect("settings").listen;
        let mut child = Command::new(DEADWAX)
            .args(["up", "--data"])
            .arg(dir)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("started");
        let mut said = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        // What it says last: with --json that is the album's last song.
        let last = if arguments.contains(&"--json") { "Run-out" } else { "Ctrl-C stops" };
        while !said.contains(last) {
            assert_ne!(lines.read_line(&mut said).expect("text"), 0, "it ended: {said}");
        }
        Self { child, gateway, said }
    }

    /// Starts a command against its gateway whose output goes nowhere but to whoever is given it.
    fn command(&self, arguments: &[&str], stdout: impl Into<Stdio>) -> Command {
        let mut command = Command::new(DEADWAX);
        command.args(arguments).env("DEADWAX_GATEWAY", format!("http://{}", self.gateway));
        command.stdout(stdout).stderr(Stdio::piped());
        command
    }

    /// Runs a command against its gateway.
    fn run(&self, arguments: &[&str]) -> Output {
        self.run_at(self.gateway, arguments)
    }

    fn run_at(&self, gateway: SocketAddr, arguments: &[&str]) -> Output {
        let mut command = Command::new(DEADWAX);
        command.args(arguments).env("DEADWAX_GATEWAY", format!("http://{gateway}"));
        command.output().expect("started")
    }

    /// SIGTERM, and its exit code.
    fn stop(mut self) -> Option<i32> {
        kill_process(pid(self.child.id()), Signal::TERM).expect("it runs");
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).expect("a process id")).expect("not zero")
}

/// The processes that `parent` started, with their command lines.
fn children(parent: u32) -> Vec<(u32, String)> {
    let tasks = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).expect("it runs");
    let ids = tasks.split_whitespace().map(|id| id.parse::<u32>().expect("a process id"));
    ids.map(|id| (id, fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default().replace('\0', " ")))
        .collect()
}

fn child(up: &Up, command: &str) -> Option<u32> {
    children(up.child.id()).into_iter().find(|(_, line)| line.contains(&format!(" {command} "))).map(|(id, _)| id)
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lines(output: &Output) -> Vec<Value> {
    json_lines(&String::from_utf8_lossy(&output.stdout))
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn outcomes(lines: &[Value], outcome: &str) -> usize {
    lines.iter().filter(|line| line["outcome"] == outcome).count()
}

#[test]
fn up_keeps_its_children_and_stops_them_in_the_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let up = Up::start(dir.path(), &["--demo"]);
    assert!(up.said.contains("4 stored") && up.said.contains("Run-out"), "{}", up.said);
    let url = up.said.lines().find_map(|line| line.split_whitespace().find(|word| word.contains("/v1/tracks/")));
    let id = url.and_then(|url| url.rsplit('/').next()).expect("a URL to listen at").to_owned();
    assert!(up.run(&["status"]).status.success());

    // A second one is refused, whether by its directory or by its port.
    let second = Command::new(DEADWAX).args(["up", "--data"]).arg(dir.path()).output().expect("started");
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another `deadwax up`"), "{said}");
    let other = tempfile::tempdir().expect("a folder");
    let taken = up.gateway.to_string();
    let second = Command::new(DEADWAX).args(["up", "--listen", &taken, "--data"]).arg(other.path()).output();
    let second = second.expect("started");
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("in use") && said.contains("--listen"), "{said}");

    // A child that is killed comes back, and serves what it had.
    for command in ["master", "gateway"] {
        let old = child(&up, command).expect("it runs");
        kill_process(pid(old), Signal::KILL).expect("it ran");
        wait_until("it is started again", || child(&up, command).is_some_and(|new| new != old));
    }
    wait_until("all is well again", || up.run(&["status"]).status.success());
    let got = dir.path().join("again.wav");
    assert!(up.run(&["get", &id, "-o", got.to_str().expect("UTF-8")]).status.success());
    assert_eq!(TrackId::of(&fs::read(&got).expect("read")).to_string(), id);

    let all: Vec<u32> = children(up.child.id()).into_iter().map(|(id, _)| id).collect();
    assert_eq!(up.stop(), Some(0));
    assert!(all.iter().all(|id| test_kill_process(pid(*id)).is_err()), "a child is left over");

    // Started again it has everything; killed, it leaves no orphan.
    let up = Up::start(dir.path(), &["--demo"]);
    assert!(up.said.contains("0 stored, 4 present"), "{}", up.said);
    let all: Vec<u32> = children(up.child.id()).into_iter().map(|(id, _)| id).collect();
    assert_eq!(all.len(), 2);
    drop(up);
    wait_until("no orphan is left", || all.iter().all(|id| test_kill_process(pid(*id)).is_err()));
}

#[test]
fn programs_read_what_up_get_and_rm_did() {
    let dir = tempfile::tempdir().expect("a folder");
    let up = Up::start(dir.path(), &["--demo", "--json"]);
    let told = json_lines(&up.said);
    assert_eq!(told.len(), 1 + album::SONGS.len(), "{told:?}");
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
    assert_eq!(text(&told[0]["gateway"]), format!("http://{}", up.gateway));
    // What it says suffices to ask the masters.
    let (master, map, key) = (&told[0]["masters"][0], text(&told[0]["map"]), text(&told[0]["admin_key"]));
    let status = lines(&up.run(&["status", "--json", "--map", &map]));
    assert_eq!(status[0]["nodes"][0]["address"], master["address"]);
    let files = [text(&master["config"]), key, text(&told[0]["data"])];
    assert!(files.iter().all(|file| Path::new(file).exists()), "{files:?}");
    let songs: Vec<&Value> = told[1..].iter().map(|line| &line["song"]).collect();
    assert!(songs.iter().all(|song| song["outcome"] == "stored" && song["length_ms"].is_u64()), "{songs:?}");
    let ids: Vec<String> = songs.iter().map(|song| text(&song["id"])).collect();
    assert_eq!(text(&songs[0]["url"]), format!("http://{}/v1/tracks/{}", up.gateway, ids[0]));

    let file = dir.path().join("got.wav");
    let file = file.to_str().expect("UTF-8");
    let get = |outcome: &str| {
        let got = lines(&up.run(&["get", "--json", &ids[0], "-o", file]));
        let bytes = fs::read(file).expect("it is there");
        assert_eq!(TrackId::of(&bytes).to_string(), ids[0]);
        let expected = json!({"id": ids[0], "bytes": bytes.len(), "file": file, "outcome": outcome});
        assert_eq!(got, [expected]);
        bytes
    };
    let bytes = get("fetched");
    fs::write(format!("{file}.part"), &bytes[..bytes.len() / 2]).expect("written");
    get("resumed");

    // A reader that goes after the first line, and ones that were never there.
    let mut watch = up.command(&["status", "--watch", "--json"], Stdio::piped()).spawn().expect("started");
    let mut line = String::new();
    BufReader::new(watch.stdout.take().expect("piped")).read_line(&mut line).expect("text");
    assert!(json_lines(&line)[0]["healthy"].is_boolean(), "{line}");
    let ended = watch.wait_with_output().expect("it ends");
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr)), (Some(141), "".into()));
    for arguments in [&["get", &ids[0]][..], &["status"], &["rm", "--json", &ids[0], &ids[1]], &["rm", &ids[2]]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended = up.command(arguments, writer).output().expect("started");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!((ended.status.code(), said), (Some(141), String::new()), "{arguments:?}");
    }

    // What nobody heard of was done.
    let again = lines(&up.run(&["rm", "--json", "--wait", &ids[0], &ids[1], &ids[2], &ids[3]]));
    assert!(again.iter().all(|line| line["outcome"] == "erased" && line["takedown"].is_u64()), "{again:?}");
    assert_eq!(again.iter().map(|line| text(&line["id"])).collect::<Vec<_>>(), ids);
    let gone = up.run(&["get", "--json", &ids[1], "-o", file]);
    let why = text(&lines(&gone)[0]["error"]);
    assert!(gone.status.code() == Some(1) && why.contains("taken down"), "{why}");
    assert_eq!(up.stop(), Some(0));
}

#[test]
fn scrub_reads_all_that_drives_hold_and_status_says_how_long_ago() {
    let dir = tempfile::tempdir().expect("a folder");
    let up = Up::start(dir.path(), &["--demo"]);
    let map = dir.path().join("cluster.toml").display().to_string();
    let scrub = |more: &[&str]| up.run(&[&["scrub", "--map", &map], more].concat());
    let before = lines(&scrub(&["--show", "--json"]))[0]["volumes"][0]["scrub"].clone();
    assert!(before["verified_s"].as_u64().is_some_and(|ago| ago < 600), "it was made just now: {before}");
    let done = scrub(&["--wait", "--json", "--rate", "1000000000000"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let after = lines(&done)[0]["volumes"][0]["scrub"].clone();
    assert!(after["passes"].as_u64() > before["passes"].as_u64() && after["running"] == false, "{after}");
    assert!(after["all_bytes"].as_u64().is_some_and(|bytes| bytes > 1_000_000) && after["damaged"] == 0, "{after}");
    let volume = after["id"].as_str().expect("an id")[..8].to_owned();
    assert!(scrub(&["--wait", "--volume", &volume]).status.success());
    let unknown = scrub(&["--volume", "ffffffffffff"]);
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("no volume is"));
    let status = up.run(&["status"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && text.contains("VERIFIED") && text.contains(" s ago"), "{text}");
    // A volume that was read a second ago was not within the last 0 days.
    std::thread::sleep(Duration::from_millis(1_100));
    let strict = up.run(&["status", "--map", &map, "--verified-within", "0"]);
    let text = String::from_utf8_lossy(&strict.stdout).into_owned();
    assert!(strict.status.code() == Some(1) && text.contains("`deadwax scrub` checks it now"), "{text}");
    assert!(up.run(&["status", "--map", &map, "--verified-within", "1"]).status.success());
    let status = lines(&up.run(&["status", "--json"]));
    assert_eq!(status[0]["nodes"][0]["scrubs"][0]["id"], after["id"]);
}

/// Flips a bit of these bytes, in whichever segment below `dir` they are.
fn flip(dir: &Path, bytes: &[u8]) -> bool {
    let entries = fs::read_dir(dir).expect("lists").map(|entry| entry.expect("one").path());
    entries.into_iter().any(|path| {
        if path.is_dir() {
            return flip(&path, bytes);
        }
        let held =
            if path.extension().is_some_and(|name| name == "segment") { fs::read(&path) } else { Ok(Vec::new()) };
        let held = held.expect("readable");
        let Some(at) = held.windows(bytes.len()).position(|window| window == bytes) else { return false };
        let file = File::options().write(true).open(&path).expect("opens");
        file.write_all_at(&[held[at] ^ 1], at as u64).expect("written");
        true
    })
}

#[test]
fn without_a_log_too_what_rotted_is_no_copy_and_a_put_of_it_is_stored_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let up = Up::start(&dir.path().join("data"), &[]);
    // Nothing that could be compressed, so that it is found.
    let mut state = 1_u64;
    let song: Vec<u8> = (0..300_000)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect();
    let id = TrackId::of(&song);
    let put = || {
        let mut stream = TcpStream::connect(up.gateway).expect("it listens");
        let length = song.len();
        write!(
            stream,
            "PUT /v1/tracks/{id} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        )
        .and_then(|()| stream.write_all(&song))
        .expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("text");
        reply.split(' ').nth(1).expect("a status").to_owned()
    };
    let map = dir.path().join("data/cluster.toml").display().to_string();
    let scrub = || up.run(&["scrub", "--map", &map, "--wait", "--json", "--rate", "1000000000000"]);
    assert_eq!((put(), put()), ("201".to_owned(), "200".to_owned()));
    assert!(up.run(&["status"]).status.success());
    assert!(flip(&dir.path().join("data"), &song[200_000..200_032]), "it is in a segment");
    let found = scrub();
    let said = lines(&found)[0]["volumes"][0]["scrub"].clone();
    assert!(
        found.status.code() == Some(1) && said["damaged"] == 1,
        "{said} {}",
        String::from_utf8_lossy(&found.stderr)
    );
    // It is the only copy: nobody has one to miss.
    let status = up.run(&["status", "--map", &map]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.code() == Some(1) && text.contains("records that are damaged, 1 were found"), "{text}");
    assert_eq!(put(), "201");
    wait_until("all is there, and read", || up.run(&["status", "--map", &map]).status.success());
    assert!(scrub().status.success());
    assert_eq!(raw_get(up.gateway, &format!("/v1/tracks/{id}")), song);
}

#[test]
fn repair_compares_all_that_masters_hold_and_says_when_nothing_is_missing() {
    let dir = tempfile::tempdir().expect("a folder");
    let up = Up::start_with(dir.path(), 3, &["--demo"]);
    let map = dir.path().join("cluster.toml").display().to_string();
    let repair = |more: &[&str]| up.run(&[&["repair", "--map", &map], more].concat());
    let done = repair(&["--wait", "--json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let nodes = lines(&done)[0]["nodes"].as_array().expect("nodes").clone();
    let none_left =
        |node: &Value| ["comparing", "unanswered", "suspected"].iter().all(|name| node["report"][name] == 0);
    assert!(nodes.len() == 3 && nodes.iter().all(none_left), "{nodes:?}");
    let shown = repair(&["--show", "--of", nodes[1]["address"].as_str().expect("an address")]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains("TO COMPARE") && text.lines().count() == 2, "{text}");
    let unknown = repair(&["--of", "ffffffffffff"]);
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("no node"));
}

#[test]
fn an_import_goes_on_past_bad_files_and_skips_what_is_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let up = Up::start(&dir.path().join("data"), &[]);
    let music = dir.path().join("music");
    let songs = album::write(&music).expect("written");
    let at = |name: &str| music.join(name);
    fs::copy(&songs[0], at("a copy.wav")).expect("copied");
    fs::copy(&songs[1], music.join(std::ffi::OsStr::from_bytes(b"\xff\xfe copy.wav"))).expect("copied");
    fs::write(at("empty.mp3"), "").expect("written");
    fs::write(at("no music.mp3"), "text").expect("written");
    fs::write(at("cover.jpg"), "a picture").expect("written");
    File::create(at("huge.flac")).and_then(|file| file.set_len(TRACK_BYTES_MAX + 1)).expect("a sparse file");
    std::os::unix::fs::symlink("nowhere", at("dangling.ogg")).expect("linked");

    let folder = music.to_str().expect("UTF-8");
    let output = up.run(&["import", "--json", "--jobs", "8", folder, "/nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(1));
    let first = lines(&output);
    let counts = ["stored", "present", "failed"].map(|outcome| outcomes(&first, outcome));
    assert_eq!(counts, [5, 2, 4], "{first:#?}");
    for (name, why) in [("empty", "empty"), ("huge", "too large"), ("dangling", "No such"), ("nowhere/at", "No such")] {
        let line = first.iter().find(|line| line["path"].as_str().is_some_and(|path| path.contains(name)));
        let error = line.expect("a line")["error"].as_str().expect("an error");
        assert!(error.contains(why), "{name}: {error}");
    }
    let song = first.iter().find(|line| line["path"] == songs[2].to_str().expect("UTF-8")).expect("a line");
    let bytes = fs::read(&songs[2]).expect("read");
    assert_eq!(song["id"], TrackId::of(&bytes).to_string());
    assert_eq!(song["bytes"], bytes.len());
    let summary = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(summary.contains("5 stored, 2 present, 4 failed"), "{summary}");

    // A put is answered at a quorum; until the other copies are made, it is offered where they lack.
    wait_until("every copy is there", || up.run(&["status"]).status.success());
    // What is there is not sent again: only heads of requests go out, and each song has megabytes.
    let line = Line::cut_after(up.gateway, u64::MAX);
    let again = lines(&up.run_at(line.address, &["import", "--json", folder]));
    assert_eq!(["stored", "present"].map(|outcome| outcomes(&again, outcome)), [0, 7], "{again:#?}");
    assert!((1..100_000).contains(&line.sent.load(Ordering::Relaxed)), "{line:?}");

    // The tags went along, and a track that is taken down stays down.
    let id = song["id"].as_str().expect("an id");
    let tags: Value = serde_json::from_slice(&raw_get(up.gateway, &format!("/v1/tracks/{id}/tags"))).expect("JSON");
    assert_eq!((&tags["title"], &tags["artist"]), (&"Locked Groove".into(), &"The Pressing Plant".into()), "{tags}");
    let removed = up.run(&["rm", id]);
    let said = String::from_utf8_lossy(&removed.stdout).into_owned();
    assert!(removed.status.success() && said.contains("taken down, number"), "{said}");
    let refused = lines(&up.run(&["import", "--json", songs[2].to_str().expect("UTF-8")]));
    assert!(refused[0]["error"].as_str().is_some_and(|error| error.contains("taken down")), "{refused:?}");
    let gone = up.run(&["get", id, "-o", at("gone.wav").to_str().expect("UTF-8")]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(!at("gone.wav").exists());
    assert_eq!(up.stop(), Some(0));
}

#[test]
fn a_get_resumes_and_proves() {
    let dir = tempfile::tempdir().expect("a folder");
    let up = Up::start(&dir.path().join("data"), &[]);
    let track: Vec<u8> = (0..9_000_001_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let id = TrackId::of(&track).to_string();
    let source = dir.path().join("source");
    fs::write(&source, &track).expect("written");
    assert!(up.run(&["import", source.to_str().expect("UTF-8")]).status.success());
    let target = dir.path().join("got");
    let partial = PathBuf::from(format!("{}.part", target.display()));
    let get = |gateway| up.run_at(gateway, &["get", &id, "-o", target.to_str().expect("UTF-8")]);
    let check = |output: &Output, words: &str| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.contains(words), "{said}");
        assert!(fs::read(&target).expect("read") == track, "the bytes differ");
        assert!(!partial.exists());
        fs::remove_file(&target).expect("removed");
    };
    check(&get(up.gateway), "proved");
    // What an earlier try left is not fetched again, ...
    let line = Line::cut_after(up.gateway, u64::MAX);
    fs::write(&partial, &track[..8_000_000]).expect("written");
    check(&get(line.address), "were there from an earlier try");
    assert!(line.passed.load(Ordering::Relaxed) < 1_100_000, "{line:?}");
    // ... even where it is everything, ...
    fs::write(&partial, &track).expect("written");
    check(&get(up.gateway), "were there");
    // ... unless it is wrong, or too long.
    let mut wrong = track[..5_000_000].to_vec();
    wrong[77] ^= 1;
    fs::write(&partial, &wrong).expect("written");
    check(&get(up.gateway), "fetched anew");
    fs::write(&partial, [&track[..], &[0]].concat()).expect("written");
    check(&get(up.gateway), "proved");
    // A connection that breaks again and again on the way.
    let line = Line::cut_after(up.gateway, 2_000_000);
    check(&get(line.address), "the connection was lost 4 times");
    let piped = up.run_at(Line::cut_after(up.gateway, 4_000_000).address, &["get", &id]);
    assert!(piped.status.success() && piped.stdout == track, "{}", String::from_utf8_lossy(&piped.stderr));
    assert_eq!(up.stop(), Some(0));
}

/// A network between a client and the gateway that breaks each connection after so many bytes of answer.
#[derive(Debug)]
struct Line {
    address: SocketAddr,
    /// Bytes of answers.
    passed: Arc<AtomicU64>,
    /// Bytes of requests.
    sent: Arc<AtomicU64>,
}

impl Line {
    fn cut_after(gateway: SocketAddr, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let line = Self { address, passed: Arc::default(), sent: Arc::default() };
        let (passed, sent) = (line.passed.clone(), line.sent.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (passed, sent) = (passed.clone(), sent.clone());
                std::thread::spawn(move || pass(client.expect("a client"), gateway, bytes, &passed, sent));
            }
        });
        line
    }
}

fn pass(client: TcpStream, gateway: SocketAddr, bytes: u64, passed: &AtomicU64, sent: Arc<AtomicU64>) {
    let gateway = TcpStream::connect(gateway).expect("the gateway listens");
    let (up, up_to) = (client.try_clone().expect("cloned"), gateway.try_clone().expect("cloned"));
    std::thread::spawn(move || copy(up, up_to, &sent));
    copy(gateway.try_clone().expect("cloned").take(bytes), &client, passed);
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = gateway.shutdown(std::net::Shutdown::Both);
}

fn copy(mut from: impl Read, mut to: impl Write, passed: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        passed.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
}

/// The body of a short reply, by hand.
fn raw_get(gateway: SocketAddr, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway).expect("the gateway listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).expect("read");
    let head = reply.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    reply.split_off(head + 4)
}
