//! The replica's side of a session with its master.
//!
//! Nothing is acknowledged that the driver has not reported as done: an [`Output::Append`] is answered by
//! [`Input::Taken`] and, as the disk and the store follow, [`Input::Progress`]; acknowledgements are made from these
//! alone. What arrives must continue the log exactly: offset, epoch and chain.
//!
//! ```text
//! Greeting → Proving (token) → Deciding → Accepting ─┬→ Streaming
//!                                 ↑ └─── Truncating ─┘└→ Loading (snapshot) → Streaming
//! ```

use std::collections::VecDeque;

use bytes::Bytes;
use uuid::Uuid;

use crate::auth::Nonces;
use crate::batch::Batch;
use crate::breakage::{self, Breakage};
use crate::handshake::ReplicaLog;
use crate::message::{
    Ack, Beat, Chunk, FEATURES, Greet, Heartbeat, Message, SnapshotBegin, SnapshotEnd, VERSION,
};
use crate::position::{LogEnd, Position};
use crate::session::{Closed, LinkConfig, Millis, Pulse, frame_limit};

mod greeting;

/// Acknowledgements are at least so far apart; the first after a pause goes out at once.
const ACK_EVERY: Millis = 1;

/// What a session needs from the beginning.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// Identity, token, times.
    pub link: LinkConfig,
    /// This node's cluster; `None` before it has met one.
    pub cluster: Option<Uuid>,
    /// A master of a lower epoch is refused.
    pub promised: u64,
    /// This node's name.
    pub name: String,
    /// Where it can be reached, `host:port`.
    pub advertised: Option<String>,
}

/// This node's log and store when the session begins, or after a cut.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LocalLog {
    /// End, history, whether the data is usable, and whether only a snapshot helps.
    pub log: ReplicaLog,
    /// Offset of the last durable operation.
    pub durable: u64,
    /// Offset of the last applied operation.
    pub applied: u64,
}

/// What happens to the session.
#[derive(Debug)]
pub enum Input {
    /// A message arrived. Not to be given while [`ReplicaSession::is_waiting`].
    Message(Message),
    /// Bytes of one arrived: the master is alive, though slow.
    Bytes,
    /// Answer to [`Output::AcceptMaster`]: the master's epoch is promised durably, older sessions are over.
    Accepted,
    /// Answer to [`Output::Truncate`]: cut, and this is what is left.
    Truncated(LocalLog),
    /// Answer to [`Output::Truncate`]: this node cannot get back to that point by itself.
    CannotTruncate,
    /// Everything appended up to this offset has been taken over by log and store, or by an incoming snapshot's log.
    Taken(u64),
    /// So many of the snapshot's chunks have been taken over.
    ChunksTaken(u32),
    /// How far the data is that this node serves.
    Progress {
        /// Offset of its last durable operation.
        durable: u64,
        /// Its last applied operation.
        applied: Position,
        /// Whether an incoming snapshot has not replaced it yet.
        syncing: bool,
    },
    /// Time has passed: [`ReplicaSession::wake_at`] or more.
    Tick {
        /// Unix time in ms, for the heartbeat.
        clock_ms: u64,
    },
    /// Something that was asked for could not be done, or this session is over for another reason.
    Failed(String),
}

/// What the driver has to do, in this order.
#[derive(Debug)]
pub enum Output {
    /// Send this.
    Send(Message),
    /// Promise the master's epoch durably, before anything of it is taken over.
    AcceptMaster {
        /// Its cluster.
        cluster: Uuid,
        /// Its epoch.
        epoch: u64,
    },
    /// Drop everything after this point; write it aside first.
    Truncate(LogEnd),
    /// Append, then apply.
    Append(Vec<Batch>),
    /// A full sync begins; what is served is served on.
    SnapshotBegin(SnapshotBegin),
    /// Take this chunk over.
    SnapshotChunk {
        /// Counts from 0.
        index: u32,
        /// In the format of the store.
        bytes: Bytes,
    },
    /// The chunks are complete, and their CRC32s were right.
    SnapshotEnd(SnapshotEnd),
    /// The master feeds this node.
    Joined {
        /// Whether by a snapshot.
        full: bool,
    },
    /// Enough replicas hold everything up to this offset, this node among them: it is never given up again.
    Covered(u64),
    /// The digest at this position must be this: where this node will get to, stands, or stood a short while ago. Of
    /// those that it has not got to yet, the first is compared when it gets there, and the others need not be.
    CheckDigest {
        /// The position.
        at: Position,
        /// The master's digest.
        digest: u128,
    },
    /// Close the connection. Nothing follows.
    Close(Closed),
}

enum Phase {
    Greeting,
    Proving(Nonces),
    Deciding,
    Accepting(Box<Decision>),
    Truncating,
    Loading(Loading),
    Streaming,
    Closed,
}

enum Decision {
    Continue(u64),
    Truncate(LogEnd),
    Snapshot(SnapshotBegin),
}

