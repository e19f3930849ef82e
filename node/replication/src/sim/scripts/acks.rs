//! Write concern: what replicas were waited for, and changes of members and of their number.

use std::collections::BTreeSet;

use super::super::operator::Mode;
use super::super::world::{Event, World};
use super::{GONE, confirming};
use crate::concern::Concern;
use crate::position::Position;

impl World {
    /// The last write that replicas were waited for.
    fn last_confirmed(&self) -> Position {
        self.checks.confirmed().last().unwrap_or(Position::ZERO)
    }

    /// Tells the master to change to these members, whatever an operator would say.
    fn change_by_hand(&mut self, master: usize, members: &[usize]) {
        let known = self.lease.grant.concern.clone();
        let members = members.iter().map(|n| self.nodes[*n].id).collect();
        let epoch = self.lease.grant.epoch;
        let wish = Concern {
            members,
            ..known.clone()
        };
        // Nobody waits for the answer.
        self.change_members(master, 0, epoch, (known, wish));
    }

    /// Acknowledgements that a master goes by, and those that it knows to be on record.
    fn in_use_and_on_record(&self, node: usize) -> (u32, u32) {
        let membership = self.nodes[node].quorum.membership();
        membership.map_or((0, 0), |m| (m.in_use().acks, m.on_record().acks))
    }
}

#[test]
fn what_two_replicas_were_waited_for_survives_the_loss_of_the_master_and_of_one_of_them() {
    for seed in 0..12 {
        let mut world = confirming(seed, 2);
        world.part(0, 2);
        world.until(|w| w.nodes[2].end() < w.nodes[1].end());
        world.wait(60);
        world.crash_for(0, 4_000);
        world.nodes[1].no_operator_until = world.now + 3_500;
        world.until(|w| w.checks.failovers == 1);
        assert_eq!(world.holder(), Some(2));
        world.together(0, 2);
        let checks = world.run().checks;
        assert_eq!((checks.failovers, checks.lost_to_failover), (1, 0));
    }
}

/// One of two replicas lacks what was acknowledged, the master dies, and only that one answers for a while: one member
/// less than hold every acknowledged write between them. Chance alone hardly ever meets that.
pub(in super::super) fn one_too_few(seed: u64) -> World {
    let mut world = confirming(seed, 1);
    world.part(0, 2);
    world.until(|w| !w.nodes[2].has(w.last_confirmed()));
    world.crash_for(0, 4_500);
    world.nodes[1].no_operator_until = world.now + 3_000;
    world.wait(2_900);
    world
}

#[test]
fn a_failover_waits_until_one_of_those_who_answer_holds_every_acknowledged_write() {
    for seed in 0..12 {
        let world = one_too_few(seed);
        assert!(!world.nodes[2].has(world.last_confirmed()));
        assert_eq!((world.holder(), world.checks.failovers), (Some(0), 0));
        let checks = world.run().checks;
        assert_eq!((checks.openers(), checks.failovers), (vec![0, 1], 1));
    }
}

/// The number is lowered to 0 while one replica lacks what was acknowledged before; the master dies, and only that one
/// answers at first. Chance alone hardly ever meets that.
pub(in super::super) fn lowered_to_none(seed: u64) -> World {
    let mut world = confirming(seed, 1);
    world.blocked[0][2] += 1;
    world.until(|w| !w.nodes[2].has(w.last_confirmed()));
    world.spec.acks = 0;
    world.until(|w| w.lease.grant.concern.acks == 0);
    world.wait(60);
    world.crash_for(0, 4_000);
    world.nodes[1].no_operator_until = world.now + 3_000;
    world.wait(2_500);
    world.blocked[0][2] -= 1;
    world
}

/// One of two replicas lacks what was acknowledged; a handover to the other settles that, and fails. Then the other is to
/// be removed: what it alone acknowledged says nothing of those who stay.
pub(in super::super) fn removal_after_a_failed_handover(seed: u64) -> World {
    let mut world = confirming(seed, 1);
    world.blocked[0][1] += 1;
    world.until(|w| !w.nodes[1].has(w.last_confirmed()));
    world.nodes[0].no_role_until = world.now + 250;
    world.ask_for(Mode::Switchover, 2);
    world.until(|w| w.checks.handovers_failed > 0);
    world.clients_rest = true;
    world.change_by_hand(0, &[0, 1]);
    world.wait(50);
    world.clients_rest = false;
    world.wait(400);
    world.blocked[0][1] -= 1;
    world
}

#[test]
fn what_a_failed_handover_settled_covers_no_removal() {
    for seed in 0..12 {
        let world = removal_after_a_failed_handover(seed);
        assert_eq!(world.lease.grant.concern.members.len(), 3, "seed {seed}");
        let checks = world.run().checks;
        assert!(checks.handovers_failed > 0 && checks.failovers == 0);
    }
}

