//! Whole nodes in one process, over real sockets on loopback.

mod changes;
mod covered;
mod digests;
mod stuck;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use bytes::BytesMut;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use vectorizer_api::control::Handover;
use vectorizer_api::replication::{ReplicaStatus, Role};
use vectorizer_replication::command::{Command, Refusal};
use vectorizer_replication::frame;
use vectorizer_replication::message::Message;
use vectorizer_replication::position::Position;
use vectorizer_replication::replica::{Input, LocalLog, Output, ReplicaConfig, ReplicaSession};

use super::*;
use crate::config::Credential;
use crate::data_dir::DataDir;
use crate::journal::JournalOptions;
use crate::permit::Permit;
use crate::store::{CollectionConfig, Metric, Numbers, Op, Record};
use crate::writer::{Puts, SinkError, WriteRequest, WriterOptions, start};

const CLUSTER: Uuid = Uuid::from_u128(0xc1);
/// No wait takes longer, even on a busy machine, unless it would take for ever.
const DEADLINE: Duration = Duration::from_secs(60);

struct Node {
    context: LinkContext,
    address: SocketAddr,
    listener: JoinHandle,
    follower: JoinHandle,
}

type JoinHandle = tokio::task::JoinHandle<()>;

/// A token in a file; it stays valid when that is gone.
fn credential(secret: &str) -> Option<Credential> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, secret).unwrap();
    Some(Credential::open(&path).unwrap())
}

fn options() -> LinkOptions {
    LinkOptions {
        name: "node".to_owned(),
        token: credential("secret"),
        heartbeat: Duration::from_millis(100),
        timeout: Duration::from_secs(4),
        reconnect: Duration::from_millis(200),
        ..LinkOptions::default()
    }
}

impl Node {
    async fn start(dir: &Path, port: u16, options: LinkOptions) -> Node {
        Node::start_with(dir, port, options, JournalOptions::default()).await
    }

    async fn start_with(
        dir: &Path,
        port: u16,
        options: LinkOptions,
        journal: JournalOptions,
    ) -> Node {
        let (data, opened) = DataDir::open(dir, journal).unwrap();
        let store = opened.store.clone();
        let (permit, boot) = (Permit::unlimited(), Uuid::new_v4());
        let writer = start(data, opened, permit, boot, WriterOptions::default()).unwrap();
        let context = LinkContext::new(writer.handle, store, options);
        let bind = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = TcpListener::bind(bind).await.unwrap();
        Node {
            address: listener.local_addr().unwrap(),
            listener: spawn_master_listener(context.clone(), listener),
            follower: spawn_replica(context.clone()),
            context,
        }
    }

    async fn master(dir: &Path) -> Node {
        Node::master_with(dir, options()).await
    }

    async fn master_with(dir: &Path, options: LinkOptions) -> Node {
        let node = Node::start(dir, 0, options).await;
        node.initialize().await;
        node
    }

    async fn initialize(&self) {
        let initialize = Command::Initialize {
            cluster: CLUSTER,
            epoch: 1,
        };
        self.context.writer.command(initialize).await.unwrap();
        let name = "c".to_owned();
        let config = CollectionConfig::new(2, Metric::Cosine);
        let create = WriteRequest::CreateCollection { name, config };
        self.context.writer.write(create).await.unwrap();
    }

    async fn replica(dir: &Path, master: &Node) -> Node {
        let node = Node::start(dir, 0, options()).await;
        node.follow(1, master).await;
        node
    }

    async fn follow(&self, epoch: u64, master: &Node) {
        let follow = Command::Follow {
            cluster: CLUSTER,
            epoch,
            master_address: master.address.to_string(),
            master_url: None,
        };
        self.context.writer.command(follow).await.unwrap();
    }

    async fn put(&self, ids: std::ops::Range<u32>) {
        let collection = self.context.store.collection("c").unwrap();
        let ids: Vec<_> = ids.map(|id| (id as f32, id.to_string())).collect();
        let mut puts = Puts::new(&collection, 0);
        for (number, id) in &ids {
            let payload = json!({ "n": number }).to_string();
            let vector = Numbers::Floats(&[*number, 1.0]);
            puts.push(id, vector, payload.as_bytes()).unwrap();
        }
        let write = WriteRequest::Puts(puts.finish());
        self.context.writer.write(write).await.unwrap();
    }

    fn end(&self) -> Position {
        self.context.writer.progress().borrow().end.position
    }

    fn id(&self) -> Uuid {
        self.context.writer.state().borrow().node_id
    }

