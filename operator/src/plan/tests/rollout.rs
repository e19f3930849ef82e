//! Scaling, new templates, larger volumes, drains.

use super::model::{Model, bound};
use crate::crd::{Amount, ImageSource, PromoteMode, PromotionReason};
use crate::names::reason;
use crate::plan::Step;
use crate::world::{Set, Trouble};

#[test]
fn more_replicas_are_filled_and_fewer_are_let_go() {
    let mut model = Model::healthy(3);
    model.cluster.spec.replicas = 4;
    model.settle();
    model.assert_sound();
    assert_eq!(model.nodes.len(), 5);
    assert!(model.node("demo-replica-3").facts.has_data);
    model.cluster.spec.replicas = 1;
    model.settle();
    model.assert_sound();
    assert_eq!(model.nodes.len(), 2);
}

#[test]
fn scaling_below_the_master_moves_it_first() {
    let mut model = Model::healthy(3);
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
    model.settle();
    model.cluster.spec.replicas = 1;
    model.settle();
    model.assert_sound();
    assert_eq!(model.nodes.len(), 2);
    let last = model.status.last_promotion.clone().unwrap();
    assert_eq!(last.reason, PromotionReason::ScaleDown);
    assert_eq!(last.lost_operations, Some(0));
}

#[test]
fn scaling_to_zero_brings_the_master_home() {
    let mut model = Model::healthy(2);
    model.ask("a", PromoteMode::Switchover, Some("demo-replica-0"));
    model.settle();
    model.cluster.spec.replicas = 0;
    model.settle();
    model.assert_sound();
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
}

#[test]
fn a_new_image_goes_to_replicas_first_one_at_a_time_and_the_master_last() {
    let mut model = Model::healthy(3);
    model.cluster.spec.image = Some("node:2".into());
    let mut order = Vec::new();
    for _ in 0..100 {
        let plan = model.pass();
        let replaced: Vec<_> = plan
            .steps
            .iter()
            .filter_map(|s| match s {
                Step::Replace { pod, .. } => Some(pod.clone()),
                _ => None,
            })
            .collect();
        assert!(replaced.len() <= 1, "at most one at a time");
        order.extend(replaced);
    }
    assert_eq!(order, ["demo-replica-1", "demo-replica-0", "demo-master-0"]);
    model.settle();
    model.assert_sound();
    assert_eq!(
        model.status.last_promotion.clone().unwrap().reason,
        PromotionReason::Rollout
    );
    assert_eq!(model.promotions.len(), 1);
}

#[test]
fn the_next_pod_waits_until_the_one_before_has_caught_up() {
    let mut model = Model::healthy(3);
    model.cluster.spec.image = Some("node:2".into());
    while model
        .pass()
        .steps
        .iter()
        .all(|s| !matches!(s, Step::Replace { .. }))
    {}
    model.node("demo-replica-1").stalled = true;
    for _ in 0..50 {
        let plan = model.pass();
        assert!(
            plan.steps
                .iter()
                .all(|s| !matches!(s, Step::Replace { .. }))
        );
    }
    model.node("demo-replica-1").stalled = false;
    model.settle();
    model.assert_sound();
}

#[test]
fn a_broken_image_is_replaced_although_its_pod_never_became_ready() {
    let mut model = Model::healthy(3);
    model.cluster.spec.image = Some("node:typo".into());
    while model
        .pass()
        .steps
        .iter()
        .all(|s| !matches!(s, Step::Replace { .. }))
    {}
    model.kill("demo-replica-1");
    model.node("demo-replica-1").pod.trouble = Some(Trouble {
        reason: "ImagePullBackOff".into(),
        message: "not found".into(),
    });
    for _ in 0..20 {
        model.pass();
    }
    assert!(model.node("demo-replica-0").alive);
    model.cluster.spec.image = Some("node:right".into());
    model.pass();
    model.pass();
    model.node("demo-replica-1").pod.trouble = None;
    model.settle();
    model.assert_sound();
}

#[test]
fn an_operator_with_another_default_image_restarts_nothing() {
    let mut model = Model::healthy(3);
    let mut world = model.world();
    world.default_image = "node:newer".into();
    assert!(crate::plan::plan(&world).changes_nothing());
    assert_eq!(model.status.image.as_deref(), Some("node:test"));
    model.assert_sound();
}

#[test]
fn an_image_that_is_no_longer_named_goes_on_running() {
    let mut model = Model::healthy(3);
    model.cluster.spec.image = Some("node:2".into());
    model.settle();
    let runs = |model: &Model| (model.status.image.clone(), model.status.image_from);
    assert_eq!(
        runs(&model),
        (Some("node:2".into()), Some(ImageSource::Spec))
    );
    let pods: Vec<_> = model.nodes.values().map(|n| n.pod.uid.clone()).collect();
    model.told.clear();
    model.cluster.spec.image = None;
    let plan = model.pass();
    assert!(plan.objects.is_empty());
    assert_eq!(model.told, [reason::IMAGE_KEPT]);
    model.settle();
    model.assert_sound();
    assert_eq!(
        runs(&model),
        (Some("node:2".into()), Some(ImageSource::Kept))
    );
    let after: Vec<_> = model.nodes.values().map(|n| n.pod.uid.clone()).collect();
    assert_eq!(after, pods);
    assert_eq!(model.told, [reason::IMAGE_KEPT], "said once");
}

