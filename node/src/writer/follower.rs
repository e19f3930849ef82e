//! The replica's part: what its master sends becomes journal and store, in the order it comes.
//!
//! A session belongs to one master's epoch. A full sync goes into a generation of its own on disk and a store of its
//! own in memory; both replace the old ones in one durable step, once they are exact. Until then the node serves, and
//! would come back with, what it had. What it holds and its master does not, nobody reads from when the node learns of
//! it: neither while it is undone nor while a full sync is on its way to replace it.

use bytes::Bytes;
use uuid::Uuid;
use vectorizer_replication::batch::Batch;
use vectorizer_replication::command::{Command, Standing, decide};
use vectorizer_replication::position::{EpochStart, History, Position};

use super::room::Need;
use super::thread::{Writer, abort};
use super::{Fault, SessionId, SinkError, TruncateOutcome};
use crate::breakage::{self, Breakage};
use crate::data_dir::{DataDirError, Incoming, UndoOutcome};
use crate::role::RoleError;
use crate::store::{Op, Record, SnapshotHeader, SnapshotTrailer};

/// A session with a master.
pub(super) struct Session {
    id: u64,
    /// A full sync under way.
    incoming: Option<Incoming>,
    next_chunk: u32,
}

impl Session {
    pub(super) fn is_syncing(&self) -> bool {
        self.incoming.is_some()
    }
}

impl Writer {
    pub(super) fn accept_master(
        &mut self,
        epoch: u64,
        cluster: Uuid,
    ) -> Result<SessionId, SinkError> {
        let transition = decide(&self.facts(), &Command::MasterSeen { cluster, epoch })?;
        self.carry_out(transition)
            .map_err(|error| SinkError::Local(error.to_string()))?;
        self.sessions_begun += 1;
        let id = self.sessions_begun;
        self.session = Some(Session {
            id,
            incoming: None,
            next_chunk: 0,
        });
        // A copy that is unlike its master's stays so until it is replaced.
        self.fault = self.fault.take().filter(|f| matches!(f, Fault::Unlike(_)));
        self.publish_state();
        Ok(SessionId(id))
    }

    fn session(&mut self, id: SessionId) -> Result<&mut Session, SinkError> {
        self.session
            .as_mut()
            .filter(|s| s.id == id.0)
            .ok_or(SinkError::SessionOver)
    }

    pub(super) fn replicate(&mut self, id: SessionId, batches: &[Batch]) -> Result<(), SinkError> {
        if self.session(id)?.incoming.is_some() {
            return self.replicate_into_snapshot(id, batches);
        }
        for batch in batches {
            let end = self.journal.end();
            let fits = batch.first_offset() == end.position.offset + 1
                && batch.chain_before() == end.chain
                && batch.epoch() >= end.position.epoch;
            if !fits {
                let text = format!(
                    "{batch:?} after {} with chain {:?}",
                    end.position, end.chain
                );
                return Err(self.stop_following(text));
            }
            let payload = batch.payload();
            let ops = match Op::decode_batch(batch, &payload) {
                Ok(mut ops) => {
                    if breakage::on(Breakage::ForgetDeletes) {
                        ops.retain(|op| match op {
                            Op::Other(record) => !matches!(**record, Record::Delete { .. }),
                            Op::Put { .. } => true,
                        });
                    }
                    ops
                }
                Err(error) => return Err(self.stop_following(format!("{batch:?}: {error}"))),
            };
            if let Err(error) = self.store.check_ops(batch, &ops) {
                // Before the journal: a restart must not meet it again.
                return Err(self.stop_following(format!("{batch:?} cannot be applied: {error}")));
            }
            // A replica that waits still serves reads.
            self.room_for(batch.bytes().len(), need_of(&ops))
                .map_err(|full| SinkError::Local(full.to_string()))?;
            self.note_epoch(batch);
            if let Err(error) = self.journal.append(batch) {
                abort(&error);
            }
            self.note_written(batch.bytes().len());
            if let Err(error) = self.store.apply_ops(batch, &ops) {
                abort(&format!(
                    "{batch:?} was checked and cannot be applied: {error}"
                ));
            }
        }
        Ok(())
    }

