//! `vectorizer-node inspect` and `vectorizer-node doctor`, as a person calls them.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use super::agree::agree;
use super::harness::*;

/// Exit code and output of the program with these arguments.
fn tool(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vectorizer-node"));
    let output = command.env_clear().args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

fn inspect(machine: &Machine) -> (i32, String) {
    tool(&["inspect", machine.data_dir().to_str().unwrap()])
}

/// The line that begins with this word.
fn line<'t>(text: &'t str, about: &str) -> &'t str {
    let mut lines = text.lines().filter(|line| line.starts_with(about));
    lines.next().unwrap_or_else(|| panic!("{about}: {text}"))
}

fn newest_segment(machine: &Machine) -> PathBuf {
    let journal = machine.data_dir().join("gen-1").join("journal");
    let entries = std::fs::read_dir(&journal).unwrap_or_else(|why| panic!("{journal:?}: {why}"));
    let files = entries.map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|e| e == "wal"))
        .max()
        .unwrap()
}

#[tokio::test]
async fn a_directory_is_inspected_after_a_kill_and_damage_is_found_at_its_byte() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let end = master.put(0..50).await;
    replica.reaches(end).await;
    let (code, text) = inspect(&at_home);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("process"), "{text}");

    master.kill();
    replica.kill();
    let (code, text) = inspect(&at_home);
    assert_eq!(code, 0, "{text}");
    assert!(
        line(&text, "log").contains(&format!("ends at {end}")),
        "{text}"
    );
    assert!(line(&text, "role").contains("master of epoch 1"), "{text}");
    let (code, of_replica) = inspect(&elsewhere);
    assert_eq!(code, 0, "{of_replica}");
    assert!(
        line(&of_replica, "role").contains("replica of"),
        "{of_replica}"
    );
    // Both hold the same.
    assert_eq!(line(&text, "collection"), line(&of_replica, "collection"));
    let json = tool(&["inspect", "--json", at_home.data_dir().to_str().unwrap()]).1;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["sound"], true);

    let path = newest_segment(&at_home);
    let file = OpenOptions::new()
        .write(true)
        .read(true)
        .open(&path)
        .unwrap();
    let (mut byte, at) = ([0], 200);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    let (code, text) = inspect(&at_home);
    assert_eq!(code, 1, "{text}");
    let damage = line(&text, "DAMAGE");
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(damage.contains(name), "{text}");
    file.write_all_at(&byte, at).unwrap();

    // It has changed nothing: both start, and go on together.
    let master = at_home.start().await;
    let replica = elsewhere.start().await;
    replica.reaches(master.put(50..60).await).await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn nodes_are_compared_by_digest_while_they_are_written_to() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let end = master.put(0..50).await;
    let (code, text) = tool(&["doctor", &at_home.url(), &elsewhere.url()]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("equal at"), "{text}");
    assert!(end.offset >= 50);

    // A stranger with as many operations, of which one is another.
    let stranger = Machine::master();
    let other = stranger.start().await;
    other.create().await;
    other.put(0..49).await;
    other.put(90..91).await;
    let (code, text) = tool(&["doctor", &at_home.url(), &elsewhere.url(), &stranger.url()]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains(&format!("{}: equal at", elsewhere.url())),
        "{text}"
    );
    assert!(
        text.contains(&format!("{}: DIFFERENT at", stranger.url())),
        "{text}"
    );
    assert!(text.contains("  c: first 50 vectors"), "{text}");
    assert_eq!(other.stop().await, Some(0));

    let (code, text) = tool(&["doctor", "--wait", "1", &at_home.url(), &stranger.url()]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("did not answer: cannot connect"), "{text}");
    let (code, text) = tool(&["doctor", &at_home.url()]);
    assert_eq!(code, 2, "{text}");
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}
