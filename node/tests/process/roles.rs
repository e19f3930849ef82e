//! The commands that the operator gives, given by a test: switchover and failover without Kubernetes.

use vectorizer_api::client::Client;
use vectorizer_api::control::{Fence, Follow, Handover, Promote, State};

use super::harness::*;

const TOKEN: &str = "the-control-token";

/// The machine with a token that allows commands.
pub fn commandable(machine: Machine) -> Machine {
    let token = machine.file("control-token", TOKEN);
    machine.set(&format!("server.control_token_file={}", token.display()))
}

/// The machine with a token that it shares with its peers: without one, none of them can end its mastership.
pub fn trusting(machine: Machine) -> Machine {
    let token = machine.file("replication-token", "the-replication-token");
    machine.set(&format!("replication.token_file={}", token.display()))
}

/// A client that may give commands.
pub fn commander(node: &Node) -> Client {
    node.client.clone().with_token(TOKEN)
}

pub async fn state_of(node: &Node) -> State {
    commander(node).control_state().await.unwrap()
}

/// Moves mastership from one running node to another, which must be its replica.
pub async fn hand_over(old: &Node, new: &Node, new_machine: &Machine) {
    let (state, target) = (state_of(old).await, state_of(new).await);
    let (cluster, from_epoch) = (state.cluster.unwrap(), state.master_epoch);
    let epoch = from_epoch + 1;
    let handover = Handover {
        cluster,
        from_epoch,
        epoch,
        target: target.node_id,
        deadline_ms: 20_000,
    };
    let at = until("the handover", async || {
        commander(old).handover(&handover).await
    })
    .await
    .position;
    let promote = Promote { cluster, epoch, at };
    commander(new).promote(&promote).await.unwrap();
    follow(old, new, new_machine).await;
}

/// Makes `new` master without asking anybody, as after the death of the master: whatever it has is what there is.
pub async fn take_over(new: &Node) {
    let state = state_of(new).await;
    let cluster = state.cluster.unwrap();
    let epoch = state.promised_epoch + 1;
    let fence = Fence { cluster, epoch };
    let at = commander(new).fence(&fence).await.unwrap().position;
    let promote = Promote { cluster, epoch, at };
    commander(new).promote(&promote).await.unwrap();
}

/// Lets `node` follow `master`, which runs on `machine`.
pub async fn follow(node: &Node, master: &Node, machine: &Machine) {
    follow_through(node, master, machine, &machine.replication()).await;
}

/// The same, where `master` is reached at another address.
pub async fn follow_through(node: &Node, master: &Node, machine: &Machine, address: &str) {
    let state = state_of(master).await;
    let follow = Follow {
        cluster: state.cluster.unwrap(),
        epoch: state.master_epoch,
        master_address: address.to_owned(),
        master_url: machine.url(),
    };
    commander(node).follow(&follow).await.unwrap();
}

/// Tells a machine whose node does not run to be a replica from its next start on.
pub fn configure_replica(machine: &Machine, of: &Machine) {
    configure_following(machine, &of.replication());
}

/// The same, where the master is reached at another address.
pub fn configure_following(machine: &Machine, address: &str) {
    let follow = format!("replication:\n  role: replica\n  master_address: {address}\n");
    std::fs::write(machine.data_dir().join("replication.yaml"), follow).unwrap();
}
