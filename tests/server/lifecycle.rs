//! Starting and stopping.

use std::{
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use Transport::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket, socket_with};
use tinysio::server::{Builder, Config, ConnectionStateRecovery, Rate, Response, Server, StartError};

use crate::support::{
    Client, Http, PATIENCE, Transport, Ws, addr, eventually, next, serve, serve_root, socket_target,
};

#[rstest]
fn a_stop_lets_out_what_waits_and_says_goodbye(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let (report, reports) = mpsc::channel();
    let server = serve_root(|ns| {
        ns.on_disconnect(move |_, reason| report.send(reason.as_str()).unwrap());
    });
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connected(addr(&server), transport)).collect();
    for n in 0..40 {
        server.emit("n", n).unwrap();
    }
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| server.shutdown(PATIENCE));
        for client in &mut clients {
            let last: Vec<String> =
                client.closed("the goodbye").into_iter().map(|frame| format!("{frame:?}")).collect();
            assert_eq!(last.len(), 40, "{last:?}");
        }
        drop(clients);
        assert!(stop.join().unwrap(), "some thread was left");
    });
    for _ in 0..5 {
        assert_eq!(next(&reports, "a disconnect handler"), "server shutting down");
    }
    assert!(server.emit("late", ()).is_err());
    assert_eq!(server.of("/").unwrap().sockets().len(), 0);
    assert!(server.shutdown(PATIENCE), "a second stop says the same");
    server.wait();
}

#[test]
fn a_stop_does_not_wait_for_connections_without_a_request() {
    // Their own deadlines come too late.
    let late = 10 * PATIENCE;
    let server = serve(|builder| {
        let builder = builder.head_timeout(late).keep_alive_timeout(late).upgrade_timeout(late);
        builder.route("/health", |_| Response::from_string("ok")).namespace("/", |_| {})
    });
    let mut resting = Http::connect(addr(&server));
    resting.get("/health");
    let mut silent = Http::connect(addr(&server));
    let client = Client::connected(addr(&server), Polling);
    let mut probing = Ws::open(client.addr, &client.target("websocket"));
    probing.send("2probe");
    probing.expect("3probe");
    let mut client = client;
    std::thread::scope(|scope| {
        // As long as the patience of a test: a wait for the deadline would fail it.
        let stop = scope.spawn(|| server.shutdown(10 * PATIENCE));
        client.closed("the goodbye");
        drop(client);
        resting.ends("a resting connection");
        silent.ends("a silent connection");
        probing.closed("a probing WebSocket");
        assert!(stop.join().unwrap());
    });
}

#[rstest]
fn what_is_left_at_the_deadline_is_cut(#[values(Polling, WebSocket)] transport: Transport) {
    let (report, reports) = mpsc::channel();
    let server = serve_root(|ns| {
        ns.on_disconnect(move |_, reason| report.send(reason.as_str()).unwrap());
    });
    // Reads nothing, so it never learns of the stop.
    let client = Client::connected(addr(&server), transport);
    assert!(server.shutdown(Duration::from_millis(50)));
    assert_eq!(next(&reports, "the disconnect handler"), "server shutting down");
    drop(client);
}

