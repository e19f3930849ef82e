//! A typed client of the REST API, for the operator, the tests and whoever else talks to a node.
//!
//! Every call is bounded: in time by [`Timeouts`], in memory by [`MAX_ANSWER_BYTES`], or by less where a caller says so. A refusal by the node
//! ([`ClientError::Api`]) is told apart from a node that could not be reached or did not answer in time, and each error
//! says whether anything can have happened. No call is repeated, but for another credential, and no redirect followed:
//! what to do next is the caller's decision.

mod data;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use vectorizer_replication::position::Position;

use crate::control::{Fence, Follow, Handover, Initialize, Members, Promote, State};
use crate::error::ApiError;
use crate::replication::{Configure, Configured, Digests, Replicas, Stats, Status};
use crate::{POSITION_HEADER, ROLE_HEADER};

/// Answers larger than this are not read to their end, in bytes.
pub const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Connections that were idle for longer are not used again: the node may be about to close them.
const IDLE: Duration = Duration::from_secs(30);

/// How long a call may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// Until the connection stands.
    pub connect: Duration,
    /// Until the whole answer is there, the connection included.
    pub overall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(2),
            overall: Duration::from_secs(10),
        }
    }
}

/// Why a call has no answer to give.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ClientError {
    /// The node answered, and refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// No connection could be made: nothing was sent.
    #[error("cannot connect to {url}: {cause}")]
    Connect {
        /// The URL called.
        url: String,
        /// What the network said.
        cause: String,
    },
    /// The connection stood, but no whole answer came in time.
    #[error("no answer from {url} in time: {cause}")]
    Timeout {
        /// The URL called.
        url: String,
        /// What was being waited for.
        cause: String,
    },
    /// The connection broke.
    #[error("the connection to {url} broke: {cause}")]
    Broken {
        /// The URL called.
        url: String,
        /// What the network said.
        cause: String,
    },
    /// Something answered that is not this API.
    #[error("{url} answered {status} with something that is not this API's: {cause}")]
    NotUnderstood {
        /// The URL called.
        url: String,
        /// HTTP status.
        status: u16,
        /// What is wrong with the answer.
        cause: String,
    },
    /// The call could not be built: a URL or a credential with impossible characters.
    #[error("cannot build a request to {url}: {cause}")]
    Request {
        /// The URL meant.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl ClientError {
    /// The node's refusal, when it is one.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            ClientError::Api(error) => Some(error),
            ClientError::Connect { .. }
            | ClientError::Timeout { .. }
            | ClientError::Broken { .. }
            | ClientError::NotUnderstood { .. }
            | ClientError::Request { .. } => None,
        }
    }

    /// Whether it is certain that the call changed nothing on the node.
    pub fn has_no_side_effects(&self) -> bool {
        match self {
            ClientError::Api(error) => error.error_type.has_no_side_effects(),
            ClientError::Connect { .. } | ClientError::Request { .. } => true,
            ClientError::Timeout { .. }
            | ClientError::Broken { .. }
            | ClientError::NotUnderstood { .. } => false,
        }
    }
}

/// An answer with what its headers say about the node that gave it.
#[derive(Clone, PartialEq, Debug)]
pub struct Reply<T> {
    /// The body.
    pub body: T,
    /// After a write, the position of the write; otherwise what the node had applied.
    pub position: Option<Position>,
    /// Role of the node that answered: `master`, `replica` or `unassigned`.
    pub role: Option<String>,
}

/// A node's REST API. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    base: String,
    token: Option<String>,
    former: Option<String>,
    at_least: Option<Position>,
    at_most: usize,
    http: reqwest::Client,
}

impl fmt::Debug for Client {
    /// The credential is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish()
    }
}

