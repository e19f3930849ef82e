//! The write concern: who belongs to the cluster is on record in time, and failovers keep to it.

use vectorizer_api::concern::Concern;
use vectorizer_api::position::Position;

use super::model::{Model, spec};
use crate::crd::{PromoteMode, PromotionResult, WriteConcern, WriteLevel};
use crate::names::{condition, reason};
use crate::plan::Step;
use crate::world::Set;
use crate::world::parse_pod;

fn wants(model: &mut Model, acks: u32) {
    model.cluster.spec.write_concern = Some(WriteConcern {
        acks,
        level: WriteLevel::Durable,
        timeout_seconds: 10,
    });
}

/// A settled cluster of a master and `nodes - 1` replicas, of which `acks` acknowledge.
fn healthy(nodes: u32, acks: u32) -> Model {
    let mut model = Model::healthy(nodes);
    wants(&mut model, acks);
    model.settle();
    assert_eq!(model.concern().members.len(), nodes as usize);
    assert_eq!(model.concern().acks, acks);
    // Nobody was restarted for it.
    assert_eq!(model.promotions, Vec::<String>::new());
    model
}

fn master(model: &Model) -> String {
    model.master().unwrap()
}

fn replicas(model: &Model) -> Vec<String> {
    let pods = model
        .nodes
        .keys()
        .map(|(set, ordinal)| model.cluster.pod(*set, *ordinal));
    pods.filter(|pod| *pod != master(model)).collect()
}

/// What the condition says; `None` when it is not there.
fn met(model: &Model) -> Option<(&str, &str)> {
    let found = model.status.conditions.iter();
    let found = found.filter(|c| c.type_ == condition::SYNCHRONOUS_REPLICATION_MET);
    found.map(|c| (c.status.as_str(), c.reason.as_str())).next()
}

#[test]
fn a_replica_that_does_not_follow_is_no_member_until_it_does() {
    let mut model = Model::healthy(3);
    let (late, other) = ("demo-replica-1", "demo-replica-0");
    let id = |model: &mut Model, pod: &str| model.node(pod).facts.node_id;
    let (late_id, other_id) = (id(&mut model, late), id(&mut model, other));
    model.node(late).stalled = true;
    wants(&mut model, 1);
    model.settle();
    let concern = model.concern();
    assert!(concern.members.contains(&other_id) && !concern.members.contains(&late_id));
    assert_eq!(concern.acks, 1);
    model.node(late).stalled = false;
    model.settle();
    assert!(model.concern().members.contains(&late_id));
    // One that was recorded keeps its place: it may hold what was acknowledged.
    model.node(late).stalled = true;
    model.settle();
    assert!(model.concern().members.contains(&late_id));
    model.assert_sound();
}

#[test]
fn without_a_write_concern_nothing_is_recorded() {
    let model = Model::healthy(3);
    assert_eq!(model.concern(), Concern::default());
    assert_eq!(model.status.write_concern, None);
    assert_eq!(met(&model), None);
}

#[test]
fn a_condition_says_whether_writes_are_held_by_as_many_replicas_as_wanted() {
    let mut model = healthy(3, 2);
    assert_eq!(met(&model), Some(("True", reason::REPLICAS_CONNECTED)));
    let one = replicas(&model)[0].clone();
    model.node(&one).stalled = true;
    model.pass();
    assert_eq!(met(&model), Some(("False", reason::REPLICAS_MISSING)));
    model.node(&one).stalled = false;
    model.settle();
    wants(&mut model, 0);
    model.settle();
    assert_eq!(met(&model), None, "none are asked for any more");
}

#[test]
fn a_cluster_that_starts_with_a_write_concern_has_it_on_record_once_its_replicas_have_joined() {
    let mut model = Model::new(2);
    wants(&mut model, 2);
    model.settle();
    assert_eq!(
        (model.concern().members.len(), model.concern().acks),
        (3, 2)
    );
    let remembered = model.status.write_concern.clone().unwrap();
    assert_eq!((remembered.members.len(), remembered.acks), (3, 2));
}

