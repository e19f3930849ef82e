//! One node: what the real one's writer does, over a simulated disk. Roles are decided by the real `decide`.
//!
//! The order of steps is that of the writer (`node/src/writer`), and between any two of them the disk may fail, which
//! ends the process there.

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

use super::Time;
use super::checks::Checks;
use super::clock::Clock;
use super::disk::{Change, Checkpoint, Incoming, Store, encode};
use super::lease::Asking;
use super::log::Log;
use super::members::Changing;
use super::sessions::{Feed, Follow};
use super::volume::{Died, Fuse};
use crate::batch::Batch;
use crate::breakage::{self, Breakage};
use crate::command::{Command, Effect, HandedOver, Refusal, RoleFacts, Standing, decide};
use crate::position::{EpochStart, History, LogEnd, Position};
use crate::quorum::Quorum;
use crate::roster::Roster;

/// What the role file holds; durable at each change.
#[derive(Clone, Debug, Default)]
pub(super) struct Role {
    pub(super) cluster: Option<Uuid>,
    pub(super) promised: u64,
    pub(super) standing: Standing,
    pub(super) handed_over: Option<HandedOver>,
    pub(super) history: History,
    pub(super) has_data: bool,
    /// The last position that enough replicas were known to hold.
    pub(super) covered: Position,
}

/// A hand-over that waits for its target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) plan: HandedOver,
    /// On the node's clock.
    pub(super) until: Time,
    /// Until when it waits for more than the target, once that has everything.
    pub(super) settles_until: Option<Time>,
    /// Where the log ended.
    pub(super) end: u64,
    /// The command to answer.
    pub(super) letter: u64,
}

/// Why a command was not carried out.
#[derive(Debug)]
pub(super) enum Failed {
    Refused(Refusal),
    Died,
}

impl From<Died> for Failed {
    fn from(_: Died) -> Self {
        Failed::Died
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Failed::Refused(refusal)
    }
}

pub(super) struct Node {
    pub(super) index: usize,
    /// Written into the volume when it was new.
    pub(super) id: Uuid,
    /// Counts the node's processes; the present one runs unless it is down.
    pub(super) boot: u64,
    pub(super) up: bool,
    pub(super) clock: Clock,
    pub(super) frozen_until: Time,
    /// The API server is out of its reach until then.
    pub(super) no_lease_until: Time,
    /// It is out of the operators' reach until then; peers and clients still reach it.
    pub(super) no_operator_until: Time,
    /// Reading from its disk fails until then.
    pub(super) no_reads_until: Time,
    /// Its disk takes no new role file until then.
    pub(super) no_role_until: Time,
    pub(super) fuse: Option<Fuse>,
    /// Its pod was scaled away.
    pub(super) deleted: bool,
    /// The disk has ended the process, and nobody has noticed yet.
    pub(super) died: bool,

    // On disk.
    pub(super) role: Role,
    pub(super) log: Log,
    pub(super) durable: u64,
    pub(super) checkpoint: Checkpoint,

    // Lost with the process.
    pub(super) store: Store,
    /// What of that is seen by those who read here.
    pub(super) shown: Position,
    pub(super) writing: Option<u64>,
    /// On the node's clock.
    pub(super) permit_until: Time,
    pub(super) hold: Option<Hold>,
    /// Writes that wait for the disk.
    pub(super) waiting: VecDeque<Position>,
    /// Who acknowledges, and the writes that wait for that.
    pub(super) quorum: Quorum<Position>,
    pub(super) changing: Option<Changing>,
    /// Counts replacements of the log: an fsync of an older one says nothing.
    pub(super) log_version: u64,
    pub(super) sync_under_way: bool,
    pub(super) feeds: BTreeMap<u64, Feed>,
    pub(super) follow: Option<Follow>,
    pub(super) incoming: Option<Incoming>,
    pub(super) connect_at: Time,
    pub(super) wants_snapshot: bool,
    pub(super) roster: Roster,
    pub(super) renew_at: Time,
    pub(super) asking: Option<Asking>,
    /// A master that was restarted asks for the next epoch as long as its promise is still this one.
    pub(super) retaking: Option<u64>,
    /// The end last seen by the check of positions, and whether it may have gone back since.
    pub(super) seen_end: Position,
    pub(super) went_back: bool,
}

