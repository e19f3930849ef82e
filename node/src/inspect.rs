//! `vectorizer-node inspect`: a data directory as text or JSON. Nothing in it is changed; see `data_dir/examine.rs`.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};
use std::path::Path;

use crate::data_dir::{Checkpoint, Content, Examination, ExamineError, Log, examine};
use crate::journal::SegmentReport;
use crate::role::{RoleState, Standing};

/// The exit code where nothing is damaged.
pub const SOUND: u8 = 0;
/// The exit code where damage was found.
pub const DAMAGED: u8 = 1;
/// The exit code where nothing could be looked at: no data directory, or a node runs on it.
pub const NOT_INSPECTED: u8 = 2;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The directory cannot be looked at.
    #[error(transparent)]
    Examine(#[from] ExamineError),
    /// The output takes nothing.
    #[error("writing the report: {0}")]
    Output(#[from] io::Error),
}

/// Writes to `out` what the directory holds, and returns the exit code.
pub fn run(dir: &Path, json: bool, out: &mut impl Write) -> Result<u8, InspectError> {
    let found = examine(dir)?;
    if json {
        serde_json::to_writer_pretty(&mut *out, &found).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        out.write_all(text(&found).as_bytes())?;
    }
    Ok(if found.sound { SOUND } else { DAMAGED })
}

/// The same for people: one line each, what it is about in front.
fn text(found: &Examination) -> String {
    let mut lines = Lines(String::new());
    lines.put("directory", found.path.display());
    if let Some(role) = &found.role {
        of_role(&mut lines, role);
    }
    for generation in &found.generations {
        let what = match generation.current {
            true => "current",
            false => "not current: the next start removes it",
        };
        lines.put("generation", format_args!("{} ({what})", generation.number));
    }
    for checkpoint in &found.checkpoints {
        of_checkpoint(&mut lines, checkpoint);
    }
    if let Some(log) = &found.log {
        of_log(&mut lines, found, log);
    }
    if let Some(content) = &found.content {
        of_content(&mut lines, content);
    }
    for path in &found.rollbacks {
        lines.put("undone", format_args!("kept in {}", name(found, path)));
    }
    for path in &found.leftovers {
        let name = name(found, path);
        lines.put(
            "left over",
            format_args!("{name}: the next start removes it"),
        );
    }
    for damage in &found.damage {
        lines.put("DAMAGE", &damage.what);
    }
    let verdict = match found.damage.len() {
        0 => "sound".to_owned(),
        1 => "damaged in 1 place".to_owned(),
        more => format!("damaged in {more} places"),
    };
    lines.put("verdict", verdict);
    lines.0
}

fn of_role(lines: &mut Lines, role: &RoleState) {
    lines.put("node", role.node_id);
    match role.cluster {
        Some(cluster) => lines.put("cluster", cluster),
        None => lines.put("cluster", "none yet"),
    }
    match &role.standing {
        Standing::Unassigned => lines.put("role", "unassigned"),
        Standing::Master { epoch } => lines.put("role", format_args!("master of epoch {epoch}")),
        Standing::Replica {
            epoch,
            master_address,
            ..
        } => lines.put(
            "role",
            format_args!("replica of {master_address}, epoch {epoch}"),
        ),
    }
    lines.put("promised", format_args!("epoch {}", role.promised));
    lines.put("covered", role.covered);
    lines.put("has data", role.has_data);
    if let Some(what) = &role.diverged {
        lines.put(
            "diverged",
            format_args!("{what}: not read until its data is its master's"),
        );
    }
    for epoch in role.history.entries() {
        lines.put(
            "epoch",
            format_args!("{} from offset {}", epoch.epoch, epoch.first_offset),
        );
    }
}

fn of_checkpoint(lines: &mut Lines, checkpoint: &Checkpoint) {
    let about = format!(
        "at offset {}, {} bytes",
        checkpoint.offset, checkpoint.bytes
    );
    match &checkpoint.trailer {
        Some(trailer) => lines.put(
            "checkpoint",
            format_args!(
                "{about}: valid, {} chunks of {} bytes, CRC32 {:08x}, exact from offset {}",
                trailer.chunks, trailer.bytes, trailer.crc32, trailer.exact_from
            ),
        ),
        None => lines.put("checkpoint", format_args!("{about}: DAMAGED")),
    }
}

fn of_log(lines: &mut Lines, found: &Examination, log: &Log) {
    for segment in &log.segments {
        of_segment(lines, found, segment);
    }
    if let Some(torn) = &log.torn {
        lines.put(
            "torn",
            format_args!(
                "{} from byte {}, {} bytes: {}; no damage, the next start cuts it",
                name(found, &torn.path),
                torn.byte,
                torn.bytes,
                torn.what
            ),
        );
    }
    lines.put(
        "log",
        format_args!(
            "begins at offset {}, ends at {}, chain {:?}",
            log.first_offset, log.end, log.chain
        ),
    );
}

fn of_segment(lines: &mut Lines, found: &Examination, segment: &SegmentReport) {
    let name = name(found, &segment.path);
    let bytes = match segment.room_bytes {
        0 => format!("{} bytes", segment.bytes),
        room => format!(
            "{} bytes, {room} of them room for what comes next",
            segment.bytes
        ),
    };
    if segment.batches == 0 {
        return lines.put("segment", format_args!("{name}: empty, {bytes}"));
    }
    let epochs: Vec<_> = segment.epochs.iter().map(u64::to_string).collect();
    lines.put(
        "segment",
        format_args!(
            "{name}: offsets {} to {}, epochs {}, {} batches, {bytes}",
            segment.first_offset,
            segment.last_offset,
            epochs.join(" "),
            segment.batches
        ),
    );
}

fn of_content(lines: &mut Lines, content: &Content) {
    let from = match content.from_checkpoint {
        Some(offset) => format!("the checkpoint at {offset}"),
        None => "nothing".to_owned(),
    };
    lines.put(
        "content",
        format_args!(
            "at {}, digest {}, from {from} and {} bytes of log",
            content.digest.position, content.digest.total, content.replayed_bytes
        ),
    );
    for (name, count, digest) in &content.digest.collections {
        lines.put(
            "collection",
            format_args!("{name}: {count} vectors, digest {digest}"),
        );
    }
}

/// The path below the directory.
fn name(found: &Examination, path: &Path) -> String {
    let below = path.strip_prefix(&found.path).unwrap_or(path);
    below.display().to_string()
}

struct Lines(String);

impl Lines {
    fn put(&mut self, about: &str, what: impl Display) {
        let written: fmt::Result = writeln!(self.0, "{about:<11} {what}");
        debug_assert!(written.is_ok(), "a String takes everything");
    }
}
