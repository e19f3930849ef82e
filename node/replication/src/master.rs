//! The master's side of a session with one replica.
//!
//! It pulls: it asks its driver for operations only as long as what is under way to this replica, and not yet taken
//! there, stays within a window. A slow or stuck replica therefore costs a bounded amount of memory, and nothing that
//! it does or omits reaches the master's writers.
//!
//! ```text
//! Greeting → Proving (token) → Hello ─→ LookingUp ─→ Streaming
//!                               ↑ └── Truncate ──┘└→ SnapshotStarting → Snapshot → Streaming
//! ```

use std::collections::VecDeque;

use bytes::Bytes;
use uuid::Uuid;

use crate::auth::{Nonces, Token};
use crate::batch::Batch;
use crate::breakage::{self, Breakage};
use crate::frame::MAX_AFTER_AUTH;
use crate::handshake::{MasterLog, Why};
use crate::message::{
    Ack, Chunk, Heartbeat, Hello, Master, Message, Reject, SnapshotBegin, SnapshotEnd,
};
use crate::position::{Chain, History, LogEnd, Position};
use crate::session::{Closed, LinkConfig, Millis, Pulse, frame_limit};

mod flight;
mod greeting;

use flight::Flight;

/// Most bytes of operations asked for at once: small enough that a heartbeat never waits long behind them.
pub const READ_BYTES: usize = 1024 * 1024;
/// Bytes under way to one replica by default.
pub const DEFAULT_WINDOW: usize = 12 * 1024 * 1024;
/// Length that a snapshot's next chunk is expected to have at most.
const CHUNK_ROOM: usize = 4 * 1024 * 1024;

/// What this node is to those who connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Serving {
    /// The writing master of an epoch.
    Master {
        /// Its cluster.
        cluster: Uuid,
        /// Its epoch.
        epoch: u64,
        /// The epochs in its log, its own included.
        history: History,
    },
    /// Anything else.
    NotMaster {
        /// Whom it follows.
        address: Option<String>,
    },
}

/// What a session needs from the beginning.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// Identity, token, times.
    pub link: LinkConfig,
    /// The token before this one, which is taken for proof as well: a change reaches both sides at different times.
    pub former: Option<Token>,
    /// What this node is.
    pub serving: Serving,
    /// Most bytes under way and not yet taken by the replica. A single batch or chunk may exceed it.
    pub window: usize,
}

/// The master's log as it is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogView {
    /// First offset held.
    pub first_offset: u64,
    /// Its end.
    pub end: LogEnd,
    /// Offset of its last durable operation.
    pub durable: u64,
    /// The offset that enough replicas have acknowledged; 0 without a write concern.
    pub covered: u64,
}

/// Who is at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Durable identity.
    pub node_id: Uuid,
    /// Identity of its process.
    pub boot_id: Uuid,
    /// Its name.
    pub name: String,
    /// Where it says that it can be reached, `host:port`.
    pub advertised: Option<String>,
}

/// How a session brings its replica up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncKind {
    /// From the log.
    Partial,
    /// By a snapshot, and why.
    Full(Why),
}

/// What happens to the session.
#[derive(Debug)]
pub enum Input {
    /// A message arrived.
    Message(Message),
    /// Bytes of one arrived: the peer is alive, though slow.
    Bytes,
    /// The log is, or has become, like this.
    Log(LogView),
    /// Answer to [`Output::LookUpChain`]: `None` when no batch ends there.
    Chain(Option<Chain>),
    /// Answer to [`Output::ReadLog`].
    Batches(Vec<Batch>),
    /// Answer to [`Output::StartSnapshot`]: operations after its start are held until the session ends.
    SnapshotStarted(SnapshotBegin),
    /// Answer to [`Output::NextChunk`].
    Chunk(Bytes),
    /// Answer to [`Output::NextChunk`]: there are no more.
    SnapshotDone {
        /// Where the log ended when the scan ended.
        exact_from: u64,
        /// The store's own checksum of the scan.
        store_crc: u32,
        /// Digest of all data where the log ended then.
        digest: u128,
    },
    /// Time has passed: [`MasterSession::wake_at`] or more.
    Tick {
        /// Unix time in ms, for the heartbeat.
        clock_ms: u64,
        /// Digest of all data and its position, for the heartbeat.
        digest: Option<(Position, u128)>,
    },
    /// This node no longer serves as it did.
    Stop(Reject),
    /// Something that was asked for could not be done.
    Failed(String),
}

