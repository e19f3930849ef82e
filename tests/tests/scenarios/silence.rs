//! A settled cluster is left alone: the operator writes nothing to the API server.

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use vectorizer_e2e::cluster::{self, Cluster};
use vectorizer_e2e::failure::{Failure, OrFail, Result};
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::wait::{seconds, until};

/// How long nothing may be written.
const WINDOW: Duration = Duration::from_secs(30);

#[tokio::test]
async fn in_a_settled_cluster_the_operator_writes_nothing() {
    scenario("silent", silent).await;
}

async fn silent(scope: Scope) -> Result<()> {
    Cluster::start(&scope, "settled", 1).await?;
    // Conditions and lag settle within a heartbeat or two of being ready; then it must stay so for the whole window.
    until("a window without a write", seconds(300), || async {
        futures::try_join!(
            quiet(cluster::api(&scope)),
            quiet(scope.api::<StatefulSet>()),
            quiet(scope.api::<Service>()),
            quiet(scope.api::<ConfigMap>()),
            quiet(scope.api::<Secret>()),
            quiet(scope.api::<Pod>()),
        )
        .map(drop)
    })
    .await
}

/// Watches objects for the window; an event is the error.
async fn quiet<K>(api: Api<K>) -> Result<()>
where
    K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let list = api.list(&ListParams::default()).await.or_fail("list")?;
    let version = list.metadata.resource_version.unwrap_or_default();
    let events = api.watch(&WatchParams::default(), &version).await;
    let events = events.or_fail("watch")?;
    pin_mut!(events);
    let first = tokio::time::timeout(WINDOW, events.next()).await;
    match first {
        Err(_) => Ok(()),
        Ok(Some(Ok(
            WatchEvent::Added(it) | WatchEvent::Modified(it) | WatchEvent::Deleted(it),
        ))) => {
            let managers = it.meta().managed_fields.as_ref();
            let last = managers.and_then(|all| all.iter().max_by_key(|one| one.time.clone()));
            Err(Failure::new(format!(
                "{} was written by {:?}",
                it.name_any(),
                last.and_then(|one| one.manager.clone())
            )))
        }
        Ok(other) => Err(Failure::new(format!("the watch ended: {other:?}"))),
    }
}
