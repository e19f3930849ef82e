//! Lists and watches of the API server in memory, and nodes that answer questions on the port that nodes have.

use axum::http::HeaderMap;
use axum::routing::get;
use vectorizer_api::replication::{Replica, Replicas};

use super::*;

impl ApiServer {
    /// The questions of the watches that were begun.
    pub(crate) fn watches(&self) -> Vec<String> {
        self.watches.lock().unwrap().clone()
    }

    /// The answer to a question about a collection; `None` when the path is that of an object.
    pub(super) fn collection(&self, uri: &http::Uri) -> Option<Response<Content>> {
        let (all, namespace) = split(uri.path());
        let depth = all.matches('/').count();
        let is_collection = depth == if all.starts_with("/api/") { 3 } else { 4 };
        if !is_collection {
            return None;
        }
        let query = uri.query().unwrap_or_default();
        if query.split('&').any(|part| part == "watch=true") {
            self.watches.lock().unwrap().push(query.to_owned());
            // Nothing happens for as long as the test runs.
            let nothing = futures::stream::pending::<Result<axum::body::Bytes, Infallible>>();
            return Some(Response::new(Content::from_stream(nothing)));
        }
        let selected = |object: &Value| {
            let selector = query
                .split('&')
                .find_map(|p| p.strip_prefix("labelSelector="));
            selector.is_none_or(|s| selects(&s.replace("%2F", "/").replace("%3D", "="), object))
        };
        let objects = self.objects.lock().unwrap();
        let inside = |path: &str| {
            let (of, within) = split(path);
            let parent = of.rsplit_once('/').map(|(parent, _)| parent.to_owned());
            parent.as_ref() == Some(&all) && (namespace.is_none() || namespace == within)
        };
        let found = objects.iter().filter(|(path, _)| inside(path));
        let found = found.map(|(_, object)| object).filter(|o| selected(o));
        let items: Vec<Value> = found.cloned().collect();
        Some(success(&json!({
            "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": items,
        })))
    }
}

/// A path without its namespace, and the namespace.
fn split(path: &str) -> (String, Option<String>) {
    let Some((group, rest)) = path.split_once("/namespaces/") else {
        return (path.to_owned(), None);
    };
    match rest.split_once('/') {
        Some((namespace, rest)) => (format!("{group}/{rest}"), Some(namespace.to_owned())),
        None => (path.to_owned(), None),
    }
}

fn selects(selector: &str, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    match selector.split_once('=') {
        Some((key, value)) => labels[key] == value,
        None => labels.get(selector).is_some(),
    }
}

/// A node that says this of itself and, if it is the master, of its replicas, to whoever has the token. Answers its
/// address.
pub(crate) async fn answering(state: State, replicas: Vec<Replica>, token: &'static str) -> String {
    let allowed = move |headers: &HeaderMap| {
        let shown = headers.get("authorization").and_then(|h| h.to_str().ok());
        shown == Some(&format!("Bearer {token}"))
    };
    let refused = || {
        let error = ApiError::new(ErrorCode::Unauthenticated, "who is this?");
        (StatusCode::UNAUTHORIZED, axum::Json(error)).into_response()
    };
    let of_itself = async move |headers: HeaderMap| match allowed(&headers) {
        true => axum::Json(state.clone()).into_response(),
        false => refused(),
    };
    let of_others = async move |headers: HeaderMap| match allowed(&headers) {
        true => {
            let count = replicas.len();
            let replicas = replicas.clone();
            axum::Json(Replicas { replicas, count }).into_response()
        }
        false => refused(),
    };
    let router = Router::new()
        .route("/control/state", get(of_itself))
        .route("/replication/replicas", get(of_others));
    let ip = own_address();
    let address = format!("{ip}:{}", crate::names::OPS_PORT);
    let listener = tokio::net::TcpListener::bind(&address).await;
    let listener = listener.unwrap_or_else(|why| panic!("{address}: {why}"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    ip
}

/// An address of this machine alone that no other test uses: the port is the same for all.
pub(crate) fn own_address() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static TAKEN: AtomicU32 = AtomicU32::new(1);
    let serial = TAKEN.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    format!(
        "127.{}.{}.{serial}",
        1 + process / 250 % 250,
        1 + process % 250
    )
}
