//! The writer's thread panics, in a process of its own.

use std::os::unix::process::ExitStatusExt;
use std::process::Command as Process;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Event, Level, Metadata, Subscriber};

use super::*;

/// Names the data directory to the process that is to panic.
const DIR: &str = "VECTORIZER_TEST_PANICS_IN";
const SIGABRT: i32 = 6;

/// Panics where the writer warns of something.
struct PanicsAtWarning;

impl Subscriber for PanicsAtWarning {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN && std::thread::current().name() == Some("writer")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn event(&self, _: &Event<'_>) {
        panic!("as the test wants it");
    }

    fn record(&self, _: &Id, _: &Values<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// One drain appends a write and then panics.
async fn panicking(dir: &Path) {
    let node = open(dir);
    let retake = Command::Retake { epoch: 2 };
    node.writer.command(retake).await.unwrap();
    tracing::subscriber::set_global_default(PanicsAtWarning).unwrap();
    let many: Vec<_> = (0..5_000).map(|n| format!("many {n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let (busy, _) = oneshot::channel();
    let (reply, answer) = oneshot::channel();
    let (held, _) = oneshot::channel();
    let plan = HandedOver {
        from_epoch: 2,
        epoch: 3,
        target: Uuid::from_u128(7),
    };
    let jobs = [
        // The others come while the thread is at work.
        Job::Write(puts(&node.store, &many), busy),
        Job::Write(puts(&node.store, &["a"]), reply),
        Job::HoldWrites {
            cluster: CLUSTER,
            plan,
            until: Instant::now(),
            reply: held,
        },
        // Warns of the deadline.
        Job::Tick,
    ];
    for job in jobs {
        assert!(node.writer.jobs.try_send(job).is_ok());
    }
    println!("answered: {:?}", answer.await);
    tokio::time::sleep(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_panic_ends_the_process_before_anybody_is_told_that_a_write_in_the_log_was_not_done() {
    if let Some(dir) = std::env::var_os(DIR) {
        return panicking(Path::new(&dir)).await;
    }
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    node.writer.write(create("c")).await.unwrap();
    node.writer.stop().await;
    let module = module_path!().split_once("::").unwrap().1;
    let this = format!(
        "{module}::a_panic_ends_the_process_before_anybody_is_told_that_a_write_in_the_log_was_not_done"
    );
    let ended = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", &this, "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(ended.status.signal(), Some(SIGABRT), "{said}");
    assert!(!said.contains("answered"), "{said}");
    let node = open(dir.path());
    let collection = node.store.collection("c").unwrap();
    assert!(collection.contains("a"), "it was in the log");
    assert_eq!(collection.info().count, 5_001);
}

#[tokio::test]
async fn a_write_that_was_taken_and_not_answered_may_have_been_done_and_one_that_was_not_taken_was_not()
 {
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    let (jobs, mut queue) = mpsc::channel(1);
    let writer = WriterHandle {
        jobs,
        ..node.writer.clone()
    };
    let write = writer.write(create("c"));
    let (answer, ()) = tokio::join!(write, async { drop(queue.recv().await) });
    assert_eq!(code(&answer.unwrap_err()), ErrorCode::OutcomeUnknown);
    drop(queue);
    let answer = writer.write(create("c")).await;
    assert_eq!(code(&answer.unwrap_err()), ErrorCode::Unavailable);
}

#[tokio::test]
async fn what_waits_in_the_queue_behind_a_stop_is_told_that_it_was_not_done() {
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    let (stop, stopped) = oneshot::channel();
    let (reply, answer) = oneshot::channel();
    for job in [Job::Stop(stop), Job::Write(create("c"), reply)] {
        // The thread may be faster than this one.
        let _ = node.writer.jobs.try_send(job);
    }
    stopped.await.unwrap();
    if let Ok(answer) = answer.await {
        assert_eq!(code(&answer.unwrap_err()), ErrorCode::Unavailable);
    }
}
