//! Why a run has no result.

use std::io;

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A socket, file or process failed.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// How it failed.
        source: io::Error,
    },
    /// A server answered what it should not.
    #[error("{0}")]
    Answer(String),
    /// Something did not happen in time.
    #[error("waited in vain for {0}")]
    Late(String),
    /// Master and replica do not hold the same: no figure of the run counts.
    #[error("the run is void: {0}")]
    Void(String),
}

/// A step of the benchmark.
pub type Outcome<T> = Result<T, BenchError>;

/// Names what was done when it failed.
pub trait Context<T> {
    /// `what` is a phrase such as "connecting to the master".
    fn context(self, what: &str) -> Outcome<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: &str) -> Outcome<T> {
        self.map_err(|source| BenchError::Io {
            what: what.to_owned(),
            source,
        })
    }
}
