//! Conditional requests: answer only if the client does not have it, or still means the same. Pure.
//!
//! A track's ETag is its id in quotes, strong. No date is stored, so there is no `Last-Modified`: conditions on
//! dates are ignored (`If-Modified-Since`, `If-Unmodified-Since`), and an `If-Range` with a date never matches.
//!
//! Source: RFC 9110, section 13, in the order of 13.2.2.

use hyper::HeaderMap;
use hyper::header::{HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};

use crate::range::{Wanted, wanted};

/// What a request's conditions come to for a track that exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Answer it.
    Proceed,
    /// 304: the client has it.
    NotModified,
    /// 412: it is not what the client means.
    Failed,
}

/// Weighs `If-Match` and `If-None-Match` of a GET or HEAD.
pub(crate) fn verdict(headers: &HeaderMap, etag: &[u8]) -> Verdict {
    if headers.contains_key(IF_MATCH) && !names(headers, &IF_MATCH, |tag| tag == etag) {
        return Verdict::Failed;
    }
    // The weak comparison: a W/ before the tag makes no difference.
    if names(headers, &IF_NONE_MATCH, |tag| tag.strip_prefix(b"W/").unwrap_or(tag) == etag) {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// What to send of a track that a GET asked for.
pub(crate) fn part(headers: &HeaderMap, etag: &[u8], track_bytes: u64) -> Wanted {
    let mut ranges = headers.get_all(RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Wanted::Whole };
    if let Some(condition) = headers.get(IF_RANGE)
        && condition.as_bytes().trim_ascii() != etag
    {
        return Wanted::Whole;
    }
    wanted(range.as_bytes(), track_bytes)
}

/// Whether the list in `header` is `*` or has a tag that `matches`.
fn names(headers: &HeaderMap, header: &HeaderName, matches: impl Fn(&[u8]) -> bool) -> bool {
    // A quoted tag may hold a comma in general; ours never does, so a tag that is cut at one matches no more than
    // whole.
    let tags = headers.get_all(header).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    tags.map(<[u8]>::trim_ascii).any(|tag| tag == b"*" || matches(tag))
}

#[cfg(test)]
mod tests {
    use deadwax_track::ByteRange;
    use hyper::header::HeaderValue;

    use super::*;

    const ETAG: &[u8] = b"\"aa\"";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn conditions_are_weighed_in_order() {
        let cases: &[(&[(&'static str, &'static str)], Verdict)] = &[
            (&[], Verdict::Proceed),
            (&[("if-none-match", "\"aa\"")], Verdict::NotModified),
            (&[("if-none-match", "W/\"aa\"")], Verdict::NotModified),
            (&[("if-none-match", "\"x\" ,\"aa\"")], Verdict::NotModified),
            (&[("if-none-match", "\"x\""), ("if-none-match", "\"aa\"")], Verdict::NotModified),
            (&[("if-none-match", "*")], Verdict::NotModified),
            (&[("if-none-match", "aa")], Verdict::Proceed),
            (&[("if-none-match", "\"x\"")], Verdict::Proceed),
            (&[("if-match", "\"aa\"")], Verdict::Proceed),
            (&[("if-match", "*")], Verdict::Proceed),
            (&[("if-match", "\"x\", \"aa\"")], Verdict::Proceed),
            (&[("if-match", "W/\"aa\"")], Verdict::Failed),
            (&[("if-match", "\"x\"")], Verdict::Failed),
            (&[("if-match", "\"x\""), ("if-none-match", "\"aa\"")], Verdict::Failed),
            (&[("if-match", "\"aa\""), ("if-none-match", "\"aa\"")], Verdict::NotModified),
            (&[("if-modified-since", "Sat, 29 Oct 2094 19:43:31 GMT")], Verdict::Proceed),
        ];
        for (pairs, expected) in cases {
            assert_eq!(verdict(&headers(pairs), ETAG), *expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_range_counts_only_for_the_same_track() {
        let one = Wanted::One(ByteRange::new(0, 5).expect("not empty"));
        let cases: &[(&[(&'static str, &'static str)], Wanted)] = &[
            (&[], Wanted::Whole),
            (&[("range", "bytes=0-4")], one.clone()),
            (&[("range", "bytes=0-4"), ("range", "bytes=6-7")], Wanted::Whole),
            (&[("range", "bytes=0-4"), ("if-range", "\"aa\"")], one),
            (&[("range", "bytes=0-4"), ("if-range", "W/\"aa\"")], Wanted::Whole),
            (&[("range", "bytes=0-4"), ("if-range", "\"bb\"")], Wanted::Whole),
            (&[("range", "bytes=0-4"), ("if-range", "Sat, 29 Oct 1994 19:43:31 GMT")], Wanted::Whole),
            (&[("range", "bytes=10-"), ("if-range", "\"bb\"")], Wanted::Whole),
            (&[("range", "bytes=10-")], Wanted::Nothing),
        ];
        for (pairs, expected) in cases {
            assert_eq!(part(&headers(pairs), ETAG, 10), *expected, "{pairs:?}");
        }
    }
}
