//! The REST API of `vectorizer-node` as types: requests, answers, error codes and, with feature `client`, a client.
//!
//! `replication` holds the public endpoints of the specification, `control` the commands that change roles (for the
//! operator, under a credential of their own), `data` the collections and vectors, `error` the closed set of errors.

pub mod control;
pub mod data;
pub mod error;
pub mod lease;
pub mod replication;

#[cfg(feature = "client")]
pub mod client;

/// Write concern, as the Lease records it.
pub use vectorizer_replication::concern;
/// Positions in the log, which several answers contain.
pub use vectorizer_replication::position;

/// Answer header: the role of the node that answered, `master`, `replica` or `unassigned`.
pub const ROLE_HEADER: &str = "x-vectorizer-role";
/// Answer header: the position, `<epoch>.<offset>`. After a write, that of the write; otherwise what the node has applied.
pub const POSITION_HEADER: &str = "x-vectorizer-position";
/// Request header of a write: replicas that must hold it before it is answered, when more than the cluster asks for.
pub const ACKS_HEADER: &str = "x-vectorizer-acks";
/// Answer header of a batch: how many of its items were refused; absent when none was.
pub const FAILED_HEADER: &str = "x-vectorizer-failed";
/// Request header of a forwarded write, so that it is never forwarded twice.
pub const FORWARDED_HEADER: &str = "x-vectorizer-forwarded";
