//! What recovery and remembered answers once got wrong.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc::{Sender, channel},
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use rstest::rstest;
use serde_json::{Value, json};
use tinysio::server::{
    Ack, Builder, Change, ConnectionStateRecovery, Durability, Kept, MemoryStore, Namespace, Rate, Server,
    Socket, Store, StoreError,
};

use crate::support::{Client, Road, addr, eventually, next, serve};

/// A store whose process can be killed: what it is given afterwards is not kept.
struct Mortal(MemoryStore, Arc<AtomicBool>);

impl Store for Mortal {
    fn open(&mut self) -> Result<Kept, StoreError> {
        self.0.open()
    }
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if self.1.load(SeqCst) { Ok(()) } else { self.0.commit(changes) }
    }
    fn abandon(&mut self) {}
}

fn begin(store: &MemoryStore, options: ConnectionStateRecovery) -> (Server, Namespace, Arc<AtomicBool>) {
    let dead = Arc::new(AtomicBool::new(false));
    let mortal = Mortal(store.clone(), Arc::clone(&dead));
    let server = serve(|builder| {
        builder.connection_state_recovery(options).store(mortal, Durability::EveryPacket).namespace(
            "/",
            |ns| {
                ns.on("echo", |_, event| event.ack(()));
            },
        )
    });
    let io = server.of("/").unwrap();
    (server, io, dead)
}

/// CONNECT; gives the consent.
fn connect(addr: SocketAddr, auth: &Value) -> (Client, Value) {
    let mut client = Client::new(addr, Road::WebSocket);
    client.send(&format!("40{auth}"));
    let consent = client.text("the consent");
    (client, serde_json::from_str(consent.strip_prefix("40").unwrap()).unwrap())
}

/// The next event and its offset.
fn event(client: &mut Client) -> (Value, String) {
    let text = client.text("an event");
    let mut event: Value =
        serde_json::from_str(text.strip_prefix("42").unwrap_or_else(|| panic!("{text}"))).unwrap();
    let offset = event.as_array_mut().unwrap().pop().unwrap().as_str().unwrap().to_owned();
    (event, offset)
}

