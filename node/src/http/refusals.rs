//! What the log says of requests that are refused: each kind at once, then once a minute with how often it happened.
//! Metrics count all of them (`vectorizer_http_refusals_total`).

use vectorizer_api::error::ErrorCode;

use super::endpoint::{Kind, Rule};
use super::seldom::Seldom;

/// Why a request was refused, beside its [`ErrorCode`]. Only where the node's state is the reason: what is wrong with a
/// request, and what is in it, is between its client and the node.
#[derive(Clone)]
pub(super) struct Why(pub String);

/// One kind of line for each type of error.
#[derive(Default)]
pub(super) struct Refusals([Seldom; ErrorCode::ALL.len()]);

impl Refusals {
    /// A request was refused.
    pub(super) fn note(&self, code: ErrorCode, rule: Option<Rule>, why: Option<&Why>) {
        // A probe that hears no is told why, and tells who asked for it.
        let probe = rule.is_some_and(|rule| rule.kind == Kind::System);
        let seldom = ErrorCode::ALL
            .iter()
            .position(|each| *each == code)
            .and_then(|at| self.0.get(at));
        let Some(seldom) = seldom.filter(|_| !probe && !is_everyday(code)) else {
            return;
        };
        let Some(times) = seldom.happened() else {
            return;
        };
        let error_type = code.as_str();
        let endpoint = rule.map_or("unmatched", |rule| rule.path);
        match why {
            Some(Why(why)) => {
                tracing::warn!(error_type, endpoint, times, "requests are refused: {why}");
            }
            None => tracing::info!(error_type, endpoint, times, "requests are refused"),
        }
    }
}

/// Whether it is an answer like any other: a program asks whether something is there.
fn is_everyday(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CollectionNotFound
            | ErrorCode::VectorNotFound
            | ErrorCode::ReplicaNotFound
            | ErrorCode::CollectionExists
    )
}
