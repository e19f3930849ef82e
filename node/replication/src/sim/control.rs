//! Commands on their way to nodes, and their answers: lost, late or repeated.

use uuid::Uuid;

use super::lease::{Holder, Wish};
use super::node::Hold;
use super::world::{Event, World};
use super::{CLUSTER, Time};
use crate::breakage::{self, Breakage};
use crate::command::{Command, Effect, Standing};
use crate::concern::Concern;
use crate::position::Position;
use crate::quorum::Settling;
use crate::roster::Health;

/// Writes are held for no longer than this.
const HOLD: Time = 400;

/// What an operator tells a node.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Role(Command),
    Members {
        epoch: u64,
        concern: Concern,
        recorded: Concern,
    },
}

/// A command on its way, or its answer.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    node: usize,
    pub(super) command: Order,
    /// Which operator waits for the answer.
    from: Option<usize>,
    answer: Option<State>,
}

/// What a node says of itself.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) node: usize,
    pub(super) id: Uuid,
    pub(super) boot: u64,
    pub(super) promised: u64,
    /// The epoch in which it writes.
    pub(super) master_epoch: Option<u64>,
    pub(super) writable: bool,
    pub(super) is_replica: bool,
    pub(super) follows: Option<usize>,
    pub(super) has_data: bool,
    pub(super) end: Position,
    /// The replicas that are connected to it and keep up.
    pub(super) replicas: Vec<Uuid>,
    /// On a master, members and acknowledgements that it goes by, unless a change of them is on the way.
    pub(super) settled: Option<Concern>,
}

impl State {
    pub(super) fn holder(&self) -> Holder {
        Holder {
            node: self.node,
            id: self.id,
            boot: self.boot,
        }
    }

    pub(super) fn is_master(&self) -> bool {
        self.master_epoch.is_some()
    }
}

impl World {
    pub(super) fn state(&self, node: usize) -> State {
        let n = &self.nodes[node];
        let clock = self.clock(node);
        let list = n.roster.list(clock);
        let settled = n.quorum.membership().filter(|m| m.settled().is_some());
        let fit = |v: &&crate::roster::View| v.connected && v.health == Health::Connected;
        State {
            node,
            id: n.id,
            boot: n.boot,
            promised: n.role.promised,
            master_epoch: n.writing,
            writable: n.writing.is_some() && n.hold.is_none() && clock < n.permit_until,
            is_replica: matches!(n.role.standing, Standing::Replica { .. }),
            follows: n.master(),
            has_data: n.role.has_data,
            end: n.end(),
            replicas: list.iter().filter(fit).map(|v| v.peer.node_id).collect(),
            settled: settled.map(|m| m.on_record().clone()),
        }
    }

    /// Whether an operator reaches the node's REST interface.
    pub(super) fn answers(&self, node: usize) -> bool {
        self.nodes[node].runs(self.now) && self.nodes[node].no_operator_until <= self.now
    }

    /// Sends a command. It may be lost, be late, or arrive once more when nobody thinks of it any longer.
    pub(super) fn send_command(&mut self, from: usize, node: usize, command: Order) -> u64 {
        let letter = Letter {
            node,
            command,
            from: Some(from),
            answer: None,
        };
        if self.faulty(5) {
            let copy = Letter {
                from: None,
                ..letter.clone()
            };
            let letter = self.post(copy);
            self.after(20, 4_000, Event::Arrives { letter });
        }
        let letter = self.post(letter);
        if !self.faulty(6) {
            let (low, high) = if self.faulty(3) { (100, 2_500) } else { (1, 6) };
            self.after(low, high, Event::Arrives { letter });
        }
        letter
    }

    fn post(&mut self, letter: Letter) -> u64 {
        self.numbers += 1;
        self.letters.insert(self.numbers, letter);
        self.numbers
    }

    pub(super) fn arrives(&mut self, letter: u64) {
        let Some(Letter { node, command, .. }) = self.letters.get(&letter).cloned() else {
            return;
        };
        let n = &self.nodes[node];
        if !n.up || n.no_operator_until > self.now {
            self.letters.remove(&letter);
            return;
        }
        if !n.runs(self.now) {
            return self.again(Event::Arrives { letter });
        }
        if let Order::Role(Command::Promote { epoch, .. } | Command::Initialize { epoch, .. }) =
            command
        {
            // Before a command makes a node master, the Lease has to say so too.
            if !self.ask(node, Wish::Confirm { epoch, letter }) {
                self.again(Event::Arrives { letter });
            }
        } else if let Order::Members {
            epoch,
            concern,
            recorded,
        } = command
        {
            self.change_members(node, letter, epoch, (recorded, concern));
        } else {
            self.carry_out(letter);
        }
    }

