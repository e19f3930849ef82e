//! Vectors: read, changed, deleted.

use axum::Json;
use axum::extract::State;
use vectorizer_api::data::{
    BatchDelete, BatchDeleted, BatchUpdate, BatchUpdated, ListVectors, Payload, UpdateItem,
    UpdateVector, Vector, VectorDeleted, VectorPage, VectorUpdated,
};
use vectorizer_api::error::{ApiError, ErrorCode};

use super::batch::{Item, not_empty, settle};
use super::{MAX_DEPTH, find, is_shallow, payload_of, split};
use crate::http::Api;
use crate::http::answer::{Refusal, Written, invalid};
use crate::http::body::{Asked, At, Input};
use crate::http::compute::compute;
use crate::http::writes::carry_out;
use crate::store::VectorRecord;
use crate::writer::{self, WriteRequest};

/// Vectors on one page, at most.
const MAX_PAGE: usize = 1000;

/// `GET /collections/{name}/vectors`.
pub(in crate::http) async fn list_vectors(
    State(api): State<Api>,
    At(name): At<String>,
    Asked(page): Asked<ListVectors>,
) -> Result<Json<VectorPage>, Refusal> {
    let limit = page.limit.unwrap_or(10);
    let offset = page.offset.unwrap_or(0);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Refusal::invalid(
            "limit",
            format!("{limit} is not allowed: expected 1 to {MAX_PAGE}"),
        ));
    }
    let collection = find(&api, &name)?;
    let page = compute(&api, move |_, cancel| {
        collection.list(limit, offset, cancel)
    })
    .await?;
    Ok(Json(VectorPage {
        vectors: page.records.into_iter().map(shown).collect(),
        total: usize::try_from(page.total).unwrap_or(usize::MAX),
        limit,
        offset,
    }))
}

/// `GET /collections/{name}/vectors/{id}`.
pub(in crate::http) async fn get_vector(
    State(api): State<Api>,
    At((name, id)): At<(String, String)>,
) -> Result<Json<Vector>, Refusal> {
    let record = find(&api, &name)?.get(&id).ok_or_else(|| {
        Refusal::new(
            ErrorCode::VectorNotFound,
            format!("there is no vector `{id}` in collection `{name}`"),
        )
    })?;
    let mut vector = shown(record);
    vector.data.clone_from(&vector.vector);
    Ok(Json(vector))
}

fn shown(record: VectorRecord) -> Vector {
    let payload = payload_of(&record.payload);
    let (_, metadata) = split(&payload);
    Vector {
        id: record.id,
        vector: record.vector,
        data: Vec::new(),
        payload,
        metadata,
    }
}

/// `DELETE /collections/{name}/vectors/{id}`.
pub(in crate::http) async fn delete_vector(
    State(api): State<Api>,
    At((collection, id)): At<(String, String)>,
) -> Result<Written<VectorDeleted>, Refusal> {
    let write = WriteRequest::Delete {
        collection: collection.clone(),
        ids: vec![id.clone()],
        atomic: false,
    };
    let reply = carry_out(&api, write).await?;
    for result in reply.results {
        result.outcome?;
    }
    Ok(Written {
        position: reply.position,
        body: VectorDeleted {
            message: "Vector deleted successfully".to_owned(),
            id,
            collection,
        },
    })
}

/// `POST /update`.
pub(in crate::http) async fn update_vector(
    State(api): State<Api>,
    Input(request): Input<UpdateVector>,
) -> Result<Written<VectorUpdated>, Refusal> {
    let UpdateVector {
        collection,
        id,
        metadata,
        payload,
        vector,
    } = request;
    let item = change(id.clone(), vector, payload, metadata).item?;
    let write = WriteRequest::Update {
        collection: collection.clone(),
        items: vec![item],
        atomic: false,
    };
    let reply = carry_out(&api, write).await?;
    for result in reply.results {
        result.outcome?;
    }
    Ok(Written {
        position: reply.position,
        body: VectorUpdated {
            message: "Vector updated successfully".to_owned(),
            id,
            collection,
        },
    })
}

/// `POST /batch_update`.
pub(in crate::http) async fn batch_update(
    State(api): State<Api>,
    Input(request): Input<BatchUpdate>,
) -> Result<Written<BatchUpdated>, Refusal> {
    let BatchUpdate {
        collection,
        updates,
        atomic,
    } = request;
    not_empty("updates", &updates)?;
    let items = updates.into_iter().map(|item| {
        let UpdateItem {
            id,
            vector,
            payload,
            metadata,
        } = item;
        change(id, vector, payload, metadata)
    });
    let write = |items| WriteRequest::Update {
        collection: collection.clone(),
        items,
        atomic,
    };
    let settled = settle(&api, "updates", atomic, items.collect(), write).await?;
    Ok(Written {
        position: settled.position,
        body: BatchUpdated {
            collection,
            count: settled.results.len(),
            updated: settled.done,
            failed: settled.failed,
            results: settled.results,
        },
    })
}

/// `POST /batch_delete`.
pub(in crate::http) async fn batch_delete(
    State(api): State<Api>,
    Input(request): Input<BatchDelete>,
) -> Result<Written<BatchDeleted>, Refusal> {
    let BatchDelete {
        collection,
        ids,
        atomic,
    } = request;
    not_empty("ids", &ids)?;
    let items = ids.into_iter().map(|id| Item {
        id: id.clone(),
        client_id: None,
        item: Ok(id),
    });
    let write = |ids| WriteRequest::Delete {
        collection: collection.clone(),
        ids,
        atomic,
    };
    let settled = settle(&api, "ids", atomic, items.collect(), write).await?;
    Ok(Written {
        position: settled.position,
        body: BatchDeleted {
            collection,
            count: settled.results.len(),
            deleted: settled.done,
            failed: settled.failed,
            results: settled.results,
        },
    })
}

fn change(
    id: String,
    vector: Option<Vec<f32>>,
    payload: Option<Payload>,
    metadata: Option<Payload>,
) -> Item<writer::UpdateItem> {
    let item = match (payload, metadata) {
        (Some(_), Some(_)) => Err(invalid(
            "metadata",
            "stands beside `payload`: send one of the two",
        )),
        (None, None) if vector.is_none() => Err(invalid(
            "vector",
            "nothing to change: expected `vector`, `payload` or `metadata`",
        )),
        (one, other) => merged(id.clone(), vector, one.or(other)),
    };
    Item {
        id,
        client_id: None,
        item,
    }
}

fn merged(
    id: String,
    vector: Option<Vec<f32>>,
    payload: Option<Payload>,
) -> Result<writer::UpdateItem, ApiError> {
    if payload.as_ref().is_none_or(is_shallow) {
        Ok(writer::UpdateItem {
            id,
            vector,
            payload,
        })
    } else {
        let message = format!("nested deeper than {MAX_DEPTH} levels");
        Err(invalid("payload", message))
    }
}
