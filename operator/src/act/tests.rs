//! Plans carried out against an API server in memory and nodes on loopback, with one log of everything in its order.

pub(crate) mod fakes;

use serde_json::json;
use uuid::Uuid;
use vectorizer_api::concern::Concern;
use vectorizer_api::lease::{Grant, Holder};
use vectorizer_api::position::Position;

use super::*;
use crate::crd::{
    LastPromotion, PromoteMode, PromotionReason, PromotionResult, Retention, TargetStatus,
    TargetStep,
};
use crate::names::{self, condition::PROMOTION_SUCCEEDED};
use crate::plan::{Expect, Step};
use crate::world::Kind;
use fakes::{Bench, CLUSTER};

fn grant(epoch: u64, pod: &str) -> Grant {
    Grant {
        cluster: CLUSTER,
        concern: Concern::default(),
        secured: Position::ZERO,
        epoch,
        holder: Some(Holder {
            pod: pod.into(),
            node_id: Uuid::from_u128(u128::from(epoch)),
            boot_id: Uuid::from_u128(7),
        }),
    }
}

fn target(bench: &Bench, step: TargetStep) -> Memory {
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(bench.world.now);
    Memory {
        cluster: Some(CLUSTER),
        target: Some(TargetStatus {
            request_id: Some("a".into()),
            reason: PromotionReason::Requested,
            mode: PromoteMode::Switchover,
            pod: Some("demo-replica-0".into()),
            node_id: None,
            wanted: None,
            avoid: None,
            from: Some("demo-master-0".into()),
            from_epoch: 1,
            from_boot: None,
            epoch: 2,
            step,
            started_at: now.clone(),
            step_at: now.clone(),
            deadline: now,
            max_lag_operations: None,
            message: None,
        }),
        ..Memory::default()
    }
}

fn succeeded(bench: &Bench) -> Memory {
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(bench.world.now);
    Memory {
        cluster: Some(CLUSTER),
        last_promotion: Some(LastPromotion {
            request_id: Some("a".into()),
            reason: PromotionReason::Requested,
            mode: PromoteMode::Switchover,
            from: None,
            to: None,
            result: PromotionResult::Succeeded,
            write_pause_ms: None,
            lost_operations: Some(0),
            started_at: now.clone(),
            finished_at: now,
            message: "done".into(),
        }),
        handled_requests: vec!["a".into()],
        ..Memory::default()
    }
}

/// The commands of a switchover.
fn switchover(bench: &Bench) -> Vec<Step> {
    let (from, to) = (bench.peer("demo-master-0"), bench.peer("demo-replica-0"));
    vec![
        Step::Fence {
            to: to.clone(),
            epoch: 1,
        },
        Step::Record(Box::new(target(bench, TargetStep::HandingOver))),
        Step::Handover {
            to: from.clone(),
            from_epoch: 1,
            epoch: 2,
            target: Uuid::from_u128(2),
            deadline_ms: 5000,
        },
        Step::SetLease {
            expect: Expect::Content(grant(1, "demo-master-0")),
            grant: grant(2, "demo-replica-0"),
        },
        Step::Promote {
            to,
            epoch: 2,
            at: At::HandedOver,
        },
        Step::Label {
            pod: "demo-replica-0".into(),
            uid: "u".into(),
            role: Some("master"),
            read_eligible: None,
        },
        Step::Follow {
            to: from,
            epoch: 2,
            master_address: "10.0.0.2:7001".into(),
            master_url: "http://10.0.0.2:15002".into(),
        },
        Step::Record(Box::new(succeeded(bench))),
    ]
}

#[tokio::test]
async fn a_switchover_is_recorded_first_and_promotes_where_the_handover_ended() {
    let bench = Bench::start().await;
    bench.api.put_lease(&grant(1, "demo-master-0"));
    bench.node_at("demo-master-0", Position::new(1, 41));
    let done = bench.act(switchover(&bench)).await;
    assert!(done.refused.is_none(), "{:?}", done.refused);
    assert_eq!(
        bench.log(),
        [
            "fence demo-replica-0 1",
            "status HandingOver",
            "handover demo-master-0 1 2",
            "lease 2 demo-replica-0",
            "promote demo-replica-0 2 at 1.41",
            "label demo-replica-0 {\"vectorizer.hivellm.io/role\":\"master\"}",
            "follow demo-master-0 2 10.0.0.2:7001",
            "status done",
        ]
    );
    let last = done.memory.last_promotion.unwrap();
    assert!(last.write_pause_ms.is_some_and(|ms| ms < 5000), "{last:?}");
    let stored = done.resource.status.unwrap();
    // In one write with the record, not in one that comes later.
    let condition = stored
        .conditions
        .iter()
        .find(|c| c.type_ == PROMOTION_SUCCEEDED);
    assert_eq!(condition.map(|c| c.status.as_str()), Some("True"));
    assert_eq!(
        stored.last_promotion.unwrap().write_pause_ms,
        last.write_pause_ms
    );
}

