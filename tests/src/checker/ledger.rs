//! What became of every write that was issued, and when.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What an answer said about a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Acknowledged: it must be there.
    Acknowledged,
    /// Refused, with certainty that nothing happened: it must not be there.
    Refused,
    /// The answer was lost, or said that the outcome is unknown: both are right.
    Unknown,
}

/// One write.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Which of the concurrent clients wrote it.
    pub client: u32,
    /// Its number, counted by that client from 1 without gaps.
    pub number: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// When the answer came, in microseconds since the load began.
    pub at_us: u64,
    /// `X-Vectorizer-Position` of an acknowledged write: epoch and offset.
    pub position: Option<(u64, u64)>,
}

impl Entry {
    /// Id of the record that it wrote.
    pub fn id(&self) -> String {
        format!("w-{}-{}", self.client, self.number)
    }
}

/// All entries, shared by the clients.
pub struct Ledger {
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Default, Clone)]
struct Inner {
    entries: Vec<Entry>,
    phases: Vec<(String, u64)>,
    /// Why writes were refused or are unknown, the first few.
    reasons: Vec<String>,
    acknowledged: u64,
    last_acknowledged_us: u64,
}

/// Reasons that are kept.
const REASONS: usize = 20;

/// A copy of everything noted so far.
#[derive(Clone)]
pub struct Notes {
    /// Every write in the order of their answers.
    pub entries: Vec<Entry>,
    /// Names of phases with their beginnings in microseconds since the load began, in order.
    pub phases: Vec<(String, u64)>,
    /// Why writes were refused or are unknown, the first few.
    pub reasons: Vec<String>,
    /// Now, in microseconds since the load began.
    pub now_us: u64,
}

impl Ledger {
    /// An empty ledger whose clock starts now, in a first phase.
    pub fn start(phase: &str) -> Self {
        Ledger {
            start: Instant::now(),
            inner: Mutex::new(Inner {
                phases: vec![(phase.to_owned(), 0)],
                ..Inner::default()
            }),
        }
    }

    /// Notes what became of a write.
    pub fn note(
        &self,
        client: u32,
        number: u64,
        outcome: Outcome,
        position: Option<(u64, u64)>,
        why: Option<String>,
    ) {
        let mut inner = self.lock();
        // Taken under the lock, so that entries are in the order of their times.
        let at_us = self.now_us();
        inner.entries.push(Entry {
            client,
            number,
            outcome,
            at_us,
            position,
        });
        if outcome == Outcome::Acknowledged {
            inner.acknowledged += 1;
            inner.last_acknowledged_us = at_us;
        }
        if let Some(why) = why
            && inner.reasons.len() < REASONS
        {
            let second = at_us / 1_000_000;
            inner
                .reasons
                .push(format!("{second} s: {outcome:?}: {why}"));
        }
    }

    /// Begins another phase: gaps and counts are told apart by phase.
    pub fn phase(&self, name: &str) {
        let mut inner = self.lock();
        let now = self.now_us();
        inner.phases.push((name.to_owned(), now));
    }

    /// Everything noted so far.
    pub fn notes(&self) -> Notes {
        let inner = self.lock().clone();
        Notes {
            entries: inner.entries,
            phases: inner.phases,
            reasons: inner.reasons,
            now_us: self.now_us(),
        }
    }

    /// Writes acknowledged so far, and microseconds since the last one.
    pub fn acknowledged(&self) -> (u64, u64) {
        let inner = self.lock();
        let silent = self.now_us().saturating_sub(inner.last_acknowledged_us);
        (inner.acknowledged, silent)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
