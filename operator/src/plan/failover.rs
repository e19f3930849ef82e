//! The change without the old master: end its leadership, fence whoever answers, promote the most advanced.
//!
//! What needs no fence is checked first, so that a refusal changes nothing. The old master's leadership ends when its
//! Lease has run out on this process's own clock, or when it says itself that it was deposed; a probe that fails is no
//! evidence. Once anything is fenced, the plan ends in a promotion, the old master's included.

use vectorizer_api::concern::Concern;
use vectorizer_api::lease::{EXPIRE_MS, Grant, Holder};
use vectorizer_api::position::Position;
use vectorizer_api::replication::Role;

use super::concern::{has_secured, may_lead, quorum};
use super::grant::{granted, succeed};
use super::loss::lost_with;
use super::primary::{give_up, holder_of, still_asked_for};
use super::{At, Draft, Expect, Severity, Step, seconds_since, typed};
use crate::crd::{PromoteMode, PromotionReason, PromotionResult, TargetStatus, TargetStep};
use crate::names::reason;
use crate::world::{LeaseSeen, Member, World};

/// For how long a node is waited for, in seconds, that its kubelet calls ready but that does not answer: it may be the
/// most advanced.
const STRAGGLER_SECS: f64 = 5.0;

/// Goes on with a failover.
pub(super) fn advance(draft: &mut Draft<'_>, target: TargetStatus) {
    match target.step {
        TargetStep::Reserved => begin(draft, target),
        TargetStep::HandingOver | TargetStep::Vacating => vacate(draft, target),
        TargetStep::Fencing | TargetStep::Granting => elect(draft, target),
    }
}

/// Everything that can be checked before anything is changed.
fn begin(draft: &mut Draft<'_>, mut target: TargetStatus) {
    let world = draft.world;
    let requested = target.reason == PromotionReason::Requested;
    if !still_asked_for(draft, &target) {
        return give_up(
            draft,
            target,
            PromotionResult::Failed,
            "the request was withdrawn",
        );
    }
    target.epoch = world.highest_epoch() + 1;
    let master = draft
        .memory
        .master
        .as_ref()
        .and_then(|m| world.node(m.node_id));
    if requested && master.is_some_and(|m| m.is_master() && m.state().is_some_and(|s| s.writable)) {
        let wanted = target.wanted.as_deref();
        let text = format!(
            "the master is alive and accepts writes; what loses nothing is {}",
            typed::command(draft, PromoteMode::Switchover, wanted)
        );
        return give_up(draft, target, PromotionResult::Refused, text);
    }
    let holder = world.lease.grant().and_then(|g| g.holder.as_ref());
    let holder = holder.and_then(|h| world.node(h.node_id));
    if let Some(back) = holder.filter(|m| m.is_master() && m.state().is_some_and(|s| s.writable)) {
        // It keeps its Lease alive: there would be nothing but waiting from now on.
        let text = format!("{} accepts writes; nothing has changed", back.pod);
        return give_up(draft, target, PromotionResult::Failed, text);
    }
    let concern = draft.recorded_concern();
    let trouble = match check(draft, &target, &concern) {
        Ok(()) => evidence(world).err(),
        Err(Check::Refused(why)) => return give_up(draft, target, PromotionResult::Refused, why),
        Err(Check::NotYet(why)) => Some(why),
    };
    match trouble {
        None => {
            target.step = TargetStep::Vacating;
            target.step_at = draft.time();
            target.message = None;
            draft.memory.target = Some(target.clone());
            draft.tell(
                false,
                reason::PROMOTION_STARTED,
                "the old master can no longer write: its leadership ends",
            );
            draft.record();
            vacate(draft, target);
        }
        Some(why) if requested && draft.now() > target.deadline.0 => {
            give_up(
                draft,
                target,
                PromotionResult::Failed,
                format!("could not begin in time, nothing has changed: {why}"),
            );
        }
        Some(why) => {
            draft.wait(Severity::Trouble, reason::PROMOTION_WAITS, why.clone());
            target.message = Some(why);
            draft.memory.target = Some(target);
        }
    }
}

enum Check {
    Refused(String),
    NotYet(String),
}

