//! Peers that are no Socket.IO servers, or bad ones: made by hand over std's listeners.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixListener,
    time::{Duration, Instant},
};

use rstest::rstest;
use tinysio::client::{Builder, Client, CloseReason, ConnectionState, Error, Step};

use crate::support::{LONG, Way, hear, in_thread, quick, until};

/// Accepts connections for ever, each handled on a thread of its own.
pub(crate) fn listen(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    in_thread(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            in_thread(move || serve(stream));
        }
    });
    url
}

/// Reads a request's head and its body; `None` at the end of the stream.
pub(crate) fn request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some(format!("{head}{}", String::from_utf8_lossy(&body)))
}

pub(crate) fn answer(stream: &mut TcpStream, status: &str, body: &str) {
    // In one piece: several would wait for one another's acknowledgement.
    let whole = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(whole.as_bytes());
}

/// A peer that gives one and the same HTTP answer to everything.
pub(crate) fn says(raw: impl Into<Vec<u8>>) -> String {
    let raw = raw.into();
    listen(move |mut stream| {
        while request(&mut stream).is_some() {
            let _ = stream.write_all(&raw);
        }
    })
}

pub(crate) const OPEN: &str =
    r#"0{"sid":"s","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;

/// A polling server as small as possible: opens, joins, holds GETs, and answers POSTs; `packet` is what each GET after
/// the join gets.
fn polling(packet: Option<&'static str>) -> String {
    let (posted, joins) = crossbeam();
    listen(move |mut stream| {
        while let Some(request) = request(&mut stream) {
            if request.starts_with("POST") {
                answer(&mut stream, "200 OK", "ok");
                let _ = posted.send(());
            } else if request.contains("sid=s") {
                if joins.lock().unwrap().recv().is_ok() {
                    answer(&mut stream, "200 OK", r#"40{"sid":"x"}"#);
                }
                if let Some(packet) = packet {
                    let _ = self::request(&mut stream);
                    answer(&mut stream, "200 OK", packet);
                }
                // The next GET is held.
            } else {
                answer(&mut stream, "200 OK", OPEN);
            }
        }
    })
}

/// Accepts connections and says nothing.
pub(crate) fn silent() -> String {
    listen(|mut stream| while matches!(stream.read(&mut [0; 1_000]), Ok(1..)) {})
}

/// Opens sessions, and never joins a namespace.
pub(crate) fn opens_only() -> String {
    listen(|mut stream| {
        while let Some(request) = request(&mut stream) {
            if request.starts_with("POST") {
                answer(&mut stream, "200 OK", "ok");
            } else if request.contains("transport=websocket") {
                accept_websocket(&mut stream, &request);
                send(&mut stream, OPEN);
                return std::thread::sleep(LONG);
            } else if !request.contains("sid=s") {
                answer(&mut stream, "200 OK", OPEN);
            }
        }
    })
}

/// Opens a session over WebSocket, joins, and then neither reads nor writes.
pub(crate) fn deaf_websocket() -> String {
    deaf_websocket_with(60_000)
}

/// The same, promising a ping every so many milliseconds.
pub(crate) fn deaf_websocket_with(ping: u32) -> String {
    listen(move |mut stream| {
        let Some(request) = request(&mut stream) else { return };
        accept_websocket(&mut stream, &request);
        send(&mut stream, &OPEN.replace("25000", &ping.to_string()).replace("20000", "0"));
        // The client's CONNECT comes before it is answered.
        let _ = stream.read(&mut [0; 8]);
        send(&mut stream, r#"40{"sid":"x"}"#);
        std::thread::sleep(LONG);
    })
}

pub(crate) fn accept_websocket(stream: &mut TcpStream, request: &str) {
    let name = "sec-websocket-key: ";
    let key = request.lines().find(|line| line.to_lowercase().starts_with(name)).unwrap();
    let accept = tungstenite::handshake::derive_accept_key(&key.as_bytes()[name.len()..]);
    let _ = write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-accept: {accept}\r\n\r\n"
    );
}

/// Sends a text message of at most 125 bytes.
fn send(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(&[0x81, u8::try_from(text.len()).unwrap()]);
    let _ = stream.write_all(text.as_bytes());
}

type Joins = std::sync::Arc<std::sync::Mutex<std::sync::mpsc::Receiver<()>>>;

fn crossbeam() -> (std::sync::mpsc::Sender<()>, Joins) {
    let (sender, receiver) = std::sync::mpsc::channel();
    (sender, std::sync::Arc::new(std::sync::Mutex::new(receiver)))
}

/// A client that tries once.
fn once(url: &str, way: Way) -> Builder {
    way.set(Client::builder(url)).reconnection(false).timeout(Duration::from_millis(700))
}

#[track_caller]
fn fails(url: &str, way: Way) -> Error {
    let client = once(url, way).build().unwrap();
    let begun = Instant::now();
    let error = client.connect().expect_err("this cannot work");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}: {error}", begun.elapsed());
    assert_eq!(client.status().state, ConnectionState::Disconnected);
    assert_eq!(client.status().last_error.map(|last| last.to_string()), Some(error.to_string()));
    error
}

