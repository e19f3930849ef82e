//! How a body is written: JSON in UTF-8, and not compressed. Anything else is named in the refusal, rather than called
//! broken JSON.

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use vectorizer_api::error::{ApiError, ErrorCode};

/// What some programs put before UTF-8 to mark it as such.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Refuses a body whose headers say that it cannot be read, before it is.
pub(super) fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let encoding = String::from_utf8_lossy(value.as_bytes());
        if !encoding.trim().eq_ignore_ascii_case("identity") {
            return Err(unsupported(format!(
                "the body is compressed (Content-Encoding: {encoding}): send it as it is"
            )));
        }
    }
    match charset(headers) {
        Some(charset) if !["utf-8", "utf8", "us-ascii"].contains(&charset.as_str()) => Err(
            unsupported(format!("the body is in `{charset}`: send it in UTF-8")),
        ),
        Some(_) | None => Ok(()),
    }
}

fn charset(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let parameters = kind.split(';').skip(1);
    let charset = parameters.filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_charset = name.trim().eq_ignore_ascii_case("charset");
        is_charset.then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    });
    charset.last()
}

/// A JSON body without the mark before it; any other body as it is.
pub(super) fn text(headers: &HeaderMap, bytes: Bytes) -> Result<Bytes, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE);
    let is_json = kind.is_none_or(|kind| {
        let kind = String::from_utf8_lossy(kind.as_bytes());
        kind.to_ascii_lowercase().contains("json")
    });
    if !is_json {
        return Ok(bytes);
    }
    let wide = match &bytes[..bytes.len().min(4)] {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 0, 0xfe, 0xff] => true,
        // Without a mark: no JSON has a zero byte among its first two, unless its letters are wider.
        [0, _, ..] | [_, 0, ..] => true,
        _ => false,
    };
    if wide {
        return Err(unsupported(
            "the body is in UTF-16 or UTF-32: send it in UTF-8",
        ));
    }
    Ok(if bytes.starts_with(MARK) {
        bytes.slice(MARK.len()..)
    } else {
        bytes
    })
}

fn unsupported(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::UnsupportedMediaType, message)
}
