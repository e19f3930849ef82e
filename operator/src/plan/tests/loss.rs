//! What a failover says it loses, and what it refuses to lose.

use super::model::Model;
use crate::crd::{LastPromotion, MasterPosition, PromoteMode, PromotionResult, TargetStep};
use crate::plan::Step;

const PODS: [&str; 3] = ["demo-master-0", "demo-replica-0", "demo-replica-1"];

fn last(model: &Model) -> LastPromotion {
    model.status.last_promotion.clone().unwrap()
}

fn seen(model: &Model) -> MasterPosition {
    let master = model.status.master.clone().unwrap();
    master.position.unwrap()
}

/// The first master died with 40 operations that nobody else has. The next one wrote for a while and is gone as well,
/// with everybody who followed it; the first one, which ends further, is back.
fn only_the_one_before_is_left() -> Model {
    let mut model = Model::healthy(3);
    for pod in &PODS[1..] {
        model.node(pod).stalled = true;
    }
    model.node("demo-master-0").facts.end.offset += 40;
    model.pass();
    model.kill("demo-master-0");
    for pod in &PODS[1..] {
        model.node(pod).stalled = false;
    }
    model.ask("a", PromoteMode::Failover, None);
    model.settle();
    assert_eq!(model.master().as_deref(), Some("demo-replica-0"));
    model.writes = false;
    let position = seen(&model);
    let ends = position.first_offset.unwrap() + 20;
    model.node("demo-replica-0").facts.end.offset = ends;
    model.pass();
    assert_eq!(seen(&model).offset, ends);
    model.kill("demo-replica-0");
    model.kill("demo-replica-1");
    model.revive("demo-master-0");
    assert!(model.node("demo-master-0").facts.end.offset > ends);
    model
}

#[test]
fn what_an_older_log_holds_beyond_the_lost_ones_end_makes_up_for_nothing() {
    let mut model = only_the_one_before_is_left();
    model.ask("b", PromoteMode::Failover, None);
    model.settle();
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
    assert_eq!(last(&model).result, PromotionResult::Succeeded);
    // The record that opened the epoch, and what was written after it.
    assert_eq!(last(&model).lost_operations, Some(21));
}

#[test]
fn a_failover_to_an_older_log_is_refused_before_anything_is_fenced_when_it_loses_too_much() {
    let mut model = only_the_one_before_is_left();
    model.ask("b", PromoteMode::Failover, None);
    let promote = model.cluster.spec.promote.as_mut();
    promote.unwrap().max_lag_operations = Some(5);
    let holder = |model: &Model| model.lease.clone().unwrap().1;
    let (before, promised) = (holder(&model), model.node("demo-master-0").facts.promised);
    for _ in 0..100 {
        let plan = model.pass();
        let fences = |s: &Step| matches!(s, Step::Fence { .. } | Step::SetLease { .. });
        assert!(!plan.steps.iter().any(fences), "{:?}", plan.steps);
    }
    assert_eq!(last(&model).result, PromotionResult::Refused);
    let said = last(&model).message;
    assert!(said.contains("at least 21 operations"), "{said}");
    assert_eq!(holder(&model), before);
    assert_eq!(model.node("demo-master-0").facts.promised, promised);
}

/// The master died. The first replica's data is sound and lacks 10 operations; the second's has them and is not sound.
fn the_furthest_is_not_sound() -> Model {
    let mut model = Model::healthy(3);
    model.node(PODS[1]).stalled = true;
    model.node(PODS[0]).facts.end.offset += 10;
    model.pass();
    model.node(PODS[2]).unlike = Some("the digest at 1.7".into());
    model.kill(PODS[0]);
    model.node(PODS[1]).stalled = false;
    model
}

fn ends_soon(model: &mut Model) {
    for _ in 0..100 {
        model.pass();
    }
    assert_eq!(model.status.target, None);
}

#[test]
fn what_may_be_lost_is_judged_by_the_node_that_would_be_elected() {
    for (most, result) in [
        (5, PromotionResult::Refused),
        (20, PromotionResult::Succeeded),
    ] {
        let mut model = the_furthest_is_not_sound();
        let lost = seen(&model).offset - model.node(PODS[1]).facts.end.offset;
        assert_eq!(lost, 10);
        let promised = model.node(PODS[1]).facts.promised;
        model.ask("a", PromoteMode::Failover, None);
        let promote = model.cluster.spec.promote.as_mut();
        promote.unwrap().max_lag_operations = Some(most);
        ends_soon(&mut model);
        assert_eq!(last(&model).result, result, "{}", last(&model).message);
        if result == PromotionResult::Refused {
            assert_eq!(model.node(PODS[1]).facts.promised, promised);
            continue;
        }
        assert_eq!(model.master().as_deref(), Some(PODS[1]));
        assert_eq!(last(&model).lost_operations, Some(lost));
    }
}

