//! Exactly once: a client that says who it is, and sends again what was not acknowledged, has each event handled once.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use rstest::rstest;
use serde_json::{Value, json};
use tinysio::server::{
    Ack, Builder, Change, ConnectionStateRecovery, Durability, EmitError, MemoryStore, Rate, Server, Socket,
    Store,
};

use crate::support::{
    Client, Transport, addr, eventually,
    gate::Gate,
    next,
    recovery::{connect, event},
    serve,
    stores::{Gated, Watched},
};

/// A connection of the client `rid`.
fn connected(addr: SocketAddr, transport: Transport, rid: &str) -> Client {
    let mut client = Client::new(addr, transport);
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
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
    #[values(true, false)] on_a_new_connection: bool,
) {
    let (server, handled) = counting(|builder| builder);
    let mut client = connected(addr(&server), transport, "me");
    client.send(r#"420["count"]"#);
    client.expect(r#"430["answer",1]"#);
    if on_a_new_connection {
        client = connected(addr(&server), transport, "me");
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

/// Events of a client without a `rid`, or with another one, are handled as always.
#[rstest]
#[case::without_a_name("")]
#[case::another(r#"{"rid":"another"}"#)]
#[case::no_string(r#"{"rid":7}"#)]
#[case::nothing(r#"{"rid":""}"#)]
#[case::too_long(&format!(r#"{{"rid":"{}"}}"#, "x".repeat(65)))]
fn others(#[case] auth: &str) {
    let (server, handled) = counting(|builder| builder);
    let mut first = connected(addr(&server), Transport::WebSocket, "me");
    first.send(r#"420["count"]"#);
    first.expect(r#"430["answer",1]"#);
    let mut client = Client::new(addr(&server), Transport::WebSocket);
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
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    let (server, acks, handled) = delegating();
    let mut first = connected(addr(&server), transport, "me");
    first.send(r#"420["ask"]"#);
    let ack = next(&acks, "the acknowledgement");
    let mut second = connected(addr(&server), transport, "me");
    second.send(r#"420["ask"]"#);
    second.send(r#"420["ask"]"#);
    drop(first);
    ack.send("late").unwrap();
    second.expect(r#"430["late"]"#);
    second.send(r#"420["ask"]"#);
    second.expect(r#"430["late"]"#);
    assert_eq!(handled.load(SeqCst), 1);
}

/// The data of a connection that waits for an answer is dropped with the connection, and while it is, others are
/// answered.
#[rstest]
fn data_that_blocks_in_its_drop_holds_up_no_retries(
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    struct Blocks(Sender<()>, Mutex<std::sync::mpsc::Receiver<()>>);
    impl Drop for Blocks {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            // Until the test has seen what it wants to see, or has failed.
            let _ = self.1.lock().recv();
        }
    }
    let (hand, acks) = channel();
    let (drops, dropped) = channel();
    let (left, lefts) = channel();
    let (release, wait) = channel();
    let data = Mutex::new(Some(Blocks(drops, Mutex::new(wait))));
    let server = serve(|builder| {
        builder.connection_state_recovery(ConnectionStateRecovery::new()).namespace("/", |ns| {
            ns.on("ask", move |_, event| hand.send(event.take_ack().unwrap()).unwrap());
            ns.on("keep", move |socket, _| socket.set_data(data.lock().take()));
            ns.on("count", |_, event| event.ack(()));
            ns.on_disconnect(move |_, _| _ = left.send(()));
        })
    });
    let mut first = connected(addr(&server), transport, "me");
    first.send(r#"420["ask"]"#);
    let _ack: Ack = next(&acks, "the acknowledgement");
    let mut second = connected(addr(&server), transport, "me");
    second.send_texts(&[r#"42["keep"]"#, r#"420["ask"]"#]);
    // On polling, the answer to this waits for the drop.
    let leaves = thread::Builder::new().spawn(move || second.send("41")).unwrap();
    next(&lefts, "the second's end");
    let mut third = connected(addr(&server), transport, "me");
    third.send(r#"420["ask"]"#);
    next(&dropped, "the drop of the second's data");
    let mut other = connected(addr(&server), transport, "another");
    other.send(r#"420["count"]"#);
    other.expect("430[]");
    drop(release);
    leaves.join().unwrap();
}

/// What is not acknowledged, because the handler does not, or throws the right to do so away, is handled again: at
/// least once.
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
    let mut client = connected(addr(&server), Transport::WebSocket, "me");
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
    let mut client = connected(addr(&server), Transport::WebSocket, "me");
    client.send(r#"427["count"]"#);
    client.expect(r#"437["answer",1]"#);
    server.shutdown(Duration::from_secs(1));
    assert_eq!(handled.load(SeqCst), 1);
    let (server, handled) = counting(|builder| builder.store(store.clone(), durability));
    let mut client = connected(addr(&server), Transport::WebSocket, "me");
    client.send(r#"427["count"]"#);
    client.expect(r#"437["answer",1]"#);
    assert_eq!(handled.load(SeqCst), 0);
}

/// What a handler emits, the rooms that it changes, and its answer are in one commit, so that no crash comes between
/// them.
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
    let mut client = connected(addr(&server), Transport::WebSocket, "me");
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
    let mut client = connected(addr(&server), Transport::WebSocket, "me");
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
        let mut client = connected(addr(&server), Transport::WebSocket, &format!("client {client}"));
        client.send(r#"420["count"]"#);
        client.text("the answer");
        client.leave();
        client.closed("the end");
        eventually("the seat is free", || server.clients_count() == 0);
    }
    let answer = |name: &str| {
        let mut client = connected(addr(&server), Transport::WebSocket, name);
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

/// A second connection gets the answer of a handler that still runs, before answer and work are kept.
#[test]
fn answered_before_it_is_kept() {
    let (watch, commits) = channel();
    let (told, acked) = channel();
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let store = Watched(MemoryStore::new(), watch);
    let server = serve(|builder| {
        builder.store(store, Durability::EveryPacket).namespace("/", |ns| {
            ns.on("work", move |socket, event| {
                event.ack("done")?;
                told.send(()).unwrap();
                let _ = released.lock().recv_timeout(Duration::from_secs(10));
                socket.namespace().emit("the work", ())
            });
        })
    });
    let (mut first, _) = connect(addr(&server), &json!({"rid": "me"}));
    first.send(r#"420["work"]"#);
    next(&acked, "the acknowledgement");
    let (mut second, _) = connect(addr(&server), &json!({"rid": "me"}));
    second.send(r#"420["work"]"#);
    let kept = thread::scope(|scope| {
        scope.spawn(|| {
            // Time for a wrong answer to come.
            thread::sleep(Duration::from_millis(100));
            release.send(()).unwrap();
        });
        while second.text("the answer") != r#"430["done"]"# {}
        commits.try_iter().flatten().any(|change| matches!(change, Change::Answer(_)))
    });
    assert!(kept, "acknowledged, and neither the answer nor the work is in the store");
}

/// The answer that was given by another thread is repeated before it is kept.
#[test]
fn repeated_before_it_is_kept() {
    let gate = Gate::default();
    let store = Gated(MemoryStore::new(), gate.clone());
    let ((hand, acks), (mark, marks)) = (channel::<Ack>(), channel());
    let server = serve(|builder| {
        builder.store(store, Durability::EveryPacket).namespace("/", |ns| {
            ns.on("mark", move |_, _| mark.send(()).unwrap());
            ns.on("ask", move |_, event| hand.send(event.take_ack().unwrap()).unwrap());
        })
    });
    let (mut first, _) = connect(addr(&server), &json!({"rid": "me"}));
    let (mut second, _) = connect(addr(&server), &json!({"rid": "me"}));
    first.send(r#"420["ask"]"#);
    let ack = next(&acks, "the acknowledgement");
    let _ = server.of("/").unwrap().room_len("");
    let closed = gate.close();
    ack.send("done").unwrap();
    closed.holds_up("the answer");
    second.send_texts(&[r#"420["ask"]"#, r#"42["mark"]"#]);
    next(&marks, "the event behind the repeated one");
    // The hub has handled it too.
    let _ = server.of("/").unwrap().room_len("");
    assert!(!second.ws().http.is_answered(), "the client has an answer that is in memory only");
    drop(closed);
    second.expect(r#"430["done"]"#);
}

/// An answer that cannot be encoded leaves the event running for ever.
#[test]
fn an_answer_that_cannot_be_encoded() {
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let server = serve(|builder| {
        builder.connection_state_recovery(ConnectionStateRecovery::new()).namespace("/", |ns| {
            ns.on("echo", |_, event| event.ack(()));
            ns.on("work", move |_, event| {
                if count.fetch_add(1, SeqCst) == 0 {
                    return event.ack((BTreeMap::from([((1, 2), 3)]),));
                }
                event.ack("done")
            });
        })
    });
    let (mut client, _) = connect(addr(&server), &json!({"rid": "me"}));
    client.send_texts(&[r#"420["work"]"#, r#"420["work"]"#, r#"420["work"]"#, r#"421["echo"]"#]);
    let first = client.text("an answer");
    assert_eq!(first, r#"430["done"]"#, "handled {} times", handled.load(SeqCst));
}

/// A retried handler that has emitted cannot ask another client: its question stays with what it gathers.
#[test]
fn a_question_to_another_client() {
    let asked: Arc<Mutex<Option<Socket>>> = Arc::default();
    let whom = Arc::clone(&asked);
    let server = serve(|builder| {
        builder.connection_state_recovery(ConnectionStateRecovery::new()).namespace("/", |ns| {
            ns.on("work", move |socket, event| {
                socket.emit("begun", ())?;
                let other = whom.lock().clone().unwrap();
                let answer = other.emit_with_ack("ask", (), Duration::from_secs(2));
                event.ack(answer.is_ok())
            });
        })
    });
    let (mut other, _) = connect(addr(&server), &json!({}));
    let io = server.of("/").unwrap();
    *asked.lock() = io.sockets().pop();
    let (mut client, _) = connect(addr(&server), &json!({"rid": "me"}));
    client.send(r#"420["work"]"#);
    let question = other.text("the question");
    let id: String = question.chars().skip(2).take_while(char::is_ascii_digit).collect();
    other.send(&format!("43{id}[]"));
    event(&mut client);
    client.expect("430[true]");
}

/// What a retried handler emits to a client that it then removes is lost.
#[test]
fn last_words_to_another_client() {
    let asked: Arc<Mutex<Option<Socket>>> = Arc::default();
    let whom = Arc::clone(&asked);
    let (told, gone) = channel();
    let gone = Mutex::new(gone);
    let server = serve(|builder| {
        builder.connection_state_recovery(ConnectionStateRecovery::new()).namespace("/", |ns| {
            ns.on_disconnect(move |_, _| told.send(()).unwrap());
            ns.on("work", move |_, event| {
                let other = whom.lock().clone().unwrap();
                other.emit("last words", ())?;
                other.disconnect(false);
                let _ = gone.lock().recv_timeout(Duration::from_secs(5));
                event.ack(())
            });
        })
    });
    let (mut other, _) = connect(addr(&server), &json!({}));
    *asked.lock() = server.of("/").unwrap().sockets().pop();
    let (mut client, _) = connect(addr(&server), &json!({"rid": "me"}));
    client.send(r#"420["work"]"#);
    client.expect("430[]");
    let first = other.text("the last words");
    assert!(first.starts_with(r#"42["last words""#), "{first}");
}

/// An acknowledgement that another client's retried handler gives is never repeated.
#[test]
fn answered_by_another_clients_handler() {
    let waiting: Arc<Mutex<Option<Ack>>> = Arc::default();
    let (put, take, there) = (Arc::clone(&waiting), Arc::clone(&waiting), waiting);
    let server = serve(|builder| {
        builder.connection_state_recovery(ConnectionStateRecovery::new()).namespace("/", |ns| {
            ns.on("echo", |_, event| event.ack(()));
            ns.on("ask", move |_, event| *put.lock() = event.take_ack());
            ns.on("answer", move |_, event| {
                take.lock().take().unwrap().send("done")?;
                event.ack(())
            });
        })
    });
    let (mut asker, _) = connect(addr(&server), &json!({"rid": "asker"}));
    asker.send_texts(&[r#"420["ask"]"#, "3"]);
    let (mut answerer, _) = connect(addr(&server), &json!({"rid": "answerer"}));
    eventually("the first one asks", || there.lock().is_some());
    answerer.send(r#"420["answer"]"#);
    answerer.expect("430[]");
    asker.expect(r#"430["done"]"#);
    // That was lost on the way.
    let (mut asker, _) = connect(addr(&server), &json!({"rid": "asker"}));
    asker.send_texts(&[r#"420["ask"]"#, r#"421["echo"]"#]);
    asker.expect(r#"430["done"]"#);
}

/// Answers stay in the store that nobody remembers any more.
#[test]
fn answers_pile_up_in_the_store() {
    let mut store = MemoryStore::new();
    let server = serve(|builder| {
        builder.max_connections(2).store(store.clone(), Durability::EveryPacket).namespace("/", |ns| {
            ns.on("count", |_, event| event.ack(()));
        })
    });
    let mut client = Client::new(addr(&server), Transport::WebSocket);
    for number in 0..100 {
        client.join("/", &json!({"rid": format!("client {number}")}).to_string());
        client.send_texts(&[r#"420["count"]"#, r#"421["no such event"]"#, "41"]);
        client.expect("430[]");
    }
    server.shutdown(Duration::from_secs(1));
    let answers = store.open().unwrap().answers.len();
    assert!(answers <= 4, "{answers} answers, for a server that remembers 4");
}

/// A retry beyond the rate takes the answer of the handler that still runs.
#[test]
fn a_retry_beyond_the_rate() {
    let (hand, acks) = channel::<Ack>();
    let server = serve(|builder| {
        builder
            .event_rate(Rate { per_second: 1, burst: 1 })
            .connection_state_recovery(ConnectionStateRecovery::new())
            .namespace("/", |ns| {
                ns.on("ask", move |_, event| hand.send(event.take_ack().unwrap()).unwrap());
                ns.on_rate_limited(|_, event| event.ack("slow down"));
            })
    });
    let (mut client, _) = connect(addr(&server), &json!({"rid": "me"}));
    client.send_texts(&[r#"420["ask"]"#, r#"420["ask"]"#]);
    let ack = next(&acks, "the acknowledgement");
    let first = client.text("an answer");
    ack.send("done").unwrap();
    eventually("the answer of the handler comes", || {
        client.send(r#"420["ask"]"#);
        let second = client.text("an answer");
        assert!(second == first || second.contains("done"), "{first}, then {second}");
        second.contains("done")
    });
}

/// A handler that runs is forgotten when many others come, and its event is handled again.
#[test]
fn a_running_handler_is_evicted() {
    let (hand, acks) = channel::<Ack>();
    let (mark, marks) = channel();
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let server = serve(|builder| {
        builder.max_connections(3).connection_state_recovery(ConnectionStateRecovery::new()).namespace(
            "/",
            |ns| {
                ns.on("echo", |_, event| event.ack(()));
                ns.on("nothing", move |_, _| mark.send(()).unwrap());
                ns.on("ask", move |_, event| {
                    count.fetch_add(1, SeqCst);
                    hand.send(event.take_ack().unwrap()).unwrap();
                });
            },
        )
    });
    let (mut asker, _) = connect(addr(&server), &json!({"rid": "asker"}));
    asker.send(r#"420["ask"]"#);
    let ack = next(&acks, "the acknowledgement");
    let mut client = Client::new(addr(&server), Transport::WebSocket);
    for number in 0..20 {
        client.join("/", &json!({"rid": format!("client {number}")}).to_string());
        client.send(r#"420["echo"]"#);
        client.expect("430[]");
        client.send("41");
    }
    asker.send_texts(&[r#"420["ask"]"#, r#"42["nothing"]"#]);
    next(&marks, "the event behind the retry");
    client.join("/", "");
    client.send(r#"420["echo"]"#);
    client.expect("430[]");
    ack.send("done").unwrap();
    asker.expect(r#"430["done"]"#);
    asker.send(r#"421["echo"]"#);
    asker.expect("431[]");
    assert_eq!(handled.load(SeqCst), 1);
}

/// Eviction in the middle of a handler tears what belongs together.
#[test]
fn eviction_tears_a_handlers_work() {
    let (watch, commits) = channel();
    let store = Watched(MemoryStore::new(), watch);
    let server = serve(|builder| {
        let options = ConnectionStateRecovery::new().max_bytes(2_000);
        builder.connection_state_recovery(options).store(store, Durability::EveryPacket).namespace(
            "/",
            |ns| {
                ns.on("work", |socket, event| {
                    for number in 0..10 {
                        socket.namespace().emit("a step", number)?;
                    }
                    event.ack("done")?;
                    thread::sleep(Duration::from_millis(30));
                    socket.namespace().emit("the last step", ())
                });
            },
        )
    });
    let mut client = Client::new(addr(&server), Transport::WebSocket);
    for number in 0..8 {
        client.join("/", &json!({"rid": format!("client {number}")}).to_string());
        client.send(r#"420["work"]"#);
        while client.text("the answer") != r#"430["done"]"# {}
        client.text("the last step");
        client.send("41");
    }
    for changes in commits.try_iter() {
        if changes.iter().any(|change| matches!(change, Change::Answer(_))) {
            let packets = changes.iter().filter(|change| matches!(change, Change::Packet(_))).count();
            assert_eq!(packets, 11);
        }
    }
}
