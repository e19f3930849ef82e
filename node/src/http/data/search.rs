//! Searches, and turning a text into a vector.

use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use vectorizer_api::data::{
    BatchSearch, EmbedRequest, Embedding, HybridResults, HybridSearch, Search, SearchResults,
    SparseVector,
};
use vectorizer_api::error::ApiError;

use super::text::{Census, Json, Shown, WithoutText, text_of};
use super::{find, same_collection};
use crate::http::Api;
use crate::http::answer::{Answer, Refusal, invalid};
use crate::http::body::{At, Input};
use crate::http::budget::{PER_TEXT_BYTE, Share};
use crate::http::compute::compute;
use crate::store::embed::DEFAULT_DIMENSION;
use crate::store::{
    Cancel, Collection, Filter, Hit, HybridRequest, MAX_DIMENSION, SearchError, SearchRequest,
};

/// Most results of one search.
const MAX_LIMIT: usize = 1000;
/// Most searches in one batch.
const MAX_QUERIES: usize = 100;
/// What the filters of one request may hold.
const MOST_IN_FILTERS: Census = Census {
    values: 300_000,
    objects: 16_384,
};
/// Bytes that are counted for a value of a filter, and for an object beyond that: its keys stand in a tree.
const PER_VALUE: usize = 96;
const PER_OBJECT: usize = 704;

/// `POST /collections/{name}/search`.
pub(in crate::http) async fn search(
    State(api): State<Api>,
    share: Share,
    At(name): At<String>,
    Input(request): Input<Search<Json>>,
) -> Result<Response, Refusal> {
    same_collection(&name, request.collection.as_deref())?;
    let collection = find(&api, &name)?;
    let wanted = Wanted::read(request, "", &mut Conditions::new(&share))?;
    share.take(wanted.words() * PER_TEXT_BYTE)?;
    let of_answer = share.clone();
    let found = compute(&api, &share, move |api, cancel| {
        let mut answer = Answer::new(&of_answer);
        wanted.run(api, &of_answer, &collection, &mut answer, cancel)?;
        Ok::<_, ApiError>(answer.finish())
    });
    found.await
}

/// `POST /collections/{name}/search/text`.
pub(in crate::http) async fn search_text(
    state: State<Api>,
    share: Share,
    at: At<String>,
    Input(request): Input<Search<Json>>,
) -> Result<Response, Refusal> {
    if request.query.is_none() {
        return Err(Refusal::invalid("query", "is missing: expected a text"));
    }
    search(state, share, at, Input(request)).await
}

/// `POST /batch_search`.
pub(in crate::http) async fn batch_search(
    State(api): State<Api>,
    share: Share,
    Input(request): Input<BatchSearch<Json>>,
) -> Result<Response, Refusal> {
    let count = request.queries.len();
    if !(1..=MAX_QUERIES).contains(&count) {
        return Err(Refusal::invalid(
            "queries",
            format!("{count} searches are not allowed: expected 1 to {MAX_QUERIES}"),
        ));
    }
    let collection = find(&api, &request.collection)?;
    let mut conditions = Conditions::new(&share);
    let mut wanted = Vec::with_capacity(count);
    for (index, query) in request.queries.into_iter().enumerate() {
        let search = Search {
            collection: None,
            query: query.query,
            vector: query.vector,
            limit: query.limit,
            filter: query.filter,
            score_threshold: query.threshold,
            with_vector: None,
        };
        let place = format!("queries[{index}].");
        wanted.push(Wanted::read(search, &place, &mut conditions)?);
    }
    // One text is looked at after the other.
    let words = wanted.iter().map(Wanted::words).max().unwrap_or(0);
    share.take(words * PER_TEXT_BYTE)?;
    let of_answer = share.clone();
    let found = compute(&api, &share, move |api, cancel| {
        let mut answer = Answer::new(&of_answer);
        answer.text("{\"collection\":")?;
        answer.put(collection.name())?;
        answer.text(&format!(",\"count\":{count},\"results\":["))?;
        for (index, wanted) in wanted.into_iter().enumerate() {
            if index > 0 {
                answer.text(",")?;
            }
            wanted.run(api, &of_answer, &collection, &mut answer, cancel)?;
        }
        answer.text("]}")?;
        Ok::<_, ApiError>(answer.finish())
    });
    found.await
}

/// A search that has been read: what is left to be checked needs the collection.
struct Wanted {
    text: Option<String>,
    vector: Vec<f32>,
    limit: usize,
    filter: Option<Filter>,
    score_threshold: Option<f32>,
    with_vectors: bool,
    /// Where it stands in the request, for errors: empty, or with a dot at its end.
    place: String,
}