#[test]
fn a_new_cluster_asks_for_all_acknowledgements_until_enough_replicas_have_joined() {
    let mut model = Model::new(2);
    wants(&mut model, 2);
    for _ in 0..40 {
        model.pass();
        // Nothing but the nodes' own file says how many: less is never recorded.
        let recorded = model.concern();
        assert!(
            recorded.members.is_empty() || recorded.acks == 2,
            "{recorded:?}"
        );
        for replica in ["demo-replica-0", "demo-replica-1"] {
            if let Some(node) = model.nodes.get_mut(&parse_pod("demo", replica).unwrap()) {
                node.stalled = true;
            }
        }
    }
    assert!(model.concern().members.is_empty());
    for replica in ["demo-replica-0", "demo-replica-1"] {
        model.node(replica).stalled = false;
    }
    model.settle();
    assert_eq!(model.concern().acks, 2);
}

#[test]
fn a_master_that_never_heard_how_its_change_ended_is_told_again() {
    let mut model = healthy(3, 1);
    let master = master(&model);
    model.node(&master).settled = false;
    let plan = model.pass();
    let told = |step: &Step| matches!(step, Step::Members { to, .. } if to.pod == master);
    assert!(plan.steps.iter().any(told), "{:?}", plan.steps);
    model.node(&master).settled = true;
    assert!(!model.pass().steps.iter().any(told));
}

#[test]
fn a_member_that_answers_and_cannot_promise_does_not_keep_a_failover_from_ending() {
    for acks in [0, 1] {
        let mut model = healthy(4, acks.max(1));
        if acks == 0 {
            wants(&mut model, 0);
            model.settle();
        }
        let (lost, stuck) = (master(&model), replicas(&model)[0].clone());
        model.kill(&lost);
        model.node(&stuck).hangs = true;
        model.ask("a", PromoteMode::Failover, None);
        // Of four members with one acknowledgement, three have to promise: two can.
        if acks == 1 {
            model.revive(&lost);
            model.node(&lost).hangs = false;
        }
        for _ in 0..60 {
            model.pass();
            model.pass_time(1_000);
        }
        let master = model
            .master()
            .unwrap_or_else(|| panic!("{:#?}", model.status));
        assert_ne!(master, stuck);
    }
}

#[test]
fn a_failover_waits_for_so_many_members_that_one_holds_every_acknowledged_write() {
    let mut model = healthy(4, 1);
    let gone = replicas(&model)[0].clone();
    for pod in [master(&model), gone.clone()] {
        model.kill(&pod);
    }
    let lease = model.lease.clone().unwrap().1;
    model.ask("a", PromoteMode::Failover, None);
    model
        .cluster
        .spec
        .promote
        .as_mut()
        .unwrap()
        .deadline_seconds = 3600;
    for _ in 0..200 {
        model.pass();
    }
    // Two of four answer, three are needed: nothing has changed.
    assert_eq!(model.lease.clone().unwrap().1, lease);
    assert!(model.promotions.is_empty());
    let target = model.status.target.clone().unwrap();
    let said = target.message.unwrap();
    assert!(
        said.contains("2 of 4 members answer; 3 are needed"),
        "{said}"
    );
    model.revive(&gone);
    model.settle();
    assert_eq!(model.promotions.len(), 1);
    let last = model.status.last_promotion.clone().unwrap();
    assert_eq!(last.result, PromotionResult::Succeeded);
    assert_eq!(
        model.concern().acks,
        1,
        "the next master is held to the same"
    );
}

/// Lowers the number to 0 while one replica lacks what the other acknowledged. Returns up to where that was.
fn lower(model: &mut Model, lacks: &str) -> Position {
    model.node(lacks).stalled = true;
    for _ in 0..10 {
        model.pass();
    }
    wants(model, 0);
    model.settle();
    assert_eq!(model.concern().acks, 0);
    let secured = model.lease.clone().unwrap().1.secured;
    assert!(model.node(lacks).facts.end < secured);
    secured
}

