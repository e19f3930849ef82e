//! Volumes: which claims are not what is wanted, and how they become it.
//!
//! The template of a StatefulSet's claims cannot be changed: for another one the set is made anew around its pods. Before
//! there was a master nothing has been written, so that size and class are free, and claims that nothing is bound to are
//! made anew as well. Afterwards volumes only grow: first the claims, then the template. What is bound is never deleted
//! here. What cannot be done is said in a condition of its own, and nothing else waits for it.

use super::{Draft, Severity, Step, Verdict};
use crate::api::shortened;
use crate::crd::Amount;
use crate::names::{self, condition, reason};
use crate::render::ClaimTemplate;
use crate::world::{ClaimSeen, Cluster, Member, Refusal, Set, World};

/// Longest text about all volumes together, in bytes.
const MOST: usize = 900;

/// The template in a set: what it has, until it can be made anew.
pub(super) fn template(world: &World, set: Set) -> ClaimTemplate {
    let seen = world.sets[set.index()].as_ref();
    seen.map_or_else(
        || wanted(&world.cluster),
        |seen| ClaimTemplate {
            size: seen.claim_size.clone(),
            class: seen.claim_class.clone(),
        },
    )
}

/// The template that is wanted.
fn wanted(cluster: &Cluster) -> ClaimTemplate {
    ClaimTemplate {
        size: cluster.spec.storage.size.clone(),
        class: cluster.spec.storage.storage_class_name.clone(),
    }
}

/// The claims of the nodes that exist or are wanted, with their members.
fn claims(world: &World) -> impl Iterator<Item = (&Member, String, &ClaimSeen)> {
    world.members.iter().filter_map(|member| {
        let name = names::claim(&member.pod);
        let claim = world.claims.get(&name)?;
        Some((member, name, claim))
    })
}

/// The size up to which every volume may go back: that of the largest.
pub(super) fn largest(world: &World) -> Option<&Amount> {
    let sizes = claims(world).map(|(_, _, claim)| &claim.requested);
    let known = sizes.filter_map(|size| Some((size.value()?, size)));
    known
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, size)| size)
}

/// Makes volumes what is wanted, as far as that goes, and says what does not.
pub(super) fn volumes(draft: &mut Draft<'_>) {
    if draft.memory.target.is_none() && !draft.world.cluster.spec.paused {
        if draft.memory.master.is_none() {
            remake(draft);
        }
        empty_ones_of_another_class(draft);
        grow(draft);
    }
    report(draft);
}

/// Before there was a master: another template, and other claims where nothing is bound.
fn remake(draft: &mut Draft<'_>) {
    let world = draft.world;
    let (size, class) = (world.cluster.claim_bytes, wanted(&world.cluster).class);
    for set in world.sets.iter().flatten().filter(|set| !set.deleting) {
        if set.claim_size.value() == Some(size) && set.claim_class == class {
            continue;
        }
        draft.steps.push(Step::Orphan {
            set: set.name.clone(),
            uid: set.uid.clone(),
        });
        let empty = claims(world).filter(|(m, _, c)| m.set == set.set && is_empty(m, c));
        for (member, name, claim) in empty {
            delete(draft, member, name, claim);
        }
        let text = format!(
            "volumes of {}s are made anew, as spec.storage says",
            set.set.as_str()
        );
        draft.wait(Severity::Progress, reason::VOLUMES_REPLACED, text);
    }
}

/// Claims that were kept from another cluster, or from before the class was corrected.
fn empty_ones_of_another_class(draft: &mut Draft<'_>) {
    let world = draft.world;
    let Some(class) = wanted(&world.cluster).class else {
        // Which class the default one is, is not known here.
        return;
    };
    let others = claims(world).filter(|(member, _, claim)| {
        let set = world.sets[member.set.index()].as_ref();
        let current = set.is_some_and(|s| !s.deleting && s.claim_class.as_ref() == Some(&class));
        current && is_empty(member, claim) && claim.class.as_ref() != Some(&class)
    });
    for (member, name, claim) in others {
        let text = format!("volume {name} is made anew, of class {class}");
        draft.wait(Severity::Progress, reason::VOLUMES_REPLACED, text);
        delete(draft, member, name, claim);
    }
}

/// Whether a claim certainly holds nothing.
fn is_empty(member: &Member, claim: &ClaimSeen) -> bool {
    let runs = member.state().is_some() || member.seen.as_ref().is_some_and(|p| p.ready);
    !claim.bound && !claim.deleting && !runs
}

