//! Who is master, and whether that has to change. Decided state, never what a node claims: two nodes can claim it.

use vectorizer_api::lease::{EXPIRE_MS, Grant, Holder};

use super::{Draft, Expect, Severity, Step, failover, loss, start, switchover, typed};
use crate::crd::{
    LastPromotion, MasterStatus, Promote, PromoteMode, PromotionReason, PromotionResult,
    TargetStatus, TargetStep,
};
use crate::names::reason;
use crate::world::{LeaseSeen, Member, World};

/// How long a change that the operator needs itself may wait to begin, in seconds. It is tried anew afterwards.
const OWN_DEADLINE_SECS: i64 = 30;

/// Whether a change of the master is under way that cannot be left where it is.
pub(super) fn past_return(draft: &Draft<'_>) -> bool {
    let target = draft.memory.target.as_ref();
    target.is_some_and(|t| t.step != TargetStep::Reserved)
}

/// Carries on what is under way, or finds out whether anything has to be.
pub(super) fn mastership(draft: &mut Draft<'_>) {
    if draft.memory.target.is_some() {
        return advance(draft);
    }
    let Some(master) = draft.memory.master.clone() else {
        return start::start(draft);
    };
    if !agree_with_lease(draft, &master) {
        return;
    }
    if draft.memory.target.is_none() && !deal_with_request(draft) && draft.memory.target.is_none() {
        reelect_if_nobody_can(draft);
    }
    if draft.memory.target.is_some() {
        advance(draft);
    }
}

/// While paused: what the Lease says of the master is taken over, and nothing is changed.
pub(super) fn adopt(draft: &mut Draft<'_>) {
    let Some(master) = draft.memory.master.clone() else {
        return;
    };
    if draft.world.lease == LeaseSeen::Missing {
        let text = "the lease was deleted: it is written again once spec.paused is false, and until then the master cannot write";
        return draft.wait(Severity::Blocked, reason::LEASE_UNUSABLE, text);
    }
    agree_with_lease(draft, &master);
}

/// Goes on with the change that is reserved.
fn advance(draft: &mut Draft<'_>) {
    let Some(target) = draft.memory.target.clone() else {
        return;
    };
    // Before a recovery nobody was master, so that nobody can be writing without a Lease.
    let somebody_had_it = draft.memory.master.is_some() || target.step == TargetStep::Granting;
    if draft.world.lease == LeaseSeen::Missing && somebody_had_it {
        return restore_lease(draft, Some(&target));
    }
    if let Some(request) = pending_request(draft) {
        match (target.step, request.mode, target.mode) {
            // Nothing has changed yet: the newer wish counts.
            (TargetStep::Reserved, _, _) => {
                let by = format!("superseded by request {}", request.request_id);
                return give_up(draft, target, PromotionResult::Failed, by);
            }
            (TargetStep::HandingOver, PromoteMode::Failover, PromoteMode::Switchover) => {
                let request = request.clone();
                return switchover::becomes_failover(draft, target, &request);
            }
            (
                TargetStep::HandingOver
                | TargetStep::Vacating
                | TargetStep::Fencing
                | TargetStep::Granting,
                PromoteMode::Switchover | PromoteMode::Failover,
                PromoteMode::Switchover | PromoteMode::Failover,
            ) => {}
        }
    }
    match target.mode {
        PromoteMode::Switchover => switchover::advance(draft, target),
        PromoteMode::Failover => failover::advance(draft, target),
    }
}

/// Makes a Lease the cluster's own that was left without an owner, or came from a backup. That it is ours says nothing
/// about what it says: see `start`. Not in a plan that changes it anyway, which does the same.
pub(super) fn adopt_lease(draft: &mut Draft<'_>) {
    let left = matches!(draft.world.lease, LeaseSeen::Held { owned: false, .. });
    let changed = |step: &Step| matches!(step, Step::SetLease { .. });
    if left && !draft.steps.iter().any(changed) {
        draft.steps.push(Step::AdoptLease);
    }
}

