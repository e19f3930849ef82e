//! The clocks that sessions and lag are counted with.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use vectorizer_replication::session::Millis;

/// The first reading. Far from zero, so that moments before the process began can be expressed.
const BEGIN: Millis = 1 << 42;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Now, in ms on a clock that never jumps.
pub(super) fn now() -> Millis {
    BEGIN + millis(START.elapsed())
}

/// The moment `at` of [`now`]'s clock, for timers.
pub(super) fn instant(at: Millis) -> tokio::time::Instant {
    let since_start = Duration::from_millis(at.saturating_sub(BEGIN));
    // So far ahead that it cannot be expressed is as good as never; an hour is.
    let far = Instant::now() + Duration::from_secs(3600);
    START
        .checked_add(since_start)
        .unwrap_or(far)
        .min(far)
        .into()
}

/// Unix time in ms.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, millis)
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
