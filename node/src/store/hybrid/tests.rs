use serde_json::json;

use super::*;
use crate::store::test_log::Log;
use crate::store::{AtLook, Never, Record, Store};

const TEXTS: [(&str, &str); 5] = [
    ("cats", "Cats sleep most of the day and hunt at night"),
    ("dogs", "Dogs were tamed before any other animal"),
    ("rust", "Rust is a language for systems that must not fail"),
    (
        "iron",
        "Iron turns to rust where water and air meet it; rust eats iron",
    ),
    ("moon", "The moon turns around the earth"),
];

fn written(incarnation: u64, id: &str, text: &str) -> Record {
    Record::Put {
        incarnation,
        id: id.to_owned(),
        vector: HashEmbedder.embed(text, 64, &Never).unwrap(),
        payload: json!({ "content": text, "id": id }).to_string().into(),
    }
}

fn library() -> (Log, Store) {
    let mut log = Log::new();
    let incarnation = log.create("c", 64);
    for (id, text) in TEXTS {
        log.write(1, vec![written(incarnation, id, text)]);
    }
    let store = log.store();
    (log, store)
}

fn request(text: &str, fusion: Fusion, alpha: f32) -> HybridRequest {
    HybridRequest {
        vector: HashEmbedder.embed(text, 64, &Never).unwrap(),
        terms: HashEmbedder.terms(text, &Never).unwrap(),
        fusion,
        alpha,
        dense_k: 5,
        sparse_k: 5,
        final_k: 5,
        filter: None,
        with_vectors: false,
    }
}

fn ids(store: &Store, request: &HybridRequest) -> Vec<String> {
    let hits = store
        .collection("c")
        .unwrap()
        .search_hybrid(request, &Never)
        .unwrap();
    hits.into_iter().map(|h| h.id).collect()
}

#[test]
fn every_fusion_puts_the_text_first_that_both_rankings_put_first() {
    let (_, store) = library();
    for fusion in [Fusion::Rrf, Fusion::Weighted, Fusion::Alpha] {
        let found = ids(&store, &request("iron rust water", fusion, 0.5));
        assert_eq!(found[0], "iron", "{fusion:?} {found:?}");
        assert_eq!(found.len(), 5, "the dense ranking holds them all");
    }
}

#[test]
fn alpha_zero_is_the_sparse_ranking_and_one_the_dense() {
    let (_, store) = library();
    let c = store.collection("c").unwrap();
    let mut request = request("rust", Fusion::Weighted, 0.0);
    // Dense and sparse ask for different things.
    request.vector = HashEmbedder
        .embed("the moon and the earth", 64, &Never)
        .unwrap();
    let sparse = c.search_hybrid(&request, &Never).unwrap();
    assert_eq!(
        (sparse[0].id.as_str(), sparse[0].score),
        ("iron", 1.0),
        "rust twice"
    );
    assert_eq!(sparse[1].id, "rust");
    request.alpha = 1.0;
    assert_eq!(ids(&store, &request)[0], "moon");
}

#[test]
fn reciprocal_ranks_add_up() {
    let (_, store) = library();
    let mut request = request("dogs", Fusion::Rrf, 0.5);
    request.sparse_k = 1;
    let hits = store
        .collection("c")
        .unwrap()
        .search_hybrid(&request, &Never)
        .unwrap();
    assert_eq!(hits[0].id, "dogs");
    assert!((hits[0].score - 2.0 / 61.0).abs() < 1e-6);
    assert!((hits[1].score - 1.0 / 62.0).abs() < 1e-6);
}

#[test]
fn terms_follow_updates_and_deletes() {
    let (mut log, store) = library();
    let only_sparse = |text: &str| {
        let mut request = request(text, Fusion::Weighted, 0.0);
        request.dense_k = 0;
        ids(&store, &request)
    };
    assert_eq!(only_sparse("moon"), ["moon"]);
    let batch = log.write(1, vec![written(1, "moon", "The sun shines")]);
    store.apply_batch(&batch).unwrap();
    assert!(only_sparse("moon").is_empty());
    assert_eq!(only_sparse("shining sun"), ["moon"]);
    let batch = log.write(
        1,
        vec![Record::Delete {
            incarnation: 1,
            id: "moon".into(),
        }],
    );
    store.apply_batch(&batch).unwrap();
    assert!(only_sparse("sun").is_empty());
    let batch = log.write(1, vec![written(1, "stars", "A sun among suns")]);
    store.apply_batch(&batch).unwrap();
    assert_eq!(only_sparse("sun"), ["stars"]);
    let terms = store.collection("c").unwrap();
    assert_eq!(terms.terms.read().texts, 5);
}

#[test]
fn filters_and_limits_hold_for_both_rankings() {
    let (_, store) = library();
    let mut request = request("rust", Fusion::Rrf, 0.5);
    request.filter = Some(
        Filter::parse(
            r#"{ "in": { "key": "id", "values": ["iron", "cats"] } }"#,
            "f",
        )
        .unwrap(),
    );
    assert_eq!(ids(&store, &request), ["iron", "cats"]);
    request.final_k = 1;
    assert_eq!(ids(&store, &request), ["iron"]);
}

