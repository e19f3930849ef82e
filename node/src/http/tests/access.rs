use super::*;
use crate::http::auth::Access;
use crate::http::endpoints;

/// A path with its parameters filled in.
fn concrete(path: &str) -> String {
    path.replace("{name}", "c").replace("{id}", "1")
}

#[tokio::test]
async fn each_endpoint_lets_in_its_own_credentials_and_no_others() {
    let mut node = Node::locked().await;
    for endpoint in endpoints::all() {
        let allowed: &[&str] = match endpoint.access {
            Access::Open => &["", "wrong", READ, ADMIN, CONTROL],
            Access::Read => &[READ, ADMIN],
            Access::Watch => &[READ, ADMIN, CONTROL],
            Access::Admin => &[ADMIN],
            Access::Control => &[CONTROL],
        };
        for key in ["", "wrong", READ, ADMIN, CONTROL] {
            node.key = Some(key).filter(|key| !key.is_empty());
            // A body that no endpoint accepts: what is asked here is who comes so far.
            let path = concrete(endpoint.path);
            let answer = node.call(endpoint.method.clone(), &path, "[]").await;
            let status = answer.status.as_u16();
            let place = format!("{} {} with `{key}`", endpoint.method, endpoint.path);
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
