//! Full syncs that are broken off in the middle: the next one begins again, and nothing is left of the one before.

use std::fs;

use vectorizer_api::control::Fence;
use vectorizer_api::replication::Role;

use super::agree::agree_after;
use super::harness::*;
use super::relay::{Line, Relay};
use super::roles::*;

/// More than one chunk, less than all of them.
const MIDDLE: u64 = 1_500_000;
const VECTORS: u32 = 2_500;

/// A master whose log does not reach back to its beginning, and a replica that has got the first part of a full sync,
/// the line silent since.
struct Interrupted {
    at_home: Machine,
    elsewhere: Machine,
    master: Node,
    replica: Node,
    relay: Relay,
}

async fn interrupted() -> Interrupted {
    let at_home = Machine::master()
        .set("replication.log_size=64")
        .set("storage.segment_bytes=4096");
    let at_home = trusting(commandable(at_home));
    let master = at_home.start().await;
    master.create().await;
    for n in (0..VECTORS).step_by(500) {
        master.put_large(n..n + 500, 1_000).await;
    }
    until("the log to begin later", async || {
        master.put(0..1).await;
        match master.metric("vectorizer_log_first_offset").await {
            1 => Err(()),
            _ => Ok(()),
        }
    })
    .await;
    let relay = Relay::to(at_home.replication()).await;
    relay.set(Line::Until(MIDDLE));
    let elsewhere = trusting(commandable(Machine::following(&relay.address)));
    let replica = elsewhere.start().await;
    until("the middle of the full sync", async || {
        match relay.to_client() {
            MIDDLE.. => Ok(()),
            few => Err(few),
        }
    })
    .await;
    // What the relay has passed on, the replica may have yet to read.
    let begun = until("the replica to have joined", async || {
        match replica.stats().await.full_syncs {
            0 => Err(()),
            begun => Ok(begun),
        }
    })
    .await;
    assert_eq!(begun, 1);
    assert_eq!(replica.end().await.offset, 0);
    Interrupted {
        at_home,
        elsewhere,
        master,
        replica,
        relay,
    }
}

impl Interrupted {
    /// The replica gets everything, in the second full sync that the longer-lived of the two counts.
    async fn ends_well(self) {
        let last = self.master.put(0..VECTORS).await;
        self.replica.reaches(last).await;
        self.replica.holds(0..VECTORS).await;
        let there = fs::read_dir(self.elsewhere.data_dir()).unwrap();
        let names = there.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let generations: Vec<_> = names.filter(|name| name.starts_with("gen-")).collect();
        assert_eq!(generations.len(), 1, "{generations:?}");
        let nodes = [
            (&self.at_home, self.master),
            (&self.elsewhere, self.replica),
        ];
        agree_after(2..=2, nodes).await;
    }
}

#[tokio::test]
async fn a_replica_killed_inside_a_full_sync_begins_again() {
    let mut all = interrupted().await;
    all.replica.kill();
    all.relay.set(Line::Open);
    all.replica = all.elsewhere.start().await;
    all.ends_well().await;
}

#[tokio::test]
async fn a_master_killed_inside_a_full_sync_feeds_another_one_when_it_is_back() {
    let mut all = interrupted().await;
    all.master.kill();
    all.relay.set(Line::Open);
    all.master = all.at_home.start().await;
    all.ends_well().await;
}

#[tokio::test]
async fn a_replica_fenced_inside_a_full_sync_follows_the_next_master_all_the_same() {
    let all = interrupted().await;
    let state = state_of(&all.replica).await;
    let fence = Fence {
        cluster: state.cluster.unwrap(),
        epoch: state.promised_epoch + 1,
    };
    commander(&all.replica).fence(&fence).await.unwrap();
    all.relay.set(Line::Open);
    // Its greeting tells the master of the higher epoch, and there is none until somebody is promoted.
    until("the master to step down", async || {
        match all.master.status().await.role {
            Role::Unassigned => Ok(()),
            other @ (Role::Master | Role::Replica) => Err(other),
        }
    })
    .await;
    take_over(&all.master).await;
    all.ends_well().await;
}
