//! Every file in `fuzz/corpus/` and what it has to stand for: see `fuzz/src/lib.rs`.
//!
//! `fuzz/corpus/<target>/` holds seeds made from real data, and what fuzzing has found.

// All of this is tests, those functions as well that are not marked so.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

#[path = "../../fuzz/src/commands.rs"]
mod commands;
#[path = "../../fuzz/src/decision.rs"]
mod decision;
#[path = "../../fuzz/src/frames.rs"]
mod frames;
#[path = "../../fuzz/src/handshake.rs"]
mod handshake;
#[path = "../../fuzz/src/input.rs"]
mod input;
#[path = "../../fuzz/src/journal.rs"]
mod journal;
#[path = "../../fuzz/src/master_session.rs"]
mod master_session;
#[path = "../../fuzz/src/replica_session.rs"]
mod replica_session;
#[path = "../../fuzz/src/sessions.rs"]
mod sessions;
#[path = "../../fuzz/src/snapshot.rs"]
mod snapshot;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target)
}

/// Runs every file of a target. That there are some is part of the test.
fn replay(target: &str, run: fn(&[u8])) {
    let mut files: Vec<_> = fs::read_dir(corpus(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 5, "{target}: {} files", files.len());
    for file in files {
        let bytes = fs::read(&file).unwrap();
        // Named before a panic, which says what does not hold and not for which file.
        println!("{}", file.display());
        run(&bytes);
    }
}

#[test]
fn frames_of_the_corpus_are_refused_or_come_out_as_they_came_in() {
    replay("frames", frames::run);
}

#[test]
fn decisions_commands_and_sessions_of_the_corpus_keep_what_they_promise() {
    replay("handshake", handshake::run);
}

#[test]
fn logs_of_the_corpus_are_refused_or_opened_as_a_prefix() {
    replay("journal", journal::run);
}

#[test]
fn snapshots_of_the_corpus_are_refused_or_loaded_whole() {
    replay("snapshot", snapshot::run);
}
