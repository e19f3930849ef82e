//! What the load generator asks of either system.

use std::net::TcpStream;
use std::time::Duration;

use crate::data::Batch;
use crate::error::{Context, Outcome};

/// One connection.
pub trait Client: Send {
    /// Writes a batch; returns when all of it is acknowledged.
    fn write(&mut self, batch: &Batch<'_>) -> Outcome<()>;

    /// The same, acknowledged by a replica as well.
    fn write_acknowledged(&mut self, batch: &Batch<'_>) -> Outcome<()>;

    /// Writes `n` under a key of its own.
    fn mark(&mut self, n: u64) -> Outcome<()>;

    /// What was last marked, as far as this server knows; `None` when it serves nothing or knows of none.
    fn marked(&mut self) -> Outcome<Option<u64>>;

    /// The value under a key of [`Batch::each`]; `None` when there is none.
    fn read(&mut self, key: &str) -> Outcome<Option<Vec<u8>>>;
}

/// A connection that nothing is delayed on, and that does not wait for ever.
pub fn connect(address: &str) -> Outcome<TcpStream> {
    let socket = TcpStream::connect(address).context(&format!("connecting to {address}"))?;
    socket.set_nodelay(true).context("setting up a socket")?;
    let time = Some(Duration::from_secs(60));
    socket
        .set_read_timeout(time)
        .context("setting up a socket")?;
    Ok(socket)
}
