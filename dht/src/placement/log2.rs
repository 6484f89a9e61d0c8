//! A logarithm that is the same on every machine.

/// Fractional bits of the result.
const FRACTION_BITS: u32 = 40;

/// `-log2(u)` for `u = (x | 1) / 2^64`, a fraction above 0 and below 1, as a fixed-point number with 40 fractional
/// bits: above 0, at most 64 * 2^40, falling as `x` grows. A float's `log2` may differ from one libm to the next.
///
/// One bit a step: squaring a number doubles its logarithm (Knuth, TAOCP 1, 1.2.2, exercise 25).
pub(super) fn minus_log2(x: u64) -> u64 {
    let x = x | 1;
    let whole = u64::from(63 - x.leading_zeros());
    // x / 2^whole, between 1 and 2, with 63 fractional bits.
    let mut mantissa = x << x.leading_zeros();
    let mut fraction = 0_u64;
    for _ in 0..FRACTION_BITS {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let half = |square: u128| u64::try_from(square & u128::from(u64::MAX)).expect("64 bits");
        let (high, low) = (half(square >> 64), half(square));
        // A square below 4, halved if it is 2 or more: without a branch, which a processor would guess wrong half the time.
        let carry = high >> 63;
        mantissa = high << (1 - carry) | low >> 63 & (1 - carry);
        fraction = fraction << 1 | carry;
    }
    (64 << FRACTION_BITS) - (whole << FRACTION_BITS | fraction)
}

/// At most [`minus_log2`] of `x`, and close to it where `x` is great: `-ln u >= 1 - u`, and `log2 e` is 1.4427 (here
/// 5909 / 4096). [`minus_log2`] rounds up, so it is never below.
pub(super) const fn minus_log2_least(x: u64) -> u64 {
    let missing = (x | 1).wrapping_neg();
    ((missing >> (64 - FRACTION_BITS)) * 5909) >> 12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_is_never_above() {
        for step in 0..200_000_u64 {
            for x in [step, u64::MAX - step, step << 46, u64::MAX - (step << 40)] {
                assert!(minus_log2_least(x) <= minus_log2(x), "{x}");
            }
        }
    }

    #[test]
    fn powers_of_two_are_exact() {
        for power in 1..64 {
            // The lowest bit is always set, which from 2^24 on is below the last fractional bit.
            if power >= 42 {
                assert_eq!(minus_log2(1 << power), (64 - power) << FRACTION_BITS, "2^{power}");
            }
        }
        assert_eq!(minus_log2(0), 64 << FRACTION_BITS);
        assert_eq!(minus_log2(u64::MAX), 1);
    }

    #[test]
    fn it_is_the_logarithm() {
        // log2(3) = 1.5849625007211561814...: its first 40 fractional bits.
        let three = (64 << FRACTION_BITS) - minus_log2(3);
        assert_eq!(three, 1_742_684_699_131);
        let mut last = u64::MAX;
        for step in 0..100_000_u64 {
            let now = minus_log2(step << 47);
            assert!(now <= last, "it falls");
            last = now;
        }
    }
}
