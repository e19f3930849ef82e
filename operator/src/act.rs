//! Carries a plan out: Secrets and objects first, then its commands in order. No choice is made here.
//!
//! The first command that is refused ends the pass; what was recorded before it is in status, and the next pass goes on
//! from there. Labels and followers are the exception: a pod that is gone by now must not keep a promotion from being
//! recorded, and the next pass looks at them again. Objects do not hold up commands either: a quota that is full must
//! not be in the way of a failover.

mod cluster;
mod lease;
mod objects;

use std::time::{Duration, Instant};

use kube::Client;
use uuid::Uuid;
use vectorizer_api::client::{ClientError, Timeouts};
use vectorizer_api::control::{Fence, Follow, Handover, Initialize, Members, Promote, State};
use vectorizer_api::position::Position;

use crate::api::words;
use crate::crd::{ClusterStatus, TargetStep, VectorizerCluster};
use crate::names;
use crate::observe::Credentials;
use crate::plan::{At, Memory, Note, Peer, Plan, Step, status};
use crate::world::{Labels, ObjectRef, Stamp, World};

pub use cluster::{Events, write_status};
pub use objects::ApplyError;

/// How long a command to a node may take. A handover holds writes for up to five seconds before it answers.
pub const COMMAND: Timeouts = Timeouts {
    connect: Duration::from_secs(1),
    overall: Duration::from_secs(10),
};

/// Where to act.
pub struct Targets<'a> {
    /// The API server.
    pub client: &'a Client,
    /// A client of nodes, with [`COMMAND`] as timeouts.
    pub nodes: &'a vectorizer_api::client::Client,
    /// The control token, and what Secrets held that are gone.
    pub credentials: &'a Credentials,
    /// Who tells the user.
    pub events: &'a Events,
}

/// What became of a plan.
#[derive(Debug)]
pub struct Done {
    /// The resource as last written, status and version included.
    pub resource: VectorizerCluster,
    /// What is remembered: that of the last record, or as it was.
    pub memory: Memory,
    /// Whether anything was recorded.
    pub recorded: bool,
    /// The command that ended the pass.
    pub refused: Option<Refused>,
    /// What went wrong without ending it.
    pub troubles: Vec<String>,
    /// What was applied, and how each object was afterwards.
    pub applied: Vec<(ObjectRef, (String, Stamp))>,
    /// What the API server refused and will refuse again: kind and name, what was asked for, its words.
    pub refusals: Vec<(String, String, String)>,
    /// Objects that are gone.
    pub pruned: Vec<ObjectRef>,
    /// Uids of pods that were labelled, and the labels that they have now.
    pub labelled: Vec<(String, Labels)>,
    /// Whether Secrets were written: what was known of them is old.
    pub secrets_written: bool,
    /// Whether the namespace is being deleted: nothing was done then.
    pub namespace_going: bool,
}

/// A command that was refused or got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The resource was changed since the plan was made: it is made anew.
    #[error("the resource has changed in the meantime")]
    Outdated,
    /// The API server refused.
    #[error("{what}: {}", words(source))]
    Api {
        /// What was to be done.
        what: String,
        /// Why not.
        source: kube::Error,
    },
    /// The Lease is not what the plan was made for.
    #[error("the lease says something else by now: {0}")]
    Lease(String),
    /// A node refused or did not answer.
    #[error("{command} to {pod}: {source}")]
    Node {
        /// The command.
        command: &'static str,
        /// The node's pod.
        pod: String,
        /// What it said.
        source: ClientError,
    },
    /// The plan promotes where a handover ended, and has none.
    #[error("there was no handover before the promotion")]
    NoHandover,
}

/// What the commands of one plan learn.
#[derive(Default)]
struct Registers {
    /// Where the handover ended.
    handed_over: Option<Position>,
    /// When the handover was sent.
    sent: Option<Instant>,
    /// For how long nobody accepted writes.
    pause: Option<Duration>,
}