impl Node {
    pub(super) fn new(index: usize) -> Self {
        Node {
            index,
            id: Uuid::from_u128(100 + index as u128),
            boot: 1,
            up: true,
            clock: Clock::default(),
            frozen_until: 0,
            no_lease_until: 0,
            no_operator_until: 0,
            no_reads_until: 0,
            no_role_until: 0,
            fuse: None,
            deleted: false,
            died: false,
            role: Role::default(),
            log: Log::default(),
            durable: 0,
            checkpoint: Checkpoint::default(),
            store: Store::default(),
            shown: Position::ZERO,
            writing: None,
            permit_until: 0,
            hold: None,
            waiting: VecDeque::new(),
            quorum: Quorum::default(),
            changing: None,
            log_version: 0,
            sync_under_way: false,
            feeds: BTreeMap::new(),
            follow: None,
            incoming: None,
            connect_at: 0,
            wants_snapshot: false,
            roster: Roster::default(),
            renew_at: 0,
            asking: None,
            retaking: None,
            seen_end: Position::ZERO,
            went_back: false,
        }
    }

    /// The same node after its volume was lost: nothing of it is there, its identity included.
    pub(super) fn emptied(&self) -> Self {
        let mut node = Node {
            id: Uuid::from_u128(self.id.as_u128() + 1_000),
            boot: self.boot,
            up: self.up,
            clock: self.clock,
            no_lease_until: self.no_lease_until,
            no_operator_until: self.no_operator_until,
            no_role_until: self.no_role_until,
            deleted: self.deleted,
            log_version: self.log_version + 1,
            ..Node::new(self.index)
        };
        node.quorum.set_level(self.quorum.level());
        node
    }

    pub(super) fn runs(&self, now: Time) -> bool {
        self.up && self.frozen_until <= now
    }

    pub(super) fn reaches_lease(&self, now: Time) -> bool {
        self.up && self.no_lease_until <= now
    }

    pub(super) fn reads(&self, now: Time) -> bool {
        self.no_reads_until <= now
    }

    pub(super) fn end(&self) -> Position {
        self.log.end().position
    }

    pub(super) fn has(&self, position: Position) -> bool {
        position.offset <= self.end().offset
            && self.role.history.epoch_at(position.offset) == position.epoch
    }

    /// The node whose address it follows.
    pub(super) fn master(&self) -> Option<usize> {
        match &self.role.standing {
            Standing::Replica { master_address, .. } => master_address.parse().ok(),
            Standing::Unassigned | Standing::Master { .. } => None,
        }
    }

    pub(super) fn facts(&self) -> RoleFacts {
        RoleFacts {
            node_id: self.id,
            cluster: self.role.cluster,
            promised: self.role.promised,
            standing: self.role.standing.clone(),
            writing: self.writing.is_some(),
            end: self.end(),
            has_data: self.role.has_data,
            handed_over: self.role.handed_over,
        }
    }

    /// Decides and carries out, in the writer's order. `HoldWrites` is the caller's.
    pub(super) fn command(
        &mut self,
        checks: &mut Checks,
        now: Time,
        command: &Command,
    ) -> Result<Effect, Failed> {
        if !self.up {
            return Err(Failed::Died);
        }
        if matches!(command, Command::Promote { .. }) {
            self.sync()?;
        }
        let facts = self.facts();
        let next = decide(&facts, command)?;
        checks.promise(self.index, self.role.promised, next.promised);
        match next.effect {
            Effect::None | Effect::HoldWrites => {}
            Effect::StopWriting => {
                self.stop_writing();
                self.end_follow();
                self.sync()?;
            }
            Effect::EndSession | Effect::OpenEpoch(_) => {
                self.end_follow();
                self.sync()?;
            }
        }
        let persists = next.persists(&facts);
        let change = |role: &mut Role| {
            role.cluster = next.cluster;
            role.promised = next.promised;
            role.standing = next.standing;
            role.handed_over = next.handed_over;
        };
        if let Effect::OpenEpoch(epoch) = next.effect {
            self.open(checks, now, epoch, change)?;
        } else if persists {
            self.save(change)?;
        }
        Ok(next.effect)
    }

