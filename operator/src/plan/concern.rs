//! The write concern: who belongs to the cluster, and how many replicas must hold a write before it is answered.
//!
//! The master changes both and records them in the Lease; what is wanted is said here. A pod that is scaled away stays
//! until its node is no member any more ([`keeps`]): its acknowledgements may be all that some write has.

use std::collections::BTreeSet;

use uuid::Uuid;
use vectorizer_api::concern::Concern;
use vectorizer_api::position::Position;
use vectorizer_api::replication::ReplicaStatus;

use super::{Draft, Severity, Step};
use crate::names::reason;
use crate::world::{Member, World};

/// How long one change may take, in ms. The next pass tries again.
const DEADLINE_MS: u64 = 5_000;

/// Keeps what the Lease says, in case that somebody deletes it.
pub(super) fn remember(draft: &mut Draft<'_>) {
    if let Some(grant) = draft.world.lease.grant() {
        let asked = grant.concern != Concern::default() || grant.secured > Position::ZERO;
        draft.memory.write_concern = asked.then(|| grant.into());
    }
}

/// Asks the master for what the spec wants, as far as it can be had now.
pub(super) fn settle(draft: &mut Draft<'_>) {
    let world = draft.world;
    let (Some(master), Some(grant)) = (draft.confirmed_master(), world.lease.grant()) else {
        return;
    };
    let Some(state) = master.state().filter(|s| s.writable) else {
        return;
    };
    let wanted = world
        .cluster
        .spec
        .write_concern
        .as_ref()
        .map_or(0, |w| w.acks);
    let record = &grant.concern;
    if wanted == 0 && record.acks == 0 && record.members.is_empty() {
        return;
    }
    // Who is in sync is not known: the next pass asks again.
    if world.replicas.is_none() {
        return;
    }
    let mut members = members(world, state.node_id, record);
    let mut acks = wanted;
    let replicas =
        |members: &BTreeSet<_>| u32::try_from(members.len().saturating_sub(1)).unwrap_or(u32::MAX);
    if wanted > replicas(&members) {
        // Too few for what is wanted: nobody goes, and no fewer acknowledge than before.
        members.extend(&record.members);
        let joined = replicas(&members);
        acks = wanted.min(joined);
        let new = record.members.is_empty();
        let text = format!(
            "writeConcern.acks is {wanted} and {} replicas are in sync: waiting for more to join",
            replicas(&self::members(world, state.node_id, &Concern::default()))
        );
        draft.wait(Severity::Trouble, reason::WRITE_CONCERN_PENDING, text);
        if new {
            // As long as nothing is recorded, nodes go by their file, which asks for all that is wanted.
            return;
        }
    }
    let concern = Concern { members, acks };
    // A master that never heard how its change ended may still go by something stricter than what is recorded.
    let known = state.settled
        && state.acks == record.acks
        && state.members.iter().copied().collect::<BTreeSet<_>>() == record.members;
    if concern == *record && known || !concern.members.contains(&state.node_id) {
        return;
    }
    if let Some(to) = draft.peer(master) {
        draft.steps.push(Step::Members {
            to,
            epoch: state.master_epoch,
            concern,
            recorded: record.clone(),
            deadline_ms: DEADLINE_MS,
        });
    }
}

/// Who is to belong to the cluster: the master, and nodes of wanted pods that are in sync with it. One that does not answer
/// keeps its place, as nobody knows which node it is; so does a member that is not in sync just now.
fn members(world: &World, master: Uuid, record: &Concern) -> BTreeSet<Uuid> {
    let answering = world.wanted().filter_map(Member::state);
    let joined = answering.filter(|s| {
        s.node_id == master || in_sync(world, s.node_id) || record.members.contains(&s.node_id)
    });
    let mut members: BTreeSet<_> = joined.map(|s| s.node_id).collect();
    let unknown = world.wanted().any(|m| m.state().is_none());
    for id in &record.members {
        let surplus = world.node(*id).is_some_and(|m| !world.is_wanted(m));
        if unknown && !surplus {
            members.insert(*id);
        }
    }
    members
}

/// Whether the master lists a node as one that has a whole copy and follows it.
fn in_sync(world: &World, node_id: Uuid) -> bool {
    let mut listed = world.replicas.iter().flatten();
    listed.any(|replica| {
        replica.replica_id == node_id
            && match replica.status {
                ReplicaStatus::Connected | ReplicaStatus::Lagging => replica.connected,
                ReplicaStatus::Syncing | ReplicaStatus::Disconnected => false,
            }
    })
}

/// Whether a pod has to stay because its node is on record as a member.
pub(super) fn keeps(world: &World, member: &Member) -> bool {
    let Some(grant) = world.lease.grant().filter(|g| g.concern.acks > 0) else {
        return false;
    };
    match member.state() {
        Some(state) => grant.concern.members.contains(&state.node_id),
        // Which node it is was reported last time.
        None => {
            let reported = world.status.nodes.iter().find(|n| n.pod == member.pod);
            let id = reported.and_then(|n| n.node_id);
            id.is_none_or(|id| grant.concern.members.contains(&id))
        }
    }
}

/// How many members answer, and how many a failover has to fence so that one of them holds every write that was
/// acknowledged by as many replicas as the record asks for.
pub(super) fn quorum(world: &World, concern: &Concern, promised: Option<u64>) -> (usize, usize) {
    let counts = |m: &&Member| {
        m.state().is_some_and(|s| {
            concern.members.contains(&s.node_id)
                && promised.is_none_or(|epoch| s.promised_epoch >= epoch)
        })
    };
    let needed = if concern.acks == 0 {
        0
    } else {
        concern.quorum()
    };
    (world.members.iter().filter(counts).count(), needed)
}

/// Whether a log that ends at `end` has what was acknowledged before the number was lowered to 0. While acknowledgements
/// are asked for, it is the quorum that has it.
pub(super) fn has_secured(concern: &Concern, secured: Position, end: Position) -> bool {
    concern.acks > 0 || end >= secured
}

/// Whether a node may become the master while acknowledgements are on record: only a member may, as its own disk is one
/// of those that a failover counts on.
pub(super) fn may_lead(concern: &Concern, member: &Member) -> bool {
    let listed = |id| concern.members.contains(&id);
    concern.acks == 0 || member.state().is_some_and(|s| listed(s.node_id))
}
