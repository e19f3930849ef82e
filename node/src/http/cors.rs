//! Pages of other origins that may call the REST API from a browser (CORS): those of `server.cors_allowed_origins`, nobody
//! by default. What a browser sends is credentials in headers, as every client's; cookies have no meaning here.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};
use vectorizer_api::{ACKS_HEADER, POSITION_HEADER, ROLE_HEADER};

use crate::config::Origins;

/// A browser need not ask again for so long.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// The layer for these origins.
pub(super) fn layer(origins: &Origins) -> CorsLayer {
    let origins = match origins {
        Origins::Any => AllowOrigin::any(),
        Origins::These(origins) => {
            let values = origins.iter().map(|o| HeaderValue::from_str(o));
            AllowOrigin::list(values.filter_map(Result::ok))
        }
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("x-api-key"),
            HeaderName::from_static(POSITION_HEADER),
            HeaderName::from_static(ACKS_HEADER),
        ])
        .expose_headers([
            header::RETRY_AFTER,
            HeaderName::from_static(POSITION_HEADER),
            HeaderName::from_static(ROLE_HEADER),
        ])
        .max_age(MAX_AGE)
}
