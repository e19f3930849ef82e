//! Health, probes, metrics, and the answers where there is no endpoint.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::response::IntoResponse;
use jiff::Timestamp;
use serde_json::{Value, json};
use vectorizer_api::data::Health;
use vectorizer_api::error::ErrorCode;
use vectorizer_api::replication::Role;

use super::Api;
use super::answer::Refusal;
use super::{endpoints, reads};
use crate::clock::boot_time_ms;

/// A writer that has not been seen at work for so long is stuck, in ms: a disk that does not answer shows here.
const STUCK_MS: u64 = 120_000;

/// `GET /health`.
pub(super) async fn health(State(api): State<Api>) -> Json<Health> {
    let collections = api.store.collections();
    let vectors: u64 = collections.iter().map(|collection| collection.count).sum();
    Json(Health {
        status: "healthy".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        timestamp: Timestamp::now().to_string(),
        uptime: api.0.started.elapsed().as_secs(),
        collections: collections.len(),
        total_vectors: usize::try_from(vectors).unwrap_or(usize::MAX),
    })
}

/// `GET /livez`.
pub(super) async fn livez(State(api): State<Api>) -> Result<Json<Value>, Refusal> {
    let idle = boot_time_ms().saturating_sub(api.pulse.load(Ordering::Relaxed));
    if !api.writer.is_alive() {
        Err(Refusal::new(
            ErrorCode::Unavailable,
            "the writer has stopped",
        ))
    } else if idle > STUCK_MS {
        Err(Refusal::new(
            ErrorCode::Unavailable,
            format!("the writer has not been seen at work for {} s", idle / 1000),
        ))
    } else {
        Ok(Json(json!({ "status": "alive" })))
    }
}

/// `GET /readyz`. A master whose lease has run out still serves reads, and is ready.
pub(super) async fn readyz(State(api): State<Api>) -> Result<Json<Value>, Refusal> {
    let state = api.writer.state().borrow().clone();
    let reason = if api.is_stopping() {
        Some("the node is stopping".to_owned())
    } else if state.role == Role::Unassigned {
        Some("the node has no role".to_owned())
    } else if !state.has_data {
        Some("the node holds no data yet: its first full sync is not complete".to_owned())
    } else {
        reads::withheld(&state)
    };
    match reason {
        Some(reason) => Err(Refusal::new(ErrorCode::Unavailable, reason)),
        None => Ok(Json(json!({ "status": "ready", "role": state.role }))),
    }
}

/// `GET /metrics` and `GET /prometheus/metrics`.
pub(super) async fn metrics(State(api): State<Api>) -> Result<impl IntoResponse, Refusal> {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match api.0.metrics.render() {
        Ok(text) => Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text)),
        Err(error) => Err(Refusal::new(ErrorCode::Internal, error.to_string())),
    }
}

/// The answer where there is no endpoint.
pub(super) async fn no_such_endpoint(request: Request) -> Refusal {
    Refusal::new(
        ErrorCode::EndpointNotFound,
        format!(
            "there is no endpoint {}: GET /openapi.json lists all",
            request.uri().path()
        ),
    )
}

/// The answer where there is none on the port for probes, commands and metrics.
pub(super) async fn not_on_this_port(State(api): State<Api>, request: Request) -> Refusal {
    Refusal::new(
        ErrorCode::EndpointNotFound,
        format!(
            "there is no endpoint {} on this port, which serves probes, commands and metrics: the REST API is on port {}",
            request.uri().path(),
            api.config.server.bind_address.port
        ),
    )
}

/// The answer where there is an endpoint, but not for that method.
pub(super) async fn method_not_allowed(request: Request) -> Refusal {
    let path = request.extensions().get::<MatchedPath>();
    let path = path.map_or(request.uri().path(), MatchedPath::as_str);
    let allowed: Vec<_> = endpoints::all()
        .into_iter()
        .filter(|endpoint| endpoint.path == path)
        .map(|endpoint| endpoint.method.to_string())
        .collect();
    Refusal::new(
        ErrorCode::MethodNotAllowed,
        format!(
            "{} is not allowed on {path}: expected {}",
            request.method(),
            allowed.join(" or ")
        ),
    )
}
