//! What the API server tells by itself: label-scoped watches of everything that the operator creates, kept in memory.
//!
//! Of objects that are applied as a whole, and of Secrets, only the metadata is watched.

use std::fmt::Debug;

use futures::stream::{BoxStream, SelectAll, StreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{ObjectMeta, PartialObjectMeta};
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::{Api, Client, Resource, ResourceExt};
use kube_runtime::WatchStreamExt;
use kube_runtime::reflector::store::WriterDropped;
use kube_runtime::reflector::{ObjectRef as Key, Store, store};
use kube_runtime::watcher::{self, Config, Event};
use serde::de::DeserializeOwned;

use crate::api;
use crate::crd::VectorizerCluster;
use crate::names;
use crate::world::Kind;

/// Objects of one namespace, or of all.
#[derive(Clone)]
pub struct Caches {
    /// The custom resources.
    pub clusters: Store<VectorizerCluster>,
    /// StatefulSets, whole.
    pub sets: Store<StatefulSet>,
    /// Pods, whole.
    pub pods: Store<Pod>,
    /// Claims, whole.
    pub claims: Store<PersistentVolumeClaim>,
    /// Leases, whole.
    pub leases: Store<Lease>,
    /// Secrets that the operator made. Not waited for: without the right to watch them, changes are noticed later.
    pub secrets: Store<PartialObjectMeta<Secret>>,
    accounts: Store<PartialObjectMeta<ServiceAccount>>,
    roles: Store<PartialObjectMeta<Role>>,
    bindings: Store<PartialObjectMeta<RoleBinding>>,
    configs: Store<PartialObjectMeta<ConfigMap>>,
    services: Store<PartialObjectMeta<Service>>,
    policies: Store<PartialObjectMeta<NetworkPolicy>>,
    budgets: Store<PartialObjectMeta<PodDisruptionBudget>>,
}

/// What a watch of resources says, of which some may not be readable.
type Guarded<K> = watcher::Result<Event<DeserializeGuard<K>>>;

/// Clusters to look at, because something of them has changed. Driving it keeps the caches up to date.
pub type Triggers = SelectAll<BoxStream<'static, Key<VectorizerCluster>>>;

impl Caches {
    /// Begins to watch a namespace, or all.
    pub fn start(client: &Client, namespace: Option<&str>) -> (Self, Triggers) {
        let mut watch = Watching {
            client,
            namespace,
            triggers: SelectAll::new(),
        };
        let caches = Caches {
            clusters: watch.clusters(),
            sets: watch.watch(true),
            pods: watch.watch(true),
            claims: watch.claims(),
            // Renewed every two seconds: no reason to look at a cluster.
            leases: watch.watch(false),
            secrets: watch.watch(true),
            accounts: watch.watch(true),
            roles: watch.watch(true),
            bindings: watch.watch(true),
            configs: watch.watch(true),
            services: watch.watch(true),
            policies: watch.watch(true),
            budgets: watch.watch(true),
        };
        (caches, watch.triggers)
    }

    /// Until everything but the resources themselves has been listed once: for these the controller's stream of passes
    /// waits, and a store wakes only the last of several who wait for it.
    pub async fn ready(&self) -> Result<(), WriterDropped> {
        self.sets.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.claims.wait_until_ready().await?;
        self.leases.wait_until_ready().await?;
        self.accounts.wait_until_ready().await?;
        self.roles.wait_until_ready().await?;
        self.bindings.wait_until_ready().await?;
        self.configs.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.policies.wait_until_ready().await?;
        self.budgets.wait_until_ready().await
    }

    /// Metadata of every object of one kind that carries the labels of a cluster.
    pub fn objects(&self, kind: Kind, namespace: &str, cluster: &str) -> Vec<ObjectMeta> {
        match kind {
            Kind::ServiceAccount => of(&self.accounts, namespace, cluster),
            Kind::Role => of(&self.roles, namespace, cluster),
            Kind::RoleBinding => of(&self.bindings, namespace, cluster),
            Kind::ConfigMap => of(&self.configs, namespace, cluster),
            Kind::Service => of(&self.services, namespace, cluster),
            Kind::NetworkPolicy => of(&self.policies, namespace, cluster),
            Kind::PodDisruptionBudget => of(&self.budgets, namespace, cluster),
            Kind::StatefulSet => of(&self.sets, namespace, cluster),
        }
    }
}

/// Whether an object carries the labels of a cluster.
pub fn belongs(metadata: &ObjectMeta, namespace: &str, cluster: &str) -> bool {
    let label = metadata.labels.as_ref().and_then(|l| l.get(names::CLUSTER));
    metadata.namespace.as_deref() == Some(namespace) && label.is_some_and(|l| l == cluster)
}

fn of<K>(store: &Store<K>, namespace: &str, cluster: &str) -> Vec<ObjectMeta>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let ours = |object: &K| belongs(object.meta(), namespace, cluster);
    store
        .state_filter(ours)
        .iter()
        .map(|object| object.meta().clone())
        .collect()
}

