//! Any bytes, any messages, in any pieces.

use bytes::Bytes;
use deadwax_dht::rebalance::Command;
use deadwax_dht::takedown::{Heads, Takedown};
use deadwax_dht::wire::{
    Absence, CommandAnswer, CoreStatus, Decoder, ErrorCode, FRAME_PAYLOAD_MAX, Feed, ForecastReport, FrameHeader,
    HEADER_BYTES, IDS_MAX, Kind, ListedTrack, Message, MoveStatus, NotUp, PartitionDigest, Protocols, PullStatus,
    RefusalKind, RepairReport, Repairing, Scrubbing, Stamp, VolumeScrub,
};
use deadwax_dht::{ClusterId, NodeId, VolumeId, VolumeShare};
use deadwax_track::{ByteRange, Partition, TRACK_BYTES_MAX, Tags, TrackId};
use proptest::prelude::*;

fn volume() -> impl Strategy<Value = VolumeId> {
    any::<[u8; 16]>().prop_map(VolumeId::from_bytes)
}

fn track() -> impl Strategy<Value = TrackId> {
    any::<[u8; 32]>().prop_map(TrackId::from_bytes)
}

fn tags() -> impl Strategy<Value = Tags> {
    proptest::collection::vec(("[a-z_0-9]{1,64}", ".{0,60}"), 0..10)
        .prop_map(|pairs| Tags::new(pairs).expect("within limits"))
}

fn code() -> impl Strategy<Value = ErrorCode> {
    prop_oneof![
        Just(ErrorCode::Busy),
        Just(ErrorCode::NotFound),
        any::<u64>().prop_map(|number| ErrorCode::TakenDown { number }),
        any::<u64>().prop_map(|epoch| ErrorCode::Moved { epoch }),
        any::<u64>().prop_map(|after_ms| ErrorCode::Later { after_ms }),
        Just(ErrorCode::Internal),
    ]
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<[u8; 32]>().prop_map(NodeId::from_bytes)
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (node(), any::<bool>()).prop_map(|(node, drain)| Command::DrainNode { node, drain }),
        (volume(), any::<u32>()).prop_map(|(volume, weight)| Command::SetWeight { volume, weight }),
        (node(), ".{0,60}").prop_map(|(node, zone)| Command::SetZone { node, zone }),
        (node(), proptest::option::of(".{0,60}")).prop_map(|(node, rack)| Command::SetRack { node, rack }),
        proptest::collection::vec(node(), 0..7).prop_map(Command::SetVoters),
    ]
}

fn answer() -> impl Strategy<Value = CommandAnswer> {
    let share = (volume(), node(), any::<[u32; 2]>(), any::<[u64; 4]>()).prop_map(|(volume, node, copies, rest)| {
        let ([copies_before, copies_after], [bytes_before, bytes_after, bytes_arriving, fullness_ppm]) = (copies, rest);
        VolumeShare {
            volume,
            node,
            copies_before,
            copies_after,
            bytes_before,
            bytes_after,
            bytes_arriving,
            fullness_ppm,
        }
    });
    let shares = proptest::collection::vec(share, 0..20);
    let unmet = proptest::collection::vec(".{0,60}", 0..5);
    let voters = proptest::collection::vec(node(), 0..7);
    prop_oneof![
        any::<u64>().prop_map(|epoch| CommandAnswer::Done { epoch }),
        (shares, any::<u64>(), any::<[u128; 2]>(), unmet).prop_map(|(shares, shares_left_out, bytes, unmet)| {
            let [bytes_to_move, bytes_unavoidable] = bytes;
            CommandAnswer::Forecast(ForecastReport { shares, shares_left_out, bytes_to_move, bytes_unavoidable, unmet })
        }),
        (proptest::option::of(node()), voters, any::<bool>())
            .prop_map(|(leader, voters, begun)| CommandAnswer::NotLeader { leader, voters, begun }),
        ".{0,300}".prop_map(|why| CommandAnswer::refused(RefusalKind::Never, why)),
        Just(CommandAnswer::Undecided),
    ]
}

fn core_status() -> impl Strategy<Value = CoreStatus> {
    let not_up = (node(), any::<bool>(), any::<u64>()).prop_map(|(node, dead, silent_ms)| {
        let absence = if dead { Absence::Dead } else { Absence::Down };
        NotUp { node, absence, silent_ms }
    });
    let numbers = any::<[u64; 4]>();
    let stall = || proptest::option::of(".{0,60}");
    let not_up = proptest::collection::vec(not_up, 0..20);
    (numbers, proptest::option::of(node()), any::<[bool; 3]>(), not_up, stall(), stall()).prop_map(
        |([epoch, up, down, left], leader, [may_serve, leads, votes], not_up, stall, waits)| CoreStatus {
            epoch,
            leader,
            seat: votes.then_some(left),
            may_serve,
            moves: leads.then(|| MoveStatus { joint: left, stall: waits.clone(), ..MoveStatus::default() }),
            pulls: PullStatus { bytes_left: left, stall, ..PullStatus::default() },
            up,
            down,
            not_up,
            warnings: waits.into_iter().collect(),
        },
    )
}

