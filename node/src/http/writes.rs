//! Writes: carried out by the master, refused by a replica, held while another node takes over and forwarded to it
//! afterwards, so that a planned switchover costs its clients a pause and no errors.
//!
//! A write that waits for acknowledgements is admitted only while enough replicas are in sync, and is answered once they
//! hold it.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::json;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_api::replication::Role;
use vectorizer_api::{ACKS_HEADER, FORWARDED_HEADER};
use vectorizer_replication::position::Position;

use super::answer::{Held, Refusal, invalid, refuse};
use super::budget::Share;
use super::forward::{Forwarded, forward};
use super::{Api, whereabouts};
use crate::config::Durability;
use crate::writer::{NodeState, WriteReply, WriteRequest};

/// A write is held no longer than this.
const LONGEST_HOLD: Duration = Duration::from_secs(30);
/// For so long after a handover, a former master forwards the writes that still reach it.
pub(super) const FORWARD_FOR: Duration = Duration::from_secs(30);
/// A held write looks at the state at least so often, even when nothing is published.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// For so long after this node became master, its replicas are waited for instead of refusing writes at once: they
/// connect to it only now.
const GATHERING: Duration = Duration::from_secs(15);

tokio::task_local! {
    /// Acknowledgements that the request itself asks for.
    static ASKED: u32;
}

/// Where a write goes.
#[derive(Clone, Debug, PartialEq)]
enum Way {
    /// To the handler.
    Here,
    /// Nowhere yet: a handover is under way.
    Wait,
    /// To the new master's REST API.
    There(String),
    /// Back to the client: another node is the master.
    Elsewhere,
    /// Back to the client: nobody is, as far as this node knows.
    Nowhere,
}

fn way(state: &NodeState, forwarded: bool) -> Way {
    let late = state
        .handed_over_at
        .is_some_and(|at| at.elapsed() < FORWARD_FOR);
    match (state.role, &state.master_url) {
        (Role::Master, _) if state.handing_over => Way::Wait,
        (Role::Master, _) => Way::Here,
        // Handed over, and not yet told whom to follow.
        (Role::Unassigned, _) if late => Way::Wait,
        (Role::Unassigned, _) => Way::Nowhere,
        (Role::Replica, Some(url)) if late && !forwarded => Way::There(url.clone()),
        (Role::Replica, _) => Way::Elsewhere,
    }
}

fn not_master(api: &Api, state: &NodeState) -> ApiError {
    let master = whereabouts::of_master(api, state);
    ApiError::new(
        ErrorCode::NotMaster,
        format!("this node is a replica and read-only: send writes to {master}"),
    )
    .with_details(whereabouts::details(state))
}

fn no_role() -> ApiError {
    ApiError::new(
        ErrorCode::Fenced,
        "this node has no role at the moment and accepts no writes; send the request again",
    )
}

/// Takes a write to where it can be carried out, and answers it.
pub(super) async fn admit(api: &Api, parts: Parts, bytes: Bytes, next: Next) -> Response {
    let deadline = Instant::now() + LONGEST_HOLD;
    let forwarded = parts.headers.contains_key(FORWARDED_HEADER);
    let asked = match asked(api, &parts) {
        Ok(asked) => asked,
        Err(error) => return refuse(&error),
    };
    let mut states = api.writer.state();
    let mut replicas = api.replicas.changed();
    loop {
        let state = states.borrow_and_update().clone();
        replicas.mark_unchanged();
        match way(&state, forwarded) {
            Way::Here if short_of(api, asked).is_some() => {
                let gathering = !api.replicas.has_gathered()
                    && state
                        .master_since
                        .is_some_and(|at| at.elapsed() < GATHERING);
                if let (false, Some(error)) = (gathering, short_of(api, asked)) {
                    return refuse(&error);
                }
            }
            Way::Here => {
                if let Some(share) = parts.extensions.get::<Share>() {
                    // What an earlier attempt took is given back.
                    share.keep(bytes.len());
                }
                let request = Request::from_parts(parts.clone(), Body::from(bytes.clone()));
                let answer = ASKED.scope(asked, next.clone().run(request)).await;
                if answer.extensions().get::<Held>().is_none() {
                    return answer;
                }
            }
            Way::Wait => {}
            Way::There(url) => match forward(api, &url, &parts, bytes.clone()).await {
                Forwarded::Answered(answer) => return answer,
                Forwarded::NotTaken => {}
            },
            Way::Elsewhere => return refuse(&not_master(api, &state)),
            Way::Nowhere => return refuse(&no_role()),
        }
        if Instant::now() >= deadline {
            return refuse(&ApiError::new(
                ErrorCode::Fenced,
                format!(
                    "another node was about to take over as master, and did not within {} s; nothing was written, send the request again",
                    LONGEST_HOLD.as_secs()
                ),
            ));
        }
        // Only the deadline ends the wait: a writer that has gone is met by the handler.
        let _ = tokio::time::timeout(LOOK_EVERY, async {
            tokio::select! {
                changed = states.changed() => changed,
                changed = replicas.changed() => changed,
            }
        })
        .await;
    }
}

