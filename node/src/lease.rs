//! Who decides that this node may be master: a Lease under Kubernetes, its own configuration otherwise. What the write
//! path sees of that is the [`Permit`](crate::permit::Permit) alone.

#[cfg(test)]
mod api_server;
mod kubernetes;
mod leadership;

pub use kubernetes::{KubernetesLease, LeaseError};
pub use leadership::Leadership;
