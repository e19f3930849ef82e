//! What is fuzzed: each module's `run` takes any bytes and panics where something does not hold.
//!
//! The programs in `fuzz_targets/` hand them what libFuzzer finds; `node/tests/corpus.rs` includes these files and hands
//! them those in `corpus/`, so that every finding that was kept stays a test. Most inputs are read as instructions
//! (see [`input::Input`]): check sums are put right here, since no fuzzer would ever guess one.

pub mod commands;
pub mod decision;
pub mod frames;
pub mod handshake;
pub mod input;
pub mod journal;
pub mod master_session;
pub mod replica_session;
pub mod sessions;
pub mod snapshot;