    fn syncs(&self) -> (u64, u64) {
        let stats = &self.context.stats;
        (
            stats.partial_syncs.load(Relaxed),
            stats.full_syncs.load(Relaxed),
        )
    }

    /// Ends the process, as far as that is possible here: the disk stays as it is.
    async fn stop(self) -> SocketAddr {
        self.listener.abort();
        self.follower.abort();
        // Aborted tasks let go of their sockets when they next would run.
        let _ = (self.listener.await, self.follower.await);
        self.context.writer.stop().await;
        self.address
    }
}

/// Waits for what has to become true soon.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = tokio::time::Instant::now() + DEADLINE;
    while !holds() {
        assert!(tokio::time::Instant::now() < limit, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_same(replica: &Node, master: &Node) {
    let applied = |node: &Node| node.context.store.digest();
    let same = || applied(replica) == applied(master) && replica.end() == master.end();
    until("the replica holds what the master does", same).await;
}

#[tokio::test]
async fn a_replica_catches_up_follows_and_is_listed_with_its_lag() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let master = Node::master(a.path()).await;
    master.put(0..500).await;
    let replica = Node::replica(b.path(), &master).await;
    until_same(&replica, &master).await;
    for n in 0..50 {
        master.put(n..n + 20).await;
    }
    until_same(&replica, &master).await;
    let end = master.end().offset;
    let listed = || master.context.table.list().pop().unwrap();
    until("everything is acknowledged", || {
        listed().durable_offset == end
    })
    .await;
    let view = listed();
    assert_eq!(
        (view.id, view.status),
        (replica.id(), ReplicaStatus::Connected)
    );
    assert_eq!((view.lag_ms, view.lag_operations, view.offset), (0, 0, end));
    assert_eq!(master.context.table.durable_of(replica.id()), Some(end));
    assert_eq!((master.syncs(), replica.syncs()), ((1, 0), (1, 0)));
    assert!(replica.context.stats.is_connected());
}

#[tokio::test]
async fn restarts_of_replica_and_master_cost_a_partial_sync_each_and_no_full_one() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let master = Node::master(a.path()).await;
    let replica = Node::replica(b.path(), &master).await;
    until_same(&replica, &master).await;
    let was = replica.stop().await;
    master.put(0..100).await;
    let replica = Node::start(b.path(), was.port(), options()).await;
    until_same(&replica, &master).await;
    assert_eq!(master.syncs(), (2, 0));

    let was = master.stop().await;
    let master = Node::start(a.path(), was.port(), options()).await;
    let retake = Command::Retake { epoch: 2 };
    master.context.writer.command(retake).await.unwrap();
    master.put(100..200).await;
    until_same(&replica, &master).await;
    assert_eq!((master.syncs(), replica.syncs()), ((1, 0), (2, 0)));
}

/// The same log, applied with some numbers wrong.
fn spoil(replica: &Node) {
    let wrong = Store::new();
    for batch in replica.context.writer.log().read(1, usize::MAX).unwrap() {
        let mut records = Record::decode_batch(&batch).unwrap();
        if let Some(Record::Put { vector, .. }) = records.first_mut() {
            vector[0] += 0.5;
        }
        let ops: Vec<Op> = records.iter().map(Op::from).collect();
        wrong.apply_ops(&batch, &ops).unwrap();
    }
    replica.context.store.replace_with(wrong);
}

#[tokio::test]
async fn a_copy_that_differs_at_the_same_position_is_found_and_replaced_under_writes() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let master = Node::master(a.path()).await;
    for n in 0..20 {
        master.put(n * 100..n * 100 + 100).await;
    }
    let replica = Node::replica(b.path(), &master).await;
    until_same(&replica, &master).await;
    spoil(&replica);
    let mut n = 0;
    let mut state = replica.context.writer.state();
    let unlike = state.wait_for(|s| s.unlike().is_some());
    let found = tokio::time::timeout(DEADLINE, unlike).await;
    assert!(found.expect("no mismatch is found").unwrap().has_data);
    assert_eq!(replica.context.stats.digest_mismatches.load(Relaxed), 1);
    while replica.syncs().1 == 0 {
        n += 1;
        master.put(n..n + 1).await;
        assert!(n < 2_000, "no full sync");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    master.put(5_000..5_100).await;
    until_same(&replica, &master).await;
    let stats = &replica.context.stats;
    assert_eq!(
        (replica.syncs().1, stats.digest_mismatches.load(Relaxed)),
        (1, 1)
    );
    assert!(stats.snapshot_size.load(Relaxed) > 0);
    until("it is read again", || state.borrow().fault.is_none()).await;
    master.put(6_000..6_001).await;
    until_same(&replica, &master).await;
}

