//! The state of a scenario that failed, written to files: objects, events, logs and what each node says of itself.
//! No Secret is read into it.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::cluster::secret;
use crate::node::Node;
use crate::scope::{OPERATOR_NAMESPACE, Scope};
use crate::shell;

/// Lines of a log that are shown at once; the file has all of them.
const SHOWN: usize = 15;

/// Writes everything and answers where it is, with the end of the operator's log.
pub async fn write(scope: &Scope) -> String {
    let directory = directory(&scope.namespace);
    if let Err(error) = std::fs::create_dir_all(&directory) {
        return format!("no dump: {}: {error}", directory.display());
    }
    let namespace = scope.namespace.as_str();
    let listing = "all,vc,pvc,cm,lease,pdb,networkpolicy,sa,role,rolebinding";
    save(
        &directory,
        "objects.txt",
        &["get", listing, "-n", namespace, "-o", "wide"],
    )
    .await;
    save(
        &directory,
        "objects.yaml",
        &["get", listing, "-n", namespace, "-o", "yaml"],
    )
    .await;
    save(
        &directory,
        "pods.txt",
        &["describe", "pods", "-n", namespace],
    )
    .await;
    save(&directory, "machines.txt", &["describe", "nodes"]).await;
    let events = ["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"];
    save(&directory, "events.txt", &events).await;
    logs(&directory, scope, namespace).await;
    logs(&directory, scope, OPERATOR_NAMESPACE).await;
    nodes(&directory, scope).await;
    let events = tail(&directory.join("events.txt"));
    format!("state is in {}\n{events}", directory.display())
}

fn directory(namespace: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/e2e");
    root.join(namespace)
}

async fn save(directory: &Path, file: &str, arguments: &[&str]) {
    let text = match shell::run("kubectl", arguments, "").await {
        Ok(output) => output.stdout + &output.stderr,
        Err(why) => why.to_string(),
    };
    // A dump that cannot be written must not hide the failure that it is about.
    let _ = std::fs::write(directory.join(file), text);
}

async fn logs(directory: &Path, scope: &Scope, namespace: &str) {
    let pods: Api<Pod> = Api::namespaced(scope.client.clone(), namespace);
    let Ok(pods) = pods.list(&ListParams::default()).await else {
        return;
    };
    for pod in pods {
        let name = pod.name_any();
        let now = ["logs", "-n", namespace, &name, "--all-containers"];
        save(directory, &format!("{name}.log"), &now).await;
        let restarted = pod
            .status
            .and_then(|status| status.container_statuses)
            .is_some_and(|all| all.iter().any(|one| one.restart_count > 0));
        if restarted {
            let before = [
                "logs",
                "-n",
                namespace,
                &name,
                "--all-containers",
                "--previous",
            ];
            save(directory, &format!("{name}.previous.log"), &before).await;
        }
    }
}

async fn nodes(directory: &Path, scope: &Scope) {
    let selector = ListParams::default().labels("app.kubernetes.io/managed-by=vectorizer-operator");
    let Ok(pods) = scope.api::<Pod>().list(&selector).await else {
        return;
    };
    let mut text = String::new();
    for pod in pods {
        let name = pod.name_any();
        let cluster = pod.labels().get("app.kubernetes.io/instance").cloned();
        let cluster = cluster.unwrap_or_default();
        let internal = format!("{cluster}-internal");
        let key = secret(scope, &internal, "control-token").await;
        let node = Node::new(scope.client.clone(), &scope.namespace, &name, "");
        let node = node.with_key(&key.unwrap_or_default());
        let asked = tokio::time::timeout(crate::wait::seconds(5), node.get("/control/state"));
        let said = match asked.await {
            Ok(Ok(answer)) => answer.body.to_string(),
            Ok(Err(why)) => why.to_string(),
            Err(_) => "no answer in 5 s".to_owned(),
        };
        text += &format!("{name}: {said}\n");
    }
    let _ = std::fs::write(directory.join("nodes.txt"), text);
}

fn tail(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}
