//! The wire format does not change by accident: every kind of message has golden bytes.
//!
//! A deliberate change gets a new protocol version; then run with `DEADWAX_BLESS=1` to write the file anew.

use std::collections::BTreeMap;

use bytes::Bytes;
use deadwax_dht::rebalance::Command;
use deadwax_dht::repair::{ClassStatus, Reason};
use deadwax_dht::takedown::{CopyState, Heads, Takedown};
use deadwax_dht::wire::{
    ADMITTED_MAX, Absence, Admits, BadFrame, CommandAnswer, CoreStatus, Decoder, ErrorCode, FRAME_PAYLOAD_MAX, Feed,
    ForecastReport, FrameHeader, HEADER_BYTES, HolderReceipt, HolderReceipts, Joining, Kind, ListedTrack, Message,
    MoveStatus, NOT_UP_MAX, Newer, NodeStatus, NotUp, PEER_BYTES_MAX, PROTOCOL_MIN, PROTOCOL_VERSION, PartitionDigest,
    Protocols, PullStatus, RefusalKind, RepairReport, Repairing, SENTENCES_MAX, SHARES_MAX, Scrubbing, Stamp, Summed,
    VOLUMES_PER_NODE_MAX, VolumeScrub, VolumeState, VolumeStatus, negotiate, parts,
};
use deadwax_dht::{ClusterId, IssuerKey, Node, NodeId, NodeKey, TokenSecret, Volume, VolumeId, VolumeShare};
use deadwax_track::{ByteRange, Partition, Tags, TrackId};

use crate::golden::{assert_golden, hex};

const VOLUME: VolumeId = VolumeId::from_bytes([0x11; 16]);
const NODE: NodeId = NodeId::from_bytes([0x22; 32]);
const CLUSTER: ClusterId = ClusterId::from_bytes([0x33; 16]);
const TRACK: TrackId = TrackId::from_bytes([0x44; 32]);

fn tags() -> Tags {
    Tags::new([("title".to_owned(), "Grüße".to_owned())]).expect("within limits")
}

fn status() -> NodeStatus {
    NodeStatus {
        id: NODE,
        version: "0.1.0".to_owned(),
        uptime_s: 1,
        epoch: 2,
        shards: 3,
        volumes: vec![VolumeStatus {
            id: VOLUME,
            dir: "/a".to_owned(),
            capacity_bytes: 4,
            free_bytes: 5,
            tracks: 6,
            track_bytes: 7,
            record_bytes: 8,
            takedowns: 9,
            state: VolumeState::ReadOnly,
            reason: Some("why".to_owned()),
        }],
        resident_bytes: 10,
        counters: BTreeMap::from([("puts".to_owned(), 11)]),
    }
}

fn forecast() -> ForecastReport {
    ForecastReport {
        shares: vec![VolumeShare {
            volume: VOLUME,
            node: NODE,
            copies_before: 1,
            copies_after: 2,
            bytes_before: 3,
            bytes_after: 4,
            bytes_arriving: 5,
            fullness_ppm: 6,
        }],
        shares_left_out: 7,
        bytes_to_move: 8,
        bytes_unavoidable: 9,
        unmet: vec!["a sentence".to_owned()],
    }
}

fn core_status() -> CoreStatus {
    CoreStatus {
        epoch: 1,
        leader: Some(NODE),
        seat: Some(2),
        may_serve: true,
        moves: Some(MoveStatus {
            joint: 3,
            synced: 4,
            settled: 5,
            waiting_copies: 6,
            waiting_zones: 7,
            waiting_leaving: 8,
            waiting_balance: 9,
            braked: 10,
            lost: 11,
            planning: true,
            stall: Some("it waits".to_owned()),
            stuck: true,
        }),
        pulls: PullStatus {
            classes: vec![ClassStatus { copies: 1, zoneless: true, reason: Reason::Moving, tracks: 12, bytes: 13 }],
            tracks_left: 14,
            bytes_left: 15,
            rate_bytes_s: 16,
            rate_bytes_s_max: 17,
            oldest_ms: 18,
            tracks_pulled: 19,
            bytes_pulled: 20,
            pulls_failed: 21,
            wants_dropped: 22,
            stall: Some("it is full".to_owned()),
            stuck: true,
        },
        up: 23,
        down: 24,
        not_up: vec![NotUp { node: NODE, absence: Absence::Dead, silent_ms: 25 }],
        warnings: vec!["a zone".to_owned()],
    }
}

