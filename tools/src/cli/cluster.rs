//! The command line of what changes a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::node_address::NodeAddress;
use crate::node_spec::NodeSpec;

/// Makes and changes clusters.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Make keys, volumes, the map and commented settings for new nodes
    Init(ClusterInit),
    /// Make a token by which one new master may join
    Token(ClusterToken),
    /// Bring a new master into a cluster that runs
    Join(ClusterJoin),
    /// Show what a change would move, and do nothing
    Plan(ClusterPlan),
    /// Make a change
    Apply(ClusterApply),
    /// Empty a node's drives: `apply drain`
    Drain(ClusterDrain),
    /// Take an empty node out of the cluster: `apply remove`
    Remove(ClusterRemove),
    /// Go back to the nodes, weights, zones and drains of an earlier epoch: `apply rollback`
    Rollback(ClusterRollback),
    /// End an upgrade: `apply finalise` at the version that this program speaks
    Finalise(ClusterFinalise),
    /// Let a node that lost what it kept of its cluster take it from the other nodes
    Rejoin(ClusterRejoin),
    /// Begin the map's log anew at a node that is left, where most of those that vote are lost for good
    Refound(ClusterRefound),
    /// Make a key by which a node may take tracks down, and say what to set
    Issuer(ClusterIssuer),
}

impl Cluster {
    /// Whether all that it prints is to be JSON.
    pub(super) const fn json(&self) -> bool {
        match self {
            Self::Init(init) => init.json,
            Self::Token(token) => token.json,
            Self::Join(join) => join.json,
            Self::Plan(plan) => plan.json,
            Self::Apply(apply) => apply.following.json,
            Self::Drain(drain) => drain.following.json,
            Self::Remove(remove) => remove.following.json,
            Self::Rollback(rollback) => rollback.following.json,
            Self::Finalise(finalise) => finalise.json,
            Self::Rejoin(rejoin) => rejoin.json,
            Self::Refound(refound) => refound.json,
            Self::Issuer(issuer) => issuer.json,
        }
    }
}

