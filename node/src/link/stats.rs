//! Counters of the links (specification, "Get Replication Statistics").

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Since the process began, both sides together.
#[derive(Debug, Default)]
pub struct LinkStats {
    /// Bytes written to replication sockets.
    pub bytes_sent: AtomicU64,
    /// Bytes read from replication sockets.
    pub bytes_received: AtomicU64,
    /// Unix time in seconds: on a master, of the last acknowledgement; on a replica, of the last moment at which it had
    /// applied all that the master had. 0 for never.
    pub last_sync: AtomicU64,
    /// Bytes of the chunks of the last snapshot sent or received.
    pub snapshot_size: AtomicU64,
    /// Full syncs begun.
    pub full_syncs: AtomicU64,
    /// Full syncs after which the replica's copy was whole.
    pub full_syncs_completed: AtomicU64,
    /// Full syncs that ended before that.
    pub full_syncs_broken_off: AtomicU64,
    /// Partial syncs begun: sessions that went on from the log.
    pub partial_syncs: AtomicU64,
    /// Attempts of this replica to connect.
    pub connects: AtomicU64,
    /// Connections that were cut off because of what they sent.
    pub refused: AtomicU64,
    /// Digests that differed at the same position.
    pub digest_mismatches: AtomicU64,
    /// On a replica, the last offset that its master is known to have.
    pub master_offset: AtomicU64,
    /// On a replica, whether its session with the master is live.
    pub connected: AtomicBool,
}

impl LinkStats {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn set(counter: &AtomicU64, value: u64) {
        counter.store(value, Ordering::Relaxed);
    }

    /// Whether this replica's session with its master is live.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }
}
