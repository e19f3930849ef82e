//! Claims as the API server has them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Resource};

use super::cache::belongs;
use super::events::{self, Heard};
use super::{ObserveError, Sources};
use crate::api::shortened;
use crate::crd::Amount;
use crate::names;
use crate::world::{ClaimSeen, Cluster, Trouble};

/// The cluster's claims by name, those of the pods in `pods` also where they carry no label any more.
pub(super) async fn claims(
    from: &Sources<'_>,
    cluster: &Cluster,
    pods: impl Iterator<Item = String>,
    heard: &mut Heard,
) -> Result<BTreeMap<String, ClaimSeen>, ObserveError> {
    let ours = |c: &PersistentVolumeClaim| belongs(&c.metadata, &cluster.namespace, &cluster.name);
    let mut found: BTreeMap<String, PersistentVolumeClaim> = BTreeMap::new();
    for claim in from.caches.claims.state_filter(ours) {
        let name = claim.metadata.name.clone().unwrap_or_default();
        found.insert(name, (*claim).clone());
    }
    let api: Api<PersistentVolumeClaim> = Api::namespaced(from.client.clone(), &cluster.namespace);
    for name in pods.map(|pod| names::claim(&pod)) {
        if found.contains_key(&name) {
            continue;
        }
        let claim = api.get_opt(&name).await.map_err(|source| ObserveError {
            what: format!("PersistentVolumeClaim {name}"),
            source,
        })?;
        found.extend(claim.map(|claim| (name, claim)));
    }
    let mut seen = BTreeMap::new();
    for (name, claim) in found {
        let Some(mut one) = claim_seen(&claim, cluster.created) else {
            continue;
        };
        if !one.bound && one.trouble.is_none() {
            let kind = PersistentVolumeClaim::kind(&());
            let said = events::about(from, heard, &cluster.namespace, &kind, &name, &one.uid);
            one.trouble = events::last_warning(&said.await);
        }
        seen.insert(name, one);
    }
    Ok(seen)
}

/// What matters of a claim of a cluster that was made at `since`; `None` of one that asks for no size.
pub(super) fn claim_seen(
    claim: &PersistentVolumeClaim,
    since: Option<Timestamp>,
) -> Option<ClaimSeen> {
    let spec = claim.spec.as_ref()?;
    let status = claim.status.as_ref();
    // What is to be filled from elsewhere is not empty, although nothing is bound to it yet.
    let filled = spec.data_source.is_some() || spec.data_source_ref.is_some();
    let pending = status.and_then(|s| s.phase.as_deref()) == Some("Pending");
    let mut conditions = status.iter().flat_map(|s| s.conditions.iter().flatten());
    let failed = ["ControllerResizeError", "NodeResizeError"];
    let resize = conditions.find(|c| c.status == "True" && failed.contains(&c.type_.as_str()));
    Some(ClaimSeen {
        uid: claim.metadata.uid.clone().unwrap_or_default(),
        version: claim.metadata.resource_version.clone().unwrap_or_default(),
        requested: requested(claim)?,
        class: spec.storage_class_name.clone(),
        blank: is_blank(claim, since),
        bound: spec.volume_name.is_some() || filled || !pending,
        deleting: claim.metadata.deletion_timestamp.is_some(),
        trouble: resize.map(|c| Trouble {
            reason: c.type_.clone(),
            message: shortened(c.message.as_deref().unwrap_or_default(), 600),
        }),
    })
}

/// Annotation that Kubernetes puts on a claim when it has a volume made for it.
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";

/// Whether the volume of a claim can hold nothing from before the cluster, which was made at `since`. Restored volumes
/// have a source, and one that somebody made by hand is bound without anybody being asked to make it.
pub(super) fn is_blank(claim: &PersistentVolumeClaim, since: Option<Timestamp>) -> bool {
    let (Some(spec), Some(made)) = (&claim.spec, &claim.metadata.creation_timestamp) else {
        return false;
    };
    let annotations = claim.metadata.annotations.as_ref();
    let made_for_it = annotations.is_some_and(|a| a.contains_key(PROVISIONER));
    since.is_some_and(|since| made.0 >= since)
        && spec.data_source.is_none()
        && spec.data_source_ref.is_none()
        && (made_for_it || spec.volume_name.is_none())
}

/// The size that a claim asks for.
pub(super) fn requested(claim: &PersistentVolumeClaim) -> Option<Amount> {
    let resources = claim.spec.as_ref()?.resources.as_ref()?;
    let size = resources.requests.as_ref()?.get("storage")?;
    Some(Amount::from(size.0.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(spec: &str, status: &str) -> ClaimSeen {
        let yaml = format!(
            "metadata: {{ name: data-demo-master-0, uid: u, resourceVersion: '7' }}\nspec: {{ resources: {{ requests: {{ storage: 1Gi }} }}, {spec} }}\nstatus: {{ {status} }}"
        );
        claim_seen(&serde_yaml::from_str(&yaml).unwrap(), None).unwrap()
    }

    #[test]
    fn only_a_claim_that_nothing_is_bound_to_and_nothing_will_fill_counts_as_empty() {
        let pending = "phase: Pending";
        assert!(!seen("storageClassName: fast", pending).bound);
        assert!(seen("storageClassName: fast", "phase: Bound").bound);
        assert!(seen("volumeName: pv-1", pending).bound, "it is being bound");
        assert!(
            seen("storageClassName: fast", "").bound,
            "nobody said that it is not"
        );
        assert!(seen("dataSource: { kind: VolumeSnapshot, name: s }", pending).bound);
    }

    #[test]
    fn a_volume_that_could_not_be_resized_says_why() {
        let why = "conditions: [{ type: NodeResizeError, status: 'True', message: no room }]";
        let claim = seen("volumeName: pv-1", why);
        assert_eq!(
            claim.trouble.unwrap().to_string(),
            "NodeResizeError: no room"
        );
    }
}