    fn open(
        &mut self,
        checks: &mut Checks,
        now: Time,
        epoch: u64,
        change: impl FnOnce(&mut Role),
    ) -> Result<(), Died> {
        if breakage::on(Breakage::ResetOffsetsOnRestart) && self.role.has_data {
            self.log = Log::default();
            self.role.history = History::default();
            self.durable = 0;
        }
        let LogEnd { position, chain } = self.log.end();
        self.save(|role| {
            change(role);
            role.has_data = true;
            role.history.truncate(position.offset);
            role.history.open(EpochStart {
                epoch,
                first_offset: position.offset + 1,
                chain,
            });
        })?;
        checks.opened(self.index, self.boot, epoch);
        self.hold = None;
        self.writing = Some(epoch);
        self.roster.clear();
        self.quorum.enter(epoch, position.offset + 1);
        self.append_own(checks, now, epoch, &[])?;
        self.sync()
    }

    pub(super) fn stop_writing(&mut self) {
        if let Some(epoch) = self.writing.take() {
            self.quorum.leave(epoch);
        }
        self.hold = None;
        self.waiting.clear();
    }

    pub(super) fn end_follow(&mut self) {
        if let Some(follow) = &mut self.follow {
            follow.over = true;
        }
        self.incoming = None;
    }

    /// Appends a batch of its own; an epoch record has no changes.
    pub(super) fn append_own(
        &mut self,
        checks: &mut Checks,
        now: Time,
        epoch: u64,
        changes: &[Change],
    ) -> Result<(), Died> {
        let end = self.log.end();
        let first = end.position.offset + 1;
        let count = changes.len().max(1) as u32;
        let time = self.clock.unix_ms(now);
        let batch = Batch::encode(epoch, first, count, time, end.chain, &encode(changes));
        self.append(checks, &batch.unwrap(), 0)
    }

    /// Appends and applies. The batch must continue the log. `ahead` operations follow it at once.
    pub(super) fn append(
        &mut self,
        checks: &mut Checks,
        batch: &Batch,
        ahead: u64,
    ) -> Result<(), Died> {
        self.note_epoch(batch)?;
        self.log.push(batch.clone());
        if self.burns() {
            return Err(self.die());
        }
        self.store.apply(batch, ahead);
        checks.appended(self.index, batch, &self.store);
        Ok(())
    }

    fn note_epoch(&mut self, batch: &Batch) -> Result<(), Died> {
        let last = self.role.history.entries().last();
        if last.is_some_and(|e| e.epoch >= batch.epoch()) {
            return Ok(());
        }
        self.save(|role| {
            role.history.truncate(batch.first_offset() - 1);
            role.history.open(EpochStart {
                epoch: batch.epoch(),
                first_offset: batch.first_offset(),
                chain: batch.chain_before(),
            });
            role.has_data = true;
        })
    }

    /// A write of a client. Returns its position when it was admitted.
    pub(super) fn write(
        &mut self,
        checks: &mut Checks,
        now: Time,
        changes: &[Change],
    ) -> Option<Position> {
        let epoch = self.writing?;
        if self.hold.is_some() || self.clock.monotonic(now) >= self.permit_until {
            return None;
        }
        // Fewer in sync than have to acknowledge: refused, and nothing happens.
        let acks = self.quorum.acks() as usize;
        if self.quorum.coverage(&self.roster).in_sync() < acks {
            return None;
        }
        let live = |id| {
            self.feeds
                .values()
                .any(|f| f.seat.is_some_and(|(i, _)| i == id))
        };
        let live = self.roster.coverage(self.quorum.level(), live).in_sync();
        checks.admitted(self.index, epoch, acks, live);
        self.append_own(checks, now, epoch, changes).ok()?;
        self.waiting.push_back(self.end());
        Some(self.end())
    }

    /// Everything appended is durable.
    pub(super) fn sync(&mut self) -> Result<(), Died> {
        self.synced(self.end().offset)
    }

    /// Everything up to `offset` is durable, unless the disk fails.
    pub(super) fn synced(&mut self, offset: u64) -> Result<(), Died> {
        if offset > self.durable && self.burns() {
            return Err(self.die());
        }
        self.durable = self.durable.max(offset.min(self.end().offset));
        Ok(())
    }
}
