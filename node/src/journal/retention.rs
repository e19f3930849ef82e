//! What the log keeps, and what becomes of the rest.

use std::fs;
use std::sync::atomic::Ordering;

use super::Journal;
use super::error::{JournalError, io_error};

impl Journal {
    /// Drops whole segments that neither the checkpoint at `checkpoint_offset` nor a pin needs: those that are not of the
    /// last `log_size` operations, and as many more as it takes to keep to `max_bytes`. Some are kept for the next ones to
    /// take their place, as far as `max_bytes` allows.
    pub fn enforce_retention(&mut self, checkpoint_offset: u64) -> Result<(), JournalError> {
        self.check()?;
        self.checkpoint = checkpoint_offset;
        self.reclaim(0)
    }

    /// The same, with room for so many segments that are to come in place of others.
    pub(super) fn reclaim(&mut self, needed: usize) -> Result<(), JournalError> {
        let mut sizes = self.sizes()?.into_iter();
        let mut held: u64 = sizes.as_slice().iter().sum();
        let to_come = self.options.segment_limit() * needed as u64;
        let most = self.options.max_bytes.unwrap_or(u64::MAX);
        let most = most.saturating_sub(to_come);
        let mut dropped = Vec::new();
        {
            let mut state = self.shared.state.write();
            let end = state.end.position.offset;
            let circular = end.saturating_sub(self.options.log_size);
            let pinned = state.lowest_pin().map_or(u64::MAX, |from| from - 1);
            let droppable = self.checkpoint.min(pinned);
            while state.segments.get(1).is_some_and(|next| {
                let before = next.base.position.offset;
                before <= droppable && (before <= circular || held > most)
            }) {
                dropped.extend(state.segments.pop_front());
                held -= sizes.next().unwrap_or(0);
            }
            let first = state.first_offset();
            state.forget_tail_below(first);
        }
        let done = self
            .spares
            .put(dropped)
            .and_then(|()| self.spares.keep(most.saturating_sub(held), needed));
        self.note_spares();
        done
    }

    /// Removes the files that wait to be written over: the disk gets short.
    pub fn drop_spares(&mut self) -> Result<(), JournalError> {
        let done = self.spares.keep(0, 0);
        self.note_spares();
        done
    }

    pub(super) fn note_spares(&self) {
        let bytes = self.spares.bytes();
        self.shared.spare_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The lengths of the files, oldest first; nothing when nobody asks for them.
    fn sizes(&self) -> Result<Vec<u64>, JournalError> {
        if self.options.max_bytes.is_none() {
            return Ok(Vec::new());
        }
        let state = self.shared.state.read();
        let sizes = state.segments.iter().map(|segment| {
            let meta = fs::metadata(&segment.path);
            meta.map(|meta| meta.len())
                .map_err(|error| io_error("reading", &segment.path, error))
        });
        sizes.collect()
    }
}
