//! Numbers as JSON writes them, compared by their exact value: two whole numbers of twenty digits are told apart, and a
//! fraction is what its digits say.

use std::cmp::Ordering;

/// A decimal number of any length. Equal numbers are equal however they were written: `1`, `1.0`, `10e-1`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Number {
    negative: bool,
    /// The value is `0.digits` times ten to this power.
    exponent: i64,
    /// `0` to `9`, neither beginning nor ending with `0`; none for zero.
    digits: Box<[u8]>,
}

impl Number {
    /// Reads a number; `None` when the text is none, or its exponent is beyond 64 bits.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, power) = match text.split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, power.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if whole.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..leading);
        let kept = digits.iter().rposition(|digit| *digit != b'0');
        digits.truncate(kept.map_or(0, |last| last + 1));
        if digits.is_empty() {
            let digits = digits.into();
            return Some(Number {
                negative: false,
                exponent: 0,
                digits,
            });
        }
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()?;
        Some(Number {
            negative,
            exponent: power.checked_add(point)?,
            digits: digits.into(),
        })
    }

    fn magnitude(&self) -> (i64, &[u8]) {
        (self.exponent, &self.digits)
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Number| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        sign(self).cmp(&sign(other)).then_with(|| {
            let magnitude = self.magnitude().cmp(&other.magnitude());
            if self.negative {
                magnitude.reverse()
            } else {
                magnitude
            }
        })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn numbers_are_equal_when_their_values_are_however_they_are_written() {
        for (a, b) in [
            ("1", "1.0"),
            ("100", "1e2"),
            ("0.5", "5E-1"),
            ("-0", "0.000e7"),
            ("1200.00", "12e+2"),
            ("0.00120", "1.2e-3"),
        ] {
            assert_eq!(number(a), number(b), "{a} {b}");
            assert_eq!(number(a).cmp(&number(b)), Ordering::Equal);
        }
        for no in ["", "-", ".5", "1.x", "1e", "--1", "1e99999999999999999999"] {
            assert_eq!(Number::parse(no), None, "{no}");
        }
    }

    #[test]
    fn numbers_beyond_what_a_float_holds_have_their_order() {
        let ascending = [
            "-1e400",
            "-18446744073709551616",
            "-1.1",
            "-1",
            "-1e-400",
            "0",
            "4.9e-325",
            "0.1",
            "0.1000000000000000055511151231257827",
            "1",
            "9007199254740992",
            "9007199254740993",
            "1768907445451174112",
            "1768907445451174112.5",
            "1768907445451174113",
            "18446744073709551616",
            "340282366920938463463374607431768211456",
            "1e400",
        ];
        for (at, a) in ascending.iter().enumerate() {
            for (other, b) in ascending.iter().enumerate() {
                assert_eq!(number(a).cmp(&number(b)), at.cmp(&other), "{a} {b}");
            }
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_and_floats_compare_as_the_machine_compares_them(
            a in any::<i64>(), b in any::<i64>(), x in -1e9f64..1e9, y in -1e9f64..1e9,
        ) {
            prop_assert_eq!(number(&a.to_string()).cmp(&number(&b.to_string())), a.cmp(&b));
            prop_assert_eq!(number(&x.to_string()).cmp(&number(&y.to_string())), x.total_cmp(&y));
            let near = format!("{a}.5");
            let (above, near) = (number(&a.to_string()), number(&near));
            prop_assert_eq!(above < near, a >= 0);
        }
    }
}
