//! What is known of a track besides its bytes.

use std::collections::BTreeMap;

/// Names and values that travel with a track: title, artist, album and so on. Not part of the track's identity.
///
/// Names are 1 to 64 of `a-z 0-9 _`; values are any text. At most 64 names and 16 KiB in all, as
/// [`encode`](Self::encode)d. Names that Deadwax itself reads: `content_type` (a media type, served as the HTTP
/// header), `duration_ms` (a whole number; gives the track's windows), `title`, `artist`, `album` (searched).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tags(BTreeMap<String, String>);

/// The tags break a limit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadTags {
    /// A name has characters other than `a-z 0-9 _`, none, or more than 64.
    #[error("a tag's name is 1 to 64 of a-z 0-9 _, got {0:?}")]
    Name(String),
    /// Too many names.
    #[error("at most {max} tags, got {0}", max = Tags::COUNT_MAX)]
    Count(usize),
    /// Names and values are too long together.
    #[error("at most {max} bytes of tags, got {0}", max = Tags::BYTES_MAX)]
    Bytes(usize),
    /// Encoded tags were cut off, not UTF-8, or out of order.
    #[error("tags do not decode: {0}")]
    Encoding(&'static str),
}

impl Tags {
    /// The most names.
    pub const COUNT_MAX: usize = 64;
    /// The most bytes of all names and values, encoded.
    pub const BYTES_MAX: usize = 16 * 1024;
    const NAME_BYTES_MAX: usize = 64;

    /// Tags from names and values, or the limit that they break.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, BadTags> {
        let tags = Self(pairs.into_iter().collect());
        if tags.0.len() > Self::COUNT_MAX {
            return Err(BadTags::Count(tags.0.len()));
        }
        if let Some(name) = tags.0.keys().find(|name| !is_name(name)) {
            return Err(BadTags::Name(name.chars().take(80).collect()));
        }
        let bytes = tags.encoded_len();
        if bytes > Self::BYTES_MAX { Err(BadTags::Bytes(bytes)) } else { Ok(tags) }
    }

    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn encoded_len(&self) -> usize {
        2 + self.iter().map(|(name, value)| 1 + name.len() + 4 + value.len()).sum::<usize>()
    }

    /// The tags as bytes: `u16` count, then for each, by name: `u8` length, name, `u32` length, value.
    /// Little-endian. Equal tags give equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        out.extend(u16::try_from(self.0.len()).expect("at most 64 tags").to_le_bytes());
        for (name, value) in self.iter() {
            out.push(u8::try_from(name.len()).expect("at most 64 bytes"));
            out.extend(name.as_bytes());
            out.extend(u32::try_from(value.len()).expect("at most 16 KiB").to_le_bytes());
            out.extend(value.as_bytes());
        }
        out
    }

    /// The tags that [`encode`](Self::encode) made these bytes of. Anything else is an error, not a guess.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadTags> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(BadTags::Bytes(bytes.len()));
        }
        let mut rest = bytes;
        let mut take = |count: usize| -> Result<&[u8], BadTags> {
            let (taken, later) = rest.split_at_checked(count).ok_or(BadTags::Encoding("cut off"))?;
            rest = later;
            Ok(taken)
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| BadTags::Encoding("text is not UTF-8"));
        let count = usize::from(u16::from_le_bytes(take(2)?.try_into().expect("two bytes")));
        if count > Self::COUNT_MAX {
            return Err(BadTags::Count(count));
        }
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            let name_bytes = usize::from(take(1)?[0]);
            let name = text(take(name_bytes)?)?;
            let value_bytes = u32::from_le_bytes(take(4)?.try_into().expect("four bytes"));
            let value = text(take(usize::try_from(value_bytes).map_err(|_| BadTags::Encoding("cut off"))?)?)?;
            if pairs.last().is_some_and(|(last, _): &(String, String)| *last >= name) {
                return Err(BadTags::Encoding("names are not in order"));
            }
            pairs.push((name, value));
        }
        if !rest.is_empty() {
            return Err(BadTags::Encoding("bytes follow the last tag"));
        }
        Self::new(pairs)
    }
}

fn is_name(name: &str) -> bool {
    (1..=Tags::NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Result<Tags, BadTags> {
        Tags::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn encoding_is_stable_and_comes_back() {
        let tags = tags(&[("title", "Grüße"), ("album", "")]).expect("within limits");
        let golden = b"\x02\x00\x05album\x00\x00\x00\x00\x05title\x07\x00\x00\x00Gr\xc3\xbc\xc3\x9fe";
        assert_eq!(tags.encode(), golden);
        assert_eq!(Tags::decode(golden), Ok(tags));
        assert_eq!(Tags::decode(b"\0\0"), Ok(Tags::default()));
    }

    #[test]
    fn every_cut_and_every_extra_byte_is_refused() {
        let whole = tags(&[("artist", "x"), ("title", "y")]).expect("within limits").encode();
        for cut in 0..whole.len() {
            assert!(Tags::decode(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [whole.as_slice(), &[0]].concat();
        assert_eq!(Tags::decode(&longer), Err(BadTags::Encoding("bytes follow the last tag")));
    }

    #[test]
    fn limits_hold() {
        assert!(matches!(tags(&[("Title", "")]), Err(BadTags::Name(_))));
        assert!(matches!(tags(&[("", "")]), Err(BadTags::Name(_))));
        assert!(matches!(tags(&[("a", &"x".repeat(Tags::BYTES_MAX))]), Err(BadTags::Bytes(_))));
        assert!(matches!(Tags::new((0..65).map(|n| (format!("n{n}"), String::new()))), Err(BadTags::Count(65))));
    }
}
