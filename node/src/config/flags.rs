//! The command line of `vectorizer-node`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A vector store that replicates itself.
///
/// Values come from the file, then from what POST /replication/configure has stored, then from the environment, then
/// from flags; the later wins.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "vectorizer-node",
    version,
    args_conflicts_with_subcommands = true
)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

/// What is to be done.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Runs the node (the default)
    Serve(Box<Flags>),
    /// Prints and verifies a data directory on which no node runs, and changes nothing
    ///
    /// Exit code 0: sound. 1: damage was found. 2: not a data directory, in use, or unreadable.
    Inspect(Inspect),
    /// Compares what running nodes hold, by digest at one position
    ///
    /// Exit code 0: all hold the same. 1: one holds something else. 2: one could not be compared.
    Doctor(Doctor),
}

/// Flags of `vectorizer-node doctor`.
#[derive(Clone, Debug, Args)]
pub struct Doctor {
    /// REST addresses, such as http://10.0.0.7:15002; the others are compared with the first
    #[arg(value_name = "URL", num_args = 2.., required = true)]
    pub nodes: Vec<String>,
    /// File with a key that may read
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Seconds until nodes that were never at the same position are given up
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub wait: u64,
}

/// Flags of `vectorizer-node inspect`.
#[derive(Clone, Debug, Args)]
pub struct Inspect {
    /// The data directory
    #[arg(value_name = "DATA-DIR")]
    pub data_dir: PathBuf,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

impl CommandLine {
    /// What is to be done: without a word, to serve.
    pub fn into_command(self) -> Command {
        self.command
            .unwrap_or_else(|| Command::Serve(Box::new(self.flags)))
    }
}

/// Flags of `vectorizer-node serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct Flags {
    /// YAML file to read
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where data is kept [env: VECTORIZER_DATA_DIR] [default: /var/lib/vectorizer]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// The node's name [env: VECTORIZER_NODE_NAME] [default: the host's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Where the REST API listens [env: VECTORIZER_HTTP_ADDRESS] [default: [::]:15002]
    #[arg(long, value_name = "HOST:PORT")]
    pub http_address: Option<String>,
    /// Where probes, commands and metrics are served as well, apart from the REST API [env: VECTORIZER_OPS_ADDRESS]
    #[arg(long, value_name = "HOST:PORT")]
    pub ops_address: Option<String>,
    /// Where replication listens [env: REPLICATION_BIND_ADDRESS] [default: [::]:7001]
    #[arg(long, value_name = "HOST:PORT")]
    pub replication_address: Option<String>,
    /// Host under which others reach this node [env: VECTORIZER_ADVERTISED_HOST]
    #[arg(long, value_name = "HOST")]
    pub advertised_host: Option<String>,
    /// Any other key, such as replication.log_size=1000; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// What is logged [env: VECTORIZER_LOG] [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// How it is logged, text or json [env: VECTORIZER_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// File to write the bound addresses into once the node listens
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

impl Flags {
    /// The value of the flag of that name, for the flags that stand in the table of keys.
    pub(super) fn of(&self, flag: &str) -> Option<&str> {
        match flag {
            "data-dir" => self.data_dir.as_deref(),
            "name" => self.name.as_deref(),
            "http-address" => self.http_address.as_deref(),
            "ops-address" => self.ops_address.as_deref(),
            "replication-address" => self.replication_address.as_deref(),
            "log" => self.log.as_deref(),
            "log-format" => self.log_format.as_deref(),
            "advertised-host" => self.advertised_host.as_deref(),
            _ => None,
        }
    }
}
