//! The cases of the two public protocol test suites, Engine.IO v4 (25) and Socket.IO v5 (32), under their names.

use std::{net::SocketAddr, time::Duration};

use rstest::rstest;
use serde_json::Value;

use crate::support::{
    Client, Frame, Http, Transport, Ws, addr, conformance, conformance_with_heartbeat, eventually,
};

/// The two endpoints, which share the Engine.IO cases.
const ENGINE: &str = "/engine.io/";
const SOCKET: &str = "/socket.io/";

fn sid(addr: SocketAddr, path: &str) -> String {
    let response = Http::connect(addr).get(&format!("{path}?EIO=4&transport=polling"));
    let open: Value = serde_json::from_str(&response.body[1..]).unwrap();
    open["sid"].as_str().unwrap().to_owned()
}

/// Engine.IO: both suites begin with these.
mod handshake {
    use super::*;

    #[rstest]
    fn http_long_polling_successfully_opens_a_session(#[values(ENGINE, SOCKET)] path: &str) {
        let server = conformance_with_heartbeat(300, 200);
        let response = Http::connect(addr(&server)).get(&format!("{path}?EIO=4&transport=polling"));
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("text/plain; charset=UTF-8"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
        check_open(&response.body, &["websocket"]);
    }

    #[rstest]
    fn websocket_successfully_opens_a_session(#[values(ENGINE, SOCKET)] path: &str) {
        let server = conformance_with_heartbeat(300, 200);
        let mut ws = Ws::open(addr(&server), &format!("{path}?EIO=4&transport=websocket"));
        check_open(&ws.text("the open packet"), &[]);
    }

    fn check_open(packet: &str, upgrades: &[&str]) {
        let open: Value = serde_json::from_str(packet.strip_prefix('0').unwrap()).unwrap();
        let mut keys: Vec<&String> = open.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(keys, ["maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"]);
        assert!(open["sid"].is_string());
        assert_eq!(open["upgrades"], serde_json::json!(upgrades));
        assert_eq!(open["pingInterval"], 300);
        assert_eq!(open["pingTimeout"], 200);
        assert_eq!(open["maxPayload"], 1_000_000);
    }

    #[rstest]
    #[case::fails_with_an_invalid_eio_query_parameter("GET", "transport=polling")]
    #[case::fails_with_an_invalid_eio_query_parameter("GET", "EIO=abc&transport=polling")]
    #[case::fails_with_an_invalid_transport_query_parameter("GET", "EIO=4")]
    #[case::fails_with_an_invalid_transport_query_parameter("GET", "EIO=4&transport=abc")]
    #[case::fails_with_an_invalid_request_method("POST", "EIO=4&transport=polling")]
    #[case::fails_with_an_invalid_request_method("PUT", "EIO=4&transport=polling")]
    fn http_long_polling(#[values(ENGINE, SOCKET)] path: &str, #[case] method: &str, #[case] query: &str) {
        let server = conformance();
        let response = Http::connect(addr(&server)).request(method, &format!("{path}?{query}"), "");
        assert_eq!(response.status, 400);
    }

    #[rstest]
    #[case::fails_with_an_invalid_eio_query_parameter("transport=websocket")]
    #[case::fails_with_an_invalid_eio_query_parameter("EIO=abc&transport=websocket")]
    #[case::fails_with_an_invalid_transport_query_parameter("EIO=4")]
    #[case::fails_with_an_invalid_transport_query_parameter("EIO=4&transport=abc")]
    fn websocket(#[values(ENGINE, SOCKET)] path: &str, #[case] query: &str) {
        let server = conformance();
        let refused = Ws::try_open(addr(&server), &format!("{path}?{query}"), "").err();
        assert_eq!(refused.map(|response| response.status), Some(400));
    }
}

/// Engine.IO "message": only the first suite has an endpoint that echoes below Socket.IO.
mod engine_message {
    use super::*;

    #[rstest]
    #[case::one_plain_text_packet("4hello")]
    #[case::several_plain_text_packets("4test1\x1e4test2\x1e4test3")]
    #[case::plain_text_and_binary_packets("4hello\x1ebAQIDBA==")]
    fn http_long_polling_sends_and_receives_a_payload_containing(#[case] body: &str) {
        let server = conformance();
        let target = format!("{ENGINE}?EIO=4&transport=polling&sid={}", sid(addr(&server), ENGINE));
        let mut http = Http::connect(addr(&server));
        let posted = http.post(&target, body);
        assert_eq!((posted.status, &*posted.body), (200, "ok"));
        let polled = http.get(&target);
        assert_eq!((polled.status, &*polled.body), (200, body));
    }