#[test]
fn a_named_target_is_refused_exactly_when_another_would_be_elected() {
    let mut model = the_furthest_is_not_sound();
    model.ask("a", PromoteMode::Failover, Some(PODS[2]));
    ends_soon(&mut model);
    let said = last(&model).message;
    assert_eq!(last(&model).result, PromotionResult::Refused, "{said}");
    assert!(said.contains("the digest at 1.7"), "{said}");
    assert!(
        said.contains("demo-replica-0 at 1.7; that one takes over"),
        "{said}"
    );
    model.ask("b", PromoteMode::Failover, Some(PODS[1]));
    model.settle();
    assert_eq!(last(&model).result, PromotionResult::Succeeded);
    assert_eq!(model.master().as_deref(), Some(PODS[1]));
}

#[test]
fn what_a_master_held_that_comes_back_with_another_volume_is_counted() {
    let mut model = Model::healthy(3);
    for pod in &PODS[1..] {
        model.node(pod).stalled = true;
    }
    model.node("demo-master-0").facts.end.offset += 10;
    model.pass();
    model.lose_volume("demo-master-0");
    model.pass();
    for pod in &PODS[1..] {
        model.node(pod).stalled = false;
    }
    model.ask("a", PromoteMode::Failover, None);
    model.settle();
    let lost = last(&model).lost_operations.unwrap();
    assert!((10..13).contains(&lost), "{lost}");
}

/// The master has 40 operations more than replicas that stand still; and how many that is known to be.
fn far_ahead() -> (Model, u64) {
    let mut model = Model::healthy(3);
    for pod in &PODS[1..] {
        model.node(pod).stalled = true;
    }
    model.node("demo-master-0").facts.end.offset += 40;
    model.pass();
    let lost = seen(&model).offset - model.node("demo-replica-0").facts.end.offset;
    (model, lost)
}

#[test]
fn a_master_that_follows_the_next_one_before_that_is_on_record_does_not_change_what_is_lost() {
    let (mut model, lost) = far_ahead();
    model.kill("demo-master-0");
    for pod in &PODS[1..] {
        model.node(pod).stalled = false;
    }
    model.ask("a", PromoteMode::Failover, None);
    while model.promotions.is_empty() {
        let plan = model.plan();
        let promote = |s: &Step| matches!(s, Step::Promote { .. });
        // The operator is killed right after it.
        let limit = plan.steps.iter().position(promote);
        model.pass_until(limit.map_or(usize::MAX, |n| n + 1));
    }
    assert!(model.status.target.is_some());
    model.revive("demo-master-0");
    let next = model.node("demo-replica-0").clone();
    let old = model.node("demo-master-0");
    (old.facts.end, old.history) = (next.facts.end, next.history);
    model.settle();
    assert_eq!(last(&model).lost_operations, Some(lost));
}

#[test]
fn what_a_master_writes_while_its_handover_is_refused_is_counted_when_it_dies() {
    let mut model = Model::healthy(3);
    model.node("demo-master-0").refuses.push("handover");
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    model.pass();
    for pod in &PODS[1..] {
        model.node(pod).stalled = true;
    }
    model.node("demo-master-0").facts.end.offset += 40;
    model.pass();
    let step = model.status.target.as_ref().map(|t| t.step);
    assert_eq!(step, Some(TargetStep::HandingOver));
    let lost = seen(&model).offset - model.node("demo-replica-0").facts.end.offset;
    assert!(lost >= 40, "{lost}");
    model.kill("demo-master-0");
    for pod in &PODS[1..] {
        model.node(pod).stalled = false;
    }
    model.ask("b", PromoteMode::Failover, None);
    model.settle();
    assert_eq!(last(&model).lost_operations, Some(lost));
}

#[test]
fn where_a_status_says_nothing_of_its_masters_position_the_list_of_nodes_does() {
    let (mut model, lost) = far_ahead();
    model.kill("demo-master-0");
    if let Some(master) = &mut model.status.master {
        master.position = None;
    }
    model.ask("a", PromoteMode::Failover, None);
    model.settle();
    assert_eq!(last(&model).lost_operations, Some(lost));
}

#[test]
fn a_master_that_restarts_is_known_by_its_newest_epoch() {
    let mut model = Model::healthy(3);
    model.writes = false;
    model.pass();
    let before = seen(&model);
    model.kill("demo-master-0");
    // The end of its log was torn.
    model.node("demo-master-0").facts.end.offset -= 3;
    for pod in &PODS[1..] {
        model.node(pod).stalled = true;
    }
    model.revive("demo-master-0");
    model.pass();
    let after = seen(&model);
    assert!(after.epoch > before.epoch && after.offset < before.offset);
    assert_eq!(after.first_offset, Some(before.offset - 2));
}
