//! Volumes that are not as wanted: other classes, sizes that cannot be had.

use super::model::{Model, bound};
use crate::crd::Amount;
use crate::names::{condition, reason};
use crate::plan::{Plan, Step};
use crate::world::{ClaimSeen, Refusal, Set, Trouble};

const CLAIMS: [&str; 3] = [
    "data-demo-master-0",
    "data-demo-replica-0",
    "data-demo-replica-1",
];

/// A claim of a class that nobody provisions.
fn pending(class: &str) -> ClaimSeen {
    ClaimSeen {
        class: Some(class.into()),
        bound: false,
        trouble: Some(Trouble {
            reason: "ProvisioningFailed".into(),
            message: format!("storageclass.storage.k8s.io \"{class}\" not found"),
        }),
        ..bound("10Gi")
    }
}

fn message(model: &Model, of: &str) -> String {
    let mut conditions = model.status.conditions.iter();
    conditions.find(|c| c.type_ == of).unwrap().message.clone()
}

fn resize(model: &mut Model, size: &str) {
    model.cluster.spec.storage.size = Amount::from(size);
    model.cluster.claim_bytes = model.cluster.spec.storage.size.value().unwrap();
}

fn touches_claims(plan: &Plan) -> bool {
    plan.steps
        .iter()
        .any(|s| matches!(s, Step::GrowClaim { .. } | Step::DeleteClaim { .. }))
}

/// A cluster whose class was mistyped at its first start: no pod runs, no claim is bound.
fn mistyped() -> Model {
    let mut model = Model::new(2);
    model.cluster.spec.storage.storage_class_name = Some("fats".into());
    model.pass();
    for claim in CLAIMS {
        model.claims.insert(claim.into(), pending("fats"));
    }
    for node in model.nodes.values_mut() {
        node.alive = false;
        node.pod.ready = false;
        node.pod.ip = None;
    }
    model.pass();
    model
}

#[test]
fn a_class_that_nobody_provisions_is_named_with_the_claim_in_the_provisioners_words() {
    let model = mistyped();
    for of in [
        condition::PODS_RUNNING,
        condition::VOLUMES_AS_WANTED,
        condition::DEGRADED,
    ] {
        let text = message(&model, of);
        assert_eq!(
            model.condition(of).1,
            reason::VOLUME_NOT_PROVISIONED,
            "{of}: {text}"
        );
        for word in ["data-demo-master-0", "of class fats", "\"fats\" not found"] {
            assert!(text.contains(word), "{text}");
        }
    }
    let told = model
        .told
        .iter()
        .filter(|told| **told == reason::VOLUME_NOT_PROVISIONED);
    assert_eq!(told.count(), 1, "{:?}", model.told);
}

#[test]
fn a_class_can_be_corrected_as_long_as_nothing_is_bound() {
    for corrected in [Some("fast".to_owned()), None] {
        let mut model = mistyped();
        model.cluster.spec.storage.storage_class_name = corrected.clone();
        let plan = model.pass();
        let orphaned = plan
            .steps
            .iter()
            .filter(|s| matches!(s, Step::Orphan { .. }));
        assert_eq!(orphaned.count(), 2, "{:?}", plan.steps);
        let deleted = plan.steps.iter().filter_map(|s| match s {
            Step::DeleteClaim { claim, .. } => Some(claim.as_str()),
            _ => None,
        });
        let deleted: Vec<_> = deleted.collect();
        assert_eq!(deleted, CLAIMS);
        // The sets come back with another template, and the pods with other claims.
        for claim in CLAIMS {
            let class = corrected.clone();
            model.claims.insert(
                claim.into(),
                ClaimSeen {
                    class,
                    ..bound("10Gi")
                },
            );
        }
        model.settle();
        model.assert_sound();
        assert_eq!(model.condition(condition::VOLUMES_AS_WANTED).0, "True");
        let template = model.sets[Set::Replica.index()].clone().unwrap();
        assert_eq!(template.claim_class, corrected);
    }
}

