//! Bytes read as instructions: whatever they are, they mean something, and after their end everything is 0.

use vectorizer_replication::position::{Chain, EpochStart, History};

/// What is left of the bytes.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of them.
    pub fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `len` bytes, or fewer.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All the rest.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    /// Bytes after their length, which is two bytes.
    pub fn blob(&mut self) -> &'a [u8] {
        let len = usize::from(self.u16());
        self.take(len)
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        let mut out = [0; 8];
        let taken = self.take(8);
        out[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(out)
    }

    /// Mostly a small number, so that numbers meet; the last few bytes stand for the greatest ones.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            255 => self.u64(),
            byte @ 251.. => u64::MAX - u64::from(254 - byte),
            byte => u64::from(byte),
        }
    }

    /// One of few chains.
    pub fn chain(&mut self) -> Chain {
        Chain(u128::from(self.u8() % 4))
    }

    /// A history, epochs and offsets ascending as those that arrive are.
    pub fn history(&mut self) -> History {
        let mut history = History::default();
        for _ in 0..self.u8() % 5 {
            let last = history.entries().last();
            let (epoch, offset) = last.map_or((0, 0), |last| (last.epoch, last.first_offset));
            history.open(EpochStart {
                epoch: epoch.saturating_add(u64::from(self.u8() % 3) + 1),
                first_offset: offset.saturating_add(u64::from(self.u8() % 6) + 1),
                chain: self.chain(),
            });
        }
        history
    }
}
