//! What is needed for each side of a session: a driver does what its session says, and the peer says anything.
//!
//! Where a message needs a check sum or a proof it may be right or not, so that sessions get far enough.

use std::sync::OnceLock;

use bytes::BytesMut;
use uuid::Uuid;
use vectorizer_replication::auth::Token;
use vectorizer_replication::batch::Batch;
use vectorizer_replication::frame::{self, Kind, MAX_AFTER_AUTH};
use vectorizer_replication::message::{Ack, Message};
use vectorizer_replication::position::{Chain, EpochStart, History, LogEnd};
use vectorizer_replication::session::LinkConfig;

use crate::input::Input;

pub const CLUSTER: Uuid = Uuid::from_u128(7);
pub const OWN: Uuid = Uuid::from_u128(1);
pub const PEER: Uuid = Uuid::from_u128(2);
pub const OWN_NONCE: [u8; 32] = [1; 32];
pub const PEER_NONCE: [u8; 32] = [2; 32];

/// A log of thirty batches in epochs 1, 2 and 3.
pub fn log() -> &'static (Vec<Batch>, History) {
    static LOG: OnceLock<(Vec<Batch>, History)> = OnceLock::new();
    LOG.get_or_init(|| {
        let (mut batches, mut history, mut chain) = (Vec::new(), History::default(), Chain(0));
        let mut first = 1;
        for at in 0..30u64 {
            let (epoch, count) = (1 + at / 10, 1 + (at % 3) as u32);
            history.open(EpochStart {
                epoch,
                first_offset: first,
                chain,
            });
            let payload = vec![at as u8; at as usize];
            let batch = Batch::encode(epoch, first, count, at, chain, &payload).unwrap();
            (first, chain) = (batch.last_offset() + 1, batch.chain_after());
            batches.push(batch);
        }
        (batches, history)
    })
}

pub fn end_of(batch: &Batch) -> LogEnd {
    LogEnd {
        position: batch.end(),
        chain: batch.chain_after(),
    }
}

/// The log's first batches, as a log of its own.
pub fn prefix(count: usize) -> (&'static [Batch], LogEnd, History) {
    let (batches, history) = log();
    let batches = &batches[..count.min(batches.len())];
    let end = batches.last().map(end_of).unwrap_or_default();
    let mut history = history.clone();
    history.truncate(end.position.offset);
    (batches, end, history)
}

pub fn link(token: &Option<Token>) -> LinkConfig {
    LinkConfig {
        node_id: OWN,
        boot_id: OWN,
        token: token.clone(),
        nonce: OWN_NONCE,
        heartbeat: 50,
        timeout: 1_000,
    }
}

pub fn token(input: &mut Input<'_>) -> Option<Token> {
    (input.u8() % 2 == 1)
        .then(|| Token::new("secret"))
        .flatten()
}

/// Any message that the codec lets through.
pub fn any(input: &mut Input<'_>) -> Option<Message> {
    let kind = Kind::ALL[usize::from(input.u8()) % Kind::ALL.len()];
    let mut buffer = BytesMut::from(&frame::encode_small(kind, input.blob())[..]);
    let frame = frame::decode(&mut buffer, MAX_AFTER_AUTH).unwrap().unwrap();
    Message::decode(frame).ok()
}

pub fn ack(input: &mut Input<'_>) -> Ack {
    Ack {
        chunks: u32::from(input.u8() % 4),
        taken: input.number(),
        durable: input.number(),
        applied: input.number(),
    }
}
