//! kill -9 on either side: each comes back at its position, with a partial sync where the log reaches back far enough.

use vectorizer_replication::position::Position;

use super::agree::{agree, agree_after};
use super::harness::*;

#[tokio::test]
async fn a_killed_replica_comes_back_at_its_position_and_takes_only_what_it_missed() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let seen = master.put(0..50).await;
    replica.reaches(seen).await;
    let before = master.stats().await;
    let id = master.only_replica().await.id;
    let refused = master.client.forget_replica(id).await.unwrap_err();
    assert!(refused.to_string().contains("is connected"), "{refused}");
    replica.kill();
    // It stays listed for as long as nobody says that it is gone for good.
    until("the master to notice", async || {
        let replica = master.only_replica().await;
        if replica.connected {
            Err(replica)
        } else {
            Ok(())
        }
    })
    .await;
    let left = master.client.forget_replica(id).await.unwrap();
    assert_eq!(left.count, 0);

    let missed = master.put(50..80).await;
    let replica = elsewhere.start().await;
    // At its position before it has heard of anybody, or beyond it by now; never at the beginning.
    assert!(replica.status().await.current_offset >= seen.offset);
    replica.reaches(missed).await;
    replica.holds(0..80).await;
    let after = master.stats().await;
    assert_eq!(after.full_syncs, before.full_syncs);
    assert_eq!(after.partial_syncs, before.partial_syncs + 1);
    let own = replica.stats().await;
    assert_eq!((own.full_syncs, own.partial_syncs), (0, 1));
    assert_eq!(
        replica.status().await.node_id,
        master.only_replica().await.id,
        "the same replica"
    );
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_killed_master_comes_back_with_all_that_it_acknowledged_and_its_replica_goes_on() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let mut acknowledged = Position::ZERO;
    for n in 0..40 {
        acknowledged = master.put(n..n + 1).await;
    }
    master.kill();
    until("the replica to notice", async || {
        let status = replica.status().await;
        if status.connected == Some(false) {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    assert!(
        replica.client.ready().await.unwrap(),
        "reads go on without a master"
    );

    let master = at_home.start().await;
    master.holds(0..40).await;
    let status = master.status().await;
    assert!(
        status.epoch > acknowledged.epoch,
        "another process, another epoch"
    );
    assert!(status.current_offset > acknowledged.offset);
    let written = master.put(40..60).await;
    replica.reaches(written).await;
    replica.holds(0..60).await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn both_killed_in_the_middle_of_writes_agree_again_afterwards() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (mut master, mut replica) = pair(&at_home, &elsewhere).await;
    let mut written = 0;
    for round in 1..=3 {
        for _ in 0..20 {
            master.put(written..written + 1).await;
            written += 1;
        }
        // One more is under way when the power goes.
        let last = master.try_put(written..written + 1);
        if round % 2 == 0 {
            drop(last);
        } else {
            last.await.unwrap();
            written += 1;
        }
        master.kill();
        replica.kill();
        replica = elsewhere.start().await;
        master = at_home.start().await;
    }
    let status = master.status().await;
    replica
        .reaches(Position::new(status.epoch, status.current_offset))
        .await;
    master.holds(0..written).await;
    replica.holds(0..written).await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_gap_longer_than_the_log_is_closed_by_a_full_sync_and_the_next_one_is_partial_again() {
    let at_home = Machine::master()
        .set("replication.log_size=64")
        .set("storage.segment_bytes=4096");
    let elsewhere = Machine::replica_of(&at_home);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let seen = master.put(0..10).await;
    replica.reaches(seen).await;
    replica.kill();

    let mut written = 10;
    until("the log to begin after what the replica has", async || {
        master.put(written..written + 20).await;
        written += 20;
        let first = master.metric("vectorizer_log_first_offset").await;
        if first > seen.offset + 1 {
            Ok(())
        } else {
            Err(first)
        }
    })
    .await;
    let last = master.put(written..written + 1).await;
    written += 1;
    let replica = elsewhere.start().await;
    replica.reaches(last).await;
    replica.holds(0..written).await;
    let (own, of_master) = (replica.stats().await, master.stats().await);
    assert_eq!(own.full_syncs, 1);
    assert_eq!(of_master.full_syncs, 1);
    assert!(own.snapshot_size > 0 && of_master.snapshot_size > 0);

    replica.kill();
    let last = master.put(written..written + 1).await;
    let replica = elsewhere.start().await;
    replica.reaches(last).await;
    let own = replica.stats().await;
    assert_eq!((own.full_syncs, own.partial_syncs), (0, 1));
    // The one that this master has sent.
    agree_after(1..=1, [(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_stopped_node_drains_ends_with_success_and_comes_back() {
    let machine = Machine::master();
    let node = machine.start().await;
    node.create().await;
    let written = node.put(0..5).await;
    let under_way = node.client.clone().reading_at_least(written);
    let (read, _) = tokio::join!(under_way.collections(), async { node.signal("TERM") });
    // It was answered, or it came too late to be accepted; it was not cut off in the middle.
    if let Err(error) = read {
        assert!(
            error.has_no_side_effects() || error.api().is_none(),
            "{error}"
        );
    }
    assert_eq!(node.ended().await, Some(0));
    let node = machine.start().await;
    node.holds(0..5).await;
}
