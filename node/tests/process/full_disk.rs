//! Disks that are really full: a small tmpfs under the data directory. Needs the right to mount, and fails without it,
//! unless the variable `WITHOUT_MOUNTS` says that these tests are not wanted.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use vectorizer_api::error::ErrorCode;
use vectorizer_api::replication::Role;
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
        let unwanted = std::env::var_os("WITHOUT_MOUNTS").is_some();
        assert!(
            unwanted,
            "no right to mount a tmpfs here; with WITHOUT_MOUNTS=1 these tests are left out"
        );
        None
    }

    fn grow_to(&self, kib: u64) {
        assert!(mount(&self.path, &format!("remount,size={kib}k")));
    }

    /// Fills it until so much is free, which is less than before at any moment.
    fn leave(&self, kib: u64) {
        let free = free_space(&self.path).unwrap().bytes;
        let more = free.checked_sub(kib * KIB).unwrap();
        let mut file = fs::OpenOptions::new();
        let mut file = file.append(true).create(true).open(self.ballast()).unwrap();
        // What the node has taken meanwhile is missing at the end.
        let filled = file.write_all(&vec![0; more as usize]);
        assert!(filled.map_or_else(|error| error.kind() == ErrorKind::StorageFull, |()| true));
    }

    fn clear(&self) {
        fs::remove_file(self.ballast()).unwrap();
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

/// Waits until the node has seen that its disk is full, or is not any more.
async fn is_seen(node: &Node, full: u64) {
    until("the node to look at its disk", async || {
        match node.metric("vectorizer_disk_full").await {
            seen if seen == full => Ok(()),
            other => Err(other),
        }
    })
    .await;
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
    is_seen(&master, 1).await;
    let end = master.end().await;
    let refused = master.try_put(100..101).await.unwrap_err();
    assert!(is_full(&refused), "{refused}");
    assert!(refused.to_string().contains("only deletes"), "{refused}");
    assert_eq!(master.end().await, end, "it is not in the log");
    let deleted = master.client.delete_vector("c", &id(99)).await.unwrap();
    replica.reaches(deleted.position.unwrap()).await;

    // Less than deletes may leave, but for what was set aside for them.
    disk.leave(32);
    let refused = master.try_put(100..101).await.unwrap_err();
    assert!(is_full(&refused), "{refused}");
    master.client.delete_vector("c", &id(98)).await.unwrap();
    master.holds(0..98).await;
    // So little is no reason not to come up, to be the master, and to make room.
    master.kill();
    let master = at_home.start().await;
    master.holds(0..98).await;
    assert_eq!(master.status().await.role, Role::Master);
    let deleted = master.client.delete_vector("c", &id(97)).await.unwrap();
    replica.reaches(deleted.position.unwrap()).await;
    let warnings = master.status().await.warnings.join("\n");
    assert!(warnings.contains("spec.storage.size"), "{warnings}");
    assert!(master.metric("vectorizer_disk_free_bytes").await < 800 * KIB);
    assert!(master.said().contains("the disk is full"));

    disk.clear();
    is_seen(&master, 0).await;
    let last = master.put(97..200).await;
    replica.reaches(last).await;
    replica.holds(0..200).await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_node_whose_disk_has_nothing_left_serves_reads_and_is_master_once_there_is_room() {
    let at_home = Machine::master();
    let Some(disk) = SmallDisk::of(&at_home, 24 * KIB) else {
        return;
    };
    let master = at_home.start().await;
    master.create().await;
    master.put(0..100).await;
    master.stop().await;
    // What was set aside is taken as well.
    fs::remove_file(at_home.data_dir().join("reserve")).unwrap();
    disk.leave(0);
    let node = at_home.start().await;
    node.holds(0..100).await;
    let status = node.status().await;
    assert_eq!(status.role, Role::Unassigned);
    let warnings = status.warnings.join("\n");
    assert!(warnings.contains("the disk is full"), "{warnings}");
    assert!(node.said().contains("cannot be taken yet"));
    let refused = node.client.delete_vector("c", &id(1)).await.unwrap_err();
    assert!(refused.has_no_side_effects(), "{refused}");
    node.kill();
    let node = at_home.start().await;
    node.holds(0..100).await;
    disk.clear();
    until("it to be the master", async || {
        match node.status().await.role {
            Role::Master => Ok(()),
            role @ (Role::Replica | Role::Unassigned) => Err(role),
        }
    })
    .await;
    node.put(100..101).await;
    node.holds(0..101).await;
}

#[tokio::test]
async fn the_same_vectors_are_written_again_and_again_on_a_small_disk_for_ever() {
    let at_home = Machine::master();
    let Some(disk) = SmallDisk::of(&at_home, 24 * KIB) else {
        return;
    };
    let elsewhere = Machine::replica_of(&at_home);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let mut last = master.end().await;
    // 2 MB of data, and in the end five times as much log as the disk holds. Where the machine fills a disk as small as
    // this before the first checkpoint has begun, a write is refused for a moment.
    for _ in 0..60 {
        for ten in 0..10 {
            last = until("a write to be taken", async || {
                master
                    .try_put_large(ten * 100..(ten + 1) * 100, 2_000)
                    .await
            })
            .await;
        }
    }
    assert!(last.offset > 60_000);
    let status = master.status().await;
    let most = status.log_max_bytes.unwrap();
    assert_eq!(most, free_space(&disk.path).unwrap().of / 3);
    assert!(status.log_bytes <= most, "{status:?}");
    assert!(status.log_first_offset > 40_000, "{status:?}");
    replica.reaches(last).await;
    master.holds(0..1_000).await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_short_disk_takes_the_log_down_to_the_newest_checkpoint_before_a_write_is_refused() {
    let at_home = Machine::master();
    let Some(disk) = SmallDisk::of(&at_home, 24 * KIB) else {
        return;
    };
    let master = at_home.start().await;
    master.create().await;
    for _ in 0..20 {
        master.put_large(0..200, 2_000).await;
    }
    let before = master.status().await;
    assert!(before.log_bytes > 3 << 20, "{before:?}");
    // Less than a tenth is left, by somebody else's doing, and room for the next checkpoint beside that.
    disk.leave(2 * KIB);
    until("the log to be given up", async || {
        let status = master.status().await;
        let gone = status.log_first_offset > before.log_first_offset;
        let free = free_space(&disk.path).unwrap();
        if gone && free.fraction_after(0) > 0.1 {
            Ok(())
        } else {
            Err((status, free))
        }
    })
    .await;
    // 40 MB more. Where the machine is too slow for a checkpoint in time, a write is refused for a moment.
    for _ in 0..100 {
        until("a write to be taken", async || {
            master.try_put_large(0..200, 2_000).await
        })
        .await;
    }
    // What stands in the way of everything else is dropped, and all of its room comes back.
    disk.leave(300);
    master.client.delete_collection("c").await.unwrap();
    until("its room to come back", async || master.try_create().await).await;
    master.put(0..100).await;
    master.kill();
    let master = at_home.start().await;
    master.holds(0..100).await;
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
    is_seen(&replica, 1).await;
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
