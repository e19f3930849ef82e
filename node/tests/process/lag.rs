//! How far a replica is behind, as its master tells it.

use vectorizer_api::replication::ReplicaStatus;

use super::agree::agree;
use super::harness::*;

#[tokio::test]
async fn a_replica_that_stands_still_lags_by_operations_and_by_time_and_catches_up() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let seen = master.put(0..5).await;
    until("the master to hear of it", async || {
        let listed = master.only_replica().await;
        if listed.offset == seen.offset {
            Ok(())
        } else {
            Err(listed)
        }
    })
    .await;
    replica.freeze().await;

    let written = master.put(5..28).await;
    let behind = until("the lag to pass a second", async || {
        let listed = master.only_replica().await;
        if listed.status == ReplicaStatus::Lagging {
            Ok(listed)
        } else {
            Err(listed)
        }
    })
    .await;
    assert_eq!(behind.lag_operations, 23);
    assert_eq!(behind.offset, seen.offset);
    assert!(behind.lag_ms > 1000, "{behind:?}");
    assert!(behind.connected);
    assert_eq!(master.stats().await.operations_pending, 23);
    let later = until("the age to grow", async || {
        let listed = master.only_replica().await;
        if listed.lag_ms > behind.lag_ms {
            Ok(listed)
        } else {
            Err(listed)
        }
    })
    .await;
    assert_eq!(
        later.lag_operations, 23,
        "the age grows, the operations do not"
    );

    replica.signal("CONT");
    replica.reaches(written).await;
    let listed = until("the lag to be gone", async || {
        let listed = master.only_replica().await;
        if listed.status == ReplicaStatus::Connected {
            Ok(listed)
        } else {
            Err(listed)
        }
    })
    .await;
    assert_eq!((listed.lag_operations, listed.lag_ms), (0, 0));
    assert_eq!(master.stats().await.operations_pending, 0);
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_replica_that_is_gone_stays_listed_without_a_connection() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let id = replica.status().await.node_id;
    replica.kill();
    let listed = until("the session to end", async || {
        let listed = master.only_replica().await;
        if listed.connected {
            Err(listed)
        } else {
            Ok(listed)
        }
    })
    .await;
    assert_eq!(listed.id, id);
    assert_eq!(master.status().await.connected_replicas, 0);
    assert_eq!(master.stats().await.connected_replicas, 0);

    master.put(0..5).await;
    let replica = elsewhere.start().await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}
