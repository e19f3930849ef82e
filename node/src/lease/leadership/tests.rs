//! A master, and a former one, against an API server over TCP.

use axum::http::StatusCode;
use tempfile::TempDir;
use vectorizer_api::concern::Concern;
use vectorizer_api::lease::Holder;
use vectorizer_api::position::Position;
use vectorizer_replication::master::Peer;
use vectorizer_replication::message::Ack;

use super::super::api_server::{CLUSTER, Fault, Server};
use super::*;
use crate::data_dir::DataDir;
use crate::journal::JournalOptions;
use crate::replicas::Seat;
use crate::writer::{WriterOptions, start};

fn open(dir: &TempDir) -> WriterHandle {
    let (data, opened) = DataDir::open(dir.path(), JournalOptions::default()).unwrap();
    let (permit, options) = (Permit::unlimited(), WriterOptions::default());
    let start = start(data, opened, permit, Uuid::new_v4(), options).unwrap();
    start.handle
}

/// A node that was master of epoch 1 and has just been restarted, and its way to the Lease.
async fn restarted(dir: &TempDir, server: &Arc<Server>) -> (WriterHandle, KubernetesLease, Uuid) {
    let writer = open(dir);
    let (cluster, epoch) = (CLUSTER, 1);
    let initialize = Command::Initialize { cluster, epoch };
    writer.command(initialize).await.unwrap();
    writer.stop().await;
    let writer = open(dir);
    let (node_id, boot_id) = {
        let state = writer.state();
        let now = state.borrow();
        (now.node_id, now.boot_id)
    };
    let pod = "pod".to_owned();
    let identity = Holder {
        pod,
        node_id,
        boot_id,
    };
    let lease = KubernetesLease::over(server.serve().await, "ns", "lease", identity).unwrap();
    (writer, lease, node_id)
}

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_restarted_master_takes_the_next_epoch_of_a_lease_that_still_names_it() {
    let (dir, server) = (TempDir::new().unwrap(), Arc::new(Server::default()));
    let (writer, lease, node_id) = restarted(&dir, &server).await;
    let replicas = ReplicaTable::default();
    server.grant(1, node_id);
    let taken = tokio::time::timeout(DEADLINE, retake(&lease, &writer, &replicas)).await;
    taken.unwrap();
    assert_eq!(server.changes.load(Ordering::SeqCst), 1);
    assert_eq!(writer.state().borrow().master_epoch, 2);
}

#[tokio::test]
async fn a_node_that_was_fenced_does_not_take_the_epoch_that_is_granted_to_it_afterwards() {
    let (dir, server) = (TempDir::new().unwrap(), Arc::new(Server::default()));
    let (writer, lease, node_id) = restarted(&dir, &server).await;
    let replicas = ReplicaTable::default();
    // Somebody else's at first: this node asks again and again.
    server.grant(1, Uuid::from_u128(7));
    let asks = retake(&lease, &writer, &replicas);
    let plan = async {
        while server.reads.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // What an election does: fences all, then grants to this one, then promotes it.
        let (cluster, epoch) = (CLUSTER, 2);
        let fence = Command::Fence { cluster, epoch };
        writer.command(fence).await.unwrap();
        server.grant(epoch, node_id);
    };
    let both = async { tokio::join!(asks, plan) };
    let ended = tokio::time::timeout(DEADLINE, both).await;
    assert_eq!(server.changes.load(Ordering::SeqCst), 0);
    ended.expect("it goes on asking for a Lease that is not its to take");
    let epoch = 2;
    let at = writer.progress().borrow().end.position;
    let cluster = CLUSTER;
    let promote = Command::Promote { cluster, epoch, at };
    writer.command(promote).await.unwrap();
}

#[tokio::test]
async fn a_fence_while_the_lease_is_being_read_keeps_the_epoch_from_being_taken() {
    let (dir, server) = (TempDir::new().unwrap(), Arc::new(Server::default()));
    let (writer, lease, node_id) = restarted(&dir, &server).await;
    let replicas = ReplicaTable::default();
    server.grant(1, node_id);
    let closed = server.gate.lock().await;
    let asks = retake(&lease, &writer, &replicas);
    let plan = async {
        while server.reads.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (cluster, epoch) = (CLUSTER, 2);
        let fence = Command::Fence { cluster, epoch };
        writer.command(fence).await.unwrap();
        server.grant(epoch, node_id);
        drop(closed);
    };
    let both = async { tokio::join!(asks, plan) };
    tokio::time::timeout(DEADLINE, both).await.unwrap();
    assert_eq!(server.changes.load(Ordering::SeqCst), 0);
    assert_eq!(writer.state().borrow().master_epoch, 0);
}

