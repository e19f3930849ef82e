//! The REST API: one table of endpoints, from which the router, the access rules, the metrics' labels and the OpenAPI
//! document all come. What keeps the node going (probes, commands, metrics) is served on a port of its own as well
//! (`server`).
//!
//! On its way in a request meets `frame` (headers of every answer, metrics, panics), then its endpoint's `guard`
//! (credential, room, size and time limits, then the role: writes on a master only, reads where there is data), then
//! its handler. Every refusal is an [`ApiError`](vectorizer_api::error::ApiError) as JSON.

mod answer;
mod auth;
mod body;
mod budget;
mod compute;
mod connection;
mod control;
mod cors;
mod data;
mod encoding;
mod endpoint;
mod endpoints;
mod forward;
mod frame;
mod guard;
mod openapi;
mod places;
mod reads;
mod ready;
mod refusals;
mod replication;
mod seldom;
mod server;
mod system;
#[cfg(test)]
mod tests;
mod unread;
mod whereabouts;
mod writes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;

use self::budget::Budget;
use crate::config::Config;
use crate::lease::Leadership;
use crate::link::LinkStats;
use crate::metrics::Metrics;
use crate::permit::Permit;
use crate::replicas::ReplicaTable;
use crate::store::Store;
use crate::store::embed::{Embedder, HashEmbedder};
use crate::writer::WriterHandle;

pub use ready::{Addresses, announce};
pub(crate) use server::Port;
pub use server::{Ops, serve, serve_ops};

/// What the API needs of the rest of the node.
pub struct Parts {
    /// Configuration.
    pub config: Config,
    /// Takes writes and commands, and says what this node is.
    pub writer: WriterHandle,
    /// When the writer's thread was last seen at work, CLOCK_BOOTTIME in ms.
    pub pulse: Arc<AtomicU64>,
    /// Who decides that this node may be master.
    pub leadership: Leadership,
    /// Is read.
    pub store: Arc<Store>,
    /// The replicas, on a master.
    pub replicas: ReplicaTable,
    /// Counters of the links.
    pub links: Arc<LinkStats>,
    /// Where replication listens, if it does.
    pub replication_address: Option<SocketAddr>,
}

/// The API of one node. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    parts: Parts,
    metrics: Metrics,
    permit: Permit,
    embedder: Arc<dyn Embedder>,
    started: Instant,
    stopping: AtomicBool,
    budget: Budget,
    forwarder: forward::Forwarder,
    refusals: refusals::Refusals,
}

impl std::ops::Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

impl Api {
    /// The API over these parts.
    pub fn new(parts: Parts) -> Self {
        let server = &parts.config.server;
        let budget = Budget::new(server.request_memory_bytes, server.max_concurrent_requests);
        let permit = parts.leadership.permit();
        let metrics = Metrics::new(
            parts.store.clone(),
            parts.writer.clone(),
            parts.replicas.clone(),
            parts.links.clone(),
            permit.clone(),
        );
        Api(Arc::new(Inner {
            metrics,
            permit,
            embedder: Arc::new(HashEmbedder),
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            budget,
            forwarder: forward::forwarder(),
            refusals: refusals::Refusals::default(),
            parts,
        }))
    }

    /// The router of a port: its endpoints of the table, and JSON errors for everything else.
    pub(crate) fn router(&self, port: Port) -> Router {
        let mut router = Router::new();
        for endpoint in endpoints::all() {
            if endpoint.is_on(port) {
                router = router.route(endpoint.path, endpoint.guarded(self, port));
            }
        }
        let router = router
            .fallback(match port {
                Port::Rest => axum::routing::any(system::no_such_endpoint),
                Port::Ops => axum::routing::any(system::not_on_this_port),
            })
            .method_not_allowed_fallback(system::method_not_allowed)
            .layer(axum::middleware::from_fn_with_state(
                self.clone(),
                frame::frame,
            ))
            .with_state(self.clone());
        match (&self.config.server.cors_allowed_origins, port) {
            (Some(origins), Port::Rest) => router.layer(cors::layer(origins)),
            (_, Port::Rest | Port::Ops) => router,
        }
    }

    /// From now on `/readyz` says no, so that no new requests are sent here.
    fn stop(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Relaxed)
    }
}
