//! The Lease as the API server keeps it, and what nodes ask of it: each request takes its time, and so does its answer.
//!
//! Every change replaces what was read. A node has one request under way; one that is not answered in time is given
//! up, though it may have been carried out.

use uuid::Uuid;

use super::node::Failed;
use super::world::{Event, World};
use super::{PERMIT, RENEW_EVERY, REQUEST_TIMEOUT, Time};
use crate::breakage::{self, Breakage};
use crate::command::Command;
use crate::concern::{Concern, Membership};
use crate::position::Position;

/// A process of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holder {
    pub(super) node: usize,
    pub(super) id: Uuid,
    pub(super) boot: u64,
}

/// Who may be master.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Grant {
    pub(super) epoch: u64,
    /// `None` when vacant.
    pub(super) holder: Option<Holder>,
    /// Members, and how many acknowledgements a write waits for.
    pub(super) concern: Concern,
    /// Up to where writes may have been acknowledged while replicas were waited for.
    pub(super) secured: Position,
}

/// The stored object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Lease {
    pub(super) grant: Grant,
    /// Counts every change and renewal.
    pub(super) version: u64,
}

impl Grant {
    fn names(&self, process: Holder, epoch: u64) -> bool {
        self.holder == Some(process) && self.epoch == epoch
    }
}

impl Lease {
    pub(super) fn write(&mut self, grant: Grant) {
        self.grant = grant;
        self.version += 1;
    }
}

/// What a node asks for.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Renew {
        epoch: u64,
    },
    /// The next epoch, for the restarted master, if nothing above the granted one is promised.
    Retake {
        promised: u64,
    },
    /// Whether an epoch is granted to this process, for a command that makes it master.
    Confirm {
        epoch: u64,
        letter: u64,
    },
    /// Other members and acknowledgements, by the master in its own epoch.
    Record {
        epoch: u64,
        concern: Concern,
        secured: Position,
    },
}

/// What the API server says.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Done, in this epoch; and this is on record.
    Yes(u64, Concern),
    /// The Lease grants this epoch, and not to this process.
    NotGranted(u64),
    /// It is another by now: changed in between, or by this very request.
    Conflict,
}

/// A request under way, from the node's side.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub(super) number: u64,
    pub(super) wish: Wish,
    /// On the node's clock.
    pub(super) sent: Time,
}

/// A request under way, from the API server's side.
#[derive(Clone, Debug)]
pub(super) struct Request {
    from: Holder,
    wish: Wish,
    /// The Lease's version that was read, for a change that replaces it.
    read: u64,
    answer: Option<Answer>,
}

impl World {
    /// Asks, unless something is being asked already.
    pub(super) fn ask(&mut self, node: usize, wish: Wish) -> bool {
        let sent = self.clock(node);
        let n = &mut self.nodes[node];
        if n.asking.is_some() {
            return false;
        }
        self.numbers += 1;
        let number = self.numbers;
        let wanted = wish.clone();
        n.asking = Some(Asking { number, wish, sent });
        let from = Holder {
            node,
            id: n.id,
            boot: n.boot,
        };
        let request = Request {
            from,
            wish: wanted,
            read: self.lease.version,
            answer: None,
        };
        self.requests.insert(number, request);
        self.pass_on(Event::AtLease { number });
        true
    }

    /// To or from the API server: mostly at once, sometimes too late.
    fn pass_on(&mut self, event: Event) {
        let slow = self.faulty(3);
        let (low, high) = if slow { (100, 900) } else { (1, 5) };
        self.after(low, high, event);
    }

    pub(super) fn at_lease(&mut self, number: u64) {
        let Some(request) = self.requests.get(&number).cloned() else {
            return;
        };
        let from = request.from;
        if !self.nodes[from.node].reaches_lease(self.now) && self.nodes[from.node].boot == from.boot
        {
            self.requests.remove(&number);
            return;
        }
        let grant = self.lease.grant.clone();
        let answer = match request.wish {
            Wish::Renew { epoch } | Wish::Confirm { epoch, .. } => {
                if grant.names(from, epoch) {
                    self.lease.version += 1;
                    Answer::Yes(epoch, grant.concern)
                } else {
                    Answer::NotGranted(grant.epoch)
                }
            }
            Wish::Retake { promised } => {
                let ours = grant.holder.is_some_and(|h| h.id == from.id);
                if ours && grant.epoch >= promised {
                    let epoch = grant.epoch + 1;
                    let holder = Some(from);
                    let concern = grant.concern.clone();
                    self.lease.write(Grant {
                        epoch,
                        holder,
                        ..grant
                    });
                    Answer::Yes(epoch, concern)
                } else {
                    Answer::NotGranted(grant.epoch)
                }
            }
            Wish::Record {
                epoch,
                concern,
                secured,
            } => {
                if request.read != self.lease.version {
                    Answer::Conflict
                } else if grant.names(from, epoch) {
                    let next = concern.clone();
                    let secured = grant.secured.max(secured);
                    self.lease.write(Grant {
                        concern,
                        secured,
                        ..grant
                    });
                    self.record_holds();
                    // Somebody on the way sends it twice, and hands on what the second is answered.
                    if std::mem::take(&mut self.sends_twice) || self.faulty(5) {
                        Answer::Conflict
                    } else {
                        Answer::Yes(epoch, next)
                    }
                } else {
                    Answer::NotGranted(grant.epoch)
                }
            }
        };
        if let Some(request) = self.requests.get_mut(&number) {
            request.answer = Some(answer);
        }
        self.pass_on(Event::FromLease { number });
    }