    #[test]
    fn http_long_polling_closes_the_session_upon_invalid_packet_format() {
        let server = conformance();
        let target = format!("{ENGINE}?EIO=4&transport=polling&sid={}", sid(addr(&server), ENGINE));
        let mut http = Http::connect(addr(&server));
        http.post(&target, "abc");
        assert_eq!(http.get(&target).status, 400);
    }

    #[test]
    fn http_long_polling_closes_the_session_upon_duplicate_poll_requests() {
        let server = conformance();
        let target = format!("{ENGINE}?EIO=4&transport=polling&sid={}", sid(addr(&server), ENGINE));
        let (mut one, mut two) = (Http::connect(addr(&server)), Http::connect(addr(&server)));
        one.begin("GET", &target, "");
        two.begin("GET", &target, "");
        // Which of them was first, the two connections' threads decide.
        let (one, two) = (one.response("the first GET's answer"), two.response("the second GET's answer"));
        let (held, second) = if one.status == 200 { (one, two) } else { (two, one) };
        assert_eq!((held.status, &*held.body), (200, "1"));
        assert_eq!(second.status, 400);
        assert_eq!(Http::connect(addr(&server)).get(&target).status, 400);
    }

    #[test]
    fn http_long_polling_closes_the_session_upon_cancelled_polling_request() {
        let server = conformance();
        let target = format!("{ENGINE}?EIO=4&transport=polling&sid={}", sid(addr(&server), ENGINE));
        let mut cancelled = Http::connect(addr(&server));
        cancelled.begin("GET", &target, "");
        drop(cancelled);
        // Long before a missing pong could end it.
        eventually("the session is gone", || Http::connect(addr(&server)).get(&target).status == 400);
    }

    #[test]
    fn websocket_sends_and_receives_a_plain_text_packet() {
        let server = conformance();
        let mut client = Client::at(addr(&server), Transport::WebSocket, ENGINE);
        client.send("4hello");
        client.expect("4hello");
    }

    #[test]
    fn websocket_sends_and_receives_a_binary_packet() {
        let server = conformance();
        let mut client = Client::at(addr(&server), Transport::WebSocket, ENGINE);
        client.send_burst(&[Frame::Binary(vec![1, 2, 3, 4])]);
        client.expect_binary(&[1, 2, 3, 4]);
    }

    #[test]
    fn websocket_closes_the_session_upon_invalid_packet_format() {
        let server = conformance();
        let mut client = Client::at(addr(&server), Transport::WebSocket, ENGINE);
        client.send("abc");
        client.closed("the close after garbage");
    }
}

mod heartbeat {
    use super::*;

    #[rstest]
    fn http_long_polling_sends_ping_pong_packets(#[values(ENGINE, SOCKET)] path: &str) {
        let server = conformance_with_heartbeat(300, 20_000);
        let target = format!("{path}?EIO=4&transport=polling&sid={}", sid(addr(&server), path));
        let mut http = Http::connect(addr(&server));
        for _ in 0..3 {
            let polled = http.get(&target);
            assert_eq!((polled.status, &*polled.body), (200, "2"));
            assert_eq!(http.post(&target, "3").status, 200);
        }
    }

    #[rstest]
    fn http_long_polling_closes_the_session_upon_ping_timeout(#[values(ENGINE, SOCKET)] path: &str) {
        let server = conformance_with_heartbeat(300, 200);
        let target = format!("{path}?EIO=4&transport=polling&sid={}", sid(addr(&server), path));
        std::thread::sleep(Duration::from_millis(300 + 200));
        // The suite asks once. On a busy machine the GET may be read before the server looks at its clock; it is no
        // pong.
        eventually("the session is closed", || Http::connect(addr(&server)).get(&target).status == 400);
    }

    #[rstest]
    fn websocket_sends_ping_pong_packets(#[values(ENGINE, SOCKET)] path: &str) {
        let server = conformance_with_heartbeat(300, 20_000);
        let mut ws = Ws::open(addr(&server), &format!("{path}?EIO=4&transport=websocket"));
        ws.text("the open packet");
        for _ in 0..3 {
            assert_eq!(ws.next("a ping"), Frame::text("2"));
            ws.send("3");
        }
    }

    #[rstest]
    fn websocket_closes_the_session_upon_ping_timeout(#[values(ENGINE, SOCKET)] path: &str) {
        let server = conformance_with_heartbeat(300, 200);
        let mut ws = Ws::open(addr(&server), &format!("{path}?EIO=4&transport=websocket"));
        ws.closed("the close without a pong");
    }
}

mod close {
    use super::*;