/// Compares decided state with the Lease. A node that restarted has taken the next epoch by itself; that is adopted.
/// Returns whether there is a Lease to work with.
fn agree_with_lease(draft: &mut Draft<'_>, master: &MasterStatus) -> bool {
    let world = draft.world;
    let grant = match &world.lease {
        LeaseSeen::Held { grant, .. } => grant,
        LeaseSeen::Missing => {
            restore_lease(draft, None);
            return false;
        }
        LeaseSeen::Taken => {
            let text = format!("Lease {} belongs to somebody else", world.cluster.name);
            draft.wait(Severity::Blocked, reason::NAME_TAKEN, text);
            return false;
        }
        LeaseSeen::Malformed(why) => {
            draft.wait(Severity::Blocked, reason::LEASE_UNUSABLE, why.clone());
            return false;
        }
    };
    if draft.memory.cluster.is_some_and(|own| own != grant.cluster) {
        let text = format!("the lease names another cluster, {}", grant.cluster);
        draft.wait(Severity::Blocked, reason::LEASE_UNUSABLE, text);
        return false;
    }
    let Some(holder) = &grant.holder else {
        return true;
    };
    let same_node = holder.node_id == master.node_id;
    let newer = grant.epoch > master.epoch;
    if same_node && (newer || holder.boot_id != master.boot_id) {
        let since = if newer {
            draft.time()
        } else {
            master.since.clone()
        };
        draft.memory.master = Some(MasterStatus {
            pod: holder.pod.clone(),
            boot_id: holder.boot_id,
            epoch: grant.epoch,
            since,
            ..master.clone()
        });
    } else if !same_node && newer {
        // Granted by this operator, whose last words were lost. What the Lease says decides, once the node agrees.
        let agrees =
            |m: &&Member| m.is_master() && m.state().is_some_and(|s| s.master_epoch == grant.epoch);
        if world.node(holder.node_id).filter(agrees).is_some() {
            draft.memory.master = Some(master_status(draft, holder, grant.epoch));
            draft.record();
            draft.tell(
                false,
                reason::MASTER_ADOPTED,
                format!(
                    "{} is the master of epoch {}, as its lease says",
                    holder.pod, grant.epoch
                ),
            );
        }
    }
    true
}

/// Somebody deleted the Lease. Nobody else grants, so what it said last is known, and it is written again: whoever held
/// it may go on, and whoever waits for it to run out waits from now on.
fn restore_lease(draft: &mut Draft<'_>, target: Option<&TargetStatus>) {
    let Some(grant) = last_grant(draft, target) else {
        return;
    };
    draft.steps.push(Step::SetLease {
        expect: Expect::Missing,
        grant,
    });
    draft.tell(
        true,
        reason::LEASE_RESTORED,
        "the lease was deleted; it is written again as it was",
    );
    draft.fast = true;
}

/// What the Lease said last, as far as it can be told.
fn last_grant(draft: &Draft<'_>, target: Option<&TargetStatus>) -> Option<Grant> {
    let cluster = draft.memory.cluster?;
    let (concern, secured) = (draft.recorded_concern(), draft.secured());
    let grant = |epoch, holder| Grant {
        cluster,
        epoch,
        holder,
        concern: concern.clone(),
        secured,
    };
    let members = draft.world.members.iter().filter(|m| m.is_master());
    let writing = members.filter_map(|m| Some((m.state()?.master_epoch, m)));
    if let Some((epoch, member)) = writing.max_by_key(|(epoch, _)| *epoch) {
        return Some(grant(epoch, holder_of(member)));
    }
    match target.map(|t| (t.step, t)) {
        // It was vacant already.
        Some((TargetStep::Fencing, target)) => return Some(grant(target.epoch, None)),
        Some((TargetStep::Granting, target)) => {
            let pod = target.pod.clone()?;
            let node_id = target.node_id?;
            let state = draft.world.node(node_id).and_then(Member::state);
            // A process that is not known is none that runs: the node itself may take the next epoch.
            let boot_id = state.map_or(uuid::Uuid::nil(), |s| s.boot_id);
            let holder = Holder {
                pod,
                node_id,
                boot_id,
            };
            return Some(grant(target.epoch, Some(holder)));
        }
        Some((TargetStep::Reserved | TargetStep::HandingOver | TargetStep::Vacating, _)) | None => {
        }
    }
    let master = draft.memory.master.as_ref()?;
    let holder = Holder {
        pod: master.pod.clone(),
        node_id: master.node_id,
        boot_id: master.boot_id,
    };
    Some(grant(master.epoch, Some(holder)))
}

/// The request in the spec, unless it was dealt with or is being carried out.
pub(super) fn pending_request<'d>(draft: &'d Draft<'_>) -> Option<&'d Promote> {
    let request = draft.world.cluster.spec.promote.as_ref()?;
    let id = &request.request_id;
    let under_way = draft
        .memory
        .target
        .as_ref()
        .and_then(|t| t.request_id.as_ref());
    let done = draft.memory.handled_requests.contains(id);
    (!done && under_way != Some(id)).then_some(request)
}

