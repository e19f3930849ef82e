//! The master's list of its replicas: who they are, how far they are, how they fare (specification, "List Connected
//! Replicas"). Pure bookkeeping: the time is an argument.
//!
//! A replica stays listed when it is gone, until it is forgotten on request, or until 256 others were seen later.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::breakage::{self, Breakage};
use crate::concern::{Coverage, Level};
use crate::lag::AppendTimes;
use crate::master::Peer;
use crate::message::Ack;
use crate::session::Millis;

/// Above this lag a replica counts as lagging.
pub const LAGGING_ABOVE: Millis = 1_000;
/// After this much silence a replica counts as disconnected.
pub const DISCONNECTED_AFTER: Millis = 60_000;
/// Replicas listed at most; the one that was silent for longest makes room.
const MAX_LISTED: usize = 256;

/// Health of a replica, as in the specification.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Health {
    /// Healthy and syncing normally.
    Connected,
    /// In its first sync.
    Syncing,
    /// More than [`LAGGING_ABOVE`] behind.
    Lagging,
    /// Silent for [`DISCONNECTED_AFTER`] or more.
    Disconnected,
}

/// One session of a replica with this master.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionNumber(u64);

/// A replica as of some moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// Who it is.
    pub peer: Peer,
    /// Address of its connection, `host:port`.
    pub address: String,
    /// Health.
    pub health: Health,
    /// Whether a session is live.
    pub connected: bool,
    /// Age in ms of the oldest operation that it has not applied; 0 when there is none.
    pub lag_ms: Millis,
    /// Operations that it has not applied.
    pub lag_operations: u64,
    /// Its watermarks.
    pub ack: Ack,
    /// Unix time in ms when it was last heard.
    pub heard_unix_ms: u64,
    /// Bytes sent to it in this epoch.
    pub sent: u64,
}

/// What came of forgetting a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forgotten {
    /// It is listed no more.
    Done,
    /// It has a live session, and stays.
    IsConnected,
    /// It was not listed.
    Unknown,
}

/// All replicas that this master has seen.
#[derive(Debug, Default)]
pub struct Roster {
    entries: BTreeMap<Uuid, Entry>,
    times: AppendTimes,
    end: u64,
    sessions: u64,
}

#[derive(Debug)]
struct Entry {
    peer: Peer,
    address: String,
    session: Option<SessionNumber>,
    syncing: bool,
    ack: Ack,
    heard: Millis,
    heard_unix_ms: u64,
    sent: u64,
}

impl Roster {
    /// The log ends at `end` since `now`.
    pub fn appended(&mut self, end: u64, now: Millis) {
        self.end = self.end.max(end);
        self.times.appended(end, now);
    }

    /// A replica has begun a session. An older one of the same replica is over: see [`Self::is_current`].
    pub fn joined(
        &mut self,
        peer: Peer,
        address: String,
        syncing: bool,
        ack: Ack,
        now: Millis,
        unix_ms: u64,
    ) -> SessionNumber {
        self.sessions += 1;
        let session = SessionNumber(self.sessions);
        let id = peer.node_id;
        let entry = Entry {
            peer,
            address,
            session: Some(session),
            syncing,
            ack,
            heard: now,
            heard_unix_ms: unix_ms,
            sent: self.entries.get(&id).map_or(0, |e| e.sent),
        };
        self.entries.insert(id, entry);
        if self.entries.len() > MAX_LISTED {
            let gone = self.entries.iter().filter(|(_, e)| e.session.is_none());
            if let Some(oldest) = gone.min_by_key(|(_, e)| e.heard).map(|(id, _)| *id) {
                self.entries.remove(&oldest);
            }
        }
        session
    }

    /// Whether this is still the replica's newest session; otherwise its connection is to be closed.
    pub fn is_current(&self, node_id: Uuid, session: SessionNumber) -> bool {
        self.entries
            .get(&node_id)
            .is_some_and(|e| e.session == Some(session))
    }

    /// Something was heard from a replica.
    pub fn heard(&mut self, node_id: Uuid, session: SessionNumber, now: Millis, unix_ms: u64) {
        if let Some(entry) = self.current(node_id, session) {
            entry.heard = now;
            entry.heard_unix_ms = unix_ms;
        }
    }

    /// So many bytes were sent to a replica.
    pub fn sent(&mut self, node_id: Uuid, session: SessionNumber, bytes: u64) {
        if let Some(entry) = self.current(node_id, session) {
            entry.sent += bytes;
        }
    }

    /// A replica's watermarks have moved.
    pub fn acked(&mut self, node_id: Uuid, session: SessionNumber, ack: Ack) {
        let Some(entry) = self.current(node_id, session) else {
            return;
        };
        entry.ack = ack;
        let lowest = self.entries.values().map(|e| e.ack.applied).min();
        self.times.forget(lowest.unwrap_or(0));
    }

    /// A replica's first sync is complete.
    pub fn synced(&mut self, node_id: Uuid, session: SessionNumber) {
        if let Some(entry) = self.current(node_id, session) {
            entry.syncing = false;
        }
    }

