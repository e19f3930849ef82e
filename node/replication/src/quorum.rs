//! Whose acknowledgements a master waits for, and what waits for them, from one epoch to the next.
//!
//! Members belong to the epoch that the Lease granted with them: a step of a change names its epoch and touches no other
//! membership, and nothing of an epoch is answered by the members of another. Node and simulator count with this.
//!
//! A handover settles what is still to be answered: enough replicas hold everything up to where the epoch ends, so that
//! late answers may go out when this node is master no more. That is known of those who counted then, and for answers
//! alone: it is forgotten with each change of members and when the handover fails, and what is waited for before a record
//! is counted afresh from the members in use ([`Quorum::counted`]).

use uuid::Uuid;

use crate::breakage::{self, Breakage};
use crate::concern::{Concern, Coverage, Level, Membership, Waiting};
use crate::position::Position;
use crate::roster::Roster;

/// Members, acknowledgements and waits of a master. `T` is who waits.
#[derive(Debug)]
pub struct Quorum<T> {
    /// `None` without Kubernetes: nothing records who belongs to the cluster, and whoever is fed counts.
    granted: Option<Granted>,
    /// What the configuration says, where nothing is recorded.
    least: u32,
    level: Level,
    epoch: u64,
    /// Nothing counts as covered before the epoch's own first record is.
    first_offset: u64,
    /// This node is master of the epoch no more.
    over: bool,
    waiting: Waiting<Waiter<T>>,
    settled: Option<Settled>,
    /// As many replicas as are waited for have been in sync at once, in this epoch.
    gathered: bool,
}

/// Who acknowledges in an epoch.
#[derive(Debug)]
struct Granted {
    epoch: u64,
    membership: Membership,
}

#[derive(Debug)]
struct Waiter<T> {
    offset: u64,
    who: T,
}

/// So many replicas have acknowledged an epoch up to an offset.
#[derive(Clone, Copy, Debug)]
struct Settled {
    epoch: u64,
    offset: u64,
    acks: u32,
}

/// What became of the beginning of a wait.
#[derive(PartialEq, Eq, Debug)]
#[must_use]
pub enum Wait<T> {
    /// It is over: enough replicas hold it.
    Over(T),
    /// It goes on: see [`Quorum::take_over`].
    GoesOn,
    /// This node is not master of that epoch.
    NotMaster,
}

/// A wait that is over.
#[derive(PartialEq, Eq, Debug)]
pub struct Over<T> {
    /// Up to where enough replicas hold the epoch.
    pub offset: u64,
    /// How many replicas the cluster asked for; the waiter may have asked for more.
    pub acks: u32,
    /// Who waited.
    pub who: T,
}

/// How far a handover is with what is still to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settling {
    /// Enough replicas hold all of it, or nobody is waited for.
    Done,
    /// They do not yet.
    NotYet,
    /// They cannot: too few are in sync, or this node is not master of that epoch.
    Never,
}

impl<T> Default for Quorum<T> {
    fn default() -> Self {
        Quorum {
            granted: None,
            least: 0,
            level: Level::default(),
            epoch: 0,
            first_offset: 0,
            over: false,
            waiting: Waiting::default(),
            settled: None,
            gathered: false,
        }
    }
}

impl<T> Quorum<T> {
    /// Each write waits for `acks` replicas, as long as nothing is recorded about the cluster.
    pub fn set_least(&mut self, acks: u32) {
        self.least = acks;
    }

    /// What an acknowledgement has to say.
    pub fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// What an acknowledgement has to say.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The Lease grants `epoch` to the node `own`, with these members and acknowledgements.
    pub fn grant(&mut self, epoch: u64, own: Uuid, concern: Concern) {
        let membership = Membership::granted(own, concern);
        self.granted = Some(Granted { epoch, membership });
    }

    /// Members and acknowledgements as they were granted last, and since; `None` without Kubernetes.
    pub fn membership(&self) -> Option<&Membership> {
        self.granted.as_ref().map(|granted| &granted.membership)
    }

    /// One step of a change of members, by the master of `epoch`; `None`, and nothing is done, when it is that no more.
    pub fn step<R>(&mut self, epoch: u64, change: impl FnOnce(&mut Membership) -> R) -> Option<R> {
        let ended = self.over && self.epoch == epoch;
        let granted = self.granted.as_mut().filter(|g| g.epoch == epoch && !ended);
        let done = granted.map(|granted| change(&mut granted.membership));
        if done.is_some() && !breakage::on(Breakage::RecordSettled) {
            self.settled = None;
        }
        done
    }

