//! The Lease that names the master: renewed by the master itself, granted by the operator, taken over by nobody else.
//!
//! Every change replaces exactly the version that was read. A renewal's conflict is answered by reading again and checking
//! the *content*: as long as it still names this node, this process and this epoch, it is tried once more; anything else
//! means that mastership is over.
//!
//! Nothing is repeated below this file: an answer belongs to its request. A client that sends a change again by itself gets
//! a conflict with its own first sending, and what is on record would be taken for refused. What remains is that somebody
//! on the way repeats; so a conflict says as little of the outcome as an answer that never came, and only a change of this
//! process that did replace the Lease rules out that an earlier one still lands.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client, Config};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;
use vectorizer_api::lease::{Grant, GrantError, Holder, PERMIT_MS, RENEW_EVERY_MS};
use vectorizer_replication::concern::Concern;
use vectorizer_replication::position::Position;

use crate::breakage::{self, Breakage};
use crate::clock::boot_time_ms;
use crate::permit::Permit;

/// One request to the API server may take this long: a renewal that hangs must leave time for the next.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Why the Lease could not be read or changed, or does not allow what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The API server did not answer, or refused.
    #[error("the Kubernetes API: {0}")]
    Api(#[from] kube::Error),
    /// It did not answer in time.
    #[error("the Kubernetes API did not answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
    /// The Lease holds something else than a grant.
    #[error(transparent)]
    Malformed(#[from] GrantError),
    /// The Lease names another holder, process or epoch.
    #[error("the lease grants epoch {epoch} to {holder}, not epoch {wanted} to this process")]
    NotGranted {
        /// What the Lease says.
        epoch: u64,
        /// Whom it names.
        holder: String,
        /// What was asked for.
        wanted: u64,
    },
    /// The Lease is not as it was read. Whether this request changed it is not known: it may have been sent twice on its
    /// way.
    #[error("the lease is another by now, changed by somebody else or by this request itself")]
    Conflict,
}

/// Access to one Lease for one process.
pub struct KubernetesLease {
    api: Api<Lease>,
    name: String,
    identity: Holder,
    permit: Permit,
    /// The newest version seen. Only one request is under way at a time.
    current: Mutex<Option<Lease>>,
    changing: Mutex<()>,
}

impl KubernetesLease {
    /// Access to the Lease `name` in `namespace`, with this pod's credentials, for this process.
    pub async fn connect(
        namespace: &str,
        name: &str,
        identity: Holder,
    ) -> Result<Self, LeaseError> {
        let config = Config::infer().await.map_err(kube::Error::InferConfig)?;
        Self::over(config, namespace, name, identity)
    }

    /// The same with a given configuration of the API server.
    pub fn over(
        mut config: Config,
        namespace: &str,
        name: &str,
        identity: Holder,
    ) -> Result<Self, LeaseError> {
        config.default_retry = breakage::on(Breakage::RepeatRequests);
        let client = Client::try_from(config)?;
        Ok(KubernetesLease {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity,
            permit: Permit::none(),
            current: Mutex::new(None),
            changing: Mutex::new(()),
        })
    }

    /// Held while members are being changed, which takes several requests.
    pub(super) async fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// The permit that renewals extend.
    pub fn permit(&self) -> Permit {
        self.permit.clone()
    }

    /// Confirms that the Lease grants `epoch` to this process, by renewing it once. Extends the permit. Returns the
    /// members and acknowledgements on record.
    ///
    /// No earlier change of this process is under way any more when this answers: the renewal replaced the version that
    /// such a change would have replaced.
    pub async fn confirm(&self, epoch: u64) -> Result<Concern, LeaseError> {
        let mut current = self.current.lock().await;
        let lease = bounded(self.api.get(&self.name)).await?;
        let concern = self.check(&lease, epoch)?.concern;
        self.replace(&mut current, lease).await?;
        Ok(concern)
    }

    /// Records other members and acknowledgements, as the master in `epoch`, and what was answered before them. After an
    /// error it may have been done, or still be: [`Self::confirm`] tells.
    pub async fn record(
        &self,
        epoch: u64,
        concern: &Concern,
        secured: Position,
    ) -> Result<(), LeaseError> {
        let mut current = self.current.lock().await;
        let mut lease = bounded(self.api.get(&self.name)).await?;
        let mut grant = self.check(&lease, epoch)?;
        grant.record(concern.clone(), secured);
        annotate(&mut lease, &grant);
        self.replace(&mut current, lease).await
    }

    /// After a restart of a master: takes the next epoch if the Lease still names this *node*, whatever its process.
    /// Returns what was taken, its epoch above `promised`, or `None` when the Lease names somebody else or nobody.
    ///
    /// `unchanged` is asked once more when the Lease has been read: whether that promise is still this node's. An election
    /// fences first and grants afterwards, so that what it grants is not taken by this.
    pub async fn retake(
        &self,
        cluster: Uuid,
        promised: u64,
        unchanged: impl Fn() -> bool,
    ) -> Result<Option<Grant>, LeaseError> {
        let mut current = self.current.lock().await;
        let mut lease = bounded(self.api.get(&self.name)).await?;
        let grant = parse(&lease)?;
        let ours = grant
            .holder
            .as_ref()
            .is_some_and(|h| h.node_id == self.identity.node_id);
        // A promise above the granted epoch is a fence: somebody else is, or is about to be, the master.
        if !ours || grant.cluster != cluster || grant.epoch < promised || !unchanged() {
            return Ok(None);
        }
        let next = Grant {
            epoch: grant.epoch + 1,
            holder: Some(self.identity.clone()),
            ..grant
        };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(next.holder_identity());
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        annotate(&mut lease, &next);
        self.replace(&mut current, lease).await?;
        Ok(Some(next))
    }

    /// Renews until mastership of `epoch` is over, then revokes the permit and returns why.
    ///
    /// `healthy` is asked before each renewal: a writer that has not finished an fsync for long must not be kept alive.
    pub async fn hold(&self, epoch: u64, healthy: impl Fn() -> bool) -> LeaseError {
        let mut every = tokio::time::interval(Duration::from_millis(RENEW_EVERY_MS));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if !healthy() {
                tracing::warn!(
                    epoch,
                    "not renewing the lease: the writer has not finished an fsync for 5 s"
                );
                continue;
            }
            match self.renew(epoch).await {
                Ok(()) => {}
                Err(error @ (LeaseError::NotGranted { .. } | LeaseError::Malformed(_))) => {
                    self.permit.revoke();
                    return error;
                }
                Err(error @ (LeaseError::Api(_) | LeaseError::Timeout | LeaseError::Conflict)) => {
                    // The permit runs out by itself; until then the next renewal may succeed.
                    tracing::warn!(epoch, %error, "lease not renewed");
                }
            }
        }
    }

    async fn renew(&self, epoch: u64) -> Result<(), LeaseError> {
        let mut current = self.current.lock().await;
        let lease = match current.take() {
            Some(lease) => lease,
            None => bounded(self.api.get(&self.name)).await?,
        };
        self.check(&lease, epoch)?;
        match self.replace(&mut current, lease).await {
            Err(LeaseError::Conflict) => {
                let lease = bounded(self.api.get(&self.name)).await?;
                self.check(&lease, epoch)?;
                self.replace(&mut current, lease).await
            }
            other => other,
        }
    }

    fn check(&self, lease: &Lease, epoch: u64) -> Result<Grant, LeaseError> {
        let grant = parse(lease)?;
        if grant.epoch == epoch && grant.holder.as_ref() == Some(&self.identity) {
            return Ok(grant);
        }
        let holder = grant.holder.map_or_else(
            || "nobody".to_owned(),
            |h| format!("{} ({})", h.pod, h.boot_id),
        );
        Err(LeaseError::NotGranted {
            epoch: grant.epoch,
            holder,
            wanted: epoch,
        })
    }

    /// Writes `lease` with a fresh renewal time over the version that it was read at, and extends the permit.
    async fn replace(
        &self,
        current: &mut Option<Lease>,
        mut lease: Lease,
    ) -> Result<(), LeaseError> {
        *current = None;
        let spec = lease.spec.get_or_insert_default();
        spec.renew_time = Some(MicroTime(k8s_openapi::jiff::Timestamp::now()));
        let sent = boot_time_ms();
        match bounded(self.api.replace(&self.name, &PostParams::default(), &lease)).await {
            Ok(stored) => {
                self.permit.extend(sent + PERMIT_MS);
                *current = Some(stored);
                Ok(())
            }
            Err(LeaseError::Api(kube::Error::Api(status))) if status.code == 409 => {
                Err(LeaseError::Conflict)
            }
            Err(error) => Err(error),
        }
    }
}

fn annotate(lease: &mut Lease, grant: &Grant) {
    let annotations = lease.metadata.annotations.get_or_insert_default();
    annotations.extend(grant.annotations());
}

fn parse(lease: &Lease) -> Result<Grant, GrantError> {
    let holder = lease
        .spec
        .as_ref()
        .and_then(|s| s.holder_identity.as_deref());
    Grant::parse(
        holder,
        lease
            .metadata
            .annotations
            .as_ref()
            .unwrap_or(&Default::default()),
    )
}

async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(LeaseError::Timeout),
    }
}