/// The record of a removal reaches the API server twice, and the second sending's conflict comes back; then those who stay
/// fall behind.
pub(in super::super) fn removal_sent_twice(seed: u64) -> World {
    let mut world = confirming(seed, 1);
    world.sends_twice = true;
    world.scale_away(2);
    world.until(|w| w.lease.grant.concern.members.len() == 2);
    world.blocked[0][1] += 1;
    world.wait(100);
    world.blocked[0][1] -= 1;
    world
}

#[test]
fn a_removal_that_was_recorded_and_answered_with_a_conflict_holds() {
    for seed in 0..12 {
        let mut world = removal_sent_twice(seed);
        let settled = |w: &World| {
            w.nodes[0]
                .quorum
                .membership()
                .is_some_and(|m| m.settled().is_some())
        };
        assert!(!world.sends_twice);
        world.until(settled);
        let checks = world.run().checks;
        assert_eq!(checks.openers(), [0]);
    }
}

#[test]
fn what_replicas_were_told_to_be_covered_is_secured_although_nothing_is_written_before_the_number_is_lowered()
 {
    for seed in 0..12 {
        let mut world = confirming(seed, 1);
        world.clients_rest = true;
        world.wait(300);
        world.spec.acks = 0;
        world.until(|w| w.lease.grant.concern.acks == 0);
        let covered = world.nodes.iter().map(|n| n.role.covered).max();
        assert!(covered.is_some_and(|covered| covered > Position::ZERO));
        assert!(covered <= Some(world.lease.grant.secured));
        world.clients_rest = false;
        world.run();
    }
}

#[test]
fn what_a_replica_was_waited_for_before_the_number_was_lowered_to_0_is_not_given_up_after() {
    for seed in 0..12 {
        let world = lowered_to_none(seed);
        assert!(world.nodes[2].end() < world.lease.grant.secured);
        assert!(!world.nodes[2].has(world.last_confirmed()));
        assert_eq!(world.checks.failovers, 0);
        let checks = world.run().checks;
        assert_eq!(checks.failovers, 1);
    }
}

#[test]
fn a_number_that_is_raised_counts_in_a_failover_only_once_everything_is_covered_that_way() {
    let (mut used, mut recorded) = (0, 0);
    for delay in (0..400).step_by(10) {
        let mut world = confirming(delay, 1);
        world.part(0, 2);
        world.until(|w| !w.nodes[2].has(w.last_confirmed()));
        // One replica holds what was acknowledged since; a failover that trusted the new number would do without it.
        world.spec.acks = 2;
        world.wait(delay.min(200));
        if delay > 200 {
            world.together(0, 2);
            world.wait(delay - 200);
            world.part(0, 2);
        }
        match world.in_use_and_on_record(0) {
            (2, 1) if !world.nodes[2].has(world.last_confirmed()) => used += 1,
            (2, 2) => recorded += 1,
            _ => {}
        }
        world.crash_for(0, 4_500);
        world.nodes[1].no_operator_until = world.now + 3_000;
        world.wait(2_900);
        let alone = world.lease.grant.concern.acks == 2;
        assert_eq!(world.checks.failovers, u64::from(alone), "delay {delay}");
        world.wait(1_100);
        world.together(0, 2);
        let checks = world.run().checks;
        assert_eq!((checks.failovers, checks.lost_to_failover), (1, 0));
    }
    assert!(used > 10 && recorded > 10, "{used}, {recorded}");
}

#[test]
fn a_removal_that_a_restart_interrupts_loses_neither_the_member_nor_what_only_it_holds() {
    let (mut under_way, mut recorded, mut deleted) = (0, 0, 0);
    for delay in (0..400).step_by(10) {
        for down in [100, 3_500] {
            let mut world = confirming(delay, 1);
            world.part(0, 2);
            world.wait(60);
            let gone = world.nodes[1].id;
            world.scale_away(1);
            world.wait(delay.min(200));
            world.together(0, 2);
            world.wait(delay.saturating_sub(200));
            let removed = !world.lease.grant.concern.members.contains(&gone);
            let only_there = !world.nodes[2].has(world.last_confirmed());
            if world.nodes[0].changing.is_some() && !removed && only_there {
                under_way += 1;
            }
            recorded += u64::from(removed);
            world.crash_for(0, down);
            let checks = world.run().checks;
            assert_eq!(checks.lost_to_failover, 0, "delay {delay}, down {down}");
            assert_eq!(
                (checks.retakes, checks.failovers),
                if down == 100 { (1, 0) } else { (0, 1) }
            );
            deleted += checks.deleted;
        }
    }
    let counts = [under_way, recorded, deleted];
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
}

