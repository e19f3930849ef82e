//! The data endpoints. Texts become vectors here, before they reach the writer; everything about a write that needs the
//! collection's present state is checked by the writer.

mod batch;
mod bulk;
mod collections;
mod insert;
mod search;
mod vectors;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use vectorizer_api::data::{Payload, TEXT_KEY};
use vectorizer_api::error::ErrorCode;

pub(super) use bulk::bulk;
pub(super) use collections::{
    create_collection, delete_collection, get_collection, list_collections,
};
pub(super) use insert::{insert_text, insert_texts, insert_vectors, put_vectors};
pub(super) use search::{batch_search, embed, hybrid_search, search, search_text};
pub(super) use vectors::{
    batch_delete, batch_update, delete_vector, get_vector, list_vectors, update_vector,
};

use super::Api;
use super::answer::Refusal;
use crate::store::Collection;

/// Payloads may be nested this deep, so that whoever reads them can.
const MAX_DEPTH: usize = 64;

fn find(api: &Api, name: &str) -> Result<Arc<Collection>, Refusal> {
    api.store.collection(name).ok_or_else(|| {
        Refusal::new(
            ErrorCode::CollectionNotFound,
            format!("there is no collection `{name}`: GET /collections lists all"),
        )
    })
}

/// The collection named in the body as well has to be the path's.
fn same_collection(path: &str, body: Option<&str>) -> Result<(), Refusal> {
    match body {
        Some(other) if other != path => Err(Refusal::invalid(
            "collection",
            format!("`{other}` is not the collection of the path, `{path}`: leave it out"),
        )),
        Some(_) | None => Ok(()),
    }
}

/// The text, and the payload without it.
fn split(payload: &Payload) -> (Option<String>, Payload) {
    let mut metadata = payload.clone();
    let content = match metadata.remove(TEXT_KEY) {
        Some(Value::String(text)) => Some(text),
        Some(other) => {
            metadata.insert(TEXT_KEY.to_owned(), other);
            None
        }
        None => None,
    };
    (content, metadata)
}

fn payload_of(bytes: &Bytes) -> Payload {
    // It was an object when it was written, and its checksum has been verified since.
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// Whether a payload is nested no deeper than allowed. Walks without recursion: the depth is what is in question.
fn is_shallow(payload: &Payload) -> bool {
    let mut left: Vec<(usize, &Value)> = payload.values().map(|value| (1, value)).collect();
    while let Some((depth, value)) = left.pop() {
        if depth > MAX_DEPTH {
            return false;
        }
        match value {
            Value::Array(items) => left.extend(items.iter().map(|item| (depth + 1, item))),
            Value::Object(object) => left.extend(object.values().map(|item| (depth + 1, item))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    true
}
