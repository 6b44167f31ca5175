//! What is meant to hurt: a megabyte of everything, and depths, on a small stack.

use std::{
    thread,
    time::{Duration, Instant},
};

use rstest::rstest;
use serde_json::Value;
use tinysio::{
    Bytes,
    proto::{
        Error,
        engine::{self, payload},
        limits,
        socket::{Assembler, Body, Outgoing, Packet},
    },
};

const MEGABYTE: usize = 1_000_000;

/// Generous to a slow machine in a debug build, and far from what quadratic work on a megabyte takes.
const LINEAR: Duration = Duration::from_secs(3);

/// The stack that the server gives a connection's thread. In a debug build, 256 KiB are not enough for what
/// `serde_json` allows.
fn on_a_small_stack<R: Send + 'static>(test: impl FnOnce() -> R + Send + 'static) -> R {
    thread::Builder::new().stack_size(512 * 1024).spawn(test).unwrap().join().unwrap()
}

fn within_linear_time<R>(work: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = work();
    let took = start.elapsed();
    assert!(took < LINEAR, "took {took:?}");
    result
}

#[rstest]
#[case::digits_of_an_id("2", "1", r#"["a"]"#, Err(Error::BadAckId))]
#[case::zeros_of_an_id("2", "0", r#"["a"]"#, Err(Error::BadAckId))]
#[case::digits_and_nothing_else("2", "1", "", Err(Error::BadAckId))]
#[case::a_namespace("2/", "n", r#",["a"]"#, Err(Error::NamespaceTooLong))]
#[case::a_namespace_without_end("0/", "n", "", Err(Error::NamespaceTooLong))]
#[case::slashes("0", "/", "", Err(Error::NamespaceTooLong))]
#[case::commas("2/a", ",", "", Err(Error::BadJson))]
#[case::digits_of_a_count("5", "9", r#"-["a"]"#, Err(Error::TooManyAttachments))]
#[case::zeros_of_a_count("5", "0", r#"-["a"]"#, Err(Error::BadAttachmentCount))]
#[case::a_count_without_end("5", "9", "", Err(Error::BadAttachmentCount))]
#[case::dashes("5", "-", "", Err(Error::BadAttachmentCount))]
#[case::open_brackets("2", "[", "", Err(Error::TooDeep))]
#[case::open_braces(r#"2["a","#, "{", "", Err(Error::TooDeep))]
#[case::objects_without_end(r#"2["a""#, r#",{"b":[{"c":"#, "", Err(Error::TooDeep))]
#[case::brackets_in_a_string(r#"2["a",""#, "[", r#""]"#, Ok(1))]
#[case::lists(r#"2["a""#, ",[]", "]", Ok(333_333))]
#[case::a_string_without_end(r#"2["a"#, "x", "", Err(Error::BadJson))]
#[case::backslashes(r#"2["a"#, r"\\", r#""]"#, Ok(0))]
#[case::escapes_in_a_name(r#"2[""#, r"\u0041", r#""]"#, Ok(0))]
#[case::a_name(r#"2[""#, "x", r#""]"#, Ok(0))]
#[case::spaces("2[", " ", r#""a"]"#, Ok(0))]
#[case::spaces_behind(r#"2["a"]"#, " ", "", Ok(0))]
#[case::spaces_before("2", " ", r#"["a"]"#, Err(Error::InvalidPayload))]
#[case::arguments(r#"2["a""#, ",1", "]", Ok(500_000))]
#[case::a_number(r#"2["a","#, "1", "]", Ok(1))]
#[case::zeros("2[\"a\",0.", "0", "]", Ok(1))]
#[case::a_string_of_bytes(r#"2["a",""#, "é", r#""]"#, Ok(1))]
fn a_megabyte_of(
    #[case] before: &str,
    #[case] unit: &str,
    #[case] after: &str,
    #[case] expected: Result<usize, Error>,
) {
    let text = format!("{before}{}{after}", unit.repeat(MEGABYTE / unit.len()));
    let verdict = within_linear_time(|| match Packet::decode(&text, &[]).map(|packet| packet.body) {
        Ok(Body::Event { args, .. }) => Ok(args.len()),
        Ok(other) => panic!("{other:?}"),
        // A count is compared before anything else; the assembler has no attachments to compare with.
        Err(Error::IllegalAttachments) => Assembler::new(10, usize::MAX).text(&text).map(|_| 0),
        Err(error) => Err(error),
    });
    assert_eq!(verdict, expected);
}

