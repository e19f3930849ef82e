//! Configuration: YAML, then what `POST /replication/configure` has stored, then environment, then flags; later wins.
//!
//! Keys of the `replication:` section and the `REPLICATION_*` variables are those of the specification
//! ("Configuration"). Unknown keys and bad values are refused at start, all at once, each with its place and with what
//! would be right. Credentials stand in files, never in the configuration itself.

mod credentials;
mod flags;
mod keys;
mod layers;
mod sections;
mod stored;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use credentials::{Credential, CredentialError};
pub use flags::{Command, CommandLine, Doctor, Flags, Inspect};
pub use layers::Problem;
pub use values::{Address, AddressError};

use vectorizer_replication::concern::Level;

use keys::{KEYS, find};
use layers::{Layers, suspicious};
use values::Reader;

/// Everything that a node is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The REST API.
    pub server: Server,
    /// Who and where this node is.
    pub node: Node,
    /// Replication.
    pub replication: Replication,
    /// The journal.
    pub storage: Storage,
    /// Set when the role is decided by a Lease and by commands.
    pub kubernetes: Option<Kubernetes>,
    /// What is logged and how.
    pub log: Log,
    /// Where to write the bound addresses once the node listens.
    pub ready_file: Option<PathBuf>,
    /// What a person should know; logged at each start and shown in `GET /replication/status`.
    pub warnings: Vec<String>,
    /// The values of the file, to be checked again with a wish of `POST /replication/configure`.
    file: Layers,
    /// Those of environment and flags.
    fixed: Layers,
}

/// Section `server`.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where the REST API listens.
    pub bind_address: Address,
    /// Where probes, commands and metrics are served as well, with connections of their own; `None` for nowhere else.
    pub ops_bind_address: Option<Address>,
    /// Allows everything on data and replication.
    pub admin_key: Option<Credential>,
    /// Allows reading.
    pub read_key: Option<Credential>,
    /// Allows `/control`; without it `/control` is refused.
    pub control_token: Option<Credential>,
    /// Largest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// Reads at once, and writes at once; more are refused.
    pub max_concurrent_requests: usize,
    /// Memory that all requests together may take, in bytes: half of it for reads, half for writes.
    pub request_memory_bytes: usize,
    /// Connections to the REST API at once, where the system allows as many open files; for one more, the one that is
    /// idle longest is closed.
    pub max_connections: usize,
    /// Pages that may call the REST API from a browser; `None` for none.
    pub cors_allowed_origins: Option<Origins>,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How long running requests may take to end when the node stops.
    pub shutdown_grace: Duration,
}

/// Origins of pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origins {
    /// Whichever.
    Any,
    /// These, such as `https://app.example.com`.
    These(Vec<String>),
}

/// Section `node`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name; on Kubernetes the pod's.
    pub name: String,
    /// Where data is kept.
    pub data_dir: PathBuf,
    /// Host under which others reach this node.
    pub advertised_host: Option<String>,
}

/// Role given by configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StaticRole {
    /// Accepts writes.
    Master,
    /// Follows `replication.master_address`.
    Replica,
}

/// Section `replication`, the keys of the specification.
#[derive(Clone, Debug)]
pub struct Replication {
    /// Whether there is replication at all; without it the node is a master of its own.
    pub enabled: bool,
    /// The role; `None` under Kubernetes and when not enabled.
    pub role: Option<StaticRole>,
    /// Where replicas connect.
    pub bind_address: Address,
    /// Whom a replica follows; always set when the role is replica.
    pub master_address: Option<Address>,
    /// The master's REST API, named in refusals.
    pub master_url: Option<String>,
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// A peer that is silent for longer is given up.
    pub replica_timeout: Duration,
    /// Operations kept in the log.
    pub log_size: u64,
    /// Bytes that the log may take on the disk, even if those are fewer operations; `None` for a third
    /// of the file system.
    pub log_max_bytes: Option<u64>,
    /// Time between a replica's attempts to connect.
    pub reconnect_interval: Duration,
    /// Replicas that must hold a write before it is answered. Under Kubernetes only until the Lease says it.
    pub write_acks: u32,
    /// What a replica has to have done with it.
    pub write_level: Level,
    /// How long a write waits for them, before its outcome is answered as unknown.
    pub write_timeout: Duration,
    /// What both sides of a link prove to know.
    pub token: Option<Credential>,
}

/// When a write counts as durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// After an fsync.
    Always,
    /// After the write to the operating system, with an fsync each second.
    Interval,
    /// After the write to the operating system.
    Os,
}

/// Section `storage`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Storage {
    /// When a write counts as durable.
    pub durability: Durability,
    /// Size of a journal file, in bytes.
    pub segment_bytes: u64,
    /// Memory that the process may use, in bytes; `None` for what its cgroup allows alone.
    pub memory_max_bytes: Option<u64>,
}