    #[rstest]
    fn http_long_polling_forcefully_closes_the_session(#[values(ENGINE, SOCKET)] path: &str) {
        let server = conformance();
        let (mut gets, mut posts) = (Http::connect(addr(&server)), Http::connect(addr(&server)));
        let mut polled = None;
        // The POST may overtake the GET, which then finds no session; that is not meant.
        eventually("a GET is held when the POST closes the session", || {
            let target = format!("{path}?EIO=4&transport=polling&sid={}", sid(addr(&server), path));
            gets.begin("GET", &target, "");
            assert_eq!(posts.post(&target, "1").status, 200);
            let response = gets.response("the held GET's answer");
            assert_eq!(gets.get(&target).status, 400);
            polled = Some(response);
            polled.as_ref().is_some_and(|polled| polled.status == 200)
        });
        assert_eq!(polled.unwrap().body, "6");
    }

    #[rstest]
    fn websocket_forcefully_closes_the_session(#[values(ENGINE, SOCKET)] path: &str) {
        let server = conformance_with_heartbeat(300, 200);
        let mut client = Client::at(addr(&server), Transport::WebSocket, path);
        client.send("1");
        // The client of the suite answers no ping, and by that the official server, which passes `1` over here, closes.
        client.ws().closed("the close that was asked for");
    }
}

mod upgrade {
    use super::*;

    /// Waits until a packet that followed the `5` is answered.
    fn check_upgraded(ws: &mut Ws, path: &str) {
        if path == ENGINE {
            ws.send("4hello");
            ws.expect("4hello");
        } else {
            ws.send("40");
            let consent = ws.text("the answer to CONNECT");
            assert!(consent.starts_with("40{"), "{consent}");
            ws.expect(r#"42["auth",{}]"#);
        }
    }

    #[rstest]
    fn successfully_upgrades_from_http_long_polling_to_websocket(#[values(ENGINE, SOCKET)] path: &str) {
        let server = conformance();
        let sid = sid(addr(&server), path);
        let mut ws = Ws::open(addr(&server), &format!("{path}?EIO=4&transport=websocket&sid={sid}"));
        ws.send("2probe");
        ws.expect("3probe");
        let polled = Http::connect(addr(&server)).get(&format!("{path}?EIO=4&transport=polling&sid={sid}"));
        assert_eq!((polled.status, &*polled.body), (200, "6"));
        ws.send("5");
        check_upgraded(&mut ws, path);
    }

    /// The second suite does not wait for `3probe`, so both ways.
    #[rstest]
    fn ignores_http_requests_with_same_sid_after_upgrade(
        #[values(ENGINE, SOCKET)] path: &str,
        #[values(true, false)] waits: bool,
    ) {
        let server = conformance();
        let (sid, mut http) = (sid(addr(&server), path), Http::connect(addr(&server)));
        let mut ws = Ws::open(addr(&server), &format!("{path}?EIO=4&transport=websocket&sid={sid}"));
        ws.send("2probe");
        if waits {
            ws.expect("3probe");
            ws.send("5");
        } else {
            ws.send("5");
            ws.expect("3probe");
        }
        // A GET on its own connection may overtake the `5`, and is then a poll during the probe: wait until it was
        // read.
        check_upgraded(&mut ws, path);
        let polled = http.get(&format!("{path}?EIO=4&transport=polling&sid={sid}"));
        assert_eq!(polled.status, 400, "{polled:?}");
        if path == ENGINE {
            ws.send("4hello");
            ws.expect("4hello");
        }
    }

    #[rstest]
    fn ignores_websocket_connection_with_same_sid_after_upgrade(#[values(ENGINE, SOCKET)] path: &str) {
        let server = conformance();
        let target = format!("{path}?EIO=4&transport=websocket&sid={}", sid(addr(&server), path));
        let mut ws = Ws::open(addr(&server), &target);
        ws.send("2probe");
        ws.expect("3probe");
        ws.send("5");
        check_upgraded(&mut ws, path);
        let mut second = Ws::open(addr(&server), &target);
        // No code in the frame: what browsers report as 1005.
        assert_eq!(second.closed("the second WebSocket's close"), Some(None));
        if path == ENGINE {
            ws.send("4hello");
            ws.expect("4hello");
        }
    }
}

/// Socket.IO, the second suite, on its transport and on the two others.
mod socket {
    use Transport::{Polling, Upgrade, WebSocket};

    use super::*;

