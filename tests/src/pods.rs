//! Pods that are replaced by others of the same name.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::DeleteParams;

use crate::cluster::START;
use crate::failure::{OrFail, Result, ensure};
use crate::scope::Scope;
use crate::wait::until;

/// Whether it says that it is ready, and is not on its way out.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one.type_ == "Ready" && one.status == "True")
    });
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// Deletes a pod and waits until another one of the same name is ready.
pub async fn replace(scope: &Scope, pod: &str, how: DeleteParams) -> Result<()> {
    let pods = scope.api::<Pod>();
    let before = pods.get(pod).await.or_fail(pod)?.uid();
    pods.delete(pod, &how).await.or_fail("deleting the pod")?;
    until(&format!("{pod} to be back"), START, || async {
        let found = pods.get(pod).await.or_fail(pod)?;
        ensure(found.uid() != before && is_ready(&found), || {
            "it is not ready yet".to_owned()
        })
    })
    .await
}

/// The same with its volume, as docs/operations.md says.
pub async fn replace_without_volume(scope: &Scope, pod: &str) -> Result<()> {
    let (claims, now) = (
        scope.api::<PersistentVolumeClaim>(),
        DeleteParams::default(),
    );
    let claim = claims.delete(&format!("data-{pod}"), &now).await;
    claim.or_fail("deleting the claim")?;
    replace(scope, pod, now).await
}
