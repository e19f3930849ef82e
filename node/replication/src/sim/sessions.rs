//! The sessions of a node, driven as the real link drives them, frames included; the master's side is in `feeds`.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::disk::{Incoming, Store};
use super::log::Log;
use super::network::Side;
use super::node::{Failed, Node};
use super::world::World;
use super::{HEARTBEAT, TIMEOUT, Time, WINDOW};
use crate::auth::Token;
use crate::batch::Batch;
use crate::command::Command;
use crate::concern::Level;
use crate::frame;
use crate::handshake::ReplicaLog;
use crate::master::{self, LogView, MasterConfig, MasterSession, Serving};
use crate::message::Message;
use crate::replica::{self, LocalLog, ReplicaConfig, ReplicaSession};
use crate::roster::SessionNumber;
use crate::session::{Closed, LinkConfig};

/// A connection from the master's side.
pub(super) struct Feed {
    pub(super) session: MasterSession,
    pub(super) inbox: BytesMut,
    pub(super) epoch: Option<u64>,
    pub(super) seat: Option<(Uuid, SessionNumber)>,
    /// The log from here on is held.
    pub(super) pin: Option<u64>,
    pub(super) next_key: u8,
}

/// A connection from the replica's side.
pub(super) struct Follow {
    pub(super) connection: u64,
    session: ReplicaSession,
    inbox: BytesMut,
    master: usize,
    /// Its master's epoch was refused, or somebody else is followed now.
    pub(super) over: bool,
}

fn link(node: &Node, salt: u64) -> LinkConfig {
    LinkConfig {
        node_id: node.id,
        boot_id: Uuid::from_u128(u128::from(node.boot)),
        token: Token::new("simulated"),
        nonce: [salt as u8; 32],
        heartbeat: HEARTBEAT,
        timeout: TIMEOUT,
    }
}

pub(super) fn view(node: &mut Node) -> LogView {
    LogView {
        first_offset: node.log.first_offset(),
        end: node.log.end(),
        durable: node.durable,
        covered: node.covered_offset(),
    }
}

fn local(node: &Node) -> LocalLog {
    LocalLog {
        log: ReplicaLog {
            end: node.log.end(),
            history: node.role.history.clone(),
            has_data: node.role.has_data,
            wants_snapshot: node.wants_snapshot,
        },
        durable: node.durable,
        applied: node.shown.offset,
    }
}

pub(super) fn bytes_of(message: &Message) -> Bytes {
    let mut parts: Vec<Bytes> = Vec::new();
    message.encode(&mut parts);
    parts.concat().into()
}

/// The next message in an inbox. Nothing corrupts frames here: what is no message is a defect.
pub(super) fn next(inbox: &mut BytesMut, limit: usize) -> Option<Message> {
    let frame = frame::decode(inbox, limit).expect("a frame");
    frame.map(|frame| Message::decode(frame).expect("a message"))
}

impl World {
    /// Connects to whom the node follows, if it is time.
    pub(super) fn connect(&mut self, node: usize) {
        let n = &self.nodes[node];
        let Some(master) = n.master() else { return };
        if n.follow.is_some() || self.now < n.connect_at {
            return;
        }
        self.nodes[node].connect_at = self.now + self.random.between(20, 200);
        if !self.nodes[master].up || !self.reaches(node, master) || master == node {
            return;
        }
        let connection = self.make_connection(master, node);
        let clock = self.clock(node);
        let n = &mut self.nodes[node];
        let config = ReplicaConfig {
            link: link(n, connection),
            cluster: n.role.cluster,
            promised: n.role.promised,
            name: node.to_string(),
            advertised: None,
        };
        n.follow = Some(Follow {
            connection,
            session: ReplicaSession::new(clock, config, local(n)),
            inbox: BytesMut::new(),
            master,
            over: false,
        });
        self.drain_follow(node);
    }

