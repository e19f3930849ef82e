//! Batches: each item is good or bad for itself. The good ones go to the writer as one log batch; with `atomic`, one bad
//! item refuses all.

use std::convert::Infallible;

use axum::response::{IntoResponseParts, ResponseParts};
use serde_json::json;
use vectorizer_api::FAILED_HEADER;
use vectorizer_api::data::{ItemOutcome, ItemStatus};
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_replication::position::Position;

use crate::http::Api;
use crate::http::answer::Refusal;
use crate::http::budget::PER_ITEM;
use crate::http::writes::carry_out;
use crate::writer::WriteRequest;

/// One item on its way to the writer.
pub(super) struct Item<T> {
    pub id: String,
    /// The id that the client gave, if it gave one.
    pub client_id: Option<String>,
    pub item: Result<T, ApiError>,
}

impl<T> Item<T> {
    /// Bytes that the outcomes of items with these ids take, here and in the answer: each id stands there up to three
    /// times, the last of them in what is wrong with it.
    pub(super) fn cost<'a>(ids: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> usize {
        ids.map(|(id, client_id)| {
            let given = client_id.map_or(0, str::len);
            PER_ITEM + 4 * id.len() + 2 * given
        })
        .sum()
    }
}

/// What became of a batch.
pub(super) struct Settled {
    pub position: Position,
    pub done: usize,
    pub failed: usize,
    pub results: Vec<ItemOutcome>,
}

/// Items of a batch that were refused, in the head of the answer: a batch is answered with 200 all the same.
pub(in crate::http) struct Failed(usize);

impl Settled {
    pub(super) fn failures(&self) -> Failed {
        Failed(self.failed)
    }
}

impl IntoResponseParts for Failed {
    type Error = Infallible;

    fn into_response_parts(self, mut answer: ResponseParts) -> Result<ResponseParts, Infallible> {
        if self.0 > 0 {
            answer.headers_mut().insert(FAILED_HEADER, self.0.into());
        }
        Ok(answer)
    }
}

/// Refuses an empty list at `path`.
pub(super) fn not_empty<T>(path: &str, items: &[T]) -> Result<(), Refusal> {
    if items.is_empty() {
        Err(Refusal::invalid(
            path,
            "is empty: expected at least one item",
        ))
    } else {
        Ok(())
    }
}

/// Carries out a batch. `path` names its list in the request.
pub(super) async fn settle<T>(
    api: &Api,
    path: &str,
    atomic: bool,
    items: Vec<Item<T>>,
    request: impl FnOnce(Vec<T>) -> WriteRequest,
) -> Result<Settled, Refusal> {
    let mut outcomes = Vec::with_capacity(items.len());
    let mut good = Vec::with_capacity(items.len());
    for (
        index,
        Item {
            id,
            client_id,
            item,
        },
    ) in items.into_iter().enumerate()
    {
        let outcome = match item {
            Ok(item) => {
                good.push(item);
                None
            }
            Err(error) if atomic => {
                return Err(Refusal::invalid(
                    &format!("{path}[{index}]"),
                    format!("`{id}`: {}; nothing was changed (atomic)", error.message),
                ));
            }
            Err(error) => Some(error),
        };
        outcomes.push((id, client_id, outcome));
    }
    let mut position = api.store.applied();
    let mut of_writer = Vec::new();
    if !good.is_empty() {
        let reply = carry_out(api, request(good)).await?;
        position = reply.position;
        of_writer = reply.results;
    }
    let mut of_writer = of_writer.into_iter();
    let mut settled = Settled {
        position,
        done: 0,
        failed: 0,
        results: Vec::with_capacity(outcomes.len()),
    };
    let mut first_error = None;
    let mut only_invalid = true;
    for (index, (id, client_id, refused)) in outcomes.into_iter().enumerate() {
        let error = match refused {
            Some(error) => Some(error),
            None => of_writer.next().and_then(|result| result.outcome.err()),
        };
        match &error {
            None => settled.done += 1,
            Some(error) => {
                settled.failed += 1;
                only_invalid &= error.error_type == ErrorCode::InvalidRequest;
                first_error.get_or_insert_with(|| (index, error.message.clone()));
            }
        }
        settled.results.push(ItemOutcome {
            id,
            status: match error {
                None => ItemStatus::Ok,
                Some(_) => ItemStatus::Error,
            },
            error: error.map(|error| error.message),
            index,
            client_id,
        });
    }
    match first_error {
        // Nothing of it made sense: who looks at the status only must not take it for done.
        Some((index, message)) if settled.done == 0 && only_invalid => {
            let place = format!("{path}[{index}]");
            Err(ApiError::new(
                ErrorCode::InvalidRequest,
                format!("{place}: {message}; nothing was changed"),
            )
            .with_details(json!({ "path": place, "results": settled.results }))
            .into())
        }
        Some(_) | None => Ok(settled),
    }
}
