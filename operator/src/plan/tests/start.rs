//! First start and recovery.

use uuid::Uuid;

use super::model::{Model, bound};
use crate::crd::Initialization;
use crate::names::{condition, reason};
use crate::plan::Step;

#[test]
fn a_new_cluster_gets_its_first_master_and_everybody_follows_it() {
    let mut model = Model::new(2);
    model.settle();
    model.assert_sound();
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
    assert_eq!(
        model.status.memory.initialization,
        Some(Initialization::Done)
    );
    assert_eq!(model.condition(condition::READY).0, "True");
    assert_eq!(model.status.ready.as_deref(), Some("3/3"));
    assert_eq!(model.status.lag.as_deref(), Some("0ms"));
}

#[test]
fn a_cluster_without_replicas_starts_too_and_its_master_serves_reads() {
    let mut model = Model::new(0);
    model.settle();
    model.assert_sound();
    assert!(model.node("demo-master-0").pod.read_eligible);
}

#[test]
fn initialization_is_written_down_before_it_is_commanded() {
    let mut model = Model::new(1);
    model.pass();
    let plan = model.plan();
    let initialize = plan
        .steps
        .iter()
        .position(|s| matches!(s, Step::Initialize { .. }))
        .unwrap();
    let recorded = plan.steps[..initialize]
        .iter()
        .any(|s| matches!(s, Step::Record(m) if m.initialization == Some(Initialization::Decided)));
    assert!(recorded);
}

#[test]
fn nobody_is_initialized_while_a_node_is_silent() {
    let mut model = Model::new(2);
    model.pass();
    model.kill("demo-replica-1");
    let plan = model.pass();
    assert!(plan.steps.is_empty());
    model.pass();
    assert_eq!(model.condition(condition::PROGRESSING).1, reason::STARTING);
    model.revive("demo-replica-1");
    model.settle();
    model.assert_sound();
}

/// A new cluster of which one pod gets no place.
fn without_a_place(pod: &str) -> Model {
    let mut model = Model::new(2);
    model.pass();
    model.kill(pod);
    model.node(pod).pod.trouble = Some(crate::world::Trouble {
        reason: "Unschedulable".into(),
        message: "0/3 nodes are available: insufficient cpu".into(),
    });
    model
}

#[test]
fn a_pod_that_gets_no_place_does_not_keep_a_new_cluster_from_its_first_master() {
    let mut model = without_a_place("demo-replica-1");
    for _ in 0..8 {
        model.pass();
    }
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
    let degraded = model.message(condition::READY);
    assert!(degraded.contains("insufficient cpu"), "{degraded}");
    model.node("demo-replica-1").pod.trouble = None;
    model.revive("demo-replica-1");
    model.settle();
    model.assert_sound();
}

#[test]
fn the_first_master_is_the_same_whenever_an_operator_is_killed_without_a_place_for_one() {
    for limit in 0..12 {
        let mut model = without_a_place("demo-replica-1");
        model.pass_until(limit);
        for _ in 0..8 {
            model.pass();
        }
        assert_eq!(model.master().as_deref(), Some("demo-master-0"), "{limit}");
        model.revive("demo-replica-1");
        model.settle();
        model.assert_sound();
    }
}

#[test]
fn a_pod_that_gets_no_place_is_waited_for_when_it_may_hold_data() {
    let nobody = |mut model: Model, why: &str| {
        for _ in 0..8 {
            model.pass();
        }
        assert_eq!(model.master(), None, "{why}");
        assert_eq!(model.condition(condition::PROGRESSING).1, reason::STARTING);
    };
    let mut model = without_a_place("demo-replica-1");
    model.claims.get_mut("data-demo-replica-1").unwrap().blank = false;
    nobody(model, "its volume was there before");

    let mut model = without_a_place("demo-replica-1");
    model.claims.remove("data-demo-replica-1");
    nobody(model, "nobody knows its volume");

    let mut model = without_a_place("demo-replica-1");
    let node = model.node("demo-replica-0");
    node.facts.cluster = Some(Uuid::from_u128(7));
    node.facts.has_data = true;
    nobody(model, "another one holds data, and it may hold more");

    let mut old = Model::healthy(3);
    old.lose_volume("demo-master-0");
    let mut model = without_a_place("demo-replica-1");
    model.pass_time(600_000);
    model.lease = old.lease.clone();
    nobody(model, "there was a master");
}

#[test]
fn a_first_master_that_gets_no_place_is_waited_for() {
    let mut model = without_a_place("demo-master-0");
    for _ in 0..8 {
        model.pass();
    }
    assert_eq!(model.master(), None);
}

#[test]
fn an_operator_killed_at_any_step_of_the_first_start_goes_on() {
    for limit in 0..40 {
        let mut model = Model::new(2);
        model.pass();
        model.pass_until(limit);
        model.settle();
        model.assert_sound();
        assert_eq!(
            model.master().as_deref(),
            Some("demo-master-0"),
            "killed before step {limit}"
        );
    }
}

