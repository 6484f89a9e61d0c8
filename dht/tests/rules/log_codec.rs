//! The bytes of the map log do not change by accident, and any bytes decode to a value or an error.
//!
//! A deliberate change gets a new version; then run with `DEADWAX_BLESS=1` to write the file anew.

use std::fmt::Debug;

use deadwax_dht::log::{
    BATCH_BYTES_MAX, BadBytes, Batch, Change, Consensus, ConsensusConfig, Durable, Effect, Entry, Grant, MOVES_MAX,
    Message, Persist, Proposal, RECORDS_MAX, Record, Snapshot, Stage, State, Token, Vote,
};
use deadwax_dht::{Override, Policy, TokenName, Volume};
use deadwax_track::Partition;
use proptest::prelude::*;

use crate::map_log::cluster::{
    Random, any_change, history, move_to, node, node_id, proposal, push, rack, spec, volume_id, voters,
};

use crate::golden::{assert_golden, hex};

fn changes() -> Vec<(&'static str, Change)> {
    let volumes = vec![volume_id(1, 1), volume_id(2, 1), volume_id(3, 1)];
    let partitions = vec![Partition(1), Partition(0x1234)];
    vec![
        ("genesis", Change::Genesis { spec: Box::new(spec(3)), voters: voters(3), protocol: 3 }),
        ("add node", Change::AddNode(node(9))),
        ("remove node", Change::RemoveNode(node_id(9))),
        ("add volume", Change::AddVolume { node: node_id(9), volume: Volume { id: volume_id(9, 9), weight: 5 } }),
        ("retire volume", Change::RetireVolume(volume_id(9, 9))),
        ("set weight", Change::SetWeight { volume: volume_id(9, 9), weight: 0x0102_0304 }),
        ("set zone", Change::SetZone { node: node_id(9), zone: "Zürich".to_owned() }),
        ("set rack", rack(1)),
        ("set no rack", Change::SetRack { node: node_id(9), rack: None }),
        ("set address", Change::SetAddress { node: node_id(9), address: "a:1".to_owned() }),
        ("set policy", Change::SetPolicy(Policy { copies: 3, write_quorum: 2, zones_min: 1 })),
        ("set overrides", Change::SetOverrides(vec![Override { partition: Partition(7), volumes: volumes.into() }])),
        ("begin", Change::Begin(vec![move_to(&history(5, 3), Partition(7), [1, 2, 3])])),
        ("advance", Change::Advance { partitions: partitions.clone(), to: Stage::Synced }),
        ("advance to settled", Change::Advance { partitions: partitions.clone(), to: Stage::Settled }),
        ("finish", Change::Finish(partitions.clone())),
        ("abort", Change::Abort(partitions)),
        ("set voters", Change::set_voters(voters(3), |_| 9)),
        ("settle voters", Change::SettleVoters),
        ("set dead", Change::SetDead { node: node_id(9), dead: true }),
        ("set leaving", Change::SetLeaving { volumes: vec![volume_id(9, 9), volume_id(1, 2)], leaving: true }),
        ("reshape", Change::Reshape { spec: Box::new(spec(2)) }),
        ("roll back", Change::RollBack { to: 1, spec: Box::new(spec(1)) }),
        ("renew seats", Change::RenewSeats(vec![Grant { node: node_id(2), life: 9 }])),
        ("finalise", Change::Finalise { protocol: 4 }),
        ("set tokens", Change::SetTokens(vec![token(2), token(1)])),
        ("admit", Change::Admit { token: token(1).name, spec: Box::new(spec(2)) }),
        ("refound", Change::Refound { voter: node_id(2), lost: vec![node_id(1), node_id(3)] }),
    ]
}

fn token(number: u8) -> Token {
    Token { name: TokenName::from_bytes([number; 32]), until_ms: 0x0102_0304 }
}

fn record(change: Change) -> Record {
    Record { epoch: 0x0102_0304_0506_0708, previous: [0xaa; 32], state: [0xbb; 32], change }
}

fn persist() -> Persist {
    let entry = Entry { index: 2, term: 3, voters: true, data: vec![4], context: vec![5, 6] };
    let snapshot = Snapshot { index: 1, term: 2, voters: vec![1, 2], outgoing: vec![3], history: vec![7].into() };
    let vote = Some(Vote { term: 3, seat: 1, commit: 2 });
    Persist { number: 9, snapshot: Some(snapshot), local: true, entries: vec![entry], vote }
}

