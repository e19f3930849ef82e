//! One connection from the master's side.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use uuid::Uuid;
use vectorizer_api::replication::Role;
use vectorizer_replication::batch::Batch;
use vectorizer_replication::master::{
    Input, LogView, MasterConfig, MasterSession, Output, Serving, SyncKind,
};
use vectorizer_replication::message::{Reject, SnapshotBegin};
use vectorizer_replication::position::Chain;
use vectorizer_replication::session::Closed;

use super::listener::Stranger;
use super::scan::{Piece, Scan};
use super::wire::{Inbox, Outbox};
use super::{LinkContext, LinkStats};
use crate::breakage::{self, Breakage};
use crate::clock;
use crate::journal::{LogReader, ReadError};
use crate::replicas::{ReplicaTable, Seat};
use crate::writer::NodeState;

/// How long a last message may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// After so many times the timeout without progress, the log is held for a full sync no longer.
const STANDSTILLS: u32 = 2;

/// What the disk was asked for.
enum Lookup {
    Batches(Result<Vec<Batch>, ReadError>),
    Chain(Result<Option<Chain>, ReadError>),
}

struct Feed<'a> {
    context: &'a LinkContext,
    peer: SocketAddr,
    /// The epoch that is served, and its first offset; 0 when this node is not master.
    epoch: (u64, u64),
    log: LogReader,
    session: MasterSession,
    outbox: Outbox,
    /// Until it has joined.
    stranger: Option<Stranger>,
    seat: Option<Seat>,
    lookup: Option<JoinHandle<Lookup>>,
    scan: Option<Scan>,
    /// Whether this replica's full sync is not complete yet.
    copying: bool,
    /// When a watermark of the replica last moved, or its full sync began.
    progressed: Instant,
    /// The session waits for the scan's next piece.
    wants_piece: bool,
    closed: Option<Closed>,
}

/// Serves one connection to its end, and says why it ended.
pub(super) async fn feed(
    context: &LinkContext,
    stream: TcpStream,
    peer: SocketAddr,
    stranger: Stranger,
) -> io::Result<Closed> {
    let (read, write) = stream.into_split();
    let mut inbox = Inbox::new(read);
    let log = context.writer.log();
    let mut moved = log.subscribe();
    let mut state = context.writer.state();
    let serving = serving(&state.borrow_and_update());
    let (token, former) = context.tokens();
    let config = MasterConfig {
        link: context.link_config(token),
        former,
        serving: serving.clone(),
        window: context.options.window,
    };
    moved.mark_unchanged();
    let mut feed = Feed {
        context,
        peer,
        epoch: match &serving {
            Serving::Master { epoch, history, .. } => (*epoch, history.last_first_offset()),
            Serving::NotMaster { .. } => (0, 0),
        },
        session: MasterSession::new(clock::now(), config, view(&log, &context.table)),
        log,
        outbox: Outbox::new(write),
        stranger: Some(stranger),
        seat: None,
        lookup: None,
        scan: None,
        copying: false,
        progressed: Instant::now(),
        wants_piece: false,
        closed: None,
    };
    loop {
        feed.carry_out();
        if let Some(reason) = feed.closed.take() {
            // The peer should learn why. If it does not listen, it will not.
            let _ = tokio::time::timeout(GOODBYE, feed.outbox.finish()).await;
            return Ok(reason);
        }
        let wake_at = clock::instant(feed.session.wake_at());
        tokio::select! {
            read = inbox.fill() => {
                let count = read?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                LinkStats::add(&context.stats.bytes_received, count as u64);
                feed.received(&mut inbox);
            }
            written = feed.outbox.write_some(), if !feed.outbox.is_empty() => {
                let count = written? as u64;
                LinkStats::add(&context.stats.bytes_sent, count);
                if let Some(seat) = &feed.seat {
                    seat.sent(count);
                }
            }
            changed = moved.changed() => {
                if changed.is_err() {
                    feed.stop(Reject::Busy(1_000));
                } else {
                    feed.session.handle(clock::now(), Input::Log(view(&feed.log, &context.table)));
                }
            }
            found = join(&mut feed.lookup) => feed.found(found),
            piece = next_piece(&mut feed.scan), if feed.wants_piece => feed.piece(piece),
            changed = state.changed() => {
                if changed.is_err() {
                    feed.stop(Reject::Busy(1_000));
                    continue;
                }
                let now = self::serving(&state.borrow_and_update());
                if !same_epoch(&now, &serving) && !breakage::on(Breakage::KeepListener) {
                    let address = match now {
                        Serving::NotMaster { address } => address,
                        Serving::Master { .. } => None,
                    };
                    feed.stop(Reject::NotMaster(address));
                }
            }
            () = replaced(&feed.seat) => {
                feed.seat = None;
                feed.stop(Reject::Protocol("another session of this replica began".to_owned()));
            }
            () = tokio::time::sleep_until(wake_at) => feed.tick(),
        }
    }
}

