//! The first start of a cluster, once in its life, and the recovery of data that was there before its status.

use vectorizer_api::lease::{Grant, Holder};

use super::primary::{holder_of, master_status, own_reservation, reserve};
use super::{Draft, Expect, Severity, Step, failover, members};
use crate::crd::{Initialization, PromoteMode, PromotionReason, TargetStep};
use crate::names::{self, reason};
use crate::world::{LeaseSeen, Member};

/// Nobody has been decided to be master yet.
pub(super) fn start(draft: &mut Draft<'_>) {
    let world = draft.world;
    if world.lease == LeaseSeen::Taken {
        let text = format!("Lease {} belongs to somebody else", world.cluster.name);
        return draft.wait(Severity::Blocked, reason::NAME_TAKEN, text);
    }
    // All of them: one that does not answer may be the one that holds data.
    let silent: Vec<_> = world
        .wanted()
        .filter(|m| m.state().is_none())
        .map(|m| m.pod.as_str())
        .collect();
    if !silent.is_empty() {
        let text = format!(
            "waiting for {} to answer: who holds data has to be known before there is a master",
            silent.join(", ")
        );
        return draft.wait(Severity::Progress, reason::STARTING, text);
    }
    let first = names::first_master(&world.cluster.name);
    let data: Vec<&Member> = world.members.iter().filter(|m| m.holds_data()).collect();
    let only_first = data.iter().all(|m| m.pod == first);
    match draft.memory.initialization {
        Some(Initialization::Decided) if only_first => initialize(draft, &first),
        None if data.is_empty() => initialize(draft, &first),
        Some(Initialization::Decided | Initialization::Done) | None => recover(draft, &data),
    }
}

/// Makes the first pod the master. Written down first; repeated until the node says that it holds the cluster.
fn initialize(draft: &mut Draft<'_>, first: &str) {
    let world = draft.world;
    let Some(member) = world.member(first) else {
        return;
    };
    let (Some(holder), Some(state)) = (holder_of(member), member.state()) else {
        return;
    };
    let cluster = draft.memory.cluster.unwrap_or(world.cluster.uid);
    let grant = match &world.lease {
        LeaseSeen::Held { grant, .. } => Some(grant.clone()),
        LeaseSeen::Missing | LeaseSeen::Taken | LeaseSeen::Malformed(_) => None,
    };
    if member.holds_data() {
        // The command was carried out. The process may be another by now, with an epoch that it took itself.
        let Some(grant) = grant.filter(|g| {
            g.holder
                .as_ref()
                .is_some_and(|h| h.node_id == state.node_id)
        }) else {
            let data = vec![member];
            return recover(draft, &data);
        };
        let epoch = grant.epoch;
        let holder = grant.holder.unwrap_or(holder);
        return done(draft, member, &holder, epoch);
    }
    if draft.memory.initialization.is_none() {
        draft.memory.cluster = Some(cluster);
        draft.memory.initialization = Some(Initialization::Decided);
        // A request that stood in the manifest from the beginning is not for this cluster's first minute.
        if let Some(request) = &world.cluster.spec.promote {
            draft.memory.handled(&request.request_id);
        }
        draft.record();
    }
    let (expect, epoch) = match &grant {
        None => (Expect::Missing, 1),
        Some(old) if old.holder.as_ref() == Some(&holder) && old.cluster == cluster => {
            (Expect::Content(old.clone()), old.epoch)
        }
        Some(old) => (Expect::Content(old.clone()), old.epoch + 1),
    };
    draft.steps.push(Step::SetLease {
        expect,
        grant: Grant {
            cluster,
            epoch,
            holder: Some(holder.clone()),
            concern: draft.recorded_concern(),
        },
    });
    if let Some(to) = draft.peer(member) {
        draft.steps.push(Step::Initialize { to, epoch });
    }
    done(draft, member, &holder, epoch);
}

fn done(draft: &mut Draft<'_>, member: &Member, holder: &Holder, epoch: u64) {
    draft.memory.initialization = Some(Initialization::Done);
    draft.memory.master = Some(master_status(draft, holder, epoch));
    draft.record();
    draft.tell(
        false,
        reason::INITIALIZED,
        format!("{} is the first master", holder.pod),
    );
    members::introduce(draft, member, epoch);
    draft.fast = true;
}

/// Data without status, from a restored or kept volume: nobody is initialized, the most advanced node becomes master.
fn recover(draft: &mut Draft<'_>, data: &[&Member]) {
    let world = draft.world;
    let mut clusters: Vec<_> = data.iter().filter_map(|m| m.state()?.cluster).collect();
    clusters.sort_unstable();
    clusters.dedup();
    let [cluster] = clusters[..] else {
        let text = format!(
            "{} nodes hold data of {} different clusters: remove the volumes that do not belong here",
            data.len(),
            clusters.len()
        );
        return draft.wait(Severity::Blocked, reason::FOREIGN_DATA, text);
    };
    draft.memory.cluster = Some(cluster);
    draft.memory.initialization = Some(Initialization::Done);
    if let Some(request) = &world.cluster.spec.promote {
        draft.memory.handled(&request.request_id);
    }
    if let LeaseSeen::Held { grant, .. } = &world.lease
        && let Some(holder) = &grant.holder
        && let Some(member) = world.node(holder.node_id)
        && member.is_master()
        && member
            .state()
            .is_some_and(|s| s.master_epoch == grant.epoch)
    {
        // Only the status was lost.
        return done(draft, member, holder, grant.epoch);
    }
    let mut target = own_reservation(
        draft,
        PromotionReason::Recovery,
        PromoteMode::Failover,
        None,
    );
    target.step = TargetStep::Vacating;
    reserve(draft, target.clone());
    draft.tell(false, reason::RECOVERING, "volumes hold data that was there before this resource: the most advanced node becomes the master");
    failover::advance(draft, target);
}
