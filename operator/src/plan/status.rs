//! The world and the plan in words: phase, conditions, nodes.
//!
//! What was read is true of the moment before the plan's commands. A plan that makes somebody the master therefore says
//! no more than what it records ([`recorded`]): the next pass, a moment later, reads what has become of it. `facts` makes
//! conditions of what was read, `nodes` says how each node is, `told` merges new conditions into old ones.

mod facts;
mod nodes;
mod pressure;
mod told;

use k8s_openapi::jiff::Timestamp;

use super::rollout::{outdated, unsettled};
use super::{Draft, volumes};
use crate::crd::{ClusterStatus, Phase};
use crate::names::{self, condition, reason};
use crate::world::{Member, Set};
use facts::{Facts, unserved};
use told::{Told, merge, promotion};

/// The status that goes with a plan.
pub(super) fn status(draft: &Draft<'_>) -> ClusterStatus {
    let world = draft.world;
    let master = draft.confirmed_master();
    let waiting: Vec<String> = match master {
        Some(master) => world
            .wanted()
            .filter(|m| !nodes::joins(draft, m))
            .filter_map(|m| unsettled(world, m, master))
            .collect(),
        None => world
            .wanted()
            .filter_map(unsettled_without_master)
            .collect(),
    };
    let wanted = world.wanted().count();
    let replica = |m: &&Member| {
        draft
            .memory
            .master
            .as_ref()
            .is_none_or(|master| m.pod != master.pod)
    };
    let settled = |m: &&Member| {
        let well = |master| unsettled(world, m, master).is_none() || nodes::joins(draft, m);
        master.is_some_and(well)
    };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut status = ClusterStatus {
        observed_generation: Some(world.cluster.generation),
        phase: Phase::Creating,
        selector: Some(format!(
            "{}={},{}={}",
            names::CLUSTER,
            world.cluster.name,
            names::SET,
            Set::Replica.as_str()
        )),
        replicas: count(
            world
                .members
                .iter()
                .filter(|m| m.set == Set::Replica && m.seen.is_some())
                .count(),
        ),
        ready_replicas: count(world.wanted().filter(replica).filter(settled).count()),
        ready: Some(format!(
            "{}/{wanted}",
            world.wanted().filter(settled).count()
        )),
        lag: nodes::lag(world),
        nodes: world
            .members
            .iter()
            .map(|m| nodes::node(draft, m))
            .collect(),
        volume_size: volumes::largest(world).map(|size| size.as_str().to_owned()),
        conditions: Vec::new(),
        ..ClusterStatus::default()
    };
    draft.memory.write_to(&mut status);
    let facts = Facts {
        draft,
        writable: master.and_then(Member::state).is_some_and(|s| s.writable),
        unserved: master.and_then(|m| unserved(world, m)),
        waiting,
        outdated: world.members.iter().filter(|m| outdated(world, m)).count(),
        surplus: world
            .members
            .iter()
            .filter(|m| m.seen.is_some() && !world.is_wanted(m))
            .count(),
    };
    status.phase = facts.phase();
    let mut old = world.status.conditions.clone();
    let told = facts.conditions();
    let said = |of: &str| told.iter().any(|t| t.of == of);
    if !said(condition::SYNCHRONOUS_REPLICATION_MET) {
        old.retain(|c| c.type_ != condition::SYNCHRONOUS_REPLICATION_MET);
    }
    status.conditions = merge(&old, told, world.cluster.generation, world.now);
    status
}

/// The stored status with what a plan records, for one that makes somebody the master.
pub(super) fn recorded(draft: &Draft<'_>) -> ClusterStatus {
    let world = draft.world;
    let mut status = world.status.clone();
    draft.memory.write_to(&mut status);
    promoted(&mut status, world.cluster.generation, world.now);
    status
}

/// A status that says that nothing is known of the cluster any more, and why: what it said before may be wrong by now.
pub fn unobserved(
    old: &ClusterStatus,
    generation: i64,
    why: &str,
    now: Timestamp,
) -> ClusterStatus {
    let known = |of: &str| old.conditions.iter().any(|c| c.type_ == of);
    let of = [
        condition::READY,
        condition::AVAILABLE,
        condition::REPLICATION_HEALTHY,
        condition::SYNCHRONOUS_REPLICATION_MET,
    ];
    let of = of
        .into_iter()
        .filter(|of| *of == condition::READY || known(of));
    let mut told: Vec<Told> = of
        .map(|of| Told::unknown(of, reason::NOT_OBSERVED, why))
        .collect();
    told.push(Told::yes(condition::DEGRADED, reason::NOT_OBSERVED, why));
    ClusterStatus {
        phase: Phase::Unknown,
        conditions: merge(&old.conditions, told, generation, now),
        ..old.clone()
    }
}

/// A status that says that the resource cannot be worked with.
pub fn invalid(old: &ClusterStatus, generation: i64, why: &str, now: Timestamp) -> ClusterStatus {
    let told = vec![
        Told::no(condition::READY, reason::INVALID_SPEC, why),
        Told::yes(condition::DEGRADED, reason::INVALID_SPEC, why),
    ];
    ClusterStatus {
        observed_generation: Some(generation),
        phase: Phase::Blocked,
        conditions: merge(&old.conditions, told, generation, now),
        ..old.clone()
    }
}

/// Makes the condition say what `lastPromotion` says: whoever reads the one must not find an older other.
pub fn promoted(status: &mut ClusterStatus, generation: i64, now: Timestamp) {
    let mut old = std::mem::take(&mut status.conditions);
    let told = status.last_promotion.as_ref().map(promotion);
    if told.is_none() {
        old.retain(|c| c.type_ != condition::PROMOTION_SUCCEEDED);
    }
    status.conditions = merge(&old, told.into_iter().collect(), generation, now);
}

/// Adds to a status that a command was refused, and why.
pub fn refused(status: &mut ClusterStatus, generation: i64, why: &str, now: Timestamp) {
    let told = vec![Told::yes(condition::DEGRADED, reason::COMMAND_REFUSED, why)];
    let old = std::mem::take(&mut status.conditions);
    status.conditions = merge(&old, told, generation, now);
    if let Some(target) = &mut status.target {
        target.message = Some(why.to_owned());
    }
}

/// Adds to a status that an object was refused, and why; unless something worse is known.
pub fn object_refused(status: &mut ClusterStatus, generation: i64, why: &str, now: Timestamp) {
    let mut conditions = status.conditions.iter();
    if conditions.any(|c| c.type_ == condition::DEGRADED && c.status == "True") {
        return;
    }
    let told = vec![Told::yes(condition::DEGRADED, reason::OBJECT_REFUSED, why)];
    let old = std::mem::take(&mut status.conditions);
    status.conditions = merge(&old, told, generation, now);
}

fn unsettled_without_master(member: &Member) -> Option<String> {
    let pod = &member.pod;
    match &member.seen {
        None => Some(format!("{pod} does not exist yet")),
        Some(seen) => match &seen.trouble {
            Some(trouble) => Some(format!("{pod} is not ready ({})", trouble.reason)),
            None => Some(format!("{pod} has no master yet")),
        },
    }
}
