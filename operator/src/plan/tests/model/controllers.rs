//! What Kubernetes' own controllers do with the objects of the model: pods and claims of a StatefulSet.

use super::*;

impl Model {
    /// Somebody else has changed a StatefulSet, so that it is applied again.
    pub(crate) fn forget_set(&mut self, name: &str) {
        self.objects
            .retain(|r, _| r.name != name || r.kind != Kind::StatefulSet);
    }

    /// A StatefulSet is gone, and its pods are not.
    pub(crate) fn carry_out_orphan(&mut self, set: Set) {
        if let Some(seen) = self.sets[set.index()].take() {
            self.objects
                .retain(|r, _| r.kind != Kind::StatefulSet || r.name != seen.name);
        }
    }

    pub(super) fn revision(&self, set: Set) -> Option<String> {
        self.sets[set.index()]
            .as_ref()
            .and_then(|s| s.revision.clone())
    }

    /// What the StatefulSet controller does.
    pub(super) fn apply_set(&mut self, name: &str, body: &serde_json::Value) {
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
        let class = body["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"].as_str();
        let class = class.map(str::to_owned);
        let revision = Some(format!("{:x}", fold(&body["spec"]["template"].to_string())));
        self.sets[set.index()] = Some(SetSeen {
            name: name.to_owned(),
            set,
            uid: name.to_owned(),
            replicas,
            revision: revision.clone(),
            image: body["spec"]["template"]["spec"]["containers"][0]["image"]
                .as_str()
                .map(str::to_owned),
            claim_size: Amount::from(size),
            claim_class: class.clone(),
            deleting: false,
        });
        for ordinal in 0..replicas {
            if self.nodes.contains_key(&(set, ordinal)) || self.refuses_pods.is_some() {
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
                class: class.clone(),
                ..bound(size)
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
                    oom_killed: None,
                    mislabelled: false,
                    cordoned: false,
                },
                alive: true,
                stalled: false,
                hidden: false,
                hangs: false,
                refuses: Vec::new(),
                settled: true,
                estranged: false,
                cut_off: None,
                unlike: None,
                disk_full: None,
                memory_full: None,
                permit_until: 0,
                lag_ms: 0,
                follows_since: 0,
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
}

fn fold(text: &str) -> u64 {
    text.bytes().fold(7, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    })
}
