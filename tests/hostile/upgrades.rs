//! Handshakes and upgrades that stop, race, or are somebody else's.

use std::{collections::HashSet, net::SocketAddr};

use Transport::{Polling, Upgrade, WebSocket};
use rstest::rstest;

use crate::{
    scenario::{goodbye, scenario},
    support::{Client, Frame, Http, Transport, Ws, reset, socket_target},
};

/// How a connection stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A reset: RST.
    Reset,
    /// Nothing more is said, but the answer is read to its end: FIN.
    HalfClose,
    /// The socket is closed with the answers unread.
    Close,
}

pub(crate) fn stop(mut http: Http, how: Stop) {
    match how {
        Stop::Reset => reset(http.stream),
        Stop::HalfClose => {
            http.half_close();
            while http.fill("the end after the client's") > 0 {}
        }
        Stop::Close => drop(http),
    }
}

/// CVE-2022-41940: the connection stops after every so many bytes of a handshake.
pub(crate) fn handshakes_that_stop(addr: SocketAddr, how: Stop, step: usize) {
    let target = socket_target("polling", "");
    let get = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let connect =
        [Ws::request(&socket_target("websocket", ""), "").into_bytes(), Ws::frame(0x81, b"40")].concat();
    for bytes in [get.into_bytes(), connect] {
        for length in (0..=bytes.len()).step_by(step) {
            if length == bytes.len() && bytes.ends_with(b"\r\n\r\n") {
                // A session that begins and that nobody comes for: another test's.
                continue;
            }
            let mut http = Http::connect(addr);
            http.send(&bytes[..length]);
            stop(http, how);
        }
    }
}