/// Carries out a plan.
pub async fn act(
    to: &Targets<'_>,
    resource: &VectorizerCluster,
    world: &World,
    plan: &Plan,
) -> Done {
    let mut done = Done {
        resource: resource.clone(),
        memory: Memory::of(&world.status),
        recorded: false,
        refused: None,
        troubles: Vec::new(),
        applied: Vec::new(),
        refusals: Vec::new(),
        pruned: Vec::new(),
        labelled: Vec::new(),
        secrets_written: false,
        namespace_going: false,
    };
    objects::apply(to, world, plan, &mut done).await;
    if done.namespace_going {
        return done;
    }
    let mut notes = Vec::new();
    let mut registers = Registers::default();
    for step in &plan.steps {
        if let Err(refused) =
            carry_out(to, world, step, &mut registers, &mut done, &mut notes).await
        {
            tracing::warn!(error = %refused, "a step was refused");
            done.refused = Some(refused);
            break;
        }
    }
    // Told afterwards: nothing of a promotion waits for an event.
    for note in notes {
        to.events.publish(&world.cluster, note).await;
    }
    done
}

async fn carry_out(
    to: &Targets<'_>,
    world: &World,
    step: &Step,
    registers: &mut Registers,
    done: &mut Done,
    notes: &mut Vec<Note>,
) -> Result<(), Refused> {
    tracing::debug!(?step, "step");
    match step {
        Step::Record(memory) => record(to, world, memory, registers, done).await,
        Step::Tell(note) => {
            tracing::info!(reason = note.reason, "{}", note.message);
            notes.push(note.clone());
            Ok(())
        }
        Step::SetLease { expect, grant } => {
            lease::set(to.client, &world.cluster, expect, grant).await
        }
        Step::Initialize { to: peer, epoch } => {
            let command = Initialize {
                cluster: peer.cluster,
                epoch: *epoch,
            };
            said(
                "initialize",
                peer,
                node(to, peer).initialize(&command).await,
            )
            .map(drop)
        }
        Step::Fence { to: peer, epoch } => {
            let command = Fence {
                cluster: peer.cluster,
                epoch: *epoch,
            };
            // The others' promises may be enough.
            let outcome = said("fence", peer, node(to, peer).fence(&command).await);
            let target = done.memory.target.as_ref();
            if target.is_some_and(|t| t.step == TargetStep::Fencing) {
                done.forgive(outcome.map(drop))
            } else {
                outcome.map(drop)
            }
        }
        Step::Handover {
            to: peer,
            from_epoch,
            epoch,
            target,
            deadline_ms,
        } => {
            let command = handover(peer, *from_epoch, *epoch, *target, *deadline_ms);
            registers.sent = Some(Instant::now());
            let state = said("handover", peer, node(to, peer).handover(&command).await)?;
            if state.master_epoch != 0 || state.promised_epoch < *epoch {
                // Whatever the answer says: a node that still writes has handed nothing over.
                return Err(Refused::NoHandover);
            }
            registers.handed_over = Some(state.position);
            Ok(())
        }
        Step::Promote {
            to: peer,
            epoch,
            at,
        } => {
            let at = match at {
                At::Exactly(position) => *position,
                At::HandedOver => registers.handed_over.ok_or(Refused::NoHandover)?,
            };
            let command = Promote {
                cluster: peer.cluster,
                epoch: *epoch,
                at,
            };
            said("promote", peer, node(to, peer).promote(&command).await)?;
            registers.pause = registers.sent.map(|sent| sent.elapsed());
            Ok(())
        }
        Step::Follow {
            to: peer,
            epoch,
            master_address,
            master_url,
        } => {
            let command = Follow {
                cluster: peer.cluster,
                epoch: *epoch,
                master_address: master_address.clone(),
                master_url: master_url.clone(),
            };
            let outcome = said("follow", peer, node(to, peer).follow(&command).await).map(drop);
            done.forgive(outcome)
        }
        Step::Members {
            to: peer,
            epoch,
            concern,
            recorded,
            deadline_ms,
        } => {
            let command = Members {
                cluster: peer.cluster,
                epoch: *epoch,
                members: concern.members.iter().copied().collect(),
                acks: concern.acks,
                recorded: recorded.into(),
                deadline_ms: *deadline_ms,
            };
            let outcome = said("members", peer, node(to, peer).members(&command).await).map(drop);
            done.forgive(outcome)
        }
        Step::Label {
            pod,
            uid,
            role,
            read_eligible,
        } => {
            let outcome =
                cluster::label(to.client, &world.cluster, pod, uid, *role, *read_eligible).await;
            let labelled = outcome.map(|labels| done.labelled.push((uid.clone(), labels)));
            done.forgive(labelled)
        }
        Step::GrowClaim { claim, size } => {
            let outcome = cluster::grow_claim(to.client, &world.cluster, claim, size).await;
            done.note(names::claim_reference(claim), size.clone(), outcome)
        }
        Step::DeleteClaim {
            claim,
            uid,
            version,
        } => {
            let outcome =
                cluster::delete_claim(to.client, &world.cluster, claim, uid, version).await;
            done.forgive(outcome)
        }
        Step::Relabel { pod, uid, set } => {
            let outcome = cluster::relabel(to.client, &world.cluster, pod, uid, *set).await;
            done.forgive(outcome)
        }
        Step::AdoptLease => {
            let outcome = lease::adopt(to.client, &world.cluster).await;
            done.forgive(outcome)
        }
        Step::Orphan { set, uid } => cluster::orphan(to.client, &world.cluster, set, uid).await,
        Step::Replace { pod, uid } => {
            cluster::delete_pod(to.client, &world.cluster, pod, uid).await
        }
    }
}

