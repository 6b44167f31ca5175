//! The bytes that all clients share, each bound with somebody who goes beyond it and somebody who must not notice.

use std::{
    sync::{Mutex, mpsc},
    time::Duration,
};

use Transport::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use serde_json::json;
use tinysio::server::{Builder, EmitError, Server};

use crate::support::{Client, Frame, Http, PATIENCE, Transport, Ws, addr, all_gone, eventually, next, serve};

/// A server that says who was disconnected and why, and acknowledges `x`.
fn reporting(set_up: impl FnOnce(Builder) -> Builder) -> (Server, mpsc::Receiver<(String, &'static str)>) {
    let (report, reports) = mpsc::channel();
    let server = serve(|builder| {
        set_up(builder).namespace("/", |ns| {
            ns.on("x", |_, event| event.ack(()));
            ns.on_disconnect(move |socket, reason| {
                report.send((socket.id().to_owned(), reason.as_str())).unwrap();
            });
        })
    });
    (server, reports)
}

const CHUNK: usize = 20_000;

#[test]
fn when_all_outboxes_are_full_the_largest_goes_first() {
    let (server, reports) = reporting(|builder| {
        builder.max_http_buffer_size(100_000).outbox_bytes_max(200_000).outbox_bytes_total(200_000)
    });
    let payload = "x".repeat(CHUNK);
    for round in 0..3 {
        let mut clients: Vec<Client> = (0..3).map(|_| Client::new(addr(&server), Polling)).collect();
        let ids: Vec<String> = clients.iter_mut().map(|client| client.join("/", "")).collect();
        for (id, packets) in ids.iter().zip([2, 5, 2]) {
            for _ in 0..packets {
                server.to(id).unwrap().emit("n", &payload).unwrap();
            }
        }
        // 180 kB wait. What is too much is the third client's, but the second has most.
        server.to(&ids[2]).unwrap().emit("n", &payload).unwrap();
        let ended = next(&reports, "the end of the largest");
        assert_eq!(ended, (ids[1].clone(), "slow consumer"), "round {round}");
        for (at, packets) in [(0, 2), (2, 3)] {
            for _ in 0..packets {
                clients[at].text("what waited for the others");
            }
            clients[at].leave();
            assert_eq!(next(&reports, "the end of the others").1, "transport close");
        }
        // Everything is given back, or the next round would fail.
        all_gone(&server);
    }
}

/// A payload that a polling client does not read is no longer in its outbox, but in memory all the same.
#[test]
fn a_payload_that_is_not_read_counts_as_waiting() {
    let (server, reports) = reporting(|builder| {
        builder.outbox_bytes_max(64 << 20).outbox_bytes_total(64 << 20).close_timeout(PATIENCE)
    });
    let mut deaf = Client::connected(addr(&server), Polling);
    deaf.ask();
    let huge = "x".repeat(40 << 20);
    let io = server.of("/").unwrap();
    let socket = io.sockets().pop().unwrap();
    let deaf_id = socket.id().to_owned();
    socket.emit("huge", &huge).unwrap();
    eventually("the held GET has taken it", || socket.backlog() == 0);
    let mut other = Client::new(addr(&server), Polling);
    let id = other.join("/", "");
    server.to(&id).unwrap().emit("large", &huge[..30 << 20]).unwrap();
    assert_eq!(next(&reports, "the end of who does not read"), (deaf_id, "slow consumer"));
    assert_eq!(other.text("the large packet").len(), (30 << 20) + r#"42["large",""]"#.len());
}

fn close_code(client: &mut Client) -> Frame {
    loop {
        let frame = client.ws().next("the close");
        if matches!(frame, Frame::Close(_) | Frame::End) {
            return frame;
        }
    }
}

/// Keeps 130 kB under way, of at most 250: a body that is never completed.
fn hog(server: &Server) -> Http {
    let client = Client::connected(addr(server), Polling);
    let post = || {
        let mut hog = Http::connect(addr(server));
        let target = client.target("polling");
        hog.send(format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n{}",
            "4".repeat(130_000)
        ));
        hog
    };
    let mut hog = post();
    let other = Client::connected(addr(server), Polling);
    let body = format!(r#"42["y","{}"]"#, "y".repeat(150_000));
    eventually("the hog's bytes have been taken", || {
        let is_refused = Http::connect(addr(server)).post(&other.target("polling"), &body).status == 503;
        if !is_refused && hog.is_answered() {
            // It came when the other's bytes were under way, and was the one to be refused.
            hog = post();
        }
        is_refused
    });
    hog
}

#[test]
fn a_body_beyond_what_may_be_under_way_is_refused_and_small_ones_are_not() {
    let (server, reports) = reporting(|builder| {
        builder.max_http_buffer_size(200_000).max_packet_size(200_000).receive_bytes_total(200_000)
    });
    let hog = hog(&server);
    let mut client = Client::connected(addr(&server), Polling);
    let body = format!(r#"42["x","{}"]"#, "x".repeat(150_000));
    let refused = {
        let mut answer = None;
        // The hog's bytes may still be on their way.
        eventually("there is no room", || {
            let response = Http::connect(addr(&server)).post(&client.target("polling"), &body);
            answer = Some(response).filter(|response| response.status == 503);
            answer.is_some()
        });
        answer.unwrap()
    };
    assert_eq!(refused.header("retry-after"), Some("1"));
    // As a chunked body too.
    let mut chunked = Http::connect(addr(&server));
    chunked.send(format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        client.target("polling"),
        body.len()
    ));
    assert_eq!(chunked.response("the refusal").status, 503);
    // The session lives, and what is small gets through.
    client.send(r#"421["x"]"#);
    client.expect("431[]");
    drop(hog);
    assert_eq!(next(&reports, "the end of the hog").1, "transport error");
    eventually("there is room again", || {
        Http::connect(addr(&server)).post(&client.target("polling"), &body).status == 200
    });
}

#[rstest]
#[case::one_message(&[(0x81, 200_000)])]
#[case::fragments(&[(0x01, 50_000), (0x00, 50_000), (0x00, 50_000), (0x00, 50_000)])]
fn a_message_beyond_what_may_be_under_way_closes_its_connection(#[case] frames: &[(u8, usize)]) {
    let (server, reports) = reporting(|builder| {
        builder.max_http_buffer_size(250_000).max_packet_size(250_000).receive_bytes_total(250_000)
    });
    let _hog = hog(&server);
    let mut control_client = Client::connected(addr(&server), WebSocket);
    let mut client = Client::new(addr(&server), WebSocket);
    let id = client.join("/", "");
    for &(first, length) in frames {
        client.ws().send_raw(&Ws::frame(first, &vec![b'4'; length]));
    }
    assert_eq!(next(&reports, "the end"), (id, "overloaded"));
    assert_eq!(close_code(&mut client), Frame::Close(Some(1013)));
    control_client.send(r#"421["x"]"#);
    control_client.expect("431[]");
}

#[rstest]
fn attachments_beyond_what_may_be_under_way_end_their_session(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let (server, reports) = reporting(|builder| {
        builder.max_http_buffer_size(200_000).max_packet_size(250_000).receive_bytes_total(300_000)
    });
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connected(addr(&server), transport)).collect();
    let header = r#"452-["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    for client in &mut clients {
        client.send_burst(&[Frame::text(header), Frame::Binary(vec![0; 100_000])]);
    }
    let (_, reason) = next(&reports, "the end of one of them");
    assert_eq!(reason, "overloaded");
    // The others' packets can be completed.
    eventually("two are left", || server.clients_count() == 2 || transport == Polling);
    assert!(reports.try_recv().is_err());
}

#[rstest]
fn an_emit_may_wait_for_its_client(#[values(Polling, WebSocket)] transport: Transport) {
    let server = serve(|builder| {
        builder.max_http_buffer_size(50_000).outbox_bytes_max(200_000).namespace("/", |_| {})
    });
    let mut client = Client::connected(addr(&server), transport);
    let socket = server.of("/").unwrap().sockets().pop().unwrap();
    let payload = "x".repeat(CHUNK);
    // Nobody reads, and nobody is disconnected for it.
    let mut sent = 0;
    let error = loop {
        match socket.emit_timeout("n", (sent, &payload), Duration::from_millis(50)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 5_000, "100 MB wait for a client");
    };
    assert!(matches!(error, EmitError::Timeout), "{error}");
    let backlog = socket.backlog();
    assert!((100_000..=125_000).contains(&backlog), "{backlog}");
    std::thread::scope(|scope| {
        let producer = scope
            .spawn(|| (sent..sent + 100).try_for_each(|n| socket.emit_timeout("n", (n, &payload), PATIENCE)));
        for n in 0..sent + 100 {
            assert!(client.text("the next one").starts_with(&format!(r#"42["n",{n},"#)));
        }
        producer.join().unwrap().unwrap();
    });
    eventually("the backlog is gone", || socket.backlog() == 0);
    client.leave();
    eventually("it says so", || {
        matches!(socket.emit_timeout("n", (), PATIENCE), Err(EmitError::Disconnected))
    });
}

/// A thread that waits for room learns that there will be none.
#[rstest]
fn a_wait_for_a_client_ends_when_the_client_has_gone(#[values(Polling, WebSocket)] transport: Transport) {
    let server = serve(|builder| {
        builder.max_http_buffer_size(50_000).outbox_bytes_max(200_000).namespace("/", |_| {})
    });
    let _client = Client::connected(addr(&server), transport);
    let socket = server.of("/").unwrap().sockets().pop().unwrap();
    let payload = "x".repeat(CHUNK);
    while socket.emit_timeout("n", &payload, Duration::from_millis(20)).is_ok() {}
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| socket.emit_timeout("n", &payload, 10 * PATIENCE));
        let stop = scope.spawn(|| server.shutdown(Duration::from_millis(50)));
        assert!(matches!(waiting.join().unwrap(), Err(EmitError::Disconnected)));
        stop.join().unwrap();
    });
}

#[rstest]
fn what_a_socket_keeps_is_bounded(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve(|builder| {
        builder.max_auth_size(100).max_namespaces(2).namespace("/", |_| {}).namespace("/a", |_| {}).namespace(
            "/b",
            |ns| {
                ns.on_connect(|_| ());
            },
        )
    });
    let mut client = Client::new(addr(&server), transport);
    client.send(&format!("40{}", json!({ "token": "x".repeat(100) })));
    client.expect(r#"44{"message":"Auth payload too large"}"#);
    client.join("/", &json!({ "token": "x".repeat(80) }).to_string());
    client.join("/a", "");
    client.send("40/b,");
    client.expect(r#"44/b,{"message":"Too many namespaces"}"#);
    client.send("41/a,");
    client.join("/b", "");
}

#[test]
fn rooms_share_their_bytes() {
    let server = serve(|builder| {
        builder.room_bytes_total(1_000).namespace("/other", |_| {}).namespace("/", |ns| {
            ns.on("join", |socket, event| {
                socket.join(event.raw(0).unwrap().json());
                event.ack(socket.rooms().len())
            });
        })
    });
    let mut client = Client::connected(addr(&server), WebSocket);
    let mut join = |room: usize, expected: usize| {
        client.send(&format!(r#"421["join",{room}]"#));
        client.expect(&format!("431[{expected}]"));
    };
    for (room, expected) in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (1, 4)] {
        join(room, expected);
    }
    let io = server.of("/").unwrap();
    io.sockets()[0].leave("4");
    join(5, 4);
    assert_eq!((io.room_len("4"), io.room_len("5")), (0, 1));
}

/// A handler that takes its time holds what it was called with; what comes meanwhile is bounded.
#[test]
fn what_is_being_handled_counts_too() {
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let (report, reports) = mpsc::channel();
    let server = serve(|builder| {
        builder.max_http_buffer_size(100_000).max_packet_size(100_000).receive_bytes_total(100_000).namespace(
            "/",
            |ns| {
                ns.on("block", move |_, _| {
                    report.send(()).unwrap();
                    next(&blocked.lock().unwrap(), "the release");
                });
                ns.on("x", |_, event| event.ack(()));
            },
        )
    });
    let mut blocking = Client::connected(addr(&server), WebSocket);
    blocking.send(&format!(r#"42["block","{}"]"#, "x".repeat(90_000)));
    next(&reports, "the handler");
    let client = Client::connected(addr(&server), Polling);
    let body = format!(r#"42["x","{}"]"#, "x".repeat(60_000));
    let post = || Http::connect(addr(&server)).post(&client.target("polling"), &body).status;
    assert_eq!(post(), 503);
    release.send(()).unwrap();
    eventually("there is room again", || post() == 200);
}
