//! The load generator: connections that each write one batch after another, as fast as they can or at a given rate.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::data::{Batch, Dice, Values};
use crate::error::Outcome;

/// How to write.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// What is written.
    pub values: &'a Values,
    /// Connections.
    pub connections: u64,
    /// Records per batch: Redis' pipeline, the records of a body.
    pub batch: u64,
    /// Keys to write to.
    pub keys: u64,
    /// Records per second of all connections together; 0 for as many as go.
    pub rate: u64,
    /// Whether a replica must acknowledge each batch.
    pub acknowledged: bool,
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// Records acknowledged.
    pub records: u64,
    /// From the first request to the last acknowledgement.
    pub took: Duration,
    /// Of each batch, from its request to its acknowledgement.
    pub latencies: Vec<Duration>,
}

impl Written {
    /// Records per second.
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.took.as_secs_f64()
    }

    /// The latency that a fraction of all batches stay within, in ms.
    pub fn quantile(&self, fraction: f64) -> f64 {
        quantile(&self.latencies, fraction)
    }
}

/// The value that a fraction of all stay within, in ms.
pub fn quantile(all: &[Duration], fraction: f64) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() as f64 * fraction).ceil() as usize;
    let value = sorted.get(at.clamp(1, sorted.len().max(1)) - 1);
    value.map_or(f64::NAN, |value| value.as_secs_f64() * 1e3)
}

impl Load<'_> {
    /// Writes until `stop`.
    pub fn run(
        &self,
        connect: impl Fn() -> Outcome<Box<dyn Client>>,
        stop: &AtomicBool,
    ) -> Outcome<Written> {
        let mut clients = Vec::new();
        for _ in 0..self.connections {
            clients.push(connect()?);
        }
        let together = Barrier::new(clients.len());
        thread::scope(|scope| {
            let together = &together;
            let begin = move |(n, mut client): (usize, Box<dyn Client>)| {
                scope.spawn(move || {
                    together.wait();
                    self.one(n as u64, client.as_mut(), stop)
                })
            };
            let threads: Vec<_> = clients.into_iter().enumerate().map(begin).collect();
            let mut records = 0;
            let mut latencies = Vec::new();
            let mut first: Option<Instant> = None;
            let mut last: Option<Instant> = None;
            for thread in threads {
                let (begun, ended, own) = match thread.join() {
                    Ok(done) => done?,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
                first = Some(first.map_or(begun, |other| other.min(begun)));
                last = Some(last.map_or(ended, |other| other.max(ended)));
                records += own.len() as u64 * self.batch;
                latencies.extend(own);
            }
            let took = last.zip(first).map_or(Duration::ZERO, |(l, f)| l - f);
            Ok(Written {
                records,
                took,
                latencies,
            })
        })
    }

    /// Writes for so long.
    pub fn run_for(
        &self,
        time: Duration,
        connect: impl Fn() -> Outcome<Box<dyn Client>>,
    ) -> Outcome<Written> {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(time);
                stop.store(true, Ordering::Relaxed);
            });
            self.run(connect, &stop)
        })
    }

    fn one(
        &self,
        n: u64,
        client: &mut dyn Client,
        stop: &AtomicBool,
    ) -> Outcome<(Instant, Instant, Vec<Duration>)> {
        let mut dice = Dice(n);
        let mut latencies = Vec::new();
        let begun = Instant::now();
        let every = (self.rate > 0).then(|| {
            Duration::from_secs_f64((self.batch * self.connections) as f64 / self.rate as f64)
        });
        // Connections take turns.
        let mut due = begun
            + every
                .unwrap_or_default()
                .mul_f64(n as f64 / self.connections as f64);
        while !stop.load(Ordering::Relaxed) {
            if let Some(every) = every {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                due += every;
            }
            let batch = Batch {
                values: self.values,
                first: dice.next() % self.keys,
                count: self.batch,
                keys: self.keys,
                salt: dice.next(),
            };
            let sent = Instant::now();
            if self.acknowledged {
                client.write_acknowledged(&batch)?;
            } else {
                client.write(&batch)?;
            }
            latencies.push(sent.elapsed());
        }
        Ok((begun, Instant::now(), latencies))
    }

    /// Writes every key once, over four connections.
    pub fn fill(&self, connect: impl Fn() -> Outcome<Box<dyn Client>>) -> Outcome<()> {
        const CONNECTIONS: u64 = 4;
        const BATCH: u64 = 128;
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for n in 0..CONNECTIONS {
                let mut client = connect()?;
                threads.push(scope.spawn(move || {
                    let end = self.keys * (n + 1) / CONNECTIONS;
                    let mut first = self.keys * n / CONNECTIONS;
                    while first < end {
                        let count = BATCH.min(end - first);
                        client.write(&Batch {
                            values: self.values,
                            first,
                            count,
                            keys: self.keys,
                            salt: 0,
                        })?;
                        first += count;
                    }
                    Ok(())
                }));
            }
            for thread in threads {
                match thread.join() {
                    Ok(done) => done?,
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let all: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&all, 0.99), 99.0);
        assert_eq!(quantile(&all, 0.5), 50.0);
        assert_eq!(quantile(&all, 1.0), 100.0);
        assert_eq!(quantile(&all[..1], 0.99), 100.0);
        assert!(quantile(&[], 0.99).is_nan());
    }
}
