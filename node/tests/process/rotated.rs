//! The token that nodes share is changed while they run: each sees it when its file changes, in whatever order, and no
//! write is refused for that.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::task::JoinHandle;
use vectorizer_api::replication::ReplicaStatus;

use super::agree::agree;
use super::harness::*;
use super::relay::{Line, Relay};

const OLD: &str = "the-token-that-was";
const NEW: &str = "the-token-that-is";

/// As Kubernetes does it: another file takes the name.
fn change(machine: &Machine, token: &str) {
    let path = machine.file("token.next", token);
    std::fs::rename(&path, path.with_file_name("token")).unwrap();
}

fn with_token(machine: Machine) -> Machine {
    let path = machine.file("token", OLD);
    machine.set(&format!("replication.token_file={}", shown(&path)))
}

fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A master whose writes wait for one replica, two replicas, and the lines between them.
struct Three {
    machines: [Machine; 3],
    lines: [Relay; 2],
}

impl Three {
    async fn new() -> Three {
        let master = with_token(Machine::master().set("replication.write_acks=1"));
        let lines = [
            Relay::to(master.replication()).await,
            Relay::to(master.replication()).await,
        ];
        let replicas = lines
            .each_ref()
            .map(|line| with_token(Machine::following(&line.address)));
        let [first, second] = replicas;
        Three {
            machines: [master, first, second],
            lines,
        }
    }

    async fn start(&self) -> [Node; 3] {
        let [master, first, second] = &self.machines;
        let nodes = [
            master.start().await,
            first.start().await,
            second.start().await,
        ];
        in_sync(&nodes[0], 2).await;
        nodes[0].create().await;
        nodes
    }

    /// Ends each session in turn, the next once the one before has begun again.
    async fn cut_each(&self, master: &Node) {
        for line in &self.lines {
            let before = line.connections();
            line.set(Line::Cut);
            in_sync(master, 1).await;
            line.set(Line::Open);
            in_sync(master, 2).await;
            assert!(line.connections() > before);
        }
    }
}

/// Waits until exactly so many replicas acknowledge.
async fn in_sync(master: &Node, count: usize) {
    until("so many replicas in sync", async || {
        let list = master.client.replication_replicas().await;
        let list = list.map_err(|error| error.to_string())?;
        let keeps_up = |r: &&vectorizer_api::replication::Replica| {
            r.connected && r.status != ReplicaStatus::Syncing
        };
        match list.replicas.iter().filter(keeps_up).count() {
            found if found == count => Ok(()),
            found => Err(format!("{found}: {list:?}")),
        }
    })
    .await;
}

/// Writes one vector after the other; a refusal ends it. Answers how many there are.
fn writes(master: &Node) -> (JoinHandle<u32>, Arc<AtomicBool>, Arc<AtomicU32>) {
    let (client, enough) = (master.client.clone(), Arc::new(AtomicBool::new(false)));
    let written = Arc::new(AtomicU32::new(0));
    let (stop, count) = (enough.clone(), written.clone());
    let task = tokio::spawn(async move {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            put_with(&client, number..number + 1).await.unwrap();
            number += 1;
            count.store(number, Ordering::Relaxed);
        }
        number
    });
    (task, enough, written)
}

/// The token changes on one machine after the other, and the sessions are cut after each.
async fn rotated_in_this_order(order: [usize; 3]) {
    let three = Three::new().await;
    let nodes = three.start().await;
    let (task, enough, written) = writes(&nodes[0]);
    for changed in order {
        change(&three.machines[changed], NEW);
        // Its file is looked at once a second at most.
        until("the change to be seen", async || {
            three.cut_each(&nodes[0]).await;
            let said = nodes[changed].said();
            said.contains("credential changed")
                .then_some(())
                .ok_or("not yet")
        })
        .await;
        let before = written.load(Ordering::Relaxed);
        until("writes to go on", async || {
            let now = written.load(Ordering::Relaxed);
            if now > before { Ok(()) } else { Err(now) }
        })
        .await;
    }
    enough.store(true, Ordering::Relaxed);
    let count = task.await.expect("no write is refused");
    let end = nodes[0].end().await;
    for node in &nodes {
        node.reaches(end).await;
        node.holds(0..count).await;
    }
    let [master, first, second] = nodes;
    let [at_home, one, two] = &three.machines;
    agree([(at_home, master), (one, first), (two, second)]).await;
}

#[tokio::test]
async fn a_token_that_the_master_sees_first_is_changed_without_a_refused_write() {
    rotated_in_this_order([0, 1, 2]).await;
}

#[tokio::test]
async fn a_token_that_the_replicas_see_first_is_changed_without_a_refused_write() {
    rotated_in_this_order([1, 2, 0]).await;
}

#[tokio::test]
async fn a_replica_with_another_token_says_why_it_is_not_fed() {
    let at_home = with_token(Machine::master());
    let elsewhere = with_token(Machine::replica_of(&at_home));
    change(&elsewhere, "quite-another");
    let control = elsewhere.file("control", "control-token");
    let elsewhere = elsewhere.set(&format!("server.control_token_file={}", shown(&control)));
    let (_master, replica) = (at_home.start().await, elsewhere.start().await);
    until("the reason to be in the status", async || {
        let warnings = replica.status().await.warnings;
        let says =
            |w: &String| w.contains("token is another one") && w.contains(&at_home.replication());
        warnings.iter().any(says).then_some(()).ok_or(warnings)
    })
    .await;
    let client = replica.client.clone().with_token("control-token");
    let state = client.control_state().await.unwrap();
    assert!(
        state
            .cut_off
            .is_some_and(|why| why.contains("token is another one"))
    );
    // With the right one it is gone.
    change(&elsewhere, OLD);
    until("the replica to be fed", async || {
        let status = replica.status().await;
        let fed =
            status.connected == Some(true) && !status.warnings.iter().any(|w| w.contains("token"));
        fed.then_some(()).ok_or(status)
    })
    .await;
    assert_eq!(client.control_state().await.unwrap().cut_off, None);
}

#[tokio::test]
async fn the_control_token_before_a_change_is_accepted_beside_the_new_one() {
    let machine = Machine::master();
    let path = machine.file("control", "before");
    let machine = machine.set(&format!("server.control_token_file={}", shown(&path)));
    let node = machine.start().await;
    machine.file("control", "after-it");
    let with = |token: &str| node.client.clone().with_token(token);
    until("the change to be seen", async || {
        with("after-it").control_state().await
    })
    .await;
    with("before").control_state().await.unwrap();
    with("other").control_state().await.unwrap_err();
}
