//! What may happen a thousand times a second is said at once, and then once a minute with how often it happened.

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Between two lines about the same.
const PAUSE: Duration = Duration::from_secs(60);
/// Zero of the clock; nothing was said before it.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// One kind of event.
#[derive(Default)]
pub(super) struct Seldom {
    /// Milliseconds since [`BEGAN`] before which nothing is said.
    quiet_until: AtomicU64,
    unsaid: AtomicU64,
}

impl Seldom {
    /// It has happened. When it is to be said: how often it happened since it was said last, this time included.
    pub(super) fn happened(&self) -> Option<u64> {
        self.happened_at(BEGAN.elapsed())
    }

    fn happened_at(&self, now: Duration) -> Option<u64> {
        self.unsaid.fetch_add(1, Relaxed);
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let until = self.quiet_until.load(Relaxed);
        let pause = u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX);
        if now < until {
            return None;
        }
        // Of those who come at the same time one says it.
        self.quiet_until
            .compare_exchange(until, now + pause, Relaxed, Relaxed)
            .ok()?;
        Some(self.unsaid.swap(0, Relaxed).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_once_and_then_once_a_minute_with_how_often() {
        let seldom = Seldom::default();
        let at = |seconds| seldom.happened_at(Duration::from_secs(seconds));
        assert_eq!(at(0), Some(1));
        assert_eq!(at(0), None);
        assert_eq!(at(59), None);
        assert_eq!(at(60), Some(3));
        assert_eq!(at(61), None);
        assert_eq!(at(500), Some(2));
    }
}
