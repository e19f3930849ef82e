//! The writer's thread: one drain of the queue after another.
//!
//! A drain appends and applies each job at once, makes everything visible to the links, then fsyncs, then releases the
//! replies in log order. A failed write or fsync ends the process: what is on disk is then unknown, and only a restart
//! reads it again (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;
use vectorizer_api::error::ErrorCode;
use vectorizer_api::replication::Role;
use vectorizer_replication::batch::{Batch, HEADER_LEN};
use vectorizer_replication::command::{HandedOver, Standing};
use vectorizer_replication::position::{EpochStart, LogEnd, Position};

use super::follower::Session;
use super::handle::stopping;
use super::room::Rooms;
use super::{
    Fault, ItemResult, Job, NodeState, Progress, Reply, WriteError, WriteReply, WriterHandle,
};
use crate::breakage::{self, Breakage};
use crate::clock::boot_time_ms;
use crate::config::Durability;
use crate::data_dir::{Checkpointer, DataDir, LEAST_FREE, Opened};
use crate::journal::Journal;
use crate::memory::{Gauge, Source};
use crate::permit::Permit;
use crate::role::{RoleFile, RoleState};
use crate::store::{Record, Store};

/// Jobs that may wait; a full queue makes callers wait, which the server's concurrency limit bounds.
const QUEUE: usize = 1024;
/// One drain takes at most this many jobs, so that the first reply does not wait for ever under load.
const DRAIN: usize = 512;
/// How often the thread looks at deadlines when nothing else happens.
const TICK: Duration = Duration::from_millis(100);

/// What the writer needs to know.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// When a write counts as durable.
    pub durability: Durability,
    /// Below this fraction of free disk space, writes that grow are refused.
    pub min_free_fraction: f64,
    /// Where memory in use and its limit are read.
    pub memory: Source,
}

impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions {
            durability: Durability::Always,
            min_free_fraction: LEAST_FREE,
            memory: Source::default(),
        }
    }
}

/// What a start of the writer hands back.
pub struct Start {
    /// The way to the writer.
    pub handle: WriterHandle,
    /// CLOCK_BOOTTIME in ms at which the thread last finished a drain or began to wait: a stuck fsync shows here.
    pub pulse: Arc<AtomicU64>,
}

/// Starts the thread over an opened data directory.
pub fn start(
    data: DataDir,
    opened: Opened,
    permit: Permit,
    boot_id: Uuid,
    options: WriterOptions,
) -> std::io::Result<Start> {
    let (jobs, queue) = mpsc::channel(QUEUE);
    let pulse = Arc::new(AtomicU64::new(boot_time_ms()));
    let memory = options.memory.clone();
    let gauge = Arc::new(Gauge::default());
    gauge.sample(&memory);
    let rooms = Rooms::new(&data, gauge.clone());
    let mut writer = Writer::new(
        data,
        opened,
        permit,
        boot_id,
        options,
        (pulse.clone(), rooms),
    );
    writer.look_at_room();
    let (state, progress, room, log) = (
        writer.state.subscribe(),
        writer.progress.subscribe(),
        writer.rooms.report.subscribe(),
        writer.journal.reader(),
    );
    std::thread::Builder::new()
        .name("writer".into())
        .spawn(move || run(writer, queue))?;
    let ticks = jobs.downgrade();
    tokio::spawn(async move {
        let mut every = tokio::time::interval(TICK);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            every.tick().await;
            // Reads no disk.
            gauge.sample(&memory);
            let Some(jobs) = ticks.upgrade() else { return };
            // A full queue means that the thread is not idle: it needs no waking.
            let _ = jobs.try_send(Job::Tick);
        }
    });
    Ok(Start {
        handle: WriterHandle {
            jobs,
            state,
            progress,
            room,
            log,
        },
        pulse,
    })
}

/// The thread. A panic ends the process while everybody still waits for a reply: what is in the log may survive, and
/// nobody is told otherwise.
fn run(mut writer: Writer, mut queue: mpsc::Receiver<Job>) {
    let stopped = catch_unwind(AssertUnwindSafe(|| writer.run(&mut queue)))
        .unwrap_or_else(|_| abort(&"its thread panicked, which is a bug: please report it"));
    // The data directory is free again, and nothing more is taken, when a stop is answered.
    drop(writer);
    drop(queue);
    if let Some(reply) = stopped {
        // Who asked may have gone.
        let _ = reply.send(());
    }
}

