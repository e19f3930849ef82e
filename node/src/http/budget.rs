//! What a request may cost. Every endpoint is under this page.
//!
//! | what | bound | beyond it |
//! |---|---|---|
//! | body | `server.max_body_bytes` | 413 |
//! | memory to read it | twice the body and 64 MiB: payloads and filters stay text, lists and vectors are bounded while they are read (`vectorizer_api::data`) | 413 |
//! | memory for what it becomes | counted before it is taken: records of one entry of the log, a filter's values, a text's words | 413, in parts |
//! | bytes of the answer | [`LARGEST_ANSWER`], counted while it is written; one vector always fits | 400, what to ask for; a page ends earlier and says where it goes on |
//! | all of this together | half of [`Budget::new`]'s memory for reads, half for writes | 429 |
//! | requests at once | `server.max_concurrent_requests` reads, as many writes | 429 |
//! | reads that wait for a position | as many as may be worked on, in nobody's place | 429 |
//! | work that keeps a core busy | as many pieces at once as there are cores, for reads and for writes, in turns (`compute.rs`) | waits its turn, until the request's time is up |
//! | time without progress | see `body.rs` (a body) and `places.rs` (an answer) | cut |
//!
//! Reads and writes share nothing, so that no reading delays a write. The first [`FREE`] bytes of each request count for
//! nothing: small ones are not refused because of large ones. Memory is held until the answer is sent. Probes and
//! commands are small and take no room, nor does anything on the port that they have of their own (`server.rs`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vectorizer_api::error::{ApiError, ErrorCode};

use super::Api;
use super::answer::Refusal;
use super::compute::Cores;
use super::endpoint::Kind;

/// Bytes of an answer, at most, unless it is one vector.
pub(super) const LARGEST_ANSWER: usize = 32 << 20;
/// Bytes of each request that are not counted.
pub(super) const FREE: usize = 16 << 10;
/// What is counted for each item of a batch beside its record: its outcome, inside and in the answer.
pub(super) const PER_ITEM: usize = 512;
/// What is counted for each byte of a text whose words are looked at.
pub(super) const PER_TEXT_BYTE: usize = 16;
/// Memory is counted in pieces of this many bytes.
const UNIT: usize = 1024;

/// The room of all requests.
pub(super) struct Budget {
    reads: Room,
    writes: Room,
}

impl Budget {
    /// Over so much memory in bytes, for so many reads and as many writes at once.
    pub(super) fn new(memory: usize, requests: usize) -> Self {
        Budget {
            reads: Room::new(memory / 2, requests),
            writes: Room::new(memory / 2, requests),
        }
    }

    /// Where requests of a kind find room.
    pub(super) fn of(&self, kind: Kind) -> &Room {
        match kind {
            Kind::System | Kind::Control | Kind::Node | Kind::Read => &self.reads,
            Kind::Write => &self.writes,
        }
    }
}

/// Room for reads, or for writes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Room {
    requests: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    most_requests: usize,
    /// In units.
    memory: Arc<Semaphore>,
    most_memory: usize,
    cores: Cores,
}

impl Room {
    fn new(memory: usize, requests: usize) -> Self {
        let units = (memory / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Room {
            requests: Arc::new(Semaphore::new(requests)),
            waiting: Arc::new(Semaphore::new(requests)),
            most_requests: requests,
            memory: Arc::new(Semaphore::new(units)),
            most_memory: units * UNIT,
            cores: Cores::new(cores),
        }
    }

    /// A place among the requests that are worked on.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.place_of(&self.requests, "are being worked on")
    }

    /// A place among those that wait until this node has got to where their client is.
    pub(super) fn waiting_place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let what = "wait for a position that this node has not reached";
        self.place_of(&self.waiting, what)
    }

    fn place_of(
        &self,
        places: &Arc<Semaphore>,
        what: &str,
    ) -> Result<OwnedSemaphorePermit, ApiError> {
        places.clone().try_acquire_owned().map_err(|_| {
            ApiError::new(
                ErrorCode::TooManyRequests,
                format!(
                    "{} requests {what} (server.max_concurrent_requests): send this one again in a second",
                    self.most_requests
                ),
            )
        })
    }

    /// The share of a request that begins.
    pub(super) fn share(&self) -> Share {
        Share(Arc::new((self.clone(), Mutex::default())))
    }

    /// What keeps a core busy runs on these.
    pub(super) fn cores(&self) -> &Cores {
        &self.cores
    }

    /// Bytes that an answer may have: a quarter of the room where that is small.
    pub(super) fn largest_answer(&self) -> usize {
        LARGEST_ANSWER.min(self.most_memory / 4)
    }
}

