//! The clocks: of sessions and lag, which never jump; of permits, which count suspension; and the wall's, for what is
//! written down.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use vectorizer_replication::session::Millis;

/// The first reading. Far from zero, so that moments before the process began can be expressed.
const BEGIN: Millis = 1 << 42;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Now, in ms on a clock that never jumps.
pub(crate) fn now() -> Millis {
    BEGIN + millis(START.elapsed())
}

/// The moment `at` of [`now`]'s clock, for timers.
pub(crate) fn instant(at: Millis) -> tokio::time::Instant {
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
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, millis)
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Time since the machine booted in ms, suspension included (CLOCK_BOOTTIME).
pub(crate) fn boot_time_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Both parts are never negative for this clock.
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}
