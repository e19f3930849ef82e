//! The replication protocol as a sans-IO state machine: no socket, no clock, no file.
//!
//! A driver feeds inputs and the time into a session, and carries out what it hands back, in order.

pub mod batch;
pub mod position;
