//! The same scenarios against both servers and over every way to carry them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rstest::rstest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tinysio::{
    Bytes,
    client::{Client, CloseReason, ConnectionState, Delivery, Error, TransportKind},
};

use crate::support::{LONG, Peer, Server, Way, hear, quick, until};

fn connected(server: &Server, way: Way) -> Client {
    let client = way.set(quick(&server.url())).build().unwrap();
    client.connect().unwrap();
    client
}

#[rstest]
#[ignore = "needs Node and Python"]
fn events_and_acknowledgements(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let server = Server::start(peer, &[]);
    let client = way.set(quick(&server.url())).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("shouted");
    socket.on("shouted", move |_, event| said.send(event.parse::<(String, u32)>().unwrap()).unwrap());
    client.connect().unwrap();
    socket.emit("shout", ("a", 1)).unwrap();
    assert_eq!(heard.next(), ("a".to_owned(), 1));

    let value = json!({ "y": [1, null, "ü\u{1e}"] });
    let answer = socket.emit_with_ack("echo", ("x", &value), LONG).unwrap();
    assert_eq!(answer.args().parse::<(String, Value)>().unwrap(), ("x".into(), value));

    let (answered, answers) = hear("the callback");
    socket
        .emit_with_callback("echo", "back", LONG, move |_, answer| {
            answered.send(answer.unwrap().get::<String>(0).unwrap()).unwrap();
        })
        .unwrap();
    assert_eq!(answers.next(), "back");

    if way == Way::Upgrade {
        until("the upgrade", || client.status().transport == Some(TransportKind::Websocket));
        let answer = socket.emit_with_ack("transport", (), LONG).unwrap();
        assert_eq!(answer.get::<String>(0).unwrap(), "websocket");
    }
    let stats = client.stats();
    assert!(stats.sent >= 3 && stats.received >= 3 && stats.ack_rtt.is_some(), "{stats:?}");
    assert_eq!((stats.connects, stats.reconnects, stats.errors), (1, 0, 0));
    client.disconnect();
    assert_eq!(client.status().state, ConnectionState::Disconnected);
}

