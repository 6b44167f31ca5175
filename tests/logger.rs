//! The logger is code of the application: one that blocks, panics or calls the server costs records, and delays no
//! other client.
//!
//! A crate of its own, because a process has one logger. Each test has its own server, whose records it knows by
//! `max_rooms`.
#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]
#![allow(dead_code, unused_imports, reason = "the support module is shared with the other tests")]

#[path = "server/support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, Once, OnceLock, mpsc},
    thread,
    time::Duration,
};

use rstest::rstest;
use support::{Client, Http, PATIENCE, Transport, addr, gate::Gate, next, serve, stores::Gated};
use tinysio::server::{Durability, MemoryStore, Server};

/// What the logger does with the records of one test.
type Rule = Arc<dyn Fn(&str) + Send + Sync>;

static RULES: LazyLock<Mutex<HashMap<String, Rule>>> = LazyLock::new(Mutex::default);

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        let rule = RULES
            .lock()
            .unwrap()
            .iter()
            .find_map(|(mark, rule)| text.contains(mark).then(|| Arc::clone(rule)));
        if let Some(rule) = rule {
            rule(&text);
        }
    }
    fn flush(&self) {}
}

/// From now on the logger does this with each record that has the mark.
fn log_with(mark: &str, rule: impl Fn(&str) + Send + Sync + 'static) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Logger).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
    RULES.lock().unwrap().insert(mark.to_owned(), Arc::new(rule));
}

/// The mark of the records of this server.
fn mark(max_rooms: usize) -> String {
    format!("max_rooms = {max_rooms}")
}

fn start(max_rooms: usize) -> Server {
    serve(|builder| {
        builder.max_rooms(max_rooms).namespace("/", move |ns| {
            ns.on_connect(move |socket| (0..max_rooms).for_each(|room| socket.join(&room.to_string())));
            // The hub refuses it.
            ns.on("join", |socket, _| socket.join("one more"));
            ns.on("panic", move |_, _| -> () { panic!("{}", mark(max_rooms)) });
            ns.on("tell", |socket, event| socket.namespace().emit("news", event.args()));
        })
    })
}

/// Whose record it is, and the event that causes it.
#[derive(Debug, Clone, Copy)]
enum Of {
    Hub,
    Worker,
}

impl Of {
    fn event(self) -> &'static str {
        match self {
            Self::Hub => r#"42["join"]"#,
            Self::Worker => r#"42["panic"]"#,
        }
    }
}

