//! What `GET /metrics` says of the link, through a full sync, a partial sync and a loss; and that docs/metrics.md names
//! all of it and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::agree::agree_after;
use super::harness::*;

async fn text(node: &Node) -> String {
    let url = format!("{}/metrics", node.client.base());
    reqwest::get(url).await.unwrap().text().await.unwrap()
}

/// The names that are scraped, whether they have a value by now or not.
async fn exported(node: &Node) -> BTreeSet<String> {
    let text = text(node).await;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.map(|line| match line.split_once(' ').unwrap() {
        (name, "counter") => format!("{name}_total"),
        (name, "info") => format!("{name}_info"),
        (name, _) => name.to_owned(),
    });
    names.collect()
}

/// Every line of a scrape: name with labels, and value.
async fn scrape(node: &Node) -> BTreeMap<String, f64> {
    let text = text(node).await;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// The value of `name` with these labels, in the order in which they are written.
fn value(scraped: &BTreeMap<String, f64>, name: &str, labels: &str) -> f64 {
    let whole = match labels {
        "" => format!("vectorizer_{name}"),
        labels => format!("vectorizer_{name}{{{labels}}}"),
    };
    let found = scraped.get(&whole);
    *found.unwrap_or_else(|| panic!("{whole} is not in {:#?}", scraped.keys()))
}

#[tokio::test]
async fn each_replica_each_sync_and_each_fsync_is_counted() {
    let at_home = Machine::master()
        .set("replication.log_size=64")
        .set("storage.segment_bytes=4096");
    let elsewhere = Machine::replica_of(&at_home);
    let master = at_home.start().await;
    master.create().await;
    let (mut written, mut end) = (0, master.end().await);
    until("the log to begin after the first operation", async || {
        end = master.put(written..written + 20).await;
        written += 20;
        match master.metric("vectorizer_log_first_offset").await {
            0 | 1 => Err(written),
            _ => Ok(()),
        }
    })
    .await;
    let replica = elsewhere.start().await;
    replica.reaches(end).await;
    let id = replica.status().await.node_id;
    let of_master = until("the full sync to be complete", async || {
        let scraped = scrape(&master).await;
        let labels = "kind=\"full\",result=\"completed\"";
        if value(&scraped, "syncs_total", labels) == 1.0 {
            Ok(scraped)
        } else {
            Err(scraped)
        }
    })
    .await;
    let name = master.only_replica().await.node;
    let who = format!("replica=\"{id}\",node=\"{name}\"");
    assert_eq!(value(&of_master, "replica_connected", &who), 1.0);
    assert_eq!(value(&of_master, "replicas_connected", ""), 1.0);
    assert!(value(&of_master, "replica_sent_bytes_total", &who) > 1_000.0);
    assert!(value(&of_master, "journal_bytes", "") > 1_000.0);
    assert!(value(&of_master, "journal_sync_seconds_count", "") >= 4.0);
    assert_eq!(value(&of_master, "fences_total", ""), 0.0);
    let full = |result| format!("kind=\"full\",result=\"{result}\"");
    let of_replica = scrape(&replica).await;
    for scraped in [&of_master, &of_replica] {
        assert_eq!(value(scraped, "syncs_total", &full("begun")), 1.0);
        assert_eq!(value(scraped, "syncs_total", &full("completed")), 1.0);
        assert_eq!(value(scraped, "syncs_total", &full("broken_off")), 0.0);
    }

    replica.kill();
    let missed = master.put(0..40).await;
    let lost = until("the master to notice", async || {
        let scraped = scrape(&master).await;
        let connected = value(&scraped, "replica_connected", &who);
        let behind = value(&scraped, "replica_lag_operations", &who);
        if (connected, behind) == (0.0, 40.0) {
            Ok(scraped)
        } else {
            Err((connected, behind))
        }
    })
    .await;
    assert!(value(&lost, "replica_lag_milliseconds", &who) >= 0.0);

    let replica = elsewhere.start().await;
    replica.reaches(missed).await;
    let back = until("the replica to have acknowledged", async || {
        let scraped = scrape(&master).await;
        let applied = value(&scraped, "replica_applied_offset", &who);
        if applied == missed.offset as f64 {
            Ok(scraped)
        } else {
            Err(applied)
        }
    })
    .await;
    let partial = "kind=\"partial\",result=\"completed\"";
    assert_eq!(value(&back, "syncs_total", partial), 1.0);
    let status = |status| format!("{who},status=\"{status}\"");
    assert_eq!(value(&back, "replica_status", &status("Connected")), 1.0);
    assert_eq!(value(&back, "replica_status", &status("Disconnected")), 0.0);
    assert_eq!(value(&scrape(&replica).await, "link_connected", ""), 1.0);

    // docs/metrics.md names what there is, and nothing else; refusals once there was one.
    master.client.list_vectors("none", 1, 0).await.unwrap_err();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"));
    let page = page.unwrap();
    let (of_nodes, _) = page.split_once("## The operator").unwrap();
    let named = of_nodes.lines().filter(|line| line.starts_with("| `"));
    let named = named.flat_map(|line| line.split('|').nth(1).unwrap().split('`'));
    let named = named.filter(|part| part.starts_with("vectorizer_"));
    let named = named.map(|name| name.split('{').next().unwrap().to_owned());
    let named: BTreeSet<_> = named.collect();
    assert_eq!(named, exported(&master).await);
    agree_after(0..=1, [(&at_home, master), (&elsewhere, replica)]).await;
}
