//! The scenario's side of the checker: a pod in the scenario's namespace, ordered about through a port-forward.

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::report::Report;
use super::serve::{PORT, Progress};
use crate::cluster::Cluster;
use crate::failure::{Failure, OrFail, Result, ensure};
use crate::node::Node;
use crate::scope::Scope;
use crate::wait::{seconds, until};

/// The image that holds this crate's binary.
pub const IMAGE: &str = "localhost/vectorizer-e2e:dev";

/// A running checker.
pub struct Checker {
    orders: Node,
}

/// Name of the checker's pod.
const POD: &str = "checker";

impl Checker {
    /// Starts one against a cluster and waits until writes are acknowledged. `machine` pins it to a node.
    ///
    /// It waits for an answer as long as a node may hold a write.
    pub async fn start(scope: &Scope, cluster: &Cluster, machine: Option<&str>) -> Result<Self> {
        Self::start_with(scope, cluster, machine, &[]).await
    }

    /// The same for a scenario in which a node or its machine goes, from which no answer will ever come.
    pub async fn start_impatient(
        scope: &Scope,
        cluster: &Cluster,
        machine: Option<&str>,
    ) -> Result<Self> {
        let impatient = ["--timeout-ms", "3000", "--connect-ms", "1000"];
        Self::start_with(scope, cluster, machine, &impatient).await
    }

    async fn start_with(
        scope: &Scope,
        cluster: &Cluster,
        machine: Option<&str>,
        options: &[&str],
    ) -> Result<Self> {
        let pod = pod(&cluster.name, machine, options);
        let pod: Pod = serde_json::from_value(pod).or_fail("the checker's pod")?;
        scope
            .api::<Pod>()
            .create(&PostParams::default(), &pod)
            .await
            .or_fail("creating the checker")?;
        let checker = Checker {
            orders: Node::bare(scope.client.clone(), &scope.namespace, POD, PORT),
        };
        until("the checker's first writes", seconds(120), || async {
            let progress = checker.progress().await?;
            ensure(progress.acknowledged >= 10, || {
                format!("{} are acknowledged", progress.acknowledged)
            })
        })
        .await?;
        Ok(checker)
    }

    /// How far it is.
    pub async fn progress(&self) -> Result<Progress> {
        let answer = self.orders.get("/progress").await?.ok()?;
        serde_json::from_value(answer).or_fail("progress")
    }

    /// Begins another phase of the report.
    pub async fn phase(&self, name: &str) -> Result<()> {
        let path = format!("/phase/{name}");
        self.orders.post(&path, &Value::Null).await?.ok()?;
        Ok(())
    }

    /// Waits until `more` further writes have been acknowledged.
    pub async fn acknowledged(&self, more: u64, deadline: std::time::Duration) -> Result<()> {
        let goal = self.progress().await?.acknowledged + more;
        until(&format!("{more} more writes"), deadline, || async {
            let progress = self.progress().await?;
            ensure(progress.acknowledged >= goal, || {
                format!(
                    "{} of {goal}, the last {} ms ago",
                    progress.acknowledged, progress.silent_ms
                )
            })
        })
        .await
    }

    /// Stops writing, reads everything back and answers the verdict; whatever no disruption excuses is an error.
    pub async fn finish(self) -> Result<Report> {
        let answer = self.orders.post("/finish", &Value::Null).await?.ok()?;
        let report: Report = serde_json::from_value(answer).or_fail("report")?;
        let violations = report.violations();
        ensure(violations.is_empty(), || violations.join("; "))?;
        Ok(report)
    }
}

impl Report {
    /// Fails unless every acknowledged write was read back.
    pub fn nothing_lost(&self) -> Result<()> {
        if self.lost == 0 {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{} of {} acknowledged writes are lost, among them {:?}",
            self.lost, self.acknowledged, self.lost_ids
        )))
    }
}

fn pod(cluster: &str, machine: Option<&str>, options: &[&str]) -> Value {
    let url = format!("http://{cluster}-rw:15002");
    let args = [&["checker", "--url", &url], options].concat();
    let mut pod = json!({
        "metadata": { "name": POD, "labels": { "app": POD } },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "checker",
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "args": args,
                "env": [{
                    "name": "ADMIN_KEY",
                    "valueFrom": {
                        "secretKeyRef": { "name": format!("{cluster}-auth"), "key": "admin-key" },
                    },
                }],
                "ports": [{ "containerPort": PORT }],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    });
    if let Some(machine) = machine {
        pod["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": machine });
    }
    pod
}
