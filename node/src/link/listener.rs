//! The port that replicas connect to. Open on every node, whatever its role: whoever is not master says so.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use vectorizer_api::replication::Role;

use super::{LinkContext, feed};
use crate::listen::plain;

/// Connections at the same time, strangers included.
const MAX_CONNECTIONS: usize = 256;
/// Connections that have not joined yet. One more, and the oldest of them is closed: whoever opens many and says nothing
/// keeps no replica out, as one that is let in joins within a few round trips.
const MAX_STRANGERS: usize = 64;
/// Pause after the system refused to accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the replication port in a task of its own, which never ends by itself. Aborting it closes the port and every
/// connection.
pub fn spawn_master_listener(context: LinkContext, listener: TcpListener) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut sessions = JoinSet::new();
        let accepting = accept(&context, &listener, &mut sessions);
        tokio::join!(accepting, keep_time(&context));
    })
}

/// Connections that have not joined yet, oldest first, by number.
#[derive(Default)]
struct Strangers(Mutex<VecDeque<(u64, AbortHandle)>>);

/// A connection's place among the strangers; it joins, or ends, by dropping this.
pub(super) struct Stranger {
    number: u64,
    among: Arc<Strangers>,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.among.0.lock().retain(|(n, _)| *n != self.number);
    }
}

impl Strangers {
    /// Runs a connection's task as a stranger, in place of the oldest one when there are too many.
    fn admit<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        number: u64,
        sessions: &mut JoinSet<()>,
        serve: impl FnOnce(Stranger) -> F,
    ) {
        let stranger = Stranger {
            number,
            among: self.clone(),
        };
        // Held until the task is listed: it may join at once.
        let mut all = self.0.lock();
        all.push_back((number, sessions.spawn(serve(stranger))));
        if all.len() > MAX_STRANGERS
            && let Some((_, oldest)) = all.pop_front()
        {
            tracing::warn!(
                "replication: too many connections that do not join, the oldest is closed"
            );
            oldest.abort();
        }
    }
}

async fn accept(context: &LinkContext, listener: &TcpListener, sessions: &mut JoinSet<()>) {
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let strangers = Arc::new(Strangers::default());
    for number in 0.. {
        // Tasks that have ended are collected, so that the set does not grow.
        while sessions.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream, plain(peer)),
            Err(error) => {
                tracing::warn!(%error, "replication: a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(seat) = seats.clone().try_acquire_owned() else {
            tracing::warn!(%peer, "replication: too many connections, this one is closed");
            continue;
        };
        let context = context.clone();
        strangers.admit(number, sessions, |stranger| async move {
            serve(&context, stream, peer, stranger).await;
            drop(seat);
        });
    }
}

async fn serve(context: &LinkContext, stream: TcpStream, peer: SocketAddr, stranger: Stranger) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "replication: TCP_NODELAY");
    }
    match feed::feed(context, stream, peer, stranger).await {
        Ok(reason) => tracing::info!(%peer, %reason, "replication: session over"),
        Err(error) => tracing::info!(%peer, %error, "replication: connection lost"),
    }
}

/// Notes when the log moved, from which every replica's lag is counted, and each heartbeat what the replicas cover.
async fn keep_time(context: &LinkContext) {
    let log = context.writer.log();
    let mut moved = log.subscribe();
    let mut state = context.writer.state();
    let mut epoch = 0;
    let mut noted = 0;
    let mut heartbeat = tokio::time::interval(context.options.heartbeat);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let (now, first_offset) = {
            let state = state.borrow_and_update();
            match state.role {
                Role::Master => (state.master_epoch, state.history.last_first_offset()),
                Role::Replica | Role::Unassigned => (0, 0),
            }
        };
        let end = moved.borrow_and_update().position.offset;
        if now != epoch {
            context.note_covered(epoch, &mut noted);
            noted = 0;
            match now {
                0 => context.table.leave(epoch),
                _ => context.table.enter(now, first_offset),
            }
            epoch = now;
        }
        // What was in the log before this node became master counts from then.
        if epoch != 0 {
            context.table.appended(end);
        }
        let gone = tokio::select! {
            changed = moved.changed() => changed.is_err(),
            changed = state.changed() => changed.is_err(),
            _ = heartbeat.tick() => {
                context.note_covered(epoch, &mut noted);
                false
            }
        };
        if gone {
            return;
        }
    }
}
