//! A write passed on to the new master: the client's own request, with the client's own credential, marked so that it is
//! passed on once only.
//!
//! The request target goes on byte for byte as it came. Whoever parses it again, as URL libraries do, makes another path
//! of one with `..` or a backslash in it, and so another write.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, HeaderValue, Request, Uri};
use axum::response::Response;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
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

/// A connection to the new master is made within this time, or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections that are idle for longer are closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The client for forwarded writes.
pub(super) type Forwarder = Client<HttpConnector, Full<Bytes>>;

/// A client without connections yet.
pub(super) fn forwarder() -> Forwarder {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .build(connector)
}

/// What became of a forwarded write.
pub(super) enum Forwarded {
    /// The answer for the client.
    Answered(Response),
    /// No connection could be made, or that node is master no more: nothing happened, and it can be tried again.
    NotTaken,
}

/// Sends a write to the REST API at `url` and relays the answer.
pub(super) async fn forward(api: &Api, url: &str, parts: &Parts, bytes: Bytes) -> Forwarded {
    let request = match request(url, parts, bytes) {
        Ok(request) => request,
        Err(error) => {
            tracing::warn!(%error, url, "this is no place to pass writes on to");
            return Forwarded::NotTaken;
        }
    };
    let time = api.config.server.request_timeout;
    let exchange = async {
        let answer = api.0.forwarder.request(request).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(Lost::Body)?.to_bytes();
        Ok::<_, Lost>((head, body))
    };
    let outcome = tokio::time::timeout(time, exchange).await;
    let (head, body) = match outcome.unwrap_or(Err(Lost::Late(time))) {
        Ok(answer) => answer,
        Err(Lost::Request(error)) if error.is_connect() => {
            tracing::debug!(%error, url, "the new master cannot be reached yet");
            return Forwarded::NotTaken;
        }
        Err(error) => return Forwarded::Answered(lost(url, &error)),
    };
    if head.status.as_u16() == ErrorCode::NotMaster.status() {
        tracing::debug!(url, "the new master is master no more");
        return Forwarded::NotTaken;
    }
    let mut relayed = Response::new(Body::from(body));
    // The client's next connection finds the new master through the Service, before this node stops forwarding.
    relayed
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    *relayed.status_mut() = head.status;
    for name in ANSWERED {
        if let Some(value) = head.headers.get(&name) {
            relayed.headers_mut().insert(name, value.clone());
        }
    }
    Forwarded::Answered(relayed)
}

/// The request as it came, for another place.
fn request(
    url: &str,
    parts: &Parts,
    bytes: Bytes,
) -> Result<Request<Full<Bytes>>, axum::http::Error> {
    let mut target = url.parse::<Uri>()?.into_parts();
    let asked = parts.uri.path_and_query().cloned();
    target.path_and_query = Some(asked.unwrap_or_else(|| PathAndQuery::from_static("/")));
    let mut request = Request::builder()
        .method(parts.method.clone())
        .uri(Uri::from_parts(target)?)
        .header(FORWARDED_HEADER, "1");
    for name in ASKED {
        for value in parts.headers.get_all(&name) {
            request = request.header(&name, value);
        }
    }
    request.body(Full::new(bytes))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Request(#[from] hyper_util::client::legacy::Error),
    #[error("the answer broke off: {0}")]
    Body(hyper::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

fn lost(url: &str, error: &Lost) -> Response {
    tracing::warn!(%error, url, "a forwarded write has no answer");
    refuse(&ApiError::new(
        ErrorCode::OutcomeUnknown,
        format!(
            "the write was passed on to the new master at {url}, which did not confirm it: it may or may not survive, read it back"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on_has_the_target_that_came() {
        for target in [
            "/collections/c/vectors/..\\..\\victim",
            "/collections/c/vectors/%2E%2E",
            "/collections/c/vectors/a%2Fb?x=%20&y",
            "/collections//vectors/./..",
            "/insert",
        ] {
            let (parts, ()) = Request::delete(target).body(()).unwrap().into_parts();
            let passed = request("http://10.0.0.1:15002", &parts, Bytes::new()).unwrap();
            let uri = passed.uri();
            assert_eq!(uri.path_and_query().unwrap().as_str(), target);
            assert_eq!(uri.authority().unwrap(), "10.0.0.1:15002");
        }
    }
}
