//! Answers: JSON bodies, errors, and the position of a write in its header.
//!
//! An answer that may be large is written in pieces, counted as it grows, and each piece is freed once it is sent.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use vectorizer_api::POSITION_HEADER;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_replication::position::Position;

use super::budget::{FREE, Share};
use super::refusals::Why;
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
    if matches!(code.status(), 429 | 500..) {
        answer.extensions_mut().insert(Why(error.message.clone()));
    }
    if let ErrorCode::NotMaster
    | ErrorCode::Fenced
    | ErrorCode::Unavailable
    | ErrorCode::RequestTimeout = code
    {
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
        | ErrorCode::RequestTimeout
        | ErrorCode::PayloadTooLarge
        | ErrorCode::UnsupportedMediaType
        | ErrorCode::NotMaster
        | ErrorCode::DiskFull
        | ErrorCode::MemoryFull
        | ErrorCode::OutcomeUnknown
        | ErrorCode::Internal => {}
    }
    answer
}

/// A JSON answer while it is written.
pub(super) struct Answer {
    pieces: Pieces,
    share: Option<Share>,
    most: usize,
    refused: Option<ApiError>,
}

impl Answer {
    /// Counted against the share of its request, and no larger than an answer may be.
    pub(super) fn new(share: &Share) -> Self {
        Answer {
            most: share.room().largest_answer(),
            share: Some(share.clone()),
            ..Answer::of_any_size()
        }
    }

    /// What has happened is told, and was counted before it did.
    fn of_any_size() -> Self {
        Answer {
            pieces: Pieces::default(),
            share: None,
            most: usize::MAX,
            refused: None,
        }
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.most.saturating_sub(self.pieces.bytes)
    }

    /// Lets it have so many bytes, as what comes now cannot be asked for in parts.
    pub(super) fn allow(&mut self, bytes: usize) {
        self.most = self.most.max(bytes);
    }

    /// That it would be larger than it may be.
    pub(super) fn too_large(&self) -> ApiError {
        invalid(
            "limit",
            format!(
                "the answer would be larger than {} bytes: ask for fewer at a time",
                self.most
            ),
        )
    }

    /// Adds a value. `Err` when the answer would be too large, or there is no room now.
    pub(super) fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ApiError> {
        serde_json::to_writer(&mut *self, value).map_err(|error| self.why(&error))
    }

    /// Adds text that is a part of JSON.
    pub(super) fn text(&mut self, text: &str) -> Result<(), ApiError> {
        io::Write::write_all(self, text.as_bytes()).map_err(|error| self.why(&error))
    }

    fn why(&mut self, error: &dyn std::fmt::Display) -> ApiError {
        let refused = self.refused.take();
        refused.unwrap_or_else(|| ApiError::new(ErrorCode::Internal, error.to_string()))
    }

    /// All of it.
    pub(super) fn finish(self) -> Response {
        let mut answer = Response::new(Body::new(self.pieces));
        let json = HeaderValue::from_static("application/json");
        answer.headers_mut().insert(header::CONTENT_TYPE, json);
        answer
    }
}

impl io::Write for Answer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.pieces.bytes + bytes.len();
        let refused = if length > self.most {
            Err(self.too_large())
        } else {
            let pieces = length.div_ceil(PIECE) - self.pieces.bytes.div_ceil(PIECE);
            let take = |share: &Share| share.take(pieces * PIECE);
            self.share
                .as_ref()
                .filter(|_| pieces > 0)
                .map_or(Ok(()), take)
        };
        if let Err(error) = refused {
            self.refused = Some(error);
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.pieces.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of a piece. The first of them costs a small answer nothing.
const PIECE: usize = FREE;

/// A body in pieces: all but the last are whole.
#[derive(Default)]
struct Pieces {
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Pieces {
    fn push(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len();
        while !bytes.is_empty() {
            let room = self.pieces.back().map_or(0, |piece| PIECE - piece.len());
            if room == 0 {
                // The first grows with what there is: most answers are small.
                let first = self.pieces.is_empty();
                let piece = Vec::with_capacity(if first { 0 } else { PIECE });
                self.pieces.push_back(piece);
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if let Some(piece) = self.pieces.back_mut() {
                piece.extend_from_slice(now);
            }
            bytes = later;
        }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(piece) = self.pieces.pop_front() else {
            return Poll::Ready(None);
        };
        self.bytes -= piece.len();
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes as u64)
    }
}

/// The answer to a write: its position stands in the header.
pub(super) struct Written<T> {
    pub position: Position,
    pub body: T,
}

impl<T: Serialize> IntoResponse for Written<T> {
    fn into_response(self) -> Response {
        let mut text = Answer::of_any_size();
        let mut answer = match text.put(&self.body) {
            Ok(()) => text.finish(),
            Err(error) => refuse(&error),
        };
        if let Ok(value) = HeaderValue::from_str(&self.position.to_string()) {
            answer.headers_mut().insert(POSITION_HEADER, value);
        }
        answer
    }
}
