//! A master and its replica: real processes on loopback with real data directories.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Client;
use crate::error::{BenchError, Context, Outcome};
use crate::node::{self, Node};
use crate::redis::{self, Redis};

/// Nothing that is waited for takes longer.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum System {
    /// Redis as Debian packages it.
    RedisDefault,
    /// Redis set up for fast replication.
    RedisTuned,
    /// vectorizer-node.
    Node,
}

impl System {
    /// All, in the order of the report's columns.
    pub const ALL: [System; 3] = [System::RedisDefault, System::RedisTuned, System::Node];

    /// A new connection to a server of this system.
    pub fn connect(self, address: &str) -> Outcome<Box<dyn Client>> {
        Ok(match self {
            System::Node => Box::new(Node::connect(address, false)?),
            System::RedisDefault | System::RedisTuned => Box::new(Redis::connect(address)?),
        })
    }

    /// As the report names it.
    pub fn name(self) -> &'static str {
        match self {
            System::RedisDefault => "Redis",
            System::RedisTuned => "Redis tuned",
            System::Node => "vectorizer",
        }
    }
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Redis: nothing, as it keeps no log. vectorizer, which always has one: as [`Class::Logged`].
    NoLog,
    /// The end of the process: it is in a log that the system has.
    Logged,
    /// The end of the system: the log is on disk.
    Synced,
}

impl Class {
    /// As the report names it.
    pub fn name(self) -> &'static str {
        match self {
            Class::NoLog => "Redis without a log",
            Class::Logged => "no fsync",
            Class::Synced => "fsync always",
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// redis-server.
    pub redis: PathBuf,
    /// vectorizer-node.
    pub node: PathBuf,
    /// Data directories are made here.
    pub scratch: PathBuf,
}

/// A process; ended when dropped.
pub struct Process(Child);

impl Process {
    /// Sends a signal, such as `STOP`.
    pub fn signal(&self, name: &str) -> Outcome<()> {
        let mut kill = Command::new("kill");
        let status = kill
            .args([&format!("-{name}"), &self.0.id().to_string()])
            .status();
        match status.context("running kill")?.success() {
            true => Ok(()),
            false => Err(BenchError::Answer(format!("kill -{name} failed"))),
        }
    }

    /// Memory in bytes of the process and its children, shared pages counted once.
    pub fn memory(&self) -> u64 {
        let own = self.0.id().to_string();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let all = children.split_whitespace().chain([own.as_str()]);
        all.map(|pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib.unwrap_or(0) << 10
        })
        .sum()
    }

