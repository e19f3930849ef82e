//! The planned change: the master hands over, nothing is lost.
//!
//! Fence the target at its present epoch → handover → Lease → promote → labels → follow → record, all in one pass, so
//! that nobody writes for a moment only. Until the handover is answered, every failure and the deadline leave the old
//! master writing. Found half done, the same commands are sent again: each of them answers the same twice.

use vectorizer_api::control::State;
use vectorizer_api::lease::Grant;
use vectorizer_api::replication::{ReplicaStatus, Role};

use super::concern::may_lead;
use super::primary::{give_up, holder_of, still_asked_for};
use super::{At, Draft, Expect, Severity, Step, failover, grant, members, seconds_since, typed};
use crate::crd::{
    MasterStatus, Promote, PromoteMode, PromotionReason, PromotionResult, TargetStatus, TargetStep,
};
use crate::names::reason;
use crate::world::{LeaseSeen, Member, World};

/// For how long one attempt may hold writes, in ms. The target has everything but the last moment when it begins.
const HOLD_MS: u64 = 5_000;
/// The same in seconds.
const HOLD_SECS: f64 = 5.0;

/// Goes on with a switchover.
pub(super) fn advance(draft: &mut Draft<'_>, target: TargetStatus) {
    let world = draft.world;
    let LeaseSeen::Held { grant, .. } = &world.lease else {
        return draft.wait(
            Severity::Trouble,
            reason::LEASE_UNUSABLE,
            "the lease is gone in the middle of a switchover",
        );
    };
    let Some(master) = draft.memory.master.clone() else {
        return give_up(
            draft,
            target,
            PromotionResult::Failed,
            "there is no master to hand over",
        );
    };
    let granted_to_target = |h: &vectorizer_api::lease::Holder| {
        Some(h.node_id) == target.node_id && grant.epoch > target.from_epoch
    };
    match &grant.holder {
        Some(holder) if granted_to_target(holder) => grant::granted(draft, target, grant, holder),
        Some(holder) if holder.node_id == master.node_id => match target.step {
            TargetStep::Reserved => begin(draft, target, &master, grant),
            TargetStep::HandingOver => resume(draft, target, &master, grant),
            TargetStep::Vacating | TargetStep::Fencing | TargetStep::Granting => {
                failover::advance(draft, target);
            }
        },
        Some(_) | None => give_up(
            draft,
            target,
            PromotionResult::Failed,
            "somebody else changed the lease",
        ),
    }
}

/// Starts as soon as both sides are ready; gives up at the deadline.
fn begin(draft: &mut Draft<'_>, mut target: TargetStatus, master: &MasterStatus, grant: &Grant) {
    let world = draft.world;
    if !still_asked_for(draft, &target) {
        return give_up(
            draft,
            target,
            PromotionResult::Failed,
            "the request was withdrawn",
        );
    }
    // A master that restarted in between is still the master; only the numbers are others.
    target.from_epoch = grant.epoch;
    target.from_boot = grant.holder.as_ref().map(|h| h.boot_id);
    target.epoch = world.highest_epoch() + 1;
    let outcome = ready(draft, &target, master, grant);
    // Whoever asked counts on nothing happening after the deadline.
    if draft.now() > target.deadline.0 {
        let trouble = outcome.err().or(target.message.clone());
        let text = format!(
            "could not begin in time, nothing has changed: {}",
            trouble
                .as_deref()
                .unwrap_or("its time was over before it began")
        );
        return give_up(draft, target, PromotionResult::Failed, text);
    }
    match outcome {
        Ok((old, new)) => go(draft, target, old, new, grant),
        Err(trouble) => {
            draft.wait(Severity::Progress, reason::PROMOTION_WAITS, trouble.clone());
            target.message = Some(trouble);
            draft.memory.target = Some(target);
        }
    }
}

/// A handover was begun, by this process or the one before.
fn resume(draft: &mut Draft<'_>, target: TargetStatus, master: &MasterStatus, grant: &Grant) {
    let world = draft.world;
    if grant.epoch != target.from_epoch {
        let text = format!(
            "the master restarted in the middle, in epoch {}; it goes on writing",
            grant.epoch
        );
        return give_up(draft, target, PromotionResult::Failed, text);
    }
    let Some(old) = world.node(master.node_id) else {
        let text = format!(
            "{} does not answer in the middle of a handover; if it does not come back, a replica takes over by {}",
            master.pod,
            typed::command(draft, PromoteMode::Failover, None)
        );
        return draft.wait(Severity::Blocked, reason::MASTER_UNREACHABLE, text);
    };
    if has_stopped(old, &target) {
        return finish(draft, target, old, grant);
    }
    if !still_asked_for(draft, &target) {
        return give_up(
            draft,
            target,
            PromotionResult::Failed,
            "the request was withdrawn; the master goes on writing",
        );
    }
    let outcome = ready(draft, &target, master, grant);
    // Where nothing stands in the way, one attempt more than could have begun at the deadline.
    let patience = match outcome {
        Ok(_) => HOLD_SECS,
        Err(_) => 0.0,
    };
    if seconds_since(draft.now(), &target.deadline) > patience {
        let said = target.message.clone().or(outcome.err());
        let text = format!(
            "not done in time, the master goes on writing: {}",
            said.as_deref().unwrap_or("its time is over")
        );
        return give_up(draft, target, PromotionResult::Failed, text);
    }
    match outcome {
        Ok((old, new)) => go(draft, target, old, new, grant),
        Err(trouble) => draft.wait(Severity::Progress, reason::PROMOTION_WAITS, trouble),
    }
}