#[rstest]
#[ignore = "needs Node and Python"]
fn only_tuples_spread(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let server = Server::start(peer, &[]);
    let client = connected(&server, way);
    let socket = client.socket("/");
    let (said, heard) = hear("an event");
    socket.on("shouted", move |_, event| {
        let args: Vec<Value> =
            event.args().iter().map(|arg| serde_json::from_str(arg.json()).unwrap()).collect();
        said.send(args).unwrap();
    });
    let one = json!([1.5, 2.5]);
    for (emitted, arguments) in [
        (socket.emit("shout", [1.5, 2.5]), vec![one.clone()]),
        (socket.emit("shout", vec![1.5, 2.5]), vec![one.clone()]),
        (socket.emit("shout", &[1.5, 2.5][..]), vec![one.clone()]),
        (socket.emit("shout", &one), vec![one]),
        (socket.emit("shout", Value::Null), vec![Value::Null]),
        (socket.emit("shout", (1, 2)), vec![json!(1), json!(2)]),
        (socket.emit("shout", ([1, 2],)), vec![json!([1, 2])]),
    ] {
        emitted.unwrap();
        assert_eq!(heard.next(), arguments);
    }
    socket.on("question", |_, event| event.ack([1, 2]));
    let (said, heard) = hear("the answer to the server");
    socket.on("answered", move |_, event| said.send(event.parse::<(Value, Value)>().unwrap()).unwrap());
    socket.emit("ask", ()).unwrap();
    assert_eq!(heard.next(), (json!([1, 2]), Value::Null));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Photo {
    name: String,
    data: Bytes,
    thumbnails: Vec<Bytes>,
}

#[rstest]
#[ignore = "needs Node and Python"]
fn binary_both_ways(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let server = Server::start(peer, &[]);
    let client = way.set(quick(&server.url())).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("shouted");
    socket.on("shouted", move |_, event| said.send(event.parse::<(Photo, Bytes)>().unwrap()).unwrap());
    client.connect().unwrap();
    let photo = || Photo {
        name: "cat".into(),
        data: (0..=255).cycle().take(200_000).collect::<Vec<u8>>().into(),
        thumbnails: vec![Bytes::from_static(b"\0\x1e"), Bytes::new()],
    };
    for round in 0..3 {
        let raw = Bytes::from(vec![round; 10]);
        socket.emit("shout", (photo(), &raw)).unwrap();
        assert!(heard.next() == (photo(), raw.clone()));
        let answer = socket.emit_with_ack("echo", (photo(), &raw), LONG).unwrap();
        assert!(answer.args().parse::<(Photo, Bytes)>().unwrap() == (photo(), raw));
    }
}

#[rstest]
#[ignore = "needs Node and Python"]
fn the_server_asks_and_is_answered(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(Way::Polling, Way::Websocket)] way: Way,
) {
    let server = Server::start(peer, &[]);
    let client = way.set(quick(&server.url())).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("answered");
    socket.on("answered", move |_, event| said.send(event.parse::<(String, Bytes)>().unwrap()).unwrap());
    socket.on("question", |_, event| {
        let (text, data): (String, Bytes) = event.parse()?;
        assert!(event.wants_ack());
        let ack = event.take_ack();
        assert!(!event.wants_ack(), "taken");
        event.ack("too late, and without effect").unwrap();
        // Answered later, from another thread.
        std::thread::Builder::new()
            .spawn(move || ack.unwrap().send((format!("{text}!"), data)).unwrap())
            .unwrap();
        Ok::<(), serde_json::Error>(())
    });
    client.connect().unwrap();
    socket.emit("ask", ("how", Bytes::from_static(b"\x01\x02"))).unwrap();
    assert_eq!(heard.next(), ("how!".to_owned(), Bytes::from_static(b"\x01\x02")));
}

#[rstest]
#[ignore = "needs Node and Python"]
fn an_acknowledgement_can_be_waited_for_inside_a_handler(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(Way::Polling, Way::Websocket)] way: Way,
) {
    let server = Server::start(peer, &[]);
    // Fewer than the events that are on their way before the acknowledgement.
    let client = way.set(quick(&server.url())).event_queue(8).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("an answer inside a handler");
    socket.on("n", move |socket, event| {
        let n: u32 = event.arg(0).unwrap();
        if n == 0 {
            let outer = socket.emit_with_ack("echo", "outer", LONG).unwrap().get::<String>(0).unwrap();
            said.send(outer).unwrap();
        }
    });
    client.connect().unwrap();
    socket.emit("flood", 20).unwrap();
    assert_eq!(heard.next(), "outer");
}

#[rstest]
#[ignore = "needs Node and Python"]
fn namespaces_share_the_connection(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let server = Server::start(peer, &[]);
    let client = way
        .set(quick(&server.url()))
        .auth_with(|namespace| json!({ "token": "good", "for": namespace }))
        .build()
        .unwrap();
    let sockets = ["/", "/chat", "private"].map(|name| client.socket(name));
    client.connect().unwrap();
    for socket in &sockets {
        assert!(socket.is_connected());
        let answer = socket.emit_with_ack("auth", (), LONG).unwrap();
        assert_eq!(answer.get::<Value>(0).unwrap(), json!({ "token": "good", "for": socket.namespace() }));
    }
    let ids: std::collections::HashSet<_> = sockets.iter().map(|socket| socket.id().unwrap()).collect();
    assert_eq!(ids.len(), 3, "each membership has an id of its own");

    // One leaves, the others stay; and it can come back.
    sockets[1].disconnect();
    assert!(!sockets[1].is_connected() && sockets[1].id().is_none());
    sockets[0].emit_with_ack("echo", "still here", LONG).unwrap();
    sockets[1].connect().unwrap();
    client.wait_connected(LONG).unwrap();
    sockets[1].emit_with_ack("echo", "back", LONG).unwrap();
    assert_eq!(client.stats().connects, 1);
}

