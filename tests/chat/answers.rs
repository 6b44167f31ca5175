//! The table of events and their answers, text by text: keys, order, values.

use rstest::rstest;

use crate::support::{Peer, Stage, mask};

/// What one event brings its sender and everybody else, each as `event {…}`; rooms are joined before.
#[rstest]
#[case::message(
    "message",
    r#""hi""#,
    r#"message_received {"sender":"A","message":"hi","timestamp":T,"message_id":"A_1"}"#,
    r#"broadcast_message {"sender":"A","message":"hi","timestamp":T,"total_clients":2}"#
)]
#[case::message_as_written(
    "message", r#"{ "b" : [1.50, "\u00fc"], "a":null }"#,
    r#"message_received {"sender":"A","message":{ "b" : [1.50, "\u00fc"], "a":null },"timestamp":T,"message_id":"A_1"}"#,
    r#"broadcast_message {"sender":"A","message":{ "b" : [1.50, "\u00fc"], "a":null },"timestamp":T,"total_clients":2}"#
)]
#[case::empty_message(
    "message",
    r#""""#,
    r#"message_received {"sender":"A","message":"","timestamp":T,"message_id":"A_1"}"#,
    ""
)]
#[case::blank_message(
    "message",
    r#""  ""#,
    r#"message_received {"sender":"A","message":"  ","timestamp":T,"message_id":"A_1"}"#,
    ""
)]
#[case::zero(
    "message",
    "0",
    r#"message_received {"sender":"A","message":0,"timestamp":T,"message_id":"A_1"}"#,
    ""
)]
#[case::no(
    "message",
    "false",
    r#"message_received {"sender":"A","message":false,"timestamp":T,"message_id":"A_1"}"#,
    ""
)]
#[case::empty_list(
    "message",
    "[]",
    r#"message_received {"sender":"A","message":[],"timestamp":T,"message_id":"A_1"}"#,
    ""
)]
#[case::surplus(
    "message",
    "1,2,3",
    r#"message_received {"sender":"A","message":1,"timestamp":T,"message_id":"A_1"}"#,
    ""
)]
#[case::custom_event(
    "custom_event", r#"{"k":[1,null]}"#,
    r#"custom_response {"status":"received","original_data":{"k":[1,null]},"processed_by":"server","client_id":"A","timestamp":T,"data_size":14}"#,
    ""
)]
#[case::custom_text("custom_event", r#""hello""#, r#"custom_response {"status":"received","original_data":"hello","processed_by":"server","client_id":"A","timestamp":T,"data_size":7}"#, "")]
#[case::custom_false("custom_event", "false", r#"custom_response {"status":"received","original_data":false,"processed_by":"server","client_id":"A","timestamp":T,"data_size":5}"#, "")]
#[case::join(
    "join_room",
    r#"{"room":" attic ","extra":1}"#,
    r#"room_joined {"room":"attic","status":"joined","room_members":1,"timestamp":T}"#,
    ""
)]
#[case::join_last_of_two_names(
    "join_room",
    r#"{"room":"x","room":"attic"}"#,
    r#"room_joined {"room":"attic","status":"joined","room_members":1,"timestamp":T}"#,
    ""
)]
#[case::join_again(
    "join_room",
    r#"{"room":"lobby"}"#,
    r#"room_joined {"room":"lobby","status":"already_in_room"}"#,
    ""
)]
#[case::leave(
    "leave_room", r#"{"room":"lobby"}"#,
    r#"room_left {"room":"lobby","status":"left","remaining_members":1,"timestamp":T}"#,
    r#"user_left_room {"user_id":"A","room":"lobby","type":"user_left_room","remaining_members":1,"timestamp":T}"#
)]
#[case::leave_elsewhere(
    "leave_room",
    r#"{"room":"x"}"#,
    r#"room_left {"room":"x","status":"not_in_room"}"#,
    ""
)]
#[case::room_message(
    "room_message",
    r#"{"room":"lobby","message":["a",1]}"#,
    r#"room_broadcast {"sender":"A","room":"lobby","message":["a",1],"timestamp":T,"room_members":2}"#,
    r#"room_broadcast {"sender":"A","room":"lobby","message":["a",1],"timestamp":T,"room_members":2}"#
)]
#[case::empty_room_message(
    "room_message",
    r#"{"message":"","room":"lobby "}"#,
    r#"room_broadcast {"sender":"A","room":"lobby","message":"","timestamp":T,"room_members":2}"#,
    ""
)]
#[case::status(
    "get_server_status", "",
    r#"server_status {"total_clients":2,"server_uptime":T,"client_rooms":["lobby"],"client_messages":0,"timestamp":T}"#,
    ""
)]
#[case::status_with_argument("get_server_status", r#"{"ignored":true}"#, r#"server_status {"total_clients":2,"server_uptime":T,"client_rooms":["lobby"],"client_messages":0,"timestamp":T}"#, "")]
fn answers(#[case] event: &str, #[case] args: &str, #[case] to_sender: &str, #[case] to_others: &str) {
    let stage = Stage::new();
    let [mut alice, mut bob] = stage.peers();
    for peer in [&mut alice, &mut bob] {
        peer.ask("join_room", r#"{"room":"lobby"}"#, "room_joined");
    }
    alice.next("user_joined_room");
    assert_eq!(alice.call(event, args), "[]");
    let id = alice.id.clone();
    says(&mut alice, to_sender, &id);
    if !to_others.is_empty() {
        says(&mut bob, to_others, &id);
    }
}

/// Compares the next event of this name with `event {…}`, where A is who sent it.
#[track_caller]
fn says(peer: &mut Peer, expected: &str, sender: &str) {
    let (event, payload) = expected.split_once(' ').unwrap();
    assert_eq!(mask(&peer.next(event), &[(sender, "A")]), payload);
}

#[test]
fn a_joiner_is_told_of_and_counted() {
    let stage = Stage::new();
    let [mut alice, mut bob, mut carol] = stage.peers();
    alice.ask("join_room", r#"{"room":"lobby"}"#, "room_joined");
    let joined = bob.ask("join_room", r#"{"room":"lobby"}"#, "room_joined");
    assert_eq!(mask(&joined, &[]), r#"{"room":"lobby","status":"joined","room_members":2,"timestamp":T}"#);
    let told = alice.next("user_joined_room");
    assert_eq!(
        mask(&told, &[(&bob.id, "B")]),
        r#"{"user_id":"B","room":"lobby","room_members":2,"timestamp":T}"#
    );
    bob.none(&["user_joined_room"]);
    carol.none(&["user_joined_room", "room_joined"]);
}

#[test]
fn the_answer_comes_before_the_ack() {
    let stage = Stage::new();
    let mut alice = stage.peer();
    for (event, args, answer) in [
        ("message", "1", "message_received"),
        ("custom_event", "1", "custom_response"),
        ("join_room", r#"{"room":"r"}"#, "room_joined"),
        ("room_message", r#"{"room":"r","message":"m"}"#, "room_broadcast"),
        ("leave_room", r#"{"room":"r"}"#, "room_left"),
        ("get_server_status", "", "server_status"),
        ("message", "null", "error"),
    ] {
        alice.ask(event, args, answer);
    }
    assert!(alice.take_packets().is_empty(), "an event was answered twice");
}

/// An acknowledgement says that somebody has handled the event: a misspelt name must not look like a success.
#[rstest]
fn an_unknown_event_is_not_acknowledged(
    #[values("nosuch", "", "constructor", "__proto__", "message ", "connection")] event: &str,
) {
    let stage = Stage::new();
    let mut alice = stage.peer();
    alice.send(&format!(r#"429["{event}",1]"#));
    alice.emit(event, "1");
    alice.none(&["error"]);
    assert!(alice.take_packets().is_empty(), "an unknown event was answered");
    assert_eq!(stage.chat.counters().events_in(), 3);
}

#[test]
fn message_ids_count_the_accepted_messages_of_each_client() {
    let stage = Stage::new();
    let [mut alice, mut bob] = stage.peers();
    for n in 1..=3 {
        for peer in [&mut alice, &mut bob] {
            let received = peer.ask("message", "\"x\"", "message_received");
            assert!(received.contains(&format!("\"{}_{n}\"", peer.id)), "{received}");
        }
        alice.ask("message", "null", "error");
        alice.ask("custom_event", "1", "custom_response");
    }
    let status = alice.ask("get_server_status", "", "server_status");
    assert!(status.contains("\"client_messages\":3"), "{status}");
}

#[test]
fn binary_messages_are_passed_on() {
    let stage = Stage::new();
    let [mut alice, mut bob] = stage.peers();
    alice.send(r#"452-["message",{"a":{"_placeholder":true,"num":1},"b":{"_placeholder":true,"num":0}}]"#);
    alice.send_binary(&[0]);
    alice.send_binary(&[1, 2]);
    for (peer, event) in [(&mut alice, "message_received"), (&mut bob, "broadcast_message")] {
        let packet = peer.packet(event);
        assert!(packet.text.starts_with(&format!("452-[\"{event}\"")), "{packet:?}");
        assert!(
            packet.text.contains(
                r#""message":{"a":{"_placeholder":true,"num":0},"b":{"_placeholder":true,"num":1}}"#
            ),
            "{packet:?}"
        );
        assert_eq!(packet.attachments, [vec![1, 2], vec![0]]);
    }
}
