//! HTTP: the official server's errors in its order, the rules of polling, bounds and deadlines.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use rstest::rstest;
use tinysio::{
    proto::engine::TransportKind,
    server::{Builder, Cors, Method, Server},
};

use crate::support::{
    Client, Http, PATIENCE, Response, Transport, Ws, addr, all_gone, eventually, serve, socket_target,
};

const TRANSPORT_UNKNOWN: (u16, &str) = (400, r#"{"code":0,"message":"Transport unknown"}"#);
const SESSION_UNKNOWN: (u16, &str) = (400, r#"{"code":1,"message":"Session ID unknown"}"#);
const BAD_METHOD: (u16, &str) = (400, r#"{"code":2,"message":"Bad handshake method"}"#);
const BAD_REQUEST: (u16, &str) = (400, r#"{"code":3,"message":"Bad request"}"#);
const UNSUPPORTED: (u16, &str) = (400, r#"{"code":5,"message":"Unsupported protocol version"}"#);

fn server() -> Server {
    serve(|builder| {
        builder.namespace("/", |ns| {
            ns.on("echo", |_, event| event.ack(event.args()));
        })
    })
}

fn answer(response: &Response) -> (u16, &str) {
    (response.status, &response.body)
}

#[test]
fn polling_requests_are_refused_as_by_the_official_server() {
    let server = server();
    let mut client = Client::connected(addr(&server), Transport::Polling);
    let sid = client.open.sid.clone();
    let long = "x".repeat(10_000);
    let rows = [
        ("GET", "", TRANSPORT_UNKNOWN),
        ("GET", "EIO=4", TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=", TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=constructor", TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=__proto__", TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=Polling", TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=polling&transport=websocket", TRANSPORT_UNKNOWN),
        ("GET", &format!("EIO=4&transport={long}"), TRANSPORT_UNKNOWN),
        // The transport is looked at first, then the session, then the method, then the revision.
        ("POST", "EIO=3&transport=x&sid=x", TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=polling&sid=nobody", SESSION_UNKNOWN),
        ("GET", "EIO=4&transport=polling&sid=__proto__", SESSION_UNKNOWN),
        ("POST", "EIO=3&transport=polling&sid=nobody", SESSION_UNKNOWN),
        ("GET", &format!("EIO=4&transport=polling&sid={long}"), SESSION_UNKNOWN),
        ("GET", &format!("EIO=4&transport=polling&sid={sid}&sid=other"), SESSION_UNKNOWN),
        ("POST", "EIO=4&transport=polling", BAD_METHOD),
        ("PUT", "EIO=4&transport=polling", BAD_METHOD),
        ("OPTIONS", "EIO=4&transport=polling", BAD_METHOD),
        ("DELETE", "EIO=3&transport=polling", BAD_METHOD),
        ("GET", "EIO=4&transport=websocket", BAD_REQUEST),
        ("GET", &format!("EIO=4&transport=websocket&sid={sid}"), BAD_REQUEST),
        ("GET", &format!("EIO=3&transport=polling&sid={sid}"), BAD_REQUEST),
        ("GET", &format!("EIO=4&EIO=3&transport=polling&sid={sid}"), BAD_REQUEST),
        ("GET", "transport=polling", UNSUPPORTED),
        ("GET", "EIO=3&transport=polling", UNSUPPORTED),
        ("GET", "EIO=5&transport=polling", UNSUPPORTED),
        ("GET", "EIO=abc&transport=polling", UNSUPPORTED),
        ("GET", "EIO=4&EIO=3&transport=polling", UNSUPPORTED),
        ("PUT", &format!("EIO=4&transport=polling&sid={sid}"), (500, "")),
        ("OPTIONS", &format!("EIO=4&transport=polling&sid={sid}"), (500, "")),
    ];
    for (method, query, expected) in rows {
        let response = Http::connect(addr(&server)).request(method, &format!("/socket.io/?{query}"), "");
        assert_eq!(answer(&response), expected, "{method} {query}");
        if expected.1.starts_with('{') {
            assert_eq!(response.header("content-type"), Some("application/json"), "{method} {query}");
        }
    }
    // The session is intact.
    client.send(r#"421["echo"]"#);
    client.expect("431[]");
    assert_eq!(server.clients_count(), 1);
}

#[test]
fn websocket_requests_are_refused_before_the_handshake() {
    let server = server();
    let client = Client::connected(addr(&server), Transport::Polling);
    let sid = &client.open.sid;
    for (query, message) in [
        ("", "Transport unknown"),
        ("EIO=4&transport=toString", "Transport unknown"),
        ("EIO=4&transport=websocket&sid=nobody", "Session ID unknown"),
        ("EIO=4&transport=websocket&sid=__proto__", "Session ID unknown"),
        ("EIO=4&transport=polling", "Bad request"),
        (&format!("EIO=4&transport=polling&sid={sid}"), "Bad request"),
        (&format!("EIO=3&transport=websocket&sid={sid}"), "Bad request"),
        ("transport=websocket", "Unsupported protocol version"),
        ("EIO=3&transport=websocket", "Unsupported protocol version"),
        ("EIO=4&EIO=5&transport=websocket", "Unsupported protocol version"),
    ] {
        let refused = Ws::try_open(addr(&server), &format!("/socket.io/?{query}"), "").err().unwrap();
        assert_eq!(answer(&refused), (400, message), "{query}");
        assert_eq!(refused.header("content-type"), Some("text/html"), "{query}");
    }
    // No good WebSocket handshake (RFC 6455 4.2.1).
    for bad in ["Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: short"] {
        let (name, _) = bad.split_once(':').unwrap();
        let request = Ws::request(&socket_target("websocket", ""), "");
        let line = request.lines().find(|line| line.starts_with(name)).unwrap();
        let mut http = Http::connect(addr(&server));
        http.send(request.replace(line, bad));
        assert_eq!(http.response("the refusal").status, 400, "{bad}");
    }
    assert_eq!(server.clients_count(), 1);
}

#[test]
fn small_print_of_the_handshake() {
    let server = server();
    let mut http = Http::connect(addr(&server));
    let target = socket_target("polling", "");
    let empty_sid = http.get(&socket_target("polling", "&sid="));
    assert_eq!((empty_sid.status, server.clients_count()), (200, 1), "an empty sid is none");
    let head = http.request("HEAD", &target, "");
    assert_eq!(answer(&head), (400, ""));
    assert_eq!(http.get("/socket.io?EIO=4&transport=polling&t=abc").status, 200, "the slash may be missing");
    assert_eq!(http.get("/socket.iox/?EIO=4&transport=polling").status, 404);
    let mut old = Http::connect(addr(&server));
    old.send(format!("GET {target} HTTP/1.0\r\nX-Empty:\r\n\r\n"));
    assert_eq!(old.response("the answer to HTTP/1.0").status, 200);
    old.ends("a connection of HTTP/1.0");
}

/// RFC 9112 3.2.
#[rstest]
#[case::a_name("1.1", &["Host: example.com"], 404)]
#[case::a_name_with_a_port("1.1", &["Host: example.com:8080"], 404)]
#[case::an_empty_port("1.1", &["Host: example.com:"], 404)]
#[case::no_name_but_a_header("1.1", &["Host:"], 404)]
#[case::an_underscore("1.1", &["Host: my_box"], 404)]
#[case::an_ipv4_address("1.1", &["Host: 192.168.1.7:80"], 404)]
#[case::an_ipv6_address("1.1", &["Host: [2001:db8::7]:80"], 404)]
#[case::none_in_http_1_0("1.0", &[], 404)]
#[case::one_in_http_1_0("1.0", &["Host: example.com"], 404)]
#[case::none("1.1", &[], 400)]
#[case::two("1.1", &["Host: a", "Host: b"], 400)]
#[case::the_same_twice("1.1", &["Host: a", "Host: a"], 400)]
#[case::two_in_http_1_0("1.0", &["Host: a", "Host: b"], 400)]
#[case::a_space("1.1", &["Host: a b"], 400)]
#[case::a_user("1.1", &["Host: me@a"], 400)]
#[case::a_url("1.1", &["Host: http://a"], 400)]
#[case::no_number_for_a_port("1.1", &["Host: a:b"], 400)]
#[case::half_an_ipv6_address("1.1", &["Host: [::1"], 400)]
#[case::something_behind_an_ipv6_address("1.1", &["Host: [::1]x"], 400)]
fn a_request_names_one_legal_host(#[case] version: &str, #[case] headers: &[&str], #[case] status: u16) {
    let server = server();
    let mut http = Http::connect(addr(&server));
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    http.send(format!("GET /nowhere HTTP/{version}\r\n{headers}\r\n"));
    assert_eq!(http.response("the answer").status, status);
}

/// What a POST brings, the answer, and whether the session survives.
#[rstest]
#[case::an_event("42[\"echo\"]", (200, "ok"), true)]
#[case::open("0", (200, "ok"), true)]
#[case::open_with_data("0{}", (200, "ok"), true)]
#[case::upgrade("5", (200, "ok"), true)]
#[case::noop("6", (200, "ok"), true)]
#[case::pongs("3\x1e3\x1e3probe", (200, "ok"), true)]
#[case::many_packets(&"3\x1e".repeat(100_000).into_boxed_str()[..199_999], (200, "ok"), true)]
#[case::too_large(&"4".repeat(1_000_001), (413, ""), true)]
#[case::empty("", (200, "ok"), false)]
#[case::garbage("abc", (200, "ok"), false)]
#[case::an_empty_packet("3\x1e", (200, "ok"), false)]
#[case::ping("2", (200, "ok"), false)]
#[case::close("1", (200, "ok"), false)]
#[case::bad_base64("b!", (200, "ok"), false)]
#[case::unpadded_base64("bAQ", (200, "ok"), false)]
#[case::unannounced_binary("bAQID", (200, "ok"), false)]
#[case::a_broken_event("42{}", (200, "ok"), false)]
#[case::twice_connected("40", (200, "ok"), false)]
fn post(#[case] body: &str, #[case] expected: (u16, &str), #[case] survives: bool) {
    let server = server();
    let mut control_client = Client::connected(addr(&server), Transport::Polling);
    let mut client = Client::connected(addr(&server), Transport::Polling);
    let response = Http::connect(addr(&server)).post(&client.target("polling"), body);
    assert_eq!(answer(&response), expected);
    if survives {
        client.send(r#"421["echo"]"#);
        client.expect("431[]");
        client.leave();
    } else {
        client.closed("the end of the session");
    }
    control_client.send(r#"421["echo"]"#);
    control_client.expect("431[]");
    control_client.leave();
    all_gone(&server);
}

#[test]
fn a_body_may_be_chunked_or_asked_for() {
    let server = server();
    let mut client = Client::connected(addr(&server), Transport::Polling);
    let target = client.target("polling");
    let mut http = Http::connect(addr(&server));
    let event = r#"421["echo"]"#;
    let (one, two) = event.split_at(4);
    http.send(format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
        two.len()
    ));
    assert_eq!(http.response("the answer to chunks").body, "ok");
    client.expect("431[]");
    http.send(format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        event.len()
    ));
    assert_eq!(http.response("the invitation").status, 100);
    http.send(event);
    assert_eq!(http.response("the answer").body, "ok");
    client.expect("431[]");
    // Requests one behind the other, in one write.
    let post = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{event}",
        event.len()
    );
    http.send(post.repeat(3));
    for _ in 0..3 {
        assert_eq!(http.response("the answer to one of three").body, "ok");
    }
    // A byte a write.
    for byte in post.bytes() {
        http.stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(http.response("the answer to a slow request").body, "ok");
}

/// A request with a harmful head: the answer comes before the body is read, and the connection ends.
#[rstest]
#[case::too_large("Content-Length: 100000000\r\n", 413)]
#[case::far_too_large("Content-Length: 18446744073709551616\r\n", 413)]
#[case::negative("Content-Length: -1\r\n", 400)]
#[case::exponent("Content-Length: 1e3\r\n", 400)]
#[case::plus("Content-Length: +1\r\n", 400)]
#[case::no_number("Content-Length: \r\n", 400)]
#[case::no_text("Content-Length: \u{ff}\r\n", 400)]
#[case::a_list("Content-Length: 1, 1\r\n", 400)]
#[case::two_lengths("Content-Length: 1\r\nContent-Length: 2\r\n", 400)]
#[case::length_and_chunks("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400)]
#[case::unknown_coding("Transfer-Encoding: xchunked\r\n", 400)]
#[case::two_codings("Transfer-Encoding: gzip, chunked\r\n", 400)]
#[case::octet_stream("Content-Type: application/octet-stream\r\nContent-Length: 1\r\n", 400)]
fn a_dangerous_body_is_refused_unread(#[case] headers: &str, #[case] status: u16) {
    let server = server();
    let client = Client::connected(addr(&server), Transport::Polling);
    let mut http = Http::connect(addr(&server));
    let mut request =
        format!("POST {} HTTP/1.1\r\nHost: localhost\r\n", client.target("polling")).into_bytes();
    // As Latin-1, so that a header can be no UTF-8.
    request.extend(headers.chars().map(|char| char as u8));
    request.extend(b"\r\n");
    http.send(request);
    assert_eq!(http.response("the refusal").status, status);
    http.half_close();
    http.ends("a connection whose next request cannot be found");
    if status == 413 {
        let mut client = client;
        client.send(r#"421["echo"]"#);
        client.expect("431[]");
    } else {
        all_gone(&server);
    }
}

#[test]
fn chunks_without_end_are_refused_at_the_limit() {
    let server = server();
    let client = Client::connected(addr(&server), Transport::Polling);
    let mut http = Http::connect(addr(&server));
    http.send(format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        client.target("polling")
    ));
    let chunk = format!("{:x}\r\n{}\r\n", 100_000, "4".repeat(100_000));
    for _ in 0..15 {
        http.send(&chunk);
    }
    assert_eq!(http.response("the refusal").status, 413);
}

#[test]
fn a_large_body_that_was_sent_anyway_gets_its_answer() {
    let server = server();
    let mut client = Client::connected(addr(&server), Transport::Polling);
    let mut http = Http::connect(addr(&server));
    assert_eq!(http.post(&client.target("polling"), &"4".repeat(3_000_000)).status, 413);
    client.send(r#"421["echo"]"#);
    client.expect("431[]");
}

/// A body that nobody asked for is no request.
#[test]
fn the_body_of_a_get_is_not_the_next_request() {
    let server = server();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for target in [&socket_target("polling", "")[..], "/nowhere", "/socket.io/"] {
        let mut http = Http::connect(addr(&server));
        http.send(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{smuggled}",
            smuggled.len()
        ));
        http.response("the answer to the outer request");
        http.half_close();
        http.ends("a connection with a body that was not read");
    }
}

#[rstest]
#[case::too_long_a_line(format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(40_000)), 431)]
#[case::endless_line("x".repeat(40_000), 431)]
#[case::too_many_headers(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(500)), 431)]
#[case::too_large_a_head(format!("GET / HTTP/1.1\r\nHost: localhost\r\nA: {}\r\n\r\n", "b".repeat(40_000)), 431)]
#[case::no_http("\x16\x03\x01\x02\x00\x01\x00".into(), 400)]
#[case::no_version("GET /\r\n\r\n".into(), 400)]
#[case::another_version("GET / HTTP/3.0\r\n\r\n".into(), 400)]
#[case::a_nul("GET / HTTP/1.1\r\nHost: localhost\r\nA: \0\r\n\r\n".into(), 400)]
#[case::a_folded_header("GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n".into(), 400)]
#[case::a_space_before_the_colon("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length : 1\r\n\r\n".into(), 400)]
fn a_bad_head_is_refused(#[case] head: String, #[case] status: u16) {
    let server = server();
    let mut http = Http::connect(addr(&server));
    http.send(head);
    assert_eq!(http.response("the refusal").status, status);
    http.half_close();
    http.ends("a connection with a bad head");
    assert_eq!(Http::connect(addr(&server)).get("/").status, 404);
}

fn hasty(builder: Builder) -> Builder {
    let soon = Duration::from_millis(100);
    builder.head_timeout(soon).body_timeout(soon).keep_alive_timeout(soon).namespace("/", |_| {})
}

#[test]
fn a_slow_request_is_refused() {
    let server = serve(hasty);
    let mut nothing = Http::connect(addr(&server));
    let mut half_a_head = Http::connect(addr(&server));
    half_a_head.send("GET / HT");
    let mut resting = Http::connect(addr(&server));
    assert_eq!(resting.get("/").status, 404);
    let client = Client::connected(addr(&server), Transport::Polling);
    let mut half_a_body = Http::connect(addr(&server));
    half_a_body.send(format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n42[",
        client.target("polling")
    ));
    nothing.ends("a connection that says nothing");
    assert_eq!(half_a_head.response("the answer to half a head").status, 408);
    half_a_head.ends("a connection with half a head");
    resting.ends("a connection between two requests");
    assert_eq!(half_a_body.response("the answer to half a body").status, 408);
    all_gone(&server);
    // A trickle does not help.
    let mut trickle = Http::connect(addr(&server));
    let begun = Instant::now();
    for byte in "GET / HTTP/1.1\r\nHost: localhost\r\nX: ".bytes().chain(std::iter::repeat(b'x')) {
        if trickle.stream.write_all(&[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
        assert!(begun.elapsed() < PATIENCE, "a trickle of bytes keeps a connection for ever");
    }
}

#[test]
fn a_held_poll_is_not_kept_to_these_deadlines() {
    let server = serve(hasty);
    let mut client = Client::connected(addr(&server), Transport::Polling);
    client.ask();
    std::thread::sleep(Duration::from_millis(300));
    server.emit("x", ()).unwrap();
    client.expect(r#"42["x"]"#);
}

#[test]
fn polling_requests_exclude_each_other() {
    let server = server();
    // A second POST while the first is read.
    let client = Client::connected(addr(&server), Transport::Polling);
    let (mut first, mut second) = (Http::connect(addr(&server)), Http::connect(addr(&server)));
    first.send(format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n",
        client.target("polling")
    ));
    eventually("the second POST is refused", || {
        let response = second.post(&client.target("polling"), "3");
        second = Http::connect(addr(&server));
        response.status == 400
    });
    first.send("3333333333");
    assert_eq!(first.response("the first POST's answer").status, 200);
    all_gone(&server);
    // Who goes in the midst of a POST.
    let client = Client::connected(addr(&server), Transport::Polling);
    let mut gone = Http::connect(addr(&server));
    gone.send(format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n3",
        client.target("polling")
    ));
    drop(gone);
    all_gone(&server);
    // Who goes while its GET is held.
    let mut client = Client::connected(addr(&server), Transport::Polling);
    client.ask();
    drop(client);
    all_gone(&server);
}

/// An origin, and whether polling and WebSocket take it, the header that allows it, and whether that is
/// with credentials: only where the application asks for them, as the official server does.
#[rstest]
#[case::same(Cors::SameOrigin, "http://localhost", true, true, None, false)]
#[case::foreign(Cors::SameOrigin, "http://evil.example", true, false, None, false)]
#[case::null(Cors::SameOrigin, "null", true, false, None, false)]
#[case::listed(Cors::List(vec!["http://good.example".into()]), "http://good.example", true, true, Some("http://good.example"), false)]
#[case::unlisted(Cors::List(vec!["http://good.example".into()]), "http://good.example.evil", false, false, None, false)]
#[case::null_unlisted(Cors::List(vec!["http://good.example".into()]), "null", false, false, None, false)]
#[case::illegible(Cors::List(vec!["http://good.example".into()]), "\u{ff}", false, false, None, false)]
#[case::any(Cors::Any, "http://any.example", true, true, Some("*"), false)]
#[case::any_with(
    Cors::AnyWithCredentials,
    "http://any.example",
    true,
    true,
    Some("http://any.example"),
    true
)]
#[case::listed_with(Cors::ListWithCredentials(vec!["http://good.example".into()]), "http://good.example", true, true, Some("http://good.example"), true)]
#[case::unlisted_with(Cors::ListWithCredentials(vec!["http://good.example".into()]), "http://evil.example", false, false, None, false)]
fn origins(
    #[case] cors: Cors,
    #[case] origin: &str,
    #[case] polling: bool,
    #[case] websocket: bool,
    #[case] allowed: Option<&str>,
    #[case] credentials: bool,
) {
    let server = serve(|builder| builder.cors(cors.clone()).namespace("/", |_| {}));
    let with_origin = |request: String| -> Response {
        let mut bytes = Vec::new();
        for char in request.chars() {
            bytes.push(char as u8);
        }
        let mut http = Http::connect(addr(&server));
        http.send(bytes);
        http.response("the answer to an origin")
    };
    let target = socket_target("polling", "");
    let response =
        with_origin(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n"));
    assert_eq!(response.status == 200, polling, "{response:?}");
    let with = response.header("access-control-allow-credentials");
    assert_eq!(with, credentials.then_some("true"), "{response:?}");
    if polling {
        assert_eq!(response.header("access-control-allow-origin"), allowed);
        let named = allowed.is_some_and(|allowed| allowed != "*");
        assert_eq!(response.header("vary"), named.then_some("Origin"), "{response:?}");
    } else {
        assert!(matches!(response.status, 400 | 403), "{response:?}");
    }
    let target = socket_target("websocket", "");
    let response = with_origin(Ws::request(&target, &format!("Origin: {origin}\r\n")));
    assert_eq!(response.status == 101, websocket, "{response:?}");
    // Programs that are no browser have no origin.
    Client::connected(addr(&server), Transport::Polling);
    Client::connected(addr(&server), Transport::WebSocket);
}

#[test]
fn preflights_are_answered_where_cors_is_set() {
    let server = serve(|builder| builder.cors(Cors::Any).namespace("/", |_| {}));
    let mut http = Http::connect(addr(&server));
    let target = socket_target("polling", "");
    http.send(format!(
        "OPTIONS {target} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a.example\r\nAccess-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: x-mine\r\n\r\n"
    ));
    let preflight = http.response("the answer to a preflight");
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-headers"), Some("x-mine"));
    assert!(preflight.header("access-control-allow-methods").unwrap().contains("POST"));
    assert_eq!(http.get(&target).status, 200, "the connection goes on");
}

#[test]
fn allow_request_has_a_word_on_both_transports() {
    let server = serve(|builder| {
        builder.namespace("/", |_| {}).allow_request(|request| {
            assert_eq!(request.path(), "/socket.io/");
            match request.header("x-key") {
                Some("good") => Ok(()),
                _ => Err("go away".into()),
            }
        })
    });
    // Before the revision is looked at.
    for query in ["", "&EIO=3"] {
        let refused = Http::connect(addr(&server)).get(&socket_target("polling", query));
        assert_eq!(answer(&refused), (403, r#"{"code":4,"message":"go away"}"#));
        let refused = Ws::try_open(addr(&server), &socket_target("websocket", query), "").err().unwrap();
        assert_eq!(answer(&refused), (400, "go away"));
    }
    assert!(Ws::try_open(addr(&server), &socket_target("websocket", ""), "X-Key: good\r\n").is_ok());
}

#[test]
fn transports_that_are_not_served_are_unknown() {
    let server = serve(|builder| builder.transports([TransportKind::Websocket]).namespace("/", |_| {}));
    let refused = Http::connect(addr(&server)).get(&socket_target("polling", ""));
    assert_eq!(answer(&refused), TRANSPORT_UNKNOWN);
    Client::connected(addr(&server), Transport::WebSocket);
    let server = serve(|builder| builder.transports([TransportKind::Polling]).namespace("/", |_| {}));
    let client = Client::connected(addr(&server), Transport::Polling);
    assert!(client.open.upgrades.is_empty());
    let refused = Ws::try_open(addr(&server), &socket_target("websocket", ""), "").err().unwrap();
    assert_eq!(answer(&refused), (400, "Transport unknown"));
}

#[test]
fn routes_answer_beside_the_endpoints() {
    let server = serve(|builder| {
        builder.route("/health", |request| {
            assert!(matches!(request.method(), Method::Get | Method::Head));
            tinysio::server::Response::from_string(request.query())
        })
    });
    let mut http = Http::connect(addr(&server));
    assert_eq!(answer(&http.get("/health?a=b")), (200, "a=b"));
    let head = http.request("HEAD", "/health?a=b", "");
    assert_eq!((head.status, head.header("content-length")), (200, Some("3")));
    assert_eq!(http.get("/healthy").status, 404);
}

#[test]
fn a_panic_in_a_route_costs_its_request() {
    let server = serve(|builder| {
        builder
            .route("/bad", |_| panic!("on purpose"))
            .allow_request(
                |request| if request.query().contains("bad") { panic!("on purpose") } else { Ok(()) },
            )
            .namespace("/", |_| {})
    });
    for (target, status) in [("/bad", 500), (&socket_target("polling", "&bad"), 403)] {
        let mut http = Http::connect(addr(&server));
        assert_eq!(http.get(target).status, status);
        assert_eq!(http.get("/healthy").status, 404, "the connection goes on");
    }
    assert_eq!(server.clients_count(), 0);
    Client::connected(addr(&server), Transport::Polling);
}
