//! A replica's session and a master that says anything.

use std::collections::VecDeque;

use bytes::Bytes;
use vectorizer_replication::auth::{Nonces, Side};
use vectorizer_replication::batch::Batch;
use vectorizer_replication::handshake::ReplicaLog;
use vectorizer_replication::message::{
    Beat, Challenge, Chunk, Heartbeat, Master, Message, SnapshotBegin, SnapshotEnd,
};
use vectorizer_replication::position::{LogEnd, Position};
use vectorizer_replication::replica::{self, LocalLog, ReplicaConfig, ReplicaSession};

use crate::input::Input;
use crate::sessions::{
    CLUSTER, OWN, OWN_NONCE, PEER, PEER_NONCE, any, end_of, link, log, prefix, token,
};

/// A replica's session, whose peer may lack the token.
pub fn run(mut input: Input<'_>) {
    let token = token(&mut input);
    let count = usize::from(input.u8()) % 31;
    let config = ReplicaConfig {
        link: link(&token),
        cluster: (input.u8() % 4 != 3).then_some(CLUSTER),
        promised: u64::from(input.u8() % 4),
        name: "replica".to_owned(),
        advertised: None,
    };
    let held = prefix(count).0.to_vec();
    let mut driver = ReplicaDriver {
        promised: config.promised,
        session: ReplicaSession::new(0, config, local(&held)),
        synced_from: None,
        done: held.last().map_or(0, Batch::last_offset),
        held,
        proven: token.is_none(),
        appended: None,
        asked: VecDeque::new(),
        chunks: 0,
        closed: false,
    };
    driver.take_outputs();
    let mut now = 0;
    while !input.is_empty() && !driver.closed {
        let op = input.u8() % 16;
        let message = match op {
            0 => Some(Message::Challenge(Challenge {
                version: u16::from(input.u8() % 4 != 3),
                features: 0,
                has_token: token.is_some(),
                nonce: PEER_NONCE,
            })),
            1 => token.as_ref().map(|token| {
                driver.proven = true;
                Message::Proof(token.prove(
                    Side::Master,
                    &Nonces {
                        replica: OWN_NONCE,
                        master: PEER_NONCE,
                    },
                ))
            }),
            2..=4 => Some(start(&mut input, op)),
            5 => Some(Message::Batches(next_batches(&mut input, &driver))),
            6 => {
                let bytes = Bytes::copy_from_slice(input.blob());
                Some(Message::SnapshotChunk(Chunk {
                    index: driver.chunks + u32::from(input.u8() % 16 == 15),
                    crc: crc32fast::hash(&bytes),
                    bytes,
                }))
            }
            7 => Some(snapshot_end(&mut input, &driver)),
            8 => Some(Message::Heartbeat(Heartbeat {
                clock_ms: 0,
                end: Position::new(input.number(), input.number()),
                durable: input.number(),
                covered: input.number(),
                digest: Some((Position::new(input.number(), input.number()), 5)),
            })),
            9 => any(&mut input),
            10 => {
                now += u64::from(input.u8()) * 8;
                driver.give(now, replica::Input::Tick { clock_ms: now });
                None
            }
            11 => {
                driver.progress(now, &mut input);
                None
            }
            _ => {
                driver.answer(now, &mut input);
                None
            }
        };
        if let Some(message) = message
            && !driver.session.is_waiting()
        {
            driver.give(now, replica::Input::Message(message));
        }
    }
}

fn local(held: &[Batch]) -> LocalLog {
    let end = held.last().map(end_of).unwrap_or_default();
    let mut history = log().1.clone();
    history.truncate(end.position.offset);
    LocalLog {
        log: ReplicaLog {
            end,
            history,
            has_data: !held.is_empty(),
            wants_snapshot: false,
        },
        durable: end.position.offset,
        applied: end.position.offset,
    }
}

fn start(input: &mut Input<'_>, op: u8) -> Message {
    let (_, end, history) = prefix(usize::from(input.u8()) % 31);
    let master = Master {
        cluster: if input.u8() % 16 == 15 { OWN } else { CLUSTER },
        epoch: u64::from(input.u8() % 5),
        node_id: PEER,
        end: end.position,
    };
    let lies = input.u8() % 8 == 7;
    let end = LogEnd {
        position: if lies {
            Position::new(input.number(), input.number())
        } else {
            end.position
        },
        ..end
    };
    match op {
        2 => Message::Continue(master, end.position.offset.saturating_add(1)),
        3 => Message::Truncate(master, end),
        _ => Message::SnapshotBegin(
            master,
            Box::new(SnapshotBegin {
                id: OWN,
                start: end,
                history,
            }),
        ),
    }
}

/// What follows what the replica holds, or anything else of the log.
fn next_batches(input: &mut Input<'_>, driver: &ReplicaDriver) -> Vec<Batch> {
    let batches = &log().0;
    let next = driver.end().position.offset.saturating_add(1);
    let fits = batches.iter().position(|b| b.first_offset() == next);
    let from = match (input.u8() % 8, fits) {
        (0..7, Some(at)) => at,
        _ => usize::from(input.u8()) % batches.len(),
    };
    let count = usize::from(input.u8() % 4) + 1;
    batches[from..].iter().take(count).cloned().collect()
}

