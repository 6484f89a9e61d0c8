//! The `Range` header: which bytes a client wants. Pure.
//!
//! Source: RFC 9110, sections 14.1 and 14.2. A header that is malformed, of another unit, or asks for more than
//! [`RANGES_MAX`] ranges is ignored, as the RFC allows: the whole track is the answer.

use deadwax_track::ByteRange;

/// More ranges than this in one request are not worth their trouble: the whole track is sent.
pub(crate) const RANGES_MAX: usize = 64;

/// What to send of a track.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// All of it, with 200.
    Whole,
    /// This part, with 206.
    One(ByteRange),
    /// These parts, at least two, disjoint and not adjacent, with 206 as multipart.
    Many(Vec<ByteRange>),
    /// Well-formed, but nothing that was asked for exists: 416.
    Nothing,
}

/// Reads a `Range` header for a track of `track_bytes`, at least one.
pub(crate) fn wanted(header: &[u8], track_bytes: u64) -> Wanted {
    let Some(set) = ranges_set(header) else { return Wanted::Whole };
    let mut count = 0;
    let mut found: Vec<ByteRange> = Vec::new();
    for spec in set.split(|&byte| byte == b',') {
        let spec = spec.trim_ascii();
        // A list may have empty elements (RFC 9110, section 5.6.1.2).
        if spec.is_empty() {
            continue;
        }
        count += 1;
        let Some(range) = range_spec(spec, track_bytes) else { return Wanted::Whole };
        if count > RANGES_MAX {
            return Wanted::Whole;
        }
        if let Some(range) = range {
            merge_in(&mut found, range);
        }
    }
    match (count, found.as_slice()) {
        // "bytes=" without any range is malformed.
        (0, _) => Wanted::Whole,
        (_, []) => Wanted::Nothing,
        (_, [only]) => Wanted::One(*only),
        _ => Wanted::Many(found),
    }
}

/// What follows `bytes=`, in any case; nothing for another unit.
fn ranges_set(header: &[u8]) -> Option<&[u8]> {
    let (unit, set) = header.split_at_checked(b"bytes=".len())?;
    unit.eq_ignore_ascii_case(b"bytes=").then_some(set)
}

/// One range of the set. Outer nothing: malformed; inner nothing: not satisfiable.
fn range_spec(spec: &[u8], track_bytes: u64) -> Option<Option<ByteRange>> {
    let dash = spec.iter().position(|&byte| byte == b'-')?;
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    if first.is_empty() {
        let suffix = number(last)?;
        return Some(ByteRange::new(track_bytes - suffix.min(track_bytes), track_bytes));
    }
    let first = number(first)?;
    if last.is_empty() {
        return Some(ByteRange::new(first, track_bytes));
    }
    let last = number(last)?;
    if last < first {
        return None;
    }
    Some(ByteRange::new(first, last.saturating_add(1).min(track_bytes)))
}

/// One or more digits. Beyond what a track can have it makes no difference how far.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}

