//! Changes of the master that cannot go on as they were begun: each of them ends, and somebody writes.

use vectorizer_replication::command::{Command, HandedOver, Standing};

use super::model::Model;
use crate::crd::{PromoteMode, PromotionResult, TargetStep};
use crate::plan::{Step, plan};

fn last(model: &Model) -> crate::crd::LastPromotion {
    model.status.last_promotion.clone().unwrap()
}

fn step(model: &Model) -> Option<TargetStep> {
    model.status.target.as_ref().map(|t| t.step)
}

#[test]
fn a_target_that_cannot_open_its_epoch_is_replaced_by_somebody_who_can() {
    let mut model = Model::healthy(3);
    model.node("demo-replica-1").refuses.push("promote");
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    let acknowledged = model.acknowledged;
    for _ in 0..100 {
        model.pass();
    }
    let master = model.master().expect("somebody writes");
    assert_ne!(master, "demo-replica-1");
    assert!(model.node(&master).facts.end.offset > acknowledged);
    model.settle();
    model.assert_sound();
}

#[test]
fn one_that_is_elected_and_cannot_open_its_epoch_is_replaced_by_the_next() {
    let mut model = Model::healthy(3);
    model.kill("demo-master-0");
    model.node("demo-replica-0").refuses.push("promote");
    model.ask("a", PromoteMode::Failover, None);
    for _ in 0..250 {
        model.pass();
    }
    assert_eq!(model.master().as_deref(), Some("demo-replica-1"));
    model.revive("demo-master-0");
    model.settle();
    model.assert_sound();
}

#[test]
fn a_failover_can_be_asked_for_once_the_target_was_granted_the_epoch() {
    let mut model = Model::healthy(3);
    model.node("demo-replica-1").refuses.push("promote");
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    model.pass();
    model.ask("b", PromoteMode::Failover, Some("demo-replica-0"));
    model.pass();
    let target = model.status.target.clone().unwrap();
    assert_eq!(
        target.mode,
        PromoteMode::Failover,
        "although the old master answers"
    );
    model.settle();
    model.assert_sound();
    assert_eq!(model.master().as_deref(), Some("demo-replica-0"));
    assert_eq!(model.status.memory.handled_requests, ["a", "b"]);
}

#[test]
fn pods_are_labelled_and_followed_while_a_switchover_waits_to_begin() {
    let mut model = Model::healthy(3);
    model.node("demo-replica-1").stalled = true;
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    model.pass();
    model.delete_pod("demo-master-0");
    for _ in 0..5 {
        model.pass();
    }
    assert_eq!(step(&model), Some(TargetStep::Reserved));
    let master = model.node("demo-master-0").clone();
    assert_eq!(master.pod.role.as_deref(), Some("master"));
    let address = format!("{}:7001", master.pod.ip.unwrap());
    let follows = |standing: &Standing| matches!(standing, Standing::Replica { master_address, .. } if *master_address == address);
    assert!(follows(&model.node("demo-replica-0").facts.standing));
}

#[test]
fn what_was_known_of_the_lease_before_a_promotion_does_not_undo_it() {
    let records =
        |plan: &crate::plan::Plan| plan.steps.iter().any(|s| matches!(s, Step::Record(_)));
    let mut model = Model::healthy(3);
    let before = model.world().lease;
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    model.pass();
    model.pass();
    assert_eq!(model.status.target, None);
    let mut world = model.world();
    world.lease = before;
    assert!(!records(&plan(&world)), "the old master's");

    let mut model = Model::healthy(3);
    model.kill("demo-master-0");
    model.ask("a", PromoteMode::Failover, None);
    let mut vacant = None;
    for _ in 0..100 {
        model.pass();
        let lease = model.world().lease;
        if lease.grant().is_some_and(|g| g.holder.is_none()) {
            vacant = Some(lease);
        }
    }
    assert_eq!(model.master().as_deref(), Some("demo-replica-0"));
    model.revive("demo-master-0");
    model.settle();
    let mut world = model.world();
    world.lease = vacant.unwrap();
    assert!(!records(&plan(&world)), "the vacant one");
}

#[test]
fn a_deadline_counts_although_both_sides_have_become_ready() {
    let mut model = Model::healthy(3);
    model.node("demo-replica-1").stalled = true;
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    model.pass();
    assert_eq!(step(&model), Some(TargetStep::Reserved));
    model.pass_time(60_000);
    model.node("demo-replica-1").stalled = false;
    model.pass();
    assert_eq!(last(&model).result, PromotionResult::Failed);
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
    assert!(model.promotions.is_empty());
}

#[test]
fn a_handover_that_is_always_refused_ends_at_the_deadline() {
    let mut model = Model::healthy(3);
    model.node("demo-master-0").refuses.push("handover");
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    model.pass();
    assert_eq!(step(&model), Some(TargetStep::HandingOver));
    for _ in 0..160 {
        model.pass();
    }
    assert_eq!(model.status.target, None);
    assert_eq!(last(&model).result, PromotionResult::Failed);
    assert!(
        last(&model).message.contains("not this time"),
        "{}",
        last(&model).message
    );
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
}

/// An hour for a switchover to `demo-replica-1` whose handover is refused so far.
fn begun_with_an_hour() -> Model {
    let mut model = Model::healthy(3);
    model.node("demo-master-0").refuses.push("handover");
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    model
        .cluster
        .spec
        .promote
        .as_mut()
        .unwrap()
        .deadline_seconds = 3600;
    model.pass();
    assert_eq!(step(&model), Some(TargetStep::HandingOver));
    model
}

