//! Searches, and turning a text into a vector.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use serde_json::Value;
use vectorizer_api::data::{
    BatchResults, BatchSearch, EmbedRequest, Embedding, Fusion, HybridResults, HybridSearch,
    Search, SearchHit, SearchResults, SparseVector,
};
use vectorizer_api::error::ApiError;

use super::{find, payload_of, same_collection, split};
use crate::http::Api;
use crate::http::answer::{Refusal, invalid};
use crate::http::body::{At, Input};
use crate::http::compute::compute;
use crate::store::embed::DEFAULT_DIMENSION;
use crate::store::{
    self, Cancel, Cancelled, Collection, Filter, Hit, HybridRequest, MAX_DIMENSION, SearchError,
    SearchRequest,
};

/// Most results of one search.
const MAX_LIMIT: usize = 1000;
/// Most searches in one batch.
const MAX_QUERIES: usize = 100;

/// `POST /collections/{name}/search`.
pub(in crate::http) async fn search(
    State(api): State<Api>,
    At(name): At<String>,
    Input(request): Input<Search>,
) -> Result<Json<SearchResults>, Refusal> {
    same_collection(&name, request.collection.as_deref())?;
    let collection = find(&api, &name)?;
    let wanted = Wanted::read(request, "")?;
    let found = compute(&api, move |api, cancel| {
        wanted.run(api, &collection, cancel)
    });
    Ok(Json(found.await?))
}

/// `POST /collections/{name}/search/text`.
pub(in crate::http) async fn search_text(
    state: State<Api>,
    at: At<String>,
    Input(request): Input<Search>,
) -> Result<Json<SearchResults>, Refusal> {
    if request.query.is_none() {
        return Err(Refusal::invalid("query", "is missing: expected a text"));
    }
    search(state, at, Input(request)).await
}

/// `POST /batch_search`.
pub(in crate::http) async fn batch_search(
    State(api): State<Api>,
    Input(request): Input<BatchSearch>,
) -> Result<Json<BatchResults>, Refusal> {
    let count = request.queries.len();
    if !(1..=MAX_QUERIES).contains(&count) {
        return Err(Refusal::invalid(
            "queries",
            format!("{count} searches are not allowed: expected 1 to {MAX_QUERIES}"),
        ));
    }
    let collection = find(&api, &request.collection)?;
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
        wanted.push(Wanted::read(search, &format!("queries[{index}]."))?);
    }
    let found = compute(&api, move |api, cancel| {
        let found = wanted.into_iter();
        found
            .map(|wanted| wanted.run(api, &collection, cancel))
            .collect::<Result<_, _>>()
    });
    Ok(Json(BatchResults {
        collection: request.collection,
        count,
        results: found.await?,
    }))
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
    fn read(search: Search, place: &str) -> Result<Self, ApiError> {
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
            filter: filter(search.filter.as_ref(), place)?,
            score_threshold: search.score_threshold,
            with_vectors: search.with_vector.unwrap_or(false),
            place: place.to_owned(),
        })
    }

    fn run(
        self,
        api: &Api,
        collection: &Collection,
        cancel: &dyn Cancel,
    ) -> Result<SearchResults, ApiError> {
        let begun = Instant::now();
        let dimension = collection.config().dimension;
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
        Ok(SearchResults {
            results: hits.into_iter().map(shown).collect(),
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
    At(name): At<String>,
    Input(request): Input<HybridSearch>,
) -> Result<Json<HybridResults>, Refusal> {
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
    let filter = filter(request.filter.as_ref(), "")?;
    let query = request.query;
    let (results, query) = compute(&api, move |api, cancel| {
        let embedder = &api.0.embedder;
        let wanted = HybridRequest {
            vector: embedder.embed(&query, collection.config().dimension, cancel)?,
            terms: match sparse {
                Some(terms) => terms,
                None => embedder.terms(&query, cancel)?,
            },
            fusion: match algorithm {
                Fusion::Rrf => store::Fusion::Rrf,
                Fusion::Weighted => store::Fusion::Weighted,
                Fusion::Alpha => store::Fusion::Alpha,
            },
            alpha,
            dense_k,
            sparse_k,
            final_k,
            filter,
            with_vectors: false,
        };
        let hits = collection
            .search_hybrid(&wanted, cancel)
            .map_err(|error| refused("", &error))?;
        let results = hits.into_iter().map(shown).collect();
        Ok::<_, ApiError>((results, query))
    })
    .await?;
    Ok(Json(HybridResults {
        results,
        query,
        alpha,
        algorithm,
        duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    }))
}

/// `POST /embed`.
pub(in crate::http) async fn embed(
    State(api): State<Api>,
    Input(request): Input<EmbedRequest>,
) -> Result<Json<Embedding>, Refusal> {
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
    let embedded = compute(&api, move |api, cancel| {
        let embedding = api.0.embedder.embed(&text, dimension, cancel)?;
        Ok::<_, Cancelled>(Embedding {
            embedding,
            model: known.to_owned(),
            text,
            dimension,
            provider: "local".to_owned(),
        })
    });
    Ok(Json(embedded.await?))
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

fn filter(value: Option<&Value>, place: &str) -> Result<Option<Filter>, ApiError> {
    let path = format!("{place}filter");
    value
        .map(|value| Filter::parse(&value.to_string(), &path))
        .transpose()
        .map_err(|error| invalid(&error.path, error.message))
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

fn shown(hit: Hit) -> SearchHit {
    let payload = payload_of(&hit.payload);
    let (content, metadata) = split(&payload);
    SearchHit {
        id: hit.id,
        score: hit.score,
        content,
        metadata,
        payload,
        vector: hit.vector,
    }
}