/// What the driver has to do, in this order.
#[derive(Debug)]
pub enum Output {
    /// Send this.
    Send(Message),
    /// Find the chain after the batch that ends at this offset.
    LookUpChain(u64),
    /// Read operations from this offset, at most about so many bytes, at least one batch.
    ReadLog {
        /// First offset.
        from: u64,
        /// About how much.
        max_bytes: usize,
    },
    /// Begin a scan, and hold the log from its start on.
    StartSnapshot,
    /// Supply the scan's next chunk.
    NextChunk,
    /// The replica has proven itself, and is being fed from here on.
    Joined {
        /// Who it is.
        peer: Peer,
        /// How it is brought up to date.
        kind: SyncKind,
        /// Whether it has no usable data until [`Output::Synced`].
        syncing: bool,
        /// Its watermarks to begin with.
        ack: Ack,
    },
    /// Its watermarks have moved.
    Acked(Ack),
    /// Its first sync is complete.
    Synced,
    /// It has promised this epoch, above ours: we are no longer master.
    Deposed(u64),
    /// Close the connection. Nothing follows.
    Close(Closed),
}

enum Phase {
    Greeting,
    Proving(Nonces),
    Hello,
    LookingUp { hello: Box<Hello>, log: MasterLog },
    SnapshotStarting,
    Snapshot(Scan),
    Streaming,
    Closed,
}

#[derive(Default)]
struct Scan {
    next: u32,
    bytes: u64,
    crc: crc32fast::Hasher,
    asked: bool,
}

/// One connection, from the master's side.
pub struct MasterSession {
    config: MasterConfig,
    phase: Phase,
    pulse: Pulse,
    out: VecDeque<Output>,
    authenticated: bool,
    hellos: u32,
    log: LogView,
    /// Last offset sent.
    sent: u64,
    /// A [`Output::ReadLog`] is not answered yet.
    reading: bool,
    operations: Flight,
    chunks: Flight,
    acked: Ack,
    /// The first sync is complete when this offset is applied.
    goal: Option<u64>,
}

impl MasterSession {
    /// A session for a connection that was just accepted.
    pub fn new(now: Millis, config: MasterConfig, log: LogView) -> Self {
        MasterSession {
            phase: Phase::Greeting,
            pulse: Pulse::new(now, &config.link),
            out: VecDeque::new(),
            authenticated: false,
            hellos: 0,
            log,
            sent: 0,
            reading: false,
            operations: Flight::default(),
            chunks: Flight::default(),
            acked: Ack::default(),
            goal: None,
            config,
        }
    }

