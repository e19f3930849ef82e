use vectorizer_api::POSITION_HEADER;

use super::*;
use crate::http::endpoint::Kind;
use crate::http::{endpoints, openapi};

#[tokio::test]
async fn health_is_three_texts_and_more() {
    let health = Node::master().await.get("/health").await.good();
    for field in ["status", "version", "timestamp"] {
        assert!(health[field].is_string(), "{health}");
    }
    assert_eq!(health["status"], "healthy");
    assert!(health["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn what_has_no_endpoint_is_an_error_of_the_api_as_well() {
    let node = Node::master().await;
    let error = node.get("/nothing/here").await.error();
    assert_eq!(error.error_type, ErrorCode::EndpointNotFound);
    assert!(error.message.contains("/nothing/here"), "{error}");
    let answer = node.call(Method::PUT, "/collections/c", "{}").await;
    let error = answer.error();
    assert_eq!(error.error_type, ErrorCode::MethodNotAllowed);
    assert!(
        error
            .message
            .contains("PUT is not allowed on /collections/{name}"),
        "{error}"
    );
    assert!(error.message.contains("GET or DELETE"), "{error}");
    assert_eq!(answer.header(vectorizer_api::ROLE_HEADER), "master");
}

#[tokio::test]
async fn a_master_is_alive_and_ready_until_it_stops() {
    let node = Node::master().await;
    node.get("/livez").await.good();
    assert_eq!(node.get("/readyz").await.good()["role"], "master");
    node.api.stop();
    let error = node.get("/readyz").await.error();
    assert!(error.message.contains("stopping"), "{error}");
    node.api.writer.stop().await;
    assert_eq!(node.get("/livez").await.code(), ErrorCode::Unavailable);
}

#[tokio::test]
async fn requests_above_the_limit_are_told_when_to_come_back_and_probes_are_not_counted() {
    let node = Node::master_with(&["server.max_concurrent_requests=1"]).await;
    let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
    let slow = node.post("/embed", Body::from_stream(never));
    // The slow request has taken the only place by the time that the others are sent: it is polled first.
    let others = async {
        let refused = node.get("/collections").await;
        assert_eq!(refused.code(), ErrorCode::TooManyRequests);
        assert_eq!(refused.header("retry-after"), "1");
        node.get("/readyz").await.good();
        node.get("/metrics").await;
        assert_eq!(
            node.get("/control/state").await.code(),
            ErrorCode::Forbidden,
            "no room needed"
        );
    };
    tokio::select! {
        biased;
        slow = slow => panic!("answered without its body: {slow:?}"),
        () = others => {}
    }
    node.get("/collections").await.good();
}

#[tokio::test]
async fn a_read_that_waits_for_a_position_takes_nobodys_place() {
    let node = Node::master_with(&["server.max_concurrent_requests=1"]).await;
    let future = || {
        let request = Request::get("/collections").header(POSITION_HEADER, "1.1000");
        node.send(request.body(Body::empty()).unwrap())
    };
    let others = async {
        node.get("/collections").await.good();
        let one_more = future().await.error();
        assert_eq!(one_more.error_type, ErrorCode::TooManyRequests);
        assert!(
            one_more.message.contains("wait for a position"),
            "{one_more}"
        );
        // A position that was reached is not waited for.
        let reached = Request::get("/collections").header(POSITION_HEADER, "1.1");
        node.send(reached.body(Body::empty()).unwrap()).await.good();
    };
    // The one that waits is there first.
    let (waited, ()) = tokio::join!(future(), others);
    let error = waited.error();
    assert_eq!(error.error_type, ErrorCode::Unavailable);
    assert!(error.message.contains("this is the master"), "{error}");
}

#[tokio::test]
async fn a_write_that_is_held_keeps_no_read_out() {
    let node = Node::master_with(&["server.max_concurrent_requests=1"]).await;
    // A new master waits for its replicas to come before it refuses.
    let held = Request::post("/collections")
        .header(vectorizer_api::ACKS_HEADER, "1")
        .body(Body::from(r#"{"name": "c", "dimension": 2}"#));
    let held = node.send(held.unwrap());
    let others = async {
        for _ in 0..3 {
            node.get("/collections").await.good();
        }
    };
    tokio::select! {
        biased;
        held = held => panic!("not held: {held:?}"),
        () = others => {}
    }
}

#[tokio::test]
async fn the_port_for_probes_has_what_is_asked_of_a_node_and_no_data() {
    let mut node = Node::with_collection().await;
    let rest = std::mem::replace(&mut node.router, node.api.router(Port::Ops));
    let mut there = Vec::new();
    for endpoint in endpoints::all() {
        let path = endpoint.path.replace("{name}", "c").replace("{id}", "1");
        let answer = node.call(endpoint.method.clone(), &path, "").await;
        let missing = !answer.status.is_success()
            && matches!(
                answer.code(),
                ErrorCode::EndpointNotFound | ErrorCode::MethodNotAllowed
            );
        if !missing {
            there.push(endpoint.path);
        }
    }
    for path in [
        "/livez",
        "/readyz",
        "/health",
        "/metrics",
        "/control/state",
        "/control/promote",
        "/replication/status",
        "/replication/replicas",
        "/replication/stats",
    ] {
        assert!(there.contains(&path), "{path}");
    }
    for path in there {
        let data = [
            "/collections",
            "/insert",
            "/batch",
            "/update",
            "/embed",
            "/configure",
        ];
        assert!(!data.iter().any(|word| path.contains(word)), "{path}");
    }
    let error = node.get("/collections").await.error();
    assert!(error.message.contains("is on port 15002"), "{error}");
    node.router = rest;
    node.get("/livez").await.good();
}

#[tokio::test]
async fn probes_commands_and_what_the_operator_reads_find_room_on_their_port_when_all_is_taken() {
    let mut node = Node::master_with(&[
        "server.max_concurrent_requests=1",
        "server.request_memory_bytes=8388608",
    ])
    .await;
    let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
    let slow = Request::post("/embed").body(Body::from_stream(never));
    let slow = node.router.clone().oneshot(slow.unwrap());
    let all = node.api.0.budget.of(Kind::Read).share();
    all.take(4 << 20).unwrap();
    node.router = node.api.router(Port::Ops);
    let others = async {
        for path in [
            "/livez",
            "/readyz",
            "/replication/status",
            "/replication/replicas",
        ] {
            node.call(Method::GET, path, "{}").await.good();
        }
        let command = node.post("/control/fence", "{}").await;
        assert_eq!(command.code(), ErrorCode::Forbidden, "no room needed");
    };
    tokio::select! {
        biased;
        _ = slow => panic!("answered without its body"),
        () = others => {}
    }
}

#[tokio::test]
async fn metrics_count_requests_by_endpoint_and_show_the_node() {
    let node = Node::master().await;
    node.get("/collections/a-name").await.error();
    node.get("/nowhere").await.error();
    for path in ["/metrics", "/prometheus/metrics"] {
        let answer = node.get(path).await;
        assert!(
            answer
                .header("content-type")
                .starts_with("application/openmetrics-text")
        );
        let text = String::from_utf8(answer.bytes.to_vec()).unwrap();
        for line in [
            r#"vectorizer_http_requests_total{endpoint="/collections/{name}",status="404"} 1"#,
            r#"vectorizer_http_requests_total{endpoint="unmatched",status="404"} 1"#,
            r#"vectorizer_http_refusals_total{error_type="collection_not_found"} 1"#,
            "vectorizer_is_master 1",
            "vectorizer_writable 1",
            "vectorizer_applied_offset 1",
            "vectorizer_syncs_total{kind=\"full\",result=\"begun\"} 0",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
        assert!(
            !text.contains("a-name"),
            "names of collections are nobody's business"
        );
    }
}

#[tokio::test]
async fn every_endpoint_is_in_the_document_and_nothing_else() {
    let node = Node::master().await;
    let document = node.get("/openapi.json").await.good();
    let mut documented = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            documented.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    let mut routed: Vec<_> = endpoints::all()
        .iter()
        .map(|endpoint| format!("{} {}", endpoint.method, endpoint.path))
        .collect();
    documented.sort();
    routed.sort();
    assert_eq!(documented, routed);
    // Each is answered by its own handler, not by a fallback.
    for endpoint in endpoints::all() {
        let path = endpoint.path.replace("{name}", "c").replace("{id}", "1");
        let answer = node.call(endpoint.method.clone(), &path, "").await;
        if !answer.status.is_success() {
            let code = answer.code();
            assert_ne!(code, ErrorCode::EndpointNotFound, "{path}");
            assert_ne!(code, ErrorCode::MethodNotAllowed, "{path}");
        }
    }
}

#[test]
fn the_document_refers_to_nothing_that_it_does_not_hold() {
    let document = openapi::describe(&endpoints::all());
    let text = document.to_string();
    let mut rest = text.as_str();
    let mut found = 0;
    while let Some(at) = rest.find("\"#/") {
        rest = &rest[at + 2..];
        let pointer = &rest[..rest.find('"').unwrap()];
        assert!(
            document.pointer(pointer).is_some(),
            "{pointer} leads nowhere"
        );
        found += 1;
    }
    assert!(found > 50, "{found}");
    for code in ErrorCode::ALL {
        assert_eq!(document["x-error-types"][code.as_str()], code.status());
    }
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let node = Node::master().await;
    for path in ["/", "/docs"] {
        let answer = node.get(path).await;
        assert!(answer.header("content-type").starts_with("text/html"));
        assert!(
            answer
                .header("content-security-policy")
                .contains("default-src 'none'")
        );
        let page = String::from_utf8(answer.bytes.to_vec()).unwrap();
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="));
    }
}

#[tokio::test]
async fn a_handler_that_panics_is_an_internal_error_and_the_node_goes_on() {
    let node = Node::master().await;
    let broken = Router::new()
        .route(
            "/",
            axum::routing::get(async || -> &'static str { panic!("as a bug would") }),
        )
        .layer(axum::middleware::from_fn_with_state(
            node.api.clone(),
            crate::http::frame::frame,
        ));
    let request = Request::get("/").body(Body::empty()).unwrap();
    let answer = broken.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX)
        .await
        .unwrap();
    let error: ApiError = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(error.error_type, ErrorCode::Internal);
    assert!(
        !error.message.contains("as a bug would"),
        "what it says stays in the log"
    );
    node.get("/collections").await.good();
}
