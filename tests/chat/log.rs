//! The program's log: what is in it, and that nobody else writes it.

use serde_json::Value;

use crate::support::{Peer, Program};

#[test]
fn what_happens_is_logged() {
    let program = Program::start(&[]);
    let mut alice = Peer::connect(program.address());
    let id = format!("[{}]", alice.id);
    let connected = program.logged(&["INFO  chat", &id, "connected from 127.0.0.1:"]);
    let timestamp = connected.split(' ').next().unwrap();
    assert!(timestamp.len() == 24 && timestamp.ends_with('Z'), "{timestamp}");
    assert!(!connected.contains('\u{1b}'), "colours in a pipe: {connected:?}");
    alice.emit("message", &format!("\"{}\"", "m".repeat(500)));
    let message = program.logged(&[&id, "message: \"mmm"]);
    assert!(message.ends_with(&format!("\"{}...", "m".repeat(99))), "{message}");
    alice.emit("join_room", r#"{"room":"lobby"}"#);
    program.logged(&[&id, "joined 'lobby'"]);
    alice.emit("join_room", r#"{"room":"attic"}"#);
    alice.emit("leave_room", r#"{"room":"lobby"}"#);
    program.logged(&[&id, "left 'lobby'"]);
    alice.emit("message", "null");
    program.logged(&["WARN", &id, "message refused: Invalid message format"]);
    alice.send("41");
    program.logged(&[&id, "disconnected", "client namespace disconnect", "rooms: 'attic'"]);
}

#[test]
fn a_client_cannot_forge_a_line() {
    let program = Program::start(&[]);
    let mut alice = Peer::connect(program.address());
    let forged = "x\\n2026-01-01T00:00:00.000Z INFO  chat::app [admin] connected";
    alice.emit("message", &format!("\"{forged}\""));
    alice.emit("message", "\"\u{7f}\u{85}\u{202e}\u{2028}\\u001b[31m\"");
    alice.emit("join_room", &format!("{{\"room\":\"{forged}\"}}"));
    alice.emit("room_message", "{\"room\":\"a\u{2028}b\u{202e}\",\"message\":\"m\"}");
    alice.emit("message", "\"the end\"");
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.contains("the end")) {
        lines.push(program.logged(&[]));
    }
    for line in &lines {
        assert!(!line.split(' ').any(|word| word == "[admin]") || line.contains(&alice.id), "{line}");
        assert!(!line.chars().any(|c| c.is_control() || matches!(c, '\u{202e}' | '\u{2028}')), "{line:?}");
    }
}

#[test]
fn json_lines_are_json() {
    let mut program = Program::start(&["--log-format", "json"]);
    let mut alice = Peer::connect(program.address());
    alice.ask("message", "\"a \\\"quoted\\\"\\nline\"", "message_received");
    alice.ask("message", "null", "error");
    program.signal("TERM");
    let (_, lines) = program.ended(crate::support::PATIENCE);
    let records: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(records.len() >= 5, "{records:?}");
    for record in &records {
        for key in ["timestamp", "level", "module", "message"] {
            assert!(record[key].is_string(), "{key} of {record}");
        }
    }
    let of_alice: Vec<&Value> = records.iter().filter(|record| record["client"] == alice.id).collect();
    assert_eq!(of_alice[1]["message"], "message: \"a \\\"quoted\\\"\\nline\"");
    assert_eq!(of_alice[2]["level"], "WARN");
}

#[test]
fn a_forwarded_address_counts_from_a_trusted_proxy_only() {
    let claim = [("X-Forwarded-For", "6.6.6.6, 203.0.113.7")];
    let trusting = Program::start(&["--trust-proxy", "127.0.0.0/8", "::1"]);
    Peer::open_with(trusting.address(), &claim).join("");
    let line = trusting.logged(&["connected from"]);
    assert!(line.contains("connected from 203.0.113.7 (by way of 127.0.0.1:"), "{line}");

    let wary = Program::start(&["--trust-proxy", "10.0.0.1"]);
    Peer::open_with(wary.address(), &claim).join("");
    let line = wary.logged(&["connected from"]);
    assert!(line.contains("connected from 127.0.0.1:"), "{line}");
}

#[test]
fn the_counters_are_logged_every_so_often() {
    let program = Program::start(&["--counters-interval", "50ms"]);
    let mut alice = Peer::connect(program.address());
    alice.ask("message", "null", "error");
    program.logged(&["counters: clients 1,", "events in 1,", "refused 1 "]);
    drop(alice);
    program.logged(&["counters: clients 0,", "connects 1, disconnects 1,"]);
}

#[test]
fn the_level_is_a_flag() {
    let program = Program::start(&["--log-level", "warn"]);
    let mut alice = Peer::connect(program.address());
    alice.ask("message", "1", "message_received");
    alice.ask("message", "null", "error");
    let first = program.logged(&[]);
    assert!(first.contains("WARN") && first.contains("refused"), "{first}");
}
