//! Which namespaces are joined, refused, left and asked for again; and what packets that a server should not send do.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::Sender,
    },
    time::{Duration, Instant},
};

use rstest::rstest;
use serde_json::{Value, json};
use tinysio::client::{Client, CloseReason, ConnectionState, Error, Socket, TransportKind};
use tungstenite::{Message, WebSocket, protocol::Role};

use crate::{
    fake::Fake,
    hostile::{accept_websocket, answer, listen, request},
    recovery_official::pass,
    support::{Heard, LONG, Peer, Server, Way, hear, in_thread, own_server, quick, until, url_of},
};

/// A client of the fake that has joined `/`.
fn joined(fake: &Fake, way: Way) -> (Client, Socket) {
    let client = way.set(quick(&fake.url)).build().unwrap();
    let socket = client.socket("/");
    client.start().unwrap();
    fake.joins(0, &json!({ "sid": "first" }));
    until("the join", || socket.is_connected());
    if way == Way::Upgrade {
        until("the upgrade", || client.status().transport == Some(TransportKind::Websocket));
    }
    (client, socket)
}

#[rstest]
#[case::it_lets_us_in(r#"40/chat,{"sid":"c"}"#, &["41/chat,"])]
#[case::it_refuses(r#"44/chat,{"message":"no"}"#, &[])]
fn a_namespace_left_while_it_is_joined_is_left_when_the_server_has_answered(
    #[case] answer: &str,
    #[case] goodbye: &[&str],
    #[values(true, false)] again: bool,
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let fake = Fake::start();
    let (_client, socket) = joined(&fake, way);
    let chat = socket.client().socket("/chat");
    chat.on_connect_error(|_, error| panic!("nobody asks any more, and hears {error}"));
    assert_eq!(fake.hears().1, "40/chat,");
    chat.disconnect();
    if again {
        chat.connect().unwrap();
    }
    // A DISCONNECT now, or another CONNECT, would cost the whole connection at the official server.
    socket.emit("marker", 1).unwrap();
    assert_eq!(fake.hears().1, r#"42["marker",1]"#);
    fake.says(0, answer);
    for packet in goodbye {
        assert_eq!(fake.hears().1, *packet);
    }
    if again {
        assert_eq!(fake.hears().1, "40/chat,");
        fake.says(0, r#"40/chat,{"sid":"d"}"#);
        until("the join", || chat.id().as_deref() == Some("d"));
    } else {
        fake.says(0, "2");
        assert_eq!(fake.hears().1, "3");
        assert!(!chat.is_connected());
    }
}

#[rstest]
#[ignore = "needs Node"]
fn a_namespace_left_while_it_is_joined_has_no_ghost_member(
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let server = Server::start(Peer::Node, &[]);
    let client = way.set(quick(&server.url())).build().unwrap();
    let socket = client.socket("/");
    client.connect().unwrap();
    let members = || {
        let answer = socket.emit_with_ack("members", "/slow", LONG).unwrap();
        answer.get::<usize>(0).unwrap()
    };
    // Its middleware takes 300 ms.
    let slow = client.socket("/slow");
    std::thread::sleep(Duration::from_millis(100));
    slow.disconnect();
    std::thread::sleep(Duration::from_millis(400));
    until("the ghost's end", || members() == 0);
    slow.connect().unwrap();
    client.wait_connected(LONG).unwrap();
    assert_eq!((members(), client.stats().disconnects), (1, 0));
    // Back at once: the CONNECT must not be read together with the DISCONNECT.
    slow.disconnect();
    slow.connect().unwrap();
    client.wait_connected(LONG).unwrap();
    assert_eq!((members(), client.stats().disconnects), (1, 0));
}

/// A server that refuses a second WebSocket while it believes the first one to be alive, as the official one.
fn one_upgrade_at_a_time(probes: Arc<AtomicU32>) -> String {
    let (asked, upgrading) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let joined = Arc::new(AtomicBool::new(false));
    listen(move |mut stream| {
        while let Some(request) = request(&mut stream) {
            if request.contains("transport=websocket") {
                accept_websocket(&mut stream, &request);
                let mut websocket = WebSocket::from_raw_socket(stream, Role::Server, None);
                match probes.fetch_add(1, Ordering::SeqCst) {
                    0 => while websocket.read().is_ok() {},
                    1 => {}
                    _ => {
                        websocket.read().unwrap();
                        websocket.send(Message::text("3probe")).unwrap();
                        upgrading.store(true, Ordering::SeqCst);
                        while websocket.read().is_ok() {}
                    }
                }
                return;
            } else if request.starts_with("POST") {
                answer(&mut stream, "200 OK", "ok");
                asked.store(true, Ordering::SeqCst);
            } else if !request.contains("sid=s") {
                let open =
                    r#"0{"sid":"s","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000}"#;
                answer(&mut stream, "200 OK", open);
            } else {
                let first = !joined.swap(true, Ordering::SeqCst);
                let go = if first { &asked } else { &upgrading };
                until("something to say", || go.load(Ordering::SeqCst));
                answer(&mut stream, "200 OK", if first { r#"40{"sid":"x"}"# } else { "6" });
            }
        }
    })
}

#[test]
fn a_namespace_added_while_the_upgrade_is_probed_does_not_end_the_upgrade() {
    let probes = Arc::new(AtomicU32::new(0));
    let client = Client::builder(&one_upgrade_at_a_time(probes.clone())).build().unwrap();
    let socket = client.socket("/");
    client.start().unwrap();
    until("the probe", || probes.load(Ordering::SeqCst) == 1 && socket.is_connected());
    let _chat = client.socket("/chat");
    until("the upgrade", || client.status().transport == Some(TransportKind::Websocket));
    assert_eq!(probes.load(Ordering::SeqCst), 3);
}

#[test]
#[ignore = "needs Node"]
fn a_namespace_added_at_any_moment_does_not_end_the_upgrade() {
    let server = Server::start(Peer::Node, &[]);
    for round in 0..32 {
        let client = quick(&server.url()).build().unwrap();
        let _socket = client.socket("/");
        client.start().unwrap();
        until("the session", || client.status().transport.is_some());
        std::thread::sleep(Duration::from_micros(round * 400));
        let _chat = client.socket("/chat");
        until("the upgrade", || client.status().transport == Some(TransportKind::Websocket));
    }
}

#[rstest]
#[ignore = "needs Node and Python"]
fn an_acknowledgement_of_a_refused_namespace_is_refused(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(0, 1)] retries: u32,
) {
    let server = Server::start(peer, &[]);
    let client = quick(&server.url()).retries(retries).build().unwrap();
    let (_socket, private) = (client.socket("/"), client.socket("/private"));
    let (said, heard) = hear("what becomes of the acknowledgement");
    let tell = |said: &Sender<Error>| {
        let said = said.clone();
        move |_: &Socket, answer: Result<tinysio::client::OwnedArgs, Error>| {
            said.send(answer.unwrap_err()).unwrap();
        }
    };
    private.emit_with_callback("echo", 1, LONG, tell(&said)).unwrap();
    let waiting = {
        let private = private.clone();
        std::thread::Builder::new().spawn(move || private.emit_with_ack("echo", 2, LONG)).unwrap()
    };
    until("both emits", || client.status().buffered == 2);
    let begun = Instant::now();
    assert!(matches!(client.connect(), Err(Error::Refused { .. })));
    assert!(matches!(heard.next(), Error::Refused { .. }));
    assert!(matches!(waiting.join().unwrap(), Err(Error::Refused { .. })));
    // What `retries` are to deliver is kept for whenever it is joined after all.
    assert_eq!(client.status().buffered, if retries > 0 { 2 } else { 0 });
    assert!(matches!(private.emit_with_ack("echo", 3, LONG), Err(Error::Refused { .. })));
    let late = private.emit_with_callback("echo", 4, LONG, tell(&said));
    assert!(matches!(late, Err(Error::Refused { .. })));
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
}

#[rstest]
fn an_attempt_cut_by_disconnect_is_no_failure_of_the_next(
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let server = own_server("127.0.0.1:0");
    let address = server.local_addr().unwrap();
    let answered = Arc::new(AtomicBool::new(false));
    let gate = answered.clone();
    // Says nothing at first, then passes on to the server.
    let url = listen(move |client| {
        if !gate.load(Ordering::SeqCst) {
            return std::thread::sleep(LONG);
        }
        let server = TcpStream::connect(address).unwrap();
        let (back, there) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        in_thread(move || pass(back, there));
        pass(client, server);
    });
    let client = way.set(Client::builder(&url)).reconnection_delay(LONG).build().unwrap();
    let _socket = client.socket("/");
    client.start().unwrap();
    until("the attempt", || client.stats().attempts == 1);
    std::thread::sleep(Duration::from_millis(50));
    answered.store(true, Ordering::SeqCst);
    client.disconnect();
    client.connect().unwrap();
    assert_eq!((client.stats().errors, client.status().attempts), (0, 0));
}

#[rstest]
fn disconnect_in_a_handler_drops_the_events_that_wait(
    #[values(true, false)] whole: bool,
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    const N: u32 = 100;
    let server = own_server("127.0.0.1:0");
    let client = way.set(quick(&url_of(&server))).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("the next call of a handler");
    let tell = said.clone();
    socket.on("n", move |socket, event| {
        until("the other events", || socket.client().stats().received >= u64::from(N));
        tell.send(event.arg::<u32>(0).unwrap().to_string()).unwrap();
        if whole { socket.client().disconnect() } else { socket.disconnect() }
    });
    socket.on_disconnect(move |_, reason| said.send(reason.to_string()).unwrap());
    client.connect().unwrap();
    socket.emit("flood", N).unwrap();
    assert_eq!((heard.next(), heard.next()), ("0".to_owned(), "io client disconnect".to_owned()));
    assert_eq!(heard.within(Duration::from_millis(100)), None);
    client.connect().unwrap();
    socket.emit_with_ack("echo", (), LONG).unwrap();
}

#[test]
#[ignore = "needs Node"]
fn every_connection_joins_the_active_namespaces() {
    let server = Server::start(Peer::Node, &[]);
    let asked: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let ask = asked.clone();
    let auth = move |namespace: &str| ask.lock().unwrap().push(namespace.to_owned());
    let client = quick(&server.url()).auth_with(auth).build().unwrap();
    let sockets = ["/", "/chat", "/private"].map(|name| client.socket(name));
    let joins = || {
        let mut joins = std::mem::take(&mut *asked.lock().unwrap());
        joins.sort();
        joins
    };
    assert!(matches!(client.connect(), Err(Error::Refused { .. })));
    until("the others", || sockets[0].is_connected() && sockets[1].is_connected());
    assert_eq!(joins(), ["/", "/chat", "/private"]);
    // Left by us, refused by the server: neither is active.
    sockets[1].disconnect();
    client.disconnect();
    client.connect().unwrap();
    assert_eq!(joins(), ["/"]);
    client.disconnect();
    // Asked for: active again, beside the others that are.
    sockets[1].connect().unwrap();
    client.wait_connected(LONG).unwrap();
    assert_eq!(joins(), ["/", "/chat"]);
    // None active: all are asked for again.
    sockets[0].disconnect();
    sockets[1].disconnect();
    until("the end", || client.status().state == ConnectionState::Disconnected);
    assert!(matches!(client.connect(), Err(Error::Refused { .. })));
    until("the others", || sockets[0].is_connected() && sockets[1].is_connected());
    assert_eq!(joins(), ["/", "/chat", "/private"]);
}

#[rstest]
#[case::null(r#"44{"message":"no","data":null}"#, Some(Value::Null))]
#[case::none(r#"44{"message":"no"}"#, None)]
#[case::object(r#"44{"message":"no","data":{"code":7}}"#, Some(json!({ "code": 7 })))]
fn the_data_of_a_refusal_is_as_it_came(#[case] packet: &str, #[case] data: Option<Value>) {
    let fake = Fake::start();
    let client = Way::Websocket.set(quick(&fake.url)).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("connect_error");
    socket.on_connect_error(move |_, error| said.send(error.clone()).unwrap());
    client.start().unwrap();
    fake.expects_connect(0);
    fake.says(0, packet);
    assert_eq!(heard.next().refusal_data::<Value>(), data);
}

/// Everything that the handlers of a socket are told, the reserved names by `on`.
fn story(socket: &Socket) -> Heard<String> {
    let (said, heard) = hear("the next part of the story");
    for name in ["connect", "disconnect", "connect_error", "news"] {
        let said = said.clone();
        socket.on(name, move |socket, event| {
            let args: Vec<_> = event.args().iter().map(|arg| arg.json().to_owned()).collect();
            let id = socket.id().unwrap_or_default();
            let _ = said.send(format!("{id} {}({})", event.name(), args.join(",")));
        });
    }
    heard
}

/// Packets that a server does not send to a client that has joined, and what the official client makes of them.
#[rstest]
#[case::an_acknowledgement_without_id("43[]", &[])]
#[case::a_binary_acknowledgement_without_id("461-[{\"_placeholder\":true,\"num\":0}]\u{1e}bAAAA", &[])]
#[case::an_unknown_acknowledgement("43999[]", &[])]
#[case::connect_without_data("40", &[
    r#"first connect_error({"message":"websocket: CONNECT without an id: a server of Socket.IO v2?"})"#,
])]
#[case::a_second_connect(r#"40{"sid":"second"}"#, &["second connect()"])]
#[case::connect_error(r#"44{"message":"out","data":[1]}"#, &[
    r#" disconnect("io server disconnect")"#,
    r#" connect_error({"message":"out","data":[1]})"#,
])]
fn a_packet_that_does_not_belong_after_the_join(
    #[case] packet: &str,
    #[case] expected: &[&str],
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let fake = Fake::start();
    let client = way.set(quick(&fake.url)).build().unwrap();
    // Keeps the connection open whatever becomes of the other.
    let other = client.socket("/other");
    let socket = client.socket("/");
    let heard = story(&socket);
    client.start().unwrap();
    for _ in 0..2 {
        let namespace = fake.hears().1.strip_prefix("40").unwrap().to_owned();
        let sid = if namespace.is_empty() { "first" } else { "other" };
        fake.says(0, &format!(r#"40{namespace}{{"sid":"{sid}"}}"#));
    }
    until("the joins", || other.is_connected() && socket.is_connected());
    if way == Way::Upgrade {
        until("the upgrade", || client.status().transport == Some(TransportKind::Websocket));
    }
    assert_eq!(heard.next(), "first connect()");
    for part in packet.split('\u{1e}') {
        match part.strip_prefix('b') {
            Some(_) => fake.shows(0, b"\0\0\0"),
            None => fake.says(0, part),
        }
    }
    for part in expected {
        let part =
            if way == Way::Polling { part.replace("websocket:", "polling:") } else { part.to_string() };
        assert_eq!(heard.next(), part);
    }
    fake.says(0, r#"42["news",1]"#);
    fake.says(0, "2");
    assert_eq!(fake.hears().1, "3");
    if socket.is_connected() {
        assert!(heard.next().ends_with("news(1)"));
    }
    assert!(other.is_connected());
    assert_eq!(client.stats().disconnects, 0);
}

#[test]
fn a_connect_without_end_costs_no_memory() {
    let fake = Fake::start();
    let client = Way::Websocket.set(quick(&fake.url)).event_queue(4).build().unwrap();
    let socket = client.socket("/");
    let (go, gone) = hear::<()>("nothing");
    let gone = std::sync::Mutex::new(gone);
    socket.on("block", move |_, _| {
        gone.lock().unwrap().within(LONG);
    });
    let connects = Arc::new(AtomicU32::new(0));
    let counted = connects.clone();
    socket.on_connect(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    client.start().unwrap();
    fake.joins(0, &json!({ "sid": "first" }));
    fake.says(0, r#"42["block"]"#);
    for n in 0..1_000 {
        fake.says(0, &format!(r#"40{{"sid":"{n}"}}"#));
    }
    fake.says(0, "2");
    assert_eq!(fake.hears().1, "3");
    drop(go);
    assert_eq!(socket.id().as_deref(), Some("999"));
    let (said, heard) = hear("the last event");
    socket.on("last", move |_, _| said.send(()).unwrap());
    fake.says(0, r#"42["last"]"#);
    heard.next();
    assert!(connects.load(Ordering::SeqCst) < 200, "{connects:?} calls");
}

#[rstest]
fn an_event_name_may_be_a_number(#[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way) {
    let fake = Fake::start();
    let (client, socket) = joined(&fake, way);
    let (said, heard) = hear("the event 5");
    socket.on("5", move |_, event| said.send(event.arg::<u32>(0).unwrap()).unwrap());
    fake.says(0, "42[5,1]");
    assert_eq!(heard.next(), 1);
    assert_eq!(client.stats().disconnects, 0);
}

#[test]
fn a_second_handler_is_called_after_the_first() {
    let fake = Fake::start();
    let (_client, socket) = joined(&fake, Way::Websocket);
    let (said, heard) = hear("a handler");
    for name in ["first", "second"] {
        let said = said.clone();
        socket.on("question", move |_, event| {
            said.send((name, event.wants_ack())).unwrap();
            event.ack(name)
        });
    }
    fake.says(0, r#"425["question"]"#);
    assert_eq!((heard.next(), heard.next()), (("first", true), ("second", false)));
    assert_eq!(fake.hears().1, r#"435["first"]"#);
    socket.off("question");
    fake.says(0, r#"42["question"]"#);
    fake.says(0, "2");
    assert_eq!(fake.hears().1, "3");
    assert_eq!(heard.within(Duration::from_millis(20)), None);
}

#[rstest]
#[ignore = "needs Node"]
fn an_auth_that_panics_is_asked_again(#[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way) {
    let server = Server::start(Peer::Node, &[]);
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let auth = move |namespace: &str| {
        let first = namespace == "/chat" && counted.fetch_add(1, Ordering::SeqCst) == 0;
        assert!(!first, "on purpose");
        json!({})
    };
    let client = way.set(quick(&server.url())).auth_with(auth).build().unwrap();
    let (socket, chat) = (client.socket("/"), client.socket("/chat"));
    let (said, heard) = hear("connect_error");
    chat.on_connect_error(move |_, error| said.send(error.to_string()).unwrap());
    let error = client.connect().unwrap_err().to_string();
    assert!(error.contains("auth") && error.contains("on purpose"), "{error}");
    assert_eq!(heard.next(), error);
    until("the joins", || socket.is_connected() && chat.is_connected());
    assert_eq!((calls.load(Ordering::SeqCst), client.stats().connects), (2, 1));
    assert_eq!(client.status().last_reason, None::<CloseReason>);
}
