//! Each closure that the client takes, and what it may do: panic, block, block while the client ends, call everything,
//! hold a lock that others want. The client, its other namespaces and its heartbeat go on.

use std::{
    net::TcpListener,
    sync::{
        Arc, Condvar, Mutex, Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rstest::rstest;
use tinysio::{
    client::{Builder, Client, ConnectionState, Error, Handle, OwnedArgs, Socket},
    server::Config,
};

use crate::support::{LONG, Way, alone, hear, prompt, quick, threads, until};

/// Where a closure of the user's runs: the name in the log, and whether it runs while a session is open that must last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    On,
    OnReserved,
    OnAny,
    OnConnect,
    OnDisconnect,
    OnConnectError,
    Callback,
    OnReconnectScheduled,
    OnReconnectAttempt,
    OnReconnect,
    OnReconnectError,
    OnReconnectFailed,
    AuthWith,
}

impl Place {
    fn in_log(self) -> &'static str {
        match self {
            Self::On | Self::OnAny => "\"shouted\"",
            Self::OnReserved | Self::OnConnect => "\"connect\"",
            Self::OnDisconnect => "\"disconnect\"",
            Self::OnConnectError => "\"connect_error\"",
            Self::Callback => "the callback of \"echo\"",
            Self::OnReconnectScheduled => "\"reconnect_scheduled\"",
            Self::OnReconnectAttempt => "\"reconnect_attempt\"",
            Self::OnReconnect => "\"reconnect\"",
            Self::OnReconnectError => "\"reconnect_error\"",
            Self::OnReconnectFailed => "\"reconnect_failed\"",
            Self::AuthWith => "the auth function",
        }
    }

    /// Whether the log can say which namespace it was.
    fn has_namespace(self) -> bool {
        !matches!(
            self,
            Self::OnReconnectScheduled
                | Self::OnReconnectAttempt
                | Self::OnReconnect
                | Self::OnReconnectError
                | Self::OnReconnectFailed
        )
    }

    /// Whether the session in which it is called must survive it.
    fn in_session(self) -> bool {
        matches!(self, Self::On | Self::OnReserved | Self::OnAny | Self::OnConnect | Self::Callback)
    }

    fn set(self, client: &Client, act: Act) {
        let socket = client.socket("/");
        match self {
            Self::On => socket.on("shouted", move |_, _| act()),
            Self::OnReserved => socket.on("connect", move |_, _| act()),
            Self::OnAny => socket.on_any(move |_, _| act()),
            Self::OnConnect => socket.on_connect(move |_| act()),
            Self::OnDisconnect => socket.on_disconnect(move |_, _| act()),
            Self::OnConnectError => socket.on_connect_error(move |_, _| act()),
            Self::Callback => {
                let callback = move |_: &Socket, _: Result<OwnedArgs, Error>| act();
                socket.emit_with_callback("echo", (), LONG, callback).map(drop).unwrap();
            }
            Self::OnReconnectScheduled => client.on_reconnect_scheduled(move |_, _, _| act()),
            Self::OnReconnectAttempt => client.on_reconnect_attempt(move |_, _| act()),
            Self::OnReconnect => client.on_reconnect(move |_, _| act()),
            Self::OnReconnectError => client.on_reconnect_error(move |_, _| act()),
            Self::OnReconnectFailed => client.on_reconnect_failed(move |_| act()),
            Self::AuthWith => {}
        }
    }
}

type Act = Box<dyn Fn() + Send + Sync>;

/// What the log has said, of all tests of this process.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A client that the logger calls with every line, as one that sends the log somewhere would.
static CLIENT: Mutex<Option<Handle>> = Mutex::new(None);

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        LOG.lock().unwrap().push(record.args().to_string());
        let client = CLIENT.lock().unwrap().clone();
        if let Some(client) = client {
            let _ = (client.status(), client.stats());
            // The lines of what is below the client are about each frame: to emit for those would never end.
            if record.target().starts_with("tinysio::client") {
                let _ = client.socket("/").emit_volatile("log", "a line");
            }
        }
    }
    fn flush(&self) {}
}

