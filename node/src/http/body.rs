//! What requests carry: JSON bodies, path segments, query strings. A refusal names the place of the bad value.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::BytesMut;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use vectorizer_api::data::is_too_much;
use vectorizer_api::error::{ApiError, ErrorCode};

use super::Api;
use super::answer::{Refusal, invalid};
use super::budget::Share;
use super::compute::compute;

/// Bodies above this many bytes are parsed beside the threads that serve everybody else.
pub(super) const LARGE: usize = 256 << 10;

/// Reads a body of at most `limit` bytes that arrives within `time`; it counts for its request's share as it comes.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    (limit, time): (usize, Duration),
    share: Option<&Share>,
) -> Result<Bytes, ApiError> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    let announced = announced.and_then(|length| usize::try_from(length).ok());
    let read = tokio::time::timeout(time, read_all(body, limit, announced.unwrap_or(0), share));
    read.await.unwrap_or_else(|_| {
        Err(ApiError::new(
            ErrorCode::RequestTimeout,
            format!("the body did not arrive within {} s", time.as_secs()),
        ))
    })
}

async fn read_all(
    body: Body,
    limit: usize,
    announced: usize,
    share: Option<&Share>,
) -> Result<Bytes, ApiError> {
    let mut chunks = body.into_data_stream();
    // Of the system's memory, a large body takes only what has come: what is announced is not touched.
    let mut all = BytesMut::with_capacity(announced);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::new(
                ErrorCode::InvalidRequest,
                format!("the body broke off: {error}"),
            )
        })?;
        if all.len() + chunk.len() > limit {
            return Err(too_large(limit));
        }
        if let Some(share) = share {
            share.take(chunk.len())?;
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(
        ErrorCode::PayloadTooLarge,
        format!("the body is larger than {limit} bytes: send it in parts"),
    )
}

/// A JSON body. An empty one is the empty object.
pub(super) struct Input<T>(pub T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Api> for Input<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Refusal> {
        is_json(request.headers())?;
        let share = request.extensions().get::<Share>().cloned();
        // The guard has read and measured it.
        let bytes = axum::body::to_bytes(request.into_body(), usize::MAX)
            .await
            .map_err(|error| Refusal::new(ErrorCode::InvalidRequest, error.to_string()))?;
        let parsed = match share {
            Some(share) if bytes.len() > LARGE => {
                // What is kept of it as text.
                share.take(bytes.len())?;
                compute(api, &share, move |_, _| parse(&bytes)).await?
            }
            Some(_) | None => parse(&bytes)?,
        };
        Ok(Input(parsed))
    }
}

fn is_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let kind = value.to_str().unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let json = essence.eq_ignore_ascii_case("application/json")
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if json {
        Ok(())
    } else {
        Err(ApiError::new(
            ErrorCode::UnsupportedMediaType,
            format!("the content type is `{kind}`: expected `application/json`"),
        ))
    }
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let bytes = match bytes.trim_ascii_start().first() {
        None => b"{}",
        Some(b'{') => bytes,
        // A list in the order of the fields would be taken as well.
        Some(_) => return Err(invalid("body", "expected a JSON object")),
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let text = error.inner().to_string();
        // What is missing is named where it would be.
        let missing = text.strip_prefix("missing field `");
        let missing = missing.and_then(|rest| rest.split_once('`'));
        let path = match (path.as_str(), missing) {
            (".", None) => "body".to_owned(),
            (".", Some((field, _))) => field.to_owned(),
            (_, Some((field, _))) => format!("{path}.{field}"),
            (_, None) => path,
        };
        let mut error = invalid(&path, &text);
        if is_too_much(&text) {
            error.error_type = ErrorCode::PayloadTooLarge;
            error.status_code = error.error_type.status();
        }
        error
    })?;
    reader.end().map_err(|error| invalid("body", error))?;
    Ok(value)
}

/// The segments of the path that the endpoint names.
pub(super) struct At<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for At<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
        match Path::from_request_parts(parts, api).await {
            Ok(Path(segments)) => Ok(At(segments)),
            Err(error) => Err(Refusal::invalid("path", error.body_text())),
        }
    }
}

/// The query string.
pub(super) struct Asked<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Refusal> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(Asked(query)),
            Err(error) => Err(Refusal::invalid("query", error.body_text())),
        }
    }
}
