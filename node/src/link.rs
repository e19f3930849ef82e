//! The TCP driver of both sides of a replication session: sockets, clocks and blocking reads around the sessions of
//! `vectorizer-replication`, which decide everything.
//!
//! One task per connection waits for all that can happen to it: bytes, room in the socket, the log moving, an answer
//! of the disk or the writer, time. Batches go from the log's memory to the socket without being copied. What a peer can
//! make this process hold is bounded: a frame, a window of operations under way, a queue of what the writer has not
//! taken yet.

mod feed;
mod follow;
mod listener;
mod receive;
mod scan;
mod sink;
mod stats;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use vectorizer_replication::auth::{Nonce, Token};
use vectorizer_replication::master::DEFAULT_WINDOW;
use vectorizer_replication::session::LinkConfig;

use crate::clock;
use crate::config::Credential;
use crate::replicas::ReplicaTable;
use crate::store::Store;
use crate::writer::WriterHandle;

pub use follow::spawn_replica;
pub use listener::spawn_master_listener;
pub use stats::LinkStats;

/// What this node is called, and how patient it is.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// This node's name, on Kubernetes its pod's.
    pub name: String,
    /// Where others can reach this node for replication, `host:port`.
    pub advertised: Option<String>,
    /// The shared token, looked at for each session; without one, only peers without one are talked to.
    pub token: Option<Credential>,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// A peer that is silent for so long is given up.
    pub timeout: Duration,
    /// Longest pause between attempts to reconnect.
    pub reconnect: Duration,
    /// Most bytes under way to one replica and not yet taken there.
    pub window: usize,
}

impl Default for LinkOptions {
    fn default() -> Self {
        LinkOptions {
            name: String::new(),
            advertised: None,
            token: None,
            heartbeat: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            reconnect: Duration::from_secs(5),
            window: DEFAULT_WINDOW,
        }
    }
}

/// What both sides need of the rest of the node. Cloning is cheap.
#[derive(Clone)]
pub struct LinkContext {
    /// Takes what a master sends, and says what this node is.
    pub writer: WriterHandle,
    /// Is scanned for full syncs and compared by digest.
    pub store: Arc<Store>,
    /// The replicas of this node, while it is master.
    pub table: ReplicaTable,
    /// Counters.
    pub stats: Arc<LinkStats>,
    /// Options.
    pub options: Arc<LinkOptions>,
}

impl LinkContext {
    /// A context with an empty table and counters at zero.
    pub fn new(writer: WriterHandle, store: Arc<Store>, options: LinkOptions) -> Self {
        LinkContext {
            writer,
            store,
            table: ReplicaTable::default(),
            stats: Arc::new(LinkStats::default()),
            options: Arc::new(options),
        }
    }

    /// Lets a master of `epoch` remember what its replicas have acknowledged; `noted` is what it was told before.
    pub(crate) fn note_covered(&self, epoch: u64, noted: &mut u64) {
        let durable = self.writer.progress().borrow().durable;
        let covered = self.table.covered(durable);
        if epoch != 0 && covered > *noted && self.writer.own_covered(epoch, covered) {
            *noted = covered;
        }
    }

    /// The token as it is now, and the one before it for a while after a change.
    fn tokens(&self) -> (Option<Token>, Option<Token>) {
        let Some(credential) = &self.options.token else {
            return (None, None);
        };
        let (current, former) = credential.accepted();
        let token = |secret: &[u8]| Token::new(secret);
        (token(&current), former.and_then(|former| token(&former)))
    }

    fn link_config(&self, token: Option<Token>) -> LinkConfig {
        let state = self.writer.state();
        let state = state.borrow();
        LinkConfig {
            node_id: state.node_id,
            boot_id: state.boot_id,
            token,
            nonce: nonce(),
            heartbeat: clock::millis(self.options.heartbeat),
            timeout: clock::millis(self.options.timeout),
        }
    }
}

/// 32 bytes from the system's random generator; a version-4 UUID has 122 random bits.
fn nonce() -> Nonce {
    let mut nonce = [0; 32];
    nonce[..16].copy_from_slice(Uuid::new_v4().as_bytes());
    nonce[16..].copy_from_slice(Uuid::new_v4().as_bytes());
    nonce
}
