//! What Kubernetes says is passed on, told once, and gone when it is mended.

use super::model::Model;
use crate::names::{condition, reason};
use crate::plan::{SETTLED, Step};
use crate::world::{Refusal, Trouble};

fn trouble(reason: &str, message: &str) -> Trouble {
    Trouble {
        reason: reason.into(),
        message: message.into(),
    }
}

fn message(model: &Model, of: &str) -> String {
    let mut conditions = model.status.conditions.iter();
    conditions.find(|c| c.type_ == of).unwrap().message.clone()
}

#[test]
fn why_pods_cannot_be_made_is_said_from_the_first_start_on_and_told_once() {
    let mut model = Model::new(2);
    let quota = "pods \"demo-replica-0\" is forbidden: exceeded quota: few";
    model.refuses_pods = Some(trouble("FailedCreate", quota));
    for _ in 0..4 {
        model.pass();
    }
    for of in [
        condition::PODS_RUNNING,
        condition::DEGRADED,
        condition::READY,
        condition::AVAILABLE,
    ] {
        let text = message(&model, of);
        assert_eq!(
            model.condition(of).1,
            reason::POD_NOT_CREATED,
            "{of}: {text}"
        );
        assert!(text.contains(quota), "{of}: {text}");
    }
    let told = model
        .told
        .iter()
        .filter(|told| **told == reason::POD_NOT_CREATED);
    assert_eq!(told.count(), 1, "{:?}", model.told);
    assert_eq!(
        model.plan().requeue,
        SETTLED,
        "nothing is gained by looking every second"
    );
    model.refuses_pods = None;
    // Its StatefulSets make the pods now.
    for set in ["demo-master", "demo-replica"] {
        model.forget_set(set);
    }
    model.settle();
    model.assert_sound();
    assert_eq!(model.condition(condition::PODS_RUNNING).0, "True");
    assert_eq!(
        model.condition(condition::DEGRADED).1,
        reason::NOTHING_WRONG
    );
}

#[test]
fn each_kind_of_trouble_has_a_reason_of_its_own() {
    for (theirs, ours) in [
        ("ErrImagePull", reason::IMAGE_NOT_PULLED),
        ("ImagePullBackOff", reason::IMAGE_NOT_PULLED),
        ("Unschedulable", reason::POD_UNSCHEDULABLE),
        ("FailedMount", reason::VOLUME_NOT_MOUNTED),
        ("CrashLoopBackOff", reason::CONTAINER_CRASHES),
        ("CreateContainerConfigError", reason::CONTAINER_NOT_STARTED),
    ] {
        let mut model = Model::healthy(3);
        model.kill("demo-replica-1");
        model.node("demo-replica-1").pod.trouble = Some(trouble(theirs, "so it says"));
        model.pass();
        assert_eq!(model.condition(condition::PODS_RUNNING).1, ours);
        let text = message(&model, condition::DEGRADED);
        assert_eq!(text, format!("demo-replica-1: {theirs}: so it says"));
        assert_eq!(
            model.condition(condition::AVAILABLE).0,
            "True",
            "the master writes"
        );
        // The image's two reasons take turns: nobody is told again.
        model.node("demo-replica-1").pod.trouble = Some(trouble(theirs, "in other words"));
        model.pass();
        let told = model.told.iter().filter(|told| **told == ours);
        assert_eq!(told.count(), 1, "{:?}", model.told);
        model.node("demo-replica-1").pod.trouble = None;
        model.revive("demo-replica-1");
        model.settle();
        model.assert_sound();
    }
}

#[test]
fn an_object_that_is_refused_is_not_sent_again_before_its_time_unless_it_is_another() {
    let mut model = Model::healthy(3);
    model.cluster.spec.priority_class_name = Some("typo".into());
    let sent = |model: &Model| {
        let objects = model.plan().objects;
        let sets = objects
            .into_iter()
            .filter(|o| o.reference.name == "demo-replica");
        let sets = sets.filter(|o| o.reference.kind == crate::world::Kind::StatefulSet);
        sets.map(|o| (o.reference.to_string(), o.hash)).next()
    };
    let (what, hash) = sent(&model).unwrap();
    let words = "StatefulSet is invalid";
    let refusal = |due| Refusal {
        attempt: hash.clone(),
        words: words.into(),
        due,
    };
    model.refusals.insert(what.clone(), refusal(false));
    assert_eq!(sent(&model), None);
    let status = model.plan().status;
    let degraded = status
        .conditions
        .iter()
        .find(|c| c.type_ == condition::DEGRADED)
        .unwrap();
    assert_eq!(degraded.reason, reason::OBJECT_REFUSED);
    assert_eq!(degraded.message, format!("{what}: {words}"));
    model.refusals.insert(what, refusal(true));
    assert!(sent(&model).is_some());
    model
        .refusals
        .values_mut()
        .for_each(|refusal| refusal.due = false);
    model.cluster.spec.priority_class_name = Some("right".into());
    assert!(sent(&model).is_some(), "it is another one");
}

#[test]
fn labels_that_somebody_wrote_over_come_back_and_nobody_is_missed_meanwhile() {
    let mut model = Model::healthy(3);
    model.node("demo-master-0").pod.mislabelled = true;
    let plan = model.pass();
    let relabelled = |s: &Step| matches!(s, Step::Relabel { pod, .. } if pod == "demo-master-0");
    assert!(plan.steps.iter().any(relabelled), "{:?}", plan.steps);
    assert_eq!(model.condition(condition::AVAILABLE).0, "True");
    model.settle();
    model.assert_sound();
}
