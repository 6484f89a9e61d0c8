//! Rules about the code itself, held by reading it: which crate may know which, how long things may be, and what must be
//! said beside what.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};
use walkdir::WalkDir;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const DROSS: [&str; 4] = ["utils", "common", "helpers", "prelude"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tools lies in the workspace").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every crate: its folder, and its manifest.
fn crates() -> Vec<(PathBuf, String)> {
    let workspace: Table = read(&root().join("Cargo.toml")).parse().expect("TOML");
    let members = workspace["workspace"]["members"].as_array().expect("members");
    let folders = members.iter().map(|member| root().join(member.as_str().expect("a folder")));
    folders.map(|folder| (folder.clone(), read(&folder.join("Cargo.toml")))).collect()
}

/// Every Rust file of the workspace, with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let hidden = |name: &str| name.starts_with('.') || name == "target" || name == "deadwax-data";
    let walk = WalkDir::new(root()).sort_by_file_name().into_iter();
    walk.filter_entry(move |entry| entry.depth() == 0 || !entry.file_name().to_str().is_some_and(hidden))
        .map(|entry| entry.expect("readable").into_path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| (path.strip_prefix(root()).expect("below the root").to_owned(), read(&path)))
        .collect()
}

fn hold(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// The crates of the workspace that `manifest` names in the section `name`.
fn ours(manifest: &Table, name: &str) -> Vec<String> {
    let section = manifest.get(name).and_then(Value::as_table);
    let names = section.into_iter().flat_map(Table::keys);
    names.filter(|name| name.starts_with("deadwax")).cloned().collect()
}

/// Which crate may know which: DESIGN, section 3.
fn edges() -> BTreeMap<&'static str, Vec<&'static str>> {
    let everything = vec![
        "deadwax-track",
        "deadwax-engine",
        "deadwax-dht",
        "deadwax-dht-client",
        "deadwax-dht-tls",
        "deadwax-node",
        "deadwax-cache",
        "deadwax-gateway",
        "deadwax-peer",
    ];
    BTreeMap::from([
        ("deadwax-track", vec![]),
        ("deadwax-engine", vec!["deadwax-track"]),
        ("deadwax-dht", vec!["deadwax-track"]),
        ("deadwax-cache", vec!["deadwax-track"]),
        ("deadwax-peer", vec!["deadwax-track"]),
        ("deadwax-dht-tls", vec!["deadwax-dht"]),
        ("deadwax-dht-client", vec!["deadwax-dht", "deadwax-dht-tls", "deadwax-track"]),
        ("deadwax-dht-sim", vec!["deadwax-dht", "deadwax-track"]),
        ("deadwax-node", vec!["deadwax-dht", "deadwax-dht-tls", "deadwax-engine", "deadwax-track"]),
        ("deadwax-gateway", vec!["deadwax-cache", "deadwax-dht", "deadwax-dht-client", "deadwax-track"]),
        // Operators' commands look into every part.
        ("deadwax", everything.clone()),
        ("deadwax-perf", [everything, vec!["deadwax", "deadwax-dht-sim"]].concat()),
    ])
}

/// Crates whose tests, too, know no more than they do: `engine`, `dht` and `cache` share only the nouns.
const STRANGERS: [&str; 4] = ["deadwax-track", "deadwax-engine", "deadwax-dht", "deadwax-cache"];

#[test]
fn crates_know_only_whom_the_design_says() {
    let edges = edges();
    let mut broken = Vec::new();
    for (_, text) in crates() {
        let manifest: Table = text.parse().expect("TOML");
        let name = manifest["package"]["name"].as_str().expect("a name");
        let Some(allowed) = edges.get(name) else {
            broken.push(format!("{name} is not in the design"));
            continue;
        };
        for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let lenient = section == "dev-dependencies" && !STRANGERS.contains(&name);
            for other in ours(&manifest, section) {
                // The core's own simulator is a crate, so that `perf` has it, too.
                let simulated = name == "deadwax-dht" && section == "dev-dependencies" && other == "deadwax-dht-sim";
                if other == "deadwax-perf" || !(lenient || simulated || allowed.contains(&other.as_str())) {
                    broken.push(format!("{name} names {other} in its {section}"));
                }
            }
        }
        if manifest.contains_key("target") {
            broken.push(format!("{name} has dependencies by target, which this test does not read"));
        }
    }
    hold("a crate knows one that it should not", &broken);
}

#[test]
fn every_dependency_has_its_reason() {
    let mut broken = Vec::new();
    for (folder, text) in crates() {
        let (mut inside, mut above) = (false, false);
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with('[') {
                inside = line.ends_with("dependencies]");
            }
            // The design says why the workspace's own crates know each other.
            let names_one = inside && line.contains('=') && !line.starts_with('#') && !line.starts_with("deadwax");
            if names_one && !above && !line.contains(" # ") {
                broken.push(format!("{}:{}: {line}", folder.join("Cargo.toml").display(), index + 1));
            }
            above = line.starts_with('#');
        }
    }
    hold("a dependency does not say what it is for", &broken);
}