/// A master of epoch 1 that the Lease names, and its way to the Lease.
async fn granted(dir: &TempDir, server: &Arc<Server>) -> (WriterHandle, Leadership, Uuid) {
    granted_with(dir, server, |_| Concern::default()).await
}

/// The same with these members on record.
async fn granted_with(
    dir: &TempDir,
    server: &Arc<Server>,
    concern: impl FnOnce(Uuid) -> Concern,
) -> (WriterHandle, Leadership, Uuid) {
    let writer = open(dir);
    let (node_id, boot_id) = {
        let state = writer.state();
        let now = state.borrow();
        (now.node_id, now.boot_id)
    };
    let concern = concern(node_id);
    let pod = "pod".to_owned();
    let identity = Holder {
        pod,
        node_id,
        boot_id,
    };
    server.grant_to(1, identity.clone(), concern);
    let (cluster, epoch) = (CLUSTER, 1);
    let initialize = Command::Initialize { cluster, epoch };
    writer.command(initialize).await.unwrap();
    let lease = KubernetesLease::over(server.serve().await, "ns", "lease", identity).unwrap();
    (writer, Leadership::Kubernetes(Arc::new(lease)), node_id)
}

#[tokio::test]
async fn no_command_renews_the_lease_of_a_master_whose_writer_is_stuck() {
    let (dir, server) = (TempDir::new().unwrap(), Arc::new(Server::default()));
    let (writer, leadership, node_id) = granted(&dir, &server).await;
    let replicas = ReplicaTable::default();
    let moves = AtomicU64::new(boot_time_ms());
    let confirmed = leadership.confirm(1, &writer, &replicas, &moves).await;
    confirmed.unwrap();
    replicas.set_granted(1, node_id, Concern::default());
    let before = server.changes.load(Ordering::SeqCst);
    let nothing = Concern::default();
    let stuck = AtomicU64::new(boot_time_ms().saturating_sub(STUCK_AFTER_MS));
    let wish = Concern {
        members: [node_id].into(),
        acks: 0,
    };
    for _ in 0..2 {
        let refused = leadership
            .change_members(1, (&nothing, &wish), &writer, &replicas, &stuck, DEADLINE)
            .await
            .unwrap_err();
        assert_eq!(refused.error_type, ErrorCode::Unavailable, "{refused}");
    }
    let refused = leadership.confirm(1, &writer, &replicas, &stuck).await;
    assert_eq!(refused.unwrap_err().error_type, ErrorCode::Unavailable);
    assert_eq!(server.changes.load(Ordering::SeqCst), before);
    leadership
        .change_members(1, (&nothing, &wish), &writer, &replicas, &moves, DEADLINE)
        .await
        .unwrap();
    assert!(server.changes.load(Ordering::SeqCst) > before);
}

#[tokio::test]
async fn a_node_that_is_not_in_sync_is_not_recorded_as_a_member() {
    let (dir, server) = (TempDir::new().unwrap(), Arc::new(Server::default()));
    let (writer, leadership, node_id) = granted(&dir, &server).await;
    let replicas = ReplicaTable::default();
    let moves = AtomicU64::new(boot_time_ms());
    let (nothing, other) = (Concern::default(), Uuid::from_u128(9));
    replicas.set_granted(1, node_id, nothing.clone());
    let wish = Concern {
        members: [node_id, other].into(),
        acks: 1,
    };
    let change = async || {
        leadership
            .change_members(1, (&nothing, &wish), &writer, &replicas, &moves, DEADLINE)
            .await
    };
    let refused = change().await.unwrap_err();
    assert_eq!(refused.error_type, ErrorCode::Conflict, "{refused}");
    assert!(refused.message.contains("not in sync"), "{refused}");

    let peer = Peer {
        node_id: other,
        boot_id: Uuid::nil(),
        name: "r".to_owned(),
        advertised: None,
    };
    let end = writer.progress().borrow().end.position.offset;
    let ack = Ack {
        durable: end,
        applied: end,
        ..Ack::default()
    };
    replicas.enter(1, 1);
    let seat = replicas.join((1, 1), peer, "h:1".to_owned(), true, ack);
    let refused = change().await.unwrap_err();
    assert!(refused.message.contains("not in sync"), "{refused}");
    seat.synced();
    change().await.unwrap();
    assert_eq!(server.on_record().0, wish);
}