fn tells(client: &mut Client) {
    client.send(r#"42["tell",1]"#);
    client.expect(r#"42["news",1]"#);
}

fn others_are_served(server: &Server) {
    for transport in [Transport::Polling, Transport::WebSocket, Transport::Upgrade] {
        let mut client = Client::connected(addr(server), transport);
        tells(&mut client);
        client.leave();
    }
}

#[rstest]
#[case(Of::Hub, 11)]
#[case(Of::Worker, 12)]
fn a_logger_that_blocks(#[case] of: Of, #[case] max_rooms: usize) {
    let (report, begun) = mpsc::channel();
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    log_with(&mark(max_rooms), move |_| {
        report.send(()).unwrap();
        // It ends with an error when the test lets it go.
        let _ = blocked.lock().unwrap().recv();
    });
    let server = start(max_rooms);
    let mut client = Client::connected(addr(&server), Transport::WebSocket);
    client.send(of.event());
    next(&begun, "the record");
    others_are_served(&server);
    if let Of::Hub = of {
        // More records than wait.
        for _ in 0..300 {
            client.send(of.event());
        }
        tells(&mut client);
    }
    others_are_served(&server);
    assert!(!server.shutdown(Duration::from_millis(50)), "the logger has not returned");
    drop(release);
}

/// Who accepts is not held up, because the next connections would wait.
#[test]
fn a_logger_that_blocks_at_a_refusal() {
    let (report, begun) = mpsc::channel();
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    log_with("(max_tcp_connections)", move |_| {
        report.send(()).unwrap();
        // It ends with an error when the test lets it go.
        let _ = blocked.lock().unwrap().recv();
    });
    let server = serve(|builder| {
        let builder = builder.max_connections(2).max_tcp_connections(2);
        builder.namespace("/", |ns| {
            ns.on("tell", |socket, event| socket.namespace().emit("news", event.args()));
        })
    });
    let connect = || Client::connected(addr(&server), Transport::WebSocket);
    let clients = [connect(), connect()];
    assert_eq!(Http::connect(addr(&server)).get("/").status, 503);
    next(&begun, "the record");
    assert_eq!(Http::connect(addr(&server)).get("/").status, 503);
    drop(clients);
    support::all_gone(&server);
    tells(&mut connect());
    assert!(!server.shutdown(Duration::from_millis(50)), "the logger has not returned");
    drop(release);
}

#[rstest]
#[case(Of::Hub, 13)]
#[case(Of::Worker, 14)]
fn a_logger_that_panics(#[case] of: Of, #[case] max_rooms: usize) {
    let (report, begun) = mpsc::channel();
    log_with(&mark(max_rooms), move |_| {
        report.send(()).unwrap();
        panic!("the logger");
    });
    let server = start(max_rooms);
    let mut client = Client::connected(addr(&server), Transport::WebSocket);
    for _ in 0..3 {
        client.send(of.event());
        next(&begun, "the record");
        tells(&mut client);
    }
    others_are_served(&server);
    assert!(server.shutdown(Duration::from_secs(1)), "every thread has ended");
}

#[rstest]
#[case(Of::Hub, 15)]
#[case(Of::Worker, 16)]
fn a_logger_that_calls_the_server(#[case] of: Of, #[case] max_rooms: usize) {
    let (report, done) = mpsc::channel();
    let server: Arc<OnceLock<Server>> = Arc::default();
    let of_logger = Arc::clone(&server);
    log_with(&mark(max_rooms), move |_| {
        let server = of_logger.get().unwrap();
        let root = server.of("/").unwrap();
        // More than the hub's queue holds, so it waits for the hub.
        for _ in 0..10_000 {
            root.to("nobody").emit("news", 0).unwrap();
        }
        root.emit("news", 2).unwrap();
        report.send(root.room_len("0")).unwrap();
        assert!(!server.shutdown(Duration::from_secs(1)), "another thread does it");
        report.send(0).unwrap();
    });
    let server = server.get_or_init(|| start(max_rooms));
    let mut client = Client::connected(addr(server), Transport::WebSocket);
    client.send(of.event());
    client.expect(r#"42["news",2]"#);
    assert_eq!(next(&done, "the answer of the hub"), 1);
    next(&done, "the end of the call");
    server.wait();
}

#[test]
fn a_stop_waits_for_the_records() {
    const RECORDS: usize = 50;
    let max_rooms = 17;
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let of_logger = Arc::clone(&heard);
    log_with(&mark(max_rooms), move |text| {
        thread::sleep(Duration::from_millis(5));
        of_logger.lock().unwrap().push(text.split_once(':').unwrap().0.to_owned());
    });
    let server = start(max_rooms);
    let mut clients: Vec<Client> =
        (0..2).map(|_| Client::connected(addr(&server), Transport::WebSocket)).collect();
    let mut expected = Vec::new();
    for n in 0..RECORDS {
        let client = &mut clients[n % 2];
        client.send(r#"42["join"]"#);
        tells(client);
        expected.push(n % 2);
        // The other one hears it too.
        clients[(n + 1) % 2].expect(r#"42["news",1]"#);
    }
    assert!(server.shutdown(Duration::from_secs(5)), "every thread has ended");
    let heard = heard.lock().unwrap();
    let of_client: Vec<usize> = heard.iter().map(|name| usize::from(*name != heard[0])).collect();
    assert_eq!(of_client, expected, "all, in their order");
}

/// The last record of the hub's thread.
#[test]
fn the_hub_tells_of_a_store_that_has_not_returned() {
    let (report, told) = mpsc::channel();
    log_with("the store has not returned", move |text| report.send(text.to_owned()).unwrap());
    let gate = Gate::default();
    let store = Gated(MemoryStore::new(), gate.clone());
    let server = serve(|builder| builder.store(store, Durability::EveryPacket).namespace("/", |_| {}));
    let _client = Client::connected(addr(&server), Transport::WebSocket);
    let closed = gate.close();
    server.of("/").unwrap().emit("news", 1).unwrap();
    assert!(!server.shutdown(Duration::from_millis(50)), "the store has not returned");
    told.try_recv().expect("it is told before the stop ends");
    drop(closed);
}
