//! Redis: how it is started, and its protocol (RESP) as far as the benchmark needs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::client::{Client, connect};
use crate::data::Batch;
use crate::error::{BenchError, Context, Outcome};
use crate::pair::{Class, until};

/// Arguments that every server gets: nothing is saved in the background, so that no figure suffers from it.
const COMMON: &str = "--bind 127.0.0.1 --save '' --enable-debug-command yes --daemonize no";
/// What Redis' own documents advise for fast replication.
const TUNED: &str = "--rdbcompression no --repl-diskless-sync yes --repl-diskless-sync-delay 0 \
    --repl-diskless-load swapdb --repl-backlog-size 2gb --auto-aof-rewrite-percentage 0 \
    --client-output-buffer-limit 'normal 0 0 0 slave 0 0 0 pubsub 0 0 0'";

/// The arguments of a server.
pub fn arguments(tuned: bool, class: Class, port: u16, master: Option<&str>) -> Vec<String> {
    let mut text = format!("{COMMON} --port {port}");
    if tuned {
        text = format!("{text} {TUNED}");
    }
    text.push_str(match class {
        Class::NoLog => "",
        Class::Logged => " --appendonly yes --appendfsync no",
        Class::Synced => " --appendonly yes --appendfsync always",
    });
    let mut all = Vec::new();
    for (n, part) in text.split('\'').enumerate() {
        if n % 2 == 1 {
            all.push(part.to_owned());
        } else {
            all.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    if let Some((host, port)) = master.and_then(|address| address.split_once(':')) {
        all.extend(["--replicaof", host, port].map(str::to_owned));
    }
    all
}

/// A connection.
pub struct Redis {
    socket: BufReader<TcpStream>,
    out: Vec<u8>,
    key: Vec<u8>,
}

impl Redis {
    /// Connects.
    pub fn connect(address: &str) -> Outcome<Self> {
        Ok(Redis {
            socket: BufReader::with_capacity(64 << 10, connect(address)?),
            out: Vec::new(),
            key: Vec::new(),
        })
    }

    /// Sends one command and returns its answer.
    pub fn ask(&mut self, parts: &[&str]) -> Outcome<Option<String>> {
        self.out.clear();
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        command(&mut self.out, &parts);
        self.send()?;
        self.answer()
    }

    fn send(&mut self) -> Outcome<()> {
        self.socket
            .get_mut()
            .write_all(&self.out)
            .context("writing to Redis")
    }

    /// One answer; `None` for nil.
    fn answer(&mut self) -> Outcome<Option<String>> {
        let bytes = self.answer_bytes()?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn answer_bytes(&mut self) -> Outcome<Option<Vec<u8>>> {
        let mut line = String::new();
        let count = self
            .socket
            .read_line(&mut line)
            .context("reading from Redis")?;
        let line = line.trim_end();
        if count == 0 {
            return Err(BenchError::Answer("Redis closed the connection".to_owned()));
        }
        let (kind, rest) = line.split_at(1);
        match kind {
            "+" | ":" => Ok(Some(rest.as_bytes().to_owned())),
            "$" if rest == "-1" => Ok(None),
            "$" => {
                let len: usize = rest.parse().map_err(|_| unexpected(line))?;
                let mut bytes = vec![0; len + 2];
                self.socket
                    .read_exact(&mut bytes)
                    .context("reading from Redis")?;
                bytes.truncate(len);
                Ok(Some(bytes))
            }
            _ => Err(unexpected(line)),
        }
    }

    fn put_batch(&mut self, batch: &Batch<'_>) {
        self.out.clear();
        let out = &mut self.out;
        let Ok(()) = batch.each(&mut self.key, |key, value| {
            command(out, &[b"SET", key, value]);
            Ok::<(), std::convert::Infallible>(())
        });
    }

    fn all_ok(&mut self, count: u64) -> Outcome<()> {
        for _ in 0..count {
            match self.answer()?.as_deref() {
                Some("OK") => {}
                other => return Err(unexpected(other.unwrap_or("nil"))),
            }
        }
        Ok(())
    }

    /// A number of `INFO`, such as `sync_full`.
    pub fn info(&mut self, name: &str) -> Outcome<u64> {
        let text = self.text(name)?;
        text.and_then(|number| number.parse().ok())
            .ok_or_else(|| BenchError::Answer(format!("Redis' INFO has no number {name}")))
    }

    /// A text of `INFO`, where it has it.
    fn text(&mut self, name: &str) -> Outcome<Option<String>> {
        let all = self.ask(&["INFO"])?.unwrap_or_default();
        let line = all
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.map(|text| text.trim().to_owned()))
    }
}

impl Client for Redis {
    fn write(&mut self, batch: &Batch<'_>) -> Outcome<()> {
        self.put_batch(batch);
        self.send()?;
        self.all_ok(batch.count)
    }

    fn write_acknowledged(&mut self, batch: &Batch<'_>) -> Outcome<()> {
        self.put_batch(batch);
        command(&mut self.out, &[b"WAIT", b"1", b"0"]);
        self.send()?;
        self.all_ok(batch.count)?;
        match self.answer()?.as_deref() {
            Some("1") => Ok(()),
            other => Err(unexpected(other.unwrap_or("nil"))),
        }
    }

    fn mark(&mut self, n: u64) -> Outcome<()> {
        self.ask(&["SET", "mark", &n.to_string()]).map(drop)
    }

    fn marked(&mut self) -> Outcome<Option<u64>> {
        // While it loads a copy it answers an error: it serves nothing then.
        match self.ask(&["GET", "mark"]) {
            Ok(text) => Ok(text.and_then(|text| text.parse().ok())),
            Err(BenchError::Answer(text))
                if text.contains("LOADING") || text.contains("MASTERDOWN") =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, key: &str) -> Outcome<Option<Vec<u8>>> {
        self.out.clear();
        command(&mut self.out, &[b"GET", key.as_bytes()]);
        self.send()?;
        self.answer_bytes()
    }
}

/// A planned failover: the master holds writes until its replica has everything, and becomes its replica.
pub fn switch_over(master: &str, replica: &str) -> Outcome<()> {
    let (host, port) = replica.split_once(':').unwrap_or((replica, ""));
    let mut old = Redis::connect(master)?;
    old.ask(&["FAILOVER", "TO", host, port])?;
    until("Redis to fail over", || {
        Ok(old.text("master_link_status")?.as_deref() == Some("up"))
    })
}

fn command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    // A vector takes everything.
    let _ = write!(out, "*{}\r\n", parts.len());
    for part in parts {
        let _ = write!(out, "${}\r\n", part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

fn unexpected(answer: &str) -> BenchError {
    BenchError::Answer(format!("Redis answered `{answer}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_what_stands_in_quotes_together() {
        let all = arguments(true, Class::Synced, 7, Some("127.0.0.1:8"));
        assert_eq!(
            all[..5],
            [
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--enable-debug-command"
            ]
        );
        assert!(all.contains(&"normal 0 0 0 slave 0 0 0 pubsub 0 0 0".to_owned()));
        assert_eq!(all[all.len() - 3..], ["--replicaof", "127.0.0.1", "8"]);
    }

    #[test]
    fn commands_are_arrays_of_strings_with_their_lengths() {
        let mut out = Vec::new();
        command(&mut out, &[b"GET", b"mark"]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$4\r\nmark\r\n");
    }
}
