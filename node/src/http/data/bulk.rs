//! `POST /collections/{name}/bulk`: a binary body becomes log records in one pass, beside the writer's thread, which
//! then only has to append them. A body is written whole or not at all. The layout is in `vectorizer_api::data`.

use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use vectorizer_api::data::{
    BULK_CONTENT_TYPE, BulkError, BulkInserted, BulkReader, MAX_BATCH_BYTES,
};
use vectorizer_api::error::{ApiError, ErrorCode};

use super::{find, text};
use crate::http::Api;
use crate::http::answer::{Refusal, Written, invalid};
use crate::http::body::{At, LARGE};
use crate::http::budget::Share;
use crate::http::compute::compute;
use crate::http::writes::carry_out;
use crate::store::{Cancel, Collection, Never, Numbers, put_len};
use crate::writer::{EncodedPuts, PutError, Puts, WriteRequest, too_large};

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
    share: Share,
    At(name): At<String>,
    BulkInput(body): BulkInput,
) -> Result<Written<BulkInserted>, Refusal> {
    let collection = find(&api, &name)?;
    if body.len() > MAX_BATCH_BYTES {
        // In the log it takes no less.
        return Err(too_large(body.len()).into());
    }
    let puts = if body.len() > LARGE {
        // The records, and which ids were seen.
        share.take(2 * body.len())?;
        compute(&api, &share, move |_, cancel| {
            encode(&collection, &body, cancel)
        })
        .await?
    } else {
        encode(&collection, &body, &Never)?
    };
    let inserted = puts.count as usize;
    let reply = carry_out(&api, WriteRequest::Puts(puts)).await?;
    Ok(Written {
        position: reply.position,
        body: BulkInserted { inserted },
    })
}

/// Checks a body and encodes it as log records.
fn encode(
    collection: &Collection,
    body: &[u8],
    cancel: &dyn Cancel,
) -> Result<EncodedPuts, ApiError> {
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
    // What a record takes in the log beyond what it takes in the body. The count is not believed before it is seen.
    let most = (body.len() / (dimension * 4)).min(reader.records() as usize);
    let mut puts = Puts::new(collection, body.len() + most * put_len(0, 0, b"{}".len()));
    for (index, record) in reader.enumerate() {
        cancel.check()?;
        let record = record.map_err(refuse)?;
        let wrong = |field: &str, message: String| {
            nothing_changed(&format!("records[{index}].{field}"), message)
        };
        let payload = match record.payload {
            b"" => b"{}",
            other => other,
        };
        check_payload(payload).map_err(|message| wrong("payload", message))?;
        let pushed = puts.push(record.id, Numbers::Bytes(record.vector), payload);
        pushed.map_err(|error| match error {
            PutError::Bad { field, message } => wrong(field, message),
            PutError::Full(error) => error,
        })?;
    }
    Ok(puts.finish())
}

fn nothing_changed(path: &str, message: String) -> ApiError {
    invalid(path, format!("{message}; nothing was changed"))
}

fn check_payload(bytes: &[u8]) -> Result<(), String> {
    // A list would be taken for a map without this.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err("expected a JSON object".to_owned());
    }
    if bytes == b"{}" {
        return Ok(());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    text::check_payload(text)
}
