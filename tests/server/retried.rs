//! Exactly once: a client that says who it is, and sends again what was not acknowledged, has each event handled once.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{Sender, channel},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rstest::rstest;
use serde_json::Value;
use tinysio::server::{
    Ack, Builder, Change, ConnectionStateRecovery, Durability, EmitError, Kept, MemoryStore, Server, Store,
    StoreError,
};

use crate::support::{Client, Road, addr, eventually, next, serve};

/// A connection of the client `rid`.
fn connected(addr: SocketAddr, road: Road, rid: &str) -> Client {
    let mut client = Client::new(addr, road);
    client.send(&format!(r#"40{{"rid":"{rid}"}}"#));
    let consent = client.text("the consent");
    assert!(consent.starts_with("40{"), "{consent}");
    client
}

/// A server that counts what it handles.
fn counting(set_up: impl FnOnce(Builder) -> Builder) -> (Server, Arc<AtomicUsize>) {
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let server = serve(|builder| {
        set_up(builder.connection_state_recovery(ConnectionStateRecovery::new()).namespace("/", |ns| {
            ns.on("count", move |_, event| event.ack(("answer", count.fetch_add(1, SeqCst) + 1)));
        }))
    });
    (server, handled)
}

#[rstest]
fn a_retry_is_answered_and_not_handled(
    #[values(Road::Polling, Road::WebSocket, Road::Upgrade)] road: Road,
    #[values(true, false)] on_a_new_connection: bool,
) {
    let (server, handled) = counting(|builder| builder);
    let mut client = connected(addr(&server), road, "me");
    client.send(r#"420["count"]"#);
    client.expect(r#"430["answer",1]"#);
    if on_a_new_connection {
        client = connected(addr(&server), road, "me");
    }
    client.send(r#"420["count"]"#);
    client.expect(r#"430["answer",1]"#);
    client.send(r#"421["count"]"#);
    client.expect(r#"431["answer",2]"#);
    assert_eq!(handled.load(SeqCst), 2);
    // What is older than the last one was answered long ago.
    client.send_texts(&[r#"420["count"]"#, r#"422["count"]"#]);
    client.expect(r#"432["answer",3]"#);
}

/// Whoever does not say who it is, or is another one, is handled as ever.
#[rstest]
#[case::without_a_name("")]
#[case::another(r#"{"rid":"another"}"#)]
#[case::no_string(r#"{"rid":7}"#)]
#[case::nothing(r#"{"rid":""}"#)]
#[case::too_long(&format!(r#"{{"rid":"{}"}}"#, "x".repeat(65)))]
fn others(#[case] auth: &str) {
    let (server, handled) = counting(|builder| builder);
    let mut first = connected(addr(&server), Road::WebSocket, "me");
    first.send(r#"420["count"]"#);
    first.expect(r#"430["answer",1]"#);
    let mut client = Client::new(addr(&server), Road::WebSocket);
    client.send(&format!("40{auth}"));
    client.text("the consent");
    client.send(r#"420["count"]"#);
    client.expect(r#"430["answer",2]"#);
    if !auth.contains("another") {
        client.send(r#"420["count"]"#);
        client.expect(r#"430["answer",3]"#);
    }
    assert!(handled.load(SeqCst) >= 2);
}

/// A server whose handler hands its acknowledgements to the test.
fn delegating() -> (Server, std::sync::mpsc::Receiver<Ack>, Arc<AtomicUsize>) {
    let (hand, acks) = channel::<Ack>();
    let hand: Arc<Mutex<Sender<Ack>>> = Arc::new(Mutex::new(hand));
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let server = serve(|builder| {
        builder.connection_state_recovery(ConnectionStateRecovery::new()).namespace("/", |ns| {
            ns.on("ask", move |_, event| {
                count.fetch_add(1, SeqCst);
                hand.lock().send(event.take_ack().unwrap()).unwrap();
            });
        })
    });
    (server, acks, handled)
}

/// The answer goes to the connection that asked last, and is remembered.
#[rstest]
fn an_answer_after_the_connection_is_lost(
    #[values(Road::Polling, Road::WebSocket, Road::Upgrade)] road: Road,
) {
    let (server, acks, handled) = delegating();
    let mut first = connected(addr(&server), road, "me");
    first.send(r#"420["ask"]"#);
    let ack = next(&acks, "the acknowledgement");
    let mut second = connected(addr(&server), road, "me");
    second.send(r#"420["ask"]"#);
    second.send(r#"420["ask"]"#);
    drop(first);
    ack.send("late").unwrap();
    second.expect(r#"430["late"]"#);
    second.send(r#"420["ask"]"#);
    second.expect(r#"430["late"]"#);
    assert_eq!(handled.load(SeqCst), 1);
}

/// What is not acknowledged, because the handler does not, or throws the right to do so away, is handled again: at least once.
#[rstest]
fn what_nobody_acknowledges(#[values(true, false)] taken: bool) {
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let server = serve(|builder| {
        builder.connection_state_recovery(ConnectionStateRecovery::new()).namespace("/", |ns| {
            ns.on("fails at first", move |_, event| {
                let ack = if taken { event.take_ack() } else { None };
                if count.fetch_add(1, SeqCst) == 0 {
                    return Err("an error of the handler's");
                }
                let sent: Result<(), EmitError> = match ack {
                    Some(ack) => ack.send(()),
                    None => event.ack(()),
                };
                sent.map_err(|_| "not sent")
            });
        })
    });
    let mut client = connected(addr(&server), Road::WebSocket, "me");
    client.send_texts(&[r#"420["fails at first"]"#, r#"420["fails at first"]"#, r#"420["fails at first"]"#]);
    client.expect(r#"430[]"#);
    client.expect(r#"430[]"#);
    assert_eq!(handled.load(SeqCst), 2);
}

#[rstest]
fn after_a_restart(
    #[values(Durability::EveryPacket, Durability::Every(Duration::from_millis(1)))] durability: Durability,
) {
    let store = MemoryStore::new();
    let (server, handled) = counting(|builder| builder.store(store.clone(), durability));
    let mut client = connected(addr(&server), Road::WebSocket, "me");
    client.send(r#"427["count"]"#);
    client.expect(r#"437["answer",1]"#);
    server.shutdown(Duration::from_secs(1));
    assert_eq!(handled.load(SeqCst), 1);
    let (server, handled) = counting(|builder| builder.store(store.clone(), durability));
    let mut client = connected(addr(&server), Road::WebSocket, "me");
    client.send(r#"427["count"]"#);
    client.expect(r#"437["answer",1]"#);
    assert_eq!(handled.load(SeqCst), 0);
}

/// A store that shows its commits.
struct Watched(MemoryStore, Sender<Vec<Change>>);

impl Store for Watched {
    fn open(&mut self) -> Result<Kept, StoreError> {
        self.0.open()
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.1.send(changes.to_vec()).unwrap();
        self.0.commit(changes)
    }

    fn abandon(&mut self) {
        self.0.abandon();
    }
}

/// What a handler emits, the rooms that it changes, and its answer are in one commit, so that no crash comes between them.
#[test]
fn a_handlers_work_is_kept_with_its_answer() {
    let (watch, commits) = channel();
    let store = Watched(MemoryStore::new(), watch);
    let server = serve(|builder| {
        builder.store(store, Durability::EveryPacket).namespace("/", |ns| {
            ns.on("work", |socket, event| {
                for number in 0..100 {
                    socket.namespace().emit("a step", number)?;
                }
                socket.emit("done", ())?;
                event.ack("done")
            });
        })
    });
    let mut client = connected(addr(&server), Road::WebSocket, "me");
    client.send(r#"420["work"]"#);
    let with_answer = loop {
        let changes = next(&commits, "the commit of the answer");
        if changes.iter().any(|change| matches!(change, Change::Answer(_))) {
            break changes;
        }
    };
    let packets = with_answer.iter().filter(|change| matches!(change, Change::Packet(_))).count();
    assert_eq!(packets, 101);
    for number in 0..100 {
        let step = client.text("a step");
        assert!(step.starts_with(&format!(r#"42["a step",{number},""#)), "{step}");
    }
    assert!(client.text("the last event").starts_with(r#"42["done",""#));
    client.expect(r#"430["done"]"#);
}

/// A handler that waits for the hub, or emits very much, gets its answers all the same.
#[test]
fn a_handler_that_asks_the_hub() {
    let server = serve(|builder| {
        let builder = builder.outbox_bytes_max(64 << 20).outbox_bytes_total(64 << 20);
        builder.store(MemoryStore::new(), Durability::EveryPacket).namespace("/", |ns| {
            ns.on("work", |socket, event| {
                socket.join("a room");
                let there = socket.namespace().room_len("a room");
                for _ in 0..50 {
                    socket.namespace().emit("large", "x".repeat(500_000))?;
                }
                event.ack(there)
            });
        })
    });
    let mut client = connected(addr(&server), Road::WebSocket, "me");
    client.send(r#"420["work"]"#);
    for _ in 0..50 {
        client.text("a large event");
    }
    client.expect("430[1]");
}

/// The server remembers as many as it has promised to, and the last ones.
#[test]
fn as_many_as_there_is_room_for() {
    let (server, handled) = counting(|builder| builder.max_connections(2));
    for client in 0..6 {
        let mut client = connected(addr(&server), Road::WebSocket, &format!("client {client}"));
        client.send(r#"420["count"]"#);
        client.text("the answer");
        client.leave();
        client.closed("the end");
        eventually("the seat is free", || server.clients_count() == 0);
    }
    let answer = |name: &str| {
        let mut client = connected(addr(&server), Road::WebSocket, name);
        client.send(r#"420["count"]"#);
        let answer: Value =
            serde_json::from_str(client.text("the answer").strip_prefix("430").unwrap()).unwrap();
        client.leave();
        client.closed("the end");
        eventually("the seat is free", || server.clients_count() == 0);
        answer[1].as_u64().unwrap()
    };
    assert_eq!(answer("client 5"), 6);
    assert_eq!(answer("client 2"), 3);
    assert_eq!(answer("client 1"), 7);
    assert_eq!(handled.load(SeqCst), 7);
}
