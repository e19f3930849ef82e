//! What requests carry: JSON bodies, path segments, query strings. A refusal names the place of the bad value.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use vectorizer_api::error::{ApiError, ErrorCode};

use super::Api;
use super::answer::{Refusal, invalid};

/// Bodies above this many bytes are parsed beside the threads that serve everybody else.
const LARGE: usize = 256 << 10;

/// Reads a body, bounded in size and time.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    time: Duration,
) -> Result<Bytes, ApiError> {
    let too_large = || {
        ApiError::new(
            ErrorCode::PayloadTooLarge,
            format!(
                "the body is larger than {limit} bytes (server.max_body_bytes): send it in parts"
            ),
        )
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(time, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let source = std::error::Error::source(&error);
            if source.is_some_and(|s| s.is::<http_body_util::LengthLimitError>()) {
                Err(too_large())
            } else {
                Err(ApiError::new(
                    ErrorCode::InvalidRequest,
                    format!("the body broke off: {error}"),
                ))
            }
        }
        Err(_) => Err(ApiError::new(
            ErrorCode::InvalidRequest,
            format!("the body did not arrive within {} s", time.as_secs()),
        )),
    }
}

/// A JSON body. An empty one is the empty object.
pub(super) struct Input<T>(pub T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Api> for Input<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Refusal> {
        is_json(request.headers())?;
        // The guard has read and measured it.
        let bytes = axum::body::to_bytes(request.into_body(), usize::MAX)
            .await
            .map_err(|error| Refusal::new(ErrorCode::InvalidRequest, error.to_string()))?;
        let parsed = if bytes.len() > LARGE {
            tokio::task::spawn_blocking(move || parse(&bytes))
                .await
                .map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?
        } else {
            parse(&bytes)
        };
        Ok(Input(parsed?))
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
            ErrorCode::InvalidRequest,
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
        let path = if path == "." { "body" } else { &path };
        invalid(path, error.inner())
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
