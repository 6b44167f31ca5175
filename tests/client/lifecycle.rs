//! Nothing hangs and nothing is left: ends in every state and from every handler, restarts, threads, processor time.

use std::{
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rstest::rstest;
use tinysio::client::{Client, ConnectionState, Delivery, Error, Handle, Socket, TransportKind};

use crate::{
    hostile::{opens_only, silent},
    support::{LONG, Way, alone, hear, own_server, prompt, quick, threads, until, url_of},
};

/// Every state that a connection can be in, as a client that is in it.
fn in_state(state: &str, way: Way) -> (Client, Vec<tinysio::Server>) {
    let mut servers = Vec::new();
    let url = match state {
        "idle" | "joined" | "upgrading" => {
            servers.push(own_server("127.0.0.1:0"));
            url_of(&servers[0])
        }
        "waiting" => {
            format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
        }
        "attempting" => silent(),
        "joining" => opens_only(),
        "resolving" => "http://no-such-name.invalid".into(),
        other => unreachable!("{other}"),
    };
    let client = way.set(Client::builder(&url)).build().unwrap();
    let socket = client.socket("/");
    match state {
        "idle" => {}
        "joined" => client.connect().unwrap(),
        _ => client.start().unwrap(),
    }
    match state {
        "waiting" => until("the delay", || client.status().state == ConnectionState::Reconnecting),
        "joined" => until("the join", || socket.is_connected()),
        "attempting" => until("the attempt", || client.stats().attempts == 1),
        "joining" => until("the session", || client.status().transport.is_some()),
        _ => {}
    }
    let _ = socket.emit("silent", "x".repeat(10_000));
    (client, servers)
}

const STATES: [&str; 7] = ["idle", "attempting", "resolving", "waiting", "joining", "joined", "upgrading"];

#[rstest]
fn every_state_can_be_left_at_once(
    #[values(0, 1, 2, 3, 4, 5, 6)] state: usize,
    #[values(Way::Polling, Way::Upgrade)] way: Way,
) {
    let state = STATES[state];
    let (client, _servers) = in_state(state, way);
    prompt("disconnect", || client.disconnect());
    assert_eq!(client.status().state, ConnectionState::Disconnected);
    prompt("wait", || client.wait().unwrap());
    prompt("drop", || drop(client));

    let (client, _servers) = in_state(state, way);
    let (handle, socket) = (client.handle().clone(), client.socket("/"));
    // Somebody else waits meanwhile, for everything there is to wait for.
    let waiting: Vec<_> = (0..4)
        .map(|what| {
            let (handle, socket) = (handle.clone(), socket.clone());
            let wait = move || match what {
                0 => drop(handle.wait()),
                1 => drop(handle.wait_connected(LONG)),
                2 => drop(socket.emit_with_ack("silent", (), LONG)),
                _ => drop(handle.connect()),
            };
            std::thread::Builder::new().spawn(wait).unwrap()
        })
        .collect();
    prompt("drop", || drop(client));
    prompt("the others", || waiting.into_iter().for_each(|thread| thread.join().unwrap()));
    assert!(matches!(socket.emit("late", ()), Err(Error::Closed)));
    assert!(matches!(handle.start(), Err(Error::Closed)));
    assert!(matches!(prompt("connect", || handle.connect()), Err(Error::Closed)));
    assert!(handle.wait().is_ok() && !socket.is_connected());
}

/// Where a handler ends the client.
const PLACES: [&str; 11] = [
    "connect",
    "disconnect",
    "connect_error",
    "event",
    "any",
    "ack",
    "scheduled",
    "attempt",
    "reconnect",
    "error",
    "auth",
];

/// Sets handlers that call `act` in `place`, once.
fn act_in(place: &str, client: &Client, act: &Arc<dyn Fn() + Send + Sync>) {
    let socket = client.socket("/");
    let act = {
        let (act, done) = (act.clone(), AtomicU32::new(0));
        Arc::new(move || {
            if done.fetch_add(1, Ordering::SeqCst) == 0 {
                act();
            }
        })
    };
    match place {
        "connect" => socket.on_connect(move |_| act()),
        "disconnect" => socket.on_disconnect(move |_, _| act()),
        "connect_error" => socket.on_connect_error(move |_, _| act()),
        "event" => socket.on("shouted", move |_, _| act()),
        "any" => socket.on_any(move |_, _| act()),
        "ack" => {
            let _ = socket.emit_with_callback("echo", (), LONG, move |_, _| act());
        }
        "scheduled" => client.on_reconnect_scheduled(move |_, _, _| act()),
        "attempt" => client.on_reconnect_attempt(move |_, _| act()),
        "reconnect" => client.on_reconnect(move |_, _| act()),
        "error" => client.on_reconnect_error(move |_, _| act()),
        other => unreachable!("{other}"),
    }
}

/// A client that comes by every handler: first nobody is there, then a server, which then goes and comes back.
fn tour(place: &str, way: Way, end: fn(&Mutex<Option<Client>>)) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let slot: Arc<Mutex<Option<Client>>> = Arc::default();
    let (said, heard) = hear("the end from the handler");
    let act: Arc<dyn Fn() + Send + Sync> = {
        let slot = slot.clone();
        Arc::new(move || {
            let begun = Instant::now();
            end(&slot);
            said.send(begun.elapsed()).unwrap();
        })
    };
    let mut builder = way.set(quick(&format!("http://{address}")));
    if place == "auth" {
        let act = act.clone();
        builder = builder.auth_with(move |_| act());
    }
    let client = builder.build().unwrap();
    if place != "auth" {
        act_in(place, &client, &act);
    }
    let socket = client.socket("/");
    let handle = client.handle().clone();
    *slot.lock().unwrap() = Some(client);
    handle.start().unwrap();
    let _ = socket.emit("shout", ());
    // The second one has failed when the third begins.
    until("an attempt again that fails", || {
        handle.stats().attempts > 2 || handle.status().state == ConnectionState::Disconnected
    });
    let mut server = Some(own_server(&address));
    let begun = Instant::now();
    let took = loop {
        if let Some(took) = heard.within(Duration::from_millis(10)) {
            break took;
        }
        if socket.is_connected() && handle.stats().reconnects == 0 && server.is_some() {
            // Gone, and back.
            drop(server.take());
            until("the loss", || !socket.is_connected());
            server = Some(own_server(&address));
        }
        // The first one may have been lost with the first server.
        let _ = socket.emit_volatile("shout", ());
        assert!(begun.elapsed() < LONG, "{place} was not reached");
    };
    assert!(took < Duration::from_secs(1), "the end from {place} took {took:?}");
    until("the end", || handle.status().state == ConnectionState::Disconnected);
    drop(slot.lock().unwrap().take());
}

