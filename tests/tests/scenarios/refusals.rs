//! Wrong manifests: each is refused when it is applied, with words that say what and where, and nothing is created.

use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use vectorizer_e2e::cluster::{self, manifest};
use vectorizer_e2e::failure::{OrFail, Result};
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::shell;
use vectorizer_operator::crd::RULES;

/// Manifests that are refused when they are created: name, spec, what the refusal says.
fn creations() -> Vec<(&'static str, Value, &'static str)> {
    let promote = |target: &str| json!({ "promote": { "requestID": "a", "target": target } });
    let env = |name: &str| json!({ "env": [{ "name": name, "value": "x" }] });
    vec![
        (
            "a-name-that-is-much-longer-than-forty-one",
            json!({}),
            "metadata.name: at most 40 characters",
        ),
        (
            "4you",
            json!({}),
            "metadata.name: small letters, digits and '-' only",
        ),
        (
            "dots.in.it",
            json!({}),
            "metadata.name: small letters, digits and '-' only",
        ),
        (
            "wrong",
            promote("other-replica-0"),
            "spec.promote.target: must be a pod of this cluster",
        ),
        (
            "wrong",
            promote("wrong-replica-x"),
            "spec.promote.target: must be a pod of this cluster",
        ),
        (
            "wrong",
            promote("wrong-master-1"),
            "spec.promote.target: must be a pod of this cluster",
        ),
        (
            "wrong",
            json!({ "promote": { "requestID": "not so" } }),
            "requestID: letters, digits, '-', '_' and '.' only",
        ),
        (
            "wrong",
            json!({ "promote": { "mode": "Failover" } }),
            "spec.promote.requestID",
        ),
        (
            "wrong",
            json!({ "promote": { "requestID": "a", "mode": "Coup" } }),
            "spec.promote.mode: Unsupported value",
        ),
        (
            "wrong",
            json!({ "storage": { "size": "0" } }),
            "storage.size: must be a size of at least 64Mi",
        ),
        (
            "wrong",
            json!({ "storage": { "size": 0 } }),
            "storage.size: must be a size of at least 64Mi",
        ),
        (
            "wrong",
            json!({ "storage": { "size": "ten" } }),
            "storage.size: must be a size of at least 64Mi",
        ),
        (
            "wrong",
            json!({ "storage": { "size": 10 } }),
            "storage.size: must be a size of at least 64Mi",
        ),
        (
            "wrong",
            json!({ "storage": { "size": "63Mi" } }),
            "storage.size: must be a size of at least 64Mi",
        ),
        (
            "wrong",
            json!({ "tolerations": [{ "key": "dedicated", "operator": "Equals", "value": "a" }] }),
            "tolerations: operator must be Exists or Equal",
        ),
        (
            "wrong",
            json!({ "tolerations": [{ "key": "dedicated", "effect": "NoRun" }] }),
            "tolerations: operator must be Exists or Equal",
        ),
        (
            "wrong",
            json!({ "tolerations": [{ "key": "dedicated", "operator": "Exists", "value": "a" }] }),
            "tolerations: with operator Exists there is no value",
        ),
        (
            "wrong",
            json!({ "replication": { "heartbeatIntervalSeconds": 30, "replicaTimeoutSeconds": 30 } }),
            "replication.replicaTimeoutSeconds: must be above heartbeatIntervalSeconds",
        ),
        (
            "wrong",
            json!({ "replication": { "heartbeatIntervalSeconds": 0 } }),
            "spec.replication.heartbeatIntervalSeconds",
        ),
        (
            "wrong",
            json!({ "replication": { "logSize": "many" } }),
            "spec.replication.logSize",
        ),
        ("wrong", json!({ "replicas": -1 }), "spec.replicas"),
        ("wrong", json!({ "replicas": 100 }), "spec.replicas"),
        (
            "wrong",
            json!({ "reads": { "maxLagSeconds": 0 } }),
            "spec.reads.maxLagSeconds",
        ),
        (
            "wrong",
            env("REPLICATION_ROLE"),
            "env: REPLICATION_*, POD_NAME",
        ),
        (
            "wrong",
            env("VECTORIZER_DATA_DIR"),
            "env: REPLICATION_*, POD_NAME",
        ),
        (
            "wrong",
            json!({ "replicas": 1, "writeConcern": { "acks": 2 } }),
            "writeConcern.acks: at most as many as there are replicas",
        ),
        (
            "wrong",
            json!({ "writeConcern": { "acks": 1, "level": "Received" } }),
            "spec.writeConcern.level: Unsupported value",
        ),
        (
            "wrong",
            json!({ "podLabels": { "vectorizer.hivellm.io/role": "master" } }),
            "podLabels: vectorizer.hivellm.io/*",
        ),
        (
            "wrong",
            json!({ "podAnnotations": { "vectorizer.hivellm.io/x": "y" } }),
            "podAnnotations: vectorizer.hivellm.io/*",
        ),
    ]
}

