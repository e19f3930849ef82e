//! One node: what the real one's writer does, over a simulated disk. Roles are decided by the real `decide`.

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

use super::checks::Checks;
use super::disk::{Change, Checkpoint, Incoming, Log, Store, encode};
use super::sessions::{Feed, Follow};
use super::{PERMIT, Time};
use crate::batch::Batch;
use crate::breakage::{self, Breakage};
use crate::command::{Command, Effect, HandedOver, Refusal, RoleFacts, Standing, decide};
use crate::position::{EpochStart, History, LogEnd, Position};
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
}

/// A hand-over that waits for its target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) plan: HandedOver,
    pub(super) until: Time,
}

pub(super) struct Node {
    pub(super) index: usize,
    pub(super) id: Uuid,
    /// Counts the node's processes; the present one runs unless it is down.
    pub(super) boot: u64,
    pub(super) up: bool,
    pub(super) frozen_until: Time,
    /// Neither the Lease nor the operator is in reach until then; peers and clients are.
    pub(super) isolated_until: Time,

    // On disk.
    pub(super) role: Role,
    pub(super) log: Log,
    pub(super) durable: u64,
    pub(super) checkpoint: Checkpoint,

    // Lost with the process.
    pub(super) store: Store,
    pub(super) writing: Option<u64>,
    pub(super) permit_until: Time,
    pub(super) hold: Option<Hold>,
    /// Writes that wait for the disk.
    pub(super) waiting: VecDeque<Position>,
    pub(super) sync_under_way: bool,
    pub(super) feeds: BTreeMap<u64, Feed>,
    pub(super) follow: Option<Follow>,
    pub(super) incoming: Option<Incoming>,
    pub(super) connect_at: Time,
    pub(super) wants_snapshot: bool,
    pub(super) roster: Roster,
    pub(super) renew_at: Time,
}

impl Node {
    pub(super) fn new(index: usize) -> Self {
        Node {
            index,
            id: Uuid::from_u128(100 + index as u128),
            boot: 1,
            up: true,
            frozen_until: 0,
            isolated_until: 0,
            role: Role::default(),
            log: Log::default(),
            durable: 0,
            checkpoint: Checkpoint::default(),
            store: Store::default(),
            writing: None,
            permit_until: 0,
            hold: None,
            waiting: VecDeque::new(),
            sync_under_way: false,
            feeds: BTreeMap::new(),
            follow: None,
            incoming: None,
            connect_at: 0,
            wants_snapshot: false,
            roster: Roster::default(),
            renew_at: 0,
        }
    }

    pub(super) fn runs(&self, now: Time) -> bool {
        self.up && self.frozen_until <= now
    }

    pub(super) fn reaches_lease(&self, now: Time) -> bool {
        self.runs(now) && self.isolated_until <= now
    }