    pub(super) fn accept(&mut self, node: usize, connection: u64) {
        let clock = self.clock(node);
        let n = &mut self.nodes[node];
        let serving = match (n.writing, n.role.cluster) {
            (Some(epoch), Some(cluster)) => Serving::Master {
                cluster,
                epoch,
                history: n.role.history.clone(),
            },
            (Some(_) | None, _) => Serving::NotMaster { address: None },
        };
        let config = MasterConfig {
            former: None,
            link: link(n, connection + 7),
            serving,
            window: WINDOW,
        };
        let feed = Feed {
            session: MasterSession::new(clock, config, view(n)),
            inbox: BytesMut::new(),
            epoch: n.writing,
            seat: None,
            pin: None,
            next_key: 0,
        };
        n.feeds.insert(connection, feed);
    }

    pub(super) fn received(&mut self, node: usize, connection: u64, to: Side, bytes: &[u8]) {
        match to {
            Side::Master => self.feed_received(node, connection, bytes),
            Side::Replica => {
                if let Some(follow) = &mut self.nodes[node].follow
                    && follow.connection == connection
                {
                    follow.inbox.extend_from_slice(bytes);
                    self.follow_messages(node);
                }
            }
        }
    }

    /// A connection is gone.
    pub(super) fn lost(&mut self, node: usize, connection: u64, side: Side) {
        match side {
            Side::Master => self.end_feed(node, connection),
            Side::Replica => {
                let n = &mut self.nodes[node];
                if n.follow
                    .as_ref()
                    .is_some_and(|f| f.connection == connection)
                {
                    n.follow = None;
                    n.incoming = None;
                }
            }
        }
    }

    pub(super) fn tick_sessions(&mut self, node: usize) {
        let now = self.clock(node);
        let n = &mut self.nodes[node];
        let clock_ms = n.clock.unix_ms(self.now);
        let due: Vec<u64> = n
            .feeds
            .iter()
            .filter(|(_, f)| f.session.wake_at() <= now)
            .map(|(connection, _)| *connection)
            .collect();
        for connection in due {
            let store = &self.nodes[node].store;
            let digest = Some((store.applied, store.digest()));
            self.feed(node, connection, master::Input::Tick { clock_ms, digest });
        }
        if let Some(follow) = &mut self.nodes[node].follow
            && (follow.session.wake_at() <= now || follow.over)
        {
            if follow.over {
                let over = replica::Input::Failed("the role changed".to_owned());
                follow.session.handle(now, over);
            }
            follow
                .session
                .handle(now, replica::Input::Tick { clock_ms });
            self.drain_follow(node);
        }
    }

    fn follow_messages(&mut self, node: usize) {
        let clock = self.clock(node);
        while let Some(follow) = &mut self.nodes[node].follow
            && !follow.session.is_waiting()
            && let Some(message) = next(&mut follow.inbox, follow.session.frame_limit())
        {
            let input = replica::Input::Message(message);
            follow.session.handle(clock, input);
            self.drain_follow(node);
        }
    }

    pub(super) fn follow_moved(&mut self, node: usize) {
        let clock = self.clock(node);
        // What is applied is not seen at once everywhere: an index, a reader's copy follow.
        let late = self.course.level == Level::Applied && self.random.chance(30);
        let n = &mut self.nodes[node];
        if !late {
            n.shown = n.store.applied;
        }
        let target = n.master();
        if let Some(follow) = &mut n.follow {
            follow.over |= target != Some(follow.master);
            let progress = replica::Input::Progress {
                durable: n.durable,
                applied: n.shown,
                syncing: n.incoming.is_some(),
            };
            follow.session.handle(clock, progress);
            self.drain_follow(node);
        }
    }

    fn drain_follow(&mut self, node: usize) {
        let clock = self.clock(node);
        while let Some(follow) = &mut self.nodes[node].follow
            && let Some(output) = follow.session.poll_output()
        {
            let connection = follow.connection;
            let over = follow.over;
            let answer = self.follow_output(node, connection, over, output);
            if let Some(answer) = answer
                && let Some(follow) = &mut self.nodes[node].follow
            {
                follow.session.handle(clock, answer);
            }
        }
    }

