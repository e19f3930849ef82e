//! The master's side of the sessions.

use uuid::Uuid;

use super::KEYS;
use super::log::Log;
use super::network::Side;
use super::sessions::{bytes_of, next, view};
use super::world::World;
use crate::batch::Batch;
use crate::breakage::{self, Breakage};
use crate::command::Command;
use crate::master::{self, SyncKind};
use crate::message::{Reject, SnapshotBegin};
use crate::position::Position;

impl World {
    pub(super) fn feed_received(&mut self, node: usize, connection: u64, bytes: &[u8]) {
        let Some(feed) = self.nodes[node].feeds.get_mut(&connection) else {
            return;
        };
        feed.inbox.extend_from_slice(bytes);
        while let Some(feed) = self.nodes[node].feeds.get_mut(&connection)
            && let Some(message) = next(&mut feed.inbox, feed.session.frame_limit())
        {
            self.feed(node, connection, master::Input::Message(message));
        }
    }

    pub(super) fn feeds_moved(&mut self, node: usize) {
        let writing = self.nodes[node].writing;
        let all: Vec<u64> = self.nodes[node].feeds.keys().copied().collect();
        for connection in all {
            let Some(feed) = self.nodes[node].feeds.get(&connection) else {
                continue;
            };
            let keeps = breakage::on(Breakage::DemotedKeepsFeeding);
            let input = if feed.epoch == writing || keeps {
                let view = view(&mut self.nodes[node]);
                self.checks.covered(&self.nodes[node], view.covered);
                master::Input::Log(view)
            } else {
                master::Input::Stop(Reject::NotMaster(None))
            };
            self.feed(node, connection, input);
        }
    }

    pub(super) fn feed(&mut self, node: usize, connection: u64, input: master::Input) {
        let now = self.clock(node);
        if let Some(feed) = self.nodes[node].feeds.get_mut(&connection) {
            feed.session.handle(now, input);
        }
        let mut turns = 0;
        while let Some(feed) = self.nodes[node].feeds.get_mut(&connection)
            && let Some(output) = feed.session.poll_output()
        {
            turns += 1;
            assert!(
                turns < 10_000,
                "convergence: a session does not come to rest"
            );
            if let Some(answer) = self.feed_output(node, connection, output)
                && let Some(feed) = self.nodes[node].feeds.get_mut(&connection)
            {
                feed.session.handle(now, answer);
                let bytes = feed.session.in_flight();
                self.checks.in_flight(bytes);
            }
        }
    }

    fn feed_output(
        &mut self,
        node: usize,
        connection: u64,
        output: master::Output,
    ) -> Option<master::Input> {
        use master::{Input, Output};
        let (now, clock) = (self.now, self.clock(node));
        let n = &mut self.nodes[node];
        let (reads, unix_ms) = (n.reads(now), n.clock.unix_ms(now));
        let feed = n.feeds.get_mut(&connection)?;
        match output {
            Output::Send(message) => {
                self.send(connection, Side::Replica, bytes_of(&message));
                None
            }
            Output::LookUpChain(_) | Output::ReadLog { .. } | Output::NextChunk if !reads => {
                Some(Input::Failed("reading from the disk failed".to_owned()))
            }
            Output::LookUpChain(offset) => Some(Input::Chain(n.log.chain_at(offset))),
            Output::ReadLog { from, max_bytes } => Some(read(&n.log, from, max_bytes)),
            Output::StartSnapshot => {
                feed.pin = Some(n.log.end().position.offset);
                feed.next_key = 0;
                Some(Input::SnapshotStarted(SnapshotBegin {
                    id: Uuid::from_u128(u128::from(connection)),
                    start: n.log.end(),
                    history: n.role.history.clone(),
                }))
            }
            Output::NextChunk if u64::from(feed.next_key) >= KEYS => Some(Input::SnapshotDone {
                exact_from: n.log.end().position.offset,
                store_crc: 0,
                digest: n.store.digest(),
            }),
            Output::NextChunk => {
                let from = feed.next_key;
                feed.next_key += 6;
                Some(Input::Chunk(n.store.chunk(from..from + 6)))
            }
            Output::Joined {
                peer,
                kind,
                syncing,
                ack,
            } => {
                let id = peer.node_id;
                let seat =
                    n.roster
                        .joined(peer.clone(), String::new(), syncing, ack, clock, unix_ms);
                feed.seat = Some((id, seat));
                self.note(&format!(
                    "{node} joined by {} on {connection}: {kind:?}",
                    peer.name
                ));
                self.joined(node, connection, kind);
                self.end_replaced(node);
                None
            }
            Output::Acked(ack) => {
                let (id, seat) = feed.seat?;
                n.roster.acked(id, seat, ack);
                self.checks.watermark(id, ack.durable);
                None
            }
            Output::Synced => {
                feed.pin = None;
                if let Some((id, seat)) = feed.seat {
                    n.roster.synced(id, seat);
                }
                None
            }
            Output::Deposed(epoch) => {
                // Never refused.
                let _ = n.command(&mut self.checks, now, &Command::Deposed { epoch });
                None
            }
            Output::Close(reason) => {
                self.note(&format!("{node} ends feed {connection}: {reason}"));
                self.end_feed(node, connection);
                self.close(connection, Side::Master);
                None
            }
        }
    }

