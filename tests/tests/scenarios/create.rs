//! A cluster from nothing: written on the master, read on every replica.

use std::collections::BTreeSet;

use serde_json::json;
use vectorizer_api::replication::{ReplicaStatus, Role};
use vectorizer_e2e::cluster::Cluster;
use vectorizer_e2e::failure::{OrFail, Result, ensure};
use vectorizer_e2e::machine;
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::shell;
use vectorizer_e2e::wait::{seconds, until};

#[tokio::test]
async fn what_is_written_on_the_master_is_read_on_every_replica() {
    scenario("create", create_and_read).await;
}

async fn create_and_read(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "books", 2).await?;
    let master = cluster.master_node().await?;
    let collection = json!({ "name": "texts", "dimension": 256, "metric": "cosine" });
    master.post("/collections", &collection).await?.ok()?;
    let texts = json!({ "collection": "texts", "texts": [
        { "id": "whale", "text": "the white whale swam before him", "metadata": { "book": "Moby-Dick" } },
        { "id": "rabbit", "text": "a white rabbit with pink eyes ran close by her" },
    ] });
    let inserted = master.post("/insert_texts", &texts).await?.ok()?;
    assert_eq!(inserted["inserted"], 2, "{inserted}");

    let search = json!({ "query": "whale", "limit": 2 });
    let path = "/collections/texts/search/text";
    let expected = master.post(path, &search).await?.ok()?;
    assert_eq!(expected["results"][0]["id"], "whale", "{expected}");
    let replicas = cluster.replicas().await?;
    assert_eq!(replicas.len(), 2);
    for pod in &replicas {
        cluster.caught_up(pod, seconds(30)).await?;
        let replica = cluster.node(pod).await?;
        let found = replica.post(path, &search).await?.ok()?;
        assert_eq!(found["results"], expected["results"], "on {pod}");
        let vector = replica
            .get("/collections/texts/vectors/whale")
            .await?
            .ok()?;
        assert_eq!(vector["payload"]["book"], "Moby-Dick", "{vector}");
        let refused = replica.post("/insert_texts", &texts).await?;
        assert_eq!(refused.status, 421, "{:?}", refused.body);
        assert_eq!(refused.body["error_type"], "not_master");
    }
    apart(&scope, &cluster).await?;
    endpoints(&cluster, &replicas).await?;
    status(&cluster, &replicas).await?;
    services(&scope, &cluster, &replicas).await?;
    cluster.same_digests().await
}

/// No machine takes all copies of the data along.
async fn apart(scope: &Scope, cluster: &Cluster) -> Result<()> {
    let mut machines = BTreeSet::new();
    for pod in cluster.pods().await? {
        machines.insert(machine::of_pod(&scope.client, &scope.namespace, &pod).await?);
    }
    ensure(machines.len() > 1, || format!("all on {machines:?}"))
}

/// The replication endpoints of the specification, on a running cluster.
async fn endpoints(cluster: &Cluster, replicas: &[String]) -> Result<()> {
    let master = cluster.master_node().await?;
    let status = master.status().await?;
    assert_eq!((status.enabled, status.role), (true, Role::Master));
    assert_eq!(status.connected_replicas, 2);
    let stats = master.stats().await?;
    assert!(stats.bytes_sent > 0 && stats.last_sync > 0, "{stats:?}");
    assert_eq!(stats.current_offset, status.current_offset);
    until("both replicas to be Connected", seconds(30), || async {
        let listed = master.replicas().await?;
        let mut names: Vec<&str> = listed
            .replicas
            .iter()
            .map(|one| one.node.as_str())
            .collect();
        names.sort_unstable();
        let healthy = |one: &vectorizer_api::replication::Replica| {
            one.status == ReplicaStatus::Connected && one.lag_operations == 0 && one.lag_ms == 0
        };
        ensure(
            names == replicas && listed.count == 2 && listed.replicas.iter().all(healthy),
            || format!("{listed:?}"),
        )
    })
    .await?;
    let replica = cluster.node(replicas.first().or_fail("a replica")?).await?;
    assert_eq!(replica.status().await?.role, Role::Replica);
    let refused = replica.get("/replication/replicas").await?;
    assert_eq!(refused.status, 400, "{:?}", refused.body);
    Ok(())
}

/// What `kubectl get vc` and the status show.
async fn status(cluster: &Cluster, replicas: &[String]) -> Result<()> {
    let (master, epoch) = cluster.master().await?;
    assert_eq!((master.as_str(), epoch), ("books-master-0", 1));
    let nodes = cluster
        .wait("every node in status", seconds(60), |object| {
            let nodes = object["status"]["nodes"]
                .as_array()
                .or_fail("status.nodes")?;
            let behind = nodes.iter().find(|node| {
                let name = node["pod"].as_str().unwrap_or_default();
                replicas.iter().any(|replica| replica == name)
                    && (node["lagOperations"] != 0 || node["readEligible"] != true)
            });
            ensure(nodes.len() == 3 && behind.is_none(), || {
                format!("nodes are {nodes:?}")
            })?;
            Ok(nodes.clone())
        })
        .await?;
    assert!(
        nodes.iter().any(|node| node["role"] == "Master"),
        "{nodes:?}"
    );
    Ok(())
}

/// The Services lead to the right pods, and the columns are there.
async fn services(scope: &Scope, cluster: &Cluster, replicas: &[String]) -> Result<()> {
    let namespace = scope.namespace.as_str();
    let listed = shell::must("kubectl", &["get", "vc", "-n", namespace]).await?;
    for column in [
        "MASTER",
        "READY",
        "LAG",
        "EPOCH",
        "STATUS",
        "AGE",
        "books-master-0",
    ] {
        assert!(listed.contains(column), "no {column} in:\n{listed}");
    }
    for (service, pods) in [
        ("books-rw", vec!["books-master-0".to_owned()]),
        ("books", vec!["books-master-0".to_owned()]),
        ("books-ro", replicas.to_vec()),
    ] {
        let selector = format!("kubernetes.io/service-name={service}");
        let path = "jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].targetRef.name}";
        let ask = [
            "get",
            "endpointslices",
            "-n",
            namespace,
            "-l",
            &selector,
            "-o",
            path,
        ];
        until(
            &format!("Service {service} to lead to {pods:?}"),
            seconds(30),
            || async {
                let names = shell::must("kubectl", &ask).await?;
                let mut names: Vec<&str> = names.split_whitespace().collect();
                names.sort_unstable();
                ensure(names == pods, || format!("it leads to {names:?}"))
            },
        )
        .await?;
    }
    let master = cluster.master_node().await?;
    let anonymous = master.clone().with_key("wrong").get("/collections").await?;
    assert_eq!(anonymous.status, 401, "{:?}", anonymous.body);
    Ok(())
}
