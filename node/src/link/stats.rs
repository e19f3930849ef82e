//! Counters of the links (specification, "Get Replication Statistics").

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

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
    /// On a replica, why the last session with the master, or the last attempt at one, ended.
    trouble: Mutex<Option<String>>,
}

impl LinkStats {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn set(counter: &AtomicU64, value: u64) {
        counter.store(value, Ordering::Relaxed);
    }

    /// This replica's session with its master is live.
    pub(super) fn is_following(&self) {
        *self.trouble.lock() = None;
        self.connected.store(true, Ordering::Relaxed);
    }

    /// It is not; `why`, unless that was wanted.
    pub(super) fn is_cut_off(&self, why: Option<String>) {
        self.connected.store(false, Ordering::Relaxed);
        *self.trouble.lock() = why;
    }

    /// Why this replica's session with its master is not live, as the last attempt ended.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// Whether this replica's session with its master is live.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }
}
