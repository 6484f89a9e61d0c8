//! What a socket gives: frames, or an error that stays. The checksums of the first are mended, or next to nothing
//! would come past them.
#![no_main]

use deadwax_dht::wire::{Decoder, FRAME_PAYLOAD_MAX, FrameHeader, HEADER_BYTES, Kind, Message};

/// The checksum of the payload, and that of the header before it.
const PAYLOAD_SUM_AT: usize = HEADER_BYTES - 8;
const HEADER_SUM_AT: usize = HEADER_BYTES - 4;

/// Makes both checksums of the first frame right.
fn mend(bytes: &mut [u8]) {
    let Some((header, rest)) = bytes.split_first_chunk_mut::<HEADER_BYTES>() else { return };
    let seal = |header: &mut [u8; HEADER_BYTES]| {
        let sum = crc32fast::hash(&header[..HEADER_SUM_AT]);
        header[HEADER_SUM_AT..].copy_from_slice(&sum.to_le_bytes());
    };
    seal(header);
    if let Ok(read) = FrameHeader::decode(header)
        && let Some(payload) = rest.get(..read.payload_bytes())
    {
        header[PAYLOAD_SUM_AT..HEADER_SUM_AT].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
        seal(header);
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    mend(&mut bytes);
    let mut decoder = Decoder::new();
    // In two pieces, so that a frame that is not whole is met.
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    for piece in [head, tail] {
        decoder.space().extend_from_slice(piece);
        while let Ok(Some(frame)) = decoder.next_frame() {
            assert!(frame.payload.len() <= FRAME_PAYLOAD_MAX);
            assert_eq!(frame.header.payload_bytes(), frame.payload.len());
            if let Ok(message) = Message::decode(frame.header.kind, frame.payload.clone()) {
                assert_eq!(message.kind(), frame.header.kind);
                // One message has one form; only maps may come in another order than they leave.
                assert!(message.kind() == Kind::NodeStatus || message.payload() == frame.payload);
            }
        }
    }
    assert_eq!(decoder.next_frame().err(), decoder.next_frame().err(), "an error stays");
});
