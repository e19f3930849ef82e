//! Both sides against each other, with a log and a store that are vectors in memory.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::*;
use crate::batch::Batch;
use crate::frame;
use crate::handshake::ReplicaLog;
use crate::master::{self, LogView, MasterConfig, MasterSession, Serving, SyncKind};
use crate::message::{Ack, Beat, Message, SnapshotBegin};
use crate::position::{Chain, EpochStart, History, LogEnd, Position};
use crate::replica::{self, LocalLog, ReplicaConfig, ReplicaSession};

const CLUSTER: Uuid = Uuid::from_u128(1);
const MASTER: Uuid = Uuid::from_u128(10);
const REPLICA: Uuid = Uuid::from_u128(11);

fn link(node_id: Uuid, token: Option<&str>) -> LinkConfig {
    LinkConfig {
        node_id,
        boot_id: node_id,
        token: token.and_then(Token::new),
        nonce: [node_id.as_bytes()[15]; 32],
        heartbeat: 1_000,
        timeout: 5_000,
    }
}

fn log(count: u64, size: usize) -> Vec<Batch> {
    let mut chain = Chain::default();
    let batch = |n| {
        let batch = Batch::encode(1, n, 1, 0, chain, &vec![n as u8; size]).unwrap();
        chain = batch.chain_after();
        batch
    };
    (1..=count).map(batch).collect()
}

fn end(log: &[Batch]) -> LogEnd {
    log.last().map_or_else(LogEnd::default, |b| LogEnd {
        position: b.end(),
        chain: b.chain_after(),
    })
}

fn history(log: &[Batch]) -> History {
    let start = EpochStart {
        epoch: 1,
        first_offset: 1,
        chain: Chain::default(),
    };
    History::new(log.iter().take(1).map(|_| start).collect()).unwrap()
}

/// A master and a replica on one connection that loses nothing.
struct Pair {
    now: Millis,
    master: MasterSession,
    replica: ReplicaSession,
    master_log: Vec<Batch>,
    first: u64,
    replica_log: Vec<Batch>,
    chunks: Vec<Bytes>,
    /// Whether what the replica appends is reported back to its session.
    takes: bool,
    /// On the way to the replica.
    wire: std::collections::VecDeque<Message>,
    closed: Option<(&'static str, Closed)>,
    sync: Option<SyncKind>,
    acked: Ack,
    deposed: Option<u64>,
    /// What the replica was told to compare.
    digests: Vec<(Position, u128)>,
}

struct Setup {
    master_token: Option<&'static str>,
    replica_token: Option<&'static str>,
    /// The master's token before its present one.
    former: Option<&'static str>,
    serving: Serving,
    promised: u64,
    cluster: Option<Uuid>,
    node_id: Uuid,
    window: usize,
    first: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            master_token: Some("secret"),
            replica_token: Some("secret"),
            former: None,
            serving: Serving::Master {
                cluster: CLUSTER,
                epoch: 1,
                history: history(&log(1, 1)),
            },
            promised: 1,
            cluster: Some(CLUSTER),
            node_id: REPLICA,
            window: 16 << 20,
            first: 1,
        }
    }
}

impl Setup {
    fn pair(self, master_log: Vec<Batch>, replica_log: Vec<Batch>) -> Pair {
        let config = MasterConfig {
            link: link(MASTER, self.master_token),
            former: self.former.and_then(Token::new),
            serving: self.serving,
            window: self.window,
        };
        let view = LogView {
            first_offset: self.first,
            end: end(&master_log),
            durable: 0,
            covered: 0,
        };
        let master = MasterSession::new(0, config, view);
        let config = ReplicaConfig {
            link: link(self.node_id, self.replica_token),
            cluster: self.cluster,
            promised: self.promised,
            name: "replica".to_owned(),
            advertised: None,
        };
        let offset = end(&replica_log).position.offset;
        let local = LocalLog {
            log: ReplicaLog {
                end: end(&replica_log),
                history: history(&replica_log),
                has_data: offset > 0,
                wants_snapshot: false,
            },
            durable: offset,
            applied: offset,
        };
        Pair {
            now: 0,
            master,
            replica: ReplicaSession::new(0, config, local),
            master_log,
            first: self.first,
            replica_log,
            chunks: Vec::new(),
            takes: true,
            wire: Default::default(),
            closed: None,
            sync: None,
            acked: Ack::default(),
            deposed: None,
            digests: Vec::new(),
        }
    }
}

