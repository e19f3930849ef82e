//! The sections, one function each: from text to typed values, with the defaults and what contradicts what.

use std::path::PathBuf;
use std::time::Duration;

use vectorizer_replication::concern::Level;

use super::values::Reader;
use super::{
    Address, Credential, DEFAULT_DATA_DIR, Durability, Kubernetes, Log, LogFormat, Node,
    Replication, Server, StaticRole, Storage,
};

/// One hour, in seconds: no interval is longer.
const HOUR: u64 = 3600;

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

pub(super) fn server(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> Server {
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
                "server.admin_key_file is not set: whoever reaches the REST port can read and write everything, and configure replication".to_owned(),
            );
        }
    }
    let max_concurrent_requests = count(reader, "server.max_concurrent_requests", 1..=100_000, 512);
    // Requests above their limit are answered as well, so that connections need room beyond it.
    let connections = max_concurrent_requests.saturating_mul(4).max(2048);
    Server {
        bind_address: reader
            .bind_address("server.bind_address")
            .unwrap_or_else(|| any(15002)),
        ops_bind_address: reader.bind_address("server.ops_bind_address"),
        admin_key,
        read_key,
        control_token: read_credential(reader, "server.control_token_file"),
        max_body_bytes: count(reader, "server.max_body_bytes", 1024..=1 << 30, 64 << 20),
        max_concurrent_requests,
        request_memory_bytes: count(
            reader,
            "server.request_memory_bytes",
            8 << 20..=1 << 40,
            1 << 30,
        ),
        cors_allowed_origins: reader.origins("server.cors_allowed_origins"),
        max_connections: count(
            reader,
            "server.max_connections",
            16..=1_000_000,
            connections,
        ),
        request_timeout: seconds(reader, "server.request_timeout_secs", 1, 60),
        shutdown_grace: seconds(reader, "server.shutdown_grace_secs", 0, 20),
    }
}

pub(super) fn node(reader: &mut Reader<'_>, host: &str) -> Node {
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

pub(super) fn kubernetes(reader: &mut Reader<'_>, node: &Node) -> Option<Kubernetes> {
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

pub(super) fn replication(reader: &mut Reader<'_>) -> Replication {
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
        log_max_bytes: reader.number("replication.log_max_bytes", 1 << 20..=1 << 50),
        reconnect_interval: seconds(reader, "replication.reconnect_interval_secs", 1, 5),
        write_acks: reader
            .number("replication.write_acks", 0..=255)
            .and_then(|acks| u32::try_from(acks).ok())
            .unwrap_or(0),
        write_level: reader
            .word(
                "replication.write_level",
                &[("durable", Level::Durable), ("applied", Level::Applied)],
            )
            .unwrap_or_default(),
        write_timeout: seconds(reader, "replication.write_timeout_secs", 1, 10),
        token: read_credential(reader, "replication.token_file"),
    }
}

pub(super) fn storage(reader: &mut Reader<'_>) -> Storage {
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
        memory_max_bytes: reader.number("storage.memory_max_bytes", 32 << 20..=1 << 50),
    }
}

pub(super) fn log(reader: &mut Reader<'_>) -> Log {
    let filter = reader.value(
        "log.filter",
        |text| match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(format!(
                "`{text}` is not a filter, such as info or vectorizer_node=debug: {error}"
            )),
        },
    );
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    Log {
        filter: filter.unwrap_or_else(|| "info".to_owned()),
        format: reader
            .word("log.format", &formats)
            .unwrap_or(LogFormat::Text),
    }
}

/// Every address of the machine, of both families: see [`crate::listen`].
fn any(port: u16) -> Address {
    Address {
        host: "::".to_owned(),
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
