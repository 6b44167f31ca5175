//! Much of what is fine once.

use std::net::SocketAddr;

use Transport::{Polling, WebSocket};
use rstest::rstest;

use crate::{
    scenario::{goodbye, scenario, scenario_of},
    server::Kind,
    support::{Client, Frame, Http, Transport, Ws, reset, socket_target},
};

/// CVE-2026-48802: pongs that nobody asked for, and other packets without meaning.
pub(crate) fn signs(addr: SocketAddr, transport: Transport, packet: &str, count: usize) {
    let mut client = Client::connected(addr, transport);
    let packets = vec![Frame::text(packet); count];
    client.send_burst(&packets);
    still_served(client);
}

fn still_served(mut client: Client) {
    client.send(r#"429["echo"]"#);
    client.expect("439[]");
    goodbye(client);
}

#[rstest]
fn many_signs(#[values("3", "6", "0")] packet: &str, #[values(Polling, WebSocket)] transport: Transport) {
    scenario().ends(&["transport close"]).run(|addr| signs(addr, transport, packet, 20_000));
}

/// python-engineio, issue 142: very many packets in one body.
#[rstest]
#[case::nothing("4", "parse error", 100_000)]
#[case::events(r#"42["x"]"#, "transport close", 20_000)]
#[case::pongs("3", "transport close", 100_000)]
fn many_packets_in_a_body(#[case] packet: &str, #[case] reason: &'static str, #[case] count: usize) {
    scenario().ends(&[reason]).run(|addr| {
        let mut client = Client::connected(addr, Polling);
        let body = vec![packet; count].join("\x1e");
        assert_eq!(Http::connect(addr).post(&client.target("polling"), &body).body, "ok");
        if reason == "parse error" {
            client.closed("the end after packets of nothing");
        } else {
            still_served(client);
        }
    });
}

/// CVE-2026-59725: each such POST has an answer, its session an end, and its connection is free again.
pub(crate) fn octet_streams(addr: SocketAddr, count: usize) {
    for _ in 0..count {
        let client = Client::new(addr, Polling);
        let mut http = Http::connect(addr);
        http.send(format!(
            "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\nContent-Length: 3\r\n\r\nabc",
            client.target("polling")
        ));
        assert_eq!(http.response("the answer to bytes").status, 400);
    }
}

#[test]
fn many_octet_streams() {
    scenario().run(|addr| octet_streams(addr, 50));
}

/// Namespaces that do not exist: each is refused, and nothing of it is kept.
pub(crate) fn namespaces(addr: SocketAddr, transport: Transport, count: usize) {
    let mut client = Client::connected(addr, transport);
    for from in (0..count).step_by(1_000) {
        let names = from..count.min(from + 1_000);
        let packets: Vec<Frame> =
            names.clone().map(|n| Frame::Text(format!("40/x{n},{{\"a\":1}}"))).collect();
        client.send_burst(&packets);
        for n in names {
            client.expect(&format!("44/x{n},{{\"message\":\"Invalid namespace\"}}"));
        }
    }
    still_served(client);
}

#[rstest]
fn many_namespaces(#[values(Polling, WebSocket)] transport: Transport) {
    scenario().ends(&["transport close"]).run(|addr| namespaces(addr, transport, 2_000));
}

/// Comes into a namespace and leaves it, again and again.
#[rstest]
fn in_and_out(#[values(Polling, WebSocket)] transport: Transport) {
    const TIMES: usize = 500;
    let reasons = [vec!["client namespace disconnect"; TIMES], vec!["transport close"]].concat();
    scenario().ends(&reasons).run(|addr| {
        let mut client = Client::connected(addr, transport);
        let packets: Vec<Frame> =
            (0..TIMES).flat_map(|_| [Frame::text("40/n,"), Frame::text("41/n,")]).collect();
        client.send_burst(&packets);
        for _ in 0..TIMES {
            assert!(client.text("the consent").starts_with("40/n,"));
        }
        still_served(client);
    });
}

/// Rooms without end: a thousand are taken, whatever their names, and all are gone with the socket.
#[rstest]
fn many_rooms(#[values(Polling, WebSocket)] transport: Transport) {
    scenario().ends(&["transport close"]).peak(40 << 10).run(|addr| {
        let mut client = Client::connected(addr, transport);
        for from in (0..3_000).step_by(500) {
            let name = "n".repeat(1_000);
            let joins: Vec<Frame> =
                (from..from + 500).map(|n| Frame::Text(format!(r#"42["join","{n}{name}"]"#))).collect();
            client.send_burst(&joins);
        }
        still_served(client);
    });
}

/// Questions that nobody answers: no more than so many are awaited.
#[rstest]
fn many_questions(#[values(Polling, WebSocket)] transport: Transport) {
    scenario().ends(&["transport close"]).run(|addr| {
        let mut client = Client::connected(addr, transport);
        client.send_burst(&vec![Frame::text(r#"42["ask"]"#); 3_000]);
        let mut asked = 0;
        client.send(r#"428["echo"]"#);
        while client.text("a question, or the answer") != "438[]" {
            asked += 1;
        }
        assert!((1_000..3_000).contains(&asked), "{asked} were asked");
        still_served(client);
    });
}

/// Answers to questions that were never asked.
#[rstest]
fn many_answers(#[values(Polling, WebSocket)] transport: Transport) {
    scenario().ends(&["transport close"]).run(|addr| {
        let mut client = Client::connected(addr, transport);
        let answers: Vec<Frame> = (0..20_000).map(|n| Frame::Text(format!(r#"43{n}["x"]"#))).collect();
        client.send_burst(&answers);
        still_served(client);
    });
}

/// CVE-2026-48779, CVE-2026-62389: a message in very many fragments, with a byte each or none.
pub(crate) fn fragments(addr: SocketAddr, size: usize, count: usize) {
    let mut client = Client::connected(addr, WebSocket);
    client.ws().send_raw(&Ws::frame(0x01, br#"420["echo",""#));
    let some = Ws::frame(0x00, &b"x"[..size]).repeat(1_000);
    for _ in 0..count / 1_000 {
        client.ws().send_raw(&some);
    }
    client.ws().send_raw(&Ws::frame(0x80, br#""]"#));
    client.expect(&format!(r#"430["{}"]"#, "x".repeat(size * count)));
    still_served(client);
}

#[rstest]
fn many_fragments(#[values(0, 1)] size: usize) {
    scenario().ends(&["transport close"]).run(|addr| fragments(addr, size, 30_000));
}

/// Fragments of one byte until the message is too large.
pub(crate) fn fragments_beyond_the_limit(addr: SocketAddr) {
    let mut client = Client::connected(addr, WebSocket);
    client.ws().send_raw(&Ws::frame(0x02, &[0; 990_000]));
    let some = Ws::frame(0x00, b"x").repeat(1_000);
    for _ in 0..12 {
        client.ws().send_raw(&some);
    }
    assert_eq!(client.ws().closed("the close at the limit"), Some(Some(1009)));
}

#[test]
fn fragments_without_end() {
    scenario().ends(&["message too big"]).run(fragments_beyond_the_limit);
}

/// Clients that never read: what they ask for waits up to its bound, and then they are closed.
#[rstest]
#[case::events(r#"42["give",50000,10]"#)]
#[case::large_events(r#"42["give",90000,1]"#)]
#[case::small_events(r#"42["give",10,5000]"#)]
#[case::echoes(&format!(r#"420["echo","{}"]"#, "x".repeat(50_000)))]
#[case::refusals("40/nowhere,")]
fn who_never_reads(#[case] asks: &str, #[values(Polling, WebSocket)] transport: Transport) {
    scenario_of(Kind::Small).ends(&["slow consumer"]).run(|addr| {
        // Larger questions than this server takes are asked in smaller ones.
        let asks = if asks.len() > 9_000 {
            asks.replace(&"x".repeat(50_000), &"x".repeat(9_000))
        } else {
            asks.into()
        };
        let mut client = Client::connected(addr, transport);
        if transport == Polling {
            let mut http = Http::connect(addr);
            while http.post(&client.target("polling"), &asks).status == 200 {}
            return;
        }
        let question = Ws::frame(0x81, asks.as_bytes()).repeat(1 + 10_000 / asks.len());
        while std::io::Write::write_all(&mut client.ws().http.stream, &question).is_ok() {}
    });
}

/// Pings and pings, and the pongs are never read.
#[test]
fn pings_whose_pongs_are_never_read() {
    scenario_of(Kind::Small).ends(&["slow consumer"]).run(|addr| {
        let mut client = Client::connected(addr, WebSocket);
        let pings = Ws::frame(0x89, &[7; 125]).repeat(100);
        while std::io::Write::write_all(&mut client.ws().http.stream, &pings).is_ok() {}
    });
}

/// One write of very many events, whose answers gather behind a cork; then it does not read them.
#[test]
fn a_burst_whose_answers_are_never_read() {
    scenario_of(Kind::Small).ends_anyhow().run(|addr| {
        let mut client = Client::connected(addr, WebSocket);
        let burst = Ws::frame(0x81, br#"420["echo","0123456789"]"#).repeat(40_000);
        client.ws().send_raw(&burst);
        reset(client.into_ws().http.stream);
    });
}

/// Connections that come and go, with or without a word.
pub(crate) fn comings_and_goings(addr: SocketAddr, count: usize) {
    for n in 0..count {
        match n % 5 {
            0 => drop(Http::connect(addr)),
            1 => reset(Http::connect(addr).stream),
            2 => assert_eq!(Http::connect(addr).get("/health").body, "ok"),
            3 => goodbye(Client::connected(addr, WebSocket)),
            _ => assert_eq!(Http::connect(addr).get("/nowhere").status, 404),
        }
    }
}

#[test]
fn many_connections() {
    scenario().ends_anyhow().run(|addr| comings_and_goings(addr, 100));
}

/// Handshakes whose clients never come back: each has its seat until the deadline for the CONNECT, and for the half
/// minute in which its client may still fetch the close.
pub(crate) fn abandoned_handshakes(addr: SocketAddr, count: usize) {
    let mut http = Http::connect(addr);
    for _ in 0..count {
        assert!(matches!(http.get(&socket_target("polling", "")).status, 200 | 503));
        if http.input.is_empty() {
            http = Http::connect(addr);
        }
    }
}
