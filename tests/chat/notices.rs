//! Who is told what when somebody comes, goes, or the server stops.

use std::time::Duration;

use crate::support::{Peer, Stage, mask, request};

#[test]
fn connect_then_welcome_then_the_others() {
    let stage = Stage::new();
    let mut alice = Peer::open(stage.address);
    let welcome = alice.join("");
    assert_eq!(
        mask(&welcome, &[(&alice.id, "A")]),
        r#"{"data":"Welcome! You are connected to the server.","server_time":T,"client_id":"A","total_clients":1}"#
    );
    let mut bob = Peer::open(stage.address);
    assert!(bob.join("").ends_with("\"total_clients\":2}"));
    let told = alice.next("client_notification");
    assert_eq!(
        mask(&told, &[(&bob.id, "B")]),
        r#"{"type":"user_connected","user_id":"B","total_clients":2,"timestamp":T}"#
    );
    bob.none(&["client_notification"]);
}

#[test]
fn a_leaver_is_not_counted() {
    let stage = Stage::new();
    let [mut alice, mut bob, mut carol] = stage.peers();
    bob.send("41");
    for witness in [&mut alice, &mut carol] {
        let told = witness.next("client_notification");
        assert_eq!(
            mask(&told, &[(&bob.id, "B")]),
            r#"{"type":"user_disconnected","user_id":"B","total_clients":2,"timestamp":T}"#
        );
    }
    // It may come again on the same connection, as somebody else.
    let before = bob.id.clone();
    assert!(bob.join("").ends_with("\"total_clients\":3}"));
    assert_ne!(bob.id, before);
}

#[test]
fn a_stop_is_announced_to_all() {
    let stage = Stage::new();
    let mut peers: [Peer; 3] = stage.peers();
    stage.chat.announce_shutdown(&stage.server);
    let (head, body) = request(stage.address, "GET", "/health");
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(body.starts_with(r#"{"status":"shutting_down","clients":3,"#), "{body}");
    assert!(stage.server.shutdown(Duration::from_secs(5)), "handlers hang");
    for peer in &mut peers {
        assert_eq!(
            mask(&peer.next("server_notification"), &[]),
            r#"{"type":"server_shutdown","message":"Server is shutting down","timestamp":T}"#
        );
        let last = peer.closed();
        assert!(!last.iter().any(|packet| packet.contains("user_disconnected")), "{last:?}");
    }
}