impl Wanted {
    fn read(
        search: Search<Json>,
        place: &str,
        conditions: &mut Conditions<'_>,
    ) -> Result<Self, ApiError> {
        let (text, vector) = match (search.query, search.vector) {
            (Some(text), None) => (Some(text), Vec::new()),
            (None, Some(vector)) => (None, vector),
            (Some(_), Some(_)) => {
                let path = format!("{place}vector");
                return Err(invalid(&path, "stands beside `query`: send one of the two"));
            }
            (None, None) => {
                let path = format!("{place}query");
                return Err(invalid(
                    &path,
                    "is missing: expected a text in `query`, or numbers in `vector`",
                ));
            }
        };
        Ok(Wanted {
            text,
            vector,
            limit: limit(&format!("{place}limit"), search.limit, 10)?,
            filter: conditions.read(search.filter.as_ref(), place)?,
            score_threshold: search.score_threshold,
            with_vectors: search.with_vector.unwrap_or(false),
            place: place.to_owned(),
        })
    }

    /// Bytes of its text.
    fn words(&self) -> usize {
        self.text.as_ref().map_or(0, String::len)
    }

    /// Searches, and adds what is found to the answer.
    fn run(
        self,
        api: &Api,
        share: &Share,
        collection: &Collection,
        answer: &mut Answer,
        cancel: &dyn Cancel,
    ) -> Result<(), ApiError> {
        let begun = Instant::now();
        let dimension = collection.config().dimension;
        if self.with_vectors {
            let count = usize::try_from(collection.count()).unwrap_or(usize::MAX);
            let numbers = self.limit.min(count).saturating_mul(dimension);
            // A number of an answer takes two bytes at least.
            if numbers.saturating_mul(2) > answer.left() {
                return Err(answer.too_large());
            }
            share.take(numbers * 4)?;
        }
        let vector = match &self.text {
            Some(text) => api.0.embedder.embed(text, dimension, cancel)?,
            None => self.vector,
        };
        let request = SearchRequest {
            vector,
            limit: self.limit,
            filter: self.filter,
            score_threshold: self.score_threshold,
            with_vectors: self.with_vectors,
        };
        let hits = collection
            .search(&request, cancel)
            .map_err(|error| refused(&self.place, &error))?;
        answer.put(&SearchResults {
            results: hits.iter().map(shown).collect(),
            query: self.text,
            collection: collection.name().to_owned(),
            limit: self.limit,
            query_time_ms: begun.elapsed().as_secs_f64() * 1000.0,
        })
    }
}

/// `POST /collections/{name}/hybrid_search`.
pub(in crate::http) async fn hybrid_search(
    State(api): State<Api>,
    share: Share,
    At(name): At<String>,
    Input(request): Input<HybridSearch<Json>>,
) -> Result<Response, Refusal> {
    same_collection(&name, request.collection.as_deref())?;
    let collection = find(&api, &name)?;
    let begun = Instant::now();
    let alpha = request.alpha.unwrap_or(0.7);
    let algorithm = request.algorithm.unwrap_or_default();
    let sparse = request.query_sparse.map(terms).transpose()?;
    let (dense_k, sparse_k, final_k) = (
        limit("dense_k", request.dense_k, 20)?,
        limit("sparse_k", request.sparse_k, 20)?,
        limit("final_k", request.final_k, 10)?,
    );
    let filter = Conditions::new(&share).read(request.filter.as_ref(), "")?;
    let query = request.query;
    share.take(query.len() * PER_TEXT_BYTE)?;
    let of_answer = share.clone();
    let found = compute(&api, &share, move |api, cancel| {
        let embedder = &api.0.embedder;
        let wanted = HybridRequest {
            vector: embedder.embed(&query, collection.config().dimension, cancel)?,
            terms: match sparse {
                Some(terms) => terms,
                None => embedder.terms(&query, cancel)?,
            },
            fusion: algorithm,
            alpha,
            dense_k,
            sparse_k,
            final_k,
            filter,
            with_vectors: false,
        };
        let hits = collection.search_hybrid(&wanted, cancel);
        let hits = hits.map_err(|error| refused("", &error))?;
        let mut answer = Answer::new(&of_answer);
        answer.put(&HybridResults {
            results: hits.iter().map(shown).collect(),
            query,
            alpha,
            algorithm,
            duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        })?;
        Ok::<_, ApiError>(answer.finish())
    });
    found.await
}

