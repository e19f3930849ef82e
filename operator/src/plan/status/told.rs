//! Conditions that are to be said, and how they are merged into those that were.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::crd::{LastPromotion, PromotionResult};
use crate::names::{condition, reason};

/// What is to be said of a condition.
pub(super) struct Told {
    pub(super) of: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Told {
    fn new(of: &'static str, status: &'static str, reason: &'static str, message: &str) -> Self {
        Told {
            of,
            status,
            reason,
            message: message.to_owned(),
        }
    }

    pub(super) fn yes(of: &'static str, reason: &'static str, message: &str) -> Self {
        Told::new(of, "True", reason, message)
    }

    pub(super) fn no(of: &'static str, reason: &'static str, message: &str) -> Self {
        Told::new(of, "False", reason, message)
    }

    pub(super) fn unknown(of: &'static str, reason: &'static str, message: &str) -> Self {
        Told::new(of, "Unknown", reason, message)
    }
}

/// New conditions over old ones: one whose status has not changed keeps the time of its last change.
pub(super) fn merge(
    old: &[Condition],
    told: Vec<Told>,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let mut merged: Vec<Condition> = old
        .iter()
        .filter(|c| !told.iter().any(|t| t.of == c.type_))
        .cloned()
        .collect();
    for Told {
        of,
        status,
        reason,
        message,
    } in told
    {
        let before = old.iter().find(|c| c.type_ == of);
        let since = before
            .filter(|c| c.status == status)
            .map(|c| c.last_transition_time.clone());
        merged.push(Condition {
            type_: of.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: since.unwrap_or(Time(now)),
            observed_generation: Some(generation),
        });
    }
    merged.sort_by(|a, b| a.type_.cmp(&b.type_));
    merged
}

/// How the last change of the master ended.
pub(super) fn promotion(last: &LastPromotion) -> Told {
    let of = condition::PROMOTION_SUCCEEDED;
    match last.result {
        PromotionResult::Succeeded => Told::yes(of, reason::PROMOTION_SUCCEEDED, &last.message),
        PromotionResult::Failed => Told::no(of, reason::PROMOTION_FAILED, &last.message),
        PromotionResult::Refused => Told::no(of, reason::PROMOTION_REFUSED, &last.message),
    }
}
