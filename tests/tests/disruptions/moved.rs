//! A machine takes no pods any more: a replica whose volume cannot move comes back elsewhere, as a new node.

use vectorizer_e2e::checker::pod::Checker;
use vectorizer_e2e::cluster::{Cluster, START};
use vectorizer_e2e::failure::{OrFail, Result};
use vectorizer_e2e::machine;
use vectorizer_e2e::pods::replace_without_volume;
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::wait::seconds;

#[tokio::test]
async fn a_replica_without_its_volume_comes_back_on_another_machine_and_no_write_notices() {
    scenario("moved", moved).await;
}

async fn moved(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "moved", 2).await?;
    let (master, _) = cluster.master().await?;
    let of = async |pod: &str| machine::of_pod(&scope.client, &scope.namespace, pod).await;
    let home = of(&master).await?;
    let mut away = None;
    for pod in cluster.replicas().await? {
        if of(&pod).await? != home {
            away = Some(pod);
        }
    }
    // Three pods on two machines that are spread: some replica is not where the master is.
    let pod = away.or_fail("a replica on another machine than the master's")?;
    let from = of(&pod).await?;
    let checker = Checker::start(&scope, &cluster, Some(&home)).await?;

    machine::cordon(&from, true).await?;
    let came_back = replace_without_volume(&scope, &pod).await;
    let to = of(&pod).await;
    // Whatever came of it, other scenarios need the machine.
    machine::cordon(&from, false).await?;
    came_back?;
    assert_ne!(to?, from);

    cluster.ready(2, START).await?;
    checker.acknowledged(100, seconds(60)).await?;
    let report = checker.finish().await?;
    report.nothing_lost()?;
    assert_eq!(
        (report.refused, report.unknown),
        (0, 0),
        "{:?}",
        report.reasons
    );
    assert_eq!(cluster.master().await?.0, master);
    cluster.same_digests().await
}
