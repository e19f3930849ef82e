//! Secrets that lack values, objects by server-side apply, and what is wanted no more.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{
    DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams, Preconditions,
};
use kube::{Api, Client};
use serde_json::json;
use uuid::Uuid;

use super::{Done, Targets, refusal};
use crate::api::words;
use crate::crd::Retention;
use crate::names::{self, reason};
use crate::observe::{api_resource, is_made, is_owned, stamp};
use crate::plan::{Note, Plan};
use crate::render::{self, Object};
use crate::world::{Cluster, ObjectRef, Stamp, World};

/// An object that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {}", words(source))]
pub struct ApplyError {
    what: String,
    source: kube::Error,
}

impl ApplyError {
    /// Whether the namespace is being deleted.
    fn is_namespace_going(&self) -> bool {
        let kube::Error::Api(status) = &self.source else {
            return false;
        };
        let causes = status.details.iter().flat_map(|d| &d.causes);
        status.code == 403
            && causes
                .into_iter()
                .any(|c| c.reason == "NamespaceTerminating")
    }
}

/// Writes everything; what goes wrong is noted and does not stop the rest.
pub(super) async fn apply(to: &Targets<'_>, world: &World, plan: &Plan, done: &mut Done) {
    for (name, keys) in &plan.secrets {
        let before = to.credentials.made.get(name);
        match fill_secret(to.client, &world.cluster, name, keys, before).await {
            Ok(restored) => {
                done.secrets_written = true;
                if restored {
                    let note = restored_secret(name);
                    to.events.publish(&world.cluster, note).await;
                }
            }
            Err(error) => done.troubles.push(error.to_string()),
        }
    }
    for object in &plan.objects {
        match apply_one(to.client, &world.cluster, object).await {
            Ok(stamp) => done
                .applied
                .push((object.reference.clone(), (object.hash.clone(), stamp))),
            Err(error) if error.is_namespace_going() => {
                // The resource goes with it, in any moment.
                done.namespace_going = true;
                return;
            }
            Err(error) => match refusal(&error.source) {
                Some(words) => {
                    tracing::warn!(%error, "an object was refused");
                    let what = object.reference.to_string();
                    done.refusals.push((what, object.hash.clone(), words));
                }
                None => {
                    tracing::warn!(%error, "an object could not be written");
                    done.troubles.push(error.to_string());
                }
            },
        }
    }
    for reference in &plan.prune {
        match prune(to.client, &world.cluster, reference).await {
            Ok(()) => done.pruned.push(reference.clone()),
            Err(error) => done.troubles.push(error.to_string()),
        }
    }
}

fn restored_secret(name: &str) -> Note {
    Note {
        warning: true,
        reason: reason::SECRET_RESTORED,
        message: format!("Secret {name} was deleted; it is written again with what it held"),
    }
}

/// Fields that others set are theirs, except those that we set too.
async fn apply_one(
    client: &Client,
    cluster: &Cluster,
    object: &Object,
) -> Result<Stamp, ApplyError> {
    let reference = &object.reference;
    let api = dynamic(client, cluster, reference);
    let params = PatchParams::apply(names::MANAGER).force();
    let applied = api
        .patch(&reference.name, &params, &Patch::Apply(&object.body))
        .await;
    match applied {
        Ok(stored) => Ok(stamp(&stored.metadata)),
        Err(source) => Err(ApplyError {
            what: reference.to_string(),
            source,
        }),
    }
}

async fn prune(
    client: &Client,
    cluster: &Cluster,
    reference: &ObjectRef,
) -> Result<(), ApplyError> {
    let api = dynamic(client, cluster, reference);
    let error = |source| ApplyError {
        what: format!("deleting {reference}"),
        source,
    };
    let Some(found) = api.get_metadata_opt(&reference.name).await.map_err(error)? else {
        return Ok(());
    };
    if !is_owned(&found.metadata, cluster.uid) {
        return Ok(());
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: found.metadata.uid,
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    api.delete(&reference.name, &params).await.map_err(error)?;
    Ok(())
}

fn dynamic(client: &Client, cluster: &Cluster, reference: &ObjectRef) -> Api<DynamicObject> {
    Api::namespaced_with(
        client.clone(),
        &cluster.namespace,
        &api_resource(reference.kind),
    )
}

/// Generates what is missing, and never touches a value that is there: nodes and clients have it already. What is gone
/// and was `before` is written again as it was. Answers whether it was.
async fn fill_secret(
    client: &Client,
    cluster: &Cluster,
    name: &str,
    keys: &[&'static str],
    before: Option<&BTreeMap<String, ByteString>>,
) -> Result<bool, ApplyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &cluster.namespace);
    let error = |source| ApplyError {
        what: format!("Secret {name}"),
        source,
    };
    let fresh = |key: &&str| ((*key).to_owned(), ByteString(generate().into_bytes()));
    let known = |key: &&str| Some(((*key).to_owned(), before?.get(*key)?.clone()));
    let Some(found) = api.get_opt(name).await.map_err(error)? else {
        let secret = Secret {
            metadata: metadata(cluster, name),
            type_: Some("Opaque".to_owned()),
            data: Some(
                keys.iter()
                    .map(|key| known(key).unwrap_or_else(|| fresh(key)))
                    .collect(),
            ),
            ..Secret::default()
        };
        api.create(&PostParams::default(), &secret)
            .await
            .map_err(error)?;
        return Ok(before.is_some());
    };
    if !is_made(&found.metadata, cluster.uid) {
        // Made by somebody in this very moment: looked at again in the next pass.
        return Ok(false);
    }
    let has = found.data.unwrap_or_default();
    let missing: BTreeMap<String, ByteString> = keys
        .iter()
        .filter(|key| has.get(**key).is_none_or(|value| value.0.is_empty()))
        .map(fresh)
        .collect();
    // Over the version that was looked at: somebody may be filling it in at the same time.
    let patch = json!({
        "metadata": { "resourceVersion": found.metadata.resource_version },
        "data": missing,
    });
    let params = PatchParams {
        field_manager: Some(names::MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch(name, &params, &Patch::Merge(&patch))
        .await
        .map_err(error)?;
    Ok(false)
}

/// Clients' keys stay as long as the data that they are for: a cluster that is made again over its volumes has the keys
/// that its clients know.
fn metadata(cluster: &Cluster, name: &str) -> ObjectMeta {
    let kept = cluster.spec.storage.retention.when_deleted == Retention::Retain;
    if kept && name == cluster.auth_secret() {
        render::kept_metadata(cluster, name.to_owned())
    } else {
        render::metadata(cluster, name.to_owned())
    }
}

/// 244 random bits from the operating system, as 64 hexadecimal digits.
fn generate() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}
