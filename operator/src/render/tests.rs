//! The objects of two clusters as they are applied, and what must be true of all.

use serde_json::{Value, json};

use super::*;
use crate::crd::VectorizerCluster;

fn cluster(spec: Value) -> Cluster {
    let raw: VectorizerCluster = serde_json::from_value(json!({
        "apiVersion": "vectorizer.hivellm.io/v1alpha1", "kind": "VectorizerCluster",
        "metadata": { "name": "demo", "namespace": "default", "uid": "00000000-0000-0000-0000-0000000000c1", "resourceVersion": "1" },
        "spec": spec,
    }))
    .unwrap();
    Cluster::check(&raw).unwrap()
}

fn rendered(cluster: &Cluster) -> Vec<Object> {
    let storage = &cluster.spec.storage;
    let claim = ClaimTemplate {
        size: storage.size.clone(),
        class: storage.storage_class_name.clone(),
    };
    objects(&Wanted {
        cluster,
        image: "node:test",
        replicas: cluster.spec.replicas,
        claims: [claim.clone(), claim],
    })
}

fn find<'o>(objects: &'o [Object], kind: Kind, name: &str) -> &'o Value {
    let found = objects
        .iter()
        .find(|o| o.reference.kind == kind && o.reference.name == name);
    &found.unwrap().body
}

#[test]
fn a_cluster_of_defaults() {
    let bodies: Vec<_> = rendered(&cluster(json!({})))
        .into_iter()
        .map(|o| o.body)
        .collect();
    insta::assert_yaml_snapshot!(bodies);
}

#[test]
fn everything_that_a_user_may_set_arrives_in_the_pods() {
    let cluster = cluster(json!({
        "replicas": 1,
        "image": "node:mine", "imagePullPolicy": "Never", "imagePullSecrets": [{ "name": "pull" }],
        "storage": { "size": "20Gi", "storageClassName": "fast", "retention": { "whenDeleted": "Delete", "whenScaled": "Delete" } },
        "resources": { "requests": { "cpu": 1, "memory": "64Mi" }, "limits": { "memory": "1Gi" } },
        "nodeSelector": { "disk": "ssd" },
        "tolerations": [{ "key": "dedicated", "operator": "Exists" }],
        "affinity": { "nodeAffinity": {} },
        "topologySpreadConstraints": [],
        "priorityClassName": "high",
        "podLabels": { "team": "search" }, "podAnnotations": { "note": "x" },
        "env": [{ "name": "VECTORIZER_LOG", "value": "debug" }],
        "replication": { "heartbeatIntervalSeconds": 1, "replicaTimeoutSeconds": 3, "logSize": 5000, "logMaxBytes": 1_073_741_824, "reconnectIntervalSeconds": 2 },
    }));
    let objects = rendered(&cluster);
    insta::assert_yaml_snapshot!([
        find(&objects, Kind::ConfigMap, "demo-config"),
        find(&objects, Kind::StatefulSet, "demo-replica"),
    ]);
}

/// What the scheduler is told about where pods go, for a spec.
fn placed(spec: Value) -> [Value; 2] {
    let objects = rendered(&cluster(spec));
    let pod = &find(&objects, Kind::StatefulSet, "demo-master")["spec"]["template"]["spec"];
    [&pod["affinity"], &pod["topologySpreadConstraints"]].map(Clone::clone)
}

#[test]
fn pods_are_spread_unless_the_spec_spreads_them() {
    let apart = placed(json!({}))[0]["podAntiAffinity"].clone();
    let term = &apart["preferredDuringSchedulingIgnoredDuringExecution"][0];
    assert_eq!(
        term["podAffinityTerm"]["topologyKey"],
        "kubernetes.io/hostname"
    );
    let disks = json!({ "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "disk", "operator": "Exists" }] }],
    } });
    let [affinity, constraints] = placed(json!({ "affinity": { "nodeAffinity": disks.clone() } }));
    assert_eq!(
        affinity,
        json!({ "nodeAffinity": disks, "podAntiAffinity": apart })
    );
    assert_eq!(constraints, Value::Null);

    let alone = json!({ "podAntiAffinity": {} });
    assert_eq!(placed(json!({ "affinity": alone.clone() }))[0], alone);
    let [affinity, constraints] = placed(json!({ "topologySpreadConstraints": [] }));
    assert_eq!((affinity, constraints), (Value::Null, json!([])));
}

#[test]
fn both_sets_carry_the_same_template_apart_from_their_name() {
    let objects = rendered(&cluster(json!({})));
    let [mut master, mut replica] = ["demo-master", "demo-replica"]
        .map(|name| find(&objects, Kind::StatefulSet, name)["spec"]["template"].clone());
    for template in [&mut master, &mut replica] {
        template["metadata"]["labels"]
            .as_object_mut()
            .unwrap()
            .remove(names::SET)
            .unwrap();
    }
    assert_eq!(master, replica);
    assert!(
        !master.to_string().contains(names::ROLE),
        "a promotion must restart nobody"
    );
}

#[test]
fn everything_belongs_to_its_cluster() {
    for object in rendered(&cluster(json!({}))) {
        let metadata = &object.body["metadata"];
        assert_eq!(
            metadata["ownerReferences"][0]["controller"], true,
            "{}",
            object.reference
        );
        assert_eq!(
            metadata["labels"][names::MANAGED_BY],
            names::MANAGER,
            "{}",
            object.reference
        );
        assert_eq!(metadata["namespace"], "default", "{}", object.reference);
        let api = crate::observe::api_resource(object.reference.kind);
        assert_eq!(object.body["kind"], api.kind.as_str());
        assert_eq!(object.body["apiVersion"], api.api_version.as_str());
    }
}