/// Section `kubernetes`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kubernetes {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// This node's pod; its name when not given.
    pub pod: String,
}

/// How it is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Section `log`: what is logged and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// A tracing filter.
    pub filter: String,
    /// Its format.
    pub format: LogFormat,
}

/// A configuration that is refused, with everything that is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct ConfigError {
    /// What is wrong, never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is refused:")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads file, environment and flags of this process.
    pub fn of_process(flags: &Flags) -> Result<Self, ConfigError> {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        Config::load(flags, &environment.collect(), &host)
    }

    /// Reads the file that the flags name and what is stored in the data directory, and lays environment and flags over
    /// them. `host` is the default name.
    pub fn load(
        flags: &Flags,
        environment: &BTreeMap<String, String>,
        host: &str,
    ) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let file = match &flags.config {
            Some(path) => read_yaml(path, &mut problems),
            None => Layers::default(),
        };
        let mut fixed = Layers::environment(environment);
        fixed.overlay(of_flags(flags, &mut problems));

        let mut ground = file.clone();
        ground.overlay(fixed.clone());
        let data_dir = Reader {
            layers: &ground,
            problems: &mut Vec::new(),
        }
        .path("node.data_dir")
        .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
        let stored = stored::read(&data_dir, &mut problems);

        let mut config = Config::assemble(file, &stored, fixed, host, problems)?;
        config.ready_file.clone_from(&flags.ready_file);
        config.warnings.extend(suspicious(environment));
        if config.kubernetes.is_some() && stored.has_section("replication") {
            config.warnings.push(format!(
                "{} is ignored: under Kubernetes the operator decides roles",
                stored::path(&config.node.data_dir).display()
            ));
        }
        Ok(config)
    }

    /// Puts the layers together and checks everything.
    fn assemble(
        file: Layers,
        stored: &Layers,
        fixed: Layers,
        host: &str,
        mut problems: Vec<Problem>,
    ) -> Result<Self, ConfigError> {
        let mut layers = file.clone();
        let kubernetes = layers.has_section("kubernetes");
        if !kubernetes {
            stored::lay_over(&mut layers, stored);
        }
        layers.overlay(fixed.clone());
        let mut reader = Reader {
            layers: &layers,
            problems: &mut problems,
        };
        let mut warnings = Vec::new();
        let server = sections::server(&mut reader, &mut warnings);
        let node = sections::node(&mut reader, host);
        let kubernetes = if layers.has_section("kubernetes") {
            sections::kubernetes(&mut reader, &node)
        } else {
            None
        };
        let replication = sections::replication(&mut reader);
        let storage = sections::storage(&mut reader);
        let log = sections::log(&mut reader);
        if replication.write_acks > 0 && storage.durability != Durability::Always {
            reader.refuse(
                "replication.write_acks",
                "needs storage.durability: always, as an acknowledged write must be on this node's disk as well",
            );
        }
        if replication.enabled && replication.token.is_none() {
            warnings.push(
                "replication.token_file is not set: whoever reaches the replication port is fed everything that is stored \
                 and counts as a replica, under any replica's id, and whoever answers at a master's address decides what \
                 its replicas hold"
                    .to_owned(),
            );
        }
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        Ok(Config {
            server,
            node,
            replication,
            storage,
            kubernetes,
            log,
            ready_file: None,
            warnings,
            file,
            fixed,
        })
    }
}

const DEFAULT_DATA_DIR: &str = "/var/lib/vectorizer";

fn read_yaml(path: &Path, problems: &mut Vec<Problem>) -> Layers {
    match std::fs::read_to_string(path) {
        Ok(text) => Layers::yaml(&text, path, problems),
        Err(error) => {
            problems.push(Problem {
                place: path.display().to_string(),
                key: String::new(),
                message: format!("cannot be read: {error}"),
            });
            Layers::default()
        }
    }
}

fn of_flags(flags: &Flags, problems: &mut Vec<Problem>) -> Layers {
    let mut layer = Layers::default();
    for pair in &flags.set {
        let (path, value) = pair.split_once('=').unwrap_or((pair, ""));
        match find(path) {
            Some(key) => layer.fix(key.path, value, format!("flag --set {path}")),
            None => {
                let paths: Vec<_> = KEYS.iter().map(|key| key.path).collect();
                problems.push(Problem {
                    place: format!("flag --set {path}"),
                    key: path.to_owned(),
                    message: layers::unknown("key", path, &paths),
                });
            }
        }
    }
    for key in KEYS {
        let Some(flag) = key.flag else { continue };
        if let Some(value) = flags.of(flag) {
            layer.fix(key.path, value, format!("flag --{flag}"));
        }
    }
    layer
}
