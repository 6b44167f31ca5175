//! Bounds: how many clients, and how much may wait for them.

use std::{sync::mpsc, time::Duration};

use Transport::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use tinysio::{
    proto::CloseReason,
    server::{AckError, Builder, ConnectionStateRecovery, EmitError, Server, Socket},
};

use crate::support::{
    Client, Frame, Http, PATIENCE, Transport, Ws, addr, all_gone, eventually, next, serve, socket_target,
};

#[test]
fn no_more_sessions_than_max_connections() {
    let server = serve(|builder| builder.max_connections(1).namespace("/", |_| {}));
    let mut only = Client::connected(addr(&server), WebSocket);
    let refused = Http::connect(addr(&server)).get(&socket_target("polling", ""));
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
    let refused = Ws::try_open(addr(&server), &socket_target("websocket", ""), "").err().unwrap();
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
    only.leave();
    all_gone(&server);
    Client::connected(addr(&server), Polling);
}

#[test]
fn no_more_connections_than_max_tcp_connections() {
    let server = serve(|builder| builder.max_tcp_connections(2).namespace("/", |_| {}));
    let mut kept = [Http::connect(addr(&server)), Http::connect(addr(&server))];
    for http in &mut kept {
        assert_eq!(http.get(&socket_target("polling", "")).status, 200);
    }
    let mut refused = Http::connect(addr(&server));
    let response = refused.response("the refusal");
    assert_eq!((response.status, response.header("retry-after").is_some()), (503, true));
    refused.ends("a refused connection");
    assert_eq!(kept[0].get("/nowhere").status, 404);
    drop(kept);
    eventually("there is room again", || Http::connect(addr(&server)).get("/nowhere").status == 404);
}

/// A connection without a request does not keep others out for long. A connection that has sent a request stays.
#[test]
fn a_connection_without_a_request_gives_its_place_to_one_that_comes() {
    let server = serve(|builder| {
        let builder = builder.max_tcp_connections(3).namespace("/", |_| {});
        builder.route("/health", |_| tinysio::server::Response::from_string("ok"))
    });
    let mut asked = Http::connect(addr(&server));
    assert_eq!(asked.get("/health").status, 200);
    let mut idle = [Http::connect(addr(&server)), Http::connect(addr(&server))];
    eventually("all have a place", || server.connections_count() == 3);
    eventually("somebody else is served", || Http::connect(addr(&server)).get("/health").status == 200);
    assert_eq!(idle[0].response("the answer to the connection that is idle for longest").status, 408);
    idle[0].ends("that connection");
    assert_eq!(asked.get("/health").status, 200);
    assert_eq!(idle[1].get("/health").status, 200);
}

/// A server whose clients may let 200 kB wait, and whose disconnects are reported.
fn small(set_up: impl FnOnce(Builder) -> Builder) -> (Server, mpsc::Receiver<(String, CloseReason)>) {
    let (report, reports) = mpsc::channel();
    let server = serve(|builder| {
        set_up(builder.max_http_buffer_size(100_000).outbox_bytes_max(200_000)).namespace("/", |ns| {
            ns.on_disconnect(move |socket, reason| report.send((socket.id().to_owned(), reason)).unwrap());
        })
    });
    (server, reports)
}

const CHUNK: usize = 20_000;

