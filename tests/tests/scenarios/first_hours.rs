//! The mistakes that people make when they create a cluster: each leads to a condition and an event that say why, in the
//! words of the API server, the scheduler, the kubelet or the provisioner, and goes away by itself once it is mended.

use k8s_openapi::api::core::v1::{
    LimitRange, Node as Machine, PersistentVolume, ResourceQuota, Secret,
};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use vectorizer_e2e::cluster::{Cluster, START, condition, secret};
use vectorizer_e2e::failure::{OrFail, Result, ensure};
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::shell;
use vectorizer_e2e::wait::{seconds, until};

/// The image that `tests/images.sh` builds.
const IMAGE: &str = "localhost/vectorizer-node:dev";

/// A cluster of one node with a mistake in it.
async fn mistaken(scope: &Scope, mut spec: Value) -> Result<Cluster> {
    spec["replicas"] = json!(0);
    Cluster::create(scope, "first", spec).await
}

/// Waits until the cluster says why it does not come: `reason` in the conditions, each of `words` in their messages, and
/// an event.
async fn says(scope: &Scope, cluster: &Cluster, reason: &str, words: &[&str]) -> Result<()> {
    let what = format!("the condition PodsRunning to say {reason} and {words:?}");
    cluster
        .wait(&what, seconds(120), |object| {
            for of in ["PodsRunning", "Degraded", "Ready"] {
                let (value, why) = condition(object, of)?;
                let wrong = if of == "Degraded" { "True" } else { "False" };
                let said = why.ends_with(&format!("({reason})"));
                let whole = words.iter().all(|word| why.contains(word));
                ensure(value == wrong && said && whole && why.len() < 1000, || {
                    format!("{of} is {value}: {why}")
                })?;
            }
            Ok(())
        })
        .await?;
    until(&format!("an event {reason}"), seconds(30), || async {
        let events: Api<Event> = scope.api();
        let list = events
            .list(&ListParams::default())
            .await
            .or_fail("events")?;
        let ours = |event: &&Event| {
            let about = event.regarding.as_ref().and_then(|o| o.kind.as_deref());
            about == Some("VectorizerCluster") && event.reason.as_deref() == Some(reason)
        };
        let told: Vec<_> = list
            .iter()
            .filter(ours)
            .filter_map(|e| e.note.clone())
            .collect();
        let whole = |note: &String| words.iter().all(|word| note.contains(word));
        ensure(told.iter().any(whole), || format!("events are {told:?}"))
    })
    .await
}

/// Waits until the cluster works and says nothing of it any more.
async fn mended(cluster: &Cluster) -> Result<()> {
    cluster.ready(0, START).await?;
    cluster
        .wait("every condition to be well", seconds(60), |object| {
            for (of, well) in [
                ("PodsRunning", "True"),
                ("VolumesAsWanted", "True"),
                ("Degraded", "False"),
            ] {
                let (value, why) = condition(object, of)?;
                ensure(value == well, || format!("{of} is {value}: {why}"))?;
            }
            Ok(())
        })
        .await
}

async fn put<K>(scope: &Scope, object: Value) -> Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + DeserializeOwned
        + serde::Serialize
        + Clone
        + std::fmt::Debug,
    K::DynamicType: Default,
{
    let typed: K = serde_json::from_value(object).or_fail("manifest")?;
    let made = scope
        .api::<K>()
        .create(&PostParams::default(), &typed)
        .await;
    made.or_fail("creating an object beside the cluster")?;
    Ok(())
}

#[tokio::test]
async fn an_image_that_does_not_exist_is_named_and_so_is_a_pull_secret() {
    scenario("image", |scope| async move {
        let spec = json!({
            "image": "localhost/vectorizer-node:typo", "imagePullSecrets": [{ "name": "forgotten" }],
        });
        let cluster = mistaken(&scope, spec).await?;
        let words = ["localhost/vectorizer-node:typo", "forgotten"];
        says(&scope, &cluster, "ImageNotPulled", &words).await?;
        let right = json!({ "spec": { "image": IMAGE, "imagePullSecrets": [] } });
        cluster.patch(right).await?;
        mended(&cluster).await
    })
    .await;
}

