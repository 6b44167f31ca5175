//! The heartbeat goes on whatever the handlers do, and a server that is gone is noticed whatever the client does.

use std::{
    io::Read,
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rstest::rstest;
use tinysio::{
    client::{Client, CloseReason, Socket},
    server::Config,
};

use crate::{
    hostile::{answer, listen, request},
    support::{Heard, LONG, Peer, Server, Way, hear, quick, until},
};

/// Ping interval and ping timeout of the servers, one second each: python-socketio counts in whole seconds.
const OPTIONS: [&str; 4] = ["--ping-interval", "1000", "--ping-timeout", "1000"];

/// How long a handler blocks: more than both, twice.
const BLOCKED: Duration = Duration::from_millis(4_500);

/// A server with that heartbeat, official or ours.
enum Host {
    Process(Server),
    Ours(tinysio::Server),
}

impl Host {
    /// `peer`: none is ours.
    fn start(peer: Option<Peer>) -> Self {
        let Some(peer) = peer else {
            let second = Duration::from_secs(1);
            let mut config = Config::default();
            (config.ping_interval, config.ping_timeout) = (second, second);
            let server = tinysio::Server::builder()
                .config(config)
                .namespace("/", |ns| {
                    ns.on("flood", |socket, event| {
                        for n in 0..event.arg(0).unwrap_or(0) {
                            let _ = socket.emit("n", n);
                        }
                    })
                    .on("echo", |_, event| event.ack(event.args()));
                })
                .listen("127.0.0.1:0");
            return Self::Ours(server.unwrap());
        };
        Self::Process(Server::start(peer, &OPTIONS))
    }

    fn url(&self) -> String {
        match self {
            Self::Process(server) => server.url(),
            Self::Ours(server) => crate::support::url_of(server),
        }
    }
}

/// A handler of `n` that blocks with the first event, and tells each number.
fn slow(socket: &Socket) -> Heard<u32> {
    let (said, heard) = hear("the next number");
    socket.on("n", move |_, event| {
        let n: u32 = event.arg(0).unwrap();
        if n == 0 {
            std::thread::sleep(BLOCKED);
        }
        said.send(n).unwrap();
    });
    heard
}

#[rstest]
#[ignore = "needs Node and Python"]
fn a_handler_may_block_longer_than_the_ping_timeout(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let server = Server::start(peer, &OPTIONS);
    let client = way.set(quick(&server.url())).build().unwrap();
    let socket = client.socket("/");
    socket.on("question", |_, event| {
        std::thread::sleep(BLOCKED);
        event.ack("late")
    });
    let (said, heard) = hear("the acknowledgement at the server");
    socket.on("answered", move |_, event| said.send(event.arg::<String>(0).unwrap()).unwrap());
    client.connect().unwrap();
    let id = socket.id();
    socket.emit("ask", ()).unwrap();
    assert_eq!(heard.next(), "late");
    assert_eq!((client.stats().disconnects, socket.id()), (0, id));
}

#[rstest]
#[ignore = "needs Node and Python"]
fn heartbeats_are_answered_while_events_wait(
    #[values(Some(Peer::Node), Some(Peer::Python), None)] peer: Option<Peer>,
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    const N: u32 = 1_000;
    let server = Host::start(peer);
    // Nearly all of the events do not fit, and neither do the pings behind them.
    let client = way.set(quick(&server.url())).event_queue(4).build().unwrap();
    let socket = client.socket("/");
    let heard = slow(&socket);
    // Buffered: the flood begins with the join, before the upgrade.
    socket.emit("flood", N).unwrap();
    client.connect().unwrap();
    let id = socket.id();
    for n in 0..N {
        assert_eq!(heard.next(), n);
    }
    socket.emit_with_ack("echo", "still here", LONG).unwrap();
    assert_eq!((client.stats().disconnects, socket.id()), (0, id));
}

#[rstest]
#[ignore = "needs Node and Python"]
fn a_server_that_is_gone_is_noticed_while_a_handler_blocks(
    #[values(Peer::Node, Peer::Python)] peer: Peer,
    #[values(Way::Polling, Way::Websocket)] way: Way,
) {
    let server = Server::start(peer, &OPTIONS);
    let client = way.set(quick(&server.url())).build().unwrap();
    let socket = client.socket("/");
    let (go, gone) = hear::<()>("nothing");
    let gone = Mutex::new(gone);
    socket.on("question", move |_, _| {
        gone.lock().unwrap().within(LONG);
    });
    client.connect().unwrap();
    socket.emit("ask", ()).unwrap();
    socket.emit_with_ack("echo", (), LONG).unwrap();
    server.pause();
    let begun = Instant::now();
    until("the loss", || !socket.is_connected());
    assert!(begun.elapsed() < Duration::from_secs(5), "noticed after {:?}", begun.elapsed());
    assert_eq!(client.status().last_reason, Some(CloseReason::PingTimeout));
    drop(go);
}

#[rstest]
#[ignore = "needs Node"]
fn what_a_server_said_before_it_went_is_still_handled(#[values(Way::Polling, Way::Websocket)] way: Way) {
    const N: u32 = 1_000;
    let mut server = Server::start(Peer::Node, &OPTIONS);
    let client = way.set(quick(&server.url())).event_queue(4).reconnection(false).build().unwrap();
    let socket = client.socket("/");
    let heard = slow(&socket);
    let (said, left) = hear("disconnect");
    socket.on_disconnect(move |_, reason| said.send(reason).unwrap());
    client.connect().unwrap();
    socket.emit("flood", N).unwrap();
    // Until it is in the system's buffers.
    std::thread::sleep(Duration::from_millis(500));
    server.kill();
    // On polling, what the server had not given out is lost with it.
    let sure = if way == Way::Polling { 1 } else { N };
    for n in 0..sure {
        assert_eq!(heard.next(), n);
    }
    assert!(matches!(left.next(), CloseReason::TransportClose | CloseReason::TransportError));
}

/// A polling server that opens, joins, and then behaves as `serve` says for GETs and POSTs that come later.
/// Tells each POST's body.
fn polling(
    open: &'static str,
    serve: impl Fn(&mut TcpStream, &str) + Clone + Send + Sync + 'static,
) -> (String, Heard<String>) {
    let (said, posts) = hear("a POST");
    let (asked, joined) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let url = listen(move |mut stream| {
        while let Some(request) = request(&mut stream) {
            let body = request.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap();
            if request.starts_with("POST") {
                let _ = said.send(body.clone());
            }
            if !request.contains("sid=s") {
                answer(&mut stream, "200 OK", open);
            } else if body == "40" {
                answer(&mut stream, "200 OK", "ok");
                asked.store(true, Ordering::SeqCst);
            } else if request.starts_with("GET") && !joined.swap(true, Ordering::SeqCst) {
                until("the CONNECT", || asked.load(Ordering::SeqCst));
                answer(&mut stream, "200 OK", r#"40{"sid":"x"}"#);
            } else {
                serve(&mut stream, &request);
            }
        }
    });
    (url, posts)
}

#[test]
fn a_post_under_way_does_not_put_off_the_ping_deadline() {
    // Neither a ping nor an answer to the POST ever comes.
    let open = r#"0{"sid":"s","upgrades":[],"pingInterval":1500,"pingTimeout":0,"maxPayload":1000000}"#;
    let (url, _posts) = polling(open, |stream, _| drop(stream.read_to_end(&mut Vec::new())));
    let client = Way::Polling.set(Client::builder(&url)).reconnection(false).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("disconnect");
    socket.on_disconnect(move |_, reason| said.send(reason).unwrap());
    client.connect().unwrap();
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(1_000));
    socket.emit("x", ()).unwrap();
    assert_eq!(heard.next(), CloseReason::PingTimeout);
    assert!(begun.elapsed() < Duration::from_millis(2_200), "after {:?}", begun.elapsed());
}

#[rstest]
#[case::the_get_is_refused("500 Internal Server Error", "oops", CloseReason::TransportError)]
#[case::a_parse_error("200 OK", "4abc", CloseReason::ParseError)]
#[case::an_unknown_packet("200 OK", "9", CloseReason::ParseError)]
fn a_failed_polling_session_is_told_to_the_server(
    #[case] status: &'static str,
    #[case] body: &'static str,
    #[case] reason: CloseReason,
) {
    let open = r#"0{"sid":"s","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
    let (url, posts) = polling(open, move |stream, request| match request.starts_with("GET") {
        true => answer(stream, status, body),
        false => answer(stream, "200 OK", "ok"),
    });
    let client = Way::Polling.set(Client::builder(&url)).reconnection(false).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("disconnect");
    socket.on_disconnect(move |_, reason| said.send(reason).unwrap());
    client.start().unwrap();
    assert_eq!(heard.next(), reason);
    assert_eq!((posts.next(), posts.next()), ("40".to_owned(), "1".to_owned()));
    assert!(posts.within(Duration::from_millis(50)).is_none());
}

#[test]
fn a_failed_get_ends_a_post_under_way() {
    let open = r#"0{"sid":"s","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
    let posted = Arc::new(AtomicBool::new(false));
    let (url, posts) = polling(open, move |stream, request| {
        if request.ends_with("\r\n\r\n1") {
            return answer(stream, "200 OK", "ok");
        }
        if request.starts_with("POST") {
            posted.store(true, Ordering::SeqCst);
            return drop(stream.read_to_end(&mut Vec::new()));
        }
        until("the POST", || posted.load(Ordering::SeqCst));
        answer(stream, "500 Internal Server Error", "");
    });
    let client = Way::Polling.set(Client::builder(&url)).reconnection(false).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("disconnect");
    socket.on_disconnect(move |_, reason| said.send(reason).unwrap());
    client.connect().unwrap();
    socket.emit("x", ()).unwrap();
    assert_eq!(heard.next(), CloseReason::TransportError);
    assert_eq!((posts.next(), posts.next()), ("40".to_owned(), r#"42["x"]"#.to_owned()));
    assert_eq!(posts.next(), "1");
}
