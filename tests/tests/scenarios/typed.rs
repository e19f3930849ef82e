//! The documents' commands, typed one after the other: each does what it says, whatever was asked for before.

use serde_json::Value;
use vectorizer_e2e::cluster::{Cluster, START};
use vectorizer_e2e::failure::{OrFail, Result, ensure};
use vectorizer_e2e::machine;
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::shell;
use vectorizer_e2e::typed::{Promotion, promotions};
use vectorizer_e2e::wait::seconds;

#[tokio::test]
async fn the_documents_commands_work_in_their_order() {
    scenario("typed", in_order).await;
}

async fn in_order(scope: Scope) -> Result<()> {
    let operations = include_str!("../../../docs/operations.md");
    let [planned, failover] = as_pair(promotions(operations)?)?;
    let cluster = Cluster::start(&scope, "demo", 2).await?;

    let record = typed(&scope, &cluster, &planned).await?;
    assert_eq!(record["result"], "Succeeded", "{record}");
    assert_eq!(record["to"], "demo-replica-1");
    cluster.ready(2, START).await?;

    // The master that was named before is now the one that is gone.
    let (gone, epoch) = cluster.master().await?;
    freeze(&scope, &gone, "STOP").await?;
    cluster
        .wait("the master to be missed", seconds(60), |object| {
            let phase = &object["status"]["phase"];
            ensure(phase == "Unavailable", || phase.to_string())
        })
        .await?;
    // And a person who names it all the same is told at once what to type.
    cluster.promote("named", Some(&gone), "Failover").await?;
    let refused = cluster.promoted("named", seconds(20)).await?;
    assert_eq!(refused["result"], "Refused", "{refused}");
    let told = refused["message"].as_str().or_fail("the message")?;
    let told = told.find("kubectl patch").map(|at| &told[at..]);
    let told = promotions(told.or_fail("a command in the message")?)?;
    assert!(told[0].replaces_with().is_some(), "{refused}");

    let record = typed(&scope, &cluster, &failover).await?;
    assert_eq!(record["result"], "Succeeded", "{record}");
    assert_eq!(record["mode"], "Failover");
    let (master, later) = cluster.master().await?;
    assert_ne!(master, gone);
    assert!(later > epoch, "epoch {later} after {epoch}");
    freeze(&scope, &gone, "CONT").await?;
    cluster.ready(2, START).await?;

    let readme = promotions(include_str!("../../../README.md"))?;
    let [mut again] = <[Promotion; 1]>::try_from(readme).ok().or_fail("README")?;
    let spec = cluster.object().await?["spec"]["promote"].clone();
    assert_eq!(spec["mode"], "Failover", "{spec}");
    again.rename("tuesday");
    let record = typed(&scope, &cluster, &again).await?;
    assert_eq!(record["result"], "Succeeded", "{record}");
    assert_eq!(record["mode"], "Switchover", "{record}");
    assert_eq!(cluster.master().await?.0, "demo-replica-1");
    cluster.ready(2, START).await?;
    cluster.same_digests().await
}

fn as_pair(commands: Vec<Promotion>) -> Result<[Promotion; 2]> {
    <[Promotion; 2]>::try_from(commands)
        .ok()
        .or_fail("a switchover and a failover in docs/operations.md")
}

/// Types a command and answers what became of its request.
async fn typed(scope: &Scope, cluster: &Cluster, command: &Promotion) -> Result<Value> {
    let words = command.words();
    let (program, arguments) = words.split_first().or_fail("a command")?;
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["-n", &scope.namespace]);
    shell::must(program, &arguments).await?;
    let request = command.replaces_with().or_fail(&command.line)?["requestID"].clone();
    let request = request.as_str().or_fail("a requestID")?;
    cluster.promoted(request, seconds(90)).await
}

async fn freeze(scope: &Scope, pod: &str, signal: &str) -> Result<()> {
    let (client, namespace) = (&scope.client, &scope.namespace);
    let hit = machine::signal(client, namespace, pod, "vectorizer-node", signal).await?;
    ensure(hit > 0, || format!("no process of {pod} got {signal}"))
}
