//! WebSocket frames that break RFC 6455, or only abuse it.

use Transport::WebSocket;
use rstest::rstest;

use crate::{
    scenario::{goodbye, scenario, scenario_of},
    server::Kind,
    support::{Client, Frame, Transport, Ws},
};

/// A frame whose header announces this length in eight bytes, and nothing of it follows.
fn announced(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat()
}

/// A close frame with this payload.
fn close(payload: &[u8]) -> Vec<u8> {
    Ws::frame(0x88, payload)
}

#[rstest]
// CVE-2022-21676: reserved bits and opcodes.
#[case::rsv1(Ws::frame(0xc1, b"4"), 1002, "transport error")]
#[case::rsv2(Ws::frame(0xa1, b"4"), 1002, "transport error")]
#[case::rsv3(Ws::frame(0x91, b"4"), 1002, "transport error")]
#[case::rsv_of_a_ping(Ws::frame(0xd9, b""), 1002, "transport error")]
#[case::rsv_of_a_close(Ws::frame(0xf8, b""), 1002, "transport error")]
#[case::opcode_3(Ws::frame(0x83, b""), 1002, "transport error")]
#[case::opcode_4(Ws::frame(0x84, b""), 1002, "transport error")]
#[case::opcode_5(Ws::frame(0x85, b""), 1002, "transport error")]
#[case::opcode_6(Ws::frame(0x86, b""), 1002, "transport error")]
#[case::opcode_7(Ws::frame(0x87, b""), 1002, "transport error")]
#[case::opcode_11(Ws::frame(0x8b, b""), 1002, "transport error")]
#[case::opcode_12(Ws::frame(0x8c, b""), 1002, "transport error")]
#[case::opcode_13(Ws::frame(0x8d, b""), 1002, "transport error")]
#[case::opcode_14(Ws::frame(0x8e, b""), 1002, "transport error")]
#[case::opcode_15(Ws::frame(0x8f, b""), 1002, "transport error")]
#[case::no_mask(b"\x81\x0142[]".to_vec(), 1002, "transport error")]
#[case::no_mask_on_a_ping(b"\x89\0".to_vec(), 1002, "transport error")]
// Control frames.
#[case::a_ping_of_126(Ws::frame(0x89, &[0; 126]), 1002, "transport error")]
#[case::a_pong_of_126(Ws::frame(0x8a, &[0; 126]), 1002, "transport error")]
#[case::a_close_of_126(close(&[3; 126]), 1002, "transport error")]
#[case::half_a_ping(Ws::frame(0x09, b"x"), 1002, "transport error")]
#[case::half_a_close(Ws::frame(0x08, b""), 1002, "transport error")]
// Fragments.
#[case::a_continuation_of_nothing(Ws::frame(0x80, b"x"), 1002, "transport error")]
#[case::an_empty_continuation_of_nothing(Ws::frame(0x00, b""), 1002, "transport error")]
#[case::a_message_within_a_message([Ws::frame(0x01, b"4"), Ws::frame(0x81, b"4")].concat(), 1002, "transport error")]
#[case::bytes_within_a_text([Ws::frame(0x01, b"4"), Ws::frame(0x82, b"4")].concat(), 1002, "transport error")]
#[case::bad_text_in_parts([Ws::frame(0x01, b"4\xf0\x9f"), Ws::frame(0x80, b"\xff")].concat(), 1007, "transport error")]
#[case::half_a_character(Ws::frame(0x81, "4é".as_bytes().split_last().unwrap().1), 1007, "transport error")]
// Sizes: RUSTSEC-2022-0035, and the limit, which is on (CVE-2016-10542).
#[case::two_to_the_62nd(announced(0x82, 1 << 62), 1009, "message too big")]
#[case::two_to_the_63rd(announced(0x82, 1 << 63), 1009, "message too big")]
#[case::all_ones(announced(0x81, u64::MAX), 1009, "message too big")]
#[case::one_too_many(announced(0x81, 1_000_001), 1009, "message too big")]
#[case::too_large_in_parts([Ws::frame(0x01, &[b'4'; 600_000]), Ws::frame(0x80, &[b'4'; 600_000])].concat(), 1009, "message too big")]
#[case::too_large_in_the_end([Ws::frame(0x02, &[0; 999_999]), Ws::frame(0x80, b"xx")].concat(), 1009, "message too big")]
fn a_frame(#[case] bytes: Vec<u8>, #[case] code: u16, #[case] reason: &'static str) {
    scenario().ends(&[reason]).run(|addr| {
        let mut client = Client::connected(addr, WebSocket);
        client.ws().send_raw(&bytes);
        assert_eq!(client.ws().closed("the close of who breaks a rule"), Some(Some(code)));
    });
}

