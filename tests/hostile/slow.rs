//! Clients that stop in the midst, or go on by one byte at a time: in every state that a connection has, all at the
//! same time.

use std::{net::SocketAddr, thread, time::Duration};

use Transport::{Polling, WebSocket};

use crate::{
    scenario::{goodbye, scenario_of},
    server::Kind,
    support::{Client, Frame, Http, Transport, Ws, reset},
};

/// How many there are of each row at the same time.
const CROWD: usize = 4;

/// Its name, why its socket ends, and what it does until it is rid of.
type Row = (&'static str, Option<&'static str>, fn(SocketAddr));

/// Requests that never become whole.
const REQUESTS: &[Row] = &[
    ("nothing at all", None, |addr| Http::connect(addr).ends("a connection that says nothing")),
    ("a blank line", None, |addr| half_a_request(addr, "\r\n")),
    ("half a line", None, |addr| half_a_request(addr, "GET /hea")),
    ("half a head", None, |addr| half_a_request(addr, "GET /health HTTP/1.1\r\nHost: x\r\n")),
    ("a head by drops", None, |addr| drops(addr, "GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")),
    ("a line by drops", None, |addr| drops(addr, "GET /")),
    ("half-closed, with answers due", None, |addr| {
        let mut http = Http::connect(addr);
        http.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3));
        http.half_close();
        for _ in 0..3 {
            assert_eq!(http.response("the answer to a half-closed client").body, "ok");
        }
        http.ends("a connection that brings nothing more");
    }),
    ("half a body", Some("transport error"), |addr| half_a_body(addr, "Content-Length: 100", "42[")),
    ("half a chunk", Some("transport error"), |addr| {
        half_a_body(addr, "Transfer-Encoding: chunked", "5\r\n42");
    }),
    ("no chunk", Some("transport error"), |addr| half_a_body(addr, "Transfer-Encoding: chunked", "")),
];

