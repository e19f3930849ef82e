//! Numbers of a vector, as JSON writes them.
//!
//! They are read as 64-bit numbers and then rounded: a number that a 32-bit one was written as becomes that one again,
//! and one that is too large for 32 bits becomes infinite, which is reported for its item and not for the whole body.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::bounded::{MAX_NUMBERS, too_many_numbers};

/// Numbers reserved before they are seen.
const FORESEEN: usize = 4096;

/// For `#[serde(deserialize_with)]`.
pub(super) fn required<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
    from.deserialize_seq(Numbers)
}

/// The same where they may be absent or null; with `#[serde(default)]`.
pub(super) fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<f32>>, D::Error> {
    #[derive(Deserialize)]
    struct Present(#[serde(deserialize_with = "required")] Vec<f32>);

    let present = Option::<Present>::deserialize(from)?;
    Ok(present.map(|Present(numbers)| numbers))
}

struct Numbers;

impl<'de> Visitor<'de> for Numbers {
    type Value = Vec<f32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<f32>, A::Error> {
        let mut numbers = Vec::with_capacity(from.size_hint().unwrap_or(0).min(FORESEEN));
        while let Some(number) = from.next_element::<f64>()? {
            if numbers.len() == MAX_NUMBERS {
                return Err(too_many_numbers());
            }
            numbers.push(number as f32);
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Search, VectorItem};

    #[test]
    fn every_number_comes_back_as_the_one_that_was_written() {
        // 64-bit fields of a payload too: these are among those that a quick reading gets wrong by one unit.
        for text in [
            "0.1",
            "5e-324",
            "9007199254740993",
            "3.518437208883201171875e13",
            "1.7976931348623157e308",
        ] {
            let read: f64 = serde_json::from_str(text).unwrap();
            assert_eq!(read, text.parse::<f64>().unwrap(), "{text}");
        }
        let mut bits = 1u32;
        let mut sent = Vec::new();
        for _ in 0..200_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = f32::from_bits(bits);
            if number.is_finite() {
                sent.push(number);
            }
        }
        for sent in sent.chunks(50_000) {
            let text = serde_json::to_string(sent).unwrap();
            let item: VectorItem = serde_json::from_str(&format!("{{\"data\": {text}}}")).unwrap();
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
            assert!(item.data.iter().zip(sent).all(same));
            let search: Search = serde_json::from_str(&format!("{{\"vector\": {text}}}")).unwrap();
            assert!(search.vector.unwrap().iter().zip(sent).all(same));
        }
        let none: Search = serde_json::from_str("{\"vector\": null}").unwrap();
        assert_eq!(none.vector, None);
    }
}
