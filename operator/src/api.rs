//! The API server, with a bound on how long an answer may take.
//!
//! A connection whose other end has vanished would otherwise hold a pass, and with it its cluster, until the kernel
//! gives up minutes later.

use std::time::Duration;

use axum::http::{Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;

/// How long a request may take, its answer included. Of a watch only until it begins: it ends by itself.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The same client, whose requests fail when they are not answered within that time. What became of such a request is unknown.
pub fn bounded(client: Client, within: Duration) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer(client.clone(), request);
        async move {
            match tokio::time::timeout(within, answer).await {
                Ok(answer) => answer,
                Err(_) => {
                    let text = format!("no answer within {within:?}");
                    Err(Failure::from(text))
                }
            }
        }
    });
    Client::new(service, namespace)
}

async fn answer(client: Client, request: Request<Body>) -> Result<Response<Body>, Failure> {
    let query = request.uri().query().unwrap_or_default();
    let streams = query.split('&').any(|part| part == "watch=true");
    let answer = client.send(request).await?;
    if streams {
        return Ok(answer);
    }
    let (head, body) = answer.into_parts();
    let whole = body.collect().await?.to_bytes();
    Ok(Response::from_parts(head, Body::from(whole)))
}