/// What was asked after a stop was not carried out. A write has to be told: of a reply that is lost, nobody knows.
fn refuse_rest(queue: &mut mpsc::Receiver<Job>) {
    queue.close();
    while let Ok(job) = queue.try_recv() {
        if let Job::Write(_, reply) = job {
            let _ = reply.send(Err(WriteError::Api(stopping())));
        }
    }
}

/// A reply that waits until the log is durable at its position.
struct Waiting {
    position: Position,
    results: Vec<ItemResult>,
    reply: Reply<Result<WriteReply, WriteError>>,
}

/// New writes are refused, to be tried again, until this is over.
pub(super) struct Hold {
    pub(super) plan: HandedOver,
    /// A handover that is given again takes the hold over: the earlier command can neither end nor use it.
    pub(super) number: u64,
    pub(super) until: Instant,
}

pub(super) struct Writer {
    pub(super) data: DataDir,
    pub(super) journal: Journal,
    pub(super) store: Arc<Store>,
    pub(super) role: RoleFile,
    pub(super) checkpoints: Checkpointer,
    pub(super) permit: Permit,
    pub(super) options: WriterOptions,
    pub(super) rooms: Rooms,
    boot_id: Uuid,
    /// The epoch in which this process writes; `None` unless it is the master.
    pub(super) writing: Option<u64>,
    pub(super) session: Option<Session>,
    pub(super) sessions_begun: u64,
    pub(super) hold: Option<Hold>,
    pub(super) holds_begun: u64,
    pub(super) handed_over_at: Option<Instant>,
    pub(super) handed_over_end: Option<Position>,
    master_since: Option<Instant>,
    pub(super) fault: Option<Fault>,
    pub(super) diverged: Option<String>,
    pub(super) fences: u64,
    durable: u64,
    synced_at: Instant,
    waiting: VecDeque<Waiting>,
    pulse: Arc<AtomicU64>,
    state: watch::Sender<NodeState>,
    progress: watch::Sender<Progress>,
}

impl Writer {
    fn new(
        data: DataDir,
        opened: Opened,
        permit: Permit,
        boot_id: Uuid,
        options: WriterOptions,
        (pulse, rooms): (Arc<AtomicU64>, Rooms),
    ) -> Self {
        let Opened {
            store,
            journal,
            role,
            end,
        } = opened;
        let checkpoints = data.start_checkpoints(role.state(), store.clone(), journal.reader());
        let progress = Progress {
            end,
            durable: end.position.offset,
            applied: end.position,
        };
        // A restart in the middle of giving it up.
        let diverged = role.state().diverged.clone();
        let state = watch::Sender::new(NodeState::unknown(role.state().node_id, boot_id));
        let writer = Writer {
            data,
            journal,
            store,
            role,
            checkpoints,
            permit,
            options,
            rooms,
            boot_id,
            writing: None,
            session: None,
            sessions_begun: 0,
            hold: None,
            holds_begun: 0,
            handed_over_at: None,
            handed_over_end: None,
            master_since: None,
            fault: None,
            diverged,
            fences: 0,
            durable: end.position.offset,
            synced_at: Instant::now(),
            waiting: VecDeque::new(),
            pulse,
            state,
            progress: watch::Sender::new(progress),
        };
        writer.publish_state();
        writer
    }

    /// Returns the reply to a stop; `None` when nobody is left who could ask for anything.
    fn run(&mut self, queue: &mut mpsc::Receiver<Job>) -> Option<Reply<()>> {
        while let Some(first) = queue.blocking_recv() {
            let mut stopped = self.take(first);
            for _ in 1..DRAIN {
                if stopped.is_some() {
                    break;
                }
                match queue.try_recv() {
                    Ok(job) => stopped = self.take(job),
                    Err(_) => break,
                }
            }
            self.finish_drain(stopped.is_some());
            self.pulse.store(boot_time_ms(), Ordering::Relaxed);
            if stopped.is_some() {
                refuse_rest(queue);
                return stopped;
            }
        }
        None
    }

