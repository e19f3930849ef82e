//! The commands of a plan, in the words of the plan: no client, no choice left.

use uuid::Uuid;
use vectorizer_api::concern::Concern;
use vectorizer_api::lease::Grant;
use vectorizer_api::position::Position;

use super::Memory;
use crate::world::Set;

/// One command.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// Write the memory into status, over the very version that the plan was made from.
    Record(Box<Memory>),
    /// Tell the user.
    Tell(Note),
    /// Change the Lease.
    SetLease {
        /// What it must be now.
        expect: Expect,
        /// What it becomes.
        grant: Grant,
    },
    /// Make the first master of a new cluster.
    Initialize {
        /// Which node.
        to: Peer,
        /// Its epoch.
        epoch: u64,
    },
    /// Accept nothing below an epoch any more.
    Fence {
        /// Which node.
        to: Peer,
        /// The epoch.
        epoch: u64,
    },
    /// Stop writing once the target has everything. Its answer is the position for [`At::HandedOver`].
    Handover {
        /// The master.
        to: Peer,
        /// The epoch that ends.
        from_epoch: u64,
        /// The one that follows.
        epoch: u64,
        /// Node id of the successor.
        target: Uuid,
        /// For how long writes may be held, in ms.
        deadline_ms: u64,
    },
    /// Become the master.
    Promote {
        /// Which node.
        to: Peer,
        /// The epoch granted.
        epoch: u64,
        /// Where its log must end.
        at: At,
    },
    /// Follow the master.
    Follow {
        /// Which node.
        to: Peer,
        /// The master's epoch.
        epoch: u64,
        /// The master's replication address.
        master_address: String,
        /// The master's REST address.
        master_url: String,
    },
    /// Change who belongs to the cluster, and how many replicas must hold a write.
    Members {
        /// The master.
        to: Peer,
        /// Its epoch.
        epoch: u64,
        /// What is wanted.
        concern: Concern,
        /// What is on record.
        recorded: Concern,
        /// How long it may take, in ms.
        deadline_ms: u64,
    },
    /// Label a pod.
    Label {
        /// Its name.
        pod: String,
        /// Its uid: another pod of that name is left alone.
        uid: String,
        /// The role.
        role: Option<&'static str>,
        /// Whether reads are sent there.
        read_eligible: Option<bool>,
    },
    /// Make a claim larger.
    GrowClaim {
        /// Its name.
        claim: String,
        /// The size.
        size: String,
    },
    /// Delete a claim that nothing is bound to, so that it comes back from the present template.
    DeleteClaim {
        /// Its name.
        claim: String,
        /// Its uid.
        uid: String,
        /// Its resourceVersion: one that something was bound to since is left alone.
        version: String,
    },
    /// Give a pod the labels back that it is found by.
    Relabel {
        /// Its name.
        pod: String,
        /// Its uid.
        uid: String,
        /// Its set.
        set: Set,
    },
    /// Make the Lease the cluster's own, which carries its labels and has no owner. What it says stays.
    AdoptLease,
    /// Delete a StatefulSet, and leave its pods where they are.
    Orphan {
        /// Its name.
        set: String,
        /// Its uid.
        uid: String,
    },
    /// Delete a pod, so that it comes back with the present template.
    Replace {
        /// Its name.
        pod: String,
        /// Its uid.
        uid: String,
    },
}

/// What the Lease must be before it is changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Not there.
    Missing,
    /// Of this content, whatever its version: a renewal in between does not matter. What it is to become counts too.
    Content(Grant),
    /// At this very version: a renewal in between ends the plan.
    Version(String),
}

/// Where a log must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// There.
    Exactly(Position),
    /// Where the handover of the same plan ended.
    HandedOver,
}

/// A node to be commanded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its pod.
    pub pod: String,
    /// Its REST address.
    pub url: String,
    /// The cluster that every command names.
    pub cluster: Uuid,
}

/// An event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// Whether somebody should look.
    pub warning: bool,
    /// Why, in one word.
    pub reason: &'static str,
    /// What happened, in a sentence.
    pub message: String,
}
