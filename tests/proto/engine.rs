//! Engine.IO: packets, payloads, the upgrade, the query, the handshake's answers.

use std::time::Duration;

use rstest::rstest;
use tinysio::proto::{
    CloseReason, Error,
    engine::{
        Data, HandshakeError, Open, Packet, ProbeStep, Query, TransportKind, UpgradeProbe,
        payload::{self, Builder},
    },
};

use crate::wire::{self, Row};

fn check(row: &Row) {
    let packet = Packet::decode(&row.wire).unwrap_or_else(|error| panic!("line {}: {error:?}", row.line));
    assert_eq!(wire::show_engine(&packet), row.expected, "line {}", row.line);
    assert_eq!(packet.text().as_deref(), Some(&*row.wire), "line {}", row.line);
}

fn reject(row: &Row) {
    let error = Packet::decode(&row.wire).expect_err(&row.wire);
    assert_eq!(wire::rejection(&error), row.expected, "line {}", row.line);
}

#[test]
fn packets() {
    for row in wire::rows("engine.txt") {
        if row.expected.starts_with('!') { reject(&row) } else { check(&row) }
    }
}

/// The type alone decides; only the types without data mind what follows.
#[test]
fn every_prefix_of_a_packet() {
    for row in wire::rows("engine.txt") {
        for (end, _) in row.wire.char_indices() {
            let prefix = &row.wire[..end];
            let expected = match prefix.as_bytes() {
                [] => Err(Error::EmptyPacket),
                [b'0' | b'2'..=b'4', ..] | [b'1' | b'5' | b'6'] => Ok(()),
                [b'1' | b'5' | b'6', ..] => Err(Error::UnexpectedData),
                _ => Err(Error::UnknownEngineType),
            };
            assert_eq!(Packet::decode(prefix).map(|_| ()), expected, "{prefix:?}");
        }
    }
}

#[test]
fn payloads() {
    for row in wire::rows("payload.txt") {
        let packets: Vec<_> = payload::decode(&row.wire).collect();
        let shown: Vec<_> = packets.iter().map(|it| wire::verdict(it, wire::show_engine)).collect();
        assert_eq!(shown.join(" ; "), row.expected, "line {}", row.line);
        if !row.expected.contains('!') {
            assert_eq!(build(packets.into_iter().map(Result::unwrap)), row.wire, "line {}", row.line);
        }
    }
}

fn build<'a>(packets: impl Iterator<Item = Packet<'a>>) -> String {
    let mut builder = Builder::new();
    assert!(builder.is_empty());
    for (index, packet) in packets.enumerate() {
        match &packet {
            Packet::Message(Data::Binary(data)) => builder.push_binary(data),
            text => builder.push_text(&text.text().unwrap()),
        }
        assert_eq!((builder.packets(), builder.is_empty()), (index + 1, false));
    }
    let len = builder.len();
    let body = builder.finish();
    assert_eq!(body.len(), len);
    body
}

/// A prefix differs from the whole in its last packet only.
#[test]
fn every_prefix_of_a_payload() {
    for row in wire::rows("payload.txt") {
        let whole: Vec<_> = payload::decode(&row.wire).collect();
        for (end, _) in row.wire.char_indices() {
            let part: Vec<_> = payload::decode(&row.wire[..end]).collect();
            assert_eq!(part[..part.len() - 1], whole[..part.len() - 1], "{:?}", &row.wire[..end]);
        }
    }
}

