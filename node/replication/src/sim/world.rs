//! Time, and what happens to whom.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{Hash, Hasher};

use super::Time;
use super::checks::Checks;
use super::clock::Clock;
use super::control::Letter;
use super::lease::{Lease, Request as LeaseRequest};
use super::network::{Connection, Side};
use super::node::Node;
use super::operator::{Operator, Request, Spec, Status};
use super::random::Random;
use super::runs::Course;
use crate::concern::Concern;

/// How often a node looks at its clocks.
const TICK: Time = 10;
/// No run has more events; one that does goes round in circles.
const MAX_EVENTS: u64 = 1_000_000;

/// What can happen. Each names the process that it is for, so that a dead one's are dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Event {
    Tick { node: usize },
    Synced { node: usize, log: u64, upto: u64 },
    Accept { connection: u64 },
    Deliver { connection: u64, to: Side },
    Closed { connection: u64, to: Side },
    Start { node: usize },
    AtLease { number: u64 },
    FromLease { number: u64 },
    Arrives { letter: u64 },
    Answered { letter: u64 },
    Client,
    Operator { index: usize },
    Fault,
    Unblock { from: usize, to: usize },
    Heal,
}

pub(super) struct World {
    pub(super) now: Time,
    pub(super) course: Course,
    pub(super) random: Random,
    /// Apart, so that what it decides changes nothing else.
    pub(super) wall_random: Random,
    pub(super) nodes: Vec<Node>,
    pub(super) lease: Lease,
    pub(super) requests: BTreeMap<u64, LeaseRequest>,
    /// The next record reaches the API server twice.
    pub(super) sends_twice: bool,
    pub(super) letters: BTreeMap<u64, Letter>,
    pub(super) status: Status,
    pub(super) status_version: u64,
    pub(super) operators: [Operator; 2],
    /// Nobody writes while this is set.
    pub(super) clients_rest: bool,
    /// Nobody operates while this is set.
    pub(super) operators_away: bool,
    /// What the resource's spec asks for: acknowledgements, and the one node that is not wanted.
    pub(super) spec: Spec,
    /// What a person asked for last.
    pub(super) request: Option<Request>,
    pub(super) checks: Checks,
    pub(super) connections: BTreeMap<u64, Connection>,
    /// Nothing gets from the first to the second.
    pub(super) blocked: Vec<Vec<u32>>,
    /// Clients pause, so that nothing is written.
    pub(super) quiet: bool,
    /// Numbers for connections, requests and letters.
    pub(super) numbers: u64,
    /// Values written so far.
    pub(super) writes: u64,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    /// Hash over all that happened, and over its order alone.
    trace: u64,
    shape: u64,
    print: bool,
}

/// How a run ended.
pub(super) struct Outcome {
    pub(super) trace: u64,
    /// As the trace, without the bytes, in which the time stands.
    pub(super) shape: u64,
    pub(super) checks: Checks,
}

impl World {
    pub(super) fn new(seed: u64, course: Course) -> Self {
        let mut random = Random::new(seed);
        let mut nodes: Vec<Node> = (0..course.nodes).map(Node::new).collect();
        nodes
            .iter_mut()
            .for_each(|n| n.quorum.set_level(course.level));
        let mut operators = [Operator::default(), Operator::default()];
        operators[0].leads = true;
        if course.skewed {
            let clocks = nodes.iter_mut().map(|n| &mut n.clock);
            for clock in clocks.chain(operators.iter_mut().map(|o| &mut o.clock)) {
                *clock = Clock::any(&mut random);
            }
        }
        let mut world = World {
            now: 0,
            course,
            random,
            wall_random: Random::new(seed ^ 0xc10c),
            nodes,
            lease: Lease::default(),
            requests: BTreeMap::new(),
            sends_twice: false,
            letters: BTreeMap::new(),
            status: Status::default(),
            status_version: 0,
            operators,
            clients_rest: false,
            operators_away: false,
            spec: Spec {
                acks: course.acks,
                unwanted: None,
            },
            request: None,
            checks: Checks::default(),
            connections: BTreeMap::new(),
            blocked: vec![vec![0; course.nodes]; course.nodes],
            quiet: false,
            numbers: 0,
            writes: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            trace: seed,
            shape: seed,
            print: std::env::var("SIM_SEED").is_ok(),
        };
        for node in 0..course.nodes {
            world.at(0, Event::Tick { node });
        }
        world.at(0, Event::Operator { index: 0 });
        world.at(5, Event::Operator { index: 1 });
        world.at(300, Event::Client);
        world.at(600, Event::Fault);
        world.at(course.heal_at, Event::Heal);
        world
    }