fn messages() -> Vec<Message> {
    [
        Message::Hello { protocol_min: 1, protocol_max: 2, cluster: CLUSTER, node: Some(NODE) },
        Message::Welcome { protocol: 1, node: NODE, epoch: 7 },
        Message::error(ErrorCode::TakenDown { number: 5 }, "taken down"),
        Message::Put { volume: VOLUME, id: TRACK, bytes: 1000, tags: tags() },
        Message::Ready,
        Message::Stored { already: true, bytes: 1000, pieces: 1 },
        Message::Data(Bytes::from_static(b"track bytes")),
        Message::StandIn { volume: VOLUME, id: TRACK, bytes: 1000, tags: tags() },
        Message::Within { ms: 1500 },
        Message::Get { volume: VOLUME, id: TRACK, range: ByteRange::new(5, 9).expect("not empty") },
        Message::Found { bytes: 1000 },
        Message::End,
        Message::Pull { volume: VOLUME, id: TRACK, range: ByteRange::new(5, 9).expect("not empty"), urgent: true },
        Message::Info { volume: VOLUME, id: TRACK },
        Message::TrackInfo { bytes: 1000, tags: tags(), pieces: vec![[0x55; 32]] },
        Message::Has { volume: VOLUME, id: TRACK },
        Message::Present { bytes: 1000 },
        Message::Absent,
        Message::TakenDown { number: 5 },
        Message::TakeDown { volume: VOLUME, id: TRACK, number: 5 },
        Message::Status,
        Message::NodeStatus(Box::new(status())),
        Message::Digests { volume: VOLUME, first: Partition(0x1234), count: 16 },
        Message::DigestList(vec![PartitionDigest { partition: Partition(0x1234), tracks: 1, digest: [0x66; 16] }]),
        Message::List { volume: VOLUME, partition: Partition(0x1234), after: Some(TRACK), limit: 100 },
        Message::Ids(vec![TRACK]),
        Message::Introduction { node: NODE, address: "10.0.0.1:7881".into() },
        Message::Peer { more: true, bytes: Bytes::from_static(b"an envelope's beginning") },
        Message::EpochsAfter { epoch: 5 },
        Message::Epochs { more: true, bytes: Bytes::from_static(b"a batch's beginning") },
        Message::Command {
            within_ms: 30_000,
            forecast: true,
            command: Box::new(Command::DrainNode { node: NODE, drain: true }),
        },
        Message::CommandAnswer(Box::new(CommandAnswer::Forecast(forecast()))),
        Message::AskCore,
        Message::CoreStatus(Some(Box::new(core_status()))),
        Message::Who,
        Message::Here { cluster: CLUSTER, node: NODE, protocol_min: 2, protocol_max: 4 },
        Message::Feed(Feed::Issue { id: TRACK, reason: "a court's order".to_owned() }),
        Message::Feed(Feed::Issued { number: 5, have: 2, members: 3 }),
        Message::Feed(Feed::NotIssuer { issuers: 3 }),
        Message::Feed(Feed::Receipts { number: 5 }),
        Message::Feed(Feed::ReceiptList { takedown: Box::new(takedown()), holders: Some(receipts()) }),
        Message::Feed(Feed::TakedownsAfter {
            known: Heads::default().advanced(&[takedown()]),
            wait_ms: 1500,
            limit: 100,
        }),
        Message::Feed(Feed::Takedowns(vec![takedown()])),
        Message::Feed(Feed::TakedownHeads),
        Message::Feed(Feed::Heads(Heads::default().advanced(&[takedown()]))),
        Message::Feed(Feed::Tracks { volume: VOLUME, partition: Partition(0x1234), after: Some(TRACK), limit: 100 }),
        Message::Feed(Feed::TrackList {
            tracks: vec![ListedTrack { id: TRACK, bytes: 1000, tags: tags() }],
            next: Some(TRACK),
        }),
    ]
    .into_iter()
    .chain(operators())
    .collect()
}

/// What operators ask, and joining nodes.
fn operators() -> Vec<Message> {
    vec![
        join(30_000, 0x99, 1),
        Message::Joining(Joining::AskAdmits),
        Message::Joining(Joining::Admits(admits(1))),
        Message::Versions,
        Message::NodeVersions(Protocols::new(2, 4).expect("some"), Some(3)),
        Message::Scrubbing(Scrubbing::AskScrubs),
        scrubs(1),
        Message::Scrubbing(Scrubbing::Scrub { volume: Some(VOLUME), bytes_per_second: 1 << 26 }),
        Message::Repairing(Repairing::AskRepair),
        Message::Repairing(Repairing::RepairNow),
        repair_report(),
    ]
}

