//! What to do next, as a value: a pure and total function of the [`World`]. No clock, no client, no error.
//!
//! A plan has no choice left in it: objects to apply, commands in order, and what is being waited for, which becomes
//! conditions. Whatever decides about mastership is first recorded in status ([`Step::Record`]) and then commanded, so
//! that an operator killed at any line goes on from there. A step found in status counts as done or half done, and every
//! command may be repeated.
//!
//! `primary` finds out who is master and starts changes of it, `start` handles the first start and the recovery of data
//! found, `switchover` and `failover` carry changes on, `grant` ends them, `loss` counts what a failover gives up,
//! `members` keeps labels and followers right, `concern` the write concern, `rollout` everything about objects and
//! pods, `volumes` claims, `secrets` the credentials, `pods` what Kubernetes says of pods that do not come, `status` puts
//! it into words, `typed` says what a person can type.

mod concern;
mod failover;
mod grant;
mod loss;
mod members;
mod memory;
mod pods;
mod primary;
mod rollout;
mod secrets;
mod start;
pub mod status;
mod step;
mod switchover;
mod typed;
mod volumes;

pub use memory::Memory;
pub use step::{At, Expect, Note, Peer, Step};

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use vectorizer_api::concern::Concern;
use vectorizer_api::control::State;
use vectorizer_api::position::Position;

use crate::crd::{ClusterStatus, TargetStatus};
use crate::names::reason;
use crate::render::Object;
use crate::world::{Member, ObjectRef, World};

/// Between passes when nothing is to be done.
pub const SETTLED: Duration = Duration::from_secs(5);
/// Between passes while something is awaited that comes soon.
pub const SOON: Duration = Duration::from_millis(1000);
/// Between passes while the master is being changed.
pub const FAST: Duration = Duration::from_millis(250);

/// What to do.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// Secrets that lack generated values: name and keys.
    pub secrets: Vec<(String, Vec<&'static str>)>,
    /// Objects to apply, in order.
    pub objects: Vec<Object>,
    /// Objects that are ours and wanted no more.
    pub prune: Vec<ObjectRef>,
    /// Commands, in order. The first that is refused ends the pass.
    pub steps: Vec<Step>,
    /// The status, provided that all steps go well.
    pub status: ClusterStatus,
    /// When to look again.
    pub requeue: Duration,
}

impl Plan {
    /// Whether there is nothing to do but to look at the status.
    pub fn changes_nothing(&self) -> bool {
        self.secrets.is_empty()
            && self.objects.is_empty()
            && self.prune.is_empty()
            && self.steps.is_empty()
    }
}

/// Something that is being waited for, or that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wait {
    pub(crate) severity: Severity,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// How bad a [`Wait`] is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Severity {
    /// It comes by itself, as part of what was asked for.
    Progress,
    /// Something is wrong; it may come right by itself.
    Trouble,
    /// A person has to decide.
    Blocked,
}

/// Decides what to do next.
pub fn plan(world: &World) -> Plan {
    let mut draft = Draft::new(world);
    concern::remember(&mut draft);
    loss::remember(&mut draft);
    let paused = world.cluster.spec.paused;
    let doubt = world.cluster.doubt.as_ref();
    if !paused && doubt.is_none() {
        rollout::choose_image(&mut draft);
    }
    if let Some(doubt) = doubt {
        draft.wait(Severity::Blocked, reason::INVALID_SPEC, doubt.to_string());
    }
    if !paused || primary::past_return(&draft) {
        primary::mastership(&mut draft);
    } else {
        primary::adopt(&mut draft);
    }
    let mut objects = Vec::new();
    let mut prune = Vec::new();
    let mut secrets = Vec::new();
    if !paused {
        members::relabel(&mut draft);
        primary::adopt_lease(&mut draft);
    }
    // A new master takes effect with this plan; who follows and serves it is looked at in the next.
    if draft.memory.master.is_some() && !draft.crowned {
        // Also while paused, and while a change waits to begin: a pod that is made anew carries no label, and Services
        // would lead to nobody.
        if !primary::past_return(&draft) {
            members::follow(&mut draft);
            members::label(&mut draft);
        }
        if !paused && draft.memory.target.is_none() && doubt.is_none() {
            concern::settle(&mut draft);
        }
    }
    if !paused && doubt.is_none() {
        rollout::pods(&mut draft);
        volumes::volumes(&mut draft);
        (objects, prune) = rollout::objects(&mut draft);
        secrets = secrets::secrets(&mut draft);
    }
    pods::pods(&mut draft);
    let busy = !draft.steps.is_empty() || !objects.is_empty() || !secrets.is_empty();
    let awaited = draft.waits.iter().any(|w| w.severity < Severity::Blocked);
    let target = draft.memory.target.as_ref();
    let requeue = if draft.fast || target.is_some_and(|t| is_young(world, t)) {
        FAST
    } else if target.is_some() || busy || awaited && !draft.stuck {
        SOON
    } else {
        SETTLED
    };
    let status = if draft.crowned {
        status::recorded(&draft)
    } else {
        status::status(&draft)
    };
    Plan {
        secrets,
        objects,
        prune,
        steps: draft.steps,
        status,
        requeue,
    }
}

