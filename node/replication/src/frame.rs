//! Frames: how messages are cut out of a TCP stream.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..2 | magic u16 | `0x5600` + version of this framing, 1 |
//! | 2 | kind u8 | what the payload is, see [`Kind`] |
//! | 3 | flags u8 | 0; reserved |
//! | 4..6 | stream u16 | 0 for the log and everything about it, 1 for snapshot chunks |
//! | 6..10 | len u32 | length of the payload |
//! | 10..14 | crc u32 | CRC32 of bytes 0..10 |
//! | 14.. | payload | `len` bytes |
//! | then | crc u32 | CRC32 of the payload |
//!
//! All little endian. The header's CRC is checked before its length is believed, and the length before anything is
//! allocated: [`MAX_BEFORE_AUTH`] until the peer has proven itself, [`MAX_AFTER_AUTH`] from then on.

use bytes::{Bytes, BytesMut};

/// Bytes before the payload.
pub const HEADER_LEN: usize = 14;
/// Bytes after the payload.
pub const TRAILER_LEN: usize = 4;
/// Longest payload from a peer that has not proven itself.
pub const MAX_BEFORE_AUTH: usize = 64 * 1024;
/// Longest payload from a peer that has.
pub const MAX_AFTER_AUTH: usize = 16 * 1024 * 1024;

const MAGIC: u16 = 0x5601;

/// What a frame's payload is. The layouts are in [`crate::message`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Replica's first: versions, features, nonce.
    Greet = 1,
    /// Master's answer: version, features, nonce.
    Challenge = 2,
    /// Either side's proof that it knows the token.
    Proof = 3,
    /// Who the replica is and what it holds.
    Hello = 4,
    /// The master feeds from the replica's end on.
    Continue = 5,
    /// The replica has to drop its divergent tail first.
    Truncate = 6,
    /// A snapshot begins.
    SnapshotBegin = 7,
    /// A piece of it.
    SnapshotChunk = 8,
    /// It is complete; operations follow.
    SnapshotEnd = 9,
    /// The master does not feed this peer.
    Reject = 10,
    /// One or more batches, exactly as in the journal.
    Batches = 11,
    /// Master's heartbeat.
    Heartbeat = 12,
    /// Replica's watermarks.
    Ack = 13,
    /// Replica's heartbeat.
    Beat = 14,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 14] = [
        Kind::Greet,
        Kind::Challenge,
        Kind::Proof,
        Kind::Hello,
        Kind::Continue,
        Kind::Truncate,
        Kind::SnapshotBegin,
        Kind::SnapshotChunk,
        Kind::SnapshotEnd,
        Kind::Reject,
        Kind::Batches,
        Kind::Heartbeat,
        Kind::Ack,
        Kind::Beat,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }

    fn stream(self) -> u16 {
        u16::from(self == Kind::SnapshotChunk)
    }
}

/// A frame whose CRCs have been checked. The payload shares the memory that it was read into.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// The payload.
    pub payload: Bytes,
}

/// Why bytes are not a frame. There is no way to go on after one: the connection is closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Not this protocol, or a version of its framing that this node does not know.
    #[error(
        "frame begins with {0:#06x}, expected {MAGIC:#06x}: not this protocol, or another version of it"
    )]
    Magic(u16),
    /// A header that does not match its CRC.
    #[error("frame header CRC32 is {found:08x}, header says {expected:08x}")]
    HeaderCrc {
        /// From the header.
        expected: u32,
        /// Computed.
        found: u32,
    },
    /// A payload that does not match its CRC.
    #[error("frame payload CRC32 is {found:08x}, frame says {expected:08x}")]
    PayloadCrc {
        /// From the frame.
        expected: u32,
        /// Computed.
        found: u32,
    },
    /// A length above the limit.
    #[error("frame of {len} bytes, at most {limit} are allowed here")]
    TooLong {
        /// What the header says.
        len: usize,
        /// What is allowed now.
        limit: usize,
    },
    /// A kind, flag or stream that this version does not have.
    #[error("frame field `{field}` is {found}, which this version does not have")]
    Field {
        /// Which.
        field: &'static str,
        /// Its value.
        found: u16,
    },
}

