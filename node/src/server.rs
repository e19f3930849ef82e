//! A node from start to end: what is opened in which order, and what is closed in which.
//!
//! At the end, requests come first: they are given time to finish while replication still runs, so that what they
//! wrote reaches the replicas; then the writer makes everything durable.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vectorizer_api::error::ErrorCode;
use vectorizer_api::lease::Holder;
use vectorizer_replication::command::{Command, Standing};

use crate::config::{Address, Config, StaticRole};
use crate::data_dir::{DataDir, DataDirError};
use crate::http::{self, Addresses, Api, Parts, announce};
use crate::journal::JournalOptions;
use crate::lease::{KubernetesLease, Leadership, LeaseError};
use crate::link::{self, LinkContext, LinkOptions};
use crate::listen;
use crate::memory::Source;
use crate::writer::{self, WriterHandle, WriterOptions};

/// The log's newest file is made longer by this much at a time: some thousand small writes, and little on a small disk.
const JOURNAL_ROOM: u64 = 8 << 20;

/// How often a role that found no room on the disk is tried again.
const ROLE_EVERY: Duration = Duration::from_secs(1);
/// This part of the memory that there may be is for the newest operations of the log, twice as much for requests.
const MEMORY_PART: u64 = 8;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {purpose}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What is served there.
        purpose: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread or file of the node itself could not be made.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
    /// The Lease cannot be reached at all: no credentials, or no API server configured.
    #[error("the lease: {0}")]
    Lease(#[from] LeaseError),
    /// The configured role contradicts what the data directory holds.
    #[error("the configured role cannot be taken: {0}")]
    Role(String),
}

/// Runs a node until `stop`. Returns once everything is durable and closed.
pub async fn run(mut config: Config, stop: CancellationToken) -> Result<(), StartError> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let open_files = listen::raise_open_files();
    let connections = listen::connections(config.server.max_connections, open_files);
    if connections < config.server.max_connections {
        tracing::warn!(
            open_files,
            connections,
            configured = config.server.max_connections,
            "fewer connections than server.max_connections: more files may not be open"
        );
    }
    let boot_id = Uuid::new_v4();
    let memory = Source::of_process(config.storage.memory_max_bytes);
    let mut options = JournalOptions {
        segment_bytes: config.storage.segment_bytes,
        log_size: config.replication.log_size,
        max_bytes: config.replication.log_max_bytes,
        preallocate: JOURNAL_ROOM,
        ..JournalOptions::default()
    };
    if let Some(usage) = memory.read() {
        let part = usize::try_from(usage.limit / MEMORY_PART).unwrap_or(usize::MAX);
        options.cache_bytes = options.cache_bytes.min(part);
        let server = &mut config.server;
        server.max_body_bytes = server.max_body_bytes.min(part);
        server.request_memory_bytes = server.request_memory_bytes.min(2 * part);
        tracing::info!(limit = usage.limit, used = usage.used, "memory is limited");
    }
    // Recovery reads the disk for as long as it takes.
    let path = config.node.data_dir.clone();
    let (data, opened) = tokio::task::spawn_blocking(move || DataDir::open(&path, options))
        .await
        .map_err(|e| StartError::System("recovery", e.into()))??;
    let role = opened.role.state();
    let at = opened.end.position;
    tracing::info!(node_id = %role.node_id, %boot_id, standing = ?role.standing, %at, "this node");
    let was_master = matches!(role.standing, Standing::Master { .. });

    let leadership = match &config.kubernetes {
        None => Leadership::Static,
        Some(k8s) => {
            let identity = Holder {
                pod: k8s.pod.clone(),
                node_id: role.node_id,
                boot_id,
            };
            Leadership::Kubernetes(Arc::new(
                KubernetesLease::connect(&k8s.namespace, &k8s.lease, identity).await?,
            ))
        }
    };
    let store = opened.store.clone();
    let options = WriterOptions {
        durability: config.storage.durability,
        memory,
        ..WriterOptions::default()
    };
    let writer::Start {
        handle: writer,
        pulse,
    } = writer::start(data, opened, leadership.permit(), boot_id, options)
        .map_err(|e| StartError::System("the writer's thread", e))?;
    let mut background = Vec::new();
    if config.kubernetes.is_none() {
        background.extend(take_configured_role(&config, &writer).await?);
    }

    let http = open(&config.server.bind_address, "REST").await?;
    let ops = match &config.server.ops_bind_address {
        Some(address) => Some(open(address, "probes and commands").await?),
        None => None,
    };
    let context = LinkContext::new(writer.clone(), store.clone(), link_options(&config));
    context.table.set_level(config.replication.write_level);
    context.table.set_least(config.replication.write_acks);
    let mut replication_address = None;
    if config.replication.enabled {
        let listener = open(&config.replication.bind_address, "replication").await?;
        replication_address = Some(bound(&listener)?);
        background.push(link::spawn_master_listener(context.clone(), listener));
        background.push(link::spawn_replica(context.clone()));
    }
    background.push(tokio::spawn(leadership.clone().run(
        writer.clone(),
        context.table.clone(),
        pulse.clone(),
        was_master,
    )));

    let addresses = Addresses {
        pid: std::process::id(),
        http: bound(&http)?,
        ops: ops.as_ref().map(bound).transpose()?,
        replication: replication_address,
    };
    let ready_file = config.ready_file.clone();
    let api = Api::new(Parts {
        config,
        writer: writer.clone(),
        pulse,
        leadership,
        store,
        replicas: context.table.clone(),
        links: context.stats.clone(),
        replication_address,
    });
    let _ops = match ops {
        Some(listener) => Some(
            http::serve_ops(listener, api.clone())
                .map_err(|e| StartError::System("the threads for probes and commands", e))?,
        ),
        None => None,
    };
    let or_off = |address: Option<SocketAddr>| {
        address.map_or_else(|| "off".to_owned(), |address| address.to_string())
    };
    tracing::info!(
        http = %addresses.http,
        ops = or_off(addresses.ops),
        replication = or_off(addresses.replication),
        connections,
        "listening"
    );
    if let Some(file) = ready_file {
        announce(&file, &addresses).map_err(|e| StartError::System("the ready file", e))?;
    }
    http::serve(http, api, connections, stop).await;
    let epoch = writer.state().borrow().master_epoch;
    context.note_covered(epoch, &mut 0);
    // What was just acknowledged is on its way to the replicas: they are cut off after the requests have ended.
    for task in background {
        task.abort();
    }
    writer.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// Without Kubernetes the configuration says what the node is, at every start. On a disk without room for that, what is
