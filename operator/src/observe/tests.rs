//! What is made of what was read.

use serde_json::{Value, json};

use super::secrets::secret_seen;
use super::*;
use crate::world::SecretSeen;
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

#[test]
fn keys_that_a_user_put_there_are_used_and_those_of_another_object_are_not() {
    let keys = ["admin-key", "read-key"];
    let secret = |data: Value| json!({ "metadata": { "name": "demo-auth" }, "data": data });
    let seen = |secret: Value| {
        let secret: Secret = serde_json::from_value(secret).unwrap();
        secret_seen(Some(&secret), &keys, OWNER)
    };
    let complete = secret(json!({ "admin-key": "YQ==", "read-key": "Yg==" }));
    assert_eq!(seen(complete.clone()), SecretSeen::Complete);
    assert_eq!(seen(owned(complete.clone(), OWNER)), SecretSeen::Complete);
    assert_eq!(seen(owned(complete, Uuid::from_u128(9))), SecretSeen::Taken);
    assert_eq!(
        seen(secret(json!({ "admin-key": "YQ==", "read-key": "" }))),
        SecretSeen::Incomplete
    );
    assert_eq!(secret_seen(None, &keys, OWNER), SecretSeen::Missing);
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