#[test]
fn an_empty_image_asks_for_the_operators_own_whichever_it_is() {
    let mut model = Model::healthy(3);
    model.cluster.spec.image = Some("node:2".into());
    model.settle();
    model.cluster.spec.image = Some(String::new());
    model.settle();
    assert_eq!(model.status.image.as_deref(), Some("node:test"));
    assert_eq!(model.status.image_from, Some(ImageSource::Operator));
    let mut world = model.world();
    world.default_image = "node:newer".into();
    let plan = crate::plan::plan(&world);
    assert_eq!(plan.status.image.as_deref(), Some("node:newer"));
    assert!(!plan.objects.is_empty());
}

#[test]
fn a_cluster_whose_status_was_lost_keeps_the_image_that_it_runs() {
    let mut model = Model::healthy(3);
    model.cluster.spec.image = Some("node:2".into());
    model.settle();
    model.cluster.spec.image = None;
    model.status = crate::crd::ClusterStatus::default();
    assert!(model.plan().objects.is_empty());
    model.settle();
    model.assert_sound();
    assert_eq!(model.status.image.as_deref(), Some("node:2"));
}

#[test]
fn an_image_that_was_named_and_taken_back_while_paused_was_never_wanted() {
    let mut model = Model::healthy(3);
    model.cluster.spec.paused = true;
    model.cluster.spec.image = Some("node:2".into());
    model.pass();
    model.cluster.spec.image = None;
    model.pass();
    model.cluster.spec.paused = false;
    assert!(model.plan().objects.is_empty());
    model.settle();
    assert_eq!(model.status.image.as_deref(), Some("node:test"));
}

#[test]
fn a_single_node_is_replaced_in_place() {
    let mut model = Model::healthy(1);
    model.cluster.spec.image = Some("node:2".into());
    model.settle();
    model.assert_sound();
    assert_eq!(model.master().as_deref(), Some("demo-master-0"));
}

#[test]
fn volumes_grow_first_and_templates_are_made_anew_around_the_same_pods() {
    let mut model = Model::healthy(3);
    let pods: Vec<_> = model.nodes.values().map(|n| n.pod.uid.clone()).collect();
    model.cluster.spec.storage.size = Amount::from("20Gi");
    model.cluster.claim_bytes = Amount::from("20Gi").value().unwrap();
    let first = model.plan();
    assert_eq!(
        first
            .steps
            .iter()
            .filter(|s| matches!(s, Step::GrowClaim { .. }))
            .count(),
        3
    );
    assert!(
        first
            .steps
            .iter()
            .all(|s| !matches!(s, Step::Orphan { .. }))
    );
    model.settle();
    model.assert_sound();
    assert_eq!(
        model.world().sets[Set::Replica.index()]
            .as_ref()
            .unwrap()
            .claim_size,
        Amount::from("20Gi")
    );
    assert_eq!(
        model
            .nodes
            .values()
            .map(|n| n.pod.uid.clone())
            .collect::<Vec<_>>(),
        pods
    );
}

#[test]
fn a_master_leaves_a_kubernetes_node_that_is_drained() {
    let mut model = Model::healthy(3);
    model.node("demo-master-0").pod.cordoned = true;
    model.node("demo-replica-0").pod.cordoned = true;
    model.settle();
    assert_eq!(model.master().as_deref(), Some("demo-replica-1"));
    assert_eq!(
        model.status.last_promotion.clone().unwrap().reason,
        PromotionReason::Drain
    );
}

#[test]
fn a_master_stays_when_everything_is_drained() {
    let mut model = Model::healthy(3);
    for node in model.nodes.values_mut() {
        node.pod.cordoned = true;
    }
    model.settle();
    model.assert_sound();
    assert!(model.promotions.is_empty());
}

#[test]
fn nobody_is_scaled_away_while_there_is_no_master() {
    let mut model = Model::healthy(3);
    model.node("demo-replica-0").stalled = true;
    for _ in 0..20 {
        model.pass();
    }
    model.kill("demo-master-0");
    model.cluster.spec.replicas = 1;
    for _ in 0..20 {
        model.pass();
    }
    assert!(
        model.nodes.contains_key(&(Set::Replica, 1)),
        "it holds the most"
    );
    model.node("demo-replica-0").stalled = false;
    model.ask("a", PromoteMode::Failover, None);
    let fencing = |m: &Model| {
        let target = m.status.target.as_ref();
        target.is_some_and(|t| t.step == crate::crd::TargetStep::Fencing)
    };
    while !fencing(&model) {
        let plan = model.plan();
        let vacated = plan
            .steps
            .iter()
            .position(|s| matches!(s, Step::Fence { .. }));
        model.pass_until(vacated.unwrap_or(usize::MAX));
    }
    model.cluster.spec.replicas = 0;
    model.pass();
    assert!(
        model.nodes.contains_key(&(Set::Replica, 1)),
        "in an election"
    );
    model.cluster.spec.replicas = 1;
    model.settle();
    model.revive("demo-master-0");
    model.settle();
    model.assert_sound();
    assert_eq!(model.nodes.len(), 2, "with a master, it goes on");
}

#[test]
fn claims_that_were_kept_grow_to_the_size_of_the_template() {
    let mut model = Model::healthy(2);
    let small = bound("5Gi");
    model.claims.insert("data-demo-replica-0".into(), small);
    let plan = model.plan();
    let grows =
        |s: &Step| matches!(s, Step::GrowClaim { claim, .. } if claim == "data-demo-replica-0");
    assert!(plan.steps.iter().any(grows), "{:?}", plan.steps);
    let orphans = |s: &Step| matches!(s, Step::Orphan { .. });
    assert!(!plan.steps.iter().any(orphans));
    model.settle();
    model.assert_sound();
}