#[rstest]
fn every_handler_may_disconnect(
    #[values(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)] place: usize,
    #[values(Way::Polling, Way::Websocket)] way: Way,
) {
    tour(PLACES[place], way, |slot| {
        let handle = slot.lock().unwrap().as_ref().map(|client| client.handle().clone());
        handle.unwrap().disconnect();
    });
}

#[rstest]
fn every_handler_may_drop_the_client(
    #[values(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)] place: usize,
    #[values(Way::Polling, Way::Websocket)] way: Way,
) {
    tour(PLACES[place], way, |slot| {
        let client = slot.lock().unwrap().take();
        drop(client);
    });
}

#[test]
fn every_method_returns_inside_a_handler() {
    let server = own_server("127.0.0.1:0");
    let client = quick(&url_of(&server)).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("the end of the handler");
    socket.on("shouted", move |socket, event| {
        let client = socket.client();
        assert!(matches!(client.wait(), Err(Error::InHandler(_))));
        assert!(matches!(client.wait_timeout(Duration::from_millis(10)), Err(Error::Timeout { .. })));
        client.connect().unwrap();
        client.wait_connected(LONG).unwrap();
        client.start().unwrap();
        client.reconnect_now();
        socket.on("later", |_, _| ());
        socket.off("shouted");
        socket.emit_with_ack("echo", event.args(), LONG).unwrap();
        client.disconnect();
        client.connect().unwrap();
        socket.emit_with_ack("echo", "again", LONG).unwrap();
        socket.disconnect();
        socket.connect().unwrap();
        client.wait_connected(LONG).unwrap();
        let _ = (client.stats(), client.status(), socket.id(), socket.namespace(), client.socket("/"));
        said.send(()).unwrap();
    });
    client.connect().unwrap();
    socket.emit("shout", "x").unwrap();
    heard.next();
}