fn keep_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Logger).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
}

/// A server with a heartbeat that a handler of two seconds would miss twice.
fn server(address: &str) -> tinysio::Server {
    let mut config = Config::default();
    (config.ping_interval, config.ping_timeout) = (Duration::from_millis(400), Duration::from_millis(400));
    let mut server = None;
    until("the port", || {
        let mut builder = tinysio::Server::builder().config(config.clone());
        for namespace in ["/", "/other"] {
            builder = builder.namespace(namespace, |ns| {
                ns.on("echo", |_, event| event.ack(event.args()))
                    .on("shout", |socket, event| socket.emit("shouted", event.args()));
            });
        }
        server = builder.listen(address).inspect_err(|error| println!("{error}")).ok();
        server.is_some()
    });
    server.unwrap()
}

/// A client on its way to one place.
struct Visit {
    place: Place,
    address: String,
    client: Client,
    socket: Socket,
    /// A namespace whose handlers do nothing bad.
    other: Socket,
    server: Option<tinysio::Server>,
}

impl Visit {
    /// Prepares everything, with `deed` to be done once, in the place.
    fn prepare(place: Place, way: Way, deed: impl Fn() + Send + Sync + 'static) -> Self {
        keep_log();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let done = AtomicBool::new(false);
        let once: Act = Box::new(move || {
            if !done.swap(true, Ordering::SeqCst) {
                deed();
            }
        });
        let builder = way.set(quick(&format!("http://{address}")));
        let builder: Builder = match place {
            Place::AuthWith => {
                return Self::of(
                    place,
                    address,
                    builder.auth_with(move |namespace| {
                        if namespace == "/" {
                            once();
                        }
                    }),
                    None,
                );
            }
            Place::OnReconnectFailed => builder.reconnection_attempts(2),
            _ => builder,
        };
        Self::of(place, address, builder, Some(once))
    }

    fn of(place: Place, address: String, builder: Builder, once: Option<Act>) -> Self {
        let client = builder.build().unwrap();
        let (socket, other) = (client.socket("/"), client.socket("/other"));
        if let Some(once) = once {
            place.set(&client, once);
        }
        Self { place, address, client, socket, other, server: None }
    }

    fn serve(&mut self) {
        self.server = Some(server(&self.address));
    }

    /// Goes where the place is.
    fn go(&mut self) {
        match self.place {
            Place::OnConnectError
            | Place::OnReconnectScheduled
            | Place::OnReconnectAttempt
            | Place::OnReconnectError
            | Place::OnReconnectFailed => self.client.start().unwrap(),
            _ => {
                self.serve();
                self.client.start().unwrap();
                let _ = self.socket.emit("shout", ());
            }
        }
        if matches!(self.place, Place::OnDisconnect | Place::OnReconnect) {
            until("the join", || self.socket.is_connected());
            self.server = None;
            until("the loss", || !self.socket.is_connected());
            self.serve();
        }
    }

    /// Everything works: both namespaces, their handlers, acknowledgements. And the end comes in time.
    fn works(mut self) {
        if self.server.is_none() {
            self.serve();
        }
        let connected = || {
            // It may have given up, or have been disconnected.
            if self.client.status().state == ConnectionState::Disconnected {
                let _ = self.client.start();
            }
            self.socket.is_connected() && self.other.is_connected()
        };
        until("the join", connected);
        for socket in [&self.socket, &self.other] {
            socket.emit_with_ack("echo", (), LONG).unwrap();
            let (said, heard) = hear("an event after the deed");
            socket.on("shouted", move |_, _| said.send(()).unwrap_or_default());
            socket.emit("shout", ()).unwrap();
            heard.next();
        }
        let Self { client, .. } = self;
        prompt("drop", || drop(client));
    }
}

/// Something that a test opens and handlers wait for.
#[derive(Default)]
struct Gate(Mutex<(bool, bool)>, Condvar);

