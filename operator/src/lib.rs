//! The operator of `VectorizerCluster`: one master and its read replicas, and the promotion of a replica when told to.
//!
//! A reconcile is four calls: `observe` reads everything once, `plan` decides without touching anything, `act` carries
//! it out in order, `report` writes the status. Their data are in `world` and `plan`; what a user sees is in `crd`.

pub mod act;
pub mod api;
pub mod controller;
pub mod crd;
pub mod leader;
pub mod names;
pub mod observe;
pub mod plan;
pub mod render;
pub mod report;
pub mod telemetry;
pub mod world;