fn snapshot_end(input: &mut Input<'_>, driver: &ReplicaDriver) -> Message {
    let mut crc = crc32fast::Hasher::new();
    let mut bytes = 0;
    if let Some(from) = &driver.synced_from {
        for (chunk, len) in &from.chunks {
            crc.update(&chunk.to_le_bytes());
            bytes += len;
        }
    }
    Message::SnapshotEnd(SnapshotEnd {
        chunks: driver.chunks + u32::from(input.u8() % 16 == 15),
        bytes,
        crc: crc.finalize(),
        store_crc: 0,
        digest: 0,
        exact_from: match &driver.synced_from {
            Some(from) if input.u8() % 8 != 7 => from.start.position.offset,
            Some(_) | None => input.number(),
        },
    })
}

/// A full sync under way or done.
struct Synced {
    start: LogEnd,
    chunks: Vec<(u32, u64)>,
}

struct ReplicaDriver {
    session: ReplicaSession,
    promised: u64,
    /// What was appended, to the log or behind the snapshot.
    held: Vec<Batch>,
    synced_from: Option<Synced>,
    /// Reported as durable and applied.
    done: u64,
    proven: bool,
    /// Up to here, since it was last reported as taken over.
    appended: Option<u64>,
    asked: VecDeque<replica::Output>,
    chunks: u32,
    closed: bool,
}

impl ReplicaDriver {
    fn end(&self) -> LogEnd {
        let base = self.synced_from.as_ref().map(|from| from.start);
        self.held.last().map(end_of).or(base).unwrap_or_default()
    }

    fn give(&mut self, now: u64, input: replica::Input) {
        assert!(!self.closed);
        self.session.handle(now, input);
        self.take_outputs();
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.session.poll_output() {
            assert!(!self.closed, "{output:?} after the end");
            match &output {
                replica::Output::Close(_) => self.closed = true,
                replica::Output::Send(Message::Ack(ack) | Message::Beat(Beat { ack, .. })) => {
                    let most = self.end().position.offset;
                    assert!(ack.taken <= most && ack.chunks <= self.chunks);
                    assert!(
                        ack.durable <= self.done && ack.applied <= self.done,
                        "{ack:?}"
                    );
                }
                replica::Output::Send(_) => {}
                replica::Output::AcceptMaster { epoch, .. } => {
                    assert!(self.proven, "a stranger is no master");
                    assert!(*epoch >= self.promised, "{epoch} is below the promise");
                    self.asked.push_back(output);
                }
                replica::Output::Truncate(to) => {
                    assert!(self.proven && to.position.offset < self.end().position.offset);
                    self.asked.push_back(output);
                }
                replica::Output::Append(batches) => {
                    assert!(self.proven);
                    for batch in batches {
                        let end = self.end();
                        assert_eq!(batch.first_offset(), end.position.offset + 1);
                        assert_eq!(batch.chain_before(), end.chain);
                        assert!(batch.epoch() >= end.position.epoch);
                        self.held.push(batch.clone());
                        self.appended = Some(batch.last_offset());
                    }
                }
                replica::Output::SnapshotBegin(begin) => {
                    assert!(self.proven);
                    self.held.clear();
                    self.done = 0;
                    self.synced_from = Some(Synced {
                        start: begin.start,
                        chunks: Vec::new(),
                    });
                }
                replica::Output::SnapshotChunk { index, bytes } => {
                    assert_eq!(*index, self.chunks, "chunks come in order");
                    self.chunks += 1;
                    let from = self.synced_from.as_mut().unwrap();
                    from.chunks
                        .push((crc32fast::hash(bytes), bytes.len() as u64));
                }
                replica::Output::SnapshotEnd(end) => {
                    let start = self.synced_from.as_ref().unwrap().start;
                    assert!(end.exact_from >= start.position.offset);
                }
                replica::Output::Joined { .. } => assert!(self.proven),
                replica::Output::Covered(offset) => assert!(*offset <= self.done),
                replica::Output::CheckDigest { .. } => assert!(self.proven),
            }
        }
    }

    /// Says how far disk and store are.
    fn progress(&mut self, now: u64, input: &mut Input<'_>) {
        let end = self.end().position;
        if let Some(appended) = self.appended.take() {
            self.give(now, replica::Input::Taken(appended));
        }
        if self.closed {
            return;
        }
        self.give(now, replica::Input::ChunksTaken(self.chunks));
        if self.closed {
            return;
        }
        let back = u64::from(input.u8() % 4);
        let reached = end.offset.saturating_sub(back).max(self.done);
        self.done = reached;
        let applied = Position::new(end.epoch, reached);
        let syncing = self.synced_from.is_some() && input.u8() % 2 == 1;
        let progress = replica::Input::Progress {
            durable: reached,
            applied,
            syncing,
        };
        self.give(now, progress);
    }

    /// Does the next thing that was asked for.
    fn answer(&mut self, now: u64, input: &mut Input<'_>) {
        let answer = match self.asked.pop_front() {
            Some(replica::Output::AcceptMaster { epoch, .. }) => {
                self.promised = epoch;
                replica::Input::Accepted
            }
            Some(replica::Output::Truncate(_)) if input.u8() % 4 == 3 => {
                replica::Input::CannotTruncate
            }
            Some(replica::Output::Truncate(to)) => {
                // Only a batch's end can be cut to.
                let Some(kept) = self
                    .held
                    .iter()
                    .position(|b| b.end() == to.position)
                    .map(|at| at + 1)
                else {
                    return self.give(now, replica::Input::CannotTruncate);
                };
                self.held.truncate(kept);
                self.done = self.end().position.offset;
                replica::Input::Truncated(local(&self.held))
            }
            Some(other) => unreachable!("{other:?} asks for nothing"),
            None => return,
        };
        self.give(now, answer);
    }
}
