//! Room on the disk and in memory, asked for before anything is written: a write that fails ends the process, and so
//! does the system when memory runs out.
//!
//! | free, as a fraction of the disk | what happens |
//! |---|---|
//! | below twice `min_free_fraction` and the next checkpoint | the log is given up, down to the newest checkpoint |
//! | below twice `min_free_fraction`, or 1 GiB beyond it | full syncs hold the log no longer |
//! | below `min_free_fraction` (5 %) and the next checkpoint | writes that grow are refused, deletes go on |
//! | below two fifths of it (2 %) | checkpoints and incoming full syncs are given up: `data_dir/space.rs` |
//! | below a fifth of it (1 %) | a replica takes nothing more |
//! | next to nothing | the reserve is given up: deletes have one half of it, epochs and role files the rest |
//!
//! What somebody else takes between the question and the write still ends the process, and a restart finds all that was
//! acknowledged. The system is asked anew when so much was written since that the answer may be another, and ten times a
//! second; memory is looked at as often, by `memory::Gauge`, and what was written since counts twice: in the store, and
//! on its way there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use vectorizer_api::error::{ApiError, ErrorCode};

use super::thread::Writer;
use crate::data_dir::{DataDir, FreeSpace, Reserve};
use crate::memory::{FULL, Gauge, Usage, Watermark};

/// The system is asked again what is free after this long.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Or after this part of what is free above the next limit was written.
const ASK_PART: u64 = 16;
/// What is left for the log and the role file may be this small, in bytes.
const LEAST: u64 = 64 << 10;
/// A trouble that lasts is told again after this long.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// A checkpoint is on its way where log has to go; a disk without room for one is too full when it is so for longer.
const CRAMPED_FOR: Duration = Duration::from_secs(10);
/// A disk that was too full counts as such until so much more is free, as a fraction of it.
const RECOVERED: f64 = 0.01;

/// What room is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// A write after which there is more.
    Growth,
    /// What a master sends.
    Following,
    /// What makes room.
    Deletes,
    /// An epoch's first record, or another role.
    Role,
}

/// That there is no room, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Full {
    /// On the disk.
    #[error("{0}")]
    Disk(String),
    /// In memory.
    #[error("{0}")]
    Memory(String),
}

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        let code = match full {
            Full::Disk(_) => ErrorCode::DiskFull,
            Full::Memory(_) => ErrorCode::MemoryFull,
        };
        ApiError::new(code, full.to_string())
    }
}

/// How much room there is, as it was seen last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Room {
    /// Free bytes of the data directory's file system; `None` where it does not say.
    pub free: Option<FreeSpace>,
    /// Bytes that the log may take; `None` for as many as there are.
    pub log_max_bytes: Option<u64>,
    /// Bytes of the checkpoints, which are the data on disk.
    pub checkpoint_bytes: u64,
    /// Memory in use, where it has a limit.
    pub memory: Option<Usage>,
    /// That the disk is too full for writes that grow, and what to do.
    pub disk_full: Option<String>,
    /// That memory is, and what to do.
    pub memory_full: Option<String>,
}

/// What the writer remembers of it.
pub(super) struct Rooms {
    /// What was free when the system was asked, and when that was.
    space: Option<(FreeSpace, Instant)>,
    /// Bytes written to the log since.
    written: u64,
    reserve: Reserve,
    gauge: Arc<Gauge>,
    watermark: Watermark,
    /// The reading of memory that was looked at last, and bytes that were written since.
    sample: u64,
    grown: u64,
    /// Bytes of the store, of late.
    stored: u64,
    told: Told,
    /// Since when there is no room for the next checkpoint.
    cramped: Option<Instant>,
    pub(super) report: watch::Sender<Room>,
}

/// When each trouble was last told.
#[derive(Default)]
struct Told {
    disk: Option<Instant>,
    memory: Option<Instant>,
}

impl Rooms {
    pub(super) fn new(data: &DataDir, gauge: Arc<Gauge>) -> Self {
        Rooms {
            space: None,
            written: 0,
            reserve: data.reserve(),
            gauge,
            watermark: Watermark::default(),
            sample: 0,
            grown: 0,
            stored: 0,
            told: Told::default(),
            cramped: None,
            report: watch::Sender::default(),
        }
    }

