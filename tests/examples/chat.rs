//! `examples/chat.rs`: the page, and two clients in one room.

use serde_json::{Value, json};
use tinysio::{Client, Server};

use crate::{PATIENCE, Seen, chat_example as example, client, seen};

fn start() -> Server {
    example::start("127.0.0.1:0", "http://box.local/socket.io.min.js").unwrap()
}

/// A connected client, and every event that it gets.
fn connected(server: &Server) -> (Client, Seen<(String, Value)>) {
    let client = client(server);
    let (sender, events) = seen();
    client.socket("/").on_any(move |_, event| {
        // The test may have seen enough.
        let _ = sender.send((event.name().to_owned(), event.arg(0).unwrap()));
    });
    client.connect().unwrap();
    (client, events)
}

fn ask(client: &Client, event: &str, argument: Value) -> Value {
    client.socket("/").emit_with_ack(event, argument, PATIENCE).unwrap().get(0).unwrap()
}

#[test]
fn the_page_loads_the_official_client_from_the_address_given() {
    let server = start();
    let page = client(&server).http_get("/", PATIENCE).unwrap();
    assert_eq!((page.status, &*page.content_type), (200, "text/html; charset=utf-8"));
    let page = std::str::from_utf8(&page.body).unwrap();
    assert!(page.contains(r#"<script src="http://box.local/socket.io.min.js"></script>"#), "{page}");
}

#[test]
fn members_of_a_room_hear_each_other_and_new_ones_get_the_history() {
    let server = start();
    let ((ada, of_ada), (bob, of_bob)) = (connected(&server), connected(&server));
    let entered = ask(&ada, "enter", json!({ "name": "Ada", "room": "lobby" }));
    assert_eq!(entered, json!({ "ok": true, "history": [] }));
    assert_eq!(ask(&ada, "say", json!("hello")), json!({ "ok": true }));
    let said = json!({ "name": "Ada", "text": "hello" });
    assert_eq!(of_ada.next(), ("said".into(), said.clone()));
    let entered = ask(&bob, "enter", json!({ "name": "Bob", "room": "lobby" }));
    assert_eq!(entered, json!({ "ok": true, "history": [said] }));
    assert_eq!(of_ada.next(), ("entered".into(), json!("Bob")));
    ask(&bob, "say", json!("hi"));
    let said = json!({ "name": "Bob", "text": "hi" });
    assert_eq!(of_ada.next(), ("said".into(), said.clone()));
    assert_eq!(of_bob.next(), ("said".into(), said));
    bob.disconnect();
    assert_eq!(of_ada.next(), ("left".into(), json!("Bob")));
}

#[test]
fn mistakes_are_answered() {
    let server = start();
    let (client, _) = connected(&server);
    let answer = ask(&client, "say", json!("hello"));
    assert_eq!(answer, json!({ "ok": false, "error": "enter a room first" }));
    let answer = ask(&client, "enter", json!({ "name": "", "room": "lobby" }));
    assert_eq!(answer, json!({ "ok": false, "error": "the name must have 1 to 1,000 bytes" }));
}
