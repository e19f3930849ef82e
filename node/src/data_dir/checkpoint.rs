//! A snapshot as a file, for restarts.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..8 | magic | `VECSNAP` and a zero byte |
//! | 8..12 | version u32 | 1 |
//! | then | header | u32 length, u32 CRC32, JSON of [`SnapshotHeader`] |
//! | then, for each chunk | chunk | u32 length, at least 1, and the chunk as in `store/snapshot.rs`, which holds its CRC32 |
//! | then | end u32 | 0 |
//! | then | trailer | u32 length, u32 CRC32, JSON of [`SnapshotTrailer`] |
//!
//! Little endian, and nothing after it. It is written as `checkpoint-<offset>.part`, and gets its name `checkpoint-
//! <20 digits of the start's offset>` when it is complete and durable.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DataDirError, free_space, io_error, sync_dir};
use crate::background::{self, Flusher};
use crate::store::{SnapshotHeader, SnapshotLoader, SnapshotTrailer, Store};

const MAGIC: &[u8; 8] = b"VECSNAP\0";
const VERSION: u32 = 1;
/// Nothing with a length in front of it is longer; a longer one is refused before it is allocated.
const MAX_LEN: u32 = 17 << 20;
const PREFIX: &str = "checkpoint-";
const PART: &str = "part";

/// The name of the checkpoint that starts at `offset`.
pub(super) fn path_of(generation: &Path, offset: u64) -> PathBuf {
    generation.join(format!("{PREFIX}{offset:020}"))
}

/// Removes what a crash left of a checkpoint that was being written.
pub(super) fn remove_parts(generation: &Path) -> Result<(), DataDirError> {
    let failed = |error| io_error("listing", generation, error);
    for entry in fs::read_dir(generation).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == PART) {
            fs::remove_file(&path).map_err(|error| io_error("removing", &path, error))?;
        }
    }
    Ok(())
}