    /// Of two sessions of one replica, the one that joined last goes on.
    fn end_replaced(&mut self, node: usize) {
        let n = &self.nodes[node];
        let over = n.feeds.iter().filter(|(_, feed)| {
            let seat = feed.seat;
            seat.is_some_and(|(id, seat)| !n.roster.is_current(id, seat))
        });
        let over: Vec<u64> = over.map(|(connection, _)| *connection).collect();
        for connection in over {
            let why = "another session of this replica began".to_owned();
            self.feed(node, connection, master::Input::Stop(Reject::Protocol(why)));
        }
    }

    pub(super) fn end_feed(&mut self, node: usize, connection: u64) {
        let n = &mut self.nodes[node];
        if let Some(feed) = n.feeds.remove(&connection)
            && let Some((id, seat)) = feed.seat
        {
            n.roster.left(id, seat);
        }
    }

    /// Counts syncs, and checks full ones against what both logs really hold.
    fn joined(&mut self, node: usize, connection: u64, kind: SyncKind) {
        let Some(replica) = self.connections.get(&connection).map(|c| c.replica) else {
            return;
        };
        let SyncKind::Full(why) = kind else {
            self.checks.partial_syncs += 1;
            return;
        };
        let (m, r) = (&self.nodes[node], &self.nodes[replica]);
        let same =
            |offset: &u64| m.role.history.epoch_at(*offset) == r.role.history.epoch_at(*offset);
        let shorter = m.end().offset.min(r.end().offset);
        let common = (1..=shorter).rev().find(same).unwrap_or(0);
        // It has gone on since it said what it holds.
        let gone = r.follow.as_ref().is_none_or(|f| f.connection != connection);
        // An empty log is fed from its beginning, if that is still there.
        let unusable = !r.role.has_data && r.end() > Position::ZERO;
        let needed = gone || unusable || r.wants_snapshot || common + 1 < m.log.first_offset();
        self.checks.full_sync(needed, why.as_str());
    }
}

/// At least one batch, if there is one, up to about `max_bytes`.
fn read(log: &Log, from: u64, max_bytes: usize) -> master::Input {
    let mut batches: Vec<Batch> = Vec::new();
    let mut len = 0;
    for batch in log.after(from.saturating_sub(1)) {
        len += batch.bytes().len();
        if len > max_bytes && !batches.is_empty() {
            break;
        }
        batches.push(batch.clone());
    }
    if batches.first().is_some_and(|b| b.first_offset() != from) {
        return master::Input::Failed("the log no longer reaches back so far".to_owned());
    }
    master::Input::Batches(batches)
}
