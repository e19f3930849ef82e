//! One connection from the replica's side.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use vectorizer_replication::auth::Token;
use vectorizer_replication::handshake::ReplicaLog;
use vectorizer_replication::message::Reject;
use vectorizer_replication::position::Position;
use vectorizer_replication::replica::{Input, LocalLog, Output, ReplicaConfig, ReplicaSession};
use vectorizer_replication::session::Closed;

use super::follow::Target;
use super::sink::{Done, Job, Sink};
use super::wire::{Inbox, Outbox};
use super::{LinkContext, LinkStats};
use crate::clock;
use crate::store::{Digest, DigestAt, SnapshotHeader, SnapshotTrailer};
use crate::writer::{NodeState, SinkError, TruncateOutcome};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Who asks for more patience than this has it asked for by somebody else.
const LONGEST_BUSY: Duration = Duration::from_secs(30);

/// How a session went.
pub(super) struct Outcome {
    /// Whether the master fed this node.
    pub(super) joined: bool,
    /// Whether this node had a usable copy of the master's data at the end of it.
    pub(super) synced: bool,
    /// Why it ended.
    pub(super) end: End,
}

/// Why a session ended, as far as the next one has to know.
#[derive(Debug)]
pub(super) enum End {
    /// There is another master to follow, or none.
    Changed,
    /// The connection, the session or the master failed.
    Lost(String),
    /// One side does not know the other's token.
    Unauthenticated(String),
    /// The master asks for patience.
    Busy(Duration),
    /// What the master sends does not fit what this node holds.
    Broken(String),
    /// At the same position this node holds other data.
    Unlike(String),
}

impl End {
    /// What is wrong, unless it is meant to be so.
    pub(super) fn trouble(&self) -> Option<String> {
        match self {
            End::Changed => None,
            End::Lost(why) | End::Unauthenticated(why) | End::Broken(why) | End::Unlike(why) => {
                Some(why.clone())
            }
            End::Busy(wait) => Some(format!(
                "the master is busy and asks for {} ms",
                wait.as_millis()
            )),
        }
    }
}

/// Makes one connection and follows it to its end. After that nothing of it changes the log any more.
pub(super) async fn receive(
    context: &LinkContext,
    target: &Target,
    state: &mut watch::Receiver<NodeState>,
    token: Option<Token>,
    wants_snapshot: bool,
) -> Outcome {
    let limit = CONNECT_TIMEOUT.min(context.options.timeout);
    let stream = tokio::select! {
        made = tokio::time::timeout(limit, TcpStream::connect(&target.address)) => made,
        _ = other_target(state, target) => return Outcome::before_joining(End::Changed),
    };
    let end = match stream {
        Ok(Ok(stream)) => {
            let session = Receive::new(context, target, stream, token, wants_snapshot);
            return session.run(state).await;
        }
        Ok(Err(error)) => End::Lost(format!("no connection: {error}")),
        Err(_) => End::Lost(format!("no connection within {limit:?}")),
    };
    Outcome::before_joining(end)
}

impl Outcome {
    fn before_joining(end: End) -> Self {
        Outcome {
            joined: false,
            synced: false,
            end,
        }
    }
}

struct Receive<'a> {
    context: &'a LinkContext,
    target: &'a Target,
    inbox: Inbox,
    outbox: Outbox,
    session: ReplicaSession,
    sink: Sink,
    joined: bool,
    /// A snapshot has begun and was not handed over to its end.
    loading: bool,
    /// Whether a full sync of this session is not complete yet.
    copying: bool,
    /// A position and the master's digest there, to be compared once this node is there.
    digest: Option<(Position, u128)>,
    /// The epoch that the master was accepted with; from then on this node promises as much.
    epoch: Option<u64>,
    end: Option<End>,
}