#[tokio::test]
async fn what_was_answered_at_k_is_on_record_once_k_is_lowered_to_0_and_stays_there() {
    let (dir, server) = (TempDir::new().unwrap(), Arc::new(Server::default()));
    let other = Uuid::from_u128(9);
    let members = |own| Concern {
        members: [own, other].into(),
        acks: 1,
    };
    let (writer, leadership, node_id) = granted_with(&dir, &server, members).await;
    let replicas = ReplicaTable::default();
    let moves = AtomicU64::new(boot_time_ms());
    let concern = |acks| Concern {
        acks,
        ..members(node_id)
    };
    let change = async |known: &Concern, wish: &Concern| {
        leadership
            .change_members(1, (known, wish), &writer, &replicas, &moves, DEADLINE)
            .await
    };
    replicas.set_granted(1, node_id, concern(1));
    let on_record = || {
        let (concern, secured) = server.on_record();
        (concern.acks, secured)
    };
    assert_eq!(on_record(), (1, Position::ZERO));
    let answered = Position::new(1, 42);
    replicas.step(1, |m| m.answer(answered)).unwrap();
    change(&concern(1), &concern(0)).await.unwrap();
    assert_eq!(on_record(), (0, answered));
    // Nothing that a later change says takes it back.
    replicas.set_granted(1, node_id, concern(0));
    let alone = Concern {
        members: [node_id].into(),
        acks: 0,
    };
    change(&concern(0), &alone).await.unwrap();
    assert_eq!(on_record(), (0, answered));
    // A command from before, that comes late.
    let refused = change(&concern(1), &concern(0)).await.unwrap_err();
    assert!(
        refused.to_string().contains("something else is on record"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_holds_no_lease_for_a_writer_that_has_stopped() {
    let (dir, server) = (TempDir::new().unwrap(), Arc::new(Server::default()));
    let (writer, leadership, _) = granted(&dir, &server).await;
    let pulse = Arc::new(AtomicU64::new(u64::MAX));
    let runs = leadership.run(writer.clone(), ReplicaTable::default(), pulse, false);
    let task = tokio::spawn(runs);
    while server.changes.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    writer.stop().await;
    tokio::time::timeout(DEADLINE, task)
        .await
        .expect("it goes on")
        .unwrap();
}

/// A master with two replicas, both members, each of whose writes waits for one of them.
struct Three {
    server: Arc<Server>,
    writer: WriterHandle,
    leadership: Leadership,
    replicas: ReplicaTable,
    moves: AtomicU64,
    seats: [Seat; 2],
    all: Concern,
    /// Without the second replica.
    fewer: Concern,
    _dir: TempDir,
}

const FIRST: Uuid = Uuid::from_u128(8);
const SECOND: Uuid = Uuid::from_u128(9);

impl Three {
    async fn new() -> Self {
        let (dir, server) = (TempDir::new().unwrap(), Arc::new(Server::default()));
        let members = |own| Concern {
            members: [own, FIRST, SECOND].into(),
            acks: 1,
        };
        let (writer, leadership, node_id) = granted_with(&dir, &server, members).await;
        let replicas = ReplicaTable::default();
        replicas.set_granted(1, node_id, members(node_id));
        replicas.enter(1, 1);
        let seats = [FIRST, SECOND].map(|id| {
            let peer = Peer {
                node_id: id,
                boot_id: Uuid::nil(),
                name: "r".to_owned(),
                advertised: None,
            };
            let ack = Ack::default();
            replicas.join((1, 1), peer, "h:1".to_owned(), false, ack)
        });
        Three {
            server,
            writer,
            leadership,
            replicas,
            moves: AtomicU64::new(boot_time_ms()),
            seats,
            all: members(node_id),
            fewer: Concern {
                members: [node_id, FIRST].into(),
                acks: 1,
            },
            _dir: dir,
        }
    }

    /// The replica has everything on its disk.
    fn catch_up(&self, seat: usize) {
        self.seats[seat].acked(Ack {
            durable: self.end(),
            ..Ack::default()
        });
    }

    fn end(&self) -> u64 {
        self.writer.progress().borrow().end.position.offset
    }

    async fn remove(&self, deadline: Duration) -> Result<(), ApiError> {
        let change = (&self.all, &self.fewer);
        self.leadership
            .change_members(
                1,
                change,
                &self.writer,
                &self.replicas,
                &self.moves,
                deadline,
            )
            .await
    }

    /// What is in use asks for what both records ask for: the one before, and the one that may have been made.
    fn holds_for_either(&self) {
        let membership = self.replicas.membership().unwrap();
        assert!(membership.settled().is_none(), "the operator asks again");
        assert!(
            membership.counts(FIRST) && !membership.counts(SECOND),
            "what only the removed replica has is answered: {membership:?}"
        );
    }
}

#[tokio::test]
async fn a_removal_is_covered_by_those_who_stay_whatever_a_handover_that_failed_had_settled() {
    let three = Three::new().await;
    // A handover to the second replica: it holds everything, the first nothing.
    three.catch_up(1);
    let end = three.end();
    let soon = || Instant::now() + Duration::from_millis(200);
    three.replicas.settle(1, end, soon()).await;
    let waits = |offset| three.replicas.acknowledged(1, offset, 0);
    assert_eq!(waits(end).await, Ok(()), "the handover had to settle that");
    // Whether it fails before the removal, or it is still under way.
    for fails in [false, true] {
        if fails {
            three.replicas.unsettle();
        }
        let refused = three.remove(Duration::from_millis(200)).await.unwrap_err();
        assert!(
            refused.message.contains("members are as before"),
            "{refused}"
        );
        assert_eq!(three.server.on_record().0, three.all);
        three.replicas.settle(1, end, soon()).await;
    }
    three.catch_up(0);
    three.remove(DEADLINE).await.unwrap();
    assert_eq!(three.server.on_record().0, three.fewer);
}

#[tokio::test]
async fn a_record_that_may_have_been_made_leaves_in_use_what_holds_for_either() {
    for (fault, made) in [
        (Fault::DoneAndAnswered(StatusCode::GATEWAY_TIMEOUT), true),
        (Fault::Refused(StatusCode::GATEWAY_TIMEOUT), false),
        (Fault::SentTwice, true),
        (Fault::Refused(StatusCode::CONFLICT), false),
    ] {
        let three = Three::new().await;
        three.catch_up(0);
        // The first change confirms the epoch, the second is the record.
        *three.server.faults.lock() = [None, Some(fault)].into();
        let refused = three.remove(DEADLINE).await.unwrap_err();
        assert_eq!(refused.error_type, ErrorCode::Unavailable, "{refused}");
        assert_eq!(three.server.on_record().0 == three.fewer, made, "{fault:?}");
        three.holds_for_either();
        // The operator asks again.
        three.remove(DEADLINE).await.unwrap();
        assert_eq!(three.server.on_record().0, three.fewer, "{fault:?}");
        let membership = three.replicas.membership().unwrap();
        assert_eq!(membership.settled(), Some(&three.fewer), "{fault:?}");
    }
}

#[tokio::test]
async fn no_change_of_the_lease_is_sent_twice_by_this_process() {
    for code in [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ] {
        for fault in [Fault::DoneAndAnswered(code), Fault::Refused(code)] {
            let (dir, server) = (TempDir::new().unwrap(), Arc::new(Server::default()));
            let (writer, lease, node_id) = restarted(&dir, &server).await;
            server.grant(1, node_id);
            let fails = || server.faults.lock().push_back(Some(fault));
            fails();
            let retaken = lease.retake(CLUSTER, 1, || true).await;
            assert!(matches!(retaken, Err(LeaseError::Api(_))), "{retaken:?}");
            let taken = lease.retake(CLUSTER, 1, || true).await.unwrap().unwrap();
            fails();
            assert!(lease.confirm(taken.epoch).await.is_err());
            fails();
            let concern = Concern::default();
            let recorded = lease.record(taken.epoch, &concern, Position::ZERO).await;
            assert!(matches!(recorded, Err(LeaseError::Api(_))), "{recorded:?}");
            assert_eq!(server.asked.load(Ordering::SeqCst), 4, "{fault:?}");
            writer.stop().await;
        }
    }
}