    fn stop(&mut self) -> Outcome<()> {
        self.signal("CONT")?;
        self.signal("TERM")?;
        let begun = Instant::now();
        while self
            .0
            .try_wait()
            .context("waiting for a process")?
            .is_none()
        {
            if begun.elapsed() > PATIENCE {
                return Err(BenchError::Late("a process to end".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server and its place.
pub struct Server {
    system: System,
    dir: PathBuf,
    own: node::Addresses,
    /// The process, while it runs.
    pub process: Option<Process>,
}

impl Server {
    /// Where clients connect.
    pub fn address(&self) -> &str {
        &self.own.http
    }

    /// A new connection.
    pub fn connect(&self) -> Outcome<Box<dyn Client>> {
        self.system.connect(self.address())
    }

    /// Full syncs that it has counted.
    pub fn full_syncs(&self) -> Outcome<u64> {
        match self.system {
            System::Node => {
                Node::connect(self.address(), false)?.number("/replication/stats", "full_syncs")
            }
            System::RedisDefault | System::RedisTuned => {
                Redis::connect(self.address())?.info("sync_full")
            }
        }
    }

    /// Memory of the process.
    pub fn memory(&self) -> u64 {
        self.process.as_ref().map_or(0, Process::memory)
    }

    fn start(&mut self, programs: &Programs, class: Class, master: Option<&str>) -> Outcome<()> {
        let (program, arguments) = match self.system {
            System::Node => {
                let arguments = node::arguments(class, &self.dir, &self.own, master);
                (&programs.node, arguments)
            }
            System::RedisDefault | System::RedisTuned => {
                let port = self
                    .own
                    .http
                    .rsplit_once(':')
                    .and_then(|(_, p)| p.parse().ok());
                let tuned = self.system == System::RedisTuned;
                let arguments = redis::arguments(tuned, class, port.unwrap_or(0), master);
                (&programs.redis, arguments)
            }
        };
        fs::create_dir_all(&self.dir).context("making a data directory")?;
        if self.system == System::Node {
            node::make_token(&self.dir)?;
        }
        let log = || File::create(self.dir.join("log")).context("making a log");
        let child = Command::new(program)
            .args(arguments)
            .current_dir(&self.dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log()?)
            .stderr(log()?)
            .spawn()
            .context(&format!("starting {}", program.display()))?;
        self.process = Some(Process(child));
        until("a server to listen", || {
            let alive = self.process.as_mut().map(|p| p.0.try_wait());
            if let Some(Ok(Some(status))) = alive {
                let said = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                return Err(BenchError::Answer(format!(
                    "a server ended, {status}: {said}"
                )));
            }
            Ok(std::net::TcpStream::connect(&self.own.http).is_ok())
        })
    }
}

/// A master and its replica.
pub struct Pair {
    /// Which system.
    pub system: System,
    /// The master.
    pub master: Server,
    /// The replica.
    pub replica: Server,
    programs: Programs,
    class: Class,
    marks: u64,
    _dir: TempDir,
}

impl Pair {
    /// A master that runs, and a replica that does not yet.
    pub fn alone(system: System, class: Class, programs: &Programs) -> Outcome<Self> {
        let dir = tempfile::tempdir_in(&programs.scratch).context("making a data directory")?;
        let server = |name: &str| -> Outcome<Server> {
            let own = node::Addresses {
                http: free_address()?,
                replication: free_address()?,
            };
            Ok(Server {
                system,
                dir: dir.path().join(name),
                own,
                process: None,
            })
        };
        let mut pair = Pair {
            system,
            master: server("master")?,
            replica: server("replica")?,
            programs: programs.clone(),
            class,
            marks: 0,
            _dir: dir,
        };
        pair.master.start(programs, class, None)?;
        if system == System::Node {
            let address = pair.master.address().to_owned();
            until("the node to take writes", || {
                Ok(node::create(&address).is_ok())
            })?;
        }
        Ok(pair)
    }

    /// Both running, in sync.
    pub fn start(system: System, class: Class, programs: &Programs) -> Outcome<Self> {
        let mut pair = Pair::alone(system, class, programs)?;
        let address = pair.upstream();
        pair.start_replica(&address)?;
        pair.converge()?;
        Ok(pair)
    }

    /// Where a replica connects to.
    pub fn upstream(&self) -> String {
        match self.system {
            System::Node => self.master.own.replication.clone(),
            System::RedisDefault | System::RedisTuned => self.master.own.http.clone(),
        }
    }

    /// Starts the replica, which connects to `address`.
    pub fn start_replica(&mut self, address: &str) -> Outcome<()> {
        self.replica
            .start(&self.programs, self.class, Some(address))
    }

    /// Marks the master and waits until the replica shows it: how long that took after the master's acknowledgement.
    pub fn converge(&mut self) -> Outcome<Duration> {
        self.marks += 1;
        let mut replica = self.replica.connect()?;
        self.master.connect()?.mark(self.marks)?;
        let begun = Instant::now();
        while replica.marked()? != Some(self.marks) {
            if begun.elapsed() > PATIENCE {
                return Err(BenchError::Late("the replica to be current".to_owned()));
            }
        }
        Ok(begun.elapsed())
    }

    /// Makes the replica the master, and the master its replica, while writes may go on.
    pub fn switch_over(&mut self) -> Outcome<()> {
        let (old, new) = (&self.master, &self.replica);
        match self.system {
            System::Node => node::switch_over((&old.dir, &old.own), (&new.dir, &new.own))?,
            System::RedisDefault | System::RedisTuned => {
                redis::switch_over(old.address(), new.address())?;
            }
        }
        std::mem::swap(&mut self.master, &mut self.replica);
        Ok(())
    }

    /// Ends both, having found that they hold the same; otherwise the run is void.
    pub fn finish(mut self) -> Outcome<()> {
        self.converge()?;
        let digests = match self.system {
            System::Node => {
                for server in [&mut self.replica, &mut self.master] {
                    if let Some(process) = &mut server.process {
                        process.stop()?;
                    }
                    server.process = None;
                }
                [
                    node::on_disk(&self.master.dir)?,
                    node::on_disk(&self.replica.dir)?,
                ]
            }
            System::RedisDefault | System::RedisTuned => {
                let digest = |server: &Server| -> Outcome<String> {
                    let answer = Redis::connect(server.address())?.ask(&["DEBUG", "DIGEST"])?;
                    Ok(answer.unwrap_or_default())
                };
                [digest(&self.master)?, digest(&self.replica)?]
            }
        };
        if digests[0] == digests[1] && !digests[0].is_empty() {
            return Ok(());
        }
        Err(BenchError::Void(format!(
            "{}: master and replica differ: {} and {}",
            self.system.name(),
            digests[0],
            digests[1]
        )))
    }
}

/// Waits for a condition.
pub fn until(what: &str, mut condition: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
    let begun = Instant::now();
    while !condition()? {
        if begun.elapsed() > PATIENCE {
            return Err(BenchError::Late(what.to_owned()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn free_address() -> Outcome<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("finding a free port")?;
    let address = listener.local_addr().context("finding a free port")?;
    Ok(address.to_string())
}

/// The first line of a file that has `prefix`, without it; empty when there is none.
pub fn line_of(path: &Path, prefix: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(prefix));
    line.unwrap_or_default()
        .trim_matches([' ', '\t', ':'])
        .to_owned()
}
