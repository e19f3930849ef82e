//! vectorizer-node: how it is started, and as much HTTP/1.1 as the benchmark needs.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vectorizer_api::control::{Fence, Follow, Handover, Promote, State};
use vectorizer_api::data::{BULK_CONTENT_TYPE, BulkWriter};
use vectorizer_node::data_dir::DataDir;
use vectorizer_node::journal::JournalOptions;

use crate::client::{Client, connect};
use crate::data::{Batch, DIMENSION};
use crate::error::{BenchError, Context, Outcome};
use crate::pair::Class;

/// Where a node listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The REST API.
    pub http: String,
    /// Replication.
    pub replication: String,
}

/// The arguments of a node. `master` is the replication address that a replica connects to.
pub fn arguments(class: Class, dir: &Path, own: &Addresses, master: Option<&str>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut add = |flag: &str, value: String| all.extend([flag.to_owned(), value]);
    add("--data-dir", dir.join("data").display().to_string());
    add("--http-address", own.http.clone());
    add("--replication-address", own.replication.clone());
    add("--log", "warn".to_owned());
    let durability = match class {
        Class::NoLog | Class::Logged => "os",
        Class::Synced => "always",
    };
    let mut set = |key: &str, value: &str| add("--set", format!("{key}={value}"));
    set("storage.durability", durability);
    let token = dir.join(CONTROL_TOKEN);
    set("server.control_token_file", &token.display().to_string());
    set("replication.enabled", "true");
    match master {
        None => set("replication.role", "master"),
        Some(address) => {
            set("replication.role", "replica");
            set("replication.master_address", address);
            set("replication.reconnect_interval_secs", "1");
        }
    }
    all
}

/// A connection.
pub struct Node {
    address: String,
    socket: BufReader<TcpStream>,
    /// The node has said that it closes this connection: the next request needs another.
    closing: bool,
    json: bool,
    bulk: BulkWriter,
    head: String,
    key: Vec<u8>,
}

/// An answer.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: String,
}

impl Node {
    /// Connects. Batches are sent as JSON if so wished, otherwise over the bulk interface.
    pub fn connect(address: &str, json: bool) -> Outcome<Self> {
        Ok(Node {
            address: address.to_owned(),
            socket: reader(address)?,
            closing: false,
            json,
            bulk: BulkWriter::new(DIMENSION),
            head: String::new(),
            key: Vec::new(),
        })
    }

    /// Sends one request and returns its answer.
    pub fn ask(&mut self, what: &str, headers: &str, body: &[u8]) -> Outcome<Answer> {
        if std::mem::take(&mut self.closing) {
            self.socket = reader(&self.address)?;
        }
        self.head.clear();
        // A string takes everything.
        let _ = write!(
            self.head,
            "{what} HTTP/1.1\r\nHost: bench\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let parts = [self.head.as_bytes(), body].concat();
        self.socket
            .get_mut()
            .write_all(&parts)
            .context("writing to the node")?;
        self.answer()
    }

    fn answer(&mut self) -> Outcome<Answer> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status
            .ok_or_else(|| BenchError::Answer("the node's answer has no status".to_owned()))?;
        let mut length = 0;
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or(0);
            } else if name.eq_ignore_ascii_case("connection") {
                self.closing = value.trim().eq_ignore_ascii_case("close");
            }
        }
        let mut body = vec![0; length];
        self.socket
            .read_exact(&mut body)
            .context("reading from the node")?;
        Ok(Answer {
            status,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        let count = self
            .socket
            .read_line(&mut line)
            .context("reading from the node")?;
        if count == 0 {
            return Err(BenchError::Answer(
                "the node closed the connection".to_owned(),
            ));
        }
        Ok(line.trim_end().to_owned())
    }

    fn put(&mut self, batch: &Batch<'_>, headers: &str) -> Outcome<()> {
        let answer = if self.json {
            let body = json(batch, &mut self.key);
            let headers = format!("{headers}Content-Type: application/json\r\n");
            self.ask("POST /collections/bench/vectors", &headers, body.as_bytes())?
        } else {
            let mut bulk = std::mem::replace(&mut self.bulk, BulkWriter::new(DIMENSION));
            bulk.clear();
            let mut key = std::mem::take(&mut self.key);
            let put = batch.each(&mut key, |key, value| {
                bulk.push_bytes(&String::from_utf8_lossy(key), value, b"")
            });
            put.map_err(|error| BenchError::Answer(error.to_string()))?;
            self.key = key;
            let headers = format!("{headers}Content-Type: {BULK_CONTENT_TYPE}\r\n");
            let answer = self.ask("POST /collections/bench/bulk", &headers, bulk.body());
            self.bulk = bulk;
            answer?
        };
        good(&answer)
    }

    /// A number that the node's JSON answer to `GET path` holds under `key`.
    pub fn number(&mut self, path: &str, key: &str) -> Outcome<u64> {
        let answer = self.ask(&format!("GET {path}"), "", b"")?;
        let value: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
        value[key].as_u64().ok_or_else(|| {
            BenchError::Answer(format!("{path} has no number {key}: {}", answer.body))
        })
    }
}