fn takedown() -> impl Strategy<Value = Takedown> {
    (any::<[u8; 32]>(), any::<u64>(), any::<[u8; 32]>(), track(), any::<u64>(), ".{0,19}", any::<[u8; 32]>()).prop_map(
        |(issuer, number, previous, track, time, reason, half)| {
            let signature = *[half, half].concat().first_chunk().expect("64 bytes");
            Takedown { issuer, number, previous, track, time, reason, signature }
        },
    )
}

fn feed() -> impl Strategy<Value = Feed> {
    let takedowns = || proptest::collection::vec(takedown(), 0..20);
    let listed = (track(), 1..=TRACK_BYTES_MAX, tags()).prop_map(|(id, bytes, tags)| ListedTrack { id, bytes, tags });
    prop_oneof![
        (track(), ".{0,19}").prop_map(|(id, reason)| Feed::Issue { id, reason }),
        (any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(number, have, members)| Feed::Issued {
            number,
            have,
            members
        }),
        takedown().prop_map(|takedown| Feed::ReceiptList { takedown: Box::new(takedown), holders: None }),
        (takedowns(), 0..=25_000_u32, 1..=1_024_u32).prop_map(|(records, wait_ms, limit)| Feed::TakedownsAfter {
            known: Heads::default().advanced(&records),
            wait_ms,
            limit
        }),
        takedowns().prop_map(Feed::Takedowns),
        takedowns().prop_map(|records| Feed::Heads(Heads::default().advanced(&records))),
        (proptest::collection::vec(listed, 0..20), proptest::option::of(track()))
            .prop_map(|(tracks, next)| Feed::TrackList { tracks, next }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let bytes = || 1..=TRACK_BYTES_MAX;
    prop_oneof![
        (any::<[u8; 16]>(), proptest::option::of(any::<[u8; 32]>()), 0..9_u8).prop_map(|(cluster, node, min)| {
            let (cluster, node) = (ClusterId::from_bytes(cluster), node.map(NodeId::from_bytes));
            Message::Hello { protocol_min: min, protocol_max: min + 1, cluster, node }
        }),
        (code(), ".{0,300}").prop_map(|(code, message)| Message::error(code, message)),
        (volume(), track(), bytes(), tags()).prop_map(|(volume, id, bytes, tags)| Message::Put {
            volume,
            id,
            bytes,
            tags
        }),
        (any::<bool>(), bytes(), any::<u32>()).prop_map(|(already, bytes, pieces)| Message::Stored {
            already,
            bytes,
            pieces
        }),
        proptest::collection::vec(any::<u8>(), 1..5_000).prop_map(|bytes| Message::Data(bytes.into())),
        (volume(), track(), any::<u64>(), any::<u64>()).prop_filter_map("an empty range", |(volume, id, a, b)| {
            ByteRange::new(a.min(b), a.max(b)).map(|range| Message::Get { volume, id, range })
        }),
        (bytes(), tags(), proptest::collection::vec(any::<[u8; 32]>(), 0..50))
            .prop_map(|(bytes, tags, pieces)| Message::TrackInfo { bytes, tags, pieces }),
        (volume(), any::<u16>(), proptest::option::of(track()), 1..=IDS_MAX).prop_map(
            |(volume, partition, after, limit)| Message::List { volume, partition: Partition(partition), after, limit }
        ),
        proptest::collection::vec(track(), 0..50).prop_map(Message::Ids),
        proptest::collection::vec((any::<u16>(), any::<u32>(), any::<[u8; 16]>()), 0..50).prop_map(|digests| {
            let digest =
                |(partition, tracks, digest)| PartitionDigest { partition: Partition(partition), tracks, digest };
            Message::DigestList(digests.into_iter().map(digest).collect())
        }),
        any::<u32>().prop_map(|ms| Message::Within { ms }),
        feed().prop_map(Message::Feed),
        (any::<bool>(), proptest::collection::vec(any::<u8>(), 1..5_000))
            .prop_map(|(more, bytes)| Message::Peer { more, bytes: bytes.into() }),
        (any::<bool>(), proptest::collection::vec(any::<u8>(), 1..5_000))
            .prop_map(|(more, bytes)| Message::Epochs { more, bytes: bytes.into() }),
        any::<u64>().prop_map(|epoch| Message::EpochsAfter { epoch }),
        (any::<u32>(), any::<bool>(), command()).prop_map(|(within_ms, forecast, command)| {
            Message::Command { within_ms, forecast, command: Box::new(command) }
        }),
        answer().prop_map(|answer| Message::CommandAnswer(Box::new(answer))),
        proptest::option::of(core_status()).prop_map(|status| Message::CoreStatus(status.map(Box::new))),
        (1..9_u8, 9..=u8::MAX, any::<Option<u8>>()).prop_map(|(oldest, newest, finalised)| {
            Message::NodeVersions(Protocols::new(oldest, newest).expect("some"), finalised)
        }),
        (any::<Option<[u8; 16]>>(), 1..=u64::MAX).prop_map(|(volume, bytes_per_second)| {
            let volume = volume.map(VolumeId::from_bytes);
            Message::Scrubbing(Scrubbing::Scrub { volume, bytes_per_second })
        }),
        proptest::collection::vec(scrub(), 0..20).prop_map(|scrubs| Message::Scrubbing(Scrubbing::Scrubs(scrubs))),
        (any::<[u64; 3]>(), proptest::option::of(core_status())).prop_map(
            |([comparing, unanswered, suspected], status)| {
                let report =
                    |status: CoreStatus| RepairReport { comparing, unanswered, suspected, pulls: status.pulls };
                Message::Repairing(Repairing::RepairReport(status.map(|status| Box::new(report(status)))))
            }
        ),
        Just(Message::Ready),
        Just(Message::End),
    ]
}

fn scrub() -> impl Strategy<Value = VolumeScrub> {
    (any::<[u8; 16]>(), any::<bool>(), any::<Option<u64>>(), any::<[u64; 5]>()).prop_map(
        |(id, running, verified_s, numbers)| {
            let [passes, pass_bytes, all_bytes, pass_damaged, damaged] = numbers;
            let id = VolumeId::from_bytes(id);
            VolumeScrub { id, running, passes, verified_s, pass_bytes, all_bytes, pass_damaged, damaged }
        },
    )
}

proptest! {
    #[test]
    fn any_message_comes_back(message in message(), request: u32, epoch: u64, cluster: u64) {
        let stamp = Stamp { request, epoch, cluster };
        let mut decoder = Decoder::new();
        decoder.space().extend_from_slice(&message.frame(stamp));
        let frame = decoder.next_frame().expect("a good frame").expect("a whole frame");
        prop_assert_eq!(frame.header.stamp, stamp);
        prop_assert_eq!(Message::decode(frame.header.kind, frame.payload), Ok(message));
        prop_assert!(decoder.is_between_frames());
    }

    #[test]
    fn any_payload_is_a_message_or_an_error(kind in proptest::sample::select(Kind::ALL), payload: Vec<u8>) {
        if let Ok(message) = Message::decode(kind, Bytes::from(payload.clone())) {
            prop_assert_eq!(message.kind(), kind);
            // One message has one form; only maps may come in another order than they leave.
            if kind != Kind::NodeStatus {
                prop_assert_eq!(message.payload(), payload);
            }
        }
    }

    #[test]
    fn any_header_is_a_header_or_an_error(mut bytes: [u8; HEADER_BYTES], repair: bool) {
        if repair {
            bytes[..5].copy_from_slice(b"DWAX\x04");
            bytes[6..8].fill(0);
            let crc = crc32fast::hash(&bytes[..36]);
            bytes[36..].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(header) = FrameHeader::decode(&bytes) {
            prop_assert!(header.payload_bytes() <= FRAME_PAYLOAD_MAX);
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn any_stream_is_frames_or_an_error(bytes: Vec<u8>) {
        let mut decoder = Decoder::new();
        decoder.space().extend_from_slice(&bytes);
        while let Ok(Some(_)) = decoder.next_frame() {}
        prop_assert!(decoder.next_frame().is_err() || bytes.len() < HEADER_BYTES);
    }

    #[test]
    fn frames_come_back_however_the_stream_is_cut(messages in proptest::collection::vec(message(), 1..6), step in 1..700_usize) {
        let stamp = Stamp { request: 1, epoch: 2, cluster: 3 };
        let stream: Vec<u8> = messages.iter().flat_map(|message| message.frame(stamp)).collect();
        let mut decoder = Decoder::new();
        let mut got = Vec::new();
        for bytes in stream.chunks(step) {
            decoder.space().extend_from_slice(bytes);
            while let Some(frame) = decoder.next_frame().expect("a good frame") {
                got.push(Message::decode(frame.header.kind, frame.payload).expect("a good message"));
            }
        }
        prop_assert_eq!(got, messages);
    }
}
