//! The API server: with a bound on how long an answer may take, and with its refusals in words for people.
//!
//! A connection whose other end has vanished would otherwise hold a pass, and with it its cluster, until the kernel
//! gives up minutes later. A watch may be silent for as long as nothing happens; so it is begun again every
//! [`WATCH_SECS`], and a connection on which nothing came for [`SILENT`] is given up.
//!
//! Nothing is repeated down here. kube's own client sends a request again after 429, 503 and 504, which may have been
//! carried out: the answer would then be that of the second sending, a conflict with the first. What was changed over a
//! version is looked at again by whoever changed it, in the next pass at the latest.

use std::time::Duration;

use axum::http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::{Client, Config};

/// How long a request may take, its answer included. Of a watch only until it begins: it ends by itself.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long one watch lasts, in seconds, until the API server ends it.
pub const WATCH_SECS: u32 = 30;
/// How long nothing may come on a connection that an answer is awaited on.
pub const SILENT: Duration = Duration::from_secs(40);

/// The client that everything goes through.
pub fn connect(config: Config) -> Result<Client, kube::Error> {
    let client = Client::try_from(once(heard(config, SILENT)))?;
    Ok(bounded(client, ANSWER_WITHIN))
}

/// The same configuration, by which each request is sent once.
fn once(mut config: Config) -> Config {
    config.default_retry = false;
    config
}

/// The same configuration, with a bound on how long nothing may come.
fn heard(mut config: Config, silent: Duration) -> Config {
    config.read_timeout = Some(silent);
    config
}

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

/// What the API server said, for people to read: its message alone, and no more of it than fits a condition.
pub fn words(error: &kube::Error) -> String {
    let kube::Error::Api(status) = error else {
        return shortened(&error.to_string(), WORDS);
    };
    if status.message.is_empty() {
        return format!("{} ({})", status.reason, status.code);
    }
    shortened(&status.message, WORDS)
}

/// Longest text of the API server's that is passed on, in bytes.
const WORDS: usize = 600;

/// The text on one line, cut where it is longer than so many bytes.
pub fn shortened(text: &str, most: usize) -> String {
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.len() > most {
        let fits = (0..=most).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(fits.unwrap_or(0));
        text.push('…');
    }
    text
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use axum::http::StatusCode;
    use futures::StreamExt;
    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;
    use kube::api::{DeleteParams, Patch, PatchParams, PostParams, WatchParams};
    use serde_json::json;

    use super::*;

    /// An API server that begins to answer each request and then says nothing more, its connections open.
    fn falls_silent() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    head.push(byte[0]);
                }
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(answer.as_bytes()).unwrap();
                open.push(stream);
            }
        });
        address
    }

    #[tokio::test]
    async fn a_watch_whose_connection_is_dead_ends() {
        let url = format!("http://{}", falls_silent()).parse().unwrap();
        let silent = Duration::from_millis(300);
        let client = Client::try_from(heard(Config::new(url), silent)).unwrap();
        let api: Api<Pod> = Api::default_namespaced(bounded(client, ANSWER_WITHIN));
        let watch = api.watch(&WatchParams::default(), "1").await.unwrap();
        let next = tokio::time::timeout(Duration::from_secs(30), async move {
            let mut watch = std::pin::pin!(watch);
            watch.next().await
        });
        let next = next.await.expect("it is waited for for ever");
        assert!(!matches!(next, Some(Ok(_))), "{next:?}");
    }

    #[tokio::test]
    async fn no_request_is_sent_twice() {
        for code in [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ] {
            let asked = Arc::new(AtomicU64::new(0));
            let counts = asked.clone();
            let answer = move || {
                counts.fetch_add(1, Ordering::SeqCst);
                async move { code }
            };
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let server = axum::serve(listener, axum::Router::new().fallback(answer));
            tokio::spawn(async move { server.await });
            let client = connect(Config::new(url.parse().unwrap())).unwrap();
            let pods: Api<Pod> = Api::namespaced(client, "ns");
            let pod = Pod::default();
            let patch = Patch::Merge(json!({}));
            let outcomes = [
                pods.replace("p", &PostParams::default(), &pod)
                    .await
                    .map(drop),
                pods.replace_status("p", &PostParams::default(), &pod)
                    .await
                    .map(drop),
                pods.create(&PostParams::default(), &pod).await.map(drop),
                pods.patch("p", &PatchParams::default(), &patch)
                    .await
                    .map(drop),
                pods.delete("p", &DeleteParams::default()).await.map(drop),
                pods.get("p").await.map(drop),
            ];
            assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
            let sent = asked.load(Ordering::SeqCst);
            assert_eq!(sent, outcomes.len() as u64, "after {code}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_api_servers_sentence_alone() {
        let status = serde_json::json!({
            "status": "Failure", "code": 422, "reason": "Invalid",
            "message": "StatefulSet.apps \"demo-master\" is invalid:\n  must be less than or equal to cpu limit",
            "details": { "name": "demo-master", "causes": [{ "reason": "FieldValueInvalid", "message": "must be", "field": "spec" }] },
        });
        let status: kube::core::Status = serde_json::from_value(status).unwrap();
        let said = words(&kube::Error::Api(status.boxed()));
        assert_eq!(
            said,
            "StatefulSet.apps \"demo-master\" is invalid: must be less than or equal to cpu limit"
        );
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let text = shortened(&"é".repeat(600), 601);
        assert_eq!(text.chars().count(), 301);
        assert!(text.ends_with('…'));
    }
}
