//! Requests that are no good HTTP, or good HTTP with bad intent.

use Then::{Ends, Lives};
use Transport::Polling;
use rstest::rstest;

use crate::{
    scenario::{goodbye, scenario, scenario_of},
    server::{Kind, ORIGIN},
    support::{Client, Http, Transport, Ws, socket_target},
};

/// What becomes of the connection after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It is closed: where the next request would begin, nobody knows.
    Ends,
    /// It brings the next request.
    Lives,
}

fn request(line: &str, headers: &str) -> String {
    format!("{line}\r\nHost: localhost\r\n{headers}\r\n")
}

fn get(target: &str) -> String {
    request(&format!("GET {target} HTTP/1.1"), "")
}

/// A request as Latin-1, so that it can hold what is no UTF-8.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|char| char as u8).collect()
}

fn check_then(http: &mut Http, then: Then) {
    match then {
        Ends => {
            http.half_close();
            http.ends("a connection whose next request cannot be found");
        }
        Lives => assert_eq!(http.get("/health").body, "ok"),
    }
}

#[rstest]
// No HTTP.
#[case::tls("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}".into(), 400, Ends)]
#[case::ssh("SSH-2.0-OpenSSH_9.2\r\n".into(), 400, Ends)]
#[case::http_2("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 400, Ends)]
#[case::http_9("GET /health\r\n\r\n".into(), 400, Ends)]
#[case::nothing_but_nuls("\0".repeat(100), 400, Ends)]
#[case::high_bytes("\u{ff}".repeat(100), 400, Ends)]
// Too much of it: CVE-2024-37890, and the long handshake of RUSTSEC-2023-0065.
#[case::ten_thousand_headers(request("GET / HTTP/1.1", &"A: b\r\n".repeat(10_000)), 431, Ends)]
#[case::two_hundred_small_headers(request("GET / HTTP/1.1", &"A:\r\n".repeat(200)), 431, Ends)]
#[case::a_header_of_a_megabyte(request("GET / HTTP/1.1", &format!("A: {}\r\n", "b".repeat(1_000_000))), 431, Ends)]
#[case::a_name_of_a_megabyte(request("GET / HTTP/1.1", &format!("{}: b\r\n", "a".repeat(1_000_000))), 431, Ends)]
#[case::a_target_of_a_megabyte(get(&format!("/{}", "x".repeat(1_000_000))), 431, Ends)]
#[case::a_method_of_a_megabyte("G".repeat(1_000_000), 431, Ends)]
#[case::blank_lines_without_end("\r\n".repeat(500_000), 431, Ends)]
// Small print that proxies read differently.
#[case::a_nul_in_a_value(request("GET /health HTTP/1.1", "A: b\0c\r\n"), 400, Ends)]
#[case::a_bare_return(request("GET /health HTTP/1.1", "A: b\rc\r\n"), 400, Ends)]
#[case::a_folded_header(request("GET /health HTTP/1.1", "A: b\r\n c\r\n"), 400, Ends)]
#[case::a_space_before_the_colon(request("GET /health HTTP/1.1", "Content-Length : 1\r\n"), 400, Ends)]
#[case::a_header_without_a_colon(request("GET /health HTTP/1.1", "Content-Length 1\r\n"), 400, Ends)]
#[case::a_vertical_tab(request("GET /health HTTP/1.1", "Transfer-Encoding: \u{b}chunked\r\n"), 400, Ends)]
#[case::an_unknown_method(request("BREW /health HTTP/1.1", ""), 200, Ends)]
#[case::two_spaces(request("GET  /health HTTP/1.1", ""), 400, Ends)]
// RFC 9112 3.2: one host, and a legal one. Only HTTP/1.0 may leave it out.
#[case::no_host("GET /health HTTP/1.1\r\n\r\n".into(), 400, Ends)]
#[case::two_hosts(request("GET /health HTTP/1.1", "Host: localhost\r\n"), 400, Ends)]
#[case::two_hosts_of_http_1_0(request("GET /health HTTP/1.0", "Host: elsewhere\r\n"), 400, Ends)]
#[case::two_hosts_in_one("GET /health HTTP/1.1\r\nHost: a, b\r\n\r\n".into(), 400, Ends)]
#[case::a_host_with_a_user("GET /health HTTP/1.1\r\nHost: me@localhost\r\n\r\n".into(), 400, Ends)]
#[case::a_host_with_a_path("GET /health HTTP/1.1\r\nHost: localhost/x\r\n\r\n".into(), 400, Ends)]
#[case::a_host_with_two_ports("GET /health HTTP/1.1\r\nHost: localhost:1:2\r\n\r\n".into(), 400, Ends)]
#[case::a_host_with_a_bad_port("GET /health HTTP/1.1\r\nHost: localhost:x\r\n\r\n".into(), 400, Ends)]
#[case::a_host_of_latin1("GET /health HTTP/1.1\r\nHost: \u{e9}\r\n\r\n".into(), 400, Ends)]
#[case::an_open_bracket("GET /health HTTP/1.1\r\nHost: [::1\r\n\r\n".into(), 400, Ends)]
// Targets.
#[case::an_absolute_target(get("http://elsewhere/health"), 404, Ends)]
#[case::an_asterisk(request("OPTIONS * HTTP/1.1", ""), 404, Ends)]
#[case::an_authority(request("CONNECT elsewhere:443 HTTP/1.1", ""), 404, Ends)]
#[case::two_slashes(get("//health"), 404, Ends)]
#[case::a_way_up(get("/socket.io/../health"), 404, Ends)]
#[case::an_encoded_path(get("/%68ealth"), 404, Ends)]
#[case::an_encoded_nul(get("/health%00"), 404, Ends)]
#[case::an_endpoint_in_capitals(get("/SOCKET.IO/?EIO=4&transport=polling"), 404, Ends)]
// Bodies where none belong.
#[case::a_get_with_a_body(format!("{}hello", request("GET /health HTTP/1.1", "Content-Length: 5\r\n")), 200, Ends)]
#[case::a_get_with_chunks(format!("{}5\r\nhello\r\n0\r\n\r\n", request("GET /health HTTP/1.1", "Transfer-Encoding: chunked\r\n")), 200, Ends)]
#[case::a_get_that_expects(request("GET /health HTTP/1.1", "Expect: 100-continue\r\n"), 200, Lives)]
fn a_request(#[case] request: String, #[case] status: u16, #[case] then: Then) {
    scenario().run(|addr| {
        let mut http = Http::connect(addr);
        http.send(latin1(&request));
        assert_eq!(http.response("the answer").status, status);
        check_then(&mut http, then);
    });
}