fn durable() -> Durable {
    let mut durable = Durable::joining(4);
    durable.apply(&persist());
    durable
}

/// What a voter says when nobody leads.
fn message() -> Message {
    let history = history(3, 3);
    let mut voter = Consensus::start(&ConsensusConfig::new(1), 0, Durable::founding(1, &history), &history)
        .expect("a founding voter starts");
    for now in 0..40 {
        voter.tick(now * 100);
        while let Some(effect) = voter.poll() {
            match effect {
                Effect::Send { message, .. } => return message,
                Effect::Persist(step) => voter.acknowledge(step.number),
                _ => {}
            }
        }
    }
    panic!("it asks for votes after 2 s");
}

/// The bytes of a message with an entry and a snapshot: both are as in a step that is made durable.
fn full_message() -> Vec<u8> {
    let all = persist();
    let (number, local) = (all.number, all.local);
    let snapshot = Persist { number, snapshot: all.snapshot, local, entries: Vec::new(), vote: None }.encode();
    let entries = Persist { number, snapshot: None, local, entries: all.entries, vote: None }.encode();
    // Version and number, whether there is a snapshot, it, whether it is local; a list; whether there is a vote.
    let (snapshot, entries) = (&snapshot[10..snapshot.len() - 6], &entries[11..entries.len() - 1]);
    let empty = message().encode();
    [&empty[..empty.len() - 5], entries, &[1], snapshot].concat()
}

/// What the bytes call 1, 2, ...: a voter of another version takes one for what it is.
const KINDS: [&str; 9] = [
    "MsgAppend",
    "MsgAppendResponse",
    "MsgRequestVote",
    "MsgRequestVoteResponse",
    "MsgSnapshot",
    "MsgHeartbeat",
    "MsgHeartbeatResponse",
    "MsgRequestPreVote",
    "MsgRequestPreVoteResponse",
];

#[test]
fn voters_send_nine_kinds_of_message() {
    let mut bytes = message().encode();
    for kind in 0..=u8::MAX {
        bytes[1] = kind;
        let name = usize::from(kind).checked_sub(1).and_then(|at| KINDS.get(at));
        match (Message::decode(&bytes), name) {
            (Ok(message), Some(name)) => {
                assert_eq!(message.encode(), bytes);
                assert!(
                    format!("{message:?}").contains(&format!("msg_type: {name} ")),
                    "{kind} is no {name}: {message:?}"
                );
            }
            (decoded, _) => assert_eq!(decoded, Err(BadBytes::Tag { what: "message", got: kind }), "{name:?}"),
        }
    }
}

/// A history with all that a state can have.
fn state() -> deadwax_dht::log::History {
    let mut history = history(5, 3);
    let begin = Change::Begin(vec![move_to(&history, Partition(7), [1, 2, 3])]);
    push(&mut history, begin);
    push(&mut history, Change::SetDead { node: node_id(4), dead: true });
    push(&mut history, Change::SetLeaving { volumes: vec![volume_id(5, 2), volume_id(5, 1)], leaving: true });
    push(&mut history, Change::set_voters(vec![node_id(1), node_id(2), node_id(5)], |_| 9));
    history
}

/// The same, with what came with the next version.
fn later_state() -> deadwax_dht::log::History {
    let mut history = state();
    push(&mut history, Change::Finalise { protocol: 4 });
    push(&mut history, Change::SetTokens(vec![token(2), token(1)]));
    history
}

/// A checkpoint with all that can have been before changes.
fn changed() -> Batch {
    let mut history = history(5, 3);
    push(&mut history, Change::SetPolicy(Policy { copies: 3, write_quorum: 2, zones_min: 1 }));
    push(&mut history, Change::SetLeaving { volumes: vec![volume_id(5, 2), volume_id(5, 1)], leaving: true });
    push(&mut history, Change::AddNode(node(9)));
    push(&mut history, Change::SetLeaving { volumes: vec![volume_id(5, 1)], leaving: false });
    push(&mut history, Change::RemoveNode(node_id(4)));
    for number in 0..RECORDS_MAX {
        push(&mut history, Change::SetDead { node: node_id(5), dead: number % 2 == 0 });
    }
    Batch { records: Vec::new(), ..history.since(0) }
}

