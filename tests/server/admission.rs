//! Who may come in: addresses, storms, and sessions that never finish.

use std::time::Duration;

use Road::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use tinysio::server::{Rate, Server};

use crate::support::{Client, Http, Road, Ws, addr, all_gone, eventually, reset, serve, socket_target};

/// Asks for a session: the status, and whether it says when to come back.
fn handshake(server: &Server, road: Road) -> (u16, bool) {
    let answer = match road {
        WebSocket => match Ws::try_open(addr(server), &socket_target("websocket", ""), "") {
            Ok(_) => return (101, false),
            Err(refused) => refused,
        },
        _ => Http::connect(addr(server)).get(&socket_target("polling", "")),
    };
    (answer.status, answer.header("retry-after").is_some())
}

#[rstest]
fn an_address_has_only_so_many_sessions(#[values(Polling, WebSocket, Upgrade)] road: Road) {
    let server = serve(|builder| builder.max_connections_per_ip(2).namespace("/", |_| {}));
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connected(addr(&server), road)).collect();
    assert_eq!(handshake(&server, road), (503, true));
    clients[0].send("41");
    clients[0].leave();
    eventually("a session is gone", || server.clients_count() == 1);
    Client::connected(addr(&server), road);
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
    #[values(Polling, WebSocket, Upgrade)] road: Road,
) {
    let server = serve(|builder| {
        builder.accept_rate(Rate { per_second: 1, burst: 1 }).namespace("/", |ns| {
            ns.on("x", |_, event| event.ack(()));
        })
    });
    let mut client = Client::connected(addr(&server), road);
    // A second may pass between two of them, but not between all.
    let refused = (0..20).filter(|_| handshake(&server, road) == (503, true)).count();
    assert!(refused >= 10, "{refused} of 20 were refused");
    client.send(r#"421["x"]"#);
    client.expect("431[]");
    eventually("a turn comes", || handshake(&server, road).0 != 503);
}

/// Ten thousand of these are in `examples/soak.rs`.
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
            http.send(format!("GET {target} HTTP/1.1\r\nUpgrade: websocket\r\n"));
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