fn over_the_wire(message: &Message, limit: usize) -> Message {
    let mut parts: Vec<Bytes> = Vec::new();
    message.encode(&mut parts);
    let mut buf: BytesMut = parts.iter().flat_map(|b| b.to_vec()).collect();
    Message::decode(frame::decode(&mut buf, limit).unwrap().unwrap()).unwrap()
}

impl Pair {
    fn run(mut self) -> Self {
        self.settle();
        self
    }

    fn settle(&mut self) {
        loop {
            if let Some(output) = self.replica.poll_output() {
                self.replica_output(output);
            } else if !self.replica.is_waiting()
                && let Some(message) = self.wire.pop_front()
            {
                let message = over_the_wire(&message, self.replica.frame_limit());
                let input = replica::Input::Message(message);
                self.replica.handle(self.now, input);
            } else if let Some(output) = self.master.poll_output() {
                self.master_output(output);
            } else {
                return;
            }
        }
    }

    fn at(&mut self, now: Millis) {
        self.at_with(now, None);
    }

    fn at_with(&mut self, now: Millis, digest: Option<(Position, u128)>) {
        self.now = now;
        let tick = master::Input::Tick {
            clock_ms: now,
            digest,
        };
        self.master.handle(now, tick);
        self.replica
            .handle(now, replica::Input::Tick { clock_ms: now });
        self.settle();
    }

    fn write(&mut self, log: Vec<Batch>) {
        self.master_log = log;
        let view = LogView {
            first_offset: self.first,
            end: end(&self.master_log),
            durable: 0,
            covered: 0,
        };
        self.master.handle(self.now, master::Input::Log(view));
        self.settle();
    }

    fn master_output(&mut self, output: master::Output) {
        use master::{Input, Output};
        let now = self.now;
        match output {
            Output::Send(message) => self.wire.push_back(message),
            Output::LookUpChain(at) => {
                let found = self.master_log.iter().find(|b| b.last_offset() == at);
                let chain = found.map(Batch::chain_after);
                self.master.handle(now, Input::Chain(chain));
            }
            Output::ReadLog { from, max_bytes } => {
                let mut len = 0;
                let more = |b: &&Batch| {
                    len += b.bytes().len();
                    len <= max_bytes || len == b.bytes().len()
                };
                let from = self.master_log.iter().filter(|b| b.first_offset() >= from);
                let batches = from.take_while(more).cloned().collect();
                self.master.handle(now, Input::Batches(batches));
            }
            Output::StartSnapshot => {
                let begin = SnapshotBegin {
                    id: Uuid::nil(),
                    start: end(&self.master_log),
                    history: history(&self.master_log),
                };
                self.chunks = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
                self.master.handle(now, Input::SnapshotStarted(begin));
            }
            Output::NextChunk if self.chunks.is_empty() => {
                let exact_from = end(&self.master_log).position.offset;
                self.master.handle(
                    now,
                    Input::SnapshotDone {
                        exact_from,
                        store_crc: 0,
                        digest: 7,
                    },
                );
            }
            Output::NextChunk => {
                let chunk = self.chunks.remove(0);
                self.master.handle(now, Input::Chunk(chunk));
            }
            Output::Joined { kind, ack, .. } => (self.sync, self.acked) = (Some(kind), ack),
            Output::Acked(ack) => self.acked = ack,
            Output::Synced => {}
            Output::Deposed(epoch) => self.deposed = Some(epoch),
            Output::Close(reason) => self.closed = self.closed.take().or(Some(("master", reason))),
        }
    }

