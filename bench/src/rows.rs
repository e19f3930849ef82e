//! The rows of the table. What is timed is interleaved, round by round; what is counted runs side by side.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::data::{VALUE, Values};
use crate::error::{BenchError, Outcome};
use crate::load::{Load, Written, quantile};
use crate::node::Node;
use crate::pair::{Class, PATIENCE, Pair, Programs, System};
use crate::probe::{self, Probe};
use crate::reach::Reach;
use crate::relay::Relay;
use crate::switchover;
use crate::table::{Better, Table};

const RATE: (&str, Better) = ("writes/s", Better::Higher);
const TIME: (&str, Better) = ("ms", Better::Lower);
const SECONDS: (&str, Better) = ("s", Better::Lower);
const MEMORY: (&str, Better) = ("MiB", Better::Lower);
const FACTOR: (&str, Better) = ("×", Better::Lower);
const NUMBER: (&str, Better) = ("syncs", Better::Lower);
const PERCENT: (&str, Better) = ("%", Better::Higher);
const REQUESTS: (&str, Better) = ("requests", Better::Lower);
const RECORDS: (&str, Better) = ("records", Better::Lower);
const MIB: f64 = (1 << 20) as f64;
/// A replica is current when it shows what the master acknowledged at most so long ago.
const CURRENT: Duration = Duration::from_millis(100);

/// How much of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds.
    pub rounds: usize,
    /// Length of one timed run.
    pub run: Duration,
    /// Length of a run at half load, or with acknowledgements.
    pub short_run: Duration,
    /// Keys that are written to again and again.
    pub keys: u64,
    /// Bytes that a full sync copies.
    pub full: u64,
    /// Lengths of the cuts, in seconds.
    pub cuts: Vec<u64>,
    /// How long a replica is frozen.
    pub frozen: Duration,
    /// Writes per second beside what is not about speed.
    pub pace: u64,
}

/// The benchmark.
pub struct Bench {
    /// How much of it.
    pub plan: Plan,
    /// What is run.
    pub programs: Programs,
    /// What is written.
    pub values: Values,
    /// What the machine can do.
    pub probe: Probe,
    /// What was found.
    pub table: Table,
}