#[tokio::test]
async fn the_first_refusal_ends_the_pass_and_what_was_recorded_stays() {
    let bench = Bench::start().await;
    bench.api.put_lease(&grant(1, "demo-master-0"));
    bench.refuse("demo-replica-0", "promote");
    let done = bench.act(switchover(&bench)).await;
    let Some(Refused::Node { command, pod, .. }) = &done.refused else {
        panic!("{:?}", done.refused);
    };
    assert_eq!((*command, pod.as_str()), ("promote", "demo-replica-0"));
    assert!(
        bench
            .log()
            .iter()
            .all(|line| !line.starts_with("label") && line != "status done")
    );
    assert_eq!(done.memory.target.unwrap().step, TargetStep::HandingOver);
}

#[tokio::test]
async fn a_handover_by_a_node_that_still_writes_is_none() {
    let bench = Bench::start().await;
    bench.api.put_lease(&grant(1, "demo-master-0"));
    bench.keeps_writing("demo-master-0");
    let done = bench.act(switchover(&bench)).await;
    assert!(
        matches!(done.refused, Some(Refused::NoHandover)),
        "{:?}",
        done.refused
    );
    let log = bench.log();
    assert!(
        log.iter()
            .all(|line| !line.starts_with("lease") && !line.starts_with("promote")),
        "{log:?}"
    );
}

#[tokio::test]
async fn nothing_is_commanded_when_the_resource_has_changed() {
    let bench = Bench::start().await;
    bench
        .api
        .touch("/apis/vectorizer.hivellm.io/v1alpha1/namespaces/default/vectorizerclusters/demo");
    let steps = switchover(&bench).split_off(1);
    let done = bench.act(steps).await;
    assert!(matches!(done.refused, Some(Refused::Outdated)));
    assert_eq!(bench.log(), Vec::<String>::new());
}

#[tokio::test]
async fn a_renewal_in_between_does_not_hinder_a_grant_by_content() {
    let bench = Bench::start().await;
    bench.api.put_lease(&grant(1, "demo-master-0"));
    bench.api.conflict_once();
    let step = Step::SetLease {
        expect: Expect::Content(grant(1, "demo-master-0")),
        grant: grant(2, "demo-replica-0"),
    };
    let done = bench.act(vec![step.clone()]).await;
    assert!(done.refused.is_none(), "{:?}", done.refused);
    // Again, by an operator that does not know that it was done.
    let done = bench.act(vec![step]).await;
    assert!(done.refused.is_none(), "{:?}", done.refused);
    assert_eq!(bench.log(), ["lease 2 demo-replica-0"]);
}

#[tokio::test]
async fn a_renewal_in_between_ends_a_vacancy_by_version() {
    let bench = Bench::start().await;
    let version = bench.api.put_lease(&grant(1, "demo-master-0"));
    bench
        .api
        .touch("/apis/coordination.k8s.io/v1/namespaces/default/leases/demo");
    let vacant = Grant {
        cluster: CLUSTER,
        concern: Concern::default(),
        secured: Position::ZERO,
        epoch: 2,
        holder: None,
    };
    let done = bench
        .act(vec![Step::SetLease {
            expect: Expect::Version(version),
            grant: vacant.clone(),
        }])
        .await;
    assert!(
        matches!(done.refused, Some(Refused::Lease(_))),
        "{:?}",
        done.refused
    );
    let version = bench
        .api
        .version("/apis/coordination.k8s.io/v1/namespaces/default/leases/demo");
    let done = bench
        .act(vec![Step::SetLease {
            expect: Expect::Version(version),
            grant: vacant,
        }])
        .await;
    assert!(done.refused.is_none());
    let lease = bench
        .api
        .get("/apis/coordination.k8s.io/v1/namespaces/default/leases/demo")
        .unwrap();
    assert_eq!(
        lease["spec"].get("holderIdentity"),
        None,
        "an empty name is not a holder"
    );
}

