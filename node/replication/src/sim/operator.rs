//! The operator: what it decided is kept (it stands in the resource's status), what it sends may get lost.

use super::node::Hold;
use super::world::World;
use super::{CLUSTER, EXPIRE, NODES, PERMIT, Time};
use crate::breakage::{self, Breakage};
use crate::command::{Command, Effect, HandedOver, Standing};
use crate::position::Position;

/// Writes are held for no longer than this.
const HOLD: Time = 400;
/// A step that fails so often is given up.
const TRIES: u32 = 12;

/// A change of master under way.
#[derive(Clone, Copy, Debug)]
enum Plan {
    Switchover {
        from: (usize, u64),
        to: usize,
        epoch: u64,
        step: Switch,
    },
    Failover {
        epoch: u64,
        step: Fail,
    },
}

#[derive(Clone, Copy, Debug)]
enum Switch {
    Fence,
    HandOver,
    Wait,
    Grant { at: Position },
    Promote { at: Position },
}

#[derive(Clone, Copy, Debug)]
enum Fail {
    Vacate,
    Fence,
    Promote {
        node: usize,
        boot: u64,
        at: Position,
    },
}

#[derive(Debug, Default)]
pub(super) struct Operator {
    initialized: bool,
    plan: Option<Plan>,
    tries: u32,
    /// The Lease's version when it was last seen to change, and when that was.
    seen: (u64, Time),
    fenced: [bool; NODES],
    /// What was sent so far, and to whom: some of it arrives twice, and late.
    sent: Vec<(usize, Command)>,
    /// Asked for by a script.
    pub(super) wanted: Option<usize>,
    /// Does nothing while set.
    pub(super) away: bool,
}

/// Why a command was not carried out, as far as the operator knows.
enum Trouble {
    /// No answer: it may have been carried out.
    Unknown,
    Refused,
}

impl World {
    pub(super) fn operate(&mut self) {
        if self.operator.away {
            return;
        }
        self.repeat_something();
        if self.operator.seen.0 != self.lease.version {
            self.operator.seen = (self.lease.version, self.now);
        }
        if !self.operator.initialized {
            return self.initialize();
        }
        match self.operator.plan {
            None => self.maintain(),
            Some(plan) => {
                self.note(&format!("{plan:?}"));
                self.operator.tries += 1;
                let next = match plan {
                    Plan::Switchover {
                        from,
                        to,
                        epoch,
                        step,
                    } => {
                        let step = self.switch(from, to, epoch, step);
                        step.map(|step| Plan::Switchover {
                            from,
                            to,
                            epoch,
                            step,
                        })
                    }
                    Plan::Failover { epoch, step } => self.fail_over(epoch, step),
                };
                self.operator.plan = next;
            }
        }
    }

    /// Whether the operator reaches the node's REST interface.
    fn answers(&self, node: usize) -> bool {
        self.nodes[node].reaches_lease(self.now)
    }

    /// A command whose way there, or whose answer, may get lost.
    fn tell(&mut self, node: usize, command: Command) -> Result<Effect, Trouble> {
        if !self.answers(node) || self.faulty(6) {
            return Err(Trouble::Unknown);
        }
        // What a node confirms with the Lease, or holds writes for, is not repeated by itself.
        if matches!(
            command,
            Command::Fence { .. } | Command::Follow { .. } | Command::Initialize { .. }
        ) {
            self.operator.sent.push((node, command.clone()));
        }
        let outcome = self.nodes[node].command(&mut self.checks, &command);
        self.note(&format!("{node} <- {command:?}: {outcome:?}"));
        self.moved(node);
        if self.faulty(6) {
            return Err(Trouble::Unknown);
        }
        outcome.map_err(|_| Trouble::Refused)
    }

    /// An older instance, or a network that repeats: a command of the past arrives once more where it was sent.
    fn repeat_something(&mut self) {
        let count = self.operator.sent.len() as u64;
        if count == 0 || !self.faulty(4) {
            return;
        }
        let (node, command) = self.operator.sent[self.random.below(count) as usize].clone();
        if self.answers(node) {
            // Refused, or nothing new: that is what this is about.
            let _ = self.nodes[node].command(&mut self.checks, &command);
            self.moved(node);
        }
    }

    fn faulty(&mut self, percent: u64) -> bool {
        self.plan.faults && self.now < self.plan.heal_at && self.random.chance(percent)
    }

