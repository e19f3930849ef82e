//! The second half of `make demo`: the cluster runs and the operator is installed; now somebody uses it.

use std::path::Path;
use std::time::Instant;

use crate::checker::pod::Checker;
use crate::cluster::{Cluster, START};
use crate::failure::{OrFail, Result, ensure};
use crate::node::Node;
use crate::scope::{Scope, connect};
use crate::shell;
use crate::wait::seconds;

mod documents;
mod screen;

use documents::Documents;
use screen::{say, show, step};

/// Name of the VectorizerCluster in examples/cluster.yaml.
const NAME: &str = "demo";

/// Runs the whole demo in `namespace` and leaves everything running.
pub async fn run(examples: &Path, namespace: &str) -> Result<()> {
    let scope = Scope {
        client: connect().await?,
        namespace: namespace.to_owned(),
    };
    let cluster = apply(&scope, examples).await?;
    let documents = Documents::read(examples)?;
    load(&cluster, &documents).await?;
    search_everywhere(&cluster, &documents, 3).await?;
    lag(&cluster).await?;
    promote(&scope, &cluster).await?;
    search_everywhere(&cluster, &documents, 0).await?;
    farewell(&scope).await
}

async fn apply(scope: &Scope, examples: &Path) -> Result<Cluster> {
    let manifest = examples.join("cluster.yaml");
    let manifest = manifest.to_string_lossy();
    step(&format!(
        "One master and two replicas: kubectl apply -f {manifest}"
    ));
    let namespace = scope.namespace.as_str();
    let known = shell::run("kubectl", &["get", "namespace", namespace], "").await?;
    if !known.success {
        shell::must("kubectl", &["create", "namespace", namespace]).await?;
    }
    show(&shell::must("kubectl", &["apply", "-n", namespace, "-f", &manifest]).await?);
    let cluster = Cluster::named(scope, NAME);
    let start = Instant::now();
    cluster.ready(2, START).await?;
    say(&format!("ready after {} s", start.elapsed().as_secs()));
    show(&shell::must("kubectl", &["get", "vc,pods", "-n", namespace]).await?);
    Ok(cluster)
}

async fn load(cluster: &Cluster, documents: &Documents) -> Result<()> {
    step(&format!(
        "{} texts are written to the master",
        documents.texts.len()
    ));
    let master = cluster.master_node().await?;
    let start = Instant::now();
    documents.write(&master).await?;
    for replica in cluster.replicas().await? {
        cluster.caught_up(&replica, seconds(30)).await?;
    }
    say(&format!(
        "written, and applied on both replicas, after {} ms",
        start.elapsed().as_millis()
    ));
    Ok(())
}

/// Runs every query on every node, shows the hits of the first `shown`, and fails unless all nodes answer the same.
async fn search_everywhere(cluster: &Cluster, documents: &Documents, shown: usize) -> Result<()> {
    step("The same searches on every node");
    let mut nodes: Vec<Node> = Vec::new();
    for pod in cluster.pods().await? {
        cluster.caught_up(&pod, seconds(60)).await?;
        nodes.push(cluster.node(&pod).await?);
    }
    let mut found = 0;
    for (index, query) in documents.queries.iter().enumerate() {
        let mut answers = Vec::new();
        for node in &nodes {
            answers.push(documents.search(node, query).await?);
        }
        let same = answers.windows(2).all(|pair| pair[0] == pair[1]);
        ensure(same, || format!("the nodes do not agree: {answers:?}"))?;
        let hits = answers.first().or_fail("an answer")?;
        found += usize::from(hits.iter().any(|hit| hit.id == query.expected));
        if index < shown {
            say(&format!("“{}”", query.text));
            hits.iter().for_each(|hit| show(&hit.line()));
        }
    }
    let (master, _) = cluster.master().await?;
    let names = nodes.iter().map(|node| match node.pod == master {
        true => format!("{} (master)", node.pod),
        false => node.pod.clone(),
    });
    let names: Vec<String> = names.collect();
    let count = documents.queries.len();
    say(&format!(
        "{count} searches: the same hits with the same scores from {}; the passage that a person would expect is \
         among the first three in {found}",
        names.join(", ")
    ));
    Ok(())
}

