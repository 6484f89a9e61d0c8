//! A server that lies, each time in another way: the load finds every lie out.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use super::availability::SETTLES_MS;
use super::corpus::Corpus;
use super::journal::Journal;
use super::load::{Load, Wish};
use super::oracle::{Answer, Rule, TAKEDOWN_MS_MAX};

/// What the server does with a request for the first track.
#[derive(Clone, Copy)]
enum Reply {
    /// A status and no body.
    Status(u16),
    /// 206 and the first bytes of the track, this one of them flipped if there is one, ...
    Bytes { count: usize, flipped: Option<usize> },
    /// ... and the same where the connection ends after so many of them.
    Cut { count: usize, flipped: Option<usize>, sent: usize },
}

/// A load whose server gives these replies, one after the other.
fn load(replies: Vec<Reply>) -> (Load, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let at: SocketAddr = listener.local_addr().expect("an address");
    let track = Corpus::generated(1).track(0).1;
    std::thread::spawn(move || {
        for (reply, client) in replies.into_iter().zip(listener.incoming()) {
            serve(&mut client.expect("a client"), reply, &track);
        }
    });
    let journal = Arc::new(Journal::new(&dir.path().join("journal.txt")).expect("a journal"));
    let load = Load::new(at, Corpus::generated(1), journal);
    load.add_track();
    (load, dir)
}

fn serve(client: &mut TcpStream, reply: Reply, track: &[u8]) {
    let mut asked = Vec::new();
    let end = loop {
        if let Some(end) = asked.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        let mut some = [0; 4096];
        let got = client.read(&mut some).expect("a request");
        asked.extend_from_slice(&some[..got]);
    };
    let head = String::from_utf8(asked[..end].to_vec()).expect("text");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut rest = length.map_or(0, |length| length.parse::<usize>().expect("a length")) + end - asked.len();
    while rest > 0 {
        rest -= client.read(&mut [0; 4096]).expect("a body");
    }
    let (status, count, flipped, sent) = match reply {
        Reply::Status(status) => (status, 0, None, 0),
        Reply::Bytes { count, flipped } => (206, count, flipped, count),
        Reply::Cut { count, flipped, sent } => (206, count, flipped, sent),
    };
    let mut body = track[..count].to_vec();
    if let Some(at) = flipped {
        body[at] ^= 1;
    }
    // A client that has seen enough may be gone.
    drop(write!(client, "HTTP/1.1 {status} x\r\ncontent-length: {count}\r\n\r\n"));
    drop(client.write_all(&body[..sent]));
}

fn get(bytes: u64) -> Wish {
    Wish::Get(0, Some(0..bytes))
}

#[test]
fn one_wrong_byte_is_found_also_in_a_reply_that_breaks() {
    let (count, sent) = (30_000, 20_000);
    let (load, _dir) = load(vec![
        Reply::Bytes { count, flipped: None },
        Reply::Bytes { count, flipped: Some(count - 1) },
        Reply::Cut { count, flipped: None, sent },
        Reply::Cut { count, flipped: Some(sent - 1), sent },
        Reply::Bytes { count: count - 1, flipped: None },
    ]);
    assert_eq!(load.fulfil(&get(30_000)), Answer::Status(206));
    assert!(matches!(load.fulfil(&get(30_000)), Answer::Wrong(_)));
    assert!(matches!(load.fulfil(&get(30_000)), Answer::Broken(_)));
    assert_eq!(load.broken(Rule::WrongBytes), 1);
    assert!(matches!(load.fulfil(&get(30_000)), Answer::Wrong(_)));
    assert!(matches!(load.fulfil(&get(30_000)), Answer::Wrong(_)), "fewer bytes than were asked for");
    assert_eq!((load.broken(Rule::WrongBytes), load.all_broken().len()), (3, 3));
}

#[test]
fn a_put_that_was_acknowledged_and_is_not_there_is_found() {
    let (load, _dir) = load([503, 404, 201, 503, 404].map(Reply::Status).to_vec());
    let put = Wish::Put(0);
    assert_eq!([load.fulfil(&put), load.fulfil(&get(9))], [503, 404].map(Answer::Status));
    assert_eq!([load.fulfil(&put), load.fulfil(&get(9))], [201, 503].map(Answer::Status));
    assert_eq!((load.stored(), load.refused(), load.all_broken()), (vec![0], vec![], vec![]));
    load.fulfil(&get(9));
    assert_eq!((load.broken(Rule::FalseAbsent), load.all_broken().len()), (1, 1));
}

#[test]
fn a_server_that_fails_in_a_calm_is_found() {
    let (load, _dir) = load([201, 503, 503, 503, 410].map(Reply::Status).to_vec());
    load.fulfil(&Wish::Put(0));
    load.fulfil(&get(9));
    load.whole();
    assert_eq!(load.all_broken(), vec![], "it was not whole");
    load.pretend_later(SETTLES_MS);
    [get(9), Wish::Put(0)].iter().for_each(|wish| drop(load.fulfil(wish)));
    load.judge();
    assert_eq!((load.broken(Rule::Unavailable), load.all_broken().len()), (2, 2));
}

#[test]
fn a_track_that_was_taken_down_and_is_served_is_found() {
    let (load, _dir) = load(vec![
        Reply::Status(201),
        Reply::Status(202),
        Reply::Status(410),
        Reply::Bytes { count: 9, flipped: None },
        Reply::Status(404),
    ]);
    for wish in [Wish::Put(0), Wish::Delete(0), get(9)] {
        load.fulfil(&wish);
    }
    assert_eq!((load.stored(), load.refused(), load.all_broken()), (vec![], vec![0], vec![]));
    load.pretend_later(TAKEDOWN_MS_MAX);
    assert_eq!(load.fulfil(&get(9)), Answer::Status(206));
    assert_eq!(load.fulfil(&get(9)), Answer::Status(404));
    assert_eq!((load.broken(Rule::TakedownBroken), load.all_broken().len()), (2, 2));
}
