//! The two ports: connections accepted, served, and drained at the end.
//!
//! Everything is served on the REST port. Probes, commands, metrics and what the operator reads are served on a port of
//! their own as well (`server.ops_bind_address`, 15003 under Kubernetes), with connections of its own, room of its own for
//! bodies, and threads of its own: however many clients the REST port has, and whatever keeps its threads busy, a probe
//! is answered, so that nobody restarts a node for being busy. That port speaks plain HTTP, with credentials for
//! commands, also once the REST port speaks TLS: a kubelet's probe carries no certificate, and pods that have the port
//! need not be made anew for TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::{Router, response::Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use vectorizer_api::replication::Role;

use super::connection::{Connection, Wire};
use super::places::{Place, Places};
use super::writes::FORWARD_FOR;
use super::{Api, unread};

/// A connection has so long to send the head of its next request; an idle one is closed then. Longer than clients keep
/// idle connections (90 s is common), so that none is closed just as its next request is sent.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause after a failed accept: out of file descriptors does not get better by trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Silent connections are looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Connections of the port for probes, commands and metrics.
const OPS_CONNECTIONS: usize = 128;
/// Threads of that port: one may be busy with a scrape.
const OPS_THREADS: usize = 2;

/// One of the two ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Port {
    /// The REST API, all of it.
    Rest,
    /// Probes, commands and metrics.
    Ops,
}

impl Port {
    /// The word in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Port::Rest => "rest",
            Port::Ops => "ops",
        }
    }
}

/// Serves the REST API until `stop`, with up to so many connections, then lets running requests finish for as long as
/// configured.
pub async fn serve(listener: TcpListener, api: Api, connections: usize, stop: CancellationToken) {
    let places = Places::new(connections, api.0.metrics.connections(Port::Rest.as_str()));
    let sending_away = tokio::spawn(send_away(api.clone(), places.clone()));
    accept(&listener, Port::Rest, &api, &places, stop).await;
    api.stop();
    drop(listener);
    sending_away.abort();
    let grace = api.config.server.shutdown_grace;
    if tokio::time::timeout(grace, places.drain()).await.is_err() {
        tracing::warn!(
            ?grace,
            "requests were cut off: they took longer than the grace period"
        );
    }
}

/// The port for probes, commands and metrics, on threads of its own. Closed when it is dropped.
pub struct Ops(Option<Runtime>);

/// Serves that port.
///
/// # Errors
///
/// Where the system gives no threads.
pub fn serve_ops(listener: TcpListener, api: Api) -> io::Result<Ops> {
    let listener = listener.into_std()?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(OPS_THREADS)
        .thread_name("ops")
        .enable_all()
        .build()?;
    let places = Places::new(
        OPS_CONNECTIONS,
        api.0.metrics.connections(Port::Ops.as_str()),
    );
    let inside = runtime.enter();
    let listener = TcpListener::from_std(listener)?;
    drop(inside);
    runtime.spawn(async move {
        accept(
            &listener,
            Port::Ops,
            &api,
            &places,
            CancellationToken::new(),
        )
        .await;
    });
    Ok(Ops(Some(runtime)))
}

impl Drop for Ops {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(
    listener: &TcpListener,
    port: Port,
    api: &Api,
    places: &Arc<Places>,
    stop: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 << 10);
    let router = api.router(port);
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = look.tick() => {
                places.close_silent();
                continue;
            }
            () = stop.cancelled() => return,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, port = port.as_str(), "a connection was not accepted");
                places.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without it small answers may wait for an acknowledgement; a socket that is gone is noticed below.
        let _ = socket.set_nodelay(true);
        let connection = Connection::new();
        note_master(api, &connection);
        let (http, api, router) = (http.clone(), api.clone(), router.clone());
        let admitted = places.admit(connection.clone(), |place| {
            carry(http, api, router, socket, connection, place)
        });
        admitted.await;
    }
}

/// Serves one connection to its end.
async fn carry(
    http: http1::Builder,
    api: Api,
    router: Router,
    socket: TcpStream,
    connection: Arc<Connection>,
    _place: Place,
) {
    let wire = TokioIo::new(Wire::new(socket, connection.clone()));
    let answer = service_fn({
        let connection = connection.clone();
        move |request| answer(api.clone(), router.clone(), connection.clone(), request)
    });
    let serving = http.serve_connection(wire, answer);
    tokio::pin!(serving);
    let ended = loop {
        tokio::select! {
            ended = serving.as_mut() => break ended,
            () = connection.told_to_leave() => serving.as_mut().graceful_shutdown(),
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// Answers one request, and says when the connection ends with the answer.
async fn answer(
    api: Api,
    router: Router,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response, std::convert::Infallible> {
    connection.works();
    note_master(&api, &connection);
    let (parts, body) = request.into_parts();
    let waits_to_send = parts.headers.contains_key(header::EXPECT);
    let (body, ends) = unread::Read::new(body, waits_to_send, connection.clone());
    let mut answer = router
        .oneshot(Request::from_parts(parts, Body::new(body)))
        .await?;
    let misled = connection.is_for_master() && !is_master(&api);
    if ends.get() || misled {
        answer
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    connection.waits();
    Ok(answer)
}

fn is_master(api: &Api) -> bool {
    api.writer.state().borrow().role == Role::Master
}

/// Whoever comes to a master may have come for a master, by a Service that leads to it: to the next one from then on,
/// but for connections that are there. So may whoever comes while that Service still leads here. They are told in the next
/// answer that the connection ends, once this node is master no more.
fn note_master(api: &Api, connection: &Connection) {
    let state = api.writer.state();
    let state = state.borrow();
    let late = state
        .handed_over_at
        .is_some_and(|at| at.elapsed() < FORWARD_FOR);
    if state.role == Role::Master || late {
        connection.came_for_master();
    }
}

/// Closes the connections that came for a master and have asked nothing since this node was one. Not at once: while
/// writes are forwarded, a request that is just being sent must not meet a closed connection.
async fn send_away(api: Api, places: Arc<Places>) {
    let mut states = api.writer.state();
    loop {
        if states.wait_for(|s| s.role == Role::Master).await.is_err()
            || states.wait_for(|s| s.role != Role::Master).await.is_err()
        {
            return;
        }
        tokio::time::sleep(FORWARD_FOR).await;
        if !is_master(&api) {
            places.send_away_for_master();
        }
    }
}
