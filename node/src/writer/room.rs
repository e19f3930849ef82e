//! Room on the disk, asked for before anything is written: a write that fails ends the process.
//!
//! | free, as a fraction of the disk | what happens |
//! |---|---|
//! | below twice `min_free_fraction` | full syncs hold the log no longer, and no file waits to be written over |
//! | below `min_free_fraction` (5 %) | writes that grow are refused, deletes go on |
//! | below two fifths of it (2 %) | checkpoints and incoming full syncs are given up: `data_dir/checkpoint.rs` |
//! | below a fifth of it (1 %) | everything that needs the log is refused: deletes, following, opening an epoch |
//!
//! Below that only the role file is written, which is small; where even that fails, its command is refused. What somebody
//! else takes between the question and the write still ends the process, and a restart finds all that was acknowledged.

use super::thread::Writer;

impl Writer {
    /// Whether the disk has room for `bytes` more in the log; if not, why.
    pub(super) fn room_for(&self, bytes: usize, grows: bool) -> Result<(), String> {
        let limit = self.options.min_free_fraction;
        let least = if grows { limit } else { limit / 5.0 };
        let after = |free: crate::data_dir::FreeSpace| free.fraction_after(bytes as u64);
        // A file system that does not say is found out by writing.
        if self.data.free_space().is_ok_and(|free| after(free) < least) {
            let percent = least * 100.0;
            return Err(if grows {
                format!(
                    "less than {percent:.0} % of the disk would be free: only deletes are accepted until there is more"
                )
            } else {
                format!(
                    "less than {percent:.0} % of the disk would be free: there is no room left for the log"
                )
            });
        }
        Ok(())
    }

    /// Lets go of old log, and of what full syncs hold of it once the disk gets short.
    pub(super) fn enforce_retention(&mut self) {
        let short = self.options.min_free_fraction * 2.0;
        let is_short = |free: crate::data_dir::FreeSpace| free.fraction_after(0) < short;
        let short = self.data.free_space().is_ok_and(is_short);
        if short && self.journal.void_pins() {
            tracing::warn!("the disk gets short: the log is held for full syncs no longer");
        }
        let kept = self.checkpoints.start_offset();
        let mut done = self.journal.enforce_retention(kept);
        if short && done.is_ok() {
            done = self.journal.drop_spares();
        }
        if let Err(error) = done {
            tracing::error!(%error, "old log segments were not removed");
        }
    }
}