    /// What is free now, as far as that matters for a write of so many bytes above `limit`, a fraction of the disk.
    fn space(&mut self, data: &DataDir, bytes: u64, limit: f64) -> Option<FreeSpace> {
        if let Some((space, asked)) = self.space {
            let above = space.bytes.saturating_sub((space.of as f64 * limit) as u64);
            let since = self.written + bytes;
            if asked.elapsed() < ASK_EVERY && since < above / ASK_PART {
                return Some(FreeSpace {
                    bytes: space.bytes.saturating_sub(self.written),
                    ..space
                });
            }
        }
        self.ask(data)
    }

    fn ask(&mut self, data: &DataDir) -> Option<FreeSpace> {
        // A file system that does not say is found out by writing.
        let space = data.free_space().ok();
        self.space = space.map(|space| (space, Instant::now()));
        self.written = 0;
        space
    }

    /// Memory in use with `bytes` more, what was written since it was read included.
    fn memory(&mut self, bytes: u64) -> Option<Usage> {
        let (usage, sample) = self.gauge.last();
        if sample != self.sample {
            self.sample = sample;
            self.grown = 0;
        }
        let Usage { used, limit } = usage?;
        let used = used.saturating_add(2 * (self.grown + bytes));
        Some(Usage { used, limit })
    }
}

impl Writer {
    /// Whether there is room for `bytes` more in the log; if not, why. What it says holds until something is written.
    pub(super) fn room_for(&mut self, bytes: usize, need: Need) -> Result<(), Full> {
        let bytes = bytes as u64;
        self.disk_for(bytes, need).map_err(Full::Disk)?;
        self.memory_for(bytes, need).map_err(Full::Memory)
    }

    /// So many bytes were written to the log.
    pub(super) fn note_written(&mut self, bytes: usize) {
        self.rooms.written += bytes as u64;
        self.rooms.grown += bytes as u64;
    }

    /// So many bytes were loaded that are not in the log.
    pub(super) fn note_grown(&mut self, bytes: usize) {
        self.rooms.grown += bytes as u64;
    }

    fn disk_for(&mut self, bytes: u64, need: Need) -> Result<(), String> {
        let limit = self.options.min_free_fraction;
        let limit = match need {
            Need::Growth => limit,
            Need::Following => limit / 5.0,
            Need::Deletes | Need::Role => 0.0,
        };
        let Some(space) = self.rooms.space(&self.data, bytes, limit) else {
            return Ok(());
        };
        let what_to_do = || self.disk_words(space);
        match need {
            Need::Growth if !self.leaves_room_for_a_checkpoint(space, bytes) => {
                // It frees the log that stands in the way.
                self.checkpoints.look();
                Err(format!(
                    "there would be no room for the next checkpoint of the data, without which the log cannot be given \
                     up: only deletes are accepted until there is more. {}",
                    what_to_do()
                ))
            }
            Need::Growth | Need::Following if space.fraction_after(bytes) >= limit => Ok(()),
            Need::Growth => Err(format!(
                "less than {:.0} % of the disk would be free: only deletes are accepted until there is more. {}",
                limit * 100.0,
                what_to_do()
            )),
            Need::Following => Err(format!(
                "less than {:.0} % of the disk would be free: there is no room left for the log. {}",
                limit * 100.0,
                what_to_do()
            )),
            Need::Deletes | Need::Role => {
                let kept = match need {
                    Need::Deletes => space.reserve_bytes() / 2,
                    Need::Role | Need::Growth | Need::Following => space.reserve_bytes() / 8,
                };
                let reserve = self.rooms.reserve.bytes();
                if space.bytes + reserve < bytes + kept {
                    return Err(format!(
                        "there is no room left for the log, not even for deletes. {}",
                        what_to_do()
                    ));
                }
                if space.bytes < bytes + LEAST && self.rooms.reserve.give_up() {
                    tracing::warn!(
                        free = space.bytes,
                        reserve,
                        "the disk is full: the reserve is given up"
                    );
                    self.rooms.ask(&self.data);
                }
                Ok(())
            }
        }
    }

    /// Whether the next checkpoint fits on the disk once `bytes` more are written. A log that has grown over its room could
    /// never be given up again.
    fn leaves_room_for_a_checkpoint(&self, space: FreeSpace, bytes: u64) -> bool {
        // What was written since is in the store as well, or was there before.
        let stored = self.rooms.stored + self.rooms.written + bytes;
        let to_come = self.checkpoints.to_come(stored);
        space.of == 0 || space.fraction_after(bytes + to_come) >= self.options.min_free_fraction
    }