#[rstest]
#[ignore = "needs Node and Python"]
fn a_refused_namespace_is_not_tried_again(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(Way::Polling, Way::Websocket)] way: Way,
) {
    let server = Server::start(peer, &[]);
    let token = Arc::new(AtomicU32::new(0));
    let asked = token.clone();
    let client = way
        .set(quick(&server.url()))
        .auth_with(move |_| {
            let good = asked.fetch_add(1, Ordering::SeqCst) > 0;
            json!({ "token": if good { "good" } else { "bad" } })
        })
        .build()
        .unwrap();
    let socket = client.socket("/private");
    let (said, heard) = hear("connect_error");
    socket.on_connect_error(move |_, error| said.send(error.clone()).unwrap());
    let error = client.connect().unwrap_err();
    assert!(matches!(&error, Error::Refused { message, .. } if &**message == "not allowed"), "{error}");
    assert_eq!(error.refusal_data::<Value>(), Some(json!({ "code": 7 })));
    assert!(matches!(heard.next(), Error::Refused { .. }));
    assert_eq!(client.wait_timeout(LONG).unwrap(), Some(CloseReason::IoServerDisconnect));
    assert_eq!(heard.within(Duration::from_millis(300)).map(|error| error.to_string()), None);
    assert_eq!(token.load(Ordering::SeqCst), 1);

    // With better credentials, on request.
    socket.connect().unwrap();
    client.wait_connected(LONG).unwrap();
    assert!(socket.is_connected());
}

#[rstest]
#[ignore = "needs Node and Python"]
fn an_unknown_namespace_is_refused(#[values(Peer::Node, Peer::Python)] peer: Peer) {
    let server = Server::start(peer, &[]);
    let client = quick(&format!("{}/nope", server.url())).build().unwrap();
    assert_eq!(client.namespace(), "/nope");
    assert!(matches!(client.connect(), Err(Error::Refused { .. })));
}

#[rstest]
#[ignore = "needs Node and Python"]
fn survives_a_restart_of_the_server(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let mut server = Server::start(peer, &[]);
    let auths = Arc::new(AtomicU32::new(0));
    let counter = auths;
    let client = way
        .set(quick(&server.url()))
        .auth_with(move |_| json!({ "n": counter.fetch_add(1, Ordering::SeqCst) }))
        .build()
        .unwrap();
    let sockets = [client.socket("/"), client.socket("/chat")];
    let socket = &sockets[0];
    let (said, heard) = hear("the story of the connection");
    let tell = said.clone();
    socket.on_connect(move |_| tell.send("connect".to_owned()).unwrap());
    let tell = said.clone();
    socket.on_disconnect(move |_, reason| tell.send(format!("disconnect: {reason}")).unwrap());
    let tell = said.clone();
    client.on_reconnect(move |_, _| tell.send("reconnect".to_owned()).unwrap());
    socket.on("shouted", move |_, event| said.send(event.arg(0).unwrap()).unwrap());
    client.connect().unwrap();
    assert_eq!(heard.next(), "connect");
    if way == Way::Upgrade {
        until("the upgrade", || client.status().transport == Some(TransportKind::Websocket));
    }

    let waiting = socket.clone();
    let pending = std::thread::Builder::new()
        .spawn(move || waiting.emit_with_ack("silent", (), Duration::from_secs(60)))
        .unwrap();
    until("the event to be sent", || client.stats().sent > 0);
    server.kill();
    let story = heard.next();
    assert!(["disconnect: transport close", "disconnect: transport error"].contains(&&*story), "{story}");
    // At the moment of the loss, not after a minute.
    assert!(matches!(pending.join().unwrap(), Err(Error::Disconnected(_))));

    for text in ["one", "two", "three"] {
        assert_eq!(socket.emit("shout", text).unwrap(), Delivery::Buffered);
    }
    assert_eq!(socket.emit_volatile("shout", "lost").unwrap(), Delivery::Dropped);
    let asking = socket.clone();
    let asked = std::thread::Builder::new().spawn(move || asking.emit_with_ack("auth", (), LONG)).unwrap();
    until("the emit to be buffered", || client.status().buffered == 4);
    until("a failed attempt", || client.status().attempts > 1);

    let _server = Server::start_at(peer, server.port, &[]);
    for expected in ["reconnect", "connect", "one", "two", "three"] {
        assert_eq!(heard.next(), expected);
    }
    let n: Value = asked.join().unwrap().unwrap().get(0).unwrap();
    assert!(n["n"].as_u64().unwrap() >= 2, "fresh auth: {n}");
    client.wait_connected(LONG).unwrap();
    assert!(sockets.iter().all(|socket| socket.is_connected()));
    assert_eq!(client.stats().reconnects, 1);
}