impl<'a> Receive<'a> {
    fn new(
        context: &'a LinkContext,
        target: &'a Target,
        stream: TcpStream,
        token: Option<Token>,
        wants_snapshot: bool,
    ) -> Self {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "replication: TCP_NODELAY");
        }
        let (read, write) = stream.into_split();
        let state = context.writer.state();
        let config = ReplicaConfig {
            link: context.link_config(token),
            cluster: state.borrow().cluster,
            promised: target.promised,
            name: context.options.name.clone(),
            advertised: context.options.advertised.clone(),
        };
        let local = local_log(context, wants_snapshot);
        Receive {
            context,
            target,
            inbox: Inbox::new(read),
            outbox: Outbox::new(write),
            session: ReplicaSession::new(clock::now(), config, local),
            sink: Sink::new(context.writer.clone()),
            joined: false,
            loading: false,
            copying: false,
            digest: None,
            epoch: None,
            end: None,
        }
    }

    async fn run(mut self, state: &mut watch::Receiver<NodeState>) -> Outcome {
        let end = match self.follow(state).await {
            Ok(end) => end,
            Err(error) => End::Lost(error.to_string()),
        };
        // Whatever the writer still does for this session is part of what the next greeting says.
        self.sink.finish().await;
        let syncing = self.loading || state.borrow().syncing;
        if self.copying {
            let stats = &self.context.stats;
            let counter = match syncing {
                true => &stats.full_syncs_broken_off,
                false => &stats.full_syncs_completed,
            };
            LinkStats::add(counter, 1);
        }
        Outcome {
            joined: self.joined,
            synced: self.joined && !syncing,
            end,
        }
    }

    async fn follow(&mut self, state: &mut watch::Receiver<NodeState>) -> io::Result<End> {
        let mut progress = self.context.writer.progress();
        loop {
            self.carry_out();
            if let Some(end) = self.end.take() {
                return Ok(end);
            }
            let wake_at = clock::instant(self.session.wake_at());
            let reads = self.sink.has_room() && !self.session.is_waiting();
            tokio::select! {
                read = self.inbox.fill(), if reads => {
                    let count = read?;
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    LinkStats::add(&self.context.stats.bytes_received, count as u64);
                    self.session.handle(clock::now(), Input::Bytes);
                    self.take_messages();
                }
                written = self.outbox.write_some(), if !self.outbox.is_empty() => {
                    LinkStats::add(&self.context.stats.bytes_sent, written? as u64);
                }
                done = self.sink.next() => {
                    self.done(done);
                    // What was read meanwhile waits in the inbox.
                    self.take_messages();
                }
                changed = progress.changed() => {
                    if changed.is_err() {
                        return Ok(End::Changed);
                    }
                    progress.mark_unchanged();
                    self.progress();
                }
                changed = state.changed() => {
                    if changed.is_err() {
                        return Ok(End::Changed);
                    }
                    if !self.is_still_right(&state.borrow_and_update()) {
                        return Ok(End::Changed);
                    }
                    self.progress();
                }
                () = tokio::time::sleep_until(wake_at) => {
                    if !reads {
                        // This node is the one that does not listen: the master's silence means nothing.
                        self.session.handle(clock::now(), Input::Bytes);
                    }
                    let tick = Input::Tick { clock_ms: clock::unix_ms() };
                    self.session.handle(clock::now(), tick);
                }
            }
        }
    }

    /// Whether a node in this state still follows this master in this epoch.
    fn is_still_right(&self, state: &NodeState) -> bool {
        Target::of(state).is_some_and(|now| {
            let promised = self.epoch.unwrap_or(self.target.promised);
            now.address == self.target.address && now.promised <= promised.max(self.target.promised)
        })
    }

    fn take_messages(&mut self) {
        while self.end.is_none() && self.sink.has_room() && !self.session.is_waiting() {
            match self.inbox.next(self.session.frame_limit()) {
                Ok(Some(message)) => {
                    self.session.handle(clock::now(), Input::Message(message));
                    self.carry_out();
                }
                Ok(None) => return,
                Err(error) => {
                    LinkStats::add(&self.context.stats.refused, 1);
                    self.session
                        .handle(clock::now(), Input::Failed(error.to_string()));
                    self.carry_out();
                }
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Send(message) => self.outbox.push(&message),
                Output::AcceptMaster { cluster, epoch } => {
                    self.epoch = Some(epoch);
                    self.sink.push(Job::Accept { cluster, epoch });
                }
                Output::Truncate(to) => {
                    tracing::warn!(to = %to.position, "replication: this node holds a tail that its master does not have");
                    self.sink.push(Job::Truncate(to));
                }
                Output::Append(batches) => self.sink.push(Job::Append(batches)),
                Output::SnapshotBegin(begin) => {
                    LinkStats::set(&self.context.stats.snapshot_size, 0);
                    self.sink.push(Job::SnapshotBegin(Box::new(SnapshotHeader {
                        start: begin.start,
                        history: begin.history,
                        created_ms: clock::unix_ms(),
                    })));
                }
                Output::SnapshotChunk { index, bytes } => {
                    LinkStats::add(&self.context.stats.snapshot_size, bytes.len() as u64);
                    self.sink.push(Job::SnapshotChunk { index, bytes });
                }
                Output::SnapshotEnd(end) => self.sink.push(Job::SnapshotEnd(SnapshotTrailer {
                    chunks: end.chunks,
                    bytes: end.bytes,
                    crc32: end.store_crc,
                    exact_from: end.exact_from,
                    digest: Some(Digest(end.digest)),
                })),
                Output::Joined { full } => {
                    self.has_joined(full);
                    if !full {
                        self.sink.push(Job::Continue);
                    }
                }
                Output::Covered(offset) => self.sink.push(Job::Covered(offset)),
                Output::CheckDigest { at, digest } => {
                    // The oldest: a replica that is behind would never get to one that moves on.
                    self.digest.get_or_insert((at, digest));
                    self.check_digest();
                }
                Output::Close(reason) => self.end = Some(end_of(reason)),
            }
        }
    }

    fn has_joined(&mut self, full: bool) {
        let stats = &self.context.stats;
        self.joined = true;
        self.loading = full;
        self.copying = full;
        let counter = if full {
            &stats.full_syncs
        } else {
            &stats.partial_syncs
        };
        LinkStats::add(counter, 1);
        stats.is_following();
        let from = self.context.writer.log().end().position;
        tracing::info!(master = %self.target.address, full, %from, "replication: following");
        self.progress();
    }

    fn done(&mut self, done: Result<Done, SinkError>) {
        let input = match done {
            Ok(Done::Accepted(_)) => Input::Accepted,
            Ok(Done::Truncated(TruncateOutcome::Done)) => {
                Input::Truncated(local_log(self.context, false))
            }
            Ok(Done::Truncated(TruncateOutcome::NeedsSnapshot)) => Input::CannotTruncate,
            Ok(Done::Appended(offset)) => {
                self.session.handle(clock::now(), Input::Taken(offset));
                // Disk and store may have got there, and said so, before this: they will not say it again.
                return self.progress();
            }
            Ok(Done::ChunkTaken(count)) => Input::ChunksTaken(count),
            Ok(Done::Noted) => return,
            Ok(Done::SnapshotBegun) => return self.progress(),
            Ok(Done::SnapshotEnded) => {
                self.loading = false;
                return self.progress();
            }
            Err(error @ SinkError::Mismatch(_)) => {
                self.end = Some(End::Broken(error.to_string()));
                return;
            }
            Err(error) => Input::Failed(error.to_string()),
        };
        self.session.handle(clock::now(), input);
    }

    fn progress(&mut self) {
        // The state first: once it says that a snapshot is installed, the progress is that of the new data.
        let syncing = self.context.writer.state().borrow().syncing || self.sink.has_snapshot();
        let progress = *self.context.writer.progress().borrow();
        let input = Input::Progress {
            durable: progress.durable,
            applied: progress.applied,
            syncing,
        };
        self.session.handle(clock::now(), input);
        self.check_digest();
        let stats = &self.context.stats;
        if self.copying && !syncing && !self.loading {
            self.copying = false;
            LinkStats::add(&stats.full_syncs_completed, 1);
        }
        let master_end = self.session.master_end();
        LinkStats::set(&stats.master_offset, master_end.offset);
        if self.session.is_live() && !syncing && progress.applied >= master_end {
            LinkStats::set(&stats.last_sync, clock::unix_ms() / 1000);
        }
    }

    fn check_digest(&mut self) {
        let Some((at, master)) = self.digest else {
            return;
        };
        let own = match self.context.store.digest_at(at) {
            DigestAt::NotYet => return,
            DigestAt::Is(own) if own.0 != master => own,
            DigestAt::Is(_) | DigestAt::Unknown => {
                self.digest = None;
                return;
            }
        };
        self.digest = None;
        LinkStats::add(&self.context.stats.digest_mismatches, 1);
        self.end = Some(End::Unlike(format!(
            "at {at} the digest of this node's data is {own}, the master's {master:032x}"
        )));
    }
}

