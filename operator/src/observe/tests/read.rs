//! `observe` as a whole: against an API server in memory and nodes on loopback.

use k8s_openapi::api::core::v1::Pod;
use vectorizer_api::lease::Holder;
use vectorizer_api::position::Position;
use vectorizer_api::replication::ReplicaStatus;

use super::*;
use crate::act::tests::fakes::{ApiServer, CLUSTER, answering, own_address, state};
use crate::crd::Amount;
use crate::crd::VectorizerCluster;
use crate::world::Labels;

const TOKEN: &str = "dG9rZW4=";

/// What a cluster of two nodes and one that does not answer is made of.
struct Stage {
    api: ApiServer,
    cluster: Cluster,
    remembered: Remembered,
    cordons: Cordons,
}

fn labels(more: Value) -> Value {
    let mut labels = json!({
        "app.kubernetes.io/managed-by": "vectorizer-operator", "vectorizer.hivellm.io/cluster": "demo",
    });
    for (key, value) in more.as_object().unwrap() {
        labels[key] = value.clone();
    }
    labels
}

impl Stage {
    fn new() -> Self {
        let api = ApiServer::default();
        let resource = json!({
            "apiVersion": "vectorizer.hivellm.io/v1alpha1", "kind": "VectorizerCluster",
            "metadata": {
                "name": "demo", "namespace": "default", "uid": CLUSTER.to_string(), "generation": 1, "resourceVersion": "1",
                "creationTimestamp": "2026-05-01T10:00:00Z",
            },
            "spec": {},
        });
        let typed: VectorizerCluster = serde_json::from_value(resource).unwrap();
        for (secret, keys) in [
            (
                "demo-auth",
                json!({ "admin-key": "YQ==", "read-key": "Yg==" }),
            ),
            (
                "demo-internal",
                json!({ "replication-token": "YQ==", "control-token": TOKEN }),
            ),
        ] {
            let body = json!({ "metadata": { "name": secret, "labels": labels(json!({})) }, "data": keys });
            let path = format!("/api/v1/namespaces/default/secrets/{secret}");
            api.put(&path, owned(body, CLUSTER));
        }
        Stage {
            api,
            cluster: Cluster::check(&typed).unwrap(),
            remembered: Remembered::default(),
            cordons: Cordons::default(),
        }
    }