/// Changes of an existing cluster that are refused: patch of the spec, what the refusal says.
fn changes() -> Vec<(Value, &'static str)> {
    vec![
        (
            json!({ "storage": { "size": "1Gi" } }),
            "spec.storage.size: may only grow",
        ),
        (
            json!({ "storage": { "size": 1 << 30 } }),
            "spec.storage.size: may only grow",
        ),
        (
            json!({ "storage": { "storageClassName": "other" } }),
            "spec.storage.storageClassName: cannot be changed once there was a master",
        ),
        (
            json!({ "promote": { "mode": "Failover" } }),
            "promote: a request is carried out once and cannot be changed",
        ),
        (
            json!({ "promote": { "target": "kept-replica-1" } }),
            "promote: a request is carried out once and cannot be changed",
        ),
        (
            json!({ "promote": { "deadlineSeconds": 31 } }),
            "promote: a request is carried out once and cannot be changed",
        ),
        (
            json!({ "promote": { "maxLagOperations": 5 } }),
            "promote: a request is carried out once and cannot be changed",
        ),
    ]
}

#[test]
fn every_rule_of_the_definition_is_in_the_tables() {
    let said: Vec<&str> = creations()
        .into_iter()
        .map(|(_, _, says)| says)
        .chain(changes().into_iter().map(|(_, says)| says))
        .collect();
    for rule in RULES {
        let tried = said.iter().any(|says| rule.message.starts_with(says));
        assert!(tried, "no manifest tries this rule: {}", rule.message);
    }
}

#[tokio::test]
async fn wrong_manifests_are_refused_with_what_would_be_right() {
    scenario("wrong", wrong_manifests).await;
}

async fn wrong_manifests(scope: Scope) -> Result<()> {
    let clusters = cluster::api(&scope);
    for (name, spec, says) in creations() {
        let object = serde_json::from_value(manifest(name, &spec)).or_fail("manifest")?;
        let refused = clusters.create(&PostParams::default(), &object).await;
        let why = refused
            .err()
            .or_fail(&format!("a refusal of {name} {spec}"))?;
        assert!(why.to_string().contains(says), "{name} {spec}:\n{why}");
    }
    let left = clusters
        .list(&Default::default())
        .await
        .or_fail("clusters")?;
    assert!(left.items.is_empty(), "{:?}", left.items);

    // A paused cluster starts nothing: its rules are what counts here.
    let spec = json!({
        "paused": true,
        "storage": { "size": "2Gi" },
        "promote": { "requestID": "once", "target": "kept-replica-0" },
    });
    let object = serde_json::from_value(manifest("kept", &spec)).or_fail("manifest")?;
    let made = clusters.create(&PostParams::default(), &object).await;
    made.or_fail("creating the cluster to change")?;
    free_before_the_first_master(&scope).await?;
    let made = clusters.get("kept").await.or_fail("kept")?;
    for (change, says) in changes() {
        let patch = Patch::Merge(json!({ "spec": change }));
        let refused = clusters
            .patch("kept", &PatchParams::default(), &patch)
            .await;
        let why = refused.err().or_fail(&format!("a refusal of {change}"))?;
        assert!(why.to_string().contains(says), "{change}:\n{why}");
    }
    let now = clusters.get("kept").await.or_fail("kept")?;
    assert_eq!(now.data["spec"], made.data["spec"]);
    Ok(())
}

/// Size and class of the volumes may be corrected as long as nothing was written to them. Ends with a status that names
/// a master.
async fn free_before_the_first_master(scope: &Scope) -> Result<()> {
    let clusters = cluster::api(scope);
    let parameters = PatchParams::default();
    for storage in [
        json!({ "size": "1Gi", "storageClassName": "other" }),
        json!({ "size": "2Gi", "storageClassName": null }),
    ] {
        let patch = Patch::Merge(json!({ "spec": { "storage": storage } }));
        let changed = clusters.patch("kept", &parameters, &patch).await;
        changed.or_fail("correcting what nothing was written to")?;
    }
    let id = "8c5a0d2e-0000-4000-8000-000000000001";
    let master = json!({
        "pod": "kept-master-0", "nodeID": id, "bootID": id, "epoch": 1, "since": "2026-01-01T00:00:00Z",
        "endpoint": "http://kept-rw",
    });
    let patch = Patch::Merge(json!({ "status": { "master": master } }));
    let named = clusters.patch_status("kept", &parameters, &patch).await;
    named.or_fail("naming a master")?;
    Ok(())
}

#[tokio::test]
async fn a_field_that_does_not_exist_is_refused_by_name() {
    scenario("unknown", unknown_field).await;
}

async fn unknown_field(scope: Scope) -> Result<()> {
    let object = manifest("typo", &json!({ "replicsa": 3 })).to_string();
    let apply = ["apply", "-n", &scope.namespace, "-f", "-"];
    let refused = shell::run("kubectl", &apply, &object).await?;
    assert!(!refused.success, "{}", refused.stdout);
    assert!(
        refused.stderr.contains("spec.replicsa"),
        "{}",
        refused.stderr
    );
    Ok(())
}