/// `POST /embed`.
pub(in crate::http) async fn embed(
    State(api): State<Api>,
    share: Share,
    Input(request): Input<EmbedRequest>,
) -> Result<Response, Refusal> {
    let known = api.0.embedder.name();
    if let Some(model) = request.model.as_deref().filter(|model| *model != known) {
        let message = format!("`{model}` is not known here: expected `{known}`, or nothing");
        return Err(Refusal::invalid("model", message));
    }
    let dimension = request.dimension.unwrap_or(DEFAULT_DIMENSION);
    if !(1..=MAX_DIMENSION).contains(&dimension) {
        return Err(Refusal::invalid(
            "dimension",
            format!("{dimension} is not allowed: expected 1 to {MAX_DIMENSION}"),
        ));
    }
    let text = request.text;
    share.take(text.len() * PER_TEXT_BYTE + dimension * 4)?;
    let of_answer = share.clone();
    let embedded = compute(&api, &share, move |api, cancel| {
        let embedding = api.0.embedder.embed(&text, dimension, cancel)?;
        let mut answer = Answer::new(&of_answer);
        answer.put(&Embedding {
            embedding,
            model: known.to_owned(),
            text,
            dimension,
            provider: "local".to_owned(),
        })?;
        Ok::<_, ApiError>(answer.finish())
    });
    embedded.await
}

fn limit(path: &str, asked: Option<usize>, default: usize) -> Result<usize, ApiError> {
    let limit = asked.unwrap_or(default);
    if (1..=MAX_LIMIT).contains(&limit) {
        Ok(limit)
    } else {
        let message = format!("{limit} is not allowed: expected 1 to {MAX_LIMIT}");
        Err(invalid(path, message))
    }
}

/// The filters of one request. They become trees, so that together they hold a bounded number of values.
struct Conditions<'a> {
    share: &'a Share,
    left: Census,
}

impl<'a> Conditions<'a> {
    fn new(share: &'a Share) -> Self {
        Conditions {
            share,
            left: MOST_IN_FILTERS,
        }
    }

    fn read(&mut self, filter: Option<&Json>, place: &str) -> Result<Option<Filter>, ApiError> {
        let Some(filter) = filter.map(Json::get) else {
            return Ok(None);
        };
        let path = format!("{place}filter");
        let refuse = |message: String| invalid(&path, message);
        let census = Census::take(filter).map_err(refuse)?;
        for (what, there, left, most) in [
            (
                "values",
                census.values,
                &mut self.left.values,
                MOST_IN_FILTERS.values,
            ),
            (
                "objects",
                census.objects,
                &mut self.left.objects,
                MOST_IN_FILTERS.objects,
            ),
        ] {
            *left = left.checked_sub(there).ok_or_else(|| {
                refuse(format!(
                    "too much: the filters of a request may hold {most} {what}, one inside of another counted too"
                ))
            })?;
        }
        self.share
            .take(filter.len() + census.values * PER_VALUE + census.objects * PER_OBJECT)?;
        let filter = Filter::parse(filter, &path);
        filter
            .map(Some)
            .map_err(|error| invalid(&error.path, error.message))
    }
}

fn terms(sparse: SparseVector) -> Result<Vec<(u32, f32)>, ApiError> {
    let SparseVector { indices, values } = sparse;
    if indices.len() != values.len() {
        return Err(invalid(
            "query_sparse.values",
            format!(
                "{} values stand beside {} indices: expected as many",
                values.len(),
                indices.len()
            ),
        ));
    }
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(invalid(
            &format!("query_sparse.values[{at}]"),
            "is not a finite number",
        ));
    }
    let mut terms: Vec<_> = indices.into_iter().zip(values).collect();
    terms.sort_by_key(|(term, _)| *term);
    Ok(terms)
}

fn refused(place: &str, error: &SearchError) -> ApiError {
    let field = match error {
        SearchError::Dimension { .. } => "vector",
        SearchError::NotFinite { field } => field,
        SearchError::Alpha(_) => "alpha",
        SearchError::Cancelled(cancelled) => return (*cancelled).into(),
    };
    invalid(&format!("{place}{field}"), error)
}

/// [`vectorizer_api::data::SearchHit`], written from where it stands.
#[derive(Serialize)]
struct ShownHit<'a> {
    id: &'a str,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a RawValue>,
    metadata: WithoutText<'a>,
    payload: Shown<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<&'a [f32]>,
}

fn shown(hit: &Hit) -> ShownHit<'_> {
    ShownHit {
        id: &hit.id,
        score: hit.score,
        content: text_of(&hit.payload),
        metadata: WithoutText(&hit.payload),
        payload: Shown(&hit.payload),
        vector: hit.vector.as_deref(),
    }
}
