//! WebSocket at its edges: what breaks a rule is closed with the right code, and nobody else notices.

use Transport::WebSocket;
use rstest::rstest;
use tinysio::server::Server;

use crate::support::{Client, Frame, Transport, Ws, addr, all_gone, reset, serve_root, socket_target};

fn echo() -> Server {
    serve_root(|ns| {
        ns.on("echo", |_, event| event.ack(event.args()));
    })
}

fn check_alive(client: &mut Client) {
    client.send(r#"4299["echo"]"#);
    client.expect("4399[]");
}

#[rstest]
#[case::a_reserved_bit([&[0xc1, 0x80], &[0; 4][..]].concat(), Some(Some(1002)))]
#[case::another_reserved_bit([&[0xa1, 0x80], &[0; 4][..]].concat(), Some(Some(1002)))]
#[case::the_third_reserved_bit([&[0x91, 0x80], &[0; 4][..]].concat(), Some(Some(1002)))]
#[case::a_reserved_opcode(Ws::frame(0x83, b""), Some(Some(1002)))]
#[case::a_reserved_control_opcode(Ws::frame(0x8b, b""), Some(Some(1002)))]
#[case::no_mask(b"\x81\x05hello".to_vec(), Some(Some(1002)))]
#[case::a_long_ping(Ws::frame(0x89, &[0; 126]), Some(Some(1002)))]
#[case::a_fragmented_ping(Ws::frame(0x09, b"x"), Some(Some(1002)))]
#[case::a_continuation_of_nothing(Ws::frame(0x80, b"x"), Some(Some(1002)))]
#[case::a_message_within_a_message([Ws::frame(0x01, b"4"), Ws::frame(0x81, b"4")].concat(), Some(Some(1002)))]
#[case::bad_utf8(Ws::frame(0x81, b"4\xff\xfe"), Some(Some(1007)))]
#[case::too_large(Ws::frame(0x81, &[b'4'; 1_000_001]), Some(Some(1009)))]
#[case::too_large_in_parts([Ws::frame(0x01, &[b'4'; 600_000]), Ws::frame(0x80, &[b'4'; 600_000])].concat(), Some(Some(1009)))]
#[case::an_endless_announcement(b"\x82\xff\x40\0\0\0\0\0\0\0\0\0\0\0".to_vec(), Some(Some(1009)))]
#[case::an_unknown_packet_type(Ws::frame(0x81, b"7"), Some(None))]
#[case::an_empty_text(Ws::frame(0x81, b""), Some(None))]
#[case::a_ping_of_the_client(Ws::frame(0x81, b"2"), Some(None))]
#[case::a_probe_on_a_session(Ws::frame(0x81, b"2probe"), Some(None))]
#[case::binary_that_nobody_announced(Ws::frame(0x82, b"x"), Some(None))]
#[case::text_among_attachments([Ws::frame(0x81, br#"451-["echo"]"#), Ws::frame(0x81, br#"42["echo"]"#)].concat(), Some(None))]
#[case::an_event_of_another_namespace(Ws::frame(0x81, br#"42/other,["echo"]"#), Some(None))]
#[case::a_second_connect(Ws::frame(0x81, b"40"), Some(None))]
#[case::a_connect_error(Ws::frame(0x81, br#"44{"message":"x"}"#), Some(None))]
#[case::a_reserved_event(Ws::frame(0x81, br#"42["disconnect"]"#), Some(None))]
#[case::eleven_attachments(Ws::frame(0x81, br#"4511-["echo"]"#), Some(None))]
#[case::no_attachments(Ws::frame(0x81, br#"450-["echo"]"#), Some(None))]
#[case::an_illegal_placeholder([Ws::frame(0x81, br#"451-["echo",{"_placeholder":true,"num":1}]"#), Ws::frame(0x82, b"x")].concat(), Some(None))]
#[case::an_object_for_a_name(Ws::frame(0x81, br#"42[{"toString":1}]"#), Some(None))]
fn what_breaks_a_rule_is_closed(#[case] bytes: Vec<u8>, #[case] close: Option<Option<u16>>) {
    let server = echo();
    let mut control_client = Client::connected(addr(&server), WebSocket);
    let mut client = Client::connected(addr(&server), WebSocket);
    client.ws().send_raw(&bytes);
    assert_eq!(client.ws().closed("the close of who breaks a rule"), close);
    check_alive(&mut control_client);
    crate::support::eventually("only the control client is left", || server.clients_count() == 1);
    control_client.leave();
    all_gone(&server);
}

/// RFC 6455 4.4: the answer says which version there is.
#[rstest]
fn another_version_of_websocket_is_told_ours(
    #[values("Sec-WebSocket-Version: 8\r\n", "Sec-WebSocket-Version: 13, 8\r\n", "")] version: &str,
    #[values(false, true)] upgrades: bool,
) {
    let server = echo();
    let mut polling = upgrades.then(|| Client::connected(addr(&server), Transport::Polling));
    let target = match &polling {
        Some(client) => client.target("websocket"),
        None => socket_target("websocket", ""),
    };
    let mut http = crate::support::Http::connect(addr(&server));
    http.send(Ws::request(&target, "").replace("Sec-WebSocket-Version: 13\r\n", version));
    let refused = http.response("the refusal");
    assert_eq!((refused.status, refused.header("sec-websocket-version")), (400, Some("13")));
    if let Some(client) = &mut polling {
        check_alive(client);
    }
}

/// The first that is offered, as the official server answers.
#[rstest]
#[case::none("", None)]
#[case::one("Sec-WebSocket-Protocol: x\r\n", Some("x"))]
#[case::several("Sec-WebSocket-Protocol: soap , wamp\r\n", Some("soap"))]
#[case::in_several_headers(
    "Sec-WebSocket-Protocol: v2.json\r\nSec-WebSocket-Protocol: v1\r\n",
    Some("v2.json")
)]
fn a_subprotocol_is_agreed_on(
    #[case] headers: &str,
    #[case] agreed: Option<&str>,
    #[values(false, true)] upgrades: bool,
) {
    let server = echo();
    let polling = upgrades.then(|| Client::connected(addr(&server), Transport::Polling));
    let target = match &polling {
        Some(client) => client.target("websocket"),
        None => socket_target("websocket", ""),
    };
    let mut http = crate::support::Http::connect(addr(&server));
    http.send(Ws::request(&target, headers));
    let response = http.response("the handshake");
    assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, agreed));
}

