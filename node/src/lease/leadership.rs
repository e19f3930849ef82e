//! Who decides that this node may be master: a Lease, or its own configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use uuid::Uuid;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_api::replication::Role;
use vectorizer_replication::command::Command;

use super::{KubernetesLease, LeaseError, Permit, boot_time_ms};
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

    /// Confirms that `epoch` is granted to this process, before a command makes it master.
    pub async fn confirm(&self, epoch: u64) -> Result<(), ApiError> {
        match self {
            Leadership::Static => Ok(()),
            Leadership::Kubernetes(lease) => lease.confirm(epoch).await.map_err(|error| {
                let code = match error {
                    LeaseError::NotGranted { .. } | LeaseError::Malformed(_) => ErrorCode::Conflict,
                    LeaseError::Api(_) | LeaseError::Timeout | LeaseError::Conflict => {
                        ErrorCode::Unavailable
                    }
                };
                ApiError::new(code, format!("epoch {epoch} is not confirmed: {error}"))
            }),
        }
    }

    /// Keeps a master's Lease alive, and lets a restarted one take it again. Runs for ever; only for Kubernetes.
    pub async fn run(self, writer: WriterHandle, pulse: Arc<AtomicU64>, was_master: bool) {
        let Leadership::Kubernetes(lease) = self else {
            return;
        };
        if was_master {
            retake(&lease, &writer).await;
        }
        let mut state = writer.state();
        loop {
            let (epoch, cluster) = {
                let now = state.borrow_and_update();
                (now.master_epoch, now.cluster)
            };
            if let (true, Some(cluster)) = (epoch > 0, cluster) {
                let healthy = || {
                    boot_time_ms().saturating_sub(pulse.load(Ordering::Relaxed)) < STUCK_AFTER_MS
                };
                tokio::select! {
                    lost = lease.hold(epoch, healthy) => depose(&writer, cluster, epoch, &lost).await,
                    () = other_epoch(state.clone(), epoch) => {}
                }
                continue;
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }
}

/// A master that restarted goes on as master of the next epoch if the Lease still names its node. It asks until it is
/// told something else: the API server may be away for a while.
async fn retake(lease: &KubernetesLease, writer: &WriterHandle) {
    let mut every = tokio::time::interval(RETAKE_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let promised_first = writer.state().borrow().promised;
    loop {
        every.tick().await;
        let (role, cluster, promised) = {
            let state = writer.state();
            let now = state.borrow();
            (now.role, now.cluster, now.promised)
        };
        let (Role::Unassigned, Some(cluster)) = (role, cluster) else {
            return;
        };
        if promised != promised_first {
            // Fenced since: a Lease that names this node from here on is a grant, and its epoch comes with a promotion.
            return;
        }
        match lease.retake(cluster, promised).await {
            Ok(Some(epoch)) => match writer.command(Command::Retake { epoch }).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(epoch, %error, "the epoch taken cannot be opened");
                    tokio::time::sleep(AFTER_REFUSAL).await;
                }
            },
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
