//! The end-to-end harness: what the scenarios on a real Kubernetes are written with.
//!
//! `scope` gives each scenario a namespace of its own and dumps its state when it fails; `cluster` reads as what a
//! user does with a `VectorizerCluster`; `node` talks to one pod through a port-forward; `checker` is the client that
//! runs inside the cluster, writes numbered records through the Service and reads every one of them back; `demo` is
//! `make demo`; `typed` reads the documents' commands. Everything waits on conditions with deadlines (`wait`).

pub mod checker;
pub mod cluster;
pub mod demo;
pub mod dump;
pub mod failure;
pub mod machine;
pub mod node;
pub mod pods;
pub mod scope;
pub mod shell;
pub mod typed;
pub mod wait;
