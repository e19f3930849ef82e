//! Connections: accepted up to a limit, given up when they send no request, drained at the end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Api;

/// A connection has so long to send the head of its next request; an idle one is closed then. Longer than clients keep
/// idle connections (90 s is common), so that none is closed just as its next request is sent.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause after a failed accept: out of file descriptors does not get better by trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`, then lets running requests finish for as long as configured.
pub async fn serve(listener: TcpListener, api: Api, stop: CancellationToken) -> io::Result<()> {
    let service = TowerToHyperService::new(api.router());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 << 10);
    // Requests above the limit get an answer, so that connections need some room beyond it.
    let limit = api
        .config
        .server
        .max_concurrent_requests
        .saturating_mul(4)
        .max(256);
    let places = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
    let drain = GracefulShutdown::new();
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = stop.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without it small answers may wait for an acknowledgement; a socket that is gone is noticed below.
        let _ = socket.set_nodelay(true);
        let connection = http.serve_connection(TokioIo::new(socket), service.clone());
        let connection = drain.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended with an error");
            }
            drop(place);
        });
    }
    api.stop();
    drop(listener);
    let grace = api.config.server.shutdown_grace;
    if tokio::time::timeout(grace, drain.shutdown()).await.is_err() {
        tracing::warn!(
            ?grace,
            "requests were cut off: they took longer than the grace period"
        );
    }
    Ok(())
}