    /// The first batch of an epoch: the history is durable before it.
    fn note_epoch(&mut self, batch: &Batch) {
        let last = self
            .role
            .state()
            .history
            .entries()
            .last()
            .map_or(0, |e| e.epoch);
        if last >= batch.epoch() {
            return;
        }
        let start = EpochStart {
            epoch: batch.epoch(),
            first_offset: batch.first_offset(),
            chain: batch.chain_before(),
        };
        self.save_role(|role| {
            role.history.truncate(start.first_offset - 1);
            role.history.open(start);
            role.has_data = true;
        });
        self.publish_state();
    }

    pub(super) fn covered(&mut self, id: SessionId, offset: u64) -> Result<(), SinkError> {
        // What is being replaced may be of another past: nothing in it is known to be covered by this master's replicas,
        // and what replaces it may still be shorter.
        if !self.session(id)?.is_syncing() {
            self.note_covered(offset);
        }
        Ok(())
    }

    /// A master notes it as its replicas do: it may have to follow one that has less.
    pub(super) fn own_covered(&mut self, epoch: u64, offset: u64) {
        // It may come after the epoch's end. A log that was cut meanwhile has another epoch there.
        let offset = offset.min(self.journal.durable());
        if self.role.state().history.epoch_at(offset) == epoch && self.session.is_none() {
            self.note_covered(offset);
        }
    }

    fn note_covered(&mut self, offset: u64) {
        let own = self.role.state();
        let offset = offset.min(self.journal.durable());
        if offset <= own.covered.offset {
            return;
        }
        let epoch = own.history.epoch_at(offset);
        match self
            .role
            .update(|role| role.covered = Position { epoch, offset })
        {
            Ok(()) => self.publish_state(),
            // It is said again; the process must not die of it.
            Err(error @ RoleError::Unwritten { .. }) => {
                tracing::warn!(%error, "what is covered was not noted");
            }
            Err(error) => abort(&error),
        }
    }

    /// Whether a log with this history that ends at `end` has everything that must not be given up.
    fn keeps_covered(&mut self, history: &History, end: u64) -> Result<(), SinkError> {
        let covered = self.role.state().covered;
        if end >= covered.offset && history.epoch_at(covered.offset) == covered.epoch {
            return Ok(());
        }
        let text = format!(
            "the master's log (up to offset {end}, there in epoch {}) is without {covered}, which was acknowledged by \
             enough replicas: this node keeps it. If that data is to be given up, empty this node's volume",
            history.epoch_at(covered.offset)
        );
        tracing::error!(text, "this replica does not follow its master");
        self.fault = Some(Fault::Ahead(text.clone()));
        // Nothing of it is given up: it is what enough replicas have acknowledged, and may be read.
        self.set_diverged(None);
        self.session = None;
        self.publish_state();
        Err(SinkError::Covered(text))
    }

    fn stop_following(&mut self, text: String) -> SinkError {
        tracing::error!(
            text,
            "this replica stops: what its master sent does not fit"
        );
        self.fault = Some(Fault::Unlike(text.clone()));
        self.session = None;
        self.publish_state();
        SinkError::Mismatch(text)
    }

    pub(super) fn unlike(&mut self, found: String) {
        // Whoever has been promoted meanwhile has the data that counts.
        if matches!(self.role.state().standing, Standing::Replica { .. }) {
            self.fault = Some(Fault::Unlike(found));
            self.publish_state();
        }
    }

