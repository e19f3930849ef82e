//! `POST /collections/{name}/bulk`: a binary body becomes log records in one pass, beside the writer's thread, which
//! then only has to append them. A body is written whole or not at all. The layout is in `vectorizer_api::data`.

use std::collections::HashSet;

use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use vectorizer_api::data::{BULK_CONTENT_TYPE, BulkError, BulkInserted, BulkReader, Payload};
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_replication::batch::HEADER_LEN;

use super::{MAX_DEPTH, find, is_shallow};
use crate::http::Api;
use crate::http::answer::{Refusal, Written, invalid};
use crate::http::body::{At, LARGE};
use crate::http::writes::carry_out;
use crate::store::{Collection, encode_put, put_len, validate_id};
use crate::writer::{EncodedPuts, WriteRequest};

/// A bulk body.
pub(in crate::http) struct BulkInput(Bytes);

impl FromRequest<Api> for BulkInput {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Refusal> {
        is_bulk(request.headers())?;
        // The guard has read and measured it.
        let bytes = axum::body::to_bytes(request.into_body(), usize::MAX).await;
        let bytes = bytes.map_err(|e| Refusal::new(ErrorCode::InvalidRequest, e.to_string()))?;
        Ok(BulkInput(bytes))
    }
}

fn is_bulk(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map_or("", |value| value.to_str().unwrap_or("not text"));
    if kind.trim().eq_ignore_ascii_case(BULK_CONTENT_TYPE) {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::InvalidRequest,
        format!("the content type is `{kind}`: expected `{BULK_CONTENT_TYPE}`"),
    ))
}

/// `POST /collections/{name}/bulk`.
pub(in crate::http) async fn bulk(
    State(api): State<Api>,
    At(name): At<String>,
    BulkInput(body): BulkInput,
) -> Result<Written<BulkInserted>, Refusal> {
    let collection = find(&api, &name)?;
    let puts = if body.len() > LARGE {
        tokio::task::spawn_blocking(move || encode(&collection, &body))
            .await
            .map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?
    } else {
        encode(&collection, &body)
    };
    let puts = puts?;
    let inserted = puts.count as usize;
    let reply = carry_out(&api, WriteRequest::Puts(puts)).await?;
    Ok(Written {
        position: reply.position,
        body: BulkInserted { inserted },
    })
}

/// Checks a body and encodes it as log records.
fn encode(collection: &Collection, body: &[u8]) -> Result<EncodedPuts, ApiError> {
    let refuse = |error: BulkError| nothing_changed(&error.path, error.message);
    let reader = BulkReader::new(body).map_err(refuse)?;
    let dimension = collection.config().dimension;
    if reader.dimension() as usize != dimension {
        let message = format!(
            "the vectors have {} numbers; the collection's dimension is {dimension}",
            reader.dimension()
        );
        return Err(nothing_changed("header", message));
    }
    let count = reader.records();
    // What a record takes in the log beyond what it takes in the body. The count is not believed before it is seen.
    let most = body.len() / (dimension * 4);
    let beyond = put_len(0, 0, EMPTY.len()) * most.min(count as usize);
    let mut records = BytesMut::with_capacity(HEADER_LEN + body.len() + beyond);
    records.resize(HEADER_LEN, 0);
    let mut seen = HashSet::with_capacity(most.min(count as usize));
    for (index, record) in reader.enumerate() {
        let record = record.map_err(refuse)?;
        let wrong = |field: &str, message: String| {
            Err(nothing_changed(
                &format!("records[{index}].{field}"),
                message,
            ))
        };
        if let Err(error) = validate_id(record.id) {
            return wrong("id", error.to_string());
        }
        if !seen.insert(record.id) {
            let message = "this id occurs earlier in the same body; send each id once";
            return wrong("id", message.to_owned());
        }
        if let Some(at) = not_finite(record.vector) {
            let message = format!("number {at} is not finite; only finite numbers are allowed");
            return wrong("vector", message);
        }
        let payload = match record.payload {
            b"" => EMPTY,
            EMPTY => EMPTY,
            other => match check_payload(other) {
                Ok(()) => other,
                Err(message) => return wrong("payload", message),
            },
        };
        encode_put(
            &mut records,
            collection.incarnation(),
            record.id,
            record.vector,
            payload,
        );
    }
    Ok(EncodedPuts {
        collection: collection.name().to_owned(),
        incarnation: collection.incarnation(),
        count,
        records,
    })
}

/// A payload without keys, as it is kept.
const EMPTY: &[u8] = b"{}";

fn nothing_changed(path: &str, message: String) -> ApiError {
    invalid(path, format!("{message}; nothing was changed"))
}

/// The first number that is infinite or none at all.
fn not_finite(vector: &[u8]) -> Option<usize> {
    let (numbers, _) = vector.as_chunks::<4>();
    let finite = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes).is_finite();
    // All of them first, without leaving the loop: in this form the compiler compares many at once.
    if numbers.iter().fold(true, |all, n| all & finite(n)) {
        return None;
    }
    numbers.iter().position(|n| !finite(n))
}

fn check_payload(bytes: &[u8]) -> Result<(), String> {
    // A list would be taken for a map without this.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err("expected a JSON object".to_owned());
    }
    let payload: Payload = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if is_shallow(&payload) {
        Ok(())
    } else {
        Err(format!("nested deeper than {MAX_DEPTH} levels"))
    }
}
