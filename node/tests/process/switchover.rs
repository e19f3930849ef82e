//! A planned switchover by the commands that the operator gives, under writes: no write fails and none is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vectorizer_api::control::{Fence, Follow, Handover, Promote};
use vectorizer_api::error::ErrorCode;
use vectorizer_api::replication::Role;

use super::agree::agree;
use super::harness::*;
use super::relay::{Line, Relay};
use super::roles::*;

#[tokio::test]
async fn a_handover_under_writes_fails_none_and_loses_none() {
    let first = commandable(Machine::master());
    let second = commandable(Machine::replica_of(&first));
    let (old, new) = pair(&first, &second).await;
    let old = Arc::new(old);

    // Somebody writes all the time, to the address that was the master's all the time.
    let (stop, written) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU32::new(0)),
    );
    let writer = tokio::spawn({
        let (old, stop, written) = (old.clone(), stop.clone(), written.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let next = written.load(Ordering::Relaxed);
                old.put(next..next + 1).await;
                written.store(next + 1, Ordering::Relaxed);
            }
        }
    });
    let enough = async |more: u32| {
        let goal = written.load(Ordering::Relaxed) + more;
        until("more writes", async || {
            let now = written.load(Ordering::Relaxed);
            if now >= goal || writer.is_finished() {
                Ok(())
            } else {
                Err(now)
            }
        })
        .await;
    };
    enough(30).await;

    let state = commander(&old).control_state().await.unwrap();
    let target = commander(&new).control_state().await.unwrap();
    assert!(state.writable && state.role == Role::Master);
    let (cluster, from_epoch) = (state.cluster.unwrap(), state.master_epoch);
    let epoch = from_epoch + 1;
    let handover = Handover {
        cluster,
        from_epoch,
        epoch,
        target: target.node_id,
        deadline_ms: 20_000,
    };
    let fenced = Fence {
        cluster,
        epoch: from_epoch,
    };
    commander(&new).fence(&fenced).await.unwrap();
    let over = commander(&old).handover(&handover).await.unwrap();
    assert_eq!(over.role, Role::Unassigned);
    assert!(!over.writable);
    let at = over.position;
    let promoted = commander(&new)
        .promote(&Promote { cluster, epoch, at })
        .await
        .unwrap();
    assert_eq!(
        (promoted.role, promoted.master_epoch),
        (Role::Master, epoch)
    );
    let follow = Follow {
        cluster,
        epoch,
        master_address: second.replication(),
        master_url: second.url(),
    };
    let follower = commander(&old).follow(&follow).await.unwrap();
    assert_eq!(follower.role, Role::Replica);

    // Late writes to the former master are passed on.
    enough(30).await;
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let written = written.load(Ordering::Relaxed);
    new.holds(0..written).await;
    let state = commander(&new).control_state().await.unwrap();
    old.reaches(state.position).await;
    old.holds(0..written).await;
    // Given once more, each command answers the same.
    commander(&new)
        .promote(&Promote { cluster, epoch, at })
        .await
        .unwrap();
    commander(&old).follow(&follow).await.unwrap();
    let old = Arc::into_inner(old).unwrap();
    agree([(&second, new), (&first, old)]).await;
}

