//! Who decides that this node may be master: a Lease, or its own configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use uuid::Uuid;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_api::replication::Role;
use vectorizer_replication::command::Command;
use vectorizer_replication::concern::{Change, Concern, Membership};

use super::{KubernetesLease, LeaseError};
use crate::breakage::{self, Breakage};
use crate::clock::boot_time_ms;
use crate::permit::Permit;
use crate::replicas::ReplicaTable;
use crate::writer::WriterHandle;

/// A writer that has not finished a drain for this long, in ms, must not be kept master by its other threads.
const STUCK_AFTER_MS: u64 = 5_000;
/// How often a former master asks whether the Lease still names it.
const RETAKE_EVERY: Duration = Duration::from_millis(500);

/// How long it waits when it may not go on although the Lease does name it: each attempt takes another epoch.
const AFTER_REFUSAL: Duration = Duration::from_secs(10);

/// Who decides.
#[derive(Clone)]
pub enum Leadership {
    /// The configuration does: nothing promises that there is only one master.
    Static,
    /// A Lease does.
    Kubernetes(Arc<KubernetesLease>),
}

impl Leadership {
    /// The permit that the writer checks.
    pub fn permit(&self) -> Permit {
        match self {
            Leadership::Static => Permit::unlimited(),
            Leadership::Kubernetes(lease) => lease.permit(),
        }
    }

    /// Confirms that `epoch` is granted to this process, before a command makes it master. What the Lease says of
    /// members and acknowledgements holds in that epoch.
    pub async fn confirm(
        &self,
        epoch: u64,
        writer: &WriterHandle,
        replicas: &ReplicaTable,
        pulse: &AtomicU64,
    ) -> Result<(), ApiError> {
        let Leadership::Kubernetes(lease) = self else {
            return Ok(());
        };
        writer_moves(pulse)?;
        let confirmed = lease.confirm(epoch).await;
        let concern = confirmed.map_err(|error| unconfirmed(epoch, &error))?;
        let (node_id, master_epoch) = {
            let state = writer.state();
            let now = state.borrow();
            (now.node_id, now.master_epoch)
        };
        // A command that is given twice finds this node at work in that epoch, perhaps amid a change.
        if master_epoch != epoch {
            replicas.set_granted(epoch, node_id, concern);
        }
        Ok(())
    }

    /// Brings members and acknowledgements to `wish`, in the order that keeps every answered write in every quorum. A
    /// wish of somebody who knew something else to be on record is refused: it is from before. So is one that adds a node
    /// which is not in sync.
    ///
    /// Answered when it is on record. After an error it is as it was before, or stricter: what is in use then holds for
    /// what was on record and for the wish, until the next attempt clears that up.
    pub async fn change_members(
        &self,
        epoch: u64,
        (known, wish): (&Concern, &Concern),
        writer: &WriterHandle,
        replicas: &ReplicaTable,
        pulse: &AtomicU64,
        deadline: Duration,
    ) -> Result<(), ApiError> {
        let Leadership::Kubernetes(lease) = self else {
            let message =
                "roles are static here: set replication.write_acks in this node's configuration";
            return Err(ApiError::new(ErrorCode::Conflict, message));
        };
        let _one_at_a_time = lease.changing().await;
        let until = Instant::now() + deadline;
        writer_moves(pulse)?;
        // An earlier change may have been recorded without an answer.
        let recorded = lease
            .confirm(epoch)
            .await
            .map_err(|e| unconfirmed(epoch, &e))?;
        if recorded != *known && recorded != *wish {
            let message = "something else is on record by now: read the lease again";
            return Err(ApiError::new(ErrorCode::Conflict, message));
        }
        // Who was there when the command was given may be gone, its volume too: recorded now, a failover would have to
        // wait for it.
        let own = writer.state().borrow().node_id;
        let mut joins = wish.members.difference(&recorded.members);
        let absent = joins.find(|id| **id != own && replicas.durable_of(**id).is_none());
        if let Some(absent) = absent {
            let message =
                format!("{absent} is not in sync with this master: a member is added once it is");
            return Err(ApiError::new(ErrorCode::Conflict, message));
        }
        let not_here = || ApiError::new(ErrorCode::Conflict, "this node is no longer the master");
        let settle = |m: &mut Membership| {
            if *m.on_record() != recorded {
                m.recorded(recorded.clone());
            }
        };
        replicas.step(epoch, settle).ok_or_else(not_here)?;
        loop {
            let history = writer.state().borrow().history.clone();
            // Together: what is answered from here on is held to what is wished for.
            let (next, secured) = replicas
                .step(epoch, |m| (m.towards(wish), m.secured(&history)))
                .ok_or_else(not_here)?;
            let next = next.map_err(|e| ApiError::new(ErrorCode::Conflict, e.to_string()))?;
            let concern = match next {
                Change::Done => return Ok(()),
                Change::Record(concern) => concern,
                Change::CoverThenRecord(concern) => {
                    // After the change is in use: whatever comes later is held to it anyway.
                    let end = writer.progress().borrow().end.position.offset;
                    if let Err(error) = cover(replicas, epoch, end, concern.acks, until).await {
                        replicas.step(epoch, Membership::given_up);
                        return Err(error);
                    }
                    concern
                }
            };
            if let Err(error) = writer_moves(pulse) {
                replicas.step(epoch, Membership::given_up);
                return Err(error);
            }
            // Whatever the error, it may be on record, or come to be: a conflict may be with this very request, repeated
            // on its way. What is in use holds for either, until the next attempt has replaced the Lease first.
            let recorded = lease.record(epoch, &concern, secured).await;
            if breakage::on(Breakage::GiveUpOnConflict)
                && let Err(LeaseError::Conflict) = recorded
            {
                replicas.step(epoch, Membership::given_up);
            }
            recorded.map_err(|error| unconfirmed(epoch, &error))?;
            replicas
                .step(epoch, |m| m.recorded(concern))
                .ok_or_else(not_here)?;
        }
    }