#[test]
fn a_panic_costs_one_event() {
    let server = own_server("127.0.0.1:0");
    let client = quick(&url_of(&server)).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("the event after the panic");
    socket.on("shouted", move |_, event| {
        let n: u32 = event.arg(0).unwrap();
        assert!(n != 1, "a panic on purpose");
        said.send(n).unwrap();
        if n == 2 { Err("an error on purpose") } else { Ok(()) }
    });
    client.connect().unwrap();
    for n in 0..4 {
        socket.emit("shout", n).unwrap();
    }
    assert_eq!([heard.next(), heard.next(), heard.next()], [0, 2, 3]);
    assert_eq!(client.stats().errors, 2);
    socket.emit_with_callback("echo", (), LONG, |_, _| panic!("on purpose, too")).unwrap();
    until("the third error", || client.stats().errors == 3);
    socket.emit_with_ack("echo", (), LONG).unwrap();
}

#[rstest]
fn a_hundred_restarts(#[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way) {
    let mut server = own_server("127.0.0.1:0");
    let address = server.local_addr().unwrap().to_string();
    let client = way
        .set(Client::builder(&format!("http://{address}")))
        .reconnection_delay(Duration::from_millis(2))
        .reconnection_delay_max(Duration::from_millis(20))
        .build()
        .unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("the event of this round");
    socket.on("shouted", move |_, event| said.send(event.arg::<u32>(0).unwrap()).unwrap());
    client.connect().unwrap();
    for round in 0..100 {
        server.shutdown(Duration::ZERO);
        drop(server);
        // Kept until the next server, or lost with the last one, if it was still there.
        until("the loss", || !socket.is_connected());
        assert_eq!(socket.emit("shout", round).unwrap(), Delivery::Buffered);
        server = own_server(&address);
        assert_eq!(heard.next(), round);
    }
    let stats = client.stats();
    assert!(stats.reconnects >= 100, "{stats:?}");
}

#[rstest]
fn threads_are_few_and_none_is_left(#[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way) {
    if !alone() {
        return;
    }
    for state in STATES {
        for _ in 0..3 {
            let (client, servers) = in_state(state, way);
            let few = threads("sio-").len();
            assert!(few <= 4, "{few} threads in state {state}");
            drop(client);
            drop(servers);
        }
        // At once, but for a name lookup, which ends when the system lets it, and on a machine that is very busy.
        until("the threads' end", || threads("sio-").is_empty());
    }
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let server = own_server("127.0.0.1:0");
    let round = || way.set(quick(&url_of(&server))).build().unwrap().connect().unwrap();
    round();
    until("the server's side", || server.clients_count() == 0);
    let before = files();
    (0..20).for_each(|_| round());
    until("the descriptors", || files() <= before + 2);
}

#[rstest]
fn idle_costs_nothing(
    #[values("idle", "joined", "attempting", "joining", "waiting")] state: &str,
    #[values(Way::Polling, Way::Websocket)] way: Way,
) {
    if !alone() {
        return;
    }
    let (client, _servers) = in_state(state, way);
    // What has begun comes to its rest.
    std::thread::sleep(Duration::from_millis(200));
    let before = crate::support::cpu_of_threads("sio-");
    std::thread::sleep(Duration::from_secs(2));
    let spent = crate::support::cpu_of_threads("sio-") - before;
    println!("{state} {way:?}: {spent:?} in 2 s");
    // The few attempts of "waiting" included.
    assert!(spent < Duration::from_millis(10), "{state} {way:?}: {spent:?} in 2 s");
    drop(client);
}

