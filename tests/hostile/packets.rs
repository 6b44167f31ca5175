//! Packets of Socket.IO and Engine.IO that are not as they should be, on both transports.

use std::iter::repeat_n;

use End::{Alive, Broken, Left};
use Transport::{Polling, WebSocket};
use rstest::rstest;

use crate::{
    scenario::{goodbye, scenario},
    support::{Client, Frame, Http, Transport, Ws},
};

/// What a client that has sent this finds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is closed, and the handlers are told "parse error".
    Broken,
    /// It is closed, and the handlers are told this.
    Left(&'static str),
    /// It is served as before, after these packets.
    Alive(&'static [&'static str]),
}

fn text(text: &str) -> Vec<Frame> {
    vec![Frame::text(text)]
}

fn with_bytes(header: &str, attachments: usize) -> Vec<Frame> {
    [Frame::text(header)].into_iter().chain(repeat_n(Frame::Binary(vec![7]), attachments)).collect()
}

/// A client of `/` sends these.
fn sends(transport: Transport, packets: &[Frame], end: End) {
    let held = match end {
        Broken => scenario().ends(&["parse error"]),
        Left(reason) => scenario().ends(&[reason]),
        Alive(_) => scenario().ends(&["transport close"]),
    };
    held.run(|addr| {
        let mut client = Client::connected(addr, transport);
        client.send_burst(packets);
        let Alive(answers) = end else {
            let before = client.closed("the close of who sends this");
            assert!(before.len() < 2, "it got {before:?}");
            return;
        };
        for answer in answers {
            client.expect(answer);
        }
        client.send(r#"4299["echo",1]"#);
        client.expect("4399[1]");
        goodbye(client);
    });
}

#[rstest]
// CVE-2024-38355: a name that means something to the server's own objects.
#[case::an_event_named_error(text(r#"42["error","x"]"#), Alive(&[]))]
#[case::an_event_named_connection(text(r#"42["connection"]"#), Alive(&[]))]
#[case::an_event_named_proto(text(r#"42["__proto__",{"__proto__":1}]"#), Alive(&[]))]
#[case::an_event_named_constructor(text(r#"42["constructor"]"#), Alive(&[]))]
#[case::an_event_without_a_name(text(r#"42[""]"#), Alive(&[]))]
#[case::a_reserved_event(text(r#"42["disconnecting"]"#), Broken)]
// CVE-2023-32695: a name that is no string.
#[case::a_name_that_is_an_object(text(r#"42[{"toString":1}]"#), Broken)]
#[case::a_name_that_is_null(text("42[null]"), Broken)]
#[case::a_name_that_is_an_array(text("42[[]]"), Broken)]
#[case::a_name_that_is_true(text("42[true]"), Broken)]
#[case::no_name(text("42[]"), Broken)]
#[case::an_object_for_the_array(text("42{}"), Broken)]
#[case::a_string_for_the_array(text(r#"42"a""#), Broken)]
#[case::half_an_array(text(r#"42["a""#), Broken)]
#[case::something_behind_the_array(text(r#"42["a"]x"#), Broken)]
// CVE-2022-2421: a placeholder that points elsewhere.
#[case::placeholder_minus_one(with_bytes(r#"451-["a",{"_placeholder":true,"num":-1}]"#, 1), Broken)]
#[case::placeholder_a_milliard(with_bytes(r#"451-["a",{"_placeholder":true,"num":1e9}]"#, 1), Broken)]
#[case::placeholder_one_beyond(with_bytes(r#"451-["a",{"_placeholder":true,"num":1}]"#, 1), Broken)]
#[case::placeholder_of_2_64(
    with_bytes(r#"451-["a",{"_placeholder":true,"num":18446744073709551616}]"#, 1),
    Broken
)]
#[case::placeholder_string(with_bytes(r#"451-["a",{"_placeholder":true,"num":"0"}]"#, 1), Broken)]
#[case::placeholder_method(with_bytes(r#"451-["a",{"_placeholder":true,"num":"splice"}]"#, 1), Broken)]
#[case::placeholder_null(with_bytes(r#"451-["a",{"_placeholder":true,"num":null}]"#, 1), Broken)]
#[case::placeholder_half(with_bytes(r#"451-["a",{"_placeholder":true,"num":0.5}]"#, 1), Broken)]
#[case::placeholder_without_number(with_bytes(r#"451-["a",{"_placeholder":true}]"#, 1), Broken)]
#[case::a_placeholder_in_text(text(r#"420["echo",{"_placeholder":true,"num":7}]"#), Alive(&[r#"430[{"_placeholder":true,"num":7}]"#]))]
// CVE-2026-33151: announcements.
#[case::endless_attachments(text(r#"455999999-["a"]"#), Broken)]
#[case::eleven_attachments(text(r#"4511-["a"]"#), Broken)]
#[case::attachments_in_exponents(text(r#"451e1-["a"]"#), Broken)]
// CVE-2026-69185: an announcement of none, and then some.
#[case::no_attachments_and_then_some(with_bytes(r#"450-["a"]"#, 3), Broken)]
#[case::binary_that_nobody_announced(vec![Frame::Binary(vec![1])], Broken)]
#[case::text_among_attachments(vec![Frame::text(r#"452-["a"]"#), Frame::Binary(vec![1]), Frame::text(r#"42["a"]"#)], Broken)]
#[case::one_attachment_too_many(with_bytes(r#"451-["a",{"_placeholder":true,"num":0}]"#, 2), Broken)]
// Acknowledgements.
#[case::ack_id_zero(text(r#"420["echo"]"#), Alive(&["430[]"]))]
#[case::ack_id_beyond_2_53(text(r#"429007199254740993["echo"]"#), Alive(&["439007199254740993[]"]))]
#[case::ack_id_of_forty_digits(text(&format!(r#"42{}["echo"]"#, "1".repeat(40))), Broken)]
#[case::ack_id_of_2_64(text(r#"4218446744073709551616["echo"]"#), Broken)]
#[case::ack_id_negative(text(r#"42-1["echo"]"#), Broken)]
#[case::ack_id_fraction(text(r#"421.5["echo"]"#), Broken)]
#[case::an_answer_to_nothing(text("437[]"), Alive(&[]))]
#[case::an_answer_without_id(text("43[]"), Broken)]
#[case::an_answer_that_is_an_object(text("431{}"), Broken)]
// The order of a connection.
#[case::connected_twice(text("40"), Broken)]
#[case::an_event_of_a_namespace_not_joined(text(r#"42/n,["echo"]"#), Broken)]
#[case::an_event_after_the_leave(vec![Frame::text("41"), Frame::text(r#"42["echo"]"#)], Left("client namespace disconnect"))]
#[case::a_refusal_by_the_client(text(r#"44{"message":"no"}"#), Broken)]
#[case::a_leave_with_a_payload(text("41{}"), Broken)]
#[case::an_unknown_type(text("47"), Broken)]
#[case::an_unknown_engine_type(text("9"), Broken)]
#[case::a_ping_of_the_client(text("2"), Left("transport error"))]
// A megabyte of one thing.
#[case::digits(text(&format!(r#"42{}["a"]"#, "1".repeat(900_000))), Broken)]
#[case::a_long_namespace(text(&format!("40/{}", "n".repeat(900_000))), Broken)]
#[case::brackets(text(&format!(r#"42["echo",{}"#, "[".repeat(900_000))), Broken)]
#[case::braces(text(&format!(r#"42["echo",{}"#, r#"{"a":"#.repeat(180_000))), Broken)]
#[case::deep_arrays(text(&format!(r#"42["echo",{}{}]"#, "[".repeat(2_000), "]".repeat(2_000))), Alive(&[]))]
#[case::deeper_arrays(text(&format!(r#"42["echo",{}{}]"#, "[".repeat(400_000), "]".repeat(400_000))), Broken)]
#[case::commas(text(&format!("42[{}", ",".repeat(900_000))), Broken)]
#[case::backslashes(text(&format!(r#"42["a{}"#, r"\".repeat(900_000))), Broken)]
#[case::nulls(text(&format!(r#"42["a{}"]"#, r"\u0000".repeat(150_000))), Alive(&[]))]
// What is given to handlers.
#[case::a_room_of_two_lines(text("42[\"join\",\"a\\r\\nb\"]"), Alive(&[]))]
#[case::a_room_that_is_an_object(text(r#"42["join",{"a":1}]"#), Alive(&[]))]
#[case::a_room_that_is_missing(text(r#"42["join"]"#), Alive(&[]))]
#[case::an_error_that_quotes_it(text(r#"42["quote","x\r\n2026-01-01 INFO all is well\u001b[2J"]"#), Alive(&[]))]
#[case::half_a_surrogate(text(r#"42["join","\ud800"]"#), Alive(&[]))]
fn a_packet(
    #[case] packets: Vec<Frame>,
    #[case] end: End,
    #[values(Polling, WebSocket)] transport: Transport,
) {
    sends(transport, &packets, end);
}