    /// Runs until `until`, or to the end.
    pub(super) fn run_until(&mut self, until: Time) {
        while let Some(Reverse((at, _, event))) = self.events.peek().copied()
            && at <= until.min(self.course.end_at)
        {
            self.events.pop();
            self.now = at;
            self.trace(event);
            self.happen(event);
            self.reap();
            self.positions();
            assert!(
                self.sequence < MAX_EVENTS,
                "convergence: the run does not come to rest"
            );
        }
        self.now = until.min(self.course.end_at);
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Outcome {
        self.run_until(self.course.end_at);
        self.converged();
        Outcome {
            trace: self.trace,
            shape: self.shape,
            checks: self.checks,
        }
    }

    pub(super) fn at(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    pub(super) fn after(&mut self, low: Time, high: Time, event: Event) {
        let at = self.now + self.random.between(low, high);
        self.at(at, event);
    }

    /// The same once more, a little later.
    pub(super) fn again(&mut self, event: Event) {
        self.at(self.now + TICK, event);
    }

    /// Whether something goes wrong that does in `percent` of 100 cases.
    pub(super) fn faulty(&mut self, percent: u64) -> bool {
        self.course.faults && self.now < self.course.heal_at && self.random.chance(percent)
    }

    /// What a node's monotonic clock shows.
    pub(super) fn clock(&self, node: usize) -> Time {
        self.nodes[node].clock.monotonic(self.now)
    }

    /// Adds an event, and where every log ends before it, to the trace.
    fn trace(&mut self, event: Event) {
        let mut shape = xxhash_rust::xxh3::Xxh3::with_seed(self.shape);
        (self.now, event).hash(&mut shape);
        let mut chains = xxhash_rust::xxh3::Xxh3::with_seed(self.trace);
        for node in &self.nodes {
            let end = node.log.end();
            (end.position, node.durable, node.role.promised).hash(&mut shape);
            end.chain.0.hash(&mut chains);
        }
        self.shape = shape.finish();
        self.shape.hash(&mut chains);
        self.trace = chains.finish();
        if self.print && !matches!(event, Event::Tick { .. } | Event::Operator { .. }) {
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
                self.again(Event::Tick { node });
                if self.nodes[node].runs(self.now) {
                    self.tick(node);
                }
            }
            Event::Synced { node, log, upto } => self.synced(node, log, upto),
            Event::Accept { connection } => self.accept_now(connection),
            Event::Deliver { connection, to } | Event::Closed { connection, to } => {
                self.arrive(connection, to, event);
            }
            Event::Start { node } => self.start(node),
            Event::AtLease { number } => self.at_lease(number),
            Event::FromLease { number } => self.lease_answers(number),
            Event::Arrives { letter } => self.arrives(letter),
            Event::Answered { letter } => self.answer_arrives(letter),
            Event::Client => {
                self.after(3, 30, Event::Client);
                if !self.clients_rest {
                    self.client();
                }
            }
            Event::Operator { index } => {
                self.after(20, 60, Event::Operator { index });
                self.ask_by_chance();
                self.operate(index);
            }
            Event::Fault => {
                if self.course.faults && self.now < self.course.heal_at {
                    self.after(100, 900, Event::Fault);
                    self.fault();
                }
            }
            Event::Unblock { from, to } => self.blocked[from][to] -= 1,
            Event::Heal => self.heal(),
        }
    }

    fn tick(&mut self, node: usize) {
        self.tick_lease(node);
        self.finish_handover(node);
        self.tick_change(node);
        self.connect(node);
        self.tick_sessions(node);
        self.moved(node);
    }

    fn synced(&mut self, node: usize, log: u64, upto: u64) {
        let n = &mut self.nodes[node];
        if n.log_version != log || !n.up {
            return;
        }
        if !n.runs(self.now) {
            return self.again(Event::Synced { node, log, upto });
        }
        n.sync_under_way = false;
        // A failed fsync ends the process, and the world notices.
        let _ = n.synced(upto);
        self.moved(node);
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].up || self.nodes[node].deleted {
            return;
        }
        if !self.nodes[node].reads(self.now) {
            // It ends again at once, and is started again.
            return self.at(self.now + 20 * TICK, Event::Start { node });
        }
        self.nodes[node].start(&mut self.checks, self.now);
    }

