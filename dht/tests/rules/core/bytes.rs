//! The bytes of the core's messages. A deliberate change gets a new version; then `DEADWAX_BLESS=1` writes the file
//! anew.

use std::sync::Arc;

use deadwax_dht::core::{
    BadEnvelope, ENVELOPE_BYTES_MAX, Envelope, Input, Message, RECEIPTS_MAX, SPEAKERS_MAX, Speaker,
};
use deadwax_dht::liveness::DATAGRAM_BYTES_MAX;
use deadwax_dht::log::{BadBytes, Change, Consensus, ConsensusConfig, Durable, Effect, History, Proposal, Ticket};
use deadwax_dht::rebalance::Synced;
use deadwax_dht::routing::{Answered, Asked, Request, Response};
use deadwax_dht::takedown::{Answer, Ask, Receipt, TakedownLog};
use deadwax_dht::wire::VOLUMES_PER_NODE_MAX;
use deadwax_dht::{ClusterId, MAP_VERSION, MapSpec, Node, NodeId, NodeKey, Policy, Volume, VolumeId, sync};
use deadwax_track::{Partition, TrackId};
use proptest::prelude::*;

use super::village::{MINUTE, Village};
use crate::golden::{assert_golden, hex};

/// The tags that mean something are 1 to this.
const TAGS: u8 = 17;
/// Version, protocol, epoch, life.
const TAG_AT: usize = 26;

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn volume(number: u8) -> VolumeId {
    VolumeId::from_bytes([number; 16])
}

fn track(number: u8) -> TrackId {
    TrackId::from_bytes([number; 32])
}

/// Three nodes that vote, and a record after the first.
fn history() -> History {
    let node = |number| Node {
        id: id(number),
        zone: "z".to_owned(),
        rack: None,
        address: format!("a:{number}"),
        volumes: vec![Volume { id: volume(number), weight: 1 }],
    };
    let spec = MapSpec {
        version: MAP_VERSION,
        cluster: ClusterId::from_bytes([7; 16]),
        epoch: 1,
        policy: Policy { zones_min: 1, ..Policy::default() },
        nodes: (1..=3).map(node).collect(),
        overrides: Vec::new(),
    };
    let mut history = History::genesis_at(3, spec, (1..=3).map(id).collect()).expect("a good genesis");
    let change = Change::SetRack { node: id(1), rack: Some("r".to_owned()) };
    let proposal = Proposal { ticket: Ticket { node: id(1), number: 1 }, base: 1, change };
    let record = history.decide(&proposal).expect("a good change");
    history.append(&record).expect("what was decided can be taken");
    history
}

/// What a voter says when nobody leads.
fn raft() -> Message {
    let history = history();
    let mut voter = Consensus::start(&ConsensusConfig::new(1), 0, Durable::founding(1, &history), &history)
        .expect("a founding voter starts");
    for now in 0..40 {
        voter.tick(now * 100);
        while let Some(effect) = voter.poll() {
            match effect {
                Effect::Send { message, .. } => return Message::Raft(Box::new(message)),
                Effect::Persist(step) => voter.acknowledge(step.number),
                _ => {}
            }
        }
    }
    panic!("it asks for votes after 2 s");
}

/// One of each kind, by its tag; of some two.
fn messages() -> Vec<(&'static str, Message)> {
    let key = NodeKey::from_bytes(&[1; 32]);
    let mut log = TakedownLog::new(ClusterId::from_bytes([7; 16]));
    log.allow(key.public()).expect("a good key");
    let takedown = log.issue(&key, track(1), 5, "licence ended").expect("not barred yet");
    let ask = Ask { known: log.locator() };
    let answer = Answer { synced: true, basis: None, heads: log.heads(), records: vec![takedown] };
    let receipt = Receipt::sign(&key, track(1), volume(3), 1_700_000_000_000);
    let body = sync::Body::Ask { partition: Partition(0x0102), cell: 11 };
    let synced = Synced { volume: volume(9), epoch: 4, partitions: vec![Partition(1), Partition(0x1234)] };
    vec![
        ("swim", Message::Swim(vec![1, 2, 3])),
        ("raft", raft()),
        ("seek", Message::Seek(Asked { number: 6, request: Request::FindPartition(Partition(0xfeed)) })),
        ("found", Message::Found(Answered { number: 6, response: Response::Kept(vec![7, 0]) })),
        ("behind", Message::Behind(0x0908)),
        ("epochs, records", Message::Epochs(Box::new(history().since(1)))),
        ("epochs, a checkpoint", Message::Epochs(Box::new(history().since(0)))),
        ("takedown ask", Message::TakedownAsk(2, ask)),
        ("takedown answer", Message::TakedownAnswer(2, answer)),
        ("receipts ask", Message::ReceiptsAsk(volume(3), vec![track(1), track(2)])),
        ("receipts", Message::Receipts(vec![receipt])),
        ("sync", Message::Sync(sync::Message { from: volume(0xaa), to: volume(0xbb), body })),
        ("synced", Message::Synced(synced)),
        ("knows", Message::Knows),
        ("spoken ask", Message::SpokenAsk),
        ("spoken", Message::Spoken(vec![Speaker { node: id(2), protocol: 3, age_ms: 0x0d0c }])),
        ("out", Message::Out(vec![volume(4), volume(5)])),
        // The one that ends a core comes last.
        ("superseded", Message::Superseded(0x0a0b)),
    ]
}