    /// Carries out one job up to, not including, its durability. Returns the reply to a stop.
    fn take(&mut self, job: Job) -> Option<Reply<()>> {
        // A receiver that has gone away does not undo what it asked for: every send below may go nowhere.
        match job {
            Job::Write(request, reply) => match self.write(request) {
                Ok((position, results)) => self.waiting.push_back(Waiting {
                    position,
                    results,
                    reply,
                }),
                Err(error) => drop(reply.send(Err(error))),
            },
            Job::AcceptMaster {
                epoch,
                cluster,
                reply,
            } => drop(reply.send(self.accept_master(epoch, cluster))),
            Job::Replicate {
                session,
                batches,
                reply,
            } => drop(reply.send(self.replicate(session, &batches))),
            Job::Truncate { session, to, reply } => drop(reply.send(self.truncate(session, to))),
            Job::Continues { session, reply } => drop(reply.send(self.continues(session))),
            Job::SnapshotBegin {
                session,
                header,
                reply,
            } => drop(reply.send(self.snapshot_begin(session, *header))),
            Job::SnapshotChunk {
                session,
                index,
                bytes,
                reply,
            } => {
                drop(reply.send(self.snapshot_chunk(session, index, &bytes)));
            }
            Job::SnapshotEnd {
                session,
                trailer,
                reply,
            } => drop(reply.send(self.snapshot_end(session, trailer))),
            Job::Covered {
                session,
                offset,
                reply,
            } => drop(reply.send(self.covered(session, offset))),
            Job::OwnCovered { epoch, offset } => self.own_covered(epoch, offset),
            Job::Unlike(found, reply) => {
                self.unlike(found);
                let _ = reply.send(());
            }
            Job::Command(command, reply) => drop(reply.send(self.command(&command))),
            Job::HoldWrites {
                cluster,
                plan,
                until,
                reply,
            } => {
                drop(reply.send(self.hold_writes(cluster, plan, until)));
            }
            Job::ReleaseWrites(number) => self.release_writes(number),
            Job::FinishHandover(plan, held, reply) => {
                drop(reply.send(self.finish_handover(plan, held)));
            }
            Job::Settle(reply) => {
                self.journal.publish();
                self.publish_progress();
                // Who asked may have gone.
                let _ = reply.send(());
            }
            Job::Tick => self.tick(),
            Job::Stop(reply) => return Some(reply),
        }
        None
    }

    fn tick(&mut self) {
        if self
            .hold
            .as_ref()
            .is_some_and(|h| Instant::now() >= h.until)
        {
            tracing::warn!("handover missed its deadline: writes go on here");
            self.hold = None;
            self.publish_state();
        }
        self.look_at_room();
    }

    /// Publishes, syncs, releases replies, in this order.
    fn finish_drain(&mut self, last: bool) {
        self.journal.publish();
        self.publish_progress();
        let end = self.journal.end().position.offset;
        let due = match self.options.durability {
            Durability::Always => true,
            Durability::Interval => last || self.synced_at.elapsed() >= Duration::from_secs(1),
            Durability::Os => last,
        };
        if due && self.journal.durable() < end {
            self.sync_or_abort();
        } else if self.options.durability != Durability::Always {
            self.durable = end;
        }
        self.publish_progress();
        self.release();
        if last {
            self.checkpoints.stop();
            if let Err(error) = self.journal.close() {
                abort(&error);
            }
        }
    }

    /// Makes everything appended durable. Does not return when that fails.
    pub(super) fn sync_or_abort(&mut self) {
        if !breakage::on(Breakage::SkipFsync)
            && let Err(error) = self.journal.sync()
        {
            abort(&error);
        }
        self.durable = self.journal.end().position.offset;
        self.synced_at = Instant::now();
    }

    fn release(&mut self) {
        while self
            .waiting
            .front()
            .is_some_and(|w| w.position.offset <= self.durable)
        {
            let Some(Waiting {
                position,
                results,
                reply,
            }) = self.waiting.pop_front()
            else {
                return;
            };
            // Checked at each reply: a process that was frozen meanwhile is no longer the master, and a fence may have
            // come since the append.
            let answer = if self.writing == Some(position.epoch) && self.permit.holds() {
                Ok(WriteReply { position, results })
            } else {
                Err(WriteError::new(
                    ErrorCode::OutcomeUnknown,
                    format!(
                        "this node lost its mastership before position {position} was confirmed: read it back"
                    ),
                ))
            };
            let _ = reply.send(answer);
        }
    }

