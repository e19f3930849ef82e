//! What the repository says of itself is true: the table of the specification names tests that exist and leaves no line
//! of it out, and the chart carries the generated definition. Needs no cluster.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vectorizer_e2e::typed::promotions;
use vectorizer_operator::crd::Promote;

fn file(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every `path/file.rs::test` and `path/file.py::test` in the table.
fn named_tests() -> BTreeSet<(String, String)> {
    let table = file("docs/spec.md");
    let quoted = table.split('`').skip(1).step_by(2);
    let named = quoted.filter_map(|text| text.split_once("::"));
    named
        .filter(|(path, _)| path.ends_with(".rs") || path.ends_with(".py"))
        .map(|(path, test)| (path.to_owned(), test.to_owned()))
        .collect()
}

/// Every Markdown file that is not made by a build.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            documents(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut all = Vec::new();
    documents(&root(), &mut all);
    assert!(all.len() > 8, "{} documents", all.len());
    let mut dangling = Vec::new();
    for document in all {
        let text = std::fs::read_to_string(&document).unwrap();
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next());
        let local = links.filter(|link| !link.is_empty() && !link.contains("://"));
        let folder = document.parent().unwrap();
        let missing = local.filter(|link| !folder.join(link).exists());
        dangling.extend(missing.map(|link| format!("{}: {link}", document.display())));
    }
    assert!(
        dangling.is_empty(),
        "links to nothing:\n{}",
        dangling.join("\n")
    );
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn braces(path: &str) -> Vec<String> {
    let Some((before, (inside, after))) = path
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return vec![path.to_owned()];
    };
    let each = inside.split(',');
    each.map(|part| format!("{before}{part}{after}")).collect()
}

#[test]
fn every_file_that_the_architecture_names_exists() {
    let mut named = 0;
    let mut missing = Vec::new();
    for document in ["docs/architecture.md", "CONTRIBUTING.md"] {
        let text = file(document);
        for word in text.split('`').skip(1).step_by(2) {
            let places = ["node/", "operator/", "tests/", "docs/", "clients/"];
            if !places.iter().any(|place| word.starts_with(place)) || word.contains(' ') {
                continue;
            }
            for path in braces(word) {
                named += 1;
                if !root().join(&path).exists() {
                    missing.push(format!("{document}: {path}"));
                }
            }
        }
    }
    assert!(named > 30, "{named} files are named");
    assert!(missing.is_empty(), "no such files:\n{}", missing.join("\n"));
}

#[test]
fn every_test_named_in_the_table_of_the_specification_exists() {
    let named = named_tests();
    assert!(named.len() > 20, "{} tests are named", named.len());
    let missing: Vec<String> = named
        .iter()
        .filter(|(path, test)| {
            let source = std::fs::read_to_string(root().join(path)).unwrap_or_default();
            let begins = if path.ends_with(".py") { "def" } else { "fn" };
            !source.contains(&format!("{begins} {test}("))
        })
        .map(|(path, test)| format!("{path}::{test}"))
        .collect();
    assert!(missing.is_empty(), "no such tests:\n{}", missing.join("\n"));
}

#[test]
fn every_row_of_the_table_of_the_specification_names_a_test() {
    let table = file("docs/spec.md");
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let bare: Vec<&str> = rows
        .filter(|row| !row.starts_with("| Specification") && !row.contains("::"))
        .collect();
    assert!(bare.is_empty(), "rows without a test:\n{}", bare.join("\n"));
}

#[test]
fn the_chart_carries_the_generated_definition() {
    let name = "vectorizerclusters.yaml";
    let chart = file(&format!("charts/vectorizer-operator/definitions/{name}"));
    assert!(
        file(&format!("crds/{name}")) == chart,
        "the chart's copy of crds/{name} is stale: `make crds`"
    );
    // Helm takes every file there: of two with the same definition, either may win.
    for folder in ["crds", "charts/vectorizer-operator/definitions"] {
        let files = std::fs::read_dir(root().join(folder)).unwrap();
        let files = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(files.collect::<Vec<_>>(), [name], "in {folder}");
    }
}

/// Where people are told how to ask for a promotion.
const PROMOTIONS_IN: [&str; 3] = [
    "README.md",
    "docs/operations.md",
    "charts/vectorizer-operator/templates/NOTES.txt",
];