/// Polling clients say good-bye with `1`, WebSocket clients with a close frame: there `1` is passed over.
#[rstest]
#[case(Polling, Left("transport close"))]
#[case(WebSocket, Alive(&[]))]
fn a_close_packet_and_more(#[case] transport: Transport, #[case] end: End) {
    sends(transport, &[Frame::text("1"), Frame::text(r#"42["echo"]"#)], end);
}

const CONSENT: &str = r#"40/n,{"sid":"#;
const TOO_LARGE: &str = r#"44/n,{"message":"Auth payload too large"}"#;

/// What a CONNECT carries, deep or long or of the wrong kind: `pid` and `offset` have no meaning here yet.
#[rstest]
#[case::depth_127(format!("{{\"a\":{}1{}}}", "[".repeat(126), "]".repeat(126)), CONSENT)]
#[case::depth_400_000(format!("{{\"a\":{}{}}}", "[".repeat(400_000), "]".repeat(400_000)), "")]
#[case::a_foreign_pid(r#"{"pid":"Nc-S5MfeMgAA","offset":"x"}"#.into(), CONSENT)]
#[case::pid_as_an_object(r#"{"pid":{"a":1},"offset":[]}"#.into(), CONSENT)]
#[case::pid_as_a_number(r#"{"pid":1e400,"offset":-0}"#.into(), CONSENT)]
#[case::a_long_pid(format!(r#"{{"pid":"{}","offset":"{}"}}"#, "p".repeat(400_000), "o".repeat(400_000)), TOO_LARGE)]
#[case::an_array("[]".into(), "")]
#[case::a_string(r#""token""#.into(), "")]
#[case::half_an_object(r#"{"a":"#.into(), "")]
fn an_auth(#[case] auth: String, #[case] answer: &str, #[values(Polling, WebSocket)] transport: Transport) {
    let ends: &[_] = match answer {
        CONSENT => &["transport close"; 2],
        TOO_LARGE => &["transport close"],
        _ => &["parse error"],
    };
    scenario().ends(ends).run(|addr| {
        let mut client = Client::connected(addr, transport);
        client.send(&format!("40/n,{auth}"));
        if answer.is_empty() {
            client.closed("the close after a bad CONNECT");
        } else {
            assert!(client.text("the answer to the CONNECT").starts_with(answer));
            goodbye(client);
        }
    });
}

/// CVE-2026-48804: nobody piles up attachments before it has joined anything.
#[rstest]
#[case::a_binary_event(with_bytes(r#"452-["a"]"#, 1))]
#[case::a_binary_answer(with_bytes("461-0[]", 0))]
#[case::attachments_alone(vec![Frame::Binary(vec![0; 500_000])])]
#[case::an_event(text(r#"42["echo"]"#))]
#[case::a_refusal(text(r#"44{"message":"no"}"#))]
fn before_the_connect(#[case] packets: Vec<Frame>, #[values(Polling, WebSocket)] transport: Transport) {
    scenario().run(|addr| {
        let mut client = Client::new(addr, transport);
        client.send_burst(&packets);
        assert_eq!(client.closed("the close of who has not joined"), []);
    });
}

/// The socket of another session has asked; this one cannot answer in its place, and answering twice is once.
#[rstest]
fn an_answer_for_another_socket(#[values(Polling, WebSocket)] transport: Transport) {
    scenario().ends(&["transport close"; 2]).run(|addr| {
        let (mut asked, mut other) = (Client::connected(addr, transport), Client::connected(addr, transport));
        asked.send(r#"42["ask"]"#);
        let question = asked.text("the question");
        let id = question.strip_prefix("42").unwrap().strip_suffix(r#"["question"]"#).unwrap().to_owned();
        other.send_texts(&[&format!("43{id}[]"), &format!("43{id}[1]"), r#"420["echo"]"#]);
        other.expect("430[]");
        asked.send_texts(&[&format!("43{id}[]"), &format!("43{id}[1]"), r#"420["echo"]"#]);
        asked.expect("430[]");
        goodbye(asked);
        goodbye(other);
    });
}

/// Unsound bodies that are no texts.
#[rstest]
#[case::bytes(b"42[\"\xff\"]".to_vec())]
#[case::half_a_character("42[\"é\"]".as_bytes()[..5].to_vec())]
#[case::a_surrogate(b"42[\"\xed\xa0\x80\"]".to_vec())]
#[case::an_overlong_slash(b"42[\"\xc0\xaf\"]".to_vec())]
fn text_that_is_no_utf8(#[case] bytes: Vec<u8>, #[values(Polling, WebSocket)] transport: Transport) {
    let reason = if transport == Polling { "parse error" } else { "transport error" };
    scenario().ends(&[reason]).run(|addr| {
        let mut client = Client::connected(addr, transport);
        if transport == WebSocket {
            client.ws().send_raw(&Ws::frame(0x81, &bytes));
            assert_eq!(client.ws().closed("the close after bad UTF-8"), Some(Some(1007)));
            return;
        }
        let mut http = Http::connect(addr);
        http.send(format!(
            "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            client.target("polling"),
            bytes.len()
        ));
        http.send(&bytes);
        assert_eq!(http.response("the answer to bad UTF-8").body, "ok");
        client.closed("the close after bad UTF-8");
    });
}
