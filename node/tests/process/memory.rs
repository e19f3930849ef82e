//! Memory that really runs short: a node in a cgroup with a small limit. Needs the right to make one, and fails without it,
//! unless the variable `WITHOUT_CGROUPS` says that this is not wanted.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use vectorizer_api::client::ClientError;
use vectorizer_api::error::ErrorCode;

use super::harness::*;

const MIB: u64 = 1 << 20;

/// A cgroup of its own, of either version. Removed when dropped: after the nodes in it.
struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    fn of(mib: u64) -> Option<Cgroup> {
        let made = below_own("memory").and_then(|path| {
            fs::create_dir(&path).ok()?;
            let limit = (mib * MIB).to_string();
            let version_one = fs::write(path.join("memory.limit_in_bytes"), &limit);
            let set = version_one.or_else(|_| fs::write(path.join("memory.max"), &limit));
            let cgroup = Cgroup { path };
            set.ok().map(|()| cgroup)
        });
        let unwanted = std::env::var_os("WITHOUT_CGROUPS").is_some();
        assert!(
            made.is_some() || unwanted,
            "no right to make a cgroup here; with WITHOUT_CGROUPS=1 this test is left out"
        );
        made
    }
}

/// Where a cgroup for tests may be made, inside the one of this process.
fn below_own(controller: &str) -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let of = |line: &str, controllers: &str| -> Option<String> {
        let mut fields = line.splitn(3, ':').skip(1);
        let found = fields.next()?.split(',').any(|name| name == controllers);
        found.then(|| fields.next().map(ToOwned::to_owned))?
    };
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("vectorizer-test-{}-{number}", std::process::id());
    let one = own.lines().find_map(|line| of(line, controller));
    let mount = Path::new("/sys/fs/cgroup");
    let dir = match one {
        Some(path) => {
            let mount = mount.join(controller);
            let inside = mount.join(path.trim_start_matches('/'));
            if inside.is_dir() { inside } else { mount }
        }
        // A group of version 2 with processes in it has no groups with limits below it.
        None => mount.to_owned(),
    };
    Some(dir.join(name))
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

fn is_full(error: &ClientError) -> bool {
    let api = error.api();
    api.is_some_and(|e| e.error_type == ErrorCode::MemoryFull) && error.has_no_side_effects()
}

/// Writes what cannot be refused for any other reason than memory.
async fn try_put(node: &Node, from: u32, count: u32) -> Result<(), ClientError> {
    node.try_put_large(from..from + count, 4_000)
        .await
        .map(drop)
}

#[tokio::test]
async fn a_node_refuses_what_grows_before_its_memory_runs_out_and_goes_on_once_something_is_deleted()
 {
    let Some(cgroup) = Cgroup::of(96) else { return };
    let at_home = Machine::master().in_cgroup(&cgroup.path);
    let master = at_home.start().await;
    master.create().await;
    let mut written = 0;
    let refused = loop {
        // More than the limit would have to be an error of this test.
        assert!(written < 50_000, "it never refused");
        match try_put(&master, written, 50).await {
            Ok(()) => written += 50,
            Err(error) => break error,
        }
    };
    assert!(is_full(&refused), "{refused}");
    assert!(refused.to_string().contains("limits.memory"), "{refused}");
    assert!(written > 1_000, "{written}");
    // What was refused would have crossed the mark; what still fits below it is written first.
    let mut more = written;
    until("the metric to say so", async || {
        if try_put(&master, more, 1).await.is_ok() {
            more += 1;
        }
        match master.metric("vectorizer_memory_full").await {
            1 => Ok(()),
            full => Err(full),
        }
    })
    .await;
    assert_eq!(
        master.metric("vectorizer_memory_limit_bytes").await,
        96 * MIB
    );
    // However often it is tried: it lives.
    for _ in 0..200 {
        let refused = try_put(&master, written, 50).await.unwrap_err();
        assert!(is_full(&refused), "{refused}");
    }
    let warnings = master.status().await.warnings.join("\n");
    assert!(warnings.contains("of memory are in use"), "{warnings}");

    // Half of it goes, and as much may come again.
    let half = written / 2;
    for number in 0..half {
        master.client.delete_vector("c", &id(number)).await.unwrap();
    }
    for again in (0..half / 2).step_by(50) {
        until("what was deleted to fit again", async || {
            try_put(&master, again, 50).await
        })
        .await;
    }
    assert_eq!(master.stop().await, Some(0), "it was never killed");
    drop(cgroup);
}

#[tokio::test]
async fn a_copy_that_does_not_fit_into_memory_is_given_up_and_what_was_there_is_served() {
    let Some(cgroup) = Cgroup::of(64) else { return };
    let at_home = Machine::master()
        .set("replication.log_size=64")
        .set("storage.segment_bytes=4096");
    let elsewhere = Machine::replica_of(&at_home).in_cgroup(&cgroup.path);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let end = master.put(0..10).await;
    replica.reaches(end).await;
    assert_eq!(replica.stop().await, Some(0));
    let mut written = 10;
    while written < 20_010 {
        master.put_large(written..written + 100, 5_000).await;
        written += 100;
    }
    let replica = elsewhere.start().await;
    until("the copy to have been given up", async || {
        let refused = replica.said().contains("of memory are in use");
        match replica.stats().await.full_syncs {
            2.. if refused => Ok(()),
            few => Err(few),
        }
    })
    .await;
    replica.holds(0..10).await;
    assert_eq!(replica.stop().await, Some(0), "it was never killed");
    drop(cgroup);
}