/// CVE-2023-31125: names of transports that mean something to the server's own objects; on GET and in a handshake.
#[rstest]
#[case::prototype("EIO=4&transport=__proto__", "Transport unknown", 0)]
#[case::inherited("EIO=4&transport=toString", "Transport unknown", 0)]
#[case::constructor("EIO=4&transport=constructor", "Transport unknown", 0)]
#[case::empty("EIO=4&transport=", "Transport unknown", 0)]
#[case::none("EIO=4", "Transport unknown", 0)]
#[case::nothing("", "Transport unknown", 0)]
#[case::webtransport("EIO=4&transport=webtransport", "Transport unknown", 0)]
#[case::repeated("EIO=4&transport=polling&transport=websocket", "Transport unknown", 0)]
#[case::as_an_array("EIO=4&transport[]=polling", "Transport unknown", 0)]
#[case::long(&format!("EIO=4&transport={}", "x".repeat(10_000)), "Transport unknown", 0)]
#[case::ampersands(&"&".repeat(15_000), "Transport unknown", 0)]
#[case::a_session_that_never_was("EIO=4&transport=$&sid=AAAAAAAAAAAAAAAAAAAA", "Session ID unknown", 1)]
#[case::a_session_called_proto("EIO=4&transport=$&sid=__proto__", "Session ID unknown", 1)]
#[case::a_session_of_a_line_feed("EIO=4&transport=$&sid=%0a%0d%00", "Session ID unknown", 1)]
#[case::a_long_session(&format!("EIO=4&transport=$&sid={}", "s".repeat(10_000)), "Session ID unknown", 1)]
#[case::an_old_revision("EIO=3&transport=$", "Unsupported protocol version", 5)]
#[case::no_revision("transport=$", "Unsupported protocol version", 5)]
#[case::two_revisions("EIO=4&EIO=3&transport=$", "Unsupported protocol version", 5)]
fn a_query(#[case] query: &str, #[case] message: &str, #[case] code: u8) {
    scenario().run(|addr| {
        let polled = Http::connect(addr).get(&format!("/socket.io/?{}", query.replace('$', "polling")));
        let json = format!(r#"{{"code":{code},"message":"{message}"}}"#);
        assert_eq!((polled.status, polled.body), (400, json));
        let target = format!("/socket.io/?{}", query.replace('$', "websocket"));
        let refused = Ws::try_open(addr, &target, "").err().expect("a refusal");
        assert_eq!((refused.status, &*refused.body), (400, message));
    });
}

/// Another `EIO` within a session: refused, and the session goes on.
#[rstest]
fn another_revision_within_a_session(#[values("EIO=3", "EIO=4&EIO=3", "EIO=", "EIO[]=4")] revision: &str) {
    scenario().ends(&["transport close"]).run(|addr| {
        let mut client = Client::connected(addr, Polling);
        let target = client.target("polling").replace("EIO=4", revision);
        for method in ["GET", "POST"] {
            let refused = Http::connect(addr).request(method, &target, "");
            assert_eq!((refused.status, &*refused.body), (400, r#"{"code":3,"message":"Bad request"}"#));
        }
        let target = target.replace("polling", "websocket");
        assert_eq!(Ws::try_open(addr, &target, "").err().expect("a refusal").body, "Bad request");
        client.send(r#"420["echo"]"#);
        client.expect("430[]");
        goodbye(client);
    });
}

/// What a handshake may hold beside what it must: it is taken, and nothing of it is believed.
#[rstest]
// GHSA-5v72-xg48-5rpm, CVE-2021-32640.
#[case::extensions_constructor("Sec-WebSocket-Extensions: constructor", 101)]
#[case::extensions_of_10_kb(&format!("Sec-WebSocket-Extensions: {}", "x".repeat(10_000)), 101)]
#[case::extensions_of_commas(&format!("Sec-WebSocket-Extensions: {}", ",".repeat(10_000)), 101)]
#[case::extensions_in_quotes("Sec-WebSocket-Extensions: permessage-deflate; a=\"\\", 101)]
#[case::deflate("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99999999999", 101)]
#[case::protocols_of_spaces(&format!("Sec-WebSocket-Protocol: a{}b", " ".repeat(15_000)), 400)]
#[case::protocols_of_commas(&format!("Sec-WebSocket-Protocol: {}", ", ".repeat(7_000)), 400)]
#[case::protocols_that_are_no_tokens("Sec-WebSocket-Protocol: a/b", 400)]
#[case::a_protocol_with_a_line_feed("Sec-WebSocket-Protocol: \u{85}", 400)]
#[case::a_protocol_twice("Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Protocol: a", 400)]
#[case::no_protocol("Sec-WebSocket-Protocol:", 400)]
#[case::two_versions("Sec-WebSocket-Version: 8", 400)]
#[case::protocols_of_64_kb(&format!("Sec-WebSocket-Protocol: {}", " ".repeat(64_000)), 431)]
#[case::a_cookie_of_12_kb(&format!("Cookie: {}", "a=b;".repeat(3_000)), 101)]
#[case::a_high_byte("X-Name: \u{ff}", 101)]
#[case::two_keys("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", 101)]
#[case::names_in_any_case("uPGRADE: WEBSOCKET\r\ncONNECTION: keep-alive, UPGRADE", 101)]
// A body in front of the frames would be taken for frames here, and for a body by a proxy.
#[case::a_body("Content-Length: 5", 400)]
#[case::chunks("Transfer-Encoding: chunked", 400)]
#[case::a_body_of_nothing("Content-Length: 0", 101)]
fn a_handshake(#[case] header: &str, #[case] status: u16) {
    scenario().run(|addr| {
        let mut http = Http::connect(addr);
        http.send(latin1(&Ws::request(&socket_target("websocket", ""), &format!("{header}\r\n"))));
        let response = http.response("the answer to the handshake");
        assert_eq!(response.status, status);
        for promised in ["sec-websocket-extensions", "sec-websocket-protocol"] {
            assert_eq!(response.header(promised), None, "nothing was agreed on");
        }
        if status != 101 {
            return check_then(&mut http, Ends);
        }
        let mut ws = Ws { http };
        assert!(ws.text("the open packet").starts_with('0'));
        ws.send_close();
        ws.closed("the answer to the close");
    });
}

/// A handshake that RFC 6455 4.2.1 does not allow.
#[rstest]
#[case::an_old_version("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8")]
#[case::a_list_of_versions("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13, 8")]
#[case::no_version("Sec-WebSocket-Version: 13\r\n", "")]
#[case::no_key("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "")]
#[case::http_1_0("HTTP/1.1", "HTTP/1.0")]
#[case::a_post("GET /", "POST /")]
fn a_bad_handshake(#[case] good: &str, #[case] bad: &str) {
    scenario().run(|addr| {
        let mut http = Http::connect(addr);
        http.send(Ws::request(&socket_target("websocket", ""), "").replace(good, bad));
        assert_eq!(http.response("the refusal").status, 400);
        check_then(&mut http, Ends);
    });
}

/// CVE-2019-13611, CVE-2020-28481: pages of other origins are kept out of both transports, and allowed by no header.
#[rstest]
#[case::foreign("http://evil.example", 403)]
#[case::a_longer_one(&format!("{ORIGIN}.evil.example"), 403)]
#[case::a_shorter_one(&ORIGIN[..ORIGIN.len() - 1], 403)]
#[case::another_scheme("https://good.example", 403)]
#[case::a_port("http://good.example:81", 403)]
#[case::in_capitals("HTTP://GOOD.EXAMPLE", 403)]
#[case::null("null", 403)]
#[case::empty("", 403)]
#[case::a_list(&format!("{ORIGIN}, http://evil.example"), 403)]
#[case::illegible("\u{ff}", 400)]
fn an_origin(#[case] origin: &str, #[case] status: u16) {
    scenario_of(Kind::Choosy).run(|addr| {
        let header = format!("Origin: {origin}\r\n");
        for (method, target) in [("GET", "polling"), ("OPTIONS", "polling"), ("GET", "websocket")] {
            let mut http = Http::connect(addr);
            let target = socket_target(target, "");
            let request = if target.contains("websocket") {
                Ws::request(&target, &header)
            } else {
                request(&format!("{method} {target} HTTP/1.1"), &header)
            };
            http.send(latin1(&request));
            let response = http.response("the answer to an origin");
            let expected = match method {
                // A preflight is answered; that it names no origin is the refusal.
                "OPTIONS" => 204,
                _ if target.contains("websocket") => 400,
                _ => status,
            };
            assert_eq!(response.status, expected, "{method} {target}");
            assert_eq!(response.header("access-control-allow-origin"), None, "{method} {target}");
        }
    });
}

/// Requests behind each other, and nobody who reads the answers before the last one is written.
#[test]
fn a_thousand_requests_in_one_write() {
    scenario().run(|addr| {
        let mut http = Http::connect(addr);
        http.send(get("/health").repeat(1_000));
        for n in 0..1_000 {
            assert_eq!(http.response(&format!("answer {n}")).body, "ok");
        }
        check_then(&mut http, Lives);
    });
}

/// A preflight's words come back to the browser that said them; no header of our own is made of them.
#[rstest]
#[case::fine("x-mine", "x-mine")]
#[case::no_ascii("x-\u{e9}", "content-type")]
#[case::long(&"x,".repeat(5_000), &"x,".repeat(5_000))]
fn a_preflight(#[case] asked: &str, #[case] answered: &str) {
    scenario_of(Kind::Choosy).run(|addr| {
        let mut http = Http::connect(addr);
        let line = format!("OPTIONS {} HTTP/1.1", socket_target("polling", ""));
        let headers = format!("Origin: {ORIGIN}\r\nAccess-Control-Request-Headers: {asked}\r\n");
        http.send(latin1(&request(&line, &headers)));
        let response = http.response("the answer to a preflight");
        assert_eq!(response.status, 204);
        assert_eq!(response.header("access-control-allow-headers"), Some(answered));
        assert_eq!(response.header("access-control-allow-origin"), Some(ORIGIN));
        check_then(&mut http, Lives);
    });
}
