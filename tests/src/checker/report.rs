//! What was promised against what is there.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::ledger::{Entry, Notes, Outcome};
use super::readback::Stored;

/// The verdict. Lists hold ids, at most [`SHOWN`] of each.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Writes by outcome and the longest gap, for each phase in order.
    pub phases: Vec<Phase>,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Writes refused with nothing done.
    pub refused: u64,
    /// Writes whose outcome is unknown.
    pub unknown: u64,
    /// Unknown writes that turned out to be there.
    pub unknown_but_there: u64,
    /// Numbered records read back.
    pub read_back: u64,
    /// Acknowledged, but not there.
    pub lost: u64,
    /// Some of them.
    pub lost_ids: Vec<String>,
    /// Lost in front of one of the same epoch that is there: a hole. Only the end of an epoch can be lost with a
    /// master, because a replica's data is always a prefix of its master's.
    pub holes: Vec<String>,
    /// Refused as without effect, but there.
    pub refused_but_there: Vec<String>,
    /// There, but never issued, or issued with other content.
    pub strange: Vec<String>,
    /// Listed more than once.
    pub duplicates: Vec<String>,
    /// Signs that writes of one client took effect in another order than it issued them.
    pub out_of_order: Vec<String>,
    /// Why writes were refused or are unknown, the first few.
    pub reasons: Vec<String>,
}

/// A part of the time, named by the scenario.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Writes refused with nothing done.
    pub refused: u64,
    /// Writes whose outcome is unknown.
    pub unknown: u64,
    /// Longest time between two acknowledgements, the second of which, or its absence, falls into this phase; in ms.
    pub longest_gap_ms: u64,
}

/// Ids shown of each kind.
pub const SHOWN: usize = 10;

impl Report {
    /// Compares; `stored` is what was read back after the last write was answered.
    pub fn of(notes: &Notes, stored: &Stored) -> Self {
        let mut report = Report {
            phases: phases(notes),
            duplicates: stored.duplicates.clone(),
            reasons: notes.reasons.clone(),
            ..Report::default()
        };
        let mut issued: HashMap<String, &Entry> = HashMap::new();
        for entry in &notes.entries {
            let id = entry.id();
            let there = stored.numbers.contains_key(&id);
            match entry.outcome {
                Outcome::Acknowledged => {
                    report.acknowledged += 1;
                    if !there {
                        report.lost += 1;
                        report.lost_ids.push(id.clone());
                    }
                }
                Outcome::Refused => {
                    report.refused += 1;
                    if there {
                        report.refused_but_there.push(id.clone());
                    }
                }
                Outcome::Unknown => {
                    report.unknown += 1;
                    report.unknown_but_there += u64::from(there);
                }
            }
            issued.insert(id, entry);
        }
        for (id, number) in &stored.numbers {
            if id.starts_with("w-") {
                report.read_back += 1;
                if issued.get(id).is_none_or(|entry| entry.number != *number) {
                    report.strange.push(id.clone());
                }
            }
        }
        report.out_of_order = order(notes, stored);
        report.holes = holes(notes, stored);
        for list in [
            &mut report.lost_ids,
            &mut report.holes,
            &mut report.refused_but_there,
            &mut report.strange,
            &mut report.duplicates,
            &mut report.out_of_order,
        ] {
            list.sort();
            list.truncate(SHOWN);
        }
        report
    }

    /// A phase by name; an empty one when there was none.
    pub fn phase(&self, name: &str) -> Phase {
        let found = self.phases.iter().find(|phase| phase.name == name);
        found.cloned().unwrap_or_default()
    }

    /// What is wrong whatever happened to the cluster: everything but the loss of acknowledged writes, which
    /// asynchronous replication allows when a master is lost.
    pub fn violations(&self) -> Vec<String> {
        [
            ("lost in front of one that is there", &self.holes),
            ("refused, but there", &self.refused_but_there),
            ("never issued, but there", &self.strange),
            ("listed more than once", &self.duplicates),
            ("out of order", &self.out_of_order),
        ]
        .iter()
        .filter(|(_, ids)| !ids.is_empty())
        .map(|(what, ids)| format!("{what}: {}", ids.join(", ")))
        .collect()
    }
}

fn phases(notes: &Notes) -> Vec<Phase> {
    let mut phases = Vec::new();
    let mut last_acknowledged = 0;
    for (index, (name, begin)) in notes.phases.iter().enumerate() {
        let next = notes.phases.get(index + 1);
        let end = next.map_or(notes.now_us, |(_, begin)| *begin);
        let mut phase = Phase {
            name: name.clone(),
            ..Phase::default()
        };
        let mut longest = 0;
        let entries = notes.entries.iter();
        for entry in entries.filter(|entry| (*begin..end).contains(&entry.at_us)) {
            match entry.outcome {
                Outcome::Acknowledged => {
                    phase.acknowledged += 1;
                    longest = longest.max(entry.at_us - last_acknowledged);
                    last_acknowledged = entry.at_us;
                }
                Outcome::Refused => phase.refused += 1,
                Outcome::Unknown => phase.unknown += 1,
            }
        }
        // What has not ended by the end of the phase counts as far as it goes.
        longest = longest.max(end.saturating_sub(last_acknowledged));
        phase.longest_gap_ms = longest / 1000;
        phases.push(phase);
    }
    phases
}

fn holes(notes: &Notes, stored: &Stored) -> Vec<String> {
    let there = |entry: &Entry| stored.numbers.contains_key(&entry.id());
    let placed = notes
        .entries
        .iter()
        .filter_map(|entry| Some((entry, entry.position?)));
    let mut kept: HashMap<u64, u64> = HashMap::new();
    for (_, (epoch, offset)) in placed.clone().filter(|(entry, _)| there(entry)) {
        let newest = kept.entry(epoch).or_default();
        *newest = offset.max(*newest);
    }
    placed
        .filter(|(entry, (epoch, offset))| !there(entry) && kept.get(epoch) > Some(offset))
        .map(|(entry, (epoch, offset))| format!("{} at {epoch}.{offset}", entry.id()))
        .collect()
}

/// Positions of one client's acknowledged writes rise, and its `last-` record is not older than its last acknowledged
/// write, nor newer than what it issued.
fn order(notes: &Notes, stored: &Stored) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut last: HashMap<u32, (u64, Option<(u64, u64)>)> = HashMap::new();
    let mut issued: HashMap<u32, u64> = HashMap::new();
    for entry in &notes.entries {
        issued.insert(entry.client, entry.number);
        if entry.outcome != Outcome::Acknowledged {
            continue;
        }
        let before = last.insert(entry.client, (entry.number, entry.position));
        if let Some((number, position)) = before
            && entry.position <= position
        {
            wrong.push(format!(
                "w-{}-{} at {:?} after w-{}-{number} at {position:?}",
                entry.client, entry.number, entry.position, entry.client
            ));
        }
    }
    for (client, (number, _)) in last {
        let id = format!("last-{client}");
        let found = stored.numbers.get(&id).copied();
        let newest = issued.get(&client).copied();
        if found < Some(number) || found > newest {
            wrong.push(format!(
                "{id} is {found:?}, last acknowledged {number}, last issued {newest:?}"
            ));
        }
    }
    wrong
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
