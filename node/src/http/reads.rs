//! Reads: wherever there is data, and not before the node has applied what the client has seen.
//!
//! A client that wrote at position P sends `X-Vectorizer-Position: P` with a read, to whichever node; the read waits for
//! a moment until the node has got there.

use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::json;
use vectorizer_api::POSITION_HEADER;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_api::replication::Role;
use vectorizer_replication::position::Position;

use super::Api;
use super::answer::invalid;
use crate::writer::NodeState;

/// A read waits for its position no longer than this.
const LONGEST_WAIT: Duration = Duration::from_millis(if cfg!(test) { 2000 } else { 5000 });

/// Whether a read may go on.
pub(super) async fn admit(api: &Api, headers: &HeaderMap) -> Result<(), ApiError> {
    check(api)?;
    let Some(value) = headers.get(POSITION_HEADER) else {
        return Ok(());
    };
    let wanted: Position = value
        .to_str()
        .map_err(|_| invalid(POSITION_HEADER, "not a text"))?
        .parse()
        .map_err(|error| invalid(POSITION_HEADER, error))?;
    wait_for(api, wanted).await?;
    // What is held here may be another thing by now.
    check(api)
}

/// Whether what this node holds may be read.
fn check(api: &Api) -> Result<(), ApiError> {
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
    let reached = applied.wait_for(|applied| {
        applied.offset >= wanted.offset && (leads || applied.epoch >= wanted.epoch)
    });
    match tokio::time::timeout(LONGEST_WAIT, reached).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => {
            return Err(ApiError::new(
                ErrorCode::Unavailable,
                "the node is stopping",
            ));
        }
        Err(_) => return Err(too_far_behind(api, wanted)),
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

fn too_far_behind(api: &Api, wanted: Position) -> ApiError {
    let applied = api.store.applied();
    let state = api.writer.state().borrow().clone();
    let master = state.master_address.as_deref().unwrap_or("unknown");
    ApiError::new(
        ErrorCode::Unavailable,
        format!(
            "this node has applied {applied} and did not reach {wanted} within {} ms: read from the master ({master}) or try again",
            LONGEST_WAIT.as_millis()
        ),
    )
    .with_details(json!({
        "position": applied.to_string(),
        "wanted": wanted.to_string(),
        "master": state.master_address,
        "master_url": state.master_url,
    }))
}
