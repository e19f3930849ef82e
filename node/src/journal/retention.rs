//! What the log keeps, and what becomes of the rest.

use std::sync::atomic::Ordering;

use super::Journal;
use super::error::JournalError;

/// A last segment of fewer bytes is not left for another, nor is one where fewer are free for that.
const WORTH_LEAVING: u64 = if cfg!(test) { 512 } else { 64 << 10 };

impl Journal {
    /// Keeps to so many bytes from the next [`Self::enforce_retention`] on; to none with `None`.
    pub fn set_max_bytes(&mut self, max_bytes: Option<u64>) {
        self.options.max_bytes = max_bytes;
    }

    /// Drops whole segments that neither the checkpoint at `checkpoint_offset` nor a pin needs: those that are not of the
    /// last `log_size` operations, as many more as it takes to keep to `max_bytes`, and more of them until `missing` bytes
    /// are given back, files that wait to be written over first. Otherwise some are kept for the next ones to take their
    /// place, as far as `max_bytes` allows.
    pub fn enforce_retention(
        &mut self,
        checkpoint_offset: u64,
        missing: u64,
    ) -> Result<(), JournalError> {
        self.check()?;
        self.checkpoint = checkpoint_offset;
        if missing == 0 {
            return self.reclaim(0, 0);
        }
        // Those that are being removed as well: their room is on its way back.
        let missing = missing.saturating_sub(self.spares.bytes());
        self.drop_spares()?;
        if missing > 0 {
            self.leave_last_segment()?;
        }
        self.reclaim(0, missing)?;
        self.drop_spares()
    }

    /// Begins another segment when the checkpoint stands for all of the last one, so that it can go as well: there may be
    /// no write to begin one.
    fn leave_last_segment(&mut self) -> Result<(), JournalError> {
        let free = rustix::fs::fstatvfs(&self.file).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
        let worth = self.size.max(self.len.load(Ordering::Relaxed)) > WORTH_LEAVING;
        if self.checkpoint < self.end.position.offset || !worth || free < WORTH_LEAVING {
            return Ok(());
        }
        self.poisoning(|journal| {
            journal.sync()?;
            journal.drop_room()?;
            journal.begin_segment(None)
        })?;
        self.publish();
        Ok(())
    }

    /// The same, with room for so many segments that are to come in place of others.
    pub(super) fn reclaim(&mut self, needed: usize, missing: u64) -> Result<(), JournalError> {
        let to_come = self.options.segment_limit() * needed as u64;
        let most = self.options.max_bytes.unwrap_or(u64::MAX);
        let most = most.saturating_sub(to_come);
        let mut dropped = Vec::new();
        let held = {
            let mut state = self.shared.state.write();
            let mut held = state.bytes();
            let most = most.min(held.saturating_sub(missing));
            let end = state.end.position.offset;
            let circular = end.saturating_sub(self.options.log_size);
            let pinned = state.lowest_pin().map_or(u64::MAX, |from| from - 1);
            let droppable = self.checkpoint.min(pinned);
            while state.segments.get(1).is_some_and(|next| {
                let before = next.base.position.offset;
                before <= droppable && (before <= circular || held > most)
            }) {
                if let Some(segment) = state.segments.pop_front() {
                    held = held.saturating_sub(segment.len());
                    dropped.push(segment);
                }
            }
            let first = state.first_offset();
            state.forget_tail_below(first);
            held
        };
        let done = self
            .spares
            .put(dropped)
            .and_then(|()| self.spares.keep(most.saturating_sub(held), needed));
        self.note_spares();
        done
    }

    /// Removes the files that wait to be written over.
    pub fn drop_spares(&mut self) -> Result<(), JournalError> {
        let done = self.spares.keep(0, 0);
        self.note_spares();
        done
    }

    pub(super) fn note_spares(&self) {
        let bytes = self.spares.bytes();
        self.shared.spare_bytes.store(bytes, Ordering::Relaxed);
    }
}
