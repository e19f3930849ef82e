//! What both sides of a session share: time, limits, and the ways in which it ends.

use uuid::Uuid;

use crate::auth::{Nonce, Token};
use crate::frame::{MAX_AFTER_AUTH, MAX_BEFORE_AUTH};
use crate::message::Reject;

/// Milliseconds on a monotonic clock of the driver's choice.
pub type Millis = u64;

/// A connection has this long to get to the end of its handshake.
pub const HANDSHAKE_TIMEOUT: Millis = 10_000;

/// What either side has to know about itself and the link.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// This node's durable identity.
    pub node_id: Uuid,
    /// Identity of this process.
    pub boot_id: Uuid,
    /// The shared token, if there is one.
    pub token: Option<Token>,
    /// Fresh random bytes for this connection.
    pub nonce: Nonce,
    /// Time between heartbeats.
    pub heartbeat: Millis,
    /// A peer that is silent for so long is given up.
    pub timeout: Millis,
}

/// Why a session ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Closed {
    /// The peer does not feed this node.
    #[error("the peer refuses: {0}")]
    Refused(Reject),
    /// This node does not feed the peer, and told it so.
    #[error("refused: {0}")]
    Refusing(Reject),
    /// Nothing came for too long.
    #[error("nothing was received for {0} ms")]
    Timeout(Millis),
    /// The handshake did not end in time.
    #[error("the handshake took longer than {0} ms")]
    HandshakeTimeout(Millis),
    /// The peer does not know the token, or expects one.
    #[error("not authenticated: {0}")]
    Unauthenticated(String),
    /// The peer said what does not fit.
    #[error("{0}")]
    Protocol(String),
    /// What the peer sent does not continue this node's log.
    #[error("the operations do not continue this node's log: {0}")]
    Mismatch(String),
    /// The driver could not carry something out.
    #[error("{0}")]
    Local(String),
}

/// The longest payload that may be read now.
pub(crate) fn frame_limit(authenticated: bool) -> usize {
    if authenticated {
        MAX_AFTER_AUTH
    } else {
        MAX_BEFORE_AUTH
    }
}

/// Who was heard when, and when to speak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulse {
    started: Millis,
    heard: Millis,
    beat: Millis,
    heartbeat: Millis,
    timeout: Millis,
    /// Whether the handshake is over.
    established: bool,
}

impl Pulse {
    pub(crate) fn new(now: Millis, config: &LinkConfig) -> Self {
        Pulse {
            started: now,
            heard: now,
            beat: now,
            heartbeat: config.heartbeat.max(1),
            timeout: config.timeout.max(1),
            established: false,
        }
    }

    /// The handshake is over: heartbeats begin, and its time limit ends.
    pub(crate) fn establish(&mut self, now: Millis) {
        self.established = true;
        self.heard = self.heard.max(now);
        self.beat = now;
    }

    /// Something was heard. A peer that has not proven itself earns no time with it.
    pub(crate) fn hear(&mut self, now: Millis) {
        self.heard = self.heard.max(now);
    }

    /// Whether a heartbeat is due; the next one is then due one interval later.
    pub(crate) fn take_beat(&mut self, now: Millis) -> bool {
        let due = self.established && now >= self.beat.saturating_add(self.heartbeat);
        if due {
            self.beat = now;
        }
        due
    }

    /// Why the session is over, if it is.
    pub(crate) fn expired(&self, now: Millis) -> Option<Closed> {
        let limit = HANDSHAKE_TIMEOUT.min(self.timeout);
        if !self.established && now >= self.started.saturating_add(limit) {
            return Some(Closed::HandshakeTimeout(limit));
        }
        (now >= self.heard.saturating_add(self.timeout)).then_some(Closed::Timeout(self.timeout))
    }

    /// When to look again at the latest.
    pub(crate) fn wake_at(&self) -> Millis {
        let timeout = self.heard.saturating_add(self.timeout);
        if self.established {
            timeout.min(self.beat.saturating_add(self.heartbeat))
        } else {
            let limit = HANDSHAKE_TIMEOUT.min(self.timeout);
            timeout.min(self.started.saturating_add(limit))
        }
    }
}

#[cfg(test)]
mod tests;
