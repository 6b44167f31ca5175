//! Who may come in: addresses, storms, and sessions that never finish.

use std::time::Duration;

use Transport::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use tinysio::server::{Cors, Rate, RefusalReason, Server};

use crate::support::{Client, Http, Transport, Ws, addr, all_gone, eventually, reset, serve, socket_target};

/// Asks for a session: the status, and whether it says when to come back.
fn handshake(server: &Server, transport: Transport) -> (u16, bool) {
    let answer = match transport {
        WebSocket => match Ws::try_open(addr(server), &socket_target("websocket", ""), "") {
            Ok(_) => return (101, false),
            Err(refused) => refused,
        },
        _ => Http::connect(addr(server)).get(&socket_target("polling", "")),
    };
    (answer.status, answer.header("retry-after").is_some())
}

#[rstest]
fn an_address_has_only_so_many_sessions(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve(|builder| builder.max_connections_per_ip(2).namespace("/", |_| {}));
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connected(addr(&server), transport)).collect();
    assert_eq!(handshake(&server, transport), (503, true));
    clients[0].send("41");
    clients[0].leave();
    eventually("a session is gone", || server.clients_count() == 1);
    Client::connected(addr(&server), transport);
}

#[test]
fn an_address_has_only_so_many_connections() {
    let server = serve(|builder| builder.max_connections_per_ip(1).namespace("/", |_| {}));
    // Two, and eight to spare.
    let kept: Vec<Http> = (0..10).map(|_| Http::connect(addr(&server))).collect();
    let mut refused = Http::connect(addr(&server));
    assert_eq!(refused.response("the refusal").status, 503);
    refused.ends("a refused connection");
    drop(kept);
    eventually("there is room again", || Http::connect(addr(&server)).get("/nowhere").status == 404);
}

#[test]
fn proxies_may_bring_as_many_as_they_like() {
    let server = serve(|builder| {
        builder.max_connections_per_ip(1).exempt_from_ip_limit(|ip| ip.is_loopback()).namespace("/", |_| {})
    });
    let clients: Vec<Client> = (0..20).map(|_| Client::connected(addr(&server), WebSocket)).collect();
    assert_eq!(server.clients_count(), clients.len());
}

#[rstest]
fn a_storm_is_told_to_come_later_and_who_is_in_notices_nothing(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let server = serve(|builder| {
        builder.accept_rate(Rate { per_second: 1, burst: 1 }).namespace("/", |ns| {
            ns.on("x", |_, event| event.ack(()));
        })
    });
    let mut client = Client::connected(addr(&server), transport);
    // A second may pass between two of them, but not between all.
    let refused = (0..20).filter(|_| handshake(&server, transport) == (503, true)).count();
    assert!(refused >= 10, "{refused} of 20 were refused");
    assert_eq!(server.stats().refused.of(RefusalReason::AcceptRate), refused as u64);
    client.send(r#"421["x"]"#);
    client.expect("431[]");
    eventually("a turn comes", || handshake(&server, transport).0 != 503);
}

/// Nothing else shows an operator that clients are turned away, so each reason has a counter of its own.
#[rstest]
#[case::full(RefusalReason::MaxConnections, 503)]
#[case::of_one_address(RefusalReason::MaxConnectionsPerIp, 503)]
#[case::by_the_application(RefusalReason::AllowRequest, 403)]
fn refused_handshakes_are_counted_by_reason(
    #[case] reason: RefusalReason,
    #[case] status: u16,
    #[values(Polling, WebSocket)] transport: Transport,
) {
    let server = serve(|builder| {
        let builder = builder.namespace("/", |_| {});
        match reason {
            RefusalReason::MaxConnections => builder.max_connections(1),
            RefusalReason::MaxConnectionsPerIp => builder.max_connections_per_ip(1),
            _ => builder.allow_request(|_| Err("not today".into())),
        }
    });
    let first = reason != RefusalReason::AllowRequest;
    let _first = first.then(|| Client::connected(addr(&server), transport));
    assert_eq!(server.stats().refused.total(), 0);
    let before = server.stats();
    assert_eq!(before.is_full(), reason == RefusalReason::MaxConnections, "{before:?}");
    for refused in 1..=3 {
        // On WebSocket a rule that is broken is always 400, as by the official server.
        let expected = if transport == WebSocket && status == 403 { 400 } else { status };
        assert_eq!(handshake(&server, transport), (expected, status == 503));
        let stats = server.stats();
        assert_eq!((stats.refused.of(reason), stats.refused.total()), (refused, refused), "{stats:?}");
    }
}

#[rstest]
#[case::no_transport("GET /socket.io/?EIO=4 HTTP/1.1\r\n", RefusalReason::BadRequest)]
#[case::no_http("nonsense\r\n", RefusalReason::BadRequest)]
#[case::a_foreign_page(
    "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nOrigin: http://foreign.example\r\n",
    RefusalReason::Cors
)]
#[case::a_session_of_another_server(
    "GET /socket.io/?EIO=4&transport=polling&sid=abc HTTP/1.1\r\n",
    RefusalReason::UnknownSession
)]
fn bad_requests_are_counted_by_reason(#[case] head: &str, #[case] reason: RefusalReason) {
    let server = serve(|builder| builder.cors(Cors::List(Vec::new())).namespace("/", |_| {}));
    let mut http = Http::connect(addr(&server));
    http.send(format!("{head}Host: x\r\n\r\n"));
    assert!([400, 403].contains(&http.response("the refusal").status));
    let refused = server.stats().refused;
    assert_eq!((refused.of(reason), refused.total()), (1, 1), "{refused:?}");
}

#[test]
fn connections_that_are_refused_without_a_thread_are_counted() {
    let server = serve(|builder| builder.max_connections(1).max_tcp_connections(4).namespace("/", |_| {}));
    let kept: Vec<Http> = (0..4).map(|_| Http::connect(addr(&server))).collect();
    let watch = server.stats_watch();
    let mut refused = Http::connect(addr(&server));
    assert_eq!(refused.response("the refusal").status, 503);
    let stats = watch.stats().unwrap();
    assert_eq!(stats.refused.of(RefusalReason::MaxTcpConnections), 1, "{stats:?}");
    assert!(stats.is_full(), "{stats:?}");
    drop(kept);
    drop(server);
    assert_eq!(watch.stats(), None);
}

/// Ten thousand of these are in `harness/soak.rs`.
#[test]
fn upgrades_that_are_given_up_leave_no_session() {
    let server = serve(|builder| {
        builder
            .ping_interval(Duration::from_millis(300))
            .ping_timeout(Duration::from_millis(200))
            .max_connections(2_000)
            .namespace("/", |_| {})
    });
    for n in 0..600 {
        let mut http = Http::connect(addr(&server));
        let open = http.get(&socket_target("polling", "")).body;
        let sid = open.split('"').nth(3).unwrap().to_owned();
        let target = socket_target("websocket", &format!("&sid={sid}"));
        if n % 4 == 0 {
            // The request only.
            http.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"));
            reset(http.stream);
            continue;
        }
        let mut ws = Ws::open(addr(&server), &target);
        if n % 4 > 1 {
            ws.send("2probe");
        }
        if n % 4 > 2 {
            ws.expect("3probe");
        }
        reset(ws.http.stream);
    }
    all_gone(&server);
    eventually("no connection is left", || server.connections_count() == 0);
    Client::connected(addr(&server), Upgrade);
}
