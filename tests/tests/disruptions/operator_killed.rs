//! The operator is killed between two steps of a promotion; another instance continues it.

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use tokio::sync::oneshot;
use vectorizer_e2e::checker::pod::Checker;
use vectorizer_e2e::cluster::{self, Cluster, START};
use vectorizer_e2e::failure::{Failure, OrFail, Result, ensure};
use vectorizer_e2e::machine::Trigger;
use vectorizer_e2e::pods::is_ready;
use vectorizer_e2e::scope::{OPERATOR_NAMESPACE, Scope, scenario};
use vectorizer_e2e::wait::{seconds, until};

/// Promotions in which the operator is killed, each a little later than the one before.
const ROUNDS: u64 = 4;
/// How much later, in ms.
const LATER_MS: u64 = 15;
/// A promotion takes a moment: as many more are tried until one has been caught in the middle.
const AT_MOST: u64 = 20;

#[tokio::test]
async fn a_promotion_is_finished_by_the_next_operator_when_the_first_is_killed() {
    scenario("operator", operator_killed).await;
}

async fn operator_killed(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "steady", 2).await?;
    let checker = Checker::start(&scope, &cluster, None).await?;
    // A test before this one may have replaced them.
    operators_ready(&scope).await?;
    let (mut caught, mut rounds) = (0, 0);
    while rounds < ROUNDS || (caught == 0 && rounds < AT_MOST) {
        let (round, later) = (rounds, Duration::from_millis(rounds % ROUNDS * LATER_MS));
        rounds += 1;
        let request = format!("round-{round}");
        let (before, epoch) = cluster.master().await?;
        checker.phase(&request).await?;
        let (aimed, ready) = oneshot::channel();
        let asked = async {
            ready.await.or_fail("aiming at the operators")?;
            cluster.promote(&request, None, "Switchover").await
        };
        let killed = kill_when_begun(&scope, &cluster, later, aimed);
        let (killed, asked) = futures::join!(killed, asked);
        caught += usize::from(killed?);
        asked?;
        operators_ready(&scope).await?;
        let record = cluster.promoted(&request, seconds(120)).await?;
        assert_eq!(record["result"], "Succeeded", "{record}");
        let (master, later) = cluster.master().await?;
        assert_ne!(master, before);
        assert_eq!(later, epoch + 1, "one request, one epoch");
        checker.acknowledged(100, seconds(60)).await?;
        cluster.ready(2, START).await?;
    }
    let report = checker.finish().await?;
    println!(
        "caught in the middle: {caught} of {rounds}\n{:#?}",
        report.phases
    );
    report.nothing_lost()?;
    assert!(caught > 0, "none of {rounds} was caught in the middle");
    cluster.same_digests().await
}

/// Kills every operator once the promotion is in status, and answers whether it was still there afterwards.
///
/// Says on `aimed` when the promotion may be asked for.
async fn kill_when_begun(
    scope: &Scope,
    cluster: &Cluster,
    later: Duration,
    aimed: oneshot::Sender<()>,
) -> Result<bool> {
    let operators: Api<Pod> = Api::namespaced(scope.client.clone(), OPERATOR_NAMESPACE);
    let pods = ready_operators(&operators).await?;
    let only = WatchParams::default().fields(&format!("metadata.name={}", cluster.name));
    let aims = pods.iter().map(|pod| {
        let (client, name) = (&scope.client, pod.name_any());
        async move { Trigger::aim(client, OPERATOR_NAMESPACE, &name, "vectorizer-operator").await }
    });
    let triggers = futures::future::try_join_all(aims).await?;
    let events = cluster::api(scope)
        .watch(&only, "0")
        .await
        .or_fail("watching")?;
    pin_mut!(events);
    // Who asks is gone only when this is.
    let _ = aimed.send(());
    let begun = async {
        while let Some(event) = events.next().await {
            if let Ok(WatchEvent::Modified(object)) = event
                && !object.data["status"]["target"].is_null()
            {
                return Ok(());
            }
        }
        Err(Failure::new(
            "the watch ended before the promotion had begun",
        ))
    };
    tokio::time::timeout(seconds(60), begun)
        .await
        .or_fail("the promotion to begin")??;
    tokio::time::sleep(later).await;
    futures::future::try_join_all(triggers.into_iter().map(Trigger::pull)).await?;
    let caught = !cluster.object().await?["status"]["target"].is_null();
    // The kubelet would start a process that died often only after a while.
    let now = DeleteParams::default().grace_period(0);
    let deaths = pods.iter().map(|pod| {
        let (operators, now, name) = (&operators, &now, pod.name_any());
        async move { operators.delete(&name, now).await }
    });
    for death in futures::future::join_all(deaths).await {
        death.or_fail("removing the operator's pod")?;
    }
    Ok(caught)
}

/// Those that can be aimed at: one that is on its way in or out has no process to kill.
async fn ready_operators(operators: &Api<Pod>) -> Result<Vec<Pod>> {
    let pods = operators.list(&ListParams::default()).await;
    Ok(pods
        .or_fail("operators")?
        .into_iter()
        .filter(is_ready)
        .collect())
}

async fn operators_ready(scope: &Scope) -> Result<()> {
    let operators: Api<Pod> = Api::namespaced(scope.client.clone(), OPERATOR_NAMESPACE);
    until("the operator to be back", seconds(120), || async {
        let ready = ready_operators(&operators).await?.len();
        ensure(ready >= 2, || format!("{ready} are ready"))
    })
    .await
}