/// Legal, and no reason to end anything.
#[rstest]
#[case::an_unasked_pong(Ws::frame(0x8a, b"x"), None)]
#[case::a_ping_of_125(Ws::frame(0x89, &[7; 125]), Some(Frame::Pong(vec![7; 125])))]
#[case::an_empty_ping(Ws::frame(0x89, b""), Some(Frame::Pong(Vec::new())))]
#[case::a_long_header_for_a_short_frame(b"\x89\xfe\0\x01\0\0\0\0x".to_vec(), Some(Frame::Pong(b"x".to_vec())))]
#[case::empty_fragments([vec![Ws::frame(0x01, b"")], vec![Ws::frame(0x00, b""); 1_000], vec![Ws::frame(0x80, b"3")]].concat().concat(), None)]
fn a_legal_frame(#[case] bytes: Vec<u8>, #[case] answer: Option<Frame>) {
    scenario().ends(&["transport close"]).run(|addr| {
        let mut client = Client::connected(addr, WebSocket);
        client.ws().send_raw(&bytes);
        if let Some(answer) = &answer {
            assert_eq!(&client.next("the answer"), answer);
        }
        client.send(r#"420["echo"]"#);
        client.expect("430[]");
        goodbye(client);
    });
}

/// How a client may say that it closes, and what it hears.
#[rstest]
#[case::no_code(&[], None)]
#[case::normal(&[3, 232], Some(1000))]
#[case::with_a_reason(b"\x03\xe8bye", Some(1000))]
#[case::half_a_code(&[3], Some(1002))]
#[case::code_zero(&[0, 0], Some(1002))]
#[case::code_1005(&[3, 237], Some(1002))]
#[case::code_65535(&[255, 255], Some(1002))]
#[case::a_reason_of_bad_text(b"\x03\xe8\xff", Some(1007))]
fn a_close(#[case] payload: &[u8], #[case] code: Option<u16>) {
    let reason = match code {
        // Its answer is an error, but a close it is.
        _ if payload.len() != 1 && payload.last() != Some(&0xff) || payload == [0xff; 2] => "transport close",
        _ => "transport error",
    };
    scenario().ends(&[reason]).run(|addr| {
        let mut client = Client::connected(addr, WebSocket);
        client.ws().send_raw(&close(payload));
        assert_eq!(client.ws().closed("the answer to the close"), Some(code));
    });
}

/// Ends in the midst: after every byte of a message in two fragments with a ping between them.
#[rstest]
fn an_end_after_every_byte(#[values(true, false)] reset: bool) {
    let mut bytes = Ws::frame(0x01, br#"420["#);
    bytes.extend(Ws::frame(0x89, b"?"));
    bytes.extend(Ws::frame(0x80, br#""echo"]"#));
    scenario_of(Kind::Plain).ends_anyhow().rounds(2).run(|addr| {
        for length in 0..=bytes.len() {
            let mut client = Client::connected(addr, WebSocket);
            client.ws().send_raw(&bytes[..length]);
            let ws = client.into_ws();
            if reset { crate::support::reset(ws.http.stream) } else { drop(ws) }
        }
    });
}