#[test]
fn every_documented_promotion_works_whatever_was_asked_for_before() {
    // Only the whole request in one piece: of a merge patch, target and mode of the former one would be left.
    for document in PROMOTIONS_IN {
        let commands = promotions(&file(document)).unwrap();
        assert!(!commands.is_empty(), "{document} says no command");
        for command in commands {
            let asked = command.replaces_with();
            let asked = asked.unwrap_or_else(|| panic!("{document}: {}", command.line));
            let typed: Promote = serde_json::from_value(asked.clone()).unwrap();
            let known = serde_json::to_value(&typed).unwrap();
            for field in asked.as_object().unwrap().keys() {
                assert!(
                    known.get(field).is_some(),
                    "{document}: {field} is no field"
                );
            }
        }
    }
}

#[test]
fn no_other_document_says_how_to_ask_for_a_promotion() {
    let mut all = Vec::new();
    documents(&root(), &mut all);
    let known = PROMOTIONS_IN.map(|path| root().join(path));
    for document in all.iter().filter(|path| !known.contains(path)) {
        let text = std::fs::read_to_string(document).unwrap();
        let commands = promotions(&text).unwrap();
        assert!(
            commands.is_empty(),
            "{} is tested by nobody",
            document.display()
        );
    }
}

#[test]
fn chart_and_workspace_have_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = file("charts/vectorizer-operator/Chart.yaml");
    for key in ["version", "appVersion"] {
        let line = format!("\n{key}: {version}\n");
        assert!(chart.contains(&line), "Chart.yaml: {key} is not {version}");
    }
}

/// Endpoints, fields, status values, variables, keys and modes of the specification, under the headings of the table.
const WORDS: &[(&str, &str)] = &[
    ("Overview", "master|replica|Async|Manual failover"),
    (
        "Key features",
        "TCP|Full sync|Partial sync|Auto-reconnect|Lag monitoring|Write protection|Circular replication log",
    ),
    (
        "Configuration: YAML",
        "15002|7001|`replication.enabled`|`replication.role`|`replication.bind_address`|`replication.heartbeat_interval_secs`|\
         `replication.replica_timeout_secs`|`replication.log_size`|`replication.master_address`|\
         `replication.reconnect_interval_secs`",
    ),
    (
        "Configuration: environment",
        "`REPLICATION_ROLE`|`REPLICATION_BIND_ADDRESS`|`REPLICATION_HEARTBEAT_INTERVAL`|`REPLICATION_LOG_SIZE`|\
         `REPLICATION_MASTER_ADDRESS`|`REPLICATION_RECONNECT_INTERVAL`",
    ),
    (
        "GET /replication/status",
        "`enabled`|`role`|`bind_address`|`connected_replicas`|`replication_log_size`|`current_offset`",
    ),
    (
        "POST /replication/configure",
        "`role`|`bind_address`|`master_address`|`heartbeat_interval`|`log_size`|`reconnect_interval`|`success`|`message`",
    ),
    (
        "GET /replication/stats",
        "`role`|`bytes_sent`|`bytes_received`|`last_sync`|`operations_pending`|`snapshot_size`|`connected_replicas`|\
         `current_offset`|`replication_log_size`",
    ),
    (
        "GET /replication/replicas",
        "`replicas`|`count`|`id`|`host`|`port`|`address`|`status`|`lag_ms`|`last_heartbeat`|`operations_synced`|`offset`|\
         `lag_operations`|`Connected`|`Syncing`|`Lagging`|`Disconnected`",
    ),
    ("Replication modes", "Async|Sync"),
    (
        "Use cases and best practices",
        "High availability|Read scaling|Monitoring|lag|log|multiple replicas|heartbeat|promote|`configure_replication`|\
         `get_replication_status`|`get_replication_stats`|`list_replicas`",
    ),
];

#[test]
fn every_word_of_the_specification_is_in_its_part_of_the_table() {
    let table = file("docs/spec.md");
    let mut missing = Vec::new();
    for (heading, words) in WORDS {
        let part = table.split("\n## ").find(|part| part.starts_with(heading));
        let part = part.unwrap_or_default();
        missing.extend(words.split('|').filter(|word| !part.contains(word)));
    }
    assert!(missing.is_empty(), "not in docs/spec.md: {missing:?}");
}
