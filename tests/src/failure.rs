//! Why a scenario failed: one message, with what was being done in front.

/// The reason, for a person.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

/// What everything here answers.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Failure(message.into())
    }
}

/// Turns errors of other crates, and absent values, into failures.
pub trait OrFail<T> {
    /// Names what was being done.
    fn or_fail(self, doing: &str) -> Result<T>;
}

impl<T, E: std::fmt::Display> OrFail<T> for std::result::Result<T, E> {
    fn or_fail(self, doing: &str) -> Result<T> {
        self.map_err(|error| Failure(format!("{doing}: {error}")))
    }
}

impl<T> OrFail<T> for Option<T> {
    fn or_fail(self, doing: &str) -> Result<T> {
        self.ok_or_else(|| Failure(format!("{doing}: it is not there")))
    }
}

/// Fails with a message unless the condition holds.
pub fn ensure(condition: bool, message: impl FnOnce() -> String) -> Result<()> {
    if condition {
        Ok(())
    } else {
        Err(Failure(message()))
    }
}
