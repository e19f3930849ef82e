//! Full syncs that do not come to their end.

use super::*;
use crate::link::sink::{Done, Job, Sink};

#[tokio::test]
async fn a_session_that_is_fenced_inside_a_full_sync_comes_to_its_end() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let master = Node::master(a.path()).await;
    master.put(0..10).await;
    let replica = Node::start(b.path(), 0, options()).await;
    // It follows in name only: the session is this test's.
    replica.follower.abort();
    replica.follow(1, &master).await;
    let mut sink = Sink::new(replica.context.writer.clone());
    let mut scan = master.context.store.scan();
    let header = scan.header().clone();
    let start = header.start.position.offset;
    let (cluster, epoch) = (CLUSTER, 1);
    sink.push(Job::Accept { cluster, epoch });
    sink.push(Job::SnapshotBegin(Box::new(header)));
    let (index, bytes) = (0, scan.next().unwrap());
    sink.push(Job::SnapshotChunk { index, bytes });
    // What is written meanwhile goes into the snapshot's own log.
    master.put(10..20).await;
    let batches = master.context.writer.log().read(start + 1, usize::MAX);
    sink.push(Job::Append(batches.unwrap()));
    loop {
        match sink.next().await.unwrap() {
            Done::Appended(offset) => break assert_eq!(offset, master.end().offset),
            Done::Accepted(_) | Done::SnapshotBegun | Done::ChunkTaken(_) => {}
            Done::Truncated(_) | Done::SnapshotEnded | Done::Noted => panic!("never asked for"),
        }
    }
    let (cluster, epoch) = (CLUSTER, 2);
    let fence = Command::Fence { cluster, epoch };
    replica.context.writer.command(fence).await.unwrap();
    let finished = tokio::time::timeout(DEADLINE, sink.finish()).await;
    finished.expect("it waits for what will never be published");
    assert_eq!(replica.end(), Position::ZERO, "the full sync was given up");
}

/// A replica that takes nothing, and goes on saying that it lives, holds the log only for a while.
#[tokio::test]
async fn a_replica_that_stands_still_inside_a_full_sync_does_not_hold_the_log_for_ever() {
    let dir = TempDir::new().unwrap();
    let journal = JournalOptions {
        segment_bytes: 4_096,
        log_size: 16,
        ..JournalOptions::default()
    };
    let options = LinkOptions {
        timeout: Duration::from_secs(2),
        heartbeat: Duration::from_millis(200),
        ..options()
    };
    let master = Node::start_with(dir.path(), 0, options, journal).await;
    master.initialize().await;
    // A checkpoint stands for the log, so that only a pin can hold it.
    let mut written = 0;
    let log = master.context.writer.log();
    until_async("the log begins later", async || {
        master.put(written..written + 50).await;
        written += 50;
        log.first_offset() > 1
    })
    .await;

    let mut peer = Peer::connect(&master).await;
    peer.until_chunk().await;
    let held = log.end().position.offset;
    let beats = async {
        loop {
            peer.beat().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let writes = until_async("the log goes on without the replica", async || {
        master.put(written..written + 50).await;
        written += 50;
        log.first_offset() > held + 1
    });
    tokio::select! {
        () = beats => {}
        () = writes => {}
    }
    assert!(
        master.context.table.list()[0].connected,
        "it was let go of, not cut off"
    );
}

/// The same with an asynchronous condition.
async fn until_async(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let limit = tokio::time::Instant::now() + DEADLINE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < limit, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The protocol's part of a replica, without a writer behind it.
struct Peer {
    session: ReplicaSession,
    stream: TcpStream,
    inbox: BytesMut,
    /// Its clock, which each heartbeat moves on.
    now: u64,
}

impl Peer {
    async fn connect(master: &Node) -> Peer {
        let config = ReplicaConfig {
            link: LinkConfig {
                node_id: Uuid::new_v4(),
                boot_id: Uuid::new_v4(),
                token: Token::new("secret"),
                nonce: nonce(),
                heartbeat: 1,
                timeout: 600_000,
            },
            cluster: None,
            promised: 0,
            name: "stuck".to_owned(),
            advertised: None,
        };
        Peer {
            session: ReplicaSession::new(0, config, LocalLog::default()),
            stream: TcpStream::connect(master.address).await.unwrap(),
            inbox: BytesMut::new(),
            now: 0,
        }
    }

    /// Sends what the session wants to send; whether a chunk of a snapshot came out of it.
    async fn carry_out(&mut self) -> bool {
        let mut chunk = false;
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Send(message) => {
                    let mut parts: Vec<bytes::Bytes> = Vec::new();
                    message.encode(&mut parts);
                    self.stream.write_all(&parts.concat()).await.unwrap();
                }
                Output::AcceptMaster { .. } => self.session.handle(0, Input::Accepted),
                Output::SnapshotChunk { .. } => chunk = true,
                Output::Joined { full } => assert!(full),
                Output::SnapshotBegin(_)
                | Output::SnapshotEnd(_)
                | Output::Append(_)
                | Output::Covered(_)
                | Output::CheckDigest { .. } => {}
                Output::Truncate(_) | Output::Close(_) => {
                    panic!("not expected here: {output:?}")
                }
            }
        }
        chunk
    }

    async fn until_chunk(&mut self) {
        while !self.carry_out().await {
            match frame::decode(&mut self.inbox, self.session.frame_limit()).unwrap() {
                Some(frame) => {
                    let message = Message::decode(frame).unwrap();
                    self.session.handle(0, Input::Message(message));
                }
                None => {
                    let read = self.stream.read_buf(&mut self.inbox).await.unwrap();
                    assert!(read > 0, "cut off");
                }
            }
        }
    }

    async fn beat(&mut self) {
        self.now += 10;
        self.session.handle(self.now, Input::Bytes);
        let tick = Input::Tick { clock_ms: 0 };
        self.session.handle(self.now, tick);
        self.carry_out().await;
    }
}
