//! Commands that change the role, as the writer carries them out. What is allowed is one pure function
//! ([`decide`]); here its transitions become durable, and only then are answered.

use std::time::{Duration, Instant};

use uuid::Uuid;
use vectorizer_api::control::Handover;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_replication::command::{Command, Effect, HandedOver, RoleFacts, Transition, decide};

use super::handle::stopping;
use super::room::Need;
use super::thread::{Hold, Writer, abort};
use super::{Fault, Held, Job, WriterHandle};
use crate::replicas::ReplicaTable;
use crate::role::{RoleError, RoleState};

/// A handover may hold writes for no longer than this, whatever the command says.
const LONGEST_HOLD: Duration = Duration::from_secs(60);

impl WriterHandle {
    /// Stops writing in `from_epoch` once the target holds everything durably, and promises the next epoch.
    ///
    /// Runs to its end even when the caller goes away. Until the promise is durable, every failure and the deadline
    /// leave this node writing as before.
    pub async fn handover(
        &self,
        command: Handover,
        replicas: ReplicaTable,
    ) -> Result<(), ApiError> {
        let this = self.clone();
        let plan = HandedOver {
            from_epoch: command.from_epoch,
            epoch: command.epoch,
            target: command.target,
        };
        let run = async move {
            let limit = Duration::from_millis(command.deadline_ms).min(LONGEST_HOLD);
            let until = Instant::now() + limit;
            let cluster = command.cluster;
            let held = this
                .refusable(|reply| Job::HoldWrites {
                    cluster,
                    plan,
                    until,
                    reply,
                })
                .await?;
            let outcome = this.hand_over(plan, held, (limit, until), &replicas).await;
            if outcome.is_err() {
                replicas.unsettle();
                // A writer that has stopped holds nothing.
                let _ = this.jobs.send(Job::ReleaseWrites(held.number)).await;
            }
            outcome
        };
        match tokio::spawn(run).await {
            Ok(outcome) => outcome,
            Err(_) => Err(stopping()),
        }
    }

    async fn hand_over(
        &self,
        plan: HandedOver,
        held: Held,
        (limit, until): (Duration, Instant),
        replicas: &ReplicaTable,
    ) -> Result<(), ApiError> {
        let (target, end) = (plan.target, held.end);
        let (holding, stopped, promised) = {
            let now = self.state.borrow();
            (now.handing_over, now.master_epoch == 0, now.promised)
        };
        if !holding && stopped && promised == plan.epoch {
            // Given twice: it was finished before, and the answer is the same.
            return Ok(());
        }
        if !holding {
            let message = "the hold ended before the target had caught up: send the handover again";
            return Err(ApiError::new(ErrorCode::Conflict, message));
        }
        let mut changed = replicas.changed();
        let caught_up = async {
            loop {
                changed.borrow_and_update();
                match replicas.durable_of(target) {
                    Some(durable) if durable >= end.offset => return true,
                    Some(_) => {}
                    None => return false,
                }
                if changed.changed().await.is_err() {
                    return false;
                }
            }
        };
        let message = match tokio::time::timeout_at(until.into(), caught_up).await {
            Ok(true) => {
                // Writes that wait for more replicas than the target are answered before this node is master no more;
                // should one of those hang, the target has everything, and half of the time is left for the rest.
                let now = Instant::now();
                let half = now + until.saturating_duration_since(now) / 2;
                replicas.settle(plan.from_epoch, end.offset, half).await;
                return self
                    .refusable(|reply| Job::FinishHandover(plan, held, reply))
                    .await;
            }
            Ok(false) => {
                format!("replica {target} is not connected: see GET /replication/replicas")
            }
            Err(_) => format!(
                "replica {target} did not reach {end} within {} ms",
                limit.as_millis()
            ),
        };
        Err(ApiError::new(
            ErrorCode::Conflict,
            format!("{message}; this node goes on writing"),
        ))
    }
}

impl Writer {
    pub(super) fn facts(&self) -> RoleFacts {
        let own = self.role.state();
        RoleFacts {
            node_id: own.node_id,
            cluster: own.cluster,
            promised: own.promised,
            standing: own.standing.clone(),
            writing: self.writing.is_some(),
            end: self.journal.end().position,
            has_data: own.has_data,
            handed_over: own.handed_over,
        }
    }

    pub(super) fn decide(&self, command: &Command) -> Result<Transition, ApiError> {
        decide(&self.facts(), command)
            .map_err(|refusal| ApiError::new(ErrorCode::Conflict, refusal.to_string()))
    }

