//! Metrics in the OpenMetrics format. Requests are counted as they come; everything else is read at the moment of the
//! scrape from where it is kept anyway.

mod connections;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use vectorizer_api::error::ErrorCode;
use vectorizer_api::replication::{Replica, ReplicaStatus, Role};

use crate::link::LinkStats;
use crate::permit::Permit;
use crate::replicas::ReplicaTable;
use crate::store::Store;
use crate::writer::WriterHandle;

pub(crate) use connections::Connections;
use connections::Ports;

/// Upper bounds of the buckets of request times, in seconds.
const BUCKETS: [f64; 12] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    endpoint: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    error_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct At {
    endpoint: &'static str,
}

/// All metrics of a node.
pub struct Metrics {
    registry: Registry,
    answered: Family<Answered, Counter>,
    refused: Family<Refused, Counter>,
    seconds: Family<At, Histogram, fn() -> Histogram>,
    running: Gauge,
    ports: Ports,
}

/// Counts a request as running until it is dropped.
pub struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Metrics that read from these parts.
    pub fn new(
        store: Arc<Store>,
        writer: WriterHandle,
        replicas: ReplicaTable,
        links: Arc<LinkStats>,
        permit: Permit,
    ) -> Self {
        let mut registry = Registry::with_prefix("vectorizer");
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "Version of the program", Info::new(version));
        let answered = Family::default();
        registry.register("http_requests", "Requests answered", answered.clone());
        let refused = Family::default();
        registry.register(
            "http_refusals",
            "Requests refused, by type of error",
            refused.clone(),
        );
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let seconds = Family::new_with_constructor(histogram);
        registry.register(
            "http_request_seconds",
            "Time until the head of the answer",
            seconds.clone(),
        );
        let running = Gauge::<i64, AtomicI64>::default();
        registry.register(
            "http_requests_running",
            "Requests being worked on",
            running.clone(),
        );
        let ports = Ports::registered(&mut registry);
        registry.register_collector(Box::new(Sources {
            store,
            writer,
            replicas,
            links,
            permit,
        }));
        Metrics {
            registry,
            answered,
            refused,
            seconds,
            running,
            ports,
        }
    }

    /// Those of the connections of the port that is called so.
    pub(crate) fn connections(&self, port: &'static str) -> Connections {
        self.ports.of(port)
    }

    /// A request has come.
    pub fn request_begun(&self) -> Running {
        self.running.inc();
        Running(self.running.clone())
    }

    /// A request has been answered. `endpoint` is the path of the table, not that of the request.
    pub fn request_ended(
        &self,
        endpoint: &'static str,
        status: u16,
        error: Option<ErrorCode>,
        took: Duration,
    ) {
        self.answered
            .get_or_create(&Answered { endpoint, status })
            .inc();
        self.seconds
            .get_or_create(&At { endpoint })
            .observe(took.as_secs_f64());
        if let Some(error) = error {
            let error_type = error.as_str();
            self.refused.get_or_create(&Refused { error_type }).inc();
        }
    }

    /// All of them as text.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Where values are read at the moment of a scrape.
struct Sources {
    store: Arc<Store>,
    writer: WriterHandle,
    replicas: ReplicaTable,
    links: Arc<LinkStats>,
    permit: Permit,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Out(&mut encoder);
        self.of_node(&mut out)?;
        self.of_links(&mut out)
    }
}