/// Where the checkpoints of a generation start, newest first.
pub(super) fn list(generation: &Path) -> Result<Vec<u64>, DataDirError> {
    let failed = |error| io_error("listing", generation, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(generation).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let offset = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        // A part has a suffix behind its digits.
        let offset = offset.filter(|offset| offset.len() == 20);
        found.extend(offset.and_then(|offset| offset.parse::<u64>().ok()));
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// Writes a checkpoint. Dropped before it is complete, it is removed.
pub(super) struct Writer {
    file: Option<BufWriter<File>>,
    part: PathBuf,
    path: PathBuf,
    flusher: Flusher,
    /// Bytes of chunks so far.
    taken: u64,
}

impl Writer {
    pub(super) fn create(generation: &Path, header: &SnapshotHeader) -> Result<Self, DataDirError> {
        let path = path_of(generation, header.start.position.offset);
        let part = path.with_extension(PART);
        let file = File::create(&part).map_err(|error| io_error("creating", &part, error))?;
        let mut writer = Writer {
            file: Some(BufWriter::with_capacity(1 << 20, file)),
            part,
            path,
            flusher: Flusher::default(),
            taken: 0,
        };
        writer.write(|file| {
            file.write_all(MAGIC)?;
            file.write_all(&VERSION.to_le_bytes())?;
            write_json(file, header)
        })?;
        Ok(writer)
    }

    /// Fails, among others, when the disk gets short.
    pub(super) fn chunk(&mut self, chunk: &[u8]) -> Result<(), DataDirError> {
        let part = self.part.clone();
        let (taken, more) = (self.taken, chunk.len() as u64);
        self.write(|file| {
            if !free_space(&part)?.fits_snapshot(taken, more) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            file.write_all(&(chunk.len() as u32).to_le_bytes())?;
            file.write_all(chunk)
        })?;
        self.taken += more;
        self.flusher.written(&self.part, more);
        Ok(())
    }

    /// Writes the trailer and makes everything durable; the file does not have its name yet.
    pub(super) fn finish(mut self, trailer: &SnapshotTrailer) -> Result<Finished, DataDirError> {
        self.write(|file| {
            file.write_all(&0u32.to_le_bytes())?;
            write_json(file, trailer)?;
            file.flush()?;
            file.get_ref().sync_all()
        })?;
        Ok(Finished { writer: self })
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), DataDirError> {
        match &mut self.file {
            Some(file) => write(file).map_err(|error| io_error("writing", &self.part, error)),
            None => Ok(()), // only after it got its name
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Removed at the next start if not now.
            let _ = background::remove_file(&self.part);
        }
    }
}

/// A checkpoint that is durable and has no name yet.
pub(super) struct Finished {
    writer: Writer,
}

impl Finished {
    /// Gives it its name, durably: from now on a start may use it.
    pub(super) fn publish(mut self) -> Result<(), DataDirError> {
        let (part, path) = (&self.writer.part, &self.writer.path);
        fs::rename(part, path).map_err(|error| io_error("renaming", part, error))?;
        sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        self.writer.file = None;
        Ok(())
    }
}

fn write_json(file: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(value)?;
    file.write_all(&(json.len() as u32).to_le_bytes())?;
    file.write_all(&crc32fast::hash(&json).to_le_bytes())?;
    file.write_all(&json)
}

/// Reads a checkpoint piece by piece, checking every byte.
pub(super) struct Reader<R> {
    input: R,
    path: PathBuf,
    at: u64,
    pub(super) header: SnapshotHeader,
}

impl Reader<BufReader<File>> {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self, DataDirError> {
        let file = File::open(path).map_err(|error| io_error("opening", path, error))?;
        Reader::new(BufReader::with_capacity(1 << 20, file), path)
    }
}

impl<R: Read> Reader<R> {
    pub(super) fn new(input: R, path: &Path) -> Result<Self, DataDirError> {
        let empty = SnapshotHeader {
            start: Default::default(),
            history: Default::default(),
            created_ms: 0,
        };
        let mut reader = Reader {
            input,
            path: path.to_owned(),
            at: 0,
            header: empty,
        };
        if reader.array()? != *MAGIC {
            return Err(reader.damaged("it does not begin with the magic bytes"));
        }
        match reader.u32()? {
            VERSION => {}
            other => {
                let what = format!("its version is {other}, this program reads {VERSION}");
                return Err(reader.damaged(&what));
            }
        }
        reader.header = reader.json()?;
        Ok(reader)
    }

    /// The next chunk; `None` when the trailer is next.
    pub(super) fn chunk(&mut self) -> Result<Option<Vec<u8>>, DataDirError> {
        match self.u32()? {
            0 => Ok(None),
            len => self.bytes(len).map(Some),
        }
    }

    /// The trailer, after the last chunk, and nothing behind it.
    pub(super) fn trailer(&mut self) -> Result<SnapshotTrailer, DataDirError> {
        let trailer = self.json()?;
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(trailer),
            Ok(_) => Err(self.damaged("there are bytes after its end")),
            Err(error) => Err(io_error("reading", &self.path, error)),
        }
    }

    fn json<T: DeserializeOwned>(&mut self) -> Result<T, DataDirError> {
        let len = self.u32()?;
        let crc = self.u32()?;
        let json = self.bytes(len)?;
        if crc32fast::hash(&json) != crc {
            return Err(self.damaged("a CRC32 does not match"));
        }
        serde_json::from_slice(&json).map_err(|error| self.damaged(&error.to_string()))
    }

    fn u32(&mut self) -> Result<u32, DataDirError> {
        self.array().map(u32::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DataDirError> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn bytes(&mut self, len: u32) -> Result<Vec<u8>, DataDirError> {
        if len > MAX_LEN {
            return Err(self.damaged(&format!("a length of {len} is too large")));
        }
        let mut out = vec![0; len as usize];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), DataDirError> {
        match self.input.read_exact(out) {
            Ok(()) => {
                self.at += out.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.damaged("it ends too early"))
            }
            Err(error) => Err(io_error("reading", &self.path, error)),
        }
    }

    fn damaged(&self, what: &str) -> DataDirError {
        DataDirError::Checkpoint {
            path: self.path.clone(),
            byte: self.at,
            what: what.to_owned(),
        }
    }
}

/// Reads a whole checkpoint: a store that stands at its start, and the trailer.
pub(super) fn load(path: &Path) -> Result<(Store, SnapshotTrailer), DataDirError> {
    load_all(Reader::open(path)?)
}

/// Reads a whole checkpoint from anywhere: a store that stands at its start, and the trailer. Every byte is checked, and
/// no more memory is taken for what is announced than 17 MiB beyond what is there. `path` is only named in errors.
pub fn load_checkpoint(
    input: impl Read,
    path: &Path,
) -> Result<(Store, SnapshotTrailer), DataDirError> {
    load_all(Reader::new(input, path)?)
}

fn load_all<R: Read>(mut reader: Reader<R>) -> Result<(Store, SnapshotTrailer), DataDirError> {
    let mut loader = SnapshotLoader::new(reader.header.clone());
    while let Some(chunk) = reader.chunk()? {
        loader
            .load(&chunk)
            .map_err(|error| reader.damaged(&error.to_string()))?;
    }
    let trailer = reader.trailer()?;
    let store = loader
        .finish(&trailer)
        .map_err(|error| reader.damaged(&error.to_string()))?;
    Ok((store, trailer))
}