    fn put_pod(&self, name: &str, ip: Option<&str>, machine: &str) {
        let pod = json!({
            "metadata": {
                "name": name, "namespace": "default", "uid": format!("uid of {name}"),
                "labels": labels(json!({ "vectorizer.hivellm.io/role": "replica" })),
            },
            "spec": { "containers": [], "nodeName": machine },
            "status": { "podIP": ip, "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        self.api.put(&path, pod);
    }

    fn put_set(&self, set: &str, replicas: u32) {
        let body = json!({
            "metadata": {
                "name": format!("demo-{set}"), "namespace": "default", "uid": format!("uid of {set}"), "generation": 3,
                "labels": labels(json!({})),
            },
            "spec": {
                "replicas": replicas, "serviceName": "demo-nodes", "selector": {},
                "template": { "spec": { "containers": [{ "name": "node", "image": "node:7" }] } },
                "volumeClaimTemplates": [{ "spec": { "resources": { "requests": { "storage": "10Gi" } } } }],
            },
            "status": { "replicas": replicas, "observedGeneration": 3, "updateRevision": "r7" },
        });
        let path = format!("/apis/apps/v1/namespaces/default/statefulsets/demo-{set}");
        self.api.put(&path, owned(body, CLUSTER));
    }

    async fn observe(&mut self) -> Result<World, ObserveError> {
        let client = self.api.client();
        let (caches, triggers) = Caches::start(&client, None);
        let driving = tokio::spawn(futures::StreamExt::for_each(triggers, async |_| {}));
        caches.ready().await.unwrap();
        let nodes = vectorizer_api::client::Client::new("http://node", PROBE).unwrap();
        let sources = Sources {
            client: &client,
            caches: &caches,
            nodes: &nodes,
            cordons: &self.cordons,
            default_image: "node:own",
        };
        let (cluster, status) = (self.cluster.clone(), ClusterStatus::default());
        let world = observe(&sources, cluster, status, &mut self.remembered).await;
        driving.abort();
        world
    }
}

/// A node that writes in that epoch.
fn writes(pod: &str, id: u128, epoch: u64) -> State {
    State {
        node_id: Uuid::from_u128(id),
        role: Role::Master,
        master_epoch: epoch,
        ..state(pod, Position::new(epoch, 7))
    }
}

fn listed(id: u128) -> Replica {
    Replica {
        id: Uuid::from_u128(id),
        replica_id: Uuid::from_u128(id),
        node: "demo-replica-0".into(),
        host: "10.0.0.9".into(),
        port: 7001,
        status: ReplicaStatus::Connected,
        lag_ms: 3,
        last_heartbeat: 1,
        operations_synced: 7,
        address: "10.0.0.9:7001".into(),
        offset: 7,
        lag_operations: 0,
        durable_offset: 7,
        connected: true,
    }
}

fn put_lease(stage: &Stage, grant: &Grant) {
    let lease = json!({
        "metadata": { "name": "demo", "namespace": "default", "labels": labels(json!({})), "annotations": grant.annotations() },
        "spec": { "holderIdentity": grant.holder_identity() },
    });
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/demo";
    stage.api.put(path, owned(lease, CLUSTER));
}

#[tokio::test]
async fn everything_is_read_once_and_a_node_that_does_not_answer_is_data() {
    let mut stage = Stage::new();
    stage.put_set("master", 1);
    stage.put_set("replica", 2);
    let master = answering(writes("demo-master-0", 1, 4), vec![listed(2)], "token").await;
    stage.put_pod("demo-master-0", Some(&master), "m1");
    let silent = own_address();
    stage.put_pod("demo-replica-0", Some(&silent), "m2");
    stage.api.put(
        "/api/v1/nodes/m1",
        json!({ "metadata": { "name": "m1" }, "spec": { "unschedulable": true } }),
    );
    stage.api.put(
        "/api/v1/nodes/m2",
        json!({ "metadata": { "name": "m2" }, "spec": {} }),
    );
    let holder = Holder {
        pod: "demo-master-0".into(),
        node_id: Uuid::from_u128(1),
        boot_id: Uuid::from_u128(2),
    };
    let grant = Grant {
        cluster: CLUSTER,
        epoch: 4,
        holder: Some(holder),
        concern: Default::default(),
        secured: Position::ZERO,
    };
    put_lease(&stage, &grant);
    let claim = json!({
        "metadata": {
            "name": "data-demo-replica-0", "namespace": "default", "creationTimestamp": "2026-05-01T10:00:09Z",
            // As the StatefulSet controller labels it: by nothing but the set's selector and its template.
            "labels": { "vectorizer.hivellm.io/cluster": "demo", "vectorizer.hivellm.io/set": "replica" },
        },
        "spec": { "resources": { "requests": { "storage": "10Gi" } } },
    });
    stage.api.put(
        "/api/v1/namespaces/default/persistentvolumeclaims/data-demo-replica-0",
        claim,
    );
    let theirs = json!({ "metadata": { "name": "demo-rw", "namespace": "default" } });
    stage
        .api
        .put("/api/v1/namespaces/default/services/demo-rw", theirs);

    let world = stage.observe().await.unwrap();
    let pods: Vec<_> = world.members.iter().map(|m| m.pod.as_str()).collect();
    assert_eq!(pods, ["demo-master-0", "demo-replica-0", "demo-replica-1"]);
    let [first, second, third] = &world.members[..] else {
        panic!("{pods:?}");
    };
    assert!(first.is_master());
    assert!(matches!(second.probe, Probe::Unreachable(_)), "{second:?}");
    assert_eq!((&third.seen, &third.probe), (&None, &Probe::NoAddress));
    let cordoned = |m: &Member| m.seen.as_ref().map(|p| p.cordoned);
    assert_eq!(
        [cordoned(first), cordoned(second)],
        [Some(true), Some(false)]
    );
    assert_eq!(world.replicas, Some(vec![listed(2)]));
    assert_eq!(world.lease.grant(), Some(&grant));
    let set = world.sets[1].as_ref().unwrap();
    assert_eq!(set.revision.as_deref(), Some("r7"));
    assert_eq!(set.image.as_deref(), Some("node:7"));
    assert_eq!(set.replicas, 2);
    let claim = world.claims.get("data-demo-replica-0").unwrap();
    assert!(claim.blank && claim.requested == Amount::from("10Gi"));
    assert_eq!(world.secrets.auth, SecretSeen::Complete);
    let taken: Vec<_> = world.taken.iter().map(ToString::to_string).collect();
    assert_eq!(taken, ["Service demo-rw"]);
}

#[tokio::test]
async fn of_two_that_call_themselves_master_the_later_one_says_how_replicas_are() {
    let mut stage = Stage::new();
    let old = answering(writes("demo-master-0", 1, 4), vec![listed(9)], "token").await;
    let new = answering(writes("demo-replica-0", 2, 5), vec![listed(1)], "token").await;
    stage.put_pod("demo-master-0", Some(&old), "m1");
    stage.put_pod("demo-replica-0", Some(&new), "m1");
    let world = stage.observe().await.unwrap();
    assert_eq!(world.replicas, Some(vec![listed(1)]));
}

#[tokio::test]
async fn labels_of_our_own_are_seen_before_the_watch_has_them() {
    let mut stage = Stage::new();
    stage.put_pod("demo-master-0", None, "m1");
    let written = Labels {
        role: Some("master".into()),
        read_eligible: true,
    };
    let uid = "uid of demo-master-0".to_owned();
    stage
        .remembered
        .labelled
        .insert(uid.clone(), (Instant::now(), written.clone()));
    let seen = |world: &World| {
        let pod = world.members[0].seen.clone().unwrap();
        Labels {
            role: pod.role,
            read_eligible: pod.read_eligible,
        }
    };
    assert_eq!(seen(&stage.observe().await.unwrap()), written);
    // Not for ever: somebody else may have changed them since.
    let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    stage.remembered.labelled.insert(uid, (long_ago, written));
    let stored = Labels {
        role: Some("replica".into()),
        read_eligible: false,
    };
    assert_eq!(seen(&stage.observe().await.unwrap()), stored);
    assert!(stage.remembered.labelled.is_empty());
}

#[tokio::test]
async fn an_api_server_that_refuses_is_an_error_that_says_what_was_read() {
    let mut stage = Stage::new();
    stage
        .api
        .forbid("/api/v1/namespaces/default/secrets/demo-auth");
    let why = stage.observe().await.unwrap_err().to_string();
    assert!(why.starts_with("reading Secret demo-auth: "), "{why}");
}

#[tokio::test]
async fn every_watch_ends_before_a_silent_connection_counts_as_dead() {
    let api = ApiServer::default();
    let (_caches, triggers) = Caches::start(&api.client(), None);
    let driving = tokio::spawn(futures::StreamExt::for_each(triggers, async |_| {}));
    let begun = tokio::time::timeout(Duration::from_secs(30), async {
        while api.watches().len() < 13 {
            tokio::task::yield_now().await;
        }
    });
    begun.await.expect("all watches begin");
    driving.abort();
    for query in api.watches() {
        let lasts = query
            .split('&')
            .find_map(|part| part.strip_prefix("timeoutSeconds="));
        let lasts: u64 = lasts.and_then(|secs| secs.parse().ok()).expect("it ends");
        assert!(lasts < crate::api::SILENT.as_secs(), "{query}");
    }
}

#[test]
fn pods_of_the_stage_are_such_as_the_api_server_has() {
    let stage = Stage::new();
    stage.put_pod("demo-master-0", None, "m1");
    let stored = stage
        .api
        .get("/api/v1/namespaces/default/pods/demo-master-0");
    serde_json::from_value::<Pod>(stored.unwrap()).unwrap();
}