    fn replica_output(&mut self, output: replica::Output) {
        use replica::{Input, Output};
        let now = self.now;
        match output {
            Output::Send(message) => {
                let message = over_the_wire(&message, self.master.frame_limit());
                self.master.handle(now, master::Input::Message(message));
            }
            Output::AcceptMaster { .. } => self.replica.handle(now, Input::Accepted),
            Output::Truncate(_) => self.replica.handle(now, Input::CannotTruncate),
            Output::Append(batches) => {
                self.replica_log.extend(batches);
                if self.takes {
                    self.progress(false);
                }
            }
            Output::SnapshotBegin(_) | Output::Joined { .. } | Output::Covered(_) => {}
            Output::CheckDigest { at, digest } => self.digests.push((at, digest)),
            Output::SnapshotChunk { index, .. } => {
                self.replica.handle(now, Input::ChunksTaken(index + 1));
            }
            Output::SnapshotEnd(_) => {
                self.replica_log = self.master_log.clone();
                if self.takes {
                    self.progress(false);
                }
            }
            Output::Close(reason) => self.closed = self.closed.take().or(Some(("replica", reason))),
        }
    }

    fn progress(&mut self, syncing: bool) {
        let applied = end(&self.replica_log).position;
        let progress = replica::Input::Progress {
            durable: applied.offset,
            applied,
            syncing,
        };
        self.replica
            .handle(self.now, replica::Input::Taken(applied.offset));
        self.replica.handle(self.now, progress);
    }

    fn refused(&self) -> &Closed {
        &self.closed.as_ref().expect("closed").1
    }

    /// Why the master refuses, whichever side noticed first.
    fn rejected(&self) -> Option<&Reject> {
        match self.refused() {
            Closed::Refused(reject) | Closed::Refusing(reject) => Some(reject),
            Closed::Timeout(_)
            | Closed::HandshakeTimeout(_)
            | Closed::Unauthenticated(_)
            | Closed::Protocol(_)
            | Closed::Mismatch(_)
            | Closed::Local(_) => None,
        }
    }
}

#[test]
fn a_replica_behind_in_the_log_gets_what_it_lacks_and_no_more() {
    let mut pair = Setup::default().pair(log(10, 10), log(4, 10)).run();
    assert_eq!(pair.sync, Some(SyncKind::Partial));
    assert_eq!(pair.replica_log, pair.master_log);
    pair.at(2);
    assert_eq!(pair.acked.applied, 10);
    pair.write(log(12, 10));
    pair.at(4);
    assert_eq!((pair.acked.applied, pair.closed), (12, None));
}

#[test]
fn an_empty_replica_of_a_log_that_begins_later_gets_a_snapshot_then_operations() {
    let setup = Setup {
        first: 5,
        cluster: None,
        promised: 0,
        ..Setup::default()
    };
    let mut pair = setup.pair(log(10, 10), Vec::new()).run();
    assert!(matches!(pair.sync, Some(SyncKind::Full(_))));
    pair.write(log(12, 10));
    pair.at(2);
    assert_eq!(pair.replica_log, pair.master_log);
    assert_eq!((pair.acked.applied, pair.acked.chunks), (12, 2));
}

#[test]
fn without_a_token_on_either_side_nodes_talk() {
    let setup = Setup {
        master_token: None,
        replica_token: None,
        ..Setup::default()
    };
    let pair = setup.pair(log(3, 1), Vec::new()).run();
    assert_eq!(pair.replica_log.len(), 3);
}

#[test]
fn a_token_on_one_side_only_or_another_one_is_refused_with_the_reason() {
    let cases = [
        (Some("secret"), None, "has none"),
        (None, Some("secret"), "has none"),
        (Some("secret"), Some("other"), "another one"),
    ];
    for (master_token, replica_token, reason) in cases {
        let setup = Setup {
            master_token,
            replica_token,
            ..Setup::default()
        };
        let pair = setup.pair(log(3, 1), Vec::new()).run();
        assert!(pair.replica_log.is_empty());
        let text = pair.refused().to_string();
        assert!(text.contains(reason), "{text}");
    }
}

