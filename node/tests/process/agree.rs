//! The end of a test: nodes at the same position hold the same, in memory and on disk.

use std::ops::RangeInclusive;

use vectorizer_node::data_dir::DataDir;
use vectorizer_node::journal::JournalOptions;
use vectorizer_node::store::StoreDigest;

use super::harness::*;

/// Waits until all nodes are where the first one is, compares what they serve, stops them, and compares the digests of
/// what each left on its disk: the one that was kept, and the one computed anew from every record.
///
/// No node has seen a digest that differs, and none of these processes sent or took a whole copy.
pub async fn agree<const N: usize>(nodes: [(&Machine, Node); N]) {
    agree_after(0..=0, nodes).await;
}

/// The same where whole copies were necessary: so many in the process that took or sent the most of them.
pub async fn agree_after<const N: usize>(
    full_syncs: RangeInclusive<u64>,
    nodes: [(&Machine, Node); N],
) {
    let (_, first) = &nodes[0];
    let end = first.end().await;
    for (_, node) in &nodes {
        let what = format!("{} to be at {end}", node.client.base());
        until(&what, async || match node.end().await {
            here if here == end => Ok(()),
            here => Err(here),
        })
        .await;
    }
    let expected = served(first).await;
    let mut full = 0;
    for (_, node) in &nodes {
        assert_eq!(served(node).await, expected);
        let mismatches = node.metric("vectorizer_digest_mismatches_total").await;
        assert_eq!(mismatches, 0);
        full = full.max(node.stats().await.full_syncs);
    }
    assert!(full_syncs.contains(&full), "{full} full syncs");
    let mut digests: Vec<StoreDigest> = Vec::new();
    for (machine, node) in nodes {
        assert_eq!(node.stop().await, Some(0));
        let opened = DataDir::open(&machine.data_dir(), JournalOptions::default());
        let (_data, opened) = opened.unwrap();
        let digest = opened.store.digests();
        assert_eq!(digest.total, opened.store.recompute_digest());
        assert_eq!(digest.position, end);
        digests.push(digest);
    }
    for digest in &digests {
        assert_eq!(*digest, digests[0]);
    }
}

/// What a node answers for each collection that it lists.
async fn served(node: &Node) -> Vec<(String, Vec<(String, Vec<f32>)>)> {
    let mut all = Vec::new();
    for collection in node.client.collections().await.unwrap().collections {
        let vectors = node.everything_in(&collection.name).await;
        all.push((collection.name, vectors));
    }
    all
}
