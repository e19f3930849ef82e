//! Pods as the API server has them, and what keeps them from running.
//!
//! A pod is known by its name and by the StatefulSet that controls it. Labels are what it is found by quickly, and anybody
//! may write over them: a pod that its set should have and that is not among those with our labels is asked for by name.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Resource};

use super::events::{self, Heard, Said};
use super::objects::is_labelled;
use super::{ObserveError, Sources, is_cordoned, place};
use crate::api::shortened;
use crate::names::{self, reason};
use crate::world::{Cluster, Labels, PodSeen, Set, SetSeen, Trouble};

/// Labels that this process wrote, by the pods' uids, and when.
pub type Labelled = BTreeMap<String, (Instant, Labels)>;

/// What passes by itself within so many seconds is no trouble yet: each pod is unscheduled for a moment.
const PASSING_SECS: i64 = 5;
/// A pod of so many seconds that has not begun to run is looked into.
const SLOW_SECS: i64 = 10;
/// Longest message of a container that is passed on, in bytes.
const WORDS: usize = 600;

/// Pods of a cluster by their place, and why others are not there.
#[derive(Default)]
pub(super) struct Pods {
    pub(super) seen: BTreeMap<(Set, u32), PodSeen>,
    pub(super) absent: BTreeMap<(Set, u32), Trouble>,
}

/// Every pod of the cluster's two sets.
pub(super) async fn pods(
    from: &Sources<'_>,
    cluster: &Cluster,
    sets: &[Option<SetSeen>; 2],
    labelled: &Labelled,
    heard: &mut Heard,
) -> Result<Pods, ObserveError> {
    let here = |pod: &Pod| pod.metadata.namespace.as_ref() == Some(&cluster.namespace);
    let mut found = BTreeMap::new();
    for pod in from.caches.pods.state_filter(here) {
        if let Some(place) = place(cluster, &pod.metadata) {
            found.insert(place, (*pod).clone());
        }
    }
    let mut pods = Pods::default();
    for seen in sets.iter().flatten().filter(|set| !set.deleting) {
        let set = seen.set;
        for ordinal in 0..seen.replicas {
            if found.contains_key(&(set, ordinal)) {
                continue;
            }
            let name = cluster.pod(set, ordinal);
            if let Some(pod) = by_name(from, cluster, seen, &name).await? {
                found.insert((set, ordinal), pod);
                continue;
            }
            let kind = "StatefulSet";
            let said = events::about(from, heard, &cluster.namespace, kind, &seen.name, &seen.uid);
            if let Some(why) = events::about_pod(&said.await, &name) {
                pods.absent.insert((set, ordinal), why);
            }
        }
    }
    let now = Timestamp::now();
    for (place, pod) in found {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
        let cordoned = match node {
            Some(node) => is_cordoned(from, node).await,
            None => false,
        };
        let set = sets[place.0.index()].as_ref().map(|s| s.uid.as_str());
        let mut seen = pod_seen(&pod, cluster, place.0, set, cordoned);
        // The watch may not have heard yet of what this process has just written.
        if let Some((_, labels)) = labelled.get(&seen.uid) {
            seen.role = labels.role.clone();
            seen.read_eligible = labels.read_eligible;
        }
        if wants_words(&pod, &seen, now) {
            let (kind, name) = (Pod::kind(&()), cluster.pod(place.0, place.1));
            let said = events::about(from, heard, &cluster.namespace, &kind, &name, &seen.uid);
            seen.trouble = with_events(seen.trouble, &said.await);
        }
        pods.seen.insert(place, seen);
    }
    Ok(pods)
}

/// A pod that is not found by its labels: that of its set, or one that lost the set with its labels and has our claim.
async fn by_name(
    from: &Sources<'_>,
    cluster: &Cluster,
    set: &SetSeen,
    name: &str,
) -> Result<Option<Pod>, ObserveError> {
    let api: Api<Pod> = Api::namespaced(from.client.clone(), &cluster.namespace);
    let found = api.get_opt(name).await.map_err(|source| ObserveError {
        what: format!("Pod {name}"),
        source,
    })?;
    Ok(found.filter(|pod| is_of(pod, &set.uid, name)))
}

/// Whether a pod belongs to the set with that uid, or to none and holds the claim of that name's pod.
pub(super) fn is_of(pod: &Pod, set: &str, name: &str) -> bool {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    match owners.find(|o| o.controller == Some(true)) {
        Some(owner) => owner.uid == set,
        None => {
            let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
            let mut claims = volumes.filter_map(|v| v.persistent_volume_claim.as_ref());
            claims.any(|c| c.claim_name == names::claim(name))
        }
    }
}

