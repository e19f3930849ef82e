//! A namespace per scenario: made before it under the "restricted" Pod Security Standard, removed after it, dumped when
//! it fails.

use std::future::Future;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::dump;
use crate::failure::{Failure, OrFail, Result};

/// Where the operator of the scenarios is installed.
pub const OPERATOR_NAMESPACE: &str = "vectorizer-system";

/// A scenario's namespace and the way to the API server.
#[derive(Clone)]
pub struct Scope {
    /// Client of the API server.
    pub client: Client,
    /// The scenario's own namespace.
    pub namespace: String,
}

/// Connects to the cluster that `tests/kind/env.sh` names. Any other is refused: scenarios kill machines.
pub async fn connect() -> Result<Client> {
    let cluster = std::env::var("KIND_CLUSTER_NAME").or_fail(
        "no cluster: run `make cluster` and source tests/kind/env.sh first; KIND_CLUSTER_NAME",
    )?;
    let options = kube::config::KubeConfigOptions {
        context: Some(format!("kind-{cluster}")),
        ..Default::default()
    };
    let config = kube::Config::from_kubeconfig(&options)
        .await
        .or_fail("reading the kubeconfig")?;
    Client::try_from(config).or_fail("connecting to the cluster")
}

impl Scope {
    /// A namespace whose name begins with `e2e-<name>`.
    pub async fn create(client: Client, name: &str) -> Result<Self> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let namespace = format!("e2e-{name}-{}", &unique[..5]);
        let object: Namespace = serde_json::from_value(json!({
            "metadata": {
                "name": namespace,
                "labels": {
                    "vectorizer-e2e": "scenario",
                    "pod-security.kubernetes.io/enforce": "restricted",
                },
            },
        }))
        .or_fail("namespace")?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .create(&PostParams::default(), &object)
            .await
            .or_fail("creating the scenario's namespace")?;
        Ok(Scope { client, namespace })
    }

    /// Objects of a kind in the scenario's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn remove(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces
            .delete(&self.namespace, &DeleteParams::background())
            .await
            .or_fail("deleting the scenario's namespace")?;
        Ok(())
    }
}

/// Runs a scenario in a namespace of its own. Panics with the reason when it fails, after writing the state of the
/// namespace and of the operator to target/e2e/<namespace>/. The namespace stays when `E2E_KEEP` is set.
pub async fn scenario<F, Fut>(name: &str, body: F)
where
    F: FnOnce(Scope) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let scope = match connect().await {
        Ok(client) => Scope::create(client, name).await,
        Err(why) => Err(why),
    };
    let scope = match scope {
        Ok(scope) => scope,
        Err(why) => panic!("{why}"),
    };
    // In a task of its own, so that a failed assertion is dumped like any other failure.
    let outcome = match tokio::spawn(body(scope.clone())).await {
        Ok(outcome) => outcome,
        Err(panicked) => Err(Failure::new(format!("{panicked}"))),
    };
    if let Err(why) = &outcome {
        let place = dump::write(&scope).await;
        eprintln!("{name}: {why}\n{place}");
    }
    if std::env::var_os("E2E_KEEP").is_none()
        && let Err(why) = scope.remove().await
    {
        eprintln!("{name}: {why}");
    }
    if let Err(why) = outcome {
        panic!("{name}: {why}");
    }
}