#[test]
fn bad_weights_are_refused() {
    let (_, store) = library();
    let c = store.collection("c").unwrap();
    for alpha in [-0.1, 1.1, f32::NAN] {
        assert!(
            c.search_hybrid(&request("x", Fusion::Alpha, alpha), &Never)
                .is_err()
        );
    }
    let mut bad = request("x", Fusion::Alpha, 0.5);
    bad.terms = vec![(1, f32::INFINITY)];
    assert!(c.search_hybrid(&bad, &Never).is_err());
}

#[test]
fn terms_that_were_read_stay_read_when_the_search_is_given_up_and_the_next_one_goes_on() {
    let mut log = Log::new();
    let incarnation = log.create("c", 1);
    // Several blocks.
    for from in (0..10_000).step_by(100) {
        let texts = (from..from + 100).map(|n| Record::Put {
            incarnation,
            id: format!("t{n}"),
            vector: vec![1.0],
            payload: json!({ "content": format!("word{n} everywhere") })
                .to_string()
                .into(),
        });
        log.write(1, texts.collect());
    }
    let store = log.store();
    let c = store.collection("c").unwrap();
    let wanted = HybridRequest {
        vector: vec![1.0],
        terms: HashEmbedder.terms("word7", &Never).unwrap(),
        dense_k: 0,
        ..request("x", Fusion::Weighted, 0.0)
    };
    let looks = AtLook::new(2_000);
    assert_eq!(
        c.search_hybrid(&wanted, &looks),
        Err(SearchError::Cancelled(Cancelled))
    );
    let read = c.terms.read().texts;
    assert!(read > 0, "nothing of {read} is kept");
    let looks = AtLook::new(1_000_000);
    let hits = c.search_hybrid(&wanted, &looks).unwrap();
    assert_eq!(hits[0].id, "t7");
    let texts = 10_000 - u64::from(read);
    let taken = 1_000_000 - looks.left() as u64;
    assert!(taken < 3 * texts + 100, "{taken} looks at {texts} texts");
    let looks = AtLook::new(1_000_000);
    c.search_hybrid(&wanted, &looks).unwrap();
    assert!(1_000_000 - looks.left() < 50, "all were read again");
}

#[test]
fn hybrid_searches_at_once_read_every_text_and_agree() {
    let mut log = Log::new();
    let incarnation = log.create("c", 1);
    for from in (0..20_000).step_by(100) {
        let texts = (from..from + 100).map(|n| Record::Put {
            incarnation,
            id: format!("t{n}"),
            vector: vec![1.0],
            payload: json!({ "content": format!("word{}", n % 10) })
                .to_string()
                .into(),
        });
        log.write(1, texts.collect());
    }
    let store = log.store();
    let c = store.collection("c").unwrap();
    let wanted = HybridRequest {
        vector: vec![1.0],
        terms: HashEmbedder.terms("word3", &Never).unwrap(),
        dense_k: 0,
        sparse_k: 1_000,
        final_k: 1_000,
        ..request("x", Fusion::Weighted, 0.0)
    };
    let found: Vec<_> = std::thread::scope(|scope| {
        let searches: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| c.search_hybrid(&wanted, &Never).unwrap()))
            .collect();
        searches.into_iter().map(|s| s.join().unwrap()).collect()
    });
    assert_eq!(found[0].len(), 1_000);
    assert!(found.iter().all(|hits| *hits == found[0]));
    let terms = c.terms.read();
    let term = wanted.terms[0].0;
    assert_eq!((terms.texts, terms.frequency[&term]), (20_000, 2_000));
}

#[test]
fn what_is_nearest_and_has_the_word_comes_first_whatever_the_sign_of_its_score() {
    let hit = |id: &str, score: f32| Hit {
        id: id.to_owned(),
        score,
        version: 1,
        payload: Bytes::new(),
        vector: None,
    };
    for fusion in [Fusion::Rrf, Fusion::Weighted, Fusion::Alpha] {
        for alpha in [0.1, 0.5, 0.9] {
            for dense in [
                [-1.0, -3.0, -9.0],
                [5.0, -3.0, -9.0],
                [9.0, 3.0, 1.0],
                [-2.0; 3],
            ] {
                let dense_is_flat = dense[0] == dense[2];
                let dense: Vec<_> = ["both", "near", "far"]
                    .into_iter()
                    .zip(dense)
                    .map(|(id, score)| hit(id, score))
                    .collect();
                let sparse = vec![hit("both", 2.0), hit("word", 2.0)];
                let fused = fuse(&request("x", fusion, alpha), dense, sparse);
                let score = |id: &str| fused.iter().find(|hit| hit.id == id).unwrap().score;
                let both = score("both");
                assert_eq!(both, fused[0].score, "{fusion:?} {alpha} {fused:?}");
                assert!(
                    both > score("word") || dense_is_flat,
                    "{fusion:?} {alpha} {fused:?}"
                );
                assert!(fused.iter().all(|hit| hit.score >= 0.0), "{fused:?}");
            }
        }
    }
    // A query without words stands equally far from everything, which says nothing.
    let dense = vec![hit("a", 0.0), hit("b", 0.0)];
    let fused = fuse(
        &request("x", Fusion::Weighted, 0.9),
        dense,
        vec![hit("word", 0.1)],
    );
    assert_eq!(fused[0].id, "word");
}