#[rstest]
fn a_spread_stop_serves_those_whose_turn_has_not_come(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let (report, reports) = mpsc::channel();
    let server = serve_root(|ns| {
        ns.on("x", |_, event| event.ack(()));
        ns.on_disconnect(move |socket, reason| {
            report.send((socket.id().to_owned(), reason.as_str())).unwrap();
        });
    });
    let mut clients: Vec<(String, Client)> = (0..3)
        .map(|_| {
            let mut client = Client::new(addr(&server), transport);
            (client.join("/", ""), client)
        })
        .collect();
    std::thread::scope(|scope| {
        let spread = scope.spawn(|| server.shutdown_spread(100 * PATIENCE, PATIENCE));
        let (first, reason) = next(&reports, "the first end");
        assert_eq!(reason, "server shutting down");
        for (id, client) in &mut clients {
            if *id != first {
                client.send(r#"421["x"]"#);
                client.expect("431[]");
            }
        }
        assert_eq!(Http::connect(addr(&server)).get(&socket_target("polling", "")).status, 503);
        // Nobody wants to wait any more.
        let stop = scope.spawn(|| server.shutdown(PATIENCE));
        for (_, client) in &mut clients {
            client.closed("the goodbye");
        }
        drop(clients);
        assert!(stop.join().unwrap() && spread.join().unwrap());
    });
}

#[test]
fn a_handler_that_does_not_return_is_left_to_itself() {
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let (report, reports) = mpsc::channel();
    let server = serve_root(|ns| {
        ns.on("block", move |socket, _| {
            report.send("in").unwrap();
            next(&blocked.lock().unwrap(), "the release");
            // The server is gone by now, and says so.
            assert!(socket.namespace().emit("x", ()).is_err() && socket.emit("x", ()).is_err());
            socket.join("x");
            assert_eq!(socket.rooms(), []);
            socket.disconnect(true);
            report.send("out").unwrap();
        });
    });
    let mut client = Client::connected(addr(&server), WebSocket);
    client.send(r#"42["block"]"#);
    next(&reports, "the handler's begin");
    assert!(!server.shutdown(Duration::from_millis(10)));
    client.closed("the close by the server");
    drop(server);
    release.send(()).unwrap();
    assert_eq!(next(&reports, "the handler's end"), "out");
}

#[test]
fn a_disconnect_handler_that_blocks_holds_up_neither_the_server_nor_its_stop() {
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let (report, reports) = mpsc::channel();
    let server = serve(|builder| {
        builder.max_connections(2).hub_queue(1).namespace("/", |ns| {
            ns.on("echo", |_, event| event.ack(()));
            ns.on_disconnect(move |_, _| {
                report.send(()).unwrap();
                // Goes when the test does.
                let _ = blocked.lock().unwrap().recv();
            });
        })
    });
    let io = server.of("/").unwrap();
    let mut stuck = Client::connected(addr(&server), Polling);
    io.disconnect_sockets(false);
    next(&reports, "the disconnect handler");
    stuck.expect("41");
    // Deadlines, emits and acknowledgements of others still work.
    let mut client = Client::connected(addr(&server), Polling);
    for round in 0..20 {
        let socket = io.sockets().pop().unwrap();
        let (report, answers) = mpsc::channel();
        socket
            .emit_with_callback("q", round, Duration::from_millis(1), move |_, _| report.send(()).unwrap())
            .unwrap();
        client.expect(&format!(r#"42{round}["q",{round}]"#));
        client.send(r#"421["echo"]"#);
        client.expect("431[]");
        // The thread of the client's next request calls the overdue callback.
        eventually("the callback was called", || {
            client.send(r#"421["echo"]"#);
            client.expect("431[]");
            answers.try_recv().is_ok()
        });
    }
    drop((client, stuck));
    assert!(!server.shutdown(Duration::from_millis(10)));
    drop(release);
}

#[test]
fn a_handler_may_begin_the_stop() {
    let (handle, given) = mpsc::channel::<std::sync::Weak<Server>>();
    let given = Mutex::new(given);
    let (report, reports) = mpsc::channel();
    let server = Arc::new(serve_root(|ns| {
        ns.on("stop", move |_, _| {
            let server = given.lock().unwrap().recv().unwrap().upgrade().unwrap();
            report.send(server.shutdown(PATIENCE)).unwrap();
        });
    }));
    handle.send(Arc::downgrade(&server)).unwrap();
    let mut client = Client::connected(addr(&server), WebSocket);
    client.send(r#"42["stop"]"#);
    client.closed("the close by the server");
    assert!(!next(&reports, "the stop's answer"), "the handler's thread cannot wait for itself");
    assert!(server.shutdown(PATIENCE));
}

fn socket_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tinysio-test-{}-{name}", std::process::id()))
}

fn unix_get(path: &PathBuf) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let target = socket_target("polling", "");
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn a_unix_domain_socket_is_served_and_removed() {
    let path = socket_path("served");
    let listen = || Server::builder().namespace("/", |_| {}).listen_unix(&path);
    let server = listen().unwrap();
    assert_eq!(server.local_addr(), None);
    assert!(unix_get(&path).contains("\"sid\""));
    let taken = listen().err().unwrap();
    assert!(matches!(taken, StartError::Bind { .. }), "{taken}");
    assert!(unix_get(&path).contains("\"sid\""), "the first server was disturbed");
    drop(server);
    assert!(!path.exists());
    // What a dead server left.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = listen().unwrap();
    assert!(unix_get(&path).contains("\"sid\""));
    drop(server);
    // Somebody's file.
    std::fs::write(&path, "precious").unwrap();
    assert!(listen().is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
}

fn listen_at(path: &PathBuf) -> Result<Server, StartError> {
    Server::builder().namespace("/", |_| {}).listen_unix(path)
}

/// Only a socket that refuses connections is a dead server's.
#[test]
fn a_socket_that_does_not_refuse_connections_is_left_alone() {
    let path = socket_path("busy");
    // One that speaks datagrams.
    let datagrams = UnixDatagram::bind(&path).unwrap();
    assert!(matches!(listen_at(&path), Err(StartError::Bind { .. })));
    UnixDatagram::unbound().unwrap().send_to(b"still there", &path).unwrap();
    drop(datagrams);
    std::fs::remove_file(&path).unwrap();
    // One whose server is so busy that nobody more can even wait for it.
    let busy = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let address = SocketAddrUnix::new(&path).unwrap();
    rustix::net::bind(&busy, &address).unwrap();
    rustix::net::listen(&busy, 0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let next = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
        match rustix::net::connect(&next, &address) {
            Ok(()) => waiting.push(next),
            Err(error) => break assert_eq!(error, rustix::io::Errno::AGAIN),
        }
    }
    assert!(matches!(listen_at(&path), Err(StartError::Bind { .. })));
    assert!(path.exists());
    drop(busy);
    drop(listen_at(&path).unwrap());
}

#[rstest]
fn a_socket_file_gets_the_mode_that_was_set(#[values(0o600, 0o660, 0o666, 0o777)] mode: u32) {
    let path = socket_path(&format!("mode-{mode:o}"));
    let server = Server::builder().namespace("/", |_| {}).unix_mode(mode).listen_unix(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, mode);
    assert!(unix_get(&path).contains("\"sid\""));
    drop(server);
    assert!(!path.exists());
}

/// A server that stops does not remove what another one has put in its place.
#[test]
fn a_socket_file_of_another_server_is_not_removed() {
    let path = socket_path("another");
    let first = listen_at(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = listen_at(&path).unwrap();
    drop(first);
    assert!(unix_get(&path).contains("\"sid\""));
    drop(second);
    assert!(!path.exists());
}

#[test]
fn of_servers_that_start_at_the_same_time_one_gets_an_abandoned_socket() {
    for round in 0..100 {
        let path = socket_path(&format!("race-{round}"));
        drop(UnixListener::bind(&path).unwrap());
        let started: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| listen_at(&path))).collect();
            starts.into_iter().filter_map(|start| start.join().unwrap().ok()).collect()
        });
        assert_eq!(started.len(), 1, "round {round}");
        assert!(unix_get(&path).contains("\"sid\""));
    }
}

#[test]
fn a_taken_port_is_an_error_with_its_address() {
    let server = serve_root(|_| {});
    let error = Server::builder().listen(addr(&server)).err().unwrap();
    assert!(error.to_string().contains(&addr(&server).to_string()), "{error}");
    let StartError::Bind { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
}

#[rstest]
#[case("path", |builder: Builder| builder.path("socket.io"))]
#[case("ping_interval", |builder: Builder| builder.ping_interval(Duration::ZERO))]
#[case("ping_timeout", |builder: Builder| builder.ping_timeout(Duration::MAX))]
#[case("transports", |builder: Builder| builder.transports([]))]
#[case("max_http_buffer_size", |builder: Builder| builder.max_http_buffer_size(0))]
#[case("max_packet_size", |builder: Builder| builder.max_packet_size(1))]
#[case("max_attachments", |builder: Builder| builder.max_attachments(11))]
#[case("max_depth", |builder: Builder| builder.max_depth(0))]
#[case("max_connections", |builder: Builder| builder.max_connections(0))]
#[case("max_connections_per_ip", |builder: Builder| builder.max_connections_per_ip(0))]
#[case("accept_rate", |builder: Builder| builder.accept_rate(Rate { per_second: 1, burst: 0 }))]
#[case("outbox_bytes_max", |builder: Builder| builder.outbox_bytes_max(1_000_000))]
#[case("outbox_bytes_total", |builder: Builder| builder.outbox_bytes_total(1))]
#[case("receive_bytes_total", |builder: Builder| builder.receive_bytes_total(1))]
#[case("max_namespaces", |builder: Builder| builder.max_namespaces(0))]
#[case("hub_queue", |builder: Builder| builder.hub_queue(0))]
#[case("max_head_size", |builder: Builder| builder.max_head_size(10))]
#[case("unix_mode", |builder: Builder| builder.unix_mode(0o1777))]
#[case("event_rate", |builder: Builder| builder.event_rate(Rate { per_second: 1, burst: 0 }))]
#[case("byte_rate", |builder: Builder| builder.byte_rate(Rate { per_second: 0, burst: 0 }))]
#[case("leaders", |builder: Builder| builder.leaders(0))]
#[case("leaders", |builder: Builder| builder.leaders(65))]
#[case("stack_size", |builder: Builder| builder.stack_size((384 << 10) - 1))]
#[case("namespace", |builder: Builder| builder.namespace("chat", |_| {}))]
#[case("namespace", |builder: Builder| builder.namespace("/a,b", |_| {}))]
#[case("namespace", |builder: Builder| builder.namespace("/a[b", |_| {}))]
#[case("namespace", |builder: Builder| builder.namespace("/a{b", |_| {}))]
#[case("namespace", |builder: Builder| builder.namespace("/a\"b", |_| {}))]
#[case("namespace", |builder: Builder| builder.namespace("/a?b", |_| {}))]
fn an_option_that_cannot_work_is_refused_by_name(
    #[case] name: &str,
    #[case] set: impl FnOnce(Builder) -> Builder,
) {
    let error = set(Server::builder()).listen("127.0.0.1:0").err().unwrap();
    assert!(matches!(&error, StartError::Config(text) if text.contains(name)), "{error}");
}

/// `usize::MAX` says "no limit" in every option, and costs nothing at the start.
#[rstest]
#[case::max_http_buffer_size(|b: Builder| b.max_http_buffer_size(usize::MAX))]
#[case::max_packet_size(|b: Builder| b.max_packet_size(usize::MAX))]
#[case::max_depth(|b: Builder| b.max_depth(usize::MAX))]
#[case::max_connections(|b: Builder| b.max_connections(usize::MAX))]
#[case::max_tcp_connections(|b: Builder| b.max_tcp_connections(usize::MAX))]
#[case::max_connections_per_ip(|b: Builder| b.max_connections_per_ip(usize::MAX))]
#[case::outbox_bytes_max(|b: Builder| b.outbox_bytes_max(usize::MAX))]
#[case::outbox_bytes_total(|b: Builder| b.outbox_bytes_total(usize::MAX))]
#[case::receive_bytes_total(|b: Builder| b.receive_bytes_total(usize::MAX))]
#[case::max_auth_size(|b: Builder| b.max_auth_size(usize::MAX))]
#[case::max_namespaces(|b: Builder| b.max_namespaces(usize::MAX))]
#[case::room_bytes_total(|b: Builder| b.room_bytes_total(usize::MAX))]
#[case::hub_queue(|b: Builder| b.hub_queue(usize::MAX))]
#[case::max_pending_acks(|b: Builder| b.max_pending_acks(usize::MAX))]
#[case::max_rooms(|b: Builder| b.max_rooms(usize::MAX))]
#[case::max_head_size(|b: Builder| b.max_head_size(usize::MAX))]
#[case::recovery(|b: Builder| {
    let recovery = ConnectionStateRecovery::default().max_packets(usize::MAX).max_bytes(usize::MAX);
    b.connection_state_recovery(recovery)
})]
#[case::rates(|b: Builder| {
    let none = Rate { per_second: u32::MAX, burst: u32::MAX };
    b.accept_rate(none).event_rate(none).byte_rate(none)
})]
#[case::all(|b: Builder| {
    b.max_http_buffer_size(usize::MAX)
        .max_connections(usize::MAX)
        .max_connections_per_ip(usize::MAX)
        .max_auth_size(usize::MAX)
        .max_namespaces(usize::MAX)
        .room_bytes_total(usize::MAX)
        .hub_queue(usize::MAX)
        .max_pending_acks(usize::MAX)
        .max_rooms(usize::MAX)
        .max_head_size(usize::MAX)
        .connection_state_recovery(ConnectionStateRecovery::default().max_bytes(usize::MAX))
})]
fn the_largest_number_is_no_limit(
    #[case] set: impl FnOnce(Builder) -> Builder,
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let server = serve(|builder| {
        set(builder).namespace("/", |ns| {
            ns.on("join", |socket, event| {
                socket.join("room");
                let all = socket.namespace().to("room").sockets().len();
                event.ack(all)
            });
        })
    });
    // More than the 62 that the arithmetic once came to.
    let idle: Vec<_> = (0..70).map(|_| Http::connect(addr(&server))).collect();
    let mut client = Client::connected(addr(&server), transport);
    client.send(r#"421["join"]"#);
    client.expect("431[1]");
    assert!(server.memory_bound() > 0);
    drop(idle);
}

#[test]
fn the_defaults_work() {
    let server = Server::builder().config(Config::default()).listen("127.0.0.1:0").unwrap();
    assert_ne!(addr(&server).port(), 0);
    // No namespace is served, so nobody is refused or let in.
    let mut client = Client::new(addr(&server), WebSocket);
    client.send("40");
    client.expect(r#"44{"message":"Invalid namespace"}"#);
    assert!(server.to("x").is_none());
    server.emit("to nobody", ()).unwrap();
}

/// It ended the sessions and nothing else, for ever.
#[test]
fn a_handler_may_shut_the_server_down() {
    let slot: Arc<Mutex<Option<Arc<Server>>>> = Arc::default();
    let inside = Arc::clone(&slot);
    let server = Arc::new(serve_root(|ns| {
        ns.on("stop", move |_, _| {
            let server = inside.lock().unwrap().take().unwrap();
            assert!(!server.shutdown(Duration::from_secs(1)), "it cannot wait for itself");
        });
    }));
    *slot.lock().unwrap() = Some(Arc::clone(&server));
    let mut client = Client::connected(addr(&server), WebSocket);
    client.send(r#"42["stop"]"#);
    client.closed("the end");
    drop(client);
    server.wait();
}

/// A session was queued once for every time, not once: with a handler that blocks, the queue filled, and the hub with
/// it.
#[test]
fn the_hub_does_not_wait_for_a_handler_without_a_thread() {
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let (report, reports) = mpsc::channel();
    let server = serve(|builder| {
        builder.max_connections(3).namespace("/", |ns| {
            ns.on("ask", |socket, _| socket.emit_with_callback("q", (), Duration::from_millis(1), |_, _| ()));
            ns.on_disconnecting(move |_, _| {
                report.send(()).unwrap();
                // Holds up a worker thread until the end of the test.
                let _ = blocked.try_lock().map(|blocked| blocked.recv_timeout(PATIENCE));
            });
        })
    });
    // A worker thread performs the end of a polling session that the server ends.
    let first = Client::connected(addr(&server), Polling);
    server.of("/").unwrap().disconnect_sockets(false);
    next(&reports, "the handler that blocks");
    drop(first);
    for _ in 0..12 {
        if server.clients_count() == 3 {
            // Who is in that queue keeps its seat, and so the queue has room for all.
            break;
        }
        let mut client = Client::connected(addr(&server), WebSocket);
        client.send(r#"42["ask"]"#);
        client.text("the question");
        assert_eq!(server.of("/").unwrap().room_len("nobody"), 0, "the hub answers");
        client.leave();
    }
    assert_eq!(server.of("/").unwrap().room_len("nobody"), 0, "the hub answers");
    release.send(()).unwrap();
}
