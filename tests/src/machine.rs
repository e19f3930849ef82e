//! The machines that the cluster runs on, which with kind are Docker containers: lost, brought back, and the processes
//! of single pods on them signalled, as no API of Kubernetes can.

use std::process::Stdio;

use k8s_openapi::api::core::v1::{Node as Machine, Pod};
use kube::{Api, Client, ResourceExt};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::failure::{Failure, OrFail, Result, ensure};
use crate::shell;
use crate::wait::{seconds, until};

/// Where a pod runs.
pub async fn of_pod(client: &Client, namespace: &str, pod: &str) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = pods.get(pod).await.or_fail(pod)?;
    let machine = found.spec.and_then(|spec| spec.node_name);
    machine.or_fail(&format!("the machine of {pod}"))
}

/// Another machine that takes ordinary pods.
pub async fn other_than(client: &Client, lost: &str) -> Result<String> {
    let machines: Api<Machine> = Api::all(client.clone());
    let list = machines.list(&Default::default()).await.or_fail("nodes")?;
    list.iter()
        .filter(|machine| {
            let taints = machine.spec.as_ref().and_then(|spec| spec.taints.as_ref());
            taints.is_none_or(Vec::is_empty)
        })
        .map(ResourceExt::name_any)
        .find(|name| name != lost)
        .ok_or_else(|| Failure::new("there is no second machine that takes pods"))
}

/// Power off, at once.
pub async fn kill(machine: &str) -> Result<()> {
    shell::must("docker", &["kill", machine]).await?;
    Ok(())
}

/// Power on; answers when Kubernetes says that it is ready and puts pods there again.
pub async fn restore(client: &Client, machine: &str) -> Result<()> {
    shell::must("docker", &["start", machine]).await?;
    shell::must("kubectl", &["uncordon", machine]).await?;
    let machines: Api<Machine> = Api::all(client.clone());
    let what = format!("{machine} to be ready again");
    until(&what, seconds(180), || async {
        let found = machines.get(machine).await.or_fail(machine)?;
        let conditions = found.status.and_then(|status| status.conditions);
        let ready = conditions
            .unwrap_or_default()
            .into_iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let taints = found.spec.and_then(|spec| spec.taints).unwrap_or_default();
        ensure(ready && taints.is_empty(), || {
            format!("ready: {ready}, taints: {}", taints.len())
        })
    })
    .await
}

/// Lets no new pods on a machine, or lets them again.
pub async fn cordon(machine: &str, closed: bool) -> Result<()> {
    let command = if closed { "cordon" } else { "uncordon" };
    shell::must("kubectl", &[command, machine]).await?;
    Ok(())
}

/// Sends a signal to the processes of a pod whose command line contains `program`, from the machine that it runs on.
/// Answers how many got it.
pub async fn signal(
    client: &Client,
    namespace: &str,
    pod: &str,
    program: &str,
    signal: &str,
) -> Result<usize> {
    let (machine, found) = processes(client, namespace, pod, program).await?;
    let script = format!("for p in $({found}); do kill -{signal} $p && echo $p; done; true");
    let pids = shell::must("docker", &["exec", &machine, "sh", "-c", &script]).await?;
    Ok(pids.lines().count())
}

/// The machine of a pod, and a shell command that prints there the pids of those of its processes whose command line
/// contains `program`.
async fn processes(
    client: &Client,
    namespace: &str,
    pod: &str,
    program: &str,
) -> Result<(String, String)> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = pods.get(pod).await.or_fail(pod)?;
    let uid = found.uid().or_fail("the pod's uid")?;
    let machine = of_pod(client, namespace, pod).await?;
    // The kubelet's cgroup drivers write the pod's uid with dashes or with underscores.
    let pattern = uid.replace('-', "[-_]");
    let script = format!(
        "for p in /proc/[0-9]*; do \
           grep -q 'pod{pattern}' $p/cgroup 2>/dev/null && \
           tr '\\0' ' ' <$p/cmdline | grep -q '{program}' && \
           echo ${{p#/proc/}}; \
         done; true"
    );
    Ok((machine, script))
}

/// A `kill -9` that has found its process and waits for the word, so that it takes no time when it comes.
pub struct Trigger {
    shell: Child,
    word: ChildStdin,
}

impl Trigger {
    /// Aims at the processes of a pod whose command line contains `program`.
    pub async fn aim(client: &Client, namespace: &str, pod: &str, program: &str) -> Result<Self> {
        let (machine, found) = processes(client, namespace, pod, program).await?;
        let script = format!("pids=$({found}); echo found $pids; read word && kill -9 $pids");
        let mut shell = Command::new("docker")
            .args(["exec", "-i", &machine, "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .or_fail("running docker")?;
        let word = shell.stdin.take().or_fail("docker's standard input")?;
        let said = shell.stdout.take().or_fail("docker's standard output")?;
        let first = BufReader::new(said).lines().next_line().await;
        let first = first.or_fail("aiming")?.unwrap_or_default();
        ensure(first.split_whitespace().count() > 1, || {
            format!("{pod} has no process of {program}: {first:?}")
        })?;
        Ok(Trigger { shell, word })
    }

    /// Kills, and answers when it is done.
    pub async fn pull(mut self) -> Result<()> {
        self.word.write_all(b"now\n").await.or_fail("the word")?;
        self.word.flush().await.or_fail("the word")?;
        let status = self.shell.wait().await.or_fail("kill -9")?;
        ensure(status.success(), || format!("kill -9: {status}"))
    }
}
