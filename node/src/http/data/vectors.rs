//! Vectors: read, changed, deleted.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use vectorizer_api::data::{
    BatchDelete, BatchDeleted, BatchUpdate, BatchUpdated, ListVectors, MAX_BATCH_BYTES, UpdateItem,
    UpdateVector, VectorDeleted, VectorUpdated,
};
use vectorizer_api::error::{ApiError, ErrorCode};

use super::batch::{Failed, Item, not_empty, settle};
use super::find;
use super::text::{Object, Shown, WithoutText};
use crate::http::Api;
use crate::http::answer::{Answer, Refusal, Written, invalid};
use crate::http::body::{Asked, At, Input};
use crate::http::budget::Share;
use crate::http::compute::compute;
use crate::http::writes::carry_out;
use crate::store::{Cancel, Collection, VectorRecord, put_len};
use crate::writer::{self, WriteRequest, too_large};

/// Vectors on one page, at most.
const MAX_PAGE: usize = 1000;

/// `GET /collections/{name}/vectors`.
pub(in crate::http) async fn list_vectors(
    State(api): State<Api>,
    share: Share,
    At(name): At<String>,
    Asked(page): Asked<ListVectors>,
) -> Result<Response, Refusal> {
    let limit = page.limit.unwrap_or(10);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Refusal::invalid(
            "limit",
            format!("{limit} is not allowed: expected 1 to {MAX_PAGE}"),
        ));
    }
    let from = match (page.after, page.offset) {
        (Some(_), Some(_)) => {
            return Err(Refusal::invalid(
                "offset",
                "stands beside `after`: send one of the two",
            ));
        }
        (Some(after), None) => From::After(after),
        (None, offset) => From::Offset(offset.unwrap_or(0)),
    };
    let collection = find(&api, &name)?;
    let of_page = share.clone();
    let page = compute(&api, &share, move |_, cancel| {
        write_page(&collection, limit, from, &of_page, cancel)
    });
    page.await
}

/// Where a page begins.
enum From {
    /// Behind so many vectors.
    Offset(usize),
    /// Behind this id.
    After(String),
}

/// A page, one vector after the other. One that is asked for by `after` ends where the answer would become too large.
fn write_page(
    collection: &Collection,
    limit: usize,
    from: From,
    share: &Share,
    cancel: &dyn Cancel,
) -> Result<Response, ApiError> {
    let (ids, offset) = match &from {
        From::Offset(offset) => {
            let all = usize::try_from(collection.count()).unwrap_or(usize::MAX);
            share.take(all.saturating_mul(size_of::<Arc<str>>()))?;
            (collection.ids(limit, *offset, cancel)?, *offset)
        }
        From::After(after) => (collection.ids_after(after, limit, cancel)?, 0),
    };
    let goes_on = matches!(from, From::After(_));
    let mut page = Answer::new(share);
    page.text("{\"vectors\":[")?;
    let mut last: Option<&str> = None;
    let mut shown = 0;
    let mut full = ids.len() == limit;
    for id in &ids {
        cancel.check()?;
        // What was deleted meanwhile is left out.
        let Some(record) = collection.get(id) else {
            last = Some(id);
            continue;
        };
        // A number has at most 15 letters and a comma; the payload stands there twice.
        let bytes =
            1024 + 16 * record.vector.len() + 2 * (record.payload.len() + 3 * record.id.len());
        if shown == 0 {
            // One is always answered.
            page.allow(bytes);
        } else if goes_on && bytes > page.left() {
            full = true;
            break;
        } else {
            page.text(",")?;
        }
        page.put(&ShownVector::in_list(&record))
            .map_err(page_too_large)?;
        last = Some(id);
        shown += 1;
    }
    let total = collection.count();
    page.text(&format!(
        "],\"total\":{total},\"limit\":{limit},\"offset\":{offset}"
    ))?;
    if let (true, Some(last)) = (goes_on && full, last) {
        page.text(",\"next\":")?;
        page.put(last)?;
    }
    page.text("}")?;
    Ok(page.finish())
}

fn page_too_large(mut error: ApiError) -> ApiError {
    if error.error_type == ErrorCode::InvalidRequest {
        error.message += ", or send `after`, empty for the first page: such a page ends where it is full, and says in `next` where the following one begins";
    }
    error
}