#[rstest]
fn nobody_listens(#[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = fails(&format!("http://127.0.0.1:{port}"), way);
    assert!(matches!(error, Error::Unreachable { step: Step::Connect, .. }), "{error}");
    assert!(error.is_transient() && error.to_string().contains("refused"), "{error}");
}

#[rstest]
fn the_name_does_not_exist(#[values(Way::Polling, Way::Websocket)] way: Way) {
    let client = once("http://no-such-name.invalid:5000", way).build().unwrap();
    let error = client.connect().unwrap_err();
    // However long the system's resolver takes, nobody has to wait for it.
    assert!(
        matches!(error, Error::Unreachable { step: Step::Resolve, .. } | Error::Timeout { .. }),
        "{error}"
    );
}

#[rstest]
fn the_socket_does_not_exist(#[values(Way::Polling, Way::Websocket)] way: Way) {
    let error = fails("unix:///no/such/socket", way);
    assert!(matches!(error, Error::Unreachable { step: Step::Connect, .. }), "{error}");
}

#[rstest]
fn accepts_and_says_nothing(#[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way) {
    let error = fails(&silent(), way);
    assert!(error.to_string().contains("timed out"), "{error}");
}

#[rstest]
fn never_accepts(#[values(Way::Polling, Way::Websocket)] way: Way) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = fails(&format!("http://{}", listener.local_addr().unwrap()), way);
    assert!(error.to_string().contains("timed out"), "{error}");
}

#[rstest]
fn closes_at_once(#[values(Way::Polling, Way::Websocket)] way: Way) {
    let error = fails(&listen(drop), way);
    assert!(matches!(error, Error::Unreachable { .. } | Error::Handshake { .. }), "{error}");
}

#[rstest]
#[case::redirect(
    "HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n",
    Some(302),
    "redirect to http://elsewhere/"
)]
#[case::html("HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n<html>hi</html>", Some(200), "")]
#[case::proxy(
    "HTTP/1.1 503 No\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\nbusy",
    Some(503),
    "status 503"
)]
#[case::refusal(
    "HTTP/1.1 400 Bad\r\ncontent-length: 42\r\n\r\n{\"code\":5,\"message\":\"Unsupported version\"}",
    Some(400),
    "Unsupported version (code 5)"
)]
#[case::no_http("SSH-2.0-OpenSSH_9.6\r\n", None, "")]
#[case::binary("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\u{0}\u{1}\u{2}\u{3}", Some(200), "")]
#[case::empty("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Some(200), "")]
#[case::bad_open("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0{\"sid\":1}", Some(200), "")]
fn answers_something_else(
    #[case] raw: &str,
    #[case] status: Option<u16>,
    #[case] says_so: &str,
    #[values(Way::Polling, Way::Websocket)] way: Way,
) {
    let error = fails(&says(raw), way);
    let Error::Handshake { status: told, .. } = &error else { panic!("{error}") };
    // Polling has taken a 200 before it looks inside.
    assert!(*told == status || (way == Way::Polling && status == Some(200)), "{error}");
    assert!(error.to_string().contains(says_so), "{error}");
}

