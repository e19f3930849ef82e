//! The client that every disruption is watched by. It runs in a pod, so that what it sees is what an application sees:
//! cluster DNS, the Service, connections that outlive a promotion.
//!
//! It writes numbered records through `<name>-rw`, notes for each whether it was acknowledged, refused or is unknown,
//! then reads everything back: `load` writes, `ledger` remembers, `report` compares, `serve` takes the orders of a
//! scenario, `pod` is the scenario's side of it.

pub mod ledger;
pub mod load;
pub mod pod;
pub mod readback;
pub mod report;
pub mod serve;