/// Sends a request as it stands, and the whole answer.
async fn raw(machine: &Machine, request: &str) -> String {
    let mut socket = TcpStream::connect((machine.ip, 15002)).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = socket.read_to_string(&mut answer);
    tokio::time::timeout(DEADLINE, read).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn a_forwarded_request_is_the_one_that_came_and_no_other() {
    let first = commandable(Machine::master());
    let second = commandable(Machine::replica_of(&first));
    let (old, new) = pair(&first, &second).await;
    old.put(0..3).await;
    let by =
        |target: &str| format!("DELETE {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    hand_over(&old, &new, &second).await;
    // To a reader of URLs each of these is `/collections/c`, or what is above it.
    for target in [
        r"/collections/x/vectors/..\..\c",
        r"/collections/c/vectors/\..",
        "/collections/c/vectors/%2E%2E",
        "/collections/c/vectors/%2e",
        "/collections/x/vectors/..%2f..%2fc",
    ] {
        let forwarded = raw(&first, &by(target)).await;
        assert!(
            forwarded.starts_with("HTTP/1.1 404"),
            "{target}: {forwarded}"
        );
        assert!(forwarded.contains("_not_found"), "{target}: {forwarded}");
        // What the new master says when it is asked itself.
        let (_, direct) = raw(&second, &by(target))
            .await
            .split_once("\r\n\r\n")
            .map(|(h, b)| (h.to_owned(), b.to_owned()))
            .unwrap();
        assert!(forwarded.ends_with(&direct), "{target}: {forwarded}");
    }
    // What is meant is carried out.
    let meant = raw(&first, &by("/collections/c/vectors/00000%31")).await;
    assert!(meant.starts_with("HTTP/1.1 200"), "{meant}");
    let left: Vec<_> = new
        .everything()
        .await
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(left, [id(0), id(2)]);
    agree([(&second, new), (&first, old)]).await;
}

#[tokio::test]
async fn a_handover_to_a_replica_that_is_not_there_leaves_the_master_writing() {
    let first = commandable(Machine::master());
    let second = commandable(Machine::replica_of(&first));
    let (master, replica) = pair(&first, &second).await;
    let state = commander(&master).control_state().await.unwrap();
    let target = commander(&replica).control_state().await.unwrap().node_id;
    replica.kill();
    until("the master to notice", async || {
        match master.only_replica().await {
            replica if replica.connected => Err(replica),
            _ => Ok(()),
        }
    })
    .await;
    let handover = Handover {
        cluster: state.cluster.unwrap(),
        from_epoch: state.master_epoch,
        epoch: state.master_epoch + 1,
        target,
        deadline_ms: 300,
    };
    let refused = commander(&master).handover(&handover).await.unwrap_err();
    let refused = refused.api().unwrap();
    assert_eq!(refused.error_type, ErrorCode::Conflict, "{refused}");
    assert!(refused.message.contains("goes on writing"), "{refused}");
    master.put(0..3).await;
    assert!(commander(&master).control_state().await.unwrap().writable);
    // And whoever comes back goes on with it.
    let replica = second.start().await;
    agree([(&first, master), (&second, replica)]).await;
}

#[tokio::test]
async fn writes_that_wait_for_more_replicas_than_the_target_are_answered_before_the_handover_ends()
{
    const WRITERS: u32 = 8;
    let synchronous = |machine: Machine| commandable(machine).set("replication.write_acks=2");
    let first = synchronous(Machine::master());
    let line = Relay::to(first.replication()).await;
    let fast = synchronous(Machine::replica_of(&first));
    let slow = synchronous(Machine::following(&line.address));
    let (old, new) = (first.start().await, fast.start().await);
    let last = slow.start().await;
    old.create().await;
    let old = Arc::new(old);
    let stop = Arc::new(AtomicBool::new(false));
    let written: Arc<[AtomicU32; WRITERS as usize]> = Arc::default();
    let writers: Vec<_> = (0..WRITERS)
        .map(|own| {
            let (old, stop, written) = (old.clone(), stop.clone(), written.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let count = written[own as usize].load(Ordering::Relaxed);
                    let next = count * WRITERS + own;
                    old.put(next..next + 1).await;
                    written[own as usize].store(count + 1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let sum = || -> u32 { written.iter().map(|n| n.load(Ordering::Relaxed)).sum() };
    let enough = async |more: u32| {
        let goal = sum() + more;
        until("more writes", async || {
            let failed = writers.iter().any(|writer| writer.is_finished());
            if failed || sum() >= goal {
                Ok(())
            } else {
                Err(sum())
            }
        })
        .await;
    };
    enough(50).await;

    // Every writer's next write waits for the slow one now.
    line.set(Line::Silent);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let handover = async {
        hand_over(&old, &new, &fast).await;
        follow(&last, &new, &fast).await;
    };
    let delay = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        line.set(Line::Open);
    };
    tokio::join!(handover, delay);
    enough(50).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a write was not answered");
    }
    let end = new.end().await;
    for node in [&*old, &last] {
        node.reaches(end).await;
    }
    for own in 0..WRITERS {
        let count = written[own as usize].load(Ordering::Relaxed);
        let all = last.everything().await;
        let theirs = (0..count).map(|n| id(n * WRITERS + own));
        for id in theirs {
            assert!(all.iter().any(|(found, _)| *found == id), "{id} is missing");
        }
    }
    let old = Arc::into_inner(old).unwrap();
    agree([(&fast, new), (&first, old), (&slow, last)]).await;
}