#[rstest]
fn a_head_without_end(#[values(Way::Polling, Way::Websocket)] way: Way) {
    let url = listen(|mut stream| {
        let _ = request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"x-more: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n").is_ok()
        {
        }
    });
    let error = fails(&url, way);
    assert!(matches!(error, Error::Handshake { .. } | Error::Unreachable { .. }), "{error}");
}

#[rstest]
fn a_head_drop_by_drop(#[values(Way::Polling, Way::Websocket)] way: Way) {
    let url = listen(|mut stream| {
        let _ = request(&mut stream);
        while stream.write_all(b"H").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    fails(&url, way);
}

#[test]
fn a_body_without_end() {
    let url = listen(|mut stream| {
        let _ = request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'0'; 10_000]).is_ok() {}
    });
    let client = once(&url, Way::Polling).max_message(100_000).build().unwrap();
    assert!(client.connect().is_err());
}

#[rstest]
fn opens_and_never_joins(#[values(Way::Polling, Way::Upgrade)] way: Way) {
    let error = fails(&opens_only(), way);
    assert!(matches!(error, Error::Timeout { what: "answer to CONNECT", .. }), "{error}");
}

#[rstest]
#[case("2", None)]
#[case("6", None)]
#[case("", None)]
#[case("42[\"news\",1]", None)]
#[case("42/other,[\"news\",1]", None)]
#[case("43999[]", None)]
#[case("1", Some(CloseReason::TransportClose))]
#[case("41", Some(CloseReason::IoServerDisconnect))]
#[case("42", Some(CloseReason::ParseError))]
#[case("42[1", Some(CloseReason::ParseError))]
#[case("42[\"connect\"]", Some(CloseReason::ParseError))]
#[case("4511-[\"x\"]", Some(CloseReason::ParseError))]
#[case("bAAAA", Some(CloseReason::ParseError))]
#[case("b&", Some(CloseReason::ParseError))]
#[case("451-[\"x\",{\"_placeholder\":true,\"num\":0}]\u{1e}42[\"x\"]", Some(CloseReason::ParseError))]
#[case("9", Some(CloseReason::ParseError))]
fn a_packet_after_the_join(#[case] packet: &'static str, #[case] ends: Option<CloseReason>) {
    let client = once(&polling(Some(packet)), Way::Polling).build().unwrap();
    let (said, heard) = hear("disconnect");
    client.socket("/").on_disconnect(move |_, reason| said.send(reason).unwrap());
    let (said, joined) = hear("the join");
    client.socket("/").on_connect(move |_| said.send(()).unwrap());
    // Not `connect`, which may find that it has ended already.
    client.start().unwrap();
    joined.next();
    match ends {
        Some(reason) => assert_eq!(heard.next(), reason),
        None => assert_eq!(heard.within(Duration::from_millis(150)), None),
    }
}

#[test]
fn a_unix_socket_is_as_good() {
    let path = std::env::temp_dir().join(format!("tinysio-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    in_thread(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 1_000];
        let n = stream.read(&mut head).unwrap();
        let status =
            if head[..n].starts_with(b"GET /socket.io/?EIO=4&transport=polling") { 418 } else { 400 };
        let _ = write!(stream, "HTTP/1.1 {status} Tea\r\ncontent-length: 0\r\n\r\n");
    });
    let error = fails(&format!("unix://{}", path.display()), Way::Polling);
    assert!(matches!(error, Error::Handshake { status: Some(418), .. }), "{error}");
    let _ = std::fs::remove_file(&path);
}

#[test]
fn a_half_open_connection_is_noticed() {
    // Joins over WebSocket, promises pings every 300 ms, and sends none.
    let url = deaf_websocket_with(300);
    let client = Way::Websocket.set(quick(&url)).build().unwrap();
    let (said, heard) = hear("disconnect");
    client.socket("/").on_disconnect(move |_, reason| said.send(reason).unwrap());
    let begun = Instant::now();
    client.connect().unwrap();
    assert_eq!(heard.next(), CloseReason::PingTimeout);
    assert!(
        (Duration::from_millis(290)..Duration::from_secs(3)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    until("the next connection", || client.stats().reconnects > 0);
}
