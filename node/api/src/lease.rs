//! What the leadership Lease says: who may be master, in which process, in which epoch.
//!
//! `spec.holderIdentity` is the pod's name; everything else stands in annotations. The operator grants by writing all
//! of it at once; the node renews `spec.renewTime` and, after a restart of its own, takes the next epoch by replacing
//! exactly the version that it read. Members and acknowledgements are changed by the master during its epoch, and carried
//! over unchanged by whoever else writes. Every change is a compare-and-swap on the Lease's resourceVersion.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use vectorizer_replication::concern::Concern;
use vectorizer_replication::position::Position;

/// Annotation: durable identity of the holder, or empty when the Lease is vacant.
pub const NODE_ID: &str = "vectorizer.hivellm.io/node-id";
/// Annotation: identity of the holder's process.
pub const BOOT_ID: &str = "vectorizer.hivellm.io/boot-id";
/// Annotation: the epoch granted, or, when vacant, the epoch below which nobody may write any more.
pub const EPOCH: &str = "vectorizer.hivellm.io/epoch";
/// Annotation: the cluster's identity.
pub const CLUSTER: &str = "vectorizer.hivellm.io/cluster";

/// Annotation: node ids of the members, separated by commas; empty until they were recorded for the first time.
pub const MEMBERS: &str = "vectorizer.hivellm.io/members";
/// Annotation: replicas that must hold a write before it is answered.
pub const ACKS: &str = "vectorizer.hivellm.io/acks";
/// Annotation: the last position, `<epoch>.<offset>`, that may have been answered while replicas had to hold it.
pub const SECURED: &str = "vectorizer.hivellm.io/secured";

/// How often a master renews, in ms.
pub const RENEW_EVERY_MS: u64 = 2_000;
/// How long a confirmed renewal permits to acknowledge writes, in ms, from the moment that it was sent.
pub const PERMIT_MS: u64 = 10_000;
/// How long the operator must see an unchanged Lease, in ms on its own monotonic clock, before it counts as run out.
pub const EXPIRE_MS: u64 = 15_000;

/// The content of the Lease that decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Identity of the cluster.
    pub cluster: Uuid,
    /// Epoch granted; when vacant, the lowest epoch that can be granted next.
    pub epoch: u64,
    /// The holder; `None` when vacant.
    pub holder: Option<Holder>,
    /// Who belongs to the cluster, and how many replicas must hold a write before it is answered.
    pub concern: Concern,
    /// Up to where writes may have been answered while replicas had to hold them, as of the last change of `concern`:
    /// while it asks for none, no failover goes without that.
    pub secured: Position,
}

/// Who holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Pod name.
    pub pod: String,
    /// Durable identity of the node.
    pub node_id: Uuid,
    /// Identity of the process.
    pub boot_id: Uuid,
}

/// A Lease that this program did not write, or that somebody changed by hand.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("lease annotation `{key}` is {found}: expected {expected}")]
pub struct GrantError {
    key: &'static str,
    found: String,
    expected: &'static str,
}

impl Grant {
    /// Reads a Lease's holder identity and annotations.
    pub fn parse(
        holder_identity: Option<&str>,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Self, GrantError> {
        let pod = holder_identity.unwrap_or_default();
        let holder = if pod.is_empty() {
            None
        } else {
            Some(Holder {
                pod: pod.to_owned(),
                node_id: field(annotations, NODE_ID, "a UUID")?,
                boot_id: field(annotations, BOOT_ID, "a UUID")?,
            })
        };
        Ok(Grant {
            cluster: field(annotations, CLUSTER, "a UUID")?,
            epoch: field(annotations, EPOCH, "a whole number")?,
            holder,
            concern: concern(annotations)?,
            // Absent from before it was recorded.
            secured: optional(annotations, SECURED, "a position such as 3.1500")?,
        })
    }

    /// The annotations that say this; the holder's are empty when vacant, so that applying them clears the old ones.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let holder = self.holder.as_ref();
        let members: Vec<_> = self.concern.members.iter().map(Uuid::to_string).collect();
        BTreeMap::from([
            (CLUSTER.to_owned(), self.cluster.to_string()),
            (EPOCH.to_owned(), self.epoch.to_string()),
            (ACKS.to_owned(), self.concern.acks.to_string()),
            (MEMBERS.to_owned(), members.join(",")),
            (SECURED.to_owned(), self.secured.to_string()),
            (
                NODE_ID.to_owned(),
                holder.map(|h| h.node_id.to_string()).unwrap_or_default(),
            ),
            (
                BOOT_ID.to_owned(),
                holder.map(|h| h.boot_id.to_string()).unwrap_or_default(),
            ),
        ])
    }

    /// Other members and acknowledgements, as the master records them, and up to where writes may have been answered
    /// so far while replicas had to hold them.
    pub fn record(&mut self, concern: Concern, secured: Position) {
        self.concern = concern;
        self.secured = self.secured.max(secured);
    }

    /// `spec.holderIdentity`; empty when vacant.
    pub fn holder_identity(&self) -> String {
        self.holder
            .as_ref()
            .map(|h| h.pod.clone())
            .unwrap_or_default()
    }
}