fn check(draft: &Draft<'_>, target: &TargetStatus, concern: &Concern) -> Result<(), Check> {
    let (world, secured) = (draft.world, draft.secured());
    let candidates = candidates(draft, concern);
    let Some(furthest) = candidates.clone().map(|(_, position)| position).max() else {
        return Err(Check::NotYet("no node that holds data answers".to_owned()));
    };
    let (answering, needed) = quorum(world, concern, None);
    if answering < needed {
        return Err(Check::NotYet(too_few(concern, answering, needed)));
    }
    let chosen = choice(world, target, concern, secured, candidates.clone());
    let Some((next, end)) = chosen else {
        return Err(Check::NotYet(unsecured(secured, furthest)));
    };
    if let Some(wanted) = &target.wanted {
        let Some((member, position)) = candidates.clone().find(|(m, _)| m.pod == *wanted) else {
            return Err(Check::NotYet(format!(
                "{wanted} does not answer, or holds no data; the most advanced takes over by {}",
                typed::command(draft, PromoteMode::Failover, None)
            )));
        };
        if member.pod != next.pod {
            let found = member.state().and_then(|s| s.unlike.as_ref());
            let found = found.map_or_else(String::new, |found| {
                format!(", its data found not to be its master's ({found})")
            });
            return Err(Check::Refused(format!(
                "{wanted} is at {position}{found}, {} at {end}; that one takes over by {}",
                next.pod,
                typed::command(draft, PromoteMode::Failover, None)
            )));
        }
    }
    let lost = next.state().map_or(0, |next| lost_with(draft, next));
    match target.max_lag_operations {
        Some(most) if lost > most => Err(Check::Refused(format!(
            "at least {lost} operations would be lost, maxLagOperations is {most}"
        ))),
        Some(_) | None => Ok(()),
    }
}

fn too_few(concern: &Concern, found: usize, needed: usize) -> String {
    format!(
        "{found} of {} members answer; {needed} are needed, so that one of them holds every write that {} replicas acknowledged",
        concern.members.len(),
        concern.acks
    )
}

fn unsecured(secured: Position, best: Position) -> String {
    format!(
        "replicas had acknowledged writes up to {secured} before write concern was lowered to 0, and nobody who answers \
         has more than {best}"
    )
}

/// Those who could become the master, and where their logs end.
fn candidates<'w>(
    draft: &Draft<'w>,
    concern: &Concern,
) -> impl DoubleEndedIterator<Item = (&'w Member, Position)> + Clone {
    let ours = draft.memory.cluster;
    let members = draft.world.members.iter();
    let may = members.filter(move |m| may_lead(concern, m) && !m.is_of_another(ours));
    may.filter_map(candidate)
}

fn candidate(member: &Member) -> Option<(&Member, Position)> {
    let state = member.state()?;
    let usable = state.has_data && state.role != Role::Master;
    usable.then_some((member, state.position))
}

/// Who becomes the master, of those who could.
fn choice<'w>(
    world: &World,
    target: &TargetStatus,
    concern: &Concern,
    secured: Position,
    candidates: impl DoubleEndedIterator<Item = (&'w Member, Position)>,
) -> Option<(&'w Member, Position)> {
    // Of those that hold the same: one whose data is sound, one that did not fail to take over before, the one that was
    // asked for, one that stays, the first.
    let sound = |m: &Member| m.state().is_some_and(|s| s.unlike.is_none());
    let rank = |m: &Member| {
        let wanted = target.wanted.as_ref() == Some(&m.pod);
        let failed = m.state().is_some_and(|s| target.avoid == Some(s.node_id));
        (sound(m), !failed, wanted, world.is_wanted(m))
    };
    // Where nothing is promised about acknowledged writes, sound data comes before more of it.
    let asynchronous = concern.acks == 0;
    candidates
        .filter(|(_, end)| has_secured(concern, secured, *end))
        .rev()
        .max_by_key(|(m, end)| (asynchronous && sound(m), *end, rank(m)))
}

