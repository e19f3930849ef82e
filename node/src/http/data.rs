//! The data endpoints. Texts become vectors here, before they reach the writer; everything about a write that needs the
//! collection's present state is checked by the writer.

mod batch;
mod bulk;
mod collections;
mod insert;
mod search;
mod text;
mod vectors;

use std::sync::Arc;

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
