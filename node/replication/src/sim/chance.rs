//! What clients, people and bad luck do.

use super::lease::Grant;
use super::log::Torn;
use super::operator::{Mode, Request};
use super::volume::Fuse;
use super::world::{Event, World};
use super::{KEYS, Time};

impl World {
    pub(super) fn client(&mut self) {
        // In the end everything comes to rest.
        if self.quiet || self.now + 1_500 > self.course.end_at {
            return;
        }
        // Mostly to whom the Lease names, sometimes to anybody.
        let node = match self.lease.grant.holder {
            Some(holder) if !self.random.chance(10) => holder.node,
            Some(_) | None => self.node(),
        };
        let count = self.random.between(1, 3);
        let mut changes = Vec::new();
        for _ in 0..count {
            let key = self.random.below(KEYS) as u8;
            self.writes += 1;
            let value = (!self.random.chance(25)).then_some(self.writes);
            changes.push((key, value));
        }
        if self.nodes[node].runs(self.now) {
            let now = self.now;
            self.nodes[node].write(&mut self.checks, now, &changes);
            self.moved(node);
        }
    }

    fn node(&mut self) -> usize {
        self.random.below(self.nodes.len() as u64) as usize
    }

    /// Somebody asks for another master.
    pub(super) fn ask_by_chance(&mut self) {
        let chance = self.course.switchovers && self.now < self.course.heal_at;
        if !chance || !self.random.chance(3) {
            return;
        }
        let to = self.node();
        let mode = if self.random.chance(80) {
            Mode::Switchover
        } else {
            Mode::Failover
        };
        self.ask_for(mode, to);
    }

    /// Somebody scales the cluster, or wants more or fewer acknowledgements.
    pub(super) fn edit_spec(&mut self) {
        if self.course.acks == 0 {
            return;
        }
        if self.spec.unwanted.is_some() {
            return self.want_again();
        }
        if self.random.chance(50) {
            let most = (self.nodes.len() as u64 - 1).min(2);
            self.spec.acks = self.random.between(0, most) as u32;
        } else {
            let node = self.node();
            self.scale_away(node);
        }
    }

    /// A node is wanted no more; the master is moved first, which is not what this is about.
    pub(super) fn scale_away(&mut self, node: usize) {
        if self.lease.grant.holder.is_some_and(|h| h.node != node) {
            self.note(&format!("{node} is not wanted"));
            self.spec.unwanted = Some(node);
        }
    }

    /// All nodes are wanted. One that is gone comes back, with its volume or another.
    pub(super) fn want_again(&mut self) {
        let Some(node) = self.spec.unwanted.take() else {
            return;
        };
        if std::mem::take(&mut self.nodes[node].deleted) {
            if self.random.chance(50) && self.others_have_data(node) {
                self.checks.emptied(&self.nodes[node]);
                self.nodes[node] = self.nodes[node].emptied();
            }
            self.after(1, 200, Event::Start { node });
        }
    }

    /// The pod of a node that is not wanted, and is no member, is deleted.
    pub(super) fn delete_pod(&mut self, node: usize) {
        if self.spec.unwanted != Some(node) || self.nodes[node].deleted {
            return;
        }
        let torn = self.torn();
        self.nodes[node].crash(torn);
        self.nodes[node].deleted = true;
        self.checks.deleted += 1;
        self.cut(node);
    }

    pub(super) fn ask_for(&mut self, mode: Mode, to: usize) {
        let id = self.request.map_or(0, |r| r.id) + 1;
        let to = Some(to);
        self.request = Some(Request { id, mode, to });
    }

    pub(super) fn fault(&mut self) {
        let (node, other) = (self.node(), self.node());
        let soon = self.now + self.random.between(50, 2_500);
        let kind = self.random.below(36);
        self.note(&format!("fault {kind} at {node}, until {soon}"));
        match kind {
            0..=4 => self.crash(node),
            5..=7 => self.nodes[node].frozen_until = soon,
            8..=9 => self.block(node, other),
            10 => {
                self.block(node, other);
                self.block(other, node);
            }
            11..=12 => {
                self.nodes[node].no_lease_until = soon + 1_500;
                self.nodes[node].no_operator_until = soon + 1_500;
            }
            13 => self.nodes[node].no_lease_until = soon + 1_500,
            14 => self.nodes[node].no_operator_until = soon + 1_500,
            15..=19 => self.cut(node),
            20..=23 => self.break_disk(node),
            24 => self.nodes[node].no_reads_until = soon,
            25..=26 => self.change_leader(),
            27..=28 => {
                let index = self.random.below(2) as usize;
                self.operators[index].stalled_until = soon + 1_000;
            }
            29..=30 => self.turn_wall_clock(node),
            31..=34 => self.edit_spec(),
            _ => self.empty_volume(node),
        }
    }

