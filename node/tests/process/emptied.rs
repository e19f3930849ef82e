//! A master that comes back with an empty disk is another cluster: its replica does not follow it to nothing, and what
//! the replica holds is what there is.

use vectorizer_api::replication::{Configure, Role};

use super::agree::agree;
use super::harness::*;
use super::roles::*;

/// A replica of a master that has lost its data directory, and was started again without it.
struct Emptied {
    at_home: Machine,
    elsewhere: Machine,
    /// It has its old address, a new identity and offsets that begin at 1 again.
    stranger: Node,
    replica: Node,
}

/// The replica holds these.
const THERE: u32 = 30;

async fn emptied() -> Emptied {
    let at_home = commandable(Machine::master());
    let elsewhere = commandable(Machine::replica_of(&at_home));
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let end = master.put(0..THERE).await;
    replica.reaches(end).await;
    let before = state_of(&master).await;
    master.kill();
    std::fs::remove_dir_all(at_home.data_dir()).unwrap();

    let stranger = at_home.start().await;
    let now = state_of(&stranger).await;
    assert_eq!(now.role, Role::Master);
    assert_ne!((now.cluster, now.node_id), (before.cluster, before.node_id));
    assert_eq!(now.position.to_string(), "1.1", "it begins anew");
    // The same offsets, further than the replica is, with other data: it looks like what it would have to go on with.
    stranger.create().await;
    for n in 0..3 {
        stranger.put(1_000 + n * 30..1_030 + n * 30).await;
    }
    // And once more, in the next epoch: above everything that the replica has promised.
    assert_eq!(stranger.stop().await, Some(0));
    let stranger = at_home.start().await;
    assert!(stranger.end().await.epoch > end.epoch);
    assert!(stranger.end().await.offset > end.offset);
    let all = Emptied {
        at_home,
        elsewhere,
        stranger,
        replica,
    };
    all.is_refused().await;
    let kept = state_of(&all.replica).await;
    assert_eq!((kept.cluster, kept.position), (before.cluster, end));
    assert_eq!(kept.promised_epoch, end.epoch);
    all
}

impl Emptied {
    /// Again and again, and nothing is taken over.
    async fn is_refused(&self) {
        let connects = "vectorizer_link_connects_total";
        let before = self.replica.metric(connects).await;
        until("some more attempts", async || {
            let status = self.replica.status().await;
            assert_eq!(status.connected, Some(false), "it follows the stranger");
            match self.replica.metric(connects).await {
                now if now >= before + 3 => Ok(()),
                now => Err(now),
            }
        })
        .await;
        assert!(self.replica.said().contains("wrong cluster"));
        assert_eq!(self.stranger.status().await.connected_replicas, 0);
        for node in [&self.replica, &self.stranger] {
            assert_eq!(node.stats().await.full_syncs, 0);
        }
        // It answers as it did.
        assert!(self.replica.client.ready().await.unwrap());
        self.replica.holds(0..THERE).await;
    }

    /// The replica is master now, and the stranger is given an empty disk once more, to follow it.
    async fn ends_well(self) {
        let Emptied {
            at_home,
            elsewhere,
            stranger,
            replica: master,
        } = self;
        master.holds(0..THERE).await;
        let end = master.put(THERE..THERE + 10).await;
        assert_eq!(stranger.stop().await, Some(0));
        std::fs::remove_dir_all(at_home.data_dir()).unwrap();
        std::fs::create_dir(at_home.data_dir()).unwrap();
        configure_replica(&at_home, &elsewhere);
        let follower = at_home.start().await;
        follower.reaches(end).await;
        follower.holds(0..THERE + 10).await;
        agree([(&elsewhere, master), (&at_home, follower)]).await;
    }
}

#[tokio::test]
async fn a_master_that_lost_its_disk_is_refused_and_its_replica_is_promoted_with_everything() {
    let all = emptied().await;
    take_over(&all.replica).await;
    assert_eq!(all.replica.status().await.role, Role::Master);
    all.ends_well().await;
}

#[tokio::test]
async fn a_master_that_lost_its_disk_is_refused_and_its_replica_is_made_master_by_hand() {
    let mut all = emptied().await;
    let wish = Configure {
        role: "master".to_owned(),
        bind_address: None,
        master_address: None,
        heartbeat_interval: None,
        log_size: None,
        reconnect_interval: None,
    };
    let replica = &all.replica.client;
    replica.replication_configure(&wish).await.unwrap();
    assert_eq!(all.replica.stop().await, Some(0));
    all.replica = all.elsewhere.start().await;
    assert_eq!(all.replica.status().await.role, Role::Master);
    all.ends_well().await;
}

#[tokio::test]
async fn a_replica_that_restarts_beside_a_master_that_lost_its_disk_keeps_what_it_holds() {
    let mut all = emptied().await;
    all.replica.kill();
    all.replica = all.elsewhere.start().await;
    all.is_refused().await;
    take_over(&all.replica).await;
    all.ends_well().await;
}