    #[rstest]
    #[case::the_main_namespace("40", "40", r#"42["auth",{}]"#)]
    #[case::the_main_namespace_with_a_payload(r#"40{"token":"123"}"#, "40", r#"42["auth",{"token":"123"}]"#)]
    #[case::a_custom_namespace("40/custom,", "40/custom,", r#"42/custom,["auth",{}]"#)]
    #[case::a_custom_namespace_with_a_payload(
        r#"40/custom,{"token":"abc"}"#,
        "40/custom,",
        r#"42/custom,["auth",{"token":"abc"}]"#
    )]
    fn connect_should_allow_connection_to(
        #[case] connect: &str,
        #[case] consent: &str,
        #[case] auth: &str,
        #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    ) {
        let server = conformance();
        let mut client = Client::new(addr(&server), transport);
        client.send(connect);
        let answer = client.text("the consent");
        let answer: Value = serde_json::from_str(answer.strip_prefix(consent).unwrap()).unwrap();
        assert_eq!(answer.as_object().unwrap().len(), 1);
        assert!(answer["sid"].is_string());
        client.expect(auth);
    }

    #[rstest]
    fn connect_should_disallow_connection_to_an_unknown_namespace(
        #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    ) {
        let server = conformance();
        let mut client = Client::new(addr(&server), transport);
        client.send("40/random");
        client.expect(r#"44/random,{"message":"Invalid namespace"}"#);
    }

    #[rstest]
    fn connect_should_disallow_connection_with_an_invalid_handshake(
        #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    ) {
        let server = conformance();
        let mut client = Client::new(addr(&server), transport);
        client.send("4abc");
        client.closed("the close after an invalid handshake");
    }

    #[rstest]
    fn connect_should_close_the_connection_if_no_handshake_is_received(
        #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    ) {
        let server = conformance();
        // Pings are answered, so it is not their timeout.
        Client::new(addr(&server), transport).closed("the close without a CONNECT");
    }

    fn greeted(addr: SocketAddr, transport: Transport) -> Client {
        let mut client = Client::connected(addr, transport);
        client.expect(r#"42["auth",{}]"#);
        client
    }

    #[rstest]
    fn disconnect_should_disconnect_from_the_main_namespace(
        #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    ) {
        let server = conformance();
        let mut client = greeted(addr(&server), transport);
        client.send("41");
        // The session lives on: it may join again.
        client.join("/", "");
    }

    #[rstest]
    fn disconnect_should_connect_then_disconnect_from_a_custom_namespace(
        #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    ) {
        let server = conformance();
        let mut client = greeted(addr(&server), transport);
        client.join("/custom", "");
        client.expect(r#"42/custom,["auth",{}]"#);
        client.send("41/custom");
        client.send(r#"42["message","message to main namespace"]"#);
        client.expect(r#"42["message-back","message to main namespace"]"#);
    }

    #[rstest]
    #[case::a_plain_text_packet(
        r#"42["message",1,"2",{"3":[true]}]"#,
        r#"42["message-back",1,"2",{"3":[true]}]"#
    )]
    #[case::a_plain_text_packet_with_an_ack(
        r#"42456["message-with-ack",1,"2",{"3":[false]}]"#,
        r#"43456[1,"2",{"3":[false]}]"#
    )]
    fn message_should_send(
        #[case] sent: &str,
        #[case] answer: &str,
        #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    ) {
        let server = conformance();
        let mut client = greeted(addr(&server), transport);
        client.send(sent);
        client.expect(answer);
    }

    #[rstest]
    #[case::a_packet_with_binary_attachments(
        r#"452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
        r#"452-["message-back",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#
    )]
    #[case::a_packet_with_binary_attachments_and_an_ack(
        r#"452-789["message-with-ack",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
        r#"462-789[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#
    )]
    fn message_should_send_binary(
        #[case] sent: &str,
        #[case] answer: &str,
        #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    ) {
        let server = conformance();
        let mut client = greeted(addr(&server), transport);
        client.send(sent);
        client.send_burst(&[Frame::Binary(vec![1, 2, 3])]);
        client.send_burst(&[Frame::Binary(vec![4, 5, 6])]);
        client.expect(answer);
        client.expect_binary(&[1, 2, 3]);
        client.expect_binary(&[4, 5, 6]);
    }

    #[rstest]
    #[case::unknown_packet_type("4abc")]
    #[case::invalid_payload_format("42{}")]
    #[case::invalid_ack_id(r#"42abc["message-with-ack",1,"2",{"3":[false]}]"#)]
    fn message_should_close_the_connection_upon_invalid_format(
        #[case] packet: &str,
        #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    ) {
        let server = conformance();
        let mut client = greeted(addr(&server), transport);
        client.send(packet);
        client.closed("the close after a broken packet");
    }
}