fn repair_report() -> Message {
    let stall = Some("its drives fail".to_owned());
    let pulls = PullStatus { tracks_left: 4, bytes_left: 5, stall, ..PullStatus::default() };
    let report = RepairReport { comparing: 1, unanswered: 2, suspected: 3, pulls };
    Message::Repairing(Repairing::RepairReport(Some(Box::new(report))))
}

fn joiner(volumes: usize) -> Node {
    let volumes = vec![Volume { id: VOLUME, weight: 5 }; volumes];
    Node { id: NODE, zone: "Zürich".to_owned(), rack: None, address: "10.0.0.1:7881".to_owned(), volumes }
}

fn join(within_ms: u32, secret: u8, volumes: usize) -> Message {
    let (secret, node) = (TokenSecret::from_bytes([secret; 16]), Box::new(joiner(volumes)));
    Message::Joining(Joining::Join { within_ms, secret, node })
}

fn scrubs(volumes: usize) -> Message {
    let (running, passes, verified_s) = (true, 3, Some(86_400));
    let (pass_bytes, all_bytes, pass_damaged, damaged) = (500, 1000, 1, 2);
    let scrub = VolumeScrub { id: VOLUME, running, passes, verified_s, pass_bytes, all_bytes, pass_damaged, damaged };
    Message::Scrubbing(Scrubbing::Scrubs(vec![scrub; volumes]))
}

fn admits(keys: usize) -> Admits {
    let issuers = vec![IssuerKey::from_bytes([0xaa; 32]); keys];
    Admits { clients: vec![NODE; keys], admins: vec![NodeId::from_bytes([0xbb; 32]); keys], issuers }
}

fn takedown() -> Takedown {
    let (reason, previous) = ("a court's order".to_owned(), [0x77; 32]);
    let bare = Takedown { issuer: [0; 32], number: 5, previous, track: TRACK, time: 6, reason, signature: [0; 64] };
    bare.sign(&NodeKey::from_bytes(&[0x88; 32]))
}

fn receipts() -> HolderReceipts {
    let copy = |state| HolderReceipt { volume: VOLUME, node: NODE, state };
    let states = [CopyState::Pending, CopyState::Unreachable, CopyState::Dead, CopyState::Erased(7)];
    HolderReceipts { complete: false, copies: states.map(copy).to_vec() }
}

fn stamp() -> Stamp {
    Stamp::new(0x0a0b_0c0d, 0x0102_0304_0506_0708, &CLUSTER)
}

#[test]
fn what_is_longer_than_a_frame_goes_in_parts() {
    for (bytes, expected) in [
        (0, vec![]),
        (1, vec![(false, 1)]),
        (PEER_BYTES_MAX, vec![(false, PEER_BYTES_MAX)]),
        (2 * PEER_BYTES_MAX + 1, vec![(true, PEER_BYTES_MAX), (true, PEER_BYTES_MAX), (false, 1)]),
    ] {
        let parts: Vec<_> = parts(vec![7; bytes].into()).map(|(more, part)| (more, part.len())).collect();
        assert_eq!(parts, expected);
    }
}

#[test]
fn every_kind_keeps_its_golden_bytes() {
    let now: String =
        messages().iter().map(|message| format!("{:?} {}\n", message.kind(), hex(&message.frame(stamp())))).collect();
    assert_golden(&now, "wire_golden.txt");
    let kinds: Vec<Kind> = messages().iter().map(Message::kind).collect();
    assert_eq!(kinds, Kind::ALL, "each kind has one golden message, in order");
}

