//! Bytes that do not change by accident.

use deadwax_dht::log::{Entry, Persist, Snapshot, Vote};
use deadwax_dht::takedown::{Standing, Takedown};
use deadwax_track::TrackId;

use super::{Files, temporary};
use crate::system::{System, SystemOp};

/// A line for the header and for each record of the checkpoint, then of two calls. What is inside batches, steps,
/// durable states and takedowns has its golden bytes where it is at home.
const JOURNAL: &str = "\
445758535953544d0100000003000000be22cda2
080000000100000000000000000000000000000000000000be2006180605040302010000
020000000200000001000000000000000000000000000000aabaa30c0001
0800000008000000020000000000000000000000000000001e458a2e0000000000000000
080000000400000003000000000000000300000000000000ad8655090400000000000000
4a000000060000000400000000000000030000000000000075f8ef6f0400000000000000010900000000000000000001
  000000010000000000000002000000000000000001000000aa0000000001020000000000000004000000000000000000
  000000000000
020000000200000005000000000000000300000000000000eee727f50101
0800000008000000060000000000000006000000000000000537205e0100000083688e81
080000000500000007000000000000000600000000000000e0317a110300000000000000

445758535953544d0100000004000000071a1a3f
0800000001000000000000000000000000000000000000002020acd40705040302010000
020000000200000001000000000000000000000000000000eb8bb8150101
080000000800000002000000000000000000000000000000bec0b7640100000083688e81
5b00000007000000030000000000000000000000000000000ef206b60104000000000000000200000000000000040000
  000000000000000000000000000000000000000000000000000000000000000000000000000000000001000000010000
  000000000002000000000000000001000000aa00000000
";

#[test]
fn the_journal_keeps_its_bytes() {
    let dir = temporary();
    System::join(dir.path()).expect("nothing is there");
    let (mut system, _) = System::open(dir.path(), 0x0102_0304_0506).expect("just made");
    let entry = Entry { index: 1, term: 2, voters: false, data: vec![0xaa], context: Vec::new() };
    let vote = Some(Vote { term: 2, seat: 4, commit: 0 });
    let step = Persist { number: 9, snapshot: None::<Snapshot>, local: false, entries: vec![entry], vote };
    let takedown = Takedown {
        issuer: [1; 32],
        number: 1,
        previous: [2; 32],
        track: TrackId::from_bytes([3; 32]),
        time: 4,
        reason: "because".to_owned(),
        signature: [5; 64],
    };
    let first = [SystemOp::TakeSeat(4), SystemOp::Persist(4, Box::new(step)), SystemOp::Stand(Standing::WHOLE)];
    system.apply(&first).expect("a good drive");
    system.apply(&[SystemOp::Append(1, vec![takedown]), SystemOp::DropSeat(3)]).expect("a good drive");
    // A checkpoint with a seat.
    system.journal.length_max = 0;
    let long = Files::of(dir.path()).journal;
    system.apply(&[SystemOp::Life(0x0102_0304_0507)]).expect("a good drive");
    let now = format!("{}\n{}", lines(&long), lines(&Files::of(dir.path()).journal));
    assert_eq!(now.trim_end(), JOURNAL.trim_end(), "\n{now}");
}

/// The header, then the records, each with the length of its payload first; long ones in several lines.
fn lines(journal: &[u8]) -> String {
    let hex = |bytes: &[u8]| {
        let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
        bytes.chunks(48).map(line).collect::<Vec<_>>().join("  ")
    };
    let (header, mut rest) = journal.split_at(20);
    let mut text = hex(header);
    while let Some(length) = rest.first_chunk() {
        let (record, after) = rest.split_at(28 + usize::try_from(u32::from_le_bytes(*length)).expect("short"));
        text += &hex(record);
        rest = after;
    }
    text
}
