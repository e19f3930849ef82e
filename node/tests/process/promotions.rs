//! Promotions, planned and not, and what becomes of the former master: nobody is fed a whole copy.

use vectorizer_api::error::ErrorCode;
use vectorizer_api::replication::Role;
use vectorizer_replication::position::Position;

use super::agree::{agree, agree_after};
use super::harness::*;
use super::relay::{Line, Relay};
use super::roles::*;

/// Three machines; the second and the third follow the first.
fn three() -> [Machine; 3] {
    let first = Machine::master();
    let (second, third) = (Machine::replica_of(&first), Machine::replica_of(&first));
    [first, second, third].map(commandable)
}

#[tokio::test]
async fn mastership_goes_round_three_nodes_and_nothing_is_copied() {
    let machines = three();
    let (first, second) = pair(&machines[0], &machines[1]).await;
    let third = machines[2].start().await;
    let nodes = [first, second, third];
    let mut last = nodes[0].put(0..10).await;
    for (round, [from, to, other]) in (1..).zip([[0, 1, 2], [1, 2, 0], [2, 0, 1]]) {
        nodes[to].reaches(last).await;
        hand_over(&nodes[from], &nodes[to], &machines[to]).await;
        follow(&nodes[other], &nodes[to], &machines[to]).await;
        last = nodes[to].put(round * 10..round * 10 + 10).await;
        for node in [from, other] {
            nodes[node].reaches(last).await;
            nodes[node].holds(0..round * 10 + 10).await;
        }
    }
    let [first, second, third] = nodes;
    let [a, b, c] = &machines;
    agree([(a, first), (b, second), (c, third)]).await;
}

#[tokio::test]
async fn after_the_death_of_the_master_the_others_go_on_and_it_comes_back_as_it_was() {
    let machines = three();
    let (first, second) = pair(&machines[0], &machines[1]).await;
    let third = machines[2].start().await;
    let last = first.put(0..20).await;
    second.reaches(last).await;
    third.reaches(last).await;
    first.kill();
    take_over(&second).await;
    follow(&third, &second, &machines[1]).await;
    let last = second.put(20..40).await;
    third.reaches(last).await;

    // It holds nothing that the others do not.
    configure_replica(&machines[0], &machines[1]);
    let first = machines[0].start().await;
    first.reaches(last).await;
    first.holds(0..40).await;
    assert_eq!(first.status().await.role, Role::Replica);
    assert!(!machines[0].data_dir().join("rollback").exists());
    let [a, b, c] = &machines;
    agree([(b, second), (a, first), (c, third)]).await;
}

