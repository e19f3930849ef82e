//! Configuration: YAML, then what `POST /replication/configure` has stored, then environment, then flags; later wins.
//!
//! Keys of the `replication:` section and the `REPLICATION_*` variables are those of the specification
//! ("Configuration"). Unknown keys and bad values are refused at start, all at once, each with its place and with what
//! would be right. Credentials stand in files, never in the configuration itself.

mod credentials;
mod flags;
mod keys;
mod layers;
mod stored;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use credentials::{Credential, CredentialError};
pub use flags::{CommandLine, Flags};
pub use layers::Problem;
pub use values::{Address, AddressError};

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
    /// Allows everything on data and replication.
    pub admin_key: Option<Credential>,
    /// Allows reading.
    pub read_key: Option<Credential>,
    /// Allows `/control`; without it `/control` is refused.
    pub control_token: Option<Credential>,
    /// Largest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// Requests at once; more are refused.
    pub max_concurrent_requests: usize,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How long running requests may take to end when the node stops.
    pub shutdown_grace: Duration,
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
    /// Time between a replica's attempts to connect.
    pub reconnect_interval: Duration,
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

/// What is logged and how.
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

        let log = read_log(flags, environment, &mut problems);
        let mut config = Config::assemble(file, &stored, fixed, host, log, problems)?;
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
        log: Log,
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
        let server = read_server(&mut reader, &mut warnings);
        let node = read_node(&mut reader, host);
        let kubernetes = if layers.has_section("kubernetes") {
            read_kubernetes(&mut reader, &node)
        } else {
            None
        };
        let replication = read_replication(&mut reader);
        let storage = read_storage(&mut reader);
        if replication.enabled && replication.token.is_none() {
            warnings.push(
                "replication.token_file is not set: whoever reaches the replication port can read everything".to_owned(),
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
/// One hour, in seconds: no interval is longer.
const HOUR: u64 = 3600;

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

fn read_log(
    flags: &Flags,
    environment: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) -> Log {
    let pick = |flag: &Option<String>, name: &str, variable: &str, fallback: &str| {
        let from_environment = environment.get(variable).filter(|value| !value.is_empty());
        match (flag, from_environment) {
            (Some(value), _) => (value.clone(), format!("flag --{name}")),
            (None, Some(value)) => (value.clone(), format!("environment variable {variable}")),
            (None, None) => (fallback.to_owned(), String::new()),
        }
    };
    let (filter, filter_place) = pick(&flags.log, "log", "VECTORIZER_LOG", "info");
    let (format, format_place) = pick(
        &flags.log_format,
        "log-format",
        "VECTORIZER_LOG_FORMAT",
        "text",
    );
    let mut refuse = |place: String, message: String| {
        problems.push(Problem {
            place,
            key: "log".to_owned(),
            message,
        });
    };
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&filter) {
        refuse(
            filter_place,
            format!("`{filter}` is not a filter, such as info or vectorizer_node=debug: {error}"),
        );
    }
    let format = match format.as_str() {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        other => {
            refuse(
                format_place,
                format!("`{other}` is not allowed: expected `text` or `json`"),
            );
            LogFormat::Text
        }
    };
    Log { filter, format }
}

fn read_credential(reader: &mut Reader<'_>, path: &str) -> Option<Credential> {
    let file = reader.path(path)?;
    match Credential::open(&file) {
        Ok(credential) => Some(credential),
        Err(error) => {
            reader.refuse(path, error.to_string());
            None
        }
    }
}

fn read_server(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> Server {
    let admin_key = read_credential(reader, "server.admin_key_file");
    let read_key = read_credential(reader, "server.read_key_file");
    if !reader.has("server.admin_key_file") {
        if reader.has("server.read_key_file") {
            reader.refuse(
                "server.read_key_file",
                "is set without server.admin_key_file: nobody could write; set both, or neither",
            );
        } else {
            warnings.push(
                "server.admin_key_file is not set: whoever reaches the REST port can read and write everything".to_owned(),
            );
        }
    }
    Server {
        bind_address: reader
            .bind_address("server.bind_address")
            .unwrap_or_else(|| any(15002)),
        admin_key,
        read_key,
        control_token: read_credential(reader, "server.control_token_file"),
        max_body_bytes: count(reader, "server.max_body_bytes", 1024..=1 << 30, 64 << 20),
        max_concurrent_requests: count(reader, "server.max_concurrent_requests", 1..=100_000, 512),
        request_timeout: seconds(reader, "server.request_timeout_secs", 1, 60),
        shutdown_grace: seconds(reader, "server.shutdown_grace_secs", 0, 20),
    }
}

fn read_node(reader: &mut Reader<'_>, host: &str) -> Node {
    let name = if reader.has("node.name") {
        reader.name("node.name").unwrap_or_default()
    } else {
        host.to_owned()
    };
    Node {
        name,
        data_dir: reader
            .path("node.data_dir")
            .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR)),
        advertised_host: reader.host("node.advertised_host"),
    }
}

