//! Runs with a scripted beginning: what chance alone hardly ever meets, and what must cost no full sync.
//!
//! What is to happen has to happen: each script sees that it did, in each run, or somewhere among its runs where chance
//! decides how one goes. One in which nothing happens proves nothing.

use super::Time;
use super::many::attempt;
use super::operator::{Mode, Stage};
use super::runs::Course;
use super::world::World;
use crate::position::Position;

mod acks;
mod interrupted;

pub(super) use acks::{
    lowered_to_none, one_too_few, removal_after_a_failed_handover, removal_sent_twice,
};

/// For longer than any run: what is gone for so long does not come back by itself.
const GONE: Time = 60_000;

/// A cluster of three, at work for a second, in which nothing happens that the script does not say.
fn at_work(seed: u64) -> World {
    let mut world = World::new(seed, Course::scripted());
    world.run_until(1_000);
    assert_eq!(world.nodes[0].writing, Some(1));
    world
}

/// A cluster of three at work, each of whose writes waits for `acks` replicas.
fn confirming(seed: u64, acks: u32) -> World {
    let course = Course {
        acks,
        ..Course::scripted()
    };
    let mut world = World::new(seed, course);
    world.run_until(1_000);
    world.until(|w| w.lease.grant.concern.acks == acks && w.lease.grant.concern.members.len() == 3);
    world.wait(100);
    assert!(world.checks.acknowledged_at_k > 0);
    world
}

/// For what has to hold with and without acknowledgements.
fn beginning(seed: u64, acks: u32) -> World {
    if acks == 0 {
        at_work(seed)
    } else {
        confirming(seed, acks)
    }
}

impl World {
    fn wait(&mut self, time: Time) {
        self.run_until(self.now + time);
    }

    /// Runs until something is the case.
    fn until(&mut self, what: impl Fn(&World) -> bool) {
        while !what(self) {
            assert!(self.now < self.course.heal_at, "it never is");
            self.wait(1);
        }
    }

    /// Whom the Lease names.
    fn holder(&self) -> Option<usize> {
        self.lease.grant.holder.map(|h| h.node)
    }

    /// The step of the change of master that is under way.
    fn stage(&self) -> Option<Stage> {
        self.status.target.map(|t| t.step)
    }

    /// The second operator takes the lead; the first stands still in the middle of what it does, and then goes on.
    fn take_over(&mut self, stall: Time) {
        self.operators[0].stalled_until = self.now + stall;
        self.operators[0].leads = false;
        self.operators[1].leads = true;
    }

    fn switch_to(&mut self, node: usize) {
        self.ask_for(Mode::Switchover, node);
        self.wait(1_000);
        assert!(self.nodes[node].writing.is_some(), "{:?}", self.lease);
    }

    /// Nothing gets from one node to the other, nor back, until they are put together again.
    fn part(&mut self, a: usize, b: usize) {
        self.blocked[a][b] += 1;
        self.blocked[b][a] += 1;
    }

    fn together(&mut self, a: usize, b: usize) {
        self.blocked[a][b] -= 1;
        self.blocked[b][a] -= 1;
    }
}

#[test]
fn a_restart_of_either_side_or_a_cut_costs_no_full_sync() {
    for seed in 0..8 {
        let mut world = at_work(seed);
        world.crash_for(1, 800);
        world.wait(1_500);
        world.crash_for(0, 300);
        world.wait(800);
        world.cut(2);
        world.wait(300);
        world.block(0, 2);
        world.block(2, 0);
        let checks = world.run().checks;
        assert_eq!((checks.retakes, checks.full_syncs), (1, 0));
        assert!(checks.partial_syncs >= 5);
    }
}

#[test]
fn a_chain_of_three_switchovers_under_writes_loses_nothing_and_costs_no_full_sync() {
    for seed in 0..8 {
        let mut world = at_work(seed);
        for node in [1, 2, 0] {
            world.switch_to(node);
        }
        let checks = world.run().checks;
        assert_eq!((checks.switchovers, checks.failovers), (3, 0));
        assert_eq!(checks.masters(), [0, 1, 2, 0]);
        assert_eq!(
            (checks.full_syncs, checks.truncations),
            (0, 0),
            "zero bytes copied"
        );
        assert_eq!(checks.lost_to_failover, 0);
    }
}

