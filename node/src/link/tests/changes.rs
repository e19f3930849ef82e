//! What a replica must hear of: every kind of mutation, and that its master is one no longer.

use super::*;

#[tokio::test]
async fn every_kind_of_mutation_reaches_a_replica_by_the_log() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let master = Node::master(a.path()).await;
    let replica = Node::replica(b.path(), &master).await;
    let write = |request| master.context.writer.write(request);
    master.put(0..20).await;
    master.put(5..10).await;
    let (collection, ids) = ("c".into(), vec!["3".to_owned(), "7".to_owned()]);
    let atomic = true;
    let delete = WriteRequest::Delete {
        collection,
        ids,
        atomic,
    };
    write(delete).await.unwrap();
    for name in ["d", "e"] {
        let (name, config) = (name.to_owned(), CollectionConfig::new(3, Metric::Cosine));
        let create = WriteRequest::CreateCollection { name, config };
        write(create).await.unwrap();
    }
    let name = "d".into();
    write(WriteRequest::DropCollection { name }).await.unwrap();
    until_same(&replica, &master).await;
    let names = |node: &Node| -> Vec<String> {
        let all = node.context.store.collections();
        all.into_iter().map(|c| c.name).collect()
    };
    assert_eq!(names(&replica), ["c", "e"]);
    // A replica that differs would be noticed and filled anew: by the log it is the same from the beginning.
    assert_eq!(replica.syncs(), (1, 0));
}

#[tokio::test]
async fn a_master_that_is_fenced_lets_go_of_its_replicas() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let master = Node::master(a.path()).await;
    let replica = Node::replica(b.path(), &master).await;
    until_same(&replica, &master).await;
    until("connected", || replica.context.stats.is_connected()).await;
    let fence = Command::Fence {
        cluster: CLUSTER,
        epoch: 2,
    };
    master.context.writer.command(fence).await.unwrap();
    until("it is let go", || !replica.context.stats.is_connected()).await;
    until("its list is empty", || {
        master.context.table.list().is_empty()
    })
    .await;
}
