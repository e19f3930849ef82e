//! What is there already, or is taken away by somebody: a cluster takes up again what it left, brings back what it needs,
//! and raises no false alarm.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use serde_json::json;
use vectorizer_e2e::cluster::{self, Cluster, START, condition, secret};
use vectorizer_e2e::failure::{OrFail, Result, ensure};
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::wait::{seconds, until};

#[tokio::test]
async fn a_cluster_deleted_with_cascade_orphan_is_taken_up_again_with_its_keys_and_its_epochs() {
    scenario("orphan", orphaned).await;
}

async fn orphaned(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "kept", 1).await?;
    let collection = json!({ "name": "texts", "dimension": 16, "metric": "cosine" });
    let master = cluster.master_node().await?;
    master.post("/collections", &collection).await?.ok()?;
    let (pod, epoch) = cluster.master().await?;
    let key = secret(&scope, "kept-auth", "admin-key").await?;
    let leave = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    let clusters = cluster::api(&scope);
    clusters.delete("kept", &leave).await.or_fail("kept")?;
    until("the resource to be gone", seconds(60), || async {
        let found = clusters.get_opt("kept").await.or_fail("kept")?;
        ensure(found.is_none(), || "it is there".to_owned())
    })
    .await?;
    let cluster = Cluster::create(&scope, "kept", json!({ "replicas": 1 })).await?;
    cluster.ready(1, START).await?;
    let (found, now) = cluster.master().await?;
    assert!(
        found == pod && now >= epoch,
        "{found} in {now} after {pod} in {epoch}"
    );
    assert_eq!(secret(&scope, "kept-auth", "admin-key").await?, key);
    let texts = cluster
        .master_node()
        .await?
        .get("/collections/texts")
        .await?;
    assert_eq!(texts.status, 200, "{:?}", texts.body);
    cluster.same_digests().await
}

#[tokio::test]
async fn a_secret_that_is_deleted_and_a_label_that_is_overwritten_come_back_without_an_alarm() {
    scenario("back", brought_back).await;
}

async fn brought_back(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "back", 1).await?;
    let before = secret(&scope, "back-internal", "control-token").await?;
    let secrets = scope.api::<Secret>();
    let (master, _) = cluster.master().await?;
    let pods = scope.api::<Pod>();
    let label = "app.kubernetes.io/managed-by";
    let other = Patch::Merge(json!({ "metadata": { "labels": { label: "somebody" } } }));
    secrets
        .delete("back-internal", &DeleteParams::default())
        .await
        .or_fail("back-internal")?;
    pods.patch(&master, &PatchParams::default(), &other)
        .await
        .or_fail(&master)?;
    until("both to be back", seconds(30), || async {
        let object = cluster.object().await?;
        for of in ["Available", "Ready"] {
            let (value, why) = condition(&object, of)?;
            assert_eq!(value, "True", "a false alarm: {of}: {why}");
        }
        let found = secrets
            .get_opt("back-internal")
            .await
            .or_fail("back-internal")?;
        ensure(found.is_some(), || "the Secret is not there".to_owned())?;
        let pod = pods.get(&master).await.or_fail(&master)?;
        let labels = pod.metadata.labels.unwrap_or_default();
        let manager = labels.get(label).cloned().unwrap_or_default();
        ensure(manager == "vectorizer-operator", || {
            format!("the label is {manager}")
        })
    })
    .await?;
    assert_eq!(
        secret(&scope, "back-internal", "control-token").await?,
        before
    );
    Ok(())
}