#[test]
fn files_and_functions_are_short() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            broken.push(format!("{}: {} lines", path.display(), lines.len()));
        }
        for (start, length) in functions(&lines) {
            if length > FUNCTION_LINES_MAX && !waived(&lines, start) {
                broken.push(format!("{}:{}: a function of {length} lines", path.display(), start + 1));
            }
        }
    }
    hold(&format!("files have {FILE_LINES_MAX} lines at most, functions {FUNCTION_LINES_MAX}"), &broken);
}

/// Where each function starts and how many lines it has. rustfmt puts its last brace below its first letter.
fn functions<'a>(lines: &'a [&'a str]) -> impl Iterator<Item = (usize, usize)> + 'a {
    lines.iter().enumerate().filter(|(_, line)| is_function(line)).filter_map(|(start, line)| {
        if line.ends_with('}') {
            return None;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let closing = format!("{indent}}}");
        let body = lines[start..].iter().position(|line| *line == closing)?;
        // A declaration without a body ends before the next brace of its depth does.
        let at_depth = |line: &str| !line.get(indent.len()..).is_some_and(|rest| rest.starts_with(' '));
        let declared = lines[start..].iter().position(|line| line.ends_with(';') && at_depth(line));
        if declared.is_some_and(|end| end < body) { None } else { Some((start, body + 1)) }
    })
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let prefixes = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\""];
    words.find(|word| !prefixes.contains(word)) == Some("fn")
}

fn waived(lines: &[&str], start: usize) -> bool {
    let above = lines[..start].iter().rev().take_while(|line| !line.trim().is_empty() && line.trim() != "}");
    above.into_iter().any(|line| line.contains("clippy::too_many_lines"))
}

#[test]
fn functions_are_measured() {
    let text = "impl A {\n    fn a() {\n        x();\n    }\n\n    fn b();\n\n    pub async fn c(\n        x: u8,\n    ) {\n    }\n\n    fn d() {}\n}\n";
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(functions(&lines).collect::<Vec<_>>(), [(1, 3), (7, 4)]);
}

#[test]
fn crates_say_what_they_are() {
    let mut broken = Vec::new();
    for (folder, _) in crates() {
        let files: Vec<PathBuf> = ["src/lib.rs", "src/main.rs"]
            .map(|file| folder.join(file))
            .into_iter()
            .filter(|file| file.exists())
            .collect();
        if files.is_empty() {
            broken.push(format!("{} has neither lib.rs nor main.rs", folder.display()));
        }
        for file in files {
            let text = read(&file);
            if !text.starts_with("//! ") || text.lines().take_while(|line| line.starts_with("//!")).count() < 1 {
                broken.push(format!("{} does not open with //!", file.display()));
            }
            if file.ends_with("lib.rs")
                && !text.to_lowercase().contains("absent on purpose")
                && !text.contains("No I/O")
            {
                broken.push(format!("{} does not say what is absent on purpose", file.display()));
            }
        }
    }
    hold("a crate does not say what it is", &broken);
}

#[test]
fn files_are_named_for_a_noun() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        if path
            .iter()
            .any(|part| DROSS.iter().any(|name| Path::new(part).file_stem().is_some_and(|stem| stem == *name)))
        {
            broken.push(path.display().to_string());
        }
        let inline = text.lines().any(|line| DROSS.iter().any(|name| line.contains(&format!("mod {name} {{"))));
        if inline {
            broken.push(format!("{}: a module in it", path.display()));
        }
    }
    hold("a module is named for nothing", &broken);
}

#[test]
fn unsafe_code_argues_why_it_is_safe() {
    // Put together here, so that this file has none.
    let opens = [" {", " impl"].map(|rest| format!("unsafe{rest}"));
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !opens.iter().any(|open| code.contains(open)) {
                continue;
            }
            // Some lines may lie between: attributes, and the head of the statement that the block is in.
            let argued = lines[index.saturating_sub(12)..=index].iter().any(|line| line.contains("SAFETY:"));
            if !argued {
                broken.push(format!("{}:{}", path.display(), index + 1));
            }
        }
    }
    hold("unsafe code without a SAFETY line above it", &broken);
}

#[test]
fn the_readmes_test_command_is_run() {
    let readme = read(&root().join("README.md"));
    let script = read(&root().join(".ci/run"));
    let commands = readme.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let tests: Vec<_> = commands.filter(|line| line.starts_with("cargo test")).collect();
    assert!(!tests.is_empty() && readme.contains("cargo run --release -- up --demo"), "README.md has both commands");
    let missing: Vec<String> =
        tests.into_iter().filter(|line| !script.lines().any(|run| run == *line)).map(str::to_owned).collect();
    hold("README.md names a test command that .ci/run does not run", &missing);
}