#[test]
fn codes_and_states_keep_their_numbers() {
    let codes = [
        ErrorCode::Busy,
        ErrorCode::NotFound,
        ErrorCode::TakenDown { number: 5 },
        ErrorCode::NoSpace,
        ErrorCode::Corrupt,
        ErrorCode::Invalid,
        ErrorCode::WrongNode,
        ErrorCode::WrongCluster,
        ErrorCode::Moved { epoch: 5 },
        ErrorCode::Version,
        ErrorCode::Fenced,
        ErrorCode::Internal,
        ErrorCode::Later { after_ms: 5 },
        ErrorCode::NotAdmitted,
    ];
    for (number, code) in (0..).zip(codes) {
        assert_eq!(Message::error(code, "").frame(stamp())[HEADER_BYTES], number, "{code:?}");
    }
    let answers = [
        CommandAnswer::Done { epoch: 5 },
        CommandAnswer::Forecast(forecast()),
        CommandAnswer::NotLeader { leader: None, voters: vec![], begun: false },
        CommandAnswer::refused(RefusalKind::Never, String::new()),
        CommandAnswer::Undecided,
    ];
    for (number, answer) in (0..).zip(answers) {
        let text = format!("{answer:?}");
        assert_eq!(Message::CommandAnswer(Box::new(answer)).frame(stamp())[HEADER_BYTES], number, "{text}");
    }
    let kinds = [
        RefusalKind::Never,
        RefusalKind::Again,
        RefusalKind::NotDrained,
        RefusalKind::NoLog,
        RefusalKind::Forbidden,
        RefusalKind::Missing,
    ];
    for (number, kind) in (0..).zip(kinds) {
        let answer = CommandAnswer::refused(kind, String::new());
        assert_eq!(Message::CommandAnswer(Box::new(answer)).frame(stamp())[HEADER_BYTES + 4], number, "{kind:?}");
    }
    let frame = |state| {
        let mut status = status();
        status.volumes[0].state = state;
        Message::NodeStatus(Box::new(status)).frame(stamp())[HEADER_BYTES..].to_vec()
    };
    let serving = frame(VolumeState::Serving);
    for (number, state) in (0..).zip([VolumeState::Serving, VolumeState::ReadOnly, VolumeState::Fenced]) {
        let differs: Vec<u8> =
            frame(state).into_iter().zip(&serving).filter(|(now, first)| now != *first).map(|(now, _)| now).collect();
        assert_eq!(differs, if number == 0 { vec![] } else { vec![number] }, "{state:?}");
    }
}

#[test]
fn every_kind_comes_back() {
    for message in messages() {
        let frame = message.frame(stamp());
        let header = FrameHeader::decode(frame.first_chunk().expect("a whole header")).expect("a good header");
        assert_eq!((header.kind, header.stamp), (message.kind(), stamp()));
        let payload = frame.slice(HEADER_BYTES..);
        header.check_payload(&payload).expect("a good payload");
        assert_eq!(Message::decode(header.kind, payload), Ok(message));
    }
}

/// What a receiver of these bytes makes of them.
fn receive(bytes: &[u8]) -> Option<Message> {
    let mut decoder = Decoder::new();
    decoder.space().extend_from_slice(bytes);
    let frame = decoder.next_frame().ok()??;
    Message::decode(frame.header.kind, frame.payload).ok()
}

#[test]
fn every_flipped_bit_is_found() {
    for message in messages() {
        let frame = message.frame(stamp());
        assert!(receive(&frame).is_some());
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(receive(&flipped), None, "{:?}, bit {bit}", message.kind());
        }
    }
}

#[test]
fn every_cut_and_every_extra_byte_is_found() {
    for message in messages() {
        let payload = message.payload();
        if matches!(message.kind(), Kind::Data | Kind::Peer | Kind::Epochs) {
            continue;
        }
        for cut in 0..payload.len() {
            assert!(
                Message::decode(message.kind(), payload.slice(..cut)).is_err(),
                "{:?} cut at {cut}",
                message.kind()
            );
        }
        let longer = [&payload[..], &[0]].concat();
        assert!(Message::decode(message.kind(), longer.into()).is_err(), "{:?} with a byte more", message.kind());
    }
}

