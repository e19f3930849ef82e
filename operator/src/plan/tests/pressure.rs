//! What the status says of nodes that lack room on their disks or in memory.

use super::model::Model;
use crate::names::{condition, reason};

#[test]
fn a_disk_or_a_memory_that_is_full_is_named_with_its_pod_until_there_is_room_again() {
    let mut model = Model::healthy(3);
    model.pass();
    for of in [condition::DISK_PRESSURE, condition::MEMORY_PRESSURE] {
        assert_eq!(
            model.condition(of),
            ("False".into(), reason::ENOUGH_ROOM.into())
        );
    }
    model.node("demo-replica-1").disk_full = Some("the disk is full: do this".into());
    model.node("demo-master-0").memory_full = Some("of memory are in use".into());
    model.pass();
    let (of, reason) = (condition::DISK_PRESSURE, reason::DISK_FULL);
    assert_eq!(model.condition(of), ("True".into(), reason.into()));
    assert_eq!(
        model.message(of),
        "demo-replica-1: the disk is full: do this"
    );
    let (of, reason) = (condition::MEMORY_PRESSURE, reason::MEMORY_FULL);
    assert_eq!(model.condition(of), ("True".into(), reason.into()));
    assert_eq!(model.message(of), "demo-master-0: of memory are in use");
    model.node("demo-replica-1").disk_full = None;
    model.pass();
    assert_eq!(model.condition(condition::DISK_PRESSURE).0, "False");
    model.assert_sound();
}

#[test]
fn a_node_that_was_killed_for_want_of_memory_is_named_while_it_is_away_and_for_a_while_after() {
    let mut model = Model::healthy(3);
    model.pass();
    let at = model.now();
    model.kill("demo-master-0");
    model.node("demo-master-0").pod.oom_killed = Some(at);
    model.pass();
    let of = condition::MEMORY_PRESSURE;
    assert_eq!(
        model.condition(of),
        ("True".into(), reason::OOM_KILLED.into())
    );
    let message = model.message(of);
    assert!(message.contains("demo-master-0: killed at"), "{message}");
    assert!(message.contains("limits.memory"), "{message}");
    let message = model.message(condition::READY);
    assert!(message.contains("OOMKilled"), "{message}");

    model.revive("demo-master-0");
    model.settle();
    assert_eq!(
        model.condition(of).0,
        "True",
        "it runs again, as it did before"
    );
    model.pass_time(700_000);
    model.settle();
    assert_eq!(model.condition(of).0, "False");
    model.assert_sound();
}