#[rstest]
#[case::the_documented_way(&["2probe", "5"], &[Ok(ProbeStep::AnswerProbe), Ok(ProbeStep::TakeOver)])]
#[case::without_probe(&["5"], &[Err(Error::ProbeExpected)])]
#[case::a_plain_ping(&["2"], &[Err(Error::ProbeExpected)])]
#[case::another_word(&["2probes"], &[Err(Error::ProbeExpected)])]
#[case::a_pong(&["3probe"], &[Err(Error::ProbeExpected)])]
#[case::a_message_first(&["42[\"a\"]"], &[Err(Error::ProbeExpected)])]
#[case::two_probes(&["2probe", "2probe"], &[Ok(ProbeStep::AnswerProbe), Err(Error::UpgradeExpected)])]
#[case::a_message_early(&["2probe", "4x"], &[Ok(ProbeStep::AnswerProbe), Err(Error::UpgradeExpected)])]
#[case::a_close(&["2probe", "1"], &[Ok(ProbeStep::AnswerProbe), Err(Error::UpgradeExpected)])]
#[case::an_error_changes_nothing(
    &["4", "2probe", "6", "5"],
    &[Err(Error::ProbeExpected), Ok(ProbeStep::AnswerProbe), Err(Error::UpgradeExpected), Ok(ProbeStep::TakeOver)]
)]
fn upgrades(#[case] packets: &[&str], #[case] steps: &[Result<ProbeStep, Error>]) {
    let mut probe = UpgradeProbe::default();
    let taken: Vec<_> = packets.iter().map(|text| probe.step(&Packet::decode(text).unwrap())).collect();
    assert_eq!(taken, steps);
}

#[test]
fn binary_on_an_upgrading_websocket() {
    let packet = Packet::Message(Data::Binary(vec![5].into()));
    assert_eq!(UpgradeProbe::Fresh.step(&packet), Err(Error::ProbeExpected));
    assert_eq!(UpgradeProbe::Probed.step(&packet), Err(Error::UpgradeExpected));
}

const UNKNOWN: Result<TransportKind, HandshakeError> = Err(HandshakeError::TransportUnknown);
const POLLING: Result<TransportKind, HandshakeError> = Ok(TransportKind::Polling);
const WEBSOCKET: Result<TransportKind, HandshakeError> = Ok(TransportKind::Websocket);

#[rstest]
#[case("EIO=4&transport=polling", POLLING, None, true)]
#[case("transport=websocket&EIO=4&sid=abc&t=Nx", WEBSOCKET, Some("abc"), true)]
#[case("EIO=4&EIO=4&transport=polling&transport=polling&sid=a&sid=a", POLLING, Some("a"), true)]
#[case("EIO=4&transport=polling&sid=", POLLING, None, true)]
#[case("EIO=4&transport=polling&sid", POLLING, None, true)]
#[case("EIO=4&transport=polling&sid=a&sid=b", POLLING, Some("?"), true)]
#[case("EIO=4&transport=polling&sid=a&sid=", POLLING, Some("?"), true)]
#[case("EIO=4&transport=polling&sid=a=b", POLLING, Some("a=b"), true)]
#[case("EIO=4&transport=polling&sid=__proto__", POLLING, Some("__proto__"), true)]
#[case("", UNKNOWN, None, false)]
#[case("&&=&", UNKNOWN, None, false)]
#[case("EIO=4", UNKNOWN, None, true)]
#[case("EIO=4&transport=", UNKNOWN, None, true)]
#[case("EIO=4&transport", UNKNOWN, None, true)]
#[case("EIO=4&transport=constructor", UNKNOWN, None, true)]
#[case("EIO=4&transport=__proto__", UNKNOWN, None, true)]
#[case("EIO=4&transport=webtransport", UNKNOWN, None, true)]
#[case("EIO=4&transport=Polling", UNKNOWN, None, true)]
#[case("EIO=4&transport=polling&transport=websocket", UNKNOWN, None, true)]
#[case("EIO=4&transport=polling&transport=websocket&transport=polling", UNKNOWN, None, true)]
#[case("EIO=4&transport[]=polling", UNKNOWN, None, true)]
#[case("eio=4&Transport=polling", UNKNOWN, None, false)]
#[case("transport=polling", POLLING, None, false)]
#[case("EIO=&transport=polling", POLLING, None, false)]
#[case("EIO=3&transport=polling", POLLING, None, false)]
#[case("EIO=5&transport=polling", POLLING, None, false)]
#[case("EIO=04&transport=polling", POLLING, None, false)]
#[case("EIO=abc&transport=polling", POLLING, None, false)]
#[case("EIO=4&EIO=3&transport=polling", POLLING, None, false)]
#[case("EIO=3&EIO=4&EIO=4&transport=polling", POLLING, None, false)]
fn queries(
    #[case] query: &str,
    #[case] transport: Result<TransportKind, HandshakeError>,
    #[case] sid: Option<&str>,
    #[case] version: bool,
) {
    let parsed = Query::parse(query);
    assert_eq!((parsed.transport(), parsed.sid()), (transport, sid));
    let version = if version { Ok(()) } else { Err(HandshakeError::UnsupportedVersion) };
    assert_eq!(parsed.version(), version);
}

