//! What the status says meanwhile: no outage that is none, and no service that nobody gets.

use super::model::Model;
use crate::crd::{ClusterStatus, NodeSync, Phase, PromoteMode, WriteConcern};
use crate::names::{condition, reason};
use crate::plan::Step;

fn said(status: &ClusterStatus, of: &str) -> (String, String) {
    let found = status.conditions.iter().find(|c| c.type_ == of);
    let found = found.unwrap_or_else(|| panic!("no {of} in {status:#?}"));
    (found.status.clone(), found.reason.clone())
}

/// Nobody who watches the resource is told of an outage by any version of it.
fn assert_well(model: &Model) {
    assert!(!model.versions.is_empty());
    for status in &model.versions {
        for (of, expected) in [
            (condition::AVAILABLE, "True"),
            (condition::DEGRADED, "False"),
            (condition::REPLICATION_HEALTHY, "True"),
        ] {
            assert_eq!(said(status, of).0, expected, "{of}: {status:#?}");
        }
        let calm = [Phase::Ready, Phase::Promoting, Phase::Updating];
        assert!(calm.contains(&status.phase), "{status:#?}");
        assert_eq!(status.ready.as_deref(), Some("3/3"), "{status:#?}");
        let master = status.master.as_ref().unwrap();
        let others = status.nodes.iter().filter(|n| n.pod != master.pod);
        for node in others {
            let well = [NodeSync::Connected, NodeSync::Master];
            assert!(well.contains(&node.status), "{status:#?}");
        }
    }
}

#[test]
fn no_version_of_the_status_in_a_switchover_tells_of_an_outage() {
    for heard_after in [0, 300, 3_000] {
        let mut model = Model::healthy(3);
        model.heard_after = heard_after;
        for (request, target) in [("a", "demo-replica-1"), ("b", "demo-master-0")] {
            model.ask(request, PromoteMode::Switchover, Some(target));
            for _ in 0..40 {
                model.pass();
            }
            assert_eq!(model.master().as_deref(), Some(target));
        }
        assert_well(&model);
        model.settle();
        model.assert_sound();
    }
}

#[test]
fn no_version_of_the_status_in_a_drain_tells_of_an_outage() {
    let mut model = Model::healthy(3);
    model.heard_after = 1_000;
    model.node("demo-master-0").pod.cordoned = true;
    for _ in 0..60 {
        model.pass();
    }
    assert_ne!(model.master().as_deref(), Some("demo-master-0"));
    assert_well(&model);
}

#[test]
fn acknowledgements_are_not_said_to_be_missing_while_replicas_join_a_new_master() {
    let mut model = Model::healthy(3);
    let acks = WriteConcern {
        acks: 1,
        ..WriteConcern::default()
    };
    model.cluster.spec.write_concern = Some(acks);
    model.settle();
    model.versions.clear();
    model.heard_after = 2_000;
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    for _ in 0..30 {
        model.pass();
    }
    assert_eq!(model.master().as_deref(), Some("demo-replica-1"));
    assert_well(&model);
    for status in &model.versions {
        let met = said(status, condition::SYNCHRONOUS_REPLICATION_MET);
        assert_eq!(met.0, "True", "{status:#?}");
    }
}

#[test]
fn a_replica_that_a_new_master_does_not_hear_of_in_time_is_missed() {
    let mut model = Model::healthy(3);
    model.heard_after = 3_600_000;
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    for _ in 0..60 {
        model.pass();
    }
    assert_eq!(model.status.ready.as_deref(), Some("1/3"));
    let healthy = model.condition(condition::REPLICATION_HEALTHY);
    assert_eq!(healthy, ("False".into(), reason::REPLICAS_MISSING.into()));
}

#[test]
fn a_replica_that_was_not_well_before_a_switchover_is_not_called_well_after_it() {
    let mut model = Model::healthy(3);
    model.kill("demo-replica-0");
    for _ in 0..8 {
        model.pass();
    }
    model.heard_after = 3_000;
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    model.versions.clear();
    for _ in 0..8 {
        model.pass();
    }
    assert_eq!(model.master().as_deref(), Some("demo-replica-1"));
    for status in &model.versions {
        assert_ne!(status.ready.as_deref(), Some("3/3"), "{status:#?}");
    }
}