impl Sources {
    fn of_node(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let state = self.writer.state().borrow().clone();
        let progress = *self.writer.progress().borrow();
        let is_master = state.role == Role::Master;
        let log = self.writer.log();
        out.gauge("is_master", "1 on the master", u64::from(is_master))?;
        out.gauge(
            "writable",
            "1 where writes may be acknowledged",
            u64::from(is_master && !state.handing_over && self.permit.holds()),
        )?;
        out.gauge(
            "has_data",
            "1 where the data is complete",
            u64::from(state.has_data),
        )?;
        out.gauge(
            "fault",
            "1 on a replica that cannot follow its master: GET /replication/status says why",
            u64::from(state.fault.is_some()),
        )?;
        out.gauge(
            "data_differs",
            "1 while this copy is known to be unlike its master's, and is not read",
            u64::from(state.unlike().is_some()),
        )?;
        out.gauge(
            "diverged",
            "1 while this copy holds what its master does not have, and is not read until that is given up",
            u64::from(state.diverged.is_some()),
        )?;
        out.gauge(
            "promised_epoch",
            "Nothing below this epoch is accepted",
            state.promised,
        )?;
        out.gauge(
            "position_epoch",
            "Epoch of the last operation",
            progress.end.position.epoch,
        )?;
        out.gauge(
            "log_end_offset",
            "Offset of the last operation in the log",
            progress.end.position.offset,
        )?;
        out.gauge(
            "log_first_offset",
            "Offset of the oldest operation still in the log",
            log.first_offset(),
        )?;
        out.gauge(
            "journal_bytes",
            "Bytes of the log's files on disk",
            log.disk_bytes(),
        )?;
        self.of_room(out)?;
        out.put(
            "journal_sync_seconds",
            "Times of the log's fsyncs",
            &log.sync_seconds(),
        )?;
        out.counter(
            "fences",
            "Fences that raised the epoch below which nothing is accepted",
            state.fences,
        )?;
        out.gauge(
            "durable_offset",
            "Offset of the last operation on disk",
            progress.durable,
        )?;
        out.gauge(
            "applied_offset",
            "Offset of the last operation applied",
            progress.applied.offset,
        )?;
        let collections = self.store.collections();
        out.gauge("collections", "Collections", collections.len() as u64)?;
        out.gauge(
            "vectors",
            "Vectors in all collections",
            collections.iter().map(|c| c.count).sum(),
        )?;
        out.gauge(
            "store_bytes",
            "Memory of vectors, payloads and ids",
            self.store.bytes(),
        )
    }

    /// Disk and memory, where they say.
    fn of_room(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let room = self.writer.room().borrow().clone();
        out.gauge(
            "disk_free_bytes",
            "Free bytes of the data directory's file system",
            room.free.map_or(0, |space| space.bytes),
        )?;
        out.gauge(
            "disk_bytes",
            "All bytes of it, 0 where it does not say",
            room.free.map_or(0, |space| space.of),
        )?;
        out.gauge(
            "log_max_bytes",
            "Bytes that the log's files may take, 0 for as many as there are",
            room.log_max_bytes.unwrap_or(0),
        )?;
        out.gauge(
            "checkpoint_bytes",
            "Bytes of the checkpoints, which are the data on disk",
            room.checkpoint_bytes,
        )?;
        out.gauge(
            "disk_full",
            "1 while the disk is too full for writes that grow",
            u64::from(room.disk_full.is_some()),
        )?;
        out.gauge(
            "memory_used_bytes",
            "Memory in use, pages of files aside, 0 without a limit",
            room.memory.map_or(0, |memory| memory.used),
        )?;
        out.gauge(
            "memory_limit_bytes",
            "The limit of memory that is closest, 0 without one",
            room.memory.map_or(0, |memory| memory.limit),
        )?;
        out.gauge(
            "memory_full",
            "1 while memory is too full for writes that grow",
            u64::from(room.memory_full.is_some()),
        )
    }