#[tokio::test]
async fn a_switchover_copies_nothing_and_the_former_master_follows() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let first = Node::master(a.path()).await;
    let second = Node::replica(b.path(), &first).await;
    first.put(0..100).await;
    until_same(&second, &first).await;
    let listed = || first.context.table.durable_of(second.id()).is_some();
    until("the replica is in sync", listed).await;
    let handover = Handover {
        cluster: CLUSTER,
        from_epoch: 1,
        epoch: 2,
        target: second.id(),
        deadline_ms: 5_000,
    };
    let table = first.context.table.clone();
    first
        .context
        .writer
        .handover(handover, table)
        .await
        .unwrap();
    let promote = Command::Promote {
        cluster: CLUSTER,
        epoch: 2,
        at: first.end(),
    };
    second.context.writer.command(promote).await.unwrap();
    first.follow(2, &second).await;
    second.put(100..200).await;
    until_same(&first, &second).await;
    assert_eq!((first.syncs().1, second.syncs()), (0, (2, 0)));
    until("the old list is empty", || {
        first.context.table.list().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_former_master_gives_up_what_nobody_else_has_and_keeps_it_aside() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let first = Node::master(a.path()).await;
    first.put(0..100).await;
    let second = Node::replica(b.path(), &first).await;
    until_same(&second, &first).await;
    // The link is gone, the master is not: these two writes are its own.
    second.follower.abort();
    first.put(100..150).await;
    first.put(150..200).await;
    let promote = Command::Promote {
        cluster: CLUSTER,
        epoch: 2,
        at: second.end(),
    };
    second.context.writer.command(promote).await.unwrap();
    second.put(200..300).await;
    first.follow(2, &second).await;
    until_same(&first, &second).await;
    assert_eq!(first.syncs().1, 0, "undone from what is on its own disk");
    let aside = std::fs::read_dir(a.path().join("rollback")).unwrap();
    assert_eq!(aside.count(), 1);
    let ids = first.context.store.collection("c").unwrap();
    assert!(ids.contains("99") && !ids.contains("150") && ids.contains("250"));
}

#[tokio::test]
async fn a_replica_that_was_fenced_deposes_the_master_with_its_greeting() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let master = Node::master(a.path()).await;
    let replica = Node::replica(b.path(), &master).await;
    until_same(&replica, &master).await;
    let (cluster, epoch) = (CLUSTER, 5);
    let fence = Command::Fence { cluster, epoch };
    replica.context.writer.command(fence).await.unwrap();
    let state = master.context.writer.state();
    until("the master gives up", || {
        state.borrow().role == Role::Unassigned
    })
    .await;
    assert_eq!(state.borrow().promised, 5);
}

#[tokio::test]
async fn without_a_token_no_peer_ends_a_mastership_and_no_master_takes_all_epochs() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let open = || LinkOptions {
        token: None,
        ..options()
    };
    let master = Node::master_with(a.path(), open()).await;
    master.put(0..10).await;
    let replica = Node::start(b.path(), 0, open()).await;
    replica.follow(1, &master).await;
    until_same(&replica, &master).await;
    // The last epoch there is, promised by a replica that has proven nothing.
    let (cluster, epoch) = (CLUSTER, u64::MAX);
    let fence = Command::Fence { cluster, epoch };
    replica.context.writer.command(fence).await.unwrap();
    until("the replica to be refused", || {
        let trouble = replica.context.stats.trouble();
        trouble.is_some_and(|why| why.contains("replication.token_file"))
    })
    .await;
    let now = master.context.writer.state().borrow().clone();
    assert_eq!(
        (now.role, now.master_epoch, now.promised),
        (Role::Master, 1, 1)
    );
    master.put(10..20).await;

    // Nor does a replica promise what whoever answers at its master's address makes up.
    let other = TempDir::new().unwrap();
    let other = Node::start(other.path(), 0, open()).await;
    other.follow(1, &master).await;
    until_same(&other, &master).await;
    let seen = other.context.writer.accept_master(u64::MAX, CLUSTER).await;
    assert!(matches!(
        seen,
        Err(SinkError::Refused(Refusal::TooFar { .. }))
    ));
    assert_eq!(other.context.writer.state().borrow().promised, 1);
}

#[tokio::test]
async fn another_token_is_not_let_in_and_nothing_is_sent() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let master = Node::master(a.path()).await;
    let other = LinkOptions {
        token: credential("other"),
        ..options()
    };
    let replica = Node::start(b.path(), 0, other).await;
    replica.follow(1, &master).await;
    let tried = || replica.context.stats.connects.load(Relaxed) >= 3;
    until("it tries", tried).await;
    assert_eq!(
        (replica.end(), master.context.table.list().len()),
        (Position::ZERO, 0)
    );
}

