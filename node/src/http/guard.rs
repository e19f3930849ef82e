//! What stands before each endpoint's handler: credential, room, the body within its limits, and the role.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use vectorizer_api::error::ApiError;

use super::answer::refuse;
use super::endpoint::{Kind, Rule};
use super::server::Port;
use super::{Api, auth, body, encoding, reads, writes};

/// A command is never larger, in bytes.
const MAX_COMMAND_BYTES: usize = 64 << 10;

/// Lets a request through to its handler, or answers it.
pub(super) async fn guard(
    State((api, rule, port)): State<(Api, Rule, Port)>,
    request: Request,
    next: Next,
) -> Response {
    let mut answer = match pass(&api, rule, port, request, next).await {
        Ok(answer) => answer,
        Err(error) => refuse(&error),
    };
    answer.extensions_mut().insert(rule);
    answer
}

async fn pass(
    api: &Api,
    rule: Rule,
    port: Port,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let server = &api.config.server;
    auth::check(server, rule.access, request.headers())?;
    // A read that waits for its position takes nobody's place meanwhile.
    if rule.kind == Kind::Read {
        reads::wait(api, request.headers()).await?;
    }
    let (mut parts, body) = request.into_parts();
    // Probes and commands are answered however busy the node is: that is when they matter.
    let (share, most) = match (rule.kind, port) {
        // Whatever stands in it, nobody reads it.
        (Kind::System, _) => {
            return Ok(next.run(Request::from_parts(parts, Body::empty())).await);
        }
        (Kind::Control, _) | (_, Port::Ops) => (None, MAX_COMMAND_BYTES),
        (Kind::Node | Kind::Read | Kind::Write, Port::Rest) => {
            let room = api.0.budget.of(rule.kind);
            (Some((room.share(), room.place()?)), server.max_body_bytes)
        }
    };
    encoding::check(&parts.headers)?;
    let limits = (most, server.request_timeout);
    let counted = share.as_ref().map(|(share, _)| share);
    let bytes = body::read(&parts.headers, body, limits, counted).await?;
    let bytes = encoding::text(&parts.headers, bytes)?;
    let Some((share, _place)) = share else {
        return Ok(next
            .run(Request::from_parts(parts, Body::from(bytes)))
            .await);
    };
    parts.extensions.insert(share.clone());
    let answer = match rule.kind {
        Kind::Write => writes::admit(api, parts, bytes, next).await,
        Kind::System | Kind::Control | Kind::Node | Kind::Read => {
            if rule.kind == Kind::Read {
                // What is held here may be another thing by now.
                reads::check(api)?;
            }
            next.run(Request::from_parts(parts, Body::from(bytes)))
                .await
        }
    };
    Ok(share.until_sent(answer))
}
