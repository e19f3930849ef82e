//! When writes that grow are refused for want of memory, and when they are taken again.
//!
//! From [`REFUSE`] of the limit on they are refused, below [`RESUME`] they are taken again. In between what counts is
//! how much is stored: an allocator keeps what was deleted for what comes next, so that the system sees no less in use.
//! Once the store has shrunk from where memory ran short, it may grow to there again. From [`FULL`] on, nothing is taken
//! that needs memory.

/// The part of the limit in use from which on writes that grow are refused.
pub const REFUSE: f64 = 0.85;
/// The part below which they are taken again, whatever is stored.
const RESUME: f64 = 0.80;
/// The part from which on not even a replica takes what its master sends.
pub const FULL: f64 = 0.95;
/// The store has shrunk when it is this part of what it was.
const SHRUNK: f64 = 0.95;

/// Whether writes that grow are refused.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Watermark {
    refusing: bool,
    /// Bytes that were stored when memory ran short.
    reached_at: Option<u64>,
}

impl Watermark {
    /// Takes in that `used` of `limit` bytes are in use, and `stored` by the data. Whether writes that grow are refused.
    pub fn look(&mut self, used: u64, limit: u64, stored: u64) -> bool {
        let part = used as f64 / limit.max(1) as f64;
        if part < RESUME {
            *self = Watermark::default();
        } else if part >= FULL {
            self.refuse_at(stored);
        } else if self.refusing {
            let before = self.reached_at.unwrap_or(0);
            self.refusing = stored as f64 > before as f64 * SHRUNK;
        } else if part >= REFUSE && self.reached_at.is_none_or(|before| stored >= before) {
            self.refuse_at(stored);
        }
        self.refusing
    }

    fn refuse_at(&mut self, stored: u64) {
        self.refusing = true;
        self.reached_at = Some(self.reached_at.map_or(stored, |before| before.max(stored)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_refused_near_the_limit_and_taken_again_well_below_it() {
        let mut mark = Watermark::default();
        for (used, refused) in [
            (0, false),
            (84, false),
            (85, true),
            (84, true),
            (80, true),
            (79, false),
            (84, false),
            (85, true),
        ] {
            assert_eq!(mark.look(used, 100, 50), refused, "{used}");
        }
    }

    #[test]
    fn what_was_deleted_may_be_written_again_although_the_system_sees_no_less() {
        let mut mark = Watermark::default();
        for (used, stored, refused) in [
            (86, 1000, true),
            (86, 960, true),
            (86, 950, false),
            (86, 999, false),
            (86, 1000, true),
            (86, 900, false),
            // Somebody else took it.
            (95, 900, true),
            (94, 900, false),
        ] {
            assert_eq!(mark.look(used, 100, stored), refused, "{used} {stored}");
        }
    }
}