/// Whether the old master has stopped writing and accepts nothing below the new epoch: it does not go on by itself.
fn has_stopped(old: &Member, target: &TargetStatus) -> bool {
    old.state()
        .is_some_and(|s| s.role != Role::Master && s.promised_epoch >= target.epoch)
}

/// Nobody writes: the target takes over soon, or the most advanced node does.
fn finish(draft: &mut Draft<'_>, mut target: TargetStatus, old: &Member, grant: &Grant) {
    let world = draft.world;
    let new = target.node_id.and_then(|id| world.node(id));
    if new.is_some_and(|new| !may_lead(&grant.concern, new)) {
        let text = "the target is no member by now: the most advanced member becomes the master";
        return grant::reelect(draft, target, text);
    }
    // Its time to begin is over. From when that is seen first, however early or late, it has as long as one attempt.
    if target.step_at.0 < target.deadline.0 {
        target.step_at = draft.time();
        target.deadline = draft.time();
        draft.memory.target = Some(target.clone());
        draft.record();
    }
    let patient = seconds_since(draft.now(), &target.step_at) <= HOLD_SECS;
    match new {
        Some(new) if patient => go(draft, target, old, new, grant),
        None if patient => draft.wait(
            Severity::Trouble,
            reason::PROMOTION_WAITS,
            "the target does not answer after the handover",
        ),
        // The master stopped for somebody else, by a command that came late, or the target cannot take over.
        Some(_) => {
            let text = "the target cannot take over what was handed over: the most advanced node becomes the master";
            grant::reelect(draft, target, text);
        }
        None => {
            let text =
                "the target is gone after the handover: the most advanced node becomes the master";
            grant::reelect(draft, target, text);
        }
    }
}

/// All commands of a switchover.
fn go(draft: &mut Draft<'_>, mut target: TargetStatus, old: &Member, new: &Member, grant: &Grant) {
    let (Some(from), Some(to), Some(holder), Some(cluster)) = (
        draft.peer(old),
        draft.peer(new),
        holder_of(new),
        draft.memory.cluster,
    ) else {
        return;
    };
    let first = target.step == TargetStep::Reserved;
    let state = new.state();
    if state.is_some_and(|s| s.position.epoch >= target.epoch) {
        // It has opened its epoch already, and the Lease was lost afterwards: that is all that is missing.
        draft.steps.push(Step::SetLease {
            expect: Expect::Content(grant.clone()),
            grant: Grant {
                cluster,
                epoch: target.epoch,
                holder: Some(holder),
                ..grant.clone()
            },
        });
        return;
    }
    // Not at the next epoch: its next greeting would depose the master.
    if state.is_some_and(|s| s.promised_epoch <= target.from_epoch) {
        draft.steps.push(Step::Fence {
            to: to.clone(),
            epoch: target.from_epoch,
        });
    }
    if first {
        target.pod = Some(new.pod.clone());
        target.node_id = Some(holder.node_id);
        target.step = TargetStep::HandingOver;
        target.step_at = draft.time();
        target.message = None;
        draft.memory.target = Some(target.clone());
        draft.tell(
            false,
            reason::PROMOTION_STARTED,
            format!("{} hands over to {}", old.pod, new.pod),
        );
        draft.record();
    }
    draft.steps.push(Step::Handover {
        to: from,
        from_epoch: target.from_epoch,
        epoch: target.epoch,
        target: holder.node_id,
        deadline_ms: HOLD_MS,
    });
    let next = Grant {
        cluster,
        epoch: target.epoch,
        holder: Some(holder.clone()),
        ..grant.clone()
    };
    draft.steps.push(Step::SetLease {
        expect: Expect::Content(grant.clone()),
        grant: next,
    });
    draft.steps.push(Step::Promote {
        to,
        epoch: target.epoch,
        at: At::HandedOver,
    });
    let epoch = target.epoch;
    let text = format!(
        "{} is the master now, in epoch {epoch}; nothing is lost",
        new.pod
    );
    members::crown(draft, &target, new, &holder, epoch, Some(0), text);
}