/// What the former master wrote alone in its epoch 1 is in a file: these operations and no others.
fn assert_aside(machine: &Machine, from: u64, to: u64) {
    let entries = std::fs::read_dir(machine.data_dir().join("rollback")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<_> = names.collect();
    assert_eq!(names, [format!("1-{from}-{to}")]);
}

#[tokio::test]
async fn what_a_former_master_wrote_alone_is_written_aside_and_undone_while_it_runs() {
    let first = commandable(Machine::master());
    let relay = Relay::to(first.replication()).await;
    let second = commandable(Machine::following(&relay.address));
    let (old, new) = pair(&first, &second).await;
    let shared = old.put(0..20).await;
    new.reaches(shared).await;
    relay.set(Line::Cut);
    let lost = old.put(20..30).await;
    take_over(&new).await;
    let last = new.put(100..110).await;
    follow(&old, &new, &second).await;
    old.reaches(last).await;
    assert_aside(&first, shared.offset + 1, lost.offset);
    let ids = old.everything().await;
    assert_eq!(ids.len(), 30);
    assert!(ids.iter().all(|(found, _)| *found != id(25)));
    agree([(&second, new), (&first, old)]).await;
}

#[tokio::test]
async fn what_a_former_master_wrote_alone_is_undone_when_it_comes_back_from_the_dead() {
    let first = commandable(Machine::master());
    let relay = Relay::to(first.replication()).await;
    let second = commandable(Machine::following(&relay.address));
    let (old, new) = pair(&first, &second).await;
    let shared = old.put(0..20).await;
    new.reaches(shared).await;
    relay.set(Line::Cut);
    let lost = old.put(20..30).await;
    old.kill();
    take_over(&new).await;
    let last = new.put(100..110).await;
    configure_replica(&first, &second);
    let old = first.start().await;
    old.reaches(last).await;
    assert_aside(&first, shared.offset + 1, lost.offset);
    agree([(&second, new), (&first, old)]).await;
}

#[tokio::test]
async fn a_replica_that_was_away_during_a_promotion_finds_its_way_to_the_new_master() {
    let machines = three();
    let (first, second) = pair(&machines[0], &machines[1]).await;
    let third = machines[2].start().await;
    let seen = first.put(0..20).await;
    third.reaches(seen).await;
    third.kill();
    let last = first.put(20..40).await;
    second.reaches(last).await;
    first.kill();
    take_over(&second).await;
    let last = second.put(40..60).await;
    configure_replica(&machines[2], &machines[1]);
    let third = machines[2].start().await;
    third.reaches(last).await;
    third.holds(0..60).await;
    assert_eq!(third.stats().await.partial_syncs, 1);
    let [_, b, c] = &machines;
    agree([(b, second), (c, third)]).await;
}

/// Writes until what follows `shared` is not in the log any more; the position of the last write.
async fn write_until_log_begins_after(node: &Node, shared: Position) -> Position {
    let mut written = 100;
    until("the log to begin after what both have", async || {
        let last = node.put_large(written..written + 20, 8 << 10).await;
        written += 20;
        match node.metric("vectorizer_log_first_offset").await {
            first if first > shared.offset + 1 => Ok(last),
            first => Err(first),
        }
    })
    .await
}

#[tokio::test]
async fn a_former_master_that_needs_a_whole_copy_keeps_aside_what_it_wrote_alone() {
    let first = commandable(Machine::master());
    let relay = Relay::to(first.replication()).await;
    let second = commandable(Machine::following(&relay.address))
        .set("replication.log_size=64")
        .set("storage.segment_bytes=4096");
    let (old, new) = pair(&first, &second).await;
    let shared = old.put(0..20).await;
    new.reaches(shared).await;
    relay.set(Line::Cut);
    let lost = old.put(20..30).await;
    take_over(&new).await;
    let last = write_until_log_begins_after(&new, shared).await;
    follow(&old, &new, &second).await;
    old.reaches(last).await;
    assert_aside(&first, shared.offset + 1, lost.offset);
    agree_after(1..=1, [(&second, new), (&first, old)]).await;
}

/// Waits until no read is answered here any more, and checks that each is refused with the reason.
async fn serves_nobody(node: &Node) {
    let refused = until("reads to be refused", async || {
        match node.client.list_vectors("c", 10, 0).await {
            Ok(page) => Err(page),
            Err(refused) => Ok(refused),
        }
    })
    .await;
    assert!(refused.has_no_side_effects(), "{refused}");
    let error = refused.api().unwrap();
    assert_eq!(error.error_type, ErrorCode::Unavailable);
    let reason = "what its master does not have";
    assert!(error.message.contains(reason), "{error}");
    let refused = node.client.replication_digest().await.unwrap_err();
    assert_eq!(
        refused.api().unwrap().error_type,
        ErrorCode::Unavailable,
        "{refused}"
    );
    assert!(!node.client.ready().await.unwrap());
    assert!(node.client.live().await.unwrap());
    assert_eq!(node.metric("vectorizer_diverged").await, 1);
    let warnings = node.status().await.warnings;
    assert!(warnings.iter().any(|w| w.contains(reason)), "{warnings:?}");
}

#[tokio::test]
async fn what_a_former_master_wrote_alone_is_not_read_while_a_whole_copy_replaces_it() {
    let first = commandable(Machine::master());
    let relay = Relay::to(first.replication()).await;
    let second = commandable(Machine::following(&relay.address))
        .set("replication.log_size=64")
        .set("storage.segment_bytes=4096");
    let back = Relay::to(second.replication()).await;
    let (old, new) = pair(&first, &second).await;
    let shared = old.put(0..20).await;
    new.reaches(shared).await;
    relay.set(Line::Cut);
    let lost = old.put(20..30).await;
    take_over(&new).await;
    let last = write_until_log_begins_after(&new, shared).await;

    // Enough for the decision, not for the copy.
    back.set(Line::Until(128 << 10));
    assert_eq!(old.everything().await.len(), 30);
    follow_through(&old, &new, &second, &back.address).await;
    serves_nobody(&old).await;
    assert_eq!(old.stats().await.full_syncs, 1);
    assert!(
        !first.data_dir().join("rollback").exists(),
        "nothing is undone yet"
    );

    // A restart knows of it without being told again.
    old.kill();
    back.set(Line::Cut);
    configure_following(&first, &back.address);
    let old = first.start().await;
    serves_nobody(&old).await;

    back.set(Line::Open);
    old.reaches(last).await;
    assert!(old.client.ready().await.unwrap());
    assert_eq!(old.metric("vectorizer_diverged").await, 0);
    let ids = old.everything().await;
    assert!(ids.iter().all(|(found, _)| *found != id(25)));
    assert_aside(&first, shared.offset + 1, lost.offset);
    agree_after(1..=3, [(&second, new), (&first, old)]).await;
}