    /// Takes an input. What follows from it comes out of [`Self::poll_output`].
    pub fn handle(&mut self, now: Millis, input: Input) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        match input {
            Input::Message(message) => {
                self.pulse.hear(now);
                self.message(now, message);
            }
            Input::Bytes if self.authenticated => self.pulse.hear(now),
            Input::Bytes => {}
            Input::Log(view) => self.log = view,
            Input::Chain(chain) => self.chain_found(chain),
            Input::Batches(batches) => self.batches(batches),
            Input::SnapshotStarted(begin) => self.snapshot_started(begin),
            Input::Chunk(bytes) => self.chunk(bytes),
            Input::SnapshotDone {
                exact_from,
                store_crc,
                digest,
            } => self.snapshot_done(exact_from, store_crc, digest),
            Input::Tick { clock_ms, digest } => self.tick(now, clock_ms, digest),
            Input::Stop(reason) => self.reject(reason),
            Input::Failed(what) => self.close(Closed::Local(what)),
        }
        self.pump();
    }

    /// The next thing to do, if there is any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to come back with [`Input::Tick`] at the latest.
    pub fn wake_at(&self) -> Millis {
        self.pulse.wake_at()
    }

    /// Longest payload to accept from the peer now.
    pub fn frame_limit(&self) -> usize {
        frame_limit(self.authenticated)
    }

    /// Bytes under way that the replica has not taken yet.
    pub fn in_flight(&self) -> usize {
        self.operations.bytes() + self.chunks.bytes()
    }

    fn message(&mut self, now: Millis, message: Message) {
        match (&self.phase, message) {
            (Phase::Greeting, Message::Greet(greet)) => self.greet(greet),
            (Phase::Proving(nonces), Message::Proof(proof)) => {
                let nonces = *nonces;
                self.proof(nonces, &proof);
            }
            (Phase::Hello, Message::Hello(hello)) => self.hello(now, hello),
            (Phase::Hello, Message::Ack(_) | Message::Beat(_)) if self.hellos > 0 => {}
            (
                Phase::LookingUp { .. }
                | Phase::SnapshotStarting
                | Phase::Snapshot(_)
                | Phase::Streaming,
                Message::Ack(ack),
            ) => self.ack(ack),
            (
                Phase::LookingUp { .. }
                | Phase::SnapshotStarting
                | Phase::Snapshot(_)
                | Phase::Streaming,
                Message::Beat(beat),
            ) => {
                if !self.deposed_by(beat.promised) {
                    self.ack(beat.ack);
                }
            }
            (_, other) => {
                let text = format!("{} is not expected here", other.name());
                self.reject(Reject::Protocol(text));
            }
        }
    }

    fn snapshot_started(&mut self, begin: SnapshotBegin) {
        let (Phase::SnapshotStarting, Some(master)) = (&self.phase, self.as_master()) else {
            return;
        };
        self.sent = begin.start.position.offset;
        self.send(Message::SnapshotBegin(master, Box::new(begin)));
        self.phase = Phase::Snapshot(Scan::default());
    }

    fn chunk(&mut self, bytes: Bytes) {
        let Phase::Snapshot(scan) = &mut self.phase else {
            return;
        };
        let crc = crc32fast::hash(&bytes);
        let index = scan.next;
        scan.next += 1;
        scan.bytes += bytes.len() as u64;
        scan.crc.update(&crc.to_le_bytes());
        scan.asked = false;
        self.chunks.push(u64::from(index) + 1, bytes.len());
        self.send(Message::SnapshotChunk(Chunk { index, crc, bytes }));
    }

    fn snapshot_done(&mut self, exact_from: u64, store_crc: u32, digest: u128) {
        let Phase::Snapshot(scan) = &self.phase else {
            return;
        };
        let end = SnapshotEnd {
            chunks: scan.next,
            bytes: scan.bytes,
            crc: scan.crc.clone().finalize(),
            store_crc,
            exact_from,
            digest,
        };
        self.goal = Some(exact_from);
        self.phase = Phase::Streaming;
        self.send(Message::SnapshotEnd(end));
    }

    fn batches(&mut self, batches: Vec<Batch>) {
        self.reading = false;
        let mut frame = Vec::new();
        let mut frame_len = 0;
        for batch in batches {
            if batch.first_offset() != self.sent + 1 {
                let found = batch.first_offset();
                let text = format!("the log gave offset {found} after {}", self.sent);
                return self.close(Closed::Local(text));
            }
            let len = batch.bytes().len();
            if frame_len + len > MAX_AFTER_AUTH {
                self.send_batches(std::mem::take(&mut frame), frame_len);
                frame_len = 0;
            }
            self.sent = batch.last_offset();
            frame_len += len;
            frame.push(batch);
        }
        self.send_batches(frame, frame_len);
    }

    fn send_batches(&mut self, batches: Vec<Batch>, bytes: usize) {
        if let Some(last) = batches.last() {
            self.operations.push(last.last_offset(), bytes);
            self.send(Message::Batches(batches));
        }
    }

    fn ack(&mut self, ack: Ack) {
        let highest = ack.taken.max(ack.durable).max(ack.applied);
        if highest > self.sent || u64::from(ack.chunks) > self.chunks.pushed() {
            let text = format!(
                "offset {highest} is acknowledged, only {} was sent",
                self.sent
            );
            return self.reject(Reject::Protocol(text));
        }
        self.operations.release(ack.taken);
        self.chunks.release(u64::from(ack.chunks));
        // Cumulative: an older one that comes late says nothing new.
        let next = Ack {
            chunks: self.acked.chunks.max(ack.chunks),
            taken: self.acked.taken.max(ack.taken),
            durable: self.acked.durable.max(ack.durable),
            applied: self.acked.applied.max(ack.applied),
        };
        if next != self.acked {
            self.acked = next;
            self.out.push_back(Output::Acked(next));
        }
        if self.goal.is_some_and(|goal| next.applied >= goal) {
            self.goal = None;
            self.out.push_back(Output::Synced);
        }
    }

    fn tick(&mut self, now: Millis, clock_ms: u64, digest: Option<(Position, u128)>) {
        if let Some(reason) = self.pulse.expired(now) {
            return self.close(reason);
        }
        if self.pulse.take_beat(now) {
            self.send(Message::Heartbeat(Heartbeat {
                clock_ms,
                end: self.log.end.position,
                durable: self.log.durable,
                covered: self.log.covered,
                digest,
            }));
        }
    }

    /// Asks for as much as the window has room for.
    fn pump(&mut self) {
        let under_way = self.in_flight();
        let unbounded = breakage::on(Breakage::UnboundedWindow);
        let room = if unbounded {
            usize::MAX
        } else {
            self.config.window.saturating_sub(under_way)
        };
        match &mut self.phase {
            Phase::Streaming => {
                let behind = self.sent < self.log.end.position.offset;
                let room_for_marks = self.operations.has_room() || unbounded;
                if behind && !self.reading && room > 0 && room_for_marks {
                    self.reading = true;
                    self.out.push_back(Output::ReadLog {
                        from: self.sent + 1,
                        max_bytes: room.min(READ_BYTES),
                    });
                }
            }
            Phase::Snapshot(scan) => {
                if !scan.asked && (room >= CHUNK_ROOM || under_way == 0) {
                    scan.asked = true;
                    self.out.push_back(Output::NextChunk);
                }
            }
            Phase::Greeting
            | Phase::Proving(_)
            | Phase::Hello
            | Phase::LookingUp { .. }
            | Phase::SnapshotStarting
            | Phase::Closed => {}
        }
    }

    fn as_master(&self) -> Option<Master> {
        match &self.config.serving {
            Serving::Master { cluster, epoch, .. } => Some(Master {
                cluster: *cluster,
                epoch: *epoch,
                node_id: self.config.link.node_id,
                end: self.log.end.position,
            }),
            Serving::NotMaster { .. } => None,
        }
    }

    fn refuse_as_not_master(&mut self) {
        let address = match &self.config.serving {
            Serving::NotMaster { address } => address.clone(),
            Serving::Master { .. } => None,
        };
        self.reject(Reject::NotMaster(address));
    }

    fn send(&mut self, message: Message) {
        self.out.push_back(Output::Send(message));
    }

    fn reject(&mut self, reason: Reject) {
        self.send(Message::Reject(reason.clone()));
        self.close(Closed::Refusing(reason));
    }

    fn close(&mut self, reason: Closed) {
        self.phase = Phase::Closed;
        self.out.push_back(Output::Close(reason));
    }
}
