//! The `server` program with a store: what its clients find again when it was killed, and what it does without one.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use rstest::rstest;
use serde_json::{Value, json};
use tinysio::{
    client::{Client, Socket},
    proto::engine::TransportKind,
};

use crate::support::{PATIENCE, Program, request};

/// A folder of its own for each test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tinysio-{}-{name}", std::process::id()));
        // It may not be there.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn store(&self) -> String {
        self.0.join("store").to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A client of ours in a room, and what it is sent.
struct Guest {
    _client: Client,
    socket: Socket,
    events: Receiver<(String, Value)>,
}

impl Guest {
    fn new(address: SocketAddr, transports: &[TransportKind]) -> Self {
        let client = Client::builder(&format!("http://{address}"))
            .transports(transports)
            .reconnection_delay(Duration::from_millis(700))
            .reconnection_delay_max(Duration::from_millis(700))
            .randomization_factor(0.0)
            .retries(u32::MAX)
            .ack_timeout(Duration::from_secs(1))
            .build()
            .unwrap();
        let socket = client.socket("/");
        let (tell, events) = channel();
        socket.on_any(move |_, event| {
            assert!(event.args().len() <= 1, "the offset is taken off");
            tell.send((event.name().to_owned(), event.arg(0).unwrap_or_default())).unwrap();
        });
        client.connect().unwrap();
        let guest = Self { _client: client, socket, events };
        guest.next("message");
        guest.ask("join_room", json!({"room": "r"}));
        guest.next("room_joined");
        guest
    }

    fn ask(&self, event: &str, data: Value) {
        self.socket.emit_with_ack(event, data, PATIENCE).unwrap();
    }

    /// The next event of this name.
    fn next(&self, name: &str) -> Value {
        loop {
            let (event, data) =
                self.events.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("waited in vain for {name}"));
            if event == name {
                return data;
            }
        }
    }
}

#[rstest]
#[case::websocket(&[TransportKind::Websocket])]
#[case::polling(&[TransportKind::Polling])]
#[case::upgrade(&[TransportKind::Polling, TransportKind::Websocket])]
fn a_kill_loses_nothing(#[case] transports: &[TransportKind]) {
    let folder = Folder::new(&format!("kill-{transports:?}"));
    let flags = ["--store", &folder.store()];
    let mut program = Program::start(&flags);
    let address = program.address();
    let (alice, bob) = (Guest::new(address, transports), Guest::new(address, transports));
    let (a, b) = (alice.socket.id().unwrap(), bob.socket.id().unwrap());
    for round in 0..2 {
        alice.ask("room_message", json!({"room": "r", "message": format!("before {round}")}));
        program.signal("KILL");
        program.ended(PATIENCE);
        let port = address.port().to_string();
        let again = ["--host", "127.0.0.1", "--port", &port];
        program = Program::spawn(Program::command(&[&again[..], &flags].concat()));
        // Sent when the one is there and the other perhaps not yet: retried until it is acknowledged, and kept until
        // it is fetched.
        alice.ask("room_message", json!({"room": "r", "message": format!("after {round}")}));
        for guest in [&alice, &bob] {
            for when in ["before", "after"] {
                let said = guest.next("room_broadcast");
                assert_eq!(said["message"], format!("{when} {round}"));
                assert_eq!(said["sender"], a);
            }
        }
    }
    bob.ask("get_server_status", Value::Null);
    assert_eq!(bob.next("server_status")["client_rooms"], json!(["r"]));
    assert!(alice.socket.recovered() && bob.socket.recovered());
    assert_eq!((alice.socket.id(), bob.socket.id()), (Some(a), Some(b)));
    let (_, body) = request(address, "GET", "/health");
    assert!(body.contains(r#""store":"working""#), "{body}");
}

/// If the store cannot be opened, the start fails, unless the store is optional.
#[rstest]
#[case::no_folder(|folder: &Folder| folder.0.join("missing/store"), "has no directory")]
#[case::a_folder(|folder: &Folder| folder.0.clone(), "")]
fn a_store_that_cannot_be_opened_ends_the_start(
    #[case] path: impl FnOnce(&Folder) -> PathBuf,
    #[case] why: &str,
) {
    let folder = Folder::new(&format!("no-store-{}", why.len()));
    let path = path(&folder);
    let flags = ["--host", "127.0.0.1", "--port", "0", "--store", path.to_str().unwrap()];
    let (code, out, err) = Program::run(&flags);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("the store") && err.contains(why) && err.contains("--store-optional"), "{err}");

    let program = Program::start(&[&flags[4..], &["--store-optional", "--operator", "127.0.0.1:0"]].concat());
    program.logged(&["ERROR", "without it", why]);
    let (head, body) = request(program.address(), "GET", "/health");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        body.contains(r#""status":"degraded""#) && body.contains(r#""store":"failed: the store"#),
        "{body}"
    );
    let health: Value = serde_json::from_str(&body).unwrap();
    assert!(health["problems"][0].as_str().unwrap().contains(why), "{body}");
    let (_, metrics) = request(program.operator(), "GET", "/metrics");
    assert!(metrics.contains("\ntinysio_store_up 0\n"), "{metrics}");
    Guest::new(program.address(), &[TransportKind::Websocket]).ask("message", json!("served"));
}

/// Two servers with one store: the second one does not start.
#[test]
fn a_store_in_use() {
    let folder = Folder::new("in-use");
    let flags = ["--host", "127.0.0.1", "--port", "0", "--store", &folder.store()];
    let first = Program::start(&[&flags[4..], &["--operator", "127.0.0.1:0"]].concat());
    let (code, _, err) = Program::run(&flags);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("in use by another process"), "{err}");
    let (_, metrics) = request(first.operator(), "GET", "/metrics");
    assert!(metrics.contains("\ntinysio_store_up 1\n"), "{metrics}");
}

/// What is no store is set aside, and a new one begins.
#[test]
fn a_damaged_store() {
    let folder = Folder::new("damaged");
    fs::write(folder.store(), "x".repeat(10_000)).unwrap();
    let program = Program::start(&["--store", &folder.store()]);
    program.logged(&["ERROR", "damaged"]);
    let (_, body) = request(program.address(), "GET", "/health");
    assert!(body.contains(r#""store":"working""#), "{body}");
    assert!(folder.0.join("store.damaged").exists());
}

/// Recovery in memory needs no store, and says nothing of one.
#[test]
fn in_memory() {
    let program = Program::start(&["--recovery", "1m"]);
    let guest = Guest::new(program.address(), &[TransportKind::Websocket]);
    let id = guest.socket.id();
    guest._client.reconnect_now();
    guest.ask("message", json!("still here"));
    guest.next("message_received");
    assert_eq!(guest.socket.id(), id);
    let (_, body) = request(program.address(), "GET", "/health");
    assert!(!body.contains("store"), "{body}");
}