/// A header of our own making, with its checksum right.
fn header(change: impl FnOnce(&mut [u8; HEADER_BYTES])) -> [u8; HEADER_BYTES] {
    let mut bytes = FrameHeader::new(Kind::Ready, stamp(), []).encode();
    change(&mut bytes);
    let crc = crc32fast::hash(&bytes[..36]);
    bytes[36..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn what_is_wrong_with_a_header_is_told_apart() {
    let decode = |bytes: [u8; HEADER_BYTES]| FrameHeader::decode(&bytes).expect_err("a bad header");
    let later = |version, newest| Newer { version, newest, request: stamp().request, payload_bytes: 0 };
    assert_eq!(decode(header(|bytes| bytes[4] = 9)), BadFrame::Newer(later(9, PROTOCOL_VERSION)));
    assert_eq!(decode(header(|bytes| bytes[4] = PROTOCOL_MIN - 1)), BadFrame::Version(PROTOCOL_MIN - 1));
    let long = header(|bytes| {
        bytes[4] = 9;
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    });
    assert_eq!(decode(long), BadFrame::Version(9), "what is too long to be passed over");
    assert_eq!(decode(header(|bytes| bytes[5] = 255)), BadFrame::Kind(255));
    assert_eq!(decode(header(|bytes| bytes[7] = 1)), BadFrame::Flags(0x100));
    assert!(matches!(decode(header(|bytes| bytes[12] = 1)), BadFrame::PayloadLength { kind: Kind::Ready, got: 1, .. }));
    let huge = header(|bytes| {
        bytes[5] = Kind::Data as u8;
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    });
    assert!(matches!(decode(huge), BadFrame::PayloadLength { kind: Kind::Data, got: u32::MAX, .. }));
    let mut http = [b' '; HEADER_BYTES];
    http[..14].copy_from_slice(b"GET / HTTP/1.1");
    assert_eq!(decode(http), BadFrame::Magic(*b"GET "));
    assert!(decode(http).to_string().starts_with("not a deadwax frame"));
    for kind in Kind::ALL {
        let (min, max) = kind.payload_bounds();
        assert!(min <= max && max <= FRAME_PAYLOAD_MAX, "{kind:?}");
        assert_eq!(Kind::from_number(*kind as u8), Some(*kind));
    }
}

/// A program that speaks these versions, in a handshake: which frames it reads, and what is agreed.
struct Program(std::ops::RangeInclusive<u8>);

impl Program {
    fn reads(&self, frame: &[u8]) -> bool {
        // The place of the version byte is the same in all versions.
        self.0.contains(&frame[4])
    }

    fn agrees(&self, with: &Self) -> Option<u8> {
        negotiate(self.0.clone(), *with.0.start(), *with.0.end())
    }
}

#[test]
fn programs_of_two_versions_understand_each_other() {
    let (old, new) = (Program(2..=2), Program(PROTOCOL_MIN..=PROTOCOL_VERSION));
    let future = Program(PROTOCOL_VERSION + 1..=PROTOCOL_VERSION + 2);
    assert_eq!((old.agrees(&new), new.agrees(&old)), (Some(2), Some(2)));
    assert_eq!(new.agrees(&new), Some(PROTOCOL_VERSION));
    assert_eq!((new.agrees(&future), future.agrees(&old)), (None, None));
    for message in messages() {
        let (kind, frame) = (message.kind(), message.frame(stamp()));
        assert!(new.reads(&frame), "{kind:?}");
        // Whatever was there before the version that both agree on is read by the old one, and nothing else is.
        assert_eq!(old.reads(&frame), kind.since() <= 2, "{kind:?}");
        // And so by a new one that is held back; it passes over what came later.
        let read = FrameHeader::decode_up_to(2, frame.first_chunk().expect("a whole header"));
        let payload_bytes = frame.len() - HEADER_BYTES;
        let (version, newest, request) = (kind.since(), 2, stamp().request);
        let newer = Err(BadFrame::Newer(Newer { version, newest, request, payload_bytes }));
        assert_eq!(read.map(|header| header.kind), if kind.since() <= 2 { Ok(kind) } else { newer });
    }
    let handshake = [Kind::Hello, Kind::Welcome, Kind::Error];
    assert!(handshake.iter().all(|kind| kind.since() <= PROTOCOL_MIN), "before anything is agreed");
    let early = header(|bytes| {
        bytes[5] = Kind::Within as u8;
        bytes[12] = 4;
    });
    let refused = BadFrame::TooNew { kind: Kind::Within, version: PROTOCOL_MIN };
    assert_eq!(FrameHeader::decode(&early), Err(refused));
}

#[test]
fn limits_of_messages_hold() {
    let refused = |message: Message| {
        let refused = Message::decode(message.kind(), message.payload());
        assert!(refused.is_err(), "{message:?}");
    };
    let put = |bytes| Message::Put { volume: VOLUME, id: TRACK, bytes, tags: Tags::default() };
    refused(put(0));
    refused(put(deadwax_track::TRACK_BYTES_MAX + 1));
    refused(Message::Digests { volume: VOLUME, first: Partition(0xffff), count: 2 });
    refused(Message::Digests { volume: VOLUME, first: Partition(0), count: u32::MAX });
    refused(Message::List { volume: VOLUME, partition: Partition(0), after: None, limit: 0 });
    refused(Message::List { volume: VOLUME, partition: Partition(0), after: None, limit: u32::MAX });
    let issue = |bytes| Message::Feed(Feed::Issue { id: TRACK, reason: "x".repeat(bytes) });
    assert!(Message::decode(issue(78).kind(), issue(78).payload()).is_ok());
    refused(issue(79));
    let after = |wait_ms, limit| Message::Feed(Feed::TakedownsAfter { known: Heads::default(), wait_ms, limit });
    refused(after(25_001, 1));
    refused(after(0, 0));
    refused(after(0, 1_025));
    let tracks = |limit| Message::Feed(Feed::Tracks { volume: VOLUME, partition: Partition(0), after: None, limit });
    refused(tracks(0));
    refused(tracks(257));
    let listed = |bytes| {
        let tracks = vec![ListedTrack { id: TRACK, bytes, tags: Tags::default() }];
        Message::Feed(Feed::TrackList { tracks, next: None })
    };
    refused(listed(0));
    refused(listed(deadwax_track::TRACK_BYTES_MAX + 1));
    assert!(Message::decode(Kind::Scrubs, scrubs(VOLUMES_PER_NODE_MAX).payload()).is_ok());
    refused(scrubs(VOLUMES_PER_NODE_MAX + 1));
    refused(Message::Scrubbing(Scrubbing::Scrub { volume: None, bytes_per_second: 0 }));
    let admits = |keys| Message::Joining(Joining::Admits(admits(keys)));
    assert!(Message::decode(Kind::Admits, admits(ADMITTED_MAX).payload()).is_ok());
    refused(admits(ADMITTED_MAX + 1));
    // As many volumes as a node may have, and more than a frame of the kind has room for.
    let (most, bounds) = (join(1, 1, VOLUMES_PER_NODE_MAX).payload(), Kind::Join.payload_bounds());
    assert!(most.len() <= bounds.1 && Message::decode(Kind::Join, most).is_ok());
    refused(join(1, 1, 800));
    refused(Message::Hello { protocol_min: 3, protocol_max: 2, cluster: CLUSTER, node: None });
    let forecast_of = |change: fn(&mut ForecastReport)| {
        let mut forecast = forecast();
        change(&mut forecast);
        Message::CommandAnswer(Box::new(CommandAnswer::Forecast(forecast)))
    };
    refused(forecast_of(|forecast| forecast.shares = vec![forecast.shares[0].clone(); SHARES_MAX + 1]));
    refused(forecast_of(|forecast| forecast.unmet = vec![String::new(); SENTENCES_MAX + 1]));
    refused(forecast_of(|forecast| forecast.unmet[0] = "x".repeat(1_025)));
    let voters = vec![NODE; 8];
    refused(Message::CommandAnswer(Box::new(CommandAnswer::NotLeader { leader: None, voters, begun: false })));
    let mut many = core_status();
    many.not_up = vec![many.not_up[0].clone(); NOT_UP_MAX + 1];
    refused(Message::CoreStatus(Some(Box::new(many))));
    for payload in [[0, 3, 0], [4, 3, 0]] {
        let payload = Bytes::copy_from_slice(&payload);
        assert!(Message::decode(Kind::NodeVersions, payload.clone()).is_err(), "{payload:?}");
    }
    let Message::Error { message, .. } = Message::error(ErrorCode::Internal, "é".repeat(5_000)) else {
        unreachable!()
    };
    assert_eq!(message.len(), deadwax_dht::wire::ERROR_MESSAGE_BYTES_MAX);
}

#[test]
fn people_read_status_as_json() {
    let text = serde_json::to_string(&status()).expect("plain data");
    assert!(text.contains(&format!("\"id\":\"{NODE}\"")) && text.contains("\"state\":\"read_only\""), "{text}");
    assert_eq!(serde_json::from_str::<NodeStatus>(&text).expect("the same data"), status());
}

/// Whether the checksum is reckoned once for all who get the bytes or anew for each.
#[test]
fn a_data_frame_is_the_same_however_its_bytes_are_parted() {
    let bytes = Bytes::from((0..100_000_u32).map(|number| number.to_le_bytes()[0]).collect::<Vec<u8>>());
    let stamp = Stamp { request: 7, epoch: 3, cluster: 1 };
    let expected = FrameHeader::new(Kind::Data, stamp, [&*bytes]).encode();
    let whole = [Summed::new(bytes.clone())];
    for _ in 0..2 {
        assert_eq!(FrameHeader::of_data(stamp, &whole).encode(), expected);
    }
    let parts = [0..1, 1..70_000, 70_000..100_000].map(|range| Summed::new(bytes.slice(range)));
    assert_eq!(FrameHeader::of_data(stamp, &parts).encode(), expected);
}