impl Client for Node {
    fn write(&mut self, batch: &Batch<'_>) -> Outcome<()> {
        self.put(batch, "")
    }

    fn write_acknowledged(&mut self, batch: &Batch<'_>) -> Outcome<()> {
        self.put(batch, "X-Vectorizer-Acks: 1\r\n")
    }

    fn mark(&mut self, n: u64) -> Outcome<()> {
        let mut bulk = BulkWriter::new(DIMENSION);
        let vector = [0.0; DIMENSION];
        bulk.push("mark", &vector, format!(r#"{{"n":{n}}}"#).as_bytes())
            .map_err(|error| BenchError::Answer(error.to_string()))?;
        let headers = format!("Content-Type: {BULK_CONTENT_TYPE}\r\n");
        let answer = self.ask("POST /collections/bench/bulk", &headers, bulk.body())?;
        good(&answer)
    }

    fn marked(&mut self) -> Outcome<Option<u64>> {
        let answer = self.ask("GET /collections/bench/vectors/mark", "", b"")?;
        // Without data, or the vector not there yet.
        if answer.status != 200 {
            return Ok(None);
        }
        let number = answer.body.split_once("\"n\":").and_then(|(_, rest)| {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            rest[..end].parse().ok()
        });
        Ok(number)
    }

    fn read(&mut self, key: &str) -> Outcome<Option<Vec<u8>>> {
        let answer = self.ask(&format!("GET /collections/bench/vectors/{key}"), "", b"")?;
        if answer.status == 404 {
            return Ok(None);
        }
        good(&answer)?;
        let found: Found = understood(&answer)?;
        Ok(Some(
            found
                .vector
                .into_iter()
                .flat_map(f32::to_le_bytes)
                .collect(),
        ))
    }
}

fn reader(address: &str) -> Outcome<BufReader<TcpStream>> {
    Ok(BufReader::with_capacity(16 << 10, connect(address)?))
}

/// What is read of a vector.
#[derive(serde::Deserialize)]
struct Found {
    vector: Vec<f32>,
}

/// The file with the token for role commands, in a server's directory.
const CONTROL_TOKEN: &str = "control-token";

/// Makes the token for role commands.
pub fn make_token(dir: &Path) -> Outcome<()> {
    let token = uuid::Uuid::new_v4().simple().to_string();
    fs::write(dir.join(CONTROL_TOKEN), token).context("writing a token")
}

/// A connection that may give role commands.
struct Commander {
    node: Node,
    headers: String,
}

impl Commander {
    fn connect(dir: &Path, own: &Addresses) -> Outcome<Self> {
        let token = fs::read_to_string(dir.join(CONTROL_TOKEN)).context("reading a token")?;
        Ok(Commander {
            node: Node::connect(&own.http, false)?,
            headers: format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"),
        })
    }

    fn state(&mut self) -> Outcome<State> {
        let answer = self.node.ask("GET /control/state", &self.headers, b"")?;
        good(&answer)?;
        understood(&answer)
    }

    fn give(&mut self, name: &str, command: &impl Serialize) -> Outcome<State> {
        let body = serde_json::to_vec(command).unwrap_or_default();
        let what = format!("POST /control/{name}");
        let answer = self.node.ask(&what, &self.headers, &body)?;
        good(&answer)?;
        understood(&answer)
    }
}

/// The operator's planned switchover, without its Lease. Each side is a directory and what it listens on.
pub fn switch_over(old: (&Path, &Addresses), new: (&Path, &Addresses)) -> Outcome<()> {
    let new_addresses = new.1;
    let mut old = Commander::connect(old.0, old.1)?;
    let mut new = Commander::connect(new.0, new.1)?;
    let (state, target) = (old.state()?, new.state()?.node_id);
    let cluster = state
        .cluster
        .ok_or_else(|| BenchError::Answer("the master is in no cluster".to_owned()))?;
    let from_epoch = state.master_epoch;
    let epoch = from_epoch + 1;
    new.give(
        "fence",
        &Fence {
            cluster,
            epoch: from_epoch,
        },
    )?;
    let handover = Handover {
        cluster,
        from_epoch,
        epoch,
        target,
        deadline_ms: 20_000,
    };
    let at = old.give("handover", &handover)?.position;
    new.give("promote", &Promote { cluster, epoch, at })?;
    let follow = Follow {
        cluster,
        epoch,
        master_address: new_addresses.replication.clone(),
        master_url: format!("http://{}", new_addresses.http),
    };
    old.give("follow", &follow).map(drop)
}

fn understood<T: DeserializeOwned>(answer: &Answer) -> Outcome<T> {
    serde_json::from_str(&answer.body)
        .map_err(|error| BenchError::Answer(format!("{error} in {}", answer.body)))
}

/// Creates the collection.
pub fn create(address: &str) -> Outcome<()> {
    let wish = format!(r#"{{"name":"bench","dimension":{DIMENSION},"metric":"dotproduct"}}"#);
    let headers = "Content-Type: application/json\r\n";
    let answer =
        Node::connect(address, false)?.ask("POST /collections", headers, wish.as_bytes())?;
    good(&answer)
}

/// What a node that has stopped left on its disk: its position, and the digest computed anew from every record.
pub fn on_disk(dir: &Path) -> Outcome<String> {
    let void = |error: &dyn std::fmt::Display| BenchError::Void(error.to_string());
    let opened = DataDir::open(&dir.join("data"), JournalOptions::default());
    let (_data, opened) = opened.map_err(|error| void(&error))?;
    let kept = opened.store.digests();
    let anew = opened.store.recompute_digest();
    if kept.total != anew {
        return Err(void(&"the digest that is kept is not that of the records"));
    }
    Ok(format!("{} {anew}", kept.position))
}

fn good(answer: &Answer) -> Outcome<()> {
    if answer.status == 200 {
        return Ok(());
    }
    Err(BenchError::Answer(format!(
        "the node answered {}: {}",
        answer.status, answer.body
    )))
}

fn json(batch: &Batch<'_>, key: &mut Vec<u8>) -> String {
    let mut body = String::from(r#"{"vectors":["#);
    let Ok(()) = batch.each(key, |key, value| {
        let comma = if body.ends_with('[') { "" } else { "," };
        let key = String::from_utf8_lossy(key);
        let _ = write!(body, r#"{comma}{{"id":"{key}","data":["#);
        let (numbers, _) = value.as_chunks::<4>();
        for (n, number) in numbers.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let _ = write!(body, "{comma}{}", f32::from_le_bytes(*number));
        }
        body.push_str("]}");
        Ok::<(), std::convert::Infallible>(())
    });
    body.push_str("]}");
    body
}