/// The same in a packet with attachments, whose placeholders are looked for, found, and numbered anew.
#[rstest]
#[case::placeholders("[0", r#",{"_placeholder":true,"num":0}"#, "]", Err(Error::BadJson))]
#[case::objects("[{\"_placeholder\":true,\"num\":0}", r#",{"a":{"num":"_placeholder"}}"#, "]", Ok(()))]
#[case::one_and_a_long_string("[{\"_placeholder\":true,\"num\":0},\"", "x", "\"]", Ok(()))]
#[case::one_and_backslashes("[{\"_placeholder\":true,\"num\":0},\"", r"\\", "\"]", Ok(()))]
#[case::one_and_spaces("[{\"_placeholder\":", " ", "true,\"num\":0}]", Ok(()))]
#[case::one_and_a_long_number("[{\"_placeholder\":true,\"num\":", "1", "}]", Err(Error::IllegalAttachments))]
#[case::one_and_escaped_keys("[{\"_placeholder\":true,\"num\":0", ",\"\\u0061\":1", "}]", Ok(()))]
#[case::one_and_depth("[{\"_placeholder\":true,\"num\":0},", "[", "", Err(Error::TooDeep))]
fn a_megabyte_beside_a_placeholder(
    #[case] before: &str,
    #[case] unit: &str,
    #[case] after: &str,
    #[case] expected: Result<(), Error>,
) {
    let text = format!("51-[\"a\",{before}{}{after}]", unit.repeat(MEGABYTE / unit.len()));
    let attachments = [Bytes::from_static(&[1])];
    let verdict = within_linear_time(|| forward(&text, &attachments));
    assert_eq!(verdict, expected);
}

/// Decodes and encodes again. More placeholders than clients take are an error on the way out only.
fn forward(text: &str, attachments: &[Bytes]) -> Result<(), Error> {
    let packet = Packet::decode(text, attachments)?;
    let Body::Event { args, .. } = packet.body else { panic!("no event") };
    Outgoing::event("/", "a", None).encode(&args).map(|_| ()).map_err(|_| Error::BadJson)
}