fn drain(client: &mut Client) -> Vec<Value> {
    client.send(r#"42777["echo"]"#);
    let mut events = Vec::new();
    loop {
        let text = client.text("an event or the answer");
        if text == "43777[]" {
            return events;
        }
        events.push(serde_json::from_str(text.strip_prefix("42").unwrap()).unwrap());
    }
}

fn empty(io: &Namespace) {
    eventually("the server notices the loss", || io.is_empty());
}

/// A client that is away for a whole life in which the store is trimmed.
#[test]
fn a_gap_two_crashes_old() {
    let store = MemoryStore::new();
    let options = ConnectionStateRecovery::new().max_packets(10).max_bytes(8_000);
    let (server, io, dead) = begin(&store, options.clone());
    let (mut client, consent) = connect(addr(&server), &json!({}));
    let pid = consent["pid"].clone();
    io.emit("seen", ()).unwrap();
    let (_, offset) = event(&mut client);
    // For the client it is lost on the way; the server has kept it.
    io.emit("missed", ()).unwrap();
    event(&mut client);
    dead.store(true, SeqCst);
    server.shutdown(Duration::from_secs(1));

    let (server, io, dead) = begin(&store, options.clone());
    let (mut other, _) = connect(addr(&server), &json!({}));
    for number in 0..60 {
        io.to("nobody").emit("fills the log", number).unwrap();
    }
    io.emit("meant for it too", ()).unwrap();
    event(&mut other);
    for number in 0..60 {
        io.to("nobody").emit("fills the log", number).unwrap();
    }
    io.to("nobody").emit("end", ()).unwrap();
    drain(&mut other);
    let _ = io.room_len("x");
    dead.store(true, SeqCst);
    server.shutdown(Duration::from_secs(1));

    let (server, _, _) = begin(&store, options);
    let (mut client, consent) = connect(addr(&server), &json!({"pid": pid, "offset": offset}));
    let got = drain(&mut client);
    assert!(consent["pid"] != pid, "recovered, with {got:?} and without \"missed\" and \"meant for it too\"");
}

/// What is not known any more of a member's rooms is not known after a restart either.
#[test]
fn blind_is_forgotten_by_a_restart() {
    let store = MemoryStore::new();
    let (server, io, _) = begin(&store, ConnectionStateRecovery::new());
    let (client, consent) = connect(addr(&server), &json!({}));
    let socket = io.sockets().pop().unwrap();
    for number in 0..70 {
        let room = format!("room {number}");
        socket.join(&room);
        io.to(&room).emit("n", number).unwrap();
        socket.leave(&room);
    }
    drop(client);
    empty(&io);
    server.shutdown(Duration::from_secs(1));
    let (server, _, _) = begin(&store, ConnectionStateRecovery::new());
    let auth = json!({"pid": consent["pid"], "offset": consent["offset"]});
    let (mut client, again) = connect(addr(&server), &auth);
    let got = drain(&mut client);
    assert!(again["pid"] != consent["pid"] || got.len() == 70, "recovered with {} of 70", got.len());
}

/// The official client keeps its offset when it is not recovered, and a server without a store begins at 0 again.
#[test]
fn the_offset_of_another_process() {
    let begin = || {
        serve(|builder| {
            builder.connection_state_recovery(ConnectionStateRecovery::new()).namespace("/", |ns| {
                ns.on("echo", |_, event| event.ack(()));
            })
        })
    };
    let server = begin();
    let io = server.of("/").unwrap();
    let (mut client, first) = connect(addr(&server), &json!({}));
    let mut offset = String::new();
    for number in 0..50 {
        io.emit("n", number).unwrap();
        offset = event(&mut client).1;
    }
    server.shutdown(Duration::from_secs(1));
    let server = begin();
    let io = server.of("/").unwrap();
    let (client, second) = connect(addr(&server), &json!({"pid": first["pid"], "offset": offset}));
    assert_ne!(first["pid"], second["pid"]);
    for number in 0..100 {
        io.emit("n", number).unwrap();
    }
    // Nothing of that has reached it, so `_lastOffset` is still the first server's.
    drop(client);
    empty(&io);
    let (mut client, third) = connect(addr(&server), &json!({"pid": second["pid"], "offset": offset}));
    let got = drain(&mut client);
    assert!(third["pid"] != second["pid"] || got.len() == 100, "recovered with {} of 100", got.len());
}

/// A store that shows its commits.
struct Watched(MemoryStore, Sender<Vec<Change>>);

impl Store for Watched {
    fn open(&mut self) -> Result<Kept, StoreError> {
        self.0.open()
    }
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let _ = self.1.send(changes.to_vec());
        self.0.commit(changes)
    }
    fn abandon(&mut self) {}
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
    let kept = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Time for a wrong answer to come.
            std::thread::sleep(Duration::from_millis(100));
            release.send(()).unwrap();
        });
        while second.text("the answer") != r#"430["done"]"# {}
        commits.try_iter().flatten().any(|change| matches!(change, Change::Answer(_)))
    });
    assert!(kept, "acknowledged, and neither the answer nor the work is in the store");
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

