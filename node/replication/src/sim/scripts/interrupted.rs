//! Changes of master that something comes into the way of, without acknowledgements (k = 0) and with them.

use super::super::EXPIRE;
use super::super::Time;
use super::super::operator::{Mode, Stage};
use super::super::world::{Event, World};
use super::{GONE, beginning};
use crate::command::Standing;

impl World {
    /// The operator has seen the Lease run out, and stands still for `stall` before it does what it has decided.
    fn stall_at_expiry(&mut self, stall: Time) {
        self.until(|w| w.operators[0].unchanged(w.now) >= EXPIRE - 1);
        self.operators[0].stall_next = Some(stall);
        self.until(|w| w.operators[0].stalled_until > w.now);
        assert_eq!(self.holder(), Some(0), "nothing is done yet");
    }
}

#[test]
fn a_master_that_restarts_between_the_reservation_of_a_switchover_and_its_next_step_is_not_taken_for_the_old_one()
 {
    for (seed, acks) in (0..24).flat_map(|seed| [(seed, 0), (seed, 1)]) {
        let mut world = beginning(seed, acks);
        world.ask_for(Mode::Switchover, 1);
        world.until(|w| w.stage().is_some());
        let goes_on = world.now + 150 + 20 * seed;
        world.operators[0].stalled_until = goes_on;
        world.crash_for(0, 100);
        world.run_until(goes_on - 1);
        let between = (world.stage(), world.nodes[0].writing);
        assert_eq!(between, (Some(Stage::Reserved), Some(2)), "seed {seed}");
        let checks = world.run().checks;
        assert_eq!((checks.retakes, checks.handovers), (1, 0), "seed {seed}");
        assert_eq!((checks.openers(), checks.lost_to_failover), (vec![0], 0));
    }
}

#[test]
fn a_master_that_restarts_between_the_reservation_of_a_failover_and_its_next_step_is_not_taken_for_the_old_one()
 {
    for (seed, acks) in (0..24).flat_map(|seed| [(seed, 0), (seed, 1)]) {
        let mut world = beginning(seed, acks);
        world.crash_for(0, GONE);
        world.wait(300);
        world.ask_for(Mode::Failover, 1);
        // It has decided to make the Lease vacant, and goes on to do so when the master is back.
        world.stall_at_expiry(150 + 20 * seed);
        let goes_on = world.operators[0].stalled_until;
        world.at(world.now + 100, Event::Start { node: 0 });
        world.run_until(goes_on - 1);
        let between = (world.stage(), world.nodes[0].writing);
        assert_eq!(between, (Some(Stage::Reserved), Some(2)), "seed {seed}");
        let before = world.checks.refused;
        let checks = world.run().checks;
        assert!(checks.refused > before, "seed {seed}");
        assert_eq!((checks.retakes, checks.failovers), (1, 0), "seed {seed}");
        assert_eq!((checks.openers(), checks.lost_to_failover), (vec![0], 0));
    }
}

#[test]
fn a_frozen_master_that_wakes_about_when_its_lease_runs_out_never_writes_beside_another() {
    for acks in [0, 1] {
        let mut failovers = Vec::new();
        for wake in (EXPIRE - 300..EXPIRE + 600).step_by(20) {
            let mut world = beginning(wake, acks);
            world.nodes[0].frozen_until = world.now + wake;
            failovers.push(world.run().checks.failovers);
        }
        assert!(failovers.contains(&0) && failovers.contains(&1));
    }
}

#[test]
fn a_frozen_master_that_renews_just_after_its_lease_was_seen_to_run_out_keeps_it_or_loses_it_whole()
{
    for acks in [0, 1] {
        let (mut kept, mut lost) = (0, 0);
        for wake in (200..450).step_by(5) {
            let mut world = beginning(wake, acks);
            world.nodes[0].frozen_until = world.now + GONE;
            // It wakes up before the operator makes the Lease vacant, while it does, or after that.
            world.stall_at_expiry(300);
            let version = world.lease.version;
            world.nodes[0].frozen_until = world.now + wake;
            world.run_until(world.operators[0].stalled_until - 1);
            let renewed = world.lease.version > version;
            let before = world.checks.refused;
            let checks = world.run().checks;
            if checks.failovers == 0 {
                assert_eq!((checks.openers(), checks.retakes), (vec![0], 0));
                kept += 1;
            } else {
                assert!(!renewed, "a Lease that was renewed was made vacant");
                assert_eq!((checks.openers()[0], checks.failovers), (0, 1));
                lost += 1;
            }
            assert!(!renewed || checks.refused > before);
        }
        assert!(kept > 10 && lost > 10, "{kept} kept it, {lost} lost it");
    }
}

#[test]
fn an_empty_volume_is_no_candidate_although_nobody_else_answers() {
    let (mut replaced, mut waited) = (0, 0);
    for (seed, acks) in (0..24).flat_map(|seed| [(seed, 0), (seed, 1)]) {
        let mut world = beginning(seed, acks);
        let lost = world.nodes[1].id;
        // It is back, and cannot be filled.
        world.part(0, 1);
        world.part(1, 2);
        world.lose_volume(1);
        world.until(|w| w.nodes[1].up);
        world.wait(10 * seed);
        world.nodes[2].no_operator_until = world.now + 3_000;
        world.crash_for(0, 5_000);
        world.wait(2_900);
        let n = &world.nodes[1];
        assert!(n.runs(world.now) && !n.role.has_data);
        assert!(!matches!(n.role.standing, Standing::Master { .. }));
        assert_eq!((world.holder(), world.checks.failovers), (Some(0), 0));
        // Then the other one answers. While the lost node is on record, it may be the one that has a write.
        let enough = acks == 0 || !world.lease.grant.concern.members.contains(&lost);
        world.wait(1_500);
        assert_eq!(world.checks.failovers, u64::from(enough), "seed {seed}");
        replaced += u64::from(acks > 0 && enough);
        waited += u64::from(!enough);
        world.together(0, 1);
        world.together(1, 2);
        let checks = world.run().checks;
        let openers = checks.openers();
        assert!(!openers.contains(&1), "seed {seed}: {openers:?}");
    }
    assert!(replaced > 0 && waited > 0, "{replaced}, {waited}");
}

#[test]
fn a_second_operator_that_acts_on_old_knowledge_changes_nothing_or_is_told_so() {
    let (mut late, mut refused, mut switched) = (0, 0, 0);
    for delay in 0..120 {
        let mut world = beginning(delay, (delay / 2 % 2) as u32);
        let failover = delay % 2 == 1;
        if failover {
            world.crash_for(0, 2_500);
            world.until(|w| w.status.target.is_some());
        } else {
            world.ask_for(Mode::Switchover, 1);
        }
        world.wait(delay);
        world.take_over(1_800);
        let known = world.status_version;
        world.wait(900);
        world.ask_for(Mode::Switchover, 2);
        world.wait(800);
        late += u64::from(world.operators[0].is_amid() && world.status_version > known);
        let checks = world.run().checks;
        assert!(failover || checks.lost_to_failover == 0, "delay {delay}");
        refused += checks.refused;
        switched += u64::from(checks.openers().contains(&2));
    }
    let counts = [late, refused, switched];
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
}