/// Master and target, or what is missing.
fn ready<'w>(
    draft: &Draft<'w>,
    target: &TargetStatus,
    master: &MasterStatus,
    grant: &Grant,
) -> Result<(&'w Member, &'w Member), String> {
    let world = draft.world;
    let writing = |s: &State| s.role == Role::Master && s.writable && s.master_epoch == grant.epoch;
    let old = world
        .node(master.node_id)
        .filter(|m| m.state().is_some_and(writing));
    let old = old.ok_or_else(|| {
        format!(
            "the master {} does not accept writes, and a switchover needs it; without it a replica takes over by {}",
            master.pod,
            typed::command(draft, PromoteMode::Failover, None)
        )
    })?;
    let new = match target.pod.as_ref().or(target.wanted.as_ref()) {
        Some(pod) => {
            let member = world
                .member(pod)
                .ok_or_else(|| format!("{pod} does not exist"))?;
            if let Some(trouble) = unfit(world, member, master, target) {
                return Err(trouble);
            }
            member
        }
        None => best(world, master, target)?,
    };
    Ok((old, new))
}

/// The most advanced replica that can take over; of equals, the first.
pub(super) fn best<'w>(
    world: &'w World,
    master: &MasterStatus,
    target: &TargetStatus,
) -> Result<&'w Member, String> {
    let mut troubles = Vec::new();
    let mut fit: Vec<&Member> = Vec::new();
    for member in world.wanted().filter(|m| m.pod != master.pod) {
        match unfit(world, member, master, target) {
            None => fit.push(member),
            Some(trouble) => troubles.push(trouble),
        }
    }
    let offset = |m: &&Member| world.replica(m).map_or(0, |r| r.durable_offset);
    let first_of_best = fit.into_iter().rev().max_by_key(offset);
    first_of_best.ok_or_else(|| {
        if troubles.is_empty() {
            "there is no replica".to_owned()
        } else {
            troubles.join("; ")
        }
    })
}

/// Why a member cannot take over now.
fn unfit(
    world: &World,
    member: &Member,
    master: &MasterStatus,
    target: &TargetStatus,
) -> Option<String> {
    let pod = &member.pod;
    if *pod == master.pod {
        return Some(format!("{pod} is the master already"));
    }
    if !world.is_wanted(member) {
        return Some(format!("{pod} is about to be removed"));
    }
    let Some(state) = member.state() else {
        return Some(format!("{pod} {}", member.silence()));
    };
    if member.seen.as_ref().is_none_or(|p| p.deleting) {
        return Some(format!("{pod} is being deleted"));
    }
    if target.reason == PromotionReason::Drain && member.seen.as_ref().is_some_and(|p| p.cordoned) {
        return Some(format!(
            "{pod} is on a Kubernetes node that is being drained too"
        ));
    }
    if state.role != Role::Replica || !state.has_data {
        return Some(format!("{pod} holds no complete copy of the data"));
    }
    if let Some(grant) = world.lease.grant()
        && !may_lead(&grant.concern, member)
    {
        return Some(format!(
            "{pod} is no member yet: acknowledged writes are only on members for certain"
        ));
    }
    let Some(replica) = world.replica(member) else {
        return Some(format!("{pod} is not known to the master"));
    };
    match replica.status {
        ReplicaStatus::Connected if replica.connected => {}
        ReplicaStatus::Connected | ReplicaStatus::Disconnected => {
            return Some(format!("{pod} is not connected to the master"));
        }
        ReplicaStatus::Syncing | ReplicaStatus::Lagging => {
            // How far is a figure, and changes with every write: see `nodes` in the status.
            return Some(format!("{pod} is behind"));
        }
    }
    match target.max_lag_operations {
        Some(most) if replica.lag_operations > most => Some(format!(
            "{pod} is more operations behind than maxLagOperations, which is {most}"
        )),
        Some(_) | None => None,
    }
}

/// The master died in the middle, or the target does not begin, and a person asks for a failover: this one turns into it.
pub(super) fn becomes_failover(draft: &mut Draft<'_>, mut target: TargetStatus, request: &Promote) {
    let holder = draft.world.lease.grant().and_then(|g| g.holder.as_ref());
    let granted = holder.is_some_and(|h| Some(h.node_id) == target.node_id);
    let master = draft.memory.master.as_ref();
    let old = master.and_then(|m| draft.world.node(m.node_id));
    // Once the epoch is the target's, or has ended, the old master can do nothing about it, whether it answers or not.
    if old.is_some_and(|old| !has_stopped(old, &target)) && !granted {
        return advance(draft, target);
    }
    if let Some(id) = &target.request_id {
        draft.memory.handled(id);
    }
    if granted {
        target.avoid = target.node_id;
    }
    target.wanted = request.target.clone();
    target.request_id = Some(request.request_id.clone());
    target.mode = PromoteMode::Failover;
    target.max_lag_operations = request.max_lag_operations;
    grant::reelect(
        draft,
        target,
        "a failover was asked for in the middle of a handover",
    );
}
