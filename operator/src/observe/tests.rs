//! What is made of what was read.

mod read;

use serde_json::{Value, json};

use super::claims::is_blank;
use super::secrets::secret_seen;
use super::*;
use crate::render;
use crate::world::SecretSeen;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

const OWNER: Uuid = Uuid::from_u128(0xc1);

fn owned(mut object: Value, by: Uuid) -> Value {
    object["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "x", "name": "demo", "uid": by.to_string(), "controller": true }]);
    object
}

fn lease(version: &str) -> Lease {
    let lease = json!({
        "metadata": { "name": "demo", "resourceVersion": version, "annotations": {
            "vectorizer.hivellm.io/cluster": OWNER.to_string(), "vectorizer.hivellm.io/epoch": "3",
            "vectorizer.hivellm.io/node-id": "", "vectorizer.hivellm.io/boot-id": "",
        } },
        "spec": {},
    });
    serde_json::from_value(owned(lease, OWNER)).unwrap()
}

fn unchanged(seen: &LeaseSeen) -> Duration {
    let LeaseSeen::Held { unchanged, .. } = seen else {
        panic!("{seen:?}");
    };
    *unchanged
}

#[test]
fn a_lease_is_unchanged_since_this_process_saw_its_version_first() {
    let start = Instant::now();
    let at = |secs| start + Duration::from_secs(secs);
    let mut seen = None;
    assert_eq!(
        unchanged(&lease_seen(&lease("7"), OWNER, &mut seen, at(0))),
        Duration::ZERO
    );
    assert_eq!(
        unchanged(&lease_seen(&lease("7"), OWNER, &mut seen, at(9))),
        Duration::from_secs(9)
    );
    assert_eq!(
        unchanged(&lease_seen(&lease("8"), OWNER, &mut seen, at(10))),
        Duration::ZERO,
        "renewed"
    );
    assert_eq!(
        unchanged(&lease_seen(&lease("8"), OWNER, &mut seen, at(26))),
        Duration::from_secs(16)
    );
    let mut restarted = None;
    assert_eq!(
        unchanged(&lease_seen(&lease("8"), OWNER, &mut restarted, at(27))),
        Duration::ZERO,
        "counted anew"
    );
}

#[test]
fn a_lease_of_somebody_else_or_without_sense_is_told_apart() {
    let other = Uuid::from_u128(9);
    assert_eq!(
        lease_seen(&lease("7"), other, &mut None, Instant::now()),
        LeaseSeen::Taken
    );
    let mut broken = lease("7");
    broken.metadata.annotations = None;
    assert!(matches!(
        lease_seen(&broken, OWNER, &mut None, Instant::now()),
        LeaseSeen::Malformed(_)
    ));
}

/// A Secret with those keys, controlled by an object of that kind.
fn secret(keys: &[&str], controller: Option<(&str, &str, Uuid)>) -> Secret {
    let data: serde_json::Map<_, _> = keys
        .iter()
        .map(|k| ((*k).to_owned(), json!("YQ==")))
        .collect();
    let owners = controller.into_iter().map(|(version, kind, uid)| {
        json!({ "apiVersion": version, "kind": kind, "name": "x", "uid": uid.to_string(), "controller": true })
    });
    let owners: Vec<_> = owners.collect();
    let metadata = json!({ "name": "demo-auth", "ownerReferences": owners });
    serde_json::from_value(json!({ "metadata": metadata, "data": data })).unwrap()
}

#[test]
fn only_a_secret_of_the_cluster_s_own_may_be_completed_and_only_another_cluster_s_is_taken() {
    let keys = ["admin-key", "read-key"];
    let other = Uuid::from_u128(9);
    let (ours, kind) = ("vectorizer.hivellm.io/v1alpha1", "VectorizerCluster");
    let lacks = vec!["read-key"];
    for (controller, when_it_lacks_one, when_complete) in [
        (
            Some((ours, kind, OWNER)),
            SecretSeen::Incomplete {
                made: true,
                lacks: lacks.clone(),
            },
            SecretSeen::Complete,
        ),
        (
            Some((ours, kind, other)),
            SecretSeen::Taken,
            SecretSeen::Taken,
        ),
        (
            None,
            SecretSeen::Incomplete {
                made: false,
                lacks: lacks.clone(),
            },
            SecretSeen::Complete,
        ),
        (
            Some(("external-secrets.io/v1", "ExternalSecret", other)),
            SecretSeen::Incomplete {
                made: false,
                lacks: lacks.clone(),
            },
            SecretSeen::Complete,
        ),
        (
            Some(("bitnami.com/v1alpha1", "SealedSecret", other)),
            SecretSeen::Incomplete { made: false, lacks },
            SecretSeen::Complete,
        ),
    ] {
        let seen = |has: &[&str]| secret_seen(Some(&secret(has, controller)), &keys, OWNER);
        assert_eq!(seen(&["admin-key"]), when_it_lacks_one, "{controller:?}");
        assert_eq!(seen(&keys), when_complete, "{controller:?}");
    }
    assert_eq!(secret_seen(None, &keys, OWNER), SecretSeen::Missing);
    let mut empty = secret(&keys, None);
    empty
        .data
        .get_or_insert_default()
        .insert("read-key".into(), ByteString(Vec::new()));
    let lacks = vec!["read-key"];
    assert_eq!(
        secret_seen(Some(&empty), &keys, OWNER),
        SecretSeen::Incomplete { made: false, lacks }
    );
}

#[test]
fn the_control_token_before_the_present_one_is_remembered() {
    let resource = json!({
        "apiVersion": "vectorizer.hivellm.io/v1alpha1", "kind": "VectorizerCluster",
        "metadata": { "name": "demo", "namespace": "default", "uid": OWNER.to_string(), "resourceVersion": "1" },
        "spec": {},
    });
    let cluster = Cluster::check(&serde_json::from_value(resource).unwrap()).unwrap();
    let internal = |token: &str| Secret {
        data: Some(BTreeMap::from([(
            "control-token".to_owned(),
            ByteString(token.into()),
        )])),
        ..Secret::default()
    };
    let mut known = Credentials::default();
    for token in ["one", "two", "two"] {
        known.learn(&cluster, [None, Some(&internal(token))]);
    }
    assert_eq!(known.control.as_deref(), Some("two"));
    assert_eq!(known.former.as_deref(), Some("one"));
    assert!(!format!("{known:?}").contains("two"), "{known:?}");
}

#[test]
fn a_claim_is_blank_when_its_volume_was_made_for_it_after_the_resource() {
    let since: Timestamp = "2026-05-01T10:00:00Z".parse().unwrap();
    let claim = |made: &str, spec: Value, annotations: Value| {
        let metadata = json!({ "name": "data-demo-replica-0", "creationTimestamp": made, "annotations": annotations });
        let claim = json!({ "metadata": metadata, "spec": spec });
        is_blank(&serde_json::from_value(claim).unwrap(), Some(since))
    };
    let (before, after) = ("2026-05-01T09:59:59Z", "2026-05-01T10:00:00Z");
    let made = json!({ "volume.kubernetes.io/storage-provisioner": "csi.example.com" });
    let bound = json!({ "volumeName": "pvc-1" });
    assert!(claim(after, json!({}), json!({})), "not bound to anything");
    assert!(claim(after, bound.clone(), made.clone()));
    assert!(!claim(before, bound.clone(), made.clone()), "kept");
    assert!(!claim(before, json!({}), json!({})));
    assert!(
        !claim(after, bound, json!({})),
        "made by hand, with whatever is on it"
    );
    let snapshot =
        json!({ "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s" });
    for source in ["dataSource", "dataSourceRef"] {
        let mut spec = json!({ "volumeName": "pvc-1" });
        spec[source] = snapshot.clone();
        assert!(!claim(after, spec, made.clone()), "{source}");
    }
}

#[test]
fn a_status_that_is_reported_into_an_object_does_not_change_its_stamp() {
    let metadata = |version: &str, generation: Option<i64>| ObjectMeta {
        resource_version: Some(version.to_owned()),
        generation,
        ..ObjectMeta::default()
    };
    assert_eq!(
        stamp(&metadata("5", Some(2))),
        stamp(&metadata("6", Some(2)))
    );
    assert_ne!(
        stamp(&metadata("5", Some(2))),
        stamp(&metadata("6", Some(3)))
    );
    assert_ne!(stamp(&metadata("5", None)), stamp(&metadata("6", None)));
}

/// What the operator makes of a node that answers `code` and `body` to everything. Nodes are told apart by `last`.
async fn asked(last: u8, code: axum::http::StatusCode, body: String) -> Probe {
    // Every node listens on the same port.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = format!("127.{}.{low}.{last}", high.max(1));
    let listener = tokio::net::TcpListener::bind((ip.as_str(), names::OPS_PORT))
        .await
        .unwrap();
    let answer = move || std::future::ready((code, body.clone()));
    let server = axum::serve(listener, axum::Router::new().fallback(answer));
    let task = tokio::spawn(async move { server.await });
    let nodes = vectorizer_api::client::Client::new("http://node", Timeouts::default()).unwrap();
    let nodes = nodes.taking_at_most(MOST_BYTES);
    let mut credentials = Credentials::default();
    credentials.control = Some("token".to_owned());
    let (probe, _) = ask(&nodes, &ip, &credentials).await;
    task.abort();
    probe
}

#[tokio::test]
async fn a_node_that_refuses_the_token_answers_and_one_that_says_too_much_does_not() {
    let code = axum::http::StatusCode::UNAUTHORIZED;
    let body =
        json!({ "error_type": "unauthenticated", "message": "not known here", "status_code": 401 });
    let refused = asked(1, code, body.to_string()).await;
    assert_eq!(refused, Probe::Refused("not known here".to_owned()));
    let ok = axum::http::StatusCode::OK;
    let Probe::Unreachable(why) = asked(2, ok, " ".repeat(MOST_BYTES + 1)).await else {
        panic!("it was read to its end")
    };
    assert!(why.contains("larger than"), "{why}");
}

#[test]
fn what_a_deletion_left_is_taken_up_again_and_what_somebody_controls_is_not() {
    use objects::{Sorted, Whose, whose};
    let expected = render::references("demo", 2);
    let ours = json!({ "vectorizer.hivellm.io/cluster": "demo", "app.kubernetes.io/managed-by": "vectorizer-operator" });
    let other = Uuid::from_u128(9);
    let service = |labels: &Value, owner: Option<Uuid>| {
        let object =
            json!({ "metadata": { "name": "demo-rw", "labels": labels, "resourceVersion": "7" } });
        let object = owner.map_or(object.clone(), |owner| owned(object, owner));
        serde_json::from_value::<ObjectMeta>(object["metadata"].clone()).unwrap()
    };
    for (labels, owner, expected_whose) in [
        (&ours, Some(OWNER), Whose::Ours),
        (&json!({}), Some(OWNER), Whose::Ours),
        (&ours, None, Whose::Left),
        (&ours, Some(other), Whose::Others),
        (&json!({}), None, Whose::Others),
    ] {
        let metadata = service(labels, owner);
        assert_eq!(
            whose(&metadata, "demo", OWNER),
            expected_whose,
            "{labels} {owner:?}"
        );
        let mut sorted = Sorted {
            name: "demo",
            owner: OWNER,
            expected: &expected,
            ours: BTreeMap::new(),
            taken: BTreeSet::new(),
        };
        sorted.sort_in(crate::world::Kind::Service, &metadata);
        let as_it_should_be = sorted.ours.values().any(|s| *s == stamp(&metadata));
        let complete = *labels == ours && owner == Some(OWNER);
        assert_eq!(as_it_should_be, complete, "otherwise it is applied again");
        assert_eq!(sorted.taken.is_empty(), expected_whose != Whose::Others);
    }
}

#[test]
fn a_lease_without_an_owner_counts_as_left_by_its_labels_alone() {
    let mut left = lease("7");
    left.metadata.owner_references = None;
    let seen = |lease: &Lease| lease_seen(lease, OWNER, &mut None, Instant::now());
    assert_eq!(seen(&left), LeaseSeen::Taken);
    left.metadata.labels = Some(names::labels("demo"));
    assert!(matches!(seen(&left), LeaseSeen::Held { owned: false, .. }));
    let mut ours = lease("7");
    ours.metadata.labels = Some(names::labels("demo"));
    assert!(matches!(seen(&ours), LeaseSeen::Held { owned: true, .. }));
}

#[test]
fn what_is_refused_again_and_again_is_asked_for_less_and_less() {
    let start = Instant::now();
    let mut remembered = Remembered::default();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        remembered.refused("Service demo".into(), "hash".into(), "no".into(), start);
        let refused = remembered.refusals.values().next().unwrap();
        pauses.push(refused.until.duration_since(start).as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    remembered.refused("Service demo".into(), "another".into(), "no".into(), start);
    let refused = remembered.refusals.values().next().unwrap();
    assert_eq!(
        refused.until.duration_since(start).as_secs(),
        1,
        "it is another one"
    );
}