fn envelope(message: Message) -> Envelope {
    Envelope {
        protocol: 3,
        epoch: 0x0102_0304_0506_0708,
        line: 0x2122_2324_2526_2728,
        life: 0x1112_1314_1516_1718,
        message,
    }
}

fn values() -> Vec<(&'static str, Envelope)> {
    messages().into_iter().map(|(name, message)| (name, envelope(message))).collect()
}

/// The bytes of each envelope, made once: they are wanted often.
fn golden_bytes() -> &'static [Vec<u8>] {
    static BYTES: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    BYTES.get_or_init(|| values().iter().map(|(_, envelope)| envelope.encode()).collect())
}

#[test]
fn every_envelope_keeps_its_golden_bytes() {
    let now: String =
        values().iter().map(|(name, envelope)| format!("{name}: {}\n", hex(&envelope.encode()))).collect();
    assert_golden(&now, "core/golden.txt");
}

#[test]
fn there_is_an_envelope_of_every_kind() {
    let tags: std::collections::BTreeSet<u8> = golden_bytes().iter().map(|bytes| bytes[TAG_AT]).collect();
    assert_eq!(tags, (1..=TAGS).collect());
    for tag in [0, TAGS + 1] {
        let bytes = with_header(tag, &[0; 8]);
        assert_eq!(Envelope::decode(&bytes), Err(BadBytes::Tag { what: "envelope", got: tag }.into()));
    }
}

