//! Polling: bodies, their framing, and two of what must be one.

use Transport::Polling;
use rstest::rstest;

use crate::{
    scenario::{goodbye, scenario},
    support::{Client, Http, Transport},
};

/// A POST of a session, and what is known before its body is read: the answer comes at once, the connection ends, and
/// the session with it, unless there was only too much.
#[rstest]
// CVE-2020-36048: a body far beyond the limit.
#[case::too_large("Content-Length: 100000000", 413)]
#[case::far_too_large("Content-Length: 18446744073709551616", 413)]
#[case::endless("Content-Length: 99999999999999999999999999999999999999", 413)]
#[case::negative("Content-Length: -1", 400)]
#[case::exponent("Content-Length: 1e3", 400)]
#[case::hexadecimal("Content-Length: 0x10", 400)]
#[case::plus("Content-Length: +1", 400)]
#[case::fraction("Content-Length: 1.0", 400)]
#[case::empty("Content-Length: ", 400)]
// RUSTSEC-2020-0031: two ways to read where the body ends.
#[case::two_lengths("Content-Length: 1\r\nContent-Length: 2", 400)]
#[case::twice_the_same("Content-Length: 1\r\nContent-Length: 1", 400)]
#[case::a_list("Content-Length: 1, 1", 400)]
#[case::length_and_chunks("Content-Length: 1\r\nTransfer-Encoding: chunked", 400)]
#[case::chunks_and_length("Transfer-Encoding: chunked\r\nContent-Length: 1", 400)]
#[case::another_coding("Transfer-Encoding: xchunked", 400)]
#[case::chunked_twice("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400)]
#[case::chunked_in_a_list("Transfer-Encoding: chunked, identity", 400)]
// CVE-2026-59725: a body of bytes.
#[case::octet_stream("Content-Type: application/octet-stream\r\nContent-Length: 4", 400)]
fn a_dangerous_body(#[case] headers: &str, #[case] status: u16) {
    let reason = if status == 413 { "transport close" } else { "transport error" };
    scenario().ends(&[reason]).run(|addr| {
        let mut client = Client::connected(addr, Polling);
        let mut http = Http::connect(addr);
        http.send(format!("POST {} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n", client.target("polling")));
        assert_eq!(http.response("the answer before the body").status, status);
        http.half_close();
        http.ends("a connection whose next request cannot be found");
        if status == 413 {
            client.send(r#"420["echo"]"#);
            client.expect("430[]");
            goodbye(client);
        }
    });
}

/// Chunks as RFC 9112 7.1 does not have them. What one reader takes for a size, another takes for something else.
#[rstest]
#[case::a_plus("+4\r\n42[\"\r\n0\r\n\r\n")]
#[case::a_minus("-4\r\n42[\"\r\n0\r\n\r\n")]
#[case::a_prefix("0x4\r\n42[\"\r\n0\r\n\r\n")]
#[case::an_underscore("0_4\r\n42[\"\r\n0\r\n\r\n")]
#[case::no_digits("\r\n42[\"\r\n0\r\n\r\n")]
#[case::no_digits_but_an_extension(";a=b\r\n42[\"\r\n0\r\n\r\n")]
#[case::a_space_before(" 4\r\n42[\"\r\n0\r\n\r\n")]
#[case::a_vertical_tab("4\u{b}\r\n42[\"\r\n0\r\n\r\n")]
#[case::too_many_digits("fffffffffffffffff\r\n42[\"\r\n0\r\n\r\n")]
#[case::no_line_feed("4\r42[\"\r\n0\r\n\r\n")]
#[case::a_line_feed_alone("4\n42[\"\r\n0\r\n\r\n")]
#[case::a_longer_chunk_than_said("2\r\n42[\"\r\n0\r\n\r\n")]
#[case::a_trailer("1\r\n3\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n")]
#[case::letters("xyz\r\n")]
#[case::a_size_without_end(&"0".repeat(100_000))]
#[case::an_extension_with_a_line_feed("4;a=\nb\r\n42[\"\r\n0\r\n\r\n")]
fn bad_chunks(#[case] body: &str) {
    scenario().ends(&["transport error"]).run(|addr| {
        let client = Client::connected(addr, Polling);
        let mut http = chunked(&client);
        http.send(body);
        assert_eq!(http.response("the answer to bad chunks").status, 400);
        http.half_close();
        http.ends("a connection whose next request cannot be found");
    });
}

/// Good chunks, and more framing than body.
#[rstest]
#[case::one_byte_each(&"1\r\nx\r\n".repeat(1_000), 200)]
#[case::extensions("2;a=b;c=\"d\"\r\n42\r\n", 200)]
#[case::zeros_before(&format!("{}2\r\n42\r\n", "0".repeat(14)), 200)]
#[case::a_thousand_zeros_before(&format!("{}2\r\n42\r\n", "0".repeat(1_000)), 400)]
#[case::an_extension_of_3_mb(&format!("2;{}\r\n42\r\n", "x".repeat(3_000_000)), 400)]
#[case::a_million_chunks(&"1\r\n3\r\n".repeat(1_000_000), 400)]
fn more_framing_than_body(#[case] chunks: &str, #[case] status: u16) {
    let reason =
        if chunks.starts_with("1\r\n6") || status != 200 { "transport error" } else { "parse error" };
    scenario().ends(&[reason]).run(|addr| {
        let mut client = Client::connected(addr, Polling);
        let mut http = chunked(&client);
        http.send(chunks);
        http.send("0\r\n\r\n");
        assert_eq!(http.response("the answer to chunks").status, status);
        if status == 200 {
            client.closed("the close after what the chunks brought");
        }
    });
}

/// Begins a POST of chunks.
fn chunked(client: &Client) -> Http {
    let mut http = Http::connect(client.addr);
    let target = client.target("polling");
    http.send(format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"));
    http
}

/// Bodies that hold no packets.
#[rstest]
#[case::b_alone("b")]
#[case::two_b("bb")]
#[case::no_base64("b!!!!")]
#[case::no_padding("bAQ")]
#[case::too_much_padding("bAA=====")]
#[case::base64_for_urls("b-_-_")]
#[case::a_line_in_base64("bAAAA\r\nAAAA")]
#[case::nothing("")]
#[case::a_separator("\x1e")]
#[case::separators_and_nothing_else(&"\x1e".repeat(900_000))]
#[case::a_packet_of_nothing("3\x1e")]
#[case::letters("abc")]
#[case::a_hundred_thousand_empty_messages(&"4\x1e".repeat(100_000))]
fn a_body(#[case] body: &str) {
    scenario().ends(&["parse error"]).run(|addr| {
        let mut client = Client::connected(addr, Polling);
        let response = Http::connect(addr).post(&client.target("polling"), body);
        assert_eq!((response.status, &*response.body), (200, "ok"));
        client.closed("the end of the session");
    });
}

/// Two GETs at the same moment: one is refused, the other told of the end.
#[test]
fn two_gets_at_once() {
    scenario().ends(&["transport error"]).run(|addr| {
        let client = Client::connected(addr, Polling);
        let mut two = [Http::connect(addr), Http::connect(addr)];
        for http in &mut two {
            http.begin("GET", &client.target("polling"), "");
        }
        let mut answers = two.map(|mut http| {
            let response = http.response("an answer for each of two");
            (response.status, response.body)
        });
        answers.sort();
        assert_eq!(answers, [(200, "1".into()), (400, String::new())]);
    });
}

/// A second POST while the first is read.
#[test]
fn two_posts_at_once() {
    scenario().ends(&["transport error"]).run(|addr| {
        let client = Client::connected(addr, Polling);
        let mut first = Http::connect(addr);
        let target = client.target("polling");
        first.send(format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
        ));
        assert_eq!(first.response("the server's invitation to send the body").status, 100);
        assert_eq!(Http::connect(addr).post(&target, "3").status, 400);
        first.send("3");
        assert_eq!(first.response("the first POST's answer").status, 200);
    });
}

/// Many at once on one session: one is held, the others are refused, the session ends once, and every one gets its
/// answer.
#[rstest]
fn fifty_at_once(#[values("GET", "POST")] method: &str) {
    scenario().ends(&["transport error"]).run(|addr| {
        let client = Client::connected(addr, Polling);
        let mut crowd: Vec<Http> = (0..50).map(|_| Http::connect(addr)).collect();
        let body = if method == "GET" { "" } else { "3" };
        for http in &mut crowd {
            http.begin(method, &client.target("polling"), body);
        }
        let answers: Vec<_> =
            crowd.iter_mut().map(|http| http.response("an answer for each").status).collect();
        if method == "POST" && answers.iter().all(|status| *status == 200) {
            // They came one after the other; that is allowed, and the end is another one's.
            Http::connect(addr).send(format!(
                "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n3",
                client.target("polling")
            ));
        }
        assert!(answers.iter().all(|status| matches!(status, 200 | 400)), "{answers:?}");
    });
}

/// HTTP/1.0 has no chunks (RFC 9112 6.1), and somebody in between may not know them.
#[test]
fn chunks_in_http_1_0() {
    scenario().ends(&["transport error"]).run(|addr| {
        let client = Client::connected(addr, Polling);
        let mut http = Http::connect(addr);
        http.send(format!(
            "POST {} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            client.target("polling")
        ));
        assert_eq!(http.response("the refusal").status, 400);
        http.half_close();
        http.ends("a connection whose next request cannot be found");
    });
}

/// Invitations to send a body: one a request, and none for a body that is refused.
#[rstest]
#[case::wanted("Content-Length: 1", 100)]
#[case::too_large("Content-Length: 2000000", 413)]
#[case::malformed("Content-Length: x", 400)]
fn continuation(#[case] length: &str, #[case] status: u16) {
    let reason = if status == 400 { "transport error" } else { "transport close" };
    scenario().ends(&[reason]).run(|addr| {
        let client = Client::connected(addr, Polling);
        let mut http = Http::connect(addr);
        let target = client.target("polling");
        http.send(format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\n{length}\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n"
        ));
        assert_eq!(http.response("the first answer").status, status);
        if status == 100 {
            http.send("3");
            assert_eq!(http.response("the answer to the body").body, "ok");
        }
        if status != 400 {
            goodbye(client);
        }
    });
}