/// A Lease without these annotations is one from before a write concern was asked for.
fn concern(annotations: &BTreeMap<String, String>) -> Result<Concern, GrantError> {
    let acks = optional(annotations, ACKS, "a whole number")?;
    let text = annotations.get(MEMBERS).map_or("", String::as_str);
    let ids = text.split(',').filter(|id| !id.is_empty());
    let members: Result<BTreeSet<Uuid>, _> = ids.map(str::parse).collect();
    let members = members.map_err(|_| GrantError {
        key: MEMBERS,
        found: format!("`{text}`"),
        expected: "UUIDs, separated by commas",
    })?;
    let concern = Concern { members, acks };
    // As many as there are members would never be reached: nobody wrote that.
    if usize::try_from(acks).map_or(true, |acks| acks > 0 && acks >= concern.members.len()) {
        return Err(GrantError {
            key: ACKS,
            found: format!("`{acks}`"),
            expected: "less than the number of members",
        });
    }
    Ok(concern)
}

fn optional<T: std::str::FromStr + Default>(
    annotations: &BTreeMap<String, String>,
    key: &'static str,
    expected: &'static str,
) -> Result<T, GrantError> {
    match annotations.get(key) {
        None => Ok(T::default()),
        Some(_) => field(annotations, key, expected),
    }
}

fn field<T: std::str::FromStr>(
    annotations: &BTreeMap<String, String>,
    key: &'static str,
    expected: &'static str,
) -> Result<T, GrantError> {
    let text = annotations.get(key);
    text.and_then(|t| t.parse().ok()).ok_or_else(|| GrantError {
        key,
        found: text.map_or_else(|| "missing".to_owned(), |t| format!("`{t}`")),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted() -> Grant {
        Grant {
            cluster: Uuid::from_u128(1),
            epoch: 7,
            holder: Some(Holder {
                pod: "vc-master-0".to_owned(),
                node_id: Uuid::from_u128(2),
                boot_id: Uuid::from_u128(3),
            }),
            concern: Concern {
                members: [2, 4, 5].map(Uuid::from_u128).into(),
                acks: 1,
            },
            secured: Position::new(6, 42),
        }
    }

    fn reread(grant: &Grant) -> Result<Grant, GrantError> {
        Grant::parse(Some(&grant.holder_identity()), &grant.annotations())
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        assert_eq!(reread(&granted()), Ok(granted()));
        let vacant = Grant {
            holder: None,
            ..granted()
        };
        assert_eq!(reread(&vacant), Ok(vacant));
    }

    #[test]
    fn a_lease_without_holder_identity_is_vacant_whatever_its_annotations_say() {
        let read = Grant::parse(None, &granted().annotations()).unwrap();
        assert_eq!(read.holder, None);
        assert_eq!(read.epoch, 7);
    }

    #[test]
    fn a_vacant_lease_clears_the_former_holders_annotations() {
        let vacant = Grant {
            holder: None,
            ..granted()
        };
        assert_eq!(vacant.annotations()[NODE_ID], "");
        assert_eq!(vacant.annotations()[BOOT_ID], "");
        assert_eq!(vacant.holder_identity(), "");
    }

    #[test]
    fn a_lease_changed_by_hand_is_refused_with_the_annotation_and_what_it_should_be() {
        for (key, value, expected) in [
            (CLUSTER, Some("x"), "a UUID"),
            (CLUSTER, None, "a UUID"),
            (EPOCH, Some("-1"), "a whole number"),
            (EPOCH, None, "a whole number"),
            (NODE_ID, Some(""), "a UUID"),
            (BOOT_ID, None, "a UUID"),
            (ACKS, Some("one"), "a whole number"),
            (ACKS, Some("3"), "less than the number of members"),
            (MEMBERS, Some("a,b"), "UUIDs, separated by commas"),
            (SECURED, Some("6:42"), "a position such as 3.1500"),
        ] {
            let mut annotations = granted().annotations();
            match value {
                Some(value) => annotations.insert(key.to_owned(), value.to_owned()),
                None => annotations.remove(key),
            };
            let error = Grant::parse(Some("vc-master-0"), &annotations)
                .unwrap_err()
                .to_string();
            assert!(error.contains(key) && error.contains(expected), "{error}");
            let found = value.unwrap_or("missing");
            assert!(error.contains(found), "{error}");
        }
    }

    #[test]
    fn a_lease_from_before_a_write_concern_was_asked_for_asks_for_none() {
        let mut annotations = granted().annotations();
        annotations.remove(ACKS);
        annotations.remove(MEMBERS);
        annotations.remove(SECURED);
        let read = Grant::parse(Some("vc-master-0"), &annotations).unwrap();
        assert_eq!(
            (read.concern, read.secured),
            (Concern::default(), Position::ZERO)
        );
    }

    #[test]
    fn a_permit_ends_before_the_operator_may_believe_the_lease_has_run_out() {
        const {
            assert!(RENEW_EVERY_MS * 2 < PERMIT_MS);
            assert!(PERMIT_MS < EXPIRE_MS);
        }
    }
}
