//! What is made of pods.

use serde_json::json;

use super::*;

fn pod(yaml: &str) -> Pod {
    serde_yaml::from_str(yaml).unwrap()
}

fn cluster() -> Cluster {
    let resource = json!({
        "apiVersion": "vectorizer.hivellm.io/v1alpha1", "kind": "VectorizerCluster",
        "metadata": { "name": "demo", "namespace": "default", "uid": uuid::Uuid::nil().to_string(), "resourceVersion": "1" },
        "spec": {},
    });
    Cluster::check(&serde_json::from_value(resource).unwrap()).unwrap()
}

fn seen(pod: &Pod, uid: Option<&str>) -> PodSeen {
    pod_seen(pod, &cluster(), Set::Replica, uid, false)
}

fn waits(reason: &str, message: &str, last: &str) -> Option<String> {
    let pod = pod(&format!(
        "
metadata: {{ name: demo-replica-0, uid: u }}
status:
  containerStatuses:
  - {{ name: node, image: x, imageID: '', ready: false, restartCount: 0, state: {{ waiting: {{ reason: {reason}, message: '{message}' }} }}, lastState: {{ {last} }} }}
"
    ));
    seen(&pod, None).trouble.map(|trouble| trouble.to_string())
}

#[test]
fn an_image_that_cannot_be_pulled_is_named_in_the_same_words_each_time() {
    let why = "failed to pull image typo: not found";
    let pulling = waits("ErrImagePull", why, "");
    let waiting = waits(
        "ImagePullBackOff",
        &format!("Back-off pulling image typo: ErrImagePull: {why}"),
        "",
    );
    assert_eq!(pulling.unwrap(), format!("ErrImagePull: {why}"));
    assert_eq!(waiting.unwrap(), format!("ImagePullBackOff: {why}"));
}

