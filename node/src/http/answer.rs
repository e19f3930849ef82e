//! Answers: JSON bodies, errors, and the position of a write in its header.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use vectorizer_api::POSITION_HEADER;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_replication::position::Position;

use crate::writer::WriteError;

/// Why a request has no other answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Refusal {
    /// An error for the client.
    Api(ApiError),
    /// Writes are held because another node takes over: the request waits and is tried again.
    HandingOver,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Refusal::Api(ApiError::new(code, message))
    }

    /// A bad value at `path` of the request.
    pub(super) fn invalid(path: &str, message: impl std::fmt::Display) -> Self {
        Refusal::Api(invalid(path, message))
    }
}

/// A bad value at `path` of the request.
pub(super) fn invalid(path: &str, message: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, format!("{path}: {message}"))
        .with_details(serde_json::json!({ "path": path }))
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Refusal::Api(error)
    }
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Api(error) => Refusal::Api(error),
            WriteError::HandingOver => Refusal::HandingOver,
        }
    }
}

/// Marks the answer to a write that was held and has to be tried again.
#[derive(Clone, Copy)]
pub(super) struct Held;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Api(error) => refuse(&error),
            Refusal::HandingOver => {
                let mut answer = refuse(&ApiError::new(
                    ErrorCode::Fenced,
                    "another node is about to take over as master; send the request again",
                ));
                answer.extensions_mut().insert(Held);
                answer
            }
        }
    }
}

/// The answer that an error is.
pub(super) fn refuse(error: &ApiError) -> Response {
    let code = error.error_type;
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = (status, Json(error)).into_response();
    answer.extensions_mut().insert(code);
    if let ErrorCode::NotMaster | ErrorCode::Fenced | ErrorCode::Unavailable = code {
        // Behind a Service, the client's next connection leads to whoever can answer; this one would lead here for ever.
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    match code {
        ErrorCode::TooManyRequests
        | ErrorCode::Fenced
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::Unavailable => {
            let soon = HeaderValue::from_static("1");
            answer.headers_mut().insert(header::RETRY_AFTER, soon);
        }
        ErrorCode::Unauthenticated => {
            let scheme = HeaderValue::from_static("Bearer");
            answer
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        ErrorCode::InvalidRequest
        | ErrorCode::Forbidden
        | ErrorCode::EndpointNotFound
        | ErrorCode::MethodNotAllowed
        | ErrorCode::CollectionNotFound
        | ErrorCode::VectorNotFound
        | ErrorCode::ReplicaNotFound
        | ErrorCode::CollectionExists
        | ErrorCode::Conflict
        | ErrorCode::PayloadTooLarge
        | ErrorCode::NotMaster
        | ErrorCode::DiskFull
        | ErrorCode::OutcomeUnknown
        | ErrorCode::Internal => {}
    }
    answer
}

/// The answer to a write: its position stands in the header.
pub(super) struct Written<T> {
    pub position: Position,
    pub body: T,
}

impl<T: Serialize> IntoResponse for Written<T> {
    fn into_response(self) -> Response {
        let mut answer = Json(self.body).into_response();
        if let Ok(value) = HeaderValue::from_str(&self.position.to_string()) {
            answer.headers_mut().insert(POSITION_HEADER, value);
        }
        answer
    }
}