#[test]
fn a_slow_handler_costs_no_processor_time_either() {
    if !alone() {
        return;
    }
    let server = own_server("127.0.0.1:0");
    let client = Client::builder(&url_of(&server)).event_queue(4).build().unwrap();
    let socket = client.socket("/");
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    socket.on("n", move |_, _| {
        let _ = gone.lock().unwrap().recv_timeout(LONG);
    });
    client.connect().unwrap();
    socket.emit("flood", 1_000).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let before = crate::support::cpu_of_threads("sio-");
    std::thread::sleep(Duration::from_secs(1));
    let spent = crate::support::cpu_of_threads("sio-") - before;
    assert!(spent < Duration::from_millis(5), "{spent:?} while a handler blocks and the queue is full");
    // Also when the server goes meanwhile.
    drop(server);
    let before = crate::support::cpu_of_threads("sio-");
    std::thread::sleep(Duration::from_secs(1));
    let spent = crate::support::cpu_of_threads("sio-") - before;
    assert!(spent < Duration::from_millis(20), "{spent:?} after the server went");
    drop(go);
}

#[rstest]
fn a_unix_socket_carries_everything(#[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way) {
    let path = std::env::temp_dir().join(format!("tinysio-{}-{way:?}.sock", std::process::id()));
    let server = tinysio::Server::builder()
        .namespace("/chat", |ns| {
            ns.on("echo", |_, event| event.ack(event.args()));
        })
        .listen_unix(&path)
        .unwrap();
    let client = way.set(quick(&format!("unix://{}", path.display()))).build().unwrap();
    let socket = client.socket("/chat");
    client.connect().unwrap();
    if way == Way::Upgrade {
        until("the upgrade", || client.status().transport == Some(TransportKind::Websocket));
    }
    let answer = socket.emit_with_ack("echo", ("text", tinysio::Bytes::from_static(b"bytes")), LONG).unwrap();
    assert_eq!(answer.args().attachments().len(), 1);
    assert_eq!(client.http_get("/nothing/here", LONG).unwrap().status, 404);
    assert!(matches!(client.http_get("no path", LONG), Err(Error::Invalid(_))));
    drop(server);
}

#[test]
fn an_auth_that_is_no_object_is_an_error() {
    let server = own_server("127.0.0.1:0");
    let client = quick(&url_of(&server)).auth("a string").build().unwrap();
    let error = client.connect().unwrap_err();
    assert!(matches!(&error, Error::Invalid(text) if text.starts_with("auth")), "{error}");
    assert_eq!(client.status().state, ConnectionState::Disconnected);
}

#[test]
fn a_thousand_threads_worth_of_calls_at_once() {
    let server = own_server("127.0.0.1:0");
    let client = quick(&url_of(&server)).build().unwrap();
    let socket = client.socket("/");
    let answers = Arc::new(AtomicU32::new(0));
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let (socket, answers, handle): (Socket, _, Handle) =
                (socket.clone(), answers.clone(), client.handle().clone());
            let work = move || {
                for n in 0..100 {
                    match worker {
                        0 if n % 20 == 10 => handle.disconnect(),
                        1 if n % 10 == 0 => drop(handle.connect()),
                        _ if n % 3 == 0 => drop(socket.emit_volatile("shout", n)),
                        _ => {
                            let timeout = Duration::from_millis(200);
                            answers.fetch_add(
                                u32::from(socket.emit_with_ack("echo", n, timeout).is_ok()),
                                Ordering::SeqCst,
                            );
                        }
                    }
                }
            };
            std::thread::Builder::new().spawn(work).unwrap()
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    client.connect().unwrap();
    socket.emit_with_ack("echo", (), LONG).unwrap();
    assert!(answers.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_dropped_client_leaves_no_handler_behind() {
    let server = own_server("127.0.0.1:0");
    let held = Arc::new(());
    let client = quick(&url_of(&server)).build().unwrap();
    let (in_event, in_any, in_hook) = (held.clone(), held.clone(), held.clone());
    client.socket("/").on("x", move |_, _| drop(in_event.clone()));
    client.socket("/").on_any(move |_, _| drop(in_any.clone()));
    client.on_reconnect(move |_, _| drop(in_hook.clone()));
    client.connect().unwrap();
    drop(client);
    until("the handlers' end", || Arc::strong_count(&held) == 1);
}
