//! Reads every record back, page by page.

use std::collections::HashMap;

use serde_json::Value;

use super::load::Load;
use crate::failure::{OrFail, Result, ensure};

/// Records per page.
const PAGE: usize = 1000;

/// What is stored.
#[derive(Default, Debug)]
pub struct Stored {
    /// Number in the payload of each id.
    pub numbers: HashMap<String, u64>,
    /// Ids that were listed more than once.
    pub duplicates: Vec<String>,
}

/// Reads the whole collection from `url`. Nothing may write meanwhile.
pub async fn read(load: &Load, url: &str) -> Result<Stored> {
    let http = load.http()?;
    let mut stored = Stored::default();
    let mut offset = 0;
    loop {
        let page = format!(
            "{url}/collections/{}/vectors?limit={PAGE}&offset={offset}",
            load.collection
        );
        let answer = http.get(&page).bearer_auth(&load.key).send().await;
        let answer = answer.or_fail("reading back")?;
        let status = answer.status();
        let text = answer.text().await.or_fail("reading back")?;
        ensure(status.is_success(), || {
            format!("reading back {page}: {status}: {text}")
        })?;
        let body: Value = serde_json::from_str(&text).or_fail("reading back")?;
        let vectors = body["vectors"].as_array().or_fail("`vectors` of a page")?;
        let total = body["total"].as_u64().or_fail("`total` of a page")?;
        for vector in vectors {
            stored.add(vector)?;
        }
        offset += vectors.len();
        if vectors.is_empty() || offset as u64 >= total {
            ensure(offset as u64 == total, || {
                format!("total says {total} vectors, {offset} were listed")
            })?;
            return Ok(stored);
        }
    }
}

impl Stored {
    fn add(&mut self, vector: &Value) -> Result<()> {
        let id = vector["id"].as_str().or_fail("`id` of a vector")?;
        let number = vector["payload"]["number"].as_u64();
        let number = number.or_fail("`payload.number` of a vector")?;
        if self.numbers.insert(id.to_owned(), number).is_some() {
            self.duplicates.push(id.to_owned());
        }
        Ok(())
    }
}
