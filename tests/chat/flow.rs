//! Order, loss, and the test events.

use serde_json::Value;
use tinysio::chat::{Options, Rate};

use crate::support::{Peer, Stage, eventually};

fn with_test_events() -> Stage {
    Stage::with(Options { test_events: true, ..Options::default() })
}

#[test]
fn nothing_sent_before_a_disconnect_is_lost() {
    let stage = Stage::with(Options { rate: Rate { per_second: 0, burst: 1 }, ..Options::default() });
    let [mut alice, mut bob] = stage.peers();
    for n in 0..300 {
        alice.emit("message", &n.to_string());
    }
    alice.send("41");
    for n in 0..300 {
        assert_eq!(bob.value("broadcast_message")["message"], n);
    }
    assert_eq!(bob.value("client_notification")["type"], "user_disconnected");
    // Only now: a connection that is closed with answers unread is reset, and a reset may overtake what was sent.
    drop(alice);
}

#[test]
fn echo_gives_back_what_came() {
    let stage = with_test_events();
    let mut alice = stage.peer();
    assert_eq!(alice.call("echo", r#"1,"two",null"#), r#"[1,"two",null]"#);
    assert_eq!(alice.call("echo", ""), "[]");
    alice.emit("echo", r#""one",2"#);
    assert_eq!(alice.packet("echo_back").text, r#"42["echo_back","one",2]"#);
}

#[test]
fn ask_asks_back() {
    let stage = with_test_events();
    let mut alice = stage.peer();
    alice.send(r#"427["ask","why?"]"#);
    let question = alice.packet("the question").text;
    let id = question.strip_prefix("42").and_then(|rest| rest.strip_suffix(r#"["question","why?"]"#));
    alice.send(&format!("43{}[\"because\",1]", id.unwrap_or_else(|| panic!("{question}"))));
    assert_eq!(alice.packet("the answer").text, r#"42["answered","because",1]"#);
    assert_eq!(alice.ack(7), "[]");
}

#[test]
fn ask_gives_up() {
    let stage = with_test_events();
    let mut alice = stage.peer();
    assert_eq!(alice.ask("ask", "1", "ask_timeout"), "");
}

#[test]
fn kick_is_acked_and_then_done() {
    let stage = with_test_events();
    let mut alice = stage.peer();
    assert_eq!(alice.call("kick", ""), "[]");
    assert_eq!(alice.packet("the disconnect").text, "41");
    eventually("the kicked client is gone", || stage.chat.counters().clients() == 0);
    // The connection stays, and may be used again.
    alice.join("");
}

#[test]
fn without_the_option_test_events_are_unknown() {
    let stage = Stage::new();
    let mut alice = stage.peer();
    for event in ["echo", "ask", "kick"] {
        alice.send(&format!(r#"429["{event}",1]"#));
    }
    alice.none(&[]);
    assert!(alice.take_packets().is_empty());
    alice.send("40/custom,");
    assert_eq!(alice.packet("the refusal").text, r#"44/custom,{"message":"Invalid namespace"}"#);
}

/// The official client drops what comes in one payload with the close, so its last packets must come before.
#[test]
fn polling_gets_the_last_words_before_the_close() {
    let stage = Stage::with(Options { rate: Rate { per_second: 1, burst: 30 }, ..Options::default() });
    let url = format!("http://{}/socket.io/?EIO=4&transport=polling", stage.address);
    let get = |url: &str| ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap();
    let open: Value = serde_json::from_str(&get(&url)[1..]).unwrap();
    let url = format!("{url}&sid={}", open["sid"].as_str().unwrap());
    ureq::post(&url).send("40").unwrap();
    let events = vec!["42[\"message\",1]"; 200].join("\u{1e}");
    ureq::post(&url).send(&events).unwrap();
    let mut packets = Vec::new();
    loop {
        let payload = get(&url);
        if payload == "1" {
            break;
        }
        packets.extend(payload.split('\u{1e}').map(ToOwned::to_owned));
        assert!(packets.len() < 1_000, "no close");
    }
    let count = |name: &str| packets.iter().filter(|packet| packet.contains(name)).count();
    assert_eq!(count("message_received"), 30);
    assert_eq!(count("Rate limit exceeded"), 100);
    assert_eq!(packets.last().map(String::as_str), Some("41"), "{packets:?}");
}

#[test]
fn the_rooms_are_empty_when_everybody_has_left() {
    let stage = Stage::new();
    let peers: [Peer; 5] = stage.peers();
    for mut peer in peers {
        peer.ask("join_room", r#"{"room":"r"}"#, "room_joined");
    }
    eventually("all have left", || stage.chat.rooms() == 0 && stage.chat.counters().clients() == 0);
    assert_eq!(stage.chat.counters().connects(), 5);
}
