//! `POST /replication/configure` and a restart: the specification's way to change roles by hand.

use vectorizer_api::error::ErrorCode;
use vectorizer_api::replication::{Configure, Role};

use super::agree::agree;
use super::harness::*;

fn wish(role: &str) -> Configure {
    Configure {
        role: role.to_owned(),
        bind_address: None,
        master_address: None,
        heartbeat_interval: None,
        log_size: None,
        reconnect_interval: None,
    }
}

#[tokio::test]
async fn what_is_configured_takes_effect_at_the_restart_and_not_before() {
    let machine = Machine::new("");
    let node = machine.start().await;
    assert!(!node.status().await.enabled);
    let request = Configure {
        heartbeat_interval: Some(5),
        log_size: Some(5000),
        ..wish("master")
    };
    let answer = node.client.replication_configure(&request).await.unwrap();
    assert!(answer.success);
    assert_eq!(answer.role, "Master");
    assert_eq!(
        answer.message,
        "Replication configured successfully. Server restart required."
    );
    assert!(!node.status().await.enabled, "not before the restart");
    assert_eq!(node.stop().await, Some(0));
    let node = machine.start().await;
    let status = node.status().await;
    assert!(status.enabled);
    assert_eq!(status.replication_log_size, 5000);
    let refused = node
        .client
        .replication_configure(&wish("king"))
        .await
        .unwrap_err();
    assert_eq!(refused.api().unwrap().error_type, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn a_replica_made_master_by_hand_goes_on_and_the_former_master_follows_it() {
    let first = Machine::master();
    let second = Machine::replica_of(&first);
    let (master, replica) = pair(&first, &second).await;
    let written = master.put(0..30).await;
    replica.reaches(written).await;
    master.kill();
    replica
        .client
        .replication_configure(&wish("master"))
        .await
        .unwrap();
    assert_eq!(replica.stop().await, Some(0));

    let new_master = second.start().await;
    let status = new_master.status().await;
    assert_eq!(status.role, Role::Master);
    assert!(status.epoch > written.epoch);
    new_master.holds(0..30).await;
    let written = new_master.put(30..40).await;

    // The former master is told before it is started again, so that it never writes beside the new one.
    let follow = format!(
        "replication:\n  role: replica\n  master_address: {}\n",
        second.replication()
    );
    std::fs::write(first.data_dir().join("replication.yaml"), follow).unwrap();
    let follower = first.start().await;
    follower.reaches(written).await;
    follower.holds(0..40).await;
    assert_eq!(follower.status().await.role, Role::Replica);
    // What it had was the same.
    agree([(&second, new_master), (&first, follower)]).await;
}
