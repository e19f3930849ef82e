//! A cluster in which nobody asks for anything.

use std::time::Duration;

use super::model::Model;
use crate::names::{condition, reason};
use crate::plan::{SETTLED, Step};
use crate::report::is_news;
use crate::world::{Kind, ObjectRef};

#[test]
fn a_settled_cluster_is_left_alone_for_minutes() {
    let mut model = Model::healthy(3);
    for _ in 0..300 {
        let before = model.status.clone();
        let plan = model.pass();
        assert!(plan.changes_nothing(), "{:#?}", plan.steps);
        assert!(!is_news(&before, &plan.status, Some(Duration::ZERO)));
        assert_eq!(plan.requeue, SETTLED);
    }
}

#[test]
fn a_master_that_restarted_by_itself_is_adopted_and_followed_at_its_new_address() {
    let mut model = Model::healthy(3);
    let epoch = model.status.master.clone().unwrap().epoch;
    model.delete_pod("demo-master-0");
    assert!(
        model.master().is_some(),
        "it needs no operator to write again"
    );
    model.settle();
    model.assert_sound();
    assert_eq!(model.status.master.clone().unwrap().epoch, epoch + 1);
    assert!(model.promotions.is_empty());
}

#[test]
fn a_dead_master_is_not_replaced_without_being_asked() {
    let mut model = Model::healthy(3);
    model.kill("demo-master-0");
    for _ in 0..200 {
        model.pass();
    }
    assert_eq!(model.master(), None);
    assert!(model.promotions.is_empty());
    assert_eq!(
        model.condition(condition::AVAILABLE),
        ("False".into(), reason::MASTER_UNREACHABLE.into())
    );
    assert_eq!(
        model.node("demo-master-0").pod.role.as_deref(),
        Some("master")
    );
    assert!(
        model.node("demo-replica-0").pod.read_eligible,
        "reads go on"
    );
}

#[test]
fn a_master_that_comes_back_with_an_empty_volume_is_not_the_master() {
    let mut model = Model::healthy(3);
    model.lose_volume("demo-master-0");
    for _ in 0..200 {
        model.pass();
    }
    assert_eq!(model.master(), None);
    assert_eq!(
        model.condition(condition::DEGRADED),
        ("True".into(), reason::MASTER_LOST_DATA.into())
    );
}

#[test]
fn a_replica_that_comes_back_empty_is_filled_again() {
    let mut model = Model::healthy(3);
    model.lose_volume("demo-replica-1");
    model.settle();
    model.assert_sound();
    assert!(model.node("demo-replica-1").facts.has_data);
}

#[test]
fn a_replica_that_lags_leaves_the_reads_and_returns_below_half() {
    let mut model = Model::healthy(3);
    let eligible = |model: &mut Model, lag: u64| {
        model.node("demo-replica-1").lag_ms = lag;
        model.pass();
        model.node("demo-replica-1").pod.read_eligible
    };
    assert!(eligible(&mut model, 900));
    assert!(!eligible(&mut model, 1001));
    assert!(!eligible(&mut model, 900), "hysteresis");
    assert!(eligible(&mut model, 500));
}

#[test]
fn the_master_serves_reads_only_while_no_replica_can() {
    let mut model = Model::healthy(2);
    assert!(!model.node("demo-master-0").pod.read_eligible);
    model.node("demo-replica-0").lag_ms = 60_000;
    model.pass();
    assert!(model.node("demo-master-0").pod.read_eligible);
    model.node("demo-replica-0").lag_ms = 0;
    model.pass();
    assert!(!model.node("demo-master-0").pod.read_eligible);
}

#[test]
fn reads_are_not_interrupted_by_a_restart_of_the_master() {
    let mut model = Model::healthy(3);
    model.kill("demo-master-0");
    model.pass();
    model.delete_pod("demo-master-0");
    // Nobody follows the new address yet: the master knows no replica.
    for _ in 0..4 {
        model.pass();
        assert!(model.node("demo-replica-0").pod.read_eligible);
        assert!(model.node("demo-replica-1").pod.read_eligible);
    }
}

#[test]
fn a_deleted_lease_is_written_again_as_it_was() {
    let mut model = Model::healthy(3);
    let before = model.lease.clone().unwrap().1;
    model.lease = None;
    model.settle();
    model.assert_sound();
    assert_eq!(model.lease.clone().unwrap().1, before);
}

#[test]
fn a_lease_that_was_deleted_while_the_master_was_down_lets_it_come_back() {
    let mut model = Model::healthy(3);
    model.kill("demo-master-0");
    model.lease = None;
    model.pass();
    model.revive("demo-master-0");
    model.settle();
    model.assert_sound();
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
}