impl Feed<'_> {
    /// Carries out what the session wants, as far as nothing has to be waited for.
    fn carry_out(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Send(message) => self.outbox.push(&message),
                Output::LookUpChain(offset) => {
                    let log = self.log.clone();
                    let find = move || Lookup::Chain(log.chain_at(offset));
                    self.lookup = Some(tokio::task::spawn_blocking(find));
                }
                Output::ReadLog { from, max_bytes } => self.read_log(from, max_bytes),
                Output::StartSnapshot => match Scan::begin(self.context.store.clone(), &self.log) {
                    Ok(scan) => {
                        self.scan = Some(scan);
                        self.progressed = Instant::now();
                        self.wants_piece = true;
                    }
                    Err(what) => self.failed(what),
                },
                Output::NextChunk => self.wants_piece = true,
                Output::Joined {
                    peer,
                    kind,
                    syncing,
                    ack,
                } => {
                    tracing::info!(
                        peer = %self.peer, replica = %peer.name, node_id = %peer.node_id, ?kind,
                        offset = ack.applied, "replication: a replica joined"
                    );
                    let stats = &self.context.stats;
                    match kind {
                        SyncKind::Full(_) => {
                            LinkStats::add(&stats.full_syncs, 1);
                            self.copying = true;
                        }
                        SyncKind::Partial => LinkStats::add(&stats.partial_syncs, 1),
                    }
                    let address = self.peer.to_string();
                    let table = &self.context.table;
                    self.stranger = None;
                    self.seat = Some(table.join(self.epoch, peer, address, syncing, ack));
                }
                Output::Acked(ack) => {
                    self.progressed = Instant::now();
                    let seconds = clock::unix_ms() / 1000;
                    LinkStats::set(&self.context.stats.last_sync, seconds);
                    if let Some(seat) = &self.seat {
                        seat.acked(ack);
                    }
                }
                Output::Synced => {
                    let at = self.log.end().position;
                    tracing::info!(peer = %self.peer, %at, "replication: first sync complete");
                    // The log is held no longer: the replica keeps up from here, or begins again.
                    self.scan = None;
                    if std::mem::take(&mut self.copying) {
                        LinkStats::add(&self.context.stats.full_syncs_completed, 1);
                    }
                    if let Some(seat) = &self.seat {
                        seat.synced();
                    }
                }
                Output::Deposed(epoch) => {
                    tracing::warn!(peer = %self.peer, epoch, "replication: a replica knows a higher epoch");
                    let writer = self.context.writer.clone();
                    // In a task of its own: it must happen even if this connection ends now.
                    tokio::spawn(async move { writer.deposed(epoch).await });
                }
                Output::Close(reason) => self.closed = Some(reason),
            }
        }
    }

    fn read_log(&mut self, from: u64, max_bytes: usize) {
        if self.log.is_cached(from) {
            let read = self.log.read(from, max_bytes);
            self.found(Lookup::Batches(read));
        } else {
            let log = self.log.clone();
            let read = move || Lookup::Batches(log.read(from, max_bytes));
            self.lookup = Some(tokio::task::spawn_blocking(read));
        }
    }

    fn received(&mut self, inbox: &mut Inbox) {
        self.session.handle(clock::now(), Input::Bytes);
        while self.closed.is_none() {
            match inbox.next(self.session.frame_limit()) {
                Ok(Some(message)) => {
                    self.session.handle(clock::now(), Input::Message(message));
                    if let Some(seat) = &self.seat {
                        seat.heard();
                    }
                    self.carry_out();
                }
                Ok(None) => return,
                Err(error) => {
                    LinkStats::add(&self.context.stats.refused, 1);
                    self.stop(Reject::Protocol(error.to_string()));
                    return;
                }
            }
        }
    }

    fn found(&mut self, found: Lookup) {
        self.lookup = None;
        let input = match found {
            Lookup::Batches(Ok(batches)) => Input::Batches(batches),
            Lookup::Chain(Ok(chain)) => Input::Chain(chain),
            // The replica comes back, and is then told that it needs a snapshot.
            Lookup::Batches(Err(error)) | Lookup::Chain(Err(error)) => {
                Input::Failed(error.to_string())
            }
        };
        self.session.handle(clock::now(), input);
    }

    fn piece(&mut self, piece: Piece) {
        self.wants_piece = false;
        let stats = &self.context.stats;
        let input = match piece {
            Piece::Begin(header) => {
                LinkStats::set(&stats.snapshot_size, 0);
                Input::SnapshotStarted(SnapshotBegin {
                    id: Uuid::new_v4(),
                    start: header.start,
                    history: header.history,
                })
            }
            Piece::Chunk(bytes) => {
                LinkStats::add(&stats.snapshot_size, bytes.len() as u64);
                Input::Chunk(bytes)
            }
            Piece::End(trailer) => Input::SnapshotDone {
                exact_from: trailer.exact_from,
                store_crc: trailer.crc32,
                digest: trailer.digest.unwrap_or_default().0,
            },
            Piece::Failed(what) => Input::Failed(what),
        };
        self.session.handle(clock::now(), input);
    }

    /// A replica that is alive and gets nowhere, its disk hanging, must not make this node's log grow until its own
    /// disk is full.
    fn let_go_of_log(&mut self) {
        if self.progressed.elapsed() < self.context.options.timeout * STANDSTILLS {
            return;
        }
        if self.scan.as_mut().is_some_and(Scan::let_go) {
            tracing::warn!(
                peer = %self.peer,
                "replication: a replica stands still inside its full sync: the log is held for it no longer"
            );
        }
    }

    fn tick(&mut self) {
        self.let_go_of_log();
        let (position, digest) = self.context.store.digest();
        let tick = Input::Tick {
            clock_ms: clock::unix_ms(),
            digest: Some((position, digest.0)),
        };
        // What the heartbeat says of the log is as fresh as its time.
        self.session.handle(
            clock::now(),
            Input::Log(view(&self.log, &self.context.table)),
        );
        self.session.handle(clock::now(), tick);
    }

    fn stop(&mut self, reason: Reject) {
        self.session.handle(clock::now(), Input::Stop(reason));
    }

    fn failed(&mut self, what: String) {
        self.session.handle(clock::now(), Input::Failed(what));
    }
}

