//! Connections between nodes: in order, late, blocked in one direction or cut.

use std::collections::VecDeque;

use bytes::Bytes;

use super::world::{Event, World};
use super::{LONGEST_PIECE, Time, WINDOW};

/// What may be on its way besides operations: answers, heartbeats, the handshake.
const SMALL_TALK: usize = 3_000;

/// An end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Side {
    Master,
    Replica,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Side::Master => Side::Replica,
            Side::Replica => Side::Master,
        }
    }
}

pub(super) struct Connection {
    pub(super) master: usize,
    pub(super) replica: usize,
    accepted: bool,
    open: [bool; 2],
    queues: [VecDeque<Bytes>; 2],
    last_at: [Time; 2],
}

impl Connection {
    fn node(&self, side: Side) -> usize {
        match side {
            Side::Master => self.master,
            Side::Replica => self.replica,
        }
    }
}

impl World {
    /// Whether two nodes can make a connection.
    pub(super) fn reaches(&self, a: usize, b: usize) -> bool {
        self.blocked[a][b] == 0 && self.blocked[b][a] == 0
    }

    /// A connection on its way to be accepted.
    pub(super) fn make_connection(&mut self, master: usize, replica: usize) -> u64 {
        self.numbers += 1;
        let connection = self.numbers;
        let made = Connection {
            master,
            replica,
            accepted: false,
            open: [true; 2],
            queues: Default::default(),
            last_at: [self.now; 2],
        };
        self.connections.insert(connection, made);
        self.after(1, 10, Event::Accept { connection });
        connection
    }

    pub(super) fn accept_now(&mut self, connection: u64) {
        let Some(c) = self.connections.get_mut(&connection) else {
            return;
        };
        let master = c.master;
        if !self.nodes[master].up {
            self.close(connection, Side::Master);
        } else if !self.nodes[master].runs(self.now) {
            self.again(Event::Accept { connection });
        } else {
            c.accepted = true;
            self.accept(master, connection);
        }
    }

    /// Sends bytes to a side: in order, late, and not at all while the way is blocked.
    pub(super) fn send(&mut self, connection: u64, to: Side, bytes: Bytes) {
        let delay = if self.random.chance(5) { 60 } else { 4 };
        let at = self.now + self.random.between(1, delay);
        let Some(c) = self.connections.get_mut(&connection) else {
            return;
        };
        let last = &mut c.last_at[to as usize];
        *last = at.max(*last);
        let at = *last;
        c.queues[to as usize].push_back(bytes);
        if to == Side::Replica {
            let under_way: usize = c.queues[to as usize].iter().map(Bytes::len).sum();
            self.checks
                .buffered(under_way, WINDOW + LONGEST_PIECE + SMALL_TALK);
        }
        self.at(at, Event::Deliver { connection, to });
    }

    /// A side has closed: the other learns of it after what is still under way.
    pub(super) fn close(&mut self, connection: u64, side: Side) {
        if let Some(c) = self.connections.get_mut(&connection) {
            c.open[side as usize] = false;
            let to = side.other();
            let at = c.last_at[to as usize].max(self.now) + 1;
            if c.open[to as usize] {
                self.at(at, Event::Closed { connection, to });
            } else {
                self.connections.remove(&connection);
            }
        }
    }

    pub(super) fn arrive(&mut self, connection: u64, to: Side, event: Event) {
        let Some(c) = self.connections.get_mut(&connection) else {
            return;
        };
        if !c.open[to as usize] {
            return;
        }
        let (node, from) = (c.node(to), c.node(to.other()));
        let late = self.blocked[from][node] > 0
            || !self.nodes[node].runs(self.now)
            || !c.accepted && to == Side::Master;
        if late && self.nodes[node].up {
            return self.again(event);
        }
        if matches!(event, Event::Closed { .. }) {
            self.lost(node, connection, to);
        } else if let Some(bytes) = c.queues[to as usize].pop_front() {
            self.received(node, connection, to, &bytes);
        }
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
