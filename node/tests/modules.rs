//! Which module of the node may use which: the ways that data takes, held against the imports as they stand.
//!
//! A write goes `http → writer → journal, store`, what a master sends goes `link → writer`, and neither way back exists:
//! what both ends need is a leaf below them (`permit`, `replicas`, `clock`). [`USES`] names every import between the
//! top-level modules of `src`; one that is not there fails, as does a list that has become untrue or goes in circles.

// All of this is tests.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and what it uses, the highest first: every module uses only those that come after it.
const USES: [(&str, &[&str]); 21] = [
    (
        "server",
        &[
            "config", "data_dir", "http", "journal", "lease", "link", "listen", "memory", "writer",
        ],
    ),
    ("doctor", &["config"]),
    ("inspect", &["data_dir", "journal", "role"]),
    (
        "http",
        &[
            "clock", "config", "lease", "link", "metrics", "permit", "replicas", "store", "writer",
        ],
    ),
    (
        "metrics",
        &["link", "permit", "replicas", "store", "writer"],
    ),
    (
        "lease",
        &["breakage", "clock", "permit", "replicas", "writer"],
    ),
    (
        "link",
        &[
            "background",
            "breakage",
            "clock",
            "config",
            "journal",
            "listen",
            "replicas",
            "store",
            "writer",
        ],
    ),
    ("listen", &["config"]),
    (
        "writer",
        &[
            "breakage", "clock", "config", "data_dir", "journal", "memory", "permit", "replicas",
            "role", "store",
        ],
    ),
    (
        "data_dir",
        &["background", "journal", "role", "step", "store"],
    ),
    ("journal", &["background", "breakage", "step"]),
    ("store", &["background", "breakage"]),
    ("replicas", &["clock"]),
    ("permit", &["clock"]),
    ("memory", &[]),
    ("config", &[]),
    ("role", &[]),
    ("background", &[]),
    ("breakage", &[]),
    ("clock", &[]),
    ("step", &[]),
];

type Edges = BTreeMap<String, BTreeSet<String>>;

/// Top-level module and depth of a file below `src`: 1 for `a.rs`, 2 for `a/b.rs`.
fn module(file: &Path) -> (String, usize) {
    let parts: Vec<_> = file.iter().map(|p| p.to_string_lossy()).collect();
    let first = parts[0].trim_end_matches(".rs").to_owned();
    (first, parts.len())
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let is_test = path.file_stem().is_some_and(|name| name == "tests");
        if is_test {
            continue;
        }
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code alone, without comments and without the tests at its end.
fn code(text: &str) -> String {
    let code = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text);
    let lines = code.lines();
    let lines = lines.map(|line| line.split("//").next().unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// The names that directly follow each occurrence of `prefix`, those in braces included.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let mut depth = 0;
        let mut word = String::new();
        for c in code[at + prefix.len()..].chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                c if c.is_alphanumeric() || c == '_' => {
                    word.push(c);
                    continue;
                }
                _ => {}
            }
            if !word.is_empty() {
                // Deeper in the braces, or behind `::`, are names of other modules.
                names.insert(std::mem::take(&mut word));
                if depth == 0 {
                    break;
                }
            }
            if depth < 1 && !c.is_whitespace() {
                break;
            }
        }
    }
    names
}

/// What the modules of `src` use of each other.
fn edges(src: &Path) -> Edges {
    let files = sources(src);
    let inside = |file: &PathBuf| file.strip_prefix(src).unwrap().to_owned();
    let modules: BTreeSet<String> = files.iter().map(|f| module(&inside(f)).0).collect();
    let mut edges = Edges::new();
    for file in &files {
        let (own, depth) = module(&inside(file));
        if own == "main" || own == "lib" {
            continue;
        }
        let code = code(&fs::read_to_string(file).unwrap());
        let mut names = names_after(&code, "crate::");
        // As many steps up as lead to the root.
        names.extend(names_after(&code, &"super::".repeat(depth)));
        let used = names
            .into_iter()
            .filter(|n| *n != own && modules.contains(n));
        edges.entry(own.clone()).or_default().extend(used);
    }
    edges
}

#[test]
fn modules_use_each_other_as_listed_and_in_one_direction() {
    let found = edges(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    let listed: Edges = USES
        .iter()
        .map(|(module, uses)| ((*module).to_owned(), owned(uses)))
        .collect();
    let beyond = |these: &Edges, those: &Edges| -> Vec<String> {
        let none = BTreeSet::new();
        let more = |(module, uses): (&String, &BTreeSet<String>)| {
            let known = those.get(module).unwrap_or(&none);
            let new = uses.difference(known).cloned().collect::<Vec<_>>();
            let is_new = !those.contains_key(module) || !new.is_empty();
            is_new.then(|| format!("{module} → {}", new.join(", ")))
        };
        these.iter().filter_map(more).collect()
    };
    let (new, gone) = (beyond(&found, &listed), beyond(&listed, &found));
    assert!(new.is_empty(), "imports that are not listed: {new:#?}");
    assert!(gone.is_empty(), "listed, and imported nowhere: {gone:#?}");
    let order: Vec<&str> = USES.iter().map(|(module, _)| *module).collect();
    for (at, (module, uses)) in USES.iter().enumerate() {
        for used in *uses {
            let place = order.iter().position(|m| m == used);
            assert!(
                place.is_some_and(|place| place > at),
                "{module} uses {used}, which stands above it: that is the way back"
            );
        }
    }
}

#[test]
fn every_way_of_writing_an_import_is_read() {
    let names = |code: &str, prefix: &str| -> Vec<String> {
        names_after(code, prefix).into_iter().collect()
    };
    assert_eq!(names("use crate::link::Table;", "crate::"), ["link"]);
    assert_eq!(
        names("use crate::{link::{A, B}, role};", "crate::"),
        ["A", "B", "link", "role"]
    );
    assert_eq!(names("let x = crate::link::new();", "crate::"), ["link"]);
    assert_eq!(names("pub(crate) fn a() {}", "crate::"), [""; 0]);
    assert_eq!(
        names("use super::super::link::A;", "super::super::"),
        ["link"]
    );
    assert_eq!(names("use super::thread::A;", "super::super::"), [""; 0]);
    assert_eq!(
        code("a // crate::b\nc\n#[cfg(test)]\nmod tests {}"),
        "a \nc"
    );
    assert_eq!(
        code("#[cfg(test)]\nmod tests;\na"),
        "#[cfg(test)]\nmod tests;\na"
    );
}