/// What matters of a pod of one of the cluster's sets, which has that uid.
pub(super) fn pod_seen(
    pod: &Pod,
    cluster: &Cluster,
    set: Set,
    uid: Option<&str>,
    cordoned: bool,
) -> PodSeen {
    let metadata = &pod.metadata;
    let label = |key: &str| metadata.labels.as_ref().and_then(|l| l.get(key)).cloned();
    let labels = Labels::of(metadata);
    let status = pod.status.as_ref();
    let mut owners = metadata.owner_references.iter().flatten();
    let in_set = label(names::SET).as_deref() == Some(set.as_str());
    PodSeen {
        uid: metadata.uid.clone().unwrap_or_default(),
        ip: status
            .and_then(|s| s.pod_ip.clone())
            .filter(|ip| !ip.is_empty()),
        role: labels.role,
        read_eligible: labels.read_eligible,
        ready: status.is_some_and(|s| condition(s, "Ready") == Some("True")),
        deleting: metadata.deletion_timestamp.is_some(),
        stranger: !owners.any(|o| o.controller == Some(true) && Some(o.uid.as_str()) == uid),
        revision: label(names::REVISION),
        trouble: status.and_then(|status| trouble(status, Timestamp::now())),
        mislabelled: !in_set || !is_labelled(metadata, &cluster.name),
        cordoned,
        oom_killed: status.and_then(oom_killed),
    }
}

/// When its container was killed for want of memory, if that is how it last ended.
fn oom_killed(status: &PodStatus) -> Option<Timestamp> {
    let states = status.container_statuses.iter().flatten().flat_map(|c| {
        // As long as it has not begun again, its end is its state.
        let states = [c.state.as_ref(), c.last_state.as_ref()];
        states.into_iter().flatten()
    });
    let mut ends = states.filter_map(|state| state.terminated.as_ref());
    let end = ends
        .next()
        .filter(|end| end.reason.as_deref() == Some(reason::OOM_KILLED))?;
    Some(
        end.finished_at
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |at| at.0),
    )
}

fn condition<'s>(status: &'s PodStatus, of: &str) -> Option<&'s str> {
    let mut conditions = status.conditions.iter().flatten();
    conditions
        .find(|c| c.type_ == of)
        .map(|c| c.status.as_str())
}

/// What keeps a pod from running: why one of its containers waits, or why it is not scheduled.
fn trouble(status: &PodStatus, now: Timestamp) -> Option<Trouble> {
    let first = status.init_container_statuses.iter().flatten();
    let then = status.container_statuses.iter().flatten();
    if let Some(trouble) = first.chain(then).find_map(waiting) {
        return Some(trouble);
    }
    let mut conditions = status.conditions.iter().flatten();
    let unscheduled = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    if !is_older(unscheduled.last_transition_time.as_ref(), PASSING_SECS, now) {
        return None;
    }
    Some(Trouble {
        reason: unscheduled
            .reason
            .clone()
            .unwrap_or_else(|| "Unschedulable".to_owned()),
        message: shortened(unscheduled.message.as_deref().unwrap_or_default(), WORDS),
    })
}

/// Why a container waits, in words that stay the same as long as the reason does.
fn waiting(container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.clone()?;
    let said = waiting.message.as_deref().unwrap_or_default();
    let message = match reason.as_str() {
        // These pass by themselves within seconds of every start.
        "ContainerCreating" | "PodInitializing" => return None,
        "CrashLoopBackOff" => ended(container).unwrap_or_else(|| said.to_owned()),
        // It takes turns with the error itself, which it quotes.
        "ImagePullBackOff" => match said.split_once("ErrImagePull: ") {
            Some((_, error)) => error.to_owned(),
            None => said.to_owned(),
        },
        _ => said.to_owned(),
    };
    Some(Trouble {
        reason,
        message: shortened(&message, WORDS),
    })
}

/// How a container ended last.
fn ended(container: &ContainerStatus) -> Option<String> {
    let ended = container.last_state.as_ref()?.terminated.as_ref()?;
    let reason = ended.reason.as_deref().unwrap_or("Error");
    let said = ended.message.as_deref().unwrap_or_default();
    let text = format!(
        "container {} ended: {reason}, exit code {}",
        container.name, ended.exit_code
    );
    Some(if said.is_empty() {
        text
    } else {
        format!("{text}: {said}")
    })
}

/// Whether the pod's own status does not say enough: it should run by now and nothing says why it does not, or its image
/// does not come, for which a Secret may be missing.
fn wants_words(pod: &Pod, seen: &PodSeen, now: Timestamp) -> bool {
    if seen.ready || seen.deleting {
        return false;
    }
    if let Some(trouble) = &seen.trouble {
        return trouble.reason.contains("ImagePull");
    }
    let scheduled = pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
    let statuses = pod
        .status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten());
    let mut states = statuses.filter_map(|c| c.state.as_ref());
    let begun = states.any(|s| s.running.is_some() || s.terminated.is_some());
    scheduled && !begun && is_older(pod.metadata.creation_timestamp.as_ref(), SLOW_SECS, now)
}

/// A pod's trouble, with what its events add.
fn with_events(trouble: Option<Trouble>, said: &[Said]) -> Option<Trouble> {
    let Some(mut trouble) = trouble else {
        return events::last_word(said);
    };
    if let Some(secret) = events::with_reason(said, "FailedToRetrieveImagePullSecret") {
        trouble.message = format!("{}; {}", trouble.message, secret.message);
    }
    Some(trouble)
}

fn is_older(since: Option<&Time>, secs: i64, now: Timestamp) -> bool {
    since.is_none_or(|since| now.as_second().saturating_sub(since.0.as_second()) >= secs)
}

#[cfg(test)]
mod tests;
