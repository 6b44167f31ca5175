//! Connection state recovery: what a client that was lost finds again.

use std::{
    net::Ipv4Addr,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use rstest::rstest;
use serde_json::{Value, json};
use tinysio::{
    proto::socket::Offset,
    server::{Builder, ConnectError, ConnectionStateRecovery, Namespace},
};

use crate::support::{
    Client, Frame, Transport, addr, eventually, from, next,
    recovery::{Caller, Lost, assert_same, connect, drain, empty, gone, recovering},
    serve,
};

#[rstest]
fn what_was_missed_comes_in_order(
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    let (server, io) = recovering(|builder| builder);
    let mut caller = Caller::new(addr(&server), transport);
    caller.client.send(r#"42["join","a room"]"#);
    caller.expect_nothing();
    io.emit("first", 1).unwrap();
    caller.expect(json!(["first", 1]));
    let sid = caller.sid.clone();
    let socket = io.sockets().pop().unwrap();
    let lost = caller.lose();
    empty(&io);
    io.emit("to all", ()).unwrap();
    io.to("a room").emit("to a room", (1, "two")).unwrap();
    io.to("another room").emit("to another", ()).unwrap();
    io.to(&sid).emit("to its id", ()).unwrap();
    io.except("a room").emit("to others", ()).unwrap();
    socket.emit("direct", json!({"a": [1]})).unwrap();
    io.emit("binary", tinysio::Bytes::from_static(&[1, 2, 3])).unwrap();
    io.volatile().emit("volatile", ()).unwrap();
    let mut caller = lost.back();
    assert_same(&caller, &sid);
    io.emit("new", ()).unwrap();
    caller.expect(json!(["to all"]));
    caller.expect(json!(["to a room", 1, "two"]));
    caller.expect(json!(["to its id"]));
    caller.expect(json!(["direct", {"a": [1]}]));
    let binary = caller.client.text("the binary event");
    assert!(binary.starts_with(r#"451-["binary",{"_placeholder":true,"num":0},""#), "{binary}");
    caller.client.expect_binary(&[1, 2, 3]);
    caller.expect(json!(["new"]));
    io.to("a room").emit("still in the room", ()).unwrap();
    caller.expect(json!(["still in the room"]));
    assert!(io.sockets().pop().unwrap().recovered());
}

/// The official server needs an event received before (its issue 4888).
#[rstest]
fn with_nothing_received(
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
    #[values(true, false)] knows_where_it_stands: bool,
) {
    let (server, io) = recovering(|builder| builder);
    let caller = Caller::new(addr(&server), transport);
    let (sid, stands) = (caller.sid.clone(), caller.stands.clone());
    let mut lost = caller.lose();
    empty(&io);
    io.emit("missed", ()).unwrap();
    lost.offset = knows_where_it_stands.then_some(stands);
    let mut caller = lost.back();
    assert_same(&caller, &sid);
    caller.expect(json!(["missed"]));
}

/// The official server recovers a client once (its issue 4880).
#[rstest]
fn again_and_again(
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    let (server, io) = recovering(|builder| builder);
    let mut caller = Caller::new(addr(&server), transport);
    let sid = caller.sid.clone();
    for round in 0..10 {
        let lost = caller.lose();
        empty(&io);
        if round % 3 != 0 {
            io.emit("missed", round).unwrap();
        }
        caller = lost.back();
        assert_same(&caller, &sid);
        if round % 3 != 0 {
            caller.expect(json!(["missed", round]));
        }
        if round % 2 == 0 {
            io.emit("live", round).unwrap();
            caller.expect(json!(["live", round]));
        }
        caller.expect_nothing();
    }
}

/// What the client never got because it was in flight is sent again; what it got is not.
#[test]
fn from_where_the_client_stands_and_not_from_where_the_server_noticed() {
    let (server, io) = recovering(|builder| builder);
    let mut caller = Caller::new(addr(&server), Transport::WebSocket);
    let sid = caller.sid.clone();
    for number in 0..5 {
        io.emit("n", number).unwrap();
    }
    caller.expect(json!(["n", 0]));
    caller.expect(json!(["n", 1]));
    // The others arrive, but for this client they were lost.
    let lost = caller.lose();
    empty(&io);
    io.emit("n", 5).unwrap();
    let mut caller = lost.back();
    assert_same(&caller, &sid);
    for number in 2..6 {
        caller.expect(json!(["n", number]));
    }
    caller.expect_nothing();
}

/// A connection whose end the server has not seen is taken over, its disconnect handlers first.
#[rstest]
fn while_the_old_connection_hangs_around(
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    let (told, events) = channel();
    let (server, io) = recovering(|builder| {
        builder.namespace("/", |ns| {
            let tell = told.clone();
            ns.on_connect(move |socket| {
                tell.send(format!("{} connects, recovered: {}", socket.id(), socket.recovered())).unwrap();
            });
            ns.on_disconnect(move |socket, reason| {
                // Slow, and still first.
                std::thread::sleep(Duration::from_millis(50));
                told.send(format!("{} disconnects: {reason}", socket.id())).unwrap();
            });
        })
    });
    let old = Caller::new(addr(&server), transport);
    let sid = old.sid.clone();
    let event = |events: &Receiver<String>| next(events, "an event of the socket's life");
    assert_eq!(event(&events), format!("{sid} connects, recovered: false"));
    let lost = Lost { addr: addr(&server), transport, pid: old.pid.clone(), offset: None };
    let mut caller = lost.back();
    assert_same(&caller, &sid);
    assert_eq!(event(&events), format!("{sid} disconnects: transport close"));
    assert_eq!(event(&events), format!("{sid} connects, recovered: true"));
    assert_eq!(io.len(), 1);
    io.emit("one copy", ()).unwrap();
    caller.expect(json!(["one copy"]));
    caller.expect_nothing();
    // Nothing of the old one's late end touches the new one.
    drop(old);
    caller.expect_nothing();
}

/// The official client takes the last string of any event for its offset, also of a volatile one that was not kept.
#[test]
fn after_a_volatile_event() {
    let (server, io) = recovering(|builder| builder);
    let mut caller = Caller::new(addr(&server), Transport::WebSocket);
    let sid = caller.sid.clone();
    io.emit("kept", ()).unwrap();
    io.volatile().emit("volatile", "with a string").unwrap();
    io.sockets().pop().unwrap().emit_volatile("volatile", ()).unwrap();
    caller.expect(json!(["kept"]));
    let offset = caller.offset.clone();
    caller.expect(json!(["volatile", "with a string"]));
    caller.expect(json!(["volatile"]));
    assert_eq!(caller.offset, offset);
    let lost = caller.lose();
    empty(&io);
    io.emit("missed", ()).unwrap();
    let mut caller = lost.back();
    assert_same(&caller, &sid);
    caller.expect(json!(["missed"]));
}

/// What a client gets is what was meant for it at the time, whatever it joined or left since.
#[test]
fn the_rooms_of_the_time() {
    let (server, io) = recovering(|builder| builder);
    let mut caller = Caller::new(addr(&server), Transport::WebSocket);
    let sid = caller.sid.clone();
    io.to("left").emit("before it was there", ()).unwrap();
    caller.client.send(r#"42["join","left"]"#);
    caller.expect_nothing();
    io.to("left").emit("while it was there", ()).unwrap();
    caller.expect(json!(["while it was there"]));
    let offset = caller.offset.clone();
    io.to("left").emit("in flight", ()).unwrap();
    io.except("joined").emit("not yet excepted", ()).unwrap();
    io.to("joined").emit("before it joined", ()).unwrap();
    caller.client.send_texts(&[r#"42["leave","left"]"#, r#"42["join","joined"]"#]);
    caller.expect(json!(["in flight"]));
    caller.expect(json!(["not yet excepted"]));
    caller.expect_nothing();
    io.to("left").emit("when it had left", ()).unwrap();
    io.to("joined").emit("when it had joined", ()).unwrap();
    io.except("joined").emit("excepted", ()).unwrap();
    caller.client.send(r#"42["others"]"#);
    caller.expect(json!(["when it had joined"]));
    caller.expect_nothing();
    let mut lost = caller.lose();
    empty(&io);
    lost.offset = offset;
    let mut caller = lost.back();
    assert_same(&caller, &sid);
    for event in ["in flight", "not yet excepted", "when it had joined"] {
        caller.expect(json!([event]));
    }
    caller.expect_nothing();
}

/// Who declines recovery gets its events as they are, beside others who get theirs with offsets, and is a new client
/// each time.
#[rstest]
fn declined(#[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport) {
    let (server, io) = recovering(|builder| builder);
    let mut other = Caller::new(addr(&server), transport);
    let mut client = Client::new(addr(&server), transport);
    client.send(r#"40{"recovery":false}"#);
    let consent = client.text("the consent");
    let consent: Value = serde_json::from_str(consent.strip_prefix("40").unwrap()).unwrap();
    assert_eq!(consent.as_object().unwrap().keys().collect::<Vec<_>>(), ["sid"]);
    client.send_texts(&[r#"42["join","room"]"#, r#"420["echo"]"#]);
    client.expect("430[]");

    io.emit("all", 1).unwrap();
    other.expect(json!(["all", 1]));
    client.expect(r#"42["all",1]"#);
    io.to("room").emit("nothing", ()).unwrap();
    client.expect(r#"42["nothing"]"#);
    let socket = io.sockets().into_iter().find(|socket| socket.id() == consent["sid"]).unwrap();
    assert!(!socket.recovered());
    socket.emit("direct", ("ä", [1])).unwrap();
    client.expect(r#"42["direct","ä",[1]]"#);
    socket.emit("long", "x".repeat(200)).unwrap();
    client.expect(&format!(r#"42["long","{}"]"#, "x".repeat(200)));
    io.emit("binary", tinysio::Bytes::from_static(&[1, 2, 3])).unwrap();
    client.expect(r#"451-["binary",{"_placeholder":true,"num":0}]"#);
    client.expect_binary(&[1, 2, 3]);

    // The server notices the loss of a poll that it holds.
    client.ask();
    drop(client);
    let others_sid = other.sid.clone();
    eventually("the server notices the loss", || io.len() == 1);
    let mut again = Client::new(addr(&server), transport);
    again.send(&format!(r#"40{{"recovery":false,"pid":"{}"}}"#, other.pid));
    let consent = again.text("the consent");
    assert!(!consent.contains("pid") && !consent.contains(&others_sid), "{consent}");
}

/// What is emitted to a client that declined is not kept, so it pushes out nothing that others are owed.
#[rstest]
fn direct_emits_to_who_declined_are_not_kept(
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    let (server, io) = recovering(|builder| {
        builder.connection_state_recovery(ConnectionStateRecovery::new().max_packets(2))
    });
    let mut caller = Caller::new(addr(&server), transport);
    let mut declined = Client::new(addr(&server), transport);
    let id = declined.join("/", r#"{"recovery":false}"#);
    let stranger = io.sockets().into_iter().find(|socket| socket.id() == id).unwrap();
    caller.expect_nothing();
    let sid = caller.sid.clone();
    let lost = caller.lose();
    eventually("the server notices the loss", || io.len() == 1);
    io.emit("missed", 1).unwrap();
    declined.expect(r#"42["missed",1]"#);
    for number in 0..4 {
        stranger.emit("direct", number).unwrap();
        declined.expect(&format!(r#"42["direct",{number}]"#));
    }
    let mut caller = lost.back();
    assert_same(&caller, &sid);
    caller.expect(json!(["missed", 1]));
}

/// A gap is told, never passed over: too many packets since, in number or in bytes.
#[rstest]
#[case::packets(ConnectionStateRecovery::new().max_packets(10), 11, 8, false)]
#[case::just_not_too_many(ConnectionStateRecovery::new().max_packets(10), 10, 8, true)]
#[case::bytes(ConnectionStateRecovery::new().max_bytes(10_000), 10, 1_000, false)]
#[case::more_than_a_client_takes(ConnectionStateRecovery::new(), 3, 900_000, false)]
#[case::not_so_much(ConnectionStateRecovery::new(), 2, 900_000, true)]
fn a_gap(
    #[case] options: ConnectionStateRecovery,
    #[case] packets: usize,
    #[case] size: usize,
    #[case] recovered: bool,
) {
    let (server, io) = recovering(|builder| builder.connection_state_recovery(options));
    let caller = Caller::new(addr(&server), Transport::WebSocket);
    let sid = caller.sid.clone();
    let lost = caller.lose();
    empty(&io);
    for number in 0..packets {
        io.emit("missed", (number, "x".repeat(size))).unwrap();
    }
    let mut caller = lost.back();
    assert_eq!((caller.recovered, caller.sid == sid), (recovered, recovered));
    for number in 0..if recovered { packets } else { 0 } {
        assert_eq!(caller.event()[1], number);
    }
    caller.expect_nothing();
}

/// A quiet client misses nothing by what others are sent, however much that is (the official server's issue 5282).
#[test]
fn after_others_have_filled_the_log() {
    let options = ConnectionStateRecovery::new().max_packets(10);
    let (server, io) = recovering(|builder| builder.connection_state_recovery(options));
    let mut quiet = Caller::new(addr(&server), Transport::WebSocket);
    let silent = Caller::new(addr(&server), Transport::WebSocket);
    let mut busy = Caller::new(addr(&server), Transport::WebSocket);
    io.to(&quiet.sid).emit("once", ()).unwrap();
    quiet.expect(json!(["once"]));
    for number in 0..100 {
        io.to(&busy.sid).emit("n", number).unwrap();
        busy.expect(json!(["n", number]));
    }
    for caller in [quiet, silent] {
        let sid = caller.sid.clone();
        let lost = caller.lose();
        gone(&io, &sid);
        io.to(&sid).emit("missed", ()).unwrap();
        let mut caller = lost.back();
        assert_same(&caller, &sid);
        caller.expect(json!(["missed"]));
        for number in 0..20 {
            io.to(&busy.sid).emit("n", number).unwrap();
        }
        let lost = caller.lose();
        gone(&io, &sid);
        let mut caller = lost.back();
        assert_same(&caller, &sid);
        caller.expect_nothing();
    }
}

/// A client that is away for longer than `max_disconnection_duration` is not recovered.
#[test]
fn after_too_long() {
    let options = ConnectionStateRecovery::new().max_disconnection_duration(Duration::from_millis(50));
    let (server, io) = recovering(|builder| builder.connection_state_recovery(options));
    let caller = Caller::new(addr(&server), Transport::WebSocket);
    let sid = caller.sid.clone();
    let lost = caller.lose();
    empty(&io);
    std::thread::sleep(Duration::from_millis(60));
    let mut caller = lost.back();
    assert!(!caller.recovered);
    assert_ne!(caller.sid, sid);
    caller.expect_nothing();
}

/// Strangers who come and go push out each other, and nobody who came from elsewhere.
#[rstest]
fn strangers(#[values(Transport::Polling, Transport::WebSocket)] transport: Transport) {
    let (server, io) = recovering(|builder| builder.max_connections(3));
    let caller = Caller::new(addr(&server), transport);
    let sid = caller.sid.clone();
    let lost = caller.lose();
    empty(&io);
    let stranger = || {
        let lost = Caller::new(addr(&server), Transport::WebSocket).lose();
        empty(&io);
        lost
    };
    let first = from(Ipv4Addr::new(127, 0, 0, 2), || {
        let first = stranger();
        (0..30).for_each(|_| drop(stranger()));
        first
    });
    assert_same(&lost.back(), &sid);
    assert!(!first.back().recovered, "it has made room for the others");
}

/// What is no pid and offset of this client's is a new client.
#[rstest]
#[case::a_foreign_pid(json!({"pid": "AAAAAAAAAAAAAAAAAAAA", "offset": "AAAAAAAAAAA"}))]
#[case::an_object(json!({"pid": {"a": 1}, "offset": "AAAAAAAAAAA"}))]
#[case::a_number(json!({"pid": 7, "offset": 7}))]
#[case::a_long_one(json!({"pid": "x".repeat(10_000), "offset": "x".repeat(5_000)}))]
#[case::nothing(json!({"pid": null, "offset": null}))]
#[case::empty(json!({"pid": "", "offset": ""}))]
fn not_a_pid(#[case] auth: Value) {
    let (server, io) = recovering(|builder| builder);
    let caller = Caller::new(addr(&server), Transport::WebSocket);
    let sid = caller.sid.clone();
    let lost = caller.lose();
    empty(&io);
    let mut caller = lost.back_with(&auth);
    assert_ne!(caller.sid, sid);
    caller.expect_nothing();
}

/// With a pid that is right and an offset that this server has not given, something may be missing.
#[rstest]
#[case::of_the_official_server(|_| json!("PsXGH7i.0"))]
#[case::an_object(|_| json!({}))]
#[case::a_number(|_| json!(7))]
#[case::of_the_future(|now: Offset| json!(now.next().to_string()))]
fn not_an_offset(#[case] offset: impl FnOnce(Offset) -> Value) {
    let (server, io) = recovering(|builder| builder);
    let caller = Caller::new(addr(&server), Transport::WebSocket);
    let sid = caller.sid.clone();
    let offset = offset(Offset::parse(&caller.stands).unwrap());
    let lost = caller.lose();
    empty(&io);
    let auth = json!({"pid": lost.pid, "offset": offset});
    let mut caller = lost.back_with(&auth);
    assert!(caller.sid != sid && caller.pid != auth["pid"]);
    caller.expect_nothing();
}

/// As on the official server: who sent what cannot be read, or is too large, was cut and not sent away.
#[rstest]
#[case::parse_error("40".into())]
#[case::message_too_big(format!("42[\"echo\",\"{}\"]", "x".repeat(2_000)))]
fn after_a_packet_that_ends_the_connection(
    #[case] packet: String,
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    if transport == Transport::Polling && packet.len() > 2_000 {
        // Answered 413, and the session goes on.
        return;
    }
    let (server, io) = recovering(|builder| builder.max_http_buffer_size(1_000));
    let mut caller = Caller::new(addr(&server), transport);
    let sid = caller.sid.clone();
    caller.client.send(&packet);
    empty(&io);
    io.emit("missed", 1).unwrap();
    caller.client.closed("the end");
    let mut caller = caller.lost().back();
    assert_same(&caller, &sid);
    caller.expect(json!(["missed", 1]));
}

/// A client that left on purpose, or was sent away, has nothing to come back to.
#[rstest]
#[case::it_left("41", |_: &Namespace| {})]
#[case::it_was_removed("", |io: &Namespace| io.disconnect_sockets(false))]
#[case::it_was_thrown_out("", |io: &Namespace| io.disconnect_sockets(true))]
fn an_end_for_good(#[case] packet: &str, #[case] end: impl FnOnce(&Namespace)) {
    let (server, io) = recovering(|builder| builder);
    let mut caller = Caller::new(addr(&server), Transport::WebSocket);
    let sid = caller.sid.clone();
    if !packet.is_empty() {
        caller.client.send(packet);
    }
    end(&io);
    empty(&io);
    io.emit("not for it", ()).unwrap();
    let mut caller = caller.lose().back();
    assert_ne!(caller.sid, sid);
    caller.expect_nothing();
}

/// A namespace's pid is of no use in another one.
#[test]
fn another_namespace() {
    let (server, io) = recovering(|builder| builder.namespace("/other", |_| {}));
    let caller = Caller::new(addr(&server), Transport::WebSocket);
    let auth = json!({"pid": caller.pid}).to_string();
    let other = Caller::join(addr(&server), Transport::WebSocket, "/other", &auth, None);
    assert!(other.sid != caller.sid && other.pid != caller.pid);
    assert_eq!(io.len(), 1);
}

#[rstest]
#[case::skipped(true)]
#[case::asked(false)]
fn middlewares(#[case] skip: bool) {
    let options = ConnectionStateRecovery::new().skip_middlewares(skip);
    let (server, io) = recovering(|builder| {
        builder.connection_state_recovery(options).namespace("/", |ns| {
            ns.middleware(
                |socket| {
                    if socket.recovered() { Err(ConnectError::new("not again")) } else { Ok(()) }
                },
            );
        })
    });
    let caller = Caller::new(addr(&server), Transport::WebSocket);
    let lost = caller.lose();
    empty(&io);
    if skip {
        assert!(lost.back().recovered);
        return;
    }
    let mut client = Client::new(lost.addr, lost.transport);
    client.send(&format!(r#"40{{"pid":"{}"}}"#, lost.pid));
    client.expect(r#"44{"message":"not again"}"#);
}

/// Without the option nothing is different on the wire.
#[test]
fn off_unless_asked_for() {
    let server = serve(|builder| builder.namespace("/", |_| {}));
    let mut client = Client::new(addr(&server), Transport::WebSocket);
    client.send(r#"40{"pid":"x","offset":"y","rid":"z"}"#);
    let consent = client.text("the consent");
    assert!(consent.starts_with(r#"40{"sid":""#) && !consent.contains("pid"), "{consent}");
    server.of("/").unwrap().emit("plain", "text").unwrap();
    client.expect(r#"42["plain","text"]"#);
    let socket = server.of("/").unwrap().sockets().pop().unwrap();
    assert!(!socket.recovered());
    assert!(socket.emit("direct", ()).is_ok());
    assert_eq!(client.next("the direct one"), Frame::Text(r#"42["direct"]"#.into()));
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