    pub(super) fn truncate(
        &mut self,
        id: SessionId,
        to: Position,
    ) -> Result<TruncateOutcome, SinkError> {
        self.session(id)?;
        let history = self.role.state().history.clone();
        self.keeps_covered(&history, to.offset)?;
        let end = self.journal.end().position;
        self.gives_up(format!("operations {} to {}", to.offset + 1, end.offset));
        match self
            .data
            .undo(&mut self.journal, &self.store, &mut self.role, to.offset)
        {
            Ok(UndoOutcome::Done) => {
                tracing::warn!(%to, %end, "a divergent tail was undone and written aside");
                self.diverged = None;
                self.reset_durable();
                self.publish_state();
                Ok(TruncateOutcome::Done)
            }
            Ok(UndoOutcome::NeedsSnapshot) => Ok(TruncateOutcome::NeedsSnapshot),
            Ok(UndoOutcome::DiskRefused(text)) => Err(SinkError::Local(text)),
            Err(error) => abort(&error),
        }
    }

    /// From now on nobody reads what this node holds, until it is the master's again.
    fn gives_up(&mut self, what: String) {
        if self.diverged.is_none() {
            tracing::warn!(
                what,
                "this node holds what its master does not have, and serves no reads until that is given up"
            );
        }
        self.set_diverged(Some(what));
        self.publish_state();
    }

    /// Also for after a restart, as far as the disk takes it.
    fn set_diverged(&mut self, what: Option<String>) {
        match self.role.update(|role| role.diverged = what.clone()) {
            Ok(()) => {}
            // A disk without room must not keep a node from what may make some.
            Err(error @ RoleError::Unwritten { .. }) => {
                tracing::warn!(%error, "whether this node diverges was not noted");
            }
            Err(error) => abort(&error),
        }
        self.diverged = what;
    }

    /// Its log is a beginning of its master's after all, such as of another master's than the one before.
    pub(super) fn continues(&mut self, id: SessionId) -> Result<(), SinkError> {
        self.session(id)?;
        if self.diverged.is_some() {
            self.set_diverged(None);
            self.publish_state();
        }
        Ok(())
    }

    /// What this node holds and the log of this snapshot does not, as far as both histories tell. Nothing on a replica
    /// that is merely behind: what it has may be read until the snapshot takes its place.
    fn diverges_from(&self, header: &SnapshotHeader) -> Option<String> {
        let (own, theirs) = (self.journal.end(), header.start);
        let common = self.role.state().history.common_end(
            own.position.offset,
            &header.history,
            theirs.position.offset,
        );
        if common < own.position.offset {
            return Some(format!(
                "operations {} to {}",
                common + 1,
                own.position.offset
            ));
        }
        (own.position == theirs.position && own.chain != theirs.chain)
            .then(|| format!("another log up to {}", own.position))
    }

    pub(super) fn snapshot_begin(
        &mut self,
        id: SessionId,
        header: SnapshotHeader,
    ) -> Result<(), SinkError> {
        self.session(id)?;
        self.keeps_covered(&header.history, header.start.position.offset)?;
        if let Some(what) = self.diverges_from(&header) {
            self.gives_up(what);
        }
        match self.data.begin_incoming(self.role.state(), header) {
            Ok(incoming) => {
                let session = self.session(id)?;
                session.incoming = Some(incoming);
                session.next_chunk = 0;
                self.publish_state();
                Ok(())
            }
            Err(error) => Err(self.give_up_snapshot(&error)),
        }
    }

    pub(super) fn snapshot_chunk(
        &mut self,
        id: SessionId,
        index: u32,
        bytes: &Bytes,
    ) -> Result<(), SinkError> {
        let session = self.session(id)?;
        if index != session.next_chunk {
            return Err(SinkError::Mismatch(format!(
                "snapshot chunk {index} where {} was due",
                session.next_chunk
            )));
        }
        session.next_chunk += 1;
        // Room on the disk is looked at where it is written; in memory, the copy stands beside what it replaces.
        self.memory_for_snapshot(bytes.len())?;
        let session = self.session(id)?;
        let incoming = session.incoming.as_mut().ok_or(SinkError::SessionOver)?;
        let loaded = incoming.load_chunk(bytes);
        loaded.map_err(|error| self.give_up_snapshot(&error))
    }

    fn memory_for_snapshot(&mut self, bytes: usize) -> Result<(), SinkError> {
        self.memory_for(bytes as u64, Need::Following)
            .map_err(|why| self.refuse_snapshot(why))?;
        self.note_grown(bytes);
        Ok(())
    }

