//! `make bench`: vectorizer-node beside Redis, on one machine, in one run.
//!
//! One load generator writes the same random bytes to both, over as many connections with as much under way: Redis
//! pipelines `SET`, the node takes bodies of its bulk interface. Rounds are interleaved, and a run counts only if master
//! and replica hold the same at its end. The results go to a Markdown table and an SVG picture.

mod client;
mod data;
mod error;
mod load;
mod node;
mod pair;
mod plot;
mod probe;
mod reach;
mod redis;
mod relay;
mod rows;
mod switchover;
mod table;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use data::Values;
use error::{Context, Outcome};
use pair::{Class, Programs};
use probe::Probe;
use rows::{Bench, Plan};
use table::Table;

/// Compares vectorizer-node with Redis.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Only to see that everything works: one round of little
    #[arg(long)]
    quick: bool,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// GiB that a full sync copies
    #[arg(long, default_value_t = 1.0)]
    gib: f64,
    /// Only these parts: writes, fsync, full, counted (cuts, frozen replicas), switchover
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// redis-server
    #[arg(long, default_value = "redis-server")]
    redis: PathBuf,
    /// vectorizer-node
    #[arg(long, default_value = "target/release/vectorizer-node")]
    node: PathBuf,
    /// Where data directories are made
    #[arg(long, default_value = "/var/tmp")]
    scratch: PathBuf,
    /// Where the table and the picture go; without, the table is printed
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Outcome<()> {
    let begun = Instant::now();
    let plan = if arguments.quick {
        Plan {
            rounds: 1,
            run: Duration::from_secs(1),
            short_run: Duration::from_millis(500),
            keys: 20_000,
            full: 128 << 20,
            cuts: vec![1],
            frozen: Duration::from_secs(3),
            pace: 5_000,
        }
    } else {
        Plan {
            rounds: arguments.rounds,
            run: Duration::from_secs(4),
            short_run: Duration::from_secs(2),
            keys: 100_000,
            full: (arguments.gib * f64::from(1 << 30)) as u64,
            cuts: vec![1, 10, 60],
            frozen: Duration::from_secs(60),
            pace: 5_000,
        }
    };
    let node = fs::canonicalize(&arguments.node).context("finding vectorizer-node")?;
    let machine = probe::machine(&arguments.scratch, &arguments.redis);
    let probe = Probe::take(&arguments.scratch)?;
    let mut list = String::new();
    for (name, value) in machine.iter().chain(&probe.rows()) {
        eprintln!("{name}: {value}");
        list.push_str(&format!("| {name} | {value} |\n"));
    }
    let mut bench = Bench {
        plan,
        programs: Programs {
            redis: arguments.redis,
            node,
            scratch: arguments.scratch,
        },
        values: Values::new(),
        probe,
        table: Table::default(),
    };
    let wanted = |part: &str| arguments.only.is_empty() || arguments.only.iter().any(|p| p == part);
    if wanted("writes") {
        bench.writes(Class::NoLog)?;
        bench.writes(Class::Logged)?;
    }
    if wanted("fsync") {
        bench.writes(Class::Synced)?;
    }
    if wanted("full") {
        bench.full_sync()?;
    }
    if wanted("counted") {
        bench.counted()?;
    }
    if wanted("switchover") {
        bench.switchover()?;
    }
    let title = "Replication: vectorizer and Redis";
    let report = format!(
        "# {title}\n\n{INTRODUCTION}\n{rounds} rounds, {minutes:.0} minutes.\n\n\
         ![The figures as bars](replication.svg)\n\n{table}\n{NOTES}\n\
         ## The machine\n\n| | |\n|---|---|\n{list}",
        rounds = bench.plan.rounds,
        minutes = begun.elapsed().as_secs_f64() / 60.0,
        table = bench.table.markdown(),
    );
    match arguments.out {
        None => println!("{report}"),
        Some(out) => {
            fs::create_dir_all(&out).context("making the directory for results")?;
            fs::write(out.join("replication.md"), report).context("writing the table")?;
            let picture = plot::svg(&bench.table, title);
            fs::write(out.join("replication.svg"), picture).context("writing the picture")?;
        }
    }
    Ok(())
}

const INTRODUCTION: &str = "\
Made by `make bench` on the machine described below; do not edit. One load generator writes the same random values of
2,048 bytes (vectors of 512 numbers) to a master with one replica, all processes on the one machine: 16 connections, 32
records under way on each, pipelined `SET`s for Redis, bodies of the [bulk interface](../bulk.md) for vectorizer. Shown
are the median and, in parentheses, the smallest and largest of all rounds; ratios are taken round by round, vectorizer
divided by Redis. At the end of each part master and replica are compared (`DEBUG DIGEST`; the digest computed anew from
what each node left on its disk); a difference voids the run.
";

const NOTES: &str = "\
- Redis: as Debian packages it, without background saves. Redis tuned: in addition no RDB compression, diskless
  replication without delay, `repl-diskless-load swapdb`, a backlog of 2 GB, no limit on output buffers, no rewriting of
  the append-only file. Redis keeps keys and values; vectorizer also checks, hashes and journals every record.
- What an acknowledged write survives. Redis without a log (`appendonly no`): nothing. No fsync (`appendonly yes`,
  `appendfsync no`; `durability: os`): the end of the process. Fsync always (`appendfsync always`; `durability: always`):
  the end of the machine. vectorizer always has a log and is run alike in the first two; full syncs, cuts and the frozen
  replica are of the first.
- Replicated writes: runs of 4 s. Each system has written for two such runs before, so that logs and memory have the size
  that they stay at; a run begins once the disk has what earlier ones left to it and the processors are idle, so that
  nobody pays for another's background work.
- The same until the replica has applied them: the run's writes, divided by its time and that of the replica to get there.
- A write with 1 acknowledgement: Redis `WAIT 1`, for which a replica has received it; vectorizer
  `X-Vectorizer-Acks: 1`, for which a replica has it on its disk. Master and replica in the fsync-always class.
- Full sync: from the start of the replica's process until it serves what the master acknowledged at most 100 ms before,
  beside 5,000 writes/s. Memory (PSS with children) is measured in rounds of its own, all of a round side by side, as
  looking at it holds a process up: the peak above what the process holds before (master) or after
  (replica) it. The probe's ceiling is the slowest of copying memory, CRC32 and one TCP stream.
- A cut: the line between the two is closed, and opened again, by a relay that counts bytes. Cuts and frozen replicas
  run at 5,000 writes/s, all of a round side by side, as bytes and memory are counted and nothing is timed.
- Planned switchover, in the fsync-always class: four clients write one record after the other to the master that was,
  and go to the other node only when a request fails; what was acknowledged is read back. Redis: `FAILOVER TO`;
  vectorizer: the commands that its operator gives. Without a full sync, no data is copied.
- Reached: the median, of the values or of the ratios, against what was aimed at; where it is not, the part that was.
- What stands in the way where a figure is not reached, from profiles: [shortfalls](shortfalls.md).
";
