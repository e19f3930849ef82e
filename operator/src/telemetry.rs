//! What the operator tells of itself: metrics, probes, logs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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

/// How long a pass may take. Each of its requests is bounded, so one that takes longer does not end.
const LONGEST_PASS: Duration = Duration::from_secs(600);
/// How long the loop that drives watches and passes may not have turned.
const LONGEST_TURN: Duration = Duration::from_secs(60);

/// Metrics of one process, and whether it lives.
pub struct Metrics {
    registry: Mutex<Registry>,
    passes: Family<Outcome, Counter>,
    seconds: Histogram,
    promotions: Family<Promotion, Counter>,
    clusters: Family<Condition, Gauge>,
    leader: Gauge<u64, AtomicU64>,
    ready: AtomicBool,
    stores: Mutex<Vec<Store<VectorizerCluster>>>,
    /// Passes that run, by cluster, and when they began.
    running: Mutex<HashMap<String, Instant>>,
    /// When the loop that drives everything turned last; `None` until it works.
    turned: Mutex<Option<Instant>>,
}

/// A pass that runs, until it is dropped.
pub struct Running {
    metrics: Arc<Metrics>,
    cluster: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = guard(&self.metrics.running);
        running.remove(&self.cluster);
    }
}

fn guard<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
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
            running: Mutex::default(),
            turned: Mutex::default(),
        }
    }
}

impl Metrics {
    /// Notes that a pass over a cluster begins; it ends when what this answers is dropped.
    pub fn begin(self: &Arc<Self>, cluster: &str) -> Running {
        guard(&self.running).insert(cluster.to_owned(), Instant::now());
        Running {
            metrics: self.clone(),
            cluster: cluster.to_owned(),
        }
    }

    /// Notes that the loop that drives watches and passes turns.
    pub fn turns(&self) {
        *guard(&self.turned) = Some(Instant::now());
    }

    /// What does not go on by itself in this process, at that time. An API server that is away is nothing of the kind.
    fn stuck(&self, now: Instant) -> Option<String> {
        let longer = |since: &Instant, than| now.saturating_duration_since(*since) > than;
        if guard(&self.turned).is_some_and(|at| longer(&at, LONGEST_TURN)) {
            return Some(format!("nothing was looked at for {LONGEST_TURN:?}"));
        }
        let running = guard(&self.running);
        let (cluster, _) = running.iter().find(|(_, at)| longer(at, LONGEST_PASS))?;
        Some(format!(
            "a pass over {cluster} has not ended for {LONGEST_PASS:?}"
        ))
    }

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
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .with_state(metrics)
}

async fn alive(State(metrics): State<Arc<Metrics>>) -> (StatusCode, String) {
    match metrics.stuck(Instant::now()) {
        None => (StatusCode::OK, "alive".to_owned()),
        Some(why) => (StatusCode::INTERNAL_SERVER_ERROR, why),
    }
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
    fn a_pass_that_does_not_end_is_no_life() {
        let metrics = Arc::new(Metrics::default());
        let later = |secs| Instant::now() + Duration::from_secs(secs);
        assert_eq!(metrics.stuck(later(3600)), None, "it waits to lead");
        let pass = metrics.begin("default/demo");
        assert_eq!(metrics.stuck(later(300)), None, "the API server is slow");
        let why = metrics.stuck(later(3600)).unwrap();
        assert!(why.contains("default/demo"), "{why}");
        drop(pass);
        assert_eq!(metrics.stuck(later(3600)), None);
    }

    #[tokio::test]
    async fn a_loop_that_does_not_turn_is_no_life() {
        let metrics = Arc::new(Metrics::default());
        metrics.turns();
        assert_eq!(alive(State(metrics.clone())).await.0, StatusCode::OK);
        let long_ago = Instant::now().checked_sub(Duration::from_secs(90));
        *guard(&metrics.turned) = Some(long_ago.unwrap());
        let (status, why) = alive(State(metrics)).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(why.contains("60s"), "{why}");
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
