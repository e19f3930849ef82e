//! The writers: a few clients, each issuing numbered writes one after the other.
//!
//! A write is one batch of two vectors: `w-<client>-<number>`, new each time, and `last-<client>`, overwritten each
//! time. Together they show loss, a batch torn apart, and writes that took effect out of order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use vectorizer_api::error::ApiError;

use super::ledger::{Ledger, Outcome};
use crate::failure::{OrFail, Result, ensure};

/// How the load is made.
#[derive(Clone, Debug)]
pub struct Load {
    /// Base URL of the Service that takes writes.
    pub url: String,
    /// Admin key.
    pub key: String,
    /// Collection; made when it is missing.
    pub collection: String,
    /// Concurrent clients.
    pub clients: u32,
    /// Least time between two writes of one client.
    pub every: Duration,
    /// After this long without an answer a write is unknown.
    pub timeout: Duration,
    /// After this long without a connection it is refused.
    pub connect: Duration,
}

/// Components of the vectors written.
const DIMENSION: usize = 4;

impl Load {
    /// An HTTP client with connections of its own.
    pub fn http(&self) -> Result<reqwest::Client> {
        reqwest::Client::builder()
            .timeout(self.timeout)
            .connect_timeout(self.connect)
            .pool_max_idle_per_host(1)
            .tcp_nodelay(true)
            .build()
            .or_fail("http client")
    }

    /// Makes the collection, empty.
    pub async fn prepare(&self) -> Result<()> {
        let http = self.http()?;
        let collections = format!("{}/collections", self.url);
        let old = format!("{collections}/{}", self.collection);
        let old = http.delete(old).bearer_auth(&self.key);
        answered(old, 404)
            .await
            .or_fail("dropping the old collection")?;
        let body =
            json!({ "name": self.collection, "dimension": DIMENSION, "metric": "euclidean" });
        let new = http.post(collections).bearer_auth(&self.key).json(&body);
        // It is there already when the answer to an earlier attempt was lost.
        answered(new, 409).await.or_fail("creating the collection")
    }

    /// Writes until told to stop, one task per client.
    pub fn begin(
        &self,
        ledger: &Arc<Ledger>,
        stop: &Arc<AtomicBool>,
    ) -> Vec<tokio::task::JoinHandle<()>> {
        (0..self.clients)
            .map(|client| {
                let writer = Writer {
                    load: self.clone(),
                    client,
                    ledger: ledger.clone(),
                };
                tokio::spawn(writer.run(stop.clone()))
            })
            .collect()
    }
}

/// Sends a request that has to succeed, or to end with the status `also`.
async fn answered(request: reqwest::RequestBuilder, also: u16) -> Result<()> {
    let answer = request.send().await.or_fail("sending")?;
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    ensure(status.is_success() || status.as_u16() == also, || {
        format!("{status}: {text}")
    })
}

struct Writer {
    load: Load,
    client: u32,
    ledger: Arc<Ledger>,
}

/// An answer, classified.
struct Heard {
    outcome: Outcome,
    position: Option<(u64, u64)>,
    why: Option<String>,
    /// Whether the next write should go over a new connection.
    reconnect: bool,
}

impl Writer {
    async fn run(self, stop: Arc<AtomicBool>) {
        let mut number = 0;
        let mut http = self.load.http();
        let mut pace = tokio::time::interval(self.load.every);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !stop.load(Ordering::Acquire) {
            pace.tick().await;
            number += 1;
            let heard = match &http {
                Ok(http) => self.write(http, number).await,
                Err(why) => Heard::refused(why.to_string()),
            };
            self.ledger.note(
                self.client,
                number,
                heard.outcome,
                heard.position,
                heard.why,
            );
            if heard.reconnect {
                http = self.load.http();
            }
        }
    }

    async fn write(&self, http: &reqwest::Client, number: u64) -> Heard {
        let record = |id: String| {
            let embedding: Vec<f64> = (0..DIMENSION).map(|_| number as f64).collect();
            json!({ "id": id, "embedding": embedding, "payload": { "number": number } })
        };
        let body = json!({
            "collection": self.load.collection,
            "atomic": true,
            "vectors": [
                record(format!("w-{}-{number}", self.client)),
                record(format!("last-{}", self.client)),
            ],
        });
        let sent = http
            .post(format!("{}/insert_vectors", self.load.url))
            .bearer_auth(&self.load.key)
            .json(&body)
            .send()
            .await;
        match sent {
            Ok(answer) => Heard::answer(answer).await,
            Err(error) if error.is_connect() => Heard::refused(chain(&error)),
            Err(error) => Heard::unknown(chain(&error)),
        }
    }
}

impl Heard {
    fn refused(why: String) -> Self {
        Heard {
            outcome: Outcome::Refused,
            position: None,
            why: Some(why),
            reconnect: true,
        }
    }

    fn unknown(why: String) -> Self {
        Heard {
            outcome: Outcome::Unknown,
            ..Heard::refused(why)
        }
    }

    async fn answer(answer: reqwest::Response) -> Self {
        let status = answer.status();
        let position = answer
            .headers()
            .get(vectorizer_api::POSITION_HEADER)
            .and_then(|value| parse_position(value.to_str().ok()?));
        let text = match answer.text().await {
            Ok(text) => text,
            Err(error) => return Heard::unknown(chain(&error)),
        };
        if status.is_success() {
            let body: Value = serde_json::from_str(&text).unwrap_or_default();
            if body["failed"].as_u64() == Some(0) {
                return Heard {
                    outcome: Outcome::Acknowledged,
                    position,
                    why: None,
                    reconnect: false,
                };
            }
            return Heard::unknown(format!("{status} without `failed: 0`: {text}"));
        }
        match serde_json::from_str::<ApiError>(&text) {
            Ok(error) if error.error_type.has_no_side_effects() => Heard::refused(text),
            Ok(_) | Err(_) => Heard::unknown(format!("{status}: {text}")),
        }
    }
}

fn parse_position(text: &str) -> Option<(u64, u64)> {
    let (epoch, offset) = text.split_once('.')?;
    Some((epoch.parse().ok()?, offset.parse().ok()?))
}

/// An error with its causes: the outermost alone says only that sending failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text
}
