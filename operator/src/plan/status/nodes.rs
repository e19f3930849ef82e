//! How each node is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use vectorizer_api::replication::{ReplicaStatus, Role};

use crate::crd::{NodeRole, NodeStatus, NodeSync};
use crate::plan::members::GRACE;
use crate::plan::{Draft, seconds_since};
use crate::world::{Member, World};

/// Whether a node follows a new master that has not heard of it yet. For a moment after each change of the master that is
/// so of all of them, and no fault: one that was well before counts as well until then.
pub(super) fn joins(draft: &Draft<'_>, member: &Member) -> bool {
    let (Some(master), Some(state)) = (draft.confirmed_master(), member.state()) else {
        return false;
    };
    let since = draft.memory.master.as_ref().map(|m| &m.since);
    let new = since.is_some_and(|at| seconds_since(draft.now(), at) < GRACE.as_secs_f64());
    let follows =
        state.role == Role::Replica && state.master_address == master.replication_address();
    // A master lists only whom it has heard of in its epoch.
    let heard = draft.world.replica(member).is_some();
    let mut nodes = draft.world.status.nodes.iter();
    let was_well = nodes.any(|n| {
        n.pod == member.pod
            && n.node_id == Some(state.node_id)
            && matches!(
                n.status,
                NodeSync::Master | NodeSync::Connected | NodeSync::Lagging
            )
    });
    new && follows && !heard && was_well
}

/// What the status says of a node.
pub(super) fn node(draft: &Draft<'_>, member: &Member) -> NodeStatus {
    let world = draft.world;
    let state = member.state();
    let replica = world.replica(member);
    let is_master = draft
        .confirmed_master()
        .is_some_and(|m| m.pod == member.pod);
    let old = world.status.nodes.iter().find(|n| n.pod == member.pod);
    let sync = match replica.map(|r| r.status) {
        _ if is_master => NodeSync::Master,
        _ if joins(draft, member) => {
            let lagged = old.is_some_and(|n| n.status == NodeSync::Lagging);
            if lagged {
                NodeSync::Lagging
            } else {
                NodeSync::Connected
            }
        }
        // The master lists it as connected until it has been silent for a minute.
        Some(_) if replica.is_some_and(|r| !r.connected) => NodeSync::Disconnected,
        Some(ReplicaStatus::Connected) => NodeSync::Connected,
        Some(ReplicaStatus::Syncing) => NodeSync::Syncing,
        Some(ReplicaStatus::Lagging) => NodeSync::Lagging,
        Some(ReplicaStatus::Disconnected) => NodeSync::Disconnected,
        None => NodeSync::Unknown,
    };
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
pub(super) fn lag(world: &World) -> Option<String> {
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
