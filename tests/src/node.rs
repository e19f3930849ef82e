//! One node, spoken to over HTTP through a port-forward to its pod: works from outside the cluster, whatever Services
//! and network policies say, and names exactly the node that is meant.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::Value;
use vectorizer_api::replication::{Digests, Replicas, Stats, Status};

use crate::failure::{Failure, OrFail, Result};
use crate::wait::seconds;

/// Where a node serves REST.
pub const REST_PORT: u16 = 15002;

/// A pod's HTTP port.
#[derive(Clone)]
pub struct Node {
    client: Client,
    namespace: String,
    /// The pod's name.
    pub pod: String,
    port: u16,
    key: Option<String>,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `X-Vectorizer-Position`, when there is one.
    pub position: Option<String>,
    /// The body: JSON, or a string when it is not.
    pub body: Value,
}

impl Answer {
    /// The body when the status is 2xx.
    pub fn ok(self) -> Result<Value> {
        if (200..300).contains(&self.status) {
            Ok(self.body)
        } else {
            Err(Failure::new(format!(
                "status {}: {}",
                self.status, self.body
            )))
        }
    }
}

impl Node {
    /// A node's REST port, with a bearer key.
    pub fn new(client: Client, namespace: &str, pod: &str, key: &str) -> Self {
        Node {
            key: Some(key.to_owned()),
            ..Node::bare(client, namespace, pod, REST_PORT)
        }
    }

    /// Any other pod's port, without credentials.
    pub fn bare(client: Client, namespace: &str, pod: &str, port: u16) -> Self {
        Node {
            client,
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            port,
            key: None,
        }
    }

    /// The same pod with another key.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.request(Method::GET, path, None).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.request(Method::POST, path, Some(body)).await
    }

    /// `GET /replication/status`.
    pub async fn status(&self) -> Result<Status> {
        self.read("/replication/status").await
    }

    /// `GET /replication/stats`.
    pub async fn stats(&self) -> Result<Stats> {
        self.read("/replication/stats").await
    }

    /// `GET /replication/replicas`; refused by a replica.
    pub async fn replicas(&self) -> Result<Replicas> {
        self.read("/replication/replicas").await
    }

    /// `GET /replication/digest`.
    pub async fn digests(&self) -> Result<Digests> {
        self.read("/replication/digest").await
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let doing = format!("GET {path} from {}", self.pod);
        let body = self.get(path).await?.ok().or_fail(&doing)?;
        serde_json::from_value(body).or_fail(&doing)
    }

    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let doing = format!("{method} {path} from {}", self.pod);
        let exchange = self.exchange(method, path, body);
        tokio::time::timeout(seconds(90), exchange)
            .await
            .or_fail(&doing)?
            .or_fail(&doing)
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut forward = pods
            .portforward(&self.pod, &[self.port])
            .await
            .or_fail("port-forward")?;
        let stream = forward.take_stream(self.port).or_fail("port-forward")?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
                .await
                .or_fail("handshake")?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.pod);
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::from(body)).or_fail("request")?;
        let answer = sender.send_request(request).await.or_fail("answer")?;
        let status = answer.status().as_u16();
        let position = answer
            .headers()
            .get(vectorizer_api::POSITION_HEADER)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let bytes = answer
            .into_body()
            .collect()
            .await
            .or_fail("body")?
            .to_bytes();
        driver.abort();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer {
            status,
            position,
            body,
        })
    }
}
