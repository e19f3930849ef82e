//! Machines, the node on each, and waiting.

use std::fmt::Debug;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vectorizer_api::client::{Client, ClientError, Timeouts};
use vectorizer_api::data::{CreateCollection, EmbeddingItem, InsertVectors, Metric, Payload};
use vectorizer_api::replication::{Replica, ReplicaStatus, Stats, Status};
use vectorizer_node::http::Addresses;
use vectorizer_replication::position::Position;

/// No condition takes longer, even on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The sample of the specification for a master.
pub const MASTER: &str = r#"
replication:
  enabled: true
  role: "master"
  bind_address: "0.0.0.0:7001"
  heartbeat_interval_secs: 5
  replica_timeout_secs: 30
  log_size: 1000000
"#;

/// The sample of the specification for a replica.
pub const REPLICA: &str = r#"
replication:
  enabled: true
  role: "replica"
  master_address: "192.168.1.10:7001"
  reconnect_interval_secs: 5
"#;

/// A machine: an address, a disk and a configuration. It survives the node that runs on it.
pub struct Machine {
    pub ip: Ipv4Addr,
    dir: TempDir,
    yaml: String,
    environment: Vec<(String, String)>,
    flags: Vec<String>,
    /// What a shell does before it becomes the node.
    first: Option<String>,
}

/// A node that runs.
pub struct Node {
    pub client: Client,
    pub addresses: Addresses,
    child: Child,
    log: PathBuf,
}

