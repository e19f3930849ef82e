//! More replicas, fewer replicas, through the spec and through the scale subresource.

use serde_json::json;
use vectorizer_e2e::checker::pod::Checker;
use vectorizer_e2e::cluster::{Cluster, START};
use vectorizer_e2e::failure::{OrFail, Result, ensure};
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::shell;
use vectorizer_e2e::wait::{seconds, until};

#[tokio::test]
async fn replicas_come_and_go_by_spec_and_by_the_scale_subresource() {
    scenario("scale", up_and_down).await;
}

async fn up_and_down(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "grow", 1).await?;
    let checker = Checker::start(&scope, &cluster, None).await?;
    cluster.patch(json!({ "spec": { "replicas": 2 } })).await?;
    cluster.ready(2, START).await?;
    cluster.caught_up("grow-replica-1", seconds(60)).await?;

    let scale = ["scale", "vc/grow", "-n", &scope.namespace, "--replicas=1"];
    shell::must("kubectl", &scale).await?;
    cluster.ready(1, START).await?;
    let object = cluster.object().await?;
    assert_eq!(object["spec"]["replicas"], 1);
    until("the second replica to be gone", seconds(60), || async {
        let replicas = cluster.replicas().await?;
        ensure(replicas == ["grow-replica-0"], || format!("{replicas:?}"))
    })
    .await?;
    let path = "jsonpath={.status.replicas} {.status.selector}";
    let ask = [
        "get",
        "vc/grow",
        "-n",
        &scope.namespace,
        "--subresource=scale",
        "-o",
        path,
    ];
    let scale = shell::must("kubectl", &ask).await?;
    let (replicas, selector) = scale.split_once(' ').or_fail("the scale subresource")?;
    assert_eq!(replicas, "1");
    let pods = [
        "get",
        "pods",
        "-n",
        &scope.namespace,
        "-l",
        selector,
        "-o",
        "name",
    ];
    assert_eq!(
        shell::must("kubectl", &pods).await?.trim(),
        "pod/grow-replica-0",
        "selector {selector}"
    );

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

#[tokio::test]
async fn scaling_below_the_master_switches_over_first() {
    scenario("below", below_the_master).await;
}

async fn below_the_master(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "shrink", 2).await?;
    cluster
        .promote("up", Some("shrink-replica-1"), "Switchover")
        .await?;
    let record = cluster.promoted("up", seconds(60)).await?;
    assert_eq!(record["result"], "Succeeded", "{record}");
    let checker = Checker::start(&scope, &cluster, None).await?;
    cluster.patch(json!({ "spec": { "replicas": 1 } })).await?;
    cluster.ready(1, START).await?;
    let (master, epoch) = cluster.master().await?;
    assert_ne!(master, "shrink-replica-1");
    assert!(epoch > 2, "epoch {epoch}");
    checker.acknowledged(100, seconds(60)).await?;
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

#[tokio::test]
async fn a_write_concern_is_raised_and_lowered_and_pods_go_only_once_they_are_no_members() {
    scenario("acks", raised_and_lowered).await;
}

async fn raised_and_lowered(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "held", 2).await?;
    let checker = Checker::start(&scope, &cluster, None).await?;
    let concern = |acks: u64| json!({ "spec": { "writeConcern": { "acks": acks } } });
    cluster.patch(concern(2)).await?;
    cluster.acknowledges(3, 2).await?;
    checker.acknowledged(100, seconds(60)).await?;
    let scale = ["scale", "vc/held", "-n", &scope.namespace, "--replicas=1"];
    let refused = shell::run("kubectl", &scale, "").await?;
    assert!(
        !refused.success && refused.stderr.contains("writeConcern.acks"),
        "{}",
        refused.stderr
    );
    cluster
        .patch(json!({ "spec": { "replicas": 1, "writeConcern": { "acks": 1 } } }))
        .await?;
    cluster.acknowledges(2, 1).await?;
    cluster.ready(1, START).await?;
    checker.acknowledged(100, seconds(60)).await?;
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
