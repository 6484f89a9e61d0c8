//! Whose a command is, as the node's log says it.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadwax_dht::NodeKey;
use deadwax_dht::rebalance::Command;
use deadwax_dht::wire::{CommandAnswer, ErrorCode, Message, RefusalKind, Repairing, Scrubbing};
use deadwax_dht_tls::Identity;

use crate::cluster::{Running, Site};
use crate::heal::until;
use crate::peer::Peer;

/// How long an election may take.
const LED: Duration = Duration::from_secs(60);

/// What this process logs of operators.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Takes the place of the process's log: one test can.
    fn begin() -> Self {
        let lines = Self::default();
        let to = lines.clone();
        tracing_subscriber::fmt()
            .with_env_filter("deadwax_node::operators=info")
            .with_ansi(false)
            .with_writer(move || to.clone())
            .init();
        lines
    }

    /// The level of each line that has all of these.
    fn levels(&self, parts: &[&str]) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).expect("UTF-8");
        let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
        let level = |line: &str| line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        text.lines().filter(has_all).map(level).collect()
    }
}

fn admin() -> NodeKey {
    NodeKey::from_bytes(&[78; 32])
}

fn ask(peer: &mut Peer, command: &Command) -> CommandAnswer {
    match peer.ask(&Message::Command { within_ms: 20_000, forecast: false, command: Box::new(command.clone()) }) {
        Message::CommandAnswer(answer) => *answer,
        other => panic!("{other:?} answers a command"),
    }
}

#[test]
fn the_log_says_who_commanded_and_who_may_not() {
    let lines = Lines::begin();
    let sites = Site::trio_with(|config| {
        config.tls = true;
        config.clients = vec![Site::client().node_id()];
        config.admins = vec![admin().node_id()];
    });
    let running = [0, 1, 2].map(|at| sites[at].start());
    let command = Command::SetRack { node: sites[0].node, rack: Some("rack of callers".to_owned()) };
    let CommandAnswer::Refused { kind: RefusalKind::Forbidden, .. } = ask(&mut sites[0].connect(), &command) else {
        panic!("a client may not command");
    };
    let scrub = Message::Scrubbing(Scrubbing::Scrub { volume: None, bytes_per_second: 1 });
    for forbidden in [scrub, Message::Repairing(Repairing::RepairNow)] {
        assert_eq!(sites[0].connect().error(&forbidden).0, ErrorCode::NotAdmitted);
    }
    for allowed in [Message::Scrubbing(Scrubbing::AskScrubs), Message::Repairing(Repairing::AskRepair)] {
        let answer = sites[0].connect().ask(&allowed);
        assert!(matches!(answer, Message::Scrubbing(_) | Message::Repairing(_)), "{answer:?}");
    }
    let (client, admin_id) = (Site::client().node_id().to_string(), admin().node_id().to_string());
    assert_eq!(lines.levels(&[&client, "rack of callers", "forbidden"]), ["WARN"]);
    let done = until("the node that leads carries it out", LED, || {
        let answers = sites.iter().map(|site| {
            let mut peer = site.connect_raw();
            assert_eq!(peer.secure(&Identity::new(&admin())), Ok(site.node));
            peer.greet();
            ask(&mut peer, &command)
        });
        let answers: Vec<CommandAnswer> = answers.collect();
        let is_done = answers.iter().any(|answer| matches!(answer, CommandAnswer::Done { .. }));
        if is_done { Ok(answers) } else { Err(format!("{answers:?}")) }
    });
    assert_eq!(done.len(), 3);
    for said in ["is given", "is done", "it does not lead"] {
        let levels = lines.levels(&[&admin_id, "rack of callers", said]);
        assert!(!levels.is_empty() && levels.iter().all(|level| level == "INFO"), "{said}: {levels:?}");
    }
    running.into_iter().for_each(Running::stop);
}