/// A client that checks what it was promised (RFC 6455 4.1).
#[test]
fn a_client_that_insists_on_its_subprotocol_is_served() {
    let server = echo();
    let stream = std::net::TcpStream::connect(addr(&server)).unwrap();
    let url = format!("ws://{}{}", addr(&server), socket_target("websocket", ""));
    let request = tungstenite::ClientRequestBuilder::new(url.parse().unwrap()).with_sub_protocol("x");
    let (mut client, response) = tungstenite::client::client(request, stream).unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "x");
    assert!(client.read().unwrap().into_text().unwrap().starts_with('0'));
}

#[test]
fn what_has_no_meaning_is_ignored() {
    let server = echo();
    let mut client = Client::connected(addr(&server), WebSocket);
    // `1` is a client's good-bye on polling; on WebSocket that is a close frame, and `1` is passed over.
    for packet in ["0", "0{}", "1", "5", "6", "3", "3probe"] {
        client.send(packet);
        check_alive(&mut client);
    }
}

#[test]
fn pings_of_the_frame_layer_are_answered_with_their_bytes() {
    let server = echo();
    let mut client = Client::connected(addr(&server), WebSocket);
    for payload in [&b""[..], b"x", &[0xff; 125]] {
        client.ws().send_raw(&Ws::frame(0x89, payload));
        assert_eq!(client.next("the pong"), Frame::Pong(payload.to_vec()));
    }
    // Unasked pongs are nothing.
    client.ws().send_raw(&Ws::frame(0x8a, b"x"));
    check_alive(&mut client);
}

#[test]
fn messages_may_come_in_any_pieces() {
    let server = echo();
    let mut client = Client::connected(addr(&server), WebSocket);
    let message = r#"421["echo","päck"]"#.as_bytes();
    // A fragment a byte, with a ping in the midst, and each byte of all that in a write of its own.
    let mut bytes = Vec::new();
    for (at, byte) in message.iter().enumerate() {
        let first = if at == 0 { 0x01 } else { 0x00 } | if at + 1 == message.len() { 0x80 } else { 0 };
        bytes.extend(Ws::frame(first, &[*byte]));
        if at == 7 {
            bytes.extend(Ws::frame(0x89, b"midst"));
        }
    }
    for byte in bytes {
        client.ws().send_raw(&[byte]);
    }
    assert_eq!(client.next("the pong"), Frame::Pong(b"midst".to_vec()));
    client.expect(r#"431["päck"]"#);
    let just_fits = "x".repeat(1_000_000 - r#"421["echo",""]"#.len());
    client.send(&format!(r#"421["echo","{just_fits}"]"#));
    client.expect(&format!(r#"431["{just_fits}"]"#));
}

#[test]
fn frames_that_come_with_the_handshake_are_served() {
    let server = echo();
    let mut hasty = Ws { http: crate::support::Http::connect(addr(&server)) };
    let mut bytes = Ws::request("/socket.io/?EIO=4&transport=websocket", "").into_bytes();
    bytes.extend(Ws::frame(0x81, b"40"));
    bytes.extend(Ws::frame(0x81, br#"421["echo"]"#));
    hasty.send_raw(&bytes);
    assert_eq!(hasty.http.response("the handshake").status, 101);
    assert!(hasty.text("the open packet").starts_with('0'));
    assert!(hasty.text("the consent").starts_with("40"));
    hasty.expect("431[]");
}

#[test]
fn a_reset_is_survived() {
    let server = echo();
    let mut control_client = Client::connected(addr(&server), WebSocket);
    for _ in 0..20 {
        let mut client = Client::connected(addr(&server), WebSocket);
        client.send(r#"421["echo"]"#);
        reset(client.into_ws().http.stream);
    }
    crate::support::eventually("only the control client is left", || server.clients_count() == 1);
    check_alive(&mut control_client);
}