/// Whether the old master's leadership may be ended. It can no longer acknowledge anything then.
fn evidence(world: &World) -> Result<(), String> {
    let LeaseSeen::Held {
        grant, unchanged, ..
    } = &world.lease
    else {
        return Ok(());
    };
    let Some(holder) = &grant.holder else {
        return Ok(());
    };
    let deposed = world.node(holder.node_id).and_then(Member::state);
    if deposed.is_some_and(|s| s.role != Role::Master && s.promised_epoch > grant.epoch) {
        return Ok(());
    }
    let waited = u64::try_from(unchanged.as_millis()).unwrap_or(u64::MAX);
    if waited >= EXPIRE_MS {
        return Ok(());
    }
    let left = (EXPIRE_MS - waited).div_ceil(1000);
    Err(format!(
        "the lease of {} may still be alive: it has to stay unchanged for {left} s more",
        holder.pod
    ))
}

/// Ends the old master's leadership.
fn vacate(draft: &mut Draft<'_>, mut target: TargetStatus) {
    let world = draft.world;
    let Some(cluster) = draft.memory.cluster else {
        return;
    };
    let (concern, secured) = (draft.recorded_concern(), draft.secured());
    let vacant = |epoch| Grant {
        cluster,
        epoch,
        holder: None,
        concern: concern.clone(),
        secured,
    };
    let expect = match &world.lease {
        LeaseSeen::Missing => Expect::Missing,
        LeaseSeen::Taken => {
            return draft.wait(
                Severity::Blocked,
                reason::NAME_TAKEN,
                "the lease belongs to somebody else",
            );
        }
        LeaseSeen::Malformed(why) => {
            return draft.wait(Severity::Blocked, reason::LEASE_UNUSABLE, why.clone());
        }
        LeaseSeen::Held { grant, version, .. } => match &grant.holder {
            None => {
                target.epoch = target.epoch.max(grant.epoch);
                Expect::Content(grant.clone())
            }
            Some(holder) => {
                let back = world.node(holder.node_id);
                if let Some(member) =
                    back.filter(|m| m.is_master() && m.state().is_some_and(|s| s.writable))
                {
                    return returned(draft, target, grant, holder, member);
                }
                target.epoch = target.epoch.max(grant.epoch + 1);
                if let Err(why) = evidence(world) {
                    return draft.wait(Severity::Trouble, reason::LEASE_ALIVE, why);
                }
                Expect::Version(version.clone())
            }
        },
    };
    draft.steps.push(Step::SetLease {
        expect,
        grant: vacant(target.epoch),
    });
    target.step = TargetStep::Fencing;
    target.step_at = draft.time();
    draft.memory.target = Some(target.clone());
    draft.record();
    fence(draft, target.epoch);
}

/// The holder of the Lease writes again, before anything was fenced.
fn returned(
    draft: &mut Draft<'_>,
    target: TargetStatus,
    grant: &Grant,
    holder: &Holder,
    member: &Member,
) {
    let is_master = draft
        .memory
        .master
        .as_ref()
        .is_some_and(|m| m.node_id == holder.node_id);
    if is_master {
        let text = format!(
            "{} is back and accepts writes; nothing has changed",
            member.pod
        );
        give_up(draft, target, PromotionResult::Failed, text);
    } else {
        granted(draft, target, grant, holder);
    }
}

/// Tells everybody who answers, and has not promised yet. Returns whether there was anybody.
fn fence(draft: &mut Draft<'_>, epoch: u64) -> bool {
    let mut any = false;
    for member in &draft.world.members {
        let open = member.state().is_some_and(|s| s.promised_epoch < epoch)
            && !member.is_of_another(draft.memory.cluster);
        if let Some(to) = draft.peer(member).filter(|_| open) {
            draft.steps.push(Step::Fence { to, epoch });
            any = true;
        }
    }
    any
}

