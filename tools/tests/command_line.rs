//! What people type wrong, and what needs no cluster. On the real program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

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

/// The lines of JSON that it printed.
fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// What it printed for programs in one line, where it ends well.
fn told(arguments: &[&str]) -> Value {
    let output = deadwax(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let mut lines = lines(&output);
    assert_eq!(lines.len(), 1, "{arguments:?}: {lines:?}");
    lines.remove(0)
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
    // The track itself goes there.
    for more in [&[][..], &["-o", "-"]] {
        refused(&[&["get", ID, "--json"], more].concat(), 2, &["--json wants -o FILE"]);
    }
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
    let cluster =
        ["init", "join", "plan", "apply", "drain", "remove", "rollback", "finalise", "refound", "rejoin", "issuer"];
    for command in cluster {
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
fn why_a_command_fails_is_a_line_of_json_where_that_is_wanted() {
    let dir = tempfile::tempdir().expect("a folder");
    let missing = dir.path().join("missing").display().to_string();
    let file = dir.path().join("file").display().to_string();
    fs::write(&file, "no folder").expect("written");
    let drive = format!("here@127.0.0.1:7001={file}");
    let home = ["--data", &missing];
    let at = ["--gateway", "http://127.0.0.1:9"];
    let node = ["--node", "127.0.0.1:9"];
    let config = ["--config", &missing];
    let all: [(&[&str], &[&str], i32); 21] = [
        (&["up"], &["--data", &file], 1),
        (&["import", &file], &at, 1),
        (&["status"], &at, 1),
        (&["repair"], &node, 1),
        (&["scrub"], &node, 1),
        (&["inspect", &missing], &[], 1),
        (&["verify", &missing], &[], 2),
        (&["salvage", &missing], &["--to", &file], 1),
        (&["cluster", "init", "--node", &drive], &home, 1),
        (&["cluster", "token"], &node, 1),
        (&["cluster", "join", &drive, "--like", &missing], &home, 1),
        (&["cluster", "plan", "drain", "a"], &node, 1),
        (&["cluster", "apply", "drain", "a"], &node, 1),
        (&["cluster", "drain", "a"], &node, 1),
        (&["cluster", "remove", "a"], &node, 1),
        (&["cluster", "rollback", "1"], &node, 1),
        (&["cluster", "finalise"], &node, 1),
        (&["cluster", "refound", "--lost", "a"], &config, 1),
        (&["cluster", "rejoin"], &config, 1),
        (&["cluster", "issuer"], &config, 1),
        (&["volume", "add", &missing], &config, 1),
    ];
    for (command, more, code) in all {
        let plain = deadwax(&[command, more].concat());
        assert_eq!((plain.status.code(), plain.stdout.len()), (Some(code), 0), "{command:?}");
        let output = deadwax(&[command, more, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
        let lines = lines(&output);
        let why = lines[0]["error"].as_str().unwrap_or_else(|| panic!("{command:?}: {lines:?}"));
        assert!(lines.len() == 1 && said.contains(&format!("deadwax: {why}")), "{command:?}: {lines:?}, {said}");
    }
    // Of many tracks each has its own.
    let output = deadwax(&[&["rm", "--json", ID, ID], &at[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let lines = lines(&output);
    let failed = |line: &Value| {
        line["id"] == ID && line["outcome"] == "failed" && line["error"].as_str().is_some_and(|why| !why.is_empty())
    };
    assert!(lines.len() == 2 && lines.iter().all(failed), "{lines:?}");
}

#[test]
fn whose_reader_has_gone_ends_quietly() {
    let dir = tempfile::tempdir().expect("a folder");
    let (data, drive) = (dir.path().join("data").display().to_string(), dir.path().join("drive"));
    let node = format!("here@127.0.0.1:7001={}", drive.display());
    let init = ["cluster", "init", "--data", &data, "--node", &node];
    let verify = ["verify", drive.to_str().expect("UTF-8")];
    let json = |arguments: &[&'static str]| [arguments, &["--json"]].concat();
    for arguments in [&init[..], &verify, &json(&["doctor"]), &["doctor"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_deadwax"));
        let output = command.args(arguments).stdout(writer).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(141), ""), "{arguments:?}");
    }
    assert!(deadwax(&verify).status.success(), "the volume was made all the same");
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
fn programs_read_what_was_made_and_what_to_set() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let nodes = [1, 2, 3].map(|n| format!("here@127.0.0.1:700{n}={}", at(&format!("drive-{n}"))));
    let nodes = nodes.each_ref().map(|node| ["--node", node]).concat();
    let data = at("cluster");
    let made = told(&[&["cluster", "init", "--json", "--data", &data], &nodes[..]].concat());
    assert_eq!((&made["tls"], &made["log"]), (&Value::from(false), &Value::from(true)), "{made}");
    let masters = made["masters"].as_array().expect("masters");
    let files = masters.iter().chain([&made["map"], &made["gateway"], &made["admin_key"]]);
    let files: Vec<&str> = files.map(|file| file.as_str().expect("a file")).collect();
    assert!(files.len() == 6 && files.iter().all(|file| Path::new(file).is_file()), "{made}");

    let issuer = told(&["cluster", "issuer", "--json", "--config", files[0]]);
    assert!(issuer["issuer"].as_str().is_some_and(|key| key.len() == 64), "{issuer}");
    assert!(issuer["issuer_key"].as_str().is_some_and(|file| Path::new(file).is_file()), "{issuer}");

    fs::remove_dir_all(Path::new(&data).join("master-1/system")).expect("removed");
    let rejoin = told(&["cluster", "rejoin", "--json", "--config", files[0]]);
    assert_eq!(rejoin, serde_json::json!({"config": files[0], "rejoins": true}));
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
