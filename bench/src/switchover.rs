//! A planned switchover under writes: how long a client waits for an answer, how many requests fail, what is lost.
//!
//! Each client writes single records under keys that nobody else writes to, one after the other, to the master that
//! was. It goes to the other node only when a request fails. At the end every record that was acknowledged is read
//! back from the new master.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::data::{Batch, Values};
use crate::error::{BenchError, Outcome};
use crate::pair::{PATIENCE, Pair};

/// Clients that write.
const CLIENTS: u64 = 4;
/// They write so long before the switchover, and after it.
const AROUND: Duration = Duration::from_millis(500);
/// Keys of one client; it writes fewer.
const KEYS: u64 = 1 << 32;

/// What became of the writes.
#[derive(Debug, Default)]
pub struct Switched {
    /// The longest time between two acknowledgements that one client saw.
    pub gap: Duration,
    /// Requests that failed.
    pub failed: u64,
    /// Records acknowledged, and not there afterwards.
    pub lost: u64,
    /// Full syncs that the new master served.
    pub full_syncs: u64,
}

/// Switches over while clients write. Master and replica of `pair` have changed places afterwards.
pub fn switch_over(pair: &mut Pair, values: &Values) -> Outcome<Switched> {
    let stop = AtomicBool::new(false);
    let places = [&pair.master, &pair.replica].map(|server| server.address().to_owned());
    let system = pair.system;
    let full_syncs = pair.replica.full_syncs()?;
    let written = thread::scope(|scope| {
        let writers: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let (stop, places) = (&stop, &places);
                scope.spawn(move || {
                    let connect = |place: usize| system.connect(&places[place % places.len()]);
                    write(n, values, connect, stop)
                })
            })
            .collect();
        thread::sleep(AROUND);
        let done = pair.switch_over();
        thread::sleep(AROUND);
        stop.store(true, Ordering::Relaxed);
        let all: Outcome<Vec<_>> = writers
            .into_iter()
            .map(|writer| match writer.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect();
        done.and(all)
    })?;
    let mut switched = Switched {
        full_syncs: pair.master.full_syncs()? - full_syncs,
        ..Switched::default()
    };
    let mut master = pair.master.connect()?;
    let mut key = Vec::new();
    for (n, written) in written.into_iter().enumerate() {
        switched.gap = switched.gap.max(written.gap);
        switched.failed += written.failed;
        for record in 0..written.records {
            let mut kept = false;
            one(n as u64, record, values).each(&mut key, |key, value| {
                let found = master.read(&String::from_utf8_lossy(key))?;
                kept = found.as_deref() == Some(value);
                Ok::<(), BenchError>(())
            })?;
            switched.lost += u64::from(!kept);
        }
    }
    Ok(switched)
}

struct Written {
    records: u64,
    failed: u64,
    gap: Duration,
}

fn one(client: u64, record: u64, values: &Values) -> Batch<'_> {
    Batch {
        values,
        // Beyond the keys that were filled.
        first: (client + 1) * KEYS + record,
        count: 1,
        keys: u64::MAX,
        salt: 0,
    }
}

fn write(
    client: u64,
    values: &Values,
    connect: impl Fn(usize) -> Outcome<Box<dyn Client>>,
    stop: &AtomicBool,
) -> Outcome<Written> {
    let mut place = 0;
    let mut connection = connect(place)?;
    let mut written = Written {
        records: 0,
        failed: 0,
        gap: Duration::ZERO,
    };
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        match connection.write(&one(client, written.records, values)) {
            Ok(()) => {
                written.records += 1;
                written.gap = written.gap.max(last.elapsed());
                last = Instant::now();
            }
            Err(error) if last.elapsed() > PATIENCE => return Err(error),
            Err(_) => {
                written.failed += 1;
                place += 1;
                connection = connect(place)?;
            }
        }
    }
    Ok(written)
}
