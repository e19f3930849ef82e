use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::store::embed::{Embedder, HashEmbedder};
use crate::store::test_log::Log;
use crate::store::{AtLook, CollectionConfig, Metric, Never, Record, Store};

fn store(metric: Metric, vectors: &[(String, Vec<f32>)]) -> Store {
    let mut log = Log::new();
    log.write(
        1,
        vec![Record::CreateCollection {
            name: "c".into(),
            config: CollectionConfig::new(vectors[0].1.len(), metric),
            created_ms: 0,
        }],
    );
    for (n, (id, vector)) in vectors.iter().enumerate() {
        let payload = json!({ "n": n, "even": n % 2 == 0 }).to_string();
        log.write(
            1,
            vec![Record::Put {
                incarnation: 1,
                id: id.clone(),
                vector: vector.clone(),
                payload: payload.into(),
            }],
        );
    }
    log.store()
}

fn request(vector: &[f32], limit: usize) -> SearchRequest {
    SearchRequest {
        vector: vector.to_vec(),
        limit,
        ..SearchRequest::default()
    }
}

fn ids(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|h| h.id.as_str()).collect()
}

fn named(vectors: &[&[f32]]) -> Vec<(String, Vec<f32>)> {
    let named = vectors.iter().enumerate();
    named.map(|(n, v)| (format!("v{n}"), v.to_vec())).collect()
}

#[test]
fn the_best_come_first_and_equal_scores_are_ordered_by_id() {
    let vectors = named(&[
        &[0.0, 1.0],
        &[1.0, 0.0],
        &[2.0, 0.0],
        &[1.0, 1.0],
        &[0.0, 0.0],
    ]);
    let found = |metric, limit| {
        let store = store(metric, &vectors);
        let hits = store
            .collection("c")
            .unwrap()
            .search(&request(&[1.0, 0.0], limit), &Never)
            .unwrap();
        ids(&hits).join(" ")
    };
    assert_eq!(found(Metric::Cosine, 9), "v1 v2 v3 v0 v4");
    assert_eq!(
        found(Metric::Cosine, 1),
        "v1",
        "the tie is decided before it is cut"
    );
    assert_eq!(found(Metric::DotProduct, 9), "v2 v1 v3 v0 v4");
    assert_eq!(found(Metric::Euclidean, 9), "v1 v2 v3 v4 v0");
    assert_eq!(found(Metric::Euclidean, 0), "");
}

