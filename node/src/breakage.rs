//! Deliberate defects of the node, for `make mutants`, which shows that tests notice them.
//!
//! `VECTORIZER_BREAKAGE=<name>` switches one on, in this crate's own tests only: in every other build each switch is
//! the constant `false`, and the compiler removes what it guards.

/// One defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) enum Breakage {
    /// A replica forgets deletions.
    ForgetDeletes,
    /// A conflict on recording members means that nothing was recorded.
    GiveUpOnConflict,
    /// The API server's client repeats by itself what it takes for a passing fault.
    RepeatRequests,
    /// Collections that the master has dropped outlive a full sync.
    KeepDroppedCollections,
    /// A former master goes on serving those who are connected to it.
    KeepListener,
    /// A restart begins a log that is there anew.
    ResetOffsetsOnRestart,
    /// What was appended is called durable, and answered, without an fsync.
    SkipFsync,
    /// An operation is stamped with the end of its batch, not with its own offset.
    StampCurrentOffset,
}

#[cfg(not(test))]
pub(crate) const fn on(_: Breakage) -> bool {
    false
}

/// Whether a defect is switched on.
#[cfg(test)]
pub(crate) fn on(breakage: Breakage) -> bool {
    use std::sync::LazyLock;
    static ACTIVE: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("VECTORIZER_BREAKAGE").ok());
    ACTIVE
        .as_ref()
        .is_some_and(|name| *name == format!("{breakage:?}"))
}