impl Gate {
    /// Waits until it is opened, by a handler that is now in it.
    fn pass(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        self.1.notify_all();
        drop(self.1.wait_timeout_while(state, LONG, |(_, open)| !*open).unwrap());
    }

    /// Waits until a handler is in it.
    fn is_entered(&self) {
        let state = self.0.lock().unwrap();
        let (state, timeout) = self.1.wait_timeout_while(state, LONG, |(entered, _)| !*entered).unwrap();
        assert!(!timeout.timed_out() && state.0, "no handler has come");
    }

    fn open(&self) {
        self.0.lock().unwrap().1 = true;
        self.1.notify_all();
    }
}

/// Its destructor panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a destructor, on purpose");
        }
    }
}

/// Both ways at once: the tests mostly wait.
fn both_ways(run: impl Fn(Way) + Send + Sync) {
    std::thread::scope(|scope| {
        for way in [Way::Polling, Way::Websocket] {
            let run = &run;
            std::thread::Builder::new()
                .name(format!("{way:?}"))
                .spawn_scoped(scope, move || run(way))
                .unwrap();
        }
    });
}

#[rstest]
fn a_panic_costs_one_call(
    #[values(
        Place::On,
        Place::OnReserved,
        Place::OnAny,
        Place::OnConnect,
        Place::OnDisconnect,
        Place::OnConnectError,
        Place::Callback,
        Place::OnReconnectScheduled,
        Place::OnReconnectAttempt,
        Place::OnReconnect,
        Place::OnReconnectError,
        Place::OnReconnectFailed,
        Place::AuthWith
    )]
    place: Place,
    #[values(false, true)] bomb: bool,
) {
    both_ways(|way| {
        let mut visit = Visit::prepare(place, way, move || {
            if bomb {
                std::panic::panic_any(Bomb);
            }
            panic!("in a closure, on purpose");
        });
        visit.go();
        let (client, socket) = (visit.client.handle().clone(), visit.socket.clone());
        until("the panic", || client.stats().errors > 0);
        let text = if bomb { "panicked: (no text)" } else { "panicked: in a closure, on purpose" };
        let is_told = |line: &String| {
            line.contains(text)
                && line.contains(place.in_log())
                && line.contains(&format!("client of {}", visit.address))
                && (!place.has_namespace() || line.contains(r#"of namespace "/""#))
        };
        until("the log", || LOG.lock().unwrap().iter().any(is_told));
        if place.in_session() {
            until("the join", || socket.is_connected());
            assert_eq!(client.stats().disconnects, 0);
        }
        visit.works();
    });
}

#[rstest]
fn a_closure_may_block_for_two_seconds(
    #[values(
        Place::On,
        Place::OnReserved,
        Place::OnAny,
        Place::OnConnect,
        Place::OnDisconnect,
        Place::OnConnectError,
        Place::Callback,
        Place::OnReconnectScheduled,
        Place::OnReconnectAttempt,
        Place::OnReconnect,
        Place::OnReconnectError,
        Place::OnReconnectFailed,
        Place::AuthWith
    )]
    place: Place,
) {
    both_ways(|way| {
        let (said, heard) = hear("the end of the block");
        let mut visit = Visit::prepare(place, way, move || {
            std::thread::sleep(Duration::from_secs(2));
            said.send(()).unwrap();
        });
        visit.go();
        heard.next();
        if place.in_session() || place == Place::AuthWith {
            assert_eq!(visit.client.stats().disconnects, 0, "the heartbeat goes on");
        }
        visit.works();
    });
}

