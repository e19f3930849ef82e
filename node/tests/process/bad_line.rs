//! A line that delays, flips bits and breaks off: nothing of that reaches the data.
//!
//! The seeds are printed; `SEED=<n>` runs that one alone.

use futures::future::join_all;

use super::agree::agree;
use super::harness::*;
use super::relay::{Line, Relay};

async fn replicate_over(seed: u64) {
    println!("SEED={seed}");
    let at_home = Machine::master();
    let relay = Relay::to(at_home.replication()).await;
    relay.set(Line::Bad(seed));
    let elsewhere = Machine::following(&relay.address);
    // The greeting and the first sync go over the bad line as well.
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let mut written = 0;
    until("enough to have gone wrong", async || {
        for _ in 0..10 {
            master.put(written..written + 10).await;
            written += 10;
        }
        master.put_large(written..written + 4, 16 << 10).await;
        written += 4;
        // As far as the line lets it.
        replica.reaches(master.end().await).await;
        match (relay.flipped(), relay.broken()) {
            (5.., 3..) => Ok(()),
            few => Err(few),
        }
    })
    .await;
    relay.set(Line::Open);
    let last = master.put(written..written + 1).await;
    replica.reaches(last).await;
    replica.holds(0..written + 1).await;
    let mut refused = 0;
    for node in [&master, &replica] {
        refused += node.metric("vectorizer_link_refused_total").await;
    }
    println!(
        "{written} operations, {} connections, {} flipped bits, {} breaks, {refused} refused",
        relay.connections(),
        relay.flipped(),
        relay.broken()
    );
    assert!(refused > 0, "flipped bits are noticed");
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_line_that_lies_costs_connections_and_never_data() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => vec![1, 2, 3],
    };
    join_all(seeds.into_iter().map(replicate_over)).await;
}