#[tokio::test]
async fn a_lease_that_names_somebody_else_is_not_overwritten() {
    let bench = Bench::start().await;
    bench.api.put_lease(&grant(5, "demo-replica-1"));
    let done = bench.act(switchover(&bench)).await;
    assert!(
        matches!(done.refused, Some(Refused::Lease(_))),
        "{:?}",
        done.refused
    );
    assert!(bench.log().iter().all(|line| !line.starts_with("promote")));
}

#[tokio::test]
async fn a_new_lease_belongs_to_the_cluster_and_says_everything() {
    let bench = Bench::start().await;
    let done = bench
        .act(vec![Step::SetLease {
            expect: Expect::Missing,
            grant: grant(1, "demo-master-0"),
        }])
        .await;
    assert!(done.refused.is_none(), "{:?}", done.refused);
    let lease = bench
        .api
        .get("/apis/coordination.k8s.io/v1/namespaces/default/leases/demo")
        .unwrap();
    assert_eq!(
        lease["metadata"]["ownerReferences"][0]["uid"],
        json!(CLUSTER.to_string())
    );
    assert_eq!(
        lease["metadata"]["labels"]["app.kubernetes.io/managed-by"],
        "vectorizer-operator"
    );
    let typed = serde_json::from_value(lease).unwrap();
    assert_eq!(
        crate::observe::parse_lease(&typed).unwrap(),
        grant(1, "demo-master-0")
    );
}

#[tokio::test]
async fn a_pod_that_is_gone_does_not_keep_a_promotion_from_being_recorded() {
    let bench = Bench::start().await;
    bench.api.put_lease(&grant(1, "demo-master-0"));
    bench
        .api
        .remove("/api/v1/namespaces/default/pods/demo-replica-0");
    bench.refuse("demo-master-0", "follow");
    let done = bench.act(switchover(&bench)).await;
    assert!(done.refused.is_none(), "{:?}", done.refused);
    assert_eq!(done.troubles.len(), 2, "{:?}", done.troubles);
    assert_eq!(bench.log().last().map(String::as_str), Some("status done"));
}

#[tokio::test]
async fn an_object_that_is_refused_is_reported_and_holds_up_no_command() {
    let bench = Bench::start().await;
    bench
        .api
        .forbid("/apis/apps/v1/namespaces/default/statefulsets/demo-master");
    let mut plan = bench.plan(vec![Step::Fence {
        to: bench.peer("demo-replica-0"),
        epoch: 1,
    }]);
    plan.objects = bench.objects();
    let done = bench.run(&plan).await;
    let [(what, attempt, words)] = &done.refusals[..] else {
        panic!("{:?}", done.refusals);
    };
    assert_eq!(
        (what.as_str(), words.as_str()),
        ("StatefulSet demo-master", "quota exceeded")
    );
    assert!(plan.objects.iter().any(|o| o.hash == *attempt));
    assert!(done.troubles.is_empty(), "{:?}", done.troubles);
    assert_eq!(done.applied.len(), plan.objects.len() - 1);
    assert_eq!(
        bench.log().last().map(String::as_str),
        Some("fence demo-replica-0 1")
    );
}

#[tokio::test]
async fn credentials_are_generated_once_and_never_again() {
    let bench = Bench::start().await;
    let path = "/api/v1/namespaces/default/secrets/demo-auth";
    let mut plan = bench.plan(Vec::new());
    plan.secrets = vec![("demo-auth".into(), vec!["admin-key", "read-key"])];
    assert!(bench.run(&plan).await.secrets_written);
    let first = bench.api.get(path).unwrap();
    assert_ne!(first["data"]["admin-key"], first["data"]["read-key"]);
    assert!(first["data"]["admin-key"].as_str().unwrap().len() >= 64);
    // One key is taken away: only that one is made anew.
    bench.api.change(path, |secret| {
        secret["data"].as_object_mut().unwrap().remove("read-key");
    });
    bench.run(&plan).await;
    let second = bench.api.get(path).unwrap();
    assert_eq!(second["data"]["admin-key"], first["data"]["admin-key"]);
    assert_ne!(second["data"]["read-key"], first["data"]["read-key"]);
    assert!(second["data"]["read-key"].is_string());
}

/// A plan that makes both Secrets.
fn with_secrets(bench: &Bench) -> Plan {
    let mut plan = bench.plan(Vec::new());
    plan.secrets = vec![
        ("demo-auth".into(), names::AUTH_KEYS.to_vec()),
        ("demo-internal".into(), names::INTERNAL_KEYS.to_vec()),
    ];
    plan
}