impl Machine {
    /// A machine with this configuration file.
    pub fn new(yaml: &str) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, high.max(1), low, NEXT.fetch_add(1, Ordering::Relaxed));
        Machine {
            ip,
            dir: tempfile::tempdir().unwrap(),
            yaml: yaml.to_owned(),
            environment: Vec::new(),
            flags: Vec::new(),
            first: None,
        }
    }

    /// The specification's master, listening on its own address.
    pub fn master() -> Self {
        let machine = Machine::new("");
        let yaml = MASTER.replace("0.0.0.0", &machine.ip.to_string());
        Machine { yaml, ..machine }
    }

    /// The specification's replica, following `master`, but trying again each second.
    pub fn replica_of(master: &Machine) -> Self {
        Machine::following(&master.replication())
    }

    /// The same, following whoever can be reached at `address`.
    pub fn following(address: &str) -> Self {
        let yaml = REPLICA
            .replace("192.168.1.10:7001", address)
            .replace("reconnect_interval_secs: 5", "reconnect_interval_secs: 1");
        Machine::new(&yaml)
    }

    /// With another setting.
    pub fn set(mut self, setting: &str) -> Self {
        self.flags.extend(["--set".to_owned(), setting.to_owned()]);
        self
    }

    /// With heartbeats each second, and patience for two.
    pub fn impatient(self) -> Self {
        self.set("replication.heartbeat_interval_secs=1")
            .set("replication.replica_timeout_secs=2")
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// With a limit of open files, as the shell's `ulimit` takes it.
    pub fn open_files(mut self, limit: &str) -> Self {
        self.first = Some(format!("ulimit {limit}"));
        self
    }

    /// Its nodes begin in the cgroup of that directory.
    pub fn in_cgroup(mut self, cgroup: &std::path::Path) -> Self {
        // In it before it runs: what it takes counts from its first byte on.
        let procs = cgroup.join("cgroup.procs");
        self.first = Some(format!("echo $$ > {}", procs.display()));
        self
    }

    /// A file beside the data, such as a credential.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Its replication address.
    pub fn replication(&self) -> String {
        format!("{}:7001", self.ip)
    }

    /// The URL of its REST API.
    pub fn url(&self) -> String {
        format!("http://{}:15002", self.ip)
    }

    /// The URL of its port for probes, commands and metrics.
    pub fn ops(&self) -> String {
        format!("http://{}:15003", self.ip)
    }

    fn command(&self) -> Command {
        let config = self.file("config.yaml", &self.yaml);
        const PROGRAM: &str = env!("CARGO_BIN_EXE_vectorizer-node");
        let mut command = match &self.first {
            None => Command::new(PROGRAM),
            Some(first) => {
                let mut shell = Command::new("/bin/sh");
                let script = format!("{first} && exec \"$0\" \"$@\"");
                shell.args(["-c", &script, PROGRAM]);
                shell
            }
        };
        // What this shell has set is nobody's business.
        command.env_clear();
        command.envs(self.environment.iter().cloned());
        command.arg("--config").arg(config);
        command.arg("--data-dir").arg(self.data_dir());
        command
            .arg("--http-address")
            .arg(format!("{}:15002", self.ip))
            .arg("--ops-address")
            .arg(format!("{}:15003", self.ip));
        if !self
            .environment
            .iter()
            .any(|(name, _)| name == "REPLICATION_BIND_ADDRESS")
        {
            command.arg("--replication-address").arg(self.replication());
        }
        command.args(&self.flags);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a node that is expected to end by itself. Its exit code, and what it said.
    pub fn run(&self) -> (Option<i32>, String) {
        let output = self.command().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    }

    /// Starts a node and waits until it listens.
    pub async fn start(&self) -> Node {
        let ready = self.dir.path().join("ready.json");
        let _ = fs::remove_file(&ready);
        let log = self.dir.path().join("log");
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut child = self
            .command()
            .arg("--ready-file")
            .arg(&ready)
            .stderr(file)
            .spawn()
            .unwrap();
        let addresses: Addresses = until("the node to listen", async || {
            if let Some(status) = child.try_wait().unwrap() {
                let said = fs::read_to_string(&log).unwrap();
                panic!("the node ended with {status}:\n{said}");
            }
            let bytes = fs::read(&ready).map_err(|error| error.to_string())?;
            serde_json::from_slice(&bytes).map_err(|error| error.to_string())
        })
        .await;
        assert_eq!(addresses.pid, child.id());
        let timeouts = Timeouts {
            connect: Duration::from_secs(10),
            overall: DEADLINE,
        };
        Node {
            client: Client::new(self.url(), timeouts).unwrap(),
            addresses,
            child,
            log,
        }
    }
}

impl Node {
    /// SIGKILL, as a machine that loses its power ends it; the page cache survives.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its exit code.
    pub async fn stop(self) -> Option<i32> {
        self.signal("TERM");
        self.ended().await
    }

    /// Its exit code, once it has ended by itself.
    pub async fn ended(mut self) -> Option<i32> {
        let status = until("the node to stop", async || {
            self.child.try_wait().unwrap().ok_or("it runs")
        });
        status.await.code()
    }

    /// What it logged so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id();
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {pid}")])
            .status();
        assert!(sent.unwrap().success());
    }

    /// SIGSTOP. Returns when every thread stands still, which on a busy machine is not at once.
    pub async fn freeze(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.child.id());
        until("all threads to stop", async || {
            for task in fs::read_dir(&tasks).unwrap() {
                let stat =
                    fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
                // The state follows the name, which is in parentheses.
                let state = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned());
                if state.is_some_and(|state| !state.starts_with('T')) {
                    return Err(stat);
                }
            }
            Ok(())
        })
        .await;
    }

    /// Memory in use, in bytes.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// The limits of open files, soft and hard.
    pub fn open_files(&self) -> (String, String) {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let mut words = line.unwrap().split_whitespace().skip(3).map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    }

    pub async fn status(&self) -> Status {
        self.client.replication_status().await.unwrap()
    }

    pub async fn stats(&self) -> Stats {
        self.client.replication_stats().await.unwrap()
    }

    /// The only replica of this master.
    pub async fn only_replica(&self) -> Replica {
        let list = self.client.replication_replicas().await.unwrap();
        assert_eq!(list.count, 1);
        list.replicas.into_iter().next().unwrap()
    }

    /// Creates collection `c` of dimension 2.
    pub async fn create(&self) {
        self.try_create().await.unwrap();
    }

    pub async fn try_create(&self) -> Result<(), ClientError> {
        let wish = CreateCollection {
            name: "c".to_owned(),
            dimension: Some(2),
            metric: Some(Metric::Euclidean),
            ..CreateCollection::default()
        };
        self.client.create_collection(&wish).await.map(drop)
    }

    /// Writes the vectors of these numbers, in one batch; the position of the write.
    pub async fn put(&self, numbers: std::ops::Range<u32>) -> Position {
        self.try_put(numbers).await.unwrap()
    }

    pub async fn try_put(&self, numbers: std::ops::Range<u32>) -> Result<Position, ClientError> {
        put_with(&self.client, numbers).await
    }

    /// Writes vectors that exist already, or not yet, each with a payload of so many bytes.
    pub async fn put_large(&self, numbers: std::ops::Range<u32>, bytes: usize) -> Position {
        self.try_put_large(numbers, bytes).await.unwrap()
    }

    pub async fn try_put_large(
        &self,
        numbers: std::ops::Range<u32>,
        bytes: usize,
    ) -> Result<Position, ClientError> {
        let vectors = numbers.map(|number| EmbeddingItem {
            payload: Some(Payload::from_iter([(
                "text".to_owned(),
                "x".repeat(bytes).into(),
            )])),
            ..item(number)
        });
        insert(&self.client, vectors.collect()).await
    }

    /// The last operation that this node has applied.
    pub async fn end(&self) -> Position {
        let status = self.status().await;
        Position::new(status.epoch, status.current_offset)
    }

    /// Waits until this node has applied `position` and serves reads. A copy shows where it is a moment before it is
    /// served.
    pub async fn reaches(&self, position: Position) {
        let what = format!("{} to reach {position}", self.client.base());
        until(&what, async || {
            let status = self.client.replication_status().await;
            let status = status.map_err(|error| error.to_string())?;
            let here = Position::new(status.epoch, status.current_offset);
            match self.client.ready().await {
                Ok(true) if here >= position => Ok(()),
                ready => Err(format!("{status:?}, ready: {ready:?}")),
            }
        })
        .await;
    }

    /// Checks that exactly the vectors of these numbers are here.
    pub async fn holds(&self, numbers: std::ops::Range<u32>) {
        let mut expected: Vec<_> = numbers.map(|n| (id(n), vec![n as f32, 1.0])).collect();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        let found = self.everything().await;
        assert_eq!(found.len(), expected.len());
        assert_eq!(found, expected);
    }

    /// All vectors of `c`, ordered by id.
    pub async fn everything(&self) -> Vec<(String, Vec<f32>)> {
        self.everything_in("c").await
    }

    /// All vectors of a collection, ordered by id.
    pub async fn everything_in(&self, collection: &str) -> Vec<(String, Vec<f32>)> {
        let mut found = Vec::new();
        loop {
            let page = self.client.list_vectors(collection, 1000, found.len());
            let page = page.await.unwrap();
            if page.vectors.is_empty() {
                return found;
            }
            found.extend(page.vectors.into_iter().map(|v| (v.id, v.vector)));
        }
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> u64 {
        let url = format!("{}/metrics", self.client.base());
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .parse()
            .unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Of those that ended themselves nothing is left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("--- {} said:\n{log}", self.client.base());
        }
    }
}

