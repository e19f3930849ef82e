//! Objects of a cluster as they were found, as far as decisions look at them.

use std::time::Duration;

use vectorizer_api::lease::Grant;

use super::{Set, Trouble};
use crate::crd::Amount;

/// Whether the Secrets with credentials are there. Their content is nobody's business here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Secrets {
    /// The clients' keys.
    pub auth: SecretSeen,
    /// Replication token and control token.
    pub internal: SecretSeen,
}

/// Whether one Secret is there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum SecretSeen {
    /// Not there.
    #[default]
    Missing,
    /// There, but keys have no value.
    Incomplete {
        /// Whether the operator made it. Only then is it written to: whoever made it otherwise has keys of their own,
        /// and a random one beside them would lock their clients out in silence.
        made: bool,
        /// The keys that have none.
        lacks: Vec<&'static str>,
    },
    /// There, with every key.
    Complete,
    /// There, and another cluster's.
    Taken,
}

/// A StatefulSet as found.
#[derive(Clone, PartialEq, Debug)]
pub struct SetSeen {
    /// Its name.
    pub name: String,
    /// Which of the two it is.
    pub set: Set,
    /// Its uid.
    pub uid: String,
    /// Pods wanted by it now.
    pub replicas: u32,
    /// The template that pods should have; `None` until its controller has seen the latest change.
    pub revision: Option<String>,
    /// The node's image in its template.
    pub image: Option<String>,
    /// Size of the volumes that it makes.
    pub claim_size: Amount,
    /// Storage class of the volumes that it makes; `None` for the default one.
    pub claim_class: Option<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// A claim as found.
#[derive(Clone, PartialEq, Debug)]
pub struct ClaimSeen {
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub version: String,
    /// Its storage class, the default one filled in.
    pub class: Option<String>,
    /// Whether a volume is bound to it, or may be: only what is not holds certainly nothing.
    pub bound: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Why it is not bound, or not resized.
    pub trouble: Option<Trouble>,
    /// The size asked for.
    pub requested: Amount,
    /// Whether its volume can hold nothing but what this cluster wrote: it was made after the resource, empty, for this
    /// claim.
    pub blank: bool,
}

/// The Lease as found.
#[derive(Clone, PartialEq, Debug)]
pub enum LeaseSeen {
    /// Not there.
    Missing,
    /// There, but somebody else's.
    Taken,
    /// There, with content that makes no sense.
    Malformed(String),
    /// There.
    Held {
        /// resourceVersion.
        version: String,
        /// Whether it is the cluster's by owner and labels. One that only carries the labels was left by a deletion, or
        /// comes from a backup.
        owned: bool,
        /// Its content.
        grant: Grant,
        /// For how long this process has seen this very version, on its own monotonic clock.
        unchanged: Duration,
    },
}

impl LeaseSeen {
    /// Its content, where there is any.
    pub fn grant(&self) -> Option<&Grant> {
        match self {
            LeaseSeen::Held { grant, .. } => Some(grant),
            LeaseSeen::Missing | LeaseSeen::Taken | LeaseSeen::Malformed(_) => None,
        }
    }
}