    pub(super) fn command(&mut self, command: &Command) -> Result<(), ApiError> {
        if matches!(command, Command::Promote { .. }) {
            if let Some(Fault::Unlike(found)) = &self.fault {
                let message = format!(
                    "this node's data is not its master's ({found}), and no full sync has replaced it yet; promote \
                     another one, or restart this node if its data is to be used as it is"
                );
                return Err(ApiError::new(ErrorCode::Conflict, message));
            }
            // A promotion is decided on what is durable.
            self.sync_or_abort();
        }
        let transition = self.decide(command)?;
        let effect = transition.effect;
        let raises = transition.promised > self.role.state().promised;
        self.fences += u64::from(raises && matches!(command, Command::Fence { .. }));
        if matches!(effect, Effect::OpenEpoch(_)) {
            // Its first record would end the process. Nothing has changed yet.
            self.room_for(0, Need::Role)?;
        }
        match self.carry_out(transition) {
            Ok(()) => Ok(()),
            // It has stopped writing and cannot note why: a restart has to find out what it may do.
            Err(error) if effect == Effect::StopWriting => abort(&error),
            Err(error) => Err(ApiError::new(ErrorCode::DiskFull, error.to_string())),
        }
    }

    /// Everything is durable when this returns, in the order of [`Effect`]'s documentation. On an error, the disk took no
    /// new role file: nothing is promised, but what the effect ended has ended.
    pub(super) fn carry_out(&mut self, transition: Transition) -> Result<(), RoleError> {
        // Gives the reserve up where the role file needs its room. Where even that is too little, the file says so.
        let _ = self.room_for(0, Need::Role);
        let persists = transition.persists(&self.facts());
        match transition.effect {
            Effect::None | Effect::HoldWrites => {}
            Effect::StopWriting => {
                self.stop_writing();
                self.session = None;
                self.sync_or_abort();
            }
            Effect::EndSession | Effect::OpenEpoch(_) => {
                self.session = None;
                self.sync_or_abort();
            }
        }
        let Transition {
            cluster,
            promised,
            standing,
            handed_over,
            effect,
        } = transition;
        let change = |role: &mut RoleState| {
            role.cluster = cluster;
            role.promised = promised;
            role.standing = standing;
            role.handed_over = handed_over;
        };
        if let Effect::OpenEpoch(epoch) = effect {
            self.open_epoch(epoch, change);
        } else if persists {
            match self.role.update(change) {
                Err(error @ RoleError::Unwritten { .. }) => return Err(error),
                Err(error) => abort(&error),
                Ok(()) => {}
            }
            self.publish_progress();
            self.publish_state();
        }
        Ok(())
    }

    /// Refuses new writes, to be tried again, and answers where the log ends. A hold that was there is taken over.
    pub(super) fn hold_writes(
        &mut self,
        cluster: Uuid,
        plan: HandedOver,
        until: Instant,
    ) -> Result<Held, ApiError> {
        let transition = self.decide(&Command::Handover { cluster, plan })?;
        if transition.effect == Effect::HoldWrites {
            self.holds_begun += 1;
            self.hold = Some(Hold {
                plan,
                number: self.holds_begun,
                until,
            });
            self.publish_state();
        }
        Ok(Held {
            number: self.holds_begun,
            end: self.journal.end().position,
        })
    }

    pub(super) fn release_writes(&mut self, number: u64) {
        if self.hold.take_if(|h| h.number == number).is_some() {
            self.publish_state();
        }
    }

    /// The point of no return of a handover: promises the next epoch and stops writing, if its own hold still stands.
    pub(super) fn finish_handover(&mut self, plan: HandedOver, held: Held) -> Result<(), ApiError> {
        let own = self.role.state();
        if own.handed_over == Some(plan) && own.promised == plan.epoch {
            return Ok(());
        }
        let refusal = match &self.hold {
            Some(hold) if hold.number != held.number => {
                Some("the handover was given again meanwhile, and that command goes on with it")
            }
            // The target was waited for at another end than this log's.
            Some(hold) if hold.plan != plan || self.journal.end().position != held.end => {
                Some("the hold is not this handover's; send it again")
            }
            Some(hold) if Instant::now() < hold.until => None,
            Some(_) | None => Some("the handover missed its deadline; this node goes on writing"),
        };
        if let Some(message) = refusal {
            return Err(ApiError::new(ErrorCode::Conflict, message));
        }
        let transition = self.decide(&Command::FinishHandover { plan })?;
        let writing = self.writing;
        self.handed_over_at = Some(Instant::now());
        self.handed_over_end = Some(held.end);
        if let Err(error) = self.carry_out(transition) {
            self.writing = writing;
            self.handed_over_at = None;
            self.handed_over_end = None;
            self.publish_state();
            let message = format!("{error}; this node goes on writing");
            return Err(ApiError::new(ErrorCode::DiskFull, message));
        }
        Ok(())
    }
}
