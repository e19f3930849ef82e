//! What an operator sees of the model.

use super::*;

impl Model {
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
                owned: self.lease_owned,
                grant: grant.clone(),
                unchanged: Duration::from_millis(self.now_ms - changed),
            },
        };
        let stamps = self
            .objects
            .iter()
            .map(|(r, (_, stamp))| (r.clone(), stamp.clone()));
        World {
            now: self.now(),
            cluster: self.cluster.clone(),
            status: self.status.clone(),
            default_image: "node:test".into(),
            objects: stamps.collect(),
            applied: self.objects.clone(),
            taken: self.taken.clone(),
            refusals: self.refusals.clone(),
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
            Some(node) if node.estranged => Probe::Refused("not known here".into()),
            Some(node) => Probe::State(Box::new(self.state(&self.cluster.pod(set, ordinal), node))),
        };
        Member {
            pod: self.cluster.pod(set, ordinal),
            set,
            ordinal,
            absent: self.refuses_pods.clone().filter(|_| node.is_none()),
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
            cut_off: node.cut_off.clone(),
            members: self.concern.members.iter().copied().collect(),
            acks: self.concern.acks,
            settled: node.settled,
            covered: 0,
            unlike: node.unlike.clone(),
            disk_full: node.disk_full.clone(),
            memory_full: node.memory_full.clone(),
            version: "test".into(),
        }
    }

    /// The model's time.
    pub(crate) fn now(&self) -> Timestamp {
        let since = i64::try_from(self.now_ms).unwrap();
        Timestamp::UNIX_EPOCH + SignedDuration::from_millis(since)
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
            .filter(|(p, n)| **p != place && following(n))
            .filter(|(_, n)| self.now_ms >= n.follows_since + self.heard_after);
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
}
