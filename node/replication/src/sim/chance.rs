//! What clients and bad luck do.

use super::world::{Event, Side, World};
use super::{KEYS, Time};

impl World {
    pub(super) fn client(&mut self) {
        // In the end everything comes to rest.
        if self.quiet || self.now + 1_500 > self.plan.end_at {
            return;
        }
        // Mostly to whom the Lease names, sometimes to anybody.
        let node = match self.lease.holder {
            Some((node, _)) if !self.random.chance(10) => node,
            Some(_) | None => self.random.node(),
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

    pub(super) fn fault(&mut self) {
        let (node, other) = (self.random.node(), self.random.node());
        let soon = self.now + self.random.between(50, 2_500);
        match self.random.below(12) {
            0..=2 => self.crash(node),
            3..=4 => self.nodes[node].frozen_until = soon,
            10..=11 => self.nodes[node].isolated_until = soon + 1_500,
            5..=6 => self.block(node, other),
            7 => {
                self.block(node, other);
                self.block(other, node);
            }
            _ => self.cut(node),
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
        let kept = self.random.below(self.nodes[node].end().offset + 2);
        self.nodes[node].crash(kept);
        self.cut(node);
        self.at(self.now + down, Event::Start { node });
    }

    /// Nothing gets from one node to another for a while.
    pub(super) fn block(&mut self, from: usize, to: usize) {
        self.blocked[from][to] += 1;
        self.after(100, 2_500, Event::Unblock { from, to });
    }

    /// Every connection of a node breaks.
    pub(super) fn cut(&mut self, node: usize) {
        let mine: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| c.master == node || c.replica == node)
            .map(|(id, _)| *id)
            .collect();
        for connection in mine {
            for to in [Side::Master, Side::Replica] {
                self.at(self.now, Event::Closed { connection, to });
            }
        }
    }
}
