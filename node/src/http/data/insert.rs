//! Inserts: texts and vectors, one or many. They become log records here, beside the writer's thread.

use std::sync::Arc;

use axum::extract::State;
use uuid::Uuid;
use vectorizer_api::data::{
    BatchInserted, EmbeddingItem, InsertText, InsertTexts, InsertVectors, MAX_BATCH_BYTES, Present,
    PutVectors, TextInserted, TextItem, VectorItem,
};
use vectorizer_api::error::{ApiError, ErrorCode};

use super::batch::{Failed, Item, not_empty, settle};
use super::text::Object;
use super::{find, same_collection};
use crate::http::Api;
use crate::http::answer::{Refusal, Written, invalid};
use crate::http::body::{At, Input, LARGE};
use crate::http::budget::{PER_TEXT_BYTE, Share};
use crate::http::compute::compute;
use crate::http::writes::carry_out;
use crate::store::embed::Embedder;
use crate::store::{Cancel, Collection, Never, Numbers, put_len};
use crate::writer::{EncodedPuts, PutError, Puts, WriteRequest, too_large};

/// One vector that is to be, as the request says it.
struct Draft {
    id: String,
    /// The id that the client gave, if it gave one.
    client_id: Option<String>,
    made_of: MadeOf,
    payload: Option<Object>,
}

enum MadeOf {
    Numbers(Vec<f32>),
    Text(String),
}

/// `POST /insert`.
pub(in crate::http) async fn insert_text(
    State(api): State<Api>,
    share: Share,
    Input(request): Input<InsertText<Object>>,
) -> Result<Written<TextInserted>, Refusal> {
    let InsertText {
        collection: name,
        id,
        text,
        metadata,
        public_key,
    } = request;
    no_encryption("public_key", public_key)?;
    let collection = find(&api, &name)?;
    let draft = Draft::of_text(TextItem { id, text, metadata });
    let (items, puts) = encode(&api, &share, collection, vec![draft]).await?;
    let mut ids = Vec::new();
    for item in items {
        item.item?;
        ids.push(item.id);
    }
    let reply = carry_out(&api, WriteRequest::Puts(puts)).await?;
    Ok(Written {
        position: reply.position,
        body: TextInserted {
            message: "Text inserted successfully".to_owned(),
            vectors_created: ids.len(),
            vector_ids: ids,
            collection: name,
            chunked: false,
        },
    })
}

/// `POST /insert_texts` and `POST /batch_insert`.
pub(in crate::http) async fn insert_texts(
    State(api): State<Api>,
    share: Share,
    Input(request): Input<InsertTexts<Object>>,
) -> Result<(Failed, Written<BatchInserted>), Refusal> {
    no_encryption("public_key", request.public_key)?;
    not_empty("texts", &request.texts)?;
    let collection = find(&api, &request.collection)?;
    let drafts = request.texts.into_iter().map(Draft::of_text).collect();
    upsert(&api, &share, "texts", request.atomic, collection, drafts).await
}

/// `POST /insert_vectors`.
pub(in crate::http) async fn insert_vectors(
    State(api): State<Api>,
    share: Share,
    Input(request): Input<InsertVectors<Object>>,
) -> Result<(Failed, Written<BatchInserted>), Refusal> {
    no_encryption("public_key", request.public_key)?;
    not_empty("vectors", &request.vectors)?;
    let collection = find(&api, &request.collection)?;
    let drafts = request.vectors.into_iter().map(|item| {
        let EmbeddingItem {
            id,
            embedding,
            payload,
            metadata,
        } = item;
        Draft::new(id, MadeOf::Numbers(embedding), payload.or(metadata))
    });
    let drafts = drafts.collect();
    upsert(&api, &share, "vectors", request.atomic, collection, drafts).await
}

/// `POST /collections/{name}/vectors`.
pub(in crate::http) async fn put_vectors(
    State(api): State<Api>,
    share: Share,
    At(name): At<String>,
    Input(request): Input<PutVectors<Object>>,
) -> Result<(Failed, Written<BatchInserted>), Refusal> {
    same_collection(&name, request.collection.as_deref())?;
    no_encryption("public_key", request.public_key)?;
    not_empty("vectors", &request.vectors)?;
    let collection = find(&api, &name)?;
    let mut drafts = Vec::with_capacity(request.vectors.len());
    for (index, item) in request.vectors.into_iter().enumerate() {
        let VectorItem {
            id,
            data,
            metadata,
            public_key,
        } = item;
        no_encryption(&format!("vectors[{index}].public_key"), public_key)?;
        drafts.push(Draft::new(id, MadeOf::Numbers(data), metadata));
    }
    upsert(&api, &share, "vectors", request.atomic, collection, drafts).await
}

/// `path` names the list in the request.
async fn upsert(
    api: &Api,
    share: &Share,
    path: &str,
    atomic: bool,
    collection: Arc<Collection>,
    drafts: Vec<Draft>,
) -> Result<(Failed, Written<BatchInserted>), Refusal> {
    let name = collection.name().to_owned();
    let (items, puts) = encode(api, share, collection, drafts).await?;
    let write = |_| WriteRequest::Puts(puts);
    let settled = settle(api, path, atomic, items, write).await?;
    let failures = settled.failures();
    let answer = Written {
        position: settled.position,
        body: BatchInserted {
            collection: name,
            inserted: settled.done,
            failed: settled.failed,
            count: settled.results.len(),
            results: settled.results,
        },
    };
    Ok((failures, answer))
}