/// Passes of which none says that writes are accepted while the Service led to nobody when it looked.
fn honest_passes(model: &mut Model, passes: usize) {
    for _ in 0..passes {
        let pods = model.nodes.values().filter(|n| n.alive);
        let served = pods
            .map(|n| &n.pod)
            .any(|p| p.ready && p.role.as_deref() == Some("master"));
        let before = model.versions.len();
        model.pass();
        for status in model.versions.split_off(before) {
            let available = said(&status, condition::AVAILABLE).0 == "True";
            assert!(served || !available, "{status:#?}");
        }
    }
}

#[test]
fn a_master_that_is_made_anew_while_paused_is_served_and_followed_again() {
    let mut model = Model::healthy(3);
    model.cluster.spec.paused = true;
    model.pass();
    model.delete_pod("demo-master-0");
    honest_passes(&mut model, 8);
    let master = model.node("demo-master-0").clone();
    assert_eq!(master.pod.role.as_deref(), Some("master"));
    assert_eq!(model.condition(condition::AVAILABLE).0, "True");
    let epoch = model.lease.clone().unwrap().1.epoch;
    assert_eq!(model.status.master.clone().unwrap().epoch, epoch);
    let end = master.facts.end;
    for pod in ["demo-replica-0", "demo-replica-1"] {
        assert!(model.node(pod).facts.end >= end, "{pod} follows nobody");
    }
    assert_eq!(model.status.phase, Phase::Paused);
}

#[test]
fn nothing_but_labels_and_followers_changes_while_paused() {
    let mut model = Model::healthy(3);
    model.cluster.spec.paused = true;
    model.cluster.spec.replicas = 4;
    model.cluster.spec.image = Some("node:2".into());
    model.ask("a", PromoteMode::Switchover, None);
    model.delete_pod("demo-master-0");
    model.delete_pod("demo-replica-1");
    for _ in 0..40 {
        let plan = model.pass();
        assert!(plan.objects.is_empty() && plan.secrets.is_empty() && plan.prune.is_empty());
        let kept = |s: &Step| matches!(s, Step::Label { .. } | Step::Follow { .. });
        assert!(plan.steps.iter().all(kept), "{:#?}", plan.steps);
    }
    assert!(model.promotions.is_empty());
}

#[test]
fn a_lease_that_is_deleted_while_paused_is_missed_and_left_alone() {
    let mut model = Model::healthy(3);
    model.cluster.spec.paused = true;
    model.lease = None;
    let plan = model.pass();
    assert!(
        !plan
            .steps
            .iter()
            .any(|s| matches!(s, Step::SetLease { .. }))
    );
    let degraded = model.condition(condition::DEGRADED);
    assert_eq!(degraded, ("True".into(), reason::LEASE_UNUSABLE.into()));
    model.cluster.spec.paused = false;
    model.settle();
    model.assert_sound();
}

#[test]
fn a_master_that_was_made_anew_while_no_operator_ran_is_served_by_the_next_one() {
    let mut model = Model::healthy(3);
    model.delete_pod("demo-master-0");
    model.pass_time(600_000);
    assert_eq!(model.node("demo-master-0").pod.role, None);
    honest_passes(&mut model, 4);
    assert_eq!(model.condition(condition::AVAILABLE).0, "True");
    model.settle();
    model.assert_sound();
}

#[test]
fn writes_are_not_called_accepted_while_the_service_leads_to_nobody() {
    let mut model = Model::healthy(3);
    model.labels_refused = true;
    model.delete_pod("demo-master-0");
    honest_passes(&mut model, 20);
    let available = model.condition(condition::AVAILABLE);
    assert_eq!(available, ("False".into(), reason::NO_ENDPOINT.into()));
    assert_eq!(model.status.phase, Phase::Unavailable);
    assert_eq!(model.condition(condition::READY).0, "False");
    model.labels_refused = false;
    honest_passes(&mut model, 3);
    assert_eq!(model.condition(condition::AVAILABLE).0, "True");

    model.node("demo-master-0").pod.ready = false;
    model.pass();
    let available = model.condition(condition::AVAILABLE);
    assert_eq!(available, ("False".into(), reason::NO_ENDPOINT.into()));
}

#[test]
fn a_first_start_does_not_say_unavailable_while_the_first_master_gets_ready() {
    let mut model = Model::new(1);
    model.pass();
    model.node("demo-master-0").pod.ready = false;
    for _ in 0..8 {
        model.pass();
        assert_eq!(model.status.phase, Phase::Creating);
    }
    assert_eq!(model.condition(condition::AVAILABLE).1, reason::NO_ENDPOINT);
    model.node("demo-master-0").pod.ready = true;
    model.settle();
    assert_eq!(model.status.phase, Phase::Ready);
}