    /// Replicas that a write waits for, unless it asks for more.
    pub fn acks(&self) -> u32 {
        match self.membership() {
            None => self.least,
            // The configuration holds until something is recorded: no write of a new cluster comes away with less.
            Some(own) if own.on_record().members.is_empty() => own.in_use().acks.max(self.least),
            Some(own) => own.in_use().acks,
        }
    }

    /// The same for what was written in `epoch`; `None` when other members count by now.
    pub fn acks_in(&self, epoch: u64) -> Option<u32> {
        let other = self.granted.as_ref().is_some_and(|g| g.epoch != epoch);
        (!other).then(|| self.acks())
    }

    /// Who counts, and how far they are.
    pub fn coverage(&self, roster: &Roster) -> Coverage {
        // Until members were recorded, whoever is there counts.
        let membership = self.membership();
        let membership = membership.filter(|m| !m.on_record().members.is_empty());
        roster.coverage(self.level, |id| membership.is_none_or(|m| m.counts(id)))
    }

    /// Whether there were enough replicas at once since this node became master: before that, they are only connecting.
    pub fn has_gathered(&self) -> bool {
        self.gathered
    }

    /// Whether a replica that is gone is missed: only members are, once the operator has said who belongs to the cluster.
    pub fn misses(&self, node_id: Uuid) -> bool {
        let members = self.membership().map(|m| &m.on_record().members);
        members.is_none_or(|members| members.is_empty() || members.contains(&node_id))
    }

    /// This node is master of `epoch`, which begins with `first_offset`. True unless it was known.
    pub fn enter(&mut self, epoch: u64, first_offset: u64) -> bool {
        if epoch <= self.epoch {
            return false;
        }
        self.epoch = epoch;
        self.first_offset = first_offset;
        self.over = false;
        self.gathered = false;
        self.settled = None;
        self.waiting.take_all();
        true
    }

    /// This node is no longer master of `epoch`. True if that is the last one that it entered.
    pub fn leave(&mut self, epoch: u64) -> bool {
        if epoch != self.epoch {
            return false;
        }
        self.over = true;
        self.waiting.take_all();
        true
    }

    /// The offset up to which as many replicas as the cluster asks for have acknowledged; 0 while it asks for none, and
    /// until the epoch's own first record is covered. Not beyond `durable`, the offset up to which this node has it on disk.
    pub fn covered(&mut self, roster: &Roster, durable: u64) -> u64 {
        if self.acks_in(self.epoch).is_none() {
            return 0;
        }
        let offset = self.coverage(roster).at(self.acks()).unwrap_or(0);
        let offset = offset.min(durable);
        // A number in use that is not on record, or will not be: a failover may give up what it covers.
        let early = offset < self.first_offset && !breakage::on(Breakage::CoverOldEpochs);
        if self.membership().is_some_and(Membership::promises_nothing) || early {
            return 0;
        }
        self.answer(offset);
        offset
    }

    /// Somebody waits until `acks` replicas, and as many as the cluster asks for, have acknowledged `offset` of `epoch`.
    pub fn wait(&mut self, epoch: u64, offset: u64, acks: u32, who: T) -> Wait<T> {
        if self.epoch != epoch {
            return Wait::NotMaster;
        }
        if self.is_settled(epoch, offset, acks) {
            return Wait::Over(who);
        }
        if self.over {
            return Wait::NotMaster;
        }
        self.waiting.push(acks, offset, Waiter { offset, who });
        Wait::GoesOn
    }

    /// Those whose wait is over.
    pub fn take_over(&mut self, roster: &Roster) -> Vec<Over<T>> {
        if self.waiting.is_empty() && self.gathered {
            return Vec::new();
        }
        let Some(acks) = self.acks_in(self.epoch) else {
            return Vec::new();
        };
        let coverage = self.coverage(roster);
        self.gathered |= usize::try_from(acks).is_ok_and(|acks| coverage.in_sync() >= acks);
        let over = self.waiting.take_covered(&coverage, acks);
        if let Some(last) = over.iter().map(|w| w.offset).max().filter(|_| acks > 0) {
            self.answer(last);
        }
        let over = over.into_iter();
        over.map(|Waiter { offset, who }| Over { offset, acks, who })
            .collect()
    }

