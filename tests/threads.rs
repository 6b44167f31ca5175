//! What a server leaves behind when it goes: no thread, no descriptor, no memory of its handlers.
//!
//! A crate of its own, because it counts the threads and descriptors of the whole process; its one test takes the
//! scenes in turn.
#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]
#![allow(dead_code, unused_imports, reason = "the support module is shared with the other tests")]

#[path = "server/support/mod.rs"]
mod support;

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use support::{Client, Frame, Http, PATIENCE, Transport, Ws, addr, eventually, next, serve};
use tinysio::server::{Durability, FileStore, Server, StartError};

/// The threads that a server always has, beside one worker thread that waits for the connections.
const ALWAYS: [&str; 3] = ["drain", "hub", "watchdog"];

/// The number of threads of a server while nobody talks.
const AT_REST: usize = ALWAYS.len() + 1;

/// The names of the threads that a server runs.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread may end between the listing and the look at it.
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    let mut names: Vec<String> = tasks.filter_map(name).map(|name| name.trim().to_owned()).collect();
    names.retain(|name| name.starts_with("worker-") || ALWAYS.contains(&&**name));
    names.sort();
    names
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A server whose handlers hold `token`, and one client of each kind of connection there is.
fn scene(token: &Arc<()>) -> (Server, Vec<Client>, Vec<Http>) {
    let tokens: Vec<Arc<()>> = (0..4).map(|_| Arc::clone(token)).collect();
    let [one, two, three, four] = <[Arc<()>; 4]>::try_from(tokens).unwrap();
    let server = serve(|builder| {
        builder
            .engine("/engine.io/", move |engine| {
                engine.on_message(move |_, _| assert!(Arc::strong_count(&one) > 0));
            })
            .route("/health", move |_| {
                assert!(Arc::strong_count(&two) > 0);
                tinysio::server::Response::from_string("ok")
            })
            .namespace("/", move |ns| {
                ns.on_connect(move |socket| socket.set_data(Arc::clone(&three)));
                ns.on("ask", move |socket, _| {
                    let token = Arc::clone(&four);
                    socket.join("room");
                    socket.emit_with_callback("q", (), 10 * PATIENCE, move |_, _| drop(token))
                });
            })
    });
    let mut clients: Vec<Client> = [Transport::Polling, Transport::WebSocket, Transport::Upgrade]
        .into_iter()
        .cycle()
        .take(9)
        .map(|transport| Client::connected(addr(&server), transport))
        .collect();
    for (id, client) in clients.iter_mut().enumerate() {
        client.send(r#"42["ask"]"#);
        client.expect(&format!(r#"42{id}["q"]"#));
    }
    // GETs that are held, and one client with a large backlog.
    clients[0].ask();
    clients[3].ask();
    let payload = "x".repeat(100_000);
    let slow = server.of("/").unwrap().sockets().pop().unwrap();
    while slow.emit_volatile("n", &payload).is_ok() {}
    slow.emit("n", &payload).unwrap();
    let mut others: Vec<Http> = (0..3).map(|_| Http::connect(addr(&server))).collect();
    others[0].get("/health");
    others[1].send("GET /half-a-he");
    clients.push(Client::at(addr(&server), Transport::WebSocket, "/engine.io/"));
    let mut probing = Ws::open(addr(&server), &clients[6].target("websocket"));
    probing.send("2probe");
    probing.expect("3probe");
    others.push(probing.http);
    (server, clients, others)
}

/// A connection's thread that has done everything needs a moment more until the system forgets it.
fn no_thread_is_left(what: &str) {
    eventually(what, || threads().is_empty());
}

fn check_nothing_left(before: usize, token: &Arc<()>, scene: &str) {
    no_thread_is_left(scene);
    assert_eq!(descriptors(), before, "{scene}");
    assert_eq!(Arc::strong_count(token), 1, "{scene}: something still holds the handlers");
}

/// Clients that are silent have no threads, also when they all answer their pings at the same moment.
fn a_silent_crowd_has_no_threads() {
    let server = serve(|builder| {
        let builder = builder.ping_interval(Duration::from_millis(200)).ping_timeout(PATIENCE);
        builder.park_after(Duration::from_millis(20)).namespace("/", |_| {})
    });
    let mut crowd: Vec<Ws> =
        (0..100).map(|_| Client::connected(addr(&server), Transport::WebSocket).into_ws()).collect();
    eventually("the crowd is parked", || server.parked_count() == crowd.len());
    eventually("the threads of the crowd are gone", || threads().len() == AT_REST);
    for _ in 0..3 {
        for client in &mut crowd {
            assert_eq!(client.next("the ping"), Frame::text("2"));
        }
        crowd.iter_mut().for_each(|client| client.send("3"));
        assert_eq!(threads().len(), AT_REST, "a pong needs no thread");
    }
    assert_eq!(server.clients_count(), crowd.len());
}

/// A start that fails stops the threads that run already, and closes the store.
fn a_start_without_worker_threads() {
    let path = std::env::temp_dir().join(format!("tinysio-threads-{}", std::process::id()));
    let start = |stack_size| {
        let store = FileStore::new(&path);
        Server::builder()
            .store(store, Durability::EveryPacket)
            .stack_size(stack_size)
            .namespace("/", |_| {})
            .listen("127.0.0.1:0")
    };
    // No address space has room for this stack.
    let refused = start(1 << 50);
    assert!(matches!(refused, Err(StartError::System(_))), "{refused:?}");
    let started = start(512 << 10);
    // The file is locked while a store has it open.
    assert!(started.is_ok(), "{started:?}");
    drop(started);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn nothing_is_left_of_a_server_that_is_gone() {
    let token = Arc::new(());
    let before = descriptors();
    assert_eq!(threads(), Vec::<String>::new());

    for clients_first in [true, false] {
        let (server, clients, others) = scene(&token);
        // A new thread has its parent's name until it runs.
        eventually("each thread has its name", || {
            let running = threads();
            let one = |name: &str| running.iter().filter(|running| *running == name).count() == 1;
            running.len() >= AT_REST && ALWAYS.into_iter().all(one)
        });
        if clients_first {
            drop((clients, others));
            eventually("the threads of the connections are gone", || threads().len() == AT_REST);
            drop(server);
        } else {
            drop(server);
            no_thread_is_left("a drop waits for every thread");
            drop((clients, others));
        }
        check_nothing_left(before, &token, &format!("dropped, clients first: {clients_first}"));
    }

    // A stop with a deadline that some clients let pass.
    let (server, clients, others) = scene(&token);
    assert!(server.shutdown(Duration::from_millis(100)));
    no_thread_is_left("a stop waits for every thread");
    drop((server, clients, others));
    check_nothing_left(before, &token, "stopped");

    // Many sessions one after the other leave nothing while the server lives on.
    let server = serve(|builder| builder.max_connections(4).namespace("/", |_| {}));
    for n in 0..90 {
        let transport = [Transport::Polling, Transport::WebSocket, Transport::Upgrade][n % 3];
        let mut client = Client::connected(addr(&server), transport);
        if n % 2 == 0 {
            client.leave();
        } else {
            client.ask();
        }
        drop(client);
        support::all_gone(&server);
    }
    eventually("the threads of the connections are gone", || threads().len() == AT_REST);
    drop(server);
    check_nothing_left(before, &token, "after many sessions");

    a_silent_crowd_has_no_threads();
    check_nothing_left(before, &token, "after a silent crowd");

    a_start_without_worker_threads();
    check_nothing_left(before, &token, "after a start that has failed");

    // A handler that outlives its server keeps only its own thread.
    let (release, blocked) = mpsc::channel::<()>();
    let (report, reports) = mpsc::channel();
    let (blocked, held) = (Mutex::new(blocked), Arc::clone(&token));
    let server = serve(|builder| {
        builder.namespace("/", |ns| {
            ns.on("block", move |socket, _| {
                assert!(Arc::strong_count(&held) > 0);
                report.send(socket.clone()).unwrap();
                next(&blocked.lock().unwrap(), "the release");
            });
        })
    });
    let mut client = Client::connected(addr(&server), Transport::WebSocket);
    client.send(r#"42["block"]"#);
    let socket = next(&reports, "the handler");
    drop(server);
    assert_eq!(threads().len(), 1, "{:?}", threads());
    release.send(()).unwrap();
    eventually("the handler's thread is gone", || threads().is_empty());
    // A handle that outlives its server does no harm.
    assert!(socket.emit("x", ()).is_err());
    drop((socket, client, reports, release));
    check_nothing_left(before, &token, "after a handler that blocked");
}