/// The same for the WebSocket of an upgrade. Its session lives, or has moved to it and is gone.
pub(crate) fn upgrades_that_stop(addr: SocketAddr, how: Stop, step: usize) {
    let frames = [b"2probe".as_slice(), b"5", br#"420["echo"]"#];
    let frames: Vec<u8> = frames.iter().flat_map(|packet| Ws::frame(0x81, packet)).collect();
    for length in (0..=Ws::request(&"x".repeat(70), "").len() + frames.len()).step_by(step) {
        let mut client = Client::connected(addr, Polling);
        client.ask();
        let mut bytes = Ws::request(&client.target("websocket"), "").into_bytes();
        bytes.extend(&frames);
        let mut http = Http::connect(addr);
        http.send(&bytes[..length.min(bytes.len())]);
        stop(http, how);
        let still_there = Http::connect(addr).post(&client.target("polling"), "1");
        match still_there.status {
            200 => client.end_poll(),
            status => assert_eq!(status, 400, "a session is there, or it is not"),
        }
    }
}

#[rstest]
fn a_handshake_that_stops(#[values(Stop::Reset, Stop::HalfClose, Stop::Close)] how: Stop) {
    scenario_with_short_sessions().run(|addr| handshakes_that_stop(addr, how, 3));
}

#[rstest]
fn an_upgrade_that_stops(#[values(Stop::Reset, Stop::HalfClose, Stop::Close)] how: Stop) {
    scenario().ends_anyhow().rounds(2).run(|addr| upgrades_that_stop(addr, how, 9));
}

/// Sessions that nobody comes for end with the deadline for the CONNECT.
fn scenario_with_short_sessions() -> crate::scenario::Scenario {
    crate::scenario::scenario_of(crate::server::Kind::Hasty).ends_anyhow().rounds(2)
}

/// engineioxide 0.17.4: what is left of half an upgrade.
pub(crate) fn half_upgrades(addr: SocketAddr, count: usize) {
    for n in 0..count {
        let client = Client::connected(addr, Polling);
        let mut ws = Ws::open(addr, &client.target("websocket"));
        if n % 2 == 0 {
            ws.send("2probe");
            ws.expect("3probe");
        }
        if n % 3 == 0 {
            reset(ws.http.stream);
        } else {
            drop(ws);
        }
        // No packet: the session ends at once.
        assert_eq!(Http::connect(addr).post(&client.target("polling"), "x").body, "ok");
    }
}

#[test]
fn half_an_upgrade() {
    scenario().ends_anyhow().run(|addr| half_upgrades(addr, 20));
}

/// A stranger with a sid that never was, one of another endpoint's, or one that is a character off.
#[test]
fn guesses_of_a_sid() {
    scenario().ends(&["transport close"]).run(|addr| {
        let mut client = Client::connected(addr, Polling);
        let elsewhere = Client::at(addr, Polling, "/engine.io/");
        let sid = client.open.sid.clone();
        let mut guesses =
            vec![elsewhere.open.sid.clone(), sid[1..].to_owned(), format!("{sid}A"), sid.to_uppercase()];
        for at in 0..sid.len() {
            let mut guess = sid.clone().into_bytes();
            guess[at] = if guess[at] == b'A' { b'B' } else { b'A' };
            guesses.push(String::from_utf8(guess).unwrap());
        }
        for guess in guesses {
            let refused = Ws::try_open(addr, &socket_target("websocket", &format!("&sid={guess}")), "");
            assert_eq!(refused.err().expect("a refusal").body, "Session ID unknown", "{guess}");
            let refused = Http::connect(addr).post(&socket_target("polling", &format!("&sid={guess}")), "1");
            assert_eq!((refused.status, &refused.body[..9]), (400, r#"{"code":1"#), "{guess}");
        }
        client.send(r#"420["echo"]"#);
        client.expect("430[]");
        goodbye(client);
        drop(Http::connect(addr).post(&elsewhere.target("polling"), "1"));
    });
}

/// CVE-2017-16031: ids are not to be guessed. All differ, and each of their 120 bits is as often set as not.
pub(crate) fn ids(addr: SocketAddr, count: usize) {
    let mut seen = HashSet::new();
    let mut set = [0usize; 120];
    let mut http = Http::connect(addr);
    for _ in 0..count {
        let open = http.get(&socket_target("polling", "")).body;
        let sid = open.split('"').nth(3).unwrap().to_owned();
        assert_eq!(sid.len(), 20);
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        for (at, digit) in sid.bytes().enumerate() {
            let value = DIGITS.iter().position(|other| *other == digit).expect("base64url");
            for bit in 0..6 {
                set[6 * at + bit] += value >> bit & 1;
            }
        }
        assert_eq!(http.post(&socket_target("polling", &format!("&sid={sid}")), "x").body, "ok");
        assert!(seen.insert(sid), "the same id twice");
    }
    // Ten standard deviations to both sides.
    let margin = 5 * (count as f64).sqrt() as usize;
    for (bit, set) in set.iter().enumerate() {
        assert!(set.abs_diff(count / 2) < margin, "bit {bit} was set {set} times of {count}");
    }
}

/// Two WebSockets want the same session at the same moment: one gets it, the other is closed, and nothing is lost.
#[test]
fn two_upgrades_at_once() {
    scenario().ends(&["transport close"]).run(|addr| {
        let client = Client::connected(addr, Polling);
        let mut both = [Http::connect(addr), Http::connect(addr)];
        let bytes = [
            Ws::request(&client.target("websocket"), "").into_bytes(),
            Ws::frame(0x81, b"2probe"),
            Ws::frame(0x81, b"5"),
            Ws::frame(0x81, br#"420["echo"]"#),
        ];
        for http in &mut both {
            http.send(bytes.concat());
        }
        let mut echoes = 0;
        for http in both {
            let mut ws = Ws { http };
            match ws.http.response("the handshake").status {
                101 => {}
                // The other one was through, and gone, before this one was looked at.
                status => assert_eq!(status, 400),
            }
            loop {
                match ws.next("a probe's answer, an echo, or the close") {
                    Frame::Text(text) if text == "3probe" => {}
                    Frame::Text(text) if text == "430[]" => {
                        echoes += 1;
                        ws.send_close();
                    }
                    Frame::Close(_) | Frame::End => break,
                    other => panic!("{other:?} came"),
                }
            }
        }
        assert_eq!(echoes, 1);
    });
}

/// Packets on their way while the session moves, and then the connection is gone.
#[rstest]
fn a_reset_in_the_midst_of_packets(#[values(WebSocket, Upgrade)] transport: Transport) {
    scenario().ends_anyhow().run(|addr| {
        for n in 0..10 {
            let mut client = Client::connected(addr, transport);
            client.send(r#"42["give",1000,100]"#);
            for _ in 0..n {
                client.text("some of it");
            }
            reset(client.into_ws().http.stream);
        }
    });
}

#[test]
fn ids_are_random() {
    scenario().rounds(2).run(|addr| ids(addr, 400));
}
