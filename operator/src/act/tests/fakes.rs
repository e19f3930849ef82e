//! An API server in memory, and nodes that listen on loopback. Both write into one log.

mod lists;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body as Content;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response as Answer};
use axum::routing::post;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::{Client, Resource};
use serde_json::{Value, json};
use uuid::Uuid;
use vectorizer_api::client::Timeouts;
use vectorizer_api::control::State;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_api::lease::Grant;
use vectorizer_api::position::{Chain, History, Position};
use vectorizer_api::replication::Role;

use crate::act::{Done, Events, Targets, act};
use crate::api::{ANSWER_WITHIN, bounded};
use crate::crd::VectorizerCluster;
use crate::observe::Credentials;
use crate::plan::{Peer, Plan, Step, plan};
use crate::render::{ClaimTemplate, Object, Wanted, objects};
use crate::world::{Cluster, LeaseSeen, Secrets, World};

pub(crate) const CLUSTER: Uuid = Uuid::from_u128(0xc1);

pub(crate) use lists::{answering, own_address};

type Log = Arc<Mutex<Vec<String>>>;

/// Objects by path.
#[derive(Clone, Default)]
pub(crate) struct ApiServer {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    forbidden: Arc<Mutex<BTreeSet<String>>>,
    conflicts: Arc<Mutex<u32>>,
    silent: Arc<Mutex<BTreeSet<String>>>,
    watches: Arc<Mutex<Vec<String>>>,
    version: Arc<Mutex<u64>>,
    log: Log,
}

impl ApiServer {
    fn new(log: Log) -> Self {
        ApiServer {
            objects: Arc::default(),
            forbidden: Arc::default(),
            conflicts: Arc::default(),
            silent: Arc::default(),
            watches: Arc::default(),
            version: Arc::default(),
            log,
        }
    }

    pub(crate) fn client(&self) -> Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let this = this.clone();
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        Client::new(service, "default")
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().unwrap().get(path).cloned()
    }

    pub(crate) fn under(&self, path: &str) -> Vec<Value> {
        let objects = self.objects.lock().unwrap();
        objects
            .iter()
            .filter(|(p, _)| p.starts_with(path))
            .map(|(_, o)| o.clone())
            .collect()
    }

    pub(crate) fn remove(&self, path: &str) {
        self.objects.lock().unwrap().remove(path);
    }

    pub(crate) fn put(&self, path: &str, mut object: Value) -> String {
        let mut version = self.version.lock().unwrap();
        *version += 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        self.objects.lock().unwrap().insert(path.to_owned(), object);
        version.to_string()
    }

    pub(crate) fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(path).unwrap();
        change(&mut object);
        self.put(path, object);
    }

    pub(crate) fn touch(&self, path: &str) {
        self.change(path, |_| {});
    }

    pub(crate) fn version(&self, path: &str) -> String {
        self.get(path).unwrap()["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) fn forbid(&self, path: &str) {
        self.forbidden.lock().unwrap().insert(path.to_owned());
    }

    pub(crate) fn allow(&self, path: &str) {
        self.forbidden.lock().unwrap().remove(path);
    }

    /// Replacements of that object are never answered.
    pub(crate) fn never_answers(&self, path: &str) {
        self.silent.lock().unwrap().insert(path.to_owned());
    }

    /// The next replacement meets somebody who was faster.
    pub(crate) fn conflict_once(&self) {
        *self.conflicts.lock().unwrap() = 1;
    }

    pub(crate) fn put_lease(&self, grant: &Grant) -> String {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": "demo", "namespace": "default", "annotations": grant.annotations() },
            "spec": { "holderIdentity": grant.holder_identity() },
        });
        self.put(
            "/apis/coordination.k8s.io/v1/namespaces/default/leases/demo",
            lease,
        )
    }

    async fn answer(&self, request: Request<Body>) -> Response<Content> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let silent = self.silent.lock().unwrap().contains(&path);
        if silent && head.method == Method::PUT {
            std::future::pending::<()>().await;
        }
        if self.forbidden.lock().unwrap().contains(&path) {
            return failure(403, "Forbidden", "quota exceeded");
        }
        match head.method {
            Method::GET => match self.get(&path) {
                Some(object) => success(&object),
                None => {
                    let listed = self.collection(&head.uri);
                    listed.unwrap_or_else(|| failure(404, "NotFound", &path))
                }
            },
            Method::POST => self.create(&path, body),
            Method::PUT => self.replace(&path, body),
            Method::PATCH => self.patch(&path, &head, body),
            Method::DELETE => match self.objects.lock().unwrap().remove(&path) {
                Some(object) => success(&object),
                None => failure(404, "NotFound", &path),
            },
            other => failure(405, "MethodNotAllowed", other.as_str()),
        }
    }

    fn create(&self, path: &str, body: Value) -> Response<Content> {
        let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
        if self.get(&path).is_some() {
            return failure(409, "AlreadyExists", &path);
        }
        self.note(&path, &body);
        self.put(&path, body);
        success(&self.get(&path).unwrap())
    }

    fn replace(&self, path: &str, body: Value) -> Response<Content> {
        let of = path.trim_end_matches("/status");
        let Some(stored) = self.get(of) else {
            return failure(404, "NotFound", path);
        };
        let mut conflicts = self.conflicts.lock().unwrap();
        if *conflicts > 0
            || stored["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]
        {
            *conflicts = conflicts.saturating_sub(1);
            drop(conflicts);
            self.touch(of);
            return failure(409, "Conflict", path);
        }
        self.note(path, &body);
        self.put(of, body);
        success(&self.get(of).unwrap())
    }

    fn patch(&self, path: &str, head: &http::request::Parts, body: Value) -> Response<Content> {
        let apply = head.headers["content-type"]
            .to_str()
            .unwrap()
            .contains("apply");
        let stored = self.get(path);
        if stored.is_none() && !apply {
            return failure(404, "NotFound", path);
        }
        self.note(path, &body);
        let mut next = stored.unwrap_or_else(|| json!({}));
        merge(&mut next, body);
        self.put(path, next);
        success(&self.get(path).unwrap())
    }

    fn note(&self, path: &str, body: &Value) {
        let line = if path.contains("/leases/") {
            let epoch = body["metadata"]["annotations"]["vectorizer.hivellm.io/epoch"]
                .as_str()
                .unwrap();
            format!(
                "lease {epoch} {}",
                body["spec"]["holderIdentity"].as_str().unwrap_or("nobody")
            )
        } else if path.ends_with("/status") {
            format!(
                "status {}",
                body["status"]["target"]["step"].as_str().unwrap_or("done")
            )
        } else if let Some((_, pod)) = path.split_once("/pods/") {
            format!("label {pod} {}", body["metadata"]["labels"])
        } else {
            return;
        };
        self.log.lock().unwrap().push(line);
    }
}