    /// It does not fit: what was served is served on.
    fn refuse_snapshot(&mut self, why: String) -> SinkError {
        self.session = None;
        self.publish_state();
        SinkError::Local(why)
    }

    /// What was received of it is removed, so that it does not keep a disk full; what was served is served on.
    fn give_up_snapshot(&mut self, error: &DataDirError) -> SinkError {
        let refused = self.refuse_snapshot(error.to_string());
        if error.is_disk() {
            refused
        } else {
            SinkError::Mismatch(error.to_string())
        }
    }

    pub(super) fn snapshot_end(
        &mut self,
        id: SessionId,
        trailer: SnapshotTrailer,
    ) -> Result<(), SinkError> {
        let incoming = self
            .session(id)?
            .incoming
            .as_mut()
            .ok_or(SinkError::SessionOver)?;
        let finished = incoming.finish_chunks(trailer);
        finished.map_err(|error| self.give_up_snapshot(&error))?;
        self.install_if_exact(id)
    }

    fn replicate_into_snapshot(
        &mut self,
        id: SessionId,
        batches: &[Batch],
    ) -> Result<(), SinkError> {
        self.session(id)?;
        self.memory_for_snapshot(batches.iter().map(|batch| batch.bytes().len()).sum())?;
        let incoming = self
            .session(id)?
            .incoming
            .as_mut()
            .ok_or(SinkError::SessionOver)?;
        let appended = batches.iter().try_for_each(|batch| incoming.append(batch));
        appended.map_err(|error| self.give_up_snapshot(&error))?;
        self.install_if_exact(id)
    }

    /// The one durable step from the old data to the new.
    fn install_if_exact(&mut self, id: SessionId) -> Result<(), SinkError> {
        let session = self.session(id)?;
        if !session.incoming.as_ref().is_some_and(Incoming::is_exact) {
            return Ok(());
        }
        let Some(incoming) = session.incoming.take() else {
            return Ok(());
        };
        if let Err(error) = self.keep_what_diverges(&incoming) {
            if error.is_disk() {
                return Err(self.give_up_snapshot(&error));
            }
            // The full sync may be what mends it.
            tracing::error!(%error, "the log cannot be read: what only this node had is not written aside");
        }
        self.checkpoints.stop();
        let installed = incoming.install(&mut self.role, |role| {
            role.has_data = true;
            role.diverged = None;
        });
        match installed {
            Ok((store, journal)) => {
                self.store.replace_with(store);
                self.journal.replace_with(journal);
            }
            Err(error @ DataDirError::Role(RoleError::Unwritten { .. })) => {
                self.restart_checkpoints();
                return Err(self.give_up_snapshot(&error));
            }
            Err(error) => abort(&error),
        }
        self.fault = None;
        self.diverged = None;
        self.reset_durable();
        // Before anything slower: from the moment that the copy shows its position, its readers are still refused.
        self.publish_state();
        tracing::info!(position = %self.journal.end().position, "full sync installed");
        self.restart_checkpoints();
        Ok(())
    }

    /// A former master may hold operations that the full sync knows nothing of: they are not lost without a trace.
    fn keep_what_diverges(&mut self, incoming: &Incoming) -> Result<(), DataDirError> {
        let Some(history) = incoming.history() else {
            return Ok(());
        };
        self.journal.publish();
        let end = incoming.end().position.offset;
        let log = self.journal.reader();
        self.data
            .write_divergence_aside(&log, self.role.state(), (&history, end))
    }
}

/// What a batch of a master needs: deletes make room here as they do there.
fn need_of(ops: &[Op<'_>]) -> Need {
    let makes_room = |op: &Op<'_>| match op {
        Op::Put { .. } => false,
        Op::Other(record) => matches!(
            **record,
            Record::Delete { .. } | Record::DropCollection { .. } | Record::Epoch { .. }
        ),
    };
    if ops.iter().all(makes_room) {
        Need::Deletes
    } else {
        Need::Following
    }
}
