//! Switchover and failover.

use super::model::Model;
use crate::crd::{PromoteMode, PromotionReason, PromotionResult, TargetStep};
use crate::names::{condition, reason};
use crate::plan::Step;

fn last(model: &Model) -> crate::crd::LastPromotion {
    model.status.last_promotion.clone().unwrap()
}

#[test]
fn a_switchover_loses_nothing_and_takes_one_pass() {
    let mut model = Model::healthy(3);
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    let acknowledged = model.acknowledged;
    model.pass();
    assert_eq!(model.master().as_deref(), Some("demo-replica-1"));
    assert!(model.node("demo-replica-1").facts.end.offset > acknowledged);
    model.settle();
    model.assert_sound();
    assert_eq!(last(&model).result, PromotionResult::Succeeded);
    assert_eq!(last(&model).lost_operations, Some(0));
    assert_eq!(last(&model).from.as_deref(), Some("demo-master-0"));
    assert_eq!(model.condition(condition::PROMOTION_SUCCEEDED).0, "True");
    assert_eq!(model.promotions, ["demo-replica-1"]);
}

#[test]
fn without_a_target_the_most_advanced_replica_takes_over_and_of_equals_the_first() {
    let mut model = Model::healthy(3);
    model.ask("a", PromoteMode::Switchover, None);
    model.settle();
    assert_eq!(model.master().as_deref(), Some("demo-replica-0"));
    let mut model = Model::healthy(3);
    model.writes = false;
    model.node("demo-replica-1").facts.end.offset += 1;
    model.ask("a", PromoteMode::Switchover, None);
    let plan = model.plan();
    let promoted = plan.steps.iter().find_map(|s| match s {
        Step::Promote { to, .. } => Some(to.pod.clone()),
        _ => None,
    });
    assert_eq!(promoted.as_deref(), Some("demo-replica-1"));
}

#[test]
fn a_request_is_carried_out_once() {
    let mut model = Model::healthy(3);
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-0"));
    model.settle();
    model.ask("b", PromoteMode::Switchover, Some("demo-master-0"));
    model.settle();
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-0"));
    model.settle();
    model.assert_sound();
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
    assert_eq!(model.status.memory.handled_requests, ["a", "b"]);
}

#[test]
fn commands_come_in_the_order_that_keeps_everything() {
    let mut model = Model::healthy(3);
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-0"));
    let words: Vec<_> = model
        .plan()
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Record(m) => Some(
                m.target
                    .as_ref()
                    .map_or("done".into(), |t| format!("{:?}", t.step)),
            ),
            Step::Fence { to, .. } => Some(format!("fence {}", to.pod)),
            Step::Handover { to, .. } => Some(format!("handover {}", to.pod)),
            Step::SetLease { .. } => Some("lease".into()),
            Step::Promote { to, .. } => Some(format!("promote {}", to.pod)),
            Step::Label { pod, role, .. } => role.map(|role| format!("label {pod} {role}")),
            Step::Follow { to, .. } => Some(format!("follow {}", to.pod)),
            _ => None,
        })
        .collect();
    assert_eq!(
        words,
        [
            "Reserved",
            "fence demo-replica-0",
            "HandingOver",
            "handover demo-master-0",
            "lease",
            "promote demo-replica-0",
            "label demo-replica-0 master",
            "label demo-master-0 replica",
            "follow demo-master-0",
            "follow demo-replica-1",
            "done",
        ]
    );
}

#[test]
fn a_target_that_never_becomes_ready_leaves_the_master_writing() {
    let mut model = Model::healthy(3);
    model.kill("demo-replica-1");
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    for _ in 0..200 {
        model.pass();
    }
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
    assert_eq!(last(&model).result, PromotionResult::Failed);
    assert!(
        last(&model)
            .message
            .contains("demo-replica-1 does not answer"),
        "{}",
        last(&model).message
    );
    assert_eq!(
        model.condition(condition::PROMOTION_SUCCEEDED),
        ("False".into(), reason::PROMOTION_FAILED.into())
    );
    assert!(model.promotions.is_empty());
    assert_eq!(model.status.target, None);
}

