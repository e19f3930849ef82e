//! An API server of one Lease, over TCP: it compares versions, counts what it is asked, and can be told to carry a change
//! out and say something else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use k8s_openapi::api::coordination::v1::Lease;
use parking_lot::Mutex;
use serde_json::json;
use uuid::Uuid;
use vectorizer_api::concern::Concern;
use vectorizer_api::lease::{Grant, Holder};
use vectorizer_api::position::Position;

pub(super) const CLUSTER: Uuid = Uuid::from_u128(0xc1);

/// What happens to a change instead of what should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// It is carried out, and answered with this status.
    DoneAndAnswered(StatusCode),
    /// It is not, and answered with this status.
    Refused(StatusCode),
    /// Somebody on the way sends it twice, and hands on what the second is answered.
    SentTwice,
}

/// One Lease, and how often it was read and changed.
#[derive(Default)]
pub(super) struct Server {
    pub(super) lease: Mutex<Lease>,
    pub(super) reads: AtomicU64,
    /// Requests to change it, whatever came of them.
    pub(super) asked: AtomicU64,
    pub(super) changes: AtomicU64,
    /// Whoever holds this keeps readings from being answered.
    pub(super) gate: tokio::sync::Mutex<()>,
    /// Of the changes to come, one each; `None` for one that goes well.
    pub(super) faults: Mutex<VecDeque<Option<Fault>>>,
}

impl Server {
    /// Serves in a task of its own, and says where.
    pub(super) async fn serve(self: &Arc<Self>) -> kube::Config {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let path = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/lease";
        let routes = axum::Router::new().route(path, get(read).put(change));
        let server = axum::serve(listener, routes.with_state(self.clone()));
        tokio::spawn(async move { server.await });
        kube::Config::new(url.parse().unwrap())
    }

    pub(super) fn grant(&self, epoch: u64, node_id: Uuid) {
        let (pod, boot_id) = ("pod".to_owned(), Uuid::from_u128(1));
        let holder = Holder {
            pod,
            node_id,
            boot_id,
        };
        self.grant_to(epoch, holder, Concern::default());
    }

    pub(super) fn grant_to(&self, epoch: u64, holder: Holder, concern: Concern) {
        let grant = Grant {
            cluster: CLUSTER,
            epoch,
            holder: Some(holder),
            concern,
            secured: Position::ZERO,
        };
        let mut lease = self.lease.lock();
        lease.metadata.annotations = Some(grant.annotations());
        lease.spec.get_or_insert_default().holder_identity = Some(grant.holder_identity());
    }

    /// Members and acknowledgements on record, and what is secured.
    pub(super) fn on_record(&self) -> (Concern, Position) {
        let lease = self.lease.lock();
        let annotations = lease.metadata.annotations.clone().unwrap();
        let grant = Grant::parse(None, &annotations).unwrap();
        (grant.concern, grant.secured)
    }

    fn change(&self, wish: &Lease) -> StatusCode {
        let mut lease = self.lease.lock();
        if wish.metadata.resource_version != lease.metadata.resource_version {
            return StatusCode::CONFLICT;
        }
        let changes = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        *lease = wish.clone();
        lease.metadata.resource_version = Some(changes.to_string());
        StatusCode::OK
    }

    fn answer(&self, code: StatusCode) -> Response {
        if code == StatusCode::OK {
            return Json(self.lease.lock().clone()).into_response();
        }
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
            "message": code.to_string(), "reason": code.canonical_reason(),
        });
        (code, Json(body)).into_response()
    }
}

async fn read(State(server): State<Arc<Server>>) -> Response {
    server.reads.fetch_add(1, Ordering::SeqCst);
    drop(server.gate.lock().await);
    server.answer(StatusCode::OK)
}

async fn change(State(server): State<Arc<Server>>, Json(wish): Json<Lease>) -> Response {
    server.asked.fetch_add(1, Ordering::SeqCst);
    let fault = server.faults.lock().pop_front().flatten();
    let code = match fault {
        None => server.change(&wish),
        Some(Fault::DoneAndAnswered(code)) => {
            server.change(&wish);
            code
        }
        Some(Fault::Refused(code)) => code,
        Some(Fault::SentTwice) => {
            server.change(&wish);
            server.change(&wish)
        }
    };
    server.answer(code)
}
