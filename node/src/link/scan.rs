//! A scan of the store for a full sync, on a thread of its own, where it may block, at the pace of the connection that it
//! feeds.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::background;
use crate::journal::{LogReader, Pin};
use crate::store::{SnapshotHeader, SnapshotTrailer, Store};

/// Chunks made ahead of the connection.
const AHEAD: usize = 2;

/// What the thread hands over, in this order: a header, chunks, a trailer; or an error and nothing more.
#[derive(Debug)]
pub(super) enum Piece {
    Begin(SnapshotHeader),
    Chunk(Bytes),
    End(SnapshotTrailer),
    Failed(String),
}

/// A scan under way. Dropping it ends its thread and lets go of the log.
pub(super) struct Scan {
    pieces: mpsc::Receiver<Piece>,
    /// Everything after the scan's start stays in the log as long as this is there.
    pin: Option<Pin>,
}

impl Scan {
    /// Begins a scan. Fails when the log cannot be held.
    pub(super) fn begin(store: Arc<Store>, log: &LogReader) -> Result<Self, String> {
        // Held before the scan begins: its start is at or after this.
        let from = log.end().position.offset + 1;
        let pin = log
            .pin(from)
            .ok_or("the log could not be held for a snapshot")?;
        let (sender, pieces) = mpsc::channel(AHEAD);
        let scan = move || run(&store, &sender);
        let thread = std::thread::Builder::new().name("scan".to_owned());
        let thread = thread.spawn(scan);
        thread.map_err(|error| format!("no thread for a snapshot: {error}"))?;
        Ok(Scan {
            pieces,
            pin: Some(pin),
        })
    }

    /// Holds the log no longer. The scan goes on; if the log then loses what follows its start, the session fails when
    /// it gets there, and the replica begins again. Whether it was held.
    pub(super) fn let_go(&mut self) -> bool {
        self.pin.take().is_some()
    }

    /// The next piece. Can be dropped and called again without losing one.
    pub(super) async fn next(&mut self) -> Piece {
        let lost = || Piece::Failed("the scan ended without its trailer".to_owned());
        self.pieces.recv().await.unwrap_or_else(lost)
    }
}

fn run(store: &Arc<Store>, pieces: &mpsc::Sender<Piece>) {
    let mut scan = store.scan();
    // Not before: nothing is applied while a scan begins.
    background::step_back();
    if pieces
        .blocking_send(Piece::Begin(scan.header().clone()))
        .is_err()
    {
        return;
    }
    for chunk in &mut scan {
        // Nobody waits any more: the connection is gone.
        if pieces.blocking_send(Piece::Chunk(chunk)).is_err() {
            return;
        }
    }
    let last = match scan.trailer() {
        Ok(trailer) => Piece::End(trailer),
        Err(error) => Piece::Failed(error.to_string()),
    };
    // As above.
    let _ = pieces.blocking_send(last);
}