    pub(super) fn carry_out(&mut self, letter: u64) {
        let Some(Letter {
            node,
            command: Order::Role(command),
            ..
        }) = self.letters.get(&letter).cloned()
        else {
            return;
        };
        let (now, until) = (self.now, self.clock(node) + HOLD);
        let n = &mut self.nodes[node];
        let outcome = n.command(&mut self.checks, now, &command);
        self.note(&format!("{node} <- {command:?}: {outcome:?}"));
        let n = &mut self.nodes[node];
        if let (Ok(Effect::HoldWrites), Command::Handover { plan, .. }) = (&outcome, &command) {
            let end = n.end().offset;
            let plan = *plan;
            n.hold = Some(Hold {
                plan,
                until,
                settles_until: None,
                end,
                letter,
            });
        } else if World::survived(&outcome) {
            self.reply(letter, outcome.is_ok());
        }
        self.moved(node);
    }

    /// The answer goes out. A refusal says no more than that.
    pub(super) fn reply(&mut self, letter: u64, done: bool) {
        let lost = self.faulty(6);
        let Some(Letter { node, from, .. }) = self.letters.get(&letter).cloned() else {
            return;
        };
        let state = done.then(|| self.state(node));
        if lost || from.is_none() {
            self.letters.remove(&letter);
            return;
        }
        if let Some(letter) = self.letters.get_mut(&letter) {
            letter.answer = state;
        }
        self.after(1, 6, Event::Answered { letter });
    }

    pub(super) fn answer_arrives(&mut self, letter: u64) {
        if let Some(Letter {
            from: Some(from),
            answer,
            ..
        }) = self.letters.remove(&letter)
        {
            self.operator_hears(from, letter, answer);
        }
    }

    /// What the master does by itself once the target holds everything, or does not in time.
    pub(super) fn finish_handover(&mut self, node: usize) {
        let (now, clock) = (self.now, self.clock(node));
        let n = &mut self.nodes[node];
        let Some(hold) = n.hold else { return };
        let waits = !breakage::on(Breakage::HandOverWithoutWaiting);
        let target = hold.plan.target;
        let there = n.roster.durable_of(target);
        let live = n
            .feeds
            .values()
            .any(|f| f.seat.is_some_and(|(id, _)| id == target));
        self.checks.counted(target, there, live);
        if clock >= hold.until || waits && there.is_none() {
            return self.end_handover(node, hold);
        }
        if waits && there.is_none_or(|durable| durable < hold.end) {
            return;
        }
        // Writes that wait for more replicas than the target, for half of the time that is left.
        let half = clock + (hold.until - clock) / 2;
        let settles_until = hold.settles_until.unwrap_or(half);
        n.hold = Some(Hold {
            settles_until: Some(settles_until),
            ..hold
        });
        let settling = n.quorum.settle(&n.roster, hold.plan.from_epoch, hold.end);
        if waits && settling == Settling::NotYet && clock < settles_until {
            return;
        }
        if self.nodes[node].no_role_until > now || self.faulty(3) {
            self.note(&format!("{node} cannot note {:?}", hold.plan));
            self.checks.handovers_failed += 1;
            return self.end_handover(node, hold);
        }
        let n = &mut self.nodes[node];
        let finish = Command::FinishHandover { plan: hold.plan };
        let outcome = n.command(&mut self.checks, now, &finish);
        self.note(&format!("{node} finishes {:?}: {outcome:?}", hold.plan));
        if outcome.is_ok() {
            self.checks.handovers += 1;
        }
        if World::survived(&outcome) {
            self.reply(hold.letter, outcome.is_ok());
        }
        self.moved(node);
    }

    /// It goes on writing.
    fn end_handover(&mut self, node: usize, hold: Hold) {
        let n = &mut self.nodes[node];
        n.hold = None;
        n.quorum.unsettle();
        self.reply(hold.letter, false);
    }

    pub(super) fn fence(epoch: u64) -> Command {
        Command::Fence {
            cluster: CLUSTER,
            epoch,
        }
    }
}
