//! The bytes of requests and answers.

use deadwax_dht::log::BadBytes;
use deadwax_dht::routing::{ANNOUNCED_MAX, Answered, Asked, Contact, Key, MESSAGE_BYTES_MAX, Request, Response};
use deadwax_track::Partition;
use proptest::prelude::*;

use super::net::{contact, record};
use crate::golden::{assert_golden, hex};

fn requests() -> Vec<Request> {
    let mut two = record(1, Partition(0x0102), 3);
    two.holders.extend(record(2, Partition(0), 1).holders);
    vec![
        Request::Ping,
        Request::FindNode(Key::from_words([0x0102_0304_0506_0708, 0, 0, 9])),
        Request::FindPartition(Partition(0xfeed)),
        Request::Announce(vec![two, record(3, Partition(4), 5)]),
        Request::MapEpoch,
    ]
}

fn responses() -> Vec<Response> {
    vec![
        Response::Pong,
        Response::Nodes(vec![contact(1), contact(2)]),
        Response::Record(record(1, Partition(2), 3), vec![contact(4)]),
        Response::NoRecord { settled: true, nodes: vec![] },
        Response::Kept(vec![7, 0]),
        Response::MapEpoch { epoch: 0, from: None },
        Response::MapEpoch { epoch: 6, from: Some(contact(5)) },
    ]
}

fn asked() -> impl Iterator<Item = Asked> {
    requests().into_iter().zip(1..).map(|(request, number)| Asked { number, request })
}

fn answered() -> impl Iterator<Item = Answered> {
    responses().into_iter().zip(1..).map(|(response, number)| Answered { number, response })
}

#[test]
fn messages_keep_their_golden_bytes() {
    let asked = asked().map(|asked| format!("asked {}: {}\n", asked.number, hex(&asked.encode())));
    let answered = answered().map(|answer| format!("answered {}: {}\n", answer.number, hex(&answer.encode())));
    assert_golden(&asked.chain(answered).collect::<String>(), "routing/golden.txt");
}

#[test]
fn messages_come_back_and_every_cut_and_extra_byte_is_found() {
    for asked in asked() {
        let bytes = asked.encode();
        assert_eq!(Asked::decode(&bytes), Ok(asked));
        assert!((0..bytes.len()).all(|cut| Asked::decode(&bytes[..cut]).is_err()));
        assert_eq!(Asked::decode(&[&bytes[..], &[0]].concat()), Err(BadBytes::Extra(1)));
    }
    for answered in answered() {
        let bytes = answered.encode();
        assert_eq!(Answered::decode(&bytes), Ok(answered));
        assert!((0..bytes.len()).all(|cut| Answered::decode(&bytes[..cut]).is_err()));
        assert_eq!(Answered::decode(&[&bytes[..], &[0]].concat()), Err(BadBytes::Extra(1)));
    }
}

#[test]
fn the_longest_fit_and_longer_ones_are_errors() {
    let mut longest = record(1, Partition(1), 1);
    longest.holders[0].address = "x".repeat(255).into();
    longest.holders = vec![longest.holders[0].clone(); 16];
    let announce = |records: usize| {
        let request = Request::Announce(vec![longest.clone(); records]);
        Asked { number: 1, request }.encode()
    };
    assert_eq!(announce(ANNOUNCED_MAX).len(), MESSAGE_BYTES_MAX);
    assert!(Asked::decode(&announce(ANNOUNCED_MAX)).is_ok());
    assert!(Asked::decode(&announce(ANNOUNCED_MAX + 1)).is_err());
    assert!(Asked::decode(&announce(0)).is_err());
    let refused = |response| Answered::decode(&Answered { number: 1, response }.encode()).is_err();
    assert!(refused(Response::Nodes(vec![contact(1); 65])));
    assert!(!refused(Response::Nodes(vec![contact(1); 64])));
    assert!(refused(Response::Nodes(vec![Contact::new(contact(1).id, "")])));
    assert!(refused(Response::Nodes(vec![Contact::new(contact(1).id, "x".repeat(256))])));
    assert!(refused(Response::Record(record(1, Partition(1), 0), vec![])), "epochs begin at 1");
    assert!(refused(Response::Kept(vec![1; 65])));
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(tag in 0_u8..7, rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = [&[1, 0, 0, 0, 0, 0, 0, 0, 1, tag], &rest[..]].concat();
        if let Ok(asked) = Asked::decode(&bytes) {
            prop_assert_eq!(asked.encode(), &bytes[..]);
        }
        if let Ok(answered) = Answered::decode(&bytes) {
            prop_assert_eq!(answered.encode(), &bytes[..]);
        }
        let _ = (Asked::decode(&rest), Answered::decode(&rest));
    }

    #[test]
    fn a_changed_byte_is_another_message_or_an_error(which in 0_usize..12, at: prop::sample::Index, byte: u8) {
        let mut all: Vec<Vec<u8>> = asked().map(|asked| asked.encode()).collect();
        all.extend(answered().map(|answered| answered.encode()));
        let mut bytes = all.swap_remove(which);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(asked) = Asked::decode(&bytes) {
            prop_assert_eq!(asked.encode(), &bytes[..]);
        }
        if let Ok(answered) = Answered::decode(&bytes) {
            prop_assert_eq!(answered.encode(), &bytes[..]);
        }
    }
}
