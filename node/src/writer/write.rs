//! Clients' writes: requests become effects. Everything that can fail is checked here, before the journal.
//!
//! The log holds full records: an update is resolved to the whole vector and payload that it results in, so that
//! applying it again, or on another node, gives the same.

use std::collections::{BTreeMap, HashSet};

use bytes::{Bytes, BytesMut};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_replication::batch::HEADER_LEN;
use vectorizer_replication::command::Standing;
use vectorizer_replication::position::Position;

use super::thread::{Writer, unix_time_ms};
use super::{EncodedPuts, ItemResult, UpdateItem, UpsertItem, WriteError, WriteRequest};
use crate::store::{Collection, Record, validate_id, validate_name};

/// A batch's encoded records must stay below this many bytes, so that one log batch holds them.
const MAX_RECORDS_BYTES: usize = 15 * 1024 * 1024;

type Items = Vec<(ItemResult, Option<Record>)>;

impl Writer {
    pub(super) fn write(
        &mut self,
        request: WriteRequest,
    ) -> Result<(Position, Vec<ItemResult>), WriteError> {
        let epoch = self.admit()?;
        let grows = !matches!(
            request,
            WriteRequest::Delete { .. } | WriteRequest::DropCollection { .. }
        );
        let (results, records) = match request {
            WriteRequest::CreateCollection { name, config } => {
                validate_name(&name)
                    .and_then(|()| config.validate())
                    .map_err(invalid)?;
                if self.store.collection(&name).is_some() {
                    return Err(WriteError::new(
                        ErrorCode::CollectionExists,
                        format!(
                            "a collection named `{name}` exists; drop it first or choose another name"
                        ),
                    ));
                }
                (
                    Vec::new(),
                    vec![Record::CreateCollection {
                        name,
                        config,
                        created_ms: unix_time_ms(),
                    }],
                )
            }
            WriteRequest::DropCollection { name } => {
                let incarnation = self.find(&name)?.incarnation();
                (Vec::new(), vec![Record::DropCollection { incarnation }])
            }
            WriteRequest::Upsert {
                collection,
                items,
                atomic,
            } => {
                let collection = self.find(&collection)?;
                settle(atomic, upsert(&collection, items))?
            }
            WriteRequest::Puts(puts) => {
                return Ok((self.write_encoded(epoch, puts)?, Vec::new()));
            }
            WriteRequest::Update {
                collection,
                items,
                atomic,
            } => {
                let collection = self.find(&collection)?;
                settle(atomic, update(&collection, items))?
            }
            WriteRequest::Delete {
                collection,
                ids,
                atomic,
            } => {
                let collection = self.find(&collection)?;
                settle(atomic, delete(&collection, ids))?
            }
        };
        if records.is_empty() {
            // Nothing to write: every item was refused. The reply still says from which position on that was so.
            return Ok((self.journal.end().position, results));
        }
        let mut encoded = BytesMut::zeroed(HEADER_LEN);
        for record in &records {
            record.encode(&mut encoded);
        }
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        Ok((self.append(epoch, count, encoded, grows)?, results))
    }

    /// Records that were checked and encoded before they came here: all that can have changed since is the catalog.
    fn write_encoded(&mut self, epoch: u64, bulk: EncodedPuts) -> Result<Position, WriteError> {
        let EncodedPuts {
            collection,
            incarnation,
            count,
            records,
        } = bulk;
        if self.find(&collection)?.incarnation() != incarnation {
            return Err(WriteError::new(
                ErrorCode::Conflict,
                format!(
                    "`{collection}` was dropped and made anew meanwhile; nothing was written, send the request again"
                ),
            ));
        }
        self.append(epoch, count, records, true)
    }

    fn append(
        &mut self,
        epoch: u64,
        count: u32,
        records: BytesMut,
        grows: bool,
    ) -> Result<Position, WriteError> {
        if records.len() > MAX_RECORDS_BYTES {
            return Err(WriteError::new(
                ErrorCode::PayloadTooLarge,
                format!(
                    "the batch takes {} bytes in the log; at most {MAX_RECORDS_BYTES} fit: send it in parts",
                    records.len()
                ),
            ));
        }
        self.room_for(records.len(), grows)
            .map_err(|full| WriteError::new(ErrorCode::DiskFull, full))?;
        Ok(self.append_own(epoch, count, records))
    }

    /// Whether this node may take the write at all. Returns the epoch to write it in.
    fn admit(&self) -> Result<u64, WriteError> {
        // What came while this node was still the master and is looked at after the handover goes to the next one.
        let handed_over = self.writing.is_none() && self.handed_over_at.is_some();
        if self.hold.is_some() || handed_over {
            return Err(WriteError::HandingOver);
        }
        let Some(epoch) = self.writing else {
            return Err(WriteError::Api(self.not_master()));
        };
        if !self.permit.holds() {
            return Err(WriteError::new(
                ErrorCode::Fenced,
                "this master's lease has run out and it may not acknowledge writes; send the request again",
            ));
        }
        Ok(epoch)
    }

    fn not_master(&self) -> ApiError {
        match &self.role.state().standing {
            Standing::Replica {
                master_address,
                master_url,
                ..
            } => {
                let to = master_url.as_deref().unwrap_or(master_address);
                ApiError::new(
                    ErrorCode::NotMaster,
                    format!("this node is a read-only replica; write to {to}"),
                )
                .with_details(
                    serde_json::json!({ "master": master_address, "master_url": master_url }),
                )
            }
            Standing::Master { .. } | Standing::Unassigned => ApiError::new(
                ErrorCode::Fenced,
                "this node is not the master and knows of none yet; send the request again",
            ),
        }
    }

