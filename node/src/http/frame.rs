//! What is around every request: the headers of the answer, metrics, what the log says of refusals, and a handler that
//! panics.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_api::{POSITION_HEADER, ROLE_HEADER};

use super::Api;
use super::answer::refuse;
use super::endpoint::Rule;
use super::refusals::Why;

/// Serves one request.
pub(super) async fn frame(State(api): State<Api>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let _counted = api.0.metrics.request_begun();
    // Before the handler reads: the position says what the answer has seen at least.
    let applied = api.store.applied();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut answer = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(answer) => answer,
        Err(_) => {
            tracing::error!(%method, path = uri.path(), "the handler panicked");
            refuse(&ApiError::new(
                ErrorCode::Internal,
                "a bug in the node; its log says more",
            ))
        }
    };
    let role = api.writer.state().borrow().role;
    let headers = answer.headers_mut();
    // A relayed answer carries those of the node that gave it.
    if !headers.contains_key(ROLE_HEADER) {
        headers.insert(ROLE_HEADER, HeaderValue::from_static(role.as_str()));
    }
    if !headers.contains_key(POSITION_HEADER)
        && let Ok(position) = HeaderValue::from_str(&applied.to_string())
    {
        headers.insert(POSITION_HEADER, position);
    }
    let rule = answer.extensions().get::<Rule>().copied();
    let path = rule.map_or("unmatched", |rule| rule.path);
    let error = answer.extensions().get::<ErrorCode>().copied();
    if let Some(code) = error {
        let why = answer.extensions().get::<Why>();
        api.0.refusals.note(code, rule, why);
    }
    let took = begun.elapsed();
    api.0
        .metrics
        .request_ended(path, answer.status().as_u16(), error, took);
    tracing::debug!(%method, path = uri.path(), status = answer.status().as_u16(), ?took, "answered");
    answer
}
