//! Heartbeat, upgrade, payloads, and answers to bursts.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use Transport::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use tinysio::server::Server;

use crate::support::{
    Client, Frame, Http, PATIENCE, Transport, Ws, addr, all_gone, eventually, next, reset, serve, serve_root,
};

fn with_heartbeat(interval: u64, timeout: u64) -> Server {
    serve(|builder| {
        builder
            .ping_interval(Duration::from_millis(interval))
            .ping_timeout(Duration::from_millis(timeout))
            .namespace("/", |ns| {
                ns.on("echo", |_, event| event.ack(event.args()));
                ns.on("sleep", |_, event| {
                    std::thread::sleep(Duration::from_millis(event.arg(0).unwrap()));
                    event.ack(())
                });
            })
    })
}

#[rstest]
fn pongs_keep_a_session_alive(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = with_heartbeat(30, 2_000);
    let mut client = Client::connected(addr(&server), transport);
    let begun = Instant::now();
    // Pings are answered on the way to what never comes.
    while begun.elapsed() < Duration::from_millis(300) {
        client.send(r#"421["echo"]"#);
        client.expect("431[]");
    }
    assert_eq!(server.clients_count(), 1);
}

#[rstest]
fn traffic_extends_the_wait_for_a_pong_once(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let (interval, timeout) = (100, 400);
    let server = with_heartbeat(interval, timeout);
    let begun = Instant::now();
    let mut client = Client::connected(addr(&server), transport);
    let target = client.target("polling");
    while server.clients_count() > 0 {
        assert!(begun.elapsed() < PATIENCE, "traffic alone keeps a session alive");
        if client.is_polling() {
            // Refused when the session is over.
            Http::connect(addr(&server)).post(&target, r#"42["unheard"]"#);
        } else {
            client.send(r#"42["unheard"]"#);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let lived = begun.elapsed();
    assert!(lived > Duration::from_millis(2 * timeout), "closed after {lived:?}, not extended");
}

#[rstest]
fn a_handler_longer_than_the_timeouts_does_not_kill_its_session(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let server = with_heartbeat(100, 1_000);
    let mut client = Client::connected(addr(&server), transport);
    client.send(r#"421["sleep",1800]"#);
    client.expect("431[]");
    client.send(r#"422["echo","still here"]"#);
    client.expect(r#"432["still here"]"#);
}

/// Official clients leave when no ping came for `ping_interval + ping_timeout`, whatever their own pongs lie behind.
#[rstest]
fn pings_go_on_while_a_handler_runs(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let (interval, timeout, sleep) = (100, 400, 2_500);
    let server = with_heartbeat(interval, timeout);
    let mut client = Client::connected(addr(&server), transport);
    let event = format!(r#"421["sleep",{sleep}]"#);
    let mut post = Http::connect(addr(&server));
    if client.is_polling() {
        post.begin("POST", &client.target("polling"), &event);
    } else {
        client.send(&event);
    }
    let mut pings = 0;
    let mut answered = false;
    while !answered {
        match client.next_raw("the acknowledgement") {
            Frame::Text(text) if text == "2" => pings += 1,
            Frame::Text(text) if text == "6" => {}
            frame => {
                assert_eq!(frame, Frame::text("431[]"));
                answered = true;
            }
        }
    }
    assert!(pings >= sleep / (interval + timeout), "{pings} pings in {sleep} ms");
    if client.is_polling() {
        assert_eq!(post.response("the answer to the POST").status, 200);
    }
    client.send("3");
    client.send(r#"422["echo","still here"]"#);
    client.expect(r#"432["still here"]"#);
}

/// Its pongs are not read while its handler runs, but a client that is gone is not kept for longer than one that is
/// idle.
#[rstest]
fn a_client_that_goes_while_its_handler_runs_is_missed_in_time(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let server = with_heartbeat(100, 300);
    let mut client = Client::connected(addr(&server), transport);
    let event = r#"42["sleep",1000]"#;
    let mut post = Http::connect(addr(&server));
    if client.is_polling() {
        post.begin("POST", &client.target("polling"), event);
    } else {
        client.send(event);
    }
    // It reads nothing, sends nothing, and keeps its connections.
    all_gone(&server);
}

#[test]
fn the_held_poll_is_released_at_the_probe() {
    let server = with_heartbeat(25_000, 20_000);
    let mut client = Client::connected(addr(&server), Polling);
    client.ask();
    let mut ws = Ws::open(client.addr, &client.target("websocket"));
    ws.send("2probe");
    ws.expect("3probe");
    // Nothing else is due to it for 25 s.
    client.end_poll();
    ws.send("5");
    ws.send(r#"421["echo"]"#);
    ws.expect("431[]");
}

#[test]
fn nothing_is_lost_doubled_or_reordered_by_an_upgrade() {
    const PACKETS: usize = 400;
    let received = Arc::new(Mutex::new(Vec::<usize>::new()));
    let log = Arc::clone(&received);
    let server = serve_root(|ns| {
        ns.on("n", move |_, event| log.lock().unwrap().push(event.arg(0).unwrap()));
        ns.on("flush", |_, event| event.ack(()));
    });
    let io = server.of("/").unwrap();
    for round in 0..20 {
        let mut client = Client::connected(addr(&server), Polling);
        let socket = io.sockets().pop().unwrap();
        std::thread::scope(|scope| {
            let io = &io;
            scope.spawn(move || {
                for n in 0..PACKETS {
                    if n % 3 == 0 {
                        io.emit("n", n).unwrap();
                    } else {
                        socket.emit("n", n).unwrap();
                    }
                    if n % 50 == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            let mut sent = 0;
            let mut send = |client: &mut Client| {
                client.send_texts(&[&format!(r#"42["n",{sent}]"#), &format!(r#"42["n",{}]"#, sent + 1)]);
                sent += 2;
            };
            for n in 0..PACKETS {
                if n == round * 15 {
                    client.ask();
                    send(&mut client);
                    client.upgrade();
                }
                if n % 40 == 0 {
                    send(&mut client);
                }
                client.expect(&format!(r#"42["n",{n}]"#));
            }
            client.send(r#"421["flush"]"#);
            client.expect("431[]");
            assert_eq!(std::mem::take(&mut *received.lock().unwrap()), (0..sent).collect::<Vec<_>>());
            client.leave();
        });
        all_gone(&server);
    }
}

#[test]
fn an_upgrade_that_takes_too_long_costs_only_the_websocket() {
    let server = serve(|builder| {
        builder.upgrade_timeout(Duration::from_millis(50)).namespace("/", |ns| {
            ns.on("echo", |_, event| event.ack(()));
        })
    });
    for probes in [false, true] {
        let mut client = Client::connected(addr(&server), Polling);
        let mut ws = Ws::open(client.addr, &client.target("websocket"));
        if probes {
            ws.send("2probe");
            ws.expect("3probe");
        }
        ws.closed("the close of an upgrade that goes on for too long");
        client.send(r#"421["echo"]"#);
        client.expect("431[]");
        // And a later one may succeed.
        client.upgrade();
        client.send(r#"422["echo"]"#);
        client.expect("432[]");
    }
}

#[rstest]
#[case::a_message(Ws::frame(0x81, b"4x"))]
#[case::an_upgrade_without_probe(Ws::frame(0x81, b"5"))]
#[case::a_bare_ping(Ws::frame(0x81, b"2"))]
#[case::garbage(Ws::frame(0x81, b"abc"))]
#[case::nothing(Ws::frame(0x81, b""))]
#[case::binary(Ws::frame(0x82, b"2probe"))]
#[case::a_close(Ws::frame(0x88, &[]))]
#[case::a_message_after_the_probe([Ws::frame(0x81, b"2probe"), Ws::frame(0x81, b"4x")].concat())]
#[case::a_second_probe([Ws::frame(0x81, b"2probe"), Ws::frame(0x81, b"2probe")].concat())]
#[case::a_broken_frame(vec![0xff; 20])]
fn a_websocket_that_does_not_upgrade_properly_is_closed_alone(#[case] bytes: Vec<u8>) {
    let server = with_heartbeat(25_000, 20_000);
    let mut client = Client::connected(addr(&server), Polling);
    let mut ws = Ws::open(client.addr, &client.target("websocket"));
    ws.send_raw(&bytes);
    ws.closed("the close of a WebSocket that does not upgrade");
    client.send(r#"421["echo"]"#);
    client.expect("431[]");
    client.upgrade();
    client.send(r#"422["echo"]"#);
    client.expect("432[]");
}

#[test]
fn a_second_websocket_during_the_upgrade_is_closed() {
    let server = with_heartbeat(25_000, 20_000);
    let mut client = Client::connected(addr(&server), Polling);
    let mut first = Ws::open(client.addr, &client.target("websocket"));
    first.send("2probe");
    first.expect("3probe");
    let mut second = Ws::open(client.addr, &client.target("websocket"));
    assert_eq!(second.closed("the second WebSocket's close"), Some(None));
    client.end_poll();
    first.send("5");
    first.send(r#"421["echo"]"#);
    first.expect("431[]");
}

#[rstest]
fn a_session_on_a_websocket_takes_no_other_transport(#[values(WebSocket, Upgrade)] transport: Transport) {
    let server = with_heartbeat(25_000, 20_000);
    let mut client = Client::connected(addr(&server), transport);
    for method in ["GET", "POST"] {
        let refused = Http::connect(client.addr).request(method, &client.target("polling"), "");
        assert_eq!((refused.status, &*refused.body), (400, r#"{"code":3,"message":"Bad request"}"#));
    }
    let mut second = Ws::open(client.addr, &client.target("websocket"));
    assert_eq!(second.closed("the second WebSocket's close"), Some(None));
    client.send(r#"421["echo"]"#);
    client.expect("431[]");
}

#[rstest]
fn a_reset_at_any_step_of_an_upgrade_is_survived(#[values(0, 1, 2, 3)] steps: usize) {
    let server = with_heartbeat(25_000, 20_000);
    let mut client = Client::connected(addr(&server), Polling);
    client.ask();
    let mut ws = Ws::open(client.addr, &client.target("websocket"));
    let packets = ["2probe", "5", r#"421["echo"]"#];
    for packet in &packets[..steps] {
        ws.send(packet);
        if *packet == "2probe" {
            ws.expect("3probe");
        }
    }
    reset(ws.http.stream);
    if steps < 2 {
        client.send(r#"422["echo"]"#);
        client.expect("432[]");
        client.leave();
    }
    all_gone(&server);
}

#[test]
fn a_payload_has_at_most_sixteen_packets() {
    let server = serve_root(|ns| {
        ns.on("talk", |socket, _| {
            for n in 0..40 {
                socket.emit("n", n)?;
            }
            socket.disconnect(true);
            Ok::<_, tinysio::server::EmitError>(())
        });
    });
    let client = Client::new(addr(&server), Polling);
    let (target, mut http) = (client.target("polling"), Http::connect(addr(&server)));
    http.post(&target, "40\x1e42[\"talk\"]");
    let mut packets = Vec::new();
    let mut sizes = Vec::new();
    while packets.last().is_none_or(|last| last != "1") {
        let payload = http.get(&target);
        assert_eq!(payload.status, 200, "the session's last packets can be fetched: {packets:?}");
        let before = packets.len();
        packets.extend(payload.body.split('\x1e').map(ToOwned::to_owned));
        sizes.push(packets.len() - before);
    }
    // The consent, 40 events, the DISCONNECT, the close.
    assert_eq!((packets.len(), sizes.iter().max()), (43, Some(&16)), "{sizes:?}");
    assert_eq!(http.get(&target).status, 400);
}

#[test]
fn what_a_handler_emits_does_not_wait_for_the_next_one() {
    let (release, blocked) = mpsc::channel();
    let blocked = Mutex::new(blocked);
    let server = serve_root(|ns| {
        ns.on("quick", |socket, event| {
            // By the hub and past it.
            socket.namespace().emit("news", ())?;
            event.ack(())
        });
        ns.on("slow", move |_, event| {
            next(&blocked.lock().unwrap(), "the release");
            event.ack(())
        });
    });
    let mut client = Client::connected(addr(&server), WebSocket);
    client.send_texts(&[r#"421["quick"]"#, r#"422["slow"]"#]);
    client.expect(r#"42["news"]"#);
    client.expect("431[]");
    release.send(()).unwrap();
    client.expect("432[]");

    let mut client = Client::connected(addr(&server), Polling);
    let (target, mut posts) = (client.target("polling"), Http::connect(addr(&server)));
    posts.begin("POST", &target, "421[\"quick\"]\x1e422[\"slow\"]");
    client.expect(r#"42["news"]"#);
    client.expect("431[]");
    release.send(()).unwrap();
    client.expect("432[]");
    assert_eq!(posts.response("the POST's answer").body, "ok");
}

/// A burst whose first answers are gathered, and whose last message ends the session.
#[rstest]
#[case::a_close_frame(Frame::Close(Some(1000)), Some(1000))]
#[case::a_broken_packet(Frame::text("abc"), None)]
fn answers_to_a_burst_go_out_before_its_end(#[case] last: Frame, #[case] code: Option<u16>) {
    let server = with_heartbeat(25_000, 20_000);
    let mut client = Client::connected(addr(&server), WebSocket);
    let mut burst = Vec::new();
    for n in 0..3 {
        burst.extend(Ws::frame(0x81, format!(r#"42{n}["echo"]"#).as_bytes()));
    }
    burst.extend(match &last {
        Frame::Text(text) => Ws::frame(0x81, text.as_bytes()),
        _ => Ws::frame(0x88, &1000u16.to_be_bytes()),
    });
    client.ws().send_raw(&burst);
    for n in 0..3 {
        client.expect(&format!("43{n}[]"));
    }
    assert_eq!(client.next("the close"), Frame::Close(code));
}

#[rstest]
fn many_packets_of_one_burst_are_answered_in_order(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let server = with_heartbeat(25_000, 20_000);
    let mut client = Client::connected(addr(&server), transport);
    let packets: Vec<Frame> =
        (0..2_000).map(|n| Frame::Text(format!(r#"42{n}["echo","{}"]"#, "x".repeat(n % 100)))).collect();
    client.send_burst(&packets);
    for n in 0..2_000 {
        client.expect(&format!(r#"43{n}["{}"]"#, "x".repeat(n % 100)));
    }
}

/// The packets of one handler are gathered while another event waits for its turn, but not for as long as it emits.
#[rstest]
fn a_handler_that_never_rests_does_not_keep_its_packets_back(
    #[values(Polling, WebSocket)] transport: Transport,
) {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let server = serve_root(|ns| {
        ns.on("chat", move |socket, _| {
            let released = released.lock().unwrap();
            for n in 0.. {
                socket.emit("n", n)?;
                if released.recv_timeout(Duration::from_micros(500)).is_ok() {
                    break;
                }
            }
            Ok::<_, tinysio::server::EmitError>(())
        });
        ns.on("after", |_, event| event.ack(()));
    });
    let mut client = Client::connected(addr(&server), transport);
    let (target, mut posts) = (client.target("polling"), Http::connect(addr(&server)));
    if transport == Polling {
        posts.begin("POST", &target, "42[\"chat\"]\x1e421[\"after\"]");
    } else {
        client.send_texts(&[r#"42["chat"]"#, r#"421["after"]"#]);
    }
    for n in 0..5 {
        client.expect(&format!(r#"42["n",{n}]"#));
    }
    release.send(()).unwrap();
    while client.text("the rest") != "431[]" {}
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