struct Loading {
    start: LogEnd,
    next: u32,
    bytes: u64,
    crc: crc32fast::Hasher,
}

/// One connection, from the replica's side.
pub struct ReplicaSession {
    config: ReplicaConfig,
    local: LocalLog,
    phase: Phase,
    pulse: Pulse,
    out: VecDeque<Output>,
    authenticated: bool,
    accepted: bool,
    /// Where the log will end once everything handed out is appended.
    next: LogEnd,
    /// The master's epoch.
    epoch: u64,
    /// A snapshot has not yet replaced what is served: until this offset is applied, watermarks are not its own.
    installing: Option<u64>,
    ack: Ack,
    ack_sent: Ack,
    ack_at: Option<Millis>,
    master_end: Position,
    covered: u64,
}

impl ReplicaSession {
    /// A session on a connection that was just made. Its greeting comes out at once.
    pub fn new(now: Millis, config: ReplicaConfig, local: LocalLog) -> Self {
        let greet = Greet {
            min_version: VERSION,
            max_version: VERSION,
            features: FEATURES,
            has_token: config.link.token.is_some(),
            nonce: config.link.nonce,
        };
        ReplicaSession {
            local,
            phase: Phase::Greeting,
            pulse: Pulse::new(now, &config.link),
            out: VecDeque::from([Output::Send(Message::Greet(greet))]),
            authenticated: false,
            accepted: false,
            next: LogEnd::default(),
            epoch: 0,
            installing: None,
            ack: Ack::default(),
            ack_sent: Ack::default(),
            ack_at: None,
            master_end: Position::ZERO,
            covered: 0,
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
            Input::Accepted => self.master_accepted(),
            Input::Truncated(local) => self.truncated(local),
            Input::CannotTruncate => {
                let mut local = self.local.clone();
                local.log.wants_snapshot = true;
                self.truncated(local);
            }
            Input::Taken(offset) => self.ack.taken = self.ack.taken.max(offset),
            Input::ChunksTaken(count) => self.ack.chunks = self.ack.chunks.max(count),
            Input::Progress {
                durable,
                applied,
                syncing,
            } => self.progress(durable, applied, syncing),
            Input::Tick { clock_ms } => self.tick(now, clock_ms),
            Input::Failed(what) => self.close(Closed::Local(what)),
        }
        self.acknowledge(now);
    }

    /// The next thing to do, if there is any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to come back with [`Input::Tick`] at the latest.
    pub fn wake_at(&self) -> Millis {
        let wake_at = self.pulse.wake_at();
        match self.ack_at {
            Some(at) if self.is_live() && self.ack != self.ack_sent => wake_at.min(at + ACK_EVERY),
            Some(_) | None => wake_at,
        }
    }

    /// Longest payload to accept from the peer now.
    pub fn frame_limit(&self) -> usize {
        frame_limit(self.authenticated)
    }

