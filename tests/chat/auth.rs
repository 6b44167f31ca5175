//! Who is let in.

use rstest::rstest;
use tinysio::chat::Options;

use crate::support::{Peer, Stage};

fn stage() -> Stage {
    Stage::with(Options { auth_token: Some("s3cret".into()), test_events: true, ..Options::default() })
}

#[rstest]
#[case("")]
#[case("{}")]
#[case(r#"{"token":""}"#)]
#[case(r#"{"token":"s3creT"}"#)]
#[case(r#"{"token":"s3cret "}"#)]
#[case(r#"{"token":"s3cre"}"#)]
#[case(r#"{"token":["s3cret"]}"#)]
#[case(r#"{"token":null}"#)]
#[case(r#"{"Token":"s3cret"}"#)]
fn turned_away(#[case] auth: &str) {
    let stage = stage();
    let mut alice = Peer::open(stage.address);
    alice.join(r#"{"token":"s3cret"}"#);
    let mut mallory = Peer::open(stage.address);
    for namespace in ["", "/custom,"] {
        mallory.send(&format!("40{namespace}{auth}"));
        let refusal = mallory.packet("the refusal").text;
        assert_eq!(refusal, format!("44{namespace}{{\"message\":\"Unauthorized\"}}"));
    }
    let status = alice.ask("get_server_status", "", "server_status");
    assert!(status.starts_with("{\"total_clients\":1,"), "{status}");
    alice.none(&["client_notification"]);
    assert_eq!(stage.chat.counters().unauthorized(), 2);
    assert_eq!(stage.chat.counters().clients(), 1);
}

#[test]
fn let_in_with_more_than_the_token() {
    let stage = stage();
    let mut alice = Peer::open(stage.address);
    alice.join(r#"{"name":"alice","token":"s3cret"}"#);
    alice.ask("message", "1", "message_received");
    alice.send(r#"40/custom,{"token":"s3cret"}"#);
    assert!(alice.packet("the consent").text.starts_with("40/custom,"));
    assert_eq!(alice.packet("auth").text, r#"42/custom,["auth",{"token":"s3cret"}]"#);
}

#[test]
fn without_a_token_all_auth_is_welcome() {
    let stage = Stage::new();
    for auth in ["", "{}", r#"{"token":[1]}"#] {
        Peer::open(stage.address).join(auth);
    }
}