    fn initialize(&mut self) {
        let n = &self.nodes[0];
        if !self.answers(0) {
            return;
        }
        let boot = n.boot;
        if matches!(n.role.standing, Standing::Unassigned) && self.lease.holder != Some((0, boot)) {
            self.lease.grant(self.lease.epoch + 1, Some((0, boot)));
        }
        if n.writing.is_none() {
            let (cluster, epoch) = (CLUSTER, self.lease.epoch);
            // Refused when the node restarted in the middle: it then takes the next epoch by itself.
            let _ = self.tell(0, Command::Initialize { cluster, epoch });
        }
        self.operator.initialized = self.nodes[0].writing.is_some();
    }

    fn maintain(&mut self) {
        let lease = self.lease;
        let highest = self.highest_promise();
        let expired = self.now >= self.operator.seen.1 + EXPIRE;
        let Some((holder, boot)) = lease.holder else {
            return self.begin_failover();
        };
        // A promise above the granted epoch was made for a plan that came to nothing: nobody writes any more.
        if expired || (highest > lease.epoch && self.nodes[holder].writing.is_none()) {
            return self.begin_failover();
        }
        for node in (0..NODES).filter(|node| *node != holder) {
            let follows = self.nodes[node].master() == Some(holder);
            if self.answers(node) && !follows {
                let follow = Command::Follow {
                    cluster: CLUSTER,
                    epoch: lease.epoch,
                    master_address: holder.to_string(),
                    master_url: None,
                };
                // Tried again in the next pass.
                let _ = self.tell(node, follow);
            }
        }
        let chance = self.plan.switchovers && self.now < self.plan.heal_at && self.random.chance(5);
        let by_chance = chance.then(|| self.random.node());
        let Some(to) = self.operator.wanted.take().or(by_chance) else {
            return;
        };
        if to != holder && self.answers(to) && self.nodes[to].role.has_data {
            self.operator.tries = 0;
            self.operator.plan = Some(Plan::Switchover {
                from: (holder, boot),
                to,
                epoch: lease.epoch,
                step: Switch::Fence,
            });
        }
    }

    fn highest_promise(&self) -> u64 {
        let answering = self.nodes.iter().filter(|n| n.reaches_lease(self.now));
        answering.map(|n| n.role.promised).max().unwrap_or(0)
    }

    // Planned.

    fn switch(
        &mut self,
        from: (usize, u64),
        to: usize,
        epoch: u64,
        step: Switch,
    ) -> Option<Switch> {
        let (master, boot) = from;
        let plan = HandedOver {
            from_epoch: epoch,
            epoch: epoch + 1,
            target: self.nodes[to].id,
        };
        let retry = |tries: u32, step| (tries < TRIES).then_some(step);
        let tries = self.operator.tries;
        match step {
            Switch::Fence => {
                // At the present epoch: at the next, its greeting would depose the master.
                let fence = Command::Fence {
                    cluster: CLUSTER,
                    epoch,
                };
                match self.tell(to, fence) {
                    Ok(_) => Some(Switch::HandOver),
                    Err(Trouble::Unknown) => retry(tries, step),
                    Err(Trouble::Refused) => None,
                }
            }
            Switch::HandOver => {
                let command = Command::Handover {
                    cluster: CLUSTER,
                    plan,
                };
                match self.tell(master, command) {
                    Ok(Effect::HoldWrites) => {
                        let until = self.now + HOLD;
                        self.nodes[master].hold = Some(Hold { plan, until });
                        Some(Switch::Wait)
                    }
                    Ok(_) => Some(Switch::Wait),
                    Err(Trouble::Unknown) => retry(tries, step),
                    Err(Trouble::Refused) => None,
                }
            }
            Switch::Wait => {
                if !self.answers(master) {
                    return retry(tries, step);
                }
                self.finish_handover(master);
                let n = &self.nodes[master];
                if n.role.handed_over == Some(plan) && n.role.promised == plan.epoch {
                    return Some(Switch::Grant { at: n.end() });
                }
                // Still held: later. Otherwise the deadline has passed, and the master goes on.
                n.hold.is_some().then_some(Switch::Wait)
            }
            Switch::Grant { at } => {
                if self.lease.holder != Some((master, boot)) || self.lease.epoch != epoch {
                    return None;
                }
                let holder = (to, self.nodes[to].boot);
                self.lease.grant(plan.epoch, Some(holder));
                self.operator.tries = 0;
                Some(Switch::Promote { at })
            }
            Switch::Promote { at } => match self.promote(to, plan.epoch, at) {
                Ok(()) => {
                    self.checks.switchovers += 1;
                    self.nothing_lost(to, "switchover");
                    None
                }
                Err(Trouble::Unknown) => retry(tries, step),
                Err(Trouble::Refused) => None,
            },
        }
    }