#[test]
fn envelopes_come_back_and_every_cut_and_extra_byte_is_found() {
    for (name, envelope) in values() {
        let bytes = envelope.encode();
        assert_eq!(Envelope::decode(&bytes).as_ref(), Ok(&envelope), "{name}");
        // A datagram goes to the envelope's end, and is read by liveness.
        let whole = if name == "swim" { 0..=TAG_AT } else { 0..=bytes.len() - 1 };
        for cut in whole {
            assert!(Envelope::decode(&bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        assert!(name == "swim" || Envelope::decode(&[&bytes[..], &[0]].concat()).is_err(), "{name} with a byte more");
    }
}

#[test]
fn a_flipped_bit_gives_another_envelope_or_an_error() {
    for (name, envelope) in values() {
        let bytes = envelope.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Envelope::decode(&flipped) {
                assert_ne!(other, envelope, "{name}, bit {bit}");
                assert_eq!(other.encode(), flipped, "{name}, bit {bit}");
            }
        }
    }
}

#[test]
fn lists_and_lengths_are_bounded() {
    let decode = |message| Envelope::decode(&envelope(message).encode());
    let asked = |count| decode(Message::ReceiptsAsk(volume(1), vec![track(1); count]));
    assert!(asked(RECEIPTS_MAX).is_ok());
    let long = |what| Err(BadBytes::TooLong { what, got: RECEIPTS_MAX + 1, max: RECEIPTS_MAX }.into());
    assert_eq!(asked(RECEIPTS_MAX + 1), long("tracks"));
    let receipt = Receipt::sign(&NodeKey::from_bytes(&[1; 32]), track(1), volume(3), 1);
    let signed = |count| decode(Message::Receipts(vec![receipt; count]));
    assert!(signed(RECEIPTS_MAX).is_ok());
    assert_eq!(signed(RECEIPTS_MAX + 1), long("receipts"));
    let spoken = |count| decode(Message::Spoken(vec![Speaker { node: id(2), protocol: 3, age_ms: 1 }; count]));
    assert!(spoken(SPEAKERS_MAX).is_ok());
    let (got, max) = (SPEAKERS_MAX + 1, SPEAKERS_MAX);
    assert_eq!(spoken(got), Err(BadBytes::TooLong { what: "speakers", got, max }.into()));
    let out = |count| decode(Message::Out(vec![volume(4); count]));
    assert!(out(VOLUMES_PER_NODE_MAX).is_ok());
    let (got, max) = (VOLUMES_PER_NODE_MAX + 1, VOLUMES_PER_NODE_MAX);
    assert_eq!(out(got), Err(BadBytes::TooLong { what: "volumes", got, max }.into()));
    let datagram = |count| decode(Message::Swim(vec![1; count]));
    assert!(datagram(DATAGRAM_BYTES_MAX).is_ok());
    let (got, max) = (DATAGRAM_BYTES_MAX + 1, DATAGRAM_BYTES_MAX);
    assert_eq!(datagram(got), Err(BadEnvelope::Datagram { got, max }));
    let (got, max) = (ENVELOPE_BYTES_MAX + 1, ENVELOPE_BYTES_MAX);
    assert_eq!(Envelope::decode(&vec![1; got]), Err(BadBytes::TooLong { what: "envelope", got, max }.into()));
    let mut count = with_header(9, &[0; 20]);
    count[TAG_AT + 17..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(
        Envelope::decode(&count),
        Err(BadBytes::Short.into()),
        "no count is believed before the bytes are there"
    );
}

/// What a program of protocol 3 makes of what one of 4 sends that it should not.
#[test]
fn what_a_later_program_sends_too_early_is_told_from_garbage() {
    let from = |protocol: u8, tag: u8, rest: &[u8]| {
        let mut bytes = with_header(tag, rest);
        (bytes[1], bytes[2]) = (protocol, 9);
        Envelope::decode_up_to(3, &bytes)
    };
    let (protocol, newest) = (4, 3);
    assert_eq!(from(4, 13, &[]).map(|envelope| (envelope.protocol, envelope.message)), Ok((4, Message::Knows)));
    let later = |records_at| Err(BadEnvelope::Later { protocol, newest, records_at });
    assert_eq!(from(4, TAGS + 1, &[1, 2, 3]), later(None), "a kind that came later");
    assert_eq!(from(4, 5, &[1]), later(None), "a known kind, changed");
    assert_eq!(from(4, 6, &[77]), later(Some(9)), "records that cannot be read");
    assert_eq!(from(3, TAGS + 1, &[]), Err(BadBytes::Tag { what: "envelope", got: TAGS + 1 }.into()), "garbage");
    assert_eq!(Envelope::decode_up_to(3, &[2, 4]), later(None), "its very first byte is another");
    // As a program of version 2 would be, which none of these is for.
    assert_eq!(
        Envelope::decode_up_to(2, &with_header(13, &[])),
        Err(BadBytes::Tag { what: "envelope", got: 13 }.into())
    );
}

/// What a peer sends is for the machines to judge; none of it ends a process.
#[test]
fn a_core_survives_what_the_flipped_bits_say() {
    let mut village = Village::new(3, 3);
    village.run(MINUTE);
    let (now, sender, receiver) = (village.now, &village.houses[0], &village.houses[1]);
    let (from, address) = (sender.node.id, Arc::<str>::from(sender.node.address.as_str()));
    let (source, to) = (sender.volumes[0], receiver.volumes[0]);
    let core = &mut village.houses[1].core;
    let mut taken = 0;
    for bytes in golden_bytes() {
        assert_ne!(core.next_deadline(), u64::MAX, "only one that is superseded halts, and that comes last");
        for bit in (TAG_AT + 1) * 8..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(mut envelope) = Envelope::decode(&flipped) else { continue };
            // As of a peer that lives, so that the message is looked at.
            (envelope.epoch, envelope.life) = (core.epoch(), now);
            if let Message::Sync(message) = &mut envelope.message {
                (message.from, message.to) = (source, to);
            }
            let _ = core.step(now, Input::Message { from, address: address.clone(), envelope: Box::new(envelope) });
            taken += 1;
        }
    }
    assert!(taken > 1_000, "{taken}");
    let _ = core.step(now + MINUTE, Input::Tick);
}

fn with_header(tag: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = [0; TAG_AT];
    bytes[0] = 2;
    [&bytes[..], &[tag], rest].concat()
}

fn survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(envelope) = Envelope::decode(bytes) {
        prop_assert_eq!(envelope.encode(), bytes);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_an_envelope_or_an_error(
        tag in 0..=TAGS + 1,
        version in any::<bool>(),
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        survives(&rest)?;
        survives(&with_header(tag, &rest))?;
        // The message's own version, too: right more often than by chance; some come after a number.
        if version && !rest.is_empty() {
            let mut good = rest;
            good[0] = 1;
            survives(&with_header(tag, &good))?;
            survives(&with_header(tag, &[&[0; 8], &good[..]].concat()))?;
        }
    }

    #[test]
    fn envelopes_with_a_few_bytes_changed_give_an_envelope_or_an_error(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = golden_bytes()[which.index(golden_bytes().len())].clone();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survives(&bytes)?;
    }
}
