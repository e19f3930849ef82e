//! A cluster that is deleted and made again over its volumes: data and keys are those that its clients know.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use vectorizer_e2e::cluster::{Cluster, secret};
use vectorizer_e2e::failure::{OrFail, Result, ensure};
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::shell;
use vectorizer_e2e::wait::{seconds, until};

#[tokio::test]
async fn a_cluster_that_is_made_again_over_its_volumes_has_its_data_and_its_keys() {
    scenario("kept", made_again).await;
}

async fn made_again(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "again", 1).await?;
    let master = cluster.master_node().await?;
    let collection = json!({ "name": "texts", "dimension": 64, "metric": "cosine" });
    master.post("/collections", &collection).await?.ok()?;
    let texts =
        json!({ "collection": "texts", "texts": [{ "id": "one", "text": "the white whale" }] });
    master.post("/insert_texts", &texts).await?.ok()?;
    cluster.caught_up("again-replica-0", seconds(60)).await?;
    let keys = keys(&scope).await?;

    let delete = ["delete", "vc", "again", "-n", &scope.namespace];
    shell::must("kubectl", &delete).await?;
    until("its pods to be gone", seconds(120), || async {
        let left = cluster.pods().await?;
        ensure(left.is_empty(), || format!("{left:?}"))
    })
    .await?;
    let claims = scope.api::<PersistentVolumeClaim>();
    let claims = claims
        .list(&ListParams::default())
        .await
        .or_fail("claims")?;
    assert_eq!(claims.items.len(), 2);
    for claim in &claims {
        let foreign = claim.labels().keys();
        let foreign: Vec<_> = foreign
            .filter(|l| !l.starts_with("vectorizer.hivellm.io/"))
            .collect();
        assert!(foreign.is_empty(), "{foreign:?}");
    }

    let cluster = Cluster::start(&scope, "again", 1).await?;
    assert_eq!(self::keys(&scope).await?, keys);
    let found = cluster
        .master_node()
        .await?
        .get("/collections/texts/vectors/one")
        .await?;
    found.ok()?;
    cluster.same_digests().await
}

async fn keys(scope: &Scope) -> Result<[String; 2]> {
    let key = |key| secret(scope, "again-auth", key);
    Ok([key("admin-key").await?, key("read-key").await?])
}
