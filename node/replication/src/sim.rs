//! The whole protocol under a seeded simulator: three nodes, a Lease, an operator and clients, in virtual time.
//!
//! Sessions, handshake, role decisions, frames and the roster are the real ones. What is simulated is what surrounds
//! them: disks that lose what was not synced, processes that crash, freeze and restart, connections that are slow,
//! blocked in one direction or cut, an operator whose commands and answers get lost. One seed is one run, exactly:
//! the trace's hash says so.
//!
//! `SIM_SEEDS=100000 cargo test --release -p vectorizer-replication sim::` runs more, `SIM_SEED=7` one alone and
//! prints its trace.
//!
//! Times are a tenth of the real ones, so that a run of 16 virtual seconds sees many leases run out.

mod chance;
mod checks;
mod disk;
mod feeds;
mod lease;
mod node;
mod operator;
mod random;
mod scripts;
mod sessions;
mod tests;
mod world;

use uuid::Uuid;

/// Nodes in a run.
const NODES: usize = 3;
/// The one cluster.
const CLUSTER: Uuid = Uuid::from_u128(0xc1);
/// Bytes under way to one replica.
const WINDOW: usize = 1_500;
/// Longest batch or chunk that a run makes, with its header.
const LONGEST_PIECE: usize = 400;
/// Keys that clients write to.
const KEYS: u64 = 24;

/// Milliseconds of virtual time.
type Time = u64;

const HEARTBEAT: Time = 200;
const TIMEOUT: Time = 1_000;
const RENEW_EVERY: Time = 200;
const PERMIT: Time = 1_000;
const EXPIRE: Time = 1_500;
