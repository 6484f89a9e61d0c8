//! What an operator does while the cluster serves: heals a node that lost what it kept, restarts all masters one after
//! the other, and changes what the cluster is made of. What takes a while is a list of steps, for [`errands`](super::errands).

use std::fmt;
use std::fs;

use anyhow::Context;

use super::errands::Step;
use super::fault::{Claim, MASTERS, PLACES, SEVENTH, name};
use super::site::Site;

/// Who is to vote once the seventh has joined: both zones, and one or two of the first six no more.
const VOTERS: [usize; 5] = [0, 1, 3, 4, SEVENTH];

/// Something that takes an operator to bring about, or to mend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OperatorFault {
    /// A master dies and loses `system/`; the operator has it rejoin.
    Rejoin { node: usize },
    /// All masters are told to end, and started again, one after the other, as in an upgrade.
    RestartAll,
    /// A master is to be emptied; before it is, it is to be as before.
    DrainAndBack { node: usize },
    /// A drive's share beside others changes by a tenth.
    Weigh { node: usize, heavier: bool },
    /// A seventh master joins; it is killed once partitions move to it, and goes on. Then it is to vote, so that one that
    /// votes leaves.
    Join,
    /// The seventh is drained, killed once partitions move from it, goes on, and is removed. What it still has is destroyed.
    Leave,
    /// So goes one that was there from the beginning, and another joins in its place, with its share.
    Replace { node: usize },
    /// A master is given a second drive, which gets its share.
    AddVolume { node: usize },
    /// That drive is emptied, and pulled out.
    RetireVolume { node: usize },
}

impl OperatorFault {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Rejoin { .. } => "lost_system",
            Self::RestartAll => "restart_all",
            Self::DrainAndBack { .. } => "drain_and_back",
            Self::Weigh { .. } => "weight",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Replace { .. } => "replace",
            Self::AddVolume { .. } => "add_volume",
            Self::RetireVolume { .. } => "retire_volume",
        }
    }

    /// Only what cannot be borne besides: an operator's change must go well whatever else fails, sooner or later.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        match *self {
            Self::Rejoin { node } => vec![Claim::Master(node)],
            Self::DrainAndBack { node } | Self::Weigh { node, .. } => vec![Claim::Share(node)],
            Self::Replace { node } => vec![Claim::Master(node), Claim::Drive(node), Claim::Share(node)],
            Self::RestartAll | Self::Join | Self::Leave | Self::AddVolume { .. } | Self::RetireVolume { .. } => vec![],
        }
    }

    /// Whether copies move because of it.
    pub(crate) const fn moves(&self) -> bool {
        !matches!(self, Self::Rejoin { .. } | Self::RestartAll)
    }

    /// Whether it takes until it is done, which may be when the storm is long over: nothing that claims the same begins.
    pub(crate) const fn takes_a_storm(&self) -> bool {
        matches!(self, Self::Replace { .. })
    }

    pub(crate) fn begin(&self, site: &mut Site) -> anyhow::Result<()> {
        match *self {
            Self::Rejoin { node } => {
                site.fleet.kill_master(node)?;
                let system = site.files.master(node).join("system");
                fs::remove_dir_all(&system).with_context(|| format!("remove {}", system.display()))?;
            }
            Self::RestartAll => {
                for node in 0..PLACES {
                    site.errands.extend([Step::End(node), Step::Await(node)]);
                }
            }
            Self::DrainAndBack { node } => site.errands.push(site.change(&["drain", &site.address(node)])),
            Self::Weigh { node, heavier } => {
                let (volume, weight) = site.share(node)?;
                let tenth = (weight / 10).max(1);
                let weight = if heavier { weight + tenth } else { weight.saturating_sub(tenth).max(1) };
                site.errands.push(site.change(&["weight", &volume, &weight.to_string()]));
            }
            Self::Join => {
                let addresses = VOTERS.map(|node| site.address(node));
                let vote = site.change(&[&["voters"], &addresses.each_ref().map(String::as_str)[..]].concat());
                let moved = [Step::KillMoving(SEVENTH), Step::Start(SEVENTH), vote];
                let joins = joins(site, SEVENTH)?;
                site.errands.extend(joins.into_iter().chain(moved));
            }
            Self::Leave => {
                let leaves = leaves(site, SEVENTH);
                site.errands.extend(leaves);
            }
            Self::Replace { node } => {
                let steps = leaves(site, node).into_iter().chain(joins(site, node)?);
                let steps: Vec<Step> = steps.chain([Step::Publish(node)]).collect();
                site.errands.extend(steps);
            }
            Self::AddVolume { node } => {
                let add = site.add_volume(node)?;
                site.errands.extend([Step::Insert(node), add, Step::HangUp(node)]);
            }
            Self::RetireVolume { node } => {
                let steps = [Step::Retire(node), Step::Forget(node), Step::HangUp(node), Step::PullOut(node)];
                site.errands.extend(steps);
            }
        }
        Ok(())
    }

    pub(crate) fn lift(&self, site: &mut Site) -> anyhow::Result<()> {
        match *self {
            Self::Rejoin { node } => {
                site.fleet.rejoin(node)?;
                site.fleet.start_master(node, None)
            }
            Self::DrainAndBack { node } => {
                site.errands.push(site.change(&["undrain", &site.address(node)]));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Another master comes into a place.
fn joins(site: &Site, node: usize) -> anyhow::Result<[Step; 3]> {
    Ok([Step::Furnish(node), site.join(node)?, Step::Start(node)])
}

/// A master goes, and is killed amid it.
fn leaves(site: &Site, node: usize) -> [Step; 5] {
    let address = site.address(node);
    let (drain, remove) = (site.change(&["drain", &address]), site.change(&["remove", &address]));
    [drain, Step::KillMoving(node), Step::Start(node), remove, Step::Destroy(node)]
}

impl fmt::Display for OperatorFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Rejoin { node } => write!(f, "{} is killed, loses system/, and rejoins", name(node)),
            Self::RestartAll => write!(f, "all {MASTERS} masters, and the seventh, are restarted by turns"),
            Self::DrainAndBack { node } => write!(f, "{} is drained, and comes back", name(node)),
            Self::Weigh { node, heavier } => {
                write!(f, "{} is given a {} share", name(node), if heavier { "larger" } else { "smaller" })
            }
            Self::Join => write!(f, "{} joins, and is killed while partitions move", name(SEVENTH)),
            Self::Leave => write!(f, "{} is drained, killed while partitions move, and removed", name(SEVENTH)),
            Self::Replace { node } => {
                write!(f, "{} is drained and removed, and another joins in its place", name(node))
            }
            Self::AddVolume { node } => write!(f, "{} is given a second drive", name(node)),
            Self::RetireVolume { node } => write!(f, "the second drive of {} is retired", name(node)),
        }
    }
}
