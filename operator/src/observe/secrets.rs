//! The two Secrets of a cluster, read by name: when a watch says that one which the operator made has changed, and
//! otherwise not often.
//!
//! What a Secret held that the operator made is remembered: deleted, it is written again as it was, so that nodes and
//! clients need not learn anything. The control token before the present one is remembered as well: a node has a new
//! one only when its kubelet has renewed the files, up to a minute or two later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::ObjectMeta;
use kube_runtime::reflector::ObjectRef as Key;
use uuid::Uuid;

use super::{ObserveError, Remembered, Sources, is_made};
use crate::crd::VectorizerCluster;
use crate::names;
use crate::world::{Cluster, SecretSeen, Secrets};

/// How long a Secret that was complete is not read again, unless its watch says something.
const SECRETS_FOR: Duration = Duration::from_secs(60);

/// What Secrets that the operator made held: by name and key.
pub type Made = BTreeMap<String, BTreeMap<String, ByteString>>;

/// What the Secrets say.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The control token, once there was one.
    pub control: Option<String>,
    /// The one before it, which nodes may still go by.
    pub former: Option<String>,
    /// Which Secrets are there.
    pub secrets: Secrets,
    /// What those held that the operator made, also when they are gone.
    pub made: Made,
    /// When they were read; `None` when they have to be read again.
    pub read: Option<Instant>,
    /// The resourceVersion of each that the operator made, by name.
    versions: BTreeMap<String, Option<String>>,
}

impl std::fmt::Debug for Credentials {
    /// Tokens and keys are left out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.secrets)
    }
}

impl Credentials {
    /// Whether everything was there, and nothing says that it is not as it was; `watched` answers a resourceVersion.
    fn current(&self, watched: impl Fn(&str) -> Option<String>) -> bool {
        let complete = |seen: &SecretSeen| *seen == SecretSeen::Complete;
        let same = |(name, known): (&String, &Option<String>)| watched(name) == *known;
        self.read.is_some_and(|read| read.elapsed() < SECRETS_FOR)
            && complete(&self.secrets.auth)
            && complete(&self.secrets.internal)
            && self.versions.iter().all(same)
    }

    /// Takes in what was read: the clients' keys, then the cluster's own.
    pub(crate) fn learn(&mut self, cluster: &Cluster, found: [Option<&Secret>; 2]) {
        let [auth, internal] = found;
        self.versions.clear();
        for secret in found.into_iter().flatten() {
            let name = secret.metadata.name.clone().unwrap_or_default();
            if is_made(&secret.metadata, cluster.uid) {
                let data = secret.data.clone().unwrap_or_default();
                self.made.insert(name.clone(), data);
                let version = secret.metadata.resource_version.clone();
                self.versions.insert(name, version);
            } else {
                self.made.remove(&name);
            }
        }
        let token = internal.and_then(|s| value(s, names::CONTROL_TOKEN));
        let token = token.map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
        // Where it is gone, nodes still go by what they have read.
        if token.is_some() && token != self.control {
            self.former = std::mem::replace(&mut self.control, token);
        }
        self.secrets = Secrets {
            auth: secret_seen(auth, &names::AUTH_KEYS, cluster.uid),
            internal: secret_seen(internal, &names::INTERNAL_KEYS, cluster.uid),
        };
        self.read = Some(Instant::now());
    }
}

pub(super) async fn credentials(
    from: &Sources<'_>,
    cluster: &Cluster,
    remembered: &mut Remembered,
) -> Result<Credentials, ObserveError> {
    let watched = |name: &str| {
        let key = Key::new(name).within(&cluster.namespace);
        from.caches
            .secrets
            .get(&key)?
            .metadata
            .resource_version
            .clone()
    };
    if remembered.credentials.current(watched) {
        return Ok(remembered.credentials.clone());
    }
    let api: Api<Secret> = Api::namespaced(from.client.clone(), &cluster.namespace);
    let read = async |name: String| {
        let found = api.get_opt(&name).await;
        found.map_err(|source| ObserveError {
            what: format!("Secret {name}"),
            source,
        })
    };
    let auth = read(cluster.auth_secret()).await?;
    let internal = read(names::internal_secret(&cluster.name)).await?;
    let known = &mut remembered.credentials;
    known.learn(cluster, [auth.as_ref(), internal.as_ref()]);
    Ok(known.clone())
}

/// One that has no controller, or that something else keeps, such as an operator of external secrets, is used.
pub(super) fn secret_seen(
    secret: Option<&Secret>,
    keys: &[&'static str],
    owner: Uuid,
) -> SecretSeen {
    let Some(secret) = secret else {
        return SecretSeen::Missing;
    };
    if is_of_another_cluster(&secret.metadata, owner) {
        return SecretSeen::Taken;
    }
    let lacks = keys.iter().filter(|key| value(secret, key).is_none());
    let lacks: Vec<_> = lacks.copied().collect();
    if lacks.is_empty() {
        return SecretSeen::Complete;
    }
    let made = is_made(&secret.metadata, owner);
    SecretSeen::Incomplete { made, lacks }
}

/// Whether another cluster of this operator's kind controls an object.
fn is_of_another_cluster(metadata: &ObjectMeta, owner: Uuid) -> bool {
    use kube::Resource;
    let kind = VectorizerCluster::kind(&());
    let group = VectorizerCluster::group(&());
    let mut owners = metadata.owner_references.iter().flatten();
    owners.any(|o| {
        let of_kind = o.kind == kind && o.api_version.split('/').next() == Some(&group);
        o.controller == Some(true) && of_kind && o.uid != owner.to_string()
    })
}

fn value<'s>(secret: &'s Secret, key: &str) -> Option<&'s [u8]> {
    let value = secret.data.as_ref()?.get(key)?;
    (!value.0.is_empty()).then_some(value.0.as_slice())
}
