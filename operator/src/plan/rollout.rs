//! Objects and pods: what is applied, and which pod is replaced next. At most one disruptive step
//! in a pass, and none while the master is being changed.

use vectorizer_api::replication::ReplicaStatus;

use super::primary::{own_reservation, reserve};
use super::{Draft, Severity, Step, concern, volumes};
use crate::crd::{ImageSource, PromoteMode, PromotionReason};
use crate::names::reason;
use crate::render::{self, Object, Wanted};
use crate::world::{Kind, Member, ObjectRef, Refusal, Set, World};

/// Which image nodes are to run, and why. What they run already stays when the spec names none any more: an older one
/// would be started over data that a newer one has written.
pub(super) fn choose_image(draft: &mut Draft<'_>) {
    let world = draft.world;
    let (image, from) = match world.cluster.spec.image.as_deref() {
        Some("") => (world.default_image.clone(), ImageSource::Operator),
        Some(named) => (named.to_owned(), ImageSource::Spec),
        None => {
            // Where the status was lost, the templates know.
            let templates = world.sets.iter().flatten();
            let runs = templates.filter_map(|set| set.image.clone()).next();
            let kept = draft.memory.image.clone().or(runs);
            let kept = kept.unwrap_or_else(|| world.default_image.clone());
            (kept, ImageSource::Kept)
        }
    };
    if from == ImageSource::Kept && draft.memory.image_from == Some(ImageSource::Spec) {
        let text = format!(
            "spec.image names none any more: nodes go on with {image}; an empty text asks for the operator's own, {}",
            world.default_image
        );
        draft.tell(false, reason::IMAGE_KEPT, text);
    }
    draft.memory.image = Some(image);
    draft.memory.image_from = Some(from);
}

/// Objects to apply and to prune. What is as this process left it is not applied again.
pub(super) fn objects(draft: &mut Draft<'_>) -> (Vec<Object>, Vec<ObjectRef>) {
    let world = draft.world;
    let cluster = &world.cluster;
    let image = draft.memory.image.as_ref().unwrap_or(&world.default_image);
    let wanted = Wanted {
        cluster,
        image,
        replicas: replica_pods(draft),
        claims: [Set::Master, Set::Replica].map(|set| volumes::template(world, set)),
    };
    let objects = render::objects(&wanted);
    for taken in &world.taken {
        let text = format!(
            "{taken} exists and does not belong to this cluster: it is left alone; rename or remove it"
        );
        draft.wait(Severity::Blocked, reason::NAME_TAKEN, text);
    }
    for object in &objects {
        if let Some(refusal) = refused(world, object) {
            let text = format!("{}: {}", object.reference, refusal.words);
            draft.wait(Severity::Trouble, reason::OBJECT_REFUSED, text);
            draft.stuck = true;
        }
    }
    let prune = world
        .objects
        .keys()
        .filter(|seen| !objects.iter().any(|o| o.reference == **seen))
        .cloned()
        .collect();
    let orphaned: Vec<&str> = draft
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Orphan { set, .. } => Some(set.as_str()),
            Step::Record(_)
            | Step::Tell(_)
            | Step::SetLease { .. }
            | Step::Initialize { .. }
            | Step::Fence { .. }
            | Step::Handover { .. }
            | Step::Promote { .. }
            | Step::Follow { .. }
            | Step::Members { .. }
            | Step::Label { .. }
            | Step::GrowClaim { .. }
            | Step::DeleteClaim { .. }
            | Step::Relabel { .. }
            | Step::AdoptLease
            | Step::Replace { .. } => None,
        })
        .collect();
    let apply = |object: &Object| {
        let reference = &object.reference;
        let going = reference.kind == Kind::StatefulSet
            && (orphaned.contains(&reference.name.as_str())
                || world
                    .sets
                    .iter()
                    .flatten()
                    .any(|s| s.deleting && s.name == reference.name));
        let seen = world.objects.get(reference);
        let as_left = seen.is_some_and(|stamp| {
            world
                .applied
                .get(reference)
                .is_some_and(|(hash, after)| *hash == object.hash && after == stamp)
        });
        !going && !as_left && !waits(world, object) && !world.taken.contains(reference)
    };
    (objects.into_iter().filter(apply).collect(), prune)
}

/// What the API server said of this very object when it was asked last.
fn refused<'w>(world: &'w World, object: &Object) -> Option<&'w Refusal> {
    let refusal = world.refusals.get(&object.reference.to_string());
    refusal.filter(|refusal| refusal.attempt == object.hash)
}

/// Whether it is too early to ask again for what was refused.
fn waits(world: &World, object: &Object) -> bool {
    refused(world, object).is_some_and(|refusal| !refusal.due)
}

