//! Silent connections give their thread back, and nobody notices.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use rstest::rstest;
use tinysio::server::{Builder, Server};

use crate::support::{
    Client, Frame, Http, Transport, Ws, addr, all_gone, eventually, next, reset, serve, socket_target,
};

/// So short that every client is parked between two steps of a test.
const SOON: Duration = Duration::from_millis(5);

fn parking(set_up: impl FnOnce(Builder) -> Builder) -> Server {
    serve(|builder| set_up(builder.park_after(SOON)))
}

/// How many connections a client of this transport has, all of them silent.
fn parked_of(transport: Transport) -> usize {
    if transport == Transport::Polling { 2 } else { 1 }
}

fn all_parked(server: &Server, count: usize) {
    eventually("the silent connections are parked", || server.parked_count() == count);
}

/// Connected and silent: a polling client has a GET held, and the connection of its last POST rests.
fn silent(server: &Server, transport: Transport) -> Client {
    let mut client = Client::connected(addr(server), transport);
    client.ask();
    client
}

#[rstest]
fn a_parked_client_hears_and_is_heard(
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    let server = parking(|builder| {
        builder.namespace("/", |ns| {
            ns.on_connect(|socket| socket.join("room"));
            ns.on("echo", |socket, event| socket.emit("echo", event.args()));
        })
    });
    let io = server.of("/").unwrap();
    let mut client = silent(&server, transport);
    for n in 0..3 {
        all_parked(&server, parked_of(transport));
        io.emit("to all", n).unwrap();
        client.expect(&format!(r#"42["to all",{n}]"#));
        client.ask();
        all_parked(&server, parked_of(transport));
        io.to("room").emit("to the room", n).unwrap();
        client.expect(&format!(r#"42["to the room",{n}]"#));
        client.ask();
        all_parked(&server, parked_of(transport));
        io.sockets()[0].emit("to one", n).unwrap();
        client.expect(&format!(r#"42["to one",{n}]"#));
        client.ask();
        all_parked(&server, parked_of(transport));
        client.send_burst(&[Frame::text(r#"42["echo",1]"#), Frame::text(r#"42["echo",2]"#)]);
        client.expect(r#"42["echo",1]"#);
        client.expect(r#"42["echo",2]"#);
        client.ask();
    }
}

/// Pings go out to parked clients, and their pongs need no thread; without them the session ends.
#[rstest]
fn heartbeats_reach_parked_clients(
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
    #[values(true, false)] answers: bool,
) {
    let (report, reports) = mpsc::channel();
    let server = parking(|builder| {
        builder.ping_interval(Duration::from_millis(100)).ping_timeout(Duration::from_millis(400)).namespace(
            "/",
            |ns| {
                ns.on_disconnect(move |_, reason| report.send(reason.to_string()).unwrap());
            },
        )
    });
    let mut client = silent(&server, transport);
    all_parked(&server, parked_of(transport));
    if answers {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) {
            // Answers the pings on the way to something that comes once a second at most.
            server.emit("tick", ()).unwrap();
            client.expect(r#"42["tick"]"#);
            client.ask();
            all_parked(&server, parked_of(transport));
        }
        assert!(reports.try_recv().is_err(), "its session lives");
    } else {
        assert_eq!(next(&reports, "the end"), "ping timeout");
        all_gone(&server);
    }
}

#[rstest]
#[case::websocket_without_a_word(Transport::WebSocket, false, &["transport close"])]
#[case::websocket_by_a_reset(Transport::WebSocket, true, &["transport close", "transport error"])]
#[case::upgraded_without_a_word(Transport::Upgrade, false, &["transport close"])]
#[case::held_poll_without_a_word(Transport::Polling, false, &["transport error"])]
fn the_end_of_a_parked_peer_is_seen(
    #[case] transport: Transport,
    #[case] by_reset: bool,
    #[case] reasons: &[&str],
) {
    let (report, reports) = mpsc::channel();
    let server = parking(|builder| {
        builder.namespace("/", |ns| {
            ns.on_disconnect(move |_, reason| report.send(reason.to_string()).unwrap());
        })
    });
    let client = silent(&server, transport);
    all_parked(&server, parked_of(transport));
    if by_reset {
        reset(client.into_ws().http.stream);
    } else {
        drop(client);
    }
    let reason = next(&reports, "the end");
    assert!(reasons.contains(&&*reason), "{reason}");
    all_gone(&server);
    all_parked(&server, 0);
}

#[rstest]
fn a_parked_client_is_disconnected_by_the_server(
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    let server = parking(|builder| builder.namespace("/", |_| {}));
    let mut client = silent(&server, transport);
    all_parked(&server, parked_of(transport));
    server.of("/").unwrap().sockets()[0].disconnect(true);
    client.expect("41");
    client.closed("the close");
    all_gone(&server);
}

#[rstest]
fn a_stop_reaches_parked_clients(
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    let server = parking(|builder| builder.namespace("/", |_| {}));
    let mut client = silent(&server, transport);
    all_parked(&server, parked_of(transport));
    server.emit("last", ()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            client.expect(r#"42["last"]"#);
            client.closed("the close");
        });
        assert!(server.shutdown(Duration::from_secs(10)));
    });
}

/// Once the poller forgot its connections at a stop, but not their number: `parked_count` panicked.
#[test]
fn a_stopped_server_says_that_nobody_is_parked() {
    let server = parking(|builder| builder.namespace("/", |_| {}));
    let client = silent(&server, Transport::WebSocket);
    all_parked(&server, 1);
    drop(client);
    all_gone(&server);
    assert!(server.shutdown(Duration::from_secs(10)));
    assert_eq!(server.parked_count(), 0);
}

/// A client that is parked while it polls moves to a WebSocket as any other.
#[test]
fn a_parked_polling_client_upgrades() {
    let server = parking(|builder| {
        builder.namespace("/", |ns| {
            ns.on("echo", |socket, event| socket.emit("echo", event.args()));
        })
    });
    let mut client = silent(&server, Transport::Polling);
    all_parked(&server, 2);
    client.upgrade();
    client.send(r#"42["echo","over WebSocket"]"#);
    client.expect(r#"42["echo","over WebSocket"]"#);
}

/// A frame that comes in pieces, with the connection parked between any two of them.
#[test]
fn a_frame_is_whole_after_a_rest_within_it() {
    let server = parking(|builder| {
        builder.namespace("/", |ns| {
            ns.on("echo", |socket, event| socket.emit("echo", event.args()));
        })
    });
    let mut client = Ws::open(addr(&server), &socket_target("websocket", ""));
    client.text("the open packet");
    client.send("40");
    client.text("the consent");
    let frame = Ws::frame(0x81, br#"42["echo","in pieces"]"#);
    for piece in frame.chunks(5) {
        all_parked(&server, 1);
        client.send_raw(piece);
        // So that the pieces come one by one; the test holds in any case.
        std::thread::sleep(SOON);
    }
    client.expect(r#"42["echo","in pieces"]"#);
}

/// A connection between two requests is closed after `keep_alive_timeout`; one that never sends a request, after
/// `head_timeout`.
#[rstest]
#[case::after_a_request(true)]
#[case::before_any(false)]
fn a_resting_http_connection_has_its_deadline(#[case] asks: bool) {
    let server = parking(|builder| {
        let builder =
            builder.head_timeout(Duration::from_millis(300)).keep_alive_timeout(Duration::from_millis(300));
        builder.route("/health", |_| tinysio::server::Response::from_string("ok"))
    });
    let mut http = Http::connect(addr(&server));
    if asks {
        assert_eq!(http.get("/health").body, "ok");
        all_parked(&server, 1);
        assert_eq!(http.get("/health").body, "ok", "a parked connection serves on");
    }
    all_parked(&server, 1);
    http.ends("the end of its patience");
    all_parked(&server, 0);
}

/// Without `park_after` each WebSocket keeps a thread, also while it is silent. What speaks HTTP needs none.
#[test]
fn websockets_keep_their_threads_without_park_after() {
    let server = serve(|builder| {
        builder.park_after(None).namespace("/", |ns| {
            ns.on("echo", |socket, event| socket.emit("echo", event.args()));
        })
    });
    let mut clients: Vec<Client> = [Transport::Polling, Transport::WebSocket, Transport::Upgrade]
        .map(|transport| silent(&server, transport))
        .into();
    std::thread::sleep(20 * SOON);
    all_parked(&server, parked_of(Transport::Polling));
    for client in &mut clients[1..] {
        client.send(r#"42["echo",1]"#);
        client.expect(r#"42["echo",1]"#);
    }
    all_parked(&server, parked_of(Transport::Polling));
}