    /// Forgets those who wait and whom `keep` denies.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.waiting.retain(|waiter| keep(&waiter.who));
    }

    /// Whether `acks` of the members in use have acknowledged everything up to `offset` by now, whatever a handover has
    /// settled; `None` when this node is not master of `epoch`. For what is waited for before a record.
    pub fn counted(&self, roster: &Roster, epoch: u64, offset: u64, acks: u32) -> Option<bool> {
        if breakage::on(Breakage::RecordSettled) && self.is_settled(epoch, offset, acks) {
            return Some(true);
        }
        if self.epoch != epoch || self.over || self.acks_in(epoch).is_none() {
            return None;
        }
        let there = self.coverage(roster).at(acks);
        Some(there.is_none_or(|there| there >= offset))
    }

    /// For a handover that ends `epoch` at `offset`: whether what is answered late is known to be acknowledged, also when
    /// this node is no longer master. Notes it if so; [`Self::unsettle`] when the handover fails.
    pub fn settle(&mut self, roster: &Roster, epoch: u64, offset: u64) -> Settling {
        if self.epoch != epoch || self.over {
            return Settling::Never;
        }
        let Some(acks) = self.acks_in(epoch) else {
            return Settling::Never;
        };
        let coverage = self.coverage(roster);
        match coverage.at(acks) {
            None => Settling::Done,
            Some(there) if there >= offset => {
                self.answer(offset);
                self.settled = Some(Settled {
                    epoch,
                    offset,
                    acks,
                });
                Settling::Done
            }
            Some(_) if usize::try_from(acks).is_ok_and(|acks| coverage.in_sync() >= acks) => {
                Settling::NotYet
            }
            Some(_) => Settling::Never,
        }
    }

    /// The handover failed: this node goes on, and members may change.
    pub fn unsettle(&mut self) {
        if !breakage::on(Breakage::RecordSettled) {
            self.settled = None;
        }
    }

    fn is_settled(&self, epoch: u64, offset: u64, acks: u32) -> bool {
        // What else is asked for by now does not reach back: the members that counted were this epoch's.
        let enough = acks.max(self.acks_in(epoch).unwrap_or(0));
        self.settled
            .is_some_and(|s| s.epoch == epoch && s.offset >= offset && s.acks >= enough)
    }

    /// Somebody is told that as many replicas as are asked for hold everything up to `offset`.
    fn answer(&mut self, offset: u64) {
        let epoch = self.epoch;
        let granted = self.granted.as_mut().filter(|g| g.epoch == epoch);
        if let Some(granted) = granted {
            granted.membership.answer(Position { epoch, offset });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::Peer;
    use crate::message::Ack;
    use crate::roster::SessionNumber;

    const OWN: Uuid = Uuid::from_u128(1);
    const NEAR: Uuid = Uuid::from_u128(2);
    const FAR: Uuid = Uuid::from_u128(3);

    /// A master of epoch 5 with two replicas, both members, each of whose writes waits for one of them.
    struct Three {
        roster: Roster,
        quorum: Quorum<&'static str>,
        sessions: [SessionNumber; 2],
    }

    fn concern(members: &[Uuid], acks: u32) -> Concern {
        let members = members.iter().copied().collect();
        Concern { members, acks }
    }

    impl Three {
        fn new() -> Self {
            let mut roster = Roster::default();
            let mut quorum = Quorum::default();
            quorum.grant(5, OWN, concern(&[OWN, NEAR, FAR], 1));
            assert!(quorum.enter(5, 1));
            let sessions = [NEAR, FAR].map(|node_id| {
                let peer = Peer {
                    node_id,
                    boot_id: Uuid::nil(),
                    name: "r".to_owned(),
                    advertised: None,
                };
                roster.joined(peer, "h:1".to_owned(), false, Ack::default(), 0, 0)
            });
            Three {
                roster,
                quorum,
                sessions,
            }
        }

        fn acked(&mut self, node_id: Uuid, durable: u64) {
            let session = self.sessions[usize::from(node_id == FAR)];
            let ack = Ack {
                durable,
                ..Ack::default()
            };
            self.roster.acked(node_id, session, ack);
        }

        fn settle(&mut self, offset: u64) -> Settling {
            self.quorum.settle(&self.roster, 5, offset)
        }

        fn counted(&self, offset: u64) -> Option<bool> {
            self.quorum.counted(&self.roster, 5, offset, 1)
        }
    }

    #[test]
    fn what_a_handover_settled_is_answered_late_and_counts_for_no_record() {
        let mut three = Three::new();
        three.acked(FAR, 10);
        assert_eq!(three.settle(10), Settling::Done);
        let fewer = concern(&[OWN, NEAR], 1);
        assert_eq!(three.counted(10), Some(true), "of all three");
        three
            .quorum
            .step(5, |m| m.towards(&fewer).unwrap())
            .unwrap();
        assert_eq!(three.counted(10), Some(false), "of those who stay");
        assert_eq!(three.quorum.wait(5, 10, 0, "late"), Wait::GoesOn);
        assert_eq!(three.settle(10), Settling::NotYet);
        three.acked(NEAR, 10);
        assert_eq!(three.counted(10), Some(true));

        assert_eq!(three.settle(10), Settling::Done);
        assert!(three.quorum.leave(5));
        assert_eq!(three.quorum.wait(5, 10, 0, "late"), Wait::Over("late"));
        assert_eq!(three.quorum.wait(5, 10, 2, "late"), Wait::NotMaster);
        assert_eq!(three.quorum.wait(5, 11, 0, "late"), Wait::NotMaster);
        assert_eq!(three.counted(10), None, "it records nothing any more");
    }

    #[test]
    fn nothing_is_left_of_what_a_handover_that_failed_had_settled() {
        let mut three = Three::new();
        three.acked(FAR, 10);
        assert_eq!(three.settle(10), Settling::Done);
        three.quorum.unsettle();
        three.quorum.leave(5);
        assert_eq!(three.quorum.wait(5, 10, 0, "late"), Wait::NotMaster);
    }

    #[test]
    fn a_number_that_was_lowered_while_it_settled_is_not_said_to_be_the_higher_one() {
        let mut three = Three::new();
        three.acked(FAR, 10);
        let more = concern(&[OWN, NEAR, FAR], 2);
        three.quorum.step(5, |m| m.towards(&more).unwrap()).unwrap();
        assert_eq!(three.settle(10), Settling::NotYet);
        three.quorum.step(5, Membership::given_up).unwrap();
        assert_eq!(three.settle(10), Settling::Done);
        three.quorum.leave(5);
        assert_eq!(three.quorum.wait(5, 10, 0, "one"), Wait::Over("one"));
        assert_eq!(three.quorum.wait(5, 10, 2, "two"), Wait::NotMaster);
    }

    #[test]
    fn too_few_in_sync_settle_nothing() {
        let mut three = Three::new();
        let two = concern(&[OWN, NEAR, FAR], 2);
        three.quorum.step(5, |m| m.towards(&two).unwrap()).unwrap();
        three.roster.left(FAR, three.sessions[1]);
        assert_eq!(three.settle(10), Settling::Never);
    }

    #[test]
    fn a_step_touches_no_membership_of_another_epoch_and_none_that_is_over() {
        let mut three = Three::new();
        let wish = concern(&[OWN, NEAR], 1);
        assert!(three.quorum.step(4, |m| m.towards(&wish)).is_none());
        // The next epoch is granted before it begins.
        three.quorum.grant(6, OWN, concern(&[OWN], 0));
        assert!(three.quorum.step(5, |m| m.towards(&wish)).is_none());
        assert_eq!(three.quorum.membership().unwrap().in_use().acks, 0);
        // What was written before is not answered by its members.
        assert_eq!(three.quorum.acks_in(5), None);
        assert_eq!(three.quorum.wait(5, 10, 0, "write"), Wait::GoesOn);
        assert_eq!(three.quorum.take_over(&three.roster), []);
        assert_eq!(three.counted(1), None);
        assert!(
            three
                .quorum
                .step(6, |m| m.secured(&Default::default()))
                .is_some()
        );
        three.quorum.enter(6, 11);
        three.quorum.leave(6);
        assert!(three.quorum.step(6, |m| m.towards(&wish)).is_none());
    }
}
