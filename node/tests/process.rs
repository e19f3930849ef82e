//! Real processes of `vectorizer-node` on loopback: two nodes on a laptop, as the specification's samples say, and what
//! becomes of them when they are killed, stopped, configured, handed over and talked nonsense to, when the line between
//! them fails or lies, when their disk is full, and when clients come in numbers, say nothing, or send too much.
//!
//! Each node has a loopback address of its own, so that all of them use the ports 15002 and 7001 and no two tests, or
//! two runs of them, ever want the same one. Every wait is for a condition, with a deadline.

// All of this is tests, those functions as well that are not marked so.
#![allow(clippy::unwrap_used)]

#[path = "process/acknowledged.rs"]
mod acknowledged;
#[path = "process/agree.rs"]
mod agree;
#[path = "process/bad_line.rs"]
mod bad_line;
#[path = "process/configured.rs"]
mod configured;
#[path = "process/connections.rs"]
mod connections;
#[path = "process/emptied.rs"]
mod emptied;
#[path = "process/frozen.rs"]
mod frozen;
#[path = "process/full_disk.rs"]
mod full_disk;
#[path = "process/harness.rs"]
mod harness;
#[path = "process/interrupted.rs"]
mod interrupted;
#[path = "process/killed.rs"]
mod killed;
#[path = "process/lag.rs"]
mod lag;
#[path = "process/load.rs"]
mod load;
#[path = "process/memory.rs"]
mod memory;
#[path = "process/metrics.rs"]
mod metrics;
#[path = "process/nonsense.rs"]
mod nonsense;
#[path = "process/promotions.rs"]
mod promotions;
#[path = "process/refused.rs"]
mod refused;
#[path = "process/relay.rs"]
mod relay;
#[path = "process/resync.rs"]
mod resync;
#[path = "process/roles.rs"]
mod roles;
#[path = "process/rotated.rs"]
mod rotated;
#[path = "process/samples.rs"]
mod samples;
#[path = "process/started.rs"]
mod started;
#[path = "process/switchover.rs"]
mod switchover;
#[path = "process/tools.rs"]
mod tools;
