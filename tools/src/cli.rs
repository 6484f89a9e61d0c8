//! The command line, as clap reads it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use deadwax_track::TrackId;

mod cluster;

pub use self::cluster::{
    Change, Cluster, ClusterApply, ClusterDrain, ClusterFinalise, ClusterInit, ClusterIssuer, ClusterJoin, ClusterPlan,
    ClusterRefound, ClusterRejoin, ClusterRemove, ClusterRollback, ClusterToken, Following, Masters, Planned, Volume,
    VolumeAdd, VolumeRetire,
};
use crate::http::GatewayUrl;

const EXIT_CODES: &str = "\
Exit codes: 0 all went well, 1 something failed (`status`: not healthy), 2 the command line is wrong, or `verify` could not check; 141
whoever read the standard output has gone.
With --json a command that cannot begin or go on also prints why: a line {\"error\"}, the sentence that is on the standard error.
Environment: DEADWAX_GATEWAY is the gateway's URL; DEADWAX_LOG what is logged (default info, for example debug).";

/// Deadwax, a track store: every track a music service owns, on Linux storage servers.
#[derive(Debug, Parser)]
#[command(name = "deadwax", version, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Cli {
    /// Log in JSON, a line an event (on the standard error)
    #[arg(long, global = true)]
    pub log_json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the command line of this process. Where it is wrong, or asks for help, the process says so and ends.
    #[must_use]
    pub fn read() -> Self {
        let cli = Self::parse();
        if let Command::Get(get) = &cli.command
            && get.json
            && get.file().is_none()
        {
            let why = "--json wants -o FILE: the track itself goes to the standard output else";
            Self::command().error(ErrorKind::MissingRequiredArgument, why).exit();
        }
        cli
    }

    /// Whether all that it prints is to be JSON, and so is why it fails.
    #[must_use]
    pub const fn json(&self) -> bool {
        match &self.command {
            Command::Master(_) | Command::Gateway(_) | Command::Completions(_) => false,
            Command::Up(up) => up.json,
            Command::Cluster(command) => command.json(),
            Command::Volume(Volume::Add(add)) => add.json,
            Command::Volume(Volume::Retire(retire)) => retire.following.json,
            Command::Import(import) => import.json,
            Command::Get(get) => get.json,
            Command::Rm(rm) => rm.json,
            Command::Status(status) => status.json,
            Command::Repair(repair) => repair.json,
            Command::Scrub(scrub) => scrub.json,
            Command::Doctor(doctor) => doctor.json,
            Command::Inspect(inspect) => inspect.json,
            Command::Verify(verify) => verify.json,
            Command::Salvage(salvage) => salvage.json,
        }
    }
}

/// Everything that `deadwax` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start masters and a gateway on this machine
    Up(Up),
    /// Run one master node
    Master(Master),
    /// Run one gateway
    Gateway(Gateway),
    /// Make and change clusters
    #[command(subcommand)]
    Cluster(Cluster),
    /// Add drives to a master, and take them from it
    #[command(subcommand)]
    Volume(Volume),
    /// Bring music into the store
    Import(Import),
    /// Fetch a track
    Get(Get),
    /// Take tracks down: a legal delete that cannot be undone
    Rm(Rm),
    /// Show nodes, volumes and how many copies are missing
    Status(Status),
    /// Have masters compare what they hold and mend what is missing now, and say what is
    Repair(Repair),
    /// Have drives read and checked now, and say how long ago they were
    Scrub(Scrub),
    /// Say whether this machine is fit to run a master
    Doctor(Doctor),
    /// Show what a volume at rest holds: segments, records, footers, snapshots
    Inspect(Inspect),
    /// Check every byte of a volume at rest
    Verify(Verify),
    /// Copy every whole track out of a volume, or out of what is left of one
    Salvage(Salvage),
    /// Print a script that completes commands in a shell
    #[command(after_help = "Example:\n  deadwax completions bash > /etc/bash_completion.d/deadwax")]
    Completions(Completions),
}

