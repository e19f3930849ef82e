//! Where the node listens, told to whoever started it: with port 0 the system chooses.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The addresses that a node has bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// Of this process.
    pub pid: u32,
    /// The REST API.
    pub http: SocketAddr,
    /// Probes, commands and metrics, where they have a port of their own.
    pub ops: Option<SocketAddr>,
    /// Replication, where it is enabled.
    pub replication: Option<SocketAddr>,
}

/// Writes `addresses` to `file` as JSON, whole or not at all. To be called once the node listens on all of them.
pub fn announce(file: &Path, addresses: &Addresses) -> io::Result<()> {
    let part = file.with_extension("part");
    fs::write(&part, serde_json::to_vec(addresses)?)?;
    fs::rename(part, file)
}