#[test]
fn a_master_that_restarts_before_any_replica_is_back_diverges_from_nobody() {
    for seed in 0..8 {
        let mut world = at_work(seed);
        world.part(0, 1);
        world.part(0, 2);
        world.wait(60);
        assert!(world.nodes[0].end() > world.nodes[1].end().max(world.nodes[2].end()));
        world.crash_for(0, 200);
        world.until(|w| w.nodes[0].writing == Some(2));
        world.wait(300);
        world.together(0, 1);
        world.together(0, 2);
        let checks = world.run().checks;
        assert_eq!((checks.full_syncs, checks.retakes), (0, 1));
    }
}

#[test]
fn a_master_that_restarts_at_any_moment_of_a_switchover_loses_nothing() {
    let (mut stages, mut ends) = (Vec::new(), Vec::new());
    for delay in (0..240).step_by(4) {
        let mut world = at_work(delay);
        world.ask_for(Mode::Switchover, 1);
        world.wait(delay);
        stages.push(world.stage());
        world.crash_for(0, 400);
        let checks = world.run().checks;
        assert_eq!(checks.lost_to_failover, 0, "delay {delay}");
        ends.push((checks.switchovers, checks.failovers));
    }
    assert!(stages.contains(&Some(Stage::Reserved)), "{stages:?}");
    assert!(stages.contains(&Some(Stage::HandingOver)), "{stages:?}");
    assert!(ends.contains(&(0, 0)) && ends.contains(&(1, 0)), "{ends:?}");
}

#[test]
fn a_target_that_dies_at_any_moment_of_a_switchover_stops_nobody_for_good() {
    let (mut stages, mut ends) = (Vec::new(), Vec::new());
    for delay in 0..120 {
        let mut world = at_work(delay);
        world.ask_for(Mode::Switchover, 1);
        world.wait(delay);
        stages.push(world.stage());
        // When it has been granted the epoch, it is promoted after that, or replaced.
        world.crash_for(1, if delay % 2 == 0 { 1_000 } else { 3_000 });
        let checks = world.run().checks;
        ends.push((checks.switchovers, checks.failovers));
    }
    assert!(stages.contains(&Some(Stage::Reserved)), "{stages:?}");
    assert!(stages.contains(&Some(Stage::HandingOver)), "{stages:?}");
    for end in [(0, 0), (1, 0), (0, 1)] {
        assert!(ends.contains(&end), "{ends:?}");
    }
}

#[test]
fn a_master_cut_off_from_the_lease_but_not_from_its_replicas_is_replaced() {
    for seed in 0..8 {
        let mut world = at_work(seed);
        world.nodes[0].no_lease_until = world.now + 3_500;
        world.nodes[0].no_operator_until = world.now + 3_500;
        world.wait(3_400);
        assert!(world.holder().is_some_and(|holder| holder != 0));
        assert!(
            world.nodes[0].permit_until < world.clock(0),
            "it acknowledges nothing"
        );
        let checks = world.run().checks;
        assert_eq!(checks.failovers, 1);
    }
}

#[test]
fn three_masters_in_a_row_that_each_reach_only_one_replica_end_in_one_history() {
    for seed in 0..8 {
        let mut world = at_work(seed);
        for _ in 0..3 {
            let Some(master) = world.holder() else {
                panic!("no master")
            };
            // The one that does not hear of what is written now is the one that is left.
            let deaf = (master + 1) % 3;
            let hears = 3 - master - deaf;
            world.part(master, deaf);
            world.until(|w| {
                let heard = w.nodes[hears].end();
                Some(heard.epoch) == w.nodes[master].writing && heard > w.nodes[deaf].end()
            });
            world.wait(80);
            world.crash_for(master, 2_300);
            let before = world.checks.masters().len();
            world.until(|w| w.checks.masters().len() > before);
            world.together(master, deaf);
        }
        let checks = world.run().checks;
        let masters = checks.masters();
        let others = |w: &[usize]| w[0] != w[1] && w[1] != w[2] && w[0] != w[2];
        assert!(masters.windows(3).any(others), "{masters:?}");
        assert_eq!(checks.failovers, 3);
    }
}

