//! The end of a change of the master: the Lease names the new one, who opens the epoch, or cannot.

use vectorizer_api::lease::{EXPIRE_MS, Grant, Holder};
use vectorizer_api::replication::Role;

use super::loss::lost_with;
use super::primary::holder_of;
use super::{At, Draft, Expect, Severity, Step, members};
use crate::crd::{PromoteMode, PromotionReason, TargetStatus, TargetStep};
use crate::names::reason;
use crate::world::{LeaseSeen, Member};

/// The Lease names the new master. It is promoted, if it is not yet; if it died, there is another election.
pub(super) fn granted(
    draft: &mut Draft<'_>,
    mut target: TargetStatus,
    grant: &Grant,
    holder: &Holder,
) {
    let world = draft.world;
    let expired = matches!(&world.lease, LeaseSeen::Held { unchanged, .. } if unchanged.as_millis() >= u128::from(EXPIRE_MS));
    let Some((member, state)) = world
        .node(holder.node_id)
        .and_then(|m| Some((m, m.state()?)))
    else {
        if expired {
            let text = format!(
                "{} died after it was granted epoch {}",
                holder.pod, grant.epoch
            );
            return reelect(draft, target, &text);
        }
        let text = format!(
            "{} does not answer after it was granted epoch {}",
            holder.pod, grant.epoch
        );
        return draft.wait(Severity::Trouble, reason::PROMOTION_WAITS, text);
    };
    let (Some(to), Some(present)) = (draft.peer(member), holder_of(member)) else {
        return;
    };
    if state.role == Role::Master && state.master_epoch == grant.epoch {
        return succeed(draft, &target, member, holder, grant.epoch);
    }
    let unopened = state.position.epoch < grant.epoch;
    if !unopened || !state.has_data {
        // It opened the epoch in an earlier process and takes the next one by itself.
        if expired {
            return reelect(draft, target, "the new master stopped and does not go on");
        }
        return draft.wait(
            Severity::Trouble,
            reason::MASTER_RESTARTING,
            format!("{} is restarting", member.pod),
        );
    }
    let mut epoch = grant.epoch;
    let granted = present.boot_id == holder.boot_id && state.promised_epoch <= epoch;
    if expired && granted {
        // Told again and again, it would have confirmed the Lease by now. It has not, and cannot any more: what is
        // made vacant is this very version.
        target.avoid = Some(state.node_id);
        target.wanted = None;
        let text = format!("{} cannot open epoch {epoch}", member.pod);
        return reelect(draft, target, &text);
    }
    if !granted {
        // Granted to a process that is gone before it began.
        epoch = world.highest_epoch().max(target.epoch) + 1;
        target.epoch = epoch;
        draft.memory.target = Some(target.clone());
        draft.record();
        draft.steps.push(Step::SetLease {
            expect: Expect::Content(grant.clone()),
            grant: Grant {
                epoch,
                holder: Some(present.clone()),
                ..grant.clone()
            },
        });
    }
    draft.steps.push(Step::Promote {
        to,
        epoch,
        at: At::Exactly(state.position),
    });
    succeed(draft, &target, member, &present, epoch);
}

pub(super) fn succeed(
    draft: &mut Draft<'_>,
    target: &TargetStatus,
    member: &Member,
    holder: &Holder,
    epoch: u64,
) {
    let lost = match (target.mode, target.reason) {
        (PromoteMode::Switchover, _) => Some(0),
        (PromoteMode::Failover, PromotionReason::Recovery) => None,
        (
            PromoteMode::Failover,
            PromotionReason::Requested
            | PromotionReason::ScaleDown
            | PromotionReason::Rollout
            | PromotionReason::Drain
            | PromotionReason::Deposed,
        ) => member.state().map(|next| lost_with(draft, next)),
    };
    let mut text = format!("{} is the master now, in epoch {epoch}", member.pod);
    match lost {
        Some(0) => text.push_str("; nothing is known to be lost"),
        Some(lost) => text.push_str(&format!("; at least {lost} operations are lost")),
        None => {}
    }
    if let Some(wanted) = target.wanted.as_ref().filter(|w| **w != member.pod) {
        text.push_str(&format!("; {wanted} was asked for, but holds less"));
    }
    members::crown(draft, target, member, holder, epoch, lost, text);
}

/// What was granted or handed over has nobody who can take it: the most advanced node becomes the master.
pub(super) fn reelect(draft: &mut Draft<'_>, mut target: TargetStatus, why: &str) {
    target.mode = PromoteMode::Failover;
    target.step = TargetStep::Vacating;
    target.step_at = draft.time();
    target.pod = None;
    target.node_id = None;
    target.epoch = draft.world.highest_epoch().max(target.epoch) + 1;
    target.message = Some(why.to_owned());
    draft.memory.target = Some(target);
    draft.record();
    draft.tell(true, reason::PROMOTION_WAITS, why);
    draft.fast = true;
}