impl Client {
    /// A client of the node at `base`, such as `http://10.0.0.7:15002`, without a credential.
    ///
    /// Proxies named in the environment are not used: nodes are reached directly.
    pub fn new(base: impl Into<String>, timeouts: Timeouts) -> Result<Self, ClientError> {
        let base = base.into().trim_end_matches('/').to_owned();
        let built = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timeouts.connect)
            .timeout(timeouts.overall)
            .pool_idle_timeout(IDLE)
            .build();
        match built {
            Ok(http) => Ok(Client {
                base,
                token: None,
                former: None,
                at_least: None,
                at_most: MAX_ANSWER_BYTES,
                http,
            }),
            Err(error) => Err(ClientError::Request {
                url: base,
                cause: chain(&error),
            }),
        }
    }

    /// The same connections, speaking to another node.
    #[must_use]
    pub fn at(&self, base: impl Into<String>) -> Self {
        Client {
            base: base.into().trim_end_matches('/').to_owned(),
            ..self.clone()
        }
    }

    /// The same with a bearer credential on every call.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The same with a bearer credential on every call, if there is one, and with the one before it, if there was one:
    /// with that a call is made once more that the node refuses because it knows no such credential. It has done nothing
    /// then. A node reads a new credential some time after it was written.
    #[must_use]
    pub fn with_tokens(mut self, token: Option<String>, former: Option<String>) -> Self {
        self.token = token;
        self.former = former;
        self
    }

    /// The same, and reads wait until the node has applied at least `position` (or are refused with `unavailable`).
    #[must_use]
    pub fn reading_at_least(mut self, position: Position) -> Self {
        self.at_least = Some(position);
        self
    }

    /// The same, and answers larger than so many bytes are not read to their end.
    #[must_use]
    pub fn taking_at_most(mut self, bytes: usize) -> Self {
        self.at_most = bytes;
        self
    }

    /// The URL that it was built with, without a slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET /control/state`.
    pub async fn control_state(&self) -> Result<State, ClientError> {
        self.get("/control/state").await
    }

    /// `POST /control/initialize`.
    pub async fn initialize(&self, command: &Initialize) -> Result<State, ClientError> {
        self.post("/control/initialize", command).await
    }

    /// `POST /control/fence`.
    pub async fn fence(&self, command: &Fence) -> Result<State, ClientError> {
        self.post("/control/fence", command).await
    }

    /// `POST /control/handover`. Answers when the target holds everything, so the overall timeout should be above the
    /// command's deadline.
    pub async fn handover(&self, command: &Handover) -> Result<State, ClientError> {
        self.post("/control/handover", command).await
    }

    /// `POST /control/promote`.
    pub async fn promote(&self, command: &Promote) -> Result<State, ClientError> {
        self.post("/control/promote", command).await
    }

    /// `POST /control/follow`.
    pub async fn follow(&self, command: &Follow) -> Result<State, ClientError> {
        self.post("/control/follow", command).await
    }

    /// `POST /control/members`.
    pub async fn members(&self, command: &Members) -> Result<State, ClientError> {
        self.post("/control/members", command).await
    }

    /// `GET /replication/status`.
    pub async fn replication_status(&self) -> Result<Status, ClientError> {
        self.get("/replication/status").await
    }

    /// `POST /replication/configure`.
    pub async fn replication_configure(&self, wish: &Configure) -> Result<Configured, ClientError> {
        self.post("/replication/configure", wish).await
    }

    /// `GET /replication/stats`.
    pub async fn replication_stats(&self) -> Result<Stats, ClientError> {
        self.get("/replication/stats").await
    }

    /// `GET /replication/digest`: what the node holds, as digests at one position.
    pub async fn replication_digest(&self) -> Result<Digests, ClientError> {
        self.get("/replication/digest").await
    }

    /// `GET /replication/replicas`; refused by a replica, with the master's address.
    pub async fn replication_replicas(&self) -> Result<Replicas, ClientError> {
        self.get("/replication/replicas").await
    }

    /// `DELETE /replication/replicas/{id}`: forgets a replica that is not connected. Answers those that are left.
    pub async fn forget_replica(&self, id: Uuid) -> Result<Replicas, ClientError> {
        let path = format!("/replication/replicas/{id}");
        Ok(self.call::<(), _>(Method::DELETE, &path, None).await?.body)
    }

    /// `GET /readyz`: whether the node has a role and data and serves reads. False when it answers that it is not ready;
    /// an error when it does not answer.
    pub async fn ready(&self) -> Result<bool, ClientError> {
        self.probe("/readyz").await
    }

    /// `GET /livez`: whether the node's writer runs.
    pub async fn live(&self) -> Result<bool, ClientError> {
        self.probe("/livez").await
    }

    async fn probe(&self, path: &str) -> Result<bool, ClientError> {
        let url = self.url(path);
        let answer = self.send(&url, self.http.get(&url)).await?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::SERVICE_UNAVAILABLE => Ok(false),
            _ => Err(refusal(url, answer, self.at_most).await),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        Ok(self.call::<(), T>(Method::GET, path, None).await?.body)
    }

    async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        Ok(self.call(Method::POST, path, Some(body)).await?.body)
    }

    async fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Reply<T>, ClientError> {
        let url = self.url(path);
        let mut request = self.http.request(method, &url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = self.send(&url, request).await?;
        if !answer.status().is_success() {
            return Err(refusal(url, answer, self.at_most).await);
        }
        let status = answer.status().as_u16();
        let header = |name| {
            let value = answer.headers().get(name)?;
            Some(value.to_str().ok()?.to_owned())
        };
        let position = header(POSITION_HEADER).and_then(|text| text.parse().ok());
        let role = header(ROLE_HEADER);
        let bytes = read(&url, answer, self.at_most).await?;
        match serde_json::from_slice(&bytes) {
            Ok(body) => Ok(Reply {
                body,
                position,
                role,
            }),
            Err(error) => Err(ClientError::NotUnderstood {
                url,
                status,
                cause: error.to_string(),
            }),
        }
    }

    async fn send(&self, url: &str, request: RequestBuilder) -> Result<Response, ClientError> {
        let request = match self.at_least {
            Some(position) => request.header(POSITION_HEADER, position.to_string()),
            None => request,
        };
        let again = self
            .former
            .as_ref()
            .and_then(|former| Some((former, request.try_clone()?)));
        let with = |request: RequestBuilder, token: Option<&String>| match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let first = with(request, self.token.as_ref()).send().await;
        let answer = first.map_err(|e| transport(url, &e))?;
        match again {
            Some((former, request)) if answer.status() == StatusCode::UNAUTHORIZED => {
                let second = with(request, Some(former)).send().await;
                second.map_err(|e| transport(url, &e))
            }
            Some(_) | None => Ok(answer),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// The whole body, as long as it stays within `most` bytes: a peer's promise about its size is not trusted.
async fn read(url: &str, mut answer: Response, most: usize) -> Result<Vec<u8>, ClientError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| transport(url, &e))? {
        if bytes.len() + chunk.len() > most {
            return Err(ClientError::NotUnderstood {
                url: url.to_owned(),
                status: answer.status().as_u16(),
                cause: format!("its body is larger than {most} bytes"),
            });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn refusal(url: String, answer: Response, most: usize) -> ClientError {
    let status = answer.status().as_u16();
    let bytes = match read(&url, answer, most).await {
        Ok(bytes) => bytes,
        Err(error) => return error,
    };
    match serde_json::from_slice::<ApiError>(&bytes) {
        Ok(error) => ClientError::Api(error),
        Err(error) => ClientError::NotUnderstood {
            url,
            status,
            cause: error.to_string(),
        },
    }
}

fn transport(url: &str, error: &reqwest::Error) -> ClientError {
    let url = url.to_owned();
    let cause = chain(error);
    // A connect that timed out is both; nothing was sent then, which is what matters.
    if error.is_builder() {
        ClientError::Request { url, cause }
    } else if error.is_connect() {
        ClientError::Connect { url, cause }
    } else if error.is_timeout() {
        ClientError::Timeout { url, cause }
    } else {
        ClientError::Broken { url, cause }
    }
}

/// The error and what caused it, innermost last: reqwest's own text hides the reason.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
