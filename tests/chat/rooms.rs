//! Rooms: who hears what, every way of leaving, and names that are somebody's address.

use rstest::rstest;
use tinysio::chat::{Options, Rate};

use crate::support::{Peer, Stage, mask};

/// Every way out of a room, and that it looks the same from inside.
#[rstest]
#[case::leave(|bob: &mut Peer| { bob.ask("leave_room", r#"{"room":"r"}"#, "room_left"); })]
#[case::disconnect(|bob: &mut Peer| bob.send("41"))]
#[case::broken_packet(|bob: &mut Peer| bob.send("4x"))]
#[case::kicked(|bob: &mut Peer| bob.emit("kick", ""))]
#[case::too_fast(|bob: &mut Peer| (0..400).for_each(|_| bob.emit("unheard_of", "")))]
fn leaving_is_told(#[case] leave: fn(&mut Peer)) {
    let rate = Rate { per_second: 1, burst: 20 };
    let stage = Stage::with(Options { rate, test_events: true, ..Options::default() });
    let [mut alice, mut bob] = stage.peers();
    for peer in [&mut alice, &mut bob] {
        peer.ask("join_room", r#"{"room":"r"}"#, "room_joined");
    }
    leave(&mut bob);
    assert_eq!(
        mask(&alice.next("user_left_room"), &[(&bob.id, "B")]),
        r#"{"user_id":"B","room":"r","type":"user_left_room","remaining_members":1,"timestamp":T}"#
    );
    let broadcast = alice.ask("room_message", r#"{"room":"r","message":"m"}"#, "room_broadcast");
    assert!(broadcast.ends_with("\"room_members\":1}"), "{broadcast}");
    assert_eq!(stage.chat.rooms(), 1);
}

#[test]
fn a_lost_connection_leaves_too() {
    let stage = Stage::new();
    let [mut alice, mut bob] = stage.peers();
    for room in ["one", "two"] {
        for peer in [&mut alice, &mut bob] {
            peer.ask("join_room", &format!("{{\"room\":\"{room}\"}}"), "room_joined");
        }
    }
    drop(bob);
    let mut left =
        [alice.value("user_left_room"), alice.value("user_left_room")].map(|told| told["room"].to_string());
    left.sort();
    assert_eq!(left, ["\"one\"", "\"two\""]);
    assert_eq!(alice.value("client_notification")["type"], "user_disconnected");
}

#[test]
fn only_members_hear_a_room() {
    let stage = Stage::new();
    let [mut alice, mut bob, mut carol] = stage.peers();
    for peer in [&mut alice, &mut bob] {
        peer.ask("join_room", r#"{"room":"r"}"#, "room_joined");
    }
    alice.ask("room_message", r#"{"room":"r","message":"secret"}"#, "room_broadcast");
    assert_eq!(bob.value("room_broadcast")["message"], "secret");
    let refused = carol.ask("room_message", r#"{"room":"r","message":"me too"}"#, "error");
    assert!(refused.contains("You are not in room 'r'. Join the room first."), "{refused}");
    carol.none(&["room_broadcast", "user_joined_room"]);
    alice.none(&["room_broadcast"]);
}

#[test]
fn a_room_called_after_a_socket_reads_nothing_of_its_own() {
    let stage = Stage::new();
    let [mut alice, mut mallory] = stage.peers();
    let joined = mallory.ask("join_room", &format!("{{\"room\":\"{}\"}}", alice.id), "room_joined");
    assert!(joined.contains("\"room_members\":1"), "{joined}");
    alice.ask("message", "\"private\"", "message_received");
    alice.ask("message", "null", "error");
    alice.ask("get_server_status", "", "server_status");
    mallory.ask(
        "room_message",
        &format!("{{\"room\":\"{}\",\"message\":\"boo\"}}", alice.id),
        "room_broadcast",
    );
    mallory.none(&["message_received", "error", "server_status"]);
    alice.none(&["room_broadcast", "user_joined_room"]);
}
