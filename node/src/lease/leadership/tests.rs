//! A former master against an API server in memory.

use std::convert::Infallible;

use axum::http::{Method, Request, Response};
use k8s_openapi::api::coordination::v1::Lease;
use kube::client::Body;
use parking_lot::Mutex;
use tempfile::TempDir;
use vectorizer_api::concern::Concern;
use vectorizer_api::lease::{ACKS, Grant, Holder, MEMBERS};
use vectorizer_api::position::Position;
use vectorizer_replication::master::Peer;
use vectorizer_replication::message::Ack;

use super::*;
use crate::data_dir::DataDir;
use crate::journal::JournalOptions;
use crate::writer::{WriterOptions, start};

const CLUSTER: Uuid = Uuid::from_u128(0xc1);

/// One Lease, and how often it was read and changed.
#[derive(Default)]
struct Server {
    lease: Mutex<Lease>,
    reads: AtomicU64,
    changes: AtomicU64,
    /// Whoever holds this keeps readings from being answered.
    gate: tokio::sync::Mutex<()>,
}

impl Server {
    fn client(self: &Arc<Self>) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                if request.method() == Method::PUT {
                    let body = request.into_body().collect_bytes().await.unwrap();
                    *server.lease.lock() = serde_json::from_slice(&body).unwrap();
                    server.changes.fetch_add(1, Ordering::SeqCst);
                } else {
                    server.reads.fetch_add(1, Ordering::SeqCst);
                    drop(server.gate.lock().await);
                }
                let lease = serde_json::to_vec(&*server.lease.lock()).unwrap();
                Ok::<_, Infallible>(Response::new(Body::from(lease)))
            }
        });
        kube::Client::new(service, "default")
    }

    fn grant(&self, epoch: u64, node_id: Uuid) {
        let (pod, boot_id) = ("pod".to_owned(), Uuid::from_u128(1));
        self.grant_to(
            epoch,
            Holder {
                pod,
                node_id,
                boot_id,
            },
        );
    }

    fn grant_to(&self, epoch: u64, holder: Holder) {
        let grant = Grant {
            cluster: CLUSTER,
            epoch,
            holder: Some(holder),
            concern: Concern::default(),
            secured: Position::ZERO,
        };
        let mut lease = self.lease.lock();
        lease.metadata.annotations = Some(grant.annotations());
        lease.spec.get_or_insert_default().holder_identity = Some(grant.holder_identity());
    }
}

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
    let lease = KubernetesLease::new(server.client(), "ns", "lease", identity);
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
    server.grant_to(1, identity.clone());
    let (cluster, epoch) = (CLUSTER, 1);
    let initialize = Command::Initialize { cluster, epoch };
    writer.command(initialize).await.unwrap();
    let lease = KubernetesLease::new(server.client(), "ns", "lease", identity);
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
    replicas.set_granted(node_id, Concern::default());
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
    replicas.set_granted(node_id, nothing.clone());
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
    let lease = server.lease.lock();
    let annotations = lease.metadata.annotations.clone().unwrap();
    assert_eq!(Grant::parse(None, &annotations).unwrap().concern, wish);
}

#[tokio::test]
async fn what_was_answered_at_k_is_on_record_once_k_is_lowered_to_0_and_stays_there() {
    let (dir, server) = (TempDir::new().unwrap(), Arc::new(Server::default()));
    let (writer, leadership, node_id) = granted(&dir, &server).await;
    let replicas = ReplicaTable::default();
    let moves = AtomicU64::new(boot_time_ms());
    let concern = |acks| Concern {
        members: [node_id, Uuid::from_u128(9)].into(),
        acks,
    };
    let change = async |known: &Concern, wish: &Concern| {
        leadership
            .change_members(1, (known, wish), &writer, &replicas, &moves, DEADLINE)
            .await
    };
    replicas.set_granted(node_id, concern(1));
    let on_record = || {
        let lease = server.lease.lock();
        let annotations = lease.metadata.annotations.clone().unwrap();
        let grant = Grant::parse(None, &annotations).unwrap();
        (grant.concern.acks, grant.secured)
    };
    {
        let mut lease = server.lease.lock();
        let mut grant = Grant::parse(None, lease.metadata.annotations.as_ref().unwrap()).unwrap();
        grant.concern = concern(1);
        let annotations = lease.metadata.annotations.as_mut().unwrap();
        annotations.insert(ACKS.to_owned(), grant.annotations()[ACKS].clone());
        annotations.insert(MEMBERS.to_owned(), grant.annotations()[MEMBERS].clone());
    }
    assert_eq!(on_record(), (1, Position::ZERO));
    let answered = Position::new(1, 42);
    replicas.with_membership(|m| m.answer(answered)).unwrap();
    change(&concern(1), &concern(0)).await.unwrap();
    assert_eq!(on_record(), (0, answered));
    // Nothing that a later change says takes it back.
    replicas.set_granted(node_id, concern(0));
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
