//! A `VectorizerCluster` as its user sees it: applied, patched, watched through its status. Read as plain JSON, not
//! through the operator's own types, so that a renamed field is noticed.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::failure::{Failure, OrFail, Result, ensure};
use crate::node::Node;
use crate::scope::Scope;
use crate::wait::{seconds, until};

/// The whole API version.
pub const API_VERSION: &str = "vectorizer.hivellm.io/v1alpha1";
/// How long a cluster may take to be ready from nothing, on a machine that runs several scenarios at once.
pub const START: Duration = seconds(240);

/// A cluster by name, in a scenario's namespace.
#[derive(Clone)]
pub struct Cluster {
    scope: Scope,
    /// Its name.
    pub name: String,
}

/// Clusters in a namespace, as JSON.
pub fn api(scope: &Scope) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("vectorizer.hivellm.io", "v1alpha1", "VectorizerCluster");
    let resource = ApiResource::from_gvk_with_plural(&kind, "vectorizerclusters");
    Api::namespaced_with(scope.client.clone(), &scope.namespace, &resource)
}

/// A manifest with this spec.
pub fn manifest(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "VectorizerCluster",
        "metadata": { "name": name },
        "spec": spec,
    })
}

/// A value of a Secret, as text.
pub async fn secret(scope: &Scope, name: &str, key: &str) -> Result<String> {
    let secret = scope.api::<Secret>().get(name).await.or_fail(name)?;
    let ByteString(bytes) = secret.data.unwrap_or_default().remove(key).or_fail(key)?;
    String::from_utf8(bytes).or_fail(key)
}

impl Cluster {
    /// One that exists, or is about to.
    pub fn named(scope: &Scope, name: &str) -> Self {
        Cluster {
            scope: scope.clone(),
            name: name.to_owned(),
        }
    }

    /// Creates one; its storage is small unless the spec says otherwise.
    pub async fn create(scope: &Scope, name: &str, mut spec: Value) -> Result<Self> {
        if spec.get("storage").is_none() {
            spec["storage"] = json!({ "size": "64Mi" });
        }
        let object = serde_json::from_value(manifest(name, &spec)).or_fail("manifest")?;
        api(scope)
            .create(&PostParams::default(), &object)
            .await
            .or_fail("creating the VectorizerCluster")?;
        Ok(Cluster::named(scope, name))
    }

    /// Creates one and waits until all of it is ready.
    pub async fn start(scope: &Scope, name: &str, replicas: u64) -> Result<Self> {
        let cluster = Cluster::create(scope, name, json!({ "replicas": replicas })).await?;
        cluster.ready(replicas, START).await?;
        Ok(cluster)
    }

    /// The object.
    pub async fn object(&self) -> Result<Value> {
        let object = api(&self.scope).get(&self.name).await.or_fail(&self.name)?;
        serde_json::to_value(object).or_fail(&self.name)
    }

    /// Merges something into the object.
    pub async fn patch(&self, patch: Value) -> Result<()> {
        api(&self.scope)
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .or_fail("patching the VectorizerCluster")?;
        Ok(())
    }

    /// Waits until the object satisfies `check`, whose error says what is still missing.
    pub async fn wait<T>(
        &self,
        what: &str,
        deadline: Duration,
        check: impl Fn(&Value) -> Result<T>,
    ) -> Result<T> {
        until(what, deadline, || async { check(&self.object().await?) }).await
    }

    /// Waits until the newest spec is carried out: a master, and `replicas` replicas that are ready and connected.
    pub async fn ready(&self, replicas: u64, deadline: Duration) -> Result<()> {
        let what = format!("{} to be ready with {replicas} replicas", self.name);
        self.wait(&what, deadline, |object| {
            let status = &object["status"];
            let seen = status["observedGeneration"].as_u64().unwrap_or_default();
            let generation = object["metadata"]["generation"].as_u64().unwrap_or(1);
            ensure(seen >= generation, || {
                format!("generation {generation} is not observed yet, but {seen}")
            })?;
            ensure(
                status["readyReplicas"].as_u64().unwrap_or_default() == replicas,
                || format!("readyReplicas is {}", status["readyReplicas"]),
            )?;
            condition(object, "Ready").and_then(|(value, why)| {
                ensure(value == "True", || format!("Ready is {value}: {why}"))
            })
        })
        .await
    }

    /// Waits until that many nodes are on record as members, of which `acks` replicas acknowledge each write.
    pub async fn acknowledges(&self, members: usize, acks: u64) -> Result<()> {
        let what = format!("{members} members of {} on record, {acks} acks", self.name);
        self.wait(&what, START, |object| {
            let record = &object["status"]["writeConcern"];
            let found = record["members"].as_array().map(Vec::len);
            let as_asked = (found, record["acks"].as_u64()) == (Some(members), Some(acks));
            ensure(as_asked, || format!("on record: {record}"))
        })
        .await
    }

