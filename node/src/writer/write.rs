//! Clients' writes: requests become effects. Everything that can fail is checked here, before the journal.
//!
//! The log holds full records: an update is resolved to the whole vector and payload that it results in, so that
//! applying it again, or on another node, gives the same.

use std::collections::{BTreeMap, HashSet};

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;
use vectorizer_api::data::MAX_BATCH_BYTES;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_replication::batch::HEADER_LEN;
use vectorizer_replication::command::Standing;
use vectorizer_replication::position::Position;

use super::puts::{TWICE, check_vector, too_large};
use super::room::Need;
use super::thread::{Writer, unix_time_ms};
use super::{EncodedPuts, ItemResult, UpdateItem, WriteError, WriteRequest};
use crate::store::{Collection, Numbers, Record, encode_put, put_len, validate_name};

/// A batch while it is looked at item by item.
struct Batched {
    atomic: bool,
    results: Vec<ItemResult>,
    /// With [`HEADER_LEN`] bytes of room before them.
    records: BytesMut,
    count: u32,
}

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
        let mut batched = Batched::new(false);
        match request {
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
                batched.add(&Record::CreateCollection {
                    name,
                    config,
                    created_ms: unix_time_ms(),
                });
            }
            WriteRequest::DropCollection { name } => {
                let incarnation = self.find(&name)?.incarnation();
                batched.add(&Record::DropCollection { incarnation });
            }
            WriteRequest::Puts(puts) => {
                return Ok((self.write_encoded(epoch, puts)?, Vec::new()));
            }
            WriteRequest::Update {
                collection,
                items,
                atomic,
            } => {
                batched.atomic = atomic;
                update(&*self.find(&collection)?, items, &mut batched)?;
            }
            WriteRequest::Delete {
                collection,
                ids,
                atomic,
            } => {
                batched.atomic = atomic;
                delete(&*self.find(&collection)?, ids, &mut batched)?;
            }
        }
        let Batched {
            results,
            records,
            count,
            ..
        } = batched;
        if count == 0 {
            // Nothing to write: every item was refused. The reply still says from which position on that was so.
            return Ok((self.journal.end().position, results));
        }
        Ok((self.append(epoch, count, records, grows)?, results))
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
        let need = if grows { Need::Growth } else { Need::Deletes };
        self.room_for(records.len(), need)
            .map_err(|full| WriteError::Api(full.into()))?;
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

impl Batched {
    fn new(atomic: bool) -> Self {
        Batched {
            atomic,
            results: Vec::new(),
            records: BytesMut::zeroed(HEADER_LEN),
            count: 0,
        }
    }

    fn add(&mut self, record: &Record) {
        record.encode(&mut self.records);
        self.count += 1;
    }

    /// Notes what becomes of an item. With `atomic`, the first bad one refuses all; so does what one entry of the log
    /// cannot hold, before it is copied.
    fn item(&mut self, id: String, outcome: Result<(), ApiError>) -> Result<(), WriteError> {
        if let (true, Err(error)) = (self.atomic, &outcome) {
            let mut error = error.clone();
            let at = self.results.len();
            error.message = format!(
                "item {at} (`{id}`): {}; nothing was changed (atomic)",
                error.message
            );
            return Err(WriteError::Api(error));
        }
        self.results.push(ItemResult { id, outcome });
        Ok(())
    }

    fn holds(&self, bytes: usize) -> Result<(), WriteError> {
        let bytes = self.records.len() - HEADER_LEN + bytes;
        if bytes > MAX_BATCH_BYTES {
            return Err(WriteError::Api(too_large(bytes)));
        }
        Ok(())
    }
}

fn twice() -> Result<(), ApiError> {
    Err(ApiError::new(ErrorCode::InvalidRequest, TWICE))
}

fn update(
    collection: &Collection,
    items: Vec<UpdateItem>,
    batched: &mut Batched,
) -> Result<(), WriteError> {
    let mut seen = HashSet::new();
    for UpdateItem {
        id,
        vector,
        payload,
    } in items
    {
        if !seen.insert(id.clone()) {
            batched.item(id, twice())?;
            continue;
        }
        let Some(old) = collection.get(&id) else {
            let outcome = missing(&id);
            batched.item(id, outcome)?;
            continue;
        };
        if let Some(Err(message)) = vector
            .as_deref()
            .map(|numbers| check_vector(collection, Numbers::Floats(numbers)))
        {
            let error = ApiError::new(ErrorCode::InvalidRequest, message);
            batched.item(id, Err(error))?;
            continue;
        }
        let payload = match payload {
            None => old.payload,
            Some(changes) => merge(&old.payload, &changes),
        };
        let vector = vector.unwrap_or(old.vector);
        batched.holds(put_len(id.len(), vector.len() * 4, payload.len()))?;
        encode_put(
            &mut batched.records,
            collection.incarnation(),
            &id,
            Numbers::Floats(&vector),
            &payload,
        );
        batched.count += 1;
        batched.item(id, Ok(()))?;
    }
    Ok(())
}

fn delete(
    collection: &Collection,
    ids: Vec<String>,
    batched: &mut Batched,
) -> Result<(), WriteError> {
    let mut seen = HashSet::new();
    for id in ids {
        if !seen.insert(id.clone()) {
            batched.item(id, twice())?;
        } else if !collection.contains(&id) {
            let outcome = missing(&id);
            batched.item(id, outcome)?;
        } else {
            // A record is shorter than this.
            batched.holds(put_len(id.len(), 0, 0))?;
            batched.add(&Record::Delete {
                incarnation: collection.incarnation(),
                id: id.clone(),
            });
            batched.item(id, Ok(()))?;
        }
    }
    Ok(())
}

fn missing(id: &str) -> Result<(), ApiError> {
    let message = format!("no vector with id `{id}` in this collection");
    Err(ApiError::new(ErrorCode::VectorNotFound, message))
}

/// The payload with these keys set. All keep their text: a number that is read and written again may be another.
fn merge(old: &[u8], changes: &[u8]) -> Bytes {
    let mut merged: BTreeMap<String, &RawValue> = serde_json::from_slice(old).unwrap_or_default();
    // It was found to be an object before it came here.
    let changes: BTreeMap<String, &RawValue> = serde_json::from_slice(changes).unwrap_or_default();
    merged.extend(changes);
    Bytes::from(serde_json::to_vec(&merged).unwrap_or_else(|_| b"{}".to_vec()))
}
