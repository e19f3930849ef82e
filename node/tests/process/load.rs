//! kill -9 under load, again and again: every acknowledged write is read back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::agree::agree;
use super::harness::*;

const WRITERS: usize = 4;
const ROUNDS: usize = 4;
/// Writes acknowledged between two kills.
const BETWEEN: usize = 60;

/// Writers that go on whatever happens to the node, each with a vector of its own at a time. Dropping it ends them.
struct Load {
    acknowledged: Arc<Mutex<BTreeSet<u32>>>,
    enough: Arc<AtomicBool>,
    writers: JoinSet<()>,
}

impl Load {
    fn on(node: &Node) -> Load {
        let acknowledged: Arc<Mutex<BTreeSet<u32>>> = Arc::default();
        let next = Arc::new(AtomicU32::new(0));
        let enough = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let (client, next) = (node.client.clone(), next.clone());
            let (acknowledged, enough) = (acknowledged.clone(), enough.clone());
            writers.spawn(async move {
                while !enough.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    match put_with(&client, number..number + 1).await {
                        Ok(_) => drop(acknowledged.lock().insert(number)),
                        Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
            });
        }
        Load {
            acknowledged,
            enough,
            writers,
        }
    }

    async fn goes_on(&self) {
        let goal = self.acknowledged.lock().len() + BETWEEN;
        until("more acknowledged writes", async || {
            match self.acknowledged.lock().len() {
                enough if enough >= goal => Ok(()),
                few => Err(few),
            }
        })
        .await;
    }

    /// Checks that a node holds everything that was acknowledged when this was called, as it was written.
    async fn is_in(&self, node: &Node) {
        let acknowledged = self.acknowledged.lock().clone();
        let there: BTreeMap<_, _> = node.everything().await.into_iter().collect();
        for number in acknowledged {
            let found = there.get(&id(number));
            assert_eq!(found, Some(&vec![number as f32, 1.0]), "{number}");
        }
    }

    /// Returns when the last write is answered: one that was cut off might still be carried out.
    async fn ends(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        while let Some(writer) = self.writers.join_next().await {
            writer.unwrap();
        }
    }
}

#[tokio::test]
async fn a_master_killed_under_load_again_and_again_has_every_acknowledged_write() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (mut master, replica) = pair(&at_home, &elsewhere).await;
    let mut load = Load::on(&master);
    for _ in 0..ROUNDS {
        load.goes_on().await;
        master.kill();
        master = at_home.start().await;
        load.is_in(&master).await;
    }
    load.goes_on().await;
    load.ends().await;
    replica.reaches(master.end().await).await;
    load.is_in(&replica).await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_master_whose_log_is_written_over_has_every_acknowledged_write_after_each_kill() {
    let machine = Machine::master()
        .set("replication.log_size=64")
        .set("storage.segment_bytes=4096");
    let mut master = machine.start().await;
    master.create().await;
    let mut load = Load::on(&master);
    for _ in 0..ROUNDS {
        load.goes_on().await;
        until(
            "a file of the log to be used again",
            async || match is_written_over(&machine) {
                true => Ok(()),
                false => Err(master.end().await),
            },
        )
        .await;
        master.kill();
        master = machine.start().await;
        load.is_in(&master).await;
    }
    load.ends().await;
    agree([(&machine, master)]).await;
}

/// Whether a file of the log says that it was used before; see `src/journal/segment.rs`.
fn is_written_over(machine: &Machine) -> bool {
    let log = machine.data_dir().join("gen-1/journal");
    let files = std::fs::read_dir(log)
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut segments = files.filter(|path| path.extension().is_some_and(|e| e == "wal"));
    // It may be gone by now.
    segments.any(|path| std::fs::read(path).is_ok_and(|bytes| bytes.get(12) == Some(&1)))
}

#[tokio::test]
async fn a_replica_killed_under_load_again_and_again_comes_back_to_every_acknowledged_write() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (master, mut replica) = pair(&at_home, &elsewhere).await;
    let mut load = Load::on(&master);
    for _ in 0..ROUNDS {
        load.goes_on().await;
        replica.reaches(master.end().await).await;
        let seen = replica.end().await;
        replica.kill();
        load.goes_on().await;
        replica = elsewhere.start().await;
        // What it had acknowledged to its master is on its disk.
        assert!(replica.end().await >= seen);
    }
    load.ends().await;
    replica.reaches(master.end().await).await;
    load.is_in(&replica).await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}