#[test]
fn a_master_that_knows_another_token_is_not_believed() {
    let mut session = Setup::default().pair(Vec::new(), Vec::new()).replica;
    let challenge = Message::Challenge(crate::message::Challenge {
        version: 1,
        features: 0,
        has_token: true,
        nonce: [9; 32],
    });
    session.handle(0, replica::Input::Message(challenge));
    assert_eq!(session.frame_limit(), frame::MAX_BEFORE_AUTH);
    session.handle(0, replica::Input::Message(Message::Proof([0; 32])));
    let outputs: Vec<_> = std::iter::from_fn(|| session.poll_output()).collect();
    assert!(matches!(
        outputs.last(),
        Some(replica::Output::Close(Closed::Unauthenticated(_)))
    ));
}

#[test]
fn a_peer_that_has_not_proven_itself_gets_no_further_than_the_proof() {
    let mut session = Setup::default().pair(Vec::new(), Vec::new()).master;
    let beat = Message::Ack(Ack::default());
    session.handle(0, master::Input::Message(beat));
    let outputs: Vec<_> = std::iter::from_fn(|| session.poll_output()).collect();
    assert!(matches!(outputs.last(), Some(master::Output::Close(_))));
}

#[test]
fn whoever_is_not_master_says_so_and_whom_it_follows() {
    let setup = Setup {
        serving: Serving::NotMaster {
            address: Some("m:7001".to_owned()),
        },
        ..Setup::default()
    };
    let pair = setup.pair(Vec::new(), Vec::new()).run();
    let not_master = Reject::NotMaster(Some("m:7001".to_owned()));
    assert_eq!(pair.rejected(), Some(&not_master));
}

#[test]
fn another_cluster_and_a_copied_volume_are_refused() {
    let other = Setup {
        cluster: Some(Uuid::from_u128(2)),
        ..Setup::default()
    };
    let copied = Setup {
        node_id: MASTER,
        ..Setup::default()
    };
    for setup in [other, copied] {
        let pair = setup.pair(log(3, 1), Vec::new()).run();
        assert!(matches!(pair.rejected(), Some(Reject::WrongCluster(_))));
    }
}

#[test]
fn a_stranger_with_a_promise_or_data_and_no_cluster_is_refused_and_deposes_nobody() {
    for (promised, held) in [(9, 0), (0, 2), (9, 2)] {
        let setup = Setup {
            promised,
            cluster: None,
            ..Setup::default()
        };
        let pair = setup.pair(log(3, 1), log(held, 1)).run();
        assert!(matches!(pair.rejected(), Some(Reject::WrongCluster(_))));
        assert_eq!(pair.deposed, None);
    }
    let new = Setup {
        promised: 0,
        cluster: None,
        ..Setup::default()
    };
    assert_eq!(new.pair(log(3, 1), Vec::new()).run().replica_log.len(), 3);
}

#[test]
fn a_replica_that_promised_a_higher_epoch_deposes_the_master() {
    let setup = Setup {
        promised: 2,
        ..Setup::default()
    };
    let pair = setup.pair(log(3, 1), log(2, 1)).run();
    assert_eq!(pair.deposed, Some(2));
    assert_eq!(pair.replica_log.len(), 2);
}