#[test]
fn a_request_that_is_withdrawn_before_it_begins_changes_nothing() {
    let mut model = Model::healthy(3);
    model.kill("demo-replica-1");
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    model.pass();
    assert_eq!(
        model.status.target.as_ref().map(|t| t.step),
        Some(TargetStep::Reserved)
    );
    model.cluster.spec.promote = None;
    model.pass();
    assert_eq!(last(&model).result, PromotionResult::Failed);
    model.revive("demo-replica-1");
    model.settle();
    model.assert_sound();
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
}

#[test]
fn of_two_requests_the_newer_counts_while_nothing_has_begun() {
    let mut model = Model::healthy(3);
    model.kill("demo-replica-1");
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    model.pass();
    model.ask("b", PromoteMode::Switchover, Some("demo-replica-0"));
    for _ in 0..5 {
        model.pass();
    }
    assert_eq!(model.master().as_deref(), Some("demo-replica-0"));
    assert_eq!(model.status.memory.handled_requests, ["a", "b"]);
}

#[test]
fn a_pod_that_does_not_exist_is_refused_at_once() {
    let mut model = Model::healthy(3);
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-7"));
    model.settle();
    assert_eq!(last(&model).result, PromotionResult::Refused);
    model.assert_sound();
}

#[test]
fn promoting_the_master_succeeds_without_doing_anything() {
    let mut model = Model::healthy(3);
    model.ask("a", PromoteMode::Switchover, Some("demo-master-0"));
    model.settle();
    assert_eq!(last(&model).result, PromotionResult::Succeeded);
    assert!(model.promotions.is_empty());
}

#[test]
fn a_switchover_waits_until_the_target_is_within_its_bound() {
    let mut model = Model::healthy(3);
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-0"));
    model
        .cluster
        .spec
        .promote
        .as_mut()
        .unwrap()
        .max_lag_operations = Some(0);
    model.node("demo-master-0").facts.end.offset += 5;
    model.writes = false;
    model.pass();
    assert_eq!(
        model.master().as_deref(),
        Some("demo-master-0"),
        "5 operations behind"
    );
    model.settle();
    assert_eq!(model.master().as_deref(), Some("demo-replica-0"));
}

#[test]
fn an_operator_killed_at_any_step_of_a_switchover_ends_the_same() {
    for limit in 0..16 {
        let mut model = Model::healthy(3);
        model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
        let acknowledged = model.acknowledged;
        model.pass_until(limit);
        model.settle();
        model.assert_sound();
        assert_eq!(
            model.master().as_deref(),
            Some("demo-replica-1"),
            "killed before step {limit}"
        );
        assert!(model.acknowledged > acknowledged);
        assert_eq!(last(&model).result, PromotionResult::Succeeded);
        assert_eq!(model.status.memory.handled_requests, ["a"]);
    }
}

#[test]
fn a_target_that_dies_at_any_step_of_a_switchover_leaves_somebody_writing_everything() {
    for limit in 0..16 {
        let mut model = Model::healthy(3);
        model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
        model.pass_until(limit);
        let end = model.nodes.values().map(|n| n.facts.end).max().unwrap();
        model.kill("demo-replica-1");
        let done = model
            .status
            .master
            .as_ref()
            .is_some_and(|m| m.pod == "demo-replica-1");
        for _ in 0..300 {
            model.pass();
        }
        if done {
            // An ordinary dead master.
            assert_eq!(model.master(), None);
            model.revive("demo-replica-1");
            model.settle();
            model.assert_sound();
            continue;
        }
        let master = model
            .master()
            .unwrap_or_else(|| panic!("nobody writes after step {limit}: {:#?}", model.status));
        let promoted = model.promotions.contains(&"demo-replica-1".to_owned());
        if !promoted {
            assert!(
                model.node(&master).facts.end.offset >= end.offset,
                "something is lost after step {limit}"
            );
        }
        model.revive("demo-replica-1");
        model.settle();
        model.assert_sound();
    }
}

#[test]
fn a_master_that_restarts_at_any_step_of_a_switchover_loses_nothing() {
    for limit in 0..16 {
        let mut model = Model::healthy(3);
        model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
        model.pass_until(limit);
        let acknowledged = model.acknowledged;
        model.kill("demo-master-0");
        for _ in 0..10 {
            model.pass();
        }
        model.revive("demo-master-0");
        model.settle();
        model.assert_sound();
        assert!(model.acknowledged >= acknowledged);
        let master = model.master().unwrap();
        assert!(model.node(&master).facts.end.offset >= acknowledged);
    }
}

