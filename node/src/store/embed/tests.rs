use super::*;
use crate::store::{AtLook, Never};

fn embed(text: &str, dimension: usize) -> Vec<f32> {
    HashEmbedder.embed(text, dimension, &Never).unwrap()
}

fn terms(text: &str) -> Vec<(u32, f32)> {
    HashEmbedder.terms(text, &Never).unwrap()
}

fn cosine(a: &str, b: &str) -> f32 {
    let (a, b) = (embed(a, 512), embed(b, 512));
    a.iter().zip(&b).map(|(x, y)| x * y).sum()
}

/// The non-zero places of a vector.
fn places(text: &str, dimension: usize) -> Vec<(usize, f32)> {
    let vector = embed(text, dimension);
    vector
        .into_iter()
        .enumerate()
        .filter(|(_, x)| *x != 0.0)
        .collect()
}

#[test]
fn stop_words_are_sorted_so_that_they_can_be_found() {
    assert!(STOP_WORDS.is_sorted());
}

#[test]
fn golden_vectors_hold_still() {
    let expected = [
        (17, 0.26726124),
        (24, 0.26726124),
        (30, -0.5345225),
        (34, 0.26726124),
        (36, -0.26726124),
        (40, 0.26726124),
        (52, -0.26726124),
        (56, 0.26726124),
        (61, 0.26726124),
        (62, 0.26726124),
        (63, -0.26726124),
    ];
    assert_eq!(places("The quick brown foxes", 64), expected);
}

#[test]
fn golden_terms_hold_still() {
    let expected = [
        (2_308_137_566, 1.6221198),
        (3_793_372_088, 1.6221198),
        (4_195_320_246, 1.8673741),
    ];
    assert_eq!(terms("The quick brown foxes, quick!"), expected);
}

#[test]
fn vectors_have_length_one_and_no_words_give_zeros() {
    for text in [
        "a",
        "the quick brown fox",
        "日本語のテキスト",
        "Ünïcödé wörds",
        "x 1 2 3",
    ] {
        for dimension in [1, 2, 64, 512] {
            let vector = embed(text, dimension);
            let length: f32 = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            // In one or two dimensions the signs may cancel out.
            assert!(
                (length - 1.0).abs() < 1e-5 || (dimension < 3 && length == 0.0),
                "{text} {dimension}"
            );
        }
    }
    assert!(embed("… !?", 8).iter().all(|x| *x == 0.0));
    assert!(embed("", 0).is_empty());
    assert!(terms("").is_empty());
}

#[test]
fn case_inflection_and_order_do_not_matter() {
    assert_eq!(
        embed("Running dogs", 512),
        embed("the DOG was running", 512)
    );
    assert!(cosine("replicated databases", "a database that replicates") > 0.99);
}

#[test]
fn texts_about_the_same_are_nearer_than_others() {
    let query = "how does the moon move";
    let near = cosine(query, "The moon moves around the earth in a month");
    let far = cosine(query, "Bread needs flour, water, salt and time");
    assert!(near > far + 0.3, "{near} {far}");
}

#[test]
fn a_text_of_stop_words_alone_is_still_found() {
    assert!(cosine("to be or not to be", "To be, or not to be?") > 0.99);
}

#[test]
fn words_of_other_scripts_and_endless_ones_are_taken_as_they_are() {
    assert!(cosine("東京 大阪", "大阪 東京") > 0.99);
    let long = "é".repeat(1_000);
    assert_eq!(terms(&long).len(), 1);
}

#[test]
fn terms_are_ordered_and_weighted_by_count() {
    let terms = terms("rust rust rust iron");
    assert_eq!(terms.len(), 2);
    assert!(terms[0].0 < terms[1].0);
    let (low, high) = (terms[0].1.min(terms[1].1), terms[0].1.max(terms[1].1));
    assert!(
        low < high && high < 3.0 * low,
        "a count saturates: {low} {high}"
    );
}

#[test]
fn a_long_text_that_nobody_waits_for_is_given_up() {
    let text = "word ".repeat(100_000);
    let looks = AtLook::new(5);
    assert!(HashEmbedder.embed(&text, 64, &looks).is_err());
    let looks = AtLook::new(1_000_000);
    assert!(HashEmbedder.terms(&text, &looks).is_ok());
    let taken = 1_000_000 - looks.left();
    assert!(taken > 100, "{taken} looks");
}
