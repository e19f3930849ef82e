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
    ClaimSeen, Cluster, Kind, LeaseSeen, Member, ObjectRef, PodSeen, Probe, SecretSeen, Secrets,
    Set, SetSeen, Stamp, World, parse_pod,
};

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
    /// What of its data was found to be unlike its master's.
    pub(crate) unlike: Option<String>,
    /// Until when its last renewal permits it to acknowledge writes, in ms.
    permit_until: u64,
    pub(crate) lag_ms: u64,
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
        }
    }

    /// A cluster that has started: a master and `nodes - 1` replicas.
    pub(crate) fn healthy(nodes: u32) -> Self {
        let mut model = Model::new(nodes - 1);
        model.settle();
        assert_eq!(model.master().as_deref(), Some("demo-master-0"));
        model.told.clear();
        model.promotions.clear();
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

    // What happens to it.

    pub(crate) fn kill(&mut self, pod: &str) {
        let node = self.node(pod);
        node.alive = false;
        node.facts.writing = false;
        node.pod.ready = false;
    }

    /// A new process on the same volume. A master takes the next epoch by itself while the Lease names its node.
    pub(crate) fn revive(&mut self, pod: &str) {
        let boot = self.fresh();
        let ip = format!("10.0.{}.{}", self.serial / 256 % 256, self.serial % 256);
        let node = self.node(pod);
        node.alive = true;
        node.boot = boot;
        node.permit_until = 0;
        node.facts.writing = false;
        node.pod.ip = Some(ip);
        node.pod.ready = true;
        self.retake(pod);
    }

    fn retake(&mut self, pod: &str) {
        let node = self.node(pod).clone();
        let Some((version, grant, _)) = self.lease.clone() else {
            return;
        };
        let ours = grant
            .holder
            .as_ref()
            .is_some_and(|h| h.node_id == node.facts.node_id);
        if !ours || grant.epoch < node.facts.promised || Some(grant.cluster) != node.facts.cluster {
            return;
        }
        let epoch = grant.epoch + 1;
        let hidden = std::mem::take(&mut self.node(pod).hidden);
        let taken = self.command(pod, &Command::Retake { epoch }).is_ok();
        self.node(pod).hidden = hidden;
        if taken {
            let mut next = grant;
            next.epoch = epoch;
            next.holder = next.holder.map(|h| vectorizer_api::lease::Holder {
                boot_id: node.boot,
                ..h
            });
            self.lease = Some((version + 1, next, self.now_ms));
        }
    }

    /// The pod was deleted and made anew on the same volume.
    pub(crate) fn delete_pod(&mut self, pod: &str) {
        let uid = self.fresh().to_string();
        let revision = self.revision(parse_pod("demo", pod).unwrap().0);
        let node = self.node(pod);
        node.pod = PodSeen {
            uid,
            revision,
            ..node.pod.clone()
        };
        node.pod.role = None;
        node.pod.read_eligible = false;
        self.revive(pod);
    }

    /// The volume is gone; the pod comes back empty.
    pub(crate) fn lose_volume(&mut self, pod: &str) {
        let id = self.fresh();
        self.node(pod).facts = empty(id);
        self.node(pod).history = History::default();
        self.delete_pod(pod);
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

    // Time.

    /// Lets time pass: clients write, replication runs, the master renews every two seconds.
    pub(crate) fn pass_time(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let now = left.min(2_000);
            left -= now;
            self.now_ms += now;
            self.renew();
            self.write();
        }
    }

    fn renew(&mut self) {
        let stopped = |n: &Node| {
            n.alive && !n.facts.writing && matches!(n.facts.standing, Standing::Master { .. })
        };
        let stopped: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, n)| stopped(n))
            .map(|(p, _)| *p)
            .collect();
        for (set, ordinal) in stopped {
            let pod = self.cluster.pod(set, ordinal);
            self.retake(&pod);
        }
        let now = self.now_ms;
        let holds: Vec<_> = self
            .nodes
            .iter()
            .map(|(place, n)| (*place, self.holds_lease(n)))
            .collect();
        let Some((version, _, changed)) = &mut self.lease else {
            return;
        };
        for (place, holds) in holds {
            let Some(node) = self
                .nodes
                .get_mut(&place)
                .filter(|n| n.alive && n.facts.writing)
            else {
                continue;
            };
            if !holds {
                // It reads that the Lease says something else.
                node.permit_until = 0;
                node.facts.writing = false;
            } else if now - *changed >= 2_000 || node.permit_until == 0 {
                *version += 1;
                *changed = now;
                node.permit_until = now + 10_000;
            }
        }
    }

    fn write(&mut self) {
        let Some(place) = self.master().and_then(|pod| parse_pod("demo", &pod)) else {
            return;
        };
        if let Some(node) = self
            .nodes
            .get_mut(&place)
            .filter(|n| n.permit_until > self.now_ms)
            && self.writes
        {
            node.facts.end.offset += 1;
            self.acknowledged = node.facts.end.offset;
        }
        self.replicate();
    }

    /// Everybody who follows the master and is not held up gets what it has.
    pub(crate) fn replicate(&mut self) {
        let Some(master) = self.master().map(|pod| self.node(&pod).clone()) else {
            return;
        };
        let Standing::Master { epoch } = master.facts.standing else {
            return;
        };
        let address = master.pod.ip.as_ref().map(|ip| format!("{ip}:7001"));
        for node in self.nodes.values_mut().filter(|n| n.alive && !n.stalled) {
            let follows = matches!(&node.facts.standing, Standing::Replica { master_address, .. } if Some(master_address) == address.as_ref());
            let Some(cluster) = master.facts.cluster.filter(|_| follows) else {
                continue;
            };
            if let Ok(next) = decide(&node.facts, &Command::MasterSeen { cluster, epoch }) {
                adopt(node, next);
                node.facts.end = master.facts.end;
                node.history = master.history.clone();
                node.facts.has_data = true;
            }
        }
    }

    // Plans.

    pub(crate) fn plan(&self) -> Plan {
        plan(&self.world())
    }

    /// One pass: plan, act on it, report.
    pub(crate) fn pass(&mut self) -> Plan {
        self.pass_until(usize::MAX)
    }

    /// A pass whose operator is killed before its `limit`th step.
    pub(crate) fn pass_until(&mut self, limit: usize) -> Plan {
        let plan = self.plan();
        for name in plan.secrets.iter().map(|(name, _)| name) {
            match name.as_str() {
                "demo-auth" | "mine" => self.secrets.auth = SecretSeen::Complete,
                "demo-internal" => self.secrets.internal = SecretSeen::Complete,
                other => panic!("unknown secret {other}"),
            }
        }
        for object in &plan.objects {
            let stamp = self.serial.to_string();
            self.objects
                .insert(object.reference.clone(), (object.hash.clone(), stamp));
            if object.reference.kind == Kind::StatefulSet {
                self.apply_set(&object.reference.name, &object.body);
            }
        }
        for gone in &plan.prune {
            self.objects.remove(gone);
        }
        let mut handed_over = None;
        let mut complete = true;
        for (n, step) in plan.steps.iter().enumerate() {
            if n >= limit {
                return plan;
            }
            let electing = self.status.target.as_ref();
            let electing = electing.is_some_and(|t| t.step == TargetStep::Fencing);
            let soft = matches!(
                step,
                Step::Follow { .. } | Step::Label { .. } | Step::Members { .. }
            ) || electing && matches!(step, Step::Fence { .. });
            if let Err(why) = self.carry_out(step, &mut handed_over)
                && !soft
            {
                self.told.push("refused");
                if let Some(target) = &mut self.status.target {
                    target.message = Some(why);
                }
                complete = false;
                break;
            }
        }
        if complete && plan.steps.len() < limit {
            self.status = plan.status.clone();
        }
        self.pass_time(PASS_MS);
        plan
    }

    /// Passes until one changes nothing and nothing is awaited that comes soon.
    pub(crate) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..400 {
            let plan = self.pass();
            self.pass_time(1000);
            let rests = plan.changes_nothing() && plan.requeue == super::super::SETTLED;
            quiet = if rests { quiet + 1 } else { 0 };
            // Without a master, something may still run out.
            if rests && (self.master().is_some() || quiet > 30) {
                return;
            }
        }
        panic!(
            "does not settle: {:#?}\n{:#?}",
            self.plan().steps,
            self.status
        );
    }

    fn carry_out(&mut self, step: &Step, handed_over: &mut Option<Position>) -> Result<(), String> {
        match step {
            Step::Record(memory) => {
                Memory::write_to(memory, &mut self.status);
                Ok(())
            }
            Step::Tell(note) => {
                self.told.push(note.reason);
                Ok(())
            }
            Step::SetLease { expect, grant } => self.set_lease(expect, grant),
            Step::Initialize { to, epoch } => self.command(
                &to.pod,
                &Command::Initialize {
                    cluster: to.cluster,
                    epoch: *epoch,
                },
            ),
            Step::Fence { to, epoch } => self.command(
                &to.pod,
                &Command::Fence {
                    cluster: to.cluster,
                    epoch: *epoch,
                },
            ),
            Step::Handover {
                to,
                from_epoch,
                epoch,
                target,
                ..
            } => {
                let plan = HandedOver {
                    from_epoch: *from_epoch,
                    epoch: *epoch,
                    target: *target,
                };
                let cluster = to.cluster;
                self.willing(&to.pod, "handover")?;
                self.command(&to.pod, &Command::Handover { cluster, plan })?;
                if self.node(&to.pod).facts.writing {
                    let target = self.nodes.values().find(|n| n.facts.node_id == *target);
                    if !target.is_some_and(|n| n.alive && !n.stalled) {
                        return Err("the target is not connected".into());
                    }
                    self.node(&to.pod).facts.end.offset += 1;
                    self.replicate();
                    self.command(&to.pod, &Command::FinishHandover { plan })?;
                }
                *handed_over = Some(self.node(&to.pod).facts.end);
                Ok(())
            }
            Step::Promote { to, epoch, at } => {
                let at = match at {
                    At::Exactly(position) => *position,
                    At::HandedOver => handed_over.ok_or("no handover")?,
                };
                self.willing(&to.pod, "promote")?;
                self.promotions.push(to.pod.clone());
                self.command(
                    &to.pod,
                    &Command::Promote {
                        cluster: to.cluster,
                        epoch: *epoch,
                        at,
                    },
                )
            }
            Step::Follow {
                to,
                epoch,
                master_address,
                master_url,
            } => self.command(
                &to.pod,
                &Command::Follow {
                    cluster: to.cluster,
                    epoch: *epoch,
                    master_address: master_address.clone(),
                    master_url: Some(master_url.clone()),
                },
            ),
            Step::Members {
                to,
                epoch,
                concern,
                recorded,
                ..
            } => {
                if self.concern() != *recorded && self.concern() != *concern {
                    return Err("something else is on record".into());
                }
                self.change_members(&to.pod, *epoch, concern)
            }
            Step::Label {
                pod,
                uid,
                role,
                read_eligible,
            } => {
                let place = parse_pod("demo", pod).unwrap();
                let node = self.nodes.get_mut(&place).ok_or("no such pod")?;
                let pod = &mut node.pod;
                if pod.uid != *uid {
                    return Err("another pod".into());
                }
                if let Some(role) = role {
                    pod.role = Some((*role).to_owned());
                }
                if let Some(eligible) = read_eligible {
                    pod.read_eligible = *eligible;
                }
                Ok(())
            }
            Step::GrowClaim { claim, size } => {
                self.claims.insert(
                    claim.clone(),
                    ClaimSeen {
                        requested: Amount::from(size.as_str()),
                    },
                );
                Ok(())
            }
            Step::Orphan { set, .. } => {
                let is_master = set.ends_with("-master");
                self.carry_out_orphan(if is_master { Set::Master } else { Set::Replica });
                Ok(())
            }
            Step::Replace { pod, uid } => {
                if self.node(pod).pod.uid == *uid {
                    self.delete_pod(pod);
                }
                Ok(())
            }
        }
    }

    /// A StatefulSet is gone, and its pods are not.
    pub(crate) fn carry_out_orphan(&mut self, set: Set) {
        if let Some(seen) = self.sets[set.index()].take() {
            self.objects
                .retain(|r, _| r.kind != Kind::StatefulSet || r.name != seen.name);
        }
    }

    fn set_lease(&mut self, expect: &Expect, grant: &Grant) -> Result<(), String> {
        let matches = match (&self.lease, expect) {
            (Some((_, content, _)), _) if content == grant => return Ok(()),
            (None, Expect::Missing) => true,
            (Some((_, content, _)), Expect::Content(expected)) => content == expected,
            (Some((version, _, _)), Expect::Version(expected)) => version.to_string() == *expected,
            (Some(_), Expect::Missing) | (None, Expect::Content(_) | Expect::Version(_)) => false,
        };
        if !matches {
            return Err("the lease says something else".into());
        }
        if let Some((_, old, _)) = &self.lease {
            assert!(
                grant.epoch >= old.epoch,
                "an epoch went down: {old:?} to {grant:?}"
            );
        }
        let version = self.lease.as_ref().map_or(0, |(v, _, _)| *v) + 1;
        self.lease = Some((version, grant.clone(), self.now_ms));
        Ok(())
    }

    fn willing(&mut self, pod: &str, command: &str) -> Result<(), String> {
        if self.node(pod).refuses.contains(&command) {
            return Err(format!("{pod} refuses: not this time"));
        }
        Ok(())
    }

    pub(crate) fn command(&mut self, pod: &str, command: &Command) -> Result<(), String> {
        let place = parse_pod("demo", pod).unwrap();
        let node = self.nodes.get_mut(&place).ok_or("no such pod")?;
        if !node.alive || node.hidden || node.hangs {
            return Err(format!("{pod} does not answer"));
        }
        let next = decide(&node.facts, command).map_err(|refusal| refusal.to_string())?;
        adopt(node, next);
        Ok(())
    }

    fn revision(&self, set: Set) -> Option<String> {
        self.sets[set.index()]
            .as_ref()
            .and_then(|s| s.revision.clone())
    }

    /// What the StatefulSet controller does.
    fn apply_set(&mut self, name: &str, body: &serde_json::Value) {
        let set = if name.ends_with("-master") {
            Set::Master
        } else {
            Set::Replica
        };
        let replicas = u32::try_from(body["spec"]["replicas"].as_u64().unwrap()).unwrap();
        let size =
            body["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
                .as_str()
                .unwrap();
        let revision = Some(format!("{:x}", fold(&body["spec"]["template"].to_string())));
        self.sets[set.index()] = Some(SetSeen {
            name: name.to_owned(),
            uid: name.to_owned(),
            replicas,
            revision: revision.clone(),
            claim_size: Amount::from(size),
            deleting: false,
        });
        for ordinal in 0..replicas {
            if self.nodes.contains_key(&(set, ordinal)) {
                continue;
            }
            let id = self.fresh();
            let (facts, history) = self
                .volumes
                .get(&(set, ordinal))
                .cloned()
                .unwrap_or_else(|| (empty(id), History::default()));
            let boot = self.fresh();
            let claim = names::claim(&self.cluster.pod(set, ordinal));
            self.claims.entry(claim).or_insert(ClaimSeen {
                requested: Amount::from(size),
            });
            let node = Node {
                facts: RoleFacts {
                    writing: false,
                    ..facts
                },
                history,
                boot,
                pod: PodSeen {
                    uid: boot.to_string(),
                    ip: Some(format!(
                        "10.0.{}.{}",
                        self.serial / 256 % 256,
                        self.serial % 256
                    )),
                    role: None,
                    read_eligible: false,
                    ready: true,
                    deleting: false,
                    stranger: false,
                    revision: revision.clone(),
                    trouble: None,
                    cordoned: false,
                },
                alive: true,
                stalled: false,
                hidden: false,
                hangs: false,
                refuses: Vec::new(),
                settled: true,
                unlike: None,
                permit_until: 0,
                lag_ms: 0,
            };
            self.nodes.insert((set, ordinal), node);
        }
        let gone: Vec<_> = self
            .nodes
            .keys()
            .filter(|(s, n)| *s == set && *n >= replicas)
            .copied()
            .collect();
        for place in gone {
            if let Some(node) = self.nodes.remove(&place) {
                assert!(!node.facts.writing, "the master was scaled away");
                self.volumes.insert(place, (node.facts, node.history));
            }
        }
    }

    // What an operator sees.

    pub(crate) fn world(&self) -> World {
        let replicas = self.sets[1]
            .as_ref()
            .map_or(0, |s| s.replicas)
            .max(self.cluster.spec.replicas);
        let mut places: BTreeSet<_> = self.nodes.keys().copied().collect();
        places.insert((Set::Master, 0));
        places.extend((0..replicas).map(|n| (Set::Replica, n)));
        let members = places.into_iter().map(|place| self.member(place)).collect();
        let lease = match &self.lease {
            None => LeaseSeen::Missing,
            Some((version, grant, changed)) => LeaseSeen::Held {
                version: version.to_string(),
                grant: grant.clone(),
                unchanged: Duration::from_millis(self.now_ms - changed),
            },
        };
        let stamps = self
            .objects
            .iter()
            .map(|(r, (_, stamp))| (r.clone(), stamp.clone()));
        World {
            now: Timestamp::UNIX_EPOCH
                + SignedDuration::from_millis(i64::try_from(self.now_ms).unwrap()),
            cluster: self.cluster.clone(),
            status: self.status.clone(),
            default_image: "node:test".into(),
            objects: stamps.collect(),
            applied: self.objects.clone(),
            taken: self.taken.clone(),
            secrets: self.secrets.clone(),
            sets: self.sets.clone(),
            claims: self.claims.clone(),
            lease,
            members,
            replicas: self.replicas(),
        }
    }

    fn member(&self, (set, ordinal): (Set, u32)) -> Member {
        let node = self.nodes.get(&(set, ordinal));
        let probe = match node {
            None => Probe::NoAddress,
            Some(node) if !node.alive || node.hidden => {
                Probe::Unreachable("connection refused".into())
            }
            Some(node) => Probe::State(Box::new(self.state(&self.cluster.pod(set, ordinal), node))),
        };
        Member {
            pod: self.cluster.pod(set, ordinal),
            set,
            ordinal,
            seen: node.map(|n| n.pod.clone()),
            probe,
        }
    }

    /// What the Lease records.
    pub(crate) fn concern(&self) -> Concern {
        let lease = self.lease.as_ref();
        lease
            .map(|(_, grant, _)| grant.concern.clone())
            .unwrap_or_default()
    }

    /// A node is not on record as a member.
    pub(crate) fn forget_member(&mut self, id: Uuid) {
        if let Some((_, grant, _)) = &mut self.lease {
            grant.concern.members.remove(&id);
            self.concern = grant.concern.clone();
        }
    }

    /// What a master does when it is told who belongs to the cluster.
    fn change_members(&mut self, pod: &str, epoch: u64, wish: &Concern) -> Result<(), String> {
        let connected = |n: &&Node| n.alive && !n.stalled && n.facts.has_data;
        let connected: BTreeSet<_> = self
            .nodes
            .values()
            .filter(connected)
            .map(|n| n.facts.node_id)
            .collect();
        let own = self.node(pod).facts.clone();
        if !own.writing || own.standing != (Standing::Master { epoch }) {
            return Err("not the master".into());
        }
        let mut membership = Membership::granted(own.node_id, self.concern());
        // Writes here wait for nobody: whatever a member that counts holds may have been answered.
        let held = self.nodes.values().filter(|n| {
            let id = n.facts.node_id;
            connected.contains(&id) && membership.counts(id)
        });
        let held = held.map(|n| n.facts.end).max();
        if let Some(end) = held.filter(|_| membership.in_use().acks > 0) {
            membership.answer(end);
        }
        let secured = membership.secured(&History::default());
        loop {
            let next = match membership.towards(wish).map_err(|e| e.to_string())? {
                Change::Done => return Ok(()),
                Change::Record(concern) => concern,
                Change::CoverThenRecord(concern) => {
                    let hold = concern.members.intersection(&connected).count() - 1;
                    if hold < concern.acks as usize {
                        return Err("not covered".into());
                    }
                    concern
                }
            };
            if let Some((version, grant, _)) = &mut self.lease {
                *version += 1;
                grant.record(next.clone(), secured);
            }
            self.concern = next.clone();
            membership.recorded(next);
        }
    }

    fn state(&self, pod: &str, node: &Node) -> State {
        let facts = &node.facts;
        let (role, epoch, address) = match &facts.standing {
            Standing::Master { epoch } if facts.writing => (Role::Master, *epoch, None),
            Standing::Master { .. } | Standing::Unassigned => (Role::Unassigned, 0, None),
            Standing::Replica { master_address, .. } => {
                (Role::Replica, 0, Some(master_address.clone()))
            }
        };
        State {
            node: pod.to_owned(),
            node_id: facts.node_id,
            boot_id: node.boot,
            cluster: facts.cluster,
            role,
            master_epoch: epoch,
            promised_epoch: facts.promised,
            writable: facts.writing && self.holds_lease(node),
            position: facts.end,
            durable: facts.end.offset,
            chain: Chain::default(),
            history: node.history.clone(),
            has_data: facts.has_data,
            master_address: address,
            connected: !node.stalled,
            members: self.concern.members.iter().copied().collect(),
            acks: self.concern.acks,
            settled: node.settled,
            covered: 0,
            unlike: node.unlike.clone(),
            version: "test".into(),
        }
    }

    fn replicas(&self) -> Option<Vec<Replica>> {
        let master = self.master()?;
        let place = parse_pod("demo", &master)?;
        if self.nodes.get(&place)?.hidden {
            return None;
        }
        let (end, address) = {
            let node = self.nodes.get(&place)?;
            (
                node.facts.end,
                node.pod.ip.as_ref().map(|ip| format!("{ip}:7001")),
            )
        };
        let following = |n: &Node| matches!(&n.facts.standing, Standing::Replica { master_address, .. } if Some(master_address) == address.as_ref());
        let others = self
            .nodes
            .iter()
            .filter(|(p, n)| **p != place && following(n));
        Some(
            others
                .map(|((set, ordinal), node)| {
                    let connected = node.alive && !node.stalled;
                    let late = node.lag_ms > 1000;
                    let offset = node.facts.end.offset;
                    Replica {
                        id: node.facts.node_id,
                        replica_id: node.facts.node_id,
                        node: self.cluster.pod(*set, *ordinal),
                        host: node.pod.ip.clone().unwrap_or_default(),
                        port: 7001,
                        status: match (connected, node.facts.has_data, late) {
                            (false, _, _) => ReplicaStatus::Disconnected,
                            (true, false, _) => ReplicaStatus::Syncing,
                            (true, true, true) => ReplicaStatus::Lagging,
                            (true, true, false) => ReplicaStatus::Connected,
                        },
                        lag_ms: node.lag_ms,
                        last_heartbeat: if connected { self.now_ms / 1000 } else { 0 },
                        operations_synced: offset,
                        address: address.clone().unwrap_or_default(),
                        offset,
                        lag_operations: end.offset.saturating_sub(offset),
                        durable_offset: offset,
                        connected,
                    }
                })
                .collect(),
        )
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

fn adopt(node: &mut Node, next: vectorizer_replication::command::Transition) {
    node.facts.cluster = next.cluster;
    node.facts.promised = next.promised;
    node.facts.standing = next.standing;
    node.facts.handed_over = next.handed_over;
    match next.effect {
        Effect::None | Effect::EndSession | Effect::HoldWrites => {}
        Effect::StopWriting => node.facts.writing = false,
        Effect::OpenEpoch(epoch) => {
            node.facts.writing = true;
            node.facts.has_data = true;
            let first_offset = node.facts.end.offset + 1;
            node.facts.end = Position::new(epoch, first_offset);
            let start = EpochStart {
                epoch,
                first_offset,
                chain: Chain::default(),
            };
            assert!(node.history.open(start), "{epoch} is not above {node:#?}");
        }
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

fn fold(text: &str) -> u64 {
    text.bytes().fold(7, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    })
}
