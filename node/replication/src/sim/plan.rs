//! What the operator decides, after `operator/src/plan`: pure over what was observed.

use uuid::Uuid;

use super::control::State;
use super::lease::Grant;
use super::operator::{At, Expect, Mode, Request, Stage, Status, Step, Target, View};
use super::{EXPIRE, Time};
use crate::breakage::{self, Breakage};
use crate::command::HandedOver;

/// A change that has not begun by then is given up.
const DEADLINE: Time = 1_500;
/// For how long a node is waited for that does not answer: it may be the most advanced.
const STRAGGLER: Time = 500;

pub(super) struct Draft<'v> {
    pub(super) view: &'v View,
    pub(super) status: Status,
    pub(super) steps: Vec<Step>,
}

/// The steps for what was observed.
pub(super) fn plan(view: &View) -> Vec<Step> {
    let mut draft = Draft {
        view,
        status: view.status.clone(),
        steps: Vec::new(),
    };
    if !draft.status.initialized {
        draft.start();
    } else {
        if draft.status.target.is_none() {
            draft.look();
        }
        match draft.status.target {
            Some(target) => draft.advance(target),
            None => {
                draft.follow();
                draft.settle();
            }
        }
    }
    draft.steps
}

impl Draft<'_> {
    fn record(&mut self) {
        self.steps.push(Step::Record(Box::new(self.status.clone())));
    }

    pub(super) fn states(&self) -> impl DoubleEndedIterator<Item = &State> {
        self.view.nodes.iter().flatten()
    }

    pub(super) fn by_id(&self, id: Uuid) -> Option<&State> {
        self.states().find(|s| s.id == id)
    }

    fn highest_epoch(&self) -> u64 {
        let known = self.states().map(|s| s.promised.max(s.end.epoch));
        known.max().unwrap_or(0).max(self.view.grant.epoch)
    }

    /// Once in a cluster's life.
    fn start(&mut self) {
        let Some(first) = self.view.nodes[0].clone() else {
            return;
        };
        let grant = self.view.grant.clone();
        let holds = grant.holder.filter(|h| h.id == first.id);
        if let (true, Some(holder)) = (first.has_data, holds) {
            self.status.initialized = true;
            self.status.master = Some((holder, grant.epoch));
            return self.record();
        }
        let holder = first.holder();
        let epoch = if holds == Some(holder) {
            grant.epoch
        } else {
            grant.epoch + 1
        };
        let next = Grant {
            epoch,
            holder: Some(holder),
            ..grant.clone()
        };
        let expect = Expect::Content(grant);
        self.steps.push(Step::SetLease {
            expect,
            grant: next,
        });
        self.steps.push(Step::Initialize { node: 0, epoch });
    }

    /// Whether anything has to change.
    fn look(&mut self) {
        let grant = self.view.grant.clone();
        let Some((master, epoch)) = self.status.master else {
            return;
        };
        if let Some(holder) = grant.holder {
            let same = holder.id == master.id;
            let newer = grant.epoch > epoch;
            let agrees = self
                .by_id(holder.id)
                .is_some_and(|s| s.master_epoch == Some(grant.epoch));
            if same && (newer || holder.boot != master.boot) || newer && agrees {
                self.status.master = Some((holder, grant.epoch));
                self.record();
            }
        }
        let asked = self.view.request.filter(|r| r.id > self.status.handled);
        if let Some(Request { id, mode, to }) = asked {
            self.status.handled = id;
            let to = to.and_then(|to| self.view.nodes[to].as_ref().map(|s| (to, s.id)));
            self.reserve(id, mode, to);
        } else if self.nobody_can() {
            self.reserve(0, Mode::Failover, None);
        }
    }

    /// Nobody can write, and nobody will by itself. (A master that does not come back is a person's decision in truth;
    /// here there is always one who takes it.)
    fn nobody_can(&self) -> bool {
        let grant = self.view.grant.clone();
        let Some(holder) = grant.holder else {
            return true;
        };
        match self.by_id(holder.id) {
            Some(state) if state.is_master() => false,
            Some(state) => self.view.unchanged >= EXPIRE || state.promised > grant.epoch,
            None => self.view.unchanged >= EXPIRE,
        }
    }

    fn reserve(&mut self, request: u64, mode: Mode, to: Option<(usize, Uuid)>) {
        self.status.target = Some(Target {
            request,
            mode,
            step: Stage::Reserved,
            step_at: self.view.now,
            to,
            epoch: self.highest_epoch() + 1,
            from_epoch: self.view.grant.epoch,
            deadline: self.view.now + DEADLINE,
        });
        self.record();
    }

    fn give_up(&mut self) {
        self.status.target = None;
        self.record();
    }

    fn go_to(&mut self, mut target: Target, step: Stage) -> Target {
        target.step = step;
        target.step_at = self.view.now;
        self.status.target = Some(target);
        self.record();
        target
    }

    fn advance(&mut self, target: Target) {
        match target.mode {
            // Nothing has changed yet, and the person who is here asks for a failover instead.
            Mode::Switchover if target.step == Stage::Reserved && self.nobody_can() => {
                self.give_up();
            }
            Mode::Switchover => self.switch(target),
            Mode::Failover => match target.step {
                Stage::Reserved => self.begin_failover(target),
                Stage::HandingOver | Stage::Vacating => self.vacate(target),
                Stage::Fencing | Stage::Granting => self.elect(target),
            },
        }
    }

    // Planned.

    fn switch(&mut self, mut target: Target) {
        let grant = self.view.grant.clone();
        let Some((master, _)) = self.status.master else {
            return self.give_up();
        };
        let to = target.to.map(|(_, id)| id);
        match grant.holder {
            Some(holder) if Some(holder.id) == to && grant.epoch > target.from_epoch => {
                self.granted(target);
            }
            Some(holder) if holder.id == master.id => {
                if target.step == Stage::Reserved {
                    target.from_epoch = grant.epoch;
                    target.epoch = self.highest_epoch() + 1;
                } else if grant.epoch != target.from_epoch {
                    return self.give_up();
                }
                let old = self.by_id(master.id).cloned();
                let handed_over = target.step != Stage::Reserved
                    && old
                        .as_ref()
                        .is_some_and(|s| !s.is_master() && s.promised >= target.epoch);
                let new = to.and_then(|id| self.by_id(id)).cloned();
                let late = self.view.now > target.deadline;
                match (old, new) {
                    // The record has changed since it was chosen: members decide, the former master among them.
                    (Some(_), Some(new)) if handed_over && !may_lead(&new, &grant) => {
                        self.reelect(target);
                    }
                    // Handed to somebody else, by a command that came late, or to one that cannot take it.
                    (Some(_), Some(_)) if handed_over && late => self.reelect(target),
                    (Some(old), Some(new)) if handed_over || ready(&old, &new, &grant) => {
                        self.hand_over(target, &old, &new);
                    }
                    (_, None) if handed_over && late => self.reelect(target),
                    (None, _) if target.step != Stage::Reserved && late => self.reelect(target),
                    (_, _) if late && !handed_over => self.give_up(),
                    (_, _) => {}
                }
            }
            Some(_) | None => self.give_up(),
        }
    }

    fn hand_over(&mut self, target: Target, old: &State, new: &State) {
        let grant = self.view.grant.clone();
        let next = Grant {
            epoch: target.epoch,
            holder: Some(new.holder()),
            ..grant.clone()
        };
        let set = Step::SetLease {
            expect: Expect::Content(grant),
            grant: next,
        };
        if new.end.epoch >= target.epoch {
            // It has opened its epoch already: the Lease is all that is missing.
            return self.steps.push(set);
        }
        // Not at the next epoch: its next greeting would depose the master.
        if new.promised <= target.from_epoch {
            let (node, epoch) = (new.node, target.from_epoch);
            self.steps.push(Step::Fence { node, epoch });
        }
        if target.step == Stage::Reserved {
            self.go_to(target, Stage::HandingOver);
        }
        let plan = HandedOver {
            from_epoch: target.from_epoch,
            epoch: target.epoch,
            target: new.id,
        };
        let node = old.node;
        self.steps.push(Step::Handover { node, plan });
        self.steps.push(set);
        self.steps.push(Step::Promote {
            node: new.node,
            epoch: target.epoch,
            at: At::HandedOver,
        });
        self.crown(new, target.epoch);
    }

    // Unplanned.

    fn begin_failover(&mut self, mut target: Target) {
        target.epoch = self.highest_epoch() + 1;
        let master = self.status.master.and_then(|(m, _)| self.by_id(m.id));
        let alive = master.is_some_and(|s| s.is_master() && s.writable);
        // What needs no fence comes first, so that a refusal changes nothing.
        if alive && target.request > 0 {
            return self.give_up();
        }
        if self.candidates().next().is_some() && self.quorum(None) && self.evidence() {
            let target = self.go_to(target, Stage::Vacating);
            self.vacate(target);
        } else if self.view.now > target.deadline {
            self.give_up();
        }
    }

    fn candidates(&self) -> impl DoubleEndedIterator<Item = &State> {
        let usable = self.states().filter(|s| s.has_data && !s.is_master());
        usable.filter(|s| may_lead(s, &self.view.grant) && keeps(s, &self.view.grant))
    }

    /// Whether the old master can no longer acknowledge anything.
    fn evidence(&self) -> bool {
        let grant = self.view.grant.clone();
        let Some(holder) = grant.holder else {
            return true;
        };
        let deposed = self
            .by_id(holder.id)
            .is_some_and(|s| !s.is_master() && s.promised > grant.epoch);
        deposed || self.view.unchanged >= EXPIRE
    }

    fn vacate(&mut self, mut target: Target) {
        let grant = self.view.grant.clone();
        let expect = match grant.holder {
            None => {
                target.epoch = target.epoch.max(grant.epoch);
                Expect::Content(grant.clone())
            }
            Some(holder) => {
                let back = self.by_id(holder.id);
                if back.is_some_and(|s| s.is_master() && s.writable) {
                    let known = self.status.master.is_some_and(|(m, _)| m.id == holder.id);
                    return if known {
                        self.give_up()
                    } else {
                        self.granted(target)
                    };
                }
                target.epoch = target.epoch.max(grant.epoch + 1);
                if !self.evidence() {
                    return;
                }
                Expect::Version(self.view.version)
            }
        };
        let vacant = Grant {
            epoch: target.epoch,
            holder: None,
            ..grant
        };
        self.steps.push(Step::SetLease {
            expect,
            grant: vacant,
        });
        self.go_to(target, Stage::Fencing);
        self.fence_all(target.epoch);
    }

    /// Tells everybody who answers and has not promised yet. Returns whether there was anybody.
    fn fence_all(&mut self, epoch: u64) -> bool {
        let open: Vec<usize> = self
            .states()
            .filter(|s| s.promised < epoch)
            .map(|s| s.node)
            .collect();
        for node in &open {
            self.steps.push(Step::Fence { node: *node, epoch });
        }
        !open.is_empty()
    }

    fn elect(&mut self, mut target: Target) {
        let grant = self.view.grant.clone();
        if grant.holder.is_some() {
            return if grant.epoch >= target.epoch {
                self.granted(target)
            } else {
                self.vacate(target)
            };
        }
        let known = self.states().map(|s| s.promised.max(s.end.epoch)).max();
        let known = known.unwrap_or(0);
        if known > target.epoch.max(grant.epoch) {
            target.epoch = known + 1;
            return self.vacate(target);
        }
        if grant.epoch != target.epoch {
            return self.vacate(target);
        }
        if self.fence_all(target.epoch) {
            return;
        }
        if !self.quorum(Some(target.epoch)) {
            return;
        }
        let missing = self.view.nodes.iter().any(Option::is_none);
        if missing && self.view.now < target.step_at + STRAGGLER {
            return;
        }
        let Some(best) = self.candidates().rev().max_by_key(|s| s.end).cloned() else {
            return;
        };
        target.to = Some((best.node, best.id));
        self.go_to(target, Stage::Granting);
        self.steps.push(Step::SetLease {
            expect: Expect::Content(grant.clone()),
            grant: Grant {
                epoch: target.epoch,
                holder: Some(best.holder()),
                ..grant
            },
        });
        self.promote(&best, target.epoch);
    }

    fn promote(&mut self, state: &State, epoch: u64) {
        self.steps.push(Step::Promote {
            node: state.node,
            epoch,
            at: At::Exactly(state.end),
        });
        self.crown(state, epoch);
    }

    /// The Lease names the new master: it is promoted, if it is not yet; if it died, there is another election.
    fn granted(&mut self, mut target: Target) {
        let grant = self.view.grant.clone();
        let Some(holder) = grant.holder else { return };
        let expired = self.view.unchanged >= EXPIRE;
        let Some(state) = self.by_id(holder.id).cloned() else {
            if expired {
                self.reelect(target);
            }
            return;
        };
        if state.master_epoch == Some(grant.epoch) {
            return self.crown(&state, grant.epoch);
        }
        let unopened = state.end.epoch < grant.epoch;
        if !unopened || !state.has_data {
            // It opened the epoch in an earlier process and takes the next one by itself.
            if expired {
                self.reelect(target);
            }
            return;
        }
        let mut epoch = grant.epoch;
        if state.boot != holder.boot || state.promised > epoch {
            epoch = self.highest_epoch().max(target.epoch) + 1;
            target.epoch = epoch;
            self.status.target = Some(target);
            self.record();
            self.steps.push(Step::SetLease {
                expect: Expect::Content(grant.clone()),
                grant: Grant {
                    epoch,
                    holder: Some(state.holder()),
                    ..grant
                },
            });
        }
        self.promote(&state, epoch);
    }

    fn reelect(&mut self, mut target: Target) {
        target.mode = Mode::Failover;
        target.to = None;
        target.epoch = self.highest_epoch().max(target.epoch) + 1;
        self.go_to(target, Stage::Vacating);
    }

    // Everybody.

    fn crown(&mut self, master: &State, epoch: u64) {
        let others: Vec<usize> = self
            .states()
            .filter(|s| s.id != master.id)
            .map(|s| s.node)
            .collect();
        for node in others {
            let master = master.node;
            self.steps.push(Step::Follow {
                node,
                master,
                epoch,
            });
        }
        self.status.master = Some((master.holder(), epoch));
        self.status.target = None;
        self.record();
    }

    /// Tells everybody who does not follow the master to do so.
    fn follow(&mut self) {
        let Some((master, _)) = self.status.master else {
            return;
        };
        let Some(state) = self.by_id(master.id) else {
            return;
        };
        let Some(epoch) = state.master_epoch else {
            return;
        };
        let master = state.node;
        let astray: Vec<usize> = self
            .states()
            .filter(|s| s.node != master && s.promised <= epoch)
            .filter(|s| !(s.is_replica && s.promised >= epoch && s.follows == Some(master)))
            .map(|s| s.node)
            .collect();
        for node in astray {
            self.steps.push(Step::Follow {
                node,
                master,
                epoch,
            });
        }
    }
}

/// A master is a member: its own disk is one of those that hold what was acknowledged.
fn may_lead(state: &State, grant: &Grant) -> bool {
    let anybody = breakage::on(Breakage::LeadByNonMember);
    grant.concern.acks == 0 || grant.concern.members.contains(&state.id) || anybody
}

/// Whether a node holds what was acknowledged before the number of acknowledgements was lowered to 0.
fn keeps(state: &State, grant: &Grant) -> bool {
    let anybody = breakage::on(Breakage::ElectUnsecured);
    grant.concern.acks > 0 || state.end >= grant.secured || anybody
}

fn ready(old: &State, new: &State, grant: &Grant) -> bool {
    let writes = old.writable && old.master_epoch == Some(grant.epoch);
    writes
        && may_lead(new, grant)
        && old.id != new.id
        && new.is_replica
        && new.has_data
        && old.replicas.contains(&new.id)
}