/// Adds a range, in the order asked for; those that overlap or touch become one, where the first of them stood.
fn merge_in(found: &mut Vec<ByteRange>, mut range: ByteRange) {
    let mut place = found.len();
    let mut index = 0;
    while index < found.len() {
        let other = found[index];
        if range.start() <= other.end() && other.start() <= range.end() {
            range = ByteRange::new(range.start().min(other.start()), range.end().max(other.end()))
                .expect("a union of ranges is not empty");
            found.remove(index);
            place = place.min(index);
            // The union may touch what the parts did not.
            index = 0;
        } else {
            index += 1;
        }
    }
    found.insert(place.min(found.len()), range);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end).expect("start < end")
    }

    #[test]
    fn single_ranges() {
        let cases: &[(&str, Wanted)] = &[
            ("bytes=0-0", Wanted::One(range(0, 1))),
            ("bytes=0-", Wanted::One(range(0, 100))),
            ("bytes=99-", Wanted::One(range(99, 100))),
            ("bytes=10-19", Wanted::One(range(10, 20))),
            ("bytes=90-1000", Wanted::One(range(90, 100))),
            ("bytes=0-18446744073709551615", Wanted::One(range(0, 100))),
            ("bytes=0-99999999999999999999999", Wanted::One(range(0, 100))),
            ("bytes=-1", Wanted::One(range(99, 100))),
            ("bytes=-100", Wanted::One(range(0, 100))),
            ("bytes=-1000", Wanted::One(range(0, 100))),
            ("BYTES=5-6", Wanted::One(range(5, 7))),
            ("bytes= 5-6 , ", Wanted::One(range(5, 7))),
        ];
        for (header, expected) in cases {
            assert_eq!(&wanted(header.as_bytes(), 100), expected, "{header}");
        }
    }

    #[test]
    fn what_does_not_exist_is_told_from_what_is_malformed() {
        for header in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=500-,-0", "bytes=99999999999999999999-"] {
            assert_eq!(wanted(header.as_bytes(), 100), Wanted::Nothing, "{header}");
        }
        let malformed = [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5",
            "bytes=6-5",
            "bytes=0-1,6-5",
            "bytes=1-2-3",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=1 -2",
            "items=0-1",
            "bytes:0-1",
            "bytes=0x1-2",
            "bytes=0-1;2-3",
        ];
        for header in malformed {
            assert_eq!(wanted(header.as_bytes(), 100), Wanted::Whole, "{header}");
        }
    }

    #[test]
    fn several_ranges_keep_their_order_and_those_that_touch_are_joined() {
        let cases: &[(&str, Wanted)] = &[
            ("bytes=0-1,4-5", Wanted::Many(vec![range(0, 2), range(4, 6)])),
            ("bytes=50-59,0-9", Wanted::Many(vec![range(50, 60), range(0, 10)])),
            ("bytes=-5,0-4,200-", Wanted::Many(vec![range(95, 100), range(0, 5)])),
            ("bytes=0-1,200-", Wanted::One(range(0, 2))),
            ("bytes=0-1,2-3", Wanted::One(range(0, 4))),
            ("bytes=0-9,50-59,5-54", Wanted::One(range(0, 60))),
            ("bytes=70-79,0-9,20-29,10-19", Wanted::Many(vec![range(70, 80), range(0, 30)])),
        ];
        for (header, expected) in cases {
            assert_eq!(&wanted(header.as_bytes(), 100), expected, "{header}");
        }
    }

    #[test]
    fn a_thousand_ranges_are_answered_by_the_whole() {
        let header = |count: u64| {
            let specs: Vec<_> = (0..count).map(|n| format!("{}-{}", 10 * n, 10 * n + 1)).collect();
            format!("bytes={}", specs.join(","))
        };
        assert!(matches!(wanted(header(64).as_bytes(), 100_000), Wanted::Many(ranges) if ranges.len() == 64));
        assert_eq!(wanted(header(65).as_bytes(), 100_000), Wanted::Whole);
        assert_eq!(wanted(header(1000).as_bytes(), 100_000), Wanted::Whole);
        assert_eq!(wanted("bytes=0-0,".repeat(1000).as_bytes(), 100_000), Wanted::Whole);
    }

    /// Which bytes a list of (first, last) or suffixes covers, byte by byte.
    fn covered(specs: &[(Option<u64>, Option<u64>)], track_bytes: u64) -> Vec<bool> {
        let mut bytes = vec![false; usize::try_from(track_bytes).expect("small")];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let at = at as u64;
            *byte = specs.iter().any(|spec| match *spec {
                (Some(first), last) => first <= at && last.is_none_or(|last| at <= last),
                (None, Some(suffix)) => at + suffix >= track_bytes,
                (None, None) => false,
            });
        }
        bytes
    }

    fn spec() -> impl Strategy<Value = (Option<u64>, Option<u64>)> {
        prop_oneof![
            (0_u64..80, 0_u64..40).prop_map(|(first, more)| (Some(first), Some(first + more))),
            (0_u64..80).prop_map(|first| (Some(first), None)),
            (0_u64..80).prop_map(|suffix| (None, Some(suffix))),
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(header in proptest::collection::vec(any::<u8>(), 0..200), track_bytes in 1_u64..1000) {
            let _ = wanted(&header, track_bytes);
            let _ = wanted(&[b"bytes=", header.as_slice()].concat(), track_bytes);
        }

        #[test]
        fn almost_ranges_give_an_answer_within_the_track(header in "bytes=[0-9,\\- ]{0,60}", track_bytes in 1_u64..1000) {
            match wanted(header.as_bytes(), track_bytes) {
                Wanted::One(range) => prop_assert!(range.fits(track_bytes)),
                Wanted::Many(ranges) => prop_assert!(ranges.len() > 1 && ranges.iter().all(|range| range.fits(track_bytes))),
                Wanted::Whole | Wanted::Nothing => {}
            }
        }

        #[test]
        fn agrees_with_a_naive_model(specs in proptest::collection::vec(spec(), 1..12), track_bytes in 1_u64..70) {
            let text: Vec<_> = specs.iter().map(|(first, last)| {
                let text = |number: &Option<u64>| number.map_or(String::new(), |number| number.to_string());
                format!("{}-{}", text(first), text(last))
            }).collect();
            let expected = covered(&specs, track_bytes);
            let ranges = match wanted(format!("bytes={}", text.join(",")).as_bytes(), track_bytes) {
                Wanted::One(range) => vec![range],
                Wanted::Many(ranges) => ranges,
                Wanted::Nothing => vec![],
                Wanted::Whole => return Err(TestCaseError::fail("well-formed")),
            };
            let mut got = vec![false; expected.len()];
            for range in &ranges {
                for at in range.start()..range.end() {
                    let byte = &mut got[usize::try_from(at).expect("small")];
                    prop_assert!(!*byte, "byte {at} is sent twice");
                    *byte = true;
                }
            }
            prop_assert_eq!(got, expected);
            let touching = |a: &ByteRange, b: &ByteRange| a.end() == b.start();
            prop_assert!(!ranges.iter().any(|a| ranges.iter().any(|b| touching(a, b))));
        }
    }
}