#[test]
fn a_failover_waits_for_the_lease_to_run_out_on_its_own_clock() {
    let mut model = Model::healthy(3);
    model.pass_time(2000);
    model.kill("demo-master-0");
    model.ask("a", PromoteMode::Failover, None);
    for _ in 0..40 {
        model.pass();
    }
    assert_eq!(model.master(), None, "10 s are not enough");
    assert!(
        model
            .status
            .target
            .as_ref()
            .is_some_and(|t| t.step == TargetStep::Reserved)
    );
    for _ in 0..40 {
        model.pass();
    }
    assert_eq!(model.master().as_deref(), Some("demo-replica-0"));
    model.settle();
    assert_eq!(last(&model).result, PromotionResult::Succeeded);
    let epoch = model.status.master.clone().unwrap().epoch;
    assert_eq!(epoch, 2, "waiting uses up no epochs");
    model.revive("demo-master-0");
    model.settle();
    model.assert_sound();
    assert_eq!(
        model.node("demo-master-0").pod.role.as_deref(),
        Some("replica")
    );
}

#[test]
fn a_failover_takes_the_most_advanced_and_says_what_is_lost() {
    let mut model = Model::healthy(3);
    model.node("demo-replica-0").stalled = true;
    for _ in 0..8 {
        model.pass();
    }
    model.node("demo-replica-1").stalled = true;
    model.node("demo-master-0").facts.end.offset += 10;
    model.pass();
    model.kill("demo-master-0");
    model.node("demo-replica-0").stalled = false;
    model.node("demo-replica-1").stalled = false;
    model.ask("a", PromoteMode::Failover, None);
    model.settle();
    assert_eq!(model.master().as_deref(), Some("demo-replica-1"));
    let lost = last(&model).lost_operations.unwrap();
    assert!((10..13).contains(&lost), "{lost}");
}

#[test]
fn without_a_write_concern_sound_data_comes_before_more_of_it() {
    let mut model = Model::healthy(3);
    model.node("demo-replica-0").stalled = true;
    model.node("demo-master-0").facts.end.offset += 10;
    model.pass();
    model.node("demo-replica-1").unlike = Some("the digest at 1.7".into());
    model.kill("demo-master-0");
    model.ask("a", PromoteMode::Failover, None);
    model.settle();
    assert_eq!(model.master().as_deref(), Some("demo-replica-0"));
}

#[test]
fn of_those_that_hold_the_same_a_failover_takes_one_whose_data_is_its_masters() {
    let mut model = Model::healthy(3);
    model.node("demo-replica-0").unlike = Some("the digest at 1.7".into());
    model.kill("demo-master-0");
    model.ask("a", PromoteMode::Failover, None);
    model.settle();
    assert_eq!(model.master().as_deref(), Some("demo-replica-1"));
}

#[test]
fn a_failover_that_would_lose_too_much_is_refused_before_anything_is_fenced() {
    let mut model = Model::healthy(3);
    for pod in ["demo-replica-0", "demo-replica-1"] {
        model.node(pod).stalled = true;
    }
    for _ in 0..20 {
        model.pass();
    }
    model.kill("demo-master-0");
    model.ask("a", PromoteMode::Failover, None);
    model
        .cluster
        .spec
        .promote
        .as_mut()
        .unwrap()
        .max_lag_operations = Some(3);
    let promised = model.node("demo-replica-0").facts.promised;
    for _ in 0..10 {
        model.pass();
    }
    assert_eq!(last(&model).result, PromotionResult::Refused);
    assert_eq!(model.node("demo-replica-0").facts.promised, promised);
    model.revive("demo-master-0");
    for pod in ["demo-replica-0", "demo-replica-1"] {
        model.node(pod).stalled = false;
    }
    model.settle();
    model.assert_sound();
}

#[test]
fn a_failover_over_a_living_master_is_refused() {
    let mut model = Model::healthy(3);
    model.ask("a", PromoteMode::Failover, None);
    model.settle();
    model.assert_sound();
    assert_eq!(last(&model).result, PromotionResult::Refused);
    assert!(model.promotions.is_empty());
}

#[test]
fn a_named_target_that_holds_less_is_refused_with_the_better_ones_name() {
    let mut model = Model::healthy(3);
    model.node("demo-replica-0").stalled = true;
    for _ in 0..8 {
        model.pass();
    }
    model.kill("demo-master-0");
    model.ask("a", PromoteMode::Failover, Some("demo-replica-0"));
    model.pass();
    assert_eq!(last(&model).result, PromotionResult::Refused);
    assert!(last(&model).message.contains("demo-replica-1"));
}