#[test]
fn a_master_that_had_to_stop_for_an_epoch_that_nobody_has_is_elected_again() {
    let mut model = Model::healthy(3);
    let node = model.node("demo-master-0");
    node.facts.writing = false;
    node.facts.promised = 9;
    node.facts.standing = vectorizer_replication::command::Standing::Unassigned;
    let acknowledged = model.acknowledged;
    model.settle();
    model.assert_sound();
    assert!(model.status.master.clone().unwrap().epoch > 9);
    assert!(model.acknowledged > acknowledged);
}

#[test]
fn somebody_elses_service_is_left_alone_and_named() {
    let mut model = Model::new(1);
    let service = ObjectRef {
        kind: Kind::Service,
        name: "demo-rw".into(),
    };
    model.taken.insert(service.clone());
    let plan = model.pass();
    assert!(plan.objects.iter().all(|o| o.reference != service));
    assert!(!plan.prune.contains(&service));
    assert_eq!(
        model.condition(condition::DEGRADED),
        ("True".into(), reason::NAME_TAKEN.into())
    );
}

#[test]
fn a_paused_cluster_is_reported_on_and_nothing_else() {
    let mut model = Model::healthy(3);
    model.cluster.spec.paused = true;
    model.cluster.spec.replicas = 5;
    model.ask("a", crate::crd::PromoteMode::Switchover, None);
    model.kill("demo-replica-0");
    let plan = model.pass();
    assert!(plan.objects.is_empty() && plan.secrets.is_empty() && plan.prune.is_empty());
    let leaves_out = |s: &Step| matches!(s, Step::Label { pod, .. } if pod == "demo-replica-0");
    assert!(plan.steps.iter().all(leaves_out), "{:#?}", plan.steps);
    assert_eq!(model.condition(condition::PROGRESSING).1, reason::PAUSED);
    model.cluster.spec.paused = false;
    model.revive("demo-replica-0");
    model.settle();
    model.assert_sound();
    assert_ne!(model.master().as_deref(), Some("demo-master-0"));
}

#[test]
fn nobody_is_told_to_follow_twice() {
    let mut model = Model::healthy(3);
    model.delete_pod("demo-replica-0");
    let follows = |plan: &crate::plan::Plan| {
        plan.steps
            .iter()
            .filter(|s| matches!(s, Step::Follow { .. }))
            .count()
    };
    let first = model.pass();
    assert_eq!(follows(&first), 0, "it remembers whom it follows");
    model.settle();
    model.assert_sound();
}

#[test]
fn how_far_a_replica_lags_is_a_figure_and_no_news() {
    let mut model = Model::healthy(3);
    model.node("demo-replica-1").lag_ms = 5_000;
    model.pass();
    let at = |lag: u64| {
        let mut world = model.world();
        for replica in world.replicas.iter_mut().flatten() {
            if replica.lag_ms > 0 {
                replica.lag_operations = lag;
            }
        }
        crate::plan::plan(&world).status
    };
    assert!(!is_news(
        &at(1_000),
        &at(2_000),
        Some(Duration::from_secs(3))
    ));
    // Nor while a switchover waits for it.
    model.ask(
        "a",
        crate::crd::PromoteMode::Switchover,
        Some("demo-replica-1"),
    );
    model.pass();
    let at = |lag: u64| {
        let mut world = model.world();
        for replica in world.replicas.iter_mut().flatten() {
            if replica.lag_ms > 0 {
                replica.lag_operations = lag;
            }
        }
        crate::plan::plan(&world).status
    };
    assert!(!is_news(
        &at(1_000),
        &at(2_000),
        Some(Duration::from_secs(3))
    ));
}

#[test]
fn a_replica_that_its_master_does_not_feed_is_named_with_what_it_says() {
    let mut model = Model::new(2);
    model.settle();
    let node = model.node("demo-replica-1");
    node.stalled = true;
    node.cut_off = Some("the peer's token is another one".into());
    model.pass();
    model.pass();
    let text = model.message(condition::REPLICATION_HEALTHY);
    assert!(
        text.contains("demo-replica-1 (the peer's token is another one)"),
        "{text}"
    );
    assert!(!text.contains("demo-replica-0"), "{text}");
}

#[test]
fn a_node_that_refuses_the_operators_token_is_not_said_to_be_silent_nor_to_be_replaced() {
    for pod in ["demo-replica-1", "demo-master-0"] {
        let mut model = Model::new(2);
        model.settle();
        model.node(pod).estranged = true;
        model.pass();
        model.pass();
        let status = serde_json::to_string(&model.status.conditions).unwrap();
        assert!(!status.contains("Failover"), "{status}");
        if pod == "demo-master-0" {
            assert!(
                status.contains("knows neither the operator's control token"),
                "{status}"
            );
            assert!(
                !status.contains("demo-master-0 does not answer"),
                "{status}"
            );
        }
    }
}