    /// A replica's session is over.
    pub fn left(&mut self, node_id: Uuid, session: SessionNumber) {
        if let Some(entry) = self.current(node_id, session) {
            entry.session = None;
        }
    }

    /// Forgets a replica that is not connected.
    pub fn forget(&mut self, node_id: Uuid) -> Forgotten {
        match self.entries.get(&node_id).map(|e| e.session.is_some()) {
            None => Forgotten::Unknown,
            Some(true) => Forgotten::IsConnected,
            Some(false) => {
                self.entries.remove(&node_id);
                Forgotten::Done
            }
        }
    }

    /// Forgets those that are not connected and no members either.
    pub fn keep_members(&mut self, is_member: impl Fn(Uuid) -> bool) {
        self.entries
            .retain(|id, entry| entry.session.is_some() || is_member(*id));
    }

    /// This node is no longer master: whoever it fed is another's now.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.times = AppendTimes::default();
        self.end = 0;
    }

    /// Number of live sessions.
    pub fn connected(&self) -> usize {
        self.entries
            .values()
            .filter(|e| e.session.is_some())
            .count()
    }

    /// The durable watermark of a replica with a live session that has completed its first sync.
    pub fn durable_of(&self, node_id: Uuid) -> Option<u64> {
        let entry = self.entries.get(&node_id)?;
        let alive = entry.session.is_some() || breakage::on(Breakage::CountDeadReplicas);
        let counts = alive && !entry.syncing;
        counts.then_some(entry.ack.durable)
    }

    /// How far the replicas are that `counts` names: those with a live session and a whole copy.
    pub fn coverage(&self, level: Level, counts: impl Fn(Uuid) -> bool) -> Coverage {
        let dead = breakage::on(Breakage::CountDeadReplicas);
        let acknowledge = |(id, e): (&Uuid, &Entry)| {
            let live = (e.session.is_some() || dead) && !e.syncing;
            (live && counts(*id)).then(|| level.of(e.ack))
        };
        Coverage::new(self.entries.iter().filter_map(acknowledge).collect())
    }

    /// All replicas as of `now`, ordered by id.
    pub fn list(&self, now: Millis) -> Vec<View> {
        self.entries.values().map(|e| self.view(e, now)).collect()
    }

    fn view(&self, entry: &Entry, now: Millis) -> View {
        let lag_ms = self.times.age_after(entry.ack.applied, now);
        let health = if now.saturating_sub(entry.heard) >= DISCONNECTED_AFTER {
            Health::Disconnected
        } else if entry.syncing {
            Health::Syncing
        } else if lag_ms > LAGGING_ABOVE {
            Health::Lagging
        } else {
            Health::Connected
        };
        View {
            peer: entry.peer.clone(),
            address: entry.address.clone(),
            health,
            connected: entry.session.is_some(),
            lag_ms,
            lag_operations: self.end.saturating_sub(entry.ack.applied),
            ack: entry.ack,
            heard_unix_ms: entry.heard_unix_ms,
            sent: entry.sent,
        }
    }

    fn current(&mut self, node_id: Uuid, session: SessionNumber) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&node_id)?;
        (entry.session == Some(session)).then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: u128) -> Peer {
        Peer {
            node_id: Uuid::from_u128(id),
            boot_id: Uuid::nil(),
            name: format!("node-{id}"),
            advertised: None,
        }
    }

    fn applied(offset: u64) -> Ack {
        Ack {
            chunks: 0,
            taken: offset,
            durable: offset,
            applied: offset,
        }
    }

    const ID: Uuid = Uuid::from_u128(1);

    fn join(roster: &mut Roster, syncing: bool, now: Millis) -> SessionNumber {
        roster.joined(
            peer(1),
            "10.0.0.1:9".to_owned(),
            syncing,
            Ack::default(),
            now,
            now,
        )
    }

    fn only(roster: &Roster, now: Millis) -> View {
        let list = roster.list(now);
        assert_eq!(list.len(), 1);
        list[0].clone()
    }

    #[test]
    fn lag_counts_from_the_oldest_operation_not_applied_and_not_from_the_connection() {
        let mut roster = Roster::default();
        roster.appended(100, 1_000);
        let session = join(&mut roster, false, 50_000);
        roster.acked(ID, session, applied(100));
        let view = only(&roster, 55_000);
        assert_eq!((view.lag_ms, view.lag_operations), (0, 0));
        assert_eq!(view.health, Health::Connected);
        roster.appended(123, 60_000);
        let view = only(&roster, 60_150);
        assert_eq!((view.lag_ms, view.lag_operations), (150, 23));
        assert_eq!(only(&roster, 61_000).health, Health::Connected);
        assert_eq!(only(&roster, 61_001).health, Health::Lagging);
    }

    #[test]
    fn a_replica_in_its_first_sync_is_syncing_and_counts_for_nothing() {
        let mut roster = Roster::default();
        roster.appended(100, 0);
        let session = join(&mut roster, true, 10);
        assert_eq!(only(&roster, 5_000).health, Health::Syncing);
        roster.acked(ID, session, applied(50));
        assert_eq!(roster.durable_of(ID), None);
        roster.acked(ID, session, applied(100));
        roster.synced(ID, session);
        assert_eq!(only(&roster, 5_000).health, Health::Connected);
        assert_eq!(roster.durable_of(ID), Some(100));
    }

    #[test]
    fn silence_of_60_seconds_is_disconnected_and_the_replica_stays_listed_until_forgotten() {
        let mut roster = Roster::default();
        let session = join(&mut roster, false, 0);
        roster.heard(ID, session, 10_000, 10_000);
        assert_eq!(only(&roster, 69_999).health, Health::Connected);
        assert_eq!(only(&roster, 70_000).health, Health::Disconnected);
        assert_eq!(roster.forget(ID), Forgotten::IsConnected);
        roster.left(ID, session);
        assert!(!only(&roster, 70_000).connected);
        assert_eq!(roster.durable_of(ID), None);
        roster.keep_members(|id| id == ID);
        assert_eq!(roster.list(70_000).len(), 1, "a member stays listed");
        assert_eq!(roster.forget(ID), Forgotten::Done);
        assert_eq!(roster.forget(ID), Forgotten::Unknown);
        assert!(roster.list(70_000).is_empty());
    }

    #[test]
    fn whoever_is_no_member_is_forgotten_once_it_is_gone() {
        let mut roster = Roster::default();
        let session = join(&mut roster, false, 0);
        roster.keep_members(|_| false);
        assert_eq!(roster.list(0).len(), 1);
        roster.left(ID, session);
        roster.keep_members(|_| false);
        assert!(roster.list(0).is_empty());
    }

    #[test]
    fn the_lag_of_a_replica_that_is_gone_grows() {
        let mut roster = Roster::default();
        let session = join(&mut roster, false, 0);
        roster.appended(10, 100);
        roster.acked(ID, session, applied(10));
        roster.left(ID, session);
        roster.appended(20, 1_000);
        roster.appended(30, 9_000);
        let view = only(&roster, 10_000);
        assert_eq!((view.lag_ms, view.lag_operations), (9_000, 20));
        assert_eq!(view.health, Health::Lagging);
    }

    #[test]
    fn a_replica_that_is_gone_for_hours_does_not_make_the_others_lag() {
        let mut roster = Roster::default();
        let gone = join(&mut roster, false, 0);
        roster.left(ID, gone);
        let here = peer(2);
        let id = here.node_id;
        let session = roster.joined(here, String::new(), false, Ack::default(), 0, 0);
        let mut worst = 0;
        for n in 1..=200_000 {
            let now = n * 100;
            roster.appended(n, now);
            roster.heard(id, session, now, now);
            // One operation behind, all the time.
            roster.acked(id, session, applied(n - 1));
            let views = roster.list(now);
            worst = worst.max(views.iter().find(|v| v.peer.node_id == id).unwrap().lag_ms);
        }
        assert!(worst <= 1, "{worst}");
        let gone = roster
            .list(20_000_000)
            .into_iter()
            .find(|v| v.peer.node_id == ID);
        let lag = gone.unwrap().lag_ms;
        assert!((19_999_900..20_400_000).contains(&lag), "{lag}");
    }

    #[test]
    fn only_connected_replicas_that_count_and_hold_a_whole_copy_acknowledge() {
        let mut roster = Roster::default();
        let mut sessions = Vec::new();
        for (id, syncing) in [(1, false), (2, false), (3, true), (4, false)] {
            let ack = applied(10 * id as u64);
            sessions.push(roster.joined(peer(id), String::new(), syncing, ack, 0, 0));
        }
        roster.left(Uuid::from_u128(4), sessions[3]);
        let all = roster.coverage(Level::Durable, |_| true);
        assert_eq!(all, Coverage::new(vec![10, 20]));
        let one = roster.coverage(Level::Applied, |id| id == ID);
        assert_eq!(one, Coverage::new(vec![10]));
    }

    #[test]
    fn an_older_session_of_the_same_replica_says_nothing_any_more() {
        let mut roster = Roster::default();
        let old = join(&mut roster, false, 0);
        let new = join(&mut roster, false, 10);
        assert!(!roster.is_current(ID, old) && roster.is_current(ID, new));
        roster.acked(ID, old, applied(7));
        roster.left(ID, old);
        assert_eq!(roster.connected(), 1);
        assert_eq!(only(&roster, 20).ack, Ack::default());
    }

    #[test]
    fn the_list_is_bounded_and_live_replicas_are_never_dropped() {
        let mut roster = Roster::default();
        join(&mut roster, false, 0);
        for id in 2..1_000 {
            let session =
                roster.joined(peer(id), String::new(), false, Ack::default(), id as u64, 0);
            roster.left(Uuid::from_u128(id), session);
        }
        assert!(roster.list(0).len() <= MAX_LISTED + 1);
        assert_eq!(roster.connected(), 1);
    }
}
