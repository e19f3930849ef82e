//! Processes that stand still and wake up again: nobody waits for them, and they cost little.

use super::agree::agree;
use super::harness::*;

const MIB: u64 = 1 << 20;
/// A batch of so many vectors with payloads of this length: 4 MiB.
const MANY: u32 = 16;
const LARGE: usize = 256 << 10;

#[tokio::test]
async fn a_frozen_replica_costs_the_master_a_bounded_amount_of_memory_and_catches_up() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    // The same vectors all the time, so that only what is kept for the replica can grow; first until the newest part
    // of the log fills its memory.
    for _ in 0..8 {
        master.put_large(0..MANY, LARGE).await;
    }
    replica.reaches(master.end().await).await;
    replica.freeze().await;
    let before = master.memory();
    let mut last = master.end().await;
    for _ in 0..32 {
        last = master.put_large(0..MANY, LARGE).await;
    }
    let grown = master.memory().saturating_sub(before);
    println!("{} MiB more for 128 MiB of writes", grown / MIB);
    assert!(grown < 64 * MIB, "{} MiB", grown / MIB);
    assert!(master.only_replica().await.lag_operations > 0);
    replica.signal("CONT");
    replica.reaches(last).await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_replica_frozen_until_it_was_given_up_takes_only_what_it_missed() {
    let at_home = Machine::master().impatient();
    let elsewhere = Machine::replica_of(&at_home).impatient();
    let (master, replica) = pair(&at_home, &elsewhere).await;
    replica.freeze().await;
    master.put(0..20).await;
    until("the master to give its replica up", async || {
        match master.status().await.connected_replicas {
            0 => Ok(()),
            more => Err(more),
        }
    })
    .await;
    let last = master.put(20..40).await;
    replica.signal("CONT");
    replica.reaches(last).await;
    replica.holds(0..40).await;
    assert_eq!(master.stats().await.partial_syncs, 2);
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_frozen_master_is_given_up_and_followed_again_when_it_wakes() {
    let at_home = Machine::master().impatient();
    let elsewhere = Machine::replica_of(&at_home).impatient();
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let last = master.put(0..20).await;
    replica.reaches(last).await;
    master.freeze().await;
    until("the replica to give its master up", async || {
        let status = replica.status().await;
        if status.connected == Some(false) {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    replica.holds(0..20).await;
    master.signal("CONT");
    let last = master.put(20..40).await;
    replica.reaches(last).await;
    replica.holds(0..40).await;
    assert_eq!(master.status().await.epoch, last.epoch, "the same process");
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}
