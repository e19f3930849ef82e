//! The replication protocol as a sans-IO state machine: no socket, no clock, no file.
//!
//! A driver feeds inputs and the time into a session, and carries out what it hands back, in order. Decisions about
//! roles and about where two logs part are pure functions over plain data.

pub mod auth;
pub mod batch;
mod breakage;
pub mod command;
pub mod concern;
pub mod frame;
pub mod handshake;
pub mod lag;
pub mod master;
pub mod message;
pub mod position;
pub mod quorum;
pub mod replica;
pub mod roster;
pub mod session;

#[cfg(test)]
mod sim;
