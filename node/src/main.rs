//! `vectorizer-node`: the server's command line.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use vectorizer_node::config::{Command, CommandLine, Config, Doctor, Flags, Log, LogFormat};
use vectorizer_node::{doctor, inspect, server};

fn main() -> ExitCode {
    match CommandLine::parse().into_command() {
        Command::Serve(flags) => serve(&flags),
        Command::Inspect(what) => {
            match inspect::run(&what.data_dir, what.json, &mut std::io::stdout().lock()) {
                Ok(code) => ExitCode::from(code),
                Err(error) => fail(inspect::NOT_INSPECTED, &error),
            }
        }
        Command::Doctor(nodes) => compare(&nodes),
    }
}

fn compare(nodes: &Doctor) -> ExitCode {
    let built = Builder::new_current_thread().enable_all().build();
    let verdict = match built {
        Ok(runtime) => runtime.block_on(doctor::run(nodes, &mut std::io::stdout().lock())),
        Err(error) => return fail(doctor::NOT_COMPARED, &error),
    };
    match verdict {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(doctor::NOT_COMPARED, &error),
    }
}

fn serve(flags: &Flags) -> ExitCode {
    let config = match Config::of_process(flags) {
        Ok(config) => config,
        Err(error) => return fail(2, &error),
    };
    if let Err(error) = log_to_stderr(&config.log) {
        return fail(2, &error);
    }
    let runtime = match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error),
    };
    runtime.block_on(async {
        let stop = CancellationToken::new();
        if let Err(error) = stop_on_signals(stop.clone()) {
            return fail(1, &error);
        }
        match server::run(config, stop).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &error),
        }
    })
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("vectorizer-node: {error}");
    ExitCode::from(code)
}

fn log_to_stderr(log: &Log) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

/// SIGTERM, as Kubernetes sends it, and SIGINT drain the node; a second one ends it at once.
fn stop_on_signals(stop: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                stop.cancel();
            } else {
                std::process::exit(130);
            }
        }
    });
    Ok(())
}