#[test]
fn what_replicas_had_acknowledged_before_the_number_was_lowered_to_0_is_not_given_up() {
    let mut model = healthy(3, 1);
    let [has, lacks] = replicas(&model).try_into().unwrap();
    let secured = lower(&mut model, &lacks);
    let remembered = model.status.write_concern.clone().unwrap().secured;
    assert_eq!(remembered, Some(secured.to_string()));
    // What is written since waits for nobody, and may go with the master.
    model.node(&has).stalled = true;
    for _ in 0..10 {
        model.pass();
    }
    let lost = model.acknowledged - model.node(&has).facts.end.offset;
    assert!(lost > 0);
    for pod in [master(&model), has.clone()] {
        model.kill(&pod);
    }
    model.ask("a", PromoteMode::Failover, None);
    let promote = model.cluster.spec.promote.as_mut();
    promote.unwrap().deadline_seconds = 3600;
    let lease = model.lease.clone().unwrap().1;
    for _ in 0..200 {
        model.pass();
    }
    assert_eq!(model.lease.clone().unwrap().1, lease);
    assert!(model.promotions.is_empty());
    let said = model.status.target.clone().unwrap().message.unwrap();
    assert!(said.contains(&format!("up to {secured}")), "{said}");
    model.revive(&has);
    model.settle();
    assert_eq!(model.promotions, [has]);
    let last = model.status.last_promotion.clone().unwrap();
    assert_eq!(last.result, PromotionResult::Succeeded);
    // As far as the operator knows, which had not seen the last of it.
    assert!((1..=lost).contains(&last.lost_operations.unwrap()));
}

#[test]
fn what_was_secured_is_remembered_when_the_lease_is_deleted_and_given_up_when_a_person_says_so() {
    let mut model = healthy(3, 1);
    let lacks = replicas(&model)[1].clone();
    let secured = lower(&mut model, &lacks);
    let others = [master(&model), replicas(&model)[0].clone()];
    others.iter().for_each(|pod| model.kill(pod));
    model.lease = None;
    model.ask("a", PromoteMode::Failover, None);
    let promote = model.cluster.spec.promote.as_mut();
    promote.unwrap().deadline_seconds = 3600;
    for _ in 0..200 {
        model.pass();
    }
    assert_eq!(model.lease.clone().unwrap().1.secured, secured);
    assert!(model.promotions.is_empty());
    // kubectl annotate --overwrite lease … vectorizer.hivellm.io/secured=…
    let left = model.node(&lacks).facts.end;
    if let Some((version, grant, _)) = &mut model.lease {
        *version += 1;
        grant.secured = left;
    }
    model.settle();
    assert_eq!(model.promotions, [lacks]);
}

#[test]
fn a_lease_that_is_deleted_just_after_the_number_was_lowered_secures_all_that_the_master_has() {
    let mut model = healthy(3, 1);
    let remembered = model.status.write_concern.clone();
    wants(&mut model, 0);
    model.settle();
    // Nobody had read what the master recorded.
    model.status.write_concern = remembered;
    let pod = master(&model);
    model.lease = None;
    let end = model.node(&pod).facts.end;
    model.pass();
    let restored = model.lease.clone().unwrap().1;
    assert_eq!((restored.concern.acks, restored.secured), (0, end));
}

#[test]
fn a_pod_that_is_scaled_away_stays_until_its_node_is_no_member_any_more() {
    let mut model = healthy(4, 1);
    let before = model.concern();
    model.cluster.spec.replicas = 1;
    // The one that is to stay does not acknowledge: what the others hold is all that some write has.
    model.node("demo-replica-0").stalled = true;
    for _ in 0..50 {
        model.pass();
    }
    assert_eq!(model.concern(), before);
    assert!(model.nodes.contains_key(&(Set::Replica, 2)));
    model.node("demo-replica-0").stalled = false;
    model.settle();
    assert_eq!(model.concern().members.len(), 2);
    assert!(!model.nodes.contains_key(&(Set::Replica, 2)));
    assert!(!model.nodes.contains_key(&(Set::Replica, 1)));
}

#[test]
fn a_member_that_does_not_answer_keeps_its_place_and_one_that_lost_its_volume_does_not() {
    let mut model = healthy(3, 1);
    let before = model.concern();
    model.kill("demo-replica-1");
    for _ in 0..50 {
        model.pass();
    }
    assert_eq!(model.concern(), before);
    model.lose_volume("demo-replica-1");
    model.revive("demo-replica-1");
    model.settle();
    let after = model.concern();
    assert_eq!((after.members.len(), after.acks), (3, 1));
    assert_ne!(after.members, before.members);
}

