//! Deliberate defects, switched on one at a time by tests that show that the simulator notices them.
//!
//! Outside this crate's own tests every switch is the constant `false`, and the compiler removes what it guards.

/// One defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) enum Breakage {
    /// Commands and sessions below the promised epoch are accepted.
    DropEpochCheck,
    /// A reconnecting replica is fed from one operation too late.
    ResumeOneOff,
    /// A restarted master begins its log again at offset 1.
    ResetOffsetsOnRestart,
    /// A replica acknowledges before it appends.
    AckBeforeAppend,
    /// A divergent tail is kept where it has to be cut, and the chain is not looked at.
    SkipTruncate,
    /// A snapshot counts as complete at its start, not at the end of what was written meanwhile.
    SnapshotExactTooEarly,
    /// A restarted master goes on in the epoch of its former process.
    KeepEpochOnRestart,
    /// A hand-over does not wait for its target, and a promotion does not look at the position.
    HandOverWithoutWaiting,
    /// A master answers writes before they are durable.
    SkipFsync,
    /// An operation is stamped with where the log ends when it is applied, not with its own offset.
    StampCurrentOffset,
    /// A former master goes on feeding those who are connected to it.
    DemotedKeepsFeeding,
    /// The watermark of a replica that is gone counts as if it were connected.
    CountDeadReplicas,
    /// A removal or a raised number is recorded before everything so far is covered that way.
    RecordUncovered,
    /// What a handover settled counts for a record, though the handover failed, or members have changed since.
    RecordSettled,
    /// A conflict on recording members means that nothing was recorded.
    GiveUpOnConflict,
    /// What an earlier epoch left counts as covered before the epoch's own first record is.
    CoverOldEpochs,
    /// A node that is no member becomes master while acknowledgements are asked for.
    LeadByNonMember,
    /// A failover is content with one member less than hold every acknowledged write.
    FenceOneTooFew,
    /// What replicas were waited for is not recorded when fewer acknowledgements are.
    RecordUnsecured,
    /// A failover that waits for no member takes whoever answers.
    ElectUnsecured,
    /// Whoever asks is fed, without a window.
    UnboundedWindow,
    /// What was taken over of the log is not looked at: every reconnect is a full sync.
    AlwaysSnapshot,
    /// One acknowledgement counts as however many were asked for.
    CountOneAckForAll,
}

#[cfg(test)]
impl Breakage {
    /// Every defect.
    pub(crate) const ALL: [Breakage; 23] = [
        Breakage::RecordSettled,
        Breakage::GiveUpOnConflict,
        Breakage::LeadByNonMember,
        Breakage::RecordUncovered,
        Breakage::CoverOldEpochs,
        Breakage::FenceOneTooFew,
        Breakage::CountOneAckForAll,
        Breakage::RecordUnsecured,
        Breakage::ElectUnsecured,
        Breakage::StampCurrentOffset,
        Breakage::DemotedKeepsFeeding,
        Breakage::CountDeadReplicas,
        Breakage::DropEpochCheck,
        Breakage::ResumeOneOff,
        Breakage::ResetOffsetsOnRestart,
        Breakage::AckBeforeAppend,
        Breakage::SkipTruncate,
        Breakage::SnapshotExactTooEarly,
        Breakage::KeepEpochOnRestart,
        Breakage::HandOverWithoutWaiting,
        Breakage::SkipFsync,
        Breakage::UnboundedWindow,
        Breakage::AlwaysSnapshot,
    ];

    /// Where it is. What is in `sim/` stands for something outside this crate, of which the simulator has a model: the
    /// node (`node/src`) or the operator (`operator/src`). The file there is named beside it.
    pub(crate) fn place(self) -> &'static str {
        match self {
            Breakage::DropEpochCheck => "command/decide.rs, greeting.rs",
            Breakage::AlwaysSnapshot => "handshake.rs",
            Breakage::ResumeOneOff => "handshake.rs, replica/greeting.rs",
            Breakage::SkipTruncate => "handshake.rs, replica.rs",
            Breakage::CountOneAckForAll | Breakage::RecordUnsecured => "concern.rs",
            Breakage::AckBeforeAppend | Breakage::SnapshotExactTooEarly => "replica.rs",
            Breakage::UnboundedWindow => "master.rs",
            Breakage::CountDeadReplicas => "roster.rs",
            Breakage::HandOverWithoutWaiting => {
                "command/decide.rs, sim/control.rs (node: writer/control.rs)"
            }
            Breakage::RecordSettled | Breakage::CoverOldEpochs => "quorum.rs",
            Breakage::GiveUpOnConflict => "sim/lease.rs (node: lease/leadership.rs)",
            Breakage::RecordUncovered => "sim/members.rs (node: lease/leadership.rs)",
            Breakage::SkipFsync => "sim/members.rs (node: writer/thread.rs)",
            Breakage::ResetOffsetsOnRestart => "sim/node.rs (node: journal/recover.rs)",
            Breakage::KeepEpochOnRestart => "sim/volume.rs (node: lease/leadership.rs)",
            Breakage::StampCurrentOffset => "sim/disk.rs (node: store.rs)",
            Breakage::DemotedKeepsFeeding => "sim/feeds.rs (node: link/feed.rs)",
            Breakage::FenceOneTooFew => "sim/settle.rs (operator: plan/concern.rs)",
            Breakage::LeadByNonMember | Breakage::ElectUnsecured => {
                "sim/plan.rs (operator: plan/concern.rs)"
            }
        }
    }
}

#[cfg(not(test))]
pub(crate) const fn on(_: Breakage) -> bool {
    false
}

#[cfg(test)]
pub(crate) use switch::{on, with};

#[cfg(test)]
mod switch {
    use super::Breakage;
    use std::cell::Cell;

    thread_local!(static ACTIVE: Cell<Option<Breakage>> = const { Cell::new(None) });

    /// Whether a defect is switched on in this thread.
    pub(crate) fn on(breakage: Breakage) -> bool {
        ACTIVE.get() == Some(breakage)
    }

    /// Runs `body` with a defect switched on, and off again afterwards, also after a panic.
    pub(crate) fn with<T>(breakage: Breakage, body: impl FnOnce() -> T) -> T {
        struct Reset;
        impl Drop for Reset {
            fn drop(&mut self) {
                ACTIVE.set(None);
            }
        }
        ACTIVE.set(Some(breakage));
        let _reset = Reset;
        body()
    }
}