/// A plan in the making.
pub(crate) struct Draft<'w> {
    pub(crate) world: &'w World,
    pub(crate) memory: Memory,
    pub(crate) steps: Vec<Step>,
    pub(crate) waits: Vec<Wait>,
    pub(crate) fast: bool,
    /// Whether the plan makes somebody the master.
    pub(crate) crowned: bool,
    /// Whether something is waited for that only a person can mend: nothing is gained by looking often.
    pub(crate) stuck: bool,
    /// Why pods do not come.
    pub(crate) pods: Option<Verdict>,
    /// Why volumes are not as wanted.
    pub(crate) volumes: Option<Verdict>,
}

/// What a condition says that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    pub(crate) reason: &'static str,
    pub(crate) text: String,
}

impl<'w> Draft<'w> {
    fn new(world: &'w World) -> Self {
        Draft {
            world,
            memory: Memory::of(&world.status),
            steps: Vec::new(),
            waits: Vec::new(),
            fast: false,
            crowned: false,
            stuck: false,
            pods: None,
            volumes: None,
        }
    }

    fn record(&mut self) {
        self.steps.push(Step::Record(Box::new(self.memory.clone())));
    }

    fn tell(&mut self, warning: bool, reason: &'static str, message: impl Into<String>) {
        self.steps.push(Step::Tell(Note {
            warning,
            reason,
            message: message.into(),
        }));
    }

    fn wait(&mut self, severity: Severity, reason: &'static str, message: impl Into<String>) {
        self.waits.push(Wait {
            severity,
            reason,
            message: message.into(),
        });
    }

    /// Who calls itself master. Two may for a moment: the later one knows.
    fn acting_master(&self) -> Option<&State> {
        let masters = self.world.members.iter().filter(|m| m.is_master());
        masters
            .filter_map(Member::state)
            .max_by_key(|s| s.master_epoch)
    }

    /// What no failover may give up while no acknowledgements are asked for, from the Lease or as it was remembered.
    fn secured(&self) -> Position {
        if let Some(grant) = self.world.lease.grant() {
            return grant.secured;
        }
        let Some(recorded) = &self.memory.write_concern else {
            return Position::ZERO;
        };
        let secured = recorded.secured.as_ref().and_then(|s| s.parse().ok());
        // The number may have been lowered since that was read: everything that a master has may have been answered.
        let end = self.acting_master().filter(|_| recorded.acks > 0);
        let end = end.map(|master| master.position);
        secured.max(end).unwrap_or(Position::ZERO)
    }

    fn now(&self) -> Timestamp {
        self.world.now
    }

    fn time(&self) -> Time {
        Time(self.world.now)
    }

    /// Members and acknowledgements on record: from the Lease, or, when somebody deleted that, from the master or from
    /// what was remembered.
    fn recorded_concern(&self) -> Concern {
        if let Some(grant) = self.world.lease.grant() {
            return grant.concern.clone();
        }
        match self.acting_master() {
            Some(state) => Concern {
                members: state.members.iter().copied().collect(),
                acks: state.acks,
            },
            None => self
                .memory
                .write_concern
                .clone()
                .map_or_else(Concern::default, Into::into),
        }
    }

    /// How to reach a member; `None` without an address, or before the cluster has an identity.
    fn peer(&self, member: &Member) -> Option<Peer> {
        Some(Peer {
            pod: member.pod.clone(),
            url: member.ops_url()?,
            cluster: self.memory.cluster?,
        })
    }

    /// The decided master, when it answers, is master by its own account and by the Lease, and is who was decided.
    fn confirmed_master(&self) -> Option<&'w Member> {
        let master = self.memory.master.as_ref()?;
        let grant = self.world.lease.grant()?;
        let member = self.world.node(master.node_id)?;
        let state = member.state()?;
        let confirmed = member.is_master()
            && state.master_epoch == grant.epoch
            && grant
                .holder
                .as_ref()
                .is_some_and(|h| h.node_id == master.node_id);
        confirmed.then_some(member)
    }
}

/// Whether a step may still end in any moment, rather than wait for a person.
fn is_young(world: &World, target: &TargetStatus) -> bool {
    seconds_since(world.now, &target.step_at) < 60.0
}

fn seconds_since(now: Timestamp, then: &Time) -> f64 {
    now.duration_since(then.0).as_secs_f64()
}

#[cfg(test)]
pub(crate) mod tests;