/// What one request holds of its room, until its last clone is dropped.
#[derive(Clone)]
pub(super) struct Share(Arc<(Room, Mutex<Held>)>);

#[derive(Default)]
struct Held {
    bytes: usize,
    units: Option<OwnedSemaphorePermit>,
}

impl Share {
    pub(super) fn room(&self) -> &Room {
        &self.0.0
    }

    /// Counts memory that is about to be taken.
    pub(super) fn take(&self, bytes: usize) -> Result<(), ApiError> {
        let (room, held) = &*self.0;
        let mut held = held.lock();
        let all = held.bytes.saturating_add(bytes);
        if all > room.most_memory {
            return Err(ApiError::new(
                ErrorCode::PayloadTooLarge,
                format!(
                    "this request needs {all} bytes of memory or more, and all that are worked on have {} \
                     (server.request_memory_bytes): send it in parts, or ask for less",
                    room.most_memory
                ),
            ));
        }
        let missing = units(all).saturating_sub(held.held_units());
        if missing > 0 {
            let count = u32::try_from(missing).unwrap_or(u32::MAX);
            // Never waited for: requests that wait for each other's room would wait for ever.
            let more = room.memory.clone().try_acquire_many_owned(count);
            let more = more.map_err(|_| {
                ApiError::new(
                    ErrorCode::TooManyRequests,
                    "too many large requests are being worked on: send this one again in a second",
                )
            })?;
            match &mut held.units {
                Some(units) => units.merge(more),
                None => held.units = Some(more),
            }
        }
        held.bytes = all;
        Ok(())
    }

    /// Gives back all but so many bytes.
    pub(super) fn keep(&self, bytes: usize) {
        let mut held = self.0.1.lock();
        held.bytes = held.bytes.min(bytes);
        let over = held.held_units().saturating_sub(units(held.bytes));
        if let Some(units) = &mut held.units {
            // What is split off is given back.
            drop(units.split(over));
        }
    }

    /// Holds what an answer takes until the last of it is handed to the connection.
    pub(super) fn until_sent(self, answer: Response) -> Response {
        let bytes = answer.body().size_hint().upper();
        let bytes = bytes.map_or(usize::MAX, |bytes| {
            usize::try_from(bytes).unwrap_or(usize::MAX)
        });
        if bytes <= FREE {
            return answer;
        }
        self.keep(bytes);
        answer.map(|body| Body::new(Sending { body, _share: self }))
    }
}

impl Held {
    fn held_units(&self) -> usize {
        self.units
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

/// Units that so many bytes are counted for.
fn units(bytes: usize) -> usize {
    bytes.saturating_sub(FREE).div_ceil(UNIT)
}

impl FromRequestParts<Api> for Share {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Refusal> {
        let share = parts.extensions.get::<Share>().cloned();
        share.ok_or_else(|| Refusal::new(ErrorCode::Internal, "the request has no share"))
    }
}

/// An answer's body on its way.
struct Sending {
    body: Body,
    _share: Share,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<(), ApiError>) -> Option<ErrorCode> {
        result.err().map(|error| error.error_type)
    }

    #[test]
    fn requests_share_the_memory_of_their_room_and_small_ones_take_none() {
        let budget = Budget::new(2 << 20, 10);
        let one = budget.of(Kind::Read).share();
        one.take(1 << 20).unwrap();
        let two = budget.of(Kind::Read).share();
        two.take(FREE).unwrap();
        assert_eq!(code(two.take(20 << 10)), Some(ErrorCode::TooManyRequests));
        let write = budget.of(Kind::Write).share();
        write.take(1 << 20).unwrap();
        one.keep(1 << 19);
        two.take(20 << 10).unwrap();
        drop(one);
        two.take(900 << 10).unwrap();
        assert_eq!(code(two.take(200 << 10)), Some(ErrorCode::PayloadTooLarge));
        drop(two);
        let room = budget.of(Kind::Read);
        assert_eq!(room.memory.available_permits() * UNIT, room.most_memory);
    }

    #[tokio::test]
    async fn what_an_answer_takes_is_held_until_its_body_is_gone() {
        let budget = Budget::new(2 << 20, 10);
        let room = budget.of(Kind::Read);
        let free = || room.memory.available_permits();
        let all = free();
        let share = room.share();
        share.take(1 << 20).unwrap();
        let answer = share.until_sent(Response::new(Body::from(vec![0; 100 << 10])));
        assert_eq!(free(), all - units(100 << 10));
        drop(answer);
        assert_eq!(free(), all);
    }
}
