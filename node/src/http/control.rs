//! The endpoints under `/control`: the operator's commands. They reach the writer as they are; what is allowed is
//! decided there. Before a command makes this node master, the Lease has to say so too.

use axum::Json;
use axum::extract::State as From;
use std::collections::BTreeSet;
use std::time::Duration;

use vectorizer_api::control::{Fence, Follow, Handover, Initialize, Members, Promote, State};
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_api::replication::Role;
use vectorizer_replication::command::Command;
use vectorizer_replication::concern::Concern;

use super::Api;
use super::answer::Refusal;
use super::body::Input;
use super::replication;
use crate::config::{Address, Durability};

/// So many epochs are told: whoever asks is interested in the last few, and takes an answer of a bounded size.
const EPOCHS_SHOWN: usize = 1_000;
/// A change of members may wait for acknowledgements no longer than this.
const LONGEST_CHANGE: Duration = Duration::from_secs(30);

type Answer = Result<Json<State>, Refusal>;

/// `GET /control/state`.
pub(super) async fn state(From(api): From<Api>) -> Json<State> {
    let now = api.writer.state().borrow().clone();
    let progress = *api.writer.progress().borrow();
    let room = api.writer.room().borrow().clone();
    let is_master = now.role == Role::Master;
    let membership = api.replicas.membership().filter(|_| is_master);
    let (record, settled) = membership.map_or((Concern::default(), true), |m| {
        (m.on_record().clone(), m.settled().is_some())
    });
    let cut_off = replication::cut_off(&api, &now);
    Json(State {
        members: record.members.into_iter().collect(),
        acks: record.acks,
        settled,
        covered: if is_master {
            api.replicas.covered(progress.durable)
        } else {
            0
        },
        node: api.config.node.name.clone(),
        node_id: now.node_id,
        boot_id: now.boot_id,
        cluster: now.cluster,
        role: now.role,
        master_epoch: now.master_epoch,
        promised_epoch: now.promised,
        writable: is_master && !now.handing_over && api.0.permit.holds(),
        position: progress.end.position,
        durable: progress.durable,
        chain: progress.end.chain,
        unlike: now.unlike().map(ToOwned::to_owned),
        history: now.history.last(EPOCHS_SHOWN),
        has_data: now.has_data,
        master_address: now.master_address,
        disk_full: room.disk_full,
        memory_full: room.memory_full,
        connected: is_master || api.links.is_connected(),
        cut_off,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// `POST /control/initialize`.
pub(super) async fn initialize(From(api): From<Api>, Input(wish): Input<Initialize>) -> Answer {
    let Initialize { cluster, epoch } = wish;
    confirm(&api, epoch).await?;
    command(api, Command::Initialize { cluster, epoch }).await
}

/// `POST /control/fence`.
pub(super) async fn fence(From(api): From<Api>, Input(wish): Input<Fence>) -> Answer {
    let Fence { cluster, epoch } = wish;
    command(api, Command::Fence { cluster, epoch }).await
}

/// `POST /control/handover`: answers when the target holds everything.
pub(super) async fn handover(From(api): From<Api>, Input(wish): Input<Handover>) -> Answer {
    tracing::info!(command = ?wish, "role command");
    api.writer.handover(wish, api.replicas.clone()).await?;
    Ok(state(From(api)).await)
}

/// `POST /control/promote`.
pub(super) async fn promote(From(api): From<Api>, Input(wish): Input<Promote>) -> Answer {
    let Promote { cluster, epoch, at } = wish;
    confirm(&api, epoch).await?;
    command(api, Command::Promote { cluster, epoch, at }).await
}

/// `POST /control/follow`.
pub(super) async fn follow(From(api): From<Api>, Input(wish): Input<Follow>) -> Answer {
    let Follow {
        cluster,
        epoch,
        master_address,
        master_url,
    } = wish;
    if let Err(error) = master_address.parse::<Address>() {
        return Err(Refusal::invalid("masterAddress", error));
    }
    let address = master_url
        .strip_prefix("http://")
        .and_then(|rest| rest.trim_end_matches('/').parse::<Address>().ok());
    let Some(address) = address else {
        let message = format!("`{master_url}` is not allowed: expected http://<host>:<port>");
        return Err(Refusal::invalid("masterUrl", message));
    };
    let follow = Command::Follow {
        cluster,
        epoch,
        master_address,
        master_url: Some(format!("http://{address}")),
    };
    command(api, follow).await
}

/// `POST /control/members`.
pub(super) async fn members(From(api): From<Api>, Input(wish): Input<Members>) -> Answer {
    tracing::info!(command = ?wish, "role command");
    let given = wish.members.len();
    let concern = Concern {
        members: wish.members.into_iter().collect::<BTreeSet<_>>(),
        acks: wish.acks,
    };
    if concern.members.len() != given {
        return Err(Refusal::invalid("members", "names a node twice"));
    }
    {
        let state = api.writer.state();
        let now = state.borrow();
        if now.cluster != Some(wish.cluster) || now.master_epoch != wish.epoch {
            let message = format!(
                "this node is not master in epoch {} of cluster {}",
                wish.epoch, wish.cluster
            );
            return Err(ApiError::new(ErrorCode::Conflict, message).into());
        }
    }
    if concern.acks > 0 && api.config.storage.durability != Durability::Always {
        let message = "needs storage.durability: always, as an acknowledged write must be on this node's disk as well";
        return Err(Refusal::invalid("acks", message));
    }
    let deadline = Duration::from_millis(wish.deadline_ms).min(LONGEST_CHANGE);
    let recorded = wish.recorded.into();
    let changed = api.leadership.change_members(
        wish.epoch,
        (&recorded, &concern),
        &api.writer,
        &api.replicas,
        &api.pulse,
        deadline,
    );
    changed.await?;
    Ok(state(From(api)).await)
}

async fn confirm(api: &Api, epoch: u64) -> Result<(), ApiError> {
    api.leadership
        .confirm(epoch, &api.writer, &api.replicas, &api.pulse)
        .await
}

async fn command(api: Api, command: Command) -> Answer {
    tracing::info!(?command, "role command");
    api.writer.command(command).await?;
    Ok(state(From(api)).await)
}