fn values() -> Vec<(String, Vec<u8>)> {
    let mut values: Vec<(String, Vec<u8>)> =
        changes().into_iter().map(|(name, change)| (format!("record, {name}"), record(change).encode())).collect();
    values.push(("proposal".to_owned(), proposal(5, 6, rack(7)).encode()));
    values.push(("state".to_owned(), state().state().encode()));
    values.push(("state, of protocol 4".to_owned(), later_state().state().encode()));
    values.push(("batch of records".to_owned(), state().since(1).encode()));
    values.push(("batch with a checkpoint".to_owned(), state().since(0).encode()));
    values.push(("batch with what was before changes".to_owned(), changed().encode()));
    values.push(("step".to_owned(), persist().encode()));
    values.push(("durable state".to_owned(), durable().encode()));
    values.push(("message".to_owned(), message().encode()));
    values.push(("message, with an entry and a snapshot".to_owned(), full_message()));
    values
}

#[test]
fn every_value_keeps_its_golden_bytes() {
    let now: String = values().iter().map(|(name, bytes)| format!("{name}: {}\n", hex(bytes))).collect();
    assert_golden(&now, "log_golden.txt");
}

/// Decodes `bytes` as the values called `name`, and encodes what came of it again.
fn again(name: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
    fn text(error: impl Debug) -> String {
        format!("{error:?}")
    }
    match name.split(',').next().expect("a name") {
        "record" => Record::decode(bytes).map(|value| value.encode()).map_err(text),
        "proposal" => Proposal::decode(bytes).map(|value| value.encode()).map_err(text),
        "state" => State::decode(bytes).map(|value| value.encode()).map_err(text),
        "step" => Persist::decode(bytes).map(|value| value.encode()).map_err(text),
        "durable state" => Durable::decode(bytes).map(|value| value.encode()).map_err(text),
        "message" => Message::decode(bytes).map(|value| value.encode()).map_err(text),
        _ => Batch::decode(bytes).map(|value| value.encode()).map_err(text),
    }
}

#[test]
fn every_value_comes_back() {
    for (name, bytes) in values() {
        assert_eq!(again(&name, &bytes).as_ref(), Ok(&bytes), "{name}");
    }
    for (_, change) in changes() {
        assert_eq!(Record::decode(&record(change.clone()).encode()), Ok(record(change)));
    }
}