#[test]
fn a_peer_that_has_proven_nothing_ends_no_mastership_whatever_it_says() {
    for promised in [2, u64::MAX] {
        let unproven = || Setup {
            master_token: None,
            replica_token: None,
            ..Setup::default()
        };
        let setup = Setup {
            promised,
            ..unproven()
        };
        let pair = setup.pair(log(3, 1), log(2, 1)).run();
        assert_eq!(pair.deposed, None);
        let Some(Reject::Unauthenticated(why)) = pair.rejected() else {
            panic!("{:?}", pair.closed)
        };
        assert!(why.contains("replication.token_file"), "{why}");

        // In the middle of a session, and by the end of its log.
        let mut pair = unproven().pair(log(3, 1), Vec::new()).run();
        let beat = Beat {
            clock_ms: 1,
            promised,
            ack: Ack::default(),
        };
        let beat = master::Input::Message(Message::Beat(beat));
        pair.master.handle(1, beat);
        pair.settle();
        assert_eq!(pair.deposed, None);
        assert!(pair.closed.is_some());
    }
    let setup = Setup {
        master_token: None,
        replica_token: None,
        ..Setup::default()
    };
    let ahead = vec![Batch::encode(9, 1, 1, 0, Chain::default(), &[1]).unwrap()];
    assert_eq!(setup.pair(log(3, 1), ahead).run().deposed, None);
}

#[test]
fn the_former_token_is_taken_for_proof_and_proves_the_master_to_who_has_no_other() {
    let rotated = |replica_token| Setup {
        master_token: Some("new"),
        former: Some("old"),
        replica_token: Some(replica_token),
        ..Setup::default()
    };
    for token in ["new", "old"] {
        let pair = rotated(token).pair(log(3, 1), Vec::new()).run();
        assert_eq!((pair.closed, pair.replica_log.len()), (None, 3), "{token}");
    }
    let pair = rotated("older").pair(log(3, 1), Vec::new()).run();
    assert!(matches!(pair.rejected(), Some(Reject::Unauthenticated(_))));
}

#[test]
fn what_is_under_way_to_a_stuck_replica_stays_within_the_window() {
    let setup = Setup {
        window: 10_000,
        ..Setup::default()
    };
    let mut pair = setup.pair(log(200, 1_000), Vec::new());
    pair.takes = false;
    let mut pair = pair.run();
    assert!(
        pair.master.in_flight() <= 10_000 + 1_100,
        "{}",
        pair.master.in_flight()
    );
    assert!(pair.replica_log.len() <= 11);
    // Once it takes something, it gets more.
    pair.takes = true;
    pair.at(1);
    pair.progress(false);
    pair.settle();
    for now in 2..60 {
        pair.at(now);
    }
    assert_eq!(pair.replica_log, pair.master_log);
    assert_eq!(pair.master.in_flight(), 0);
}

#[test]
fn heartbeats_keep_an_idle_session_alive_and_silence_ends_it() {
    let mut pair = Setup::default().pair(log(3, 1), Vec::new()).run();
    for second in 1..100 {
        pair.at(second * 1_000);
    }
    assert_eq!(pair.closed, None);
    // From now on the replica hears nothing.
    let late = 99_000 + 5_000;
    pair.replica
        .handle(late - 1, replica::Input::Tick { clock_ms: 0 });
    assert!(!matches!(
        pair.replica.poll_output(),
        Some(replica::Output::Close(_))
    ));
    while pair.replica.poll_output().is_some() {}
    pair.replica
        .handle(late, replica::Input::Tick { clock_ms: 0 });
    assert!(matches!(
        pair.replica.poll_output(),
        Some(replica::Output::Close(Closed::Timeout(5_000)))
    ));
}

#[test]
fn a_handshake_that_dribbles_is_ended_although_bytes_keep_coming() {
    let mut session = Setup::default().pair(Vec::new(), Vec::new()).master;
    for now in 0..4_999 {
        session.handle(now, master::Input::Bytes);
    }
    assert_eq!(session.wake_at(), 5_000);
    let tick = master::Input::Tick {
        clock_ms: 0,
        digest: None,
    };
    session.handle(5_000, tick);
    assert!(matches!(
        session.poll_output(),
        Some(master::Output::Close(Closed::HandshakeTimeout(_)))
    ));
}