#[rstest]
#[case("kick", Peer::Node)]
#[case("kick_hard", Peer::Node)]
#[case("kick", Peer::Python)]
#[ignore = "needs Node and Python"]
fn the_servers_disconnect_is_the_end(
    #[case] how: &str,
    #[case] peer: Peer,
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let server = Server::start(peer, &[]);
    let client = connected(&server, way);
    let socket = client.socket("/");
    let (said, heard) = hear("disconnect");
    socket.on_disconnect(move |_, reason| said.send(reason).unwrap());
    socket.emit(how, ()).unwrap();
    assert_eq!(heard.next(), CloseReason::IoServerDisconnect);
    assert_eq!(client.wait().unwrap(), Some(CloseReason::IoServerDisconnect));
    assert_eq!(client.status().state, ConnectionState::Disconnected);
    assert_eq!(client.stats().attempts, 1);
    // And back, on request.
    client.connect().unwrap();
    socket.emit_with_ack("echo", "again", LONG).unwrap();
}

#[rstest]
#[ignore = "needs Node and Python"]
fn a_closed_transport_is_not_the_end(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let server = Server::start(peer, &[]);
    let client = connected(&server, way);
    let socket = client.socket("/");
    for round in 1..=3 {
        socket.emit("drop", ()).unwrap();
        until("the reconnection", || client.stats().reconnects == round && socket.is_connected());
    }
    socket.emit_with_ack("echo", "here", LONG).unwrap();
}

#[rstest]
#[ignore = "needs Node and Python"]
fn events_stay_in_order_through_a_slow_handler(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    const N: u32 = 2_000;
    let server = Server::start(peer, &[]);
    let client = way.set(quick(&server.url())).event_queue(16).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("the next number");
    socket.on("n", move |_, event| {
        let n: u32 = event.arg(0).unwrap();
        if n.is_multiple_of(100) {
            std::thread::sleep(Duration::from_millis(5));
        }
        said.send(n).unwrap();
    });
    client.connect().unwrap();
    socket.emit("flood", N).unwrap();
    for expected in 0..N {
        assert_eq!(heard.next(), expected);
    }
    assert_eq!(client.stats().disconnects, 0);
}

#[rstest]
#[ignore = "needs Node and Python"]
fn what_was_emitted_before_the_disconnect_arrives(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    const N: u32 = 300;
    let server = Server::start(peer, &[]);
    let client = way.set(quick(&server.url())).build().unwrap();
    let socket = client.socket("/");
    client.connect().unwrap();
    for n in 0..N {
        // Some of them binary, with whatever the upgrade does meanwhile.
        if n % 10 == 0 {
            socket.emit("count", Bytes::from(vec![0; 100])).unwrap();
        } else {
            socket.emit("count", n).unwrap();
        }
    }
    client.disconnect_within(LONG).unwrap();
    let client = connected(&server, Way::Websocket);
    let mut counted = 0;
    until("the count", || {
        counted = client.socket("/").emit_with_ack("counted", (), LONG).unwrap().get::<u32>(0).unwrap();
        counted == N
    });
}

