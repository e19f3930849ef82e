//! Reads: wherever there is data, and not before the node has applied what the client has seen.
//!
//! A client that wrote at position P sends `X-Vectorizer-Position: P` with a read, to whichever node; the read waits for
//! a moment until the node has got there. So many may wait as may be worked on, and while they wait they take no
//! place of those that are.

use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::json;
use vectorizer_api::POSITION_HEADER;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_api::replication::Role;
use vectorizer_replication::position::Position;

use super::answer::invalid;
use super::endpoint::Kind;
use super::{Api, whereabouts};
use crate::writer::NodeState;

/// A read waits for its position no longer than this.
const LONGEST_WAIT: Duration = Duration::from_millis(if cfg!(test) { 2000 } else { 5000 });

/// Waits until a read may go on: until this node has applied what its client has seen.
pub(super) async fn wait(api: &Api, headers: &HeaderMap) -> Result<(), ApiError> {
    check(api)?;
    let Some(value) = headers.get(POSITION_HEADER) else {
        return Ok(());
    };
    let wanted: Position = value
        .to_str()
        .map_err(|_| invalid(POSITION_HEADER, "not a text"))?
        .parse()
        .map_err(|error| invalid(POSITION_HEADER, error))?;
    wait_for(api, wanted).await
}

/// Whether what this node holds may be read.
pub(super) fn check(api: &Api) -> Result<(), ApiError> {
    let state = api.writer.state();
    let state = state.borrow();
    let reason = if state.has_data {
        withheld(&state)
    } else {
        Some(
            "this node holds no data yet: it has no role, or its first full sync is not complete"
                .to_owned(),
        )
    };
    reason.map_or(Ok(()), |reason| {
        Err(ApiError::new(ErrorCode::Unavailable, reason))
    })
}

/// Why nobody reads the data that this node has, if nobody does.
pub(super) fn withheld(state: &NodeState) -> Option<String> {
    if let Some(found) = state.unlike() {
        return Some(format!(
            "this node's data is not its master's and is replaced by a full sync: {found}"
        ));
    }
    let what = state.diverged.as_ref()?;
    Some(format!(
        "this node holds what its master does not have ({what}) and gives it up: it is read again once its data is its \
         master's"
    ))
}

async fn wait_for(api: &Api, wanted: Position) -> Result<(), ApiError> {
    let mut applied = api.store.subscribe_applied();
    // A former master may be beyond that offset in an older epoch: it has yet to learn of the newer one.
    let leads = api.writer.state().borrow().role == Role::Master && api.0.permit.holds();
    let has_reached = |applied: &Position| {
        applied.offset >= wanted.offset && (leads || applied.epoch >= wanted.epoch)
    };
    if !has_reached(&applied.borrow()) {
        let _place = api.0.budget.of(Kind::Read).waiting_place()?;
        match tokio::time::timeout(LONGEST_WAIT, applied.wait_for(has_reached)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => {
                return Err(ApiError::new(
                    ErrorCode::Unavailable,
                    "the node is stopping",
                ));
            }
            Err(_) => return Err(too_far_behind(api, wanted, leads)),
        }
    }
    // The offset alone does not tell: another master may have written something else there.
    let here = api.store.history().epoch_at(wanted.offset);
    if here == wanted.epoch || wanted == Position::ZERO {
        Ok(())
    } else {
        Err(ApiError::new(
            ErrorCode::Conflict,
            format!(
                "position {wanted} is not in this node's log, where offset {} belongs to epoch {here}: the write at {wanted} was lost in a failover, or the position is from another cluster",
                wanted.offset
            ),
        ))
    }
}

fn too_far_behind(api: &Api, wanted: Position, leads: bool) -> ApiError {
    let applied = api.store.applied();
    let state = api.writer.state().borrow().clone();
    let advice = if leads {
        "this is the master, where nothing was written there: the position is of another cluster, or made up".to_owned()
    } else {
        let master = whereabouts::of_master(api, &state);
        format!("try again, or read from {master}")
    };
    let mut details = whereabouts::details(&state);
    details["position"] = json!(applied.to_string());
    details["wanted"] = json!(wanted.to_string());
    ApiError::new(
        ErrorCode::Unavailable,
        format!(
            "this node has applied {applied} and did not reach {wanted} within {} ms: {advice}",
            LONGEST_WAIT.as_millis()
        ),
    )
    .with_details(details)
}