/// JSON merge patch.
fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(&key);
        } else {
            merge(&mut into[key.as_str()], value);
        }
    }
}

fn success(object: &Value) -> Response<Content> {
    Response::new(Content::from(serde_json::to_vec(object).unwrap()))
}

fn failure(code: u16, reason: &str, message: &str) -> Response<Content> {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message, "metadata": {} });
    let body = Content::from(serde_json::to_vec(&status).unwrap());
    Response::builder().status(code).body(body).unwrap()
}

/// All nodes, behind one listener: `http://address/<pod>`.
#[derive(Clone, Default)]
struct Nodes {
    log: Log,
    refusals: Arc<Mutex<BTreeSet<(String, String)>>>,
    positions: Arc<Mutex<BTreeMap<String, Position>>>,
    still_writing: Arc<Mutex<BTreeSet<String>>>,
}

async fn command(
    Shared(nodes): Shared<Nodes>,
    Path((pod, command)): Path<(String, String)>,
    axum::Json(body): axum::Json<Value>,
) -> Answer {
    assert_eq!(body["cluster"], json!(CLUSTER.to_string()));
    let mut line = format!("{command} {pod}");
    for key in ["fromEpoch", "epoch"] {
        if let Some(epoch) = body.get(key) {
            line.push_str(&format!(" {epoch}"));
        }
    }
    if let Some(at) = body.get("at") {
        line.push_str(&format!(" at {}.{}", at["epoch"], at["offset"]));
    }
    if let Some(address) = body["masterAddress"].as_str() {
        line.push_str(&format!(" {address}"));
    }
    if nodes
        .refusals
        .lock()
        .unwrap()
        .contains(&(pod.clone(), command))
    {
        let error = ApiError::new(ErrorCode::Conflict, "not this time");
        return (StatusCode::CONFLICT, axum::Json(error)).into_response();
    }
    nodes.log.lock().unwrap().push(line);
    let position = nodes
        .positions
        .lock()
        .unwrap()
        .get(&pod)
        .copied()
        .unwrap_or_default();
    let mut state = state(&pod, position);
    state.promised_epoch = body["epoch"].as_u64().unwrap_or_default();
    if nodes.still_writing.lock().unwrap().contains(&pod) {
        state.master_epoch = 1;
    }
    axum::Json(state).into_response()
}

/// What a node says that has kept its promise and writes nothing.
pub(crate) fn state(pod: &str, position: Position) -> State {
    State {
        node: pod.to_owned(),
        node_id: Uuid::from_u128(1),
        boot_id: Uuid::from_u128(2),
        cluster: Some(CLUSTER),
        role: Role::Replica,
        master_epoch: 0,
        promised_epoch: 0,
        writable: false,
        position,
        durable: position.offset,
        chain: Chain::default(),
        history: History::default(),
        has_data: true,
        master_address: None,
        connected: true,
        cut_off: None,
        members: Vec::new(),
        acks: 0,
        settled: true,
        covered: 0,
        unlike: None,
        disk_full: None,
        memory_full: None,
        version: "test".into(),
    }
}