    pub(super) fn lease_answers(&mut self, number: u64) {
        let Some(request) = self.requests.get(&number).cloned() else {
            return;
        };
        let node = request.from.node;
        let n = &self.nodes[node];
        if n.boot == request.from.boot && n.up && !n.runs(self.now) {
            return self.again(Event::FromLease { number });
        }
        self.requests.remove(&number);
        let n = &mut self.nodes[node];
        if !n.reaches_lease(self.now) {
            return;
        }
        let asking = n.asking.take_if(|a| a.number == number);
        let (Some(asking), Some(answer)) = (asking, request.answer) else {
            return;
        };
        if self.clock(node) > asking.sent + REQUEST_TIMEOUT {
            return self.unanswered(node, asking.wish);
        }
        if matches!(answer, Answer::Yes(..)) {
            self.nodes[node].permit_until = asking.sent + PERMIT;
        }
        self.answered(node, asking.wish, answer);
        self.moved(node);
    }

    fn answered(&mut self, node: usize, wish: Wish, answer: Answer) {
        let now = self.now;
        let id = self.nodes[node].id;
        match (wish, answer) {
            (Wish::Renew { .. }, Answer::Yes(..) | Answer::Conflict) => {}
            (Wish::Renew { epoch }, Answer::NotGranted(granted)) => {
                // The Lease is somebody else's: the node fences itself.
                self.nodes[node].permit_until = 0;
                if self.nodes[node].writing == Some(epoch) {
                    let fence = World::fence(granted.max(epoch + 1));
                    let fenced = self.nodes[node].command(&mut self.checks, now, &fence);
                    self.note(&format!("{node} fences itself: {fenced:?}"));
                }
            }
            (Wish::Retake { promised }, Answer::Yes(epoch, concern)) => {
                let n = &mut self.nodes[node];
                if n.role.promised != promised {
                    return;
                }
                n.quorum.grant(epoch, id, concern);
                let retake = Command::Retake { epoch };
                let opened = n.command(&mut self.checks, now, &retake);
                self.note(&format!("{node} takes epoch {epoch}: {opened:?}"));
                if opened.is_ok() {
                    self.nodes[node].retaking = None;
                    self.checks.retakes += 1;
                    self.nothing_lost(node, "a restart of the master");
                }
            }
            (Wish::Retake { .. }, Answer::NotGranted(_) | Answer::Conflict) => {}
            (Wish::Confirm { epoch, letter }, Answer::Yes(_, concern)) => {
                self.confirmed(node, epoch, letter, concern);
            }
            (Wish::Confirm { letter, .. }, Answer::NotGranted(_) | Answer::Conflict) => {
                self.not_confirmed(node, letter);
            }
            (Wish::Record { epoch, .. }, Answer::Yes(_, concern)) => {
                self.change_recorded(node, epoch, concern);
            }
            (Wish::Record { .. }, Answer::NotGranted(_)) => self.end_change(node, false),
            (Wish::Record { epoch, .. }, Answer::Conflict) => {
                // It may be on record: what is in use holds for either, until the next attempt has confirmed the epoch.
                if breakage::on(Breakage::GiveUpOnConflict) {
                    self.nodes[node].quorum.step(epoch, Membership::given_up);
                }
                self.end_change(node, false);
            }
        }
    }

    /// Given up: nothing is known.
    fn unanswered(&mut self, node: usize, wish: Wish) {
        match wish {
            Wish::Confirm { letter, .. } => self.not_confirmed(node, letter),
            Wish::Record { .. } => self.end_change(node, false),
            Wish::Renew { .. } | Wish::Retake { .. } => {}
        }
    }

    fn not_confirmed(&mut self, node: usize, letter: u64) {
        if self.nodes[node]
            .changing
            .as_ref()
            .is_some_and(|c| c.letter == letter)
        {
            self.end_change(node, false);
        } else {
            self.reply(letter, false);
        }
    }

    /// What a node asks of the API server by itself.
    pub(super) fn tick_lease(&mut self, node: usize) {
        let clock = self.clock(node);
        let n = &mut self.nodes[node];
        if let Some(asking) = n.asking.take_if(|a| clock > a.sent + REQUEST_TIMEOUT) {
            return self.unanswered(node, asking.wish);
        }
        if n.asking.is_some() || clock < n.renew_at {
            return;
        }
        let wish = match (n.writing, n.retaking) {
            (Some(epoch), _) => Wish::Renew { epoch },
            (None, Some(promised)) if n.role.promised == promised => Wish::Retake { promised },
            (None, Some(_)) => {
                // Fenced since: from here on a Lease that names this node comes with a promotion.
                n.retaking = None;
                return;
            }
            (None, None) => return,
        };
        n.renew_at = clock + RENEW_EVERY;
        self.ask(node, wish);
    }

    /// Whether what a command did is an answer or the end of the process.
    pub(super) fn survived<T>(outcome: &Result<T, Failed>) -> bool {
        !matches!(outcome, Err(Failed::Died))
    }
}
