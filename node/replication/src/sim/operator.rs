//! Two instances of the operator, of which one leads: each observes, plans and acts, as the real one does.
//!
//! What is decided is in `plan`, after `operator/src/plan`; here is what it is made from and how it is carried out: the
//! resource's status and the Lease change by compare-and-swap, commands one after the other, and the first that is
//! refused ends the pass. Between any two steps an instance may stall, and go on from what it knew then, also after
//! another has taken the lead.

use std::collections::VecDeque;

use uuid::Uuid;

use super::clock::Clock;
use super::control::{Order, State};
use super::lease::{Grant, Holder};
use super::plan::plan;
use super::world::World;
use super::{CLUSTER, Time};
use crate::command::{Command, HandedOver};
use crate::concern::Concern;
use crate::position::Position;

/// How long an answer is waited for.
const PATIENCE: Time = 1_000;

/// What the resource's status keeps.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Status {
    pub(super) initialized: bool,
    /// Who was decided to be master, and in which epoch.
    pub(super) master: Option<(Holder, u64)>,
    pub(super) target: Option<Target>,
    /// The last request that was dealt with.
    pub(super) handled: u64,
}

/// A change of master that is reserved or under way.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Target {
    pub(super) request: u64,
    pub(super) mode: Mode,
    pub(super) step: Stage,
    /// When the step began.
    pub(super) step_at: Time,
    pub(super) to: Option<(usize, Uuid)>,
    pub(super) epoch: u64,
    pub(super) from_epoch: u64,
    pub(super) deadline: Time,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Mode {
    Switchover,
    Failover,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Stage {
    Reserved,
    HandingOver,
    Vacating,
    Fencing,
    Granting,
}

/// What a person asks for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) mode: Mode,
    pub(super) to: Option<usize>,
}

/// What the resource's spec asks for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Spec {
    pub(super) acks: u32,
    /// A node whose pod is to go.
    pub(super) unwanted: Option<usize>,
}

/// What was observed.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) now: Time,
    pub(super) status: Status,
    pub(super) grant: Grant,
    pub(super) version: u64,
    /// How long the Lease has been the same, on this instance's clock.
    pub(super) unchanged: Time,
    pub(super) nodes: Vec<Option<State>>,
    pub(super) request: Option<Request>,
    pub(super) spec: Spec,
}

/// Which Lease is replaced.
#[derive(Clone, Debug)]
pub(super) enum Expect {
    Content(Grant),
    Version(u64),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    Exactly(Position),
    HandedOver,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Record(Box<Status>),
    SetLease {
        expect: Expect,
        grant: Grant,
    },
    Initialize {
        node: usize,
        epoch: u64,
    },
    Fence {
        node: usize,
        epoch: u64,
    },
    Handover {
        node: usize,
        plan: HandedOver,
    },
    Promote {
        node: usize,
        epoch: u64,
        at: At,
    },
    Follow {
        node: usize,
        master: usize,
        epoch: u64,
    },
    Members {
        node: usize,
        epoch: u64,
        concern: Concern,
        recorded: Concern,
    },
    /// Its pod goes.
    Delete {
        node: usize,
    },
}

/// Steps that are left of a plan.
#[derive(Debug, Default)]
pub(super) struct Pass {
    steps: VecDeque<Step>,
    /// The status's version that the plan was made from, or that was recorded since.
    version: u64,
    /// The command that is not answered yet, and until when it is waited for.
    awaiting: Option<(u64, Step, Time)>,
    handed_over: Option<Position>,
}

#[derive(Debug, Default)]
pub(super) struct Operator {
    pub(super) clock: Clock,
    pub(super) leads: bool,
    pub(super) stalled_until: Time,
    /// Stops before it acts on its next plan, once.
    pub(super) stall_next: Option<Time>,
    pub(super) pass: Option<Pass>,
    /// The Lease's version when it was last seen to change, and when that was.
    seen: (u64, Time),
}

impl Operator {
    /// How long the Lease has been the same, as far as this instance has seen, on its clock.
    pub(super) fn unchanged(&self, now: Time) -> Time {
        self.clock.monotonic(now) - self.seen.1
    }

    /// Whether steps of a plan are left.
    pub(super) fn is_amid(&self) -> bool {
        self.pass.as_ref().is_some_and(|p| !p.steps.is_empty())
    }
}

impl World {
    pub(super) fn operate(&mut self, index: usize) {
        let now = self.now;
        let operator = &mut self.operators[index];
        if self.operators_away || now < operator.stalled_until {
            return;
        }
        match &mut operator.pass {
            Some(pass) => match &pass.awaiting {
                Some((_, step, until)) if now > *until => {
                    let goes_on = matches!(step, Step::Follow { .. });
                    pass.awaiting = None;
                    if !goes_on {
                        operator.pass = None;
                    }
                }
                Some(_) => {}
                None => self.go_on(index),
            },
            None if operator.leads => self.begin_pass(index),
            None => {}
        }
    }

    fn begin_pass(&mut self, index: usize) {
        let view = self.observe(index);
        let steps: VecDeque<Step> = plan(&view).into();
        if !steps.is_empty() {
            self.note(&format!("operator {index}: {steps:?}"));
        }
        let operator = &mut self.operators[index];
        operator.pass = Some(Pass {
            steps,
            version: self.status_version,
            ..Pass::default()
        });
        if let Some(stall) = operator.stall_next.take() {
            operator.stalled_until = self.now + stall;
            return;
        }
        if !self.stalls(index) {
            self.go_on(index);
        }
    }

    /// Whether the instance stands still for a while, with what it knows.
    fn stalls(&mut self, index: usize) -> bool {
        let stalls = self.faulty(2);
        if stalls {
            self.operators[index].stalled_until = self.now + self.random.between(50, 4_000);
        }
        stalls
    }