    /// The master's pod and epoch, as decided.
    pub async fn master(&self) -> Result<(String, u64)> {
        let object = self.object().await?;
        let master = &object["status"]["master"];
        let pod = master["pod"].as_str().or_fail("status.master.pod")?;
        let epoch = master["epoch"].as_u64().or_fail("status.master.epoch")?;
        Ok((pod.to_owned(), epoch))
    }

    /// Asks for a promotion.
    pub async fn promote(&self, request_id: &str, target: Option<&str>, mode: &str) -> Result<()> {
        // Where the machine is slow, nothing is given up for that.
        let mut promote = json!({
            "requestID": request_id, "mode": mode, "target": null, "deadlineSeconds": 120,
        });
        if let Some(target) = target {
            promote["target"] = json!(target);
        }
        self.patch(json!({ "spec": { "promote": promote } })).await
    }

    /// Waits until that request has been dealt with and answers `status.lastPromotion`.
    pub async fn promoted(&self, request_id: &str, deadline: Duration) -> Result<Value> {
        let what = format!("promotion {request_id} to end");
        self.wait(&what, deadline, |object| {
            let last = &object["status"]["lastPromotion"];
            ensure(
                last["requestID"] == request_id && !last["finishedAt"].is_null(),
                || {
                    format!(
                        "lastPromotion is {last}, target {}",
                        object["status"]["target"]
                    )
                },
            )?;
            Ok(last.clone())
        })
        .await
    }

    /// Names of its pods that exist, in order.
    pub async fn pods(&self) -> Result<Vec<String>> {
        let pods: Api<Pod> = self.scope.api();
        let list = pods.list(&ListParams::default()).await.or_fail("pods")?;
        let mut names: Vec<String> = list.iter().map(ResourceExt::name_any).collect();
        let prefixes = [
            format!("{}-master-", self.name),
            format!("{}-replica-", self.name),
        ];
        names.retain(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        names.sort();
        Ok(names)
    }

    /// Its pods except the master.
    pub async fn replicas(&self) -> Result<Vec<String>> {
        let (master, _) = self.master().await?;
        let mut pods = self.pods().await?;
        pods.retain(|pod| *pod != master);
        Ok(pods)
    }

    /// One of its nodes, with the admin key.
    pub async fn node(&self, pod: &str) -> Result<Node> {
        let key = secret(&self.scope, &format!("{}-auth", self.name), "admin-key").await?;
        let client = self.scope.client.clone();
        Ok(Node::new(client, &self.scope.namespace, pod, &key))
    }

    /// The master's node, with the admin key.
    pub async fn master_node(&self) -> Result<Node> {
        let (pod, _) = self.master().await?;
        self.node(&pod).await
    }

    /// Waits until a replica has applied everything that the master has.
    pub async fn caught_up(&self, replica: &str, deadline: Duration) -> Result<()> {
        let what = format!("{replica} to catch up");
        until(&what, deadline, || async {
            let end = self.master_node().await?.status().await?.current_offset;
            let here = self.node(replica).await?.status().await?.current_offset;
            ensure(here >= end, || format!("{here} of {end} operations"))
        })
        .await
    }

    /// Waits until all nodes stand at one position, which they only do once nobody writes, and fails unless they hold the
    /// same there.
    pub async fn same_digests(&self) -> Result<()> {
        let what = format!("all nodes of {} to stand at one position", self.name);
        let nodes = until(&what, seconds(120), || async {
            let mut nodes = Vec::new();
            for pod in self.pods().await? {
                let digests = self.node(&pod).await?.digests().await?;
                nodes.push((pod, digests));
            }
            let at_one = nodes
                .windows(2)
                .all(|two| two[0].1.position == two[1].1.position);
            ensure(at_one, || {
                let all = nodes.iter();
                let stand = all.map(|(pod, digests)| format!("{pod} at {}", digests.position));
                stand.collect::<Vec<_>>().join(", ")
            })?;
            Ok(nodes)
        })
        .await?;
        let (first, expected) = nodes.first().or_fail("nodes")?;
        for (pod, found) in &nodes {
            ensure(found == expected, || {
                format!("{first} holds {expected:?}, {pod} {found:?}")
            })?;
        }
        Ok(())
    }
}

/// Status and message of a condition.
pub fn condition(object: &Value, kind: &str) -> Result<(String, String)> {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions
        .and_then(|all| all.iter().find(|one| one["type"] == kind))
        .ok_or_else(|| Failure::new(format!("condition {kind} is not there yet")))?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    let why = format!("{} ({})", text("message"), text("reason"));
    Ok((text("status"), why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_read_with_its_reason() {
        let object = json!({ "status": { "conditions": [
            { "type": "Ready", "status": "False", "reason": "Waiting", "message": "no master" },
        ] } });
        let (status, why) = condition(&object, "Ready").unwrap();
        assert_eq!(
            (status.as_str(), why.as_str()),
            ("False", "no master (Waiting)")
        );
        assert!(condition(&object, "Degraded").is_err());
    }
}
