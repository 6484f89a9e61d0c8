//! What people type wrong, and what needs no cluster. On the real program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const ID: &str = "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213";

fn deadwax(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_deadwax"))
        .args(arguments)
        .env_remove("DEADWAX_GATEWAY")
        .env_remove("DEADWAX_LOG")
        .output()
        .expect("the program starts")
}

/// Runs it and wants the exit code and `words` in what it says.
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = deadwax(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?} does not say {word:?}: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn what_is_not_understood_exits_with_2() {
    refused(&[], 2, &["Usage"]);
    refused(&["paly"], 2, &["paly"]);
    refused(&["up", "--masters", "0"], 2, &["--masters"]);
    refused(&["up", "--listen", "here"], 2, &["--listen"]);
    refused(&["import"], 2, &["PATH"]);
    refused(&["import", "--jobs", "0", "."], 2, &["--jobs"]);
    refused(&["get", "xyz"], 2, &["64 hexadecimal digits"]);
    refused(&["rm"], 2, &["ID"]);
    refused(&["status", "--gateway", "ftp://here"], 2, &["http://HOST:PORT"]);
    refused(&["cluster", "init", "--data", "d", "--node", "nowhere"], 2, &["ZONE@ADDRESS:PORT"]);
    refused(&["cluster", "join", "nowhere", "--data", "d", "--like", "m"], 2, &["ZONE@ADDRESS:PORT"]);
    refused(&["cluster", "plan", "weight", "ab", "0"], 2, &["0"]);
    refused(&["cluster", "plan", "paint", "ab"], 2, &["paint"]);
    refused(&["status", "--map", "a", "--node", "b:1"], 2, &["--map", "--node"]);
    refused(&["completions", "klingon"], 2, &["klingon"]);
}

#[test]
fn every_command_has_help_with_an_example() {
    let commands = [
        "up",
        "master",
        "gateway",
        "import",
        "get",
        "rm",
        "status",
        "doctor",
        "inspect",
        "verify",
        "salvage",
        "completions",
    ];
    for command in commands {
        let output = deadwax(&[command, "--help"]);
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && help.contains("Example"), "{command}: {help}");
    }
    for command in ["init", "join", "plan", "apply", "drain", "remove", "rollback", "finalise", "rejoin", "issuer"] {
        let output = deadwax(&["cluster", command, "--help"]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("Example"), "cluster {command}");
    }
    for command in ["add", "retire"] {
        let output = deadwax(&["volume", command, "--help"]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("Example"), "volume {command}");
    }
    let output = deadwax(&["--help"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("Exit codes: 0"));
}

#[test]
fn a_wrong_setting_is_named_with_its_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("settings.toml");
    let path = file.to_str().expect("UTF-8");
    for command in ["master", "gateway"] {
        fs::write(&file, "# one\nlisten = \"127.0.0.1:7\"\nshardz = 3\n").expect("written");
        refused(&[command, "--config", path], 1, &["settings.toml", "line 3", "shardz"]);
        fs::write(&file, "# one\n\nlisten = 7\n").expect("written");
        refused(&[command, "--config", path], 1, &["settings.toml", "line 3", "listen"]);
        fs::write(&file, "listen = \n").expect("written");
        refused(&[command, "--config", path], 1, &["settings.toml", "line 1"]);
        refused(&[command, "--config", "/nowhere.toml"], 1, &["/nowhere.toml", "No such file"]);
    }
}

#[test]
fn without_a_gateway_commands_say_so() {
    // Port 9 is discard's, and nobody's here.
    refused(&["status", "--node", "127.0.0.1:9"], 1, &["cannot learn of the cluster", "127.0.0.1:9"]);
    refused(&["cluster", "drain", "a", "--map", "/nowhere.toml"], 1, &["/nowhere.toml", "--node [ID@]HOST:PORT"]);
    let at = ["--gateway", "http://127.0.0.1:9"];
    for command in [&["status"][..], &["rm", ID], &["import", "."]] {
        refused(&[command, &at].concat(), 1, &["cannot connect", "127.0.0.1:9"]);
    }
}

