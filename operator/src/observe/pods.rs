//! Pods as the API server has them.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::jiff::Timestamp;

use super::cache::belongs;
use super::{Sources, is_cordoned, place};
use crate::names::{self, reason};
use crate::world::{Cluster, Labels, PodSeen, Set, SetSeen};

/// Labels that this process wrote, by the pods' uids, and when.
pub type Labelled = BTreeMap<String, (Instant, Labels)>;

/// Every pod of the cluster's two sets.
pub(super) async fn pods(
    from: &Sources<'_>,
    cluster: &Cluster,
    sets: &[Option<SetSeen>; 2],
    labelled: &Labelled,
) -> BTreeMap<(Set, u32), PodSeen> {
    let ours = |pod: &Pod| belongs(&pod.metadata, &cluster.namespace, &cluster.name);
    let mut seen = BTreeMap::new();
    for pod in from.caches.pods.state_filter(ours) {
        let Some(place) = place(cluster, &pod.metadata) else {
            continue;
        };
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
        let cordoned = match node {
            Some(node) => is_cordoned(from, node).await,
            None => false,
        };
        let set = sets[place.0.index()].as_ref().map(|s| s.uid.as_str());
        let mut found = pod_seen(&pod, set, cordoned);
        // The watch may not have heard yet of what this process has just written.
        if let Some((_, labels)) = labelled.get(&found.uid) {
            found.role = labels.role.clone();
            found.read_eligible = labels.read_eligible;
        }
        seen.insert(place, found);
    }
    seen
}

/// What matters of a pod, whose StatefulSet has that uid.
pub(super) fn pod_seen(pod: &Pod, set: Option<&str>, cordoned: bool) -> PodSeen {
    let metadata = &pod.metadata;
    let label = |key: &str| metadata.labels.as_ref().and_then(|l| l.get(key)).cloned();
    let labels = Labels::of(metadata);
    let status = pod.status.as_ref();
    let mut owners = metadata.owner_references.iter().flatten();
    PodSeen {
        uid: metadata.uid.clone().unwrap_or_default(),
        ip: status
            .and_then(|s| s.pod_ip.clone())
            .filter(|ip| !ip.is_empty()),
        role: labels.role,
        read_eligible: labels.read_eligible,
        ready: status.is_some_and(|s| condition(s, "Ready") == Some("True")),
        deleting: metadata.deletion_timestamp.is_some(),
        stranger: !owners.any(|o| o.controller == Some(true) && Some(o.uid.as_str()) == set),
        revision: label(names::REVISION),
        trouble: status.and_then(trouble),
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

/// What keeps a pod from running: why its container waits, or why it is not scheduled.
fn trouble(status: &PodStatus) -> Option<String> {
    let waiting = status.container_statuses.iter().flatten().find_map(|c| {
        let waiting = c.state.as_ref()?.waiting.as_ref()?;
        waiting.reason.clone()
    });
    // These pass by themselves within seconds of every start.
    let passing = ["ContainerCreating", "PodInitializing"];
    if let Some(reason) = waiting.filter(|reason| !passing.contains(&reason.as_str())) {
        return Some(match oom_killed(status) {
            Some(_) => format!("{reason}, {}", reason::OOM_KILLED),
            None => reason,
        });
    }
    let mut conditions = status.conditions.iter().flatten();
    let unscheduled = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    let message = unscheduled.message.clone().or(unscheduled.reason.clone());
    Some(message.unwrap_or_else(|| "not scheduled".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_was_killed_for_want_of_memory_is_named_with_when_that_was() {
        let killed = "{ terminated: { exitCode: 137, reason: OOMKilled, finishedAt: '2026-11-30T20:00:00Z' } }";
        let at: Timestamp = "2026-11-30T20:00:00Z".parse().unwrap();
        let status = |state: &str, last: &str| {
            pod(&format!(
                "
metadata: {{ name: demo-replica-0, uid: u }}
status:
  containerStatuses:
  - {{ name: node, image: x, imageID: '', ready: false, restartCount: 1, state: {state}, lastState: {last} }}
"
            ))
        };
        let waiting = "{ waiting: { reason: CrashLoopBackOff } }";
        let seen = pod_seen(&status(waiting, killed), None, false);
        assert_eq!(seen.oom_killed, Some(at));
        assert_eq!(seen.trouble.as_deref(), Some("CrashLoopBackOff, OOMKilled"));
        let seen = pod_seen(&status("{ running: {} }", killed), None, false);
        assert_eq!((seen.oom_killed, seen.trouble), (Some(at), None));
        assert_eq!(
            pod_seen(&status(killed, "{}"), None, false).oom_killed,
            Some(at)
        );
        let other = "{ terminated: { exitCode: 1, reason: Error } }";
        let seen = pod_seen(&status(waiting, other), None, false);
        assert_eq!(seen.oom_killed, None);
        assert_eq!(seen.trouble.as_deref(), Some("CrashLoopBackOff"));
        // What came later counts.
        assert_eq!(
            pod_seen(&status(other, killed), None, false).oom_killed,
            None
        );
    }

    fn pod(yaml: &str) -> Pod {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_named() {
        let pod = pod("
metadata: { name: demo-replica-0, uid: u }
status:
  containerStatuses:
  - { name: node, image: x, imageID: '', ready: false, restartCount: 0, state: { waiting: { reason: ImagePullBackOff } } }
");
        assert_eq!(
            pod_seen(&pod, None, false).trouble.as_deref(),
            Some("ImagePullBackOff")
        );
    }

    #[test]
    fn a_pod_that_is_only_starting_is_not_in_trouble() {
        let pod = pod("
metadata: { name: demo-replica-0, uid: u, labels: { vectorizer.hivellm.io/read-eligible: 'true' } }
status:
  podIP: 10.0.0.7
  conditions: [{ type: Ready, status: 'False' }]
  containerStatuses:
  - { name: node, image: x, imageID: '', ready: false, restartCount: 0, state: { waiting: { reason: ContainerCreating } } }
");
        let seen = pod_seen(&pod, None, false);
        assert_eq!(seen.trouble, None);
        assert!(!seen.ready && seen.read_eligible);
        assert_eq!(seen.ip.as_deref(), Some("10.0.0.7"));
    }

    #[test]
    fn a_pod_of_a_set_that_was_deleted_is_a_stranger() {
        let pod = pod("
metadata:
  name: demo-replica-0
  uid: u
  ownerReferences: [{ apiVersion: apps/v1, kind: StatefulSet, name: demo-replica, uid: old, controller: true }]
");
        assert!(!pod_seen(&pod, Some("old"), false).stranger);
        assert!(pod_seen(&pod, Some("new"), false).stranger);
        assert!(pod_seen(&pod, None, false).stranger);
    }
}
