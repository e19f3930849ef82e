//! Runs with a scripted beginning: what chance alone hardly ever meets, and what must cost no full sync.

use super::operator::Mode;
use super::runs::Course;
use super::world::World;
use super::{EXPIRE, Time};
use crate::command::Standing;

/// A cluster of three, at work for a second, in which nothing happens that the script does not say.
fn at_work(seed: u64) -> World {
    let mut world = World::new(seed, Course::scripted());
    world.run_until(1_000);
    assert_eq!(world.nodes[0].writing, Some(1));
    world
}

impl World {
    fn wait(&mut self, time: Time) {
        self.run_until(self.now + time);
    }

    fn switch_to(&mut self, node: usize) {
        self.ask_for(Mode::Switchover, node);
        self.wait(1_000);
        assert!(self.nodes[node].writing.is_some(), "{:?}", self.lease);
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
        assert_eq!(checks.full_syncs, 0);
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
        world.block(0, 1);
        world.block(0, 2);
        world.wait(60);
        world.crash_for(0, 200);
        world.wait(2_600);
        let checks = world.run().checks;
        assert_eq!((checks.full_syncs, checks.retakes), (0, 1));
    }
}

#[test]
fn a_master_that_restarts_at_any_moment_of_a_switchover_loses_nothing() {
    for delay in (0..240).step_by(8) {
        let mut world = at_work(delay);
        world.ask_for(Mode::Switchover, 1);
        world.wait(delay);
        world.crash_for(0, 400);
        let checks = world.run().checks;
        assert_eq!(checks.lost_to_failover, 0, "delay {delay}");
    }
}

#[test]
fn a_target_that_dies_at_any_moment_of_a_switchover_stops_nobody_for_good() {
    for delay in (0..240).step_by(8) {
        let mut world = at_work(delay);
        world.ask_for(Mode::Switchover, 1);
        world.wait(delay);
        world.crash_for(1, 1_000);
        world.run();
    }
}

#[test]
fn a_frozen_master_that_wakes_about_when_its_lease_runs_out_never_writes_beside_another() {
    for wake in (EXPIRE - 300..EXPIRE + 600).step_by(20) {
        let mut world = at_work(wake);
        world.nodes[0].frozen_until = world.now + wake;
        world.run();
    }
}

#[test]
fn a_master_cut_off_from_the_lease_but_not_from_its_replicas_is_replaced() {
    for seed in 0..8 {
        let mut world = at_work(seed);
        world.nodes[0].no_lease_until = world.now + 3_500;
        world.nodes[0].no_operator_until = world.now + 3_500;
        world.wait(3_400);
        assert_ne!(world.lease.grant.holder.map(|h| h.node), Some(0));
        assert!(
            world.nodes[0].permit_until < world.clock(0),
            "it acknowledges nothing"
        );
        world.run();
    }
}

#[test]
fn three_masters_in_a_row_that_each_reach_only_one_replica_end_in_one_history() {
    for seed in 0..8 {
        let mut world = at_work(seed);
        for _ in 0..3 {
            let Some(master) = world.lease.grant.holder.map(|h| h.node) else {
                panic!("no master")
            };
            // The one that does not hear of what is written now is the one that is left.
            let deaf = (master + 1) % 3;
            world.block(master, deaf);
            world.wait(80);
            world.crash_for(master, 1_600);
            world.wait(2_000);
        }
        world.run();
    }
}

#[test]
fn a_volume_that_comes_back_empty_is_filled_and_never_made_master() {
    for seed in 0..8 {
        let mut world = at_work(seed);
        world.lose_volume(1);
        world.crash_for(0, 300);
        world.wait(2_600);
        assert!(!matches!(
            world.nodes[1].role.standing,
            Standing::Master { .. }
        ));
        let checks = world.run().checks;
        assert_eq!(checks.failovers, 0);
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