    /// What the master does by itself once the target holds everything.
    fn finish_handover(&mut self, master: usize) {
        let n = &mut self.nodes[master];
        let Some(hold) = n.hold else { return };
        let end = n.end().offset;
        let there = n.roster.durable_of(hold.plan.target);
        let waits = !breakage::on(Breakage::HandOverWithoutWaiting);
        if waits && there.is_none_or(|durable| durable < end) {
            return;
        }
        let finish = Command::FinishHandover { plan: hold.plan };
        // Refused when a fence came first, which then decides.
        let _ = n.command(&mut self.checks, &finish);
        self.moved(master);
    }

    /// `promote`, for the process that the Lease names.
    fn promote(&mut self, node: usize, epoch: u64, at: Position) -> Result<(), Trouble> {
        if !self.answers(node) || self.lease.holder != Some((node, self.nodes[node].boot)) {
            return Err(Trouble::Unknown);
        }
        let command = Command::Promote {
            cluster: CLUSTER,
            epoch,
            at,
        };
        let told = self.tell(node, command);
        if self.nodes[node].writing == Some(epoch) {
            self.nodes[node].permit_until = self.now + PERMIT;
        }
        told.map(drop)
    }

    // Unplanned.

    fn begin_failover(&mut self) {
        // Everything that needs no fence comes first.
        let with_data = |n: &super::node::Node| n.reaches_lease(self.now) && n.role.has_data;
        if !self.nodes.iter().any(with_data) {
            return;
        }
        let epoch = self.lease.epoch.max(self.highest_promise()) + 1;
        self.operator.tries = 0;
        self.operator.plan = Some(Plan::Failover {
            epoch,
            step: Fail::Vacate,
        });
    }

    fn fail_over(&mut self, epoch: u64, step: Fail) -> Option<Plan> {
        let go = |step| Some(Plan::Failover { epoch, step });
        match step {
            Fail::Vacate => {
                // The very Lease that was seen to run out, or one whose holder is proven not to write.
                let (version, since) = self.operator.seen;
                let unchanged = version == self.lease.version && self.now >= since + EXPIRE;
                let stopped = self.lease.holder.is_none_or(|(node, boot)| {
                    let n = &self.nodes[node];
                    n.boot != boot && !n.up
                        || n.runs(self.now) && n.role.promised > self.lease.epoch
                });
                if !unchanged && !stopped {
                    return None;
                }
                self.lease.grant(epoch, None);
                self.operator.fenced = [false; NODES];
                self.operator.tries = 0;
                go(Fail::Fence)
            }
            Fail::Fence => self.fence_all(epoch),
            Fail::Promote { node, boot, at } => match self.promote(node, epoch, at) {
                Ok(()) => {
                    self.checks.failovers += 1;
                    None
                }
                // After a fence the plan ends in a promotion, with a higher epoch if need be.
                Err(Trouble::Unknown) if self.operator.tries < TRIES => {
                    go(Fail::Promote { node, boot, at })
                }
                Err(Trouble::Unknown | Trouble::Refused) => {
                    if self.nodes[node].writing == Some(epoch) {
                        return None;
                    }
                    self.begin_failover();
                    self.operator.plan
                }
            },
        }
    }

    fn fence_all(&mut self, epoch: u64) -> Option<Plan> {
        for node in 0..NODES {
            if !self.operator.fenced[node] {
                let fence = Command::Fence {
                    cluster: CLUSTER,
                    epoch,
                };
                match self.tell(node, fence) {
                    Ok(_) => self.operator.fenced[node] = true,
                    Err(Trouble::Unknown) => {}
                    Err(Trouble::Refused) => {
                        self.begin_failover();
                        return self.operator.plan;
                    }
                }
            }
        }
        let again = Some(Plan::Failover {
            epoch,
            step: Fail::Fence,
        });
        // Those that do not answer get a few chances: the more are asked, the less is given up.
        let missing = self.operator.fenced.iter().any(|fenced| !fenced);
        if missing && self.operator.tries < 4 {
            return again;
        }
        let candidates = (0..NODES).filter(|node| {
            let n = &self.nodes[*node];
            self.operator.fenced[*node] && self.answers(*node) && n.role.has_data
        });
        let Some(node) = candidates.max_by_key(|node| self.nodes[*node].end()) else {
            return again;
        };
        let n = &self.nodes[node];
        let (boot, at) = (n.boot, n.end());
        self.checks
            .give_up(|p| p.offset <= at.offset && n.role.history.epoch_at(p.offset) == p.epoch);
        self.lease.grant(epoch, Some((node, boot)));
        self.operator.tries = 0;
        Some(Plan::Failover {
            epoch,
            step: Fail::Promote { node, boot, at },
        })
    }
}
