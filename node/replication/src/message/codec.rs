//! Payloads of the frames. All little endian; `text` is a u16 length and UTF-8; `option X` is a byte 0, or 1 and X.
//!
//! | frame | payload |
//! |---|---|
//! | Greet | min version u16, max version u16, features u64, has token u8, nonce 32 bytes |
//! | Challenge | version u16, features u64, has token u8, nonce 32 bytes |
//! | Proof | 32 bytes |
//! | Hello | option cluster 16 bytes, node id 16, boot id 16, name text, option advertised text, promised u64, durable u64, applied u64, end, history, has data u8, wants snapshot u8 |
//! | Continue | master, from u64 |
//! | Truncate | master, end |
//! | SnapshotBegin | master, id 16 bytes, end, history |
//! | SnapshotChunk | index u32, crc u32, then the chunk |
//! | SnapshotEnd | chunks u32, bytes u64, crc u32, store crc u32, exact from u64, digest u128 |
//! | Reject | reason u8, then by reason: 1 epoch u64 · 2 text · 3 text · 4 ms u32 · 5 min u16, max u16, own u16 · 6 option text · 7 text |
//! | Batches | batches as in the journal, one after the other, at least one |
//! | Heartbeat | clock u64, position, durable u64, covered u64, option (position, digest u128) |
//! | Ack | chunks u32, taken u64, durable u64, applied u64 |
//! | Beat | clock u64, promised u64, then as Ack |
//!
//! `position` is epoch u64, offset u64; `end` is position, chain u128; `history` is a u32 count and so many of epoch
//! u64, first offset u64, chain u128; `master` is cluster 16 bytes, epoch u64, node id 16, position.

use super::{
    Ack, Beat, Challenge, Chunk, Greet, Heartbeat, Hello, MAX_CHUNK, Master, Message, Reject,
    SnapshotBegin, SnapshotEnd,
};
use crate::batch::{Batch, BatchError};
use crate::frame::{self, Frame, Kind};
use crate::handshake::ReplicaLog;
use crate::position::{History, LogEnd, Position};
use bytes::{BufMut, Bytes, BytesMut};

mod reader;

use reader::Reader;

/// Longest text, in bytes.
pub const MAX_TEXT: usize = 1024;
/// Most epochs in a history. A longer one is cut to its last entries: where the logs part is then found too early at
/// worst, which costs a full sync and never correctness.
pub const MAX_EPOCHS: usize = 100_000;