/// Whether the same request will be refused again until something else changes, and what the API server said.
pub(crate) fn refusal(error: &kube::Error) -> Option<String> {
    let kube::Error::Api(status) = error else {
        return None;
    };
    // Not there, there already, or too much at once: these pass.
    let passes = [404, 409, 429].contains(&status.code);
    ((400..500).contains(&status.code) && !passes).then(|| words(error))
}

impl Done {
    /// Notes that something was refused, so that it is asked for less and less; what passes is noted as forgiven.
    fn note(
        &mut self,
        what: String,
        attempt: String,
        outcome: Result<(), Refused>,
    ) -> Result<(), Refused> {
        if let Err(Refused::Api { source, .. }) = &outcome
            && let Some(words) = refusal(source)
        {
            tracing::warn!(what, words, "the API server refuses");
            self.refusals.push((what, attempt, words));
            return Ok(());
        }
        self.forgive(outcome)
    }

    /// Notes what went wrong, and goes on.
    fn forgive(&mut self, outcome: Result<(), Refused>) -> Result<(), Refused> {
        if let Err(refused) = outcome {
            tracing::warn!(error = %refused, "a step was refused, the others go on");
            self.troubles.push(refused.to_string());
        }
        Ok(())
    }
}

async fn record(
    to: &Targets<'_>,
    world: &World,
    memory: &Memory,
    registers: &Registers,
    done: &mut Done,
) -> Result<(), Refused> {
    let mut memory = memory.clone();
    if let (Some(pause), Some(last), None) =
        (registers.pause, &mut memory.last_promotion, &memory.target)
    {
        last.write_pause_ms = u64::try_from(pause.as_millis()).ok();
    }
    let mut status: ClusterStatus = done.resource.status.clone().unwrap_or_default();
    memory.write_to(&mut status);
    status::promoted(&mut status, world.cluster.generation, world.now);
    done.resource = write_status(to.client, &done.resource, status).await?;
    done.memory = memory;
    done.recorded = true;
    Ok(())
}

fn handover(peer: &Peer, from_epoch: u64, epoch: u64, target: Uuid, deadline_ms: u64) -> Handover {
    Handover {
        cluster: peer.cluster,
        from_epoch,
        epoch,
        target,
        deadline_ms,
    }
}

fn node(to: &Targets<'_>, peer: &Peer) -> vectorizer_api::client::Client {
    let (token, former) = (&to.credentials.control, &to.credentials.former);
    let node = to.nodes.at(peer.url.clone());
    node.with_tokens(token.clone(), former.clone())
}

fn said(
    command: &'static str,
    peer: &Peer,
    answer: Result<State, ClientError>,
) -> Result<State, Refused> {
    answer.map_err(|source| Refused::Node {
        command,
        pod: peer.pod.clone(),
        source,
    })
}

/// The pause after so many failures in a row: a second, doubled each time, up to `longest`.
pub fn backoff(failures: u32, longest: Duration) -> Duration {
    let doubled = 1u64 << failures.saturating_sub(1).min(16);
    Duration::from_secs(doubled).min(longest)
}

#[cfg(test)]
pub(crate) mod tests;
