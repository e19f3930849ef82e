//! An application in Python, outside of the cluster: it reaches the nodes by Services only, and the addresses that
//! refusals name lead it nowhere.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node as Machine, Service};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use vectorizer_e2e::cluster::{Cluster, START, secret};
use vectorizer_e2e::failure::{Failure, OrFail, Result, ensure};
use vectorizer_e2e::node::REST_PORT;
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::wait::seconds;

/// At least so many writes.
const WRITES: u64 = 1000;

#[tokio::test]
async fn no_write_of_the_python_client_fails_in_three_switchovers_and_each_is_read_back() {
    scenario("python", switchovers).await;
}

async fn switchovers(scope: Scope) -> Result<()> {
    let cluster = Cluster::start(&scope, "outside", 2).await?;
    let (writes, reads) = (
        exposed(&scope, "outside-rw").await?,
        exposed(&scope, "outside-ro").await?,
    );
    let key = secret(&scope, "outside-auth", "admin-key").await?;
    let mut application = Application::start(&writes, &reads, &key)?;
    for request in ["first", "second", "third"] {
        application.answered(WRITES / 4).await?;
        let (before, _) = cluster.master().await?;
        cluster.promote(request, None, "Switchover").await?;
        let record = cluster.promoted(request, seconds(60)).await?;
        assert_eq!(record["result"], "Succeeded", "{record}");
        assert_ne!(cluster.master().await?.0, before);
        cluster.ready(2, START).await?;
    }
    application.answered(WRITES / 4).await?;
    println!("{}", application.finish().await?);
    cluster.same_digests().await
}

/// A Service of the same pods that is reached from outside, at a machine's address: its URL.
async fn exposed(scope: &Scope, name: &str) -> Result<String> {
    let services: Api<Service> = scope.api();
    let inside = services.get(name).await.or_fail(name)?;
    let selector = inside.spec.or_fail(name)?.selector;
    let outside = json!({
        "metadata": { "name": format!("{name}-outside") },
        "spec": { "type": "NodePort", "selector": selector, "ports": [{ "port": REST_PORT }] },
    });
    let outside = serde_json::from_value(outside).or_fail("a Service")?;
    let made = services.create(&PostParams::default(), &outside).await;
    let ports = made.or_fail(name)?.spec.and_then(|spec| spec.ports);
    let port = ports.and_then(|ports| ports.first()?.node_port);
    let machines: Api<Machine> = Api::all(scope.client.clone());
    let list = machines.list(&Default::default()).await.or_fail("nodes")?;
    let mut addresses = list
        .iter()
        .filter_map(|machine| machine.status.as_ref()?.addresses.as_ref())
        .flatten();
    let address = addresses.find(|address| address.type_ == "InternalIP");
    let (address, port) = (address.or_fail("InternalIP")?, port.or_fail("nodePort")?);
    Ok(format!("http://{}:{port}", address.address))
}

/// `clients/python/tests/switchovers.py`, running.
struct Application {
    process: Child,
    input: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
    writes: u64,
}

impl Application {
    fn start(writes: &str, reads: &str, key: &str) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let python = root.join("target/client/bin/python");
        ensure(python.exists(), || {
            format!("no {}: run tests/client.sh first", python.display())
        })?;
        let client = root.join("clients/python");
        let mut process = Command::new(python)
            .arg(client.join("tests/switchovers.py"))
            .args([writes, reads, &WRITES.to_string()])
            .env("PYTHONPATH", client.join("src"))
            .env("VECTORIZER_API_KEY", key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .or_fail("running Python")?;
        let input = process.stdin.take().or_fail("its standard input")?;
        let said = process.stdout.take().or_fail("its standard output")?;
        Ok(Application {
            process,
            input,
            said: BufReader::new(said).lines(),
            writes: 0,
        })
    }

    /// Waits until `more` further writes were answered.
    async fn answered(&mut self, more: u64) -> Result<()> {
        let goal = self.writes + more;
        while self.writes < goal {
            let line = self.line(seconds(90)).await?;
            self.writes = line.parse().or_fail(&line)?;
        }
        Ok(())
    }

    /// Its next line.
    async fn line(&mut self, within: Duration) -> Result<String> {
        let next = tokio::time::timeout(within, self.said.next_line()).await;
        let next = next.or_fail("waiting for the Python application")?;
        let ended = || Failure::new("the Python application has ended; it says why above");
        next.or_fail("reading")?.ok_or_else(ended)
    }

    /// Lets it end its writes and read all of them back; what it says then.
    async fn finish(mut self) -> Result<String> {
        drop(self.input);
        let mut last = String::new();
        let within = tokio::time::timeout(seconds(180), async {
            while let Some(line) = self.said.next_line().await.or_fail("reading")? {
                last = line;
            }
            self.process.wait().await.or_fail("its end")
        });
        let status = within.await.or_fail("reading back")??;
        ensure(status.success(), || format!("{status}: {last}"))?;
        Ok(last)
    }
}
