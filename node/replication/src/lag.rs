//! How old the oldest operation is that a replica lacks, by the master's clock, in bounded memory.

use std::collections::VecDeque;

use crate::session::Millis;

/// Samples kept at most.
const MAX_SAMPLES: usize = 8192;
/// Neighbours become one when both together span less than this part of their age. Of each doubling of the age, at most
/// about 90 samples then remain: 3,000 for a year.
const FINENESS: u64 = 64;

/// When which operations were appended.
///
/// Each sample says that the operations after the previous sample, up to its own offset, were appended from then to then.
/// When there are too many, neighbours that are close in time for their age become one with the older time: ages are
/// never too small, and too large by at most 1 ms or 1/64. What is new stays exact, however long another replica has
/// been gone.
#[derive(Clone, Debug, Default)]
pub struct AppendTimes {
    samples: VecDeque<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    end: u64,
    from: Millis,
    to: Millis,
}

impl AppendTimes {
    /// The log ends at `end` since `at`. Calls in any other order than the log's are ignored.
    pub fn appended(&mut self, end: u64, at: Millis) {
        if let Some(last) = self.samples.back_mut() {
            if end <= last.end {
                return;
            }
            if at <= last.to {
                last.end = end;
                return;
            }
        }
        self.samples.push_back(Sample {
            end,
            from: at,
            to: at,
        });
        if self.samples.len() > MAX_SAMPLES {
            self.coarsen(at);
        }
    }

    /// Age in ms at `now` of the oldest operation after `applied`; 0 when there is none.
    pub fn age_after(&self, applied: u64, now: Millis) -> Millis {
        let first = self.samples.partition_point(|s| s.end <= applied);
        self.samples
            .get(first)
            .map_or(0, |s| now.saturating_sub(s.from))
    }

    /// Nobody will ask about operations up to `offset` again.
    pub fn forget(&mut self, offset: u64) {
        while self.samples.front().is_some_and(|s| s.end <= offset) {
            self.samples.pop_front();
        }
    }

    fn coarsen(&mut self, now: Millis) {
        let mut kept: VecDeque<Sample> = VecDeque::with_capacity(MAX_SAMPLES + 1);
        for sample in self.samples.drain(..) {
            let close = now.saturating_sub(sample.to) / FINENESS;
            match kept.back_mut() {
                Some(last) if sample.to - last.from < close => {
                    last.end = sample.end;
                    last.to = sample.to;
                }
                Some(_) | None => kept.push_back(sample),
            }
        }
        self.samples = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_that_of_the_oldest_operation_missing_and_0_when_none_is() {
        let mut times = AppendTimes::default();
        times.appended(10, 1_000);
        times.appended(20, 4_000);
        assert_eq!(times.age_after(20, 5_000), 0);
        assert_eq!(times.age_after(19, 5_000), 1_000);
        assert_eq!(times.age_after(10, 5_000), 1_000);
        assert_eq!(times.age_after(9, 5_000), 4_000);
        assert_eq!(times.age_after(0, 5_000), 4_000);
    }

    #[test]
    fn an_operation_after_a_long_pause_is_not_as_old_as_the_pause() {
        let mut times = AppendTimes::default();
        for n in 0..100_000 {
            times.appended(n + 1, n);
        }
        times.appended(200_000, 3_600_000);
        assert_eq!(times.age_after(150_000, 3_600_001), 1);
    }

    #[test]
    fn memory_is_bounded_and_ages_are_hardly_too_large_however_long_a_replica_is_gone() {
        // A day in which something is written every millisecond would take a minute to count up: most of it is in
        // steps of a second.
        let mut times = AppendTimes::default();
        let mut written = Vec::new();
        let mut at = 0;
        for n in 1..=400_000_u64 {
            at += if n < 90_000 { 1_000 } else { 1 + n % 2 };
            times.appended(n, at);
            written.push(at);
            assert!(times.samples.len() <= MAX_SAMPLES);
        }
        for applied in (0..400_000).step_by(997).chain([399_000, 399_990, 399_999]) {
            let true_age = at - written[applied];
            let age = times.age_after(applied as u64, at);
            assert!(
                age >= true_age && age - true_age <= 1.max(true_age / 64),
                "{age} for {true_age}"
            );
        }
        times.forget(399_999);
        assert_eq!(times.samples.len(), 1);
    }

    #[test]
    fn few_samples_are_left_of_what_is_brought_down() {
        let mut times = AppendTimes::default();
        for n in 0..MAX_SAMPLES as u64 {
            // As many as fit, at ages up to a year.
            let age = 1.003_f64.powi(i32::try_from(n).unwrap()).min(3.0e10);
            let at = (4.0e10 - age) as u64;
            times.samples.push_front(Sample {
                end: MAX_SAMPLES as u64 - n,
                from: at,
                to: at,
            });
        }
        times.coarsen(40_000_000_000);
        assert!(
            times.samples.len() < MAX_SAMPLES / 2,
            "{}",
            times.samples.len()
        );
    }
}
