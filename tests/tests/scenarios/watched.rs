//! Every version of the resource that is written while the master changes, as alerts and the health checks of GitOps
//! tools see it: none of them tells of an outage that is none.

use futures::{StreamExt, pin_mut};
use kube::api::{DynamicObject, WatchEvent, WatchParams};
use serde_json::Value;
use tokio::sync::oneshot;
use vectorizer_e2e::checker::pod::Checker;
use vectorizer_e2e::cluster::{self, Cluster, START, condition};
use vectorizer_e2e::failure::{Failure, OrFail, Result, ensure};
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::wait::seconds;

#[tokio::test]
async fn no_version_of_the_resource_tells_of_an_outage_during_switchovers() {
    scenario("watched", watched).await;
}

async fn watched(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "seen", 2).await?;
    let checker = Checker::start(&scope, &cluster, None).await?;
    let (stop, stopped) = oneshot::channel();
    let from = cluster.object().await?["metadata"]["resourceVersion"].clone();
    let from = from.as_str().or_fail("resourceVersion")?.to_owned();
    let versions = tokio::spawn(versions(scope.clone(), from, stopped));

    let targets = ["seen-replica-0", "seen-replica-1", "seen-master-0"];
    for (n, target) in targets.into_iter().enumerate() {
        let request = format!("switchover-{n}");
        cluster
            .promote(&request, Some(target), "Switchover")
            .await?;
        let record = cluster.promoted(&request, seconds(120)).await?;
        assert_eq!(record["result"], "Succeeded", "{record}");
        cluster.ready(2, START).await?;
    }
    stop.send(()).ok().or_fail("the watch")?;
    let versions = versions.await.or_fail("the watch")??;
    assert!(versions.len() >= targets.len(), "{}", versions.len());
    for version in &versions {
        no_outage(version)?;
    }

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

/// What the resource was, from one version on, each time that it was written.
async fn versions(
    scope: Scope,
    from: String,
    stopped: oneshot::Receiver<()>,
) -> Result<Vec<Value>> {
    let api = cluster::api(&scope);
    let events = api.watch(&WatchParams::default(), &from).await;
    let events = events.or_fail("watch")?.take_until(stopped);
    pin_mut!(events);
    let mut versions = Vec::new();
    while let Some(event) = events.next().await {
        match event.or_fail("watch")? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                versions.push(serde_json::to_value::<DynamicObject>(object).or_fail("object")?);
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Deleted(_) | WatchEvent::Error(_) => {
                return Err(Failure::new("the watch ended"));
            }
        }
    }
    Ok(versions)
}

fn no_outage(version: &Value) -> Result<()> {
    let status = &version["status"];
    for (of, expected) in [("Available", "True"), ("Degraded", "False")] {
        let (found, why) = condition(version, of)?;
        ensure(found == expected, || format!("{of} is {found}: {why}"))?;
    }
    let phase = status["phase"].as_str().or_fail("phase")?;
    ensure(!["Unavailable", "Degraded"].contains(&phase), || {
        format!("phase {phase} in {status}")
    })?;
    ensure(status["ready"] != "0/3", || status.to_string())
}