/// Makes an issuer's key beside the node's own, or finds the one that is there.
#[derive(Debug, Args)]
#[command(after_help = "\
With --json it is a line {\"issuer\",\"issuer_key\"}: what `issuers` of all masters is to name, and `issuer_key` of this one.

Example:
  deadwax cluster issuer --config /etc/deadwax/master.toml")]
pub struct ClusterIssuer {
    /// The node's settings; they are not changed
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Begins the map's log anew without nodes that are lost for good, so that the map can be changed again.
#[derive(Debug, Args)]
#[command(after_help = "\
For when most of the nodes that vote (`deadwax status` names them) are lost for good: where any of them can be started
again, start it instead. Run it on one node that is left, whose master does not run: of those that are left the one at the
newest epoch, which it asks the others. That node is the only one that votes from then on, until it runs and gives two
others seats, in some seconds. The lost ones are dead: their tracks are copied anew from what is left.

What this node had not heard to be decided of changes to the map is gone; of tracks, those that were on lost ones alone. One
that is there again is started alone, as it is: it takes the new log, and brings takedowns that it alone knew (not where it
was removed meanwhile: it is not let in); then `deadwax cluster apply alive`. Most of them must never run together with what
they kept (system/ beside the key): they go on with the log that was. Then, and where one knew of a change that this log
lacks, there are two logs, and neither side takes anything of the other but takedowns, as logs and `status` say: some seconds
after that is said end all masters that have the other log, and only then, on each, remove system/ and run `deadwax cluster
rejoin`. Gateways that ran meanwhile are to be started anew.

Nobody that is left serves until it has asked all others that are left what was taken down. One that does not answer
(--ignore-silent) holds this up until it is there, or `deadwax cluster apply dead` names it. What only lost ones knew to be
taken down is served again, until one of them is back.

With --json it is a line {\"node\",\"epoch\",\"lost\":[...],\"config\"}.

Example:
  deadwax cluster refound --config /srv/deadwax/master.toml --lost-zone b --yes")]
pub struct ClusterRefound {
    /// The settings of this node, which is left
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// A node that is lost: its address, or the first digits of its id; may be given several times
    #[arg(long, value_name = "NODE", required_unless_present = "lost_zone")]
    pub lost: Vec<String>,
    /// A zone of which all nodes are lost; may be given several times
    #[arg(long, value_name = "ZONE")]
    pub lost_zone: Vec<String>,
    /// Go on though some that are not lost do not answer. One that knows a newer epoch takes no part then, until it rejoins;
    /// nobody serves until each of them answers or is called dead
    #[arg(long)]
    pub ignore_silent: bool,
    /// Do it; else it only says what it would do
    #[arg(long)]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Lets a node that lost its system state (system/ beside its key) take it from the other nodes at its next start.
#[derive(Debug, Args)]
#[command(after_help = "\
With --json it is a line {\"config\",\"rejoins\":true}.

Example:
  deadwax cluster rejoin --config /etc/deadwax/master.toml")]
pub struct ClusterRejoin {
    /// The node's settings
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Makes a cluster.
#[derive(Debug, Args)]
#[command(after_help = "\
Each node gets DIR/master-N/master.toml and a key beside it; the map is DIR/cluster.toml, the gateway's settings and key are
DIR/gateway/gateway.toml and gateway.key, and DIR/admin.key is the key of whoever may command. Then start `deadwax master --config ...` for each, and `deadwax gateway --config ...`.
With --json it is a line {\"map\",\"masters\",\"gateway\",\"admin_key\",\"tls\",\"log\"}; masters and gateway are their settings.

Example, two sites with two drives each:
  deadwax cluster init --data /srv/deadwax \\
    --node london@10.0.0.1:7881=/mnt/a,/mnt/b --node stockholm@10.1.0.1:7881=/mnt/c,/mnt/d")]
pub struct ClusterInit {
    /// Where keys, settings and the map go; made, or empty
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// A node: its zone, its address, and a directory for each of its drives
    #[arg(long = "node", value_name = "ZONE@ADDRESS:PORT=DIR[,DIR...]", required = true)]
    pub nodes: Vec<NodeSpec>,
    /// Where the gateway listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7878")]
    pub listen: SocketAddr,
    /// Let nodes and the gateway speak TLS with one another, and prove who they are; on by itself where a node listens
    /// elsewhere than on loopback, unless --insecure-listen is given
    #[arg(long)]
    pub tls: bool,
    /// Let the gateway listen elsewhere than on loopback, and nodes without TLS: nothing is encrypted then, and nobody is
    /// asked who he is
    #[arg(long)]
    pub insecure_listen: bool,
    /// Keep no log: the map is what the file says, and nodes neither compare what they hold nor mend it. Three nodes or
    /// more keep their map in a log otherwise, and that is for good
    #[arg(long)]
    pub no_log: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which masters to ask.
#[derive(Clone, Debug, Default, Args)]
pub struct Masters {
    /// The cluster's map, which names masters [default where they are asked: ./deadwax-data/cluster.toml]
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "node_address")]
    pub map: Option<PathBuf>,
    /// One master's address, it tells of the others; with its whole id, it must be that one: under TLS whoever answers is
    /// believed else
    #[arg(id = "node_address", long = "node", value_name = "[ID@]HOST:PORT", global = true)]
    pub node: Option<NodeAddress>,
    /// Speak TLS, and prove by this key who asks; commands want one of the masters' `admins`, admin.key at first
    #[arg(long, value_name = "FILE", global = true)]
    pub key: Option<PathBuf>,
}

/// Whether to stay until all has moved.
#[derive(Clone, Copy, Debug, Args)]
pub struct Following {
    /// Stay until all that it moves has moved; interrupted, it moves on
    #[arg(long, global = true)]
    pub wait: bool,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// Makes a token.
#[derive(Debug, Args)]
#[command(after_help = "\
For clusters that speak TLS. The token is one line on the standard output. It names the masters that vote and their keys, so that
the new machine speaks to nobody else; it is used up by the first node that joins by it, and of no use after its time.
With --json it is a line {\"token\",\"ttl_s\"}, or with --revoke {\"revoked\":true,\"epoch\"}.

Example:
  deadwax cluster token --key admin.key --ttl 1h")]
pub struct ClusterToken {
    /// For how long it is good, by the clocks of the masters: 90s, 30m, 1h, 2d; 7 days at most
    #[arg(long, value_name = "TIME", value_parser = ttl, default_value = "1h")]
    pub ttl: Duration,
    /// Make none, and take back all that were not used
    #[arg(long)]
    pub revoke: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which masters.
    #[command(flatten)]
    pub masters: Masters,
}

/// The longest that a token may be good.
const TTL_MAX: Duration = Duration::from_secs(7 * 86_400);

fn ttl(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let unit = units.into_iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let seconds = unit.and_then(|(count, seconds)| count.parse::<u64>().ok()?.checked_mul(seconds));
    let time = seconds.map(Duration::from_secs).filter(|time| !time.is_zero() && *time <= TTL_MAX);
    time.ok_or_else(|| "expected a number and s, m, h or d, from 1s to 7d".to_owned())
}

/// Brings a new master into a cluster.
#[derive(Debug, Args)]
#[command(after_help = "\
Run it on the new machine. DIR gets the node's key, its commented settings (master.toml) and the map; the drives become
volumes; the cluster is told, and gives the node its share once it has started. Interrupted, it goes on when it is run again.
With --json it is a line {\"node\",\"epoch\",\"config\",\"map\"}: its id, since when it is in the map, and its files.

Examples, with a token that `deadwax cluster token` made elsewhere, and in a cluster without TLS:
  deadwax cluster join london@10.0.0.4:7881=/mnt/a,/mnt/b --data /srv/deadwax --token dwt1/...
  deadwax cluster join london@10.0.0.4:7881=/mnt/a,/mnt/b --data /srv/deadwax \\
    --like old-master.toml --node 10.0.0.1:7881")]
pub struct ClusterJoin {
    /// The new node: its zone, its address, and a directory for each of its drives
    #[arg(value_name = "ZONE@ADDRESS:PORT=DIR[,DIR...]")]
    pub spec: NodeSpec,
    /// Where its key, settings and map go
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// What it shares a fate with inside its zone [default: nothing]
    #[arg(long, value_name = "RACK")]
    pub rack: Option<String>,
    /// Each drive's share beside others [default: the size of its file system in GiB]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub weight: Option<u32>,
    /// The settings of a master that is in the cluster: this one speaks TLS as it does, lets in the same gateways and
    /// operators, and follows takedowns of the same issuers [default with --token: as the masters do]
    #[arg(long, value_name = "FILE", required_unless_present = "token")]
    pub like: Option<PathBuf>,
    /// A token, in place of the key of one who may command; `-`: read it from the standard input
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["map", "node_address", "key"])]
    pub token: Option<String>,
    /// Let it listen elsewhere than on loopback without TLS: nothing is encrypted then, and nobody is asked who he is
    #[arg(long)]
    pub insecure_listen: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which masters.
    #[command(flatten)]
    pub masters: Masters,
}

const CHANGES_HELP: &str = "\
Nodes are named by their address or the first digits of their id, volumes by the first digits of theirs, as `deadwax status`
shows them.
With --json `plan` prints its forecast as a line, {\"shares\":[...],\"bytes_to_move\",\"bytes_unavoidable\",\"unmet\",...,
\"warnings\"}; `apply` and the changes that have names of their own a line {\"epoch\",\"settled\",\"forecast\",\"warnings\"}, settled
being that --wait saw all move. A warning names a node or a volume that gets copies and is not known to serve.

Examples:
  deadwax cluster plan weight 3f09c1d2 4000
  deadwax cluster plan join london 4000 4000
  deadwax cluster apply --wait drain 10.0.0.3:7881";

/// Shows what a change would move.
#[derive(Debug, Args)]
#[command(after_help = CHANGES_HELP)]
pub struct ClusterPlan {
    /// Which masters.
    #[command(flatten)]
    pub masters: Masters,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What.
    #[command(subcommand)]
    pub change: Planned,
}

/// What can be asked about.
#[derive(Debug, Clone, Subcommand)]
pub enum Planned {
    /// A change that `apply` makes.
    #[command(flatten)]
    Change(Change),
    /// What a node would get that joins
    Join {
        /// In which zone
        zone: String,
        /// The shares of its drives, which `cluster join` sets to their GiB
        #[arg(value_name = "WEIGHT", required = true, value_parser = clap::value_parser!(u32).range(1..))]
        weights: Vec<u32>,
    },
    /// What a drive would get that a node has more
    AddVolume {
        /// Which node
        #[arg(value_name = "NODE")]
        name: String,
        /// The drive's share, which `volume add` sets to its GiB
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        weight: u32,
    },
}

/// Makes a change.
#[derive(Debug, Args)]
#[command(after_help = CHANGES_HELP)]
pub struct ClusterApply {
    /// Which masters.
    #[command(flatten)]
    pub masters: Masters,
    /// Whether to stay.
    #[command(flatten)]
    pub following: Following,
    /// What.
    #[command(subcommand)]
    pub change: Change,
}

/// Empties a node's drives.
#[derive(Debug, Args)]
#[command(after_help = "\
With --json it prints what `deadwax cluster apply --json` does.

Example:
  deadwax cluster drain 10.0.0.3:7881 --wait && deadwax cluster remove 10.0.0.3:7881")]
pub struct ClusterDrain {
    /// Its address, or the first digits of its id
    #[arg(value_name = "NODE")]
    pub name: String,
    /// Which masters.
    #[command(flatten)]
    pub masters: Masters,
    /// Whether to stay.
    #[command(flatten)]
    pub following: Following,
}

/// Takes a node out of the cluster.
#[derive(Debug, Args)]
#[command(after_help = "\
The node must hold nothing any more (`deadwax cluster drain`). Where it votes, another node votes in its place.
With --json it prints what `deadwax cluster apply --json` does.

Example:
  deadwax cluster remove 10.0.0.3:7881")]
pub struct ClusterRemove {
    /// Its address, or the first digits of its id
    #[arg(value_name = "NODE")]
    pub name: String,
    /// Which masters.
    #[command(flatten)]
    pub masters: Masters,
    /// Whether to stay.
    #[command(flatten)]
    pub following: Following,
}

/// Lets the cluster use the newest version of the protocol that this program speaks.
#[derive(Debug, Args)]
#[command(after_help = "\
Masters of two versions serve together, and each can go back to the program before, until this. It is refused, and says who
keeps it, while a master does not speak the version. After it a program from before does not start.
With --json it prints what `deadwax cluster apply --json` does.

Example:
  deadwax cluster finalise --node 10.0.0.1:7881")]
pub struct ClusterFinalise {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which masters.
    #[command(flatten)]
    pub masters: Masters,
}

/// Goes back to an earlier epoch.
#[derive(Debug, Args)]
#[command(after_help = "\
Weights, zones, racks, addresses and policy become those of the epoch, and so does what is drained; nodes and drives that it
had come back: copies that are to lie on one that does not serve wait, so each such is named first. Those that came since are
drained, and stay in the map until they are removed. Who is dead stays dead (`apply alive`). The last 64 changes can be taken
back (fewer in very large clusters), whatever has moved since; drives that the cluster gave up are among them.
With --json it prints what `deadwax cluster apply --json` does; with --list a line {\"oldest\",\"newest\",
\"epochs\":[{\"epoch\",\"changes\":[\"...\"]},...]}: any epoch from the oldest on can be gone back to, and one in between is
as the one before it in the list.

Examples:
  deadwax cluster rollback --list
  deadwax cluster plan rollback 17
  deadwax cluster rollback 17 --wait")]
pub struct ClusterRollback {
    /// The epoch
    #[arg(required_unless_present = "list")]
    pub epoch: Option<u64>,
    /// Show which epochs there are, and what each changed; nothing is done
    #[arg(long, conflicts_with_all = ["epoch", "wait"])]
    pub list: bool,
    /// Which masters.
    #[command(flatten)]
    pub masters: Masters,
    /// Whether to stay.
    #[command(flatten)]
    pub following: Following,
}

/// A change of a cluster that runs.
#[derive(Clone, Debug, Subcommand)]
pub enum Change {
    /// Empty a node's drives
    Drain {
        /// Which
        #[arg(value_name = "NODE")]
        name: String,
    },
    /// Let a node that is drained have tracks again
    Undrain {
        /// Which
        #[arg(value_name = "NODE")]
        name: String,
    },
    /// Empty a drive
    DrainVolume {
        /// Which
        volume: String,
    },
    /// Let a drive that is drained have tracks again
    UndrainVolume {
        /// Which
        volume: String,
    },
    /// Set a drive's share beside others
    Weight {
        /// Which
        volume: String,
        /// Its share
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        weight: u32,
    },
    /// Say that a node is in another zone
    Zone {
        /// Which
        #[arg(value_name = "NODE")]
        name: String,
        /// Where
        zone: String,
    },
    /// Say that a node is in another rack, or in none
    Rack {
        /// Which
        #[arg(value_name = "NODE")]
        name: String,
        /// Where
        rack: Option<String>,
    },
    /// Say where a node is reached; its settings must say so, too, from its next start on
    Address {
        /// Which
        #[arg(value_name = "NODE")]
        name: String,
        /// host:port
        address: String,
    },
    /// Say that a node will not come back: its copies are made anew elsewhere
    Dead {
        /// Which
        #[arg(value_name = "NODE")]
        name: String,
    },
    /// Say that a node that was declared dead is back
    Alive {
        /// Which
        #[arg(value_name = "NODE")]
        name: String,
    },
    /// Say which nodes vote on changes of the map: 3, 5 or 7
    Voters {
        /// Which
        #[arg(value_name = "NODE", required = true)]
        names: Vec<String>,
    },
    /// Say in how many zones a track's copies must be at least
    ZonesMin {
        /// How many
        zones: u8,
    },
    /// Take an empty node out of the cluster
    Remove {
        /// Which
        #[arg(value_name = "NODE")]
        name: String,
    },
    /// Take an empty drive out of the cluster
    RemoveVolume {
        /// Which
        volume: String,
    },
    /// Go back to an earlier epoch
    Rollback {
        /// Which
        epoch: u64,
    },
    /// Let the cluster use a version of the protocol, which every node then must speak: no node can go back to a program
    /// from before it
    Finalise {
        /// Which
        protocol: u8,
    },
}

/// Adds and takes drives.
#[derive(Debug, Subcommand)]
pub enum Volume {
    /// Make a drive of this machine a volume of its master
    Add(VolumeAdd),
    /// Empty a drive, take it out of the cluster, and say when it may be unplugged
    Retire(VolumeRetire),
}

/// Adds a drive.
#[derive(Debug, Args)]
#[command(after_help = "\
Run it on the master's machine. The drive becomes a volume, the cluster is told, and the settings name it; a master that runs
takes it on SIGHUP. Interrupted, it goes on when it is run again. Where masters speak TLS it wants --key. To replace a drive:
add the new one, then retire the old one.
With --json it is a line {\"volume\",\"node\",\"dir\",\"weight\"}.

Example:
  deadwax volume add /mnt/c --config /srv/deadwax/master.toml --key admin.key && kill -HUP $(pidof deadwax)")]
pub struct VolumeAdd {
    /// A directory on the drive, which is mounted
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The master's settings
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Its share beside other drives [default: the size of its file system in GiB]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub weight: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which masters.
    #[command(flatten)]
    pub masters: Masters,
}

/// Retires a drive.
#[derive(Debug, Args)]
#[command(after_help = "\
Without --wait it begins, and says what is left; run again, it goes on. A drive that fails, and stays out for 30 minutes, is
emptied without it; then this takes it out of the map. Taken back: `deadwax cluster apply undrain-volume`.
With --json it is a line {\"volume\",\"node\",\"partitions_left\",\"removed\"}; removed: it may go from the settings.

Example:
  deadwax volume retire 3f09c1d2 --wait")]
pub struct VolumeRetire {
    /// The first digits of its id
    pub volume: String,
    /// Which masters.
    #[command(flatten)]
    pub masters: Masters,
    /// Whether to stay.
    #[command(flatten)]
    pub following: Following,
}
