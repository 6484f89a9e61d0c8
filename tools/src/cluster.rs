//! A cluster's processes on this machine: started together, kept alive, stopped in order.

use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use deadwax_track::TrackId;
use hyper::{Method, StatusCode};

use crate::children::Keeper;
use crate::http::{Client, GatewayUrl};
use crate::layout::Layout;

/// How long a start may take: a restart reads back what many drives hold.
const READY_MAX: Duration = Duration::from_secs(300);
const READY_POLL: Duration = Duration::from_millis(50);
/// How long masters that all answer may take to compare what they hold. They serve all that they have meanwhile.
const COMPARED_MAX: Duration = Duration::from_secs(5);
/// How long a gateway, and then the masters, may take to end what they are at.
const GATEWAY_STOP_MAX: Duration = Duration::from_secs(15);
const MASTER_STOP_MAX: Duration = Duration::from_secs(20);

/// Masters and a gateway that run. Dropped, they are killed; [`stop`](Self::stop) is the kind way.
#[derive(Debug)]
pub struct Cluster {
    gateway: Keeper,
    masters: Vec<Keeper>,
    client: Client,
}

/// What is to run.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Where its files are.
    pub layout: &'a Layout,
    /// The `deadwax` to run it with.
    pub executable: &'a Path,
    /// Where the gateway listens.
    pub listen: SocketAddr,
    /// Whether that may be elsewhere than on loopback.
    pub insecure_listen: bool,
    /// Whether the processes log JSON.
    pub log_json: bool,
}

impl Cluster {
    /// Starts everything. Call on the thread of a current-thread runtime: see [`Keeper::start`].
    pub fn start(start: Start<'_>) -> anyhow::Result<Self> {
        let Start { layout, executable, listen, insecure_listen, log_json } = start;
        check_free("the gateway", listen, "choose another with --listen")?;
        for index in 0..layout.masters() {
            let file = layout.master_config(index);
            let listen = deadwax_node::Config::load(&file)?.listen;
            let advice = format!("end what has it, or change it in {} and {}", file.display(), layout.map().display());
            check_free(&format!("master-{}", index + 1), listen, &advice)?;
        }
        let mut keepers = Vec::new();
        for index in (0..layout.masters()).map(Some).chain([None]) {
            let mut program = match index {
                Some(index) => layout.master(index, executable),
                None => layout.gateway(executable),
            };
            if index.is_none() {
                program.arguments.extend(["--listen".into(), listen.to_string().into()]);
                program.arguments.extend(insecure_listen.then(|| "--insecure-listen".into()));
            }
            if log_json {
                program.arguments.push("--log-json".into());
            }
            let name = program.name.clone();
            keepers.push(Keeper::start(program).with_context(|| format!("cannot start {name}"))?);
        }
        let gateway = keepers.pop().context("nothing to start")?;
        Ok(Self { gateway, masters: keepers, client: Client::new(url(listen)?) })
    }

    /// A client of its gateway.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until the gateway and every master answer, and know what they do not have; the last not for ever, as it
    /// takes what no start can promise. From then on what dies is started again; before, a death is an error.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let client = self.client.clone();
        let mut complete_at = None;
        loop {
            let is_complete = tokio::select! {
                why = self.first_given_up() => bail!("{}", why.1),
                is_complete = complete(&client) => is_complete,
            };
            if is_complete {
                let complete_at = complete_at.get_or_insert_with(Instant::now);
                if complete_at.elapsed() > COMPARED_MAX || knows_absence(&client).await {
                    break;
                }
            }
            if started.elapsed() > READY_MAX {
                bail!(
                    "not ready after {} s; see the logs beside {}",
                    READY_MAX.as_secs(),
                    self.gateway.program().log.display()
                );
            }
            tokio::time::sleep(READY_POLL).await;
        }
        self.masters.iter().chain([&self.gateway]).for_each(Keeper::settle);
        Ok(())
    }

    /// Waits until there is nothing left worth running, and says why. A single master that is given up is only logged:
    /// the others have its tracks.
    pub async fn broken(&mut self) -> String {
        loop {
            let (master, why) = self.first_given_up().await;
            let Some(master) = master else { return why };
            self.masters.remove(master);
            if self.masters.is_empty() {
                return why;
            }
            tracing::error!("{why}");
        }
    }

    /// The first to be given up: which master, or nothing where it is the gateway; and why.
    async fn first_given_up(&mut self) -> (Option<usize>, String) {
        poll_fn(|cx| {
            if let Poll::Ready(why) = self.gateway.poll_given_up(cx) {
                return Poll::Ready((None, why));
            }
            for (index, master) in self.masters.iter_mut().enumerate() {
                if let Poll::Ready(why) = master.poll_given_up(cx) {
                    return Poll::Ready((Some(index), why));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Stops the gateway, which lets its requests end, then the masters, all at once.
    pub async fn stop(self) {
        self.gateway.stop(GATEWAY_STOP_MAX).await;
        for master in &self.masters {
            master.ask_to_stop(MASTER_STOP_MAX);
        }
        for master in self.masters {
            master.stop(MASTER_STOP_MAX).await;
        }
    }
}

/// Whether the gateway is ready and sees every master.
async fn complete(client: &Client) -> bool {
    let Ok(reply) = client.ask(Method::GET, "/readyz").await else { return false };
    if reply.status != StatusCode::OK || reply.whole().await.is_err() {
        return false;
    }
    let Ok(reply) = client.ask(Method::GET, "/v1/status").await else { return false };
    let Ok(status) = reply.json().await else { return false };
    status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(|node| node["up"] == true))
}

/// Whether masters and gateway can tell what was never stored: masters that keep a log have compared what they hold by
/// then. There is no track without bytes.
async fn knows_absence(client: &Client) -> bool {
    let path = format!("/v1/tracks/{}", TrackId::of(&[]));
    client.ask(Method::HEAD, &path).await.is_ok_and(|reply| reply.status == StatusCode::NOT_FOUND)
}

fn check_free(who: &str, listen: SocketAddr, advice: &str) -> anyhow::Result<()> {
    TcpListener::bind(listen).map(drop).with_context(|| format!("{who} cannot listen at {listen} ({advice})"))
}

/// How this machine reaches what listens at `listen`.
fn url(listen: SocketAddr) -> anyhow::Result<GatewayUrl> {
    let mut at = listen;
    if at.ip().is_unspecified() {
        at.set_ip(match at {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(format!("http://{at}").parse()?)
}
