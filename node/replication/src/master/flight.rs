//! What is under way to a replica and not yet taken there, in order.

use std::collections::VecDeque;

/// Entries kept at most, so that many small batches cost no more memory than few large ones.
const MAX_MARKS: usize = 4096;

/// Marks (an offset, or a number of chunks) and the bytes up to each.
#[derive(Debug, Default)]
pub(super) struct Flight {
    marks: VecDeque<(u64, usize)>,
    bytes: usize,
    pushed: u64,
}

impl Flight {
    /// Bytes under way.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The highest mark so far.
    pub(super) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Whether another entry may be added.
    pub(super) fn has_room(&self) -> bool {
        self.marks.len() < MAX_MARKS
    }

    /// Something up to `mark` was sent. Marks ascend.
    pub(super) fn push(&mut self, mark: u64, bytes: usize) {
        self.pushed = mark;
        self.bytes += bytes;
        let full = !self.has_room();
        match self.marks.back_mut() {
            // What is above the limit counts together with the last entry.
            Some(last) if full => *last = (mark, last.1 + bytes),
            Some(_) | None => self.marks.push_back((mark, bytes)),
        }
    }

    /// Everything up to `mark` was taken.
    pub(super) fn release(&mut self, mark: u64) {
        while let Some((first, bytes)) = self.marks.front()
            && *first <= mark
        {
            self.bytes -= bytes;
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_released_up_to_the_mark_and_marks_are_bounded() {
        let mut flight = Flight::default();
        for mark in 1..=10_000 {
            flight.push(mark, 10);
        }
        assert_eq!((flight.bytes(), flight.marks.len()), (100_000, MAX_MARKS));
        assert!(!flight.has_room());
        flight.release(100);
        assert_eq!(flight.bytes(), 99_000);
        flight.release(10_000);
        assert_eq!((flight.bytes(), flight.pushed()), (0, 10_000));
    }
}