#[test]
fn three_masters_in_a_row_that_each_write_to_one_replica_lose_nothing_that_was_acknowledged() {
    for seed in 0..40 {
        let mut world = confirming(seed, 1);
        let mut away: Option<usize> = None;
        for _ in 0..3 {
            let Some(master) = world.holder() else {
                panic!("no master")
            };
            // One hears nothing of what this master writes: at first any, then the master before, which comes back late.
            let deaf = away.unwrap_or((master + 1) % 3);
            world.part(master, deaf);
            world.wait(20 + seed * 3);
            world.until(|w| {
                let written = w.last_confirmed();
                Some(written.epoch) == w.nodes[master].writing && !w.nodes[deaf].has(written)
            });
            if away.is_some() {
                world.at(world.now, Event::Start { node: deaf });
                world.wait(50);
            }
            let written = world.last_confirmed();
            assert!(!world.nodes[deaf].has(written), "{deaf} heard of {written}");
            world.crash_for(master, GONE);
            world.until(|w| {
                w.holder()
                    .is_some_and(|h| h != master && w.nodes[h].writing.is_some())
            });
            world.together(master, deaf);
            away = Some(master);
        }
        let back = away.into_iter();
        back.for_each(|node| world.at(world.now + 500, Event::Start { node }));
        let checks = world.run().checks;
        assert_eq!(checks.masters().len(), 4, "{:?}", checks.masters());
        let masters: BTreeSet<usize> = checks.masters().into_iter().collect();
        assert_eq!((masters.len(), checks.failovers), (3, 3));
        assert_eq!(checks.lost_to_failover, 0);
    }
}

/// Raft's figure 8. The first master writes what no replica gets, and dies; the second opens its epoch alone, and dies;
/// the first is chosen again, and one replica gets what it had written, which makes as many disks as are asked for.
/// That is not enough: the second, whose epoch is higher, is chosen after it, and does not have it.
#[test]
fn what_an_earlier_epoch_left_is_not_safe_because_enough_replicas_hold_it() {
    let mut happened = 0;
    for seed in 0..40 {
        let mut world = confirming(seed, 1);
        // For less than it takes to notice that nobody answers.
        world.part(0, 1);
        world.part(0, 2);
        world.wait(500 + seed * 5);
        world.crash_for(0, GONE);
        world.part(1, 2);
        world.until(|w| {
            w.holder()
                .is_some_and(|h| h != 0 && w.nodes[h].writing.is_some())
        });
        let Some(second) = world.holder() else {
            panic!("no master")
        };
        let third = 3 - second;
        world.wait(20);
        world.crash_for(second, GONE);
        world.at(world.now, Event::Start { node: 0 });
        world.together(0, third);
        let (left, has) = (world.nodes[0].end(), world.nodes[third].end());
        assert!(left > has);
        world.until(|w| w.nodes[third].end() > has);
        world.crash_for(0, GONE);
        world.wait(50);
        let got = world.nodes[third].end();
        assert_eq!(world.holder(), Some(0));
        if got.epoch != left.epoch {
            // What came with it was the record of the next epoch already.
            continue;
        }
        happened += 1;
        world.until(|w| w.nodes[third].durable >= got.offset);
        world.at(world.now, Event::Start { node: second });
        world.together(1, 2);
        world.until(|w| w.holder() == Some(second) && w.nodes[second].writing.is_some());
        world.together(0, second);
        world.at(world.now + 500, Event::Start { node: 0 });
        world.until(|w| !w.nodes[third].has(got));
        let checks = world.run().checks;
        assert_eq!(checks.openers(), [0, second, 0, second]);
        assert_eq!((checks.failovers, checks.lost_to_failover), (3, 0));
        assert!(checks.truncations >= 2);
    }
    assert!(happened > 20, "{happened} of 40");
}

#[test]
fn a_member_whose_volume_is_lost_is_replaced_by_the_node_that_comes_back() {
    for node in 0..3 {
        let mut world = confirming(node as u64, 1);
        let lost = world.nodes[node].id;
        world.lose_volume(node);
        world.until(|w| {
            let members = &w.lease.grant.concern.members;
            !members.contains(&lost) && members.contains(&w.nodes[node].id)
        });
        let checks = world.run().checks;
        assert_eq!(checks.failovers, u64::from(node == 0));
    }
}

#[test]
fn a_second_operator_that_changes_members_from_old_knowledge_loses_nothing() {
    let (mut late, mut refused) = (0, 0);
    for delay in (0..300).step_by(5) {
        let mut world = confirming(delay, 1);
        world.scale_away(2);
        world.wait(delay);
        // What the first has decided it does when another has changed other things, or the master is another process.
        world.operators[0].stall_next = Some(1_200);
        world.until(|w| w.operators[0].stalled_until > w.now);
        world.take_over(1_200);
        let known = world.lease.grant.clone();
        world.spec.acks = 2;
        world.want_again();
        world.wait(300);
        if delay % 2 == 0 {
            world.crash_for(0, 300);
        }
        world.wait(800);
        late += u64::from(world.operators[0].is_amid() && world.lease.grant != known);
        let checks = world.run().checks;
        refused += checks.refused;
    }
    assert!(late > 10 && refused > 5, "{late}, {refused}");
}
