//! A cluster in memory: nodes that decide as real ones do (the same pure function), a Lease, pods, objects, a clock.
//! Plans are made of it and carried out on it, whole or up to some step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use uuid::Uuid;
use vectorizer_api::concern::{Change, Concern, Membership};
use vectorizer_api::control::State;
use vectorizer_api::lease::Grant;
use vectorizer_api::position::{Chain, EpochStart, History, Position};
use vectorizer_api::replication::{Replica, ReplicaStatus, Role};
use vectorizer_replication::command::{Command, Effect, HandedOver, RoleFacts, Standing, decide};

use crate::crd::{Amount, ClusterStatus, Promote, PromoteMode, TargetStep, VectorizerClusterSpec};
use crate::names;
use crate::plan::{At, Expect, Memory, Plan, Step, plan};
use crate::world::{
    ClaimSeen, Cluster, Kind, LeaseSeen, Member, ObjectRef, PodSeen, Probe, Refusal, SecretSeen,
    Secrets, Set, SetSeen, Stamp, Trouble, World, parse_pod,
};

mod controllers;
mod life;
mod passes;
mod seen;

/// Milliseconds that pass between two passes.
const PASS_MS: u64 = 250;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) facts: RoleFacts,
    /// The epochs of its log.
    pub(crate) history: History,
    pub(crate) boot: Uuid,
    pub(crate) pod: PodSeen,
    /// Whether it runs and answers.
    pub(crate) alive: bool,
    /// Whether its replication is held up.
    pub(crate) stalled: bool,
    /// Whether the operator cannot reach it, although it runs.
    pub(crate) hidden: bool,
    /// Whether it answers questions and no commands, as its disk hangs.
    pub(crate) hangs: bool,
    /// The commands that it always refuses.
    pub(crate) refuses: Vec<&'static str>,
    /// Whether, as master, it goes by what is on record.
    pub(crate) settled: bool,
    /// Whether it knows no token of the operator's.
    pub(crate) estranged: bool,
    /// Why it says that its master does not feed it.
    pub(crate) cut_off: Option<String>,
    /// What of its data was found to be unlike its master's.
    pub(crate) unlike: Option<String>,
    /// That its disk, or its memory, is too full for writes that grow.
    pub(crate) disk_full: Option<String>,
    pub(crate) memory_full: Option<String>,
    /// Until when its last renewal permits it to acknowledge writes, in ms.
    permit_until: u64,
    pub(crate) lag_ms: u64,
    /// Since when it follows whom it follows, in ms.
    follows_since: u64,
}

/// The cluster and its surroundings.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) cluster: Cluster,
    pub(crate) status: ClusterStatus,
    pub(crate) nodes: BTreeMap<(Set, u32), Node>,
    /// Volumes outlive pods.
    volumes: BTreeMap<(Set, u32), (RoleFacts, History)>,
    pub(crate) lease: Option<(u64, Grant, u64)>,
    /// What masters know of members, also when somebody deleted the Lease.
    concern: Concern,
    objects: BTreeMap<ObjectRef, (String, Stamp)>,
    pub(crate) taken: BTreeSet<ObjectRef>,
    pub(crate) claims: BTreeMap<String, ClaimSeen>,
    pub(crate) sets: [Option<SetSeen>; 2],
    pub(crate) secrets: Secrets,
    now_ms: u64,
    serial: u128,
    /// The last offset that a master acknowledged.
    pub(crate) acknowledged: u64,
    /// Whether clients write.
    pub(crate) writes: bool,
    pub(crate) told: Vec<&'static str>,
    /// Nodes that answered a promotion, in order.
    pub(crate) promotions: Vec<String>,
    /// Every version of the status that was written.
    pub(crate) versions: Vec<ClusterStatus>,
    /// After how long a master has heard of a node that follows it, in ms.
    pub(crate) heard_after: u64,
    /// Whether the API server refuses to label pods.
    pub(crate) labels_refused: bool,
    /// What the API server refused when it was asked last.
    pub(crate) refusals: BTreeMap<String, Refusal>,
    /// Why pods could not be made: no more are, then.
    pub(crate) refuses_pods: Option<Trouble>,
    /// Whether the Lease is the cluster's own.
    pub(crate) lease_owned: bool,
}

/// A claim of that size with its volume.
pub(crate) fn bound(size: &str) -> ClaimSeen {
    ClaimSeen {
        uid: "u".into(),
        version: "1".into(),
        requested: Amount::from(size),
        class: None,
        blank: true,
        bound: true,
        deleting: false,
        trouble: None,
    }
}

pub(crate) fn spec(replicas: u32) -> VectorizerClusterSpec {
    let mut spec: VectorizerClusterSpec = serde_json::from_str("{}").unwrap();
    spec.replicas = replicas;
    spec
}

impl Model {
    /// A cluster that was just applied.
    pub(crate) fn new(replicas: u32) -> Self {
        Model {
            cluster: Cluster {
                name: "demo".into(),
                namespace: "default".into(),
                uid: Uuid::from_u128(0xc1),
                generation: 1,
                created: None,
                version: "1".into(),
                spec: spec(replicas),
                promote_target: None,
                doubt: None,
                claim_bytes: Amount::from("10Gi").value().unwrap(),
            },
            status: ClusterStatus::default(),
            nodes: BTreeMap::new(),
            volumes: BTreeMap::new(),
            lease: None,
            concern: Concern::default(),
            objects: BTreeMap::new(),
            taken: BTreeSet::new(),
            claims: BTreeMap::new(),
            sets: [None, None],
            secrets: Secrets::default(),
            now_ms: 1_000_000_000,
            serial: 0x1000,
            acknowledged: 0,
            writes: true,
            told: Vec::new(),
            promotions: Vec::new(),
            versions: Vec::new(),
            heard_after: 0,
            labels_refused: false,
            refusals: BTreeMap::new(),
            refuses_pods: None,
            lease_owned: true,
        }
    }