    /// Processes that their disk ended are started again.
    fn reap(&mut self) {
        for node in 0..self.nodes.len() {
            if std::mem::take(&mut self.nodes[node].died) {
                self.note(&format!("the disk of {node} failed"));
                self.checks.disk_failures += 1;
                self.cut(node);
                self.after(50, 1_500, Event::Start { node });
            }
        }
    }

    fn positions(&mut self) {
        for n in &mut self.nodes {
            let end = n.end();
            if end != n.seen_end {
                self.checks
                    .position(n.index, n.seen_end, end, std::mem::take(&mut n.went_back));
                n.seen_end = end;
            }
        }
    }

    pub(super) fn nothing_lost(&self, node: usize, what: &str) {
        let n = &self.nodes[node];
        self.checks.nothing_lost(what, |p| n.has(p));
    }

    /// Log, disk or role of a node moved: replies, sessions and the disk follow.
    pub(super) fn moved(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        let (now, clock) = (self.now, self.clock(node));
        let on_record = self.lease.grant.concern.acks;
        let n = &mut self.nodes[node];
        self.checks.durable(n.id, n.durable);
        let confirmed = n.acknowledge(&mut self.checks, now, on_record);
        n.roster.appended(n.end().offset, clock);
        for (position, acks) in confirmed {
            self.held(node, position, acks);
        }
        let slow = self.random.chance(2);
        self.start_sync(node, if slow { (50, 400) } else { (1, 6) });
        if self.course.checkpoints && self.random.chance(3) {
            let log_size = self.course.log_size;
            self.nodes[node].checkpoint(log_size);
        }
        self.feeds_moved(node);
        self.follow_moved(node);
    }

    /// The disk begins to follow the log.
    pub(super) fn start_sync(&mut self, node: usize, (low, high): (Time, Time)) {
        let n = &mut self.nodes[node];
        if n.up && n.durable < n.end().offset && !n.sync_under_way {
            n.sync_under_way = true;
            let (log, upto) = (n.log_version, n.end().offset);
            self.after(low, high, Event::Synced { node, log, upto });
        }
    }

    /// After all faults are over: one master, nodes with the same log and the same data, and writes go on.
    fn converged(&mut self) {
        let grant = self.lease.grant.clone();
        let holder = grant.holder.map(|h| h.node);
        let master = holder.filter(|m| self.nodes[*m].writing == Some(grant.epoch));
        let Some(master) = master else {
            panic!(
                "convergence: no master: {:?}, {:?}",
                self.lease, self.status
            );
        };
        let m = &self.nodes[master];
        for n in &self.nodes {
            self.checks.converged(n, m);
            self.checks.exact(n.index, &n.store, n.end());
        }
        if self.course.acks > 0 {
            let acks = self.spec.acks;
            let never = acks == 0 && grant.concern.members.is_empty();
            let members = self.nodes.iter().map(|n| n.id).filter(|_| !never);
            let members = members.collect();
            self.checks
                .agreed(&grant.concern, &Concern { members, acks });
        }
        let since = self.course.heal_at;
        assert!(
            self.checks.acknowledged_at > since,
            "convergence: nothing was acknowledged after {since}"
        );
        self.nothing_lost(master, "the end");
    }
}
