//! A machine takes no pods any more: a replica whose volume cannot move comes back elsewhere, as a new node.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::DeleteParams;
use vectorizer_e2e::checker::pod::Checker;
use vectorizer_e2e::cluster::{Cluster, START};
use vectorizer_e2e::failure::{OrFail, Result, ensure};
use vectorizer_e2e::machine;
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::wait::{seconds, until};

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
    let came_back = without_its_volume(&scope, &pod).await;
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
    cluster.caught_up(&pod, seconds(60)).await
}

/// Deletes claim and pod, as docs/operations.md says, and waits until another pod of that name is ready.
async fn without_its_volume(scope: &Scope, pod: &str) -> Result<()> {
    let pods = scope.api::<Pod>();
    let before = pods.get(pod).await.or_fail(pod)?.uid();
    let (claims, now) = (
        scope.api::<PersistentVolumeClaim>(),
        DeleteParams::default(),
    );
    let claim = claims.delete(&format!("data-{pod}"), &now).await;
    claim.or_fail("deleting the claim")?;
    pods.delete(pod, &now).await.or_fail("deleting the pod")?;
    until(&format!("{pod} to be back"), START, || async {
        let found = pods.get(pod).await.or_fail(pod)?;
        let conditions = found.status.as_ref().and_then(|s| s.conditions.as_ref());
        let ready = conditions.is_some_and(|all| {
            all.iter()
                .any(|one| one.type_ == "Ready" && one.status == "True")
        });
        ensure(found.uid() != before && ready, || {
            "it is not ready yet".to_owned()
        })
    })
    .await
}