/// Acknowledgements that a request asks for by its header; 0 without.
fn asked(api: &Api, parts: &Parts) -> Result<u32, ApiError> {
    let Some(value) = parts.headers.get(ACKS_HEADER) else {
        return Ok(0);
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    match number {
        Some(1..) if api.config.storage.durability != Durability::Always => Err(invalid(
            ACKS_HEADER,
            "this node answers before its own disk has a write: set storage.durability to always, or leave the header out",
        )),
        Some(number) => Ok(number),
        None => Err(invalid(ACKS_HEADER, "expected a whole number, such as 1")),
    }
}

/// Why a write cannot be acknowledged by as many replicas as it needs; `None` when it can.
fn short_of(api: &Api, asked: u32) -> Option<ApiError> {
    let acks = asked.max(api.replicas.acks());
    if acks == 0 {
        return None;
    }
    let in_sync = api.replicas.in_sync();
    let short = usize::try_from(acks).map_or(true, |acks| in_sync < acks);
    short.then(|| {
        ApiError::new(
            ErrorCode::NotEnoughReplicas,
            format!(
                "{acks} acknowledgements are asked for and {in_sync} replicas are in sync; nothing was written, send the request again"
            ),
        )
    })
}

/// Waits until enough replicas have acknowledged a write that is durable here.
async fn acknowledged(api: &Api, reply: &WriteReply) -> Result<(), Refusal> {
    // Looked at only now: a write that comes after a change of the cluster's number is held to the new one.
    let asked = ASKED.try_with(|asked| *asked).unwrap_or(0);
    let time = api.config.replication.write_timeout;
    let position = reply.position;
    // Members of another epoch say nothing of this write.
    let acks = api.replicas.acks_in(position.epoch).map(|n| n.max(asked));
    if acks == Some(0) {
        return Ok(());
    }
    let covered = api
        .replicas
        .acknowledged(position.epoch, position.offset, asked);
    let why = match tokio::time::timeout(time, covered).await {
        Ok(Ok(())) if may_answer(api, position) => return Ok(()),
        Ok(Ok(()) | Err(_)) => "this node is no longer the master".to_owned(),
        Err(_) => format!(
            "{} replicas did not acknowledge it within {} s",
            acks.unwrap_or(asked),
            time.as_secs()
        ),
    };
    let error = ApiError::new(
        ErrorCode::OutcomeUnknown,
        format!("the write at position {position} may or may not survive: {why}; read it back"),
    );
    Err(error
        .with_details(json!({ "position": position.to_string() }))
        .into())
}

/// Looked at once more when the replicas have answered: a process that was frozen, or fenced, meanwhile confirms nothing.
fn may_answer(api: &Api, position: Position) -> bool {
    api.writer.state().borrow().may_answer(position) && api.0.permit.holds()
}

/// Gives a write to the writer and waits for its confirmation.
pub(super) async fn carry_out(api: &Api, request: WriteRequest) -> Result<WriteReply, Refusal> {
    let time = api.config.server.request_timeout;
    match tokio::time::timeout(time, api.writer.write(request)).await {
        Ok(outcome) => {
            let reply = outcome?;
            acknowledged(api, &reply).await?;
            Ok(reply)
        }
        Err(_) => Err(Refusal::new(
            ErrorCode::OutcomeUnknown,
            format!(
                "the write was not confirmed within {} s: it may or may not survive, read it back",
                time.as_secs()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use vectorizer_replication::position::History;

    use super::*;

    fn state(role: Role) -> NodeState {
        NodeState {
            node_id: Uuid::nil(),
            boot_id: Uuid::nil(),
            cluster: None,
            role,
            master_epoch: 0,
            promised: 0,
            master_address: Some("10.0.0.1:7001".to_owned()),
            master_url: Some("http://10.0.0.1:15002".to_owned()),
            history: History::default(),
            has_data: true,
            syncing: false,
            handing_over: false,
            covered: Position::ZERO,
            master_since: None,
            handed_over_at: None,
            handed_over_end: None,
            fences: 0,
            fault: None,
            diverged: None,
        }
    }

    fn handed_over(role: Role, seconds_ago: u64) -> NodeState {
        NodeState {
            handed_over_at: Instant::now().checked_sub(Duration::from_secs(seconds_ago)),
            ..state(role)
        }
    }

    #[test]
    fn a_master_writes_and_holds_writes_while_it_hands_over() {
        assert_eq!(way(&state(Role::Master), false), Way::Here);
        let handing_over = NodeState {
            handing_over: true,
            ..state(Role::Master)
        };
        assert_eq!(way(&handing_over, false), Way::Wait);
        assert_eq!(
            way(&handed_over(Role::Master, 1), false),
            Way::Here,
            "master again"
        );
    }

    #[test]
    fn a_former_master_holds_then_forwards_late_writes_and_after_a_while_names_the_new_master() {
        assert_eq!(way(&handed_over(Role::Unassigned, 1), false), Way::Wait);
        let url = "http://10.0.0.1:15002".to_owned();
        assert_eq!(way(&handed_over(Role::Replica, 1), false), Way::There(url));
        let later = way(&handed_over(Role::Replica, 31), false);
        assert_eq!(later, Way::Elsewhere);
    }

    #[test]
    fn a_forwarded_write_is_not_forwarded_again() {
        let again = way(&handed_over(Role::Replica, 1), true);
        assert_eq!(again, Way::Elsewhere);
    }

    #[test]
    fn a_former_master_answers_what_it_handed_over_and_nothing_behind_that() {
        let former = NodeState {
            handed_over_end: Some(Position::new(3, 100)),
            ..handed_over(Role::Unassigned, 1)
        };
        assert!(former.may_answer(Position::new(3, 100)));
        for other in [
            Position::new(3, 101),
            Position::new(2, 50),
            Position::new(4, 50),
        ] {
            assert!(!former.may_answer(other), "{other}");
        }
        let fenced = state(Role::Unassigned);
        assert!(!fenced.may_answer(Position::new(3, 100)));
    }

    #[test]
    fn a_node_without_a_role_claims_nothing() {
        assert_eq!(way(&state(Role::Unassigned), false), Way::Nowhere);
        assert!(no_role().error_type.has_no_side_effects());
    }
}