/// Deletes a claim and the pod that waits for it. Both come back from the set's template.
fn delete(draft: &mut Draft<'_>, member: &Member, claim: String, seen: &ClaimSeen) {
    draft.steps.push(Step::DeleteClaim {
        claim,
        uid: seen.uid.clone(),
        version: seen.version.clone(),
    });
    if let Some(pod) = member.seen.as_ref().filter(|pod| !pod.deleting) {
        draft.steps.push(Step::Replace {
            pod: member.pod.clone(),
            uid: pod.uid.clone(),
        });
    }
}

/// Lets volumes grow: first the claims, then the template.
fn grow(draft: &mut Draft<'_>) {
    let world = draft.world;
    let size = &world.cluster.spec.storage.size;
    let wanted = world.cluster.claim_bytes;
    let smaller = |amount: &Amount| amount.value().is_some_and(|bytes| bytes < wanted);
    // While there is no set, nobody keeps its pods: none is in doubt then.
    let steady = draft.confirmed_master().is_some()
        && !world
            .members
            .iter()
            .any(|m| m.seen.is_some() && !world.is_wanted(m));
    for set in [Set::Master, Set::Replica] {
        let template = world.sets[set.index()]
            .as_ref()
            .filter(|s| !s.deleting && smaller(&s.claim_size));
        // Also one that was kept from an earlier, smaller cluster.
        let behind: Vec<_> = claims(world)
            .filter(|(member, _, claim)| member.set == set && smaller(&claim.requested))
            .map(|(_, name, _)| name)
            .collect();
        let (refused, growing): (Vec<_>, Vec<_>) = behind
            .into_iter()
            .partition(|name| refusal(world, name).is_some());
        if template.is_some() && refused.is_empty() || !growing.is_empty() {
            draft.wait(
                Severity::Progress,
                reason::CLAIMS_GROWING,
                format!("volumes of {}s grow to {}", set.as_str(), size.as_str()),
            );
        }
        let grown = refused.is_empty() && growing.is_empty();
        if let Some(seen) = template.filter(|_| grown && steady) {
            draft.steps.push(Step::Orphan {
                set: seen.name.clone(),
                uid: seen.uid.clone(),
            });
        }
        let due = |name: &String| refusal(world, name).is_some_and(|refusal| refusal.due);
        for claim in growing.into_iter().chain(refused.into_iter().filter(due)) {
            draft.steps.push(Step::GrowClaim {
                claim,
                size: size.as_str().to_owned(),
            });
        }
    }
}

/// Why a claim does not get the size that is wanted, if it was asked for and refused.
fn refusal<'w>(world: &'w World, claim: &str) -> Option<&'w Refusal> {
    let refusal = world.refusals.get(&names::claim_reference(claim))?;
    let size = world.cluster.spec.storage.size.as_str();
    (refusal.attempt == size).then_some(refusal)
}

/// Which volumes are not as wanted, and why.
fn report(draft: &mut Draft<'_>) {
    let world = draft.world;
    let told: Vec<_> = claims(world)
        .filter_map(|(_, name, claim)| why(world, &name, claim))
        .collect();
    let Some((reason, _)) = told.first() else {
        return;
    };
    let texts: Vec<&str> = told.iter().map(|(_, text)| text.as_str()).collect();
    let text = shortened(&texts.join("; "), MOST);
    // That a volume does not come is told with its pod.
    if *reason != reason::VOLUME_NOT_PROVISIONED {
        draft.alarm(condition::VOLUMES_AS_WANTED, reason, &text);
    }
    draft.volumes = Some(Verdict { reason, text });
}

/// Why a claim is not as wanted; `None` when it is, or on its way.
fn why(world: &World, name: &str, claim: &ClaimSeen) -> Option<(&'static str, String)> {
    let class = claim.class.as_deref().unwrap_or("the default");
    let size = &world.cluster.spec.storage.size;
    let smaller = claim.requested.value() < size.value();
    if let (Some(trouble), false) = (&claim.trouble, claim.bound) {
        let text = format!("{name}, of class {class}: {trouble}");
        return Some((reason::VOLUME_NOT_PROVISIONED, text));
    }
    if let Some(refusal) = refusal(world, name).filter(|_| smaller) {
        let back = largest(world).map_or("", Amount::as_str);
        let text = format!(
            "{name}, of class {class}, stays at {}: {}; spec.storage.size may go back to {back}",
            claim.requested.as_str(),
            refusal.words
        );
        return Some((reason::VOLUME_CANNOT_GROW, text));
    }
    if let Some(trouble) = &claim.trouble {
        return Some((
            reason::VOLUME_CANNOT_GROW,
            format!("{name}, of class {class}: {trouble}"),
        ));
    }
    let other = wanted(&world.cluster)
        .class
        .filter(|wanted| wanted != class)?;
    let text = format!(
        "{name} is of class {class} and not of {other}: it is kept, with what it holds; for another, delete it and its pod"
    );
    Some((reason::VOLUME_OF_ANOTHER_CLASS, text))
}