/// Cuts a frame into what is written to the socket: header, the parts of the payload as they are, trailer.
///
/// The parts are not copied, so that a batch goes to every socket from the memory that the journal wrote.
/// The payload must not be longer than [`MAX_AFTER_AUTH`], which every message sees to.
pub fn encode(kind: Kind, parts: impl IntoIterator<Item = Bytes>, out: &mut impl Extend<Bytes>) {
    let parts: Vec<Bytes> = parts.into_iter().collect();
    let len: usize = parts.iter().map(Bytes::len).sum();
    debug_assert!(len <= MAX_AFTER_AUTH);
    let mut crc = crc32fast::Hasher::new();
    for part in &parts {
        crc.update(part);
    }
    out.extend([Bytes::copy_from_slice(&header(kind, len as u32))]);
    out.extend(parts);
    out.extend([Bytes::copy_from_slice(&crc.finalize().to_le_bytes())]);
}

/// The same for a payload in one piece that is small enough to be copied beside its header.
pub fn encode_small(kind: Kind, payload: &[u8]) -> Bytes {
    let mut buf = BytesMut::with_capacity(HEADER_LEN + payload.len() + TRAILER_LEN);
    buf.extend_from_slice(&header(kind, payload.len() as u32));
    buf.extend_from_slice(payload);
    buf.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    buf.freeze()
}