/// Why a payload is not a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageError {
    /// It ends too early.
    #[error("{kind:?} ends before its field `{field}`")]
    Short {
        /// The frame's kind.
        kind: Kind,
        /// What is missing.
        field: &'static str,
    },
    /// A field has an impossible value.
    #[error("{kind:?} has an impossible `{field}`")]
    Field {
        /// The frame's kind.
        kind: Kind,
        /// Which field.
        field: &'static str,
    },
    /// Bytes are left over.
    #[error("{kind:?} has {left} bytes too many")]
    Left {
        /// The frame's kind.
        kind: Kind,
        /// How many.
        left: usize,
    },
    /// A batch is damaged.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl Message {
    /// Appends what has to be written to the socket. Batches and chunks are not copied.
    pub fn encode(&self, out: &mut impl Extend<Bytes>) {
        match self {
            Message::Batches(batches) => {
                frame::encode(
                    Kind::Batches,
                    batches.iter().map(|b| b.bytes().clone()),
                    out,
                );
            }
            Message::SnapshotChunk(chunk) => {
                let mut head = BytesMut::with_capacity(8);
                head.put_u32_le(chunk.index);
                head.put_u32_le(chunk.crc);
                let parts = [head.freeze(), chunk.bytes.clone()];
                frame::encode(Kind::SnapshotChunk, parts, out);
            }
            Message::Greet(_)
            | Message::Challenge(_)
            | Message::Proof(_)
            | Message::Hello(_)
            | Message::Continue(..)
            | Message::Truncate(..)
            | Message::SnapshotBegin(..)
            | Message::SnapshotEnd(_)
            | Message::Reject(_)
            | Message::Heartbeat(_)
            | Message::Ack(_)
            | Message::Beat(_) => {
                let mut payload = BytesMut::with_capacity(128);
                let kind = self.put(&mut payload);
                out.extend([frame::encode_small(kind, &payload)]);
            }
        }
    }

    fn put(&self, buf: &mut BytesMut) -> Kind {
        match self {
            Message::Greet(m) => {
                buf.put_u16_le(m.min_version);
                buf.put_u16_le(m.max_version);
                buf.put_u64_le(m.features);
                buf.put_u8(u8::from(m.has_token));
                buf.put_slice(&m.nonce);
                Kind::Greet
            }
            Message::Challenge(m) => {
                buf.put_u16_le(m.version);
                buf.put_u64_le(m.features);
                buf.put_u8(u8::from(m.has_token));
                buf.put_slice(&m.nonce);
                Kind::Challenge
            }
            Message::Proof(proof) => {
                buf.put_slice(proof);
                Kind::Proof
            }
            Message::Hello(m) => {
                put_option(buf, m.cluster.as_ref(), |buf, id| {
                    buf.put_slice(id.as_bytes());
                });
                buf.put_slice(m.node_id.as_bytes());
                buf.put_slice(m.boot_id.as_bytes());
                put_text(buf, &m.name);
                put_option(buf, m.advertised.as_ref(), |buf, text| put_text(buf, text));
                buf.put_u64_le(m.promised);
                buf.put_u64_le(m.durable);
                buf.put_u64_le(m.applied);
                put_end(buf, m.log.end);
                put_history(buf, &m.log.history);
                buf.put_u8(u8::from(m.log.has_data));
                buf.put_u8(u8::from(m.log.wants_snapshot));
                Kind::Hello
            }
            Message::Continue(master, from) => {
                put_master(buf, master);
                buf.put_u64_le(*from);
                Kind::Continue
            }
            Message::Truncate(master, to) => {
                put_master(buf, master);
                put_end(buf, *to);
                Kind::Truncate
            }
            Message::SnapshotBegin(master, m) => {
                put_master(buf, master);
                buf.put_slice(m.id.as_bytes());
                put_end(buf, m.start);
                put_history(buf, &m.history);
                Kind::SnapshotBegin
            }
            Message::SnapshotChunk(m) => {
                buf.put_u32_le(m.index);
                buf.put_u32_le(m.crc);
                buf.put_slice(&m.bytes);
                Kind::SnapshotChunk
            }
            Message::SnapshotEnd(m) => {
                buf.put_u32_le(m.chunks);
                buf.put_u64_le(m.bytes);
                buf.put_u32_le(m.crc);
                buf.put_u32_le(m.store_crc);
                buf.put_u64_le(m.exact_from);
                buf.put_u128_le(m.digest);
                Kind::SnapshotEnd
            }
            Message::Reject(reason) => {
                put_reject(buf, reason);
                Kind::Reject
            }
            Message::Batches(batches) => {
                batches.iter().for_each(|b| buf.put_slice(b.bytes()));
                Kind::Batches
            }
            Message::Heartbeat(m) => {
                buf.put_u64_le(m.clock_ms);
                put_position(buf, m.end);
                buf.put_u64_le(m.durable);
                buf.put_u64_le(m.covered);
                put_option(buf, m.digest.as_ref(), |buf, (at, digest)| {
                    put_position(buf, *at);
                    buf.put_u128_le(*digest);
                });
                Kind::Heartbeat
            }
            Message::Ack(m) => {
                put_ack(buf, m);
                Kind::Ack
            }
            Message::Beat(m) => {
                buf.put_u64_le(m.clock_ms);
                buf.put_u64_le(m.promised);
                put_ack(buf, &m.ack);
                Kind::Beat
            }
        }
    }

    /// Reads the message in a frame. Every byte of the payload must belong to it.
    pub fn decode(frame: Frame) -> Result<Self, MessageError> {
        let kind = frame.kind;
        let mut r = Reader::new(frame);
        let message = match kind {
            Kind::Greet => Message::Greet(Greet {
                min_version: r.u16("min version")?,
                max_version: r.u16("max version")?,
                features: r.u64("features")?,
                has_token: r.bool("has token")?,
                nonce: r.array("nonce")?,
            }),
            Kind::Challenge => Message::Challenge(Challenge {
                version: r.u16("version")?,
                features: r.u64("features")?,
                has_token: r.bool("has token")?,
                nonce: r.array("nonce")?,
            }),
            Kind::Proof => Message::Proof(r.array("proof")?),
            Kind::Hello => Message::Hello(Box::new(Hello {
                cluster: r.option("cluster", |r| r.uuid("cluster"))?,
                node_id: r.uuid("node id")?,
                boot_id: r.uuid("boot id")?,
                name: r.text("name")?,
                advertised: r.option("advertised", |r| r.text("advertised"))?,
                promised: r.u64("promised")?,
                durable: r.u64("durable")?,
                applied: r.u64("applied")?,
                log: ReplicaLog {
                    end: r.end()?,
                    history: r.history()?,
                    has_data: r.bool("has data")?,
                    wants_snapshot: r.bool("wants snapshot")?,
                },
            })),
            Kind::Continue => Message::Continue(r.master()?, r.u64("from")?),
            Kind::Truncate => Message::Truncate(r.master()?, r.end()?),
            Kind::SnapshotBegin => Message::SnapshotBegin(
                r.master()?,
                Box::new(SnapshotBegin {
                    id: r.uuid("id")?,
                    start: r.end()?,
                    history: r.history()?,
                }),
            ),
            Kind::SnapshotChunk => {
                let (index, crc) = (r.u32("index")?, r.u32("crc")?);
                if r.left() > MAX_CHUNK {
                    return Err(r.impossible("length"));
                }
                let bytes = r.rest();
                Message::SnapshotChunk(Chunk { index, crc, bytes })
            }
            Kind::SnapshotEnd => Message::SnapshotEnd(SnapshotEnd {
                chunks: r.u32("chunks")?,
                bytes: r.u64("bytes")?,
                crc: r.u32("crc")?,
                store_crc: r.u32("store crc")?,
                exact_from: r.u64("exact from")?,
                digest: r.u128("digest")?,
            }),
            Kind::Reject => Message::Reject(r.reject()?),
            Kind::Batches => {
                let mut bytes = r.rest();
                let mut batches = Vec::new();
                while !bytes.is_empty() {
                    batches.push(Batch::decode(&mut bytes)?);
                }
                if batches.is_empty() {
                    return Err(r.impossible("number of batches"));
                }
                Message::Batches(batches)
            }
            Kind::Heartbeat => Message::Heartbeat(Heartbeat {
                clock_ms: r.u64("clock")?,
                end: r.position("end")?,
                durable: r.u64("durable")?,
                covered: r.u64("covered")?,
                digest: r.option("digest", |r| Ok((r.position("digest")?, r.u128("digest")?)))?,
            }),
            Kind::Ack => Message::Ack(r.ack()?),
            Kind::Beat => Message::Beat(Beat {
                clock_ms: r.u64("clock")?,
                promised: r.u64("promised")?,
                ack: r.ack()?,
            }),
        };
        match r.left() {
            0 => Ok(message),
            left => Err(MessageError::Left { kind, left }),
        }
    }
}