    /// The process dies, and comes back after a while.
    pub(super) fn crash(&mut self, node: usize) {
        let down = self.random.between(50, 2_500);
        self.crash_for(node, down);
    }

    /// The process dies, and comes back after so long.
    pub(super) fn crash_for(&mut self, node: usize, down: Time) {
        if !self.nodes[node].up {
            return;
        }
        let torn = self.torn();
        self.nodes[node].crash(torn);
        self.cut(node);
        self.at(self.now + down, Event::Start { node });
    }

    fn torn(&mut self) -> Torn {
        Torn {
            kept: self.random.below(1_000),
            flipped: self.random.chance(30).then(|| self.random.next()),
            role_is_new: self.random.chance(50),
        }
    }

    /// One of the disk's next operations fails, which ends the process.
    pub(super) fn break_disk(&mut self, node: usize) {
        let operations = self.random.below(8);
        let torn = self.torn();
        self.nodes[node].fuse = Some(Fuse { operations, torn });
    }

    /// The other instance takes the lead; the one that had it does not always know.
    fn change_leader(&mut self) {
        let old = usize::from(self.operators[1].leads);
        self.operators[1 - old].leads = true;
        if self.random.chance(70) {
            let stall = self.random.between(50, 5_000);
            self.operators[old].stalled_until = self.now + stall;
            self.operators[old].leads = false;
        }
    }

    fn turn_wall_clock(&mut self, node: usize) {
        let by = self.wall_random.between(0, 20_000_000_000) as i64 - 10_000_000_000;
        if self.course.jumps {
            self.nodes[node].clock.wall += by;
        }
    }

    /// Whether another volume holds any of it: one on which nothing was durable yet is empty after a restart.
    fn others_have_data(&self, node: usize) -> bool {
        let mut others = self.nodes.iter().filter(|n| n.index != node);
        others.any(|n| n.role.has_data && n.durable > 0)
    }

    /// A volume is lost, and the node comes back with an empty one.
    pub(super) fn empty_volume(&mut self, node: usize) {
        if self.course.empties == 0 || !self.others_have_data(node) {
            return;
        }
        self.course.empties -= 1;
        self.lose_volume(node);
    }

    pub(super) fn lose_volume(&mut self, node: usize) {
        self.checks.emptied(&self.nodes[node]);
        self.crash(node);
        self.nodes[node] = self.nodes[node].emptied();
    }

    /// Nothing gets from one node to another for a while.
    pub(super) fn block(&mut self, from: usize, to: usize) {
        self.blocked[from][to] += 1;
        self.after(100, 2_500, Event::Unblock { from, to });
    }

    /// Whoever had what is secured lost its volume, and a person knows that: the annotation says what is left.
    fn give_up_what_no_volume_has(&mut self) {
        let grant = self.lease.grant.clone();
        let left = self.nodes.iter().map(|n| n.end()).max();
        if let Some(secured) = left.filter(|left| *left < grant.secured) {
            self.note("a person gives up what no volume has");
            let nodes = &self.nodes;
            self.checks.gone(|p| nodes.iter().any(|n| n.has(p)));
            self.lease.write(Grant { secured, ..grant });
        }
    }

    /// Faults are over: whatever was broken is whole again soon, and one operator leads.
    pub(super) fn heal(&mut self) {
        for n in &mut self.nodes {
            n.fuse = None;
            n.no_reads_until = 0;
        }
        self.want_again();
        self.give_up_what_no_volume_has();
        let second = self.random.chance(50);
        self.operators[0].leads = !second;
        self.operators[1].leads = second;
    }
}