#[test]
fn a_filter_is_asked_inside_the_search_so_that_it_still_fills_the_answer() {
    let vectors: Vec<_> = (0..100)
        .map(|n| (format!("v{n:02}"), vec![100.0 - n as f32]))
        .collect();
    let store = store(Metric::DotProduct, &vectors);
    let mut request = request(&[1.0], 3);
    request.filter = Some(
        Filter::parse(
            &json!({ "range": { "key": "n", "gte": 50 } }).to_string(),
            "filter",
        )
        .unwrap(),
    );
    request.with_vectors = true;
    let hits = store
        .collection("c")
        .unwrap()
        .search(&request, &Never)
        .unwrap();
    assert_eq!(ids(&hits), ["v50", "v51", "v52"]);
    assert_eq!(hits[0].vector.as_deref(), Some(&[50.0][..]));
    assert_eq!(&hits[0].payload[..], br#"{"even":true,"n":50}"#);
}

#[test]
fn a_threshold_keeps_what_reaches_it() {
    let store = store(Metric::DotProduct, &named(&[&[1.0], &[2.0], &[3.0]]));
    let mut request = request(&[1.0], 10);
    request.score_threshold = Some(2.0);
    let hits = store
        .collection("c")
        .unwrap()
        .search(&request, &Never)
        .unwrap();
    assert_eq!(ids(&hits), ["v2", "v1"]);
    assert!(hits[0].vector.is_none());
}

#[test]
fn bad_queries_are_refused() {
    let store = store(Metric::Cosine, &named(&[&[1.0, 2.0]]));
    let c = store.collection("c").unwrap();
    let refused = c
        .search(&request(&[1.0], 1), &Never)
        .unwrap_err()
        .to_string();
    assert_eq!(
        refused,
        "the vector has 1 numbers, the collection has dimension 2"
    );
    assert!(c.search(&request(&[1.0, f32::NAN], 1), &Never).is_err());
    let mut infinite = request(&[1.0, 2.0], 1);
    infinite.score_threshold = Some(f32::INFINITY);
    assert!(c.search(&infinite, &Never).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_search_finds_what_sorting_everything_finds(
        values in proptest::collection::vec((-3i8..4, -3i8..4), 1..60),
        query in (-3i8..4, -3i8..4),
        limit in 1usize..20,
        filtered in any::<bool>(),
        metric in prop_oneof![Just(Metric::Cosine), Just(Metric::Euclidean), Just(Metric::DotProduct)],
    ) {
        let vector = |(a, b): (i8, i8)| vec![f32::from(a), f32::from(b)];
        // Ids in another order than slots.
        let id = |n: usize| format!("v{:02}", n * 37 % 61);
        let vectors: Vec<_> = values.iter().enumerate().map(|(n, v)| (id(n), vector(*v))).collect();
        let store = store(metric, &vectors);
        let query = vector(query);
        let mut request = request(&query, limit);
        if filtered {
            request.filter = Some(Filter::parse(&json!({ "even": true }).to_string(), "filter").unwrap());
        }
        let hits = store.collection("c").unwrap().search(&request, &Never).unwrap();
        let scorer = Scorer::new(&query, metric);
        let mut all: Vec<(f32, &str)> = vectors
            .iter()
            .enumerate()
            .filter(|(n, _)| !filtered || n % 2 == 0)
            .map(|(_, (id, v))| (scorer.score(v, crate::store::kernel::inverse_norm(v)), id.as_str()))
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        all.truncate(limit);
        let found: Vec<_> = hits.iter().map(|h| (h.score, h.id.as_str())).collect();
        prop_assert_eq!(found, all);
    }
}

#[test]
fn searches_beside_writes_never_show_a_vector_twice_or_torn() {
    let store = std::sync::Arc::new(store(
        Metric::DotProduct,
        &(0..200)
            .map(|n| (format!("v{n}"), vec![1.0; 64]))
            .collect::<Vec<_>>(),
    ));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let c = store.collection("c").unwrap();
            let mut version = 1_000;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                version += 1;
                let id = format!("v{}", version % 200);
                c.delete(version, 0, &id);
                let value = (version % 7) as f32;
                c.put(
                    version + 1,
                    0,
                    &id,
                    &[value; 64],
                    &Bytes::from_static(b"{}"),
                );
                version += 1;
            }
        });
        for _ in 0..200 {
            let mut request = request(&[1.0; 64], 50);
            request.with_vectors = true;
            let hits = store
                .collection("c")
                .unwrap()
                .search(&request, &Never)
                .unwrap();
            let unique: HashSet<_> = hits.iter().map(|h| &h.id).collect();
            assert_eq!(unique.len(), hits.len());
            for hit in &hits {
                let vector = hit.vector.as_ref().unwrap();
                assert!(vector.iter().all(|x| x == &vector[0]), "torn: {vector:?}");
                assert_eq!(hit.score, vector[0] * 64.0);
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_search_that_nobody_waits_for_touches_no_further_block() {
    let count = 5 * 4_096;
    let mut log = Log::new();
    let incarnation = log.create("c", 1);
    for from in (0..count).step_by(1_024) {
        let vectors = (from..from + 1_024).map(|n| Record::Put {
            incarnation,
            id: format!("v{n}"),
            vector: vec![1.0],
            payload: json!({ "n": n }).to_string().into(),
        });
        log.write(1, vectors.collect());
    }
    let store = log.store();
    let c = store.collection("c").unwrap();
    let blocks = std::cell::Cell::new(0);
    let wanted = |filter| Wanted {
        limit: count,
        filter,
        with_vectors: false,
    };
    let count_blocks = || blocks.set(blocks.get() + 1);
    let score = |(): &(), _: &Content, _, _: &Slot| Score::Of(1.0);
    let looks = AtLook::new(3);
    let given_up = c.rank(&wanted(None), &looks, count_blocks, score, |_| Ok(None));
    assert_eq!(given_up, Err(Cancelled));
    assert_eq!(blocks.take(), 2);
    // While payloads are read, too.
    let filter = Filter::parse(r#"{"n": 3}"#, "filter").unwrap();
    let looks = AtLook::new(100);
    let given_up = c.rank(&wanted(Some(&filter)), &looks, count_blocks, score, |_| {
        Ok(None)
    });
    assert_eq!(given_up, Err(Cancelled));
    assert_eq!(blocks.take(), 1);
    let all = c.rank(&wanted(None), &Never, count_blocks, score, |_| Ok(None));
    assert_eq!((all.unwrap().len(), blocks.take()), (count, 5));
    assert!(c.list(10, 0, &AtLook::new(4)).is_err());
}

/// At each look, which is where others may change the collection, a stretch of it is deleted.
struct Deleting<'a> {
    collection: &'a Collection,
    next: std::cell::Cell<usize>,
}

impl Cancel for Deleting<'_> {
    fn check(&self) -> Result<(), Cancelled> {
        let from = self.next.get();
        self.next.set(from + 2_000);
        for n in (from..from + 2_000).filter(|n| n % 100 != 7) {
            self.collection.delete(u64::MAX, 0, &format!("v{n}"));
        }
        Ok(())
    }
}

#[test]
fn what_stays_is_found_once_while_deletes_move_it() {
    let count = 6 * 4_096;
    let kept: Vec<String> = (0..count)
        .filter(|n| n % 100 == 7)
        .map(|n| format!("v{n}"))
        .collect();
    for look in ["search", "filtered", "terms", "listing"] {
        let mut log = Log::new();
        let incarnation = log.create("c", 1);
        for from in (0..count).step_by(1_024) {
            let vectors = (from..from + 1_024).map(|n| Record::Put {
                incarnation,
                id: format!("v{n}"),
                vector: vec![if n % 100 == 7 { 1.0 } else { -1.0 }],
                payload: json!({ "keep": n % 100 == 7, "content": "word" })
                    .to_string()
                    .into(),
            });
            log.write(1, vectors.collect());
        }
        let store = log.store();
        let c = store.collection("c").unwrap();
        let deleting = Deleting {
            collection: &c,
            next: 0.into(),
        };
        let mut wanted = request(&[1.0], count);
        wanted.score_threshold = Some(0.0);
        let mut found: Vec<String> = match look {
            "search" => c.search(&wanted, &deleting).unwrap(),
            "filtered" => {
                wanted.filter = Some(Filter::parse(r#"{"keep": true}"#, "filter").unwrap());
                c.search(&wanted, &deleting).unwrap()
            }
            "terms" => {
                let hybrid = crate::store::HybridRequest {
                    vector: vec![1.0],
                    terms: HashEmbedder.terms("word", &Never).unwrap(),
                    fusion: crate::store::Fusion::Rrf,
                    alpha: 0.5,
                    dense_k: 0,
                    sparse_k: count,
                    final_k: count,
                    filter: Some(Filter::parse(r#"{"keep": true}"#, "filter").unwrap()),
                    with_vectors: false,
                };
                c.search_hybrid(&hybrid, &deleting).unwrap()
            }
            _ => Vec::new(),
        }
        .into_iter()
        .map(|hit| hit.id)
        .collect();
        if look == "listing" {
            let ids = c.ids(count, 0, &deleting).unwrap();
            let all = ids.iter().map(|id| id.to_string());
            found = all.filter(|id| kept.contains(id)).collect();
        }
        found.sort_unstable();
        let mut kept = kept.clone();
        kept.sort_unstable();
        assert_eq!(found, kept, "{look}");
        assert!(c.read().slots.len() < count - 1_000, "nothing was moved");
    }
}