#[tokio::test]
async fn a_storage_class_that_nobody_provisions_is_named_and_can_be_corrected() {
    scenario("class", |scope| async move {
        let storage = json!({ "size": "64Mi", "storageClassName": "fats" });
        let cluster = mistaken(&scope, json!({ "storage": storage })).await?;
        let words = [
            "data-first-master-0",
            "of class fats",
            "storageclass.storage.k8s.io \"fats\" not found",
        ];
        says(&scope, &cluster, "VolumeNotProvisioned", &words).await?;
        let right = json!({ "spec": { "storage": { "storageClassName": null } } });
        cluster.patch(right).await?;
        mended(&cluster).await
    })
    .await;
}

#[tokio::test]
async fn a_quota_that_is_full_is_named() {
    scenario("quota", |scope| async move {
        let quota = json!({ "metadata": { "name": "few" }, "spec": { "hard": { "pods": "0" } } });
        put::<ResourceQuota>(&scope, quota).await?;
        let cluster = mistaken(&scope, json!({})).await?;
        says(&scope, &cluster, "PodNotCreated", &["exceeded quota: few"]).await?;
        let quotas = scope.api::<ResourceQuota>();
        quotas
            .delete("few", &DeleteParams::default())
            .await
            .or_fail("few")?;
        mended(&cluster).await
    })
    .await;
}

#[tokio::test]
async fn a_limit_range_that_forbids_the_pods_is_named() {
    scenario("limits", |scope| async move {
        let limits = json!({ "limits": [{ "type": "Container", "max": { "memory": "64Mi" } }] });
        let range = json!({ "metadata": { "name": "small" }, "spec": limits });
        put::<LimitRange>(&scope, range).await?;
        let resources =
            json!({ "requests": { "memory": "128Mi" }, "limits": { "memory": "512Mi" } });
        let cluster = mistaken(&scope, json!({ "resources": resources })).await?;
        let words = ["maximum memory usage per Container is 64Mi"];
        says(&scope, &cluster, "PodNotCreated", &words).await?;
        let ranges = scope.api::<LimitRange>();
        ranges
            .delete("small", &DeleteParams::default())
            .await
            .or_fail("small")?;
        mended(&cluster).await
    })
    .await;
}

#[tokio::test]
async fn a_priority_class_that_does_not_exist_is_named() {
    scenario("priority", |scope| async move {
        let cluster = mistaken(&scope, json!({ "priorityClassName": "urgnet" })).await?;
        let words = ["no PriorityClass with name urgnet was found"];
        says(&scope, &cluster, "PodNotCreated", &words).await?;
        cluster
            .patch(json!({ "spec": { "priorityClassName": null } }))
            .await?;
        mended(&cluster).await
    })
    .await;
}

#[tokio::test]
async fn a_machine_that_nobody_has_is_named_by_the_scheduler() {
    scenario("selector", |scope| async move {
        let cluster = mistaken(&scope, json!({ "nodeSelector": { "disk": "golden" } })).await?;
        let words = ["nodes are available", "node affinity/selector"];
        says(&scope, &cluster, "PodUnschedulable", &words).await?;
        cluster
            .patch(json!({ "spec": { "nodeSelector": null } }))
            .await?;
        mended(&cluster).await
    })
    .await;
}

