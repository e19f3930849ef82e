//! Inserts: texts and vectors, one or many.

use axum::extract::State;
use serde_json::Value;
use uuid::Uuid;
use vectorizer_api::data::{
    BatchInserted, EmbeddingItem, InsertText, InsertTexts, InsertVectors, Payload, PutVectors,
    TEXT_KEY, TextInserted, TextItem, VectorItem,
};
use vectorizer_api::error::ApiError;

use super::batch::{Item, Settled, not_empty, settle};
use super::{MAX_DEPTH, find, is_shallow, same_collection};
use crate::http::Api;
use crate::http::answer::{Refusal, Written, invalid};
use crate::http::body::{At, Input};
use crate::http::compute::compute;
use crate::http::writes::carry_out;
use crate::store::Cancelled;
use crate::writer::{UpsertItem, WriteRequest};

/// `POST /insert`.
pub(in crate::http) async fn insert_text(
    State(api): State<Api>,
    Input(request): Input<InsertText>,
) -> Result<Written<TextInserted>, Refusal> {
    let InsertText {
        collection,
        id,
        text,
        metadata,
        public_key,
    } = request;
    no_encryption("public_key", public_key.as_ref())?;
    let item = TextItem { id, text, metadata };
    let items = embed(&api, &collection, vec![item]).await?;
    let mut ids = Vec::new();
    let mut good = Vec::new();
    for item in items {
        good.push(item.item?);
        ids.push(item.id);
    }
    let write = WriteRequest::Upsert {
        collection: collection.clone(),
        items: good,
        atomic: false,
    };
    let reply = carry_out(&api, write).await?;
    for result in reply.results {
        result.outcome?;
    }
    Ok(Written {
        position: reply.position,
        body: TextInserted {
            message: "Text inserted successfully".to_owned(),
            vectors_created: ids.len(),
            vector_ids: ids,
            collection,
            chunked: false,
        },
    })
}

/// `POST /insert_texts` and `POST /batch_insert`.
pub(in crate::http) async fn insert_texts(
    State(api): State<Api>,
    Input(request): Input<InsertTexts>,
) -> Result<Written<BatchInserted>, Refusal> {
    no_encryption("public_key", request.public_key.as_ref())?;
    not_empty("texts", &request.texts)?;
    let items = embed(&api, &request.collection, request.texts).await?;
    upsert(&api, "texts", request.collection, request.atomic, items).await
}

/// `POST /insert_vectors`.
pub(in crate::http) async fn insert_vectors(
    State(api): State<Api>,
    Input(request): Input<InsertVectors>,
) -> Result<Written<BatchInserted>, Refusal> {
    no_encryption("public_key", request.public_key.as_ref())?;
    not_empty("vectors", &request.vectors)?;
    find(&api, &request.collection)?;
    let items = request.vectors.into_iter().map(|item| {
        let EmbeddingItem {
            id,
            embedding,
            payload,
            metadata,
        } = item;
        upsert_item(id, embedding, payload.or(metadata))
    });
    let items = items.collect();
    upsert(&api, "vectors", request.collection, request.atomic, items).await
}

/// `POST /collections/{name}/vectors`.
pub(in crate::http) async fn put_vectors(
    State(api): State<Api>,
    At(collection): At<String>,
    Input(request): Input<PutVectors>,
) -> Result<Written<BatchInserted>, Refusal> {
    same_collection(&collection, request.collection.as_deref())?;
    no_encryption("public_key", request.public_key.as_ref())?;
    not_empty("vectors", &request.vectors)?;
    find(&api, &collection)?;
    let mut items = Vec::with_capacity(request.vectors.len());
    for (index, item) in request.vectors.into_iter().enumerate() {
        let VectorItem {
            id,
            data,
            metadata,
            public_key,
        } = item;
        no_encryption(&format!("vectors[{index}].public_key"), public_key.as_ref())?;
        items.push(upsert_item(id, data, metadata));
    }
    upsert(&api, "vectors", collection, request.atomic, items).await
}

async fn upsert(
    api: &Api,
    path: &str,
    collection: String,
    atomic: bool,
    items: Vec<Item<UpsertItem>>,
) -> Result<Written<BatchInserted>, Refusal> {
    let write = |items| WriteRequest::Upsert {
        collection: collection.clone(),
        items,
        atomic,
    };
    let Settled {
        position,
        done,
        failed,
        results,
    } = settle(api, path, atomic, items, write).await?;
    Ok(Written {
        position,
        body: BatchInserted {
            collection,
            inserted: done,
            failed,
            count: results.len(),
            results,
        },
    })
}

fn upsert_item(id: Option<String>, vector: Vec<f32>, payload: Option<Payload>) -> Item<UpsertItem> {
    let payload = payload.unwrap_or_default();
    let item = checked(payload).map(|payload| (vector, payload));
    identified(id, item)
}

/// An id for an item that has none.
fn identified(
    client_id: Option<String>,
    item: Result<(Vec<f32>, Payload), ApiError>,
) -> Item<UpsertItem> {
    let id = client_id
        .clone()
        .unwrap_or_else(|| Uuid::new_v4().to_string());
    let item = item.map(|(vector, payload)| UpsertItem {
        id: id.clone(),
        vector,
        payload,
    });
    Item {
        id,
        client_id,
        item,
    }
}

fn checked(payload: Payload) -> Result<Payload, ApiError> {
    if is_shallow(&payload) {
        Ok(payload)
    } else {
        let message = format!("nested deeper than {MAX_DEPTH} levels");
        Err(invalid("metadata", message))
    }
}

/// Turns texts into vectors; the text itself is kept in the payload.
async fn embed(
    api: &Api,
    collection: &str,
    texts: Vec<TextItem>,
) -> Result<Vec<Item<UpsertItem>>, Refusal> {
    let dimension = find(api, collection)?.config().dimension;
    compute(api, move |api, cancel| {
        let embedder = &api.0.embedder;
        let mut items = Vec::with_capacity(texts.len());
        for TextItem { id, text, metadata } in texts {
            let item = match with_text(metadata.unwrap_or_default(), &text) {
                Ok(payload) => Ok((embedder.embed(&text, dimension, cancel)?, payload)),
                Err(error) => Err(error),
            };
            items.push(identified(id, item));
        }
        Ok::<_, Cancelled>(items)
    })
    .await
}

fn with_text(mut payload: Payload, text: &str) -> Result<Payload, ApiError> {
    if text.trim().is_empty() {
        return Err(invalid("text", "is empty: expected a text"));
    }
    let text = Value::from(text);
    match payload.insert(TEXT_KEY.to_owned(), text.clone()) {
        Some(other) if other != text => Err(invalid(
            &format!("metadata.{TEXT_KEY}"),
            "this key holds the text itself: choose another one",
        )),
        Some(_) | None => checked(payload),
    }
}

fn no_encryption(path: &str, key: Option<&Value>) -> Result<(), Refusal> {
    match key {
        None | Some(Value::Null) => Ok(()),
        Some(_) => Err(Refusal::invalid(
            path,
            "payloads are not encrypted by this node: leave it out, or encrypt before sending",
        )),
    }
}
