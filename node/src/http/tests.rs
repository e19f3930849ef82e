//! The API over a real writer and a real data directory, without sockets.

mod access;
mod bad_input;
mod budget;
mod bulk;
mod data;
mod given_up;
mod roles;
mod system;

use std::collections::BTreeMap;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;
use uuid::Uuid;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_replication::command::Command;
use vectorizer_replication::position::Position;

use super::{Api, Parts, Port, serve};
use crate::config::{Config, Flags};
use crate::data_dir::DataDir;
use crate::journal::JournalOptions;
use crate::lease::Leadership;
use crate::link::LinkStats;
use crate::replicas::ReplicaTable;
use crate::writer::{self, WriterOptions};

const CLUSTER: Uuid = Uuid::from_u128(0xc1);
const ADMIN: &str = "the-admin-key";
const READ: &str = "the-read-key";
const CONTROL: &str = "the-control-token";

/// A node without sockets.
struct Node {
    api: Api,
    router: Router,
    key: Option<&'static str>,
    dir: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.bytes))
    }

    #[track_caller]
    fn good(&self) -> Value {
        assert!(self.status.is_success(), "{}", self.json());
        self.json()
    }

    /// The error that it is, checked to say the same in its status.
    #[track_caller]
    fn error(&self) -> ApiError {
        assert!(!self.status.is_success(), "{}", self.json());
        let error: ApiError = serde_json::from_value(self.json()).unwrap();
        assert_eq!(error.status_code, self.status.as_u16());
        assert_eq!(error.error_type.status(), self.status.as_u16());
        error
    }

    #[track_caller]
    fn code(&self) -> ErrorCode {
        self.error().error_type
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }

    fn position(&self) -> Position {
        self.header(vectorizer_api::POSITION_HEADER)
            .parse()
            .unwrap()
    }
}

impl Node {
    /// A node that has not been told what it is. `set` are settings such as `server.max_body_bytes=1024`.
    fn unassigned(set: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut set: Vec<String> = set.iter().map(ToString::to_string).collect();
        set.push(format!(
            "node.data_dir={}",
            dir.path().join("data").display()
        ));
        let flags = Flags {
            set,
            ..Flags::default()
        };
        let config = Config::load(&flags, &BTreeMap::new(), "a-node").unwrap();
        let (data, opened) =
            DataDir::open(&config.node.data_dir, JournalOptions::default()).unwrap();
        let store = opened.store.clone();
        let leadership = Leadership::Static;
        let start = writer::start(
            data,
            opened,
            leadership.permit(),
            Uuid::new_v4(),
            WriterOptions::default(),
        )
        .unwrap();
        let api = Api::new(Parts {
            config,
            writer: start.handle,
            pulse: start.pulse,
            leadership,
            store,
            replicas: ReplicaTable::default(),
            links: LinkStats::default().into(),
            replication_address: None,
        });
        let router = api.router(Port::Rest);
        Node {
            api,
            router,
            key: None,
            dir,
        }
    }

    async fn master_with(set: &[&str]) -> Self {
        let node = Node::unassigned(set);
        let initialize = Command::Initialize {
            cluster: CLUSTER,
            epoch: 1,
        };
        node.api.writer.command(initialize).await.unwrap();
        node
    }

    async fn master() -> Self {
        Node::master_with(&[]).await
    }

    /// A master with a collection `c` of dimension 2.
    async fn with_collection() -> Self {
        let node = Node::master().await;
        let wish = r#"{"name": "c", "dimension": 2, "metric": "cosine"}"#;
        node.post("/collections", wish).await.good();
        node
    }

    /// A replica that holds nothing yet.
    async fn replica() -> Self {
        let node = Node::unassigned(&[]);
        let follow = Command::Follow {
            cluster: CLUSTER,
            epoch: 1,
            master_address: "10.0.0.1:7001".to_owned(),
            master_url: Some("http://10.0.0.1:15002".to_owned()),
        };
        node.api.writer.command(follow).await.unwrap();
        node
    }

    /// A master that knows all three credentials.
    async fn locked() -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut set = Vec::new();
        for (key, secret) in [
            ("admin_key", ADMIN),
            ("read_key", READ),
            ("control_token", CONTROL),
        ] {
            let file = files.path().join(key);
            std::fs::write(&file, secret).unwrap();
            set.push(format!("server.{key}_file={}", file.display()));
        }
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        let node = Node::master_with(&set).await;
        // Credentials were read; that their files go away again does not matter.
        drop(files);
        node
    }

    fn with_key(mut self, key: &'static str) -> Self {
        self.key = Some(key);
        self
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            bytes: axum::body::to_bytes(body, usize::MAX).await.unwrap(),
        }
    }

    async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json");
        if let Some(key) = self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Body::empty()).await
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.call(Method::POST, path, body).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, Body::empty()).await
    }

    /// Where the log ends: the same before and after means that nothing was changed.
    fn end(&self) -> Position {
        self.api.writer.progress().borrow().end.position
    }
}
