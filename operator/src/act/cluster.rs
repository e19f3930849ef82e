//! The smaller writes: status, events, labels, claims, pods.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{
    DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Refused;
use crate::api::words;
use crate::crd::{ClusterStatus, VectorizerCluster};
use crate::names;
use crate::plan::Note;
use crate::world::{Cluster, Labels, Set};

/// Writes a status over the very version that `over` has, and returns what is stored then.
pub async fn write_status(
    client: &Client,
    over: &VectorizerCluster,
    status: ClusterStatus,
) -> Result<VectorizerCluster, Refused> {
    let api: Api<VectorizerCluster> =
        Api::namespaced(client.clone(), &over.namespace().unwrap_or_default());
    let name = over.name_any();
    let mut next = over.clone();
    next.metadata.managed_fields = None;
    next.status = Some(status);
    match api
        .replace_status(&name, &PostParams::default(), &next)
        .await
    {
        Ok(stored) => Ok(stored),
        Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
            Err(Refused::Outdated)
        }
        Err(source) => Err(Refused::Api {
            what: format!("status of {name}"),
            source,
        }),
    }
}

/// Publishes events.
pub struct Events {
    client: Client,
    instance: String,
}

impl Events {
    /// Events of this process.
    pub fn new(client: Client, instance: String) -> Self {
        Events { client, instance }
    }

    /// Tells the user. An event that cannot be written is only logged: nothing depends on it.
    pub async fn publish(&self, about: &Cluster, note: Note) {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &about.namespace);
        let event = self.event(about, note);
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::warn!(error = words(&error), "an event could not be written");
        }
    }

    fn event(&self, about: &Cluster, note: Note) -> Event {
        // The API server takes no more than 1 kB.
        let mut text = note.message;
        while text.len() > 1000 {
            text.pop();
        }
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{}", about.name, Uuid::new_v4().simple())),
                namespace: Some(about.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(note.reason.to_owned()),
            action: Some(note.reason.to_owned()),
            note: Some(text),
            regarding: Some(ObjectReference {
                api_version: Some(VectorizerCluster::api_version(&()).into_owned()),
                kind: Some(VectorizerCluster::kind(&()).into_owned()),
                name: Some(about.name.clone()),
                namespace: Some(about.namespace.clone()),
                uid: Some(about.uid.to_string()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(format!("vectorizer.hivellm.io/{}", names::MANAGER)),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

/// Labels the pod with that uid, and no other of that name. Answers the labels that it has then.
pub(super) async fn label(
    client: &Client,
    cluster: &Cluster,
    pod: &str,
    uid: &str,
    role: Option<&str>,
    read_eligible: Option<bool>,
) -> Result<Labels, Refused> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &cluster.namespace);
    let mut labels = Map::new();
    if let Some(role) = role {
        labels.insert(names::ROLE.to_owned(), json!(role));
    }
    if let Some(eligible) = read_eligible {
        let value = if eligible { json!("true") } else { Value::Null };
        labels.insert(names::READ_ELIGIBLE.to_owned(), value);
    }
    let patch = json!({ "metadata": { "uid": uid, "labels": labels } });
    let outcome = api
        .patch_metadata(pod, &manager(), &Patch::Merge(&patch))
        .await;
    let labelled = outcome.map_err(|source| Refused::Api {
        what: format!("label of {pod}"),
        source,
    })?;
    Ok(Labels::of(&labelled.metadata))
}

pub(super) async fn grow_claim(
    client: &Client,
    cluster: &Cluster,
    claim: &str,
    size: &str,
) -> Result<(), Refused> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &cluster.namespace);
    let patch = json!({ "spec": { "resources": { "requests": { "storage": size } } } });
    let outcome = api.patch(claim, &manager(), &Patch::Merge(&patch)).await;
    outcome.map(drop).map_err(|source| Refused::Api {
        what: format!("growing the claim {claim}"),
        source,
    })
}

/// Deletes the claim of that very version and no other: one that something was bound to since has another.
pub(super) async fn delete_claim(
    client: &Client,
    cluster: &Cluster,
    claim: &str,
    uid: &str,
    version: &str,
) -> Result<(), Refused> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &cluster.namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: Some(version.to_owned()),
        }),
        ..DeleteParams::default()
    };
    gone(
        api.delete(claim, &params).await.map(drop),
        format!("replacing the empty claim {claim}"),
    )
}

/// Gives the pod with that uid the labels back that it is found by.
pub(super) async fn relabel(
    client: &Client,
    cluster: &Cluster,
    pod: &str,
    uid: &str,
    set: Set,
) -> Result<(), Refused> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &cluster.namespace);
    let mut labels = names::labels(&cluster.name);
    labels.insert(names::SET.to_owned(), set.as_str().to_owned());
    let patch = json!({ "metadata": { "uid": uid, "labels": labels } });
    let outcome = api
        .patch_metadata(pod, &manager(), &Patch::Merge(&patch))
        .await;
    outcome.map(drop).map_err(|source| Refused::Api {
        what: format!("labels of {pod}"),
        source,
    })
}

pub(super) async fn orphan(
    client: &Client,
    cluster: &Cluster,
    set: &str,
    uid: &str,
) -> Result<(), Refused> {
    let api: Api<StatefulSet> = Api::namespaced(client.clone(), &cluster.namespace);
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..exactly(uid)
    };
    gone(
        api.delete(set, &params).await.map(drop),
        format!("re-creating the StatefulSet {set}"),
    )
}

pub(super) async fn delete_pod(
    client: &Client,
    cluster: &Cluster,
    pod: &str,
    uid: &str,
) -> Result<(), Refused> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &cluster.namespace);
    gone(
        api.delete(pod, &exactly(uid)).await.map(drop),
        format!("replacing the pod {pod}"),
    )
}

/// What is gone, or is another by now, needs no deletion.
fn gone(outcome: Result<(), kube::Error>, what: String) -> Result<(), Refused> {
    match outcome {
        Ok(()) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(source) => Err(Refused::Api { what, source }),
    }
}

fn exactly(uid: &str) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    }
}

fn manager() -> PatchParams {
    PatchParams {
        field_manager: Some(names::MANAGER.to_owned()),
        ..PatchParams::default()
    }
}