/// What a middleware keeps with the socket is not in the store.
#[test]
fn data_of_a_middleware() {
    let store = MemoryStore::new();
    let begin = || {
        serve(|builder| {
            builder.store(store.clone(), Durability::EveryPacket).namespace("/", |ns| {
                ns.keep_data::<String>();
                ns.middleware(|socket| {
                    socket.set_data("the user".to_owned());
                    Ok(())
                });
                ns.on("get", |socket, event| event.ack(socket.data::<String>().as_deref()));
            })
        })
    };
    let server = begin();
    let (client, consent) = connect(addr(&server), &json!({}));
    drop(client);
    empty(&server.of("/").unwrap());
    server.shutdown(Duration::from_secs(1));
    let server = begin();
    let (mut client, again) = connect(addr(&server), &json!({"pid": consent["pid"]}));
    assert_eq!(again["pid"], consent["pid"]);
    client.send(r#"421["get"]"#);
    client.expect(r#"431["the user"]"#);
}

/// A store that can be held up.
struct Gated(MemoryStore, Arc<(Mutex<bool>, Condvar)>);

impl Store for Gated {
    fn open(&mut self) -> Result<Kept, StoreError> {
        self.0.open()
    }
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut closed = self.1.0.lock();
        while *closed {
            self.1.1.wait(&mut closed);
        }
        self.0.commit(changes)
    }
    fn abandon(&mut self) {}
}

/// "Every change of a room is on the disk first": an answer overtakes the join.
#[test]
fn a_join_acknowledged_before_it_is_kept() {
    let gate: Arc<(Mutex<bool>, Condvar)> = Arc::default();
    let store = Gated(MemoryStore::new(), Arc::clone(&gate));
    let server = serve(|builder| {
        builder.store(store, Durability::EveryPacket).namespace("/", |ns| {
            ns.on("echo", |_, event| event.ack(()));
            ns.on("join", |socket, event| {
                socket.join("a room");
                event.ack(())
            });
        })
    });
    let (mut client, _) = connect(addr(&server), &json!({}));
    client.send(r#"427["nothing yet"]"#);
    client.send(r#"428["echo"]"#);
    client.expect("438[]");
    let _ = server.of("/").unwrap().room_len("");
    *gate.0.lock() = true;
    let opened = AtomicBool::new(false);
    let kept = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Time for a wrong answer to come.
            std::thread::sleep(Duration::from_millis(100));
            opened.store(true, SeqCst);
            *gate.0.lock() = false;
            gate.1.notify_all();
        });
        client.send(r#"420["join"]"#);
        client.expect("430[]");
        opened.load(SeqCst)
    });
    assert!(kept, "acknowledged while the join was in memory only");
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
    let mut client = Client::new(addr(&server), Road::WebSocket);
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
    std::thread::sleep(Duration::from_millis(1_100));
    client.send(r#"420["ask"]"#);
    let second = client.text("an answer");
    assert!(second.contains("done"), "{first}, then {second}, for ever");
}

/// With recovery an emit to one socket is one to the room of that name.
#[test]
fn a_room_with_the_name_of_a_socket() {
    for recovers in [false, true] {
        let server = serve(|builder: Builder| {
            let builder = builder.namespace("/", |ns| {
                ns.on("join", |socket, event| event.arg::<String>(0).map(|room| socket.join(&room)));
                ns.on("echo", |_, event| event.ack(()));
            });
            if recovers { builder.connection_state_recovery(ConnectionStateRecovery::new()) } else { builder }
        });
        let (_victim, consent) = connect(addr(&server), &json!({}));
        let socket = server.of("/").unwrap().sockets().pop().unwrap();
        let (mut spy, _) = connect(addr(&server), &json!({}));
        spy.send(&json!(["join", consent["sid"]]).to_string().replacen('[', "42[", 1));
        drain(&mut spy);
        socket.emit("secret", "for one").unwrap();
        let _ = server.of("/").unwrap().room_len("");
        let heard = drain(&mut spy);
        assert!(heard.is_empty(), "recovery {recovers}: {heard:?}");
    }
}

/// Data of another type leaves the old data in the store.
#[test]
fn old_data_comes_back() {
    let store = MemoryStore::new();
    let begin = || {
        serve(|builder| {
            builder.store(store.clone(), Durability::EveryPacket).namespace("/", |ns| {
                ns.keep_data::<String>();
                ns.on_connect(|socket| {
                    if !socket.recovered() {
                        socket.set_data("admin".to_owned());
                        socket.set_data(7_u32);
                    }
                });
                ns.on("get", |socket, event| event.ack(socket.data::<String>().as_deref()));
            })
        })
    };
    let server = begin();
    let (mut client, consent) = connect(addr(&server), &json!({}));
    client.send(r#"421["get"]"#);
    client.expect("431[null]");
    drop(client);
    empty(&server.of("/").unwrap());
    server.shutdown(Duration::from_secs(1));
    let server = begin();
    let (mut client, _) = connect(addr(&server), &json!({"pid": consent["pid"]}));
    client.send(r#"421["get"]"#);
    client.expect("431[null]");
}

/// Clients in several namespaces push each other out.
#[test]
fn away_in_several_namespaces() {
    let server = serve(|builder| {
        builder
            .max_connections(10)
            .connection_state_recovery(ConnectionStateRecovery::new())
            .namespace("/", |_| {})
            .namespace("/a", |_| {})
            .namespace("/b", |_| {})
    });
    let mut pids = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..10 {
        let (mut client, consent) = connect(addr(&server), &json!({}));
        client.join("/a", "");
        client.join("/b", "");
        pids.push(consent["pid"].clone());
        clients.push(client);
    }
    drop(clients);
    eventually("all are gone", || server.clients_count() == 0);
    let mut recovered = 0;
    for pid in &pids {
        let (client, consent) = connect(addr(&server), &json!({"pid": pid}));
        recovered += usize::from(consent["pid"] == *pid);
        drop(client);
        eventually("it is gone", || server.clients_count() == 0);
    }
    assert_eq!(recovered, 10);
}

/// A duration that no clock can tell ended the hub.
#[rstest]
#[case::never(Duration::MAX)]
#[case::always(Duration::ZERO)]
fn no_duration(#[case] every: Duration) {
    let started = Server::builder().store(MemoryStore::new(), Durability::Every(every)).listen("127.0.0.1:0");
    assert!(started.unwrap_err().to_string().contains("Durability::Every"));
}

/// The answer that was given by another thread is repeated before it is kept.
#[test]
fn repeated_before_it_is_kept() {
    let gate: Arc<(Mutex<bool>, Condvar)> = Arc::default();
    let store = Gated(MemoryStore::new(), Arc::clone(&gate));
    let (hand, acks) = channel::<Ack>();
    let server = serve(|builder| {
        builder.store(store, Durability::EveryPacket).namespace("/", |ns| {
            ns.on("echo", |_, event| event.ack(()));
            ns.on("ask", move |_, event| hand.send(event.take_ack().unwrap()).unwrap());
        })
    });
    let (mut first, _) = connect(addr(&server), &json!({"rid": "me"}));
    let (mut second, _) = connect(addr(&server), &json!({"rid": "me"}));
    first.send(r#"420["ask"]"#);
    let ack = next(&acks, "the acknowledgement");
    let _ = server.of("/").unwrap().room_len("");
    *gate.0.lock() = true;
    ack.send("done").unwrap();
    let opened = AtomicBool::new(false);
    let kept = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Time for a wrong answer to come.
            std::thread::sleep(Duration::from_millis(100));
            opened.store(true, SeqCst);
            *gate.0.lock() = false;
            gate.1.notify_all();
        });
        second.send(r#"420["ask"]"#);
        second.expect(r#"430["done"]"#);
        opened.load(SeqCst)
    });
    assert!(kept, "the client has an answer that is in memory only");
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
                    std::thread::sleep(Duration::from_millis(30));
                    socket.namespace().emit("the last step", ())
                });
            },
        )
    });
    let mut client = Client::new(addr(&server), Road::WebSocket);
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

/// A handler that runs is forgotten when many others come, and its event is handled again.
#[test]
fn a_running_handler_is_evicted() {
    let (hand, acks) = channel::<Ack>();
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let server = serve(|builder| {
        builder.max_connections(3).connection_state_recovery(ConnectionStateRecovery::new()).namespace(
            "/",
            |ns| {
                ns.on("echo", |_, event| event.ack(()));
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
    let mut client = Client::new(addr(&server), Road::WebSocket);
    for number in 0..20 {
        client.join("/", &json!({"rid": format!("client {number}")}).to_string());
        client.send(r#"420["echo"]"#);
        client.expect("430[]");
        client.send("41");
    }
    asker.send_texts(&[r#"420["ask"]"#, r#"42["nothing"]"#]);
    client.join("/", "");
    client.send(r#"420["echo"]"#);
    client.expect("430[]");
    ack.send("done").unwrap();
    asker.expect(r#"430["done"]"#);
    asker.send(r#"421["echo"]"#);
    asker.expect("431[]");
    assert_eq!(handled.load(SeqCst), 1);
}
