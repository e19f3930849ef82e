//! Requests that are not what was meant, as a merge patch makes them: each is answered at once, with a command that works.

use super::model::Model;
use crate::crd::{LastPromotion, PromoteMode, PromotionResult};
use crate::names::condition;

fn last(model: &Model) -> LastPromotion {
    model.status.last_promotion.clone().unwrap()
}

#[test]
fn a_failover_to_the_master_that_is_gone_is_refused_at_once_with_what_to_type() {
    let mut model = Model::healthy(3);
    model.ask("monday", PromoteMode::Switchover, Some("demo-replica-1"));
    model.settle();
    model.kill("demo-replica-1");
    // A merge patch that names no target keeps the one of before.
    model.ask("lost", PromoteMode::Failover, Some("demo-replica-1"));
    model.pass();
    assert_eq!(last(&model).result, PromotionResult::Refused);
    assert_eq!(model.status.target, None);
    model.type_command(&last(&model).message);
    model.settle();
    assert_eq!(last(&model).result, PromotionResult::Succeeded);
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
    model.revive("demo-replica-1");
    model.settle();
    model.assert_sound();
}

#[test]
fn a_failover_to_a_master_that_lost_its_volume_is_refused_at_once() {
    let mut model = Model::healthy(3);
    model.lose_volume("demo-master-0");
    model.ask("lost", PromoteMode::Failover, Some("demo-master-0"));
    model.pass();
    assert_eq!(last(&model).result, PromotionResult::Refused);
    model.type_command(&last(&model).message);
    model.settle();
    assert_eq!(model.master().as_deref(), Some("demo-replica-0"));
    model.assert_sound();
}

#[test]
fn a_master_that_had_to_stop_and_still_has_its_data_may_be_named() {
    let mut model = Model::healthy(3);
    let node = model.node("demo-master-0");
    node.facts.writing = false;
    node.facts.promised = 9;
    node.facts.standing = vectorizer_replication::command::Standing::Unassigned;
    model.ask("again", PromoteMode::Failover, Some("demo-master-0"));
    model.settle();
    assert_eq!(last(&model).result, PromotionResult::Succeeded);
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
    model.assert_sound();
}

#[test]
fn a_failover_over_a_living_master_is_answered_with_the_switchover_that_was_meant() {
    let mut model = Model::healthy(3);
    // A merge patch with another target keeps the mode of before.
    model.ask("tuesday", PromoteMode::Failover, Some("demo-replica-1"));
    model.pass();
    assert_eq!(last(&model).result, PromotionResult::Refused);
    model.type_command(&last(&model).message);
    model.settle();
    assert_eq!(last(&model).result, PromotionResult::Succeeded);
    assert_eq!(last(&model).mode, PromoteMode::Switchover);
    assert_eq!(model.master().as_deref(), Some("demo-replica-1"));
}

#[test]
fn promoting_whoever_is_the_master_already_says_how_another_one_is_had() {
    let mut model = Model::healthy(3);
    model.ask("monday", PromoteMode::Switchover, Some("demo-replica-1"));
    model.settle();
    model.ask("any", PromoteMode::Switchover, Some("demo-replica-1"));
    model.pass();
    assert_eq!(model.master().as_deref(), Some("demo-replica-1"));
    model.type_command(&last(&model).message);
    model.settle();
    assert_ne!(model.master().as_deref(), Some("demo-replica-1"));
    model.assert_sound();
}

#[test]
fn a_target_of_a_failover_that_holds_less_is_answered_with_a_command_that_takes_the_best() {
    let mut model = Model::healthy(3);
    model.node("demo-replica-0").stalled = true;
    for _ in 0..8 {
        model.pass();
    }
    model.kill("demo-master-0");
    model.ask("less", PromoteMode::Failover, Some("demo-replica-0"));
    model.pass();
    assert_eq!(last(&model).result, PromotionResult::Refused);
    model.type_command(&last(&model).message);
    model.settle();
    assert_eq!(model.master().as_deref(), Some("demo-replica-1"));
}

#[test]
fn what_is_said_of_a_silent_master_can_be_typed() {
    let mut model = Model::healthy(3);
    model.kill("demo-master-0");
    model.pass();
    let said = model.message(condition::AVAILABLE);
    model.pass();
    assert_eq!(model.message(condition::AVAILABLE), said, "it is no news");
    model.type_command(&said);
    model.settle();
    assert_eq!(model.master().as_deref(), Some("demo-replica-0"));
}

#[test]
fn a_command_in_a_message_was_not_carried_out_before() {
    let mut model = Model::healthy(3);
    model.kill("demo-master-0");
    model.pass();
    let first = model.message(condition::AVAILABLE);
    model.type_command(&first);
    // Given up before it began: the request was withdrawn.
    model.pass();
    model.cluster.spec.promote = None;
    model.pass();
    model.pass();
    let second = model.message(condition::AVAILABLE);
    assert_ne!(second, first);
    model.type_command(&second);
    model.settle();
    assert_eq!(model.master().as_deref(), Some("demo-replica-0"));
}