#[rstest]
fn the_client_ends_in_time_while_a_closure_blocks(
    #[values(
        Place::On,
        Place::OnReserved,
        Place::OnAny,
        Place::OnConnect,
        Place::OnDisconnect,
        Place::OnConnectError,
        Place::Callback,
        Place::OnReconnectScheduled,
        Place::OnReconnectAttempt,
        Place::OnReconnect,
        Place::OnReconnectError,
        Place::OnReconnectFailed,
        Place::AuthWith
    )]
    place: Place,
) {
    both_ways(|way| {
        let gate = Arc::new(Gate::default());
        let pass = gate.clone();
        let mut visit = Visit::prepare(place, way, move || pass.pass());
        visit.go();
        gate.is_entered();
        let (client, server) = (visit.client, visit.server);
        prompt("disconnect", || client.disconnect());
        assert_eq!(client.status().state, ConnectionState::Disconnected);
        if let Some(server) = &server {
            until("the end at the server", || server.clients_count() == 0);
        }
        prompt("drop", || drop(client));
        gate.open();
        // The handlers that were set are dropped once the last thread has ended.
        assert!(matches!(visit.socket.emit("late", ()), Err(Error::Closed)));
    });
}

/// Calls everything that can be called, and leaves the client connecting.
fn call_everything(socket: &Socket) {
    let client = socket.client().clone();
    let short = Duration::from_millis(20);
    let _ = (client.stats(), client.status(), client.namespace(), client.socket("/other").id());
    let _ = (socket.id(), socket.namespace(), socket.is_connected(), socket.recovered());
    let _ = (client.wait_timeout(short), client.wait_connected(short), client.http_get("/", short));
    let _ = (socket.emit("x", ()), socket.emit_volatile("x", ()), socket.emit_with_ack("echo", (), short));
    let _ = socket.emit_with_callback("echo", (), short, |_, _| ());
    socket.on("nothing", |_, _| ());
    socket.on_any(|_, _| ());
    socket.off("nothing");
    socket.on_connect(|_| ());
    socket.on_disconnect(|_, _| ());
    socket.on_connect_error(|_, _| ());
    client.on_reconnect(|_, _| ());
    client.on_reconnect_attempt(|_, _| ());
    client.on_reconnect_error(|_, _| ());
    client.on_reconnect_failed(|_| ());
    client.on_reconnect_scheduled(|_, _, _| ());
    socket.disconnect();
    socket.connect().unwrap();
    let _ = client.disconnect_within(short);
    client.reconnect_now();
    client.disconnect();
    client.start().unwrap();
}

#[rstest]
fn a_closure_may_call_everything(
    #[values(
        Place::On,
        Place::OnReserved,
        Place::OnAny,
        Place::OnConnect,
        Place::OnDisconnect,
        Place::OnConnectError,
        Place::Callback,
        Place::OnReconnectScheduled,
        Place::OnReconnectAttempt,
        Place::OnReconnect,
        Place::OnReconnectError,
        Place::OnReconnectFailed,
        Place::AuthWith
    )]
    place: Place,
) {
    both_ways(|way| {
        let (said, heard) = hear("the end of the calls");
        let slot: Arc<Mutex<Option<Socket>>> = Arc::default();
        let its = slot.clone();
        let mut visit = Visit::prepare(place, way, move || {
            let socket = its.lock().unwrap().clone().unwrap();
            call_everything(&socket);
            said.send(()).unwrap();
        });
        *slot.lock().unwrap() = Some(visit.socket.clone());
        visit.go();
        heard.next();
        visit.works();
    });
}

#[rstest]
fn a_closure_may_hold_a_lock_that_others_want(
    #[values(
        Place::On,
        Place::OnReserved,
        Place::OnAny,
        Place::OnConnect,
        Place::OnDisconnect,
        Place::OnConnectError,
        Place::Callback,
        Place::OnReconnectScheduled,
        Place::OnReconnectAttempt,
        Place::OnReconnect,
        Place::OnReconnectError,
        Place::OnReconnectFailed,
        Place::AuthWith
    )]
    place: Place,
) {
    both_ways(|way| {
        let lock = Arc::new(Mutex::new(()));
        let (said, heard) = hear("the deed");
        let held = lock.clone();
        let mut visit = Visit::prepare(place, way, move || {
            let _held = held.lock().unwrap();
            std::thread::sleep(Duration::from_millis(200));
            said.send(()).unwrap();
        });
        // The other namespace's handlers want it too.
        let wanted = lock.clone();
        visit.other.on_any(move |_, _| drop(wanted.lock().unwrap()));
        let wanted = lock.clone();
        visit.other.on_connect(move |_| drop(wanted.lock().unwrap()));
        visit.go();
        heard.next();
        // And somebody who holds it ends the client, while a handler wants it.
        let held = lock.lock().unwrap();
        let _ = visit.other.emit("shout", ());
        prompt("disconnect", || visit.client.disconnect());
        drop(held);
        visit.works();
    });
}

