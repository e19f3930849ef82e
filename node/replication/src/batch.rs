//! The unit of the journal and of the wire: encoded once, the same bytes go to disk, to memory and to every replica.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4 | len u32 | length of everything after byte 8 |
//! | 4..8 | crc u32 | CRC32 of everything after byte 8 |
//! | 8..16 | epoch u64 | epoch in which the batch was written |
//! | 16..24 | first u64 | offset of its first operation |
//! | 24..28 | count u32 | number of operations, at least 1 |
//! | 28..32 | reserved u32 | 0 |
//! | 32..40 | time u64 | when the master appended it, Unix time in ms |
//! | 40..56 | chain u128 | the chain before this batch |
//! | 56.. | payload | the operations, opaque here |
//!
//! All little endian. The chain after a batch is the XXH3-128 of bytes 8 to the end, which hold the chain before it.

use bytes::{BufMut, Bytes, BytesMut};

use crate::position::{Chain, Position};

/// Bytes before the payload.
pub const HEADER_LEN: usize = 56;
/// No encoded batch is longer; a longer one is refused before it is allocated.
pub const MAX_BATCH_LEN: usize = 16 * 1024 * 1024 - 1024;

/// A batch whose length, CRC and header have been checked. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    bytes: Bytes,
    epoch: u64,
    first: u64,
    count: u32,
    time_ms: u64,
    before: Chain,
    after: Chain,
}

/// Why bytes are not a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does: a torn tail, or more is to come.
    #[error("batch incomplete: {have} of {need} bytes")]
    Incomplete {
        /// Bytes there.
        have: usize,
        /// Bytes needed, as far as known.
        need: usize,
    },
    /// The length field is impossible.
    #[error("batch length {0} outside {HEADER_LEN}..={MAX_BATCH_LEN}")]
    Length(usize),
    /// The bytes do not match their CRC32.
    #[error("batch CRC32 is {found:08x}, header says {expected:08x}")]
    Crc {
        /// From the header.
        expected: u32,
        /// Computed.
        found: u32,
    },
    /// A header field is out of range: epoch, first offset or count is 0, or offsets overflow.
    #[error("batch header field `{0}` out of range")]
    Field(&'static str),
}

impl Batch {
    /// Encodes `count` operations, already encoded as `payload`, at `first` in `epoch`, after `before`.
    /// Fails where the batch would be longer than [`MAX_BATCH_LEN`] or a field is out of range.
    pub fn encode(
        epoch: u64,
        first: u64,
        count: u32,
        time_ms: u64,
        before: Chain,
        payload: &[u8],
    ) -> Result<Self, BatchError> {
        let mut buf = BytesMut::with_capacity(HEADER_LEN + payload.len());
        buf.put_bytes(0, HEADER_LEN);
        buf.put_slice(payload);
        Self::seal(epoch, first, count, time_ms, before, buf)
    }

    /// The same for operations that are encoded already after [`HEADER_LEN`] bytes of room: nothing is copied.
    pub fn seal(
        epoch: u64,
        first: u64,
        count: u32,
        time_ms: u64,
        before: Chain,
        mut buf: BytesMut,
    ) -> Result<Self, BatchError> {
        let total = buf.len();
        if !(HEADER_LEN..=MAX_BATCH_LEN).contains(&total) {
            return Err(BatchError::Length(total));
        }
        let mut head = &mut buf[8..HEADER_LEN];
        head.put_u64_le(epoch);
        head.put_u64_le(first);
        head.put_u32_le(count);
        head.put_u32_le(0);
        head.put_u64_le(time_ms);
        head.put_u128_le(before.0);
        let crc = crc32fast::hash(&buf[8..]);
        let len = (total - 8) as u32;
        buf[0..4].copy_from_slice(&len.to_le_bytes());
        buf[4..8].copy_from_slice(&crc.to_le_bytes());
        Self::from_checked(buf.freeze())
    }

    /// Length of the batch that begins at `bytes`, from its first four bytes.
    pub fn peek_len(bytes: &[u8]) -> Result<usize, BatchError> {
        let Some(head) = bytes.first_chunk::<4>() else {
            return Err(BatchError::Incomplete {
                have: bytes.len(),
                need: HEADER_LEN,
            });
        };
        let total = (u32::from_le_bytes(*head) as usize).saturating_add(8);
        if !(HEADER_LEN..=MAX_BATCH_LEN).contains(&total) {
            return Err(BatchError::Length(total));
        }
        Ok(total)
    }

    /// Takes one batch off the front of `bytes`, which then begins after it. On an error `bytes` is unchanged.
    pub fn decode(bytes: &mut Bytes) -> Result<Self, BatchError> {
        let total = Self::peek_len(bytes)?;
        if bytes.len() < total {
            return Err(BatchError::Incomplete {
                have: bytes.len(),
                need: total,
            });
        }
        let own = bytes.slice(..total);
        let expected = u32_at(&own, 4);
        let found = crc32fast::hash(&own[8..]);
        if expected != found {
            return Err(BatchError::Crc { expected, found });
        }
        let batch = Self::from_checked(own)?;
        let _ = bytes.split_to(total);
        Ok(batch)
    }

    fn from_checked(bytes: Bytes) -> Result<Self, BatchError> {
        let batch = Batch {
            epoch: u64_at(&bytes, 8),
            first: u64_at(&bytes, 16),
            count: u32_at(&bytes, 24),
            time_ms: u64_at(&bytes, 32),
            before: Chain(u128_at(&bytes, 40)),
            after: Chain(xxhash_rust::xxh3::xxh3_128(&bytes[8..])),
            bytes,
        };
        if batch.epoch == 0 {
            return Err(BatchError::Field("epoch"));
        }
        if batch.first == 0 || batch.first.checked_add(u64::from(batch.count)).is_none() {
            return Err(BatchError::Field("first"));
        }
        if batch.count == 0 {
            return Err(BatchError::Field("count"));
        }
        if u32_at(&batch.bytes, 28) != 0 {
            return Err(BatchError::Field("reserved"));
        }
        Ok(batch)
    }

    /// The whole encoded batch.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The encoded operations.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(HEADER_LEN..)
    }

    /// Epoch in which it was written.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Offset of its first operation.
    pub fn first_offset(&self) -> u64 {
        self.first
    }

    /// Offset of its last operation.
    pub fn last_offset(&self) -> u64 {
        self.first + u64::from(self.count) - 1
    }

    /// Number of operations.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// When the master appended it, Unix time in ms.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The chain before it.
    pub fn chain_before(&self) -> Chain {
        self.before
    }

    /// The chain after it.
    pub fn chain_after(&self) -> Chain {
        self.after
    }

    /// The position after it.
    pub fn end(&self) -> Position {
        Position::new(self.epoch, self.last_offset())
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Batch({}..={} epoch {} {} B)",
            self.first,
            self.last_offset(),
            self.epoch,
            self.bytes.len()
        )
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(array(bytes, at))
}