fn header(kind: Kind, len: u32) -> [u8; HEADER_LEN] {
    let mut head = [0; HEADER_LEN];
    head[0..2].copy_from_slice(&MAGIC.to_le_bytes());
    head[2] = kind as u8;
    head[4..6].copy_from_slice(&kind.stream().to_le_bytes());
    head[6..10].copy_from_slice(&len.to_le_bytes());
    let crc = crc32fast::hash(&head[..10]);
    head[10..14].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Takes one frame off the front of `buf`, or `None` when more bytes are needed.
///
/// `limit` is the longest payload allowed now. When the header is there, memory for the whole frame is reserved, and
/// never before its length was checked. On an error `buf` is left as it is.
pub fn decode(buf: &mut BytesMut, limit: usize) -> Result<Option<Frame>, FrameError> {
    let Some(head) = buf.first_chunk::<HEADER_LEN>() else {
        // Nonsense is told apart by its first bytes, without waiting for more that may never come.
        if let Some(first) = buf.first_chunk::<2>() {
            check_magic(*first)?;
        }
        return Ok(None);
    };
    let (kind, len) = check_header(head, limit)?;
    let total = HEADER_LEN + len + TRAILER_LEN;
    if buf.len() < total {
        buf.reserve(total - buf.len());
        return Ok(None);
    }
    let payload = &buf[HEADER_LEN..HEADER_LEN + len];
    let found = crc32fast::hash(payload);
    let expected = le32(&buf[HEADER_LEN + len..total]);
    if found != expected {
        return Err(FrameError::PayloadCrc { expected, found });
    }
    let payload = buf
        .split_to(total)
        .freeze()
        .slice(HEADER_LEN..HEADER_LEN + len);
    Ok(Some(Frame { kind, payload }))
}

fn check_magic(bytes: [u8; 2]) -> Result<(), FrameError> {
    let magic = u16::from_le_bytes(bytes);
    if magic != MAGIC {
        return Err(FrameError::Magic(magic));
    }
    Ok(())
}

fn check_header(head: &[u8; HEADER_LEN], limit: usize) -> Result<(Kind, usize), FrameError> {
    check_magic([head[0], head[1]])?;
    let found = crc32fast::hash(&head[..10]);
    let expected = le32(&head[10..14]);
    if found != expected {
        return Err(FrameError::HeaderCrc { expected, found });
    }
    let field = |field, found| Err(FrameError::Field { field, found });
    let Some(kind) = Kind::from_byte(head[2]) else {
        return field("kind", u16::from(head[2]));
    };
    if head[3] != 0 {
        return field("flags", u16::from(head[3]));
    }
    let stream = u16::from_le_bytes([head[4], head[5]]);
    if stream != kind.stream() {
        return field("stream", stream);
    }
    let len = le32(&head[6..10]) as usize;
    if len > limit {
        return Err(FrameError::TooLong { len, limit });
    }
    Ok((kind, len))
}

fn le32(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(kind: Kind, parts: &[&'static [u8]]) -> BytesMut {
        let mut out = Vec::new();
        encode(kind, parts.iter().map(|p| Bytes::from_static(p)), &mut out);
        out.iter().flat_map(|b| b.to_vec()).collect()
    }

    #[test]
    fn a_frame_of_several_parts_comes_back_as_one_payload() {
        let mut buf = encoded(Kind::Batches, &[b"ab", b"", b"cd"]);
        buf.extend_from_slice(&encode_small(Kind::Ack, b"x"));
        let first = decode(&mut buf, 4).unwrap().unwrap();
        assert_eq!(
            (first.kind, &first.payload[..]),
            (Kind::Batches, &b"abcd"[..])
        );
        let second = decode(&mut buf, 4).unwrap().unwrap();
        assert_eq!((second.kind, &second.payload[..]), (Kind::Ack, &b"x"[..]));
        assert_eq!(decode(&mut buf, 4), Ok(None));
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_anything_is_allocated() {
        let whole = encode_small(Kind::Hello, &[7; 100]);
        let mut buf = BytesMut::from(&whole[..HEADER_LEN]);
        let before = buf.capacity();
        let refused = decode(&mut buf, 99);
        assert_eq!(
            refused,
            Err(FrameError::TooLong {
                len: 100,
                limit: 99
            })
        );
        assert_eq!(buf.capacity(), before);

        let huge = header(Kind::Batches, u32::MAX);
        let mut buf = BytesMut::from(&huge[..]);
        assert!(matches!(
            decode(&mut buf, MAX_AFTER_AUTH),
            Err(FrameError::TooLong { .. })
        ));
        assert!(buf.capacity() < 1024);
    }

    #[test]
    fn nonsense_is_recognized_by_its_first_two_bytes() {
        let mut buf = BytesMut::from(&b"GE"[..]);
        assert!(matches!(decode(&mut buf, 10), Err(FrameError::Magic(_))));
    }

    #[test]
    fn unknown_kinds_flags_and_streams_are_refused() {
        for (at, value, field) in [
            (2, 99, "kind"),
            (2, 0, "kind"),
            (3, 1, "flags"),
            (4, 1, "stream"),
        ] {
            let mut head = header(Kind::Ack, 0);
            head[at] = value;
            let crc = crc32fast::hash(&head[..10]);
            head[10..].copy_from_slice(&crc.to_le_bytes());
            let refused = decode(&mut BytesMut::from(&head[..]), 10);
            assert!(
                matches!(refused, Err(FrameError::Field { field: f, .. }) if f == field),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn kinds_are_numbered_from_1_without_gaps() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index + 1);
            assert_eq!(Kind::from_byte(kind as u8), Some(kind));
        }
    }

    proptest! {
        #[test]
        fn every_truncation_is_incomplete_and_every_flipped_bit_an_error(
            payload in prop::collection::vec(any::<u8>(), 0..40)
        ) {
            let whole = encode_small(Kind::Hello, &payload);
            for cut in 0..whole.len() {
                prop_assert_eq!(decode(&mut BytesMut::from(&whole[..cut]), 64), Ok(None));
            }
            for bit in 0..whole.len() * 8 {
                let mut bent = BytesMut::from(&whole[..]);
                bent[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(decode(&mut bent, 64).is_err(), "bit {}", bit);
            }
        }
    }
}
