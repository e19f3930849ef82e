//! As long as the log holds what is missing, nothing else is sent: counted over restarts and cuts of every kind.

use std::path::Path;
use std::time::Duration;

use vectorizer_api::replication::ReplicaStatus;

use super::agree::agree;
use super::harness::*;
use super::relay::{Line, Relay};

/// Bytes of all log segments of a machine.
///
/// Without the room that is made ahead: zeros at a file's end.
fn log_bytes(machine: &Machine) -> u64 {
    fn under(dir: &Path) -> u64 {
        let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
        entries
            .map(|entry| match entry.path() {
                path if path.is_dir() => under(&path),
                path if path.extension().is_some_and(|e| e == "wal") => {
                    let bytes = std::fs::read(path).unwrap();
                    bytes
                        .iter()
                        .rposition(|byte| *byte != 0)
                        .map_or(0, |last| last as u64 + 1)
                }
                _ => 0,
            })
            .sum()
    }
    under(&machine.data_dir())
}

async fn is_connected(replica: &Node, wanted: bool) {
    until("the replica's session to change", async || {
        let status = replica.status().await;
        if status.connected == Some(wanted) {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
}

#[tokio::test]
async fn stopped_and_killed_in_turn_either_side_comes_back_with_a_partial_sync() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (mut master, mut replica) = pair(&at_home, &elsewhere).await;
    let mut written = 0;
    for kill in [false, true] {
        let last = master.put(written..written + 20).await;
        replica.reaches(last).await;
        if kill {
            replica.kill();
        } else {
            assert_eq!(replica.stop().await, Some(0));
        }
        let last = master.put(written + 20..written + 40).await;
        replica = elsewhere.start().await;
        replica.reaches(last).await;
        assert_eq!(replica.stats().await.partial_syncs, 1);

        if kill {
            master.kill();
        } else {
            assert_eq!(master.stop().await, Some(0));
        }
        master = at_home.start().await;
        let last = master.put(written + 40..written + 60).await;
        replica.reaches(last).await;
        let stats = (master.stats().await, replica.stats().await);
        assert_eq!((stats.0.partial_syncs, stats.1.partial_syncs), (1, 2));
        assert_eq!((stats.0.full_syncs, stats.1.full_syncs), (0, 0));
        written += 60;
    }
    master.holds(0..written).await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn what_a_restarted_master_writes_before_any_replica_is_back_reaches_them() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let last = master.put(0..20).await;
    replica.reaches(last).await;
    replica.kill();
    master.put(20..40).await;
    master.kill();
    let master = at_home.start().await;
    let last = master.put(40..60).await;
    let replica = elsewhere.start().await;
    replica.reaches(last).await;
    replica.holds(0..60).await;
    assert_eq!(replica.stats().await.partial_syncs, 1);
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn after_a_cut_of_the_line_only_what_was_missed_is_sent() {
    let at_home = Machine::master();
    let relay = Relay::to(at_home.replication()).await;
    let elsewhere = Machine::following(&relay.address);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let mut written = 0;
    for (round, missed) in (1..).zip([0, 1, 100, 20_000]) {
        relay.set(Line::Cut);
        is_connected(&replica, false).await;
        let (sent, logged) = (relay.to_client(), log_bytes(&at_home));
        let mut last = master.end().await;
        let end = written + missed;
        while written < end {
            let next = end.min(written + 2_000);
            last = master.put(written..next).await;
            written = next;
        }
        let logged = log_bytes(&at_home) - logged;
        relay.set(Line::Open);
        is_connected(&replica, true).await;
        replica.reaches(last).await;
        let sent = relay.to_client() - sent;
        // A greeting and some heartbeats besides.
        let limit = logged + logged / 10 + 4_096;
        assert!(
            sent < limit,
            "{sent} bytes for {missed} operations, {logged} bytes of log"
        );
        let own = replica.stats().await;
        assert_eq!((own.full_syncs, own.partial_syncs), (0, 1 + round));
    }
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_line_that_falls_silent_is_given_up_by_both_and_taken_up_again_where_it_was() {
    let at_home = Machine::master().impatient();
    let relay = Relay::to(at_home.replication()).await;
    let elsewhere = Machine::following(&relay.address).impatient();
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let seen = master.put(0..20).await;
    replica.reaches(seen).await;
    relay.set(Line::Silent);
    let last = master.put(20..40).await;
    is_connected(&replica, false).await;
    until("the master to give up as well", async || {
        match master.status().await.connected_replicas {
            0 => Ok(()),
            more => Err(more),
        }
    })
    .await;
    assert_eq!(replica.end().await, seen);
    relay.set(Line::Cut);
    relay.set(Line::Open);
    replica.reaches(last).await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

/// A line that is cut for so long while writes go on: what was missed is sent again, and nothing else.
async fn a_cut_under_writes(seconds: u64) {
    let at_home = Machine::master();
    let relay = Relay::to(at_home.replication()).await;
    let elsewhere = Machine::following(&relay.address);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    relay.set(Line::Cut);
    is_connected(&replica, false).await;
    let (sent, logged) = (relay.to_client(), log_bytes(&at_home));
    let begun = std::time::Instant::now();
    let (mut written, mut last) = (0, master.end().await);
    while begun.elapsed() < Duration::from_secs(seconds) {
        last = master.put(written..written + 10).await;
        written += 10;
        // Other tests want the machine as well.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Silent since before the cut.
    let seen = master.only_replica().await;
    let silent = seconds >= 60;
    assert_eq!(
        seen.status == ReplicaStatus::Disconnected,
        silent,
        "{seen:?}"
    );
    assert!(
        !seen.connected && seen.lag_ms > 1_000 * seconds / 2,
        "{seen:?}"
    );
    let logged = log_bytes(&at_home) - logged;
    relay.set(Line::Open);
    replica.reaches(last).await;
    let sent = relay.to_client() - sent;
    assert!(
        sent < logged + logged / 10 + 4_096,
        "{sent} bytes for {written} operations, {logged} bytes of log"
    );
    replica.holds(0..written).await;
    let own = replica.stats().await;
    assert_eq!((own.full_syncs, own.partial_syncs), (0, 2));
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_cut_of_a_second_under_writes_is_closed_by_a_partial_sync() {
    a_cut_under_writes(1).await;
}

#[tokio::test]
async fn a_cut_of_ten_seconds_under_writes_is_closed_by_a_partial_sync() {
    a_cut_under_writes(10).await;
}

/// Longer than `replica_timeout_secs`.
#[tokio::test]
async fn a_cut_of_a_minute_under_writes_is_closed_by_a_partial_sync() {
    a_cut_under_writes(60).await;
}
