//! The machine under the master is switched off, and a replica is promoted because somebody asks for it.

use std::collections::BTreeMap;

use serde_json::json;
use vectorizer_e2e::checker::pod::Checker;
use vectorizer_e2e::checker::report::Report;
use vectorizer_e2e::cluster::{Cluster, START};
use vectorizer_e2e::failure::{OrFail, Result};
use vectorizer_e2e::machine;
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::wait::seconds;

#[tokio::test]
async fn a_failover_asked_for_replaces_a_master_whose_machine_is_lost() {
    scenario("machine", asynchronous).await;
}

#[tokio::test]
async fn with_a_write_concern_a_lost_machine_takes_no_acknowledged_write_along() {
    scenario("concern", synchronous).await;
}

async fn asynchronous(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "trio", 2).await?;
    let (report, known) = machine_lost(&scope, &cluster).await?;
    // Replication is asynchronous: a lost machine may take the end of its epoch along. That it is only the end, the
    // checker has made sure of; how much, a person wants to know.
    println!(
        "{:#?}\nacknowledged {}, lost {}, operations reported lost {known}",
        report.phases, report.acknowledged, report.lost
    );
    Ok(())
}

async fn synchronous(scope: Scope) -> Result<()> {
    let spec = json!({ "replicas": 2, "writeConcern": { "acks": 1 } });
    let cluster = Cluster::create(&scope, "held", spec).await?;
    cluster.ready(2, START).await?;
    cluster.acknowledges(3, 1).await?;
    // One acknowledgement outlives the loss of one node. Two that share a machine are lost together, and a failover then
    // waits for one of them.
    stand_alone(&scope, &cluster).await?;
    let (report, _) = machine_lost(&scope, &cluster).await?;
    report.nothing_lost()?;
    cluster.acknowledges(3, 1).await
}

/// Makes a node the master that shares its machine with none of the others.
async fn stand_alone(scope: &Scope, cluster: &Cluster) -> Result<()> {
    let mut machines = BTreeMap::new();
    for pod in cluster.pods().await? {
        let machine = machine::of_pod(&scope.client, &scope.namespace, &pod).await?;
        machines.entry(machine).or_insert_with(Vec::new).push(pod);
    }
    let alone = machines.values().find(|pods| pods.len() == 1);
    let pod = alone.or_fail("a machine with one node")?[0].clone();
    if cluster.master().await?.0 != pod {
        cluster.promote("alone", Some(&pod), "Switchover").await?;
        let record = cluster.promoted("alone", seconds(60)).await?;
        assert_eq!(record["result"], "Succeeded", "{record}");
    }
    Ok(())
}

/// The master's machine is switched off under writes, and comes back.
async fn machine_lost(scope: &Scope, cluster: &Cluster) -> Result<(Report, u64)> {
    let (master, epoch) = cluster.master().await?;
    let lost = machine::of_pod(&scope.client, &scope.namespace, &master).await?;
    let other = machine::other_than(&scope.client, &lost).await?;
    let checker = Checker::start_impatient(scope, cluster, Some(&other)).await?;
    checker.phase("lost").await?;
    machine::kill(&lost).await?;
    let failed_over = fail_over(cluster, &checker, &master, epoch).await;
    // Whatever came of it, other scenarios need the machine.
    machine::restore(&scope.client, &lost).await?;
    let known = failed_over?;

    checker.phase("restored").await?;
    cluster.ready(2, START).await?;
    assert!(cluster.replicas().await?.contains(&master));
    cluster.caught_up(&master, seconds(120)).await?;
    checker.acknowledged(100, seconds(60)).await?;
    let report = checker.finish().await?;
    cluster.same_digests().await?;
    Ok((report, known))
}

/// Asks for the failover, waits for writes, and answers how many operations the operator knows to be lost.
async fn fail_over(cluster: &Cluster, checker: &Checker, master: &str, epoch: u64) -> Result<u64> {
    cluster.promote("gone", None, "Failover").await?;
    let record = cluster.promoted("gone", seconds(90)).await?;
    assert_eq!(record["result"], "Succeeded", "{record}");
    let (now, later) = cluster.master().await?;
    assert_ne!(now, master);
    assert!(later > epoch, "epoch {later} after {epoch}");
    checker.acknowledged(100, seconds(60)).await?;
    Ok(record["lostOperations"].as_u64().unwrap_or_default())
}
