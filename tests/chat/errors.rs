//! The error table: each row once, through a socket.

use rstest::rstest;
use tinysio::chat::Options;

use crate::support::{Stage, mask};

const JOIN: &str = "Invalid room join request - 'room' field required";
const LEAVE: &str = "Invalid room leave request - 'room' field required";
const ROOM_MESSAGE: &str = "Invalid room message - 'room' and 'message' fields required";
const FORBIDDEN: &str = "Room name contains invalid characters";
const TOO_LONG: &str = "Message too long (max 10KB)";
const NAME_TOO_LONG: &str = "Room name too long (max 100 characters)";

/// A JSON string of this many characters.
fn long(length: usize) -> String {
    format!("\"{}\"", "x".repeat(length))
}

fn room(length: usize) -> String {
    format!("{{\"room\":{},\"message\":\"m\"}}", long(length))
}

#[rstest]
#[case::missing("message", "", "Invalid message format")]
#[case::null("message", "null", "Invalid message format")]
#[case::long("message", &long(10_001), TOO_LONG)]
#[case::long_list("message", &format!("[{}]", long(9_997)), TOO_LONG)]
#[case::long_of_escapes("message", &format!("\"{}\"", "\\ud83d\\ude00".repeat(10_001)), TOO_LONG)]
#[case::custom_missing("custom_event", "", "Invalid custom event data")]
#[case::custom_null("custom_event", "null", "Invalid custom event data")]
#[case::custom_large("custom_event", &long(60_010), "Custom event data too large: 60012 bytes")]
#[case::custom_just_too_large("custom_event", &long(49_999), "Custom event data too large: 50001 bytes")]
#[case::join_missing("join_room", "", JOIN)]
#[case::join_null("join_room", "null", JOIN)]
#[case::join_zero("join_room", "0", JOIN)]
#[case::join_empty("join_room", "{}", JOIN)]
#[case::join_number("join_room", r#"{"room":42}"#, "Room name must be a string")]
#[case::join_null_room("join_room", r#"{"room":null}"#, "Room name must be a string")]
#[case::join_list("join_room", r#"{"room":["r"]}"#, "Room name must be a string")]
#[case::join_long("join_room", &room(101), NAME_TOO_LONG)]
#[case::join_blank("join_room", r#"{"room":" \t "}"#, "Room name cannot be empty")]
#[case::join_less("join_room", r#"{"room":"a<b"}"#, FORBIDDEN)]
#[case::join_greater("join_room", r#"{"room":"a>b"}"#, FORBIDDEN)]
#[case::join_quote("join_room", r#"{"room":"a\"b"}"#, FORBIDDEN)]
#[case::join_apostrophe("join_room", r#"{"room":"a'b"}"#, FORBIDDEN)]
#[case::join_ampersand("join_room", r#"{"room":"a&b"}"#, FORBIDDEN)]
#[case::join_control("join_room", r#"{"room":"a\u0007b"}"#, FORBIDDEN)]
#[case::join_c1("join_room", r#"{"room":"a\u0085b"}"#, FORBIDDEN)]
#[case::join_half_a_character("join_room", r#"{"room":"a\ud800"}"#, FORBIDDEN)]
#[case::leave_missing("leave_room", "", LEAVE)]
#[case::leave_number("leave_room", r#"{"room":42}"#, "Invalid room name")]
#[case::leave_null("leave_room", r#"{"room":null}"#, "Invalid room name")]
#[case::leave_blank("leave_room", r#"{"room":"  "}"#, "Invalid room name")]
#[case::leave_forbidden("leave_room", r#"{"room":"a<b"}"#, FORBIDDEN)]
#[case::leave_long("leave_room", &room(101), NAME_TOO_LONG)]
#[case::room_message_missing("room_message", "", ROOM_MESSAGE)]
#[case::room_message_false("room_message", "false", ROOM_MESSAGE)]
#[case::room_message_number("room_message", r#"{"room":42,"message":"m"}"#, "Invalid room name")]
#[case::room_message_blank("room_message", r#"{"room":" ","message":"m"}"#, "Invalid room name")]
#[case::room_message_forbidden("room_message", r#"{"room":"a&b","message":42}"#, FORBIDDEN)]
#[case::room_message_long_name("room_message", &room(101), NAME_TOO_LONG)]
#[case::room_message_of_number("room_message", r#"{"room":"r","message":42}"#, "Invalid message format")]
#[case::room_message_of_bool("room_message", r#"{"room":"r","message":true}"#, "Invalid message format")]
#[case::room_message_of_null("room_message", r#"{"room":"r","message":null}"#, "Invalid message format")]
#[case::room_message_too_long("room_message", &format!(r#"{{"room":"r","message":{}}}"#, long(10_001)), "Room message too long (max 10KB)")]
#[case::not_a_member(
    "room_message",
    r#"{"room":" nope ","message":"m"}"#,
    "You are not in room 'nope'. Join the room first."
)]
fn refused(#[case] event: &str, #[case] args: &str, #[case] text: &str) {
    let stage = Stage::new();
    let [mut alice, mut bob] = stage.peers();
    let error = alice.ask(event, args, "error");
    let expected = format!(r#"{{"error":true,"message":"{text}","timestamp":T,"client_id":"A"}}"#);
    assert_eq!(mask(&error, &[(&alice.id, "A")]), expected);
    alice.none(&["message_received", "custom_response", "room_joined", "room_left", "room_broadcast"]);
    bob.none(&["error", "broadcast_message"]);
}

/// Rows that quote what they are about.
#[rstest]
#[case("join_room", r#""lobby""#, JOIN)]
#[case("join_room", "42", JOIN)]
#[case("join_room", r#"["room"]"#, JOIN)]
#[case("join_room", r#"{"rom":"lobby"}"#, JOIN)]
#[case("leave_room", r#""lobby""#, LEAVE)]
#[case("leave_room", r#"{"rom":1}"#, LEAVE)]
#[case("room_message", r#"{"room":"r"}"#, ROOM_MESSAGE)]
#[case("room_message", r#"{"message":"m"}"#, ROOM_MESSAGE)]
fn refused_with_a_quotation(#[case] event: &str, #[case] args: &str, #[case] text: &str) {
    let stage = Stage::new();
    let mut alice = stage.peer();
    let error = alice.ask(event, args, "error");
    let quoted = serde_json::to_string(args).unwrap();
    let expected = format!(
        r#"{{"error":true,"message":"{text}","timestamp":T,"client_id":"A","original_data":{quoted}}}"#
    );
    assert_eq!(mask(&error, &[(&alice.id, "A")]), expected);
}

#[test]
fn a_quotation_has_at_most_500_characters() {
    let stage = Stage::new();
    let mut alice = stage.peer();
    alice.emit("join_room", &format!("\"{}\"", "ü".repeat(2_000)));
    let error = alice.value("error");
    assert_eq!(error["original_data"], format!("\"{}", "ü".repeat(499)));
}

#[rstest]
#[case(r#"{"_placeholder":true,"num":0}"#)]
#[case(r#"{"deep":[{"_placeholder":true,"num":0}]}"#)]
fn binary_is_no_custom_event(#[case] data: &str) {
    let stage = Stage::new();
    let mut alice = stage.peer();
    alice.send(&format!("451-[\"custom_event\",{data}]"));
    alice.send_binary(&[1]);
    assert_eq!(alice.value("error")["message"], "Custom event data not serializable");
}

#[test]
fn binary_beside_a_custom_event_is_none_in_it() {
    let stage = Stage::new();
    let mut alice = stage.peer();
    alice.send(r#"451-["custom_event",{"_placeholder":false},{"_placeholder":true,"num":0}]"#);
    alice.send_binary(&[1]);
    assert_eq!(alice.value("custom_response")["original_data"], serde_json::json!({"_placeholder": false}));
}

#[test]
fn bytes_alone_are_no_room_message() {
    let stage = Stage::new();
    let mut alice = stage.peer();
    alice.ask("join_room", r#"{"room":"r"}"#, "room_joined");
    alice.send(r#"451-["room_message",{"room":"r","message":{"_placeholder":true,"num":0}}]"#);
    alice.send_binary(&[1]);
    assert_eq!(alice.value("error")["message"], "Invalid message format");
}

#[test]
fn bytes_count_as_characters() {
    let stage = Stage::new();
    let mut alice = stage.peer();
    alice.send(r#"451-["message",{"_placeholder":true,"num":0}]"#);
    alice.send_binary(&[7; 10_000]);
    assert_eq!(alice.value("error")["message"], TOO_LONG);
}

/// Eleven placeholders for one attachment would become eleven attachments, which no packet may have.
#[rstest]
#[case("message", "Failed to process message")]
#[case("room_message", "Failed to send room message")]
fn what_cannot_be_sent_on_fails(#[case] event: &str, #[case] text: &str) {
    let stage = Stage::new();
    let [mut alice, mut bob] = stage.peers();
    alice.ask("join_room", r#"{"room":"r"}"#, "room_joined");
    let list = [r#"{"_placeholder":true,"num":0}"#; 11].join(",");
    let data = match event {
        "message" => format!("[{list}]"),
        _ => format!(r#"{{"room":"r","message":[{list}]}}"#),
    };
    alice.send(&format!("451-[\"{event}\",{data}]"));
    alice.send_binary(&[1]);
    let error = alice.value("error");
    assert_eq!(error["message"], text);
    assert_eq!(error["original_data"], data[..data.len().min(500)]);
    // It was no accepted message.
    let received = alice.ask("message", "1", "message_received");
    assert!(received.contains("_1\""), "{received}");
    assert_eq!(bob.value("broadcast_message")["message"], 1);
}

#[rstest]
#[case("message", "1")]
#[case("custom_event", "1")]
#[case("join_room", r#"{"room":"r"}"#)]
#[case("leave_room", r#"{"room":"r"}"#)]
#[case("room_message", r#"{"room":"r","message":"m"}"#)]
#[case("get_server_status", "")]
fn who_is_not_registered_gets_nothing_else(#[case] event: &str, #[case] args: &str) {
    let stage = Stage::built(Options::default(), |builder| {
        builder.namespace("/", |ns| {
            // Behind the chat's own handler: the data by which it knows its clients are gone.
            ns.on_connect(|socket| socket.set_data(()));
        })
    });
    let mut alice = stage.peer();
    let error = alice.ask(event, args, "error");
    let expected =
        r#"{"error":true,"message":"Client not properly connected","timestamp":T,"client_id":"A"}"#;
    assert_eq!(mask(&error, &[(&alice.id, "A")]), expected);
}

/// These names belong to the protocol. A client that emits one breaks it.
#[rstest]
#[case("connect")]
#[case("disconnect")]
#[case("disconnecting")]
#[case("connect_error")]
#[case("newListener")]
#[case("removeListener")]
fn reserved_names_close_the_connection(#[case] event: &str) {
    let stage = Stage::new();
    let [mut alice, mut bob] = stage.peers();
    alice.emit(event, "1");
    alice.closed();
    assert_eq!(bob.value("client_notification")["type"], "user_disconnected");
}