/// Everything that a plan needs to be carried out.
pub(crate) struct Bench {
    pub(crate) api: ApiServer,
    pub(crate) world: World,
    pub(crate) credentials: Credentials,
    /// How long the API server may take to answer.
    pub(crate) within: Duration,
    nodes: Nodes,
    base: String,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        let log = Log::default();
        let api = ApiServer::new(log.clone());
        let nodes = Nodes {
            log,
            ..Nodes::default()
        };
        let router = Router::new()
            .route("/{pod}/control/{command}", post(command))
            .with_state(nodes.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let resource = json!({
            "apiVersion": "vectorizer.hivellm.io/v1alpha1", "kind": "VectorizerCluster",
            "metadata": { "name": "demo", "namespace": "default", "uid": CLUSTER.to_string(), "generation": 1 },
            "spec": {},
        });
        let path =
            "/apis/vectorizer.hivellm.io/v1alpha1/namespaces/default/vectorizerclusters/demo";
        api.put(path, resource);
        for pod in ["demo-master-0", "demo-replica-0"] {
            let body = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod, "uid": "u" } });
            api.put(&format!("/api/v1/namespaces/default/pods/{pod}"), body);
        }
        let typed: VectorizerCluster = serde_json::from_value(api.get(path).unwrap()).unwrap();
        let world = World {
            now: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            cluster: Cluster::check(&typed).unwrap(),
            status: typed.status.clone().unwrap_or_default(),
            default_image: "node:test".into(),
            objects: BTreeMap::new(),
            refusals: BTreeMap::new(),
            applied: BTreeMap::new(),
            taken: BTreeSet::new(),
            secrets: Secrets::default(),
            sets: [None, None],
            claims: BTreeMap::new(),
            lease: LeaseSeen::Missing,
            members: Vec::new(),
            replicas: None,
        };
        let mut credentials = Credentials::default();
        credentials.control = Some("secret".into());
        Bench {
            api,
            world,
            credentials,
            within: ANSWER_WITHIN,
            nodes,
            base,
        }
    }

    pub(crate) fn peer(&self, pod: &str) -> Peer {
        Peer {
            pod: pod.to_owned(),
            url: format!("{}/{pod}", self.base),
            cluster: CLUSTER,
        }
    }

    pub(crate) fn refuse(&self, pod: &str, command: &str) {
        self.nodes
            .refusals
            .lock()
            .unwrap()
            .insert((pod.to_owned(), command.to_owned()));
    }

    /// The node answers each command as a master that goes on writing.
    pub(crate) fn keeps_writing(&self, pod: &str) {
        let mut still = self.nodes.still_writing.lock().unwrap();
        still.insert(pod.to_owned());
    }

    pub(crate) fn node_at(&self, pod: &str, position: Position) {
        self.nodes
            .positions
            .lock()
            .unwrap()
            .insert(pod.to_owned(), position);
    }

    /// A plan of nothing but these steps.
    pub(crate) fn plan(&self, steps: Vec<Step>) -> Plan {
        let mut plan = plan(&self.world);
        plan.secrets.clear();
        plan.objects.clear();
        plan.steps = steps;
        plan
    }

    pub(crate) fn objects(&self) -> Vec<Object> {
        let storage = &self.world.cluster.spec.storage;
        let claim = ClaimTemplate {
            size: storage.size.clone(),
            class: storage.storage_class_name.clone(),
        };
        objects(&Wanted {
            cluster: &self.world.cluster,
            image: "node:test",
            replicas: 2,
            claims: [claim.clone(), claim],
        })
    }

    pub(crate) async fn act(&self, steps: Vec<Step>) -> Done {
        self.run(&self.plan(steps)).await
    }

    pub(crate) async fn run(&self, plan: &Plan) -> Done {
        let client = bounded(self.api.client(), self.within);
        let nodes =
            vectorizer_api::client::Client::new("http://node", Timeouts::default()).unwrap();
        let events = Events::new(client.clone(), "test".into());
        let targets = Targets {
            client: &client,
            nodes: &nodes,
            credentials: &self.credentials,
            events: &events,
        };
        let path =
            "/apis/vectorizer.hivellm.io/v1alpha1/namespaces/default/vectorizerclusters/demo";
        let mut resource: VectorizerCluster =
            serde_json::from_value(self.api.get(path).unwrap()).unwrap();
        resource.meta_mut().resource_version = Some(self.world.cluster.version.clone());
        act(&targets, &resource, &self.world, plan).await
    }

    /// What was written and commanded so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.nodes.log.lock().unwrap().clone()
    }
}
