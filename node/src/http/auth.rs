//! Who may do what: an admin key, a read key, a control token. Without keys, data is open to everybody; `/control` never
//! is.

use axum::http::{HeaderMap, header};
use vectorizer_api::error::{ApiError, ErrorCode};

use crate::config::Server;

/// What an endpoint asks of a caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// Nothing: health, probes, metrics, the document.
    Open,
    /// The read key or the admin key.
    Read,
    /// The same, or the control token: how replication is doing.
    Watch,
    /// The admin key.
    Admin,
    /// The control token.
    Control,
}

/// Checks the credentials in `Authorization: Bearer` and `X-API-Key`. One that is right is enough: whatever else stands in
/// `Authorization` is somebody else's, such as an ingress's.
pub(super) fn check(server: &Server, access: Access, headers: &HeaderMap) -> Result<(), ApiError> {
    let given = credentials(headers);
    let is = |known: &Option<crate::config::Credential>| {
        // Every one is compared, whatever the first comparison says.
        let right = |known: &crate::config::Credential| {
            given.iter().filter(|given| known.matches(given)).count() > 0
        };
        known.as_ref().is_some_and(right)
    };
    match access {
        Access::Open => return Ok(()),
        Access::Control if server.control_token.is_none() => {
            return Err(ApiError::new(
                ErrorCode::Forbidden,
                "this node has no control token, so that /control is closed: set server.control_token_file",
            ));
        }
        Access::Read | Access::Watch | Access::Admin if server.admin_key.is_none() => return Ok(()),
        Access::Control | Access::Read | Access::Watch | Access::Admin => {}
    }
    if given.is_empty() {
        return Err(ApiError::new(
            ErrorCode::Unauthenticated,
            "this needs a credential: send `Authorization: Bearer <key>` or `X-API-Key: <key>`",
        ));
    }
    // Every credential is compared, whatever the first comparisons say.
    // The operator and this node see a change of the control token at different times.
    let is_control = |known: &crate::config::Credential| {
        given.iter().filter(|given| known.accepts(given)).count() > 0
    };
    let (admin, read, control) = (
        is(&server.admin_key),
        is(&server.read_key),
        server.control_token.as_ref().is_some_and(is_control),
    );
    let (allowed, needed) = match access {
        Access::Open => (true, ""),
        Access::Read => (admin || read, "the read key or the admin key"),
        Access::Watch => (admin || read || control, "the read key or the admin key"),
        Access::Admin => (admin, "the admin key"),
        Access::Control => (control, "the control token"),
    };
    if allowed {
        Ok(())
    } else if admin || read || control {
        Err(ApiError::new(
            ErrorCode::Forbidden,
            format!("this credential does not allow it: this needs {needed}"),
        ))
    } else {
        Err(ApiError::new(
            ErrorCode::Unauthenticated,
            format!("this credential is not known here: this needs {needed}"),
        ))
    }
}

/// At most one of each header: whoever sends several is none of the clients that there are.
fn credentials(headers: &HeaderMap) -> Vec<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
    });
    let key = headers.get("x-api-key").map(|value| value.as_bytes());
    let given = bearer.into_iter().chain(key);
    given.map(<[u8]>::trim_ascii).collect()
}
