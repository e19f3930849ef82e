//! What is written: the same random bytes for every system.

use std::io::Write;

/// Numbers in a vector.
pub const DIMENSION: usize = 512;
/// Bytes of a value: the vector's.
pub const VALUE: usize = DIMENSION * 4;
/// Distinct values. More than the processor's caches hold.
const POOL: usize = 8 << 10;

/// Random values, each of [`VALUE`] bytes that are also [`DIMENSION`] finite numbers.
pub struct Values(Vec<u8>);

impl Values {
    /// The same every time.
    pub fn new() -> Self {
        let mut dice = Dice(20_481);
        let mut bytes = Vec::with_capacity(POOL * VALUE);
        for _ in 0..POOL * DIMENSION {
            let number = (dice.next() >> 40) as f32 / (1 << 23) as f32 - 1.0;
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        Values(bytes)
    }

    /// Value `n`, of endlessly many.
    pub fn get(&self, n: u64) -> &[u8] {
        let at = (n % POOL as u64) as usize * VALUE;
        &self.0[at..at + VALUE]
    }
}

/// Records that are written together: consecutive keys from a random one on.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// Where values come from.
    pub values: &'a Values,
    /// The first key's number.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Keys are below this.
    pub keys: u64,
    /// Which values, so that a key's changes.
    pub salt: u64,
}

impl<'a> Batch<'a> {
    /// Calls `each` with every key and value. `key` is room for the key.
    pub fn each<E>(
        &self,
        key: &mut Vec<u8>,
        mut each: impl FnMut(&[u8], &'a [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for n in self.first..self.first + self.count {
            let number = n % self.keys;
            key.clear();
            // A vector takes everything.
            let _ = write!(key, "key:{number:012}");
            each(key, self.values.get(number.wrapping_add(self.salt)))?;
        }
        Ok(())
    }
}

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_finite_numbers_and_differ() {
        let values = Values::new();
        for n in [0, 1, 8191, 8192, u64::MAX] {
            let value = values.get(n);
            assert_eq!(value.len(), VALUE);
            let (numbers, _) = value.as_chunks::<4>();
            assert!(numbers.iter().all(|b| f32::from_le_bytes(*b).is_finite()));
        }
        assert_ne!(values.get(0), values.get(1));
    }
}
