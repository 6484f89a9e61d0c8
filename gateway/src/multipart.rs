//! The frame around several ranges in one answer: `multipart/byteranges`.
//!
//! Source: RFC 9110, section 14.6; RFC 2046, section 5.1.1.

use std::fmt::Write;

use bytes::Bytes;
use deadwax_track::ByteRange;

/// The texts that go between the ranges.
pub(crate) struct Multipart {
    /// The value of `Content-Type` for the whole answer.
    pub(crate) content_type: String,
    /// What comes before each range, in order.
    pub(crate) heads: Vec<Bytes>,
    /// What comes after the last.
    pub(crate) tail: Bytes,
}

impl Multipart {
    /// Frames `ranges` of a track with this length and media type. `boundary` must not occur in the track: 16 random
    /// bytes do not.
    pub(crate) fn new(ranges: &[ByteRange], track_bytes: u64, media_type: &str, boundary: u128) -> Self {
        let mut text = String::new();
        let mut heads = Vec::with_capacity(ranges.len());
        for range in ranges {
            text.clear();
            if !heads.is_empty() {
                text.push_str("\r\n");
            }
            let (first, last) = (range.start(), range.end() - 1);
            write!(
                text,
                "--{boundary:032x}\r\nContent-Type: {media_type}\r\nContent-Range: bytes {first}-{last}/{track_bytes}\r\n\r\n"
            )
            .expect("writing to a string does not fail");
            heads.push(Bytes::copy_from_slice(text.as_bytes()));
        }
        let tail = Bytes::from(format!("\r\n--{boundary:032x}--\r\n"));
        Self { content_type: format!("multipart/byteranges; boundary={boundary:032x}"), heads, tail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_as_the_rfc_draws_it() {
        let ranges = [ByteRange::new(2, 4), ByteRange::new(0, 1)].map(|range| range.expect("not empty"));
        let framed = Multipart::new(&ranges, 5, "audio/ogg", 0xabc);
        let boundary = "00000000000000000000000000000abc";
        assert_eq!(framed.content_type, format!("multipart/byteranges; boundary={boundary}"));
        let mut whole = Vec::new();
        for (head, range) in framed.heads.iter().zip([&b"cd"[..], &b"a"[..]]) {
            whole.extend_from_slice(head);
            whole.extend_from_slice(range);
        }
        whole.extend_from_slice(&framed.tail);
        let expected = format!(
            "--{boundary}\r\nContent-Type: audio/ogg\r\nContent-Range: bytes 2-3/5\r\n\r\ncd\
             \r\n--{boundary}\r\nContent-Type: audio/ogg\r\nContent-Range: bytes 0-0/5\r\n\r\na\r\n--{boundary}--\r\n"
        );
        assert_eq!(String::from_utf8(whole).expect("text"), expected);
    }
}