#[test]
fn the_expected_names_are_those_that_are_rendered() {
    for replicas in [0, 2] {
        let cluster = cluster(json!({ "replicas": replicas }));
        let mut rendered: Vec<_> = rendered(&cluster)
            .into_iter()
            .map(|o| o.reference)
            .collect();
        let mut expected = references("demo", replicas);
        rendered.sort();
        expected.sort();
        assert_eq!(rendered, expected);
    }
}

#[test]
fn a_changed_configuration_is_a_changed_template() {
    let checksum = |spec| {
        let objects = rendered(&cluster(spec));
        find(&objects, Kind::StatefulSet, "demo-master")["spec"]["template"]["metadata"]["annotations"][names::CONFIG_CHECKSUM].clone()
    };
    let before = checksum(json!({}));
    assert_eq!(
        before,
        checksum(json!({ "replicas": 5, "reads": { "maxLagSeconds": 5 } })),
        "no node has to know this"
    );
    assert_ne!(
        before,
        checksum(json!({ "replication": { "logSize": 5000 } }))
    );
}

#[test]
fn a_cluster_of_one_node_can_be_drained() {
    let objects = rendered(&cluster(json!({ "replicas": 0 })));
    assert!(
        objects
            .iter()
            .all(|o| o.reference.kind != Kind::PodDisruptionBudget)
    );
}

#[test]
fn claims_carry_no_label_by_which_a_tool_that_deploys_takes_them_for_its_own() {
    let objects = rendered(&cluster(json!({})));
    for set in ["demo-master", "demo-replica"] {
        let set = find(&objects, Kind::StatefulSet, set);
        // The StatefulSet controller adds what its selector asks for.
        let labels = &set["spec"]["volumeClaimTemplates"][0]["metadata"]["labels"];
        let selector = &set["spec"]["selector"]["matchLabels"];
        for labels in [labels, selector] {
            for key in labels.as_object().unwrap().keys() {
                assert!(key.starts_with("vectorizer.hivellm.io/"), "{key}");
            }
        }
        assert_eq!(labels[names::CLUSTER], "demo");
    }
}

#[test]
fn where_the_platform_assigns_users_none_is_asked_for() {
    let security = |spec| {
        let objects = rendered(&cluster(spec));
        let set = find(&objects, Kind::StatefulSet, "demo-replica");
        set["spec"]["template"]["spec"]["securityContext"].clone()
    };
    let fixed = security(json!({}));
    let assigned = security(json!({ "runAs": "Assigned" }));
    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(fixed[key], 65532, "{key}");
        assert_eq!(assigned.get(key), None, "{key}");
    }
    assert_eq!(assigned["runAsNonRoot"], true);
    assert_eq!(assigned["seccompProfile"], fixed["seccompProfile"]);
}

#[test]
fn pods_satisfy_the_restricted_pod_security_standard() {
    let objects = rendered(&cluster(json!({})));
    let pod = &find(&objects, Kind::StatefulSet, "demo-replica")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    for container in pod["containers"].as_array().unwrap() {
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    }
}

#[test]
fn probes_and_the_operator_have_a_port_that_clients_do_not_use() {
    let objects = rendered(&cluster(json!({})));
    for set in ["demo-master", "demo-replica"] {
        let body = find(&objects, Kind::StatefulSet, set);
        let container = &body["spec"]["template"]["spec"]["containers"][0];
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "ops", "{set} {probe}");
        }
        let ports = container["ports"].as_array().unwrap();
        let ops = ports.iter().find(|port| port["name"] == "ops").unwrap();
        assert_eq!(ops["containerPort"], 15003);
    }
    for service in ["demo", "demo-rw", "demo-ro"] {
        let body = find(&objects, Kind::Service, service);
        let ports = body["spec"]["ports"].as_array().unwrap();
        assert!(ports.iter().all(|port| port["name"] == "rest"), "{service}");
    }
    // Not to be reached by every pod of the namespace: it has fewer places.
    let policy = find(&objects, Kind::NetworkPolicy, "demo");
    let rules = policy["spec"]["ingress"].as_array().unwrap();
    let of_ops = rules.iter().filter(|rule| {
        let ports = rule["ports"].as_array().unwrap();
        ports.iter().any(|port| port["port"] == 15003)
    });
    for rule in of_ops {
        let from = rule["from"].as_array().unwrap();
        let labels = |peer: &Value| peer["podSelector"]["matchLabels"].clone();
        assert!(
            from.iter()
                .all(|peer| labels(peer)[names::OPERATOR] == "true")
        );
    }
}

#[test]
fn nodes_listen_on_both_families() {
    let objects = rendered(&cluster(json!({})));
    let map = find(&objects, Kind::ConfigMap, "demo-config");
    let yaml = map["data"]["config.yaml"].as_str().unwrap();
    let addresses = yaml.lines().filter(|line| line.contains("bind_address"));
    let addresses: Vec<_> = addresses
        .map(|line| line.split_once(": ").unwrap().1)
        .collect();
    assert_eq!(addresses.len(), 3, "{yaml}");
    assert!(addresses.iter().all(|a| a.contains("[::]:")), "{yaml}");
}
