//! How old the oldest operation is that a replica lacks, by the master's clock, in bounded memory.

use std::collections::VecDeque;

use crate::session::Millis;

/// Samples kept at most.
const MAX_SAMPLES: usize = 8192;

/// When which operations were appended.
///
/// Each sample says that the operations after the previous sample, up to its own offset, were appended at its time.
/// When there are too many, neighbours that are close in time become one with the older time: ages are never too
/// small, and too large by at most the resolution, which is 1 ms until about eight seconds of uninterrupted writing
/// are missing somewhere, and then doubles as that time does.
#[derive(Clone, Debug)]
pub struct AppendTimes {
    samples: VecDeque<Sample>,
    resolution: Millis,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    end: u64,
    at: Millis,
}

impl Default for AppendTimes {
    fn default() -> Self {
        AppendTimes {
            samples: VecDeque::new(),
            resolution: 1,
        }
    }
}

impl AppendTimes {
    /// The log ends at `end` since `at`. Calls in any other order than the log's are ignored.
    pub fn appended(&mut self, end: u64, at: Millis) {
        if let Some(last) = self.samples.back_mut() {
            if end <= last.end {
                return;
            }
            if at < last.at + self.resolution {
                last.end = end;
                return;
            }
        }
        self.samples.push_back(Sample { end, at });
        if self.samples.len() > MAX_SAMPLES {
            self.coarsen();
        }
    }

    /// Age in ms at `now` of the oldest operation after `applied`; 0 when there is none.
    pub fn age_after(&self, applied: u64, now: Millis) -> Millis {
        let first = self.samples.partition_point(|s| s.end <= applied);
        self.samples
            .get(first)
            .map_or(0, |s| now.saturating_sub(s.at))
    }

    /// Nobody will ask about operations up to `offset` again.
    pub fn forget(&mut self, offset: u64) {
        while self.samples.front().is_some_and(|s| s.end <= offset) {
            self.samples.pop_front();
        }
        if self.samples.len() < MAX_SAMPLES / 8 {
            self.resolution = 1;
        }
    }

    fn coarsen(&mut self) {
        while self.samples.len() > MAX_SAMPLES / 2 {
            self.resolution = self.resolution.saturating_mul(2);
            let resolution = self.resolution;
            let mut kept: VecDeque<Sample> = VecDeque::with_capacity(self.samples.len());
            for sample in self.samples.drain(..) {
                match kept.back_mut() {
                    Some(last) if sample.at < last.at + resolution => last.end = sample.end,
                    Some(_) | None => kept.push_back(sample),
                }
            }
            self.samples = kept;
        }
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
    fn memory_is_bounded_and_ages_are_at_most_one_resolution_too_large() {
        let mut times = AppendTimes::default();
        for n in 1..=200_000_u64 {
            times.appended(n, n);
            assert!(times.samples.len() <= MAX_SAMPLES);
        }
        let now = 200_000;
        for applied in (0..200_000).step_by(997) {
            let (true_age, age) = (now - (applied + 1), times.age_after(applied, now));
            assert!(
                age >= true_age && age - true_age <= 64,
                "{age} for {true_age}"
            );
        }
        times.forget(199_999);
        assert_eq!(times.resolution, 1);
    }
}
