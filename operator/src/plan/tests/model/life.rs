//! What happens to the nodes of the model, and what time brings: writes, replication, renewals of the Lease.

use super::*;

impl Model {
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
}

pub(super) fn adopt(node: &mut Node, next: vectorizer_replication::command::Transition) {
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