/// Whether the request that a reservation is for still stands in the spec.
pub(super) fn still_asked_for(draft: &Draft<'_>, target: &TargetStatus) -> bool {
    let Some(id) = &target.request_id else {
        return true;
    };
    let asked = draft.world.cluster.spec.promote.as_ref();
    asked.is_some_and(|p| p.request_id == *id)
}

/// Reserves what the spec asks for, or refuses it at once. Returns whether there was a request.
fn deal_with_request(draft: &mut Draft<'_>) -> bool {
    let Some(request) = pending_request(draft).cloned() else {
        return false;
    };
    let target = reservation(draft, PromotionReason::Requested, request.mode, &request);
    if let Some(why) = impossible(draft.world, draft.memory.master.as_ref(), &target) {
        give_up(draft, target, PromotionResult::Refused, why);
        return true;
    }
    if let Some(gone) = names_the_lost_master(draft, &target) {
        let text = format!(
            "{gone} is the master that is to be replaced, and has nothing to take over with; the most advanced takes over by {}",
            typed::command(draft, PromoteMode::Failover, None)
        );
        give_up(draft, target, PromotionResult::Refused, text);
        return true;
    }
    if target.wanted.is_some()
        && target.wanted.as_ref() == draft.memory.master.as_ref().map(|m| &m.pod)
        && draft.confirmed_master().is_some()
    {
        let text = format!(
            "{} is the master already; if another one was meant, the most advanced takes over by {}",
            target.wanted.as_deref().unwrap_or_default(),
            typed::command(draft, PromoteMode::Switchover, None)
        );
        give_up(draft, target, PromotionResult::Succeeded, text);
        return true;
    }
    reserve(draft, target);
    true
}

/// The master's pod, when a failover is to go to the very node that it is to do without.
fn names_the_lost_master<'t>(draft: &Draft<'_>, target: &'t TargetStatus) -> Option<&'t String> {
    let wanted = target.wanted.as_ref()?;
    let master = draft.memory.master.as_ref()?;
    let usable = |m: &Member| m.state().is_some_and(|s| s.has_data);
    let lost = !draft.world.member(wanted).is_some_and(usable);
    (target.mode == PromoteMode::Failover && *wanted == master.pod && lost).then_some(wanted)
}

/// Writes a change of the master down before anything is done about it.
pub(super) fn reserve(draft: &mut Draft<'_>, target: TargetStatus) {
    let text = format!(
        "{:?} to {} reserved: {}, epoch {}",
        target.mode,
        target
            .wanted
            .as_deref()
            .unwrap_or("the most advanced replica"),
        target.reason.as_str(),
        target.epoch
    );
    draft.memory.target = Some(target);
    draft.record();
    draft.tell(false, reason::PROMOTION_RESERVED, text);
}

/// A reservation as the world stands now.
pub(super) fn reservation(
    draft: &Draft<'_>,
    why: PromotionReason,
    mode: PromoteMode,
    request: &Promote,
) -> TargetStatus {
    let world = draft.world;
    let master = draft.memory.master.as_ref();
    let requested = why == PromotionReason::Requested;
    let secs = if requested {
        i64::from(request.deadline_seconds)
    } else {
        OWN_DEADLINE_SECS
    };
    let deadline = world
        .now
        .checked_add(k8s_openapi::jiff::SignedDuration::from_secs(secs));
    TargetStatus {
        request_id: requested.then(|| request.request_id.clone()),
        reason: why,
        mode,
        pod: None,
        node_id: None,
        wanted: request.target.clone(),
        avoid: None,
        from: master.map(|m| m.pod.clone()),
        from_epoch: master.map_or(0, |m| m.epoch),
        from_boot: master.map(|m| m.boot_id),
        epoch: world.highest_epoch() + 1,
        step: TargetStep::Reserved,
        started_at: draft.time(),
        step_at: draft.time(),
        deadline: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            deadline.unwrap_or(world.now),
        ),
        max_lag_operations: request.max_lag_operations,
        message: None,
    }
}

