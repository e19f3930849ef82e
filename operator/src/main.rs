//! `vectorizer-operator run` works in a Kubernetes cluster, `vectorizer-operator crd` prints the custom resource
//! definition.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use clap::{ArgAction, Args, Parser, Subcommand};
use kube::Config;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use vectorizer_operator::controller::{self, Options};
use vectorizer_operator::leader::Leadership;
use vectorizer_operator::telemetry::{LogFormat, Metrics, log, router};
use vectorizer_operator::{api, crd, names};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The operator of VectorizerCluster.
#[derive(Parser)]
#[command(name = "vectorizer-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch clusters and keep them as wanted.
    Run(Run),
    /// Print the custom resource definition as YAML.
    Crd,
}

#[derive(Args)]
struct Run {
    /// Namespaces to work in, separated by commas; without them, all.
    #[arg(
        long,
        env = "WATCH_NAMESPACES",
        value_delimiter = ',',
        default_value = ""
    )]
    namespaces: Vec<String>,
    /// Image of the node, for clusters that name none.
    #[arg(long, env = "NODE_IMAGE")]
    node_image: String,
    /// Whether to wait for the leadership lease, so that several instances can run.
    #[arg(long, env = "LEADER_ELECT", default_value_t = false, default_missing_value = "true", num_args = 0..=1, action = ArgAction::Set)]
    leader_elect: bool,
    /// Name of the leadership lease.
    #[arg(long, env = "LEASE_NAME", default_value = names::MANAGER)]
    lease_name: String,
    /// Namespace of the leadership lease; the operator's own.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// Name of this instance; its pod's.
    #[arg(long, env = "POD_NAME", default_value = names::MANAGER)]
    identity: String,
    /// Where to serve /metrics, /livez and /readyz.
    #[arg(long, env = "METRICS_ADDRESS", default_value = "[::]:8080")]
    metrics_address: SocketAddr,
    /// How to write logs.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    match Cli::parse().command {
        Command::Crd => {
            print!("{}", crd::yaml()?);
            Ok(())
        }
        Command::Run(options) => run(options).await,
    }
}

/// Listens there; where the system has no IPv6, on all IPv4 addresses instead of on all.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listening = TcpListener::bind(address).await;
    match listening {
        Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        listening => listening,
    }
}

async fn run(options: Run) -> Result<(), Failure> {
    log(options.log_format);
    let metrics = Arc::new(Metrics::default());
    let listener = listen(options.metrics_address).await?;
    let server = axum::serve(listener, router(metrics.clone()));
    tokio::spawn(async move { server.await });
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(stop);
    let client = api::connect(Config::infer().await?)?;
    let mut leadership = Leadership::new(
        client.clone(),
        &options.lease_namespace,
        &options.lease_name,
        &options.identity,
    );
    if options.leader_elect {
        tracing::info!(lease = options.lease_name, "waiting to lead");
        tokio::select! {
            () = leadership.acquire(|| metrics.ready(true)) => {}
            () = &mut stop => return Ok(()),
        }
    }
    metrics.leads(true);
    metrics.ready(false);
    tracing::info!(namespaces = ?options.namespaces, image = options.node_image, "working");
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let work = controller::run(
        client,
        Options {
            namespaces: options
                .namespaces
                .into_iter()
                .filter(|n| !n.is_empty())
                .collect(),
            node_image: options.node_image,
            identity: options.identity,
        },
        metrics.clone(),
        async move {
            // Told to stop, or nobody is left who could tell.
            let _ = stopped.await;
        },
    );
    tokio::pin!(work);
    tokio::select! {
        outcome = &mut work => return Ok(outcome?),
        () = leadership.hold(), if options.leader_elect => {
            metrics.leads(false);
            return Err("leadership was lost: another instance goes on".into());
        }
        () = &mut stop => {}
    }
    // Passes under way are finished; what they would begin next is for the next instance.
    drop(stopping);
    let finished = tokio::time::timeout(std::time::Duration::from_secs(20), &mut work).await;
    if options.leader_elect {
        leadership.release().await;
    }
    match finished {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Ok(()),
    }
}
