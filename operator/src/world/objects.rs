//! Which objects of a cluster are applied as a whole, and how they are told apart.

use std::fmt;

/// Kinds of the objects that are applied as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(missing_docs, reason = "they are Kubernetes' own names")]
pub enum Kind {
    ServiceAccount,
    Role,
    RoleBinding,
    ConfigMap,
    Service,
    NetworkPolicy,
    PodDisruptionBudget,
    StatefulSet,
}

impl Kind {
    /// Every kind, in the order in which they are applied.
    pub const ALL: [Kind; 8] = [
        Kind::ServiceAccount,
        Kind::Role,
        Kind::RoleBinding,
        Kind::ConfigMap,
        Kind::Service,
        Kind::NetworkPolicy,
        Kind::PodDisruptionBudget,
        Kind::StatefulSet,
    ];

    /// Its name in `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::ServiceAccount => "ServiceAccount",
            Kind::Role => "Role",
            Kind::RoleBinding => "RoleBinding",
            Kind::ConfigMap => "ConfigMap",
            Kind::Service => "Service",
            Kind::NetworkPolicy => "NetworkPolicy",
            Kind::PodDisruptionBudget => "PodDisruptionBudget",
            Kind::StatefulSet => "StatefulSet",
        }
    }
}

/// One object of the cluster's namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// What changes when somebody changes what an object is meant to be: its generation where it has one, otherwise its
/// resourceVersion. Unlike the latter alone, it stays while a controller only reports.
pub type Stamp = String;
