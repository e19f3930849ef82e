//! Work that keeps a core busy: searches, listings, embeddings. It runs beside the threads that serve everybody else, at
//! most one piece per core at a time, and each for a turn of 20 ms before the next one has it, so that a short search
//! does not wait for the end of a long one. It ends at its next look (`store::cancel`) when its time is up or its client
//! has gone, which drops the future that waits for it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use vectorizer_api::error::{ApiError, ErrorCode};

use super::Api;
use super::answer::Refusal;
use super::budget::Share;
use crate::store::{Cancel, Cancelled};

/// For so long a piece of work goes on before it lets others have its core.
const TURN: Duration = Duration::from_millis(20);
/// Pieces of work of a room that are begun and not done, at most: each has a thread of the runtime's, which has 512.
const MOST_BEGUN: usize = 128;

/// The cores that such work of one room shares. Cheap to clone.
#[derive(Clone)]
pub(super) struct Cores {
    free: Arc<Semaphore>,
    begun: Arc<Semaphore>,
}

impl Cores {
    pub(super) fn new(count: usize) -> Self {
        Cores {
            free: Arc::new(Semaphore::new(count)),
            begun: Arc::new(Semaphore::new(MOST_BEGUN)),
        }
    }

    /// Pieces of work that have begun and are not done.
    #[cfg(test)]
    pub(super) fn at_work(&self) -> usize {
        MOST_BEGUN - self.begun.available_permits()
    }

    /// Runs `work` within `time` of now.
    ///
    /// # Errors
    ///
    /// `None` when the time is up, the work's own otherwise.
    async fn run<T, E>(
        &self,
        time: Duration,
        work: impl FnOnce(&dyn Cancel) -> Result<T, E> + Send + 'static,
    ) -> Option<Result<T, Refusal>>
    where
        T: Send + 'static,
        E: Into<Refusal> + Send + 'static,
    {
        let wanted = CancellationToken::new();
        // Whatever ends this future ends the work.
        let _ends = wanted.clone().drop_guard();
        let run = async {
            let begun = self.begun.clone().acquire_owned().await;
            let core = self.free.clone().acquire_owned().await.ok();
            let turn = Turn {
                wanted,
                free: self.free.clone(),
                core: Cell::new(core),
                until: Cell::new(Instant::now() + TURN),
                runtime: Handle::current(),
            };
            let done = tokio::task::spawn_blocking(move || {
                // Both are held until the work is done, even when nobody waits for it any more.
                let _begun = begun;
                work(&turn)
            });
            match done.await {
                Ok(done) => done.map_err(Into::into),
                Err(_) => {
                    let message = "a bug in the node; its log says more";
                    Err(Refusal::new(ErrorCode::Internal, message))
                }
            }
        };
        tokio::time::timeout(time, run).await.ok()
    }
}

/// One piece of work's turn at a core.
struct Turn {
    wanted: CancellationToken,
    free: Arc<Semaphore>,
    core: Cell<Option<OwnedSemaphorePermit>>,
    until: Cell<Instant>,
    runtime: Handle,
}

impl Cancel for Turn {
    fn check(&self) -> Result<(), Cancelled> {
        if self.wanted.is_cancelled() {
            return Err(Cancelled);
        }
        if Instant::now() < self.until.get() {
            return Ok(());
        }
        // Whoever waits comes first: they are served in the order in which they came.
        drop(self.core.take());
        let next = self.runtime.block_on(async {
            tokio::select! {
                next = self.free.clone().acquire_owned() => next.ok(),
                () = self.wanted.cancelled() => None,
            }
        });
        self.core.set(Some(next.ok_or(Cancelled)?));
        self.until.set(Instant::now() + TURN);
        Ok(())
    }
}

/// Runs what keeps a core busy, within the time limit of requests, on the cores of its request's room.
pub(super) async fn compute<T, E>(
    api: &Api,
    share: &Share,
    work: impl FnOnce(&Api, &dyn Cancel) -> Result<T, E> + Send + 'static,
) -> Result<T, Refusal>
where
    T: Send + 'static,
    E: Into<Refusal> + Send + 'static,
{
    let time = api.config.server.request_timeout;
    let of_work = api.clone();
    let cores = share.room().cores();
    let done = cores.run(time, move |cancel| work(&of_work, cancel)).await;
    done.unwrap_or_else(|| {
        Err(Refusal::new(
            ErrorCode::Unavailable,
            format!("not done within {} s: the node is busy", time.as_secs()),
        ))
    })
}

impl From<Cancelled> for ApiError {
    fn from(cancelled: Cancelled) -> Self {
        ApiError::new(ErrorCode::Unavailable, cancelled.to_string())
    }
}

impl From<Cancelled> for Refusal {
    fn from(cancelled: Cancelled) -> Self {
        Refusal::Api(cancelled.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// Looks until it is told to stop, and says whether it was.
    fn until_cancelled(
        begun: mpsc::Sender<()>,
        ended: mpsc::Sender<Cancelled>,
    ) -> impl FnOnce(&dyn Cancel) -> Result<(), Cancelled> + Send {
        move |cancel| {
            let _ = begun.send(());
            // An end of its own, so that a test that fails ends as well.
            let until = Instant::now() + 2 * LONG;
            while Instant::now() < until {
                if let Err(cancelled) = cancel.check() {
                    let _ = ended.send(cancelled);
                    return Err(cancelled);
                }
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn work_ends_when_its_time_is_up_and_when_nobody_waits_for_it() {
        let cores = Cores::new(1);
        let (begun, begins) = mpsc::channel();
        let (ended, ends) = mpsc::channel();
        let short = Duration::from_millis(50);
        let run = cores.run(short, until_cancelled(begun.clone(), ended.clone()));
        assert!(run.await.is_none());
        ends.recv_timeout(LONG).unwrap();
        begins.recv().unwrap();

        let left = tokio::spawn({
            let cores = cores.clone();
            async move { cores.run(LONG, until_cancelled(begun, ended)).await }
        });
        tokio::task::spawn_blocking(move || begins.recv_timeout(LONG).unwrap())
            .await
            .unwrap();
        left.abort();
        let ended = tokio::task::spawn_blocking(move || ends.recv_timeout(LONG));
        ended.await.unwrap().unwrap();
        let next = cores.run(LONG, |_| Ok::<_, Cancelled>(7)).await;
        assert_eq!(next.unwrap().unwrap(), 7, "the core is free again");
    }

    #[tokio::test]
    async fn short_work_does_not_wait_for_long_work_to_end() {
        let cores = Cores::new(1);
        let (begun, begins) = mpsc::channel();
        let (ended, ends) = mpsc::channel();
        let long = tokio::spawn({
            let cores = cores.clone();
            async move { cores.run(LONG, until_cancelled(begun, ended)).await }
        });
        tokio::task::spawn_blocking(move || begins.recv_timeout(LONG).unwrap())
            .await
            .unwrap();
        for n in 0..10 {
            let short = cores.run(LONG, move |_| Ok::<_, Cancelled>(n)).await;
            assert_eq!(short.unwrap().unwrap(), n);
        }
        assert!(ends.try_recv().is_err(), "the long one is still at work");
        long.abort();
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_and_gives_the_core_back() {
        let cores = Cores::new(1);
        let failed = cores.run(LONG, |_| -> Result<(), Cancelled> { panic!("on purpose") });
        assert!(failed.await.unwrap().is_err());
        let next = cores.run(LONG, |_| Ok::<_, Cancelled>(())).await;
        assert!(next.unwrap().is_ok());
    }
}
