use std::time::Instant;

use super::checks::{Checks, violated};
use super::many::{Failure, Sums, attempt, explore, run};
use super::runs::Course;
use super::scripts::{
    lowered_to_none, one_too_few, removal_after_a_failed_handover, removal_sent_twice,
};
use super::world::World;
use crate::breakage::{Breakage, with};

/// Seeds of an ordinary run.
const SEEDS: u64 = 400;
/// A defect that none of so many seeds notices is missed.
const MUTANT_SEEDS: u64 = 500;
/// As many, where a script leads to it.
const SCRIPTED_SEEDS: u64 = 12;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// `SIM_SEED` runs one seed and prints its trace; `SIM_SEEDS` says how many, `SIM_FROM` from which on.
#[test]
fn whatever_happens_the_promises_hold() {
    if let Some(seed) = number("SIM_SEED") {
        run(seed);
        return;
    }
    let (from, asked) = (number("SIM_FROM").unwrap_or(0), number("SIM_SEEDS"));
    let seeds = from..from + asked.unwrap_or(SEEDS);
    match explore(seeds.clone(), asked.is_some(), run) {
        Ok(sums) => {
            for (name, sum) in Sums::NAMES.iter().zip(sums.0) {
                println!("{name:>16}: {sum}");
            }
            println!("{} seeds, nothing found", seeds.end - seeds.start);
            // A simulator in which nothing happens proves nothing.
            let something = sums.0[..Sums::NAMES.len() - 1].iter().all(|sum| *sum > 0);
            assert!(something || seeds.end - seeds.start < 100, "{sums:?}");
        }
        Err(failure) => panic!(
            "seed {seed}: {what}\nonce more: SIM_SEED={seed} cargo test{profile} -p vectorizer-replication --lib \
             sim::tests::whatever -- --nocapture",
            seed = failure.seed,
            what = failure.what,
            profile = if cfg!(debug_assertions) {
                ""
            } else {
                " --release"
            },
        ),
    }
}

#[test]
fn a_seed_is_one_run_exactly() {
    for seed in 0..5 {
        assert_eq!(run(seed).trace, run(seed).trace);
    }
    assert_ne!(run(0).trace, run(1).trace);
}

#[test]
fn wall_clocks_that_jump_change_nothing_but_the_times_that_are_written_down() {
    for seed in 0..20 {
        let course = Course::of(seed);
        let with = World::new(seed, course).run();
        let jumps = false;
        let without = World::new(seed, Course { jumps, ..course }).run();
        assert_eq!(with.shape, without.shape, "seed {seed}");
        assert_eq!(with.checks.acknowledged, without.checks.acknowledged);
    }
}

/// Begins a run.
type Script = fn(u64) -> World;

/// Leads to a defect that chance hardly ever meets.
fn script(defect: Breakage) -> Option<Script> {
    let scripts: [(Breakage, Script); 4] = [
        (Breakage::ElectUnsecured, lowered_to_none),
        (Breakage::FenceOneTooFew, one_too_few),
        (Breakage::RecordSettled, removal_after_a_failed_handover),
        (Breakage::GiveUpOnConflict, removal_sent_twice),
    ];
    let script = scripts
        .into_iter()
        .find(|(leads_to, _)| *leads_to == defect);
    script.map(|(_, script)| script)
}

/// Each defect is stopped by a check, not by a simulator that comes to grief. `make mutants` prints these lines as a
/// table.
#[test]
fn every_deliberate_defect_is_noticed() {
    let mut missed = Vec::new();
    for defect in Breakage::ALL {
        let began = Instant::now();
        let script = script(defect);
        let seeds = script.map_or(MUTANT_SEEDS, |_| SCRIPTED_SEEDS);
        let run = |seed| script.map_or_else(|| run(seed), |begin| begin(seed).run());
        let found = explore(0..seeds, false, |seed| with(defect, || run(seed)));
        let Err(Failure { seed, what }) = found else {
            missed.push(format!("{defect:?}"));
            continue;
        };
        match violated(&what) {
            None => missed.push(format!("{defect:?}, which seed {seed} ends with: {what}")),
            Some(invariant) => println!(
                "mutant|{defect:?}|{}|simulator: {invariant}|{}|{:.1}",
                defect.place(),
                seed + 1,
                began.elapsed().as_secs_f64()
            ),
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

#[test]
fn a_panic_of_the_simulator_itself_is_no_verdict() {
    let nothing: Vec<u64> = Vec::new();
    let beyond = attempt(|| nothing[nothing.len()]);
    let absent = attempt(|| nothing.first().unwrap());
    for panic in [beyond.map(drop), absent.map(drop)] {
        let what = panic.unwrap_err();
        assert_eq!(violated(&what), None, "{what}");
    }
    let caught = attempt(|| Checks::default().promise(1, 5, 4)).unwrap_err();
    assert_eq!(violated(&caught), Some("promise"), "{caught}");
}