#[test]
fn a_volume_that_comes_back_empty_is_filled_and_never_made_master() {
    for seed in 0..8 {
        let mut world = at_work(seed);
        let lost = world.nodes[1].id;
        world.lose_volume(1);
        assert_eq!(world.nodes[1].end(), Position::ZERO);
        world.crash_for(0, 300);
        world.wait(2_600);
        let n = &world.nodes[1];
        assert!(n.id != lost && n.role.has_data);
        let checks = world.run().checks;
        assert_eq!(
            (checks.empties, checks.retakes, checks.failovers),
            (1, 1, 0)
        );
        assert_eq!(checks.openers(), [0]);
    }
}

#[test]
fn without_an_operator_a_restarted_master_goes_on_by_itself() {
    let mut world = at_work(1);
    world.operators_away = true;
    world.crash_for(0, 2_000);
    let checks = world.run().checks;
    assert_eq!((checks.retakes, checks.full_syncs), (1, 0));
}

#[test]
fn five_nodes_whose_masters_each_reach_one_replica_and_come_back_in_turn_end_in_one_history() {
    for seed in 0..12 {
        let course = Course {
            nodes: 5,
            ..Course::scripted()
        };
        let mut world = World::new(seed, course);
        world.run_until(1_000);
        // The most advanced one is out of the operator's reach each time, so that another history begins.
        for _ in 0..3 {
            let Some(master) = world.holder() else {
                panic!("no master")
            };
            let hears = (master + 1) % 5;
            let deaf: Vec<usize> = (0..5).filter(|n| *n != master && *n != hears).collect();
            deaf.iter().for_each(|deaf| world.part(master, *deaf));
            world.until(|w| {
                let heard = w.nodes[hears].end();
                let less = deaf.iter().all(|deaf| w.nodes[*deaf].end() < heard);
                less && Some(heard.epoch) == w.nodes[master].writing
            });
            world.wait(60);
            world.nodes[hears].no_operator_until = world.now + 2_400;
            world.crash_for(master, 2_500);
            let before = world.checks.masters().len();
            world.until(|w| w.checks.masters().len() > before);
            assert!(world.holder().is_some_and(|h| h != master && h != hears));
            deaf.iter().for_each(|deaf| world.together(master, *deaf));
        }
        let checks = world.run().checks;
        assert!(checks.masters().len() > 3, "{:?}", checks.masters());
        assert_eq!(checks.failovers, 3);
        assert!(checks.truncations > 0);
    }
}

#[test]
fn a_master_that_loses_its_volume_is_replaced_by_one_that_has_its_data() {
    for seed in 0..8 {
        let mut world = at_work(seed);
        world.lose_volume(0);
        let checks = world.run().checks;
        assert_eq!(checks.failovers, 1);
    }
}

#[test]
fn clocks_further_apart_than_the_bound_let_two_masters_acknowledge_and_clocks_within_it_do_not() {
    let alone = |seed: u64, rate: u64| {
        let mut world = World::new(seed, Course::scripted());
        world.nodes[0].clock.rate = rate;
        world.operators[0].clock.rate = 1_200;
        world.run_until(1_500);
        let n = &mut world.nodes[0];
        n.no_lease_until = world.now + 6_000;
        n.no_operator_until = world.now + 6_000;
        for other in 1..3 {
            world.block(0, other);
        }
        let checks = world.run().checks;
        assert!(checks.failovers > 0, "nobody took its place");
    };
    for seed in 0..12 {
        let within = attempt(|| alone(seed, 820));
        assert!(within.is_ok(), "{within:?}");
    }
    let beyond: Vec<String> = (0..12)
        .filter_map(|seed| attempt(|| alone(seed, 350)).err())
        .collect();
    let two = |what: &String| what.starts_with("acknowledging:");
    assert!(beyond.iter().any(two), "{beyond:?}");
}
