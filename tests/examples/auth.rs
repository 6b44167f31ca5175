//! `examples/auth.rs`: who gets in, and where.

use rstest::rstest;
use serde_json::{Value, json};
use tinysio::{Client, client::Error};

use crate::{PATIENCE, auth_example as example, url};

fn connect(url: &str, token: Option<&str>, namespace: &str) -> (Client, Result<(), Error>) {
    let builder = Client::builder(url);
    let builder = match token {
        Some(token) => builder.auth(json!({ "token": token })),
        None => builder,
    };
    let client = builder.build().unwrap();
    let _ = client.socket(namespace);
    let result = client.connect();
    (client, result)
}

#[rstest]
#[case::no_token(None, "/", "unauthorized", 401)]
#[case::wrong_token(Some("eve"), "/", "unauthorized", 401)]
#[case::wrong_token_for_admin(Some("eve"), "/admin", "unauthorized", 401)]
#[case::no_admin(Some("bob-secret"), "/admin", "forbidden", 403)]
fn others_are_refused(
    #[case] token: Option<&str>,
    #[case] namespace: &str,
    #[case] message: &str,
    #[case] code: u64,
) {
    let server = example::start("127.0.0.1:0").unwrap();
    let (_client, result) = connect(&url(&server), token, namespace);
    let error = result.unwrap_err();
    assert_eq!(error.refusal_data::<Value>(), Some(json!({ "code": code })), "{error}");
    assert!(error.to_string().contains(message), "{error}");
}

#[test]
fn users_are_known_by_name_and_administrators_disconnect_them() {
    let server = example::start("127.0.0.1:0").unwrap();
    let (bob, joined) = connect(&url(&server), Some("bob-secret"), "/");
    joined.unwrap();
    let name = bob.socket("/").emit_with_ack("whoami", (), PATIENCE).unwrap();
    assert_eq!(name.get::<String>(0).unwrap(), "Bob");
    let (ada, joined) = connect(&url(&server), Some("ada-secret"), "/admin");
    joined.unwrap();
    let kicked = ada.socket("/admin").emit_with_ack("kick", "Bob", PATIENCE).unwrap();
    assert_eq!(kicked.get::<usize>(0).unwrap(), 1);
    bob.wait_timeout(PATIENCE).unwrap();
}
