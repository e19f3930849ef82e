//! What a master's replicas have acknowledged, and what it makes of that when it is one no longer.

use super::*;
use crate::writer::Fault;

#[tokio::test]
async fn a_former_master_does_not_give_up_what_it_has_answered_to_a_master_that_lacks_it() {
    let dirs = [(); 3].map(|()| TempDir::new().unwrap());
    let first = Node::master(dirs[0].path()).await;
    first.context.table.set_least(1);
    let holder = Node::replica(dirs[1].path(), &first).await;
    let lagging = Node::replica(dirs[2].path(), &first).await;
    until_same(&lagging, &first).await;
    lagging.follower.abort();
    first.put(0..50).await;
    until_same(&holder, &first).await;
    let end = first.end();
    let covered = || first.context.table.covered(end.offset) == end.offset;
    until("the holder has acknowledged it", covered).await;
    let state = first.context.writer.state();
    until("the master has noted that", || {
        state.borrow().covered == end
    })
    .await;
    // It dies, and somebody makes the wrong one master.
    first.stop().await;
    let promote = Command::Promote {
        cluster: CLUSTER,
        epoch: 2,
        at: lagging.end(),
    };
    lagging.context.writer.command(promote).await.unwrap();
    lagging.put(100..120).await;
    let first = Node::start(dirs[0].path(), 0, options()).await;
    first.follow(2, &lagging).await;
    let state = first.context.writer.state();
    until("it refuses to follow", || {
        matches!(state.borrow().fault, Some(Fault::Ahead(_)))
    })
    .await;
    assert_eq!(first.end(), end);
    assert!(!dirs[0].path().join("rollback").exists());
}

#[tokio::test]
async fn a_master_that_waits_for_nobody_notes_nothing_as_covered() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let master = Node::master(a.path()).await;
    let replica = Node::replica(b.path(), &master).await;
    master.put(0..50).await;
    until_same(&replica, &master).await;
    tokio::time::sleep(options().heartbeat * 3).await;
    let state = master.context.writer.state();
    assert_eq!(state.borrow().covered, Position::ZERO);
}
