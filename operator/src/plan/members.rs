//! The nodes beside the question who is master: whom they follow, and which labels their pods carry.

use std::time::Duration;

use vectorizer_api::lease::Holder;
use vectorizer_api::replication::{ReplicaStatus, Role};

use super::primary::{conclude, master_status};
use super::{Draft, Severity, Step, typed};
use crate::crd::{PromoteMode, PromotionResult, TargetStatus};
use crate::names::reason;
use crate::world::{Member, Probe, World};

/// For how long a replica that takes part in reads may be unheard of before it leaves them. A master that restarts hears
/// of nobody for a moment; that is no reason to stop reads.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// Tells everybody who does not follow the master to do so.
pub(super) fn follow(draft: &mut Draft<'_>) {
    let Some(master) = draft.confirmed_master() else {
        return describe_missing_master(draft);
    };
    let epoch = master.state().map_or(0, |s| s.master_epoch);
    for member in &draft.world.members {
        let Some(state) = member.state().filter(|_| member.pod != master.pod) else {
            continue;
        };
        if let Some(other) = state
            .cluster
            .filter(|_| member.is_of_another(draft.memory.cluster))
        {
            let text = format!(
                "{} holds data of another cluster, {other}: remove its volume, or move it to where it belongs",
                member.pod
            );
            draft.wait(Severity::Blocked, reason::FOREIGN_DATA, text);
            continue;
        }
        let follows = state.role == Role::Replica
            && state.promised_epoch >= epoch
            && state.master_address == master.replication_address();
        // One that knows a higher epoch would refuse; the master hears of it and steps down.
        if !follows && state.promised_epoch <= epoch {
            push_follow(draft, member, master, epoch);
        }
    }
}

/// Keeps role and read eligibility of every pod right.
pub(super) fn label(draft: &mut Draft<'_>) {
    let world = draft.world;
    let master = draft.confirmed_master();
    let decided = draft.memory.master.as_ref().map(|m| m.pod.clone());
    let eligible: Vec<bool> = world
        .members
        .iter()
        .map(|m| master.is_none_or(|master| m.pod != master.pod) && may_read(world, m))
        .collect();
    let master_reads = !eligible.contains(&true);
    for (member, eligible) in world.members.iter().zip(eligible) {
        let Some(pod) = &member.seen else {
            continue;
        };
        let is_master = master.is_some_and(|m| m.pod == member.pod);
        let undecided = decided.as_ref() == Some(&member.pod) && !is_master;
        let role = if is_master { "master" } else { "replica" };
        // A master that does not answer keeps its label: our probe failing says nothing about it.
        let role = (!undecided && pod.role.as_deref() != Some(role)).then_some(role);
        let reads = if is_master { master_reads } else { eligible };
        let reads = (!undecided && pod.read_eligible != reads).then_some(reads);
        push_label(draft, member, role, reads);
    }
}

/// Gives pods their labels back that somebody has written over: without them neither Services nor watches find them.
pub(super) fn relabel(draft: &mut Draft<'_>) {
    for member in &draft.world.members {
        if let Some(pod) = member
            .seen
            .as_ref()
            .filter(|p| p.mislabelled && !p.deleting)
        {
            draft.steps.push(Step::Relabel {
                pod: member.pod.clone(),
                uid: pod.uid.clone(),
                set: member.set,
            });
        }
    }
}

/// Whether a replica may be read from: hysteresis around `reads.maxLagSeconds`.
fn may_read(world: &World, member: &Member) -> bool {
    let Some(pod) = &member.seen else {
        return false;
    };
    if pod.deleting {
        return false;
    }
    if world.replicas.is_none() {
        return pod.read_eligible;
    }
    let most = world.cluster.spec.reads.max_lag_ms();
    match world.replica(member) {
        Some(replica) if replica.connected => match replica.status {
            ReplicaStatus::Connected | ReplicaStatus::Lagging => {
                let limit = if pod.read_eligible { most } else { most / 2 };
                replica.lag_ms <= limit
            }
            ReplicaStatus::Syncing | ReplicaStatus::Disconnected => false,
        },
        unheard => pod.read_eligible && within_grace(world, unheard.map(|r| r.last_heartbeat)),
    }
}

fn within_grace(world: &World, heartbeat: Option<u64>) -> bool {
    let grace = GRACE.max(Duration::from_millis(world.cluster.spec.reads.max_lag_ms()));
    let heartbeat = heartbeat
        .and_then(|secs| i64::try_from(secs).ok())
        .unwrap_or(0);
    let since = world
        .status
        .master
        .as_ref()
        .map_or(0, |m| m.since.0.as_second());
    let silent = world.now.as_second().saturating_sub(heartbeat.max(since));
    u64::try_from(silent).unwrap_or(0) <= grace.as_secs()
}