/// there is served as it is, and the task that is returned takes the role once there is room.
async fn take_configured_role(
    config: &Config,
    writer: &WriterHandle,
) -> Result<Option<JoinHandle<()>>, StartError> {
    let (cluster, has_data) = {
        let state = writer.state();
        let now = state.borrow();
        (now.cluster, now.has_data)
    };
    let command = match (config.replication.role, &config.replication.master_address) {
        (Some(StaticRole::Replica), Some(address)) => Command::ConfiguredReplica {
            master_address: address.to_string(),
            master_url: config.replication.master_url.clone(),
        },
        // A master with an empty data directory begins a cluster of its own.
        (Some(StaticRole::Master) | None, _) if cluster.is_none() && !has_data => {
            Command::Initialize {
                cluster: Uuid::new_v4(),
                epoch: 1,
            }
        }
        (Some(StaticRole::Master) | None, _) => Command::ConfiguredMaster,
        (Some(StaticRole::Replica), None) => {
            return Err(StartError::Role(
                "replication.master_address is required for a replica".into(),
            ));
        }
    };
    match writer.command(command.clone()).await {
        Ok(()) => Ok(None),
        Err(error) if error.error_type == ErrorCode::DiskFull => {
            tracing::error!(%error, "the configured role cannot be taken yet: reads are served meanwhile");
            let task = take_when_there_is_room(writer.clone(), command);
            Ok(Some(tokio::spawn(task)))
        }
        Err(error) => Err(StartError::Role(error.message)),
    }
}

async fn take_when_there_is_room(writer: WriterHandle, command: Command) {
    let mut every = tokio::time::interval(ROLE_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        match writer.command(command.clone()).await {
            Ok(()) => return,
            Err(error) if error.error_type == ErrorCode::DiskFull => {}
            Err(error) => {
                tracing::error!(%error, "the configured role cannot be taken: restart the node");
                return;
            }
        }
    }
}

fn link_options(config: &Config) -> LinkOptions {
    let replication = &config.replication;
    LinkOptions {
        name: config.node.name.clone(),
        advertised: config.node.advertised_host.as_ref().map(|host| {
            Address {
                host: host.clone(),
                port: replication.bind_address.port,
            }
            .to_string()
        }),
        token: replication.token.clone(),
        heartbeat: replication.heartbeat_interval,
        timeout: replication.replica_timeout,
        reconnect: replication.reconnect_interval,
        ..LinkOptions::default()
    }
}

async fn open(address: &Address, purpose: &'static str) -> Result<TcpListener, StartError> {
    let listening = listen::listen(address).await;
    listening.map_err(|source| StartError::Listen {
        address: address.to_string(),
        purpose,
        source,
    })
}

fn bound(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    let address = listener.local_addr();
    address.map_err(|e| StartError::System("the address of a port", e))
}
