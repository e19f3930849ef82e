//! Which of several operator processes works: a Lease in the operator's own namespace.
//!
//! This only keeps two of them from doing everything twice. What they decide is safe without it: decisions are written
//! over the version that they were made from, and nodes refuse what is older than they know.
//!
//! Whom the Lease names decides, and nothing else: after a conflict, which may be with this process's own request, it is
//! read again. An answer that does not come, or says that it is not known what became of the request, loses nothing by
//! itself; a leader whose last confirmed renewal was sent [`GIVE_UP`] ago stops.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::api::words;

/// How long a Lease that nobody renews keeps others waiting.
pub const LASTS: Duration = Duration::from_secs(15);
/// So long after the last renewal that was confirmed was sent, work stops.
pub const GIVE_UP: Duration = Duration::from_secs(10);
/// Between renewals, and between looks at somebody else's Lease.
pub const EVERY: Duration = Duration::from_secs(3);

/// The Lease that the operator's processes share.
pub struct Leadership {
    api: Api<Lease>,
    name: String,
    identity: String,
    every: Duration,
    give_up: Duration,
    /// Version of the Lease seen last, and since when, on this process's own clock.
    seen: Option<(String, Instant)>,
}

impl Leadership {
    /// Leadership by the Lease `name` in `namespace`, for the process called `identity`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Leadership {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            every: EVERY,
            give_up: GIVE_UP,
            seen: None,
        }
    }

    /// Waits until this process leads. Calls `heard` whenever the Lease could be read.
    pub async fn acquire(&mut self, heard: impl Fn()) {
        loop {
            match tokio::time::timeout(self.every, self.try_to_lead()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => heard(),
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = words(&error),
                        lease = self.name,
                        "cannot read or take the leadership lease"
                    )
                }
                Err(_) => tracing::warn!(lease = self.name, "the leadership lease: no answer"),
            }
            tokio::time::sleep(self.every).await;
        }
    }

    /// Renews until leadership is lost.
    pub async fn hold(&mut self) {
        let mut confirmed = Instant::now();
        let (every, give_up) = (self.every, self.give_up);
        let left = |confirmed: Instant| give_up.saturating_sub(confirmed.elapsed());
        while left(confirmed) > Duration::ZERO {
            tokio::time::sleep(every.min(left(confirmed))).await;
            let sent = Instant::now();
            let within = every.min(left(confirmed));
            match tokio::time::timeout(within, self.try_to_lead()).await {
                Ok(Ok(true)) => confirmed = sent,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(error = words(&error), "leadership not renewed"),
                Err(_) => tracing::warn!("leadership not renewed: no answer"),
            }
        }
    }

    /// Lets the next one begin at once.
    pub async fn release(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() == Some(&self.identity) {
            spec.holder_identity = None;
            // Whoever comes next waits the longer without it, and that is all.
            let _ = self
                .api
                .replace(&self.name, &PostParams::default(), &lease)
                .await;
        }
    }

    async fn try_to_lead(&mut self) -> Result<bool, kube::Error> {
        match self.look_and_take().await {
            Err(error) if is_conflict(&error) => self.look_and_take().await,
            outcome => outcome,
        }
    }

    /// Takes or renews the Lease if nobody else has it; false if somebody has.
    async fn look_and_take(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let lease = self.ours(Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: None,
            });
            self.api.create(&PostParams::default(), &lease).await?;
            return Ok(true);
        };
        let holder = lease
            .spec
            .as_ref()
            .and_then(|s| s.holder_identity.as_deref())
            .unwrap_or_default();
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if holder != self.identity && !holder.is_empty() {
            let now = Instant::now();
            let since = match &self.seen {
                Some((known, since)) if *known == version => *since,
                Some(_) | None => now,
            };
            self.seen = Some((version, since));
            if now.duration_since(since) < LASTS {
                return Ok(false);
            }
        }
        let ours = self.ours(lease);
        let params = PostParams::default();
        self.api.replace(&self.name, &params, &ours).await?;
        Ok(true)
    }

    fn ours(&self, mut lease: Lease) -> Lease {
        let old = lease.spec.take().unwrap_or_default();
        let renewed = old.holder_identity.as_ref() == Some(&self.identity);
        let now = MicroTime(Timestamp::now());
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LASTS.as_secs()).ok(),
            acquire_time: if renewed {
                old.acquire_time.clone()
            } else {
                Some(now.clone())
            },
            renew_time: Some(now),
            lease_transitions: Some(
                old.lease_transitions
                    .unwrap_or(0)
                    .saturating_add(i32::from(!renewed)),
            ),
            ..old
        });
        lease
    }
}

/// The Lease is another than the one that was read, or is there already.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests;
