//! Role, epochs and identity of this node, durable.
//!
//! One file, `role` in the data directory, replaced as a whole: written beside, fsynced, renamed, directory fsynced.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..8 | magic | `VECROLE` and a zero byte |
//! | 8..12 | version u32 | 1 |
//! | 12..16 | len u32 | length of the JSON |
//! | 16..16+len | JSON | [`RoleState`] |
//! | last 4 | crc u32 | CRC32 of everything before |
//!
//! Little endian, and nothing after it. The history in it is written before the first operation of an epoch, and the
//! generation names the directory that holds the data: one rename changes who the node is and what it holds at once.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
pub use vectorizer_replication::command::{HandedOver, Standing};
use vectorizer_replication::position::{History, Position};

const MAGIC: &[u8; 8] = b"VECROLE\0";
const VERSION: u32 = 1;
/// Magic, version, length.
const HEAD_LEN: usize = 16;
/// No role file is longer; a longer one is not read.
const MAX_LEN: u64 = 16 << 20;

/// Everything about this node that must survive, apart from its data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoleState {
    /// Durable identity, created with the volume.
    pub node_id: Uuid,
    /// The cluster; `None` until told.
    pub cluster: Option<Uuid>,
    /// Nothing below this epoch is accepted.
    pub promised: u64,
    /// What the node was last told to be.
    pub standing: Standing,
    /// The last hand-over, as long as nothing has come after it.
    pub handed_over: Option<HandedOver>,
    /// The epochs of the log.
    pub history: History,
    /// The last position that enough replicas were known to hold. Nothing up to there is ever given up.
    #[serde(default)]
    pub covered: Position,
    /// What of the log the node's master does not have, from when the node learns that until its data is its master's
    /// again: nobody reads it meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverged: Option<String>,
    /// The directory `gen-<n>` that holds checkpoints and journal.
    pub generation: u64,
    /// Whether that generation is a usable copy: false on a new volume until it was initialized or synced.
    pub has_data: bool,
}

impl RoleState {
    /// A node that has just come into being.
    pub fn new() -> Self {
        RoleState {
            node_id: Uuid::new_v4(),
            cluster: None,
            promised: 0,
            standing: Standing::Unassigned,
            handed_over: None,
            history: History::default(),
            covered: Position::ZERO,
            diverged: None,
            generation: 1,
            has_data: false,
        }
    }
}

impl Default for RoleState {
    fn default() -> Self {
        Self::new()
    }
}

/// A role file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The disk took no new version of the file: the one before stands, and trying again may succeed.
    #[error("writing {}: {source}; nothing was changed", path.display())]
    Unwritten {
        /// The new version's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is damaged or from another program.
    #[error(
        "{} is not a usable role file: {what}. It holds this node's identity and promises, so it is not replaced by \
         itself. Restore the file, or give the node an empty data directory: it then joins as a new node and syncs \
         from the master",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// The role file and what it says.
#[derive(Debug)]
pub struct RoleFile {
    path: PathBuf,
    state: RoleState,
}

impl RoleFile {
    /// Reads the file; `None` when there is none.
    pub fn load(path: &Path) -> Result<Option<RoleFile>, RoleError> {
        let io = |action, source| RoleError::Io {
            action,
            path: path.to_owned(),
            source,
        };
        let corrupt = |what: String| RoleError::Corrupt {
            path: path.to_owned(),
            what,
        };
        match fs::metadata(path) {
            Ok(meta) if meta.len() > MAX_LEN => {
                return Err(corrupt(format!("{} bytes are too many", meta.len())));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("reading", error)),
        }
        let bytes = fs::read(path).map_err(|error| io("reading", error))?;
        let state = decode(&bytes).map_err(corrupt)?;
        Ok(Some(RoleFile {
            path: path.to_owned(),
            state,
        }))
    }

    /// Writes a new file.
    pub fn create(path: &Path, state: RoleState) -> Result<RoleFile, RoleError> {
        let file = RoleFile {
            path: path.to_owned(),
            state,
        };
        file.save(&file.state)?;
        Ok(file)
    }

    /// What the file says.
    pub fn state(&self) -> &RoleState {
        &self.state
    }

    /// Changes the state: durable when it returns. Writes nothing when nothing changes.
    ///
    /// After [`RoleError::Unwritten`] everything is as it was; after any other error nobody knows what is on the disk.
    pub fn update(&mut self, change: impl FnOnce(&mut RoleState)) -> Result<(), RoleError> {
        let mut next = self.state.clone();
        change(&mut next);
        if next != self.state {
            self.save(&next)?;
            self.state = next;
        }
        Ok(())
    }

    fn save(&self, state: &RoleState) -> Result<(), RoleError> {
        let io = |action, path: &Path, source| RoleError::Io {
            action,
            path: path.to_owned(),
            source,
        };
        let json = serde_json::to_vec(state)
            .map_err(|error| io("encoding", &self.path, io::Error::other(error)))?;
        let new = self.path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&encode(&json))?;
            file.sync_all()
        };
        write().map_err(|source| {
            // A full disk needs its room for other things.
            let _ = fs::remove_file(&new);
            let path = new.clone();
            RoleError::Unwritten { path, source }
        })?;
        fs::rename(&new, &self.path).map_err(|error| io("renaming", &new, error))?;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| io("syncing", dir, error))
    }
}

fn encode(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_LEN + json.len() + 4);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(json.len() as u32).to_le_bytes());
    out.extend_from_slice(json);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Result<RoleState, String> {
    let word = |at: usize| -> Option<u32> {
        let word = bytes.get(at..at.checked_add(4)?)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*word))
    };
    if bytes.get(..8) != Some(MAGIC.as_slice()) {
        return Err("it does not begin with the magic bytes".to_owned());
    }
    match word(8) {
        Some(VERSION) => {}
        Some(other) => {
            return Err(format!(
                "its version is {other}, this program reads {VERSION}"
            ));
        }
        None => return Err("it ends inside its header".to_owned()),
    }
    let len = word(12).ok_or("it ends inside its header")? as usize;
    let need = len.saturating_add(HEAD_LEN + 4);
    if bytes.len() != need {
        return Err(format!("{} bytes where {need} were expected", bytes.len()));
    }
    let end = HEAD_LEN + len;
    let found = crc32fast::hash(&bytes[..end]);
    if word(end) != Some(found) {
        return Err("its CRC32 does not match".to_owned());
    }
    let state: RoleState =
        serde_json::from_slice(&bytes[HEAD_LEN..end]).map_err(|error| error.to_string())?;
    // The history's order is an invariant of its type that reading it does not check.
    if History::new(state.history.entries().to_vec()).is_none() {
        return Err("its epochs are not in ascending order".to_owned());
    }
    Ok(state)
}

#[cfg(test)]
mod tests;