#[test]
fn doctor_tells_fit_from_unfit() {
    let dir = tempfile::tempdir().expect("a folder");
    let good = deadwax(&["doctor", "--json", dir.path().to_str().expect("UTF-8")]);
    let lines = String::from_utf8(good.stdout).expect("UTF-8");
    assert!(good.status.success(), "this machine runs the tests: {lines}");
    for name in ["kernel", "io_uring", "memlock", "direct I/O", "free space"] {
        let mut checks = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let check = checks.find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {lines}"));
        assert_ne!(check["verdict"], "unfit", "{check}");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0, "something was left behind");

    let missing = dir.path().join("missing");
    let bad = deadwax(&["doctor", missing.to_str().expect("UTF-8")]);
    let text = String::from_utf8(bad.stdout).expect("UTF-8");
    assert_eq!(bad.status.code(), Some(1));
    assert!(text.contains("unfit") && text.contains("make the directory"), "{text}");
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = deadwax(&["completions", shell]);
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && script.contains("import") && script.contains("doctor"), "{shell}");
    }
}

#[test]
fn a_cluster_is_made_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let nodes = [format!("east@127.0.0.1:7001={}", at("drive-1")), format!("west@127.0.0.1:7002={}", at("drive-2"))];
    let data = at("cluster");
    let arguments = ["cluster", "init", "--data", &data, "--node", &nodes[0], "--node", &nodes[1]];
    let output = deadwax(&arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("deadwax master --config"), "{said}");
    for file in ["cluster.toml", "master-1/master.toml", "master-2/master.toml", "gateway/gateway.toml"] {
        let text = fs::read_to_string(Path::new(&data).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(file == "cluster.toml" || text.starts_with("# "), "{file} has no comments: {text}");
    }
    assert!(fs::read_dir(at("drive-1")).expect("the volume is made").count() > 0);
    refused(&arguments, 1, &["there already"]);
    // Somebody else's drive.
    // Where others can reach the gateway, only in so many words.
    let open = ["cluster", "init", "--data", &at("open"), "--listen", "0.0.0.0:7878", "--node", &nodes[0]];
    refused(&open, 1, &["not loopback", "--insecure-listen"]);
    // Where they can reach nodes, these ask who it is.
    let far = format!("east@10.255.255.1:7001={}", at("drive-3"));
    let flags = [(vec![], true), (vec!["--insecure-listen"], false), (vec!["--insecure-listen", "--tls"], true)];
    for (flags, tls) in flags {
        let data = at("far");
        let output = deadwax(&[&["cluster", "init", "--data", &data, "--node", &far][..], &flags].concat());
        assert!(output.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
        for file in ["master-1/master.toml", "gateway/gateway.toml"] {
            let text = fs::read_to_string(Path::new(&data).join(file)).expect("written");
            assert_eq!(text.contains("\ntls = true\n"), tls, "{flags:?}, {file}: {text}");
        }
        for key in ["admin.key", "gateway/gateway.key", "master-1/node.key"] {
            let mode = fs::metadata(Path::new(&data).join(key)).expect("a key").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        for dir in [&data, &at("drive-3")] {
            fs::remove_dir_all(dir).expect("removed");
        }
    }
    let theft = ["cluster", "init", "--data", &at("other"), "--node", &nodes[0]];
    refused(&theft, 1, &["drive-1"]);
}

#[test]
fn a_drive_is_not_added_to_a_master_that_speaks_tls_without_a_key() {
    let dir = tempfile::tempdir().expect("a folder");
    let (home, map, drive) = (dir.path().join("home"), dir.path().join("map.toml"), dir.path().join("drive"));
    let listen = "127.0.0.1:7881".parse().expect("an address");
    let mut config = deadwax_node::Config::new(home, listen, map, vec![dir.path().join("first")]);
    config.tls = true;
    let file = dir.path().join("master.toml");
    fs::write(&file, config.to_toml()).expect("written");
    let (drive_text, file) = (drive.to_str().expect("UTF-8"), file.to_str().expect("UTF-8"));
    refused(&["volume", "add", drive_text, "--config", file], 1, &["speak TLS", "--key FILE"]);
    assert!(!drive.exists(), "nothing was made");
}
