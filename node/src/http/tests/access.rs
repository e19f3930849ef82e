use super::*;
use crate::http::endpoints;

/// Who gets in where, written down by hand and not taken from the table of endpoints: a change of either is a decision.
const OPEN: &str = "GET / | GET /docs | GET /openapi.json | GET /health | GET /livez | GET /readyz | GET /metrics | \
     GET /prometheus/metrics";
const READ_OR_ADMIN: &str = "GET /collections | GET /collections/{name} | GET /collections/{name}/vectors | \
     GET /collections/{name}/vectors/{id} | POST /collections/{name}/search | \
     POST /collections/{name}/search/text | POST /collections/{name}/hybrid_search | POST /batch_search | \
     POST /embed | GET /replication/digest";
const ANY_CREDENTIAL: &str =
    "GET /replication/status | GET /replication/stats | GET /replication/replicas";
const ADMIN_ALONE: &str = "POST /collections | DELETE /collections/{name} | POST /insert | POST /insert_texts | \
     POST /batch_insert | POST /insert_vectors | POST /collections/{name}/vectors | POST /collections/{name}/bulk | \
     DELETE /collections/{name}/vectors/{id} | POST /update | POST /batch_update | POST /batch_delete | \
     POST /replication/configure | DELETE /replication/replicas/{id}";
const CONTROL_ALONE: &str = "GET /control/state | POST /control/initialize | POST /control/fence | \
     POST /control/handover | POST /control/promote | POST /control/follow | POST /control/members";

/// Every endpoint with the credentials that it lets in, `""` being none.
fn golden() -> Vec<(&'static str, &'static str, &'static [&'static str])> {
    let rows: [(&str, &[&str]); 5] = [
        (OPEN, &["", "wrong", READ, ADMIN, CONTROL]),
        (READ_OR_ADMIN, &[READ, ADMIN]),
        (ANY_CREDENTIAL, &[READ, ADMIN, CONTROL]),
        (ADMIN_ALONE, &[ADMIN]),
        (CONTROL_ALONE, &[CONTROL]),
    ];
    let places = rows.into_iter().flat_map(|(places, allowed)| {
        places.split(" | ").map(move |place| {
            let (method, path) = place.split_once(' ').unwrap();
            (method, path, allowed)
        })
    });
    places.collect()
}

#[test]
fn the_list_of_who_gets_in_where_has_every_endpoint() {
    let mut listed: Vec<_> = golden()
        .iter()
        .map(|row| format!("{} {}", row.0, row.1))
        .collect();
    let table = endpoints::all().into_iter();
    let mut table: Vec<_> = table.map(|e| format!("{} {}", e.method, e.path)).collect();
    listed.sort();
    table.sort();
    assert_eq!(listed, table);
}

#[tokio::test]
async fn each_endpoint_lets_in_its_own_credentials_and_no_others() {
    let mut node = Node::locked().await;
    for (method, path, allowed) in golden() {
        for key in ["", "wrong", READ, ADMIN, CONTROL] {
            node.key = Some(key).filter(|key| !key.is_empty());
            // A body that no endpoint accepts: what is asked here is who comes so far.
            let concrete = path.replace("{name}", "c").replace("{id}", "1");
            let method: axum::http::Method = method.parse().unwrap();
            let answer = node.call(method.clone(), &concrete, "[]").await;
            let status = answer.status.as_u16();
            let place = format!("{method} {path} with `{key}`");
            if allowed.contains(&key) {
                assert!(![401, 403].contains(&status), "{place}: {status}");
            } else if ["", "wrong"].contains(&key) {
                assert_eq!(status, 401, "{place}");
                assert_eq!(answer.header("www-authenticate"), "Bearer");
                assert_eq!(answer.code(), ErrorCode::Unauthenticated);
            } else {
                assert_eq!(status, 403, "{place}");
                assert_eq!(answer.code(), ErrorCode::Forbidden);
            }
        }
    }
}

