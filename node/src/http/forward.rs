//! A write passed on to the new master: the client's own request, with the client's own credential, marked so that it is
//! passed on once only.

use axum::body::{Body, Bytes};
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_api::{ACKS_HEADER, FAILED_HEADER, FORWARDED_HEADER, POSITION_HEADER, ROLE_HEADER};

use super::Api;
use super::answer::refuse;

/// Headers of the request that are passed on.
const ASKED: [HeaderName; 4] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static(ACKS_HEADER),
];
/// Headers of the answer that are passed back.
const ANSWERED: [HeaderName; 5] = [
    CONTENT_TYPE,
    RETRY_AFTER,
    HeaderName::from_static(ROLE_HEADER),
    HeaderName::from_static(POSITION_HEADER),
    HeaderName::from_static(FAILED_HEADER),
];

/// What became of a forwarded write.
pub(super) enum Forwarded {
    /// The answer for the client.
    Answered(Response),
    /// No connection could be made, or that node is master no more: nothing happened, and it can be tried again.
    NotTaken,
}

/// Sends a write to the REST API at `url` and relays the answer.
pub(super) async fn forward(api: &Api, url: &str, parts: &Parts, bytes: Bytes) -> Forwarded {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = api
        .0
        .forwarder
        .request(parts.method.clone(), format!("{url}{path}"))
        .timeout(api.config.server.request_timeout)
        .header(FORWARDED_HEADER, "1")
        .body(bytes);
    for name in ASKED {
        if let Some(value) = parts.headers.get(&name) {
            request = request.header(name, value);
        }
    }
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) if error.is_connect() || error.is_builder() => {
            tracing::debug!(%error, url, "the new master cannot be reached yet");
            return Forwarded::NotTaken;
        }
        Err(error) => return Forwarded::Answered(lost(url, &error)),
    };
    if answer.status().as_u16() == ErrorCode::NotMaster.status() {
        tracing::debug!(url, "the new master is master no more");
        return Forwarded::NotTaken;
    }
    let mut relayed = Response::new(Body::empty());
    // The client's next connection finds the new master through the Service, before this node stops forwarding.
    relayed
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    *relayed.status_mut() =
        StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    for name in ANSWERED {
        if let Some(value) = answer.headers().get(&name) {
            relayed.headers_mut().insert(name, value.clone());
        }
    }
    match answer.bytes().await {
        Ok(bytes) => *relayed.body_mut() = Body::from(bytes),
        Err(error) => return Forwarded::Answered(lost(url, &error)),
    }
    Forwarded::Answered(relayed)
}

fn lost(url: &str, error: &reqwest::Error) -> Response {
    tracing::warn!(%error, url, "a forwarded write has no answer");
    refuse(&ApiError::new(
        ErrorCode::OutcomeUnknown,
        format!(
            "the write was passed on to the new master at {url}, which did not confirm it: it may or may not survive, read it back"
        ),
    ))
}