    pub(super) fn end(&self) -> Position {
        self.log.end().position
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

    /// Decides and carries out. `HoldWrites` is the caller's.
    pub(super) fn command(
        &mut self,
        checks: &mut Checks,
        command: &Command,
    ) -> Result<Effect, Refusal> {
        // What the answer says of the position is durable.
        self.sync();
        let next = decide(&self.facts(), command)?;
        checks.promise(self.index, self.role.promised, next.promised);
        match next.effect {
            Effect::None | Effect::OpenEpoch(_) | Effect::HoldWrites => {}
            Effect::StopWriting => self.stop_writing(),
            Effect::EndSession => self.end_follow(),
        }
        self.role.cluster = next.cluster;
        self.role.promised = next.promised;
        self.role.standing = next.standing;
        self.role.handed_over = next.handed_over;
        if let Effect::OpenEpoch(epoch) = next.effect {
            self.open(checks, epoch);
        }
        Ok(next.effect)
    }

    fn open(&mut self, checks: &mut Checks, epoch: u64) {
        if breakage::on(Breakage::ResetOffsetsOnRestart) && self.role.has_data {
            self.log = Log::default();
            self.role.history = History::default();
            self.durable = 0;
        }
        self.end_follow();
        let LogEnd { position, chain } = self.log.end();
        self.role.history.truncate(position.offset);
        self.role.history.open(EpochStart {
            epoch,
            first_offset: position.offset + 1,
            chain,
        });
        self.role.has_data = true;
        self.roster.clear();
        self.append_own(checks, epoch, &[]);
        self.sync();
        checks.opened(self.index, self.boot, epoch);
        self.writing = Some(epoch);
    }

    pub(super) fn stop_writing(&mut self) {
        self.writing = None;
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
    pub(super) fn append_own(&mut self, checks: &mut Checks, epoch: u64, changes: &[Change]) {
        let end = self.log.end();
        let first = end.position.offset + 1;
        let count = changes.len().max(1) as u32;
        let batch = Batch::encode(epoch, first, count, 0, end.chain, &encode(changes));
        self.append(checks, &batch.unwrap());
    }

    /// Appends and applies. The batch must continue the log.
    pub(super) fn append(&mut self, checks: &mut Checks, batch: &Batch) {
        self.note_epoch(batch);
        self.log.push(batch.clone());
        self.store.apply(batch);
        checks.appended(self.index, batch, &self.store);
    }

    fn note_epoch(&mut self, batch: &Batch) {
        let history = &mut self.role.history;
        if history
            .entries()
            .last()
            .is_none_or(|e| e.epoch < batch.epoch())
        {
            history.truncate(batch.first_offset() - 1);
            history.open(EpochStart {
                epoch: batch.epoch(),
                first_offset: batch.first_offset(),
                chain: batch.chain_before(),
            });
            self.role.has_data = true;
        }
    }

    /// A write of a client. Returns its position when it was admitted.
    pub(super) fn write(
        &mut self,
        checks: &mut Checks,
        now: Time,
        changes: &[Change],
    ) -> Option<Position> {
        let epoch = self.writing?;
        if self.hold.is_some() || now >= self.permit_until {
            return None;
        }
        self.append_own(checks, epoch, changes);
        self.waiting.push_back(self.end());
        Some(self.end())
    }

    /// Everything appended is durable.
    pub(super) fn sync(&mut self) {
        self.synced(self.end().offset);
    }

    /// Everything up to `offset` is durable.
    pub(super) fn synced(&mut self, offset: u64) {
        self.durable = self.durable.max(offset.min(self.end().offset));
    }

    /// Replies that may go out now.
    pub(super) fn acknowledge(&mut self, checks: &mut Checks, now: Time) {
        let skip_fsync = breakage::on(Breakage::SkipFsync);
        while let Some(position) = self.waiting.front().copied() {
            if position.offset > self.durable && !skip_fsync {
                return;
            }
            self.waiting.pop_front();
            if self.writing == Some(position.epoch) && now < self.permit_until {
                checks.acknowledged(self.index, self.boot, self.role.promised, position);
            }
        }
    }

    /// Writes a checkpoint of what is durable, and lets go of the log that neither it nor replicas need.
    pub(super) fn checkpoint(&mut self, log_size: u64) {
        if self.durable != self.end().offset || !self.role.has_data {
            return;
        }
        self.checkpoint = Checkpoint {
            end: self.log.end(),
            store: self.store.clone(),
        };
        let held = self.feeds.values().filter_map(|f| f.pin).min();
        let keep = self.end().offset.saturating_sub(log_size);
        self.log.drop_until(keep.min(held.unwrap_or(u64::MAX)));
    }

    /// Undoes what is after `to`. Returns false, and changes nothing, when only a full sync helps.
    pub(super) fn undo(&mut self, to: u64) -> bool {
        let checkpoint = self.checkpoint.end.position.offset;
        if checkpoint > to || self.log.chain_at(to).is_none() {
            return false;
        }
        self.log.cut_after(to);
        self.durable = to;
        self.role.history.truncate(to);
        self.recover();
        true
    }

    /// Takes the place of what was there, in one step.
    pub(super) fn install(&mut self, checks: &Checks) {
        let Some(incoming) = self.incoming.take() else {
            return;
        };
        self.log = incoming.log;
        self.store = incoming.store;
        self.role.history = incoming.history;
        self.role.has_data = true;
        self.durable = self.end().offset;
        self.wants_snapshot = false;
        checks.exact(self.index, &self.store);
        self.checkpoint = Checkpoint {
            end: self.log.end(),
            store: self.store.clone(),
        };
    }

    /// The process ends. Of what was not durable, `kept` says how much survives.
    pub(super) fn crash(&mut self, kept: u64) {
        self.up = false;
        self.frozen_until = 0;
        self.log
            .cut_after(self.log.boundary(kept.max(self.durable)));
        self.durable = self.end().offset;
        self.writing = None;
        self.hold = None;
        self.waiting.clear();
        self.sync_under_way = false;
        self.feeds.clear();
        self.follow = None;
        self.incoming = None;
        self.wants_snapshot = false;
        self.roster = Roster::default();
        self.permit_until = 0;
    }

    /// A new process over the same disk.
    pub(super) fn start(&mut self, checks: &mut Checks, now: Time) {
        self.up = true;
        self.boot += 1;
        self.role.history.truncate(self.end().offset);
        self.recover();
        checks.exact(self.index, &self.store);
        self.connect_at = now;
        self.renew_at = now;
        if breakage::on(Breakage::KeepEpochOnRestart)
            && let Standing::Master { epoch } = self.role.standing
        {
            self.writing = Some(epoch);
            self.permit_until = now + PERMIT;
        }
    }

    fn recover(&mut self) {
        self.store = self.checkpoint.store.clone();
        let from = self.checkpoint.end.position.offset;
        for batch in self.log.after(from) {
            self.store.apply(batch);
        }
    }
}