fn end_of(reason: Closed) -> End {
    match reason {
        Closed::Refused(Reject::Busy(ms)) => {
            End::Busy(LONGEST_BUSY.min(Duration::from_millis(u64::from(ms))))
        }
        Closed::Refused(Reject::Unauthenticated(_)) | Closed::Unauthenticated(_) => {
            End::Unauthenticated(reason.to_string())
        }
        Closed::Mismatch(text) => End::Broken(text),
        Closed::Refused(_)
        | Closed::Refusing(_)
        | Closed::Timeout(_)
        | Closed::HandshakeTimeout(_)
        | Closed::Protocol(_)
        | Closed::Local(_) => End::Lost(reason.to_string()),
    }
}

/// What this node holds. Only to be asked while no session changes it.
fn local_log(context: &LinkContext, wants_snapshot: bool) -> LocalLog {
    let state = context.writer.state();
    let state = state.borrow();
    let progress = *context.writer.progress().borrow();
    LocalLog {
        log: ReplicaLog {
            end: progress.end,
            history: state.history.clone(),
            has_data: state.has_data,
            wants_snapshot,
        },
        durable: progress.durable,
        applied: progress.applied.offset,
    }
}

async fn other_target(state: &mut watch::Receiver<NodeState>, target: &Target) {
    // A writer that has stopped is a change as well.
    let _ = state
        .wait_for(|s| Target::of(s).as_ref() != Some(target))
        .await;
}
