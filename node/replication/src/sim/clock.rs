//! The clocks of a node or an operator: one that only goes forward, at a rate of its own, and one that is set by hand.
//!
//! **The bound.** A master acknowledges for [`PERMIT`] on its own clock after it *sent* a renewal; an operator believes
//! a Lease dead after [`EXPIRE`] on its own clock without a change. The first must end before the second, whatever the
//! clocks' rates: `PERMIT / rate of the master <= EXPIRE / rate of the operator`. With 10 s and 15 s the operator's
//! clock may run at most half as fast again as the master's, which holds as long as each is right to 20 %. Real ones
//! are right to 0.1 %. Beyond the bound two masters can acknowledge at the same time: a test shows that they then do.
//!
//! Wall clocks decide nothing: they are written into batches and heartbeats, for people.

use super::random::Random;
use super::{EXPIRE, PERMIT, Time};

/// Rates that the protocol allows, per mille of true time.
const SLOWEST: u64 = 820;
const FASTEST: u64 = 1_220;
const _: () = assert!(PERMIT * FASTEST <= EXPIRE * SLOWEST);

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Per mille of true time.
    pub(super) rate: u64,
    /// Unix time in ms when the run began, as this clock has it.
    pub(super) wall: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Clock {
            rate: 1_000,
            wall: 1_800_000_000_000,
        }
    }
}

impl Clock {
    /// A clock within the bound.
    pub(super) fn any(random: &mut Random) -> Self {
        Clock {
            rate: random.between(SLOWEST, FASTEST),
            ..Clock::default()
        }
    }

    /// What it shows; never goes back.
    pub(super) fn monotonic(&self, now: Time) -> Time {
        now * self.rate / 1_000
    }

    /// Unix time in ms, right or wrong.
    pub(super) fn unix_ms(&self, now: Time) -> u64 {
        self.wall.saturating_add_unsigned(now).max(0).unsigned_abs()
    }
}
