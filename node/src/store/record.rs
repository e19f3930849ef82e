//! The operations that the log holds: effects, not requests, so that applying them cannot fail and always gives the same.
//!
//! A batch's payload is its records one after the other, each a u32 length (of what follows it), a u8 kind, then:
//!
//! | kind | record | fields |
//! |---|---|---|
//! | 1 | epoch opens | epoch u64, node id 16 bytes |
//! | 2 | create collection | created u64 (Unix ms), dimension u32, metric u8, name text, description text |
//! | 3 | drop collection | incarnation u64 |
//! | 4 | put vector | incarnation u64, id text, vector (u32 count, f32 each), payload (u32 length, JSON object) |
//! | 5 | delete vector | incarnation u64, id text |
//!
//! Little endian; a text is a u16 length and UTF-8. Metric: 1 cosine, 2 Euclidean, 3 dot product. An empty description
//! is none. The incarnation of a collection is the offset of the record that created it, which tells a collection from
//! an earlier one of the same name.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;
use vectorizer_replication::batch::Batch;

use super::codec::{CodecError, Fields, own, put_blob, put_text, put_vector};
use super::config::{CollectionConfig, Metric, validate_name};

/// Kind of [`Record::Put`].
const PUT: u8 = 4;
/// The shortest record: a dropped collection, with its length.
const MIN_RECORD_LEN: usize = 4 + 1 + 8;

/// One operation. Its offset is its version.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// The first operation of every epoch.
    Epoch {
        /// The epoch.
        epoch: u64,
        /// The node that writes in it.
        node: Uuid,
    },
    /// Creates an empty collection, whose incarnation is this operation's offset.
    CreateCollection {
        /// Its name.
        name: String,
        /// Its dimension and metric.
        config: CollectionConfig,
        /// When, Unix time in ms.
        created_ms: u64,
    },
    /// Drops a collection and all that is in it.
    DropCollection {
        /// Which one.
        incarnation: u64,
    },
    /// Inserts a vector or replaces the one of the same id.
    Put {
        /// The collection.
        incarnation: u64,
        /// The vector's id.
        id: String,
        /// As many finite numbers as the collection has dimensions.
        vector: Vec<f32>,
        /// A JSON object.
        payload: Bytes,
    },
    /// Deletes a vector; deleting what is absent is no error.
    Delete {
        /// The collection.
        incarnation: u64,
        /// The vector's id.
        id: String,
    },
}

/// A record as the store applies it: vectors, of which nearly everything consists, are read where they stand.
#[derive(Clone, Debug)]
pub enum Op<'a> {
    /// [`Record::Put`].
    Put {
        /// The collection.
        incarnation: u64,
        /// The vector's id.
        id: &'a str,
        /// Its numbers.
        vector: Numbers<'a>,
        /// A JSON object.
        payload: &'a [u8],
    },
    /// Any other record.
    Other(Cow<'a, Record>),
}

/// The numbers of a vector.
#[derive(Clone, Copy, Debug)]
pub enum Numbers<'a> {
    /// As numbers.
    Floats(&'a [f32]),
    /// As a batch holds them: four bytes each, little endian.
    Bytes(&'a [u8]),
}

impl Numbers<'_> {
    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Numbers::Floats(floats) => floats.len(),
            Numbers::Bytes(bytes) => bytes.len() / 4,
        }
    }
}

impl<'a> From<&'a Record> for Op<'a> {
    fn from(record: &'a Record) -> Self {
        match record {
            Record::Put {
                incarnation,
                id,
                vector,
                payload,
            } => Op::Put {
                incarnation: *incarnation,
                id,
                vector: Numbers::Floats(vector),
                payload,
            },
            Record::Epoch { .. }
            | Record::CreateCollection { .. }
            | Record::DropCollection { .. }
            | Record::Delete { .. } => Op::Other(Cow::Borrowed(record)),
        }
    }
}

