//! A master's session and a replica that says anything.

use std::collections::VecDeque;

use bytes::Bytes;
use vectorizer_replication::auth::{Nonces, Side};
use vectorizer_replication::batch::Batch;
use vectorizer_replication::handshake::ReplicaLog;
use vectorizer_replication::master::{self, LogView, MasterConfig, MasterSession, Serving};
use vectorizer_replication::message::{Beat, Greet, Hello, Message, SnapshotBegin};

use crate::decision::replica_log;
use crate::input::Input;
use crate::sessions::{
    CLUSTER, OWN, OWN_NONCE, PEER, PEER_NONCE, ack, any, link, log, prefix, token,
};

/// Small, so that it is felt.
const WINDOW: usize = 300;
const LARGEST: usize = 100;

/// A master's session, whose peer may lack the token.
pub fn run(mut input: Input<'_>) {
    let token = token(&mut input);
    let (batches, end, history) = prefix(30);
    let config = MasterConfig {
        former: None,
        link: link(&token),
        serving: if input.u8() % 8 == 7 {
            Serving::NotMaster { address: None }
        } else {
            Serving::Master {
                cluster: CLUSTER,
                epoch: 3,
                history,
            }
        },
        window: WINDOW,
    };
    // Retention may have taken some; a batch begins there.
    let held = &batches[usize::from(input.u8()) % batches.len()..];
    let view = LogView {
        first_offset: held[0].first_offset(),
        end,
        durable: end.position.offset,
        covered: 0,
    };
    let mut driver = MasterDriver {
        session: MasterSession::new(0, config, view),
        held,
        begin: SnapshotBegin {
            id: OWN,
            start: end,
            history: log().1.clone(),
        },
        proven: token.is_none(),
        reads: 0,
        asked: VecDeque::new(),
        closed: false,
    };
    let mut now = 0;
    while !input.is_empty() && !driver.closed {
        let op = input.u8() % 16;
        let message = match op {
            0 => Some(Message::Greet(Greet {
                min_version: u16::from(input.u8() % 3),
                max_version: u16::from(input.u8() % 3),
                features: 0,
                has_token: token.is_some(),
                nonce: PEER_NONCE,
            })),
            1 => token.as_ref().map(|token| {
                driver.proven = true;
                Message::Proof(token.prove(
                    Side::Replica,
                    &Nonces {
                        replica: PEER_NONCE,
                        master: OWN_NONCE,
                    },
                ))
            }),
            2 | 3 => Some(hello(&mut input, op == 2)),
            4 => Some(Message::Ack(ack(&mut input))),
            5 => Some(Message::Beat(Beat {
                clock_ms: 0,
                promised: input.number(),
                ack: ack(&mut input),
            })),
            6 | 7 => any(&mut input),
            8 => {
                now += u64::from(input.u8()) * 8;
                let tick = master::Input::Tick {
                    clock_ms: now,
                    digest: None,
                };
                driver.give(now, tick);
                None
            }
            9 => {
                driver.give(now, master::Input::Bytes);
                None
            }
            _ => {
                driver.answer(now, &mut input);
                None
            }
        };
        if let Some(message) = message {
            driver.give(now, master::Input::Message(message));
        }
    }
}

/// What a replica says of itself: that it holds a prefix, or anything.
fn hello(input: &mut Input<'_>, honest: bool) -> Message {
    let log = if honest {
        let (_, end, history) = prefix(usize::from(input.u8()) % 31);
        ReplicaLog {
            end,
            history,
            has_data: true,
            wants_snapshot: input.u8() % 4 == 3,
        }
    } else {
        replica_log(input)
    };
    Message::Hello(Box::new(Hello {
        cluster: (input.u8() % 8 != 7).then_some(CLUSTER),
        node_id: PEER,
        boot_id: PEER,
        name: String::new(),
        advertised: None,
        promised: input.number() % 5,
        durable: input.number(),
        applied: input.number(),
        log,
    }))
}

struct MasterDriver {
    session: MasterSession,
    held: &'static [Batch],
    begin: SnapshotBegin,
    /// Whether the peer has shown that it knows the token, if there is one.
    proven: bool,
    reads: usize,
    asked: VecDeque<master::Output>,
    closed: bool,
}

impl MasterDriver {
    fn give(&mut self, now: u64, input: master::Input) {
        assert!(!self.closed);
        self.session.handle(now, input);
        // One batch or chunk may exceed the window.
        let under_way = self.session.in_flight();
        assert!(under_way <= WINDOW + LARGEST, "{under_way} bytes under way");
        while let Some(output) = self.session.poll_output() {
            assert!(!self.closed, "{output:?} after the end");
            match &output {
                master::Output::Close(_) => self.closed = true,
                master::Output::Send(
                    Message::Challenge(_) | Message::Reject(_) | Message::Heartbeat(_),
                ) => {}
                master::Output::Send(_)
                | master::Output::Joined { .. }
                | master::Output::Acked(_)
                | master::Output::Synced
                | master::Output::Deposed(_) => assert!(self.proven, "{output:?} for a stranger"),
                master::Output::LookUpChain(_)
                | master::Output::ReadLog { .. }
                | master::Output::StartSnapshot
                | master::Output::NextChunk => {
                    assert!(self.proven, "{output:?} for a stranger");
                    self.reads += usize::from(matches!(output, master::Output::ReadLog { .. }));
                    assert!(self.reads <= 1, "one read at a time");
                    self.asked.push_back(output);
                }
            }
        }
    }

    /// Does the next thing that was asked for.
    fn answer(&mut self, now: u64, input: &mut Input<'_>) {
        let Some(asked) = self.asked.pop_front() else {
            return;
        };
        if input.u8() % 32 == 31 {
            return self.give(now, master::Input::Failed("of the disk".to_owned()));
        }
        let answer = match asked {
            master::Output::LookUpChain(offset) => {
                let found = self.held.iter().find(|b| b.last_offset() == offset);
                master::Input::Chain(found.map(Batch::chain_after))
            }
            master::Output::ReadLog { from, max_bytes } => {
                self.reads -= 1;
                let mut left = max_bytes.min(LARGEST);
                let after = self.held.iter().skip_while(|b| b.first_offset() < from);
                let read: Vec<_> = after
                    .enumerate()
                    .take_while(|(at, batch)| {
                        let fits = *at == 0 || batch.bytes().len() <= left;
                        left = left.saturating_sub(batch.bytes().len());
                        fits
                    })
                    .map(|(_, batch)| batch.clone())
                    .collect();
                let first = read.first().map(Batch::first_offset);
                assert_eq!(first, Some(from), "it asks for what is there");
                master::Input::Batches(read)
            }
            master::Output::StartSnapshot => master::Input::SnapshotStarted(self.begin.clone()),
            master::Output::NextChunk if input.u8().is_multiple_of(4) => {
                master::Input::SnapshotDone {
                    exact_from: self.begin.start.position.offset,
                    store_crc: 0,
                    digest: 0,
                }
            }
            master::Output::NextChunk => master::Input::Chunk(Bytes::from_static(&[7; LARGEST])),
            other @ (master::Output::Send(_)
            | master::Output::Joined { .. }
            | master::Output::Acked(_)
            | master::Output::Synced
            | master::Output::Deposed(_)
            | master::Output::Close(_)) => unreachable!("{other:?} asks for nothing"),
        };
        self.give(now, answer);
    }
}
