//! Disks that are really full: a small tmpfs under the data directory. Needs the right to mount; says so and passes where
//! there is none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vectorizer_api::error::ErrorCode;
use vectorizer_node::data_dir::free_space;

use super::agree::{agree, agree_after};
use super::harness::*;

const KIB: u64 = 1 << 10;

/// A disk of its own for a machine's data. Unmounted when dropped: after the nodes, before the machine.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn of(machine: &Machine, kib: u64) -> Option<SmallDisk> {
        let path = machine.data_dir();
        fs::create_dir_all(&path).unwrap();
        if mount(&path, &format!("size={kib}k,mode=700")) {
            return Some(SmallDisk { path });
        }
        println!("skipped: no right to mount a tmpfs here");
        None
    }

    fn grow_to(&self, kib: u64) {
        assert!(mount(&self.path, &format!("remount,size={kib}k")));
    }

    /// Fills it until so much is free.
    fn leave(&self, kib: u64) {
        self.clear();
        let free = free_space(&self.path).unwrap().bytes;
        let ballast = free.checked_sub(kib * KIB).unwrap();
        fs::write(self.ballast(), vec![0; ballast as usize]).unwrap();
    }

    fn clear(&self) {
        // The first time there is none.
        let _ = fs::remove_file(self.ballast());
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn mount(at: &Path, options: &str) -> bool {
    let mut command = Command::new("mount");
    command
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(at);
    command.output().is_ok_and(|output| output.status.success())
}

fn is_full(error: &vectorizer_api::client::ClientError) -> bool {
    error
        .api()
        .is_some_and(|e| e.error_type == ErrorCode::DiskFull)
        && error.has_no_side_effects()
}

#[tokio::test]
async fn a_master_whose_disk_fills_refuses_before_its_log_and_goes_on_when_there_is_room() {
    let at_home = Machine::master();
    let Some(disk) = SmallDisk::of(&at_home, 24 * KIB) else {
        return;
    };
    let elsewhere = Machine::replica_of(&at_home);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    master.put(0..100).await;

    // Less than 5 %, more than 1 %.
    disk.leave(800);
    let end = master.end().await;
    let refused = master.try_put(100..101).await.unwrap_err();
    assert!(is_full(&refused), "{refused}");
    assert!(refused.to_string().contains("only deletes"), "{refused}");
    assert_eq!(master.end().await, end, "it is not in the log");
    let deleted = master.client.delete_vector("c", &id(99)).await.unwrap();
    replica.reaches(deleted.position.unwrap()).await;

    disk.leave(64);
    let end = master.end().await;
    let refused = master.client.delete_vector("c", &id(98)).await.unwrap_err();
    assert!(is_full(&refused), "{refused}");
    assert_eq!(master.end().await, end);
    master.holds(0..99).await;
    // It cannot open an epoch now, and says why.
    master.kill();
    let (code, said) = at_home.run();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("of the disk would be free"), "{said}");

    disk.clear();
    let master = at_home.start().await;
    master.holds(0..99).await;
    let last = master.put(99..200).await;
    replica.reaches(last).await;
    replica.holds(0..200).await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_replica_whose_disk_fills_serves_what_it_has_and_catches_up_when_there_is_room() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let Some(disk) = SmallDisk::of(&elsewhere, 24 * KIB) else {
        return;
    };
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let seen = master.put(0..100).await;
    replica.reaches(seen).await;
    disk.leave(64);
    let mut last = seen;
    for n in 100..120 {
        last = master.put(n..n + 1).await;
    }
    let tried = replica.metric("vectorizer_link_connects_total").await;
    until("the replica to have tried again", async || {
        match replica.metric("vectorizer_link_connects_total").await {
            more if more >= tried + 2 => Ok(()),
            few => Err(few),
        }
    })
    .await;
    replica.holds(0..100).await;
    assert_eq!(replica.end().await, seen);
    disk.clear();
    replica.reaches(last).await;
    replica.holds(0..120).await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_copy_that_does_not_fit_on_the_disk_is_given_up_and_taken_when_there_is_room() {
    let at_home = Machine::master()
        .set("replication.log_size=64")
        .set("storage.segment_bytes=4096");
    let elsewhere = Machine::replica_of(&at_home);
    let Some(disk) = SmallDisk::of(&elsewhere, 256) else {
        return;
    };
    let master = at_home.start().await;
    master.create().await;
    let mut written = 0;
    until("only a copy to help", async || {
        master.put_large(written..written + 20, 1_000).await;
        written += 20;
        match master.metric("vectorizer_log_first_offset").await {
            1 => Err(written),
            _ if written < 1_000 => Err(written),
            _ => Ok(()),
        }
    })
    .await;
    let replica = elsewhere.start().await;
    until(
        "the copy to have been tried twice",
        async || match replica.stats().await.full_syncs {
            2.. => Ok(()),
            few => Err(few),
        },
    )
    .await;
    assert_eq!(replica.end().await.offset, 0);
    disk.grow_to(64 * KIB);
    let last = master.put(written..written + 1).await;
    replica.reaches(last).await;
    replica.holds(0..written + 1).await;
    agree_after(2..=u64::MAX, [(&at_home, master), (&elsewhere, replica)]).await;
}
