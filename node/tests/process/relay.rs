//! A line between two nodes that a test can cut, block and spoil.
//!
//! What it spoils is drawn from a seed, one generator per connection, so that a run is the same again as far as the
//! network's timing lets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// What the line does at the moment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Line {
    /// It carries everything.
    Open,
    /// It refuses whoever comes, and what there was is closed.
    Cut,
    /// It stands, and carries nothing: nobody is told.
    Silent,
    /// It carries so many bytes to those who connected, since it began, and then nothing more.
    Until(u64),
    /// It delays, flips bits and breaks off, as drawn from this seed.
    Bad(u64),
}

/// Chances of a bad line.
const DELAYED: f64 = 0.05;
const FLIPPED: f64 = 0.03;
/// A connection over a bad line ends after fewer bytes than this.
const LONGEST: u64 = 200_000;

/// The line. Dropping it closes it.
pub struct Relay {
    /// Where to connect to.
    pub address: String,
    line: watch::Sender<Line>,
    counts: Arc<Counts>,
    task: AbortHandle,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    flipped: AtomicU64,
    broken: AtomicU64,
    to_client: AtomicU64,
}

impl Relay {
    /// A line to the node that listens at `to`.
    pub async fn to(to: String) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let line = watch::Sender::new(Line::Open);
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(run(listener, to, line.clone(), counts.clone()));
        Relay {
            address,
            line,
            counts,
            task: task.abort_handle(),
        }
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Bits flipped so far.
    pub fn flipped(&self) -> u64 {
        self.counts.flipped.load(Ordering::Relaxed)
    }

    /// Connections broken off so far.
    pub fn broken(&self) -> u64 {
        self.counts.broken.load(Ordering::Relaxed)
    }

    /// Bytes carried so far to those who connected.
    pub fn to_client(&self) -> u64 {
        self.counts.to_client.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(listener: TcpListener, to: String, line: watch::Sender<Line>, counts: Arc<Counts>) {
    // Aborted with this task.
    let mut carried = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        if *line.borrow() == Line::Cut {
            continue;
        }
        let Ok(server) = TcpStream::connect(&to).await else {
            continue;
        };
        let number = counts.connections.fetch_add(1, Ordering::Relaxed);
        carried.spawn(carry(
            client,
            server,
            number,
            line.subscribe(),
            counts.clone(),
        ));
    }
}

/// One connection, until either side or the line ends it.
async fn carry(
    client: TcpStream,
    server: TcpStream,
    number: u64,
    line: watch::Receiver<Line>,
    counts: Arc<Counts>,
) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = line.clone();
    tokio::select! {
        _ = cut.wait_for(|line| *line == Line::Cut) => {}
        () = one_way(from_client, to_server, Dice(number * 2 + 1), line.clone(), &counts, false) => {}
        () = one_way(from_server, to_client, Dice(number * 2 + 2), line, &counts, true) => {}
    }
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut dice: Dice,
    mut line: watch::Receiver<Line>,
    counts: &Counts,
    downstream: bool,
) {
    let mut buffer = vec![0; 16 << 10];
    let mut left = None;
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let bytes = &mut buffer[..count];
        let carries = |line: &Line| match line {
            Line::Silent => false,
            Line::Until(limit) => counts.to_client.load(Ordering::Relaxed) < *limit,
            Line::Open | Line::Cut | Line::Bad(_) => true,
        };
        // A line that nobody holds any more carries nothing.
        let Ok(now) = line.wait_for(carries).await.map(|now| *now) else {
            return;
        };
        let mut ends = false;
        if let Line::Bad(seed) = now {
            let left = left.get_or_insert_with(|| {
                dice.0 ^= seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                dice.below(LONGEST)
            });
            if dice.happens(DELAYED) {
                tokio::time::sleep(Duration::from_millis(dice.below(20))).await;
            }
            if dice.happens(FLIPPED) {
                let bit = dice.below(count as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
                counts.flipped.fetch_add(1, Ordering::Relaxed);
            }
            ends = *left < count as u64;
            *left = left.saturating_sub(count as u64);
        }
        let bytes = if ends {
            counts.broken.fetch_add(1, Ordering::Relaxed);
            &bytes[..dice.below(count as u64) as usize]
        } else {
            bytes
        };
        if to.write_all(bytes).await.is_err() || ends {
            return;
        }
        if downstream {
            counts
                .to_client
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn happens(&mut self, chance: f64) -> bool {
        (self.next() as f64 / u64::MAX as f64) < chance
    }
}