fn read_kubernetes(reader: &mut Reader<'_>, node: &Node) -> Option<Kubernetes> {
    for path in ["kubernetes.namespace", "kubernetes.lease"] {
        if !reader.has(path) {
            reader.refuse(
                path,
                "is missing: expected a name; the section kubernetes is set",
            );
        }
    }
    for path in ["replication.role", "replication.master_address"] {
        if reader.has(path) {
            reader.refuse(
                path,
                "must be absent: the section kubernetes is set, so that the operator decides",
            );
        }
    }
    let pod = match reader.has("kubernetes.pod") {
        true => reader.name("kubernetes.pod"),
        false => Some(node.name.clone()),
    };
    Some(Kubernetes {
        namespace: reader.name("kubernetes.namespace")?,
        lease: reader.name("kubernetes.lease")?,
        pod: pod?,
    })
}

fn read_replication(reader: &mut Reader<'_>) -> Replication {
    let kubernetes = reader.layers.has_section("kubernetes");
    let role = reader.word(
        "replication.role",
        &[
            ("master", StaticRole::Master),
            ("replica", StaticRole::Replica),
        ],
    );
    let said = reader.truth("replication.enabled");
    // REPLICATION_ROLE alone is the specification's way to switch replication on.
    let by_environment = reader
        .layers
        .get("replication.role")
        .is_some_and(|role| role.fixed);
    let enabled = by_environment || kubernetes || said.unwrap_or(reader.has("replication.role"));
    if kubernetes && said == Some(false) {
        reader.refuse(
            "replication.enabled",
            "cannot be false: the section kubernetes is set",
        );
    }
    let master_address = reader.peer_address("replication.master_address");
    if enabled && !kubernetes {
        if !reader.has("replication.role") {
            reader.refuse(
                "replication.role",
                "is missing: expected `master` or `replica`, as replication is enabled",
            );
        }
        if role == Some(StaticRole::Replica) && !reader.has("replication.master_address") {
            reader.refuse(
                "replication.master_address",
                "is missing: expected <host>:<port> of the master, as the role is replica",
            );
        }
    }
    let heartbeat = reader
        .number("replication.heartbeat_interval_secs", 1..=HOUR)
        .unwrap_or(5);
    // Three heartbeats may be lost before a silent peer is given up, unless somebody wants it otherwise.
    let timeout = reader
        .number("replication.replica_timeout_secs", 1..=24 * HOUR)
        .unwrap_or((3 * heartbeat).max(30));
    if timeout <= heartbeat {
        reader.refuse(
            "replication.replica_timeout_secs",
            format!(
                "{timeout} is not above replication.heartbeat_interval_secs, which is {heartbeat}: every replica would be given up between two heartbeats"
            ),
        );
    }
    Replication {
        enabled,
        role: role.filter(|_| enabled && !kubernetes),
        bind_address: reader
            .bind_address("replication.bind_address")
            .unwrap_or_else(|| any(7001)),
        master_address,
        master_url: reader.url("replication.master_url"),
        heartbeat_interval: Duration::from_secs(heartbeat),
        replica_timeout: Duration::from_secs(timeout),
        log_size: reader
            .number("replication.log_size", 1..=1_000_000_000)
            .unwrap_or(1_000_000),
        reconnect_interval: seconds(reader, "replication.reconnect_interval_secs", 1, 5),
        token: read_credential(reader, "replication.token_file"),
    }
}

fn read_storage(reader: &mut Reader<'_>) -> Storage {
    let words = [
        ("always", Durability::Always),
        ("interval", Durability::Interval),
        ("os", Durability::Os),
    ];
    Storage {
        durability: reader
            .word("storage.durability", &words)
            .unwrap_or(Durability::Always),
        segment_bytes: reader
            .number("storage.segment_bytes", 4096..=4 << 30)
            .unwrap_or(64 << 20),
    }
}

fn any(port: u16) -> Address {
    Address {
        host: "0.0.0.0".to_owned(),
        port,
    }
}

fn seconds(reader: &mut Reader<'_>, path: &str, least: u64, default: u64) -> Duration {
    Duration::from_secs(reader.number(path, least..=HOUR).unwrap_or(default))
}

fn count(
    reader: &mut Reader<'_>,
    path: &str,
    range: std::ops::RangeInclusive<u64>,
    default: usize,
) -> usize {
    let number = reader.number(path, range);
    number
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(default)
}
