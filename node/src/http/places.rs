//! The places of one port: a connection each.
//!
//! A connection is accepted before anything is decided. When there is no place for it, the one that has waited longest
//! for its client is closed; one whose request is being worked on never is. Whoever opens many and says nothing, or never
//! takes an answer, therefore keeps nobody out, and is closed after a while by itself. The next one is admitted once the
//! closed one's socket is: there are never more open files than places, and one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use super::seldom::Seldom;
use crate::metrics::Connections;

/// A client may say nothing after it has connected, or take nothing of its answer, for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The connections of one port.
pub(super) struct Places {
    limit: usize,
    open: Mutex<Open>,
    /// Told whenever a task has ended.
    ended: Notify,
    tasks: TaskTracker,
    metrics: Connections,
    short: Seldom,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// Tasks that have not ended: those that were told to, as well.
    tasks: usize,
    all: HashMap<u64, (Arc<Connection>, AbortHandle)>,
}

/// A connection's place, given back when it is dropped.
pub(super) struct Place {
    number: u64,
    among: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.among.open.lock();
        open.all.remove(&self.number);
        open.tasks -= 1;
        self.among.metrics.open.set(count(&open));
        drop(open);
        self.among.ended.notify_one();
    }
}

fn count(open: &Open) -> i64 {
    i64::try_from(open.tasks).unwrap_or(i64::MAX)
}

impl Places {
    /// Room for so many.
    pub(super) fn new(limit: usize, metrics: Connections) -> Arc<Self> {
        Arc::new(Places {
            limit,
            open: Mutex::default(),
            ended: Notify::new(),
            tasks: TaskTracker::new(),
            metrics,
            short: Seldom::default(),
        })
    }

    /// Serves a connection in a task of its own; in place of another, when there is no room, and not at all when every
    /// other one is being worked for.
    pub(super) async fn admit<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        connection: Arc<Connection>,
        serve: impl FnOnce(Place) -> F,
    ) {
        if self.open.lock().all.len() >= self.limit && !self.make_room() {
            self.metrics.refused.inc();
            return;
        }
        while self.open.lock().tasks >= self.limit {
            self.ended.notified().await;
        }
        // Held until the task is listed: it may end at once.
        let mut open = self.open.lock();
        let number = open.next;
        open.next += 1;
        open.tasks += 1;
        let place = Place {
            number,
            among: self.clone(),
        };
        let task = self.tasks.spawn(serve(place)).abort_handle();
        open.all.insert(number, (connection, task));
        self.metrics.open.set(count(&open));
    }

    /// Closes the connection that has waited longest for its client; says whether there was one.
    pub(super) fn make_room(&self) -> bool {
        let longest = {
            let mut open = self.open.lock();
            let waits = open
                .all
                .iter()
                .filter_map(|(number, (connection, _))| Some((connection.waits_since()?, *number)));
            let longest = waits.min();
            longest.and_then(|(_, number)| open.all.remove(&number))
        };
        if let Some(times) = self.short.happened() {
            tracing::warn!(
                connections = self.limit,
                times,
                "connections run short (server.max_connections, or the limit of open files): those that are idle longest are closed"
            );
        }
        let Some((_, task)) = longest else {
            return false;
        };
        task.abort();
        self.metrics.displaced.inc();
        true
    }

    /// Closes those whose clients say nothing, or take nothing.
    pub(super) fn close_silent(&self) {
        let mut open = self.open.lock();
        let silent = open
            .all
            .extract_if(|_, (connection, _)| connection.is_silent_for(PATIENCE));
        let silent: Vec<_> = silent.collect();
        drop(open);
        for (_, (_, task)) in silent {
            task.abort();
            self.metrics.silent.inc();
        }
    }

    /// Lets those end that came for a master: now, or after the request under way.
    pub(super) fn send_away_for_master(&self) {
        let open = self.open.lock();
        let connections = open.all.values().map(|(connection, _)| connection);
        for connection in connections.filter(|connection| connection.is_for_master()) {
            connection.leave();
        }
    }

    /// Lets all end after the requests under way, and waits until they have. No more may be admitted.
    pub(super) async fn drain(&self) {
        for (connection, _) in self.open.lock().all.values() {
            connection.leave();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn never(place: Place) {
        let _place = place;
        std::future::pending::<()>().await;
    }

    async fn admitted(places: &Arc<Places>) -> Arc<Connection> {
        let connection = Connection::new();
        places.admit(connection.clone(), never).await;
        connection
    }

    /// Which of these are still open.
    fn open(places: &Places, all: &[&Arc<Connection>]) -> Vec<usize> {
        let open = places.open.lock();
        let is_open = |one: &Arc<Connection>| open.all.values().any(|(c, _)| Arc::ptr_eq(c, one));
        (0..all.len()).filter(|n| is_open(all[*n])).collect()
    }

    /// Time moves on by at least a millisecond.
    fn later() {
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn whoever_waits_longest_for_its_client_makes_room_and_who_is_worked_for_does_not() {
        let metrics = Connections::default();
        let places = Places::new(3, metrics.clone());
        let first = admitted(&places).await;
        later();
        let second = admitted(&places).await;
        later();
        let third = admitted(&places).await;
        // The first is the oldest, but its request is under way; the second has just sent something.
        first.works();
        later();
        second.works();
        second.waits();
        let fourth = admitted(&places).await;
        let all = [&first, &second, &third, &fourth];
        assert_eq!(open(&places, &all), [0, 1, 3]);
        assert_eq!(metrics.displaced.get(), 1);
        assert_eq!(metrics.open.get(), 3);

        second.works();
        fourth.works();
        let fifth = admitted(&places).await;
        let all = [&first, &second, &fourth, &fifth];
        assert_eq!(open(&places, &all), [0, 1, 2], "all others are worked for");
        assert_eq!(metrics.refused.get(), 1);
    }

    #[tokio::test]
    async fn a_place_is_given_back_with_its_connection() {
        let metrics = Connections::default();
        let places = Places::new(1, metrics.clone());
        for _ in 0..3 {
            let admitted = places.admit(Connection::new(), async |place| drop(place));
            admitted.await;
            places.tasks.close();
            places.tasks.wait().await;
            places.tasks.reopen();
        }
        assert_eq!((metrics.open.get(), metrics.displaced.get()), (0, 0));
    }
}