#[test]
fn every_cut_and_every_extra_byte_is_found() {
    for (name, bytes) in values() {
        for cut in 0..bytes.len() {
            assert!(again(&name, &bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        assert!(again(&name, &[&bytes[..], &[0]].concat()).is_err(), "{name} with a byte more");
    }
}

#[test]
fn a_value_has_one_form() {
    // Whatever a flipped bit decodes to is written as those very bytes: no two forms have one meaning.
    for (name, bytes) in values() {
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(written) = again(&name, &flipped) {
                assert_eq!(written, flipped, "{name}, bit {bit}");
            }
        }
    }
}

#[test]
fn a_list_of_volumes_is_written_once_and_named_in_its_order() {
    let volume = |node: u8| volume_id(node, 1);
    let over =
        |partition, nodes: [u8; 3]| Override { partition: Partition(partition), volumes: nodes.map(volume).into() };
    let change = Change::SetOverrides(vec![over(1, [1, 2, 3]), over(2, [2, 1, 4]), over(3, [1, 2, 3])]);
    let bytes = record(change.clone()).encode();
    // From the end: three overrides of a partition and a list, two lists of three volumes, four volumes.
    let (overrides, lists, volumes) = (bytes.len() - 3 * 6, bytes.len() - 3 * 6 - 4 - 2 * 16, 4 * 16 + 4);
    assert_eq!(bytes[lists - 4 - volumes..][..4], 4_u32.to_le_bytes());
    assert_eq!(Record::decode(&bytes), Ok(record(change)));
    let forged = |at: usize, with: &[u8]| {
        let mut forged = bytes.clone();
        forged[at..at + with.len()].copy_from_slice(with);
        Record::decode(&forged)
    };
    let (of_volumes, of_lists) = (Err(BadBytes::Order("volumes of lists")), Err(BadBytes::Order("lists of volumes")));
    assert_eq!(forged(overrides + 2, &[1]), of_lists, "the second list is named first");
    assert_eq!(forged(overrides + 8, &[2]), of_lists, "there is no third");
    assert_eq!(forged(overrides + 8, &[0]), of_lists, "the second is not named");
    assert_eq!(forged(lists + 4, &[1]), of_volumes, "the second volume is named first");
    assert_eq!(forged(lists + 16 + 12, &[2]), of_volumes, "the fourth is not named");
    let second = bytes[lists - 4 - volumes + 4..][..16].to_vec();
    assert_eq!(forged(lists - 4 - volumes + 4 + 16, &second), of_volumes, "the first two are one");
    let first = [0_u32, 1, 2].map(u32::to_le_bytes).concat();
    assert!(forged(lists + 16 + 4, &first).is_err(), "both lists are one");

    // One that is long would be meant thousands of times by a few bytes each.
    let long = |volumes: u8| {
        let volumes = (1..=volumes).map(volume).collect();
        let over = Override { partition: Partition(1), volumes };
        Record::decode(&record(Change::SetOverrides(vec![over])).encode()).map(drop)
    };
    assert_eq!(long(16), Ok(()));
    let many = |count: usize| {
        let moves = vec![move_to(&history(5, 3), Partition(7), [1, 2, 3]); count];
        Record::decode(&record(Change::Begin(moves)).encode()).map(drop)
    };
    assert_eq!(many(MOVES_MAX), Ok(()));
    assert!(matches!(many(MOVES_MAX + 1), Err(BadBytes::TooLong { what: "list of moves", .. })));
    assert_eq!(long(17), Err(BadBytes::TooLong { what: "list of volumes", got: 17, max: 16 }));
}

#[test]
fn counts_are_not_believed_before_the_bytes_are_there() {
    let mut bytes = record(Change::Finish(vec![Partition(1)])).encode();
    let count = bytes.len() - 6;
    bytes[count..count + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Record::decode(&bytes), Err(BadBytes::Short));
    let long = vec![0; BATCH_BYTES_MAX + 1];
    assert!(matches!(Batch::decode(&long), Err(error) if error.to_string().contains("the most is")));
    let mut newer = record(Change::SettleVoters).encode();
    newer[0] = 3;
    assert_eq!(Record::decode(&newer), Err(BadBytes::Version(3)));
    let last = newer.len() - 1;
    (newer[0], newer[last]) = (2, 99);
    assert_eq!(Record::decode(&newer), Err(BadBytes::Tag { what: "change", got: 99 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_give_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for name in ["record", "proposal", "state", "batch", "step", "durable state", "message"] {
            if let Ok(written) = again(name, &bytes) {
                prop_assert_eq!(written, bytes.clone());
            }
        }
    }

    #[test]
    fn bytes_with_a_few_changed_give_a_value_or_an_error(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let values = values();
        let (name, bytes) = &values[which.index(values.len())];
        let mut edited = bytes.clone();
        for (at, byte) in edits {
            let at = at.index(edited.len());
            edited[at] = byte;
        }
        if let Ok(written) = again(name, &edited) {
            prop_assert_eq!(written, edited);
        }
    }

    #[test]
    fn any_history_comes_back(seed in any::<u64>()) {
        let mut random = Random(seed);
        let (mut known, mut fresh) = (history(6, 3), 100);
        for number in 0..30 {
            let change = any_change(&mut random, &known, &mut fresh);
            if let Ok(record) = known.decide(&proposal(known.epoch(), number, change)) {
                prop_assert_eq!(&Record::decode(&record.encode()), &Ok(record.clone()));
                known.append(&record).expect("what was decided can be taken");
            }
        }
        let batch = Batch::decode(&known.since(0).encode()).expect("what was encoded");
        let again = deadwax_dht::log::History::from_batch(&batch).expect("what was good");
        prop_assert_eq!(again.state(), known.state());
        prop_assert_eq!(again.head(), known.head());
        prop_assert_eq!(&State::decode(&known.state().encode()).expect("what was encoded"), &**known.state());
    }
}