    fn of_links(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let replicas = self.replicas.list();
        let connected = || replicas.iter().filter(|replica| replica.connected);
        out.gauge(
            "replicas_connected",
            "Replicas with a live session",
            connected().count() as u64,
        )?;
        out.gauge(
            "replica_lag_operations_max",
            "Operations that the slowest connected replica lacks",
            connected()
                .map(|replica| replica.lag_operations)
                .max()
                .unwrap_or(0),
        )?;
        out.gauge(
            "replica_lag_milliseconds_max",
            "Age of the oldest operation that a connected replica lacks",
            connected().map(|replica| replica.lag_ms).max().unwrap_or(0),
        )?;
        let covered = self.writer.state().borrow().covered.offset;
        let durable = self.writer.progress().borrow().durable;
        out.gauge(
            "covered_offset",
            "Offset up to which as many replicas as the cluster asks for are known to hold the log",
            covered.max(self.replicas.covered(durable)),
        )?;
        let links = &self.links;
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        out.gauge(
            "link_connected",
            "1 on a replica with a live session",
            u64::from(links.is_connected()),
        )?;
        out.gauge(
            "link_last_sync_seconds",
            "Unix time of the last sync",
            read(&links.last_sync),
        )?;
        out.gauge(
            "snapshot_bytes",
            "Size of the last snapshot sent or received",
            read(&links.snapshot_size),
        )?;
        out.counter(
            "link_sent_bytes",
            "Bytes sent on replication links",
            read(&links.bytes_sent),
        )?;
        out.counter(
            "link_received_bytes",
            "Bytes received on replication links",
            read(&links.bytes_received),
        )?;
        let syncs = [
            ("full", "begun", &links.full_syncs),
            ("full", "completed", &links.full_syncs_completed),
            ("full", "broken_off", &links.full_syncs_broken_off),
            ("partial", "completed", &links.partial_syncs),
        ];
        out.each::<ConstCounter<u64>, _>(
            "syncs",
            "Syncs sent or received, by kind and result",
            syncs.map(|(kind, result, count)| {
                let labels = [("kind", kind.to_owned()), ("result", result.to_owned())];
                (labels, ConstCounter::new(read(count)))
            }),
        )?;
        self.of_replicas(out, &replicas)?;
        out.counter(
            "link_connects",
            "Attempts of this replica to connect",
            read(&links.connects),
        )?;
        out.counter(
            "link_refused",
            "Connections cut off for what they sent",
            read(&links.refused),
        )?;
        out.counter(
            "digest_mismatches",
            "Digests that differed at the same position",
            read(&links.digest_mismatches),
        )
    }
}

impl Sources {
    /// On a master, each replica that it lists.
    fn of_replicas(&self, out: &mut Out<'_, '_>, replicas: &[Replica]) -> fmt::Result {
        let name = |replica: &Replica| {
            [
                ("replica", replica.id.to_string()),
                ("node", replica.node.clone()),
            ]
        };
        type Figure = (&'static str, &'static str, fn(&Replica) -> u64);
        let figures: [Figure; 5] = [
            (
                "replica_connected",
                "1 for a replica with a live session",
                |r| u64::from(r.connected),
            ),
            (
                "replica_lag_operations",
                "Operations that a replica has not applied",
                |r| r.lag_operations,
            ),
            (
                "replica_lag_milliseconds",
                "Age of the oldest operation that a replica has not applied",
                |r| r.lag_ms,
            ),
            (
                "replica_applied_offset",
                "Offset up to which a replica has applied the log",
                |r| r.offset,
            ),
            (
                "replica_durable_offset",
                "Offset up to which a replica has the log on its disk",
                |r| r.durable_offset,
            ),
        ];
        for (metric, help, figure) in figures {
            let values = replicas
                .iter()
                .map(|r| (name(r), ConstGauge::new(figure(r))));
            out.each(metric, help, values)?;
        }
        let states = replicas.iter().flat_map(|replica| {
            ReplicaStatus::ALL.map(|state| {
                let [id, node] = name(replica);
                let labels = [id, node, ("status", state.as_str().to_owned())];
                (labels, ConstGauge::new(u64::from(replica.status == state)))
            })
        });
        out.each(
            "replica_status",
            "1 for the status that a replica has, 0 for the others",
            states,
        )?;
        let sent = self.replicas.sent();
        let sent = replicas.iter().map(|replica| {
            let bytes = sent.get(&replica.id).copied().unwrap_or(0);
            (name(replica), ConstCounter::new(bytes))
        });
        out.each(
            "replica_sent_bytes",
            "Bytes sent to a replica in this epoch",
            sent,
        )
    }
}

struct Out<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Out<'_, '_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.put(name, help, &ConstGauge::new(value))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.put(name, help, &ConstCounter::new(value))
    }

    fn each<M: EncodeMetric + TypedMetric, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'static str, String); N], M)>,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        // Without a value there is nothing to describe.
        if values.peek().is_none() {
            return Ok(());
        }
        let mut encoder = self.0.encode_descriptor(name, help, None, M::TYPE)?;
        for (labels, value) in values {
            value.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn put<M: EncodeMetric + TypedMetric>(
        &mut self,
        name: &str,
        help: &str,
        metric: &M,
    ) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, M::TYPE)?;
        metric.encode(encoder)
    }
}