    /// Keeps a master's Lease alive, and lets a restarted one take it again. Runs for ever; only for Kubernetes.
    pub async fn run(
        self,
        writer: WriterHandle,
        replicas: ReplicaTable,
        pulse: Arc<AtomicU64>,
        was_master: bool,
    ) {
        let Leadership::Kubernetes(lease) = self else {
            return;
        };
        if was_master {
            retake(&lease, &writer, &replicas).await;
        }
        let mut state = writer.state();
        loop {
            let (epoch, cluster) = {
                let now = state.borrow_and_update();
                (now.master_epoch, now.cluster)
            };
            if let (true, Some(cluster)) = (epoch > 0, cluster) {
                tokio::select! {
                    lost = lease.hold(epoch, || is_healthy(&pulse)) => depose(&writer, cluster, epoch, &lost).await,
                    () = other_epoch(state.clone(), epoch) => {}
                }
                if state.has_changed().is_err() {
                    return; // the writer has stopped
                }
                continue;
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Whether the writer was at work lately.
fn is_healthy(pulse: &AtomicU64) -> bool {
    boot_time_ms().saturating_sub(pulse.load(Ordering::Relaxed)) < STUCK_AFTER_MS
}

/// Every change of the Lease renews it: a command must not keep alive what [`KubernetesLease::hold`] lets run out.
fn writer_moves(pulse: &AtomicU64) -> Result<(), ApiError> {
    if is_healthy(pulse) {
        return Ok(());
    }
    let message = format!(
        "the writer has not finished an fsync for {} s, so the lease is not touched; send the command again",
        STUCK_AFTER_MS / 1000
    );
    Err(ApiError::new(ErrorCode::Unavailable, message))
}

/// Waits until everything up to `end` has been acknowledged by as many replicas as will be asked from now on.
async fn cover(
    replicas: &ReplicaTable,
    epoch: u64,
    end: u64,
    acks: u32,
    until: Instant,
) -> Result<(), ApiError> {
    if acks == 0 {
        return Ok(());
    }
    let why = match replicas.count(epoch, end, acks, until).await {
        Some(true) => return Ok(()),
        None => "this node is no longer the master".to_owned(),
        Some(false) => format!(
            "{acks} of the replicas that are to count have not acknowledged offset {end} in time, {} are in sync",
            replicas.in_sync()
        ),
    };
    Err(ApiError::new(
        ErrorCode::Conflict,
        format!("members are as before: {why}"),
    ))
}

fn unconfirmed(epoch: u64, error: &LeaseError) -> ApiError {
    let code = match error {
        LeaseError::NotGranted { .. } | LeaseError::Malformed(_) => ErrorCode::Conflict,
        LeaseError::Api(_) | LeaseError::Timeout | LeaseError::Conflict => ErrorCode::Unavailable,
    };
    ApiError::new(code, format!("epoch {epoch} is not confirmed: {error}"))
}

/// A master that restarted goes on as master of the next epoch if the Lease still names its node. It asks until it is
/// told something else: the API server may be away for a while.
async fn retake(lease: &KubernetesLease, writer: &WriterHandle, replicas: &ReplicaTable) {
    let mut every = tokio::time::interval(RETAKE_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let promised_first = writer.state().borrow().promised;
    loop {
        every.tick().await;
        let (role, cluster, promised, node_id) = {
            let state = writer.state();
            let now = state.borrow();
            (now.role, now.cluster, now.promised, now.node_id)
        };
        let (Role::Unassigned, Some(cluster)) = (role, cluster) else {
            return;
        };
        if promised != promised_first {
            // Fenced since: a Lease that names this node from here on is a grant, and its epoch comes with a promotion.
            return;
        }
        let unchanged = || writer.state().borrow().promised == promised;
        match lease.retake(cluster, promised, unchanged).await {
            Ok(Some(grant)) => {
                let epoch = grant.epoch;
                replicas.set_granted(epoch, node_id, grant.concern);
                match writer.command(Command::Retake { epoch }).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::error!(epoch, %error, "the epoch taken cannot be opened");
                        tokio::time::sleep(AFTER_REFUSAL).await;
                    }
                }
            }
            Ok(None) => {
                tracing::debug!("the lease names another master: waiting to be told whom to follow")
            }
            Err(error) => {
                tracing::warn!(%error, "cannot ask the lease whether this node is still the master")
            }
        }
    }
}

/// The Lease is somebody else's: nothing in this epoch, or below the one that it names, may be acknowledged any more.
async fn depose(writer: &WriterHandle, cluster: Uuid, epoch: u64, lost: &LeaseError) {
    tracing::warn!(epoch, %lost, "mastership lost");
    let next = match lost {
        LeaseError::NotGranted { epoch: granted, .. } => epoch.saturating_add(1).max(*granted),
        LeaseError::Api(_)
        | LeaseError::Timeout
        | LeaseError::Malformed(_)
        | LeaseError::Conflict => epoch.saturating_add(1),
    };
    if let Err(error) = writer
        .command(Command::Fence {
            cluster,
            epoch: next,
        })
        .await
    {
        tracing::warn!(%error, "already fenced");
    }
}

async fn other_epoch(
    mut state: tokio::sync::watch::Receiver<crate::writer::NodeState>,
    epoch: u64,
) {
    // A writer that has stopped needs no Lease either.
    let _ = state.wait_for(|s| s.master_epoch != epoch).await;
}

#[cfg(test)]
mod tests;
