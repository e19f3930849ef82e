//! The two Secrets of a cluster, read by name and not often.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use uuid::Uuid;

use super::{ObserveError, Remembered, Sources, is_owned};
use crate::names;
use crate::world::{Cluster, SecretSeen, Secrets};

/// How long a Secret that was complete is not read again.
const SECRETS_FOR: Duration = Duration::from_secs(60);

/// What the Secrets say.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The control token, once there is one.
    pub control: Option<String>,
    /// Which Secrets are there.
    pub secrets: Secrets,
}

impl std::fmt::Debug for Credentials {
    /// The token is left out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.secrets)
    }
}

pub(super) async fn credentials(
    from: &Sources<'_>,
    cluster: &Cluster,
    remembered: &mut Remembered,
) -> Result<Credentials, ObserveError> {
    if let Some((read, known)) = &remembered.credentials
        && read.elapsed() < SECRETS_FOR
        && known.secrets.auth == SecretSeen::Complete
        && known.secrets.internal == SecretSeen::Complete
    {
        return Ok(known.clone());
    }
    let api: Api<Secret> = Api::namespaced(from.client.clone(), &cluster.namespace);
    let names = [
        names::auth_secret(&cluster.name),
        names::internal_secret(&cluster.name),
    ];
    let mut found = Vec::new();
    for name in &names {
        found.push(api.get_opt(name).await.map_err(|source| ObserveError {
            what: format!("Secret {name}"),
            source,
        })?);
    }
    let [auth, internal] = [found.first(), found.get(1)].map(|s| s.and_then(Option::as_ref));
    let token = internal.and_then(|s| value(s, names::CONTROL_TOKEN));
    let known = Credentials {
        control: token.map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned()),
        secrets: Secrets {
            auth: secret_seen(auth, &names::AUTH_KEYS, cluster.uid),
            internal: secret_seen(
                internal,
                &[names::REPLICATION_TOKEN, names::CONTROL_TOKEN],
                cluster.uid,
            ),
        },
    };
    remembered.credentials = Some((Instant::now(), known.clone()));
    Ok(known)
}

/// A Secret without a controller may have been put there by a user who has keys already: it is used.
pub(super) fn secret_seen(secret: Option<&Secret>, keys: &[&str], owner: Uuid) -> SecretSeen {
    let Some(secret) = secret else {
        return SecretSeen::Missing;
    };
    let mut owners = secret.metadata.owner_references.iter().flatten();
    let controlled = owners.any(|o| o.controller == Some(true));
    if controlled && !is_owned(&secret.metadata, owner) {
        SecretSeen::Taken
    } else if keys.iter().all(|key| value(secret, key).is_some()) {
        SecretSeen::Complete
    } else {
        SecretSeen::Incomplete
    }
}

fn value<'s>(secret: &'s Secret, key: &str) -> Option<&'s [u8]> {
    let value = secret.data.as_ref()?.get(key)?;
    (!value.0.is_empty()).then_some(value.0.as_slice())
}
