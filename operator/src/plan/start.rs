//! The first start of a cluster, once in its life, and the recovery of data that was there before its status.

use vectorizer_api::lease::{Grant, Holder};
use vectorizer_api::replication::Role;

use super::primary::{holder_of, master_status, own_reservation, reserve};
use super::{Draft, Expect, Severity, Step, failover, members, secrets};
use crate::crd::{Initialization, PromoteMode, PromotionReason, TargetStep};
use crate::names::{self, reason};
use crate::world::{Kind, LeaseSeen, Member, PodSeen, Set, World, parse_pod};

/// Nobody has been decided to be master yet.
pub(super) fn start(draft: &mut Draft<'_>) {
    let world = draft.world;
    if world.lease == LeaseSeen::Taken {
        let text = format!("Lease {} belongs to somebody else", world.cluster.name);
        return draft.wait(Severity::Blocked, reason::NAME_TAKEN, text);
    }
    if let Some(taken) = taken(draft) {
        let text = format!("waiting for {taken} to go: it is of something else under this name");
        return draft.wait(Severity::Progress, reason::STARTING, text);
    }
    let first = names::first_master(&world.cluster.name);
    let data: Vec<&Member> = world.members.iter().filter(|m| m.holds_data()).collect();
    let only_first = data.iter().all(|m| m.pod == first);
    let is_new = match draft.memory.initialization {
        // A Lease would say that there was a master, whatever the status says.
        None => data.is_empty() && world.lease == LeaseSeen::Missing,
        Some(Initialization::Decided) => only_first,
        Some(Initialization::Done) => false,
    };
    // All of them: one that does not answer may be the one that holds data, unless it cannot start and its volume was made
    // for it. What is on its way out, or is left of a cluster that was deleted, says nothing about this one.
    let silent: Vec<_> = world
        .members
        .iter()
        .filter(|m| {
            world.is_wanted(m) && m.state().is_none() || m.seen.as_ref().is_some_and(leaves)
        })
        .filter(|m| !is_new || m.pod == first || !holds_nothing(world, m))
        .map(|m| m.pod.as_str())
        .collect();
    if !silent.is_empty() {
        let text = format!(
            "waiting for {} to answer: who holds data has to be known before there is a master",
            silent.join(", ")
        );
        return draft.wait(Severity::Progress, reason::STARTING, text);
    }
    let left_out = volumes_without_pods(world);
    if draft.memory.initialization.is_none()
        && !left_out.is_empty()
        && master_by_lease(world).is_none()
    {
        let text = format!(
            "there are volumes of replicas that spec.replicas = {} leaves out: {}; one of them may hold the most. Raise \
             spec.replicas, or delete these claims if what they hold is not wanted",
            world.cluster.spec.replicas,
            left_out.join(", ")
        );
        return draft.wait(Severity::Blocked, reason::FOREIGN_DATA, text);
    }
    match draft.memory.initialization {
        Some(Initialization::Decided) if only_first => initialize(draft, &first),
        None if data.is_empty() => initialize(draft, &first),
        Some(Initialization::Decided | Initialization::Done) | None => recover(draft, &data),
    }
}

/// Whether a node can hold nothing although nobody has asked it: its pod does not get as far as to run, and its volume is
/// an empty one of this cluster.
fn holds_nothing(world: &World, member: &Member) -> bool {
    let pod = member.seen.as_ref();
    let claim = world.claims.get(&names::claim(&member.pod));
    pod.is_some_and(|p| p.trouble.is_some() && !leaves(p)) && claim.is_some_and(|c| c.blank)
}

/// A pod that will be another soon.
fn leaves(pod: &PodSeen) -> bool {
    pod.deleting || pod.stranger
}

/// Something of ours that is still somebody else's: a cluster that was deleted goes bit by bit.
fn taken(draft: &Draft<'_>) -> Option<String> {
    let world = draft.world;
    let set = world.taken.iter().find(|r| r.kind == Kind::StatefulSet);
    if let Some(set) = set {
        return Some(set.to_string());
    }
    secrets::taken(draft).map(|name| format!("Secret {name}"))
}

/// Claims that were kept for pods that are not wanted and do not answer.
fn volumes_without_pods(world: &World) -> Vec<&str> {
    let answers = |pod: &str| world.member(pod).is_some_and(|m| m.state().is_some());
    let left_out = |claim: &&str| {
        let Some(pod) = names::pod_of_claim(claim) else {
            return false;
        };
        let place = parse_pod(&world.cluster.name, pod);
        let surplus = place.is_some_and(|(set, ordinal)| match set {
            Set::Master => ordinal > 0,
            Set::Replica => ordinal >= world.cluster.spec.replicas,
        });
        surplus && !answers(pod)
    };
    world
        .claims
        .keys()
        .map(String::as_str)
        .filter(left_out)
        .collect()
}

/// Who writes as the Lease says, so that only the status was lost. A Lease that stands without status is not believed by
/// itself, also when it is ours: it may have been left by a deletion, or come from a backup and name an older epoch. It
/// counts where its holder writes in its epoch and nobody knows a higher one; everything else is a recovery, by all
/// members, into an epoch above all that anybody knows.
fn master_by_lease(world: &World) -> Option<(&Member, &Holder, u64)> {
    let grant = world.lease.grant()?;
    let holder = grant.holder.as_ref()?;
    let member = world.node(holder.node_id)?;
    let state = member.state()?;
    let writes = state.role == Role::Master && state.master_epoch == grant.epoch;
    (writes && world.highest_epoch() == grant.epoch).then_some((member, holder, grant.epoch))
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
    // What is on record of another cluster's members says nothing about this one, which is empty.
    let same = grant.as_ref().is_none_or(|grant| grant.cluster == cluster);
    let (concern, secured) = if same {
        (draft.recorded_concern(), draft.secured())
    } else {
        Default::default()
    };
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
            concern,
            secured,
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
    if let Some((member, holder, epoch)) = master_by_lease(world) {
        return done(draft, member, holder, epoch);
    }
    let writing = world.members.iter().find(|m| m.is_master());
    if let Some((member, to)) = writing.and_then(|m| Some((m, draft.peer(m)?))) {
        // By a Lease that others have gone beyond, or by none. It stops first: otherwise it would be waited for.
        let epoch = world.highest_epoch() + 1;
        draft.steps.push(Step::Fence { to, epoch });
        draft.fast = true;
        let text = format!(
            "{} writes in an epoch that others have gone beyond: it is stopped",
            member.pod
        );
        return draft.wait(Severity::Progress, reason::RECOVERING, text);
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
