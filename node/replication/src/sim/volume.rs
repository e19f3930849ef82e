//! What a node's process does to its volume beside appending, how the disk fails, and how the process begins anew.

use super::checks::Checks;
use super::disk::Checkpoint;
use super::log::Torn;
use super::node::{Node, Role};
use super::{PERMIT, Time};
use crate::breakage::{self, Breakage};
use crate::command::Standing;
use crate::quorum::Quorum;
use crate::roster::Roster;

/// A disk that fails after so many more operations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fuse {
    pub(super) operations: u64,
    pub(super) torn: Torn,
}

/// The process ended: its disk failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Died;

impl Node {
    /// Writes a checkpoint of what is durable, and lets go of the log that neither it nor replicas need.
    pub(super) fn checkpoint(&mut self, log_size: u64) {
        if self.durable != self.end().offset || !self.role.has_data || !self.up {
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
    pub(super) fn undo(&mut self, checks: &Checks, to: u64) -> Result<bool, Died> {
        let checkpoint = self.checkpoint.end.position.offset;
        if checkpoint > to || self.log.chain_at(to).is_none() {
            return Ok(false);
        }
        let fails = self.burns();
        if !fails || self.fuse.is_some_and(|f| f.torn.role_is_new) {
            self.log.cut_after(to);
            self.durable = to;
            self.role.history.truncate(to);
            self.log_version += 1;
            self.sync_under_way = false;
            self.went_back = true;
        }
        if fails {
            return Err(self.die());
        }
        self.recover();
        checks.exact(self.index, &self.store, self.end());
        Ok(true)
    }

    /// Takes the place of what was there, in one step.
    pub(super) fn install(&mut self, checks: &Checks) -> Result<(), Died> {
        let Some(incoming) = self.incoming.take() else {
            return Ok(());
        };
        let fails = self.burns();
        if !fails || self.fuse.is_some_and(|f| f.torn.role_is_new) {
            self.log = incoming.log;
            self.store = incoming.store;
            self.shown = self.store.applied;
            self.role.history = incoming.history;
            self.role.has_data = true;
            self.durable = self.end().offset;
            self.log_version += 1;
            self.sync_under_way = false;
            self.went_back = true;
            self.checkpoint = Checkpoint {
                end: self.log.end(),
                store: self.store.clone(),
            };
        }
        if fails {
            return Err(self.die());
        }
        self.wants_snapshot = false;
        checks.exact(self.index, &self.store, self.end());
        Ok(())
    }

    pub(super) fn save(&mut self, change: impl FnOnce(&mut Role)) -> Result<(), Died> {
        if !self.burns() {
            change(&mut self.role);
            return Ok(());
        }
        if self.fuse.is_some_and(|f| f.torn.role_is_new) {
            change(&mut self.role);
        }
        Err(self.die())
    }

    /// Whether this operation of the disk is the one that fails.
    pub(super) fn burns(&mut self) -> bool {
        let Some(fuse) = &mut self.fuse else {
            return false;
        };
        let fails = fuse.operations == 0;
        fuse.operations = fuse.operations.saturating_sub(1);
        fails
    }

    pub(super) fn die(&mut self) -> Died {
        let torn = self.fuse.take().map(|f| f.torn).unwrap_or_default();
        self.crash(torn);
        self.died = true;
        Died
    }

    /// The process ends. Of what was not durable, `torn` says what survives.
    pub(super) fn crash(&mut self, torn: Torn) {
        self.up = false;
        self.frozen_until = 0;
        self.fuse = None;
        self.log.tear(self.durable, torn);
        self.went_back |= self.end() < self.seen_end;
        self.durable = self.end().offset;
        self.log_version += 1;
        self.writing = None;
        self.hold = None;
        self.waiting.clear();
        let level = self.quorum.level();
        self.quorum = Quorum::default();
        self.quorum.set_level(level);
        self.changing = None;
        self.sync_under_way = false;
        self.feeds.clear();
        self.follow = None;
        self.incoming = None;
        self.wants_snapshot = false;
        self.roster = Roster::default();
        self.permit_until = 0;
        self.asking = None;
        self.retaking = None;
    }

    /// A new process over the same disk.
    pub(super) fn start(&mut self, checks: &mut Checks, now: Time) {
        self.up = true;
        self.boot += 1;
        self.role.history.truncate(self.end().offset);
        if self.end().offset == 0 && matches!(self.role.standing, Standing::Replica { .. }) {
            self.role.has_data = false;
        }
        self.recover();
        checks.exact(self.index, &self.store, self.end());
        self.connect_at = now;
        self.renew_at = 0;
        if let Standing::Master { epoch } = self.role.standing {
            self.retaking = Some(self.role.promised);
            if breakage::on(Breakage::KeepEpochOnRestart) {
                self.writing = Some(epoch);
                self.quorum
                    .enter(epoch, self.role.history.last_first_offset());
                self.permit_until = self.clock.monotonic(now) + PERMIT;
            }
        }
    }

    fn recover(&mut self) {
        self.store = self.checkpoint.store.clone();
        let from = self.checkpoint.end.position.offset;
        for batch in self.log.after(from) {
            self.store.apply(batch, 0);
        }
        self.shown = self.store.applied;
    }
}
