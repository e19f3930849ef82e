//! The two Secrets of a cluster: what the operator makes, and what it waits for.
//!
//! It writes to a Secret that it made, and to no other: whoever made one has keys already, in other places too, and a
//! random key in it would lock their clients out without a word. Such a Secret is used as it is, and what it lacks is
//! said.

use super::{Draft, Severity};
use crate::names::{self, reason};
use crate::world::SecretSeen;

/// Secrets to be made or completed: name and keys.
pub(super) fn secrets(draft: &mut Draft<'_>) -> Vec<(String, Vec<&'static str>)> {
    let world = draft.world;
    let cluster = &world.cluster;
    let named = cluster.named_secret().is_some();
    let internal = names::internal_secret(&cluster.name);
    let all = [
        (
            &world.secrets.auth,
            cluster.auth_secret(),
            names::AUTH_KEYS,
            named,
        ),
        (
            &world.secrets.internal,
            internal,
            names::INTERNAL_KEYS,
            false,
        ),
    ];
    let mut wanted = Vec::new();
    for (seen, name, keys, named) in all {
        let (reason, text) = match seen {
            SecretSeen::Complete => continue,
            SecretSeen::Missing if named => (
                reason::SECRET_MISSING,
                format!(
                    "Secret {name}, which spec.auth.secretName names, does not exist: make it, with the keys {}",
                    keys.join(" and ")
                ),
            ),
            SecretSeen::Missing => {
                wanted.push((name, keys.to_vec()));
                continue;
            }
            SecretSeen::Incomplete { made: true, .. } if !named => {
                wanted.push((name, keys.to_vec()));
                continue;
            }
            SecretSeen::Incomplete { lacks, .. } => (
                reason::SECRET_INCOMPLETE,
                format!(
                    "Secret {name} has no value for {}: what the operator did not make is left as it is; add what \
                     is missing",
                    lacks.join(" and ")
                ),
            ),
            SecretSeen::Taken => (
                reason::NAME_TAKEN,
                format!(
                    "Secret {name} belongs to another VectorizerCluster: it is left alone; if that cluster is gone, it \
                     goes by itself"
                ),
            ),
        };
        draft.wait(Severity::Blocked, reason, text);
    }
    wanted
}

/// A Secret that is another cluster's: one that was deleted goes bit by bit.
pub(super) fn taken(draft: &Draft<'_>) -> Option<String> {
    let (cluster, secrets) = (&draft.world.cluster, &draft.world.secrets);
    let taken = |seen: &SecretSeen| *seen == SecretSeen::Taken;
    if taken(&secrets.auth) {
        Some(cluster.auth_secret())
    } else {
        taken(&secrets.internal).then(|| names::internal_secret(&cluster.name))
    }
}
