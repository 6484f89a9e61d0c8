//! nginx serving the same tracks from plain files: the ceiling beside the gateway's gets.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::system::free_address;
use crate::tracks::Track;

/// A running nginx. Stopped when dropped.
pub(crate) struct Nginx {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Nginx {
    /// Starts nginx on the tracks, written as files named by id below `folder`; nothing where nginx is not installed.
    pub(crate) fn start(folder: &Path, tracks: &[Track]) -> anyhow::Result<Option<Self>> {
        if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        let files = folder.join("files");
        std::fs::create_dir_all(&files)?;
        for track in tracks {
            std::fs::write(files.join(track.id.to_string()), &track.bytes)?;
        }
        let address = free_address()?;
        let configuration = format!(
            "daemon off; master_process on; worker_processes auto; user root; pid {folder}/nginx.pid; error_log stderr;
             events {{ worker_connections 1024; }}
             http {{ access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000; open_file_cache max=4096;
             client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
             uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
             server {{ listen {address}; root {folder}/files; }} }}",
            folder = folder.display()
        );
        let path = folder.join("nginx.conf");
        std::fs::write(&path, configuration)?;
        let child = Command::new("nginx").arg("-c").arg(&path).stdin(Stdio::null()).spawn().context("start nginx")?;
        let nginx = Self { child, address };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(started.elapsed() < Duration::from_secs(10), "nginx did not listen on {address}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Some(nginx))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(id) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