#[test]
fn a_lease_that_somebody_deleted_is_written_again_with_what_it_said() {
    let mut model = healthy(3, 2);
    let before = model.concern();
    model.lease = None;
    model.pass();
    assert_eq!(model.concern(), before);
    // Nor is it forgotten while the master does not answer either.
    let pod = master(&model);
    model.kill(&pod);
    model.lease = None;
    model.pass();
    assert_eq!(model.concern(), before);
}

#[test]
fn what_is_on_record_already_is_not_asked_for_again() {
    let model = healthy(3, 1);
    let plan = model.plan();
    let asked = |s: &Step| matches!(s, Step::Members { .. });
    assert!(!plan.steps.iter().any(asked));
    assert_eq!(spec(2).write_concern, None);
}

#[test]
fn a_node_that_is_no_member_yet_is_not_handed_over_to() {
    let mut model = healthy(3, 1);
    let pod = replicas(&model)[1].clone();
    let id = model.node(&pod).facts.node_id;
    model.forget_member(id);
    model.ask("a", PromoteMode::Switchover, Some(&pod));
    let plan = model.pass();
    let changes = |s: &Step| matches!(s, Step::Handover { .. } | Step::SetLease { .. });
    assert!(!plan.steps.iter().any(changes), "{:?}", plan.steps);
}

#[test]
fn a_node_that_is_no_member_is_not_elected_whatever_it_holds() {
    // What it acknowledged as master would be in no quorum for certain: the record says nothing of it.
    let mut model = healthy(3, 1);
    let pods = replicas(&model);
    let (member, other) = (pods[0].clone(), pods[1].clone());
    let gone = master(&model);
    model.kill(&gone);
    let node = model.node(&other);
    node.facts.end.offset += 3;
    let id = node.facts.node_id;
    model.forget_member(id);
    model.ask("a", PromoteMode::Failover, None);
    for _ in 0..400 {
        model.pass();
    }
    let elected = model.status.last_promotion.clone().unwrap();
    assert_eq!(elected.to, Some(member));
}

#[test]
fn an_election_that_was_reserved_ends_when_the_old_master_writes_again() {
    let mut model = healthy(3, 1);
    let pods = ["demo-master-0", "demo-replica-0", "demo-replica-1"];
    for pod in pods {
        model.kill(pod);
    }
    model.pass_time(20_000);
    // It answers before it has taken the next epoch.
    model.node("demo-master-0").alive = true;
    model.pass();
    assert!(model.status.target.is_some());
    for pod in pods {
        model.revive(pod);
    }
    model.settle();
    assert_eq!(model.status.target, None);
    model.assert_sound();
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
}

#[test]
fn a_set_that_is_made_anew_for_larger_volumes_keeps_the_pods_of_members() {
    let mut model = healthy(4, 1);
    let before = model.concern();
    model.cluster.spec.storage.size = crate::crd::Amount::from("20Gi");
    model.cluster.claim_bytes = model.cluster.spec.storage.size.value().unwrap();
    model.cluster.spec.replicas = 1;
    // The one that is to stay does not acknowledge, so that the others stay members.
    model.node("demo-replica-0").stalled = true;
    for _ in 0..50 {
        model.pass();
    }
    assert_eq!(model.concern(), before);
    assert!(model.nodes.contains_key(&(Set::Replica, 2)));
    model.node("demo-replica-0").stalled = false;
    model.settle();
    model.assert_sound();
    assert!(!model.nodes.contains_key(&(Set::Replica, 2)));
    let size = |n: usize| model.sets[n].clone().unwrap().claim_size;
    assert_eq!(size(1), crate::crd::Amount::from("20Gi"));
}

#[test]
fn a_set_that_is_not_there_at_the_moment_comes_back_with_all_members() {
    let mut model = healthy(4, 1);
    model.carry_out_orphan(Set::Replica);
    model.cluster.spec.replicas = 1;
    model.node("demo-replica-0").stalled = true;
    for _ in 0..50 {
        model.pass();
    }
    assert!(model.nodes.contains_key(&(Set::Replica, 2)));
}
