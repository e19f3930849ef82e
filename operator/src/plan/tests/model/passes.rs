//! Plans made of the model and carried out on it, whole or up to some step.

use super::life::adopt;
use super::*;
use crate::plan::{SETTLED, status};

impl Model {
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
            self.versions.push(self.status.clone());
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
            let rests = plan.changes_nothing() && plan.requeue == SETTLED;
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
                let now = self.world().now;
                Memory::write_to(memory, &mut self.status);
                status::promoted(&mut self.status, self.cluster.generation, now);
                self.versions.push(self.status.clone());
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
            } => {
                let follow = Command::Follow {
                    cluster: to.cluster,
                    epoch: *epoch,
                    master_address: master_address.clone(),
                    master_url: Some(master_url.clone()),
                };
                self.command(&to.pod, &follow)?;
                self.node(&to.pod).follows_since = self.now_ms;
                Ok(())
            }
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
                if self.labels_refused {
                    return Err("pods may not be labelled".into());
                }
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
                let seen = self.claims.get_mut(claim).ok_or("no such claim")?;
                seen.requested = Amount::from(size.as_str());
                Ok(())
            }
            Step::DeleteClaim { claim, .. } => {
                let gone = self.claims.remove(claim);
                assert!(
                    gone.is_none_or(|gone| !gone.bound),
                    "{claim} holds a volume"
                );
                Ok(())
            }
            Step::Relabel { pod, .. } => {
                self.node(pod).pod.mislabelled = false;
                Ok(())
            }
            Step::AdoptLease => {
                self.lease_owned = true;
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
}