#[test]
fn a_volume_of_another_cluster_is_in_nobodys_way_when_a_target_is_named() {
    let mut model = Model::healthy(4);
    let node = model.node("demo-replica-0");
    node.facts.cluster = Some(uuid::Uuid::from_u128(7));
    node.facts.end = vectorizer_api::position::Position::new(90, 5_000);
    node.facts.promised = 90;
    model.kill("demo-master-0");
    model.ask("a", PromoteMode::Failover, Some("demo-replica-1"));
    model.settle();
    assert_eq!(last(&model).result, PromotionResult::Succeeded);
    assert_eq!(model.master().as_deref(), Some("demo-replica-1"));
    let epoch = model.status.master.clone().unwrap().epoch;
    assert!(epoch < 90, "epochs of another cluster say nothing here");
    assert_eq!(last(&model).lost_operations, Some(0));
}

#[test]
fn a_master_that_comes_back_before_it_was_replaced_stays_the_master() {
    let mut model = Model::healthy(3);
    model.kill("demo-master-0");
    model.ask("a", PromoteMode::Failover, None);
    for _ in 0..20 {
        model.pass();
    }
    model.revive("demo-master-0");
    model.settle();
    model.assert_sound();
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
    assert!(model.promotions.is_empty());
}

#[test]
fn an_operator_killed_at_any_step_of_a_failover_goes_on() {
    for first in [0, 1, 2, 10, 30, 54, 55, 56, 57, 58, 59, 60, 61] {
        for limit in [0, 1, 2, 3, 4, 5, 7] {
            let mut model = Model::healthy(3);
            model.kill("demo-master-0");
            model.ask("a", PromoteMode::Failover, None);
            for _ in 0..first {
                model.pass();
            }
            model.pass_until(limit);
            model.settle();
            assert_eq!(
                model.master().as_deref(),
                Some("demo-replica-0"),
                "killed in pass {first}, step {limit}"
            );
            model.revive("demo-master-0");
            model.settle();
            model.assert_sound();
        }
    }
}

#[test]
fn a_new_master_that_dies_right_after_its_grant_is_replaced_in_turn() {
    let mut model = Model::healthy(3);
    model.kill("demo-master-0");
    model.ask("a", PromoteMode::Failover, None);
    while model
        .status
        .target
        .as_ref()
        .is_none_or(|t| t.step != TargetStep::Granting)
    {
        let plan = model.plan();
        let grant = plan
            .steps
            .iter()
            .position(|s| matches!(s, Step::Promote { .. }));
        model.pass_until(grant.unwrap_or(usize::MAX));
    }
    model.kill("demo-replica-0");
    for _ in 0..200 {
        model.pass();
    }
    assert_eq!(model.master().as_deref(), Some("demo-replica-1"));
    model.revive("demo-replica-0");
    model.revive("demo-master-0");
    model.settle();
    model.assert_sound();
}

#[test]
fn a_failover_can_be_asked_for_when_the_master_dies_during_a_handover() {
    let mut model = Model::healthy(3);
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    let plan = model.plan();
    let handover = plan
        .steps
        .iter()
        .position(|s| matches!(s, Step::Handover { .. }))
        .unwrap();
    model.pass_until(handover);
    model.kill("demo-master-0");
    for _ in 0..100 {
        model.pass();
    }
    assert_eq!(model.master(), None, "nobody asked for a failover");
    assert_eq!(
        model.condition(condition::DEGRADED).1,
        reason::MASTER_UNREACHABLE
    );
    model.ask("b", PromoteMode::Failover, None);
    model.settle();
    assert!(model.master().is_some());
    assert_eq!(model.status.memory.handled_requests, ["a", "b"]);
    model.revive("demo-master-0");
    model.settle();
    model.assert_sound();
}

#[test]
fn a_master_that_lost_its_volume_is_replaced_when_asked() {
    let mut model = Model::healthy(3);
    model.lose_volume("demo-master-0");
    model.ask("a", PromoteMode::Failover, None);
    model.settle();
    model.assert_sound();
    assert_eq!(model.master().as_deref(), Some("demo-replica-0"));
    assert_eq!(last(&model).reason, PromotionReason::Requested);
}