impl<'a> Op<'a> {
    /// A batch's records, which are as many as its header says, without copying vectors. `payload` is the batch's.
    pub fn decode_batch(batch: &Batch, payload: &'a [u8]) -> Result<Vec<Op<'a>>, RecordError> {
        let most = payload.len() / MIN_RECORD_LEN;
        let mut ops = Vec::with_capacity(most.min(batch.count() as usize));
        let mut fields = Fields::new(payload);
        while !fields.is_empty() {
            let op = fields.blob("record").and_then(Self::decode);
            ops.push(op.map_err(|source| RecordError::Malformed {
                index: ops.len(),
                source,
            })?);
        }
        if ops.len() != batch.count() as usize {
            return Err(RecordError::Count {
                announced: batch.count(),
                found: ops.len(),
            });
        }
        Ok(ops)
    }

    fn decode(bytes: &'a [u8]) -> Result<Op<'a>, CodecError> {
        let Some((&PUT, rest)) = bytes.split_first() else {
            return Ok(Op::Other(Cow::Owned(Record::decode(bytes)?)));
        };
        let mut f = Fields::new(rest);
        let op = Op::Put {
            incarnation: f.u64("incarnation")?,
            id: f.text("id")?,
            vector: Numbers::Bytes(f.vector_bytes("vector")?),
            payload: f.blob("payload")?,
        };
        f.end()?;
        Ok(op)
    }
}

/// Appends a [`Record::Put`].
pub fn encode_put(
    out: &mut BytesMut,
    incarnation: u64,
    id: &str,
    vector: Numbers<'_>,
    payload: &[u8],
) {
    let start = out.len();
    out.put_u32_le(0); // the length, filled in below
    put_fields(out, incarnation, id, vector, payload);
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

fn put_fields(out: &mut BytesMut, incarnation: u64, id: &str, vector: Numbers<'_>, payload: &[u8]) {
    out.put_u8(PUT);
    out.put_u64_le(incarnation);
    put_text(out, id);
    match vector {
        Numbers::Floats(floats) => put_vector(out, floats),
        Numbers::Bytes(bytes) => {
            out.put_u32_le((bytes.len() / 4) as u32);
            out.put_slice(bytes);
        }
    }
    put_blob(out, payload);
}

/// Bytes that [`encode_put`] takes for an id, a vector and a payload of these lengths.
pub fn put_len(id: usize, vector: usize, payload: usize) -> usize {
    4 + 1 + 8 + 2 + id + 4 + vector + 4 + payload
}

/// Why a batch's payload is not records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A record is malformed.
    #[error("record {index} of the batch: {source}")]
    Malformed {
        /// Which one, from 0.
        index: usize,
        /// What is wrong with it.
        source: CodecError,
    },
    /// The batch's header announces another number of records than there are.
    #[error("the batch announces {announced} records and holds {found}")]
    Count {
        /// From the header.
        announced: u32,
        /// Decoded.
        found: usize,
    },
}

impl Record {
    /// Appends the record with its length.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u32_le(0); // the length, filled in below
        match self {
            Record::Epoch { epoch, node } => {
                out.put_u8(1);
                out.put_u64_le(*epoch);
                out.put_slice(node.as_bytes());
            }
            Record::CreateCollection {
                name,
                config,
                created_ms,
            } => {
                out.put_u8(2);
                out.put_u64_le(*created_ms);
                put_config(out, config);
                put_text(out, name);
                put_text(out, config.description.as_deref().unwrap_or_default());
            }
            Record::DropCollection { incarnation } => {
                out.put_u8(3);
                out.put_u64_le(*incarnation);
            }
            Record::Put {
                incarnation,
                id,
                vector,
                payload,
            } => put_fields(out, *incarnation, id, Numbers::Floats(vector), payload),
            Record::Delete { incarnation, id } => {
                out.put_u8(5);
                out.put_u64_le(*incarnation);
                put_text(out, id);
            }
        }
        let len = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// Decodes records that stand one after the other and fill `payload` exactly.
    pub fn decode_all(payload: &[u8]) -> Result<Vec<Record>, RecordError> {
        let mut records = Vec::new();
        let mut fields = Fields::new(payload);
        while !fields.is_empty() {
            let record = fields.blob("record").and_then(Self::decode);
            records.push(record.map_err(|source| RecordError::Malformed {
                index: records.len(),
                source,
            })?);
        }
        Ok(records)
    }

    /// Decodes a batch's records and checks that there are as many as its header says.
    pub fn decode_batch(batch: &Batch) -> Result<Vec<Record>, RecordError> {
        let records = Self::decode_all(&batch.payload())?;
        if records.len() != batch.count() as usize {
            return Err(RecordError::Count {
                announced: batch.count(),
                found: records.len(),
            });
        }
        Ok(records)
    }

    /// Decodes one record without its length.
    fn decode(bytes: &[u8]) -> Result<Record, CodecError> {
        let mut f = Fields::new(bytes);
        let record = match f.u8("kind")? {
            1 => Record::Epoch {
                epoch: f.u64("epoch")?,
                node: uuid(f.take("node", 16)?),
            },
            2 => {
                let created_ms = f.u64("created")?;
                let (config, name) = config_and_name(&mut f)?;
                Record::CreateCollection {
                    name: name.to_owned(),
                    config,
                    created_ms,
                }
            }
            3 => Record::DropCollection {
                incarnation: f.u64("incarnation")?,
            },
            PUT => Record::Put {
                incarnation: f.u64("incarnation")?,
                id: f.text("id")?.to_owned(),
                vector: f.vector("vector")?,
                payload: own(f.blob("payload")?),
            },
            5 => Record::Delete {
                incarnation: f.u64("incarnation")?,
                id: f.text("id")?.to_owned(),
            },
            kind => {
                return Err(CodecError::Value {
                    field: "kind",
                    value: u64::from(kind),
                });
            }
        };
        f.end()?;
        Ok(record)
    }
}

/// Writes dimension and metric.
pub(crate) fn put_config(out: &mut BytesMut, config: &CollectionConfig) {
    out.put_u32_le(config.dimension as u32);
    out.put_u8(match config.metric {
        Metric::Cosine => 1,
        Metric::Euclidean => 2,
        Metric::DotProduct => 3,
    });
}

/// Reads dimension, metric, name and description, and checks them as if a client had sent them.
pub(crate) fn config_and_name<'a>(
    f: &mut Fields<'a>,
) -> Result<(CollectionConfig, &'a str), CodecError> {
    let dimension = f.u32("dimension")?;
    let metric = match f.u8("metric")? {
        1 => Metric::Cosine,
        2 => Metric::Euclidean,
        3 => Metric::DotProduct,
        other => {
            return Err(CodecError::Value {
                field: "metric",
                value: u64::from(other),
            });
        }
    };
    let mut config = CollectionConfig::new(dimension as usize, metric);
    config.validate().map_err(|_| CodecError::Value {
        field: "dimension",
        value: u64::from(dimension),
    })?;
    let name = f.text("name")?;
    validate_name(name).map_err(|_| CodecError::NotAllowed("name"))?;
    let description = f.text("description")?;
    config.description = (!description.is_empty()).then(|| description.to_owned());
    let checked = config.validate();
    checked.map_err(|_| CodecError::NotAllowed("description"))?;
    Ok((config, name))
}

fn uuid(bytes: &[u8]) -> Uuid {
    let mut out = [0; 16];
    out.copy_from_slice(bytes);
    Uuid::from_bytes(out)
}

#[cfg(test)]
mod tests;