#[test]
fn a_first_master_that_restarts_in_the_middle_of_its_initialization_is_not_lost() {
    for limit in 0..20 {
        let mut model = Model::new(1);
        model.pass();
        model.pass_until(limit);
        model.kill("demo-master-0");
        model.pass();
        model.revive("demo-master-0");
        model.settle();
        model.assert_sound();
    }
}

#[test]
fn a_request_that_was_in_the_manifest_from_the_beginning_is_not_carried_out() {
    let mut model = Model::new(2);
    model.ask("old", crate::crd::PromoteMode::Switchover, None);
    model.settle();
    model.assert_sound();
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
    assert_eq!(model.status.memory.handled_requests, ["old"]);
}

#[test]
fn kept_volumes_are_recovered_and_nobody_is_initialized() {
    let mut old = Model::healthy(3);
    old.node("demo-replica-1").stalled = true;
    old.pass_time(1000);
    old.pass_time(1000);
    let acknowledged = old.acknowledged;
    let mut model = Model::new(2);
    model.cluster.uid = Uuid::from_u128(0xc2);
    model.pass();
    for pod in ["demo-master-0", "demo-replica-0", "demo-replica-1"] {
        model.node(pod).facts = vectorizer_replication::command::RoleFacts {
            writing: false,
            ..old.node(pod).facts.clone()
        };
    }
    model.settle();
    model.assert_sound();
    assert_eq!(
        model.status.cluster, old.status.cluster,
        "the identity of the data stays"
    );
    assert!(!model.promotions.is_empty());
    assert_ne!(model.promotions, ["demo-replica-1"], "it holds less");
    assert!(model.acknowledged > acknowledged);
}

#[test]
fn volumes_of_two_clusters_wait_for_a_person() {
    let mut model = Model::new(1);
    model.pass();
    for (pod, cluster) in [("demo-master-0", 7), ("demo-replica-0", 8)] {
        let node = model.node(pod);
        node.facts.cluster = Some(Uuid::from_u128(cluster));
        node.facts.has_data = true;
    }
    let plan = model.pass();
    assert!(plan.steps.is_empty());
    assert_eq!(model.condition(condition::DEGRADED).1, reason::FOREIGN_DATA);
}

#[test]
fn a_lost_status_is_written_again_and_changes_nothing_else() {
    let mut model = Model::healthy(3);
    let master = model.master();
    model.status = crate::crd::ClusterStatus::default();
    model.settle();
    model.assert_sound();
    assert_eq!(model.master(), master);
    assert!(model.promotions.is_empty());
}

#[test]
fn a_kept_volume_that_no_replica_would_have_waits_for_a_person() {
    let mut model = Model::new(1);
    model.cluster.spec.storage.retention = crate::crd::VolumeRetention::default();
    let kept = crate::world::ClaimSeen {
        blank: false,
        ..bound("10Gi")
    };
    model.claims.insert("data-demo-replica-1".into(), kept);
    model.pass();
    for _ in 0..5 {
        let plan = model.pass();
        let starts = |s: &Step| {
            matches!(
                s,
                Step::Initialize { .. } | Step::Promote { .. } | Step::Record(_)
            )
        };
        assert!(!plan.steps.iter().any(starts), "{:?}", plan.steps);
    }
    assert_eq!(model.condition(condition::DEGRADED).1, reason::FOREIGN_DATA);
    let said = model.status.conditions.iter();
    let said: Vec<_> = said.map(|c| c.message.as_str()).collect();
    assert!(said.join(" ").contains("data-demo-replica-1"), "{said:?}");
    model.cluster.spec.replicas = 2;
    model.settle();
    model.assert_sound();
}

#[test]
fn pods_that_are_going_hold_nothing_to_recover() {
    for stranger in [false, true] {
        let mut model = Model::new(1);
        model.pass();
        for (n, pod) in ["demo-master-0", "demo-replica-0"].into_iter().enumerate() {
            let node = model.node(pod);
            node.facts.cluster = Some(Uuid::from_u128(7));
            node.facts.has_data = true;
            node.facts.end.offset = n as u64 + 1;
            node.pod.deleting = !stranger;
            node.pod.stranger = stranger;
        }
        for _ in 0..3 {
            let plan = model.pass();
            assert!(plan.steps.is_empty(), "{:?}", plan.steps);
        }
        assert_eq!(model.condition(condition::PROGRESSING).1, reason::STARTING);
        for pod in ["demo-master-0", "demo-replica-0"] {
            model.lose_volume(pod);
            model.node(pod).pod.deleting = false;
            model.node(pod).pod.stranger = false;
        }
        model.settle();
        model.assert_sound();
        assert_eq!(model.status.cluster, Some(model.cluster.uid));
    }
}

