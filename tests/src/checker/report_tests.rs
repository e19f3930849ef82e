//! The checker must be able to see what it looks for.

use super::*;

fn entry(number: u64, outcome: Outcome, at_ms: u64) -> Entry {
    Entry {
        client: 0,
        number,
        outcome,
        at_us: at_ms * 1000,
        position: (outcome == Outcome::Acknowledged).then_some((1, number)),
    }
}

fn notes(entries: Vec<Entry>) -> Notes {
    let now_us = entries.last().map_or(0, |entry| entry.at_us);
    Notes {
        entries,
        phases: vec![("all".to_owned(), 0)],
        reasons: Vec::new(),
        now_us: now_us + 1,
    }
}

fn stored(numbers: &[u64], last: u64) -> Stored {
    let records = numbers.iter().map(|n| (format!("w-0-{n}"), *n));
    let last = std::iter::once(("last-0".to_owned(), last));
    Stored {
        numbers: records.chain(last).collect(),
        duplicates: Vec::new(),
    }
}

#[test]
fn what_was_acknowledged_and_is_not_there_is_lost() {
    let notes = notes(vec![
        entry(1, Outcome::Acknowledged, 1),
        entry(2, Outcome::Acknowledged, 2),
        entry(3, Outcome::Unknown, 3),
    ]);
    let report = Report::of(&notes, &stored(&[1, 3], 3));
    assert_eq!(
        (report.lost, report.lost_ids),
        (1, vec!["w-0-2".to_owned()])
    );
    assert_eq!((report.unknown, report.unknown_but_there), (1, 1));
    assert_eq!(report.read_back, 2);
}

#[test]
fn a_loss_in_the_middle_of_an_epoch_is_a_hole_and_one_at_its_end_is_not() {
    let notes = notes(vec![
        entry(1, Outcome::Acknowledged, 1),
        entry(2, Outcome::Acknowledged, 2),
        entry(3, Outcome::Acknowledged, 3),
    ]);
    assert!(Report::of(&notes, &stored(&[1], 3)).holes.is_empty());
    assert_eq!(
        Report::of(&notes, &stored(&[1, 3], 3)).holes,
        ["w-0-2 at 1.2"]
    );
}

#[test]
fn a_refused_write_that_took_effect_is_a_violation() {
    let notes = notes(vec![
        entry(1, Outcome::Acknowledged, 1),
        entry(2, Outcome::Refused, 2),
    ]);
    let report = Report::of(&notes, &stored(&[1, 2], 1));
    assert_eq!(report.violations(), ["refused, but there: w-0-2"]);
}

#[test]
fn a_record_that_nobody_wrote_is_a_violation() {
    let notes = notes(vec![entry(1, Outcome::Acknowledged, 1)]);
    let report = Report::of(&notes, &stored(&[1, 9], 1));
    assert_eq!(report.violations(), ["never issued, but there: w-0-9"]);
}

#[test]
fn an_older_value_over_a_newer_one_is_out_of_order() {
    let notes = notes(vec![
        entry(1, Outcome::Acknowledged, 1),
        entry(2, Outcome::Acknowledged, 2),
    ]);
    let report = Report::of(&notes, &stored(&[1, 2], 1));
    assert_eq!(report.violations().len(), 1, "{report:?}");
}

#[test]
fn a_position_that_goes_back_is_out_of_order() {
    let mut second = entry(2, Outcome::Acknowledged, 2);
    second.position = Some((1, 1));
    let notes = notes(vec![entry(1, Outcome::Acknowledged, 1), second]);
    let report = Report::of(&notes, &stored(&[1, 2], 2));
    assert_eq!(report.out_of_order.len(), 1, "{report:?}");
}

#[test]
fn the_longest_gap_is_between_acknowledgements_and_belongs_to_the_phase_in_which_it_ends() {
    let mut notes = notes(vec![
        entry(1, Outcome::Acknowledged, 10),
        entry(2, Outcome::Refused, 60),
        entry(3, Outcome::Acknowledged, 110),
        entry(4, Outcome::Acknowledged, 120),
    ]);
    notes.phases = vec![("before".to_owned(), 0), ("after".to_owned(), 50_000)];
    let report = Report::of(&notes, &stored(&[1, 3, 4], 4));
    assert_eq!(report.phase("before").longest_gap_ms, 40);
    assert_eq!(report.phase("after").longest_gap_ms, 100);
    assert_eq!(report.phase("after").refused, 1);
}