#[rstest]
#[ignore = "needs Node"]
fn a_dropped_client_delivers_too(#[values(Way::Polling, Way::Websocket)] way: Way) {
    let server = Server::start(Peer::Node, &[]);
    let client = connected(&server, way);
    for _ in 0..50 {
        client.socket("/").emit("count", ()).unwrap();
    }
    drop(client);
    let client = connected(&server, Way::Websocket);
    until("the count", || {
        client.socket("/").emit_with_ack("counted", (), LONG).unwrap().get::<u32>(0).unwrap() == 50
    });
}

#[test]
#[ignore = "needs Node"]
fn query_and_headers_reach_the_server() {
    let server = Server::start(Peer::Node, &[]);
    for way in [Way::Polling, Way::Websocket] {
        let client = way
            .set(quick(&format!("{}?from=url", server.url())))
            .query("token", "a b&c")
            .extra_header("x-test", "yes")
            .build()
            .unwrap();
        client.connect().unwrap();
        let answer = client.socket("/").emit_with_ack("query", (), LONG).unwrap();
        let (query, headers): (Value, Value) = answer.args().parse().unwrap();
        assert_eq!((&query["token"], &query["from"]), (&json!("a b&c"), &json!("url")), "{way:?}");
        assert_eq!(headers["x-test"], json!("yes"), "{way:?}");
    }
}

#[rstest]
#[case("websocket", TransportKind::Websocket)]
#[case("polling", TransportKind::Polling)]
#[ignore = "needs Node"]
fn falls_back_to_the_transport_that_works(#[case] offered: &str, #[case] used: TransportKind) {
    let server = Server::start(Peer::Node, &["--transports", offered]);
    let orders = [
        [TransportKind::Polling, TransportKind::Websocket],
        [TransportKind::Websocket, TransportKind::Polling],
    ];
    for order in orders {
        let client = quick(&server.url()).transports(&order).build().unwrap();
        client.connect().unwrap();
        assert_eq!(client.status().transport, Some(used));
        client.socket("/").emit_with_ack("echo", "hello", LONG).unwrap();

        let strict = quick(&server.url())
            .transports(&order)
            .try_all_transports(false)
            .reconnection(false)
            .build()
            .unwrap();
        assert_eq!(strict.connect().is_ok(), order[0] == used);
    }
}

#[test]
#[ignore = "needs Node"]
fn an_upgrade_is_remembered() {
    let server = Server::start(Peer::Node, &[]);
    let client = quick(&server.url()).remember_upgrade(true).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("welcome");
    socket.on("welcome", move |_, event| {
        said.send(event.arg::<Value>(0).unwrap()["transport"].clone()).unwrap();
    });
    client.connect().unwrap();
    assert_eq!(heard.next(), json!("polling"));
    until("the upgrade", || client.status().transport == Some(TransportKind::Websocket));
    socket.emit("drop", ()).unwrap();
    assert_eq!(heard.next(), json!("websocket"));
}

#[rstest]
#[ignore = "needs Node"]
fn stays_on_polling_when_told_to(#[values(true, false)] by_server: bool) {
    let options: &[&str] = if by_server { &["--no-upgrade"] } else { &[] };
    let server = Server::start(Peer::Node, options);
    let client = quick(&server.url()).upgrade(by_server).build().unwrap();
    client.connect().unwrap();
    for _ in 0..20 {
        client.socket("/").emit_with_ack("echo", "hello", LONG).unwrap();
    }
    assert_eq!(client.status().transport, Some(TransportKind::Polling));
}

