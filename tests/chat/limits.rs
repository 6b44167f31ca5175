//! What just fits, what just does not, and how fast is too fast.

use rstest::rstest;
use serde_json::Value;
use tinysio::chat::{Limits, Options, Rate};

use crate::support::{Stage, mask};

fn string(character: &str, count: usize) -> String {
    format!("\"{}\"", character.repeat(count))
}

#[rstest]
#[case("message", &string("x", 10_000), "message_received")]
#[case("message", &string("😀", 10_000), "message_received")]
#[case("message", &string("\\n", 10_000), "message_received")]
#[case("message", &format!("[{}]", string("x", 9_996)), "message_received")]
#[case("custom_event", &string("x", 49_998), "custom_response")]
#[case("join_room", &format!("{{\"room\":{}}}", string("ü", 100)), "room_joined")]
#[case("join_room", &format!("{{\"room\":\"  {}  \"}}", "r".repeat(100)), "room_joined")]
#[case("join_room", r#"{"room":"räum 😀 / with: punctuation!"}"#, "room_joined")]
fn just_fits(#[case] event: &str, #[case] args: &str, #[case] answer: &str) {
    let stage = Stage::new();
    stage.peer().ask(event, args, answer);
}

#[rstest]
#[case("message", &string("x", 6), "Message too long (max 5 characters)")]
#[case("custom_event", &string("x", 6), "Custom event data too large: 8 bytes")]
#[case("join_room", r#"{"room":"four"}"#, "Room name too long (max 3 characters)")]
fn limits_are_options(#[case] event: &str, #[case] args: &str, #[case] text: &str) {
    let limits = Limits { message: 5, custom_event: 5, room_name: 3, rooms: 1 };
    let stage = Stage::with(Options { limits, ..Options::default() });
    let error = stage.peer().ask(event, args, "error");
    assert!(error.contains(text), "{error}");
}

#[test]
fn rooms_per_client_are_bounded() {
    let stage = Stage::new();
    let mut alice = stage.peer();
    for n in 0..100 {
        alice.ask("join_room", &format!("{{\"room\":\"r{n}\"}}"), "room_joined");
    }
    let error = alice.ask("join_room", r#"{"room":"one more"}"#, "error");
    assert!(error.contains("\"Too many rooms (max 100)\""), "{error}");
    assert!(alice.ask("join_room", r#"{"room":"r7"}"#, "room_joined").contains("already_in_room"));
    alice.ask("leave_room", r#"{"room":"r7"}"#, "room_left");
    alice.ask("join_room", r#"{"room":"one more"}"#, "room_joined");
}

#[test]
fn too_fast_is_refused_and_then_disconnected() {
    let stage = Stage::with(Options { rate: Rate { per_second: 1, burst: 5 }, ..Options::default() });
    let [mut alice, mut bob] = stage.peers();
    for n in 0..150 {
        alice.emit("message", &n.to_string());
    }
    let error = alice.next("error");
    let expected = r#"{"error":true,"message":"Rate limit exceeded","timestamp":T,"client_id":"A"}"#;
    assert_eq!(mask(&error, &[(&alice.id, "A")]), expected);
    let last = alice.closed();
    assert!(last.contains(&"41".to_owned()), "no good-bye: {last:?}");
    for n in 0..5 {
        assert_eq!(bob.value("broadcast_message")["message"], n);
    }
    assert_eq!(bob.value("client_notification")["type"], "user_disconnected");
    assert!(stage.chat.counters().rate_limited() >= 100);
}

#[test]
fn a_refused_event_is_acked_too() {
    let stage = Stage::with(Options { rate: Rate { per_second: 1, burst: 1 }, ..Options::default() });
    let mut alice = stage.peer();
    alice.ask("message", "1", "message_received");
    alice.ask("message", "2", "error");
    alice.ask("unheard_of", "2", "error");
}

#[test]
fn no_rate_limit_is_zero() {
    let stage = Stage::with(Options { rate: Rate { per_second: 0, burst: 1 }, ..Options::default() });
    let mut alice = stage.peer();
    for _ in 0..500 {
        alice.ask("custom_event", "1", "custom_response");
    }
}

#[test]
fn the_server_is_full_at_its_limit() {
    let stage = Stage::built(Options::default(), |builder| builder.max_connections(1));
    let _alice = stage.peer();
    let (head, _) = crate::support::request(stage.address, "GET", "/socket.io/?EIO=4&transport=polling");
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
}

#[test]
fn the_status_counts_what_it_says() {
    let stage = Stage::new();
    let [mut alice, _bob] = stage.peers();
    for room in ["b", "a", "c"] {
        alice.ask("join_room", &format!("{{\"room\":\"{room}\"}}"), "room_joined");
    }
    alice.ask("leave_room", r#"{"room":"c"}"#, "room_left");
    alice.ask("message", "1", "message_received");
    alice.ask("room_message", r#"{"room":"a","message":"m"}"#, "room_broadcast");
    let status: Value = serde_json::from_str(&alice.ask("get_server_status", "", "server_status")).unwrap();
    let mut rooms: Vec<&str> =
        status["client_rooms"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    rooms.sort_unstable();
    assert_eq!(rooms, ["a", "b"]);
    assert_eq!((status["client_messages"].as_u64(), status["total_clients"].as_u64()), (Some(1), Some(2)));
}