/// What the first master means for everybody: its label, and that the others follow it.
pub(super) fn introduce(draft: &mut Draft<'_>, master: &Member, epoch: u64) {
    draft.crowned = true;
    push_label(draft, master, Some("master"), None);
    for member in &draft.world.members {
        if member.pod != master.pod {
            push_label(draft, member, role_unless(member, "replica"), None);
            push_follow(draft, member, master, epoch);
        }
    }
}

/// What a new master means for everybody: labels first, because clients go by them, then whom the others follow; then it
/// is on record.
pub(super) fn crown(
    draft: &mut Draft<'_>,
    target: &TargetStatus,
    master: &Member,
    holder: &Holder,
    epoch: u64,
    lost_operations: Option<u64>,
    message: String,
) {
    let world = draft.world;
    draft.crowned = true;
    push_label(draft, master, role_unless(master, "master"), None);
    for member in world.members.iter().filter(|m| m.pod != master.pod) {
        push_label(draft, member, role_unless(member, "replica"), None);
    }
    let old = target.from.as_ref();
    // The former master first: it holds writes that it forwards as soon as it knows where to.
    let mut others: Vec<_> = world
        .members
        .iter()
        .filter(|m| m.pod != master.pod)
        .collect();
    others.sort_by_key(|m| Some(&m.pod) != old);
    for member in others {
        push_follow(draft, member, master, epoch);
    }
    draft.memory.master = Some(master_status(draft, holder, epoch));
    conclude(
        draft,
        target,
        Some(master.pod.clone()),
        PromotionResult::Succeeded,
        lost_operations,
        message.clone(),
    );
    draft.memory.target = None;
    draft.record();
    draft.tell(false, reason::PROMOTION_SUCCEEDED, message);
    draft.fast = true;
}

fn role_unless(member: &Member, role: &'static str) -> Option<&'static str> {
    let has = member.seen.as_ref().and_then(|p| p.role.as_deref());
    (has != Some(role)).then_some(role)
}

fn push_label(
    draft: &mut Draft<'_>,
    member: &Member,
    role: Option<&'static str>,
    read_eligible: Option<bool>,
) {
    if let Some(pod) = member
        .seen
        .as_ref()
        .filter(|_| role.is_some() || read_eligible.is_some())
    {
        draft.steps.push(Step::Label {
            pod: member.pod.clone(),
            uid: pod.uid.clone(),
            role,
            read_eligible,
        });
    }
}

/// Only those who answer: whoever does not is told in a later pass.
fn push_follow(draft: &mut Draft<'_>, member: &Member, master: &Member, epoch: u64) {
    let foreign = member.state().is_none() || member.is_of_another(draft.memory.cluster);
    if let (Some(to), Some(master_address), Some(master_url), false) = (
        draft.peer(member),
        master.replication_address(),
        master.url(),
        foreign,
    ) {
        draft.steps.push(Step::Follow {
            to,
            epoch,
            master_address,
            master_url,
        });
    }
}

/// Why nobody is confirmed to be the master.
fn describe_missing_master(draft: &mut Draft<'_>) {
    let Some(master) = draft.memory.master.clone() else {
        return;
    };
    let member = draft.world.member(&master.pod);
    let (severity, reason, text) = match member.and_then(Member::state) {
        Some(state) if state.node_id != master.node_id => (
            Severity::Blocked,
            reason::MASTER_LOST_DATA,
            format!(
                "{} came back with another volume: what it held is on the replicas at best; one of them takes over by {}",
                master.pod,
                typed::command(draft, PromoteMode::Failover, None)
            ),
        ),
        Some(state) => {
            // It writes already; only the watch of the Lease is behind.
            draft.fast |= state.role == Role::Master;
            (
                Severity::Trouble,
                reason::MASTER_RESTARTING,
                format!("{} is restarting and takes the next epoch", master.pod),
            )
        }
        None => {
            let refused = member.filter(|m| matches!(m.probe, Probe::Refused(_)));
            let text = match refused {
                Some(member) => format!("{} {}", master.pod, member.silence()),
                None => format!(
                    "{} does not answer{}; if it does not come back, a replica takes over by {}",
                    master.pod,
                    member.map(killed).unwrap_or_default(),
                    typed::command(draft, PromoteMode::Failover, None)
                ),
            };
            (Severity::Trouble, reason::MASTER_UNREACHABLE, text)
        }
    };
    draft.wait(severity, reason, text);
}

/// That a member was killed for want of memory, which another one of the same limit would be as well.
fn killed(member: &Member) -> String {
    let killed = member.seen.as_ref().and_then(|seen| seen.oom_killed);
    killed.map_or_else(String::new, |_| {
        format!(
            " ({}: raise spec.resources.limits.memory first, the others hold as much)",
            reason::OOM_KILLED
        )
    })
}