/// A placeholder under as many levels as are allowed, with a megabyte beside it on the lowest, or on every one.
#[rstest]
#[case::on_the_lowest("[", MEGABYTE)]
#[case::on_every_one("[\"$\",", MEGABYTE / 62)]
fn a_megabyte_beside_a_deep_placeholder(#[case] open: &str, #[case] share: usize) {
    let share = "x".repeat(share);
    let (open, close) = (open.replace('$', &share).repeat(62), "]".repeat(62));
    let text = format!(r#"51-["a",{open}{{"_placeholder":true,"num":0}},"{share}"{close}]"#);
    let attachments = [Bytes::from_static(&[1])];
    assert_eq!(within_linear_time(|| forward(&text, &attachments)), Ok(()));
}

/// `depth` brackets or objects around `inside`.
fn nested(depth: usize, object: bool, inside: &str) -> String {
    let (open, close) = if object { (r#"{"k":"#, "}") } else { ("[", "]") };
    format!("{}{inside}{}", open.repeat(depth), close.repeat(depth))
}

#[rstest]
fn depth_of_plain_packets(
    #[values(1, 126, 127, 128, 129, 2_000, 2_001, 100_000)] depth: usize,
    #[values(false, true)] object: bool,
) {
    on_a_small_stack(move || {
        let text = format!(r#"2["a",{}]"#, nested(depth, object, "1"));
        let packet = Packet::decode(&text, &[]);
        if depth > limits::MAX_JSON_DEPTH {
            assert_eq!(packet.err(), Some(Error::TooDeep));
            return;
        }
        let Ok(Packet { body: Body::Event { args, .. }, .. }) = packet else { panic!("{packet:?}") };
        // It goes on as it came …
        let encoded = Outgoing::event("/", "a", None).encode(&args).unwrap();
        assert_eq!(encoded.frames().next().unwrap().text().unwrap()[1..], text);
        // … and reading it gives a value, or an error beyond the depth that `serde_json` reads.
        let value: Result<Value, _> = args.get(0);
        assert_eq!(value.is_ok(), depth < 128);
    });
}

/// Beside bytes, what has none inside is sent on at any depth that is taken.
#[test]
fn depth_beside_bytes() {
    on_a_small_stack(|| {
        let deep = nested(limits::MAX_JSON_DEPTH, false, "1");
        let text = format!(r#"51-["a",{{"_placeholder":true,"num":0}},{deep}]"#);
        let attachments = [Bytes::from_static(&[1])];
        let Ok(Packet { body: Body::Event { args, .. }, .. }) = Packet::decode(&text, &attachments) else {
            panic!("not taken")
        };
        let encoded = Outgoing::event("/", "a", None).encode(&args).unwrap();
        assert_eq!(encoded.frames().next().unwrap().text().unwrap()[1..], text);
    });
}

#[rstest]
fn depth_of_binary_packets(
    #[values(1, 63, 64, 65, 127, 128, 2_000, 2_001, 100_000)] depth: usize,
    #[values(false, true)] object: bool,
) {
    on_a_small_stack(move || {
        let text = format!(r#"51-["a",{}]"#, nested(depth - 1, object, r#"{"_placeholder":true,"num":0}"#));
        let attachments = [Bytes::from_static(&[1])];
        let packet = Packet::decode(&text, &attachments);
        if depth > limits::MAX_JSON_DEPTH {
            assert_eq!(packet.err(), Some(Error::TooDeep));
            return;
        }
        let Ok(Packet { body: Body::Event { args, .. }, .. }) = packet else { panic!("{packet:?}") };
        // It is whole, and reading more than the stack allows is an error.
        assert!(text.contains(args.raw(0).unwrap().json()));
        let encoded = Outgoing::event("/", "a", None).encode(&args);
        if depth > limits::MAX_READ_DEPTH {
            assert!(encoded.is_err() && args.get::<Value>(0).is_err());
            return;
        }
        assert_eq!(encoded.unwrap().frames().next().unwrap().text().unwrap()[1..], text);
        assert!(args.get::<Value>(0).is_ok());
    });
}

/// One limit, whatever the packet is. An event's name is no argument, and never an array.
#[rstest]
#[case::event(r#"2["a","#, false, "]")]
#[case::event_after_others(r#"2["a",[[]],{"k":[]},"#, true, "]")]
#[case::event_in_a_namespace(r#"2/chat,12["a","#, false, "]")]
#[case::ack("31[", false, "]")]
#[case::connect("0", true, "")]
#[case::connect_error("4", true, "")]
fn one_depth_for_every_packet(
    #[case] before: &'static str,
    #[case] object: bool,
    #[case] after: &'static str,
    #[values(2, 3, limits::MAX_JSON_DEPTH, 100_000)] max: usize,
    #[values(0, 1)] beyond: usize,
) {
    on_a_small_stack(move || {
        let text = format!("{before}{}{after}", nested(max + beyond, object, r#""]]]}}}[[[{{{""#));
        let mut assembler = Assembler::new(limits::MAX_ATTACHMENTS, usize::MAX).with_max_depth(max);
        let expected = if beyond == 0 { Ok(()) } else { Err(Error::TooDeep) };
        assert_eq!(assembler.text(&text).map(|packet| drop(packet.expect("no attachments"))), expected);
    });
}

/// The header of a packet with bytes is refused when it comes, not after its attachments.
#[rstest]
#[case::event(r#"51-["a","#)]
#[case::ack("61-1[")]
fn one_depth_with_attachments(
    #[case] before: &'static str,
    #[values(2, limits::MAX_JSON_DEPTH, 100_000)] max: usize,
    #[values(0, 1)] beyond: usize,
) {
    on_a_small_stack(move || {
        let inside = r#"{"_placeholder":true,"num":0}"#;
        let text = format!("{before}{}]", nested(max + beyond - 1, false, inside));
        let mut assembler = Assembler::new(limits::MAX_ATTACHMENTS, usize::MAX).with_max_depth(max);
        let expected = if beyond == 0 { Ok(()) } else { Err(Error::TooDeep) };
        assert_eq!(assembler.text(&text).map(|waits| assert!(waits.is_none())), expected);
        if beyond == 0 {
            let complete = assembler.binary(Bytes::from_static(&[1])).unwrap().unwrap();
            assert!(complete.packet().is_ok());
        }
    });
}

/// `usize::MAX` is no limit.
#[test]
fn without_a_limit_of_depth() {
    on_a_small_stack(|| {
        let text = format!(r#"2["a",{}]"#, nested(400_000, false, ""));
        let mut assembler = Assembler::new(limits::MAX_ATTACHMENTS, usize::MAX).with_max_depth(usize::MAX);
        assert!(within_linear_time(|| assembler.text(&text).map(drop)).is_ok());
    });
}

#[rstest]
#[case::separators("\u{1e}")]
#[case::empty_messages("4\u{1e}")]
#[case::pongs("3\u{1e}")]
#[case::empty_attachments("b\u{1e}")]
#[case::base64("bAAAA")]
#[case::b("b")]
fn a_payload_of(#[case] unit: &str) {
    let payload = unit.repeat(MEGABYTE / unit.len());
    let packets = within_linear_time(|| payload::decode(&payload).count());
    assert_eq!(packets, 1 + payload.matches(payload::SEPARATOR).count());
}

#[test]
fn a_query_of_a_megabyte() {
    for unit in ["&", "=", "EIO=4&", "sid=a&sid=b&", "x=y&"] {
        let query = unit.repeat(MEGABYTE / unit.len());
        assert!(within_linear_time(|| engine::Query::parse(&query).transport()).is_err());
    }
}