    fn observe(&mut self, index: usize) -> View {
        let nodes: Vec<Option<State>> = (0..self.nodes.len())
            .map(|node| (self.answers(node) && !self.faulty(2)).then(|| self.state(node)))
            .collect();
        let operator = &mut self.operators[index];
        let clock = operator.clock.monotonic(self.now);
        if operator.seen.0 != self.lease.version {
            operator.seen = (self.lease.version, clock);
        }
        View {
            now: self.now,
            status: self.status.clone(),
            grant: self.lease.grant.clone(),
            version: self.lease.version,
            unchanged: operator.unchanged(self.now),
            nodes,
            request: self.request,
            spec: self.spec,
        }
    }

    fn go_on(&mut self, index: usize) {
        while let Some(pass) = &mut self.operators[index].pass {
            let Some(step) = pass.steps.pop_front() else {
                self.operators[index].pass = None;
                return;
            };
            if !self.act(index, step) {
                self.operators[index].pass = None;
                return;
            }
            let waits = |p: &Pass| p.awaiting.is_some();
            if self.operators[index].pass.as_ref().is_some_and(waits) || self.stalls(index) {
                return;
            }
        }
    }

    /// Carries a step out, or sends it. Returns false when that ends the pass.
    fn act(&mut self, index: usize, step: Step) -> bool {
        let Some(pass) = &mut self.operators[index].pass else {
            return false;
        };
        let (node, command) = match step.clone() {
            Step::Delete { node } => {
                self.delete_pod(node);
                return true;
            }
            Step::Members {
                node,
                epoch,
                concern,
                recorded,
            } => {
                let order = Order::Members {
                    epoch,
                    concern,
                    recorded,
                };
                let letter = self.send_command(index, node, order);
                self.awaits(index, letter, step);
                return true;
            }
            Step::Record(status) => {
                if pass.version != self.status_version {
                    self.checks.refused += 1;
                    return false;
                }
                self.status_version += 1;
                pass.version = self.status_version;
                self.recorded(*status);
                return true;
            }
            Step::SetLease { expect, grant } => {
                let handed_over = pass.handed_over.is_some();
                return self.set_lease(expect, grant, handed_over);
            }
            Step::Initialize { node, epoch } => {
                let cluster = CLUSTER;
                (node, Command::Initialize { cluster, epoch })
            }
            Step::Fence { node, epoch } => (node, World::fence(epoch)),
            Step::Handover { node, plan } => {
                let cluster = CLUSTER;
                (node, Command::Handover { cluster, plan })
            }
            Step::Promote { node, epoch, at } => {
                let at = match at {
                    At::Exactly(at) => Some(at),
                    At::HandedOver => pass.handed_over,
                };
                let Some(at) = at else { return false };
                let cluster = CLUSTER;
                (node, Command::Promote { cluster, epoch, at })
            }
            Step::Follow {
                node,
                master,
                epoch,
            } => (
                node,
                Command::Follow {
                    cluster: CLUSTER,
                    epoch,
                    master_address: master.to_string(),
                    master_url: None,
                },
            ),
        };
        let letter = self.send_command(index, node, Order::Role(command));
        self.awaits(index, letter, step);
        true
    }

    fn awaits(&mut self, index: usize, letter: u64, step: Step) {
        if let Some(pass) = &mut self.operators[index].pass {
            pass.awaiting = Some((letter, step, self.now + PATIENCE));
        }
    }

    /// An answer, or a refusal, has come.
    pub(super) fn operator_hears(&mut self, index: usize, letter: u64, answer: Option<State>) {
        let Some(pass) = &mut self.operators[index].pass else {
            return;
        };
        let Some((_, step, _)) = pass.awaiting.take_if(|(number, ..)| *number == letter) else {
            return;
        };
        let goes_on = match (&step, answer) {
            (Step::Handover { plan, .. }, Some(state)) => {
                pass.handed_over = Some(state.end);
                // Whatever the answer says: a node that still writes has handed nothing over.
                !state.is_master() && state.promised >= plan.epoch
            }
            (Step::Follow { .. }, _) | (_, Some(_)) => true,
            (_, None) => false,
        };
        if !goes_on {
            self.checks.refused += 1;
            self.operators[index].pass = None;
        } else if self.now >= self.operators[index].stalled_until {
            self.go_on(index);
        }
    }

    fn recorded(&mut self, status: Status) {
        if let (Some(target), None) = (&self.status.target, &status.target)
            && status.master != self.status.master
        {
            match target.mode {
                Mode::Switchover => self.checks.switchovers += 1,
                Mode::Failover => self.checks.failovers += 1,
            }
        }
        self.status = status;
    }

    fn set_lease(&mut self, expect: Expect, grant: Grant, handed_over: bool) -> bool {
        let current = self.lease.grant.clone();
        if current == grant {
            return true;
        }
        let as_expected = match expect {
            Expect::Content(content) => content == current,
            Expect::Version(version) => version == self.lease.version,
        };
        if !as_expected {
            self.checks.refused += 1;
            return false;
        }
        let holder = grant.holder;
        self.lease.write(grant);
        // One whose volume was lost since it was looked at does not become master: another is chosen.
        if let Some(holder) = holder.filter(|h| self.nodes[h.node].id == h.id) {
            if handed_over {
                self.nothing_lost(holder.node, "a switchover");
            } else {
                self.granted_without_handover(holder.node);
            }
        }
        true
    }

    /// A failover from an asynchronous master gives up what the chosen node does not have, and says how much.
    fn granted_without_handover(&mut self, node: usize) {
        let n = &self.nodes[node];
        self.checks.give_up(node, |p| n.has(p));
    }
}
