//! What stands before each endpoint's handler: credential, room, the body within its limits, and the role.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vectorizer_api::error::{ApiError, ErrorCode};

use super::answer::refuse;
use super::body::{Limits, Measured};
use super::endpoint::{Kind, Rule};
use super::{Api, auth, body, reads, writes};

/// A command is never larger, in bytes.
const MAX_COMMAND_BYTES: usize = 64 << 10;

/// Lets a request through to its handler, or answers it.
pub(super) async fn guard(
    State((api, rule)): State<(Api, Rule)>,
    request: Request,
    next: Next,
) -> Response {
    let mut answer = match pass(&api, rule, request, next).await {
        Ok(answer) => answer,
        Err(error) => refuse(&error),
    };
    answer.extensions_mut().insert(rule);
    answer
}

async fn pass(api: &Api, rule: Rule, request: Request, next: Next) -> Result<Response, ApiError> {
    let server = &api.config.server;
    auth::check(server, rule.access, request.headers())?;
    // Probes and commands are answered however busy the node is: that is when they matter.
    let _room = match rule.kind {
        Kind::System | Kind::Control => None,
        Kind::Node | Kind::Read | Kind::Write => {
            Some(take_room(&api.0.room, server.max_concurrent_requests)?)
        }
    };
    let (parts, body) = request.into_parts();
    let most = match rule.kind {
        // Whatever stands in it, nobody reads it.
        Kind::System => return Ok(next.run(Request::from_parts(parts, Body::empty())).await),
        Kind::Control => MAX_COMMAND_BYTES,
        Kind::Node | Kind::Read | Kind::Write => server.max_body_bytes,
    };
    let limits = Limits {
        bytes: most,
        time: server.request_timeout,
        room: &api.0.body_room,
    };
    let Measured { bytes, share } = body::read(&parts.headers, body, limits).await?;
    // Held until the answer is there: what was parsed is as large as the body was.
    let _share = share;
    match rule.kind {
        Kind::System | Kind::Control | Kind::Node => {}
        Kind::Read => reads::admit(api, &parts.headers).await?,
        Kind::Write => return Ok(writes::admit(api, parts, bytes, next).await),
    }
    Ok(next
        .run(Request::from_parts(parts, Body::from(bytes)))
        .await)
}

fn take_room(room: &Arc<Semaphore>, limit: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    room.clone().try_acquire_owned().map_err(|_| {
        ApiError::new(
            ErrorCode::TooManyRequests,
            format!(
                "{limit} requests are being worked on (server.max_concurrent_requests): send this one again in a second"
            ),
        )
    })
}