/// Pods of the replica set: as many as wanted, but never without the master, as it was when the pass began, is now
/// decided, or will be, and never without a member whose acknowledgements count; none goes while there is no master. Objects are applied before any command: what the commands will change is not true yet.
fn replica_pods(draft: &Draft<'_>) -> u32 {
    let world = draft.world;
    let before = (&world.status.master, &world.status.target);
    let now = (&draft.memory.master, &draft.memory.target);
    let needed = [before, now].map(|(master, target)| {
        let target = target.as_ref();
        [
            master.as_ref().map(|m| &m.pod),
            target.and_then(|t| t.pod.as_ref()),
            target.and_then(|t| t.from.as_ref()),
        ]
    });
    let needed = needed
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|pod| world.member(pod))
        .chain(
            world
                .members
                .iter()
                .filter(|m| m.seen.is_some() && concern::keeps(world, m)),
        )
        .filter(|m| m.set == Set::Replica)
        .map(|m| m.ordinal + 1)
        .max()
        .unwrap_or(0);
    // A set that is made anew finds its pods where they were.
    let pods = world
        .members
        .iter()
        .filter(|m| m.set == Set::Replica && m.seen.is_some());
    let exist = match &world.sets[Set::Replica.index()] {
        Some(set) => set.replicas,
        None => pods.map(|m| m.ordinal + 1).max().unwrap_or(0),
    };
    // Without a master, and as long as one is elected, any of them may hold the most.
    let electing = [before.1, now.1]
        .into_iter()
        .flatten()
        .any(|t| t.mode == PromoteMode::Failover);
    let leaderless = draft.memory.master.is_some() && draft.confirmed_master().is_none();
    let needed = if electing || leaderless {
        exist
    } else {
        needed.min(exist)
    };
    world.cluster.spec.replicas.max(needed)
}

/// Replaces pods whose template is not the present one, and moves the master where it has to go.
pub(super) fn pods(draft: &mut Draft<'_>) {
    let world = draft.world;
    // Nothing is lost with a pod that does not run: a broken template must be replaceable before there is a master.
    let broken = world.members.iter().find(|m| {
        outdated(world, m)
            && m.state().is_none()
            && m.seen
                .as_ref()
                .is_some_and(|p| !p.ready && p.trouble.is_some())
    });
    if let Some(member) = broken {
        return replace(draft, member);
    }
    if draft.memory.target.is_some() {
        return;
    }
    let Some(master) = draft.confirmed_master() else {
        return;
    };
    if !world.is_wanted(master) {
        return move_master(draft, master, PromotionReason::ScaleDown);
    }
    if master.seen.as_ref().is_some_and(|p| p.cordoned) && somewhere_to_drain_to(world, master) {
        return move_master(draft, master, PromotionReason::Drain);
    }
    let behind: Vec<&Member> = world
        .members
        .iter()
        .filter(|m| outdated(world, m))
        .collect();
    if behind.is_empty() {
        return;
    }
    if let Some(waiting) = world.wanted().find_map(|m| unsettled(world, m, master)) {
        return draft.wait(
            Severity::Progress,
            reason::UPDATING,
            format!("pods are being replaced, one at a time: {waiting}"),
        );
    }
    match behind.iter().rev().find(|m| m.pod != master.pod) {
        Some(member) => replace(draft, member),
        None if world.wanted().any(|m| m.pod != master.pod) => {
            move_master(draft, master, PromotionReason::Rollout);
        }
        None => replace(draft, master),
    }
}

fn replace(draft: &mut Draft<'_>, member: &Member) {
    if let Some(pod) = &member.seen {
        draft.steps.push(Step::Replace {
            pod: member.pod.clone(),
            uid: pod.uid.clone(),
        });
        draft.tell(
            false,
            reason::POD_REPLACED,
            format!("{} is replaced: its template has changed", member.pod),
        );
        draft.wait(
            Severity::Progress,
            reason::UPDATING,
            format!("{} is being replaced", member.pod),
        );
    }
}

fn move_master(draft: &mut Draft<'_>, master: &Member, why: PromotionReason) {
    let text = format!("the master moves away from {}", master.pod);
    let word = match why {
        PromotionReason::ScaleDown => reason::SCALING,
        PromotionReason::Requested
        | PromotionReason::Rollout
        | PromotionReason::Drain
        | PromotionReason::Recovery
        | PromotionReason::Deposed => reason::UPDATING,
    };
    draft.wait(Severity::Progress, word, text);
    let target = own_reservation(draft, why, PromoteMode::Switchover, None);
    reserve(draft, target);
}

fn somewhere_to_drain_to(world: &World, master: &Member) -> bool {
    world
        .wanted()
        .any(|m| m.pod != master.pod && m.seen.as_ref().is_some_and(|p| !p.cordoned && p.ready))
}

/// Whether a pod was made from an older template than its set has now.
pub(super) fn outdated(world: &World, member: &Member) -> bool {
    let Some(pod) = member.seen.as_ref().filter(|p| !p.deleting) else {
        return false;
    };
    let wanted = world.sets[member.set.index()]
        .as_ref()
        .and_then(|s| s.revision.as_ref());
    wanted.is_some() && pod.revision.is_some() && wanted != pod.revision.as_ref()
}

/// What keeps a member from being as good as any other; `None` when nothing does.
pub(super) fn unsettled(world: &World, member: &Member, master: &Member) -> Option<String> {
    let pod = &member.pod;
    let Some(seen) = &member.seen else {
        return Some(format!("{pod} does not exist yet"));
    };
    if seen.deleting {
        return Some(format!("{pod} is being deleted"));
    }
    if member.state().is_none() || !seen.ready {
        let trouble = seen
            .trouble
            .as_ref()
            .map(|t| format!(" ({})", t.reason))
            .unwrap_or_default();
        return Some(format!("{pod} is not ready{trouble}"));
    }
    if member.pod == master.pod {
        return None;
    }
    match world.replica(member) {
        Some(r) if r.connected => match r.status {
            ReplicaStatus::Connected => None,
            ReplicaStatus::Syncing => Some(format!("{pod} is in its first sync")),
            ReplicaStatus::Lagging | ReplicaStatus::Disconnected => {
                // How far is a figure, and changes with every write: see `nodes` in the status.
                Some(format!("{pod} is behind"))
            }
        },
        Some(_) | None => Some(format!("{pod} is not connected to the master")),
    }
}
