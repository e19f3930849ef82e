//! The world and the plan in words: phase, conditions, nodes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use vectorizer_api::replication::{Replica, ReplicaStatus, Role};

use super::rollout::{outdated, unsettled};
use super::{Draft, Severity, Wait};
use crate::crd::{
    ClusterStatus, LastPromotion, NodeRole, NodeStatus, NodeSync, Phase, PromotionResult,
};
use crate::names::{self, condition, reason};
use crate::world::{Member, Set, World};

/// The status that goes with a plan.
pub(super) fn status(draft: &Draft<'_>) -> ClusterStatus {
    let world = draft.world;
    let master = draft.confirmed_master();
    let waiting: Vec<String> = match master {
        Some(master) => world
            .wanted()
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
    let settled = |m: &&Member| master.is_some_and(|master| unsettled(world, m, master).is_none());
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
        lag: lag(world),
        nodes: world.members.iter().map(|m| node(draft, m)).collect(),
        conditions: Vec::new(),
        ..ClusterStatus::default()
    };
    draft.memory.write_to(&mut status);
    let facts = Facts {
        draft,
        writable: master.and_then(Member::state).is_some_and(|s| s.writable),
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

struct Facts<'d, 'w> {
    draft: &'d Draft<'w>,
    writable: bool,
    /// What keeps wanted members from being settled.
    waiting: Vec<String>,
    outdated: usize,
    surplus: usize,
}

impl Facts<'_, '_> {
    fn worst(&self, severity: Severity) -> Option<&Wait> {
        self.draft.waits.iter().find(|w| w.severity == severity)
    }

    fn changing(&self) -> bool {
        self.outdated > 0 || self.surplus > 0 || self.worst(Severity::Progress).is_some()
    }

    fn phase(&self) -> Phase {
        let memory = &self.draft.memory;
        if self.draft.world.cluster.spec.paused && memory.target.is_none() {
            return Phase::Paused;
        }
        if self.worst(Severity::Blocked).is_some() {
            return Phase::Blocked;
        }
        if memory.target.is_some() {
            return Phase::Promoting;
        }
        if memory.master.is_none() {
            return Phase::Creating;
        }
        if !self.writable {
            return Phase::Unavailable;
        }
        let was = self.draft.world.status.phase;
        match (self.changing(), self.waiting.is_empty()) {
            (true, _) => Phase::Updating,
            (false, true) => Phase::Ready,
            // On the way up from the first start.
            (false, false) if was == Phase::Creating => Phase::Creating,
            (false, false) => Phase::Degraded,
        }
    }

    fn conditions(&self) -> Vec<Told> {
        let mut told = vec![
            self.available(),
            self.replication(),
            self.progressing(),
            self.degraded(),
            self.ready(),
        ];
        told.extend(self.synchronous());
        told.extend(self.draft.memory.last_promotion.as_ref().map(promotion));
        told
    }

    /// Whether writes are held by as many replicas as wanted; nothing while none are.
    fn synchronous(&self) -> Option<Told> {
        let of = condition::SYNCHRONOUS_REPLICATION_MET;
        let world = self.draft.world;
        let wanted = world.cluster.spec.write_concern.as_ref();
        let wanted = wanted.map_or(0, |w| w.acks);
        let record = self.draft.memory.write_concern.as_ref();
        let recorded = record.map_or(0, |r| r.acks);
        if wanted == 0 && recorded == 0 {
            return None;
        }
        if recorded != wanted {
            let text = format!("{wanted} acknowledgements are wanted, {recorded} are on record");
            return Some(Told::no(of, reason::WRITE_CONCERN_PENDING, &text));
        }
        let Some(replicas) = &world.replicas else {
            let text = "no master says how its replicas are";
            return Some(Told::unknown(of, reason::NO_MASTER, text));
        };
        let counts = |r: &&Replica| {
            let member = record.is_some_and(|record| record.members.contains(&r.id));
            member && r.connected && r.status != ReplicaStatus::Syncing
        };
        let found = replicas.iter().filter(counts).count();
        Some(if found >= recorded as usize {
            let text = format!("each write is held by {recorded} of {found} replicas");
            Told::yes(of, reason::REPLICAS_CONNECTED, &text)
        } else {
            let text = format!(
                "each write has to be held by {recorded} replicas and {found} can: writes are refused"
            );
            Told::no(of, reason::REPLICAS_MISSING, &text)
        })
    }

    fn available(&self) -> Told {
        if self.writable {
            return Told::yes(
                condition::AVAILABLE,
                reason::WRITES_ACCEPTED,
                "the master accepts writes",
            );
        }
        let named = self.draft.waits.iter().max_by_key(|w| w.severity);
        match (named, &self.draft.memory.master) {
            (Some(wait), _) => Told::no(condition::AVAILABLE, wait.reason, &wait.message),
            (None, Some(master)) => Told::no(
                condition::AVAILABLE,
                reason::MASTER_NOT_WRITABLE,
                &format!("{} does not accept writes now", master.pod),
            ),
            (None, None) => Told::no(
                condition::AVAILABLE,
                reason::NO_MASTER,
                "there is no master yet",
            ),
        }
    }

    fn replication(&self) -> Told {
        let world = self.draft.world;
        let of = condition::REPLICATION_HEALTHY;
        if world.cluster.spec.replicas == 0 {
            return Told::yes(of, reason::NO_REPLICAS, "no replica is wanted");
        }
        let Some(replicas) = &world.replicas else {
            return Told::unknown(of, reason::NO_MASTER, "no master says how its replicas are");
        };
        let most = world.cluster.spec.reads.max_lag_ms();
        let master = self.draft.memory.master.as_ref();
        let others = || {
            world
                .wanted()
                .filter(|m| master.is_none_or(|master| m.pod != master.pod))
        };
        let gone: Vec<_> = others()
            .filter(|m| {
                !world
                    .replica(m)
                    .is_some_and(|r| r.connected && r.status != ReplicaStatus::Syncing)
            })
            .map(|m| m.pod.as_str())
            .collect();
        if !gone.is_empty() {
            return Told::no(
                of,
                reason::REPLICAS_MISSING,
                &format!("not connected, or in the first sync: {}", gone.join(", ")),
            );
        }
        let late: Vec<_> = others()
            .filter(|m| world.replica(m).is_some_and(|r| r.lag_ms > most))
            .map(|m| m.pod.as_str())
            .collect();
        if !late.is_empty() {
            return Told::no(
                of,
                reason::REPLICAS_BEHIND,
                &format!("more than {most} ms behind: {}", late.join(", ")),
            );
        }
        let connected = replicas.iter().filter(|r| r.connected).count();
        Told::yes(
            of,
            reason::REPLICAS_CONNECTED,
            &format!("{connected} connected, none more than {most} ms behind"),
        )
    }

    fn progressing(&self) -> Told {
        let of = condition::PROGRESSING;
        let world = self.draft.world;
        if world.cluster.spec.paused {
            return Told::no(of, reason::PAUSED, "spec.paused is set: nothing is changed");
        }
        if let Some(target) = &self.draft.memory.target {
            let text = match &target.message {
                Some(message) => format!("{:?}, step {:?}: {message}", target.mode, target.step),
                None => format!("{:?}, step {:?}", target.mode, target.step),
            };
            return Told::yes(of, reason::PROMOTION_STARTED, &text);
        }
        if let Some(wait) = self.worst(Severity::Progress) {
            return Told::yes(of, wait.reason, &wait.message);
        }
        if self.outdated > 0 {
            return Told::yes(of, reason::UPDATING, "pods are being replaced");
        }
        if self.surplus > 0 {
            return Told::yes(of, reason::SCALING, "pods are being removed");
        }
        Told::no(of, reason::AS_WANTED, "nothing is being changed")
    }

    fn degraded(&self) -> Told {
        let of = condition::DEGRADED;
        let named = self
            .worst(Severity::Blocked)
            .or(self.worst(Severity::Trouble));
        if let Some(wait) = named {
            return Told::yes(of, wait.reason, &wait.message);
        }
        if self.waiting.is_empty() || self.changing() || self.phase() == Phase::Creating {
            return Told::no(of, reason::NOTHING_WRONG, "nothing is known to be wrong");
        }
        Told::yes(of, reason::NODES_MISSING, &self.waiting.join("; "))
    }

    fn ready(&self) -> Told {
        let of = condition::READY;
        if let Some(wait) = self.draft.waits.iter().max_by_key(|w| w.severity) {
            return Told::no(of, wait.reason, &wait.message);
        }
        if !self.waiting.is_empty() {
            return Told::no(of, reason::NODES_MISSING, &self.waiting.join("; "));
        }
        if self.draft.memory.target.is_some() {
            return Told::no(of, reason::PROMOTION_STARTED, "the master is being changed");
        }
        if self.outdated > 0 || self.surplus > 0 {
            return Told::no(of, reason::UPDATING, "pods are being replaced or removed");
        }
        if !self.writable {
            return Told::no(
                of,
                reason::MASTER_NOT_WRITABLE,
                "the master does not accept writes now",
            );
        }
        Told::yes(
            of,
            reason::ALL_NODES_READY,
            "every node is up and replicates",
        )
    }
}

fn promotion(last: &LastPromotion) -> Told {
    let of = condition::PROMOTION_SUCCEEDED;
    match last.result {
        PromotionResult::Succeeded => Told::yes(of, reason::PROMOTION_SUCCEEDED, &last.message),
        PromotionResult::Failed => Told::no(of, reason::PROMOTION_FAILED, &last.message),
        PromotionResult::Refused => Told::no(of, reason::PROMOTION_REFUSED, &last.message),
    }
}

fn unsettled_without_master(member: &Member) -> Option<String> {
    let pod = &member.pod;
    match &member.seen {
        None => Some(format!("{pod} does not exist yet")),
        Some(seen) => match &seen.trouble {
            Some(trouble) => Some(format!("{pod} is not ready ({trouble})")),
            None => Some(format!("{pod} has no master yet")),
        },
    }
}

fn node(draft: &Draft<'_>, member: &Member) -> NodeStatus {
    let world = draft.world;
    let state = member.state();
    let replica = world.replica(member);
    let is_master = draft
        .confirmed_master()
        .is_some_and(|m| m.pod == member.pod);
    let sync = match replica.map(|r| r.status) {
        _ if is_master => NodeSync::Master,
        // The master lists it as connected until it has been silent for a minute.
        Some(_) if replica.is_some_and(|r| !r.connected) => NodeSync::Disconnected,
        Some(ReplicaStatus::Connected) => NodeSync::Connected,
        Some(ReplicaStatus::Syncing) => NodeSync::Syncing,
        Some(ReplicaStatus::Lagging) => NodeSync::Lagging,
        Some(ReplicaStatus::Disconnected) => NodeSync::Disconnected,
        None => NodeSync::Unknown,
    };
    let old = world.status.nodes.iter().find(|n| n.pod == member.pod);
    let heartbeat =
        replica.and_then(|r| Timestamp::from_second(i64::try_from(r.last_heartbeat).ok()?).ok());
    NodeStatus {
        pod: member.pod.clone(),
        // What was known of a node that is silent now stays: a failover counts what may be lost by it.
        node_id: state.map(|s| s.node_id).or(old.and_then(|n| n.node_id)),
        role: match state.map(|s| s.role) {
            Some(Role::Master) => NodeRole::Master,
            Some(Role::Replica) => NodeRole::Replica,
            Some(Role::Unassigned) => NodeRole::Unassigned,
            None => NodeRole::Unknown,
        },
        status: sync,
        lag_ms: if is_master {
            Some(0)
        } else {
            replica.map(|r| r.lag_ms)
        },
        lag_operations: if is_master {
            Some(0)
        } else {
            replica.map(|r| r.lag_operations)
        },
        epoch: state
            .map(|s| s.promised_epoch)
            .or(old.and_then(|n| n.epoch)),
        offset: state
            .map(|s| s.position.offset)
            .or(old.and_then(|n| n.offset)),
        last_heartbeat: heartbeat.map(Time),
        read_eligible: member.seen.as_ref().is_some_and(|p| p.read_eligible),
    }
}

/// The lag of the slowest replica that is wanted.
fn lag(world: &World) -> Option<String> {
    let Some(_) = &world.replicas else {
        return Some("unknown".to_owned());
    };
    let worst = world
        .wanted()
        .filter_map(|m| world.replica(m))
        .map(|r| r.lag_ms)
        .max();
    Some(match worst {
        None | Some(0) => "0ms".to_owned(),
        Some(ms) if ms < 10_000 => format!("{ms}ms"),
        Some(ms) => format!("{}s", ms / 1000),
    })
}

struct Told {
    of: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Told {
    fn new(of: &'static str, status: &'static str, reason: &'static str, message: &str) -> Self {
        Told {
            of,
            status,
            reason,
            message: message.to_owned(),
        }
    }

    fn yes(of: &'static str, reason: &'static str, message: &str) -> Self {
        Told::new(of, "True", reason, message)
    }

    fn no(of: &'static str, reason: &'static str, message: &str) -> Self {
        Told::new(of, "False", reason, message)
    }

    fn unknown(of: &'static str, reason: &'static str, message: &str) -> Self {
        Told::new(of, "Unknown", reason, message)
    }
}

/// New conditions over old ones: one whose status has not changed keeps the time of its last change.
fn merge(old: &[Condition], told: Vec<Told>, generation: i64, now: Timestamp) -> Vec<Condition> {
    let mut merged: Vec<Condition> = old
        .iter()
        .filter(|c| !told.iter().any(|t| t.of == c.type_))
        .cloned()
        .collect();
    for Told {
        of,
        status,
        reason,
        message,
    } in told
    {
        let before = old.iter().find(|c| c.type_ == of);
        let since = before
            .filter(|c| c.status == status)
            .map(|c| c.last_transition_time.clone());
        merged.push(Condition {
            type_: of.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: since.unwrap_or(Time(now)),
            observed_generation: Some(generation),
        });
    }
    merged.sort_by(|a, b| a.type_.cmp(&b.type_));
    merged
}
