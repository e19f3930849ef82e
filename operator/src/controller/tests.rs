//! Whole passes against an API server in memory.

use serde_json::{Value, json};

use super::*;
use crate::act::tests::fakes::{ApiServer, CLUSTER};
use crate::crd::Phase;
use crate::names::{condition, reason};

const RESOURCE: &str =
    "/apis/vectorizer.hivellm.io/v1alpha1/namespaces/default/vectorizerclusters/demo";
const AUTH: &str = "/api/v1/namespaces/default/secrets/demo-auth";

fn resource(generation: i64) -> VectorizerCluster {
    let resource = json!({
        "apiVersion": "vectorizer.hivellm.io/v1alpha1", "kind": "VectorizerCluster",
        "metadata": { "name": "demo", "namespace": "default", "generation": generation },
        "spec": {},
    });
    serde_json::from_value(resource).unwrap()
}

/// A resource that was applied, with that spec.
fn applied(api: &ApiServer, spec: Value) {
    let resource = json!({
        "apiVersion": "vectorizer.hivellm.io/v1alpha1", "kind": "VectorizerCluster",
        "metadata": { "name": "demo", "namespace": "default", "uid": CLUSTER.to_string(), "generation": 1 },
        "spec": spec,
    });
    api.put(RESOURCE, resource);
}

/// One process of the operator.
struct Process {
    api: ApiServer,
    context: Arc<Context>,
    driving: tokio::task::JoinHandle<()>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

impl Process {
    fn start(api: &ApiServer) -> Self {
        let client = api.client();
        let (caches, triggers) = Caches::start(&client, None);
        let driving = tokio::spawn(triggers.for_each(async |_| {}));
        let node = |timeouts| vectorizer_api::client::Client::new("http://node", timeouts).unwrap();
        let context = Arc::new(Context {
            client: client.clone(),
            probes: node(PROBE),
            commands: node(COMMAND),
            cordons: Cordons::default(),
            events: Events::new(client, "test".into()),
            default_image: "node:own".into(),
            metrics: Arc::new(Metrics::default()),
            listed: listed_once(caches.clone()),
            known: Mutex::default(),
            caches,
        });
        Process {
            api: api.clone(),
            context,
            driving,
        }
    }

    fn stored(&self) -> VectorizerCluster {
        serde_json::from_value(self.api.get(RESOURCE).unwrap()).unwrap()
    }

    async fn pass(&self) -> Result<Action, Error> {
        pass(Arc::new(self.stored()), self.context.clone()).await
    }

    /// Status and reason of a condition.
    fn said(&self, of: &str) -> (String, String) {
        let status = self.stored().status.unwrap_or_default();
        let found = status.conditions.into_iter().find(|c| c.type_ == of);
        found.map(|c| (c.status, c.reason)).unwrap_or_default()
    }
}

#[tokio::test]
async fn a_first_pass_makes_everything_and_says_so() {
    let api = ApiServer::default();
    applied(&api, json!({}));
    let process = Process::start(&api);
    let next = process.pass().await.unwrap();
    assert_ne!(next, Action::await_change(), "it goes on by itself");
    for made in [
        AUTH,
        "/api/v1/namespaces/default/secrets/demo-internal",
        "/api/v1/namespaces/default/services/demo-rw",
        "/apis/apps/v1/namespaces/default/statefulsets/demo-master",
        "/apis/apps/v1/namespaces/default/statefulsets/demo-replica",
    ] {
        assert!(api.get(made).is_some(), "{made}");
    }
    let status = process.stored().status.unwrap();
    assert_eq!(status.phase, Phase::Creating);
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(status.image.as_deref(), Some("node:own"));
    let metrics = process.context.metrics.text();
    assert!(
        metrics.contains("reconciles_total{result=\"ok\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_resource_that_cannot_be_worked_with_is_told_so_and_nothing_is_made() {
    let api = ApiServer::default();
    applied(&api, json!({ "storage": { "size": "ten" } }));
    let process = Process::start(&api);
    let next = process.pass().await.unwrap();
    assert_eq!(next, Action::await_change());
    let ready = process.said(condition::READY);
    assert_eq!(ready, ("False".into(), reason::INVALID_SPEC.into()));
    assert_eq!(process.stored().status.unwrap().phase, Phase::Blocked);
    assert_eq!(api.get(AUTH), None);
}

#[tokio::test]
async fn a_resource_that_is_being_deleted_is_left_alone() {
    let api = ApiServer::default();
    applied(&api, json!({}));
    api.change(RESOURCE, |resource| {
        resource["metadata"]["deletionTimestamp"] = json!("2026-05-01T10:00:00Z");
    });
    let process = Process::start(&api);
    assert_eq!(process.pass().await.unwrap(), Action::await_change());
    assert_eq!(process.stored().status, None);
    assert_eq!(api.get(AUTH), None);
}

#[tokio::test]
async fn what_cannot_be_observed_any_more_is_not_said_to_be_ready() {
    let api = ApiServer::default();
    applied(&api, json!({}));
    let process = Process::start(&api);
    process.pass().await.unwrap();
    api.change(RESOURCE, |resource| {
        let status = &mut resource["status"];
        status["phase"] = json!("Ready");
        for of in status["conditions"].as_array_mut().unwrap() {
            let bad = of["type"] == condition::DEGRADED || of["type"] == condition::PROGRESSING;
            of["status"] = json!(if bad { "False" } else { "True" });
        }
    });
    api.forbid(AUTH);
    // Known for a minute, unless it was written.
    for known in process.context.known.lock().await.values() {
        known.lock().await.remembered.credentials.read = None;
    }
    for failure in 1..UNKNOWN_AFTER {
        assert!(process.pass().await.is_err());
        let ready = process.said(condition::READY).0;
        assert_eq!(ready, "True", "after failure {failure}: it may pass");
    }
    assert!(process.pass().await.is_err());
    for of in [condition::READY, condition::AVAILABLE] {
        let said = process.said(of);
        assert_eq!(
            said,
            ("Unknown".into(), reason::NOT_OBSERVED.into()),
            "{of}"
        );
    }
    assert_eq!(process.said(condition::DEGRADED).0, "True");
    assert_eq!(process.stored().status.unwrap().phase, Phase::Unknown);
    let before = api.version(RESOURCE);
    assert!(process.pass().await.is_err());
    assert_eq!(api.version(RESOURCE), before, "said once");

    api.allow(AUTH);
    process.pass().await.unwrap();
    assert_ne!(process.said(condition::READY).1, reason::NOT_OBSERVED);
    assert_ne!(process.stored().status.unwrap().phase, Phase::Unknown);
}

#[test]
fn a_watch_that_is_behind_is_not_planned_from() {
    let seen = Remembered {
        generation: 3,
        ..Remembered::default()
    };
    assert!(may_be_old(&resource(2), &seen), "an older spec");
    assert!(!may_be_old(&resource(3), &seen));
    let changing = Remembered {
        changing: true,
        ..seen
    };
    assert!(
        may_be_old(&resource(3), &changing),
        "a change that it does not show"
    );
}

#[test]
fn what_is_refused_over_and_over_is_asked_for_less_and_less() {
    let refused = Passed {
        again: Some(SOON),
        patience: Some(LONGEST_PAUSE),
    };
    let pauses = [1, 2, 5, 20].map(|failures| refused.action(failures));
    let secs = [1, 2, 16, 60].map(|secs| Action::requeue(Duration::from_secs(secs)));
    assert_eq!(pauses, secs);
    let well = Passed::well(SOON);
    assert_eq!(well.action(0), Action::requeue(SOON));
}
