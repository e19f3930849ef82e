//! Conditions and phase of what was read.

use vectorizer_api::replication::{Replica, ReplicaStatus};

use super::nodes::joins;
use super::pressure::pressure;
use super::told::{Told, promotion};
use crate::crd::Phase;
use crate::names::{self, condition, reason};
use crate::plan::{Draft, Severity, Verdict, Wait};
use crate::world::{Member, Probe, World};

/// What the conditions are made of.
pub(super) struct Facts<'d, 'w> {
    pub(super) draft: &'d Draft<'w>,
    /// Whether the master accepts writes.
    pub(super) writable: bool,
    /// Why the Service for writes leads to nobody.
    pub(super) unserved: Option<String>,
    /// What keeps wanted members from being settled.
    pub(super) waiting: Vec<String>,
    /// Pods of another template than the present one.
    pub(super) outdated: usize,
    /// Pods that are not wanted.
    pub(super) surplus: usize,
}

/// Why writes that go to the Service do not get to the master. What a Service leads to, its controller makes of labels and
/// readiness: so the same is looked at here.
pub(super) fn unserved(world: &World, master: &Member) -> Option<String> {
    let pod = master.seen.as_ref()?;
    let why = if pod.role.as_deref() != Some("master") {
        "does not carry the master's label yet"
    } else if !pod.ready {
        "is not ready"
    } else {
        return None;
    };
    let service = names::write_service(&world.cluster.name);
    Some(format!(
        "Service {service} leads to nobody: {} {why}",
        master.pod
    ))
}

impl Facts<'_, '_> {
    fn worst(&self, severity: Severity) -> Option<&Wait> {
        self.draft.waits.iter().find(|w| w.severity == severity)
    }

    fn changing(&self) -> bool {
        self.outdated > 0 || self.surplus > 0 || self.worst(Severity::Progress).is_some()
    }

    fn available_now(&self) -> bool {
        self.writable && self.unserved.is_none()
    }

    pub(super) fn phase(&self) -> Phase {
        let memory = &self.draft.memory;
        if self.draft.world.cluster.spec.paused && memory.target.is_none() {
            return Phase::Paused;
        }
        if self.worst(Severity::Blocked).is_some() {
            return Phase::Blocked;
        }
        if memory.target.is_some() {
            return Phase::Promoting;
        }
        if memory.master.is_none() {
            return Phase::Creating;
        }
        let was = self.draft.world.status.phase;
        if !self.available_now() {
            // The first master was told so, and its kubelet has not called it ready yet.
            let begins = self.writable && was == Phase::Creating;
            return if begins {
                Phase::Creating
            } else {
                Phase::Unavailable
            };
        }
        match (self.changing(), self.waiting.is_empty()) {
            (true, _) => Phase::Updating,
            (false, true) => Phase::Ready,
            // On the way up from the first start.
            (false, false) if was == Phase::Creating => Phase::Creating,
            (false, false) => Phase::Degraded,
        }
    }

    pub(super) fn conditions(&self) -> Vec<Told> {
        let mut told = vec![
            self.available(),
            self.replication(),
            self.progressing(),
            self.degraded(),
            self.ready(),
            self.pods_running(),
            self.volumes(),
        ];
        told.extend(self.synchronous());
        told.extend(pressure(self.draft.world));
        told.extend(self.draft.memory.last_promotion.as_ref().map(promotion));
        told
    }

