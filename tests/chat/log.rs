//! The program's log: what is in it, and that nobody else writes it.

use std::{process::Command, time::Duration};

use rstest::rstest;
use serde_json::Value;

use crate::support::{PATIENCE, Peer, Program, eventually, request};

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
    let message = program.logged(&[&id, "message, 502 bytes"]);
    assert!(message.ends_with("502 bytes"), "{message}");
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

/// What people say to each other is nobody else's business: logs are shipped, kept, and read by others.
#[rstest]
#[case::a_message("message", r#""s3cret words""#, "message")]
#[case::a_custom_event("custom_event", r#"{"password":"s3cret words"}"#, "custom event")]
#[case::a_room_message("room_message", r#"{"room":"r","message":"s3cret words"}"#, "message to 'r'")]
fn texts_are_logged_at_debug_only(#[case] event: &str, #[case] data: &str, #[case] what: &str) {
    for (level, is_shown) in [("info", false), ("debug", true)] {
        let mut program = Program::start(&["--log-level", level]);
        let mut alice = Peer::connect(program.address());
        alice.call("join_room", r#"{"room":"r"}"#);
        alice.call(event, data);
        program.logged(&["INFO", &alice.id, &format!("{what}, ")]);
        program.signal("TERM");
        let (_, log) = program.ended(PATIENCE);
        assert_eq!(log.iter().any(|line| line.contains("s3cret words")), is_shown, "{log:?}");
    }
}

#[test]
fn a_message_is_logged_in_part() {
    let program = Program::start(&["--log-level", "debug"]);
    let mut alice = Peer::connect(program.address());
    alice.emit("message", &format!("\"{}\"", "m".repeat(500)));
    let message = program.logged(&["DEBUG", &alice.id, "message: \"mmm"]);
    assert!(message.ends_with(&format!("\"{}...", "m".repeat(99))), "{message}");
}

#[test]
fn a_client_cannot_forge_a_line() {
    let program = Program::start(&["--log-level", "debug"]);
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
    let mut program = Program::start(&["--log-format", "json", "--log-level", "debug"]);
    let mut alice = Peer::connect(program.address());
    alice.ask("message", "\"a \\\"quoted\\\"\\nline\"", "message_received");
    alice.ask("message", "null", "error");
    program.signal("TERM");
    let (_, lines) = program.ended(PATIENCE);
    let records: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(records.len() >= 5, "{records:?}");
    for record in &records {
        for key in ["timestamp", "level", "module", "message"] {
            assert!(record[key].is_string(), "{key} of {record}");
        }
    }
    let of_alice: Vec<&Value> = records.iter().filter(|record| record["client"] == alice.id).collect();
    let has = |key: &str, value: &str| of_alice.iter().any(|record| record[key] == value);
    assert!(has("message", "message: \"a \\\"quoted\\\"\\nline\""), "{of_alice:?}");
    assert!(has("level", "WARN"), "{of_alice:?}");
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

/// More lines than a pipe and the queue before it take.
const FLOOD: usize = 4_000;

/// A server whose log nobody reads, and has written more than a pipe takes.
fn unread(flags: &[&str]) -> (Program, Peer) {
    let all = [&["--host", "127.0.0.1", "--port", "0", "--rate-limit", "0"], flags].concat();
    let program = Program::spawn_unread(Program::command(&all));
    let mut alice = Peer::connect(program.address());
    let room = format!(r#"{{"room":"{}"}}"#, "r".repeat(100));
    for _ in 0..FLOOD / 2 {
        alice.ask("join_room", &room, "room_joined");
        alice.ask("leave_room", &room, "room_left");
    }
    (program, alice)
}

/// A supervisor that hangs, a pager that was left open: the server serves on, and says later how much of its log is
/// missing.
#[rstest]
#[case::text("text")]
#[case::json("json")]
fn a_log_that_nobody_reads_does_not_hold_up_the_server(#[case] format: &str) {
    let (mut program, mut alice) = unread(&["--log-format", format]);
    let mut bob = Peer::connect(program.address());
    bob.ask("message", "\"still served\"", "message_received");
    assert!(request(program.address(), "GET", "/health").0.starts_with("HTTP/1.1 200"));
    program.read_log();
    let missing = program.logged(&["lines of this log are missing"]);
    if format == "json" {
        let record: Value = serde_json::from_str(&missing).unwrap();
        assert_eq!((&record["level"], &record["module"]), (&"WARN".into(), &"log".into()));
    }
    let words: Vec<&str> = missing.split([' ', '"']).collect();
    let at = words.iter().position(|&word| word == "lines").unwrap();
    let missing: usize = words[at - 1].parse().unwrap();
    assert!(missing > 0 && missing < FLOOD, "{missing}");
    // There is room again.
    alice.ask("message", "null", "error");
    program.logged(&["message refused"]);
    program.signal("TERM");
    assert_eq!(program.ended(PATIENCE).0, Some(0));
}

#[rstest]
#[case::a_signal(&[], 1, Some(0))]
#[case::a_second_signal(&["--drain", "10min"], 2, Some(130))]
fn a_log_that_nobody_reads_does_not_hold_up_the_end(
    #[case] flags: &[&str],
    #[case] signals: usize,
    #[case] code: Option<i32>,
) {
    let (mut program, mut alice) = unread(flags);
    program.signal("TERM");
    alice.next("server_notification");
    for _ in 1..signals {
        program.signal("TERM");
    }
    // The contract's bound of a shutdown.
    assert_eq!(program.exit_code(Duration::from_secs(5)), code);
}

/// What is logged last is not lost: neither at a failed start, nor at a second signal.
#[test]
fn the_log_is_whole_at_the_end() {
    let mut program = Program::start(&["--drain", "10min", "--log-level", "debug"]);
    let _alice = Peer::connect(program.address());
    let bob = Peer::connect(program.address());
    program.signal("TERM");
    eventually("the shutdown has begun", || {
        request(program.address(), "GET", "/health").0.starts_with("HTTP/1.1 503")
    });
    program.signal("TERM");
    let (code, log) = program.ended(PATIENCE);
    assert_eq!(code, Some(130));
    for line in ["shutting down, 2 clients", &format!("[{}] connected from", bob.id)] {
        assert!(log.iter().any(|logged| logged.contains(line)), "{line} in {log:?}");
    }
}

#[test]
fn the_first_lines_are_json_too() {
    let program = Program::start(&["--log-format", "json", "--log-level", "off"]);
    let lines: Vec<Value> = program.banner.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: Vec<&str> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert_eq!(messages[0], format!("Starting Socket.IO server on http://{}", program.address()));
    assert_eq!(messages[2], "Press Ctrl+C to stop the server");
    let port = program.address().port().to_string();
    let (code, _, err) = Program::run(&["--host", "127.0.0.1", "--port", &port, "--log-format", "json"]);
    let failure: Value = serde_json::from_str(&err).unwrap();
    assert_eq!((code, &failure["level"]), (Some(1), &"ERROR".into()));
    assert_eq!(failure["message"], format!("Port {port} is already in use. Try a different port."));
}

/// Refused handshakes are logged, once in a while.
#[test]
fn a_full_server_says_so() {
    let program = Program::start(&["--max-connections", "1"]);
    let _alice = Peer::connect(program.address());
    for _ in 0..3 {
        let (head, _) = request(program.address(), "GET", "/socket.io/?EIO=4&transport=polling");
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    }
    program.logged(&["WARN", "refused 127.0.0.1:", "Server is full (max_connections)"]);
}

/// `nohup server &` outlives its terminal; a server that was started otherwise ends in good order with it.
#[rstest]
#[case::nohup("trap '' HUP; exec \"$0\" \"$@\"", None)]
// The tests themselves may run under nohup.
#[case::otherwise("exec env --default-signal=HUP \"$0\" \"$@\"", Some(0))]
fn an_ignored_sighup_stays_ignored(#[case] script: &str, #[case] code: Option<i32>) {
    let mut command: Command = Program::wrapped("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_server"), "--host", "127.0.0.1", "--port", "0"]);
    let mut program = Program::spawn(command);
    let mut alice = Peer::connect(program.address());
    program.signal("HUP");
    if code.is_some() {
        alice.next("server_notification");
        assert_eq!(program.ended(PATIENCE).0, code);
    } else {
        alice.ask("message", "\"still there\"", "message_received");
        program.signal("TERM");
        let (ended, log) = program.ended(PATIENCE);
        assert_eq!(ended, Some(0));
        // The first signal that counted is SIGTERM: a second one would have ended it with 130.
        assert!(log.iter().any(|line| line.contains("stopped")), "{log:?}");
    }
}