fn put_option<T>(buf: &mut BytesMut, value: Option<&T>, put: impl FnOnce(&mut BytesMut, &T)) {
    buf.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(buf, value);
    }
}

fn put_text(buf: &mut BytesMut, text: &str) {
    // Names and reasons that are longer lose their end, at a character's boundary.
    let mut len = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    buf.put_u16_le(len as u16);
    buf.put_slice(&text.as_bytes()[..len]);
}

fn put_position(buf: &mut BytesMut, position: Position) {
    buf.put_u64_le(position.epoch);
    buf.put_u64_le(position.offset);
}

fn put_end(buf: &mut BytesMut, end: LogEnd) {
    put_position(buf, end.position);
    buf.put_u128_le(end.chain.0);
}

fn put_history(buf: &mut BytesMut, history: &History) {
    let entries = history.entries();
    let entries = &entries[entries.len().saturating_sub(MAX_EPOCHS)..];
    buf.put_u32_le(entries.len() as u32);
    for entry in entries {
        buf.put_u64_le(entry.epoch);
        buf.put_u64_le(entry.first_offset);
        buf.put_u128_le(entry.chain.0);
    }
}

fn put_master(buf: &mut BytesMut, master: &Master) {
    buf.put_slice(master.cluster.as_bytes());
    buf.put_u64_le(master.epoch);
    buf.put_slice(master.node_id.as_bytes());
    put_position(buf, master.end);
}

fn put_ack(buf: &mut BytesMut, ack: &Ack) {
    buf.put_u32_le(ack.chunks);
    buf.put_u64_le(ack.taken);
    buf.put_u64_le(ack.durable);
    buf.put_u64_le(ack.applied);
}

fn put_reject(buf: &mut BytesMut, reason: &Reject) {
    match reason {
        Reject::StaleEpoch(epoch) => {
            buf.put_u8(1);
            buf.put_u64_le(*epoch);
        }
        Reject::WrongCluster(text) => {
            buf.put_u8(2);
            put_text(buf, text);
        }
        Reject::Unauthenticated(text) => {
            buf.put_u8(3);
            put_text(buf, text);
        }
        Reject::Busy(ms) => {
            buf.put_u8(4);
            buf.put_u32_le(*ms);
        }
        Reject::Version {
            found_min,
            found_max,
            own,
        } => {
            buf.put_u8(5);
            buf.put_u16_le(*found_min);
            buf.put_u16_le(*found_max);
            buf.put_u16_le(*own);
        }
        Reject::NotMaster(address) => {
            buf.put_u8(6);
            put_option(buf, address.as_ref(), |buf, text| put_text(buf, text));
        }
        Reject::Protocol(text) => {
            buf.put_u8(7);
            put_text(buf, text);
        }
    }
}

#[cfg(test)]
mod tests;
