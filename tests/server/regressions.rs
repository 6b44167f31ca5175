//! Bugs that a review found, each by its name.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use Road::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use tinysio::server::Server;

use crate::support::{
    Client, Http, PATIENCE, Road, addr, all_gone, eventually, next, serve, serve_root, socket_target,
};

/// Only the namespace of the caller was told, so the official client came back in the others.
#[rstest]
fn disconnect_true_says_goodbye_in_every_namespace(#[values(Polling, WebSocket, Upgrade)] road: Road) {
    let (report, reports) = mpsc::channel();
    let server = serve(|builder| {
        builder.namespace("/", |ns| _ = ns.on("bye", |socket, _| socket.disconnect(true))).namespace(
            "/b",
            |ns| {
                ns.on_disconnect(move |_, reason| report.send(reason.as_str()).unwrap());
            },
        )
    });
    let mut client = Client::connected(addr(&server), road);
    client.join("/b", "");
    client.send(r#"42["bye"]"#);
    client.expect("41");
    client.expect("41/b,");
    assert_eq!(client.closed("the end").len(), 0);
    assert_eq!(next(&reports, "the other namespace's handler"), "server namespace disconnect");
    all_gone(&server);
}

/// The hub did not know the socket yet, and dropped the join.
#[test]
fn rooms_joined_in_a_middleware_are_kept() {
    let server = serve_root(|ns| {
        ns.middleware(|socket| {
            socket.join("vip");
            Ok(())
        });
        ns.on_connect(|socket| socket.emit("rooms", socket.rooms().len()));
    });
    Client::connected(addr(&server), WebSocket).expect(r#"42["rooms",1]"#);
    assert_eq!(server.of("/").unwrap().room_len("vip"), 1);
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

/// The packets had left the outbox, and the session lived on without them.
#[test]
fn a_poll_whose_answer_cannot_be_written_ends_its_session() {
    let (report, reports) = mpsc::channel();
    let server = serve(|builder| {
        builder.outbox_bytes_max(64 << 20).outbox_bytes_total(64 << 20).namespace("/", |ns| {
            ns.on_disconnect(move |_, reason| report.send(reason.as_str()).unwrap());
        })
    });
    let client = Client::connected(addr(&server), Polling);
    let target = client.target("polling");
    // More than a loopback connection ever holds: the kernel's buffers grow to some ten megabytes.
    server.emit("large", "x".repeat(24 << 20)).unwrap();
    let mut poll = Http::connect(addr(&server));
    poll.begin("GET", &target, "");
    eventually("the answer is under way", || poll.fill("the answer's beginning") > 0);
    drop(poll);
    assert_eq!(next(&reports, "the disconnect handler"), "transport error");
    all_gone(&server);
}

/// A session was queued once for every time, not once: with a handler that blocks, the queue filled, and the hub with it.
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
                // Holds up the tending thread until the end of the test.
                let _ = blocked.try_lock().map(|blocked| blocked.recv_timeout(PATIENCE));
            });
        })
    });
    // A polling session that the server ends has no thread but the tending one.
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