struct Watching<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
    triggers: Triggers,
}

impl Watching<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    fn clusters(&mut self) -> Store<VectorizerCluster> {
        let (reader, writer) = store();
        let api = self.api::<DeserializeGuard<VectorizerCluster>>();
        let events = watcher::watcher(api, watching()).default_backoff();
        let events = events.filter_map(|event| std::future::ready(readable(event)));
        let keys =
            logged(events.reflect(writer).touched_objects()).map(|object| Key::from_obj(&object));
        self.triggers.push(keys.boxed());
        reader
    }

    /// Claims outlive their cluster, and carry fewer labels for that.
    fn claims(&mut self) -> Store<PersistentVolumeClaim> {
        self.watch_with(true, selecting(names::CLUSTER))
    }

    fn watch<K>(&mut self, triggers: bool) -> Store<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let ours = format!("{}={}", names::MANAGED_BY, names::MANAGER);
        self.watch_with(triggers, selecting(&ours))
    }

    fn watch_with<K>(&mut self, triggers: bool, config: Config) -> Store<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let (reader, writer) = store();
        let events = watcher::watcher(self.api::<K>(), config);
        let events = events.default_backoff().modify(forget_managed_fields);
        let keys = logged(events.reflect(writer).touched_objects());
        let keys = keys.filter_map(move |object| {
            std::future::ready(cluster_of(object.meta()).filter(|_| triggers))
        });
        self.triggers.push(keys.boxed());
        reader
    }
}

/// Leaves out what cannot be read, stored under another version of the definition: one such resource must not be in the
/// way of all others.
fn readable<K: Resource>(event: Guarded<K>) -> Option<watcher::Result<Event<K>>> {
    let read = |guard: DeserializeGuard<K>| {
        let unreadable = |invalid: &InvalidObject| {
            let name = invalid.metadata.name.as_deref().unwrap_or_default();
            let namespace = invalid.metadata.namespace.as_deref().unwrap_or_default();
            tracing::error!(
                cluster = format!("{namespace}/{name}"),
                error = invalid.error,
                "a resource cannot be read and is left alone"
            );
        };
        guard.0.inspect_err(unreadable).ok()
    };
    Some(Ok(match event {
        Ok(Event::Apply(guard)) => Event::Apply(read(guard)?),
        Ok(Event::Delete(guard)) => Event::Delete(read(guard)?),
        Ok(Event::InitApply(guard)) => Event::InitApply(read(guard)?),
        Ok(Event::Init) => Event::Init,
        Ok(Event::InitDone) => Event::InitDone,
        Err(error) => return Some(Err(error)),
    }))
}

/// They are larger than the rest and nobody reads them.
fn forget_managed_fields<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

fn selecting(labels: &str) -> Config {
    watching().labels(labels)
}

/// A watch is begun again often, so that a connection which is dead is told from one on which nothing happens.
fn watching() -> Config {
    Config::default().timeout(api::WATCH_SECS)
}

fn cluster_of(metadata: &ObjectMeta) -> Option<Key<VectorizerCluster>> {
    let cluster = metadata.labels.as_ref()?.get(names::CLUSTER)?;
    Some(Key::new(cluster).within(metadata.namespace.as_deref()?))
}

/// A watch that broke is begun again, with a growing pause; until then the last known state is worked with.
fn logged<T>(stream: impl StreamExt<Item = Result<T, watcher::Error>>) -> impl StreamExt<Item = T> {
    stream.filter_map(|event| {
        std::future::ready(match event {
            Ok(object) => Some(object),
            Err(error) => {
                tracing::warn!(%error, "a watch broke and is begun again");
                None
            }
        })
    })
}

/// The custom resource that an object is named after.
pub fn key(cluster: &VectorizerCluster) -> Key<VectorizerCluster> {
    Key::new(&cluster.name_any()).within(&cluster.namespace().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_resource_that_cannot_be_read_is_left_out_and_the_others_are_not() {
        let event = |replicas: serde_json::Value| {
            let resource = json!({
                "apiVersion": "vectorizer.hivellm.io/v1alpha1", "kind": "VectorizerCluster",
                "metadata": { "name": "demo", "namespace": "default" },
                "spec": { "replicas": replicas },
            });
            let guarded: DeserializeGuard<VectorizerCluster> =
                serde_json::from_value(resource).unwrap();
            readable(Ok(Event::InitApply(guarded)))
        };
        assert!(matches!(event(json!(2)), Some(Ok(Event::InitApply(_)))));
        assert!(event(json!("two")).is_none());
        let end = readable::<VectorizerCluster>(Ok(Event::InitDone));
        assert!(matches!(end, Some(Ok(Event::InitDone))));
    }
}
