//! A server with a store: nothing is said before it is kept, and the next process finds all of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use rstest::rstest;
use serde_json::json;
use tinysio::server::{ConnectionStateRecovery, Durability, MemoryStore, Namespace, Server};

use crate::support::{
    Client, Transport, addr,
    gate::Gate,
    recovery::{Caller, assert_same, connect, drain, empty, event, recovering},
    serve,
    stores::{Gated, Mortal},
};

/// What was kept with the socket is there again, in this process as it was, and after a restart as the store has it.
#[rstest]
fn data(#[values(false, true)] restarts: bool) {
    let store = MemoryStore::new();
    let begin = || {
        recovering(|builder| {
            builder.store(store.clone(), Durability::EveryPacket).namespace("/", |ns| {
                ns.keep_data::<String>();
                ns.on("set", |socket, event| event.arg::<String>(0).map(|text| socket.set_data(text)));
                ns.on("get", |socket, event| event.ack(socket.data::<String>().as_deref()));
            })
        })
    };
    let (mut server, mut io) = begin();
    let mut caller = Caller::new(addr(&server), Transport::WebSocket);
    let sid = caller.sid.clone();
    caller.client.send(r#"42["set","kept"]"#);
    caller.expect_nothing();
    let mut lost = caller.lose();
    empty(&io);
    if restarts {
        server.shutdown(Duration::from_secs(1));
        (server, io) = begin();
        lost.addr = addr(&server);
    }
    let mut caller = lost.back();
    assert_same(&caller, &sid);
    caller.client.send(r#"421["get"]"#);
    caller.client.expect(r#"431["kept"]"#);
    assert_eq!(io.len(), 1);
}

/// A restart in good order, and one without a word: the first server's clients are those of the second.
#[rstest]
fn a_restart(
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
    #[values(Durability::EveryPacket, Durability::Every(Duration::from_millis(1)))] durability: Durability,
) {
    let store = MemoryStore::new();
    let begin = || recovering(|builder| builder.store(store.clone(), durability));
    let (server, io) = begin();
    let mut caller = Caller::new(addr(&server), transport);
    let sid = caller.sid.clone();
    caller.client.send(r#"42["join","a room"]"#);
    caller.expect_nothing();
    io.emit("first", ()).unwrap();
    caller.expect(json!(["first"]));
    let mut lost = caller.lose();
    empty(&io);
    io.to("a room").emit("missed", 1).unwrap();
    server.shutdown(Duration::from_secs(1));
    let (server, io) = begin();
    io.emit("missed", 2).unwrap();
    lost.addr = addr(&server);
    let mut caller = lost.back();
    assert_same(&caller, &sid);
    caller.expect(json!(["missed", 1]));
    caller.expect(json!(["missed", 2]));
    io.to("a room").emit("live", ()).unwrap();
    caller.expect(json!(["live"]));
    caller.expect_nothing();
    // And once more, with nothing received in the life between.
    let mut lost = caller.lose();
    empty(&io);
    server.shutdown(Duration::from_secs(1));
    let (server, _) = begin();
    lost.addr = addr(&server);
    let caller = lost.back();
    assert_same(&caller, &sid);
    let stands = caller.stands.clone();
    let mut lost = caller.lose();
    server.shutdown(Duration::from_secs(1));
    let (server, io) = begin();
    lost.addr = addr(&server);
    lost.offset = Some(stands);
    let mut caller = lost.back();
    assert_same(&caller, &sid);
    io.to("a room").emit("end", ()).unwrap();
    caller.expect(json!(["end"]));
}

/// The shutdown itself is a loss from which one recovers.
#[rstest]
fn the_servers_shutdown(
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    let store = MemoryStore::new();
    let begin = || recovering(|builder| builder.store(store.clone(), Durability::EveryPacket));
    let (server, io) = begin();
    let mut caller = Caller::new(addr(&server), transport);
    let sid = caller.sid.clone();
    io.emit("last words", ()).unwrap();
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| server.shutdown(Duration::from_secs(5)));
        caller.expect(json!(["last words"]));
        caller.client.closed("the server's end");
        assert!(stop.join().unwrap());
    });
    let (server, _) = begin();
    let mut lost = caller.lose();
    lost.addr = addr(&server);
    let mut caller = lost.back();
    assert_same(&caller, &sid);
    caller.expect_nothing();
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

/// "Every change of a room is on the disk first": an answer overtakes the join.
#[test]
fn a_join_acknowledged_before_it_is_kept() {
    let gate = Gate::default();
    let store = Gated(MemoryStore::new(), gate.clone());
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
    let closed = gate.close();
    client.send(r#"420["join"]"#);
    closed.holds_up("the join");
    // A wrong answer has time to come meanwhile.
    let mut other = Client::new(addr(&server), Transport::WebSocket);
    other.join("/", r#"{"recovery":false}"#);
    other.send(r#"420["echo"]"#);
    other.expect("430[]");
    assert!(!client.ws().http.is_answered(), "acknowledged while the join was in memory only");
    drop(closed);
    client.expect("430[]");
}

/// A duration that no clock can tell ended the hub.
#[rstest]
#[case::never(Duration::MAX)]
#[case::always(Duration::ZERO)]
fn no_duration(#[case] every: Duration) {
    let started = Server::builder().store(MemoryStore::new(), Durability::Every(every)).listen("127.0.0.1:0");
    assert!(started.unwrap_err().to_string().contains("Durability::Every"));
}
