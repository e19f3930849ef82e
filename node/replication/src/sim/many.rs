//! Many seeds, on several threads, until one fails.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use super::checks::Checks;
use super::runs::Course;
use super::world::{Outcome, World};

/// How often a long exploration says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// What happened in all runs together.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Sums(pub(super) [u64; Sums::NAMES.len()]);

impl Sums {
    pub(super) const NAMES: [&str; 15] = [
        "acknowledged",
        "acknowledged at k",
        "member changes",
        "pods scaled away",
        "switchovers",
        "failovers",
        "retakes",
        "partial syncs",
        "full syncs",
        "truncations",
        "disk failures",
        "lost volumes",
        "handovers",
        "handovers failed",
        "given up",
    ];

    fn add(&mut self, checks: &Checks) {
        let counted = [
            checks.acknowledged,
            checks.acknowledged_at_k,
            checks.changes,
            checks.deleted,
            checks.switchovers,
            checks.failovers,
            checks.retakes,
            checks.partial_syncs,
            checks.full_syncs,
            checks.truncations,
            checks.disk_failures,
            checks.empties,
            checks.handovers,
            checks.handovers_failed,
            checks.lost_to_failover,
        ];
        self.0
            .iter_mut()
            .zip(counted)
            .for_each(|(sum, n)| *sum += n);
    }
}

/// A run that a check stopped.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) seed: u64,
    /// What the check said.
    pub(super) what: String,
}

/// One run, everything in it drawn from the seed.
pub(super) fn run(seed: u64) -> Outcome {
    World::new(seed, Course::of(seed)).run()
}

thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });

/// Runs something that may panic, and says what the panic said; nothing is printed.
pub(super) fn attempt<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                before(panic);
            }
        }));
    });
    QUIET.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(body));
    QUIET.set(false);
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        text.unwrap_or_else(|| "a panic without words".to_owned())
    })
}

/// Runs seeds until one fails. Of several that fail at the same time, the lowest is returned.
pub(super) fn explore(
    seeds: std::ops::Range<u64>,
    say: bool,
    run: impl Fn(u64) -> Outcome + Sync,
) -> Result<Sums, Failure> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, over) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let sums = Mutex::new(Sums::default());
    let failure: Mutex<Option<Failure>> = Mutex::new(None);
    let began = Instant::now();
    let work = || {
        while !over.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            match attempt(|| run(seed)) {
                Ok(outcome) => lock(&sums).add(&outcome.checks),
                Err(what) => {
                    over.store(true, Ordering::Relaxed);
                    let mut failure = lock(&failure);
                    if failure.as_ref().is_none_or(|f| seed < f.seed) {
                        *failure = Some(Failure { seed, what });
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut said = Instant::now();
        while say && workers.iter().any(|w| !w.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                let done = next.load(Ordering::Relaxed).min(seeds.end) - seeds.start;
                let rate = done as f64 / began.elapsed().as_secs_f64();
                let all = seeds.end - seeds.start;
                println!("{done} of {all} seeds, {rate:.0} per second");
            }
        }
    });
    let failed = lock(&failure).take();
    let sums = *lock(&sums);
    failed.map_or(Ok(sums), Err)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
