//! Time, the network, and what happens to whom.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use super::checks::Checks;
use super::lease::Lease;
use super::node::Node;
use super::operator::Operator;
use super::random::Random;
use super::{NODES, PERMIT, RENEW_EVERY, Time};
use crate::command::{Command, Standing};

/// How often a node looks at its clocks.
const TICK: Time = 10;
/// No run has more events; one that does goes round in circles.
const MAX_EVENTS: u64 = 500_000;

/// What can happen. Each names the process that it is for, so that a dead one's are dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Event {
    Tick { node: usize },
    Synced { node: usize, boot: u64, upto: u64 },
    Accept { connection: u64 },
    Deliver { connection: u64, to: Side },
    Closed { connection: u64, to: Side },
    Start { node: usize },
    Client,
    Operator,
    Fault,
    Unblock { from: usize, to: usize },
}

/// An end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Side {
    Master,
    Replica,
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

impl Side {
    fn other(self) -> Self {
        match self {
            Side::Master => Side::Replica,
            Side::Replica => Side::Master,
        }
    }
}

/// What a run does to its nodes by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// No faults from then on.
    pub(super) heal_at: Time,
    /// The end.
    pub(super) end_at: Time,
    /// Whether faults happen by chance.
    pub(super) faults: bool,
    /// Whether switchovers are asked for by chance.
    pub(super) switchovers: bool,
    /// Operations kept in the log.
    pub(super) log_size: u64,
    /// Whether checkpoints are written, and the log is cut behind them.
    pub(super) checkpoints: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            heal_at: 9_000,
            end_at: 16_000,
            faults: true,
            switchovers: true,
            log_size: 60,
            checkpoints: true,
        }
    }
}

