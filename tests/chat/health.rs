//! `/health` and what is no page.

use rstest::rstest;

use crate::support::{Stage, mask, request};

const BODY: &str = concat!(
    r#"{"status":"healthy","clients":1,"timestamp":T,"uptime":T,"version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}"#
);

#[test]
fn get_tells_how_it_is() {
    let stage = Stage::new();
    let _alice = stage.peer();
    let (head, body) = request(stage.address, "GET", "/health?verbose=1");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("Content-Type: application/json"), "{head}");
    assert_eq!(mask(&body, &[]), BODY);
}

#[test]
fn head_is_get_without_the_body() {
    let stage = Stage::new();
    let (head, body) = request(stage.address, "HEAD", "/health");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, "");
}

#[rstest]
fn other_methods_are_not_allowed(#[values("POST", "PUT", "DELETE", "OPTIONS", "PATCH")] method: &str) {
    let stage = Stage::new();
    let (head, _) = request(stage.address, method, "/health");
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
    assert!(head.contains("Allow: GET, HEAD"), "{head}");
}

#[rstest]
fn unknown_paths_are_not_found(#[values("/", "/healthy", "/health/", "/metrics")] path: &str) {
    let stage = Stage::new();
    assert!(request(stage.address, "GET", path).0.starts_with("HTTP/1.1 404"));
}
