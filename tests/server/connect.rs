//! Joining and leaving namespaces: auth, middlewares, refusals, and the reason of every ending.

use std::{
    sync::{Mutex, mpsc},
    thread,
    time::Duration,
};

use Transport::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;
use tinysio::server::{ConnectError, Server, Socket};

use crate::support::{Client, Frame, Http, PATIENCE, Transport, addr, all_gone, next, serve, serve_root};

#[derive(Deserialize)]
struct Auth {
    token: Option<String>,
}

#[rstest]
fn auth_is_accepted_or_refused_with_message_and_data(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let (report, reports) = mpsc::channel();
    let server = serve_root(|ns| {
        ns.middleware(|socket| match socket.auth_as::<Auth>() {
            Ok(Auth { token: Some(token) }) if token == "secret" => Ok(()),
            Ok(Auth { token: None }) => Err(ConnectError::new("no token")),
            _ => Err(ConnectError::new("wrong token").with_data(json!({ "code": 7 }))),
        });
        ns.on_connect(move |socket| report.send(socket.id().to_owned()).unwrap());
    });
    let mut client = Client::new(addr(&server), transport);
    client.send("40");
    client.expect(r#"44{"message":"no token"}"#);
    client.send(r#"40{"token":"guess"}"#);
    client.expect(r#"44{"message":"wrong token","data":{"code":7}}"#);
    // The session lives on, and may try again.
    let id = client.join("/", r#"{"token":"secret"}"#);
    assert_eq!(next(&reports, "the connect handler"), id);
    assert_ne!(id, client.open.sid, "the session's id is secret");
    assert!(reports.try_recv().is_err(), "refused clients reached the connect handler");
}

#[rstest]
fn middlewares_run_in_their_order_until_one_refuses(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let (report, reports) = mpsc::channel();
    let server = serve_root(|ns| {
        for (name, verdict) in [("first", true), ("second", false), ("third", true)] {
            let report = report.clone();
            ns.middleware(move |socket| {
                report.send((name, socket.emit("too early", ()).is_err())).unwrap();
                if verdict { Ok(()) } else { Err(ConnectError::new("stop")) }
            });
        }
    });
    let mut client = Client::new(addr(&server), transport);
    client.send("40");
    client.expect(r#"44{"message":"stop"}"#);
    drop((client, report));
    drop(server);
    let seen: Vec<_> = reports.iter().collect();
    assert_eq!(seen, [("first", true), ("second", true)], "nothing can be sent before the consent");
}

/// The client may have sent before it knew that the server has removed it: that is passed over, and its other
/// namespaces live on.
#[rstest]
#[case::disconnect(|server: &Server| server.of("/other").unwrap().sockets()[0].disconnect(false))]
#[case::disconnect_sockets(|server: &Server| server.of("/other").unwrap().disconnect_sockets(false))]
fn what_is_under_way_for_a_namespace_that_the_server_has_left_is_ignored(
    #[case] remove: fn(&Server),
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    #[values(true, false)] is_elsewhere: bool,
) {
    let server = serve(|builder| {
        let mut builder = builder;
        for (name, answer) in [("/", "here"), ("/other", "there")] {
            builder = builder.namespace(name, move |ns| {
                ns.on("ask", move |_, event| event.ack(answer));
            });
        }
        builder
    });
    let mut client = Client::new(addr(&server), transport);
    if is_elsewhere {
        client.join("/", "");
    }
    client.join("/other", "");
    remove(&server);
    client.expect("41/other,");
    client.send_burst(&[
        Frame::text(r#"42/other,1["ask"]"#),
        Frame::text(r#"451-/other,["bytes",{"_placeholder":true,"num":0}]"#),
        Frame::Binary(vec![1, 2, 3]),
        Frame::text("43/other,7[]"),
        Frame::text("41/other,"),
    ]);
    client.join("/other", "");
    client.send(r#"42/other,2["ask"]"#);
    client.expect(r#"43/other,2["there"]"#);
    if is_elsewhere {
        client.send(r#"423["ask"]"#);
        client.expect(r#"433["here"]"#);
    }
}

/// A client that has left by itself knows it, as on the official server.
#[rstest]
fn what_is_sent_to_a_namespace_that_the_client_has_left_closes(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let server = serve_root(|_| {});
    let mut client = Client::connected(addr(&server), transport);
    client.send_texts(&["41", r#"42["ask"]"#]);
    client.closed("the end");
}

#[rstest]
fn a_room_left_in_a_middleware_is_left(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve_root(|ns| {
        ns.middleware(|socket| {
            socket.join("left");
            socket.join("stays");
            socket.join("stays");
            Ok(())
        });
        ns.middleware(|socket| {
            socket.leave("left");
            assert_eq!(socket.rooms(), ["stays".into()]);
            Ok(())
        });
        ns.on("rooms", |socket, event| {
            event.ack(socket.rooms().iter().map(|room| room.to_string()).collect::<Vec<_>>())
        });
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send(r#"420["rooms"]"#);
    client.expect(r#"430[["stays"]]"#);
}

/// Data that is written when the test lets it.
struct Gated(Option<Mutex<mpsc::Receiver<()>>>);

impl Serialize for Gated {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(gate) = &self.0 {
            let _ = gate.lock().unwrap().recv_timeout(PATIENCE);
        }
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Gated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Self(None))
    }
}

/// As soon as a socket can be found, what a thread does to its rooms is in order with what the thread emits, whatever
/// the thread that admits the socket still has to do.
#[rstest]
fn a_room_joined_right_after_the_connection_gets_what_follows(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let (open, gate) = mpsc::channel();
    let gate = Mutex::new(Some(Mutex::new(gate)));
    let server = serve_root(move |ns| {
        ns.keep_data::<Gated>().middleware(move |socket| {
            socket.set_data(Gated(gate.lock().unwrap().take()));
            Ok(())
        });
    });
    let io = server.of("/").unwrap();
    let mut client = Client::new(addr(&server), transport);
    let id = if client.is_polling() {
        // Its POST is answered when the data has been written.
        let mut http = Http::connect(addr(&server));
        http.begin("POST", &client.target("polling"), "40");
        client.text("the consent");
        io.sockets().pop().unwrap().id().to_owned()
    } else {
        client.join("/", "")
    };
    let socket = io.sockets().pop().unwrap();
    assert_eq!(socket.id(), id);
    for n in 0..3 {
        socket.join("room");
        io.to("room").emit("n", n).unwrap();
        socket.leave("room");
        io.to("room").emit("unheard", n).unwrap();
    }
    for n in 0..3 {
        client.expect(&format!(r#"42["n",{n}]"#));
    }
    open.send(()).unwrap();
}

/// Whatever another thread does to the rooms while the socket is admitted.
#[test]
fn no_join_and_no_leave_is_lost_during_the_admission() {
    let (hand_over, sockets) = mpsc::sync_channel::<Socket>(0);
    let (report, done) = mpsc::channel();
    let server = serve_root(move |ns| {
        ns.middleware(move |socket| {
            socket.join("left");
            hand_over.send(socket.clone()).unwrap();
            Ok(())
        });
    });
    let joins = move || {
        for socket in sockets {
            for room in 0..8 {
                socket.join(&room.to_string());
            }
            socket.leave("left");
            report.send(socket).unwrap();
        }
    };
    let other = thread::Builder::new().spawn(joins).unwrap();
    for round in 0..100 {
        let mut client = Client::connected(addr(&server), WebSocket);
        let rooms = next(&done, "the other thread").rooms();
        assert_eq!(rooms.len(), 8, "round {round}: {rooms:?}");
        client.leave();
    }
    drop(server);
    other.join().unwrap();
}

#[test]
fn a_panic_in_a_middleware_refuses() {
    let server = serve_root(|ns| {
        ns.middleware(|_| panic!("on purpose"));
    });
    let mut client = Client::new(addr(&server), WebSocket);
    client.send("40");
    client.expect(r#"44{"message":"Internal server error"}"#);
}

#[rstest]
fn namespaces_are_apart_and_share_a_session(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve(|builder| {
        let mut builder = builder;
        for name in ["/", "/a", "/b"] {
            builder = builder.namespace(name, |ns| {
                ns.on("where", |socket, event| event.ack(socket.namespace().name()));
            });
        }
        builder
    });
    let mut client = Client::new(addr(&server), transport);
    client.join("/a", "");
    client.join("/b", "");
    client.send(r#"42/b,1["where"]"#);
    client.expect(r#"43/b,1["/b"]"#);
    server.of("/a").unwrap().emit("news", 1).unwrap();
    client.expect(r#"42/a,["news",1]"#);
    client.send("41/a,");
    client.send(r#"42/b,2["where"]"#);
    client.expect(r#"43/b,2["/b"]"#);
    assert_eq!((server.of("/a").unwrap().len(), server.of("/b").unwrap().len()), (0, 1));
    assert!(server.of("/c").is_none());
    client.join("/a", "");
}

/// How a session, or a socket in it, comes to its end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    ClientLeavesNamespace,
    ServerLeavesNamespace,
    ServerCloses,
    ClientCloses,
    ClientSaysOne,
    ClientVanishes,
    Silence,
    BrokenPacket,
    BrokenFrame,
    TooBig,
    Shutdown,
}

#[rstest]
#[case(Way::ClientLeavesNamespace, "client namespace disconnect")]
#[case(Way::ServerLeavesNamespace, "server namespace disconnect")]
#[case(Way::ServerCloses, "server namespace disconnect")]
#[case(Way::ClientCloses, "transport close")]
#[case(Way::ClientSaysOne, "transport close")]
#[case(Way::Silence, "ping timeout")]
#[case(Way::BrokenPacket, "parse error")]
#[case(Way::Shutdown, "server shutting down")]
fn every_ending_has_its_reason(
    #[case] way: Way,
    #[case] reason: &str,
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    check_ending(way, reason, transport);
}

#[rstest]
#[case(Way::ClientVanishes, "transport error", Polling)]
#[case(Way::ClientVanishes, "transport close", WebSocket)]
#[case(Way::ClientVanishes, "transport close", Upgrade)]
#[case(Way::BrokenFrame, "transport error", WebSocket)]
#[case(Way::BrokenFrame, "transport error", Upgrade)]
#[case(Way::TooBig, "message too big", WebSocket)]
#[case(Way::TooBig, "message too big", Upgrade)]
fn every_ending_of_a_transport_has_its_reason(
    #[case] way: Way,
    #[case] reason: &str,
    #[case] transport: Transport,
) {
    check_ending(way, reason, transport);
}

fn check_ending(way: Way, reason: &str, transport: Transport) {
    let (report, reports) = mpsc::channel();
    let report_leaving = report.clone();
    let server = serve(|builder| {
        let silence = way == Way::Silence;
        builder
            .ping_interval(Duration::from_millis(if silence { 500 } else { 25_000 }))
            .ping_timeout(Duration::from_millis(if silence { 500 } else { 20_000 }))
            .namespace("/", |ns| {
                ns.on("join", |socket, event| {
                    socket.join("lobby");
                    event.ack(())
                });
                ns.on("bye", |socket, event| socket.disconnect(event.arg(0).unwrap()));
                ns.on_disconnecting(move |socket, reason| {
                    report_leaving.send(("leaving", reason.as_str(), socket.rooms().len())).unwrap();
                });
                ns.on_disconnect(move |socket, reason| {
                    assert!(socket.emit("too late", ()).is_err());
                    report.send(("left", reason.as_str(), socket.rooms().len())).unwrap();
                });
            })
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send(r#"421["join"]"#);
    client.expect("431[]");
    if way == Way::ClientVanishes {
        client.ask();
        drop(client);
    } else if end(&server, &mut client, way) {
        client.join("/", "");
        client.leave();
    }
    assert_eq!(next(&reports, "on_disconnecting"), ("leaving", reason, 1));
    assert_eq!(next(&reports, "on_disconnect"), ("left", reason, 0));
    if way != Way::Shutdown {
        all_gone(&server);
        assert_eq!(server.of("/").unwrap().len(), 0);
    }
}

/// Ends the client's session, or its socket, that way; `true`: the session lives on.
fn end(server: &Server, client: &mut Client, way: Way) -> bool {
    match way {
        Way::ClientLeavesNamespace => {
            client.send("41");
            return true;
        }
        Way::ServerLeavesNamespace => {
            client.send(r#"42["bye",false]"#);
            client.expect("41");
            return true;
        }
        Way::ServerCloses => {
            client.send(r#"42["bye",true]"#);
            client.expect("41");
            assert_eq!(client.closed("the close by the server"), []);
        }
        Way::ClientCloses => {
            client.leave();
            if !client.is_polling() {
                assert_eq!(client.next("the answer to the close"), Frame::Close(Some(1000)));
            }
        }
        Way::ClientSaysOne => {
            client.send("1");
            if client.is_polling() {
                client.closed("the close that was asked for");
            } else {
                // Passed over on WebSocket, where the connection's end counts.
                client.leave();
            }
        }
        // Nothing is read, so no ping is answered.
        Way::Silence | Way::ClientVanishes => {}
        Way::BrokenPacket => {
            client.send("42{}");
            client.closed("the close after a broken packet");
        }
        Way::BrokenFrame => {
            // A text frame with a reserved bit.
            client.ws().send_raw(&[0xc1, 0x80, 0, 0, 0, 0]);
            assert_eq!(client.ws().closed("the close after a broken frame"), Some(Some(1002)));
        }
        Way::TooBig => {
            let text = "x".repeat(1_000_001);
            client.ws().send(&text);
            assert_eq!(client.ws().closed("the close after too large a message"), Some(Some(1009)));
        }
        Way::Shutdown => {
            thread::scope(|scope| {
                scope.spawn(|| client.closed("the close by the server"));
                server.shutdown(Duration::from_secs(20));
            });
        }
    }
    false
}

#[rstest]
fn a_client_that_joins_again_at_once_is_not_connected_twice(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let server = serve_root(|_| {});
    let mut client = Client::new(addr(&server), transport);
    for round in 0..50 {
        client.join("/", "");
        let [socket] = &server.of("/").unwrap().sockets()[..] else {
            panic!("round {round}: not one socket")
        };
        // By another thread than the one that reads the client's packets.
        socket.disconnect(false);
        client.expect("41");
    }
}

#[rstest]
fn who_was_told_of_a_socket_finds_it(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve_root(|_| {});
    let mut clients: Vec<Client> = (0..20).map(|_| Client::new(addr(&server), transport)).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        let id = client.join("/", "");
        server.to(&id).unwrap().emit("hello", index).unwrap();
        client.expect(&format!(r#"42["hello",{index}]"#));
    }
}

#[rstest]
fn who_joins_no_namespace_in_time_is_closed(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve(|builder| {
        builder.connect_timeout(Duration::from_millis(100)).namespace("/", |ns| {
            ns.middleware(|_| Err(ConnectError::new("no")));
        })
    });
    let mut client = Client::new(addr(&server), transport);
    client.send("40");
    client.expect(r#"44{"message":"no"}"#);
    assert_eq!(client.closed("the close without a namespace"), []);
    all_gone(&server);
}

/// Only the namespace of the caller was told, so the official client came back in the others.
#[rstest]
fn disconnect_true_says_goodbye_in_every_namespace(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let (report, reports) = mpsc::channel();
    let server = serve(|builder| {
        builder.namespace("/", |ns| _ = ns.on("bye", |socket, _| socket.disconnect(true))).namespace(
            "/b",
            |ns| {
                ns.on_disconnect(move |_, reason| report.send(reason.as_str()).unwrap());
            },
        )
    });
    let mut client = Client::connected(addr(&server), transport);
    client.join("/b", "");
    client.send(r#"42["bye"]"#);
    client.expect("41");
    client.expect("41/b,");
    assert_eq!(client.closed("the end").len(), 0);
    assert_eq!(next(&reports, "the other namespace's handler"), "server namespace disconnect");
    all_gone(&server);
}
