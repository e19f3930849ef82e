//! What the operator tells of itself: metrics, probes, logs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use kube_runtime::reflector::Store;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::act::Done;
use crate::crd::{PromoteMode, VectorizerCluster};
use crate::names::condition;
use crate::world::World;

/// Metrics of one process.
pub struct Metrics {
    registry: Mutex<Registry>,
    passes: Family<Outcome, Counter>,
    seconds: Histogram,
    promotions: Family<Promotion, Counter>,
    clusters: Family<Condition, Gauge>,
    leader: Gauge<u64, AtomicU64>,
    ready: AtomicBool,
    stores: Mutex<Vec<Store<VectorizerCluster>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Promotion {
    mode: &'static str,
    reason: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Condition {
    condition: &'static str,
    status: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("vectorizer_operator");
        let passes = Family::default();
        registry.register(
            "reconciles",
            "Passes over a cluster, by result",
            passes.clone(),
        );
        let seconds = Histogram::new(exponential_buckets(0.002, 2.0, 14));
        registry.register_with_unit(
            "reconcile_duration",
            "How long a pass took",
            Unit::Seconds,
            seconds.clone(),
        );
        let promotions = Family::default();
        registry.register(
            "promotions",
            "Changes of a master, by mode, reason and result",
            promotions.clone(),
        );
        let clusters = Family::default();
        registry.register("clusters", "Clusters by condition", clusters.clone());
        let leader = Gauge::default();
        registry.register(
            "leader",
            "Whether this process is the one that works",
            leader.clone(),
        );
        Metrics {
            registry: Mutex::new(registry),
            passes,
            seconds,
            promotions,
            clusters,
            leader,
            ready: AtomicBool::new(false),
            stores: Mutex::default(),
        }
    }
}

impl Metrics {
    /// Counts a pass.
    pub fn pass(&self, ok: bool, took: Duration) {
        let result = if ok { "ok" } else { "error" };
        self.passes.get_or_create(&Outcome { result }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts a change of the master that ended in this pass.
    pub fn promotion(&self, world: &World, done: &Done) {
        let (Some(last), true) = (&done.memory.last_promotion, done.recorded) else {
            return;
        };
        if world.status.last_promotion.as_ref() == Some(last) {
            return;
        }
        let mode = match last.mode {
            PromoteMode::Switchover => "Switchover",
            PromoteMode::Failover => "Failover",
        };
        let label = Promotion {
            mode,
            reason: last.reason.as_str(),
            result: last.result.as_str(),
        };
        self.promotions.get_or_create(&label).inc();
    }

    /// Counts the clusters of a store whenever somebody asks.
    pub fn watch(&self, store: Store<VectorizerCluster>) {
        self.stores
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(store);
    }

    /// Says whether this process works.
    pub fn leads(&self, leads: bool) {
        self.leader.set(u64::from(leads));
    }

    /// Says whether this process could do its work: the one that leads has listed everything, one that waits has read
    /// the Lease that it waits for.
    pub fn ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// All of it, in the text format.
    pub fn text(&self) -> String {
        self.count_clusters();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &registry);
        text
    }

    fn count_clusters(&self) {
        let conditions = [
            condition::READY,
            condition::PROGRESSING,
            condition::DEGRADED,
            condition::AVAILABLE,
            condition::REPLICATION_HEALTHY,
            condition::SYNCHRONOUS_REPLICATION_MET,
        ];
        let stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let clusters: Vec<_> = stores.iter().flat_map(|s| s.state()).collect();
        for of in conditions {
            for status in ["True", "False", "Unknown"] {
                let has = |c: &&Arc<VectorizerCluster>| {
                    let found = c
                        .status
                        .iter()
                        .flat_map(|s| &s.conditions)
                        .find(|c| c.type_ == of);
                    found.map_or("Unknown", |c| c.status.as_str()) == status
                };
                let count = clusters.iter().filter(has).count();
                let label = Condition {
                    condition: of,
                    status,
                };
                self.clusters
                    .get_or_create(&label)
                    .set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }
}

/// `/metrics`, `/livez` and `/readyz`.
pub fn router(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(text))
        .route("/livez", get(|| async { StatusCode::OK }))
        .route("/readyz", get(ready))
        .with_state(metrics)
}

async fn ready(State(metrics): State<Arc<Metrics>>) -> (StatusCode, &'static str) {
    if metrics.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready")
    } else {
        let why = "not everything could be listed yet: is the API server there, and all rights?";
        (StatusCode::SERVICE_UNAVAILABLE, why)
    }
}

async fn text(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.text())
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Starts logging. `RUST_LOG` narrows or widens it.
pub fn log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,kube_client=warn"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter);
    match format {
        LogFormat::Json => logs.json().flatten_event(true).init(),
        LogFormat::Text => logs.init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_ready_once_it_says_so() {
        let metrics = Arc::new(Metrics::default());
        let (status, _) = ready(State(metrics.clone())).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        metrics.ready(true);
        let (status, _) = ready(State(metrics)).await;
        assert_eq!(status, StatusCode::OK);
    }

    #[test]
    fn metrics_have_the_names_that_dashboards_use() {
        let metrics = Metrics::default();
        metrics.pass(true, Duration::from_millis(5));
        metrics.leads(true);
        let text = metrics.text();
        for name in [
            "vectorizer_operator_reconciles_total{result=\"ok\"} 1",
            "vectorizer_operator_reconcile_duration_seconds_count 1",
            "vectorizer_operator_clusters{condition=\"Ready\",status=\"True\"} 0",
            "vectorizer_operator_leader 1",
        ] {
            assert!(text.contains(name), "{name} is not in\n{text}");
        }
    }
}