/// The same once the handover is done, and nothing after it.
fn handed_over_with_an_hour() -> Model {
    let mut model = begun_with_an_hour();
    model.node("demo-master-0").refuses.clear();
    let plan = model.plan();
    let handover = |s: &Step| matches!(s, Step::Handover { .. });
    let handover = plan.steps.iter().position(handover).unwrap();
    model.pass_until(handover + 1);
    model
}

/// An earlier attempt's command, which nobody waits for any more, ends the master's epoch for another target.
fn hand_to_another(model: &mut Model) {
    let target = model.status.target.clone().unwrap();
    let plan = HandedOver {
        from_epoch: target.from_epoch,
        epoch: target.epoch,
        target: model.node("demo-replica-0").facts.node_id,
    };
    let cluster = model.status.cluster.unwrap();
    for command in [
        Command::Handover { cluster, plan },
        Command::FinishHandover { plan },
    ] {
        model.command("demo-master-0", &command).unwrap();
    }
    assert_eq!(model.master(), None);
}

/// Somebody writes again within so many seconds, and has everything.
fn writes_within(model: &mut Model, secs: u64) {
    let acknowledged = model.acknowledged;
    for _ in 0..secs * 4 {
        model.pass();
    }
    let master = model
        .master()
        .unwrap_or_else(|| panic!("{:#?}", model.status));
    assert!(model.node(&master).facts.end.offset > acknowledged);
    model.settle();
    assert_eq!(last(model).result, PromotionResult::Succeeded);
    assert_eq!(last(model).lost_operations, Some(0));
}

#[test]
fn what_a_late_command_handed_over_to_another_target_ends_in_an_election_whatever_the_deadline() {
    let mut model = begun_with_an_hour();
    hand_to_another(&mut model);
    writes_within(&mut model, 10);
    model.assert_sound();
}

#[test]
fn a_master_that_was_fenced_in_the_middle_of_a_handover_is_replaced_whatever_the_deadline() {
    let mut model = begun_with_an_hour();
    let cluster = model.status.cluster.unwrap();
    let epoch = model.status.target.as_ref().unwrap().epoch;
    let fence = Command::Fence { cluster, epoch };
    model.command("demo-master-0", &fence).unwrap();
    assert_eq!(model.master(), None);
    writes_within(&mut model, 10);
    model.assert_sound();
}

#[test]
fn a_target_that_dies_after_the_handover_is_not_waited_for_until_the_deadline() {
    let mut model = handed_over_with_an_hour();
    model.kill("demo-replica-1");
    assert_eq!(model.master(), None);
    writes_within(&mut model, 15);
    model.revive("demo-replica-1");
    model.settle();
    model.assert_sound();
}

#[test]
fn a_failover_can_be_asked_for_when_the_master_handed_over_to_another_target() {
    let mut model = begun_with_an_hour();
    hand_to_another(&mut model);
    model.pass();
    model.ask("b", PromoteMode::Failover, None);
    writes_within(&mut model, 2);
    assert_eq!(model.status.memory.handled_requests, ["a", "b"]);
    model.assert_sound();
}

#[test]
fn a_handover_that_is_found_done_long_after_it_began_goes_on_to_its_target() {
    let mut model = handed_over_with_an_hour();
    assert_eq!(model.master(), None);
    // No operator for ten minutes.
    model.pass_time(600_000);
    model.pass();
    assert_eq!(model.master().as_deref(), Some("demo-replica-1"));
    assert_eq!(last(&model).mode, PromoteMode::Switchover);
    model.settle();
    model.assert_sound();
}

#[test]
fn of_two_that_call_themselves_master_the_one_of_the_higher_epoch_says_who_belongs() {
    let mut model = Model::healthy(3);
    let mut world = model.world();
    world.lease = crate::world::LeaseSeen::Missing;
    let member = model.node("demo-replica-1").facts.node_id;
    for (n, member_of) in [(0, 7), (1, 8)] {
        let crate::world::Probe::State(state) = &mut world.members[n].probe else {
            panic!("it answers");
        };
        state.role = vectorizer_api::replication::Role::Master;
        state.master_epoch = member_of;
        state.acks = u32::try_from(n).unwrap();
        state.members = vec![member];
    }
    let restored = plan(&world).steps.into_iter().find_map(|s| match s {
        Step::SetLease { grant, .. } => Some(grant),
        _ => None,
    });
    assert_eq!(restored.unwrap().concern.acks, 1);
}

#[test]
fn a_spec_that_contradicts_itself_does_not_stop_a_change_that_has_begun() {
    let mut model = Model::healthy(3);
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    let plan = model.plan();
    let promote = plan
        .steps
        .iter()
        .position(|s| matches!(s, Step::Promote { .. }));
    model.pass_until(promote.unwrap());
    assert_eq!(model.master(), None);
    let doubt = crate::world::Invalid::Acks {
        acks: 3,
        replicas: 2,
    };
    model.cluster.doubt = Some(doubt);
    model.cluster.spec.image = Some("node:2".into());
    for _ in 0..20 {
        let plan = model.pass();
        assert!(plan.objects.is_empty(), "nodes are left as they are");
    }
    assert_eq!(model.master().as_deref(), Some("demo-replica-1"));
    let degraded = model.condition(crate::names::condition::DEGRADED).1;
    assert_eq!(degraded, crate::names::reason::INVALID_SPEC);
    model.cluster.doubt = None;
    model.settle();
    model.assert_sound();
}