#[rstest]
fn a_slow_consumer_is_closed_while_others_are_served(#[values(Polling, WebSocket)] transport: Transport) {
    let (server, reports) = small(|builder| builder);
    let mut slow = Client::new(addr(&server), transport);
    let id = slow.join("/", "");
    let mut quick = Client::connected(addr(&server), transport);
    let io = server.of("/").unwrap();
    let payload = "x".repeat(CHUNK);
    let mut emitted = 0;
    let ended = loop {
        io.emit("n", (emitted, &payload)).unwrap();
        let packet = quick.text("the quick client's packet");
        assert!(packet.starts_with(&format!(r#"42["n",{emitted},"#)));
        emitted += 1;
        match reports.try_recv() {
            Ok(ended) => break ended,
            Err(_) => assert!(emitted < 5_000, "100 MB wait for a client"),
        }
    };
    assert_eq!(ended, (id, CloseReason::SlowConsumer));
    assert_eq!(ended.1.as_str(), "slow consumer");
    assert_eq!(io.len(), 1);
    eventually("the slow one is gone", || server.clients_count() == 1);
    io.emit("bye", ()).unwrap();
    quick.expect(r#"42["bye"]"#);
}

#[test]
fn a_slow_consumer_gets_what_was_promised_and_no_volatile_packets() {
    let (server, reports) = small(|builder| builder);
    let mut slow = Client::connected(addr(&server), WebSocket);
    let io = server.of("/").unwrap();
    let socket = io.sockets().pop().unwrap();
    let payload = "x".repeat(CHUNK);
    // Until the kernel takes no more, and a backlog is there.
    let mut sent = 0;
    loop {
        match socket.emit_volatile("n", (sent, &payload)) {
            Ok(()) => sent += 1,
            Err(EmitError::Dropped) => break,
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 5_000, "the kernel takes 100 MB");
    }
    io.volatile().emit("n", "maybe dropped").unwrap();
    io.volatile().emit("n", "maybe dropped").unwrap();
    socket.emit("last", ()).unwrap();
    for n in 0..sent {
        assert!(slow.text("what was accepted").starts_with(&format!(r#"42["n",{n},"#)));
    }
    // The kernel may have taken more meanwhile, and with it the volatile packets too.
    while slow.text("the last packet") != r#"42["last"]"# {}
    assert!(reports.try_recv().is_err());
    eventually("the backlog is gone", || socket.emit_volatile("again", ()).is_ok());
    slow.expect(r#"42["again"]"#);
}

#[test]
fn packets_larger_than_the_sockets_buffers_arrive_whole() {
    let server = serve(|builder| builder.outbox_bytes_max(64 << 20).namespace("/", |_| {}));
    let mut client = Client::connected(addr(&server), WebSocket);
    let io = server.of("/").unwrap();
    let bytes: Vec<u8> = (0..20 << 20).map(|at: u32| (at / 1000) as u8).collect();
    io.emit("b", tinysio::Bytes::from(bytes.clone())).unwrap();
    io.emit("after", ()).unwrap();
    client.expect(r#"451-["b",{"_placeholder":true,"num":0}]"#);
    assert!(client.next("the bytes") == Frame::Binary(bytes));
    client.expect(r#"42["after"]"#);
}

/// A polling session whose last packets nobody fetches must not make room for another one, or there is no bound.
#[test]
fn a_session_that_nobody_fetches_the_end_of_keeps_its_seat() {
    let server = serve(|builder| builder.max_connections(1).namespace("/", |_| {}));
    let mut client = Client::connected(addr(&server), Polling);
    client.send("42{}");
    eventually("the socket is gone", || server.of("/").unwrap().is_empty());
    assert_eq!(Http::connect(addr(&server)).get(&socket_target("polling", "")).status, 503);
    client.closed("the close after a broken packet");
    all_gone(&server);
    Client::connected(addr(&server), Polling);
}

/// Sessions that ended in peace were kept for half a minute beside those that took their seats.
#[test]
fn sessions_that_are_ending_count_against_max_connections() {
    let server = serve(|builder| builder.max_connections(5).namespace("/", |_| {}));
    let mut http = Http::connect(addr(&server));
    let mut full = 0;
    for _ in 0..50 {
        let open = http.get(&socket_target("polling", ""));
        if open.status == 503 {
            full += 1;
            http = Http::connect(addr(&server));
            continue;
        }
        let sid = open.body.split('"').nth(3).unwrap().to_owned();
        // A Socket.IO error: the session closes, and its last packets may be fetched.
        http.post(&socket_target("polling", &format!("&sid={sid}")), "4x");
    }
    assert_eq!(full, 45, "five seats, none given back before its session's last packets were");
}

/// How a packet is sent.
#[derive(Debug, Clone, Copy)]
enum Sent {
    Directly,
    InTime,
    Volatile,
    WithCallback,
    WithAck,
    AsAnAnswer,
    ToMany,
    ToManyWithAck,
}

/// Sends so much, and tells the error.
fn send(server: &Server, client: &mut Client, bytes: usize, how: Sent) -> Option<EmitError> {
    let io = server.of("/").unwrap();
    let socket = io.sockets().pop().unwrap();
    let payload = "x".repeat(bytes);
    let of_ack = |error: AckError| match error {
        AckError::Emit(error) => error,
        other => panic!("{other}"),
    };
    match how {
        Sent::Directly => socket.emit("x", payload).err(),
        Sent::InTime => socket.emit_timeout("x", payload, PATIENCE).err(),
        Sent::Volatile => socket.emit_volatile("x", payload).err(),
        Sent::WithCallback => {
            let nothing = |_: &Socket, _: Result<_, AckError>| ();
            socket.emit_with_callback("x", payload, PATIENCE, nothing).err().map(of_ack)
        }
        Sent::WithAck => socket.emit_with_ack("x", payload, PATIENCE).err().map(of_ack),
        Sent::AsAnAnswer => {
            client.send(&format!(r#"421["answer",{bytes}]"#));
            None
        }
        Sent::ToMany => io.emit("x", payload).err(),
        Sent::ToManyWithAck => io.to(socket.id()).emit_with_ack("x", payload, PATIENCE).err().map(of_ack),
    }
}

/// A server whose clients may let 200 kB wait, and hear what it answers at any length.
fn talkative(recovery: bool) -> (Server, mpsc::Receiver<String>) {
    let (report, reports) = mpsc::channel();
    let server = serve(|builder| {
        let builder = builder.max_http_buffer_size(100_000).outbox_bytes_max(200_000);
        let recovery = recovery.then(ConnectionStateRecovery::default);
        builder.connection_state_recovery(recovery).namespace("/", |ns| {
            ns.on("answer", move |_, event| {
                let answered = event.ack("x".repeat(event.arg(0).unwrap()));
                report.send(answered.unwrap_err().to_string()).unwrap();
            });
        })
    });
    (server, reports)
}

/// A client that reads and has nothing to read is not too slow for anything.
#[rstest]
fn a_packet_larger_than_outbox_bytes_max_is_refused_and_costs_nobody_anything(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    #[values(
        Sent::Directly,
        Sent::InTime,
        Sent::Volatile,
        Sent::WithCallback,
        Sent::WithAck,
        Sent::AsAnAnswer,
        Sent::ToMany,
        Sent::ToManyWithAck
    )]
    how: Sent,
    #[values(false, true)] recovery: bool,
) {
    // More than any kernel takes at once.
    const BYTES: usize = 20_000_000;
    let (server, answers) = talkative(recovery);
    let mut client = Client::connected(addr(&server), transport);
    client.ask();
    let refusal = match send(&server, &mut client, BYTES, how) {
        Some(error) => {
            assert!(matches!(error, EmitError::TooLarge { bytes: BYTES.., max: 200_000 }), "{error}");
            error.to_string()
        }
        None => next(&answers, "the answer's error"),
    };
    assert!(refusal.contains("outbox_bytes_max allows 200000"), "{refusal}");
    server.emit("small", ()).unwrap();
    let small = client.text("what is not too large");
    assert!(small.starts_with(r#"42["small""#), "{small}");
    assert_eq!(server.clients_count(), 1);
}

#[rstest]
fn an_empty_outbox_takes_a_packet_as_large_as_outbox_bytes_max(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    #[values(Sent::Directly, Sent::InTime, Sent::ToMany)] how: Sent,
    #[values(false, true)] recovery: bool,
) {
    let (server, _answers) = talkative(recovery);
    let mut client = Client::connected(addr(&server), transport);
    // Without what is around it: four bytes of frame, the event and its offset.
    let payload = 200_000 - 100;
    for _ in 0..3 {
        let error = send(&server, &mut client, payload, how);
        assert!(error.is_none(), "{error:?}");
        let packet = client.text("the largest packet");
        assert!(packet.starts_with(r#"42["x","xxx"#) && packet.len() > payload);
        eventually("the outbox is empty", || server.of("/").unwrap().sockets()[0].backlog() == 0);
    }
}

/// `emit_timeout` looks whether there is room for this packet.
#[rstest]
fn a_patient_producer_of_large_packets_never_costs_its_client(
    #[values(Polling, WebSocket)] transport: Transport,
) {
    let (server, reports) = small(|builder| builder);
    let mut client = Client::connected(addr(&server), transport);
    let socket = server.of("/").unwrap().sockets().pop().unwrap();
    // Less than half of what may wait, and so much that it does not fit behind that.
    let payloads = ["x".repeat(80_000), "x".repeat(150_000)];
    let mut sent = 0;
    let error = loop {
        match socket.emit_timeout("n", (sent, &payloads[sent % 2]), Duration::from_millis(50)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 1_000, "150 MB wait for a client");
    };
    assert!(matches!(error, EmitError::Timeout), "{error}");
    for n in 0..sent {
        assert!(client.text("what was accepted").starts_with(&format!(r#"42["n",{n},"#)));
    }
    assert!(reports.try_recv().is_err(), "the client is still there");
}

/// What the handlers of one read say is gathered, but not until it is too much for a client that reads.
#[rstest]
fn answers_to_a_burst_are_no_backlog(#[values(WebSocket, Upgrade)] transport: Transport) {
    let server = serve(|builder| {
        builder.max_http_buffer_size(100_000).outbox_bytes_max(200_000).namespace("/", |ns| {
            ns.on("x", |_, event| event.ack("x".repeat(10_000)));
        })
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send_burst(&vec![Frame::text(r#"421["x"]"#); 50]);
    for _ in 0..50 {
        assert_eq!(client.text("an answer").len(), 10_000 + r#"431[""]"#.len());
    }
}