    /// A cluster that has started: a master and `nodes - 1` replicas.
    pub(crate) fn healthy(nodes: u32) -> Self {
        let mut model = Model::new(nodes - 1);
        model.settle();
        assert_eq!(model.master().as_deref(), Some("demo-master-0"));
        model.told.clear();
        model.promotions.clear();
        model.versions.clear();
        model
    }

    fn fresh(&mut self) -> Uuid {
        self.serial += 1;
        Uuid::from_u128(self.serial)
    }

    pub(crate) fn node(&mut self, pod: &str) -> &mut Node {
        let place = parse_pod("demo", pod).unwrap();
        self.nodes.get_mut(&place).unwrap()
    }

    /// The node that writes and holds the Lease, if there is one. Two that may acknowledge are a failure of the test.
    pub(crate) fn master(&self) -> Option<String> {
        let writing: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.alive && n.facts.writing)
            .collect();
        let permitted = writing
            .iter()
            .filter(|(_, n)| n.permit_until > self.now_ms)
            .count();
        assert!(permitted <= 1, "two may acknowledge: {writing:#?}");
        let ((set, ordinal), _) = writing.iter().find(|(_, n)| self.holds_lease(n))?;
        Some(self.cluster.pod(*set, *ordinal))
    }

    fn holds_lease(&self, node: &Node) -> bool {
        let Standing::Master { epoch } = node.facts.standing else {
            return false;
        };
        let grant = self.lease.as_ref().map(|(_, grant, _)| grant);
        let holder = grant.and_then(|g| Some((g.epoch, g.holder.as_ref()?)));
        holder.is_some_and(|(e, h)| e == epoch && h.boot_id == node.boot)
    }

    pub(crate) fn ask(&mut self, request: &str, mode: PromoteMode, target: Option<&str>) {
        self.cluster.promote_target = target.and_then(|pod| parse_pod("demo", pod));
        self.cluster.spec.promote = Some(Promote {
            target: target.map(str::to_owned),
            request_id: request.to_owned(),
            mode,
            deadline_seconds: 30,
            max_lag_operations: None,
        });
        self.cluster.generation += 1;
    }

    /// What the API server does with the command that a message says to type.
    pub(crate) fn type_command(&mut self, message: &str) {
        let (_, command) = message
            .split_once("kubectl patch vc demo -n default --type=json -p '")
            .unwrap_or_else(|| panic!("nothing to type: {message}"));
        let patch = command.split('\'').next().unwrap();
        let [operation]: [serde_json::Value; 1] = serde_json::from_str(patch).unwrap();
        assert_eq!(operation["op"], "add");
        assert_eq!(operation["path"], "/spec/promote");
        let asked: Promote = serde_json::from_value(operation["value"].clone()).unwrap();
        let before = self.cluster.spec.promote.as_ref();
        assert_ne!(before.map(|p| &p.request_id), Some(&asked.request_id));
        self.cluster.promote_target = asked.target.as_ref().and_then(|t| parse_pod("demo", t));
        self.cluster.spec.promote = Some(asked);
        self.cluster.generation += 1;
    }

    /// The message of a condition.
    pub(crate) fn message(&self, of: &str) -> String {
        let found = self.status.conditions.iter().find(|c| c.type_ == of);
        found.map(|c| c.message.clone()).unwrap_or_default()
    }

    /// Everything that must be true of a cluster that has come to rest with somebody writing.
    pub(crate) fn assert_sound(&mut self) {
        let master = self.master().expect("somebody writes");
        let status = self.status.clone();
        assert_eq!(
            status.master.as_ref().map(|m| m.pod.clone()),
            Some(master.clone())
        );
        assert_eq!(status.target, None);
        for ((set, ordinal), node) in self.nodes.clone() {
            let pod = self.cluster.pod(set, ordinal);
            let role = if pod == master { "master" } else { "replica" };
            if node.alive {
                assert_eq!(node.pod.role.as_deref(), Some(role), "{pod}");
            }
            if node.alive && pod != master && !node.stalled {
                assert_eq!(
                    node.facts.end.epoch,
                    self.node(&master).facts.end.epoch,
                    "{pod} does not follow"
                );
            }
        }
        let again = self.plan();
        assert!(
            again.changes_nothing(),
            "a settled cluster is changed: {:#?}",
            again.steps
        );
        assert!(
            !crate::report::is_news(&self.status, &again.status, Some(Duration::ZERO)),
            "a settled cluster is written to"
        );
    }

    pub(crate) fn condition(&self, of: &str) -> (String, String) {
        let found = self.status.conditions.iter().find(|c| c.type_ == of);
        found
            .map(|c| (c.status.clone(), c.reason.clone()))
            .unwrap_or_default()
    }
}

pub(crate) fn empty(node_id: Uuid) -> RoleFacts {
    RoleFacts {
        node_id,
        cluster: None,
        promised: 0,
        standing: Standing::Unassigned,
        writing: false,
        end: Position::ZERO,
        has_data: false,
        handed_over: None,
    }
}