/// `GET /collections/{name}/vectors/{id}`.
pub(in crate::http) async fn get_vector(
    State(api): State<Api>,
    share: Share,
    At((name, id)): At<(String, String)>,
) -> Result<Response, Refusal> {
    let record = find(&api, &name)?.get(&id).ok_or_else(|| {
        Refusal::new(
            ErrorCode::VectorNotFound,
            format!("there is no vector `{id}` in collection `{name}`"),
        )
    })?;
    let mut answer = Answer::new(&share);
    // One vector is always answered.
    answer.allow(usize::MAX);
    answer.put(&ShownVector::alone(&record))?;
    Ok(answer.finish())
}

/// [`vectorizer_api::data::Vector`], written from where it stands.
#[derive(Serialize)]
struct ShownVector<'a> {
    id: &'a str,
    vector: &'a [f32],
    #[serde(skip_serializing_if = "<[f32]>::is_empty")]
    data: &'a [f32],
    payload: Shown<'a>,
    metadata: WithoutText<'a>,
}

impl<'a> ShownVector<'a> {
    fn in_list(record: &'a VectorRecord) -> Self {
        ShownVector {
            id: &record.id,
            vector: &record.vector,
            data: &[],
            payload: Shown(&record.payload),
            metadata: WithoutText(&record.payload),
        }
    }

    fn alone(record: &'a VectorRecord) -> Self {
        ShownVector {
            data: &record.vector,
            ..ShownVector::in_list(record)
        }
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
    Input(request): Input<UpdateVector<Object>>,
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
    share: Share,
    Input(request): Input<BatchUpdate<Object>>,
) -> Result<(Failed, Written<BatchUpdated>), Refusal> {
    let BatchUpdate {
        collection,
        updates,
        atomic,
    } = request;
    not_empty("updates", &updates)?;
    let items: Vec<_> = updates
        .into_iter()
        .map(|item| {
            let UpdateItem {
                id,
                vector,
                payload,
                metadata,
            } = item;
            change(id, vector, payload, metadata)
        })
        .collect();
    fits(&share, &*find(&api, &collection)?, &items)?;
    let write = |items| WriteRequest::Update {
        collection: collection.clone(),
        items,
        atomic,
    };
    let settled = settle(&api, "updates", atomic, items, write).await?;
    let failures = settled.failures();
    let answer = Written {
        position: settled.position,
        body: BatchUpdated {
            collection,
            count: settled.results.len(),
            updated: settled.done,
            failed: settled.failed,
            results: settled.results,
        },
    };
    Ok((failures, answer))
}

/// `POST /batch_delete`.
pub(in crate::http) async fn batch_delete(
    State(api): State<Api>,
    share: Share,
    Input(request): Input<BatchDelete>,
) -> Result<(Failed, Written<BatchDeleted>), Refusal> {
    let BatchDelete {
        collection,
        ids,
        atomic,
    } = request;
    not_empty("ids", &ids)?;
    share.take(Item::<()>::cost(ids.iter().map(|id| (id.as_str(), None))))?;
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
    let failures = settled.failures();
    let answer = Written {
        position: settled.position,
        body: BatchDeleted {
            collection,
            count: settled.results.len(),
            deleted: settled.done,
            failed: settled.failed,
            results: settled.results,
        },
    };
    Ok((failures, answer))
}

/// Whether one entry of the log may hold what becomes of these vectors: an update writes the whole record again.
fn fits(
    share: &Share,
    collection: &Collection,
    items: &[Item<writer::UpdateItem>],
) -> Result<(), ApiError> {
    let mut least = 0;
    for item in items.iter().flat_map(|item| &item.item) {
        let Some(old) = collection.record_len(&item.id) else {
            continue;
        };
        least += match item.payload {
            None => old,
            // Of the old payload there may be nothing left.
            Some(_) => put_len(item.id.len(), collection.config().dimension * 4, 0),
        };
        if least > MAX_BATCH_BYTES {
            return Err(too_large(least));
        }
    }
    let ids = items.iter().map(|item| (item.id.as_str(), None));
    share.take(MAX_BATCH_BYTES.min(2 * least) + Item::<()>::cost(ids))
}

fn change(
    id: String,
    vector: Option<Vec<f32>>,
    payload: Option<Object>,
    metadata: Option<Object>,
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
        (one, other) => {
            let changes = one.or(other).map(|changes| changes.checked("payload"));
            changes.transpose().map(|payload| writer::UpdateItem {
                id: id.clone(),
                vector,
                payload: payload.map(Bytes::from),
            })
        }
    };
    Item {
        id,
        client_id: None,
        item,
    }
}