/// The same as [`Node::try_put`], for who has only a client.
pub async fn put_with(
    client: &Client,
    numbers: std::ops::Range<u32>,
) -> Result<Position, ClientError> {
    insert(client, numbers.map(item).collect()).await
}

async fn insert(client: &Client, vectors: Vec<EmbeddingItem>) -> Result<Position, ClientError> {
    let request = InsertVectors {
        collection: "c".to_owned(),
        vectors,
        atomic: true,
        public_key: None,
    };
    let reply = client.insert_vectors(&request).await?;
    Ok(reply.position.unwrap())
}

fn item(number: u32) -> EmbeddingItem {
    EmbeddingItem {
        id: Some(id(number)),
        embedding: vec![number as f32, 1.0],
        ..EmbeddingItem::default()
    }
}

pub fn id(number: u32) -> String {
    format!("{number:06}")
}

/// Polls until there is a value; says what was being waited for, and why there is none, when there is none in time.
pub async fn until<T, E: Debug>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    let begun = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) if begun.elapsed() > DEADLINE => {
                panic!("waited {} s for {what}: {error:?}", DEADLINE.as_secs())
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A master and a replica of it, which is connected and in sync, with collection `c`.
pub async fn pair(master: &Machine, replica: &Machine) -> (Node, Node) {
    let (one, two) = (master.start().await, replica.start().await);
    one.create().await;
    let end = one.end().await;
    two.reaches(end).await;
    until("the master to count on its replica", async || {
        let listed = one.only_replica().await;
        if listed.status == ReplicaStatus::Connected && listed.durable_offset >= end.offset {
            Ok(())
        } else {
            Err(listed)
        }
    })
    .await;
    (one, two)
}