    /// Appends one batch to the journal and applies it. Only a bug or a broken disk makes this fail.
    ///
    /// `records` holds `count` of them after [`HEADER_LEN`] bytes of room for the batch's header.
    pub(super) fn append_own(&mut self, epoch: u64, count: u32, records: BytesMut) -> Position {
        let end = self.journal.end();
        let first = end.position.offset + 1;
        let batch = Batch::seal(epoch, first, count, unix_time_ms(), end.chain, records)
            .unwrap_or_else(|error| abort(&error));
        if let Err(error) = self.journal.append(&batch) {
            abort(&error);
        }
        self.note_written(batch.bytes().len());
        if let Err(error) = self.store.apply_batch(&batch) {
            abort(&format!(
                "{batch:?} was validated and cannot be applied: {error}"
            ));
        }
        batch.end()
    }

    /// Opens `epoch`, as decided: role and history are durable before its first record is appended.
    pub(super) fn open_epoch(&mut self, epoch: u64, role: impl FnOnce(&mut RoleState)) {
        let LogEnd { position, chain } = self.journal.end();
        self.save_role(|state| {
            role(state);
            state.has_data = true;
            state.diverged = None;
            // An epoch that was opened by a process which died before its first record.
            state.history.truncate(position.offset);
            state.history.open(EpochStart {
                epoch,
                first_offset: position.offset + 1,
                chain,
            });
        });
        self.hold = None;
        self.handed_over_at = None;
        self.handed_over_end = None;
        self.fault = None;
        self.diverged = None;
        self.writing = Some(epoch);
        self.master_since = Some(Instant::now());
        let record = Record::Epoch {
            epoch,
            node: self.role.state().node_id,
        };
        let mut records = BytesMut::zeroed(HEADER_LEN);
        record.encode(&mut records);
        let position = self.append_own(epoch, 1, records);
        self.sync_or_abort();
        tracing::info!(%position, "opened an epoch as master");
        // Who sees the role sees the epoch's first record as well: the command's answer carries both.
        self.publish_progress();
        self.publish_state();
    }

    /// Stops writing. Replies that wait are answered as unknown by [`Self::release`].
    pub(super) fn stop_writing(&mut self) {
        self.writing = None;
        self.hold = None;
    }

    /// Changes the role, durably. Does not return when that fails.
    pub(super) fn save_role(&mut self, change: impl FnOnce(&mut RoleState)) {
        if let Err(error) = self.role.update(change) {
            abort(&error);
        }
    }

    pub(super) fn publish_state(&self) {
        let own = self.role.state();
        let (role, master_address, master_url) = match &own.standing {
            Standing::Master { .. } if self.writing.is_some() => (Role::Master, None, None),
            Standing::Master { .. } | Standing::Unassigned => (Role::Unassigned, None, None),
            Standing::Replica {
                master_address,
                master_url,
                ..
            } => (
                Role::Replica,
                Some(master_address.clone()),
                master_url.clone(),
            ),
        };
        let syncing = self.session.as_ref().is_some_and(Session::is_syncing);
        self.state.send_replace(NodeState {
            node_id: own.node_id,
            boot_id: self.boot_id,
            cluster: own.cluster,
            role,
            master_epoch: self.writing.unwrap_or(0),
            promised: own.promised,
            master_address,
            master_url,
            history: own.history.clone(),
            covered: own.covered,
            has_data: own.has_data,
            syncing,
            handing_over: self.hold.is_some(),
            master_since: self.master_since.filter(|_| self.writing.is_some()),
            handed_over_at: self.handed_over_at,
            handed_over_end: self.handed_over_end,
            fault: self.fault.clone(),
            diverged: self.diverged.clone(),
            fences: self.fences,
        });
    }

    pub(super) fn publish_progress(&self) {
        let progress = Progress {
            end: self.journal.end(),
            durable: self.durable,
            applied: self.store.applied(),
        };
        self.progress
            .send_if_modified(|old| std::mem::replace(old, progress) != progress);
    }

    /// After the journal was replaced or cut: everything in it is durable.
    pub(super) fn reset_durable(&mut self) {
        self.durable = self.journal.end().position.offset;
        self.publish_progress();
    }

    /// After a full sync: the checkpoints of the new generation.
    pub(super) fn restart_checkpoints(&mut self) {
        self.checkpoints = self.data.start_checkpoints(
            self.role.state(),
            self.store.clone(),
            self.journal.reader(),
        );
    }
}

/// Ends the process: going on could acknowledge what is not on disk, or diverge.
pub(super) fn abort(error: &dyn std::fmt::Display) -> ! {
    tracing::error!(%error, "the writer cannot go on; the process ends so that a restart reads what is on disk");
    eprintln!("vectorizer-node: the writer cannot go on: {error}");
    std::process::abort()
}

pub(super) fn unix_time_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}
