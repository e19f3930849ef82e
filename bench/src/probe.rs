//! What the machine can do at all, and what it is.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, Outcome};
use crate::pair::line_of;

const MIB: f64 = (1 << 20) as f64;
/// A machine that is at work for longer is at work on something else.
const CALM: Duration = Duration::from_secs(30);

/// What the machine can do.
pub struct Probe {
    /// Copying memory, in GB/s.
    copy: f64,
    /// CRC32, in GB/s.
    crc: f64,
    /// One TCP stream on loopback, in GB/s.
    tcp: f64,
    /// An append of 4 KiB and its fdatasync, in seconds.
    sync_small: f64,
    /// The same of 1 MiB.
    sync_large: f64,
    /// Writing to the disk for long, in GB/s.
    disk: f64,
}

impl Probe {
    /// Measures it; files are made in `scratch`.
    pub fn take(scratch: &Path) -> Outcome<Self> {
        Ok(Probe {
            copy: copy(),
            crc: crc(),
            tcp: tcp()?,
            sync_small: sync(scratch, 4 << 10)?,
            sync_large: sync(scratch, 1 << 20)?,
            disk: disk(scratch)?,
        })
    }

    /// What no copy over one connection can exceed, in bytes/s: the slowest of copying, CRC32 and TCP.
    pub fn ceiling(&self) -> f64 {
        self.copy.min(self.crc).min(self.tcp) * 1e9
    }

    /// As names and values.
    pub fn rows(&self) -> [(&'static str, String); 6] {
        let speed = |value: f64| format!("{value:.2} GB/s");
        let time = |value: f64| format!("{:.2} ms", value * 1e3);
        [
            ("copying memory", speed(self.copy)),
            ("CRC32", speed(self.crc)),
            ("one TCP stream", speed(self.tcp)),
            ("fdatasync of 4 KiB", time(self.sync_small)),
            ("fdatasync of 1 MiB", time(self.sync_large)),
            ("writing 4 GiB to the disk", speed(self.disk)),
        ]
    }
}

/// Runs `step`, which handles so many MiB, for a quarter of a second. GB/s.
fn speed(mib: usize, mut step: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut steps = 0;
    while begun.elapsed() < Duration::from_millis(250) {
        step();
        steps += 1;
    }
    (steps * mib) as f64 * MIB / begun.elapsed().as_secs_f64() / 1e9
}

fn copy() -> f64 {
    let from = vec![1u8; 64 << 20];
    let mut to = vec![0u8; 64 << 20];
    speed(64, || black_box(&mut to).copy_from_slice(black_box(&from)))
}

fn crc() -> f64 {
    let bytes = vec![1u8; 64 << 20];
    speed(64, || {
        black_box(crc32fast::hash(black_box(&bytes)));
    })
}

fn tcp() -> Outcome<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").context("probing TCP")?;
    let address = listener.local_addr().context("probing TCP")?;
    let writer = thread::spawn(move || {
        let mut socket = TcpStream::connect(address)?;
        let bytes = vec![1u8; 256 << 10];
        for _ in 0..4096 {
            socket.write_all(&bytes)?;
        }
        Ok(())
    });
    let (mut socket, _) = listener.accept().context("probing TCP")?;
    let begun = Instant::now();
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        match socket.read(&mut buffer).context("probing TCP")? {
            0 => break,
            count => total += count,
        }
    }
    let speed = total as f64 / begun.elapsed().as_secs_f64() / 1e9;
    match writer.join() {
        Ok(done) => done.context("probing TCP").map(|()| speed),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Writes 4 GiB, made durable every 64 MiB as a segment of the log is. GB/s.
fn disk(scratch: &Path) -> Outcome<f64> {
    let path = scratch.join("probe");
    let mut file = File::create(&path).context("probing the disk")?;
    let bytes = vec![1u8; 1 << 20];
    let begun = Instant::now();
    for mib in 1..=4096 {
        file.write_all(&bytes).context("probing the disk")?;
        if mib % 64 == 0 {
            file.sync_data().context("probing the disk")?;
        }
    }
    let speed = 4096.0 * MIB / begun.elapsed().as_secs_f64() / 1e9;
    fs::remove_file(&path).context("probing the disk")?;
    Ok(speed)
}

/// Median time of an append and its fdatasync, in seconds.
fn sync(scratch: &Path, size: usize) -> Outcome<f64> {
    let path = scratch.join("probe");
    let mut file = File::create(&path).context("probing the disk")?;
    let bytes = vec![1u8; size];
    let mut times = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        file.write_all(&bytes).context("probing the disk")?;
        file.sync_data().context("probing the disk")?;
        times.push(begun.elapsed().as_secs_f64());
    }
    fs::remove_file(&path).context("probing the disk")?;
    times.sort_unstable_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Processor, cores, memory, kernel, file system, version of Redis.
pub fn machine(scratch: &Path, redis: &Path) -> Vec<(&'static str, String)> {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.unwrap_or_default().trim().to_owned()
    };
    let cpu = Path::new("/proc/cpuinfo");
    let memory = line_of(Path::new("/proc/meminfo"), "MemTotal");
    let gib = memory.trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / MIB;
    let place = scratch.display().to_string();
    let disk = said("df", &["--output=fstype,size", "-h", &place]);
    let disk = disk.lines().nth(1).unwrap_or_default();
    vec![
        ("processor", line_of(cpu, "model name")),
        (
            "cores",
            thread::available_parallelism()
                .map_or(0, usize::from)
                .to_string(),
        ),
        ("memory", format!("{gib:.0} GiB")),
        ("kernel", said("uname", &["-sr"])),
        (
            "file system",
            disk.split_whitespace().collect::<Vec<_>>().join(", "),
        ),
        ("Redis", said(&redis.display().to_string(), &["--version"])),
    ]
}

/// Waits until what earlier runs left behind is done, so that no other pays for it: what the disk has to write yet,
/// and what processes do in the background, such as to rewrite a log or to make a checkpoint.
pub fn calm() {
    rustix::fs::sync();
    let begun = Instant::now();
    let mut before = busy();
    while begun.elapsed() < CALM {
        std::thread::sleep(Duration::from_millis(200));
        let now = busy();
        // Of 20 ticks per processor.
        if now.saturating_sub(before) <= 2 {
            return;
        }
        before = now;
    }
}

/// Ticks of 10 ms that all processors have worked; 0 where the system does not say.
fn busy() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks = line
        .split_whitespace()
        .skip(1)
        .map(|n| n.parse().unwrap_or(0));
    // user, nice, system, idle, iowait, irq, softirq
    ticks
        .enumerate()
        .filter(|(n, _)| matches!(n, 0..=2 | 5..=6))
        .map(|(_, n): (usize, u64)| n)
        .sum()
}