#[rstest]
#[ignore = "needs Node"]
fn refuses_what_the_server_would_not_take(#[values(Way::Polling, Way::Websocket)] way: Way) {
    let server = Server::start(Peer::Node, &["--max-payload", "1000"]);
    let client = connected(&server, way);
    let socket = client.socket("/");
    let text = |size| "x".repeat(size);
    assert!(matches!(socket.emit("shout", text(1_000)), Err(Error::TooLarge { max: 1_000, .. })));
    assert!(matches!(socket.emit("shout", Bytes::from(vec![0; 1_001])), Err(Error::TooLarge { .. })));
    // In base64 it is more.
    let edge = socket.emit("shout", Bytes::from(vec![0; 900]));
    assert_eq!(edge.is_err(), way == Way::Polling, "{edge:?}");
    for _ in 0..20 {
        socket.emit_with_ack("echo", text(900), LONG).unwrap();
        socket.emit("shout", (Bytes::from(vec![0; 700]), Bytes::from(vec![0; 700]))).unwrap();
    }
    socket.emit_with_ack("echo", "still connected", LONG).unwrap();
    assert_eq!(client.stats().connects, 1);
}

#[rstest]
#[ignore = "needs Node"]
fn retries_until_acknowledged(#[values(Way::Polling, Way::Websocket)] way: Way) {
    let server = Server::start(Peer::Node, &[]);
    let client =
        way.set(quick(&server.url())).retries(3).ack_timeout(Duration::from_millis(150)).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("acknowledgement");
    for n in 0..3 {
        let said = said.clone();
        // Acknowledged at every third try.
        let queued = socket.emit_with_callback("flaky", n, LONG, move |_, answer| {
            said.send(answer.unwrap().args().parse::<(u32, u32)>().unwrap()).unwrap();
        });
        assert_eq!(queued.unwrap(), Delivery::Buffered);
    }
    client.connect().unwrap();
    assert_eq!([heard.next(), heard.next(), heard.next()], [(0, 3), (1, 6), (2, 9)]);

    // One that is never acknowledged is given up, and does not hold up the next for ever.
    let (gave_up, given_up) = hear("the end of the tries");
    socket.emit_with_callback("silent", (), LONG, move |_, answer| gave_up.send(answer).unwrap()).unwrap();
    let answer = socket.emit_with_ack("echo", "next", LONG).unwrap();
    assert_eq!(answer.get::<String>(0).unwrap(), "next");
    assert!(matches!(given_up.next(), Err(Error::Timeout { .. })));
    assert_eq!(client.status().buffered, 0);
}

#[rstest]
#[ignore = "needs Node and Python"]
fn retries_survive_a_loss(#[values(Peer::Node, Peer::Python)] peer: Peer) {
    let mut server = Server::start(peer, &[]);
    let client = quick(&server.url()).retries(50).ack_timeout(Duration::from_millis(500)).build().unwrap();
    let socket = client.socket("/");
    client.connect().unwrap();
    socket.emit_with_ack("echo", 0, LONG).unwrap();
    server.kill();
    let (said, heard) = hear("acknowledgement");
    for n in 1..=20 {
        let said = said.clone();
        socket
            .emit_with_callback("echo", n, LONG, move |_, answer| {
                said.send(answer.unwrap().get::<u32>(0).unwrap()).unwrap();
            })
            .unwrap();
    }
    let _server = Server::start_at(peer, server.port, &[]);
    assert_eq!((1..=20).map(|_| heard.next()).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
}

#[rstest]
#[ignore = "needs Node and Python"]
fn answers_pings_and_notices_silence(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(Way::Polling, Way::Websocket)] way: Way,
) {
    // python-socketio counts in whole seconds.
    let server = Server::start(peer, &["--ping-interval", "1000", "--ping-timeout", "1000"]);
    let client = connected(&server, way);
    let socket = client.socket("/");
    let (said, heard) = hear("disconnect");
    socket.on_disconnect(move |_, reason| said.send(reason).unwrap());
    assert_eq!(heard.within(Duration::from_millis(3_500)), None, "the pongs keep it open");
    server.pause();
    assert_eq!(heard.next(), CloseReason::PingTimeout);
    server.resume();
    until("the reconnection", || socket.is_connected());
    socket.emit_with_ack("echo", "back", LONG).unwrap();
}
