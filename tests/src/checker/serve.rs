//! The checker's process: writes from its start on, and takes orders over HTTP.
//!
//! | order | answer |
//! |---|---|
//! | GET /progress | [`Progress`] |
//! | POST /phase/{name} | begins another phase |
//! | POST /finish | stops writing, reads everything back, answers the [`Report`]; again: the same report |

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::ledger::Ledger;
use super::load::Load;
use super::readback;
use super::report::Report;
use crate::failure::{Failure, OrFail, Result};
use crate::wait::{seconds, until};

/// Where the checker takes orders.
pub const PORT: u16 = 8090;

/// `GET /progress`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Writes acknowledged so far.
    pub acknowledged: u64,
    /// Milliseconds since the last acknowledgement.
    pub silent_ms: u64,
}

struct Checker {
    load: Load,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    /// Ends once: afterwards the report is repeated.
    ending: Mutex<Ending>,
}

enum Ending {
    Writing(Vec<JoinHandle<()>>),
    Done(Box<Report>),
}

/// Runs until it is killed.
pub async fn run(load: Load) -> Result<()> {
    until("the Service to take writes", seconds(120), || {
        load.prepare()
    })
    .await?;
    let ledger = Arc::new(Ledger::start("start"));
    let stop = Arc::new(AtomicBool::new(false));
    let writers = load.begin(&ledger, &stop);
    let checker = Arc::new(Checker {
        load,
        ledger,
        stop,
        ending: Mutex::new(Ending::Writing(writers)),
    });
    let routes = Router::new()
        .route("/progress", get(progress))
        .route("/phase/{name}", post(phase))
        .route("/finish", post(finish))
        .with_state(checker);
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", PORT)).await;
    let listener = listener.or_fail("listening")?;
    axum::serve(listener, routes).await.or_fail("serving")
}

async fn progress(State(checker): State<Arc<Checker>>) -> Json<Progress> {
    let (acknowledged, silent_us) = checker.ledger.acknowledged();
    Json(Progress {
        acknowledged,
        silent_ms: silent_us / 1000,
    })
}

async fn phase(State(checker): State<Arc<Checker>>, Path(name): Path<String>) -> Json<()> {
    checker.ledger.phase(&name);
    Json(())
}

async fn finish(
    State(checker): State<Arc<Checker>>,
) -> std::result::Result<Json<Report>, (StatusCode, String)> {
    let mut ending = checker.ending.lock().await;
    let report = match &mut *ending {
        Ending::Done(report) => report.as_ref().clone(),
        Ending::Writing(writers) => {
            let report = checker.end(writers).await;
            let report =
                report.map_err(|why| (StatusCode::INTERNAL_SERVER_ERROR, why.to_string()))?;
            *ending = Ending::Done(Box::new(report.clone()));
            report
        }
    };
    Ok(Json(report))
}

impl Checker {
    async fn end(&self, writers: &mut Vec<JoinHandle<()>>) -> Result<Report> {
        self.stop.store(true, Ordering::Release);
        for writer in writers.drain(..) {
            writer
                .await
                .map_err(|why| Failure::new(format!("a writer panicked: {why}")))?;
        }
        // The clock of the last phase ends with the last answer, not with the reading.
        let notes = self.ledger.notes();
        let stored = until("everything to be read back", seconds(60), || {
            readback::read(&self.load, &self.load.url)
        })
        .await?;
        Ok(Report::of(&notes, &stored))
    }
}