async fn closes(stream: &mut TcpStream) -> bool {
    let mut sink = vec![0; 4096];
    let end = async {
        while let Ok(count) = stream.read(&mut sink).await {
            if count == 0 {
                break;
            }
        }
    };
    tokio::time::timeout(DEADLINE, end).await.is_ok()
}

#[tokio::test]
async fn strangers_are_cut_off_whatever_they_send_or_do_not_send() {
    let dir = TempDir::new().unwrap();
    let master = Node::master(dir.path()).await;
    let connect = || TcpStream::connect(master.address);

    let mut nonsense = connect().await.unwrap();
    nonsense
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(closes(&mut nonsense).await);

    // A sound header that promises more than a stranger may send.
    let huge = frame::encode_small(frame::Kind::Hello, &vec![0; frame::MAX_BEFORE_AUTH + 1]);
    let mut oversized = connect().await.unwrap();
    oversized
        .write_all(&huge[..frame::HEADER_LEN])
        .await
        .unwrap();
    assert!(closes(&mut oversized).await);

    let mut silent = connect().await.unwrap();
    let mut dribbling = connect().await.unwrap();
    let greeting = frame::encode_small(frame::Kind::Greet, &[0; 45]);
    // It takes many times as long for its greeting as a whole handshake may take.
    let dribble = async {
        for byte in greeting.iter() {
            if dribbling.write_all(&[*byte]).await.is_err() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        false
    };
    let (cut_off, silent) = tokio::join!(dribble, closes(&mut silent));
    assert!(silent);
    assert!(cut_off, "it was let finish");
    assert!(closes(&mut dribbling).await);
    assert_eq!(master.context.table.list().len(), 0);
    // The port still serves those that belong there.
    let other = TempDir::new().unwrap();
    let replica = Node::replica(other.path(), &master).await;
    until_same(&replica, &master).await;
}

#[tokio::test]
async fn a_replica_that_never_acknowledges_gets_one_window_and_stops_nobody() {
    let dir = TempDir::new().unwrap();
    let window = 256 * 1024;
    let options = LinkOptions {
        window,
        timeout: Duration::from_secs(60),
        ..options()
    };
    let master = Node::master_with(dir.path(), options).await;
    let config = ReplicaConfig {
        link: LinkConfig {
            node_id: Uuid::new_v4(),
            boot_id: Uuid::new_v4(),
            token: Token::new("secret"),
            nonce: nonce(),
            heartbeat: 60_000,
            timeout: 60_000,
        },
        cluster: None,
        promised: 0,
        name: "greedy".to_owned(),
        advertised: None,
    };
    let mut session = ReplicaSession::new(0, config, LocalLog::default());
    let mut stream = TcpStream::connect(master.address).await.unwrap();
    let mut inbox = BytesMut::new();
    let mut taken = 0;
    let greedy = async {
        loop {
            while let Some(output) = session.poll_output() {
                match output {
                    Output::Send(message) => {
                        let mut parts: Vec<bytes::Bytes> = Vec::new();
                        message.encode(&mut parts);
                        stream.write_all(&parts.concat()).await.unwrap();
                    }
                    Output::AcceptMaster { .. } => session.handle(0, Input::Accepted),
                    // It reads everything and says nothing about it.
                    Output::Append(batches) => {
                        taken += batches.iter().map(|b| b.bytes().len()).sum::<usize>();
                    }
                    Output::Joined { .. } | Output::CheckDigest { .. } => {}
                    Output::Truncate(_)
                    | Output::SnapshotBegin(_)
                    | Output::SnapshotChunk { .. }
                    | Output::SnapshotEnd(_)
                    | Output::Covered(_)
                    | Output::Close(_) => panic!("only operations were asked for"),
                }
            }
            if let Some(frame) = frame::decode(&mut inbox, session.frame_limit()).unwrap() {
                session.handle(0, Input::Message(Message::decode(frame).unwrap()));
            } else if stream.read_buf(&mut inbox).await.unwrap() == 0 {
                return;
            }
        }
    };
    let writing = async {
        for n in 0..60 {
            master.put(n * 1_000..n * 1_000 + 1_000).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    tokio::select! {
        () = greedy => panic!("the connection ended"),
        () = writing => {}
    }
    let written = master.context.writer.log().appended_bytes() as usize;
    assert!(written > 4 * window, "{written} bytes were written");
    assert!(taken > 0 && taken < 2 * window, "{taken} bytes were sent");
    assert_eq!(master.context.table.list()[0].offset, 0);
}