    fn follow_output(
        &mut self,
        node: usize,
        connection: u64,
        over: bool,
        output: replica::Output,
    ) -> Option<replica::Input> {
        use replica::{Input, Output};
        let failed = |what: &str| Some(Input::Failed(what.to_owned()));
        let n = &mut self.nodes[node];
        match output {
            Output::Send(message) => {
                self.send(connection, Side::Master, bytes_of(&message));
                None
            }
            Output::AcceptMaster { cluster, epoch } => {
                let seen = Command::MasterSeen { cluster, epoch };
                match n.command(&mut self.checks, self.now, &seen) {
                    Ok(_) => Some(Input::Accepted),
                    Err(Failed::Refused(refusal)) => failed(&refusal.to_string()),
                    Err(Failed::Died) => None,
                }
            }
            _ if over => failed("the role changed"),
            Output::Truncate(to) => {
                self.checks.truncations += 1;
                let keeps = n.keeps_covered(&n.role.history, to.position.offset);
                self.checks.keeps(node, keeps, n.role.covered);
                self.checks.undone(node, to.position.offset, |p| n.has(p));
                match n.undo(&self.checks, to.position.offset) {
                    Ok(true) => {
                        self.checks.durable(n.id, n.durable);
                        Some(Input::Truncated(local(n)))
                    }
                    Ok(false) => {
                        n.wants_snapshot = true;
                        Some(Input::CannotTruncate)
                    }
                    Err(_) => None,
                }
            }
            Output::Append(batches) => Some(self.append(node, &batches)),
            Output::SnapshotBegin(begin) => {
                let keeps = n.keeps_covered(&begin.history, begin.start.position.offset);
                self.checks.keeps(node, keeps, n.role.covered);
                n.incoming = Some(Incoming {
                    log: Log::starting_at(begin.start),
                    store: Store::default(),
                    history: begin.history,
                    exact_from: None,
                });
                None
            }
            Output::SnapshotChunk { index, bytes } => {
                n.incoming.as_mut()?.store.load(&bytes);
                Some(Input::ChunksTaken(index + 1))
            }
            Output::SnapshotEnd(end) => {
                let incoming = n.incoming.as_mut()?;
                incoming.exact_from = Some((end.exact_from, end.digest));
                incoming.store.applied = incoming.log.end().position;
                assert!(
                    !incoming.is_unlike(),
                    "digest: node {node} took a copy of other data"
                );
                self.install(node);
                None
            }
            Output::Joined { .. } => None,
            Output::Covered(offset) => {
                // A disk that fails ends the process, and the world notices.
                let _ = n.covered(offset);
                None
            }
            Output::CheckDigest { at, digest } => {
                self.checks.told(node, at, digest);
                None
            }
            Output::Close(reason) => {
                assert!(
                    !matches!(reason, Closed::Mismatch(_)),
                    "mismatch: node {node}: {reason}"
                );
                n.follow = None;
                n.incoming = None;
                self.note(&format!("{node} ends follow {connection}: {reason}"));
                self.close(connection, Side::Replica);
                None
            }
        }
    }

    fn append(&mut self, node: usize, batches: &[Batch]) -> replica::Input {
        let now = self.now;
        let n = &mut self.nodes[node];
        let last = batches.last().map_or(0, Batch::last_offset);
        if let Some(incoming) = &mut n.incoming {
            for batch in batches {
                if incoming.history.epoch_at(batch.first_offset()) < batch.epoch() {
                    incoming.history.open(crate::position::EpochStart {
                        epoch: batch.epoch(),
                        first_offset: batch.first_offset(),
                        chain: batch.chain_before(),
                    });
                }
                incoming.log.push(batch.clone());
                incoming.store.apply(batch, last - batch.last_offset());
                assert!(
                    !incoming.is_unlike(),
                    "digest: node {node} took a copy of other data"
                );
            }
            self.install(node);
        } else {
            for batch in batches {
                let ahead = last - batch.last_offset();
                if n.append(&mut self.checks, batch, ahead).is_err() {
                    self.note(&format!("{node} died at {now}"));
                    break;
                }
            }
        }
        // The disk begins to follow; the session hears of it with the next tick.
        self.start_sync(node, SOON);
        replica::Input::Taken(last)
    }

    fn install(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if n.incoming.as_ref().is_some_and(Incoming::is_exact) && n.install(&self.checks).is_ok() {
            self.checks.durable(n.id, n.durable);
        }
    }
}

/// How long an ordinary fsync takes.
const SOON: (Time, Time) = (1, 6);