fn secret(bench: &Bench, name: &str) -> serde_json::Value {
    let path = format!("/api/v1/namespaces/default/secrets/{name}");
    bench.api.get(&path).unwrap()
}

#[tokio::test]
async fn the_clients_keys_stay_when_the_volumes_do_and_go_when_they_go() {
    for (when_deleted, stays) in [(Retention::Retain, true), (Retention::Delete, false)] {
        let mut bench = Bench::start().await;
        bench.world.cluster.spec.storage.retention.when_deleted = when_deleted;
        bench.run(&with_secrets(&bench)).await;
        let owned = |name| {
            secret(&bench, name)["metadata"]
                .get("ownerReferences")
                .is_some()
        };
        assert_eq!(owned("demo-auth"), !stays, "{when_deleted:?}");
        assert!(owned("demo-internal"), "nobody outside goes by it");
        let labels = secret(&bench, "demo-auth")["metadata"]["labels"].clone();
        assert_eq!(labels[names::MANAGED_BY], names::MANAGER, "it is watched");
        // By this label, tools that deploy things find what they may remove.
        assert_eq!(labels.get(names::APP_INSTANCE).is_none(), stays, "{labels}");
    }
}

#[tokio::test]
async fn a_cluster_that_is_made_again_completes_the_keys_that_were_kept() {
    let mut bench = Bench::start().await;
    bench.run(&with_secrets(&bench)).await;
    let before = secret(&bench, "demo-auth");
    bench.world.cluster.uid = Uuid::from_u128(0xc2);
    let path = "/api/v1/namespaces/default/secrets/demo-auth";
    bench.api.change(path, |secret| {
        secret["data"].as_object_mut().unwrap().remove("read-key");
    });
    bench.run(&with_secrets(&bench)).await;
    let after = secret(&bench, "demo-auth");
    assert_eq!(after["data"]["admin-key"], before["data"]["admin-key"]);
    assert!(after["data"]["read-key"].is_string());
}

#[tokio::test]
async fn a_secret_that_somebody_else_made_is_not_written_to() {
    let bench = Bench::start().await;
    let path = "/api/v1/namespaces/default/secrets/demo-auth";
    let theirs = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "demo-auth" }, "data": { "admin-key": "a2V5" },
    });
    bench.api.put(path, theirs);
    let before = bench.api.get(path);
    let mut plan = bench.plan(Vec::new());
    // As planned in the moment before it was made.
    plan.secrets = vec![("demo-auth".into(), vec!["admin-key", "read-key"])];
    bench.run(&plan).await;
    assert_eq!(bench.api.get(path), before);
}

#[tokio::test]
async fn a_secret_that_was_deleted_is_written_again_as_it_was() {
    let mut bench = Bench::start().await;
    let path = "/api/v1/namespaces/default/secrets/demo-internal";
    let mut plan = bench.plan(Vec::new());
    plan.secrets = vec![(
        "demo-internal".into(),
        vec!["replication-token", "control-token"],
    )];
    bench.run(&plan).await;
    let first = bench.api.get(path).unwrap();
    let read = serde_json::from_value(first.clone()).unwrap();
    bench
        .credentials
        .learn(&bench.world.cluster, [None, Some(&read)]);
    bench.api.remove(path);
    bench.credentials.learn(&bench.world.cluster, [None, None]);
    let token = first["data"]["control-token"].clone();
    let known = bench.credentials.control.clone().unwrap();
    let encoded = serde_json::to_value(k8s_openapi::ByteString(known.into_bytes())).unwrap();
    assert_eq!(encoded, token, "nodes still go by it");
    bench.run(&plan).await;
    assert_eq!(bench.api.get(path).unwrap()["data"], first["data"]);
    let events = bench
        .api
        .under("/apis/events.k8s.io/v1/namespaces/default/events");
    assert_eq!(events[0]["reason"], "SecretRestored", "{events:?}");
}

#[tokio::test]
async fn a_volume_that_cannot_grow_ends_nothing() {
    let bench = Bench::start().await;
    let claim = "/api/v1/namespaces/default/persistentvolumeclaims/data-demo-master-0";
    bench.api.put(
        claim,
        json!({ "metadata": { "name": "data-demo-master-0" } }),
    );
    bench.api.forbid(claim);
    let steps = vec![
        Step::GrowClaim {
            claim: "data-demo-master-0".into(),
            size: "2Gi".into(),
        },
        Step::Fence {
            to: bench.peer("demo-replica-0"),
            epoch: 1,
        },
    ];
    let done = bench.act(steps).await;
    assert!(done.refused.is_none(), "{:?}", done.refused);
    let refusal = (
        "PersistentVolumeClaim data-demo-master-0".into(),
        "2Gi".into(),
        "quota exceeded".into(),
    );
    assert_eq!(done.refusals, [refusal]);
    assert_eq!(bench.log(), ["fence demo-replica-0 1"]);
}

