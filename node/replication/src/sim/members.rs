//! Members and write concern on a master, step by step as `node/src/lease/leadership.rs` does it, and the writes that
//! wait for acknowledgements, as in `node/src/replicas.rs`. Who counts, and what is answered, is the shipped `Quorum`.

use uuid::Uuid;

use super::Time;
use super::checks::Checks;
use super::lease::Wish;
use super::node::Node;
use super::volume::Died;
use super::world::World;
use crate::breakage::{self, Breakage};
use crate::concern::{Change, Concern, Level, Membership};
use crate::position::{History, Position};
use crate::quorum::{Over, Wait};

/// A change of members may take so long.
const DEADLINE: Time = 500;

/// A change of members under way.
#[derive(Clone, Debug)]
pub(super) struct Changing {
    pub(super) letter: u64,
    epoch: u64,
    /// What the operator knew to be on record.
    known: Concern,
    wish: Concern,
    /// On the node's clock.
    until: Time,
    /// What is recorded once everything up to the offset is covered.
    covering: Option<(u64, Concern)>,
}

impl Node {
    /// What replicas are told never to give up.
    pub(super) fn covered_offset(&mut self) -> u64 {
        self.quorum.covered(&self.roster, self.durable)
    }

    /// Replies that may go out now, while the Lease asks for `on_record` acknowledgements, whether this node knows that
    /// or not. Returns what replicas were waited for, and how many.
    pub(super) fn acknowledge(
        &mut self,
        checks: &mut Checks,
        now: Time,
        on_record: u32,
    ) -> Vec<(Position, u32)> {
        let skip_fsync = breakage::on(Breakage::SkipFsync);
        let mut covered = Vec::new();
        while let Some(position) = self
            .waiting
            .pop_front_if(|p| p.offset <= self.durable || skip_fsync)
        {
            let Position { epoch, offset } = position;
            // None asks for more than the cluster does.
            if let Wait::Over(position) = self.quorum.wait(epoch, offset, 0, position) {
                covered.push((position, self.quorum.acks()));
            }
        }
        let lowering = self.quorum.membership().and_then(Membership::lowering);
        let over = self.quorum.take_over(&self.roster).into_iter();
        covered.extend(over.map(|Over { who, acks, .. }| (who, acks)));
        for &(position, acks) in &covered {
            if self.writing == Some(position.epoch) && self.clock.monotonic(now) < self.permit_until
            {
                let promised = self.role.promised;
                // A number that is in use and not on record yet promises nothing of failovers, nor one that is to go.
                let acks = acks.min(on_record).min(lowering.unwrap_or(u32::MAX));
                checks.acknowledged(self.index, self.boot, promised, position, acks, now);
            }
        }
        covered.retain(|(_, acks)| *acks > 0);
        covered
    }

    /// Enough replicas hold everything up to there, this one among them.
    pub(super) fn covered(&mut self, offset: u64) -> Result<(), Died> {
        let offset = offset.min(self.durable);
        if offset > self.role.covered.offset {
            let epoch = self.role.history.epoch_at(offset);
            self.save(|role| role.covered = Position { epoch, offset })?;
        }
        Ok(())
    }

    /// Whether a log with this history that ends at `end` has everything that must not be given up.
    pub(super) fn keeps_covered(&self, history: &History, end: u64) -> bool {
        let covered = self.role.covered;
        end >= covered.offset && history.epoch_at(covered.offset) == covered.epoch
    }
}

impl World {
    /// Acknowledged at k: so many other disks hold it, and each quorum that a failover may fence has one that does.
    pub(super) fn held(&self, node: usize, position: Position, acks: u32) {
        let shows =
            |n: &Node| n.quorum.level() == Level::Durable || n.shown.offset >= position.offset;
        let holds = |n: &&Node| n.durable >= position.offset && n.has(position) && shows(n);
        let holders = self.nodes.iter().filter(|n| n.index != node && holds(n));
        self.checks.held(position, acks, holders.count());
        self.in_every_quorum(position);
    }

    fn in_every_quorum(&self, position: Position) {
        let concern = &self.lease.grant.concern;
        let lacks = |id: &&Uuid| {
            let member = self.nodes.iter().find(|n| n.id == **id);
            member.is_some_and(|n| n.durable < position.offset || !n.has(position))
        };
        if concern.acks > 0 {
            let lacking = concern.members.iter().filter(lacks).count();
            self.checks.in_every_quorum(position, lacking, concern);
        }
    }

    /// What is on record has changed: whatever was acknowledged is in each of its quorums, or known to be secured.
    pub(super) fn record_holds(&self) {
        let grant = &self.lease.grant;
        for position in self.checks.confirmed() {
            self.in_every_quorum(position);
            if grant.concern.acks == 0 {
                self.checks.secured(position, grant.secured);
            }
        }
    }