#[test]
fn nothing_starts_while_a_set_of_that_name_belongs_to_somebody_else() {
    let mut model = Model::new(1);
    model.pass();
    let set = crate::world::ObjectRef {
        kind: crate::world::Kind::StatefulSet,
        name: "demo-replica".into(),
    };
    model.taken.insert(set);
    assert!(model.pass().steps.is_empty());
    model.taken.clear();
    model.settle();
    model.assert_sound();
}

#[test]
fn a_recovery_waits_for_every_volume_also_after_its_first_pass() {
    let mut old = Model::healthy(3);
    old.node("demo-replica-0").stalled = true;
    for _ in 0..8 {
        old.pass();
    }
    let mut model = Model::new(2);
    model.cluster.uid = Uuid::from_u128(0xc2);
    model.pass();
    for pod in ["demo-master-0", "demo-replica-0", "demo-replica-1"] {
        model.node(pod).facts = vectorizer_replication::command::RoleFacts {
            writing: false,
            ..old.node(pod).facts.clone()
        };
    }
    // The one that holds the most, alone.
    model.node("demo-replica-1").facts.end.offset += 3;
    while model.status.target.is_none() {
        let plan = model.plan();
        let fence = plan
            .steps
            .iter()
            .position(|s| matches!(s, Step::Fence { .. }));
        model.pass_until(fence.unwrap_or(usize::MAX));
    }
    model.kill("demo-replica-1");
    for _ in 0..100 {
        model.pass();
    }
    assert_eq!(model.promotions, Vec::<String>::new());
    model.revive("demo-replica-1");
    model.settle();
    model.assert_sound();
    assert_eq!(model.promotions, ["demo-replica-1"]);
}

#[test]
fn a_lease_that_was_left_is_taken_over_with_the_master_that_writes_by_it() {
    let mut model = Model::healthy(3);
    model.ask(
        "a",
        crate::crd::PromoteMode::Switchover,
        Some("demo-replica-1"),
    );
    model.settle();
    let (master, epoch) = (model.master(), model.status.master.clone().unwrap().epoch);
    model.status = crate::crd::ClusterStatus::default();
    model.cluster.uid = Uuid::from_u128(0xc2);
    model.cluster.spec.promote = None;
    model.lease_owned = false;
    model.promotions.clear();
    model.settle();
    model.assert_sound();
    assert!(model.lease_owned);
    assert_eq!(model.master(), master);
    assert_eq!(model.status.master.clone().unwrap().epoch, epoch);
    assert!(model.promotions.is_empty());
}

#[test]
fn a_lease_from_a_backup_does_not_bring_back_an_older_epoch() {
    let mut model = Model::healthy(3);
    let backup = model.lease.clone();
    model.ask(
        "a",
        crate::crd::PromoteMode::Switchover,
        Some("demo-replica-1"),
    );
    model.settle();
    model.ask(
        "b",
        crate::crd::PromoteMode::Switchover,
        Some("demo-replica-0"),
    );
    model.settle();
    let known = model.status.master.clone().unwrap().epoch;
    let (furthest, acknowledged) = (model.master(), model.acknowledged);
    for pod in ["demo-master-0", "demo-replica-0", "demo-replica-1"] {
        model.kill(pod);
    }
    // The node that it names comes back on an older copy of its volume, and takes it by itself.
    model.status = crate::crd::ClusterStatus::default();
    model.cluster.spec.promote = None;
    model.lease = backup;
    model.lease_owned = false;
    let node = model.node("demo-master-0");
    node.facts.promised = 1;
    node.facts.end = vectorizer_api::position::Position::new(1, 1);
    node.facts.standing = vectorizer_replication::command::Standing::Master { epoch: 1 };
    node.history = vectorizer_api::position::History::default();
    for pod in ["demo-replica-0", "demo-replica-1", "demo-master-0"] {
        model.revive(pod);
    }
    assert!(
        model.node("demo-master-0").facts.writing,
        "it holds the Lease"
    );
    model.writes = false;
    model.promotions.clear();
    model.settle();
    model.assert_sound();
    assert_eq!(model.master(), furthest);
    let master = furthest.unwrap();
    assert!(model.node(&master).facts.end.offset > acknowledged);
    assert!(model.status.master.clone().unwrap().epoch > known);
}

#[test]
fn what_a_lease_says_of_other_members_does_not_bind_a_cluster_that_is_empty() {
    let mut old = Model::healthy(3);
    let mut lease = old.lease.take().unwrap();
    lease.1.concern = vectorizer_api::concern::Concern {
        members: [1, 2, 3].map(Uuid::from_u128).into(),
        acks: 1,
    };
    let epoch = lease.1.epoch;
    lease.2 = 0;
    let mut model = Model::new(2);
    model.cluster.uid = Uuid::from_u128(0xc2);
    model.lease = Some(lease);
    model.lease_owned = false;
    model.settle();
    model.assert_sound();
    let grant = model.lease.clone().unwrap().1;
    assert!(grant.epoch > epoch);
    assert_eq!(grant.concern.acks, 0);
    assert!(
        !grant.concern.members.contains(&Uuid::from_u128(1)),
        "{grant:?}"
    );
}