/// A reservation for a reason of the operator's own.
pub(super) fn own_reservation(
    draft: &Draft<'_>,
    why: PromotionReason,
    mode: PromoteMode,
    wanted: Option<String>,
) -> TargetStatus {
    let request = Promote {
        target: wanted,
        request_id: String::new(),
        mode,
        deadline_seconds: 0,
        max_lag_operations: None,
    };
    reservation(draft, why, mode, &request)
}

/// Why a request can never be carried out as things stand.
fn impossible(
    world: &World,
    master: Option<&MasterStatus>,
    target: &TargetStatus,
) -> Option<String> {
    if let (Some((set, ordinal)), Some(wanted)) = (world.cluster.promote_target, &target.wanted) {
        let member = world
            .members
            .iter()
            .find(|m| m.set == set && m.ordinal == ordinal);
        if member.is_none_or(|m| !world.is_wanted(m)) {
            return Some(format!(
                "{wanted} does not exist: this cluster has {} replicas",
                world.cluster.spec.replicas
            ));
        }
    }
    let others = world
        .wanted()
        .filter(|m| master.is_none_or(|master| m.pod != master.pod));
    if others.count() == 0 {
        return Some("there is no replica to promote: spec.replicas is 0".to_owned());
    }
    None
}

/// Nobody can write, and nobody will by itself: the master had to stop for an epoch that nobody was granted.
fn reelect_if_nobody_can(draft: &mut Draft<'_>) {
    let LeaseSeen::Held {
        grant, unchanged, ..
    } = &draft.world.lease
    else {
        return;
    };
    // Older than what was decided, as it is seen right after a promotion: whoever was granted the epoch has it.
    let decided = draft.memory.master.as_ref().map_or(0, |m| m.epoch);
    if grant.epoch < decided || grant.holder.is_none() && grant.epoch == decided {
        return;
    }
    let expired = unchanged.as_millis() >= u128::from(EXPIRE_MS);
    let nobody = match &grant.holder {
        None => true,
        Some(holder) => match draft.world.node(holder.node_id).filter(|m| !m.is_master()) {
            None => false,
            Some(member) => {
                let state = member.state();
                expired || state.is_some_and(|s| s.promised_epoch > grant.epoch)
            }
        },
    };
    if nobody {
        let target = own_reservation(draft, PromotionReason::Deposed, PromoteMode::Failover, None);
        reserve(draft, target);
    }
}

/// Ends a change of the master that has not changed anything.
pub(super) fn give_up(
    draft: &mut Draft<'_>,
    target: TargetStatus,
    result: PromotionResult,
    message: impl Into<String>,
) {
    let message = message.into();
    let (warning, reason) = match result {
        PromotionResult::Succeeded => (false, reason::PROMOTION_SUCCEEDED),
        PromotionResult::Failed => (true, reason::PROMOTION_FAILED),
        PromotionResult::Refused => (true, reason::PROMOTION_REFUSED),
    };
    draft.tell(warning, reason, message.clone());
    let to = target.pod.clone().or(target.wanted.clone());
    conclude(draft, &target, to, result, None, message);
    draft.memory.target = None;
    draft.record();
    draft.fast = true;
}

/// Writes down how a change of the master ended.
pub(super) fn conclude(
    draft: &mut Draft<'_>,
    target: &TargetStatus,
    to: Option<String>,
    result: PromotionResult,
    lost_operations: Option<u64>,
    message: String,
) {
    if let Some(id) = &target.request_id {
        draft.memory.handled(id);
    }
    draft.memory.last_promotion = Some(LastPromotion {
        request_id: target.request_id.clone(),
        reason: target.reason,
        mode: target.mode,
        from: target.from.clone(),
        to,
        result,
        write_pause_ms: None,
        lost_operations,
        started_at: target.started_at.clone(),
        finished_at: draft.time(),
        message,
    });
}

/// What status says of a master.
pub(super) fn master_status(draft: &Draft<'_>, holder: &Holder, epoch: u64) -> MasterStatus {
    let node = draft.world.node(holder.node_id);
    MasterStatus {
        pod: holder.pod.clone(),
        node_id: holder.node_id,
        boot_id: holder.boot_id,
        epoch,
        since: draft.time(),
        endpoint: draft.world.cluster.endpoint(),
        position: node.and_then(Member::state).and_then(loss::position),
    }
}

/// What the Lease would say of a member.
pub(super) fn holder_of(member: &Member) -> Option<Holder> {
    let state = member.state()?;
    Some(Holder {
        pod: member.pod.clone(),
        node_id: state.node_id,
        boot_id: state.boot_id,
    })
}