#[test]
fn a_container_that_ends_again_and_again_says_how() {
    let last = "terminated: { exitCode: 137, reason: OOMKilled }";
    let back_off = "back-off 20s restarting failed container=node pod=demo-replica-0_default(uid)";
    let said = waits("CrashLoopBackOff", back_off, last).unwrap();
    assert_eq!(
        said,
        "CrashLoopBackOff: container node ended: OOMKilled, exit code 137"
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
    let seen = seen(&pod, None);
    assert_eq!(seen.trouble, None);
    assert!(!seen.ready && seen.read_eligible);
    assert_eq!(seen.ip.as_deref(), Some("10.0.0.7"));
}

#[test]
fn a_pod_that_was_not_scheduled_for_a_while_says_why() {
    let pod = pod("
metadata: { name: demo-replica-0, uid: u }
status:
  conditions: [{ type: PodScheduled, status: 'False', reason: Unschedulable, message: 0/3 nodes are available, lastTransitionTime: '2026-01-01T00:00:00Z' }]
");
    let status = pod.status.unwrap();
    let after = |secs: i64| {
        let since = Timestamp::from_second(1_767_225_600 + secs).unwrap();
        trouble(&status, since).map(|t| t.to_string())
    };
    assert_eq!(after(1), None);
    assert_eq!(
        after(30).as_deref(),
        Some("Unschedulable: 0/3 nodes are available")
    );
}

#[test]
fn a_pod_that_does_not_begin_is_looked_into_and_one_that_runs_is_not() {
    let with = |state: &str, spec: &str| {
        let pod = pod(&format!(
            "
metadata: {{ name: demo-replica-0, uid: u, creationTimestamp: '2026-01-01T00:00:00Z' }}
spec: {{ containers: [], {spec} }}
status: {{ containerStatuses: [{{ name: node, image: x, imageID: '', ready: false, restartCount: 0, state: {{ {state} }} }}] }}
"
        ));
        let now = Timestamp::from_second(1_767_225_600 + 60).unwrap();
        wants_words(&pod, &seen(&pod, None), now)
    };
    let creating = "waiting: { reason: ContainerCreating }";
    assert!(with(creating, "nodeName: a"));
    assert!(!with(creating, ""), "the scheduler says why");
    assert!(!with("running: {}", "nodeName: a"), "it is not ready yet");
    assert!(
        with("waiting: { reason: ImagePullBackOff }", "nodeName: a"),
        "its Secret may be missing"
    );
    assert!(!with(
        "waiting: { reason: CreateContainerConfigError }",
        "nodeName: a"
    ));
}

#[test]
fn a_pod_of_a_set_that_was_deleted_is_a_stranger() {
    let pod = pod("
metadata:
  name: demo-replica-0
  uid: u
  ownerReferences: [{ apiVersion: apps/v1, kind: StatefulSet, name: demo-replica, uid: old, controller: true }]
");
    assert!(!seen(&pod, Some("old")).stranger);
    assert!(seen(&pod, Some("new")).stranger);
    assert!(seen(&pod, None).stranger);
}

#[test]
fn a_pod_is_known_by_its_owner_whatever_its_labels_say() {
    let with = |owners: &str, claim: &str, labels: &str| {
        pod(&format!(
            "
metadata: {{ name: demo-replica-0, uid: u, labels: {{ {labels} }}, ownerReferences: [{owners}] }}
spec: {{ containers: [], volumes: [{{ name: data, persistentVolumeClaim: {{ claimName: {claim} }} }}] }}
"
        ))
    };
    let owner = |uid: &str| {
        format!(
            "{{ apiVersion: apps/v1, kind: StatefulSet, name: s, uid: {uid}, controller: true }}"
        )
    };
    let (ours, claim) = (owner("set"), "data-demo-replica-0");
    let right = "app.kubernetes.io/managed-by: vectorizer-operator, vectorizer.hivellm.io/cluster: demo, vectorizer.hivellm.io/set: replica";
    let wrong = right.replace("vectorizer-operator", "Helm");
    assert!(!seen(&with(&ours, claim, right), Some("set")).mislabelled);
    assert!(seen(&with(&ours, claim, &wrong), Some("set")).mislabelled);
    let is_ours = |pod: &Pod| is_of(pod, "set", "demo-replica-0");
    assert!(is_ours(&with(&ours, claim, &wrong)));
    assert!(!is_ours(&with(&owner("another"), claim, right)));
    assert!(
        is_ours(&with("", claim, "")),
        "its set lost it with its labels"
    );
    assert!(!is_ours(&with("", "something-else", right)));
}

#[test]
fn a_container_that_was_killed_for_want_of_memory_is_named_with_when_that_was() {
    let killed =
        "{ terminated: { exitCode: 137, reason: OOMKilled, finishedAt: '2026-11-30T20:00:00Z' } }";
    let at: Timestamp = "2026-11-30T20:00:00Z".parse().unwrap();
    let status = |state: &str, last: &str| {
        let pod = pod(&format!(
            "
metadata: {{ name: demo-replica-0, uid: u }}
status:
  containerStatuses:
  - {{ name: node, image: x, imageID: '', ready: false, restartCount: 1, state: {state}, lastState: {last} }}
"
        ));
        let seen = seen(&pod, None);
        (
            seen.oom_killed,
            seen.trouble.map(|trouble| trouble.to_string()),
        )
    };
    let waiting = "{ waiting: { reason: CrashLoopBackOff } }";
    let (when, why) = status(waiting, killed);
    assert_eq!(when, Some(at));
    assert!(
        why.as_ref().is_some_and(|why| why.contains("OOMKilled")),
        "{why:?}"
    );
    assert_eq!(status("{ running: {} }", killed), (Some(at), None));
    assert_eq!(status(killed, "{}").0, Some(at));
    let other = "{ terminated: { exitCode: 1, reason: Error } }";
    let (when, why) = status(waiting, other);
    assert_eq!(when, None);
    assert!(why.is_some_and(|why| !why.contains("OOMKilled")));
    // What came later counts.
    assert_eq!(status(other, killed).0, None);
}
