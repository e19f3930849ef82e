//! The whole protocol under a seeded simulator: nodes, a Lease, two operators and clients, in virtual time.
//!
//! Sessions, handshake, role decisions, frames and the roster are the real ones. What is simulated is what surrounds
//! them: disks that fail, tear and lose what was not synced, processes that crash, freeze and restart, volumes that
//! come back empty, clocks that run at different rates and jump, connections that are slow, blocked in one direction
//! or cut, an API server whose answers come late, operators whose commands are lost, late or repeated and which go on
//! from old knowledge. What must hold is in `checks`, one function each. One seed is one run, exactly: the trace's
//! hash says so.
//!
//! `make sim SEEDS=100000` runs many, on all cores; `SIM_SEED=7` runs one alone and prints its trace.
//!
//! Times are a tenth of the real ones, so that a run of 16 virtual seconds sees many leases run out.

mod chance;
mod checks;
mod clock;
mod control;
mod disk;
mod feeds;
mod lease;
mod log;
mod many;
mod members;
mod network;
mod node;
mod operator;
mod plan;
mod random;
mod runs;
mod scripts;
mod sessions;
mod settle;
mod tests;
mod volume;
mod world;

use uuid::Uuid;

/// The one cluster.
const CLUSTER: Uuid = Uuid::from_u128(0xc1);
/// Bytes under way to one replica.
const WINDOW: usize = 1_500;
/// Longest batch or chunk that a run makes, with its header.
const LONGEST_PIECE: usize = 400;
/// Keys that clients write to.
const KEYS: u64 = 24;

/// Milliseconds of virtual time, or of a node's own clock.
type Time = u64;

const HEARTBEAT: Time = 200;
const TIMEOUT: Time = 1_000;
const RENEW_EVERY: Time = 200;
const PERMIT: Time = 1_000;
const EXPIRE: Time = 1_500;
/// A request to the API server is given up after so long.
const REQUEST_TIMEOUT: Time = 400;