    /// Whether an answer of the driver comes first: no message is to be given until then.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Accepting(_) | Phase::Truncating)
    }

    /// Whether operations or a snapshot are flowing.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Streaming | Phase::Loading(_))
    }

    /// Where the master's log ends, as far as known.
    pub fn master_end(&self) -> Position {
        self.master_end
    }

    fn message(&mut self, now: Millis, message: Message) {
        match (&mut self.phase, message) {
            (_, Message::Reject(reason)) => self.close(Closed::Refused(reason)),
            (Phase::Greeting, Message::Challenge(challenge)) => self.challenge(challenge),
            (Phase::Proving(nonces), Message::Proof(proof)) => {
                let nonces = *nonces;
                self.proof(nonces, &proof);
            }
            (Phase::Deciding, Message::Continue(master, from)) => {
                self.decided(now, master, Decision::Continue(from));
            }
            (Phase::Deciding, Message::Truncate(master, to)) => {
                self.decided(now, master, Decision::Truncate(to));
            }
            (Phase::Deciding, Message::SnapshotBegin(master, begin)) => {
                self.decided(now, master, Decision::Snapshot(*begin));
            }
            (Phase::Loading(_), Message::SnapshotChunk(chunk)) => self.chunk(chunk),
            (Phase::Loading(_), Message::SnapshotEnd(end)) => self.snapshot_end(end),
            (Phase::Streaming, Message::Batches(batches)) => self.batches(batches),
            (Phase::Deciding | Phase::Loading(_) | Phase::Streaming, Message::Heartbeat(beat)) => {
                self.heartbeat(beat);
            }
            (_, other) => {
                let text = format!("{} is not expected here", other.name());
                self.close(Closed::Protocol(text));
            }
        }
    }

    fn chunk(&mut self, chunk: Chunk) {
        let Phase::Loading(loading) = &mut self.phase else {
            return;
        };
        let found = crc32fast::hash(&chunk.bytes);
        if chunk.index != loading.next || chunk.crc != found {
            let text = format!(
                "snapshot chunk {} (CRC32 {:08x}) where {} (CRC32 {found:08x}) was expected",
                chunk.index, chunk.crc, loading.next
            );
            return self.close(Closed::Protocol(text));
        }
        loading.next += 1;
        loading.bytes += chunk.bytes.len() as u64;
        loading.crc.update(&found.to_le_bytes());
        self.out.push_back(Output::SnapshotChunk {
            index: chunk.index,
            bytes: chunk.bytes,
        });
    }

    fn snapshot_end(&mut self, end: SnapshotEnd) {
        let Phase::Loading(loading) = &self.phase else {
            return;
        };
        let crc = loading.crc.clone().finalize();
        let start = loading.start;
        let whole = (loading.next, loading.bytes, crc) == (end.chunks, end.bytes, end.crc);
        if !whole || end.exact_from < start.position.offset {
            let text = format!(
                "the snapshot's {} chunks of {} bytes (CRC32 {crc:08x}) are not what its end says: {end:?}",
                loading.next, loading.bytes
            );
            return self.close(Closed::Protocol(text));
        }
        let exact_from = if breakage::on(Breakage::SnapshotExactTooEarly) {
            start.position.offset
        } else {
            end.exact_from
        };
        self.next = start;
        self.ack.taken = start.position.offset;
        self.installing = Some(exact_from);
        self.phase = Phase::Streaming;
        self.out
            .push_back(Output::SnapshotEnd(SnapshotEnd { exact_from, ..end }));
    }

    fn batches(&mut self, batches: Vec<Batch>) {
        for batch in &batches {
            let fits = Some(batch.first_offset()) == self.next.position.offset.checked_add(1)
                && batch.chain_before() == self.next.chain
                && batch.epoch() >= self.next.position.epoch
                && batch.epoch() <= self.epoch;
            if !fits && !breakage::on(Breakage::SkipTruncate) {
                let text = format!(
                    "after {} (chain {:?}), in epoch {}, came {batch:?} (chain before {:?})",
                    self.next.position,
                    self.next.chain,
                    self.epoch,
                    batch.chain_before()
                );
                return self.close(Closed::Mismatch(text));
            }
            self.next = LogEnd {
                position: batch.end(),
                chain: batch.chain_after(),
            };
        }
        self.master_end = self.master_end.max(self.next.position);
        if breakage::on(Breakage::AckBeforeAppend) {
            let offset = self.next.position.offset;
            self.ack = Ack {
                chunks: self.ack.chunks,
                taken: offset,
                durable: offset,
                applied: offset,
            };
        }
        self.out.push_back(Output::Append(batches));
    }

    fn heartbeat(&mut self, beat: Heartbeat) {
        self.master_end = self.master_end.max(beat.end);
        // Until a snapshot is installed, neither says anything of what this node serves.
        if !matches!(self.phase, Phase::Streaming) || self.installing.is_some() {
            return;
        }
        if let Some((at, digest)) = beat.digest {
            self.out.push_back(Output::CheckDigest { at, digest });
        }
        let covered = beat.covered.min(self.ack.durable);
        if covered > self.covered {
            self.covered = covered;
            self.out.push_back(Output::Covered(covered));
        }
    }

    fn progress(&mut self, durable: u64, applied: Position, syncing: bool) {
        if let Some(exact_from) = self.installing {
            if syncing || applied.offset < exact_from {
                return;
            }
            self.installing = None;
        }
        if !matches!(self.phase, Phase::Streaming) {
            return;
        }
        // Never more than what this session knows to be the master's own.
        let (durable, offset) = (
            durable.min(self.ack.taken),
            applied.offset.min(self.ack.taken),
        );
        self.ack.durable = self.ack.durable.max(durable);
        self.ack.applied = self.ack.applied.max(offset);
    }

    fn tick(&mut self, now: Millis, clock_ms: u64) {
        if let Some(reason) = self.pulse.expired(now) {
            return self.close(reason);
        }
        if self.pulse.take_beat(now) {
            self.send(Message::Beat(Beat {
                clock_ms,
                promised: self.config.promised.max(self.epoch),
                ack: self.ack,
            }));
            self.ack_sent = self.ack;
        }
    }

    fn acknowledge(&mut self, now: Millis) {
        // Once everything that came is on disk and applied, somebody may wait for just that, and nothing more comes by itself.
        let end = self.next.position.offset;
        let complete = self.ack.durable == end && self.ack.applied == end;
        let due = complete || self.ack_at.is_none_or(|at| now >= at + ACK_EVERY);
        if self.is_live() && self.ack != self.ack_sent && due {
            self.ack_sent = self.ack;
            self.ack_at = Some(now);
            self.send(Message::Ack(self.ack));
        }
    }

    fn send(&mut self, message: Message) {
        self.out.push_back(Output::Send(message));
    }

    fn close(&mut self, reason: Closed) {
        self.phase = Phase::Closed;
        self.out.push_back(Output::Close(reason));
    }
}
