//! The OpenAPI document, made from the table of endpoints and the types that they take and answer, and a page that shows
//! it without loading anything from elsewhere.

use axum::Json;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use vectorizer_api::error::{ApiError, ErrorCode};

use super::auth::Access;
use super::endpoint::{Endpoint, Kind};
use super::endpoints;

const PAGE: &str = include_str!("openapi.html");
/// The page runs its own inline script and talks to this node; nothing else is loaded.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";

/// `GET /` and `GET /docs`.
pub(super) async fn page() -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE))
}

/// `GET /openapi.json`.
pub(super) async fn document() -> Json<Value> {
    Json(describe(&endpoints::all()))
}

/// The document over these endpoints.
pub(super) fn describe(all: &[Endpoint]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let error = schemas.subschema_for::<ApiError>();
    let mut paths = Map::new();
    for endpoint in all {
        let mut operation = json!({
            "summary": endpoint.summary,
            "tags": [tag(endpoint)],
            "operationId": operation_id(endpoint),
            "responses": {
                "200": { "description": "Done" },
                "default": {
                    "description": "Refused: what is wrong, where, and what would be right",
                    "content": { "application/json": { "schema": error } },
                },
            },
        });
        if let Some(answers) = endpoint.answers {
            let schema = answers(&mut schemas);
            operation["responses"]["200"]["content"] =
                json!({ "application/json": { "schema": schema } });
        }
        if let Some(takes) = endpoint.takes {
            let schema = takes(&mut schemas);
            operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        }
        if let Some(content_type) = endpoint.takes_bytes {
            operation["requestBody"] =
                json!({ "required": true, "content": { (content_type): {} } });
        }
        let parameters = parameters(endpoint);
        if !parameters.is_empty() {
            operation["parameters"] = Value::from(parameters);
        }
        if endpoint.access != Access::Open {
            operation["security"] = json!([{ "bearer": [] }, { "key": [] }]);
            operation["description"] = Value::from(match endpoint.access {
                Access::Open => "",
                Access::Read => "Needs the read key or the admin key, where keys are set.",
                Access::Watch => {
                    "Needs the read key, the admin key or the control token, where keys are set."
                }
                Access::Admin => "Needs the admin key, where keys are set.",
                Access::Control => "Needs the control token.",
            });
        }
        let methods = paths
            .entry(endpoint.path)
            .or_insert_with(|| Value::Object(Map::new()));
        methods[endpoint.method.as_str().to_ascii_lowercase()] = operation;
    }
    let errors: Map<_, _> = ErrorCode::ALL
        .iter()
        .map(|code| (code.as_str().to_owned(), Value::from(code.status())))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "vectorizer-node",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A vector store that replicates itself. Every answer carries X-Vectorizer-Role and X-Vectorizer-Position; a read that sends X-Vectorizer-Position waits for it. A batch of which some items were refused is answered with 200 all the same: X-Vectorizer-Failed says how many, `results` which and why.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "key": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
            },
        },
        "x-error-types": errors,
    })
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let of_path = endpoint.path.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        Some(
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }),
        )
    });
    let of_query = endpoint.query.iter().map(|(name, description)| {
        let kind = if *name == "after" { "string" } else { "integer" };
        json!({ "name": name, "in": "query", "description": description, "schema": { "type": kind } })
    });
    of_path.chain(of_query).collect()
}

fn tag(endpoint: &Endpoint) -> &'static str {
    match endpoint.kind {
        Kind::System => "system",
        Kind::Control => "control",
        Kind::Node if endpoint.path.starts_with("/replication") => "replication",
        Kind::Node | Kind::Read => "reading",
        Kind::Write => "writing",
    }
}

/// Such as `post_collections_name_vectors`.
fn operation_id(endpoint: &Endpoint) -> String {
    let words = endpoint
        .path
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let mut id = endpoint.method.as_str().to_ascii_lowercase();
    for word in words {
        id.push('_');
        id.push_str(word);
    }
    id
}
