//! `vectorizer-e2e checker` runs inside the cluster; `vectorizer-e2e demo` is the second half of `make demo`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use vectorizer_e2e::checker::load::Load;
use vectorizer_e2e::{checker, demo};

#[derive(Parser)]
#[command(version, about = "End-to-end checks of Vectorizer on Kubernetes")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes numbered records through a Service until told to stop, then reads all of them back.
    Checker {
        /// Base URL of the Service that takes writes.
        #[arg(long)]
        url: String,
        /// Admin key of the cluster.
        #[arg(long, env = "ADMIN_KEY", hide_env_values = true)]
        key: String,
        /// Collection that is written; made when it is missing.
        #[arg(long, default_value = "numbered")]
        collection: String,
        /// Concurrent clients.
        #[arg(long, default_value_t = 4)]
        clients: u32,
        /// Least time between two writes of one client, in ms.
        #[arg(long, default_value_t = 10)]
        every_ms: u64,
        /// After this long without an answer a write is unknown, in ms.
        #[arg(long, default_value_t = 35_000)]
        timeout_ms: u64,
        /// After this long without a connection a write is refused, in ms.
        #[arg(long, default_value_t = 10_000)]
        connect_ms: u64,
    },
    /// Shows a cluster at work: documents, searches, lag, and a promotion while writes go on.
    Demo {
        /// Directory with cluster.yaml, texts.jsonl and queries.txt.
        #[arg(long, default_value = "examples")]
        examples: PathBuf,
        /// Namespace to work in; made when it is missing.
        #[arg(long, default_value = "vectorizer-demo")]
        namespace: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Checker {
            url,
            key,
            collection,
            clients,
            every_ms,
            timeout_ms,
            connect_ms,
        } => {
            let load = Load {
                url,
                key,
                collection,
                clients,
                every: Duration::from_millis(every_ms),
                timeout: Duration::from_millis(timeout_ms),
                connect: Duration::from_millis(connect_ms),
            };
            checker::serve::run(load).await
        }
        Command::Demo {
            examples,
            namespace,
        } => demo::run(&examples, &namespace).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
