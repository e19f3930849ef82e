//! The port that replicas connect to. Open on every node, whatever its role: whoever is not master says so.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use vectorizer_api::replication::Role;

use super::{LinkContext, feed};

/// Connections at the same time, strangers included.
const MAX_CONNECTIONS: usize = 128;
/// Pause after the system refused to accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener that is open.
pub struct Listening {
    /// Where it listens; the port is the real one when port 0 was asked for.
    pub address: SocketAddr,
    /// Its task, which never ends by itself. Aborting it closes the port and every connection.
    pub task: JoinHandle<()>,
}

/// Opens the replication port and serves it in a task of its own. Fails when the address cannot be bound.
pub async fn spawn_master_listener(
    context: LinkContext,
    bind: impl tokio::net::ToSocketAddrs,
) -> io::Result<Listening> {
    let listener = TcpListener::bind(bind).await?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        let mut sessions = JoinSet::new();
        let accepting = accept(&context, &listener, &mut sessions);
        tokio::join!(accepting, keep_time(&context));
    });
    Ok(Listening { address, task })
}

async fn accept(context: &LinkContext, listener: &TcpListener, sessions: &mut JoinSet<()>) {
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Tasks that have ended are collected, so that the set does not grow.
        while sessions.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
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
        sessions.spawn(async move {
            serve(&context, stream, peer).await;
            drop(seat);
        });
    }
}

async fn serve(context: &LinkContext, stream: TcpStream, peer: SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "replication: TCP_NODELAY");
    }
    match feed::feed(context, stream, peer).await {
        Ok(reason) => tracing::info!(%peer, %reason, "replication: session over"),
        Err(error) => tracing::info!(%peer, %error, "replication: connection lost"),
    }
}

/// Notes when the log moved, from which every replica's lag is counted.
async fn keep_time(context: &LinkContext) {
    let log = context.writer.log();
    let mut moved = log.subscribe();
    let mut state = context.writer.state();
    let mut epoch = 0;
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
        };
        if gone {
            return;
        }
    }
}