    fn find(&self, name: &str) -> Result<std::sync::Arc<Collection>, WriteError> {
        self.store.collection(name).ok_or_else(|| {
            WriteError::new(
                ErrorCode::CollectionNotFound,
                format!("no collection named `{name}`; GET /collections lists those that exist"),
            )
        })
    }
}

fn invalid(error: impl std::fmt::Display) -> WriteError {
    WriteError::new(ErrorCode::InvalidRequest, error.to_string())
}

/// Splits results from records; with `atomic`, the first bad item refuses all.
fn settle(atomic: bool, items: Items) -> Result<(Vec<ItemResult>, Vec<Record>), WriteError> {
    if atomic
        && let Some((at, bad)) = items
            .iter()
            .enumerate()
            .find(|(_, (r, _))| r.outcome.is_err())
    {
        let mut error = match &bad.0.outcome {
            Err(error) => error.clone(),
            Ok(()) => ApiError::new(ErrorCode::Internal, "an item is both good and bad"),
        };
        error.message = format!(
            "item {at} (`{}`): {}; nothing was changed (atomic)",
            bad.0.id, error.message
        );
        return Err(WriteError::Api(error));
    }
    let (results, records): (Vec<_>, Vec<_>) = items.into_iter().unzip();
    Ok((results, records.into_iter().flatten().collect()))
}

fn good(id: String, record: Record) -> (ItemResult, Option<Record>) {
    (
        ItemResult {
            id,
            outcome: Ok(()),
        },
        Some(record),
    )
}

fn bad(id: String, code: ErrorCode, message: impl Into<String>) -> (ItemResult, Option<Record>) {
    (
        ItemResult {
            id,
            outcome: Err(ApiError::new(code, message)),
        },
        None,
    )
}

/// The second item of the same id in one batch is refused: which of the two was meant is not for the node to guess.
fn seen_twice(seen: &mut HashSet<String>, id: &str) -> bool {
    !seen.insert(id.to_owned())
}

const TWICE: &str = "this id occurs earlier in the same batch; send each id once";

fn upsert(collection: &Collection, items: Vec<UpsertItem>) -> Items {
    let mut seen = HashSet::new();
    items
        .into_iter()
        .map(
            |UpsertItem {
                 id,
                 vector,
                 payload,
             }| {
                if let Err(error) = validate_id(&id) {
                    return bad(id, ErrorCode::InvalidRequest, error.to_string());
                }
                if seen_twice(&mut seen, &id) {
                    return bad(id, ErrorCode::InvalidRequest, TWICE);
                }
                if let Err(error) = check_vector(collection, &vector) {
                    return bad(id, ErrorCode::InvalidRequest, error.to_string());
                }
                let payload = encode_payload(&payload);
                good(
                    id.clone(),
                    Record::Put {
                        incarnation: collection.incarnation(),
                        id,
                        vector,
                        payload,
                    },
                )
            },
        )
        .collect()
}

fn update(collection: &Collection, items: Vec<UpdateItem>) -> Items {
    let mut seen = HashSet::new();
    items
        .into_iter()
        .map(
            |UpdateItem {
                 id,
                 vector,
                 payload,
             }| {
                if seen_twice(&mut seen, &id) {
                    return bad(id, ErrorCode::InvalidRequest, TWICE);
                }
                let Some(old) = collection.get(&id) else {
                    return missing(id);
                };
                if let Some(error) = vector
                    .as_ref()
                    .and_then(|v| check_vector(collection, v).err())
                {
                    return bad(id, ErrorCode::InvalidRequest, error.to_string());
                }
                let payload = match payload {
                    None => old.payload,
                    Some(changes) => merge(&old.payload, &changes),
                };
                let vector = vector.unwrap_or(old.vector);
                good(
                    id.clone(),
                    Record::Put {
                        incarnation: collection.incarnation(),
                        id,
                        vector,
                        payload,
                    },
                )
            },
        )
        .collect()
}

fn delete(collection: &Collection, ids: Vec<String>) -> Items {
    let mut seen = HashSet::new();
    ids.into_iter()
        .map(|id| {
            if seen_twice(&mut seen, &id) {
                return bad(id, ErrorCode::InvalidRequest, TWICE);
            }
            if collection.get(&id).is_none() {
                return missing(id);
            }
            good(
                id.clone(),
                Record::Delete {
                    incarnation: collection.incarnation(),
                    id,
                },
            )
        })
        .collect()
}

fn check_vector(collection: &Collection, vector: &[f32]) -> Result<(), String> {
    let dimension = collection.config().dimension;
    if vector.len() != dimension {
        return Err(format!(
            "the vector has {} numbers; the collection's dimension is {dimension}",
            vector.len()
        ));
    }
    match vector.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(format!(
            "number {at} of the vector is {}; only finite numbers are allowed",
            vector[at]
        )),
        None => Ok(()),
    }
}

fn missing(id: String) -> (ItemResult, Option<Record>) {
    let message = format!("no vector with id `{id}` in this collection");
    bad(id, ErrorCode::VectorNotFound, message)
}

/// The payload with these keys set. The others keep their text: a number that is read and written again may be another.
fn merge(old: &[u8], changes: &Map<String, Value>) -> Bytes {
    let mut merged: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(old).unwrap_or_default();
    for (key, value) in changes {
        // A JSON value always encodes.
        if let Ok(text) = to_raw_value(value) {
            merged.insert(key.clone(), text);
        }
    }
    Bytes::from(serde_json::to_vec(&merged).unwrap_or_else(|_| b"{}".to_vec()))
}

fn encode_payload(payload: &Map<String, Value>) -> Bytes {
    // A map of JSON values always encodes: its keys are strings and its numbers finite.
    Bytes::from(serde_json::to_vec(payload).unwrap_or_else(|_| b"{}".to_vec()))
}
