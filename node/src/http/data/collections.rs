//! Collections: created, described, listed, dropped.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use vectorizer_api::data::{
    Collection, CollectionCreated, CollectionDeleted, CreateCollection, IndexingStatus, Metric,
    Normalization, Quantization, Shape, Size,
};
use vectorizer_api::error::ApiError;

use super::find;
use crate::http::Api;
use crate::http::answer::{Answer, Refusal, Written};
use crate::http::body::{At, Input};
use crate::http::budget::Share;
use crate::http::compute::compute;
use crate::http::writes::carry_out;
use crate::store::{self, CollectionConfig, CollectionInfo, Digest};
use crate::writer::WriteRequest;

/// `POST /collections`.
pub(in crate::http) async fn create_collection(
    State(api): State<Api>,
    Input(wish): Input<CreateCollection>,
) -> Result<Written<CollectionCreated>, Refusal> {
    let contradicts = |path: &str, other: &str| {
        let message = format!("contradicts `{other}`: send one of the two");
        Err(Refusal::invalid(path, message))
    };
    let metric = match (wish.metric, wish.similarity_metric) {
        (Some(one), Some(other)) if one != other => {
            return contradicts("similarity_metric", "metric");
        }
        (one, other) => one.or(other),
    };
    let shape = match (wish.config, wish.dimension) {
        (Some(shape), Some(dimension)) if shape.dimension != dimension => {
            return contradicts("config.dimension", "dimension");
        }
        (Some(shape), _) if metric.is_some_and(|metric| metric != shape.metric) => {
            return contradicts("config.metric", "metric");
        }
        (Some(shape), _) => shape,
        (None, Some(dimension)) => Shape {
            dimension,
            metric: metric.unwrap_or_default(),
        },
        (None, None) => {
            let message = "is missing: expected the number of numbers in each vector";
            return Err(Refusal::invalid("dimension", message));
        }
    };
    let config = CollectionConfig {
        dimension: shape.dimension,
        metric: shape.metric,
        description: wish.description.filter(|text| !text.is_empty()),
    };
    store::validate_name(&wish.name).map_err(|error| Refusal::invalid("name", error))?;
    config.validate().map_err(|error| {
        let path = match error {
            store::ConfigError::Description(_) => "description",
            store::ConfigError::Dimension(_)
            | store::ConfigError::Name(_)
            | store::ConfigError::Id(_)
                if wish.config.is_some() =>
            {
                "config.dimension"
            }
            store::ConfigError::Dimension(_)
            | store::ConfigError::Name(_)
            | store::ConfigError::Id(_)
            | store::ConfigError::DotId(_) => "dimension",
        };
        Refusal::invalid(path, error)
    })?;
    let name = wish.name;
    let request = WriteRequest::CreateCollection {
        name: name.clone(),
        config: config.clone(),
    };
    let reply = carry_out(&api, request).await?;
    let incarnation = reply.position.offset;
    let info = find(&api, &name)
        .map(|collection| collection.info())
        .ok()
        .filter(|info| info.incarnation == incarnation)
        .unwrap_or_else(|| as_created(&name, incarnation, config));
    let info = describe(&api, &info);
    // Each of the two public clients is recognized by the key that it uses.
    let plain = wish.similarity_metric.is_some();
    Ok(Written {
        position: reply.position,
        body: CollectionCreated {
            message: (!plain).then(|| format!("Collection '{name}' created successfully")),
            collection: (!plain).then_some(name),
            config: wish.config,
            info,
        },
    })
}

/// `GET /collections`.
pub(in crate::http) async fn list_collections(
    State(api): State<Api>,
    share: Share,
) -> Result<Response, Refusal> {
    let listed = share.clone();
    let listed = compute(&api, &share, move |api, cancel| {
        let mut answer = Answer::new(&listed);
        // It has no pages. Each collection takes more memory than it does here.
        answer.allow(usize::MAX);
        answer.text("{\"collections\":[")?;
        for (index, info) in api.store.collections().iter().enumerate() {
            if index > 0 {
                answer.text(",")?;
            }
            cancel.check()?;
            answer.put(&describe(api, info))?;
        }
        answer.text("]}")?;
        Ok::<_, ApiError>(answer.finish())
    });
    listed.await
}

/// `GET /collections/{name}`.
pub(in crate::http) async fn get_collection(
    State(api): State<Api>,
    At(name): At<String>,
) -> Result<Json<Collection>, Refusal> {
    let collection = find(&api, &name)?;
    Ok(Json(describe(&api, &collection.info())))
}

/// `DELETE /collections/{name}`.
pub(in crate::http) async fn delete_collection(
    State(api): State<Api>,
    At(name): At<String>,
) -> Result<Written<CollectionDeleted>, Refusal> {
    let request = WriteRequest::DropCollection { name: name.clone() };
    let reply = carry_out(&api, request).await?;
    Ok(Written {
        position: reply.position,
        body: CollectionDeleted {
            message: format!("Collection '{name}' deleted successfully"),
            collection: name,
        },
    })
}

/// What was created, and perhaps dropped by somebody else before it was looked at: the answer is the same.
fn as_created(name: &str, incarnation: u64, config: CollectionConfig) -> CollectionInfo {
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
    CollectionInfo {
        name: name.to_owned(),
        incarnation,
        config,
        count: 0,
        bytes: 0,
        created_ms: now,
        updated_ms: now,
        digest: Digest::default(),
    }
}

fn describe(api: &Api, info: &CollectionInfo) -> Collection {
    let count = usize::try_from(info.count).unwrap_or(usize::MAX);
    let updated_at = time(info.updated_ms);
    let numbers = info.count * info.config.dimension as u64 * 4;
    Collection {
        name: info.name.clone(),
        dimension: info.config.dimension,
        metric: info.config.metric,
        vector_count: count,
        document_count: count,
        status: "ready".to_owned(),
        created_at: time(info.created_ms),
        updated_at: updated_at.clone(),
        embedding_provider: api.0.embedder.name().to_owned(),
        indexing_status: IndexingStatus {
            status: "completed".to_owned(),
            progress: 1.0,
            total_documents: count,
            processed_documents: count,
            vector_count: count,
            last_updated: updated_at,
        },
        normalization: Normalization {
            enabled: info.config.metric == Metric::Cosine,
        },
        quantization: Quantization {
            enabled: false,
            kind: "none".to_owned(),
            bits: 32,
        },
        size: Size {
            total: readable(info.bytes),
            total_bytes: info.bytes,
            index_bytes: numbers.min(info.bytes),
            payload_bytes: info.bytes.saturating_sub(numbers),
        },
    }
}

/// Unix time in ms as RFC 3339.
fn time(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or_default()
        .to_string()
}

fn readable(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{size:.1} {}", UNITS[unit])
    }
}
