//! Permission to acknowledge writes: a deadline on CLOCK_BOOTTIME.
//!
//! It is the only thing that the write path looks at, at admission and again before each reply, so that a process that was
//! frozen acknowledges nothing when it wakes up. Under Kubernetes a task extends it with every renewal of the Lease that
//! the API server confirmed, counted from the moment the renewal was *sent* (`lease`); with static roles it never ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::boot_time_ms;

/// Until when this process may acknowledge writes. Shared by the renewing task and the writer.
#[derive(Clone, Debug)]
pub struct Permit {
    /// CLOCK_BOOTTIME in ms; `u64::MAX` for ever.
    until: Arc<AtomicU64>,
}

impl Permit {
    /// A permit that never runs out: roles are static, and nothing promises that there is only one master.
    pub fn unlimited() -> Self {
        Permit {
            until: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    /// A permit that has to be extended first.
    pub fn none() -> Self {
        Permit {
            until: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Whether writes may be acknowledged at this moment.
    pub fn holds(&self) -> bool {
        boot_time_ms() < self.until.load(Ordering::Acquire)
    }

    /// Permits until `until` (CLOCK_BOOTTIME in ms).
    pub fn extend(&self, until: u64) {
        self.until.store(until, Ordering::Release);
    }

    /// Ends it at once.
    pub fn revoke(&self) {
        self.until.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_ends_at_its_deadline_and_when_revoked() {
        let permit = Permit::none();
        assert!(!permit.holds());
        permit.extend(boot_time_ms() + 60_000);
        assert!(permit.holds());
        permit.extend(boot_time_ms());
        assert!(!permit.holds(), "at its deadline a permit is over");
        permit.extend(u64::MAX);
        permit.revoke();
        assert!(!permit.holds());
    }
}
