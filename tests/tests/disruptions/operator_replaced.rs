//! The operator is upgraded, and removed: clusters go on as if nothing had happened.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use vectorizer_e2e::checker::pod::Checker;
use vectorizer_e2e::cluster::{Cluster, START};
use vectorizer_e2e::failure::{OrFail, Result, ensure};
use vectorizer_e2e::scope::{OPERATOR_NAMESPACE, Scope, scenario};
use vectorizer_e2e::shell;
use vectorizer_e2e::wait::seconds;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[tokio::test]
async fn upgrading_and_removing_the_operator_restarts_no_node_and_stops_no_write() {
    scenario("replaced", replaced).await;
}

async fn replaced(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "calm", 1).await?;
    let checker = Checker::start(&scope, &cluster, None).await?;
    let before = processes(&scope).await?;

    let chart = format!("{ROOT}/charts/vectorizer-operator");
    let again = format!("podAnnotations.again={}", scope.namespace);
    let namespace = ["--namespace", OPERATOR_NAMESPACE];
    let upgrade = ["upgrade", "vectorizer-operator", &chart, "--reuse-values"];
    let wait = ["--set", &again, "--wait", "--timeout", "3m"];
    shell::must("helm", &[&upgrade[..], &namespace, &wait].concat()).await?;
    cluster.ready(1, START).await?;
    assert_eq!(processes(&scope).await?, before, "after the upgrade");

    let uninstall = ["uninstall", "vectorizer-operator", "--wait"];
    shell::must("helm", &[&uninstall[..], &namespace].concat()).await?;
    let without = checker.acknowledged(200, seconds(60)).await;
    let listed = looked_after_by_name(&scope, &cluster).await;
    // Whatever came of it, other scenarios need the operator.
    shell::must(&format!("{ROOT}/tests/install.sh"), &[]).await?;
    without?;
    listed?;
    cluster.ready(1, START).await?;
    assert_eq!(processes(&scope).await?, before, "after the removal");

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

/// An operator that may see the namespaces of a list only does all that it does.
async fn looked_after_by_name(scope: &Scope, cluster: &Cluster) -> Result<()> {
    let only = format!("watchNamespaces={{{}}}", scope.namespace);
    shell::must(&format!("{ROOT}/tests/install.sh"), &["--set", &only]).await?;
    cluster.promote("listed", None, "Switchover").await?;
    let record = cluster.promoted("listed", seconds(90)).await?;
    ensure(record["result"] == "Succeeded", || record.to_string())?;
    cluster.ready(1, START).await
}

/// Every pod's identity and how often its container was restarted.
async fn processes(scope: &Scope) -> Result<BTreeMap<String, (Option<String>, i32)>> {
    let pods = scope.api::<Pod>().list(&ListParams::default()).await;
    let pods = pods.or_fail("pods")?;
    let process = |pod: &Pod| {
        let status = pod.status.as_ref();
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        let restarts = containers.map_or(0, |all| all.iter().map(|one| one.restart_count).sum());
        (pod.name_any(), (pod.uid(), restarts))
    };
    Ok(pods.iter().map(process).collect())
}
