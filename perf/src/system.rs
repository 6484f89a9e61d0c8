//! A whole Deadwax on loopback, as its users start it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

const START_MAX: Duration = Duration::from_secs(60);

/// A running `deadwax up`. Stopped when dropped.
pub(crate) struct System {
    child: Child,
    pub(crate) gateway: SocketAddr,
}

/// Memory of one process, MiB.
pub(crate) struct Memory {
    pub(crate) name: String,
    pub(crate) now: f64,
    pub(crate) peak: f64,
}

impl System {
    /// Starts the binary `deadwax` with its data in `data`, and waits until the gateway is ready.
    pub(crate) fn start(deadwax: &Path, data: &Path) -> anyhow::Result<Self> {
        let gateway = free_address()?;
        let child = Command::new(deadwax)
            .arg("up")
            .arg("--data")
            .arg(data)
            .args(["--listen", &gateway.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", deadwax.display()))?;
        let mut system = Self { child, gateway };
        let started = Instant::now();
        while !ready(gateway) {
            if let Some(status) = system.child.try_wait()? {
                bail!("deadwax up ended with {status} before it was ready");
            }
            ensure!(started.elapsed() < START_MAX, "deadwax up was not ready within {START_MAX:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(system)
    }

    /// The memory of every process of the system.
    pub(crate) fn memory(&self) -> Vec<Memory> {
        let parent = self.child.id();
        let mut all: Vec<Memory> = std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter_map(|id| memory_of(id, parent))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if let Some(id) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// The `deadwax` to measure: the one that was named, or the one beside this program.
pub(crate) fn executable(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let deadwax = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("deadwax"),
    };
    ensure!(deadwax.exists(), "{} is not there: run `cargo build --release --workspace` first", deadwax.display());
    Ok(deadwax)
}

/// An address of loopback that was free a moment ago.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

fn ready(gateway: SocketAddr) -> bool {
    use std::io::Write;
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(gateway)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nhost: {gateway}\r\nconnection: close\r\n\r\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line.contains(" 200 "))
    };
    ask().unwrap_or(false)
}

/// The process's memory if it is `parent` or a child of it.
fn memory_of(id: u32, parent: u32) -> Option<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    if id != parent && field("PPid:")? != u64::from(parent) {
        return None;
    }
    let arguments = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
    let words: Vec<_> = arguments.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    let name = match words.get(1).map(AsRef::as_ref) {
        Some("master") => {
            let config =
                words.iter().map(|word| PathBuf::from(word.as_ref())).find(|path| path.ends_with("master.toml"));
            let folder = config.as_deref().and_then(Path::parent).and_then(Path::file_name);
            folder.map_or_else(|| "master".to_owned(), |name| name.to_string_lossy().into_owned())
        }
        Some(command) => command.to_owned(),
        None => "?".to_owned(),
    };
    #[expect(clippy::cast_precision_loss, reason = "a size, printed to one digit")]
    let mib = |name| field(name).map(|kib| kib as f64 / 1024.0);
    Some(Memory { name, now: mib("VmRSS:")?, peak: mib("VmHWM:")? })
}