#[test]
fn acknowledging_what_was_never_sent_is_the_end() {
    let mut pair = Setup::default().pair(log(3, 1), Vec::new()).run();
    let ack = Ack {
        chunks: 0,
        taken: 4,
        durable: 0,
        applied: 0,
    };
    pair.master
        .handle(1, master::Input::Message(Message::Ack(ack)));
    pair.settle();
    assert!(matches!(pair.rejected(), Some(Reject::Protocol(_))));
}

#[test]
fn operations_that_do_not_continue_the_log_are_not_taken() {
    let good = log(5, 1);
    let skipped = vec![good[4].clone()];
    let other_chain = vec![Batch::encode(1, 4, 1, 0, Chain(7), b"x").unwrap()];
    let chain = good[2].chain_after();
    let later_epoch = vec![Batch::encode(2, 4, 1, 0, chain, b"x").unwrap()];
    for bad in [skipped, other_chain, later_epoch] {
        let mut pair = Setup::default().pair(log(3, 1), Vec::new()).run();
        let batches = replica::Input::Message(Message::Batches(bad));
        pair.replica.handle(1, batches);
        pair.settle();
        assert!(matches!(pair.refused(), Closed::Mismatch(_)));
        assert_eq!(pair.replica_log.len(), 3);
    }
}

#[test]
fn nothing_is_acknowledged_before_the_driver_reports_it() {
    let mut pair = Setup::default().pair(log(3, 1), Vec::new());
    pair.takes = false;
    let mut pair = pair.run();
    pair.at(10);
    assert_eq!(pair.acked, Ack::default());
    let taken = replica::Input::Taken(3);
    pair.replica.handle(11, taken);
    pair.settle();
    assert_eq!((pair.acked.taken, pair.acked.durable), (3, 0));
}

#[test]
fn what_is_complete_is_acknowledged_within_the_same_millisecond_and_the_rest_coalesced() {
    let mut pair = Setup::default().pair(log(3, 1), Vec::new());
    pair.takes = false;
    let mut pair = pair.run();
    let mut report = |durable: u64| {
        pair.replica.handle(50, replica::Input::Taken(3));
        let applied = end(&log(3, 1)).position;
        pair.replica.handle(
            50,
            replica::Input::Progress {
                durable,
                applied,
                syncing: false,
            },
        );
        pair.settle();
        (pair.acked.taken, pair.acked.durable)
    };
    assert_eq!(report(0), (3, 0), "the first after a pause");
    assert_eq!(report(2), (3, 0), "in the same millisecond");
    assert_eq!(report(3), (3, 3), "nothing else comes by itself");
}

#[test]
fn while_a_snapshot_is_being_installed_old_data_is_not_acknowledged() {
    let setup = Setup {
        first: 5,
        ..Setup::default()
    };
    let mut pair = setup.pair(log(10, 1), log(2, 1));
    pair.takes = false;
    let mut pair = pair.run();
    assert!(matches!(pair.sync, Some(SyncKind::Full(_))));
    pair.progress(true);
    pair.at(10);
    assert_eq!(pair.acked.applied, 0, "the old data is still served");
    pair.progress(false);
    pair.at(20);
    assert_eq!(pair.acked.applied, 10, "installed");
}

#[test]
fn digests_are_compared_wherever_the_replica_stands_and_not_before_a_snapshot_is_installed() {
    let mut pair = Setup::default().pair(log(10, 1), log(2, 1)).run();
    // The master is ahead of what it has sent, level, and behind.
    let told = [12, 10, 7].map(|offset| (Position::new(1, offset), u128::from(offset)));
    for (second, digest) in (1..).zip(told) {
        pair.at_with(second * 1_000, Some(digest));
    }
    assert_eq!(pair.digests, told);

    let setup = Setup {
        first: 5,
        ..Setup::default()
    };
    let mut pair = setup.pair(log(10, 1), log(2, 1));
    pair.takes = false;
    let mut pair = pair.run();
    pair.at_with(1_000, Some(told[1]));
    assert_eq!(pair.digests, []);
    pair.progress(false);
    pair.at_with(2_000, Some(told[1]));
    assert_eq!(pair.digests, [told[1]]);
}
