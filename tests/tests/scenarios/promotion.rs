//! Switchovers while numbered writes go on through the Service.

use vectorizer_e2e::checker::pod::Checker;
use vectorizer_e2e::cluster::{Cluster, START, condition};
use vectorizer_e2e::failure::Result;
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::wait::seconds;

#[tokio::test]
async fn a_switchover_loses_nothing_and_fails_no_write() {
    scenario("switchover", switchover).await;
}

async fn switchover(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "pair", 2).await?;
    let checker = Checker::start(&scope, &cluster, None).await?;

    checker.phase("named").await?;
    cluster
        .promote("first", Some("pair-replica-1"), "Switchover")
        .await?;
    let record = cluster.promoted("first", seconds(60)).await?;
    assert_eq!(record["result"], "Succeeded", "{record}");
    assert_eq!(record["from"], "pair-master-0");
    assert_eq!(record["to"], "pair-replica-1");
    assert_eq!(record["lostOperations"], 0);
    assert_eq!(cluster.master().await?, ("pair-replica-1".to_owned(), 2));
    checker.acknowledged(200, seconds(60)).await?;
    cluster.ready(2, START).await?;

    checker.phase("best").await?;
    cluster.promote("second", None, "Switchover").await?;
    let record = cluster.promoted("second", seconds(60)).await?;
    assert_eq!(record["result"], "Succeeded", "{record}");
    let (master, epoch) = cluster.master().await?;
    assert_ne!(master, "pair-replica-1");
    assert_eq!(epoch, 3);
    checker.acknowledged(200, seconds(60)).await?;
    cluster.ready(2, START).await?;
    let (status, why) = condition(&cluster.object().await?, "PromotionSucceeded")?;
    assert_eq!(status, "True", "{why}");

    // The same request again is the same request: nothing happens.
    checker.phase("repeated").await?;
    cluster
        .promote("first", Some("pair-replica-1"), "Switchover")
        .await?;
    checker.acknowledged(200, seconds(60)).await?;
    cluster.ready(2, START).await?;
    assert_eq!(cluster.master().await?, (master, 3));

    let report = checker.finish().await?;
    // The longest gaps are in there. How long writes pause, the benchmark measures: here scenarios share two cores.
    println!("{:#?}", report.phases);
    report.nothing_lost()?;
    assert_eq!(
        (report.refused, report.unknown),
        (0, 0),
        "{:?}",
        report.reasons
    );
    for pod in cluster.replicas().await? {
        cluster.caught_up(&pod, seconds(30)).await?;
        // The nodes had all of it: nobody needed a second copy.
        let stats = cluster.node(&pod).await?.stats().await?;
        assert!(stats.full_syncs <= 1, "{pod}: {stats:?}");
    }
    cluster.same_digests().await
}

#[tokio::test]
async fn a_switchover_to_nobody_is_refused_and_changes_nothing() {
    scenario("nobody", to_nobody).await;
}

async fn to_nobody(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "lone", 1).await?;
    let checker = Checker::start(&scope, &cluster, None).await?;
    cluster
        .promote("nobody", Some("lone-replica-7"), "Switchover")
        .await?;
    let record = cluster.promoted("nobody", seconds(60)).await?;
    assert_eq!(record["result"], "Refused", "{record}");
    let (status, why) = condition(&cluster.object().await?, "PromotionSucceeded")?;
    assert_eq!(status, "False", "{why}");
    assert!(why.contains("lone-replica-7"), "{why}");
    checker.acknowledged(50, seconds(30)).await?;
    assert_eq!(cluster.master().await?, ("lone-master-0".to_owned(), 1));
    let report = checker.finish().await?;
    report.nothing_lost()?;
    assert_eq!(
        (report.refused, report.unknown),
        (0, 0),
        "{:?}",
        report.reasons
    );
    cluster.same_digests().await
}