#[tokio::test]
async fn a_key_that_a_secret_lacks_is_named_and_the_secret_stays_as_it_is() {
    scenario("keys", |scope| async move {
        let metadata = json!({ "name": "mine" });
        let given =
            json!({ "metadata": metadata, "stringData": { "admin-key": "a-key-of-my-own" } });
        put::<Secret>(&scope, given).await?;
        let spec = json!({ "auth": { "secretName": "mine" } });
        let cluster = mistaken(&scope, spec).await?;
        let of_secret = |object: &Value| {
            let (value, why) = condition(object, "Degraded")?;
            let named = why.contains("SecretIncomplete") && why.contains("read-key");
            ensure(value == "True" && named, || {
                format!("Degraded is {value}: {why}")
            })
        };
        cluster
            .wait("the missing key to be named", seconds(60), of_secret)
            .await?;
        let words = "references non-existent secret key: read-key";
        cluster
            .wait("the kubelet's words", seconds(120), |object| {
                let (value, why) = condition(object, "PodsRunning")?;
                let said = why.contains(words) && why.contains("VolumeNotMounted");
                ensure(value == "False" && said, || {
                    format!("PodsRunning is {value}: {why}")
                })
            })
            .await?;
        let secrets = scope.api::<Secret>();
        let found = secrets.get("mine").await.or_fail("mine")?;
        let keys: Vec<_> = found.data.unwrap_or_default().into_keys().collect();
        assert_eq!(keys, ["admin-key"]);
        let right = Patch::Merge(json!({ "stringData": { "read-key": "another-of-my-own" } }));
        secrets
            .patch("mine", &PatchParams::default(), &right)
            .await
            .or_fail("mine")?;
        mended(&cluster).await?;
        assert_eq!(
            secret(&scope, "mine", "admin-key").await?,
            "a-key-of-my-own"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_variable_from_a_secret_that_does_not_exist_is_named_by_the_kubelet() {
    scenario("variable", |scope| async move {
        let from = json!({ "secretKeyRef": { "name": "logging", "key": "level" } });
        let spec = json!({ "env": [{ "name": "VECTORIZER_LOG", "valueFrom": from }] });
        let cluster = mistaken(&scope, spec).await?;
        let words = ["secret \"logging\" not found"];
        says(&scope, &cluster, "ContainerNotStarted", &words).await?;
        let right = json!({ "metadata": { "name": "logging" }, "stringData": { "level": "info" } });
        put::<Secret>(&scope, right).await?;
        mended(&cluster).await
    })
    .await;
}

#[tokio::test]
async fn a_volume_that_cannot_be_mounted_is_named_by_the_kubelet() {
    scenario("mount", |scope| async move {
        let machines: Api<Machine> = Api::all(scope.client.clone());
        let list = machines.list(&ListParams::default()).await.or_fail("machines")?;
        let free = |machine: &&Machine| {
            let taints = machine.spec.as_ref().and_then(|s| s.taints.as_ref());
            taints.is_none_or(Vec::is_empty)
        };
        let machine = list.iter().find(free).map(ResourceExt::name_any).or_fail("a machine")?;
        let (name, place) = (scope.namespace.clone(), format!("/var/{}", scope.namespace));
        let here = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [machine] });
        let volume = json!({
            "metadata": { "name": name },
            "spec": {
                "capacity": { "storage": "64Mi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": name,
                "persistentVolumeReclaimPolicy": "Retain", "local": { "path": place },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [here] }] } },
            },
        });
        let volumes: Api<PersistentVolume> = Api::all(scope.client.clone());
        let typed = serde_json::from_value(volume).or_fail("volume")?;
        volumes.create(&PostParams::default(), &typed).await.or_fail("volume")?;
        let outcome = unmounted(&scope, &name, &machine, &place).await;
        volumes.delete(&name, &DeleteParams::default()).await.or_fail("volume")?;
        shell::must("docker", &["exec", &machine, "rm", "-rf", &place]).await?;
        outcome
    })
    .await;
}

async fn unmounted(scope: &Scope, class: &str, machine: &str, place: &str) -> Result<()> {
    let storage = json!({ "size": "64Mi", "storageClassName": class });
    let cluster = mistaken(scope, json!({ "storage": storage })).await?;
    says(
        scope,
        &cluster,
        "VolumeNotMounted",
        &[place, "does not exist"],
    )
    .await?;
    shell::must("docker", &["exec", machine, "mkdir", "-m", "0777", place]).await?;
    mended(&cluster).await
}

#[tokio::test]
async fn a_volume_that_its_class_cannot_grow_is_said_and_the_size_goes_back() {
    scenario("grow", |scope| async move {
        let cluster = mistaken(&scope, json!({ "storage": { "size": "64Mi" } })).await?;
        cluster.ready(0, START).await?;
        let size = |size: &str| json!({ "spec": { "storage": { "size": size } } });
        cluster.patch(size("128Mi")).await?;
        cluster
            .wait(
                "the condition VolumesAsWanted to say why",
                seconds(60),
                |object| {
                    let (value, why) = condition(object, "VolumesAsWanted")?;
                    let said =
                        why.contains("(VolumeCannotGrow)") && why.contains("must support resize");
                    ensure(value == "False" && said, || {
                        format!("VolumesAsWanted is {value}: {why}")
                    })?;
                    let (value, why) = condition(object, "Ready")?;
                    ensure(value == "True", || format!("Ready is {value}: {why}"))
                },
            )
            .await?;
        cluster.patch(size("64Mi")).await?;
        mended(&cluster).await
    })
    .await;
}
