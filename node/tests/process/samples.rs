//! The specification's own samples, addresses replaced: by YAML and by environment.

use vectorizer_api::data::{CreateCollection, InsertText, InsertTexts, Search, TextItem};
use vectorizer_api::error::ErrorCode;
use vectorizer_api::replication::{ReplicaStatus, Role};

use super::agree::agree;
use super::harness::*;

#[tokio::test]
async fn two_nodes_from_the_samples_replicate_and_only_the_master_writes() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (master, replica) = (at_home.start().await, elsewhere.start().await);
    let docs = CreateCollection {
        name: "docs".to_owned(),
        dimension: Some(512),
        ..CreateCollection::default()
    };
    master.client.create_collection(&docs).await.unwrap();
    let texts = [
        "Bread is baked in ovens",
        "Ships sail across the sea",
        "Bees make honey",
    ];
    let request = InsertTexts {
        collection: "docs".to_owned(),
        texts: texts
            .iter()
            .map(|text| TextItem {
                text: text.to_string(),
                ..TextItem::default()
            })
            .collect(),
        ..InsertTexts::default()
    };
    let written = master.client.insert_texts(&request).await.unwrap();
    assert_eq!(written.body.inserted, 3);
    let position = written.position.unwrap();

    // A read that names the position waits for it: no polling here. Until the first contact there is no data at all.
    until("the replica to have data", async || {
        replica.client.collections().await
    })
    .await;
    let client = replica.client.clone().reading_at_least(position);
    let search = Search {
        query: Some("ships on the sea".to_owned()),
        ..Search::default()
    };
    let there = client.search("docs", &search).await.unwrap();
    let here = master.client.search("docs", &search).await.unwrap();
    assert_eq!(
        there.results, here.results,
        "the same vectors, the same scores"
    );
    assert_eq!(there.results[0].content.as_deref(), Some(texts[1]));

    let one = InsertText {
        collection: "docs".to_owned(),
        text: "no".to_owned(),
        ..InsertText::default()
    };
    let refused = replica.client.insert_text(&one).await.unwrap_err();
    let refused = refused.api().unwrap();
    assert_eq!(refused.error_type, ErrorCode::NotMaster);
    let master_address = at_home.replication();
    // Where it replicates from is no place to send requests to.
    assert!(!refused.message.contains(&master_address), "{refused}");
    assert_eq!(
        refused.details.as_ref().unwrap()["master"],
        master_address.as_str()
    );

    let status = master.status().await;
    assert!(status.enabled);
    assert_eq!(status.role, Role::Master);
    assert_eq!(status.bind_address, Some(master_address.clone()));
    assert_eq!(status.connected_replicas, 1);
    assert_eq!(status.replication_log_size, 1_000_000);
    assert_eq!(status.current_offset, position.offset);
    let status = replica.status().await;
    assert!(status.enabled);
    assert_eq!(status.role, Role::Replica);
    assert_eq!(status.master_address, Some(master_address.clone()));
    assert_eq!(status.current_offset, position.offset);
    assert_eq!(status.connected, Some(true));

    let listed = until("the master to hear of it", async || {
        let listed = master.only_replica().await;
        if listed.offset == position.offset && listed.status == ReplicaStatus::Connected {
            Ok(listed)
        } else {
            Err(listed)
        }
    })
    .await;
    assert_eq!(listed.id, status.node_id);
    assert_eq!(listed.replica_id, listed.id);
    assert_eq!(listed.operations_synced, position.offset);
    assert_eq!((listed.lag_operations, listed.lag_ms), (0, 0));
    assert_eq!(listed.address, format!("{}:{}", listed.host, listed.port));

    let (sent, received) = (master.stats().await, replica.stats().await);
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now - listed.last_heartbeat < DEADLINE.as_secs());
    assert!(sent.bytes_sent > 3 * 512 * 4, "{sent:?}");
    assert!(received.bytes_received > 3 * 512 * 4, "{received:?}");
    assert!(now - sent.last_sync < DEADLINE.as_secs());
    assert_eq!(
        (sent.operations_pending, received.operations_pending),
        (0, 0)
    );
    assert_eq!(
        (sent.connected_replicas, received.connected_replicas),
        (1, 0)
    );

    let refused = replica.client.replication_replicas().await.unwrap_err();
    let refused = refused.api().unwrap();
    assert_eq!(refused.status_code, 400);
    let named = &refused.details.as_ref().unwrap()["master"];
    assert_eq!(*named, master_address.as_str());
    assert!(!refused.message.contains(&master_address), "{refused}");
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn two_nodes_from_the_samples_of_the_environment_replicate() {
    let at_home = Machine::new("");
    let address = at_home.replication();
    let at_home = at_home
        .env("REPLICATION_ROLE", "master")
        .env("REPLICATION_BIND_ADDRESS", &address)
        .env("REPLICATION_HEARTBEAT_INTERVAL", "5")
        .env("REPLICATION_LOG_SIZE", "1000000");
    let elsewhere = Machine::new("")
        .env("REPLICATION_ROLE", "replica")
        .env("REPLICATION_MASTER_ADDRESS", &address)
        .env("REPLICATION_RECONNECT_INTERVAL", "1");
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let position = master.put(0..10).await;
    replica.reaches(position).await;
    replica.holds(0..10).await;
    assert_eq!(master.addresses.replication.unwrap().to_string(), address);
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn with_a_shared_token_only_those_who_know_it_replicate() {
    let at_home = Machine::master();
    let token = at_home.file("token", "a shared secret\n".replace(' ', "-").as_str());
    let setting = format!("replication.token_file={}", token.display());
    let elsewhere = Machine::replica_of(&at_home).set(&setting);
    let stranger = Machine::replica_of(&at_home);
    let at_home = at_home.set(&setting);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let stranger = stranger.start().await;
    let position = master.put(0..3).await;
    replica.reaches(position).await;
    until("the stranger to be refused", async || {
        let refused = master.metric("vectorizer_link_refused_total").await;
        let tried = stranger.metric("vectorizer_link_connects_total").await;
        if refused > 0 || tried > 2 {
            Ok(())
        } else {
            Err((refused, tried))
        }
    })
    .await;
    assert_eq!(master.status().await.connected_replicas, 1);
    assert_eq!(stranger.status().await.current_offset, 0);
    assert!(!stranger.client.ready().await.unwrap());
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}
