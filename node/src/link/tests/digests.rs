//! Digests are compared under writes as well: where the master's heartbeat says, not where both happen to be.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::net::TcpListener;
use vectorizer_replication::batch::Batch;
use vectorizer_replication::master::{self, LogView, MasterConfig, MasterSession, Serving};
use vectorizer_replication::position::LogEnd;

use super::*;

/// A master whose heartbeat says what the digest is at a position that it has not sent yet; then it sends everything at
/// once. Serves one connection.
async fn heartbeat_then_everything(
    listener: TcpListener,
    serving: Serving,
    log: Vec<Batch>,
    said: (Position, u128),
) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let config = MasterConfig {
        former: None,
        link: LinkConfig {
            node_id: Uuid::new_v4(),
            boot_id: Uuid::new_v4(),
            token: Token::new("secret"),
            nonce: nonce(),
            heartbeat: 1,
            timeout: 60_000,
        },
        serving,
        window: 1 << 20,
    };
    let view = |end: Option<&Batch>| LogView {
        first_offset: 1,
        end: end.map_or(LogEnd::default(), |last| LogEnd {
            position: last.end(),
            chain: last.chain_after(),
        }),
        durable: 0,
        covered: 0,
    };
    // Long enough after the beginning for a heartbeat to be due.
    let later = 20;
    let mut session = MasterSession::new(0, config, view(None));
    let mut inbox = BytesMut::new();
    loop {
        while let Some(output) = session.poll_output() {
            match output {
                master::Output::Send(message) => {
                    let mut parts: Vec<bytes::Bytes> = Vec::new();
                    message.encode(&mut parts);
                    stream.write_all(&parts.concat()).await.unwrap();
                }
                master::Output::Joined { .. } => {
                    let (clock_ms, digest) = (0, Some(said));
                    session.handle(later, master::Input::Tick { clock_ms, digest });
                    session.handle(later, master::Input::Log(view(log.last())));
                }
                master::Output::ReadLog { .. } => {
                    session.handle(later, master::Input::Batches(log.clone()));
                }
                master::Output::Acked(_) | master::Output::Synced => {}
                master::Output::Close(_) => return,
                master::Output::LookUpChain(_)
                | master::Output::StartSnapshot
                | master::Output::NextChunk
                | master::Output::Deposed(_) => panic!("only operations are sent"),
            }
        }
        if let Some(frame) = frame::decode(&mut inbox, session.frame_limit()).unwrap() {
            session.handle(0, master::Input::Message(Message::decode(frame).unwrap()));
        } else if stream.read_buf(&mut inbox).await.unwrap() == 0 {
            return;
        }
    }
}

/// A replica of such a master, that has applied everything, and how many differences it found.
async fn told([a, b]: &[TempDir; 2], truth: bool) -> (Node, u64) {
    let model = Node::master(a.path()).await;
    for n in 0..10 {
        model.put(n..n + 1).await;
    }
    let log = model.context.writer.log().read(1, usize::MAX).unwrap();
    let there = Store::new();
    for batch in &log[..log.len() / 2] {
        there.apply_batch(batch).unwrap();
    }
    let (at, digest) = there.digest();
    let said = (at, if truth { digest.0 } else { !digest.0 });
    let serving = Serving::Master {
        cluster: CLUSTER,
        epoch: 1,
        history: model.context.writer.state().borrow().history.clone(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let master_address = listener.local_addr().unwrap().to_string();
    let served = tokio::spawn(heartbeat_then_everything(listener, serving, log, said));
    let replica = Node::start(b.path(), 0, options()).await;
    let follow = Command::Follow {
        cluster: CLUSTER,
        epoch: 1,
        master_address,
        master_url: None,
    };
    replica.context.writer.command(follow).await.unwrap();
    let end = model.end();
    until("everything is applied", || replica.end() == end).await;
    // What is found ends the session, which without heartbeats ends by itself as well.
    until("the session is over", || served.is_finished()).await;
    let found = replica.context.stats.digest_mismatches.load(Relaxed);
    (replica, found)
}

#[tokio::test]
async fn a_digest_at_a_position_that_is_passed_in_one_go_is_compared() {
    let [lied, honest] = [(); 2].map(|()| [(); 2].map(|()| TempDir::new().unwrap()));
    let (replica, found) = told(&lied, false).await;
    assert_eq!(found, 1);
    let state = replica.context.writer.state();
    until("it is not read", || state.borrow().unlike().is_some()).await;
    let (replica, found) = told(&honest, true).await;
    assert_eq!(
        (found, replica.context.writer.state().borrow().unlike()),
        (0, None)
    );
}

#[tokio::test]
async fn a_copy_that_differs_is_found_while_writes_go_on_without_pause() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let master = Arc::new(Node::master(a.path()).await);
    master.put(0..1_000).await;
    let replica = Node::replica(b.path(), &master).await;
    until_same(&replica, &master).await;
    replica.follower.abort();
    spoil(&replica);
    let over = Arc::new(AtomicBool::new(false));
    let write = |writer: u32| {
        let (master, over) = (master.clone(), over.clone());
        async move {
            // Others than those that are wrong.
            let mut n = writer * 10_000_000;
            while !over.load(Relaxed) {
                master.put(n..n + 10).await;
                n += 10;
            }
        }
    };
    let writers: Vec<_> = (1..=8).map(|n| tokio::spawn(write(n))).collect();
    let began = master.end().offset;
    until("writes go on", || master.end().offset > began + 1_000).await;
    let _follower = spawn_replica(replica.context.clone());
    let state = replica.context.writer.state();
    until("the difference is found", || {
        state.borrow().unlike().is_some()
    })
    .await;
    assert!(writers.iter().all(|writer| !writer.is_finished()));
    assert_eq!(replica.context.stats.digest_mismatches.load(Relaxed), 1);
    over.store(true, Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
}