#[rstest]
#[case(HandshakeError::TransportUnknown, 400, r#"{"code":0,"message":"Transport unknown"}"#)]
#[case(HandshakeError::SessionUnknown, 400, r#"{"code":1,"message":"Session ID unknown"}"#)]
#[case(HandshakeError::BadMethod, 400, r#"{"code":2,"message":"Bad handshake method"}"#)]
#[case(HandshakeError::BadRequest, 400, r#"{"code":3,"message":"Bad request"}"#)]
#[case(HandshakeError::Forbidden, 403, r#"{"code":4,"message":"Forbidden"}"#)]
#[case(HandshakeError::UnsupportedVersion, 400, r#"{"code":5,"message":"Unsupported protocol version"}"#)]
fn refusals(#[case] error: HandshakeError, #[case] status: u16, #[case] body: &str) {
    assert_eq!((error.status(), &*error.body()), (status, body));
}

/// EIO "Handshake": the document's own packet, and back.
#[test]
fn open_packet() {
    let open = Open {
        sid: "lv_VI97HAXpY6yYWAAAC".into(),
        upgrades: vec!["websocket".into()],
        ping_interval: 25000,
        ping_timeout: 20000,
        max_payload: Some(1_000_000),
    };
    let text = open.packet();
    assert_eq!(text, wire::rows("engine.txt")[0].wire);
    assert_eq!(serde_json::from_str::<Open>(&text[1..]).unwrap(), open);
    assert_eq!(open.silence_allowed(), Duration::from_secs(45));
}

#[rstest]
#[case::without_max_payload(r#"{"sid":"a","upgrades":[],"pingInterval":1,"pingTimeout":2}"#, true)]
#[case::more_than_we_know(r#"{"sid":"a","upgrades":["x"],"pingInterval":1,"pingTimeout":2,"y":{}}"#, true)]
#[case::no_sid(r#"{"upgrades":[],"pingInterval":1,"pingTimeout":2}"#, false)]
#[case::sid_a_number(r#"{"sid":1,"upgrades":[],"pingInterval":1,"pingTimeout":2}"#, false)]
#[case::negative(r#"{"sid":"a","upgrades":[],"pingInterval":-1,"pingTimeout":2}"#, false)]
#[case::a_fraction(r#"{"sid":"a","upgrades":[],"pingInterval":1.5,"pingTimeout":2}"#, false)]
#[case::no_object("[]", false)]
#[case::nothing("", false)]
fn open_packets_of_others(#[case] json: &str, #[case] good: bool) {
    assert_eq!(serde_json::from_str::<Open>(json).is_ok(), good);
}

#[test]
fn an_absurd_interval_does_not_overflow() {
    let json = format!(r#"{{"sid":"a","upgrades":[],"pingInterval":{0},"pingTimeout":{0}}}"#, u64::MAX);
    let open: Open = serde_json::from_str(&json).unwrap();
    assert_eq!(open.silence_allowed(), Duration::from_millis(u64::MAX));
}

/// The official texts, which handlers of other implementations compare with.
#[rstest]
#[case(CloseReason::TransportError, "transport error")]
#[case(CloseReason::TransportClose, "transport close")]
#[case(CloseReason::ForcedClose, "forced close")]
#[case(CloseReason::PingTimeout, "ping timeout")]
#[case(CloseReason::ParseError, "parse error")]
#[case(CloseReason::ServerShuttingDown, "server shutting down")]
#[case(CloseReason::ForcedServerClose, "forced server close")]
#[case(CloseReason::ClientNamespaceDisconnect, "client namespace disconnect")]
#[case(CloseReason::ServerNamespaceDisconnect, "server namespace disconnect")]
#[case(CloseReason::IoServerDisconnect, "io server disconnect")]
#[case(CloseReason::IoClientDisconnect, "io client disconnect")]
fn reasons(#[case] reason: CloseReason, #[case] text: &str) {
    assert_eq!((reason.as_str(), reason.to_string().as_str()), (text, text));
}
