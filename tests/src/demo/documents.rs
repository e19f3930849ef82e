//! The demo's texts and queries, and their way in and out.

use std::path::Path;

use serde_json::{Value, json};

use crate::failure::{OrFail, Result, ensure};
use crate::node::Node;

/// The collection.
const COLLECTION: &str = "texts";
/// Texts per request.
const BATCH: usize = 100;
/// Hits asked for.
const HITS: usize = 3;

/// examples/texts.jsonl and examples/queries.txt.
pub struct Documents {
    /// Objects with `id`, `text` and `metadata`.
    pub texts: Vec<Value>,
    /// What is searched.
    pub queries: Vec<Query>,
}

/// A line of examples/queries.txt.
pub struct Query {
    /// What is asked.
    pub text: String,
    /// Id of the passage that a person would expect among the first hits.
    pub expected: String,
}

/// A hit, as far as it is shown and compared.
#[derive(PartialEq, Debug)]
pub struct Hit {
    /// Id of the passage.
    pub id: String,
    score: f64,
    text: String,
}

impl Hit {
    /// On one line.
    pub fn line(&self) -> String {
        let text: String = self.text.chars().take(80).collect();
        format!("{:.3}  {:<14} {text}…", self.score, self.id)
    }
}

impl Documents {
    /// Reads both files.
    pub fn read(examples: &Path) -> Result<Self> {
        let file = |name: &str| std::fs::read_to_string(examples.join(name)).or_fail(name);
        let texts = file("texts.jsonl")?
            .lines()
            .map(|line| serde_json::from_str(line).or_fail("texts.jsonl"))
            .collect::<Result<Vec<Value>>>()?;
        let queries = file("queries.txt")?
            .lines()
            .map(|line| {
                let (text, expected) = line.split_once('\t').or_fail("queries.txt: a tab")?;
                Ok(Query {
                    text: text.to_owned(),
                    expected: expected.to_owned(),
                })
            })
            .collect::<Result<Vec<Query>>>()?;
        Ok(Documents { texts, queries })
    }

    /// Makes the collection and inserts every text; a second time changes nothing that is seen.
    pub async fn write(&self, master: &Node) -> Result<()> {
        let collection = json!({ "name": COLLECTION, "dimension": 512, "metric": "cosine" });
        let made = master.post("/collections", &collection).await?;
        if made.status != 409 {
            made.ok().or_fail("creating the collection")?;
        }
        for batch in self.texts.chunks(BATCH) {
            let body = json!({ "collection": COLLECTION, "texts": batch });
            let answer = master.post("/insert_texts", &body).await?.ok()?;
            ensure(answer["failed"].as_u64() == Some(0), || {
                format!("some texts were refused: {answer}")
            })?;
        }
        Ok(())
    }

    /// Searches by text on one node.
    pub async fn search(&self, node: &Node, query: &Query) -> Result<Vec<Hit>> {
        let path = format!("/collections/{COLLECTION}/search/text");
        let body = json!({ "query": query.text, "limit": HITS });
        let answer = node.post(&path, &body).await?.ok().or_fail("searching")?;
        let results = answer["results"].as_array().or_fail("`results`")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let hits = results.iter().map(|hit| Hit {
            id: text(&hit["id"]),
            score: hit["score"].as_f64().unwrap_or_default(),
            text: text(&hit["content"]),
        });
        Ok(hits.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_can_be_read_and_every_expected_passage_is_there() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let documents = Documents::read(&examples).unwrap();
        assert!(documents.texts.len() > 300);
        for query in &documents.queries {
            let there = documents
                .texts
                .iter()
                .any(|text| text["id"] == query.expected.as_str());
            assert!(there, "{} is not among the texts", query.expected);
        }
    }
}