    /// Whether there is memory for `bytes` more; if not, why.
    pub(super) fn memory_for(&mut self, bytes: u64, need: Need) -> Result<(), String> {
        if matches!(need, Need::Deletes | Need::Role) {
            return Ok(());
        }
        let Some(usage) = self.rooms.memory(bytes) else {
            return Ok(());
        };
        let Usage { used, limit } = usage;
        let stored = self.rooms.stored + self.rooms.grown;
        let refusing = match need {
            Need::Growth => self.rooms.watermark.look(used, limit, stored),
            Need::Following | Need::Deletes | Need::Role => used as f64 >= limit as f64 * FULL,
        };
        if !refusing {
            return Ok(());
        }
        let only = match need {
            Need::Growth => "only deletes are accepted",
            Need::Following | Need::Deletes | Need::Role => "nothing more is taken in",
        };
        Err(format!(
            "{}: {only} until there is more",
            memory_words(usage)
        ))
    }

    /// What takes room on the disk, and what to do.
    fn disk_words(&self, space: FreeSpace) -> String {
        format!(
            "{} of {} are free; the log takes {}, checkpoints of the data {}: make the volume larger (spec.storage.size), \
             or drop what is not needed",
            mib(space.bytes),
            mib(space.of),
            mib(self.journal.reader().disk_bytes()),
            mib(self.checkpoints.bytes()),
        )
    }

    /// Ten times a second: lets go of log, as much as its limits and the disk ask for, and looks at what there is.
    pub(super) fn look_at_room(&mut self) {
        let space = self.rooms.ask(&self.data);
        self.rooms.stored = self.store.bytes();
        let log_max_bytes = self.data.log_max_bytes(space);
        self.journal.set_max_bytes(log_max_bytes);
        let least = self.options.min_free_fraction;
        if space.is_some_and(|space| space.missing(least, 0) > 0) && self.journal.void_pins() {
            tracing::warn!("the disk gets short: the log is held for full syncs no longer");
        }
        let to_come = self.checkpoints.to_come(self.rooms.stored);
        let missing = space.map_or(0, |space| space.missing(least, to_come));
        if missing > 0 {
            self.checkpoints.look();
        }
        let kept = self.checkpoints.start_offset();
        if let Err(error) = self.journal.enforce_retention(kept, missing) {
            tracing::error!(%error, "old log segments were not removed");
        }
        if let Some(space) = space
            && let Err(error) = self.rooms.reserve.renew(space)
        {
            tracing::warn!(%error, "no room on the disk could be set aside");
        }
        self.report_room(space, log_max_bytes);
    }

    fn report_room(&mut self, space: Option<FreeSpace>, log_max_bytes: Option<u64>) {
        let was_full = self.rooms.report.borrow().disk_full.is_some();
        let least = self.options.min_free_fraction + if was_full { RECOVERED } else { 0.0 };
        let full = space.filter(|space| {
            let fits = self.leaves_room_for_a_checkpoint(*space, 0);
            let since = (!fits).then(|| self.rooms.cramped.unwrap_or_else(Instant::now));
            self.rooms.cramped = since;
            let lasts = since.is_some_and(|since| since.elapsed() > CRAMPED_FOR);
            space.fraction_after(0) < least || lasts
        });
        let disk_full = full.map(|space| format!("the disk is full: {}", self.disk_words(space)));
        let memory = self.rooms.memory(0);
        let stored = self.rooms.stored;
        let refusing = memory.filter(|m| self.rooms.watermark.look(m.used, m.limit, stored));
        let memory_full = refusing.map(memory_words);
        tell(&mut self.rooms.told.disk, disk_full.as_deref());
        tell(&mut self.rooms.told.memory, memory_full.as_deref());
        self.rooms.report.send_replace(Room {
            free: space,
            log_max_bytes,
            checkpoint_bytes: self.checkpoints.bytes(),
            memory,
            disk_full,
            memory_full,
        });
    }
}

/// Logs a trouble when it begins, from time to time while it lasts, and that it is over.
fn tell(told: &mut Option<Instant>, trouble: Option<&str>) {
    match (trouble, *told) {
        (Some(_), Some(at)) if at.elapsed() < TELL_EVERY => {}
        (Some(trouble), _) => {
            tracing::error!("{trouble}");
            *told = Some(Instant::now());
        }
        (None, Some(_)) => {
            tracing::info!("there is room again: writes are taken");
            *told = None;
        }
        (None, None) => {}
    }
}

fn memory_words(Usage { used, limit }: Usage) -> String {
    format!(
        "{} of {} of memory are in use: raise the limit (spec.resources.limits.memory), or delete what is not needed",
        mib(used),
        mib(limit)
    )
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
