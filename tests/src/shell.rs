//! Running kubectl, helm and docker: as a user types them, with their output in the failure.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::failure::{Failure, OrFail, Result};

/// What a command left behind.
pub struct Output {
    /// Whether it exited with 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a command to its end, with `input` on its standard input; a non-zero exit is not an error here.
pub async fn run(program: &str, arguments: &[&str], input: &str) -> Result<Output> {
    let doing = format!("running {program}");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .or_fail(&doing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input may have closed it: what it says is in its exit status.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.or_fail(&doing)?;
    Ok(Output {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a command that has to succeed and answers its standard output.
pub async fn must(program: &str, arguments: &[&str]) -> Result<String> {
    must_with(program, arguments, "").await
}

/// The same with something on its standard input.
pub async fn must_with(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let output = run(program, arguments, input).await?;
    if output.success {
        Ok(output.stdout)
    } else {
        Err(Failure::new(format!(
            "`{program} {}` failed: {}{}",
            arguments.join(" "),
            output.stderr.trim(),
            output.stdout.trim()
        )))
    }
}
