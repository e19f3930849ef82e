//! Limits and use over trees of files as the system shows them, and this process's own.

use tempfile::TempDir;

use super::*;

const MIB: u64 = 1 << 20;

/// A file system with these files.
fn tree(files: &[(&str, String)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

fn read(root: &TempDir, max_bytes: Option<u64>) -> Option<Usage> {
    Source::found_below(root.path(), max_bytes).read()
}

fn text(number: u64) -> String {
    format!("{number}\n")
}

const TWO: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
const ONE: &str = "\
29 23 0:26 /kubepods/pod1/c /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu
30 23 0:27 /kubepods/pod1/c /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
31 23 0:28 / /sys/fs/cgroup/unified ro - cgroup2 cgroup2 rw
";

#[test]
fn version_two_counts_the_limit_that_is_closest_and_no_pages_of_files() {
    let stat = |active: u64, inactive: u64| {
        format!("anon 7\nfile 99\nactive_file {active}\ninactive_file {inactive}\nshmem 5\n")
    };
    let root = tree(&[
        ("proc/self/cgroup", "0::/pod/node\n".into()),
        ("proc/self/mountinfo", TWO.into()),
        ("sys/fs/cgroup/memory.stat", stat(0, 0)),
        ("sys/fs/cgroup/pod/memory.max", text(100 * MIB)),
        ("sys/fs/cgroup/pod/memory.current", text(90 * MIB)),
        ("sys/fs/cgroup/pod/memory.stat", stat(20 * MIB, 30 * MIB)),
        ("sys/fs/cgroup/pod/node/memory.max", text(50 * MIB)),
        ("sys/fs/cgroup/pod/node/memory.current", text(15 * MIB)),
        ("sys/fs/cgroup/pod/node/memory.stat", stat(2 * MIB, 3 * MIB)),
    ]);
    let of_pod = Usage {
        used: 40 * MIB,
        limit: 100 * MIB,
    };
    assert_eq!(read(&root, None), Some(of_pod));
    // It is read anew each time: a limit can be changed while the process runs.
    let max = root.path().join("sys/fs/cgroup/pod/node/memory.max");
    fs::write(max, text(20 * MIB)).unwrap();
    let own = Usage {
        used: 10 * MIB,
        limit: 20 * MIB,
    };
    assert_eq!(read(&root, None), Some(own));
}

#[test]
fn version_one_in_a_container_is_found_where_it_is_mounted() {
    let root = tree(&[
        (
            "proc/self/cgroup",
            "5:cpu:/kubepods/pod1/c\n4:memory:/kubepods/pod1/c\n0::/\n".into(),
        ),
        ("proc/self/mountinfo", ONE.into()),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", text(96 * MIB)),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", text(80 * MIB)),
        (
            "sys/fs/cgroup/memory/memory.stat",
            format!(
                "active_file 1\ninactive_file 1\ntotal_active_file {}\ntotal_inactive_file {}\n",
                MIB,
                9 * MIB
            ),
        ),
    ]);
    let expected = Usage {
        used: 70 * MIB,
        limit: 96 * MIB,
    };
    assert_eq!(read(&root, None), Some(expected));
}

#[test]
fn without_a_limit_there_is_none_and_a_setting_is_one() {
    let unlimited = tree(&[
        ("proc/self/cgroup", "0::/\n".into()),
        ("proc/self/mountinfo", TWO.into()),
        ("sys/fs/cgroup/memory.max", "max\n".into()),
        ("sys/fs/cgroup/memory.current", text(80 * MIB)),
        (
            "proc/self/status",
            "VmRSS:\t 9000 kB\nRssAnon:\t 2048 kB\nRssFile:\t 5000 kB\nRssShmem:\t 1024 kB\n"
                .into(),
        ),
    ]);
    assert_eq!(read(&unlimited, None), None);
    let configured = Usage {
        used: 3 * MIB,
        limit: 10 * MIB,
    };
    assert_eq!(read(&unlimited, Some(10 * MIB)), Some(configured));
    let huge = tree(&[
        ("proc/self/cgroup", "4:memory:/\n".into()),
        ("proc/self/mountinfo", ONE.into()),
        (
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            text(9_223_372_036_854_771_712),
        ),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", text(MIB)),
    ]);
    assert_eq!(read(&huge, None), None);
    assert_eq!(read(&tree(&[]), None), None);
}

#[test]
fn this_process_sees_what_it_uses_itself() {
    let before = Source::of_process(Some(1 << 40)).read().unwrap();
    let held = vec![7u8; 64 << 20];
    let after = Source::of_process(Some(1 << 40)).read().unwrap();
    assert!(held.iter().all(|byte| *byte == 7));
    // Nothing but the setting binds here, or a real limit is closer: then both count what was taken.
    assert_eq!(before.limit, after.limit);
    assert!(
        after.used >= before.used + (48 << 20),
        "{before:?} {after:?}"
    );
}

#[test]
fn a_gauge_says_what_was_read_last() {
    let gauge = Gauge::default();
    assert_eq!(gauge.last(), (None, 0));
    gauge.sample(&Source::of_process(Some(1 << 50)));
    let (usage, samples) = gauge.last();
    assert!(usage.is_some() && samples == 1);
    gauge.sample(&Source::default());
    assert_eq!(gauge.last(), (None, 2));
}
