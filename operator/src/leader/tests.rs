//! Leadership against an API server over TCP that carries a change out and says something else.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kube::Config;
use serde_json::json;
use std::sync::Mutex;

use super::*;
use crate::api;

/// What happens to a change instead of what should.
#[derive(Clone, Copy, Debug)]
enum Fault {
    DoneAndAnswered(StatusCode),
    /// Somebody on the way hands on what a second sending is answered.
    SentTwice,
    /// Another process changes the Lease first: its holder, or only something else.
    Overtaken(Option<&'static str>),
}

#[derive(Default)]
struct Server {
    lease: Mutex<Option<Lease>>,
    versions: Mutex<u64>,
    faults: Mutex<VecDeque<Fault>>,
    asked: Mutex<u64>,
}

impl Server {
    async fn leadership(self: &Arc<Self>, identity: &str) -> Leadership {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let path = "/apis/coordination.k8s.io/v1/namespaces/ns/leases";
        let routes = axum::Router::new()
            .route(path, axum::routing::post(change))
            .route(&format!("{path}/lease"), get(read).put(change));
        let server = axum::serve(listener, routes.with_state(self.clone()));
        tokio::spawn(async move { server.await });
        let client = api::connect(Config::new(url.parse().unwrap())).unwrap();
        Leadership::new(client, "ns", "lease", identity)
    }

    fn holder(&self) -> Option<String> {
        let lease = self.lease.lock().unwrap();
        lease.as_ref()?.spec.as_ref()?.holder_identity.clone()
    }

    fn next(&self, fault: Fault) {
        self.faults.lock().unwrap().push_back(fault);
    }

    fn store(&self, mut lease: Lease) {
        let mut version = self.versions.lock().unwrap();
        *version += 1;
        lease.metadata.resource_version = Some(version.to_string());
        *self.lease.lock().unwrap() = Some(lease);
    }

    fn change(&self, wish: &Lease) -> StatusCode {
        let stored = self.lease.lock().unwrap().clone();
        let version = stored.and_then(|l| l.metadata.resource_version);
        if wish.metadata.resource_version != version {
            return StatusCode::CONFLICT;
        }
        self.store(wish.clone());
        StatusCode::OK
    }

    fn overtake(&self, holder: Option<&str>) {
        let mut lease = self.lease.lock().unwrap().clone().unwrap();
        if let Some(holder) = holder {
            lease.spec.get_or_insert_default().holder_identity = Some(holder.to_owned());
        }
        self.store(lease);
    }

    fn answer(&self, code: StatusCode) -> Response {
        match &*self.lease.lock().unwrap() {
            Some(lease) if code == StatusCode::OK => Json(lease).into_response(),
            _ => {
                let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "code": code.as_u16(), "message": code.to_string(), "reason": reason,
                });
                (code, Json(status)).into_response()
            }
        }
    }
}

async fn read(State(server): State<Arc<Server>>) -> Response {
    let there = server.lease.lock().unwrap().is_some();
    server.answer(if there {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    })
}

async fn change(State(server): State<Arc<Server>>, Json(wish): Json<Lease>) -> Response {
    *server.asked.lock().unwrap() += 1;
    let fault = server.faults.lock().unwrap().pop_front();
    let code = match fault {
        None => server.change(&wish),
        Some(Fault::DoneAndAnswered(code)) => {
            server.change(&wish);
            code
        }
        Some(Fault::SentTwice) => {
            server.change(&wish);
            server.change(&wish)
        }
        Some(Fault::Overtaken(holder)) => {
            server.overtake(holder);
            server.change(&wish)
        }
    };
    server.answer(code)
}

#[tokio::test]
async fn a_renewal_that_was_carried_out_and_not_confirmed_is_not_lost_leadership() {
    let server = Arc::new(Server::default());
    let mut own = server.leadership("own").await;
    for code in [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ] {
        // The first of these makes the Lease.
        server.next(Fault::DoneAndAnswered(code));
        assert!(own.try_to_lead().await.is_err(), "its outcome is not known");
        assert_eq!(server.holder().as_deref(), Some("own"));
        assert!(own.try_to_lead().await.unwrap());
    }
    assert_eq!(*server.asked.lock().unwrap(), 6, "nothing is sent twice");
}

#[tokio::test]
async fn after_a_conflict_it_leads_if_the_lease_still_names_it() {
    let server = Arc::new(Server::default());
    let mut own = server.leadership("own").await;
    assert!(own.try_to_lead().await.unwrap());
    for fault in [Fault::SentTwice, Fault::Overtaken(None)] {
        server.next(fault);
        assert!(own.try_to_lead().await.unwrap(), "{fault:?}");
        assert_eq!(server.holder().as_deref(), Some("own"));
    }
    server.next(Fault::Overtaken(Some("other")));
    assert!(!own.try_to_lead().await.unwrap());
    assert_eq!(server.holder().as_deref(), Some("other"));
}

#[tokio::test]
async fn of_two_that_find_no_lease_one_leads() {
    let server = Arc::new(Server::default());
    let (mut own, mut other) = (
        server.leadership("own").await,
        server.leadership("other").await,
    );
    assert!(own.try_to_lead().await.unwrap());
    assert!(!other.try_to_lead().await.unwrap());
    own.release().await;
    assert!(other.try_to_lead().await.unwrap());
    assert!(!own.try_to_lead().await.unwrap());
}

#[tokio::test]
async fn a_leader_that_hears_nothing_stops_before_another_may_begin() {
    // It takes connections and says nothing.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = api::connect(Config::new(url.parse().unwrap())).unwrap();
    let mut own = Leadership::new(client, "ns", "lease", "own");
    // A hundredth of the real ones.
    (own.every, own.give_up) = (EVERY / 100, GIVE_UP / 100);
    let began = Instant::now();
    tokio::time::timeout(LASTS, own.hold()).await.unwrap();
    assert!(began.elapsed() >= own.give_up);
}
