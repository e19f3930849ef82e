//! The digest at another node's position: where this store will get to, stands, or stood a short while ago.
//!
//! Under writes two nodes are hardly ever seen at the same position at the same moment. So whoever compares asks for one
//! position, and the applier, which passes each, remembers what the digest was there. Batches are never split: where one
//! ends on one node, one ends on every other.

use std::collections::VecDeque;

use vectorizer_replication::position::Position;

use super::digest::Digest;

/// So many ends of batches are remembered for who asks after they were passed.
const REMEMBERED: usize = 1024;

/// What is known of the digest at a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DigestAt {
    /// It was this.
    Is(Digest),
    /// The store is not there yet. It will be known once it is, until another one is asked for.
    NotYet,
    /// No batch ended there, or too many have since.
    Unknown,
}

/// What is remembered, once somebody has asked.
///
/// Nothing before: while a store is being loaded and its log replayed, it does not hold at each position what others do.
#[derive(Default)]
pub(super) struct Recent {
    asked: bool,
    /// Ascending.
    ends: VecDeque<(Position, u128)>,
    wanted: Option<Position>,
    /// The digest at the position that was wanted, however long ago it was passed.
    reached: Option<(Position, u128)>,
}

impl Recent {
    /// A batch has been applied: the store stands at `end`, with this digest.
    pub(super) fn passes(&mut self, end: Position, digest: u128) {
        if !self.asked {
            return;
        }
        if self.wanted == Some(end) {
            self.wanted = None;
            self.reached = Some((end, digest));
        }
        if self.ends.len() == REMEMBERED {
            self.ends.pop_front();
        }
        self.ends.push_back((end, digest));
    }

    /// The answer of a store that stands at `here`, with this digest.
    pub(super) fn ask(&mut self, at: Position, (here, digest): (Position, u128)) -> DigestAt {
        if !self.asked {
            self.asked = true;
            self.ends.push_back((here, digest));
        }
        if at > here {
            self.wanted = Some(at);
            return DigestAt::NotYet;
        }
        let found = self.ends.binary_search_by_key(&at, |(end, _)| *end);
        let found = found.ok().map(|found| self.ends[found]);
        let known = found.or(self.reached.filter(|(end, _)| *end == at));
        known.map_or(DigestAt::Unknown, |(_, digest)| {
            DigestAt::Is(Digest(digest))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Position {
        Position::new(1, offset)
    }

    fn is(digest: u128) -> DigestAt {
        DigestAt::Is(Digest(digest))
    }

    #[test]
    fn a_digest_is_known_where_the_store_stands_and_stood_since_somebody_asked() {
        let mut recent = Recent::default();
        recent.passes(at(3), 30);
        assert_eq!(recent.ask(at(7), (at(7), 70)), is(70));
        assert_eq!(recent.ask(at(3), (at(7), 70)), DigestAt::Unknown);
        recent.passes(at(9), 90);
        assert_eq!(recent.ask(at(7), (at(9), 90)), is(70));
        assert_eq!(recent.ask(at(9), (at(9), 90)), is(90));
        assert_eq!(recent.ask(at(8), (at(9), 90)), DigestAt::Unknown);
    }

    #[test]
    fn a_digest_that_was_asked_for_ahead_is_known_however_much_came_since_and_little_is_kept() {
        let mut recent = Recent::default();
        assert_eq!(recent.ask(at(5), (at(1), 10)), DigestAt::NotYet);
        let last = 10 * REMEMBERED as u64;
        for offset in 2..=last {
            recent.passes(at(offset), u128::from(offset) * 10);
        }
        let here = (at(last), u128::from(last) * 10);
        assert_eq!(recent.ask(at(5), here), is(50));
        assert_eq!(recent.ask(at(4), here), DigestAt::Unknown);
        assert_eq!(recent.ask(at(last - 1), here), is(here.1 - 10));
        assert_eq!(recent.ends.len(), REMEMBERED);
    }
}