    /// Whether writes are held by as many replicas as wanted; nothing while none are.
    fn synchronous(&self) -> Option<Told> {
        let of = condition::SYNCHRONOUS_REPLICATION_MET;
        let world = self.draft.world;
        let wanted = world.cluster.spec.write_concern.as_ref();
        let wanted = wanted.map_or(0, |w| w.acks);
        let record = self.draft.memory.write_concern.as_ref();
        let recorded = record.map_or(0, |r| r.acks);
        if wanted == 0 && recorded == 0 {
            return None;
        }
        if recorded != wanted {
            let text = format!("{wanted} acknowledgements are wanted, {recorded} are on record");
            return Some(Told::no(of, reason::WRITE_CONCERN_PENDING, &text));
        }
        let Some(replicas) = &world.replicas else {
            let text = "no master says how its replicas are";
            return Some(Told::unknown(of, reason::NO_MASTER, text));
        };
        let counts = |r: &&Replica| {
            let member = record.is_some_and(|record| record.members.contains(&r.id));
            member && r.connected && r.status != ReplicaStatus::Syncing
        };
        let joining = world.members.iter().filter(|m| {
            let member = |id| record.is_some_and(|record| record.members.contains(&id));
            m.state().is_some_and(|s| member(s.node_id)) && joins(self.draft, m)
        });
        let found = replicas.iter().filter(counts).count() + joining.count();
        Some(if found >= recorded as usize {
            let text = format!("each write is held by {recorded} of {found} replicas");
            Told::yes(of, reason::REPLICAS_CONNECTED, &text)
        } else {
            let text = format!(
                "each write has to be held by {recorded} replicas and {found} can: writes are refused"
            );
            Told::no(of, reason::REPLICAS_MISSING, &text)
        })
    }

    fn available(&self) -> Told {
        match &self.unserved {
            Some(why) if self.writable => {
                return Told::no(condition::AVAILABLE, reason::NO_ENDPOINT, why);
            }
            None if self.writable => {
                return Told::yes(
                    condition::AVAILABLE,
                    reason::WRITES_ACCEPTED,
                    "the master accepts writes",
                );
            }
            Some(_) | None => {}
        }
        let named = self.draft.waits.iter().max_by_key(|w| w.severity);
        match (named, &self.draft.memory.master) {
            (Some(wait), _) => Told::no(condition::AVAILABLE, wait.reason, &wait.message),
            (None, Some(master)) => Told::no(
                condition::AVAILABLE,
                reason::MASTER_NOT_WRITABLE,
                &format!("{} does not accept writes now", master.pod),
            ),
            (None, None) => Told::no(
                condition::AVAILABLE,
                reason::NO_MASTER,
                "there is no master yet",
            ),
        }
    }

    fn replication(&self) -> Told {
        let world = self.draft.world;
        let of = condition::REPLICATION_HEALTHY;
        if world.cluster.spec.replicas == 0 {
            return Told::yes(of, reason::NO_REPLICAS, "no replica is wanted");
        }
        if world.replicas.is_none() {
            return Told::unknown(of, reason::NO_MASTER, "no master says how its replicas are");
        }
        let most = world.cluster.spec.reads.max_lag_ms();
        let master = self.draft.memory.master.as_ref();
        let others = || {
            world
                .wanted()
                .filter(|m| master.is_none_or(|master| m.pod != master.pod))
        };
        let gone: Vec<_> = others()
            .filter(|m| {
                let copies = |r: &Replica| r.connected && r.status != ReplicaStatus::Syncing;
                !world.replica(m).is_some_and(copies) && !joins(self.draft, m)
            })
            .map(why_missing)
            .collect();
        if !gone.is_empty() {
            return Told::no(
                of,
                reason::REPLICAS_MISSING,
                &format!("not connected, or in the first sync: {}", gone.join(", ")),
            );
        }
        let late: Vec<_> = others()
            .filter(|m| world.replica(m).is_some_and(|r| r.lag_ms > most))
            .map(|m| m.pod.as_str())
            .collect();
        if !late.is_empty() {
            return Told::no(
                of,
                reason::REPLICAS_BEHIND,
                &format!("more than {most} ms behind: {}", late.join(", ")),
            );
        }
        let text = format!(
            "{} connected, none more than {most} ms behind",
            others().count()
        );
        Told::yes(of, reason::REPLICAS_CONNECTED, &text)
    }

