use std::panic::{AssertUnwindSafe, catch_unwind};

use super::checks::Checks;
use super::world::{Plan, World};
use crate::breakage::{Breakage, with};

/// Seeds of an ordinary run.
const SEEDS: u64 = 250;

fn run(seed: u64) -> (u64, Checks) {
    World::new(seed, Plan::default()).run()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn whatever_happens_the_promises_hold() {
    if let Some(seed) = number("SIM_SEED") {
        run(seed);
        return;
    }
    let mut sums = [0; 8];
    for seed in 0..number("SIM_SEEDS").unwrap_or(SEEDS) {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed)));
        let Ok((_, checks)) = outcome else {
            panic!(
                "seed {seed}: SIM_SEED={seed} cargo test -p vectorizer-replication sim::tests::whatever -- --nocapture"
            );
        };
        let counted = [
            checks.acknowledged,
            checks.switchovers,
            checks.failovers,
            checks.retakes,
            checks.partial_syncs,
            checks.full_syncs,
            checks.truncations,
            checks.lost_to_failover,
        ];
        sums.iter_mut().zip(counted).for_each(|(sum, n)| *sum += n);
    }
    println!(
        "acknowledged, switchovers, failovers, retakes, partial, full, truncations, given up: {sums:?}"
    );
    // A simulator in which nothing happens proves nothing.
    assert!(sums[..7].iter().all(|sum| *sum > 0), "{sums:?}");
}

#[test]
fn a_seed_is_one_run_exactly() {
    for seed in 0..3 {
        assert_eq!(run(seed).0, run(seed).0);
    }
    assert_ne!(run(0).0, run(1).0);
}

/// Runs seeds with a defect until one of them is stopped by a check, and says by which.
fn caught(breakage: Breakage) -> Option<(u64, String)> {
    (0..60).find_map(|seed| {
        let outcome = catch_unwind(AssertUnwindSafe(|| with(breakage, || run(seed))));
        let panic = outcome.err()?;
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Some((seed, text.unwrap_or_default()))
    })
}

#[test]
fn every_deliberate_defect_is_noticed() {
    let mut missed = Vec::new();
    for defect in Breakage::ALL {
        match caught(defect) {
            Some((seed, by)) => println!("{defect:?}: seed {seed}: {by}"),
            None => missed.push(defect),
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
