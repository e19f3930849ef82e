//! How much memory this process may use, and does: by its cgroup, version 1 or 2, and by `storage.memory_max_bytes`.
//!
//! A cgroup's limit binds with those of all that it is in; the one that is closest to its limit counts. Pages of files
//! are not counted as used, as the system takes them back before it kills; those of a tmpfs are. Without any limit there
//! is none, and no guess. When writes are refused for want of memory, and when they are taken again, is in
//! `memory/watermark.rs`.

mod watermark;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use watermark::{FULL, REFUSE, Watermark};

/// Version 1 has no word for it: larger ones are none.
const UNLIMITED: u64 = 1 << 60;

/// Memory in use and the limit that is closest to it, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// In use, pages of files aside.
    pub used: u64,
    /// The most that may be.
    pub limit: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    One,
    Two,
}

/// Where limits and use are read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Source {
    /// The cgroup's version and directories, its own first.
    cgroup: Option<(Version, Vec<PathBuf>)>,
    /// What is configured, and where the process's own use stands.
    configured: Option<(u64, PathBuf)>,
}

impl Source {
    /// That of this process; `max_bytes` is what its configuration sets, if it does.
    pub fn of_process(max_bytes: Option<u64>) -> Self {
        Source::found_below(Path::new("/"), max_bytes)
    }

    /// The same in a file system that begins at `root`.
    fn found_below(root: &Path, max_bytes: Option<u64>) -> Self {
        let process = root.join("proc/self");
        let groups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
        let cgroup = [Version::One, Version::Two]
            .into_iter()
            .find_map(|version| Some((version, directories(root, version, &groups, &mounts)?)));
        Source {
            cgroup,
            configured: max_bytes.map(|max| (max, process.join("status"))),
        }
    }

    /// What is in use now, by the limit that is closest; `None` without a limit.
    pub fn read(&self) -> Option<Usage> {
        let of_cgroup = self.cgroup.iter().flat_map(|(version, directories)| {
            let usages = directories.iter().map(|dir| usage(*version, dir));
            usages.flatten()
        });
        let of_process = self.configured.iter().filter_map(|(limit, status)| {
            let used = own_bytes(&fs::read_to_string(status).ok()?)?;
            let limit = *limit;
            Some(Usage { used, limit })
        });
        of_cgroup
            .chain(of_process)
            .max_by(|a, b| a.part().total_cmp(&b.part()))
    }
}

impl Usage {
    /// The part of the limit that is in use.
    fn part(&self) -> f64 {
        self.used as f64 / self.limit.max(1) as f64
    }
}

/// The directories of the process's cgroup and of all that it is in, as far as they can be seen.
fn directories(root: &Path, version: Version, groups: &str, mounts: &str) -> Option<Vec<PathBuf>> {
    let group = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = match version {
            Version::One => controllers.split(',').any(|name| name == "memory"),
            Version::Two => number == "0" && controllers.is_empty(),
        };
        is_it.then_some(path)
    })?;
    let (shown, mount) = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (shown, mount) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let is_it = match version {
            Version::One => kind == "cgroup" && options.split(',').any(|name| name == "memory"),
            Version::Two => kind == "cgroup2",
        };
        is_it.then_some((shown, mount))
    })?;
    let mount = root.join(mount.trim_start_matches('/'));
    // A container may see its own cgroup as the top, whatever the process is told that it is called.
    let inner = Path::new(group).strip_prefix(shown).ok();
    let own = inner.map(|inner| mount.join(inner));
    let own = own.filter(|dir| dir.is_dir()).unwrap_or(mount.clone());
    let up = own.ancestors().take_while(|dir| dir.starts_with(&mount));
    Some(up.map(Path::to_path_buf).collect())
}

/// What one cgroup uses; `None` when it has no limit.
fn usage(version: Version, dir: &Path) -> Option<Usage> {
    let (limit, used) = match version {
        Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        Version::Two => ("memory.max", "memory.current"),
    };
    let number = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(dir.join(name)).ok()?;
        text.trim().parse().ok()
    };
    let limit = number(limit).filter(|limit| *limit < UNLIMITED)?;
    let used = number(used)?;
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let of_files: u64 = ["active_file", "inactive_file"]
        .iter()
        .filter_map(|name| {
            let name = match version {
                Version::One => format!("total_{name}"),
                Version::Two => (*name).to_owned(),
            };
            stat.lines().find_map(|line| {
                let (found, bytes) = line.split_once(' ')?;
                (found == name).then(|| bytes.parse::<u64>().ok())?
            })
        })
        .sum();
    let used = used.saturating_sub(of_files);
    Some(Usage { used, limit })
}

/// A process's own memory, pages of files aside, by its `status` in `/proc`.
fn own_bytes(status: &str) -> Option<u64> {
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some((kib("RssAnon:")? + kib("RssShmem:")?) * 1024)
}

/// What was read last. Whoever looks often looks here.
#[derive(Debug, Default)]
pub struct Gauge {
    used: AtomicU64,
    limit: AtomicU64,
    samples: AtomicU64,
}

impl Gauge {
    /// Reads from `source` once more.
    pub fn sample(&self, source: &Source) {
        if let Some(Usage { used, limit }) = source.read() {
            self.used.store(used, Ordering::Relaxed);
            self.limit.store(limit, Ordering::Relaxed);
        } else {
            self.limit.store(0, Ordering::Relaxed);
        }
        self.samples.fetch_add(1, Ordering::Release);
    }

    /// What was read last, `None` without a limit, and how many times there was something to read.
    pub fn last(&self) -> (Option<Usage>, u64) {
        let samples = self.samples.load(Ordering::Acquire);
        let limit = self.limit.load(Ordering::Relaxed);
        let used = self.used.load(Ordering::Relaxed);
        ((limit > 0).then_some(Usage { used, limit }), samples)
    }
}

#[cfg(test)]
mod tests;