/// Drafts become log records: texts are embedded, and each is good or bad for itself. More than one entry of the log
/// holds is refused before anything is done.
async fn encode(
    api: &Api,
    share: &Share,
    collection: Arc<Collection>,
    drafts: Vec<Draft>,
) -> Result<(Vec<Item<()>>, EncodedPuts), Refusal> {
    let dimension = collection.config().dimension;
    let least = drafts
        .iter()
        .map(|draft| draft.least_bytes(dimension))
        .sum();
    if least > MAX_BATCH_BYTES {
        return Err(too_large(least).into());
    }
    let payloads = drafts.iter().flat_map(|draft| &draft.payload);
    let bytes = (least + payloads.map(Object::len).sum::<usize>()).min(MAX_BATCH_BYTES);
    let texts = drafts.iter().map(|draft| draft.text().map_or(0, str::len));
    let words = texts.max().unwrap_or(0);
    let ids = drafts
        .iter()
        .map(|draft| (draft.id.as_str(), draft.client_id.as_deref()));
    share.take(bytes + words * PER_TEXT_BYTE + Item::<()>::cost(ids))?;
    if words == 0 && bytes <= LARGE {
        let encoded = encode_all(&*api.0.embedder, &collection, drafts, bytes, &Never);
        return encoded.map_err(Refusal::from);
    }
    let encoded = compute(api, share, move |api, cancel| {
        encode_all(&*api.0.embedder, &collection, drafts, bytes, cancel)
    });
    encoded.await
}

fn encode_all(
    embedder: &dyn Embedder,
    collection: &Collection,
    drafts: Vec<Draft>,
    bytes: usize,
    cancel: &dyn Cancel,
) -> Result<(Vec<Item<()>>, EncodedPuts), ApiError> {
    let mut puts = Puts::new(collection, bytes);
    let mut outcomes = Vec::with_capacity(drafts.len());
    for draft in &drafts {
        cancel.check()?;
        outcomes.push(draft.encode(embedder, collection, &mut puts, cancel)?);
    }
    let puts = puts.finish();
    let items = drafts.into_iter().zip(outcomes).map(|(draft, item)| Item {
        id: draft.id,
        client_id: draft.client_id,
        item,
    });
    Ok((items.collect(), puts))
}

impl Draft {
    /// With an id, if it has none.
    fn new(client_id: Option<String>, made_of: MadeOf, payload: Option<Object>) -> Self {
        Draft {
            id: client_id
                .clone()
                .unwrap_or_else(|| Uuid::new_v4().to_string()),
            client_id,
            made_of,
            payload,
        }
    }

    fn of_text(TextItem { id, text, metadata }: TextItem<Object>) -> Self {
        Draft::new(id, MadeOf::Text(text), metadata)
    }

    fn text(&self) -> Option<&str> {
        match &self.made_of {
            MadeOf::Text(text) => Some(text),
            MadeOf::Numbers(_) => None,
        }
    }

    /// Bytes that its record takes at least, if it is good.
    fn least_bytes(&self, dimension: usize) -> usize {
        match &self.made_of {
            MadeOf::Numbers(numbers) if numbers.len() != dimension => 0,
            MadeOf::Numbers(_) => put_len(self.id.len(), dimension * 4, b"{}".len()),
            MadeOf::Text(text) => put_len(self.id.len(), dimension * 4, text.len()),
        }
    }

    /// Adds it to `puts`. The outer error refuses the whole batch.
    fn encode<'a>(
        &'a self,
        embedder: &dyn Embedder,
        collection: &Collection,
        puts: &mut Puts<'a>,
        cancel: &dyn Cancel,
    ) -> Result<Result<(), ApiError>, ApiError> {
        let given = self.payload.as_ref();
        let payload = match &self.made_of {
            MadeOf::Numbers(_) => {
                given.map_or(Ok(b"{}".to_vec()), |object| object.checked("metadata"))
            }
            MadeOf::Text(text) if text.trim().is_empty() => {
                Err(invalid("text", "is empty: expected a text"))
            }
            MadeOf::Text(text) => Object::with_text(given, text),
        };
        let payload = match payload {
            Ok(payload) => payload,
            Err(error) => return Ok(Err(error)),
        };
        let embedded;
        let numbers = match &self.made_of {
            MadeOf::Numbers(numbers) => numbers,
            MadeOf::Text(text) => {
                embedded = embedder.embed(text, collection.config().dimension, cancel)?;
                &embedded
            }
        };
        match puts.push(&self.id, Numbers::Floats(numbers), &payload) {
            Ok(()) => Ok(Ok(())),
            Err(PutError::Bad { message, .. }) => {
                Ok(Err(ApiError::new(ErrorCode::InvalidRequest, message)))
            }
            Err(PutError::Full(error)) => Err(error),
        }
    }
}

fn no_encryption(path: &str, key: Option<Present>) -> Result<(), Refusal> {
    match key {
        None => Ok(()),
        Some(Present) => Err(Refusal::invalid(
            path,
            "payloads are not encrypted by this node: leave it out, or encrypt before sending",
        )),
    }
}