/// Starts a cluster on loopback.
#[derive(Debug, Args)]
#[command(after_help = "\
Ctrl-C stops everything; started again, everything is there.
With --json there is a line once it serves: {\"gateway\",\"masters\":[{\"address\",\"config\"}],\"data\",\"map\",\"admin_key\"};
then with --demo a line for each song: {\"song\":{\"title\",\"id\",\"length_ms\",\"url\",\"outcome\"}}.

Examples:
  deadwax up --demo                      try it: makes an album and says where to listen
  deadwax up --data /srv/deadwax         start what is in /srv/deadwax, or make it
  deadwax up --masters 6 --zones a,b     six masters, three in each of two zones")]
pub struct Up {
    /// Also make a small album, import it, and say where to listen
    #[arg(long)]
    pub demo: bool,
    /// Where everything lies
    #[arg(long, value_name = "DIR", default_value = "./deadwax-data")]
    pub data: PathBuf,
    /// Where the gateway listens [default: what the data directory says, 127.0.0.1:7878 at first]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Let the gateway listen elsewhere than on loopback, where anybody may read, store and take down tracks
    #[arg(long)]
    pub insecure_listen: bool,
    /// How many masters [default: as many as the data directory has, 3 at first]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub masters: Option<u16>,
    /// The zones of a new cluster's masters, dealt out by turns [default: all in the zone local]
    #[arg(long, value_name = "ZONE,...", value_delimiter = ',')]
    pub zones: Vec<String>,
    /// Make a new cluster without the log that three masters or more keep their map in: they neither compare what they
    /// hold nor mend it
    #[arg(long)]
    pub no_log: bool,
    /// Print lines of JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs a master.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deadwax master --config /etc/deadwax/master.toml")]
pub struct Master {
    /// Its settings (TOML; `deadwax cluster init` writes one with comments)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// End when this process does; set by `deadwax up`
    #[arg(long, hide = true)]
    pub parent: Option<u32>,
}

/// Runs a gateway.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  deadwax gateway --config /etc/deadwax/gateway.toml")]
pub struct Gateway {
    /// Its settings (TOML; `deadwax cluster init` writes one with comments)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Listen here instead of where the settings say
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Listen elsewhere than on loopback, where anybody may read, store and take down tracks
    #[arg(long)]
    pub insecure_listen: bool,
    /// End when this process does; set by `deadwax up`
    #[arg(long, hide = true)]
    pub parent: Option<u32>,
}

/// Which gateway to ask.
#[derive(Debug, Args)]
pub struct Asked {
    /// The gateway's URL
    #[arg(long, value_name = "URL", env = "DEADWAX_GATEWAY", default_value = "http://127.0.0.1:7878")]
    pub gateway: GatewayUrl,
}

/// Imports music.
#[derive(Debug, Args)]
#[command(after_help = "\
What is stored already is not sent again, so an interrupted import goes on where it stopped when it is run again.
A file that cannot be imported is reported, and the rest goes on; the exit code is then 1.
With --json each file is a line: {\"path\",\"id\",\"bytes\",\"outcome\"}, outcome being stored, present or failed (then
with \"error\").

Examples:
  deadwax import ~/Music
  deadwax import --jobs 8 --json album.flac /srv/music > imported.jsonl")]
pub struct Import {
    /// Files and folders; in folders, audio files are taken
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Which gateway.
    #[command(flatten)]
    pub asked: Asked,
    /// How many files at a time
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// Print a line of JSON for each file
    #[arg(long)]
    pub json: bool,
}

/// Fetches a track.
#[derive(Debug, Args)]
#[command(after_help = "\
With -o the track goes to FILE.part first, is proved against its id, and then named FILE. An interrupted fetch goes on
where it stopped when it is run again.
With --json, which wants -o, there is a line {\"id\",\"bytes\",\"file\",\"outcome\"} then, outcome being fetched or resumed.

Examples:
  deadwax get 9f86d0...0f00a08 -o song.ogg
  deadwax get 9f86d0...0f00a08 | ffplay -")]
pub struct Get {
    /// The track's id: 64 hexadecimal digits
    pub id: TrackId,
    /// Where to write it; - is the standard output [default: the standard output, unless it is a terminal]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print a line of JSON once the file is there
    #[arg(long)]
    pub json: bool,
    /// Which gateway.
    #[command(flatten)]
    pub asked: Asked,
}

impl Get {
    /// The file that it writes; nothing where that is the standard output.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| *path != Path::new("-"))
    }
}

/// Takes tracks down.
#[derive(Debug, Args)]
#[command(after_help = "\
Where the cluster has a log of takedowns it is done when most nodes have it: those that are down hear of it before they
serve again. Else every holder must confirm. The number is good for GET /v1/takedowns/NUMBER.
With --json each track is a line: {\"id\",\"outcome\",\"takedown\",\"nodes\",\"nodes_of\"}, outcome being failed, taken_down or
erased (every copy is; with --wait); takedown is the number, nodes of nodes_of have it, and \"error\" says what failed.

Examples:
  deadwax rm 9f86d0...0f00a08
  deadwax rm --wait --reason 'court order 17/26' 9f86d0...0f00a08")]
pub struct Rm {
    /// The tracks' ids: 64 hexadecimal digits each
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<TrackId>,
    /// Wait until every copy is erased, drives that are declared dead aside
    #[arg(long)]
    pub wait: bool,
    /// Why, for people: signed with the takedown, and kept with it for ever; at most 78 bytes
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Print a line of JSON for each track
    #[arg(long)]
    pub json: bool,
    /// Which gateway.
    #[command(flatten)]
    pub asked: Asked,
}

/// Shows the cluster.
#[derive(Debug, Args)]
#[command(after_help = "\
Asks the gateway, or with --map or --node the masters themselves. The exit code is 0 where the cluster is healthy: every
node is up, every track has its copies, each drive that holds tracks was read and checked within 60 days (VERIFIED says how
long ago; a gateway's setting can say other than 60), and nothing that moves is stuck; else 1, and each reason is a line; of
partitions that lack copies the worst are named, by those which are left with fewest copies.
With --json it is a line, with --watch one each time: what the gateway's /v1/status answers, {\"healthy\",\"warnings\",\"nodes\",
\"copies\",\"shortfalls\",\"epoch\",\"log\",...}; in --watch {\"error\"} while nobody answers.

Examples:
  deadwax status
  deadwax status --watch
  deadwax status --node 10.0.0.1:7881 --json")]
pub struct Status {
    /// Which gateway.
    #[command(flatten)]
    pub asked: Asked,
    /// Which masters.
    #[command(flatten)]
    pub masters: Masters,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Go on, every two seconds: redrawn on a terminal, a line each time elsewhere
    #[arg(long)]
    pub watch: bool,
    /// Not healthy is also a drive that holds tracks and was not read and checked for so many days; wants --map or --node
    /// [default: 60]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(..=36_500))]
    pub verified_within: Option<u64>,
}

/// Finds and mends what is missing.
#[derive(Debug, Args)]
#[command(after_help = "\
Masters compare what they hold within seconds of each change, and copy what is missing, slowly where clients are kept
waiting (`repair` in their settings). This has them compare everything again now, and try now what waits for its next try.
They go by what their drives' indexes say: `deadwax scrub` reads the bytes. It goes on though the command ends. With --wait
the exit code is 0 where every track has all its copies, as compared with every holder (of one node: all that it is to hold);
what was put meanwhile is not waited for.
With --json it is a line {\"nodes\":[{\"node\",\"address\",\"report\"}]}, a report being {\"comparing\",\"unanswered\",\"suspected\",
\"pulls\"}, or \"error\" in its place.

Examples:
  deadwax repair --wait
  deadwax repair --of 10.0.0.1:7881
  deadwax repair --show --json")]
pub struct Repair {
    /// Only this node: its address, or the first digits of its id
    #[arg(long, value_name = "NODE")]
    pub of: Option<String>,
    /// Only show how far it is
    #[arg(long, conflicts_with = "wait")]
    pub show: bool,
    /// Stay until nothing is missing, or nothing comes any more
    #[arg(long)]
    pub wait: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which masters.
    #[command(flatten)]
    pub masters: Masters,
}

/// Checks what drives hold, while they serve.
#[derive(Debug, Args)]
#[command(after_help = "\
Drives are checked all the time, slowly (`scrub_bytes_per_second` in the settings of their master). This reads all that they
hold now, from the beginning, behind whoever else wants the drive; damaged records are mended from other copies. It goes on
though the command ends. With --wait the exit code is 0 where all was read and nothing was damaged.
What does not serve, or does not answer, is named, and the exit code is 1 then.
With --json it is a line {\"volumes\":[{\"node\",\"scrub\"}],\"errors\":[...]}.

Examples:
  deadwax scrub --wait
  deadwax scrub --volume 3f09c1d2 --rate 200000000
  deadwax scrub --show")]
pub struct Scrub {
    /// Only this drive: the first digits of its id
    #[arg(long, value_name = "VOLUME", conflicts_with = "of")]
    pub volume: Option<String>,
    /// Only the drives of this node: its address, or the first digits of its id
    #[arg(long, value_name = "NODE")]
    pub of: Option<String>,
    /// How many bytes a second each drive reads at most, until all was read
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: u64,
    /// Only show how long ago drives were checked, and how far it is
    #[arg(long, conflicts_with = "wait")]
    pub show: bool,
    /// Stay until all was read
    #[arg(long)]
    pub wait: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which masters.
    #[command(flatten)]
    pub masters: Masters,
}

/// Checks this machine.
#[derive(Debug, Args)]
#[command(after_help = "\
Looks at the kernel, whether io_uring is permitted, locked memory, open files, and for each directory whether it takes
O_DIRECT and has space. The exit code is 1 where a master would not run.
With --json each finding is a line: {\"name\",\"verdict\",\"found\",\"advice\"}, verdict being fit, poor or unfit.

Example:
  deadwax doctor /mnt/a /mnt/b")]
pub struct Doctor {
    /// Directories that volumes are, or are to be, in
    #[arg(value_name = "DIR", default_value = ".")]
    pub dirs: Vec<PathBuf>,
    /// Print a line of JSON for each finding
    #[arg(long)]
    pub json: bool,
}

/// Looks into a volume.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads only. On a volume that a process has open it warns, and what it prints may be half of something.
With --json the volume is a line {\"volume\":...}, with its segments; with --records each segment is a line
{\"segment\":...} after it, with its records.

Examples:
  deadwax inspect /mnt/a
  deadwax inspect /mnt/a --segment 7 --records")]
pub struct Inspect {
    /// The volume's directory
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Only this segment
    #[arg(long, value_name = "N")]
    pub segment: Option<u64>,
    /// Also every record
    #[arg(long)]
    pub records: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Checks a volume.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads every record, by listing and by walking, proves each track against its id, and compares what is listed with what
is there. Writes nothing, and keeps a master from opening the volume meanwhile.
The exit code is 0 where all is well, 1 where something is damaged, 2 where the volume cannot be checked.
With --json each finding is a line {\"finding\":...}, and the last line is {\"report\":...}.

Example:
  deadwax verify /mnt/a")]
pub struct Verify {
    /// The volume's directory
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Print lines of JSON
    #[arg(long)]
    pub json: bool,
}

/// Salvages tracks.
#[derive(Debug, Args)]
#[command(after_help = "\
Needs nothing but the records themselves: the superblock, headers, footers and whole stretches may be lost. SOURCE is a
volume's directory, a folder of segment files, or one file, whole or not; it is only read. Each track is proved against
its id and goes to OUT/ab/cd/ID.ogg (or what it is), its tags beside it in ID.json. What is there already is left as it
is, so an interrupted salvage goes on when it is run again.
The exit code is 1 where a track that was found could not be copied.
With --json each finding is a line {\"finding\":...}, and the last line is {\"report\":...}.

Examples:
  deadwax salvage /mnt/a --to /mnt/b/salvaged
  deadwax salvage 0000000007.segment --to salvaged")]
pub struct Salvage {
    /// A volume's directory, a folder of segment files, or one such file
    #[arg(value_name = "SOURCE")]
    pub source: PathBuf,
    /// Where the tracks go; made if it is not there
    #[arg(long, value_name = "OUT")]
    pub to: PathBuf,
    /// Also copy tracks that were taken down
    #[arg(long)]
    pub include_taken_down: bool,
    /// Print lines of JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints a completion script.
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_described() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
        }
    }
}