pub(super) struct World {
    pub(super) now: Time,
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) nodes: Vec<Node>,
    pub(super) lease: Lease,
    pub(super) checks: Checks,
    pub(super) operator: Operator,
    pub(super) connections: BTreeMap<u64, Connection>,
    /// Nothing gets from the first to the second.
    pub(super) blocked: [[u32; NODES]; NODES],
    /// Clients pause, so that nothing is written.
    pub(super) quiet: bool,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    connections_made: u64,
    /// Values written so far.
    pub(super) writes: u64,
    trace: u64,
    print: bool,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        let mut world = World {
            now: 0,
            plan,
            random: Random::new(seed),
            nodes: (0..NODES).map(Node::new).collect(),
            lease: Lease::default(),
            checks: Checks::default(),
            operator: Operator::default(),
            connections: BTreeMap::new(),
            blocked: [[0; NODES]; NODES],
            quiet: false,
            events: BinaryHeap::new(),
            sequence: 0,
            connections_made: 0,
            writes: 0,
            trace: seed,
            print: std::env::var("SIM_SEED").is_ok(),
        };
        for node in 0..NODES {
            world.at(0, Event::Tick { node });
        }
        world.at(0, Event::Operator);
        world.at(300, Event::Client);
        world.at(600, Event::Fault);
        world
    }

    /// Runs until `until`, or to the end.
    pub(super) fn run_until(&mut self, until: Time) {
        while let Some(Reverse((at, _, event))) = self.events.peek().copied()
            && at <= until.min(self.plan.end_at)
        {
            self.events.pop();
            self.now = at;
            self.trace(event);
            self.happen(event);
            assert!(self.sequence < MAX_EVENTS, "the run does not come to rest");
        }
        self.now = until.min(self.plan.end_at);
    }

    /// Runs to the end and returns the trace's hash.
    pub(super) fn run(mut self) -> (u64, Checks) {
        self.run_until(self.plan.end_at);
        self.converged();
        (self.trace, self.checks)
    }

    pub(super) fn at(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    pub(super) fn after(&mut self, low: Time, high: Time, event: Event) {
        let at = self.now + self.random.between(low, high);
        self.at(at, event);
    }

    /// Adds an event, and where every log ends before it, to the trace.
    fn trace(&mut self, event: Event) {
        let mut hasher = xxhash_rust::xxh3::Xxh3::with_seed(self.trace);
        (self.now, event).hash(&mut hasher);
        for node in &self.nodes {
            let end = node.log.end();
            (end.position, end.chain.0, node.durable, node.role.promised).hash(&mut hasher);
        }
        self.trace = hasher.finish();
        if self.print && !matches!(event, Event::Tick { .. }) {
            self.note(&format!("{event:?}"));
        }
    }

    /// Says something to whoever looks into one run.
    pub(super) fn note(&self, what: &str) {
        if self.print {
            let ends: Vec<u64> = self.nodes.iter().map(|n| n.end().offset).collect();
            println!("{} {what} {ends:?}", self.now);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick { node } => {
                self.at(self.now + TICK, Event::Tick { node });
                if self.nodes[node].runs(self.now) {
                    self.tick(node);
                }
            }
            Event::Synced { node, boot, upto } => {
                if self.nodes[node].boot != boot || !self.nodes[node].up {
                    return;
                }
                if !self.nodes[node].runs(self.now) {
                    return self.at(self.now + TICK, event);
                }
                self.nodes[node].sync_under_way = false;
                self.nodes[node].synced(upto);
                self.moved(node);
            }
            Event::Accept { connection } => self.accept_now(connection),
            Event::Deliver { connection, to } | Event::Closed { connection, to } => {
                self.arrive(connection, to, event);
            }
            Event::Start { node } => {
                if !self.nodes[node].up {
                    self.nodes[node].start(&mut self.checks, self.now);
                    self.retake(node);
                }
            }
            Event::Client => {
                self.after(3, 30, Event::Client);
                self.client();
            }
            Event::Operator => {
                self.after(20, 60, Event::Operator);
                self.operate();
            }
            Event::Fault => {
                if self.plan.faults && self.now < self.plan.heal_at {
                    self.after(100, 900, Event::Fault);
                    self.fault();
                }
            }
            Event::Unblock { from, to } => self.blocked[from][to] -= 1,
        }
    }

    fn tick(&mut self, node: usize) {
        self.renew(node);
        let now = self.now;
        let hold = self.nodes[node].hold;
        if hold.is_some_and(|h| now >= h.until) {
            self.nodes[node].hold = None;
        }
        self.connect(node);
        self.tick_sessions(node);
        self.moved(node);
    }

    fn renew(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let Some(epoch) = n.writing else {
            return self.retake(node);
        };
        if self.now >= n.renew_at {
            n.renew_at = self.now + RENEW_EVERY;
            let in_reach = n.reaches_lease(self.now);
            if in_reach && self.lease.renew(node, n.boot, epoch) {
                n.permit_until = self.now + PERMIT;
            } else if in_reach {
                n.permit_until = 0;
            }
        }
    }

    /// A restarted master goes on in the next epoch, as long as the Lease names its node.
    fn retake(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let was_master = matches!(n.role.standing, Standing::Master { .. });
        if n.writing.is_some() || !was_master || !n.reaches_lease(self.now) {
            return;
        }
        let Some(epoch) = self.lease.retake(node, n.boot, n.role.promised) else {
            return;
        };
        let opened = n.command(&mut self.checks, &Command::Retake { epoch });
        if opened.is_ok() {
            n.permit_until = self.now + PERMIT;
            self.checks.retakes += 1;
            self.nothing_lost(node, "restart of the master");
        }
        self.moved(node);
    }

    pub(super) fn nothing_lost(&self, node: usize, what: &str) {
        let n = &self.nodes[node];
        self.checks.nothing_lost(what, |p| {
            p.offset <= n.end().offset && n.role.history.epoch_at(p.offset) == p.epoch
        });
    }

    /// Log, disk or role of a node moved: replies, sessions and the disk follow.
    pub(super) fn moved(&mut self, node: usize) {
        let now = self.now;
        let n = &mut self.nodes[node];
        self.checks.durable(node, n.durable);
        n.acknowledge(&mut self.checks, now);
        n.roster.appended(n.end().offset, now);
        if n.durable < n.end().offset && !n.sync_under_way && n.up {
            n.sync_under_way = true;
            let (boot, upto) = (n.boot, n.end().offset);
            let slow = self.random.chance(2);
            let (low, high) = if slow { (50, 400) } else { (1, 6) };
            self.after(low, high, Event::Synced { node, boot, upto });
        }
        if self.plan.checkpoints && self.random.chance(3) {
            let log_size = self.plan.log_size;
            self.nodes[node].checkpoint(log_size);
        }
        self.feeds_moved(node);
        self.follow_moved(node);
    }

    /// Whether two nodes can make a connection.
    pub(super) fn reaches(&self, a: usize, b: usize) -> bool {
        self.blocked[a][b] == 0 && self.blocked[b][a] == 0
    }

    /// A connection on its way to be accepted.
    pub(super) fn make_connection(&mut self, master: usize, replica: usize) -> u64 {
        self.connections_made += 1;
        let connection = self.connections_made;
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

    fn accept_now(&mut self, connection: u64) {
        let Some(c) = self.connections.get_mut(&connection) else {
            return;
        };
        let master = c.master;
        if !self.nodes[master].up {
            self.close(connection, Side::Master);
        } else if self.nodes[master].frozen_until > self.now {
            self.at(self.now + TICK, Event::Accept { connection });
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

    fn arrive(&mut self, connection: u64, to: Side, event: Event) {
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
            return self.at(self.now + TICK, event);
        }
        if matches!(event, Event::Closed { .. }) {
            self.lost(node, connection, to);
            self.close(connection, to);
        } else if let Some(bytes) = c.queues[to as usize].pop_front() {
            self.received(node, connection, to, &bytes);
        }
    }

    /// After all faults are over: one master, three nodes with the same log and the same data, and writes go on.
    fn converged(&mut self) {
        let holder = self.lease.holder.map(|(node, _)| node);
        let master = holder.filter(|m| self.nodes[*m].writing == Some(self.lease.epoch));
        let Some(master) = master else {
            panic!(
                "convergence: no master: {:?}, {:?}",
                self.lease, self.operator
            );
        };
        let digest = self.nodes[master].store.digest();
        for n in &self.nodes {
            let role = &n.role.standing;
            assert!(
                n.log.end() == self.nodes[master].log.end(),
                "convergence: node {} ({role:?}) ends at {}, the master {master} at {}",
                n.index,
                n.end(),
                self.nodes[master].end()
            );
            assert!(
                n.store.digest() == digest,
                "convergence: node {} has other data",
                n.index
            );
            self.checks.exact(n.index, &n.store);
        }
        self.nothing_lost(master, "the end");
    }
}
