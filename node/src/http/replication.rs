//! The endpoints under `/replication` (specification, "API Endpoints").

use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde_json::json;
use uuid::Uuid;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_api::replication::{
    CollectionDigest, Configure, Configured, Digests, Replicas, Role, Stats, Status,
};
use vectorizer_replication::roster::Forgotten;

use super::Api;
use super::answer::{Answer, Refusal};
use super::body::{At, Input};
use super::budget::Share;
use super::{reads, whereabouts};
use crate::store::StoreDigest;
use crate::writer::NodeState;

/// `GET /replication/status`.
pub(super) async fn status(State(api): State<Api>) -> Json<Status> {
    let state = api.writer.state().borrow().clone();
    let config = &api.config.replication;
    let applied = api.store.applied();
    let bind_address = match api.replication_address {
        Some(bound) if config.bind_address.port == 0 => bound.to_string(),
        Some(_) | None => config.bind_address.to_string(),
    };
    let mut warnings = api.config.warnings.clone();
    warnings.extend(state.fault.as_ref().map(ToString::to_string));
    warnings.extend(cut_off(&api, &state).filter(|_| state.fault.is_none()));
    warnings.extend(reads::withheld(&state).filter(|_| state.fault.is_none()));
    let room = api.writer.room().borrow().clone();
    warnings.extend(room.disk_full.into_iter().chain(room.memory_full));
    let log = api.writer.log();
    Json(Status {
        enabled: config.enabled,
        role: state.role,
        bind_address: config.enabled.then_some(bind_address),
        connected_replicas: connected(&api, &state),
        replication_log_size: config.log_size,
        current_offset: applied.offset,
        log_first_offset: log.first_offset(),
        log_bytes: log.disk_bytes(),
        log_max_bytes: room.log_max_bytes,
        epoch: applied.epoch,
        node_id: state.node_id,
        connected: (state.role == Role::Replica).then(|| api.links.is_connected()),
        master_address: state.master_address,
        warnings,
    })
}

/// Why a replica is not fed by its master.
pub(super) fn cut_off(api: &Api, state: &NodeState) -> Option<String> {
    let address = state.master_address.as_ref()?;
    let why = api.links.trouble()?;
    let is_cut_off = state.role == Role::Replica && !api.links.is_connected();
    is_cut_off.then(|| format!("the master at {address} is not followed: {why}"))
}

fn connected(api: &Api, state: &NodeState) -> u64 {
    match state.role {
        Role::Master => api.replicas.connected() as u64,
        Role::Replica | Role::Unassigned => 0,
    }
}

/// `POST /replication/configure`.
pub(super) async fn configure(
    State(api): State<Api>,
    Input(request): Input<Configure>,
) -> Result<Json<Configured>, Refusal> {
    if let Some(kubernetes) = &api.config.kubernetes {
        return Err(Refusal::new(
            ErrorCode::Conflict,
            format!(
                "under Kubernetes the operator decides roles: change the VectorizerCluster behind Lease {}/{} instead",
                kubernetes.namespace, kubernetes.lease
            ),
        ));
    }
    let wish = api.config.check(&request).map_err(|error| {
        let problems = error.problems.iter().map(ToString::to_string);
        let problems: Vec<_> = problems.collect();
        let path = error.problems.first().map(|first| first.place.clone());
        ApiError::new(ErrorCode::InvalidRequest, problems.join("; "))
            .with_details(json!({ "path": path, "problems": problems }))
    })?;
    let warnings = wish.overridden.clone();
    let stored = tokio::task::spawn_blocking(move || wish.store()).await;
    match stored {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let message = format!("the configuration cannot be stored: {error}");
            return Err(Refusal::new(ErrorCode::Internal, message));
        }
        Err(error) => return Err(Refusal::new(ErrorCode::Internal, error.to_string())),
    }
    tracing::info!(?request, "replication configured, from the next start on");
    Ok(Json(Configured {
        success: true,
        role: capitalized(&request.role),
        message: "Replication configured successfully. Server restart required.".to_owned(),
        warnings,
    }))
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// `GET /replication/stats`.
pub(super) async fn stats(State(api): State<Api>) -> Json<Stats> {
    let state = api.writer.state().borrow().clone();
    let offset = api.store.applied().offset;
    let links = &api.links;
    let pending = match state.role {
        Role::Master => {
            let replicas = api.replicas.list();
            let connected = replicas.iter().filter(|replica| replica.connected);
            connected.map(|replica| replica.lag_operations).max()
        }
        Role::Replica => Some(links.master_offset.load(Relaxed).saturating_sub(offset)),
        Role::Unassigned => None,
    };
    Json(Stats {
        role: state.role,
        bytes_sent: links.bytes_sent.load(Relaxed),
        bytes_received: links.bytes_received.load(Relaxed),
        last_sync: links.last_sync.load(Relaxed),
        operations_pending: pending.unwrap_or(0),
        snapshot_size: links.snapshot_size.load(Relaxed),
        connected_replicas: connected(&api, &state),
        current_offset: offset,
        replication_log_size: api.config.replication.log_size,
        full_syncs: links.full_syncs.load(Relaxed),
        partial_syncs: links.partial_syncs.load(Relaxed),
    })
}

/// `GET /replication/digest`.
pub(super) async fn digest(State(api): State<Api>, share: Share) -> Result<Response, Refusal> {
    let StoreDigest {
        position,
        chain,
        history,
        total,
        collections,
    } = api.store.digests();
    let collections = collections.into_iter();
    let mut answer = Answer::new(&share);
    // It has no pages. Each collection takes more memory than it does here.
    answer.allow(usize::MAX);
    answer.put(&Digests {
        position,
        chain,
        history,
        digest: total.to_string(),
        collections: collections
            .map(|(name, count, digest)| CollectionDigest {
                name,
                count,
                digest: digest.to_string(),
            })
            .collect(),
    })?;
    Ok(answer.finish())
}

/// `GET /replication/replicas`.
pub(super) async fn replicas(State(api): State<Api>) -> Result<Json<Replicas>, Refusal> {
    only_on_master(&api)?;
    let replicas = api.replicas.list();
    let count = replicas.len();
    Ok(Json(Replicas { replicas, count }))
}

/// `DELETE /replication/replicas/{id}`.
pub(super) async fn forget(
    State(api): State<Api>,
    At(id): At<String>,
) -> Result<Json<Replicas>, Refusal> {
    only_on_master(&api)?;
    let id: Uuid = id.parse().map_err(|_| {
        let message =
            format!("{id:?} is no replica's id: expected one of GET /replication/replicas");
        ApiError::new(ErrorCode::InvalidRequest, message)
    })?;
    let (code, what) = match api.replicas.forget(id) {
        Forgotten::Done => return replicas(State(api)).await,
        Forgotten::IsConnected => (ErrorCode::Conflict, "is connected: stop it first"),
        Forgotten::Unknown => (ErrorCode::ReplicaNotFound, "is not listed"),
    };
    Err(Refusal::new(code, format!("replica {id} {what}")))
}

fn only_on_master(api: &Api) -> Result<(), Refusal> {
    let state = api.writer.state().borrow().clone();
    let what = match (&state.role, &state.master_address) {
        (Role::Master, _) => return Ok(()),
        (Role::Replica | Role::Unassigned, Some(_)) => "a replica",
        (Role::Replica | Role::Unassigned, None) => "not the master",
    };
    let master = whereabouts::of_master(api, &state);
    let error = ApiError::new(
        ErrorCode::InvalidRequest,
        format!("this node is {what}: only the master lists replicas, ask {master}"),
    );
    Err(error.with_details(whereabouts::details(&state)).into())
}
