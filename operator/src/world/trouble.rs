//! What keeps something from coming, as Kubernetes says it: the words are passed on as they are.

use std::fmt;

/// Why something is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// In one word of Kubernetes' own, such as `FailedCreate` or `ImagePullBackOff`.
    pub reason: String,
    /// In its own sentence; empty where it has none.
    pub message: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.reason.as_str(), self.message.as_str()) {
            (reason, "") => write!(f, "{reason}"),
            ("", message) => write!(f, "{message}"),
            (reason, message) => write!(f, "{reason}: {message}"),
        }
    }
}

/// What the API server refused to write when it was asked last. It is asked less and less.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What was asked for: checksum of an object, size of a claim. Something else is asked for at once.
    pub attempt: String,
    /// What it said.
    pub words: String,
    /// Whether it is time to ask again.
    pub due: bool,
}
