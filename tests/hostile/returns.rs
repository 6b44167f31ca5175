//! Who says that it has been here before, on a server with recovery: other people's names, and names without end.

use Transport::{Polling, WebSocket};
use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    scenario::{goodbye, scenario_of},
    server::Kind,
    support::{Client, Frame, Transport},
};

/// The consent to a CONNECT of the namespace `/n`.
fn consent(client: &mut Client) -> Value {
    let text = client.text("the consent");
    serde_json::from_str(text.strip_prefix("40/n,").unwrap_or_else(|| panic!("{text}"))).unwrap()
}

fn still_served(mut client: Client) {
    client.send(r#"429["echo"]"#);
    client.expect("439[]");
    goodbye(client);
}

/// What names nobody is a new client, and what is no name is passed over.
#[rstest]
#[case::a_foreign_pid(r#"{"pid":"AAAAAAAAAAAAAAAAAAAA","offset":"AAAAAAAAAAA"}"#)]
#[case::an_object(r#"{"pid":{"toString":1},"offset":{"__proto__":[]}}"#)]
#[case::a_number(r#"{"pid":1e999,"offset":-1,"rid":0.5}"#)]
#[case::a_list(r#"{"pid":[["x"]],"offset":[],"rid":[]}"#)]
#[case::null(r#"{"pid":null,"offset":null,"rid":null}"#)]
#[case::empty(r#"{"pid":"","offset":"","rid":""}"#)]
#[case::lines_and_escapes(r#"{"pid":"\r\n\u0000\u001b[31m","offset":"\ud83d\ude00","rid":"\r\n"}"#)]
#[case::half_a_character(r#"{"pid":"\ud83d","offset":"\udc00"}"#)]
#[case::twice(r#"{"pid":"a","pid":"b","offset":"c","offset":"d"}"#)]
#[case::as_long_as_may_be(&format!(r#"{{"pid":"{0}","offset":"{0}","rid":"{0}"}}"#, "x".repeat(5_000)))]
fn not_a_name(#[case] auth: &str, #[values(Polling, WebSocket)] transport: Transport) {
    scenario_of(Kind::Recovering).ends(&["transport close"; 2]).run(|addr| {
        let mut client = Client::connected(addr, transport);
        client.send(&format!("40/n,{auth}"));
        let consent = consent(&mut client);
        let pid = consent["pid"].as_str().unwrap();
        assert!(pid.len() == 20 && !auth.contains(pid), "{consent}");
        still_served(client);
    });
}

/// A megabyte of name.
#[rstest]
fn a_huge_name(
    #[values("pid", "offset", "rid")] of: &str,
    #[values(Polling, WebSocket)] transport: Transport,
) {
    scenario_of(Kind::Recovering).ends(&["transport close"]).run(|addr| {
        let mut client = Client::connected(addr, transport);
        client.send(&format!("40/n,{}", json!({ of: "x".repeat(900_000) })));
        client.expect(r#"44/n,{"message":"Auth payload too large"}"#);
        still_served(client);
    });
}

/// One client guesses, again and again.
#[rstest]
fn many_guesses_of_a_pid(#[values(Polling, WebSocket)] transport: Transport) {
    const TIMES: usize = 500;
    let reasons = [vec!["client namespace disconnect"; TIMES], vec!["transport close"]].concat();
    scenario_of(Kind::Recovering).ends(&reasons).run(|addr| {
        let mut client = Client::connected(addr, transport);
        let guess = |n: usize| Frame::Text(format!(r#"40/n,{{"pid":"{n:020}","offset":"AAAAAAAAAAA"}}"#));
        let packets: Vec<Frame> = (0..TIMES).flat_map(|n| [guess(n), Frame::text("41/n,")]).collect();
        client.send_burst(&packets);
        for n in 0..TIMES {
            assert_ne!(consent(&mut client)["pid"], json!(format!("{n:020}")));
        }
        still_served(client);
    });
}

/// A client that joins rooms with long names and is lost leaves a record of 10 KB. All records together stay within the
/// limit.
#[test]
fn many_are_away() {
    scenario_of(Kind::Recovering).ends(&["transport close"; 300]).rounds(3).run(|addr| {
        for n in 0..300 {
            let mut client = Client::connected(addr, WebSocket);
            let name = "n".repeat(500);
            let mut packets: Vec<Frame> =
                (0..20).map(|room| Frame::Text(format!(r#"42["join","{n}.{room}.{name}"]"#))).collect();
            packets.push(Frame::text(r#"429["echo"]"#));
            client.send_burst(&packets);
            client.expect("439[]");
        }
    });
}

/// One `pid`, and many who say that it is theirs: each ends the one before it, and one is left.
#[test]
fn many_with_one_pid() {
    const TIMES: usize = 100;
    scenario_of(Kind::Recovering).ends(&["transport close"; TIMES + 1]).run(|addr| {
        let mut client = Client::new(addr, WebSocket);
        client.send("40/n,");
        let first = consent(&mut client);
        let auth = json!({ "pid": first["pid"] });
        for _ in 0..TIMES {
            let mut other = Client::new(addr, WebSocket);
            other.send(&format!("40/n,{auth}"));
            let consent = consent(&mut other);
            assert_eq!((&consent["sid"], &consent["pid"]), (&first["sid"], &first["pid"]));
            client.closed("the end of who was there before");
            client = other;
        }
        client.send(r#"42/n,9["echo"]"#);
        client.expect("43/n,9[]");
        goodbye(client);
    });
}

/// A name for each event: the answers that are remembered are bounded too.
#[rstest]
fn many_rids(#[values(Polling, WebSocket)] transport: Transport) {
    const TIMES: usize = 200;
    let reasons = [vec!["client namespace disconnect"; TIMES], vec!["transport close"]].concat();
    scenario_of(Kind::Recovering).ends(&reasons).rounds(3).run(|addr| {
        let mut client = Client::new(addr, transport);
        let me = client.join("/", "");
        let text = "x".repeat(20_000);
        for n in 0..TIMES {
            client.send_texts(&[
                &format!(r#"40/n,{{"rid":"{me} {n}"}}"#),
                &format!(r#"42/n,0["echo","{text}"]"#),
                "41/n,",
            ]);
            consent(&mut client);
            client.expect(&format!(r#"43/n,0["{text}"]"#));
        }
        still_served(client);
    });
}
