//! Errors of the REST API: a closed set of types, each with its HTTP status and what it says about side effects.

use serde::{Deserialize, Serialize};

/// What went wrong, as a closed set. Serialized in snake case as `error_type`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed or a value is out of range.
    InvalidRequest,
    /// No usable credential was sent.
    Unauthenticated,
    /// The credential does not allow this.
    Forbidden,
    /// No such endpoint.
    EndpointNotFound,
    /// The method is not allowed on this endpoint.
    MethodNotAllowed,
    /// No such collection.
    CollectionNotFound,
    /// No such vector.
    VectorNotFound,
    /// No such replica is listed.
    ReplicaNotFound,
    /// A collection of that name exists.
    CollectionExists,
    /// The command contradicts what the node is or knows: a higher epoch, another position, another cluster.
    Conflict,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The body is larger than allowed.
    PayloadTooLarge,
    /// The body is in another format, encoding or compression than the endpoint takes.
    UnsupportedMediaType,
    /// A write was sent to a replica; `details.master` names the master.
    NotMaster,
    /// Too many requests at once; `Retry-After` says when to come back.
    TooManyRequests,
    /// The node may not acknowledge writes now: fenced, unassigned, or its lease ran out. Nothing happened.
    Fenced,
    /// Fewer replicas than the write concern asks for are in sync. Nothing happened.
    NotEnoughReplicas,
    /// Free disk space is too low for writes that grow. Nothing happened.
    DiskFull,
    /// Too little memory is left for writes that grow. Nothing happened.
    MemoryFull,
    /// The node is starting or stopping. Nothing happened.
    Unavailable,
    /// The write was appended but not confirmed in time: it may or may not survive.
    OutcomeUnknown,
    /// A bug.
    Internal,
}

impl ErrorCode {
    /// Every code, for tables and documents.
    pub const ALL: [ErrorCode; 22] = [
        ErrorCode::InvalidRequest,
        ErrorCode::Unauthenticated,
        ErrorCode::Forbidden,
        ErrorCode::EndpointNotFound,
        ErrorCode::MethodNotAllowed,
        ErrorCode::CollectionNotFound,
        ErrorCode::VectorNotFound,
        ErrorCode::ReplicaNotFound,
        ErrorCode::CollectionExists,
        ErrorCode::Conflict,
        ErrorCode::RequestTimeout,
        ErrorCode::PayloadTooLarge,
        ErrorCode::UnsupportedMediaType,
        ErrorCode::NotMaster,
        ErrorCode::TooManyRequests,
        ErrorCode::Fenced,
        ErrorCode::NotEnoughReplicas,
        ErrorCode::DiskFull,
        ErrorCode::MemoryFull,
        ErrorCode::Unavailable,
        ErrorCode::OutcomeUnknown,
        ErrorCode::Internal,
    ];

    /// The word used as `error_type`.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::InvalidRequest => "invalid_request",
            ErrorCode::Unauthenticated => "unauthenticated",
            ErrorCode::Forbidden => "forbidden",
            ErrorCode::EndpointNotFound => "endpoint_not_found",
            ErrorCode::MethodNotAllowed => "method_not_allowed",
            ErrorCode::CollectionNotFound => "collection_not_found",
            ErrorCode::VectorNotFound => "vector_not_found",
            ErrorCode::ReplicaNotFound => "replica_not_found",
            ErrorCode::CollectionExists => "collection_exists",
            ErrorCode::Conflict => "conflict",
            ErrorCode::RequestTimeout => "request_timeout",
            ErrorCode::PayloadTooLarge => "payload_too_large",
            ErrorCode::UnsupportedMediaType => "unsupported_media_type",
            ErrorCode::NotMaster => "not_master",
            ErrorCode::TooManyRequests => "too_many_requests",
            ErrorCode::Fenced => "fenced",
            ErrorCode::NotEnoughReplicas => "not_enough_replicas",
            ErrorCode::DiskFull => "disk_full",
            ErrorCode::MemoryFull => "memory_full",
            ErrorCode::Unavailable => "unavailable",
            ErrorCode::OutcomeUnknown => "outcome_unknown",
            ErrorCode::Internal => "internal",
        }
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            ErrorCode::InvalidRequest => 400,
            ErrorCode::Unauthenticated => 401,
            ErrorCode::Forbidden => 403,
            ErrorCode::EndpointNotFound
            | ErrorCode::CollectionNotFound
            | ErrorCode::VectorNotFound
            | ErrorCode::ReplicaNotFound => 404,
            ErrorCode::MethodNotAllowed => 405,
            ErrorCode::CollectionExists | ErrorCode::Conflict => 409,
            ErrorCode::RequestTimeout => 408,
            ErrorCode::PayloadTooLarge => 413,
            ErrorCode::UnsupportedMediaType => 415,
            ErrorCode::NotMaster => 421,
            ErrorCode::TooManyRequests => 429,
            ErrorCode::Internal => 500,
            ErrorCode::Fenced
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::DiskFull
            | ErrorCode::MemoryFull
            | ErrorCode::Unavailable => 503,
            ErrorCode::OutcomeUnknown => 504,
        }
    }

    /// Whether the same request may succeed later, unchanged, on the same or another node.
    pub fn is_retryable(self) -> bool {
        match self {
            ErrorCode::RequestTimeout
            | ErrorCode::NotMaster
            | ErrorCode::TooManyRequests
            | ErrorCode::Fenced
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::DiskFull
            | ErrorCode::MemoryFull
            | ErrorCode::Unavailable
            | ErrorCode::OutcomeUnknown => true,
            ErrorCode::InvalidRequest
            | ErrorCode::Unauthenticated
            | ErrorCode::Forbidden
            | ErrorCode::EndpointNotFound
            | ErrorCode::MethodNotAllowed
            | ErrorCode::CollectionNotFound
            | ErrorCode::VectorNotFound
            | ErrorCode::ReplicaNotFound
            | ErrorCode::CollectionExists
            | ErrorCode::Conflict
            | ErrorCode::PayloadTooLarge
            | ErrorCode::UnsupportedMediaType
            | ErrorCode::Internal => false,
        }
    }

    /// Whether it is certain that the request changed nothing.
    pub fn has_no_side_effects(self) -> bool {
        !matches!(self, ErrorCode::OutcomeUnknown | ErrorCode::Internal)
    }
}

/// The body of every error answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[error("{error_type:?} ({status_code}): {message}")]
pub struct ApiError {
    /// What went wrong.
    pub error_type: ErrorCode,
    /// What, where, and what would be right.
    pub message: String,
    /// The HTTP status once more.
    pub status_code: u16,
    /// More, by type: `path` of a bad value, `master` and `master_url` for `not_master`, `position`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}

impl ApiError {
    /// An error without details.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ApiError {
            error_type: code,
            message: message.into(),
            status_code: code.status(),
            details: None,
        }
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(mut self, details: serde_json::Value) -> Self {
        self.details = Some(details);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_on_the_wire_are_those_of_the_table() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn what_may_have_happened_is_never_said_to_be_without_side_effects() {
        for code in ErrorCode::ALL {
            let unclear = matches!(code.status(), 500 | 504);
            assert_eq!(code.has_no_side_effects(), !unclear, "{code:?}");
        }
    }
}