#[test]
fn empty_claims_that_were_kept_with_another_class_are_made_anew_and_bound_ones_are_named() {
    let mut model = Model::healthy(3);
    model.cluster.spec.storage.storage_class_name = Some("fast".into());
    for set in model.sets.iter_mut().flatten() {
        set.claim_class = Some("fast".into());
    }
    let of = |class: &str| ClaimSeen {
        class: Some(class.into()),
        ..bound("10Gi")
    };
    model.claims.insert(CLAIMS[0].into(), of("fast"));
    model.claims.insert(CLAIMS[1].into(), of("slow"));
    model.claims.insert(CLAIMS[2].into(), pending("slow"));
    model.kill("demo-replica-1");
    let plan = model.pass();
    let deleted = plan
        .steps
        .iter()
        .filter(|s| matches!(s, Step::DeleteClaim { .. }));
    let deleted: Vec<_> = deleted.collect();
    assert!(
        matches!(deleted[..], [Step::DeleteClaim { claim, .. }] if claim == CLAIMS[2]),
        "{deleted:?}"
    );
    model.claims.insert(CLAIMS[2].into(), of("fast"));
    model.settle();
    model.assert_sound();
    assert_eq!(model.condition(condition::READY).0, "True");
    assert_eq!(
        model.condition(condition::VOLUMES_AS_WANTED).1,
        reason::VOLUME_OF_ANOTHER_CLASS
    );
    let text = message(&model, condition::VOLUMES_AS_WANTED);
    assert!(
        text.contains("data-demo-replica-0 is of class slow and not of fast"),
        "{text}"
    );
}

#[test]
fn a_size_that_was_mistyped_before_the_first_master_goes_back() {
    let mut model = mistyped();
    resize(&mut model, "5Gi");
    model.cluster.spec.storage.storage_class_name = None;
    model.pass();
    model.settle();
    model.assert_sound();
    let template = model.sets[Set::Master.index()].clone().unwrap();
    assert_eq!(template.claim_size, Amount::from("5Gi"));
}

#[test]
fn a_volume_that_cannot_grow_has_a_condition_of_its_own_and_holds_nothing_up() {
    let mut model = Model::healthy(3);
    resize(&mut model, "20Gi");
    let words = "only dynamically provisioned pvc can be resized";
    for claim in CLAIMS {
        let refusal = Refusal {
            attempt: "20Gi".into(),
            words: words.into(),
            due: false,
        };
        model
            .refusals
            .insert(format!("PersistentVolumeClaim {claim}"), refusal);
    }
    for _ in 0..5 {
        assert!(!touches_claims(&model.pass()));
    }
    assert_eq!(
        model.condition(condition::VOLUMES_AS_WANTED),
        ("False".into(), reason::VOLUME_CANNOT_GROW.into())
    );
    let text = message(&model, condition::VOLUMES_AS_WANTED);
    assert!(
        text.contains(words) && text.contains("may go back to 10Gi"),
        "{text}"
    );
    assert_eq!(
        model.condition(condition::READY).0,
        "True",
        "it works as before"
    );
    assert_eq!(model.status.volume_size.as_deref(), Some("10Gi"));
    let told = model
        .told
        .iter()
        .filter(|told| **told == reason::VOLUME_CANNOT_GROW);
    assert_eq!(told.count(), 1, "{:?}", model.told);
    // Everything else goes on: a drain, for one.
    model.node("demo-master-0").pod.cordoned = true;
    model.settle();
    model.assert_sound();
    assert_ne!(model.master().as_deref(), Some("demo-master-0"));
    // The size goes back to what exists.
    resize(&mut model, "10Gi");
    model.settle();
    model.assert_sound();
    assert_eq!(model.condition(condition::VOLUMES_AS_WANTED).0, "True");
}

#[test]
fn a_volume_that_could_not_grow_is_asked_again_when_it_is_time() {
    let mut model = Model::healthy(2);
    resize(&mut model, "20Gi");
    for claim in &CLAIMS[..2] {
        let refusal = Refusal {
            attempt: "20Gi".into(),
            words: "no".into(),
            due: true,
        };
        model
            .refusals
            .insert(format!("PersistentVolumeClaim {claim}"), refusal);
    }
    assert!(touches_claims(&model.pass()));
    model.refusals.clear();
    model.settle();
    model.assert_sound();
    assert_eq!(model.condition(condition::VOLUMES_AS_WANTED).0, "True");
}

#[test]
fn a_claim_that_a_volume_is_bound_to_is_never_deleted() {
    let mut model = mistyped();
    model.claims.insert(
        CLAIMS[0].into(),
        ClaimSeen {
            class: Some("fats".into()),
            ..bound("10Gi")
        },
    );
    model.cluster.spec.storage.storage_class_name = Some("fast".into());
    for _ in 0..5 {
        let plan = model.pass();
        let deletes = |s: &Step| matches!(s, Step::DeleteClaim { claim, .. } if claim == CLAIMS[0]);
        assert!(!plan.steps.iter().any(deletes), "{:?}", plan.steps);
    }
    assert_eq!(
        model.condition(condition::VOLUMES_AS_WANTED).1,
        reason::VOLUME_OF_ANOTHER_CLASS
    );
}