/// Chooses among those who have promised, and promotes.
fn elect(draft: &mut Draft<'_>, mut target: TargetStatus) {
    let world = draft.world;
    let LeaseSeen::Held { grant, .. } = &world.lease else {
        return vacate(draft, target);
    };
    if let Some(holder) = &grant.holder {
        return if grant.epoch >= target.epoch {
            granted(draft, target, grant, holder)
        } else {
            vacate(draft, target)
        };
    }
    let known = world.members.iter();
    let known = known.filter(|m| !m.is_of_another(draft.memory.cluster));
    let known = known
        .filter_map(Member::state)
        .map(|s| s.promised_epoch.max(s.position.epoch))
        .max()
        .unwrap_or(0);
    if known > target.epoch.max(grant.epoch) {
        // Somebody knows a higher epoch, which may have been opened: the next above all is taken.
        target.epoch = known + 1;
        return vacate(draft, target);
    }
    if grant.epoch != target.epoch {
        return vacate(draft, target);
    }
    let (promised, needed) = quorum(world, &grant.concern, Some(target.epoch));
    // One that answers and cannot promise, its disk hanging, is not waited for for ever.
    let patient = seconds_since(draft.now(), &target.step_at) < STRAGGLER_SECS;
    if fence(draft, target.epoch) && (patient || promised < needed) {
        draft.fast = true;
        return draft.wait(
            Severity::Trouble,
            reason::PROMOTION_WAITS,
            "members promise to accept nothing older",
        );
    }
    if promised < needed {
        let text = too_few(&grant.concern, promised, needed);
        return draft.wait(Severity::Blocked, reason::PROMOTION_WAITS, text);
    }
    // Nothing says how far a recovery's data went: the most advanced volume may be the one that is missing.
    let has_promised = |m: &Member| m.state().is_some_and(|s| s.promised_epoch >= target.epoch);
    if target.reason == PromotionReason::Recovery
        && let Some(missing) = world.wanted().find(|m| !has_promised(m))
    {
        let text = format!(
            "{} has not promised: whoever holds the most has to be known before there is a master",
            missing.pod
        );
        return draft.wait(Severity::Trouble, reason::PROMOTION_WAITS, text);
    }
    let awaited = |m: &&Member| {
        m.state().is_none() && m.seen.as_ref().is_some_and(|p| p.ready && !p.deleting)
    };
    if let Some(straggler) = world.members.iter().find(awaited)
        && patient
    {
        let text = format!(
            "{} is ready but {}; it may hold the most",
            straggler.pod,
            straggler.silence()
        );
        return draft.wait(Severity::Trouble, reason::PROMOTION_WAITS, text);
    }
    let promisers = candidates(draft, &grant.concern).filter(|(m, _)| has_promised(m));
    let furthest = promisers.clone().map(|(_, position)| position).max();
    let best = choice(world, &target, &grant.concern, grant.secured, promisers);
    let Some((member, position)) = best else {
        let text = furthest.map_or_else(
            || "no node that holds data answers".to_owned(),
            |furthest| unsecured(grant.secured, furthest),
        );
        return draft.wait(Severity::Blocked, reason::NO_CANDIDATE, text);
    };
    if let Some(found) = member.state().and_then(|s| s.unlike.as_ref()) {
        let text = format!(
            "{} holds the most, and its data was found not to be its master's ({found}): restart its pod if that data \
             is to be used as it is",
            member.pod
        );
        return draft.wait(Severity::Blocked, reason::NO_CANDIDATE, text);
    }
    let (Some(to), Some(holder), Some(cluster)) =
        (draft.peer(member), holder_of(member), draft.memory.cluster)
    else {
        return;
    };
    let fenced = self::candidates(draft, &grant.concern).count();
    let text = format!(
        "{} holds the most, up to {position}, of {fenced} nodes that promised",
        member.pod
    );
    draft.tell(false, reason::TARGET_CHOSEN, text);
    target.pod = Some(member.pod.clone());
    target.node_id = Some(holder.node_id);
    target.step = TargetStep::Granting;
    draft.memory.target = Some(target.clone());
    draft.record();
    let epoch = target.epoch;
    draft.steps.push(Step::SetLease {
        expect: Expect::Content(grant.clone()),
        grant: Grant {
            cluster,
            epoch,
            holder: Some(holder.clone()),
            ..grant.clone()
        },
    });
    draft.steps.push(Step::Promote {
        to,
        epoch,
        at: At::Exactly(position),
    });
    succeed(draft, &target, member, &holder, epoch);
}