#[test]
fn what_closures_hold_may_panic_when_it_is_dropped() {
    // In a process of its own: it counts threads, and two panics at once would abort it.
    if !alone() {
        return;
    }
    keep_log();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let _server = server(&address);
    for way in [Way::Polling, Way::Websocket, Way::Upgrade] {
        let bombs = || (Bomb, Bomb);
        let held = bombs();
        let builder = way.set(quick(&format!("http://{address}")));
        let client = builder
            .auth_with(move |_| {
                let _ = &held;
            })
            .build()
            .unwrap();
        let socket = client.socket("/");
        for place in [
            Place::On,
            Place::OnReserved,
            Place::OnAny,
            Place::OnConnect,
            Place::OnDisconnect,
            Place::OnConnectError,
            Place::Callback,
            Place::OnReconnectScheduled,
            Place::OnReconnectAttempt,
            Place::OnReconnect,
            Place::OnReconnectError,
            Place::OnReconnectFailed,
        ] {
            let held = Bomb;
            place.set(
                &client,
                Box::new(move || {
                    let _ = &held;
                }),
            );
        }
        client.connect().unwrap();
        // Dropped on the handlers' thread, while it is called.
        let (held, (said, heard)) = (Bomb, hear("the handler that removes itself"));
        socket.on("shouted", move |socket, _| {
            let _ = &held;
            socket.off("shouted");
            said.send(()).unwrap();
        });
        socket.emit("shout", ()).unwrap();
        heard.next();
        // Never called: the client ends first.
        let held = Bomb;
        socket
            .emit_with_callback("nobody acknowledges", (), LONG, move |_, _| {
                let _ = &held;
            })
            .unwrap();
        let (said, heard) = hear("the next event");
        socket.on("shouted", move |_, _| said.send(()).unwrap_or_default());
        socket.emit("shout", ()).unwrap();
        heard.next();
        socket.emit_with_ack("echo", (), LONG).unwrap();
        drop(client);
        drop(socket);
        until("the threads' end", || threads("sio-").is_empty());
    }
    let told = LOG.lock().unwrap().iter().filter(|line| line.contains("Drop of what a handler")).count();
    assert!(told >= 3 * 10, "{told} destructors' panics are in the log");
}

#[test]
fn a_logger_may_call_the_client() {
    // In a process of its own, whose log is all about one client.
    if !alone() {
        return;
    }
    keep_log();
    log::set_max_level(log::LevelFilter::Trace);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let client = quick(&format!("http://{address}")).build().unwrap();
    *CLIENT.lock().unwrap() = Some(client.handle().clone());
    let (socket, nobody) = (client.socket("/"), client.socket("/nobody"));
    let says = |what: &str| {
        until(what, || LOG.lock().unwrap().iter().any(|line| line.contains(what)));
    };
    client.start().unwrap();
    says("no connection");
    let mut served = Some(server(&address));
    says("joined /");
    says("Invalid namespace");
    says("upgraded to websocket");
    socket.on_any(|_, _| panic!("on purpose"));
    socket.emit("shout", ()).unwrap();
    says("on purpose");
    drop(served.take());
    says("connection ended");
    served = Some(server(&address));
    until("the join", || socket.is_connected());
    socket.emit_with_ack("echo", (), LONG).unwrap();
    assert!(!nobody.is_connected());
    prompt("drop", || drop(client));
    drop(served);
}