impl Drop for Feed<'_> {
    fn drop(&mut self) {
        if self.copying {
            LinkStats::add(&self.context.stats.full_syncs_broken_off, 1);
        }
    }
}

fn serving(state: &NodeState) -> Serving {
    match (state.role, state.cluster) {
        (Role::Master, Some(cluster)) => Serving::Master {
            cluster,
            epoch: state.master_epoch,
            history: state.history.clone(),
        },
        (Role::Master | Role::Replica | Role::Unassigned, _) => Serving::NotMaster {
            address: state.master_address.clone(),
        },
    }
}

fn same_epoch(a: &Serving, b: &Serving) -> bool {
    match (a, b) {
        (Serving::Master { epoch: a, .. }, Serving::Master { epoch: b, .. }) => a == b,
        (Serving::NotMaster { address: a }, Serving::NotMaster { address: b }) => a == b,
        (Serving::Master { .. }, Serving::NotMaster { .. })
        | (Serving::NotMaster { .. }, Serving::Master { .. }) => false,
    }
}

fn view(log: &LogReader, table: &ReplicaTable) -> LogView {
    let durable = log.durable();
    LogView {
        first_offset: log.first_offset(),
        end: log.end(),
        durable,
        covered: table.covered(durable),
    }
}

/// The answer of the disk; never, when nothing was asked.
async fn join(lookup: &mut Option<JoinHandle<Lookup>>) -> Lookup {
    match lookup {
        Some(task) => match task.await {
            Ok(found) => found,
            // It panicked, or the process is ending: there is no answer.
            Err(error) => {
                let error = io::Error::other(error);
                Lookup::Batches(Err(ReadError::Io {
                    path: Default::default(),
                    source: error,
                }))
            }
        },
        None => std::future::pending().await,
    }
}

async fn next_piece(scan: &mut Option<Scan>) -> Piece {
    match scan {
        Some(scan) => scan.next().await,
        None => std::future::pending().await,
    }
}

/// Another session of the same replica has taken this one's place.
async fn replaced(seat: &Option<Seat>) {
    match seat {
        Some(seat) => seat.replaced().await,
        None => std::future::pending().await,
    }
}