async fn lag(cluster: &Cluster) -> Result<()> {
    step("How far behind the replicas are: GET /replication/replicas on the master");
    let replicas = cluster.master_node().await?.replicas().await?;
    show(&screen::table(
        &["REPLICA", "STATUS", "LAG MS", "LAG OPERATIONS", "OFFSET"],
        replicas.replicas.iter().map(|replica| {
            vec![
                replica.node.clone(),
                format!("{:?}", replica.status),
                replica.lag_ms.to_string(),
                replica.lag_operations.to_string(),
                replica.offset.to_string(),
            ]
        }),
    ));
    Ok(())
}

async fn promote(scope: &Scope, cluster: &Cluster) -> Result<()> {
    let target = cluster.replicas().await?;
    let target = target.first().or_fail("a replica to promote")?;
    step(&format!("{target} is promoted while numbered writes go on"));
    let namespace = scope.namespace.as_str();
    let remove = [
        "delete",
        "pod",
        "checker",
        "-n",
        namespace,
        "--ignore-not-found",
        "--now",
    ];
    // It may be left over from a demo that was interrupted.
    shell::must("kubectl", &remove).await?;
    let checker = Checker::start(scope, cluster, None).await?;
    checker.acknowledged(500, seconds(60)).await?;
    checker.phase("promotion").await?;
    let request = format!("demo-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
    let asked = serde_json::json!({ "requestID": request, "target": target });
    let patch = serde_json::json!([{ "op": "add", "path": "/spec/promote", "value": asked }]);
    say(&format!("kubectl patch vc {NAME} --type=json -p '{patch}'"));
    let patch = patch.to_string();
    let ask = [
        "patch",
        "vc",
        NAME,
        "-n",
        namespace,
        "--type=json",
        "-p",
        &patch,
    ];
    shell::must("kubectl", &ask).await?;
    let record = cluster.promoted(&request, seconds(60)).await?;
    checker.acknowledged(500, seconds(60)).await?;
    let report = checker.finish().await?;
    let during = report.phase("promotion");
    show(&screen::table(
        &["", "FROM THE START", "AROUND THE PROMOTION"],
        [
            (
                "writes acknowledged",
                report.acknowledged,
                during.acknowledged,
            ),
            ("writes refused", report.refused, during.refused),
            ("outcome unknown", report.unknown, during.unknown),
        ]
        .into_iter()
        .map(|(what, all, part)| vec![what.to_owned(), all.to_string(), part.to_string()]),
    ));
    say(&format!(
        "longest gap between two acknowledged writes: {} ms (the operator measured a pause of {} ms)",
        during.longest_gap_ms, record["writePauseMilliseconds"]
    ));
    say(&format!(
        "read back through the Service: {} records; acknowledged but lost: {}",
        report.read_back, report.lost
    ));
    report.nothing_lost()?;
    shell::must("kubectl", &remove).await?;
    cluster.ready(2, START).await?;
    show(&shell::must("kubectl", &["get", "vc", "-n", namespace]).await?);
    Ok(())
}

async fn farewell(scope: &Scope) -> Result<()> {
    let namespace = &scope.namespace;
    step("Everything keeps running");
    show(&format!(
        "source tests/kind/env.sh
kubectl get vc,pods -n {namespace}
kubectl port-forward -n {namespace} svc/{NAME}-rw 15002 &
key=$(kubectl get secret -n {namespace} {NAME}-auth -o jsonpath='{{.data.admin-key}}' | base64 -d)
curl -s -H \"Authorization: Bearer $key\" http://localhost:15002/replication/replicas

make demo-down    # removes the cluster and everything in it"
    ));
    Ok(())
}
