//! What the operator wants of members and acknowledgements, after `operator/src/plan/concern.rs`.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::control::State;
use super::operator::Step;
use super::plan::Draft;
use crate::breakage::{self, Breakage};
use crate::concern::Concern;

impl Draft<'_> {
    fn is_wanted(&self, node: usize) -> bool {
        self.view.spec.unwanted != Some(node)
    }

    /// Asks the master for the members and acknowledgements that are wanted, as far as they can be had now; a pod whose
    /// node is no member goes.
    pub(super) fn settle(&mut self) {
        let record = self.view.grant.concern.clone();
        if let Some(node) = self.view.spec.unwanted {
            let state = self.view.nodes[node].as_ref();
            let member = state.is_some_and(|s| record.members.contains(&s.id));
            if state.is_some_and(|s| !s.is_master()) && !member {
                self.steps.push(Step::Delete { node });
            }
        }
        let master = self.status.master.and_then(|(m, _)| self.by_id(m.id));
        let Some(state) = master.filter(|s| s.writable).cloned() else {
            return;
        };
        let wanted = self.view.spec.acks;
        let Some(epoch) = state.master_epoch else {
            return;
        };
        if wanted == 0 && record.acks == 0 && record.members.is_empty() {
            return;
        }
        let members = self.members(&state, &record);
        let replicas = members.len().saturating_sub(1) as u32;
        let concern = Concern {
            members,
            acks: wanted.min(replicas),
        };
        // A master that never heard how its change ended may still go by something stricter than what is recorded.
        let known = state.settled.as_ref() == Some(&record);
        if !(concern == record && known) && concern.members.contains(&state.id) {
            let node = state.node;
            self.steps.push(Step::Members {
                node,
                epoch,
                concern,
                recorded: record,
            });
        }
    }

    /// Wanted nodes that are in sync with the master. One that does not answer keeps its place, as nobody knows which node
    /// it is.
    fn members(&self, master: &State, record: &Concern) -> BTreeSet<Uuid> {
        let wanted = self.states().filter(|s| self.is_wanted(s.node));
        let in_sync = |s: &State| s.id == master.id || master.replicas.contains(&s.id);
        let joined = wanted.filter(|s| in_sync(s) || record.members.contains(&s.id));
        let mut members: BTreeSet<Uuid> = joined.map(|s| s.id).collect();
        let all = self.view.nodes.iter().enumerate();
        let unknown = all
            .filter(|(node, _)| self.is_wanted(*node))
            .any(|(_, state)| state.is_none());
        for id in &record.members {
            let surplus = self.by_id(*id).is_some_and(|s| !self.is_wanted(s.node));
            if unknown && !surplus {
                members.insert(*id);
            }
        }
        members
    }

    /// Whether as many members answer, or have promised, as hold every acknowledged write between them.
    pub(super) fn quorum(&self, promised: Option<u64>) -> bool {
        let concern = &self.view.grant.concern;
        let counts = |s: &&State| {
            concern.members.contains(&s.id) && promised.is_none_or(|epoch| s.promised >= epoch)
        };
        let short = usize::from(breakage::on(Breakage::FenceOneTooFew));
        concern.acks == 0 || self.states().filter(counts).count() + short >= concern.quorum()
    }
}