impl Bench {
    fn load(&self) -> Load<'_> {
        Load {
            values: &self.values,
            connections: 16,
            batch: 32,
            keys: self.plan.keys,
            rate: 0,
            acknowledged: false,
        }
    }

    /// Throughput and convergence; then, depending on the class, lag at half load or acknowledged writes.
    pub fn writes(&mut self, of: Class) -> Outcome<()> {
        let class = of.name();
        eprintln!("writes, {class}");
        let mut pairs = Vec::new();
        for system in System::ALL {
            let mut pair = Pair::start(system, of, &self.programs)?;
            self.load().fill(|| pair.master.connect())?;
            // Uncounted: logs and memory get the size that they stay at.
            self.load()
                .run_for(self.plan.run * 2, || pair.master.connect())?;
            pair.converge()?;
            pairs.push(pair);
        }
        let rate = format!("replicated writes, {class}");
        let reach = Reach::Times {
            redis: None,
            tuned: if of == Class::Synced { 2.0 } else { 1.2 },
        };
        for round in 0..self.plan.rounds {
            for n in 0..pairs.len() {
                // Nobody is always the first.
                let at = (n + round) % pairs.len();
                let pair = &mut pairs[at];
                probe::calm();
                let written = self
                    .load()
                    .run_for(self.plan.run, || pair.master.connect())?;
                let after = pair.converge()?.as_secs_f64();
                let table = &mut self.table;
                table.add(&rate, RATE, Reach::Nothing, pair.system, written.rate());
                let what = format!("the same until the replica has applied them, {class}");
                let whole =
                    written.records as f64 / (written.records as f64 / written.rate() + after);
                table.add(&what, RATE, reach, pair.system, whole);
                let after = after * 1e3;
                let what = format!("last acknowledgement to applied, {class}");
                table.add(&what, TIME, Reach::Below(5.0), pair.system, after);
                let what = format!("p99 of a pipeline of 32, {class}");
                table.add(
                    &what,
                    TIME,
                    Reach::Nothing,
                    pair.system,
                    written.quantile(0.99),
                );
            }
        }
        for round in 0..self.plan.rounds {
            for n in 0..pairs.len() {
                let at = (n + round) % pairs.len();
                match of {
                    Class::NoLog => {}
                    Class::Logged => self.half_load(&mut pairs[at], &rate)?,
                    Class::Synced => self.acknowledged(&mut pairs[at])?,
                }
            }
        }
        if of == Class::Logged {
            self.json(&mut pairs)?;
        }
        pairs.into_iter().try_for_each(Pair::finish)
    }

    /// The lag of a replica at half of what the system can do.
    fn half_load(&mut self, pair: &mut Pair, rate: &str) -> Outcome<()> {
        let most = self.table.median(rate, pair.system).unwrap_or(0.0);
        let load = Load {
            rate: (most / 2.0) as u64,
            ..self.load()
        };
        let stop = AtomicBool::new(false);
        let lags = thread::scope(|scope| {
            let begin = Instant::now();
            let own = &*pair;
            let writing = scope.spawn(|| load.run(|| own.master.connect(), &stop));
            let lags = lags(own, self.plan.short_run.saturating_sub(begin.elapsed()));
            stop.store(true, Ordering::Relaxed);
            match writing.join() {
                Ok(written) => written.and(lags),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        let lag = quantile(&lags, 0.99);
        let what = "p99 from acknowledgement to readable on the replica, half load";
        self.table
            .add(what, TIME, Reach::Below(10.0), pair.system, lag);
        pair.converge().map(drop)
    }

    /// Writes that a replica acknowledges as well.
    fn acknowledged(&mut self, pair: &mut Pair) -> Outcome<()> {
        for connections in [1, 16] {
            let load = Load {
                connections,
                batch: 1,
                acknowledged: true,
                ..self.load()
            };
            let written = load.run_for(self.plan.short_run, || pair.master.connect())?;
            let clients = if connections == 1 {
                "client"
            } else {
                "clients"
            };
            let what = format!("p99 of a write with 1 acknowledgement, {connections} {clients}");
            let reach = Reach::Times {
                redis: Some(1.0),
                tuned: 1.0,
            };
            self.table
                .add(&what, TIME, reach, pair.system, written.quantile(0.99));
        }
        Ok(())
    }

    /// The JSON interface, beside the others.
    fn json(&mut self, pairs: &mut [Pair]) -> Outcome<()> {
        for _ in 0..self.plan.rounds {
            for pair in pairs.iter_mut().filter(|pair| pair.system == System::Node) {
                let connect = || -> Outcome<Box<dyn crate::client::Client>> {
                    Ok(Box::new(Node::connect(pair.master.address(), true)?))
                };
                let written = self.load().run_for(self.plan.short_run, connect)?;
                let what = "replicated writes as JSON, no fsync";
                self.table
                    .add(what, RATE, Reach::Nothing, System::Node, written.rate());
                pair.converge()?;
            }
        }
        Ok(())
    }

    /// A replica without data, beside writes that go on. What is timed is timed alone: a look at a process's memory holds
    /// up whatever it does meanwhile.
    pub fn full_sync(&mut self) -> Outcome<()> {
        eprintln!("full sync");
        for round in 0..self.plan.rounds {
            for n in 0..System::ALL.len() {
                let system = System::ALL[(n + round) % System::ALL.len()];
                self.one_full_sync(system)?;
            }
        }
        eprintln!("memory for a full sync");
        for _ in 0..self.plan.rounds {
            for (system, memory) in self.side_by_side(|system| self.memory_of_full_sync(system))? {
                let reach = || Reach::Below(64.0);
                for (what, mib) in ["master", "replica"].into_iter().zip(memory) {
                    let what = format!("memory for a full sync, {what}");
                    self.table.add(&what, MEMORY, reach(), system, mib);
                }
            }
        }
        Ok(())
    }

    /// A master that holds as much as a full sync copies, and how it is written to meanwhile.
    fn filled(&self, system: System) -> Outcome<(Pair, Load<'_>)> {
        let pair = Pair::alone(system, Class::NoLog, &self.programs)?;
        let load = Load {
            keys: self.plan.full / VALUE as u64,
            connections: 4,
            rate: self.plan.pace,
            ..self.load()
        };
        load.fill(|| pair.master.connect())?;
        Ok((pair, load))
    }

    fn one_full_sync(&mut self, system: System) -> Outcome<()> {
        let (mut pair, load) = self.filled(system)?;
        let address = pair.upstream();
        pair.start_replica(&address)?;
        let begun = Instant::now();
        let stop = AtomicBool::new(false);
        let (took, written) = beside_writes(&pair, &load, &stop, || until_current(&pair, begun))?;
        pair.converge()?;
        let gib = self.plan.full as f64 / (1 << 30) as f64;
        let table = &mut self.table;
        let what = format!("full sync of {gib:.2} GiB to serving and current");
        let reach = Reach::Times {
            redis: Some(2.0),
            tuned: 1.2,
        };
        table.add(&what, SECONDS, reach, system, took.as_secs_f64());
        let what = "the same, as a share of the probe's ceiling";
        let share = self.plan.full as f64 / took.as_secs_f64() / self.probe.ceiling();
        table.add(what, PERCENT, Reach::AtLeast(50.0), system, share * 100.0);
        let what = "longest write during a full sync";
        table.add(
            what,
            TIME,
            Reach::Below(10.0),
            system,
            written.quantile(1.0),
        );
        pair.finish()
    }

    /// What master and replica hold at most, in MiB, beyond what the one holds before and the other after it.
    fn memory_of_full_sync(&self, system: System) -> Outcome<[f64; 2]> {
        let (mut pair, load) = self.filled(system)?;
        let before = pair.master.memory();
        let address = pair.upstream();
        pair.start_replica(&address)?;
        let begun = Instant::now();
        let stop = AtomicBool::new(false);
        let peaks = [AtomicU64::new(0), AtomicU64::new(0)];
        thread::scope(|scope| {
            let watching = || {
                while !stop.load(Ordering::Relaxed) {
                    for (peak, server) in peaks.iter().zip([&pair.master, &pair.replica]) {
                        peak.fetch_max(server.memory(), Ordering::Relaxed);
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            };
            scope.spawn(watching);
            beside_writes(&pair, &load, &stop, || until_current(&pair, begun))
        })?;
        pair.converge()?;
        let usual = [before, pair.replica.memory()];
        let [master, replica] = peaks;
        let most = [master.into_inner(), replica.into_inner()];
        pair.finish()?;
        Ok([0, 1].map(|n| most[n].saturating_sub(usual[n]) as f64 / MIB))
    }

    /// What is sent again after a cut of the line, and what a replica that stands still costs its master. Nothing of it is
    /// timed, so that all of a round runs side by side.
    pub fn counted(&mut self) -> Outcome<()> {
        eprintln!("cuts and frozen replicas");
        for _ in 0..self.plan.rounds {
            let found = self.side_by_side(|system| {
                thread::scope(|scope| {
                    let frozen = scope.spawn(|| self.frozen(system));
                    let cuts = self.cuts(system);
                    match frozen.join() {
                        Ok(frozen) => Ok((cuts?, frozen?)),
                        Err(panic) => std::panic::resume_unwind(panic),
                    }
                })
            })?;
            for (system, (cuts, more)) in found {
                for (seconds, factor, syncs) in cuts {
                    let what = format!("bytes sent after a cut of {seconds} s / bytes missed");
                    self.table
                        .add(&what, FACTOR, Reach::Below(1.1), system, factor);
                    let what = format!("full syncs after a cut of {seconds} s");
                    self.table
                        .add(&what, NUMBER, Reach::Zero, system, syncs as f64);
                }
                let seconds = self.plan.frozen.as_secs();
                let what = format!("growth of the master, replica frozen for {seconds} s");
                self.table
                    .add(&what, MEMORY, Reach::Below(64.0), system, more);
            }
        }
        Ok(())
    }

    /// For each cut its length in seconds, bytes sent for each byte missed, and full syncs.
    fn cuts(&self, system: System) -> Outcome<Vec<(u64, f64, u64)>> {
        let mut pair = Pair::alone(system, Class::NoLog, &self.programs)?;
        let relay = Relay::to(pair.upstream())?;
        pair.start_replica(&relay.address)?;
        let load = Load {
            rate: self.plan.pace,
            ..self.load()
        };
        load.fill(|| pair.master.connect())?;
        pair.converge()?;
        let mut found = Vec::new();
        for seconds in &self.plan.cuts {
            let begun = relay.carried();
            let written = load.run_for(Duration::from_secs(2), || pair.master.connect())?;
            pair.converge()?;
            let each = (relay.carried() - begun) as f64 / written.records as f64;
            let syncs = pair.master.full_syncs()?;
            relay.cut();
            let begun = relay.carried();
            let time = Duration::from_secs(*seconds);
            let missed = load.run_for(time, || pair.master.connect())?;
            relay.mend();
            pair.converge()?;
            let factor = (relay.carried() - begun) as f64 / (missed.records as f64 * each);
            found.push((*seconds, factor, pair.master.full_syncs()? - syncs));
        }
        pair.finish()?;
        Ok(found)
    }

    /// Bytes by which the master grows, in MiB.
    fn frozen(&self, system: System) -> Outcome<f64> {
        let mut pair = Pair::start(system, Class::NoLog, &self.programs)?;
        let load = Load {
            rate: self.plan.pace,
            ..self.load()
        };
        load.fill(|| pair.master.connect())?;
        // Everything that grows once has grown.
        load.run_for(Duration::from_secs(2), || pair.master.connect())?;
        pair.converge()?;
        let before = pair.master.memory() as f64;
        if let Some(process) = &pair.replica.process {
            process.signal("STOP")?;
        }
        load.run_for(self.plan.frozen, || pair.master.connect())?;
        let after = pair.master.memory() as f64;
        if let Some(process) = &pair.replica.process {
            process.signal("CONT")?;
        }
        pair.finish()?;
        Ok((after - before).max(0.0) / MIB)
    }

    /// A planned switchover under writes.
    pub fn switchover(&mut self) -> Outcome<()> {
        eprintln!("switchover");
        for round in 0..self.plan.rounds {
            for n in 0..System::ALL.len() {
                let system = System::ALL[(n + round) % System::ALL.len()];
                let mut pair = Pair::start(system, Class::Synced, &self.programs)?;
                self.load().fill(|| pair.master.connect())?;
                pair.converge()?;
                let switched = switchover::switch_over(&mut pair, &self.values)?;
                pair.finish()?;
                let table = &mut self.table;
                let gap = switched.gap.as_secs_f64() * 1e3;
                let what = "planned switchover: longest gap between a client's writes";
                table.add(what, TIME, Reach::Below(100.0), system, gap);
                let what = "planned switchover: requests failed";
                table.add(what, REQUESTS, Reach::Zero, system, switched.failed as f64);
                let what = "planned switchover: acknowledged writes lost";
                table.add(what, RECORDS, Reach::Zero, system, switched.lost as f64);
                let what = "planned switchover: full syncs";
                table.add(
                    what,
                    NUMBER,
                    Reach::Zero,
                    system,
                    switched.full_syncs as f64,
                );
            }
        }
        Ok(())
    }

    fn side_by_side<T: Send>(
        &self,
        run: impl Fn(System) -> Outcome<T> + Sync,
    ) -> Outcome<Vec<(System, T)>> {
        thread::scope(|scope| {
            let run = &run;
            let threads = System::ALL.map(|system| (system, scope.spawn(move || run(system))));
            let joined = threads
                .into_iter()
                .map(|(system, thread)| match thread.join() {
                    Ok(found) => Ok((system, found?)),
                    Err(panic) => std::panic::resume_unwind(panic),
                });
            joined.collect()
        })
    }
}

/// Does something while the master is written to, and says what was written.
fn beside_writes<T>(
    pair: &Pair,
    load: &Load<'_>,
    stop: &AtomicBool,
    what: impl FnOnce() -> Outcome<T>,
) -> Outcome<(T, Written)> {
    thread::scope(|scope| {
        let writing = scope.spawn(|| load.run(|| pair.master.connect(), stop));
        let done = what();
        stop.store(true, Ordering::Relaxed);
        match writing.join() {
            Ok(written) => Ok((done?, written?)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Marks the master and waits for the replica to show it, again and again for so long.
fn lags(pair: &Pair, time: Duration) -> Outcome<Vec<Duration>> {
    let (mut master, mut replica) = (pair.master.connect()?, pair.replica.connect()?);
    let mut lags = Vec::new();
    let begun = Instant::now();
    // Above all that were marked before.
    let mut n = 1_000_000_000;
    if let Some(last) = master.marked()? {
        n = n.max(last);
    }
    while begun.elapsed() < time {
        n += 1;
        master.mark(n)?;
        let marked = Instant::now();
        while replica.marked()? != Some(n) {
            if marked.elapsed() > PATIENCE {
                return Err(BenchError::Late("the replica to be current".to_owned()));
            }
        }
        lags.push(marked.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    Ok(lags)
}

/// Marks the master all the time, until the replica serves and is current. Time since `begun`.
fn until_current(pair: &Pair, begun: Instant) -> Outcome<Duration> {
    let (mut master, mut replica) = (pair.master.connect()?, pair.replica.connect()?);
    let marks: Mutex<Vec<Instant>> = Mutex::default();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let marking = scope.spawn(|| -> Outcome<()> {
            while !stop.load(Ordering::Relaxed) {
                let n = {
                    let mut marks = marks.lock().unwrap_or_else(PoisonError::into_inner);
                    marks.push(Instant::now());
                    marks.len() as u64 - 1
                };
                master.mark(n)?;
                thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        });
        let mut current = || -> Outcome<Duration> {
            while begun.elapsed() < PATIENCE {
                let seen = replica.marked()?;
                let now = Instant::now();
                let marks = marks.lock().unwrap_or_else(PoisonError::into_inner);
                let at = seen.and_then(|n| marks.get(n as usize).copied());
                if at.is_some_and(|at| now - at < CURRENT) {
                    return Ok(now - begun);
                }
                drop(marks);
                thread::sleep(Duration::from_millis(2));
            }
            Err(BenchError::Late("the replica to be current".to_owned()))
        };
        let took = current();
        stop.store(true, Ordering::Relaxed);
        match marking.join() {
            Ok(marked) => marked.and(took),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