    /// The operator wants other members, or another number of acknowledgements.
    pub(super) fn change_members(
        &mut self,
        node: usize,
        letter: u64,
        epoch: u64,
        (known, wish): (Concern, Concern),
    ) {
        let until = self.clock(node) + DEADLINE;
        let n = &mut self.nodes[node];
        if n.writing != Some(epoch) || n.changing.is_some() {
            return self.reply(letter, false);
        }
        n.changing = Some(Changing {
            letter,
            epoch,
            known,
            wish,
            until,
            covering: None,
        });
        // An earlier change may have been recorded without an answer.
        if !self.ask(node, Wish::Confirm { epoch, letter }) {
            self.end_change(node, false);
        }
    }

    /// The Lease grants the epoch to this process, with these members.
    pub(super) fn confirmed(&mut self, node: usize, epoch: u64, letter: u64, concern: Concern) {
        let n = &mut self.nodes[node];
        if let Some(changing) = n.changing.as_ref().filter(|c| c.letter == letter) {
            if concern != changing.known && concern != changing.wish {
                return self.end_change(node, false);
            }
            // Who was there when the command was given may be gone, its volume too.
            let mut joins = changing.wish.members.difference(&concern.members);
            if joins.any(|id| *id != n.id && n.roster.durable_of(*id).is_none()) {
                return self.end_change(node, false);
            }
            let settle = |m: &mut Membership| {
                if *m.on_record() != concern {
                    m.recorded(concern.clone());
                }
            };
            n.quorum.step(epoch, settle);
            return self.next_change(node);
        }
        // A command that is given twice finds this node at work in that epoch, perhaps amid a change.
        if n.writing != Some(epoch) {
            n.quorum.grant(epoch, n.id, concern);
        }
        self.carry_out(letter);
    }

    fn next_change(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let Some(changing) = &mut n.changing else {
            return;
        };
        let epoch = changing.epoch;
        match n.quorum.step(epoch, |m| m.towards(&changing.wish)) {
            None | Some(Err(_)) => self.end_change(node, false),
            Some(Ok(Change::Done)) => self.end_change(node, true),
            Some(Ok(Change::Record(concern))) => self.record_change(node, epoch, concern),
            Some(Ok(Change::CoverThenRecord(concern))) => {
                changing.covering = Some((n.log.end().position.offset, concern));
                self.tick_change(node);
            }
        }
    }

    fn record_change(&mut self, node: usize, epoch: u64, concern: Concern) {
        let n = &self.nodes[node];
        let membership = n.quorum.membership();
        let secured = membership.map_or(Position::ZERO, |m| m.secured(&n.role.history));
        let wish = Wish::Record {
            epoch,
            concern,
            secured,
        };
        if !self.ask(node, wish) {
            // Something else is being asked: nothing was sent.
            self.nodes[node].quorum.step(epoch, Membership::given_up);
            self.end_change(node, false);
        }
    }

    pub(super) fn change_recorded(&mut self, node: usize, epoch: u64, concern: Concern) {
        self.note(&format!("{node} recorded {concern:?}"));
        self.checks.changes += 1;
        let quorum = &mut self.nodes[node].quorum;
        quorum.step(epoch, |m| m.recorded(concern));
        self.next_change(node);
    }

    /// Looks whether everything so far is covered by those who are to count.
    pub(super) fn tick_change(&mut self, node: usize) {
        let clock = self.clock(node);
        let n = &mut self.nodes[node];
        let Some(changing) = &n.changing else { return };
        let Some((end, concern)) = changing.covering.clone() else {
            return;
        };
        let (epoch, until) = (changing.epoch, changing.until);
        let counted = n.quorum.counted(&n.roster, epoch, end, concern.acks);
        let skips = breakage::on(Breakage::RecordUncovered);
        if counted == Some(true) || concern.acks == 0 || skips {
            if let Some(changing) = &mut n.changing {
                changing.covering = None;
            }
            // Another request may be under way: then later, as it takes the API server's lock.
            if n.asking.is_some() {
                if let Some(changing) = &mut n.changing {
                    changing.covering = Some((end, concern));
                }
                return;
            }
            self.record_change(node, epoch, concern);
        } else if clock >= until || counted.is_none() {
            n.quorum.step(epoch, Membership::given_up);
            self.end_change(node, false);
        }
    }

    pub(super) fn end_change(&mut self, node: usize, done: bool) {
        if let Some(changing) = self.nodes[node].changing.take() {
            self.reply(changing.letter, done);
        }
    }
}
