//! The operator: commands that are given to some node, again until they are carried out or make no sense any more.

use std::collections::VecDeque;

use deadwax_dht::core::{CommandRefused, Input};
use deadwax_dht::log::State;
use deadwax_dht::rebalance::{Answer, Command, Refused};
use deadwax_dht::{Node, NodeId};

use crate::check::Rule;
use crate::clock::{MILLI, Micros, SECOND};
use crate::probe::Probe;
use crate::random::Random;
use crate::trace::{Kind, NONE};
use crate::world::{Event, Role, World};

/// When a command that had no answer is given again.
const AGAIN: Micros = 12 * SECOND;

/// Commands to be carried out one after the other.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) what: &'static str,
    commands: VecDeque<Command>,
    at: Option<u32>,
    due: Micros,
    pub(crate) last: String,
}

/// All jobs.
#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) jobs: Vec<Job>,
    /// How many answers came.
    pub(crate) answers: u64,
    pub(crate) random: Random,
}

impl Operator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { jobs: Vec::new(), answers: 0, random: Random::stream(seed, 0x0be7a) }
    }

    /// How many commands a node has, and has not answered.
    pub(crate) fn unanswered(&self, host: u32) -> usize {
        self.open().filter(|job| job.at == Some(host)).count()
    }

    /// Those that are not done.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(|job| !job.commands.is_empty())
    }
}

/// The node that this command removes.
const fn removed(command: Option<&Command>) -> Option<NodeId> {
    if let Some(Command::RemoveNode(node)) = command { Some(*node) } else { None }
}

/// The nodes that are neither dead nor on their way out.
pub(crate) fn stayers(state: &State) -> Vec<NodeId> {
    let stays = |node: &&Node| {
        !state.dead().contains(&node.id) && !node.volumes.iter().all(|volume| state.leaving().contains(&volume.id))
    };
    state.spec().nodes.iter().filter(stays).map(|node| node.id).collect()
}

impl World {
    /// A node is in the map no more: its process ends, and its drives go to other uses.
    pub(crate) fn removed(&mut self, host: u32) {
        let node = self.hosts[host as usize].id;
        if self.newest.state().spec().nodes.iter().any(|other| other.id == node) {
            self.checks.violate(Rule::Answered, format!("n{host} is said to be removed, and is in the map"));
        }
        self.hit(Probe::Leaves);
        self.crash(host);
        self.hosts[host as usize].role = Role::Spare;
    }

    /// Gives the operator something to do.
    pub(crate) fn command(&mut self, what: &'static str, commands: impl IntoIterator<Item = Command>) {
        let job = Job { what, commands: commands.into_iter().collect(), at: None, due: self.now, last: String::new() };
        self.operator.jobs.push(job);
        self.give(self.operator.jobs.len() as u64 - 1, None);
    }

    fn give(&mut self, number: u64, to: Option<u32>) {
        let up: Vec<u32> =
            (0..).zip(&self.hosts).filter(|(_, host)| host.is_member() && host.is_up()).map(|(at, _)| at).collect();
        let host = to.or_else(|| self.operator.random.pick(&up));
        let job = &mut self.operator.jobs[usize::try_from(number).expect("few jobs")];
        (job.at, job.due) = (host, self.now + AGAIN);
        if let Some(host) = host {
            self.queue.push(self.now + SECOND / 100, Event::Command { number, host });
        }
        self.queue.push(self.now + AGAIN, Event::Operator { number });
    }

    pub(crate) fn command_arrives(&mut self, number: u64, host: u32) {
        let job = &self.operator.jobs[usize::try_from(number).expect("few jobs")];
        if let Some(command) = job.commands.front().cloned() {
            self.note(Kind::Command, host, NONE, number);
            let time_ms = self.now / MILLI;
            self.step(host, Input::Command { number, command, forecast: false, time_ms });
        }
    }

    pub(crate) fn operator_looks(&mut self, number: u64) {
        let job = &self.operator.jobs[usize::try_from(number).expect("few jobs")];
        if !job.commands.is_empty() && job.due <= self.now {
            self.give(number, None);
        }
    }

    pub(crate) fn command_answered(&mut self, host: u32, number: u64, result: &Result<Answer, CommandRefused>) {
        let index = usize::try_from(number).expect("few jobs");
        self.note(Kind::Answer, host, NONE, number << 1 | u64::from(result.is_ok()));
        self.operator.answers += 1;
        let registry = &self.registry;
        let job = &mut self.operator.jobs[index];
        if job.at != Some(host) || job.commands.is_empty() {
            return;
        }
        let again = match result {
            Ok(_) => {
                let done = job.commands.pop_front();
                if let Some(host) = removed(done.as_ref()).and_then(|node| registry.get(&node).copied()) {
                    self.queue.push(self.now + SECOND, Event::Removed { host });
                }
                self.probes.hit(Probe::Commands);
                Some(None)
            }
            Err(CommandRefused::NotLeader { leader, voters, .. }) => {
                let next = leader.or_else(|| self.operator.random.pick(voters));
                Some(next.and_then(|id| registry.get(&id).copied()).filter(|next| *next != host))
            }
            Err(CommandRefused::Planner(
                Refused::Busy
                | Refused::Overtaken
                | Refused::NotDrained { .. }
                | Refused::Unheard(_)
                | Refused::LastVoters(_)
                | Refused::TooOld { .. }
                | Refused::Unspoken { .. }
                | Refused::Log(_),
            )) => None,
            Err(refused) => {
                job.last = refused.to_string();
                job.commands.clear();
                self.probes.hit(Probe::CommandsRefused);
                return;
            }
        };
        if let Err(refused) = result {
            job.last = refused.to_string();
        }
        if !job.commands.is_empty()
            && let Some(to) = again.filter(|to| result.is_ok() || to.is_some())
        {
            self.give(number, to);
        }
    }
}
