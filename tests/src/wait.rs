//! Waiting for a condition, with a deadline and the last reason why it did not hold yet.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};

/// How long to wait between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Looks until `probe` answers `Ok(value)`; its `Err` says why not yet and ends up in the failure at the deadline.
pub async fn until<T, F, Fut>(what: &str, deadline: Duration, mut probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(why) if start.elapsed() >= deadline => {
                return Err(Failure::new(format!(
                    "waited {} s for {what}; the last look: {why}",
                    deadline.as_secs()
                )));
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Minutes and seconds as durations, short enough for the middle of a sentence.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_failure_names_what_was_awaited_and_why_it_did_not_come() {
        let error = until::<(), _, _>("the moon", Duration::ZERO, || async {
            Err(Failure::new("it is noon"))
        })
        .await
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "waited 0 s for the moon; the last look: it is noon"
        );
    }
}
