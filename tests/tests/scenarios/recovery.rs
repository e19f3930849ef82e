//! Pods that go and come back by themselves.

use kube::api::DeleteParams;
use serde_json::json;
use vectorizer_e2e::checker::pod::Checker;
use vectorizer_e2e::cluster::{Cluster, START, condition};
use vectorizer_e2e::failure::{Result, ensure};
use vectorizer_e2e::machine;
use vectorizer_e2e::pods::replace;
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::wait::seconds;

#[tokio::test]
async fn a_deleted_master_pod_comes_back_with_everything_that_was_acknowledged() {
    scenario("master", master_deleted).await;
}

async fn master_deleted(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "back", 2).await?;
    let checker = Checker::start_impatient(&scope, &cluster, None).await?;
    let (master, epoch) = cluster.master().await?;

    for (phase, how) in [
        ("deleted", DeleteParams::default()),
        ("forced", DeleteParams::default().grace_period(0)),
    ] {
        checker.phase(phase).await?;
        replace(&scope, &master, how).await?;
        checker.acknowledged(100, seconds(120)).await?;
        cluster.ready(2, START).await?;
    }
    let (now, later) = cluster.master().await?;
    assert_eq!(now, master, "nobody asked for another master");
    assert!(
        later >= epoch + 2,
        "epoch {later} after two restarts in {epoch}"
    );

    let report = checker.finish().await?;
    println!("{:#?}", report.phases);
    report.nothing_lost()?;
    everyone_agrees(&cluster).await
}

#[tokio::test]
async fn a_master_pod_that_is_made_anew_while_paused_is_written_to_again() {
    scenario("paused", made_anew_while_paused).await;
}

async fn made_anew_while_paused(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "idle", 2).await?;
    let checker = Checker::start_impatient(&scope, &cluster, None).await?;
    let (master, _) = cluster.master().await?;
    cluster
        .patch(json!({ "spec": { "paused": true, "replicas": 3 } }))
        .await?;
    cluster
        .wait("the pause to be seen", seconds(60), |object| {
            let phase = &object["status"]["phase"];
            ensure(phase == "Paused", || phase.to_string())
        })
        .await?;
    checker.phase("deleted").await?;
    replace(&scope, &master, DeleteParams::default()).await?;
    // Through the Service: its endpoint is whichever pod carries the master's label.
    checker.acknowledged(100, seconds(120)).await?;
    cluster
        .wait("writes to be called accepted", seconds(60), |object| {
            let (available, why) = condition(object, "Available")?;
            ensure(available == "True", || why)
        })
        .await?;
    assert_eq!(cluster.replicas().await?.len(), 2, "nothing else is done");
    cluster
        .patch(json!({ "spec": { "paused": false, "replicas": 2 } }))
        .await?;
    cluster.ready(2, START).await?;
    let report = checker.finish().await?;
    report.nothing_lost()?;
    everyone_agrees(&cluster).await
}

#[tokio::test]
async fn a_killed_master_process_restarts_and_writes_in_a_new_epoch() {
    scenario("process", process_killed).await;
}

async fn process_killed(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "again", 2).await?;
    let checker = Checker::start_impatient(&scope, &cluster, None).await?;
    let (master, epoch) = cluster.master().await?;
    checker.phase("killed").await?;
    let hit = machine::signal(
        &scope.client,
        &scope.namespace,
        &master,
        "vectorizer-node",
        "KILL",
    );
    assert_eq!(hit.await?, 1);
    cluster
        .wait("the next epoch in status", seconds(60), |object| {
            let now = object["status"]["master"]["epoch"]
                .as_u64()
                .unwrap_or_default();
            ensure(now > epoch, || format!("it is {now}"))
        })
        .await?;
    checker.acknowledged(100, seconds(60)).await?;
    cluster.ready(2, START).await?;
    assert_eq!(cluster.master().await?.0, master);
    let report = checker.finish().await?;
    println!("{:#?}", report.phases);
    report.nothing_lost()?;
    everyone_agrees(&cluster).await
}

#[tokio::test]
async fn a_killed_replica_comes_back_with_a_partial_sync_and_no_write_notices() {
    scenario("replica", replica_deleted).await;
}

async fn replica_deleted(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "third", 2).await?;
    let checker = Checker::start(&scope, &cluster, None).await?;
    let pod = "third-replica-0";
    cluster.caught_up(pod, seconds(30)).await?;
    replace(&scope, pod, DeleteParams::default().grace_period(0)).await?;
    checker.acknowledged(100, seconds(30)).await?;
    cluster.ready(2, START).await?;
    let report = checker.finish().await?;
    report.nothing_lost()?;
    assert_eq!(
        (report.refused, report.unknown),
        (0, 0),
        "{:?}",
        report.reasons
    );
    cluster.caught_up(pod, seconds(60)).await?;
    let stats = cluster.node(pod).await?.stats().await?;
    assert_eq!(stats.full_syncs, 0, "{stats:?}");
    assert!(stats.partial_syncs >= 1, "{stats:?}");
    everyone_agrees(&cluster).await
}

/// Every replica ends up with as many records as the master, and with the same ones.
async fn everyone_agrees(cluster: &Cluster) -> Result<()> {
    let path = "/collections/numbered/vectors?limit=1";
    let total = cluster.master_node().await?.get(path).await?.ok()?["total"].clone();
    for pod in cluster.replicas().await? {
        cluster.caught_up(&pod, seconds(60)).await?;
        let here = cluster.node(&pod).await?.get(path).await?.ok()?["total"].clone();
        assert_eq!(here, total, "vectors on {pod}");
    }
    cluster.same_digests().await
}