#[tokio::test]
async fn a_lease_that_was_left_becomes_the_cluster_s_own_and_says_what_it_said() {
    let bench = Bench::start().await;
    bench.api.put_lease(&grant(3, "demo-replica-0"));
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/demo";
    let read = |bench: &Bench| serde_json::from_value(bench.api.get(path).unwrap()).unwrap();
    let foreign = bench.act(vec![Step::AdoptLease]).await;
    assert!(
        foreign.refused.is_none() && bench.log().is_empty(),
        "it carries no label of ours"
    );
    bench.api.change(path, |lease| {
        lease["metadata"]["labels"] = json!({
            "vectorizer.hivellm.io/cluster": "demo", "app.kubernetes.io/managed-by": "vectorizer-operator",
        });
    });
    let done = bench.act(vec![Step::AdoptLease]).await;
    assert!(done.refused.is_none(), "{:?}", done.refused);
    let lease: k8s_openapi::api::coordination::v1::Lease = read(&bench);
    assert!(crate::observe::is_owned(&lease.metadata, CLUSTER));
    assert_eq!(
        crate::observe::parse_lease(&lease).unwrap(),
        grant(3, "demo-replica-0")
    );
}

#[tokio::test]
async fn only_what_is_ours_is_pruned() {
    let bench = Bench::start().await;
    let budget = |name: &str| ObjectRef {
        kind: Kind::PodDisruptionBudget,
        name: name.into(),
    };
    let path =
        |name: &str| format!("/apis/policy/v1/namespaces/default/poddisruptionbudgets/{name}");
    let owner = json!([{ "apiVersion": "v1", "kind": "x", "name": "demo", "uid": CLUSTER.to_string(), "controller": true }]);
    bench.api.put(
        &path("ours"),
        json!({ "metadata": { "name": "ours", "uid": "1", "ownerReferences": owner } }),
    );
    bench.api.put(
        &path("theirs"),
        json!({ "metadata": { "name": "theirs", "uid": "2" } }),
    );
    let mut plan = bench.plan(Vec::new());
    plan.prune = vec![budget("ours"), budget("theirs"), budget("gone")];
    let done = bench.run(&plan).await;
    assert!(done.troubles.is_empty(), "{:?}", done.troubles);
    assert_eq!(bench.api.get(&path("ours")), None);
    assert!(bench.api.get(&path("theirs")).is_some());
}

#[tokio::test]
async fn events_are_written_for_people_to_read() {
    let bench = Bench::start().await;
    let note = Note {
        warning: true,
        reason: "PromotionFailed",
        message: "x".repeat(3000),
    };
    bench.act(vec![Step::Tell(note)]).await;
    let events = bench
        .api
        .under("/apis/events.k8s.io/v1/namespaces/default/events");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["type"], "Warning");
    assert_eq!(events[0]["regarding"]["kind"], "VectorizerCluster");
    assert!(events[0]["note"].as_str().unwrap().len() <= 1000);
}

#[test]
fn pauses_after_failures_double_up_to_a_bound() {
    let longest = Duration::from_secs(60);
    let secs: Vec<_> = (1..9).map(|n| backoff(n, longest).as_secs()).collect();
    assert_eq!(secs, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(backoff(u32::MAX, longest), longest);
}

#[tokio::test]
async fn an_api_server_that_never_answers_ends_the_pass_in_time() {
    let mut bench = Bench::start().await;
    bench.api.put_lease(&grant(1, "demo-master-0"));
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/demo";
    bench.api.never_answers(lease);
    bench.within = Duration::from_millis(200);
    let steps = vec![Step::SetLease {
        expect: Expect::Content(grant(1, "demo-master-0")),
        grant: grant(2, "demo-replica-0"),
    }];
    let done = tokio::time::timeout(Duration::from_secs(20), bench.act(steps)).await;
    let refused = done.expect("it is not waited for longer").refused;
    let refused = refused.expect("it is not taken for done").to_string();
    assert!(refused.contains("no answer within 200ms"), "{refused}");
}