    /// Whether every wanted pod runs: by what Kubernetes says, not by whether its node answers.
    fn pods_running(&self) -> Told {
        let of = condition::PODS_RUNNING;
        if let Some(Verdict { reason, text }) = &self.draft.pods {
            return Told::no(of, reason, text);
        }
        let ready = |m: &&Member| m.seen.as_ref().is_some_and(|p| p.ready && !p.deleting);
        let missing = self.draft.world.wanted().filter(|m| !ready(m));
        let missing: Vec<_> = missing.map(|m| m.pod.as_str()).collect();
        if missing.is_empty() {
            Told::yes(of, reason::AS_WANTED, "every pod that is wanted runs")
        } else {
            let text = format!("not there or not ready: {}", missing.join(", "));
            Told::no(of, reason::PODS_MISSING, &text)
        }
    }

    fn volumes(&self) -> Told {
        let of = condition::VOLUMES_AS_WANTED;
        match &self.draft.volumes {
            Some(Verdict { reason, text }) => Told::no(of, reason, text),
            None => Told::yes(
                of,
                reason::AS_WANTED,
                "no volume is known to be other than wanted",
            ),
        }
    }

    fn progressing(&self) -> Told {
        let of = condition::PROGRESSING;
        let world = self.draft.world;
        if world.cluster.spec.paused {
            return Told::no(of, reason::PAUSED, "spec.paused is set: nothing is changed");
        }
        if let Some(target) = &self.draft.memory.target {
            let text = match &target.message {
                Some(message) => format!("{:?}, step {:?}: {message}", target.mode, target.step),
                None => format!("{:?}, step {:?}", target.mode, target.step),
            };
            return Told::yes(of, reason::PROMOTION_STARTED, &text);
        }
        if let Some(wait) = self.worst(Severity::Progress) {
            return Told::yes(of, wait.reason, &wait.message);
        }
        if self.outdated > 0 {
            return Told::yes(of, reason::UPDATING, "pods are being replaced");
        }
        if self.surplus > 0 {
            return Told::yes(of, reason::SCALING, "pods are being removed");
        }
        Told::no(of, reason::AS_WANTED, "nothing is being changed")
    }

    fn degraded(&self) -> Told {
        let of = condition::DEGRADED;
        let named = self
            .worst(Severity::Blocked)
            .or(self.worst(Severity::Trouble));
        if let Some(wait) = named {
            return Told::yes(of, wait.reason, &wait.message);
        }
        if self.waiting.is_empty() || self.changing() || self.phase() == Phase::Creating {
            return Told::no(of, reason::NOTHING_WRONG, "nothing is known to be wrong");
        }
        Told::yes(of, reason::NODES_MISSING, &self.waiting.join("; "))
    }

    fn ready(&self) -> Told {
        let of = condition::READY;
        if let Some(wait) = self.draft.waits.iter().max_by_key(|w| w.severity) {
            return Told::no(of, wait.reason, &wait.message);
        }
        if !self.waiting.is_empty() {
            return Told::no(of, reason::NODES_MISSING, &self.waiting.join("; "));
        }
        if self.draft.memory.target.is_some() {
            return Told::no(of, reason::PROMOTION_STARTED, "the master is being changed");
        }
        if self.outdated > 0 || self.surplus > 0 {
            return Told::no(of, reason::UPDATING, "pods are being replaced or removed");
        }
        if !self.writable {
            return Told::no(
                of,
                reason::MASTER_NOT_WRITABLE,
                "the master does not accept writes now",
            );
        }
        if let Some(why) = &self.unserved {
            return Told::no(of, reason::NO_ENDPOINT, why);
        }
        Told::yes(
            of,
            reason::ALL_NODES_READY,
            "every node is up and replicates",
        )
    }
}

/// A replica that is missed, and why, where it says so itself.
fn why_missing(member: &Member) -> String {
    let refused = matches!(member.probe, Probe::Refused(_)).then(|| member.silence());
    let why = match member.state() {
        Some(state) => state.cut_off.clone(),
        None => refused,
    };
    why.map_or_else(
        || member.pod.clone(),
        |why| format!("{} ({why})", member.pod),
    )
}
