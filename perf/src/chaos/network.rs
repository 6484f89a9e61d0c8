//! A network of our own: each process in a namespace, joined by this one, which routes between them and so can refuse to.
//!
//! ```text
//! master N of zone Z   10.Z.N.2 ── veth ── 10.Z.N.1   this namespace
//! gateway              10.9.1.2 ── veth ── 10.9.1.1   forwards, by its rules
//! ```
//!
//! What is cut is dropped without a word, as by a cable: both ends wait for their own timeouts. Links are made slow, and
//! lossy, by a token bucket with a short queue (`tbf`); not by netem, which many kernels lack.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;

use super::fault::{Claim, PLACES, ZONES, name, zone_of};
use super::stage::run;

const MASTER_PORT: u16 = 7881;
const GATEWAY_PORT: u16 = 7878;
const GATEWAY: &str = "10.9.1.2";

/// Something between processes fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NetworkFault {
    /// Two masters do not hear each other.
    CutLink { one: usize, two: usize },
    /// One does not hear the other.
    CutOneWay { from: usize, to: usize },
    /// A master and the gateway do not hear each other.
    CutFront { node: usize },
    /// The zones do not hear each other; the gateway hears both.
    CutZones,
    /// A zone is cut off from all others.
    CutZone { zone: usize },
    /// What goes to a master goes at 20 Mbit/s, and what is more is dropped.
    Slow { node: usize },
}

impl NetworkFault {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::CutLink { .. } => "cut_link",
            Self::CutOneWay { .. } => "cut_one_way",
            Self::CutFront { .. } => "cut_front",
            Self::CutZones => "cut_zones",
            Self::CutZone { .. } => "cut_zone",
            Self::Slow { .. } => "slow",
        }
    }

    /// The masters that the gateway does not reach, or not fast.
    pub(crate) fn cuts_off(&self) -> Vec<usize> {
        match *self {
            Self::CutFront { node } | Self::Slow { node } => vec![node],
            Self::CutZone { zone } => (0..PLACES).filter(|node| zone_of(*node) == zone).collect(),
            Self::CutLink { .. } | Self::CutOneWay { .. } | Self::CutZones => vec![],
        }
    }

    pub(crate) fn claims(&self) -> Vec<Claim> {
        match *self {
            Self::CutLink { one, two } => vec![Claim::Path(one, two), Claim::Path(two, one)],
            Self::CutOneWay { from, to } => vec![Claim::Path(from, to)],
            Self::CutFront { node } => vec![Claim::Front(node)],
            Self::CutZones | Self::CutZone { .. } => vec![Claim::Zones],
            Self::Slow { node } => vec![Claim::Link(node)],
        }
    }

    pub(crate) fn begin(&self) -> anyhow::Result<()> {
        self.set("add")
    }

    pub(crate) fn lift(&self) -> anyhow::Result<()> {
        self.set("del")
    }

    fn set(&self, verb: &str) -> anyhow::Result<()> {
        let cut = |from: &str, to: &str| run("ip", &["rule", verb, "from", from, "to", to, "blackhole"]);
        let both = |one: &str, two: &str| cut(one, two).and_then(|()| cut(two, one));
        match *self {
            Self::CutLink { one, two } => both(&address(one), &address(two)),
            Self::CutOneWay { from, to } => cut(&address(from), &address(to)),
            Self::CutFront { node } => both(&address(node), GATEWAY),
            Self::CutZones => both(&subnet(0), &subnet(1)),
            Self::CutZone { zone } => {
                both(&subnet(zone), &subnet((zone + 1) % ZONES.len()))?;
                both(&subnet(zone), GATEWAY)
            }
            Self::Slow { node } => squeeze(verb, &device(node), ["20mbit", "16kb", "64kb"]),
        }
    }
}

impl fmt::Display for NetworkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CutLink { one, two } => write!(f, "{} and {} do not hear each other", name(one), name(two)),
            Self::CutOneWay { from, to } => write!(f, "{} does not hear {}", name(to), name(from)),
            Self::CutFront { node } => write!(f, "{} and the gateway do not hear each other", name(node)),
            Self::CutZones => f.write_str("the zones do not hear each other"),
            Self::CutZone { zone } => write!(f, "zone {} is cut off from all others", ZONES[zone]),
            Self::Slow { node } => write!(f, "{} has a link that is slow and lossy", name(node)),
        }
    }
}

/// Makes namespaces, links and routes. They go with this namespace.
pub(crate) fn build() -> anyhow::Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("forward between namespaces")?;
    run("ip", &["link", "set", "lo", "up"])?;
    for node in 0..PLACES {
        join(&name(node), &device(node), &address(node))?;
    }
    join("gateway", "front", GATEWAY)
}

/// Begins or ends that what goes by a device has this rate, with a burst, beside the bytes that may wait.
fn squeeze(verb: &str, device: &str, [rate, burst, limit]: [&str; 3]) -> anyhow::Result<()> {
    let bucket = ["tbf", "rate", rate, "burst", burst, "limit", limit];
    let which = ["qdisc", verb, "dev", device, "root"];
    run("tc", &[&which[..], if verb == "add" { &bucket } else { &[] }].concat())
}

fn join(name: &str, device: &str, address: &str) -> anyhow::Result<()> {
    let near = format!("{}.1", address.rsplit_once('.').context("an address has dots")?.0);
    let (far_net, near_net) = (format!("{address}/30"), format!("{near}/30"));
    run("ip", &["netns", "add", name])?;
    run("ip", &["link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", name])?;
    run("ip", &["addr", "add", &near_net, "dev", device])?;
    run("ip", &["link", "set", device, "up"])?;
    run("ip", &["-n", name, "addr", "add", &far_net, "dev", "eth0"])?;
    run("ip", &["-n", name, "link", "set", "eth0", "up"])?;
    run("ip", &["-n", name, "link", "set", "lo", "up"])?;
    run("ip", &["-n", name, "route", "add", "default", "via", &near])
}

fn device(node: usize) -> String {
    format!("to-{}", name(node))
}

fn address(node: usize) -> String {
    format!("10.{}.{}.2", zone_of(node) + 1, node + 1)
}

fn subnet(zone: usize) -> String {
    format!("10.{}.0.0/16", zone + 1)
}

/// Where masters listen, each in its place, and where the gateway does.
pub(crate) fn addresses(own: bool) -> anyhow::Result<(Vec<SocketAddr>, SocketAddr)> {
    if own {
        let at = |address: &str, port| anyhow::Ok(SocketAddr::new(address.parse()?, port));
        let masters = (0..PLACES).map(|node| at(&address(node), MASTER_PORT)).collect::<Result<_, _>>()?;
        return Ok((masters, at(GATEWAY, GATEWAY_PORT)?));
    }
    // All of 127.0.0.0/8 is loopback, and no outgoing connection is ever given one of these.
    let [.., high, low] = std::process::id().to_be_bytes();
    let at = |last: usize, port| {
        SocketAddr::from((Ipv4Addr::new(127, high | 1, low, u8::try_from(last).expect("few")), port))
    };
    Ok(((0..PLACES).map(|node| at(node + 1, MASTER_PORT)).collect(), at(PLACES + 1, GATEWAY_PORT)))
}