#[tokio::test]
async fn both_headers_carry_a_key() {
    let node = Node::locked().await;
    for (name, value, status) in [
        ("authorization", format!("Bearer {ADMIN}"), 200),
        ("authorization", format!("bearer {ADMIN}"), 200),
        ("x-api-key", ADMIN.to_owned(), 200),
        ("authorization", ADMIN.to_owned(), 401),
        ("authorization", format!("Basic {ADMIN}"), 401),
        ("authorization", "Bearer ".to_owned(), 401),
        ("x-api-key", format!("{ADMIN}x"), 401),
    ] {
        let request = Request::get("/collections")
            .header(name, &value)
            .body(Body::empty());
        let answer = node.send(request.unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {value}");
        let text = String::from_utf8_lossy(&answer.bytes);
        assert!(!text.contains(ADMIN), "the key comes back: {text}");
    }
}

#[tokio::test]
async fn a_right_key_counts_whatever_stands_in_the_other_header() {
    let node = Node::locked().await;
    for (authorization, key, status) in [
        ("Basic dXNlcjpwYXNz", ADMIN, 200),
        ("Digest username=\"x\"", READ, 200),
        ("Bearer of-somebody-else", READ, 200),
        (&format!("Bearer {READ}"), "of-somebody-else", 200),
        ("Basic dXNlcjpwYXNz", "wrong", 401),
        ("Bearer wrong", "wrong", 401),
        ("Bearer wrong", CONTROL, 403),
    ] {
        let request = Request::get("/collections")
            .header("authorization", authorization)
            .header("x-api-key", key)
            .body(Body::empty());
        let answer = node.send(request.unwrap()).await;
        let status_is = answer.status.as_u16();
        assert_eq!(status_is, status, "{authorization} beside {key}");
    }
}

/// What a browser asks before it sends a page's request.
fn preflight(origin: &str) -> Request<Body> {
    let request = Request::options("/collections")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,content-type",
        );
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn no_page_may_call_unless_its_origin_is_configured() {
    let closed = Node::master().await;
    let answer = closed.send(preflight("https://app.example.com")).await;
    assert_eq!(answer.code(), ErrorCode::MethodNotAllowed);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));

    let open = Node::master_with(&["server.cors_allowed_origins=https://app.example.com"]).await;
    let answer = open.send(preflight("https://app.example.com")).await;
    assert_eq!(answer.status, StatusCode::OK);
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!(allowed, "https://app.example.com");
    assert!(
        answer
            .header("access-control-allow-methods")
            .contains("DELETE")
    );
    assert!(
        answer
            .header("access-control-allow-headers")
            .contains("x-api-key")
    );
    let other = open.send(preflight("https://elsewhere.example.com")).await;
    assert!(!other.headers.contains_key("access-control-allow-origin"));
    // The request itself, and a refusal: a page may read both.
    for path in ["/collections", "/nowhere"] {
        let request = Request::get(path).header("origin", "https://app.example.com");
        let answer = open.send(request.body(Body::empty()).unwrap()).await;
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, "https://app.example.com");
        let exposed = answer.header("access-control-expose-headers");
        assert!(exposed.contains("x-vectorizer-position"), "{exposed}");
    }
    let any = Node::master_with(&["server.cors_allowed_origins=*"]).await;
    let answer = any.send(preflight("http://localhost:3000")).await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn without_keys_data_is_open_and_control_is_closed() {
    let node = Node::master().await;
    node.get("/collections").await.good();
    let status = node.get("/replication/status").await.good();
    let warnings = status["warnings"].to_string();
    assert!(
        warnings.contains("server.admin_key_file is not set"),
        "{warnings}"
    );
    let control = node.get("/control/state").await.error();
    assert_eq!(control.error_type, ErrorCode::Forbidden);
    assert!(
        control.message.contains("server.control_token_file"),
        "{control}"
    );
    let node = node.with_key("anything");
    assert_eq!(
        node.get("/control/state").await.code(),
        ErrorCode::Forbidden
    );
}