/// Sessions that stop.
const SESSIONS: &[Row] = &[
    ("no CONNECT on polling", None, |addr| no_connect(addr, Polling)),
    ("no CONNECT on WebSocket", None, |addr| no_connect(addr, WebSocket)),
    ("no pong", Some("ping timeout"), |addr| silent(addr, &[])),
    ("half a frame", Some("ping timeout"), |addr| silent(addr, &Ws::frame(0x81, br#"42["echo"]"#)[..7])),
    ("half a frame's header", Some("ping timeout"), |addr| silent(addr, &[0x82, 0xff])),
    ("half a message", Some("ping timeout"), |addr| silent(addr, &Ws::frame(0x01, br#"42["echo""#))),
    // CVE-2026-33151: the attachments never come.
    ("half a packet", Some("parse error"), |addr| silent(addr, &Ws::frame(0x81, br#"452-["a"]"#))),
    ("an attachment too few", Some("parse error"), |addr| {
        silent(addr, &[Ws::frame(0x81, br#"452-["a"]"#), Ws::frame(0x82, b"1")].concat());
    }),
    ("half a packet on polling, with pongs", Some("parse error"), |addr| {
        let mut client = Client::connected(addr, Polling);
        client.send(r#"452-["a"]"#);
        assert_eq!(client.closed("the end of half a packet"), []);
    }),
    ("no poll", Some("ping timeout"), |addr| drop(Client::connected(addr, Polling))),
    ("one poll", Some("ping timeout"), |addr| polls(addr, 1)),
    ("polls without pongs", Some("ping timeout"), |addr| polls(addr, 100)),
    ("a close that is not answered", Some("parse error"), |addr| {
        let mut client = Client::connected(addr, WebSocket);
        client.send("abc");
        let mut ws = client.into_ws();
        assert_eq!(ws.next("the close"), Frame::Close(None));
        assert_eq!(ws.next("the end, unanswered as it is"), Frame::End);
    }),
    ("no probe", Some("transport close"), |addr| half_an_upgrade(addr, None)),
    ("a probe and no more", Some("transport close"), |addr| half_an_upgrade(addr, Some("2probe"))),
    ("gone while a GET is held", Some("transport error"), |addr| gone(addr, "GET", false)),
    ("reset while a GET is held", Some("transport error"), |addr| gone(addr, "GET", true)),
    ("gone within a POST", Some("transport error"), |addr| gone(addr, "POST", false)),
    ("reset within a POST", Some("transport error"), |addr| gone(addr, "POST", true)),
];

fn at_once(rows: &[Row]) {
    let crowd: Vec<&Row> = rows.iter().flat_map(|row| [row; CROWD]).collect();
    let reasons: Vec<&str> = crowd.iter().filter_map(|(_, reason, _)| *reason).collect();
    scenario_of(Kind::Hasty).ends(&reasons).rounds(2).run(|addr| {
        thread::scope(|scope| {
            for (name, _, attack) in &crowd {
                // A panic is reported with its thread's name.
                let row = thread::Builder::new().name((*name).into());
                row.spawn_scoped(scope, move || attack(addr)).unwrap();
            }
        });
    });
}

#[test]
fn requests() {
    at_once(REQUESTS);
}

#[test]
fn sessions() {
    at_once(SESSIONS);
}

fn half_a_request(addr: SocketAddr, begin: &str) {
    let mut http = Http::connect(addr);
    http.send(begin);
    assert_eq!(http.response("the answer to half a request").status, 408);
    http.ends("a connection with half a request");
}

/// A byte at a time, each within any deadline that would begin anew with each byte.
fn drops(addr: SocketAddr, begin: &str) {
    let mut http = Http::connect(addr);
    http.send(begin);
    http.stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let mut answer = [0; 64];
    let answered = (0..1_000).find_map(|_| {
        http.send("x");
        std::io::Read::read(&mut http.stream, &mut answer).ok()
    });
    assert!(answered.is_some_and(|count| answer[..count].starts_with(b"HTTP/1.1 408 ")), "{answered:?}");
}

fn half_a_body(addr: SocketAddr, framing: &str, body: &str) {
    let client = Client::connected(addr, Polling);
    let mut http = Http::connect(addr);
    http.send(format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n{body}",
        client.target("polling")
    ));
    assert_eq!(http.response("the answer to half a body").status, 408);
    http.ends("a connection with half a body");
}

fn no_connect(addr: SocketAddr, transport: Transport) {
    assert_eq!(Client::new(addr, transport).closed("the end of who never joins"), []);
}

/// Says this on a WebSocket, and nothing more; its pings are not answered.
fn silent(addr: SocketAddr, bytes: &[u8]) {
    let mut client = Client::connected(addr, WebSocket);
    client.ws().send_raw(bytes);
    let mut ws = client.into_ws();
    while !matches!(ws.next("the end of a silent one"), Frame::End | Frame::Close(_)) {}
}

/// Polls so many times, and answers no ping.
fn polls(addr: SocketAddr, times: usize) {
    let client = Client::connected(addr, Polling);
    let mut http = Http::connect(addr);
    for _ in 0..times {
        let answer = http.get(&client.target("polling"));
        if answer.status != 200 || answer.body == "1" {
            break;
        }
    }
}

/// Only the WebSocket pays.
fn half_an_upgrade(addr: SocketAddr, says: Option<&str>) {
    let mut client = Client::connected(addr, Polling);
    let mut ws = Ws::open(addr, &client.target("websocket"));
    if let Some(says) = says {
        ws.send(says);
        ws.expect("3probe");
    }
    ws.closed("the close of half an upgrade");
    client.send(r#"420["echo"]"#);
    client.expect("430[]");
    goodbye(client);
}

/// Goes within a request, with a FIN or an RST.
fn gone(addr: SocketAddr, method: &str, resets: bool) {
    let client = Client::connected(addr, Polling);
    let mut http = Http::connect(addr);
    let length = if method == "POST" { "Content-Length: 9\r\n\r\n4" } else { "\r\n" };
    http.send(format!("{method} {} HTTP/1.1\r\nHost: localhost\r\n{length}", client.target("polling")));
    if resets { reset(http.stream) } else { drop(http) }
}
