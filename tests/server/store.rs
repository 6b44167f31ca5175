//! Stores that fail, panic or block: what it costs the server, and what it says.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use rstest::rstest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;
use tinysio::server::{
    Builder, Change, Durability, Kept, MemoryStore, Namespace, Server, Socket, StartError, StoreError,
    StoreStatus,
};

use crate::support::{
    Client, Transport, addr, eventually,
    gate::{Closed, Gate},
    in_time, next,
    recovery::{Caller, Lost, empty, recovering},
    serve,
    stores::Gated,
};

/// What a test's store does in one of its calls.
type Open = Box<dyn FnMut(&mut MemoryStore) -> Result<Kept, StoreError> + Send>;
type Commit = Box<dyn FnMut(&mut MemoryStore, &[Change]) -> Result<(), StoreError> + Send>;

/// A store that a test makes misbehave.
struct Store {
    kept: MemoryStore,
    open: Open,
    commit: Commit,
    abandon: Box<dyn FnMut() + Send>,
    on_drop: Box<dyn FnMut() + Send>,
}

impl Store {
    fn new(kept: &MemoryStore) -> Self {
        Self {
            kept: kept.clone(),
            open: Box::new(tinysio::server::Store::open),
            commit: Box::new(tinysio::server::Store::commit),
            abandon: Box::new(|| {}),
            on_drop: Box::new(|| {}),
        }
    }
}

impl tinysio::server::Store for Store {
    fn open(&mut self) -> Result<Kept, StoreError> {
        (self.open)(&mut self.kept)
    }
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        (self.commit)(&mut self.kept, changes)
    }
    fn abandon(&mut self) {
        (self.abandon)();
        self.kept.abandon();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        (self.on_drop)();
    }
}

fn failure() -> StoreError {
    StoreError::Other("the test's store fails".into())
}

fn chat(builder: Builder) -> Builder {
    builder.namespace("/", |ns| {
        ns.on("echo", |socket, event| socket.emit("echo", event.args()));
        ns.on("ask", |_, event| event.ack("yes"));
    })
}

/// The server echoes, whatever has become of its store.
fn assert_echoes(server: &Server, transport: Transport) {
    let mut client = Client::connected(addr(server), transport);
    client.send(r#"42["echo",1]"#);
    let echo = client.text("the echo");
    assert!(echo.starts_with(r#"42["echo",1"#), "{echo}");
}

#[rstest]
#[case::an_error(|_: &mut MemoryStore| Err(failure()))]
#[case::a_panic(|_: &mut MemoryStore| panic!("the test's store panics"))]
fn a_store_that_cannot_be_opened_is_an_error_of_the_start(
    #[case] open: fn(&mut MemoryStore) -> Result<Kept, StoreError>,
    #[values(Durability::EveryPacket, Durability::Every(Duration::from_millis(10)))] durability: Durability,
) {
    let begin = || {
        let mut store = Store::new(&MemoryStore::new());
        store.open = Box::new(open);
        chat(Server::builder()).store(store, durability)
    };
    let refused = begin().listen("127.0.0.1:0");
    assert!(matches!(refused, Err(StartError::Store(_))), "{refused:?}");

    let server = begin().store_required(false).listen("127.0.0.1:0").expect("it goes on without");
    assert!(matches!(server.store_watch().status(), StoreStatus::Failed(_)));
    assert_echoes(&server, Transport::WebSocket);
}

/// What is kept in it is there for the next start.
#[test]
fn a_store_that_was_refused_at_the_start_is_not_abandoned() {
    let kept = MemoryStore::new();
    let mut store = Store::new(&kept);
    store.open = Box::new(|_| Err(failure()));
    store.abandon = Box::new(|| panic!("abandoned"));
    let refused = Server::builder().store(store, Durability::EveryPacket).listen("127.0.0.1:0");
    assert!(matches!(refused, Err(StartError::Store(_))), "{refused:?}");
}

/// In every method, on every thread.
#[rstest]
fn a_panic_in_the_store_costs_the_store_only(
    #[values("commit", "abandon", "drop")] method: &str,
    #[values(Durability::EveryPacket, Durability::Every(Duration::from_millis(10)))] durability: Durability,
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    let mut store = Store::new(&MemoryStore::new());
    match method {
        "commit" => store.commit = Box::new(|_, _| panic!("the test's commit panics")),
        "abandon" => {
            store.commit = Box::new(|_, _| Err(failure()));
            store.abandon = Box::new(|| panic!("the test's abandon panics"));
        }
        _ => {
            store.commit = Box::new(|_, _| Err(failure()));
            store.on_drop = Box::new(|| panic!("the test's drop panics"));
        }
    }
    let server = serve(|builder| chat(builder).store(store, durability));
    assert_echoes(&server, transport);
    eventually("the store has failed", || matches!(server.store_watch().status(), StoreStatus::Failed(_)));
    assert_echoes(&server, transport);
    assert!(server.shutdown(WAITS_FOR_CLIENTS), "every thread has ended");
}

/// How long a stop waits for clients that say no more.
const WAITS_FOR_CLIENTS: Duration = Duration::from_millis(200);

/// Longer than the heartbeat allows silence.
const SEVERAL_HEARTBEATS: Duration = Duration::from_secs(4);

/// Heartbeats, questions, new clients that ask for no recovery, and events that need not be kept go on, also on
/// threads that have served a client whose packets wait. What must be durable first waits, and comes in order.
#[rstest]
fn a_store_that_blocks_holds_up_only_what_it_keeps(
    #[values(Duration::from_secs(3), Duration::from_millis(1))] park_after: Duration,
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    let gate = Gate::default();
    let server = serve(|builder| {
        chat(builder.ping_interval(Duration::from_secs(1)).ping_timeout(Duration::from_secs(2)))
            .park_after(park_after)
            .store(Gated(MemoryStore::new(), gate.clone()), Durability::EveryPacket)
    });
    let io = server.of("/").unwrap();
    let mut keeper = Client::connected(addr(&server), Transport::WebSocket);
    let mut other = Client::connected(addr(&server), transport);
    let closed = gate.close();
    keeper.send(r#"42["echo","kept"]"#);
    closed.holds_up("the commit");
    // Its thread emits and acknowledges: both wait, in order.
    keeper.send_texts(&[r#"42["echo",2]"#, r#"420["ask"]"#]);
    let (tell, heard) = mpsc::channel();
    let hears = move || {
        assert!(keeper.text("the first").starts_with(r#"42["echo","kept","#));
        tell.send(()).unwrap();
        assert!(keeper.text("the second").starts_with(r#"42["echo",2,"#));
        keeper.expect(r#"430["yes"]"#);
        keeper
    };
    let hears = thread::Builder::new().spawn(hears).unwrap();

    other.send(r#"421["ask"]"#);
    other.expect(r#"431["yes"]"#);
    assert_eq!(io.room_len("nobody"), 0);
    let mut declining = Client::new(addr(&server), transport);
    declining.join("/", r#"{"recovery":false}"#);
    declining.send_texts(&[r#"42["echo","a"]"#, r#"421["ask"]"#]);
    declining.expect(r#"42["echo","a"]"#);
    declining.expect(r#"431["yes"]"#);

    // Nobody is lost meanwhile.
    let begun = Instant::now();
    while begun.elapsed() < SEVERAL_HEARTBEATS {
        for client in [&mut declining, &mut other] {
            client.send(r#"422["ask"]"#);
            client.expect(r#"432["yes"]"#);
        }
    }
    assert!(heard.try_recv().is_err(), "it is not durable yet");
    drop(closed);
    let _keeper = hears.join().unwrap();
    assert_eq!(io.len(), 3);
}

/// The store of a server that stops is waited for, until the deadline.
#[rstest]
fn a_store_that_blocks_does_not_hold_up_the_stop(
    #[values(Durability::EveryPacket, Durability::Every(Duration::from_millis(1)))] durability: Durability,
) {
    let gate = Gate::default();
    let store = Gated(MemoryStore::new(), gate.clone());
    let server = serve(|builder| chat(builder).store(store, durability));
    let mut client = Client::connected(addr(&server), Transport::WebSocket);
    let closed = gate.close();
    client.send(r#"42["echo","kept"]"#);
    closed.holds_up("the commit");
    drop(client);
    let stopped = in_time("the stop", move || server.shutdown(Duration::from_millis(100)));
    assert!(!stopped, "the store's thread is left to itself");
}

/// Nor when so much waits for it that the hub takes nothing more, and its queue is full.
#[rstest]
fn a_full_queue_behind_a_store_that_blocks_does_not_hold_up_the_stop(
    #[values(Durability::EveryPacket, Durability::Every(Duration::from_millis(1)))] durability: Durability,
) {
    let gate = Gate::default();
    let store = Gated(MemoryStore::new(), gate.clone());
    let server = serve(|builder| chat(builder.hub_queue(16)).store(store, durability));
    let _client = Client::connected(addr(&server), Transport::WebSocket);
    let io = server.of("/").unwrap();
    let closed = gate.close();
    let (emitter, _) = emit_until_it_waits(move |_| io.emit("n", "x".repeat(2_000)).is_ok());
    let stopped = in_time("the stop", move || server.shutdown(Duration::from_millis(100)));
    assert!(!stopped, "the store's thread is left to itself");
    emitter.join().unwrap();
    drop(closed);
}

/// Whose turn has not come in a stop over a window is served as ever: emitters wait for the store, and nothing is
/// dropped.
#[rstest]
fn a_store_that_blocks_loses_nothing_while_sessions_end_one_after_the_other(
    #[values(Durability::EveryPacket, Durability::Every(Duration::from_millis(1)))] durability: Durability,
) {
    const EVENTS: usize = 3_000;
    let gate = Gate::default();
    let store = Gated(MemoryStore::new(), gate.clone());
    let server = Arc::new(serve(|builder| chat(builder.hub_queue(16)).store(store, durability)));
    let mut clients = [(); 2].map(|()| {
        let mut client = Client::new(addr(&server), Transport::WebSocket);
        client.send("40");
        (client.text("the consent"), client)
    });
    let io = server.of("/").unwrap();
    let of_stop = Arc::clone(&server);
    let stop = thread::Builder::new()
        .spawn(move || of_stop.shutdown_spread(Duration::from_secs(120), Duration::from_secs(5)))
        .unwrap();
    eventually("the first has gone", || io.len() == 1);
    let sid = io.sockets()[0].id().to_owned();
    let (_, client) = clients.iter_mut().find(|(consent, _)| consent.contains(&sid)).unwrap();
    let closed = gate.close();
    let (emitter, _) = emit_until_it_waits(numbered(io, EVENTS));
    drop(closed);
    receives_all(client, EVENTS);
    emitter.join().unwrap();
    drop(clients);
    assert!(stop.join().unwrap(), "every thread has ended");
}

/// Emits events of 2 kB with these numbers, until there are so many.
fn numbered(io: Namespace, events: usize) -> impl FnMut(usize) -> bool + Send + 'static {
    move |number| {
        let more = number < events;
        if more {
            io.emit("n", (number, "x".repeat(2_000))).unwrap();
        }
        more
    }
}

/// A thread calls `emit` with numbers from 0 on, until it is `false`. Waits until it emits nothing more, because too
/// much waits for the store. Gives how many it has emitted.
fn emit_until_it_waits(
    mut emit: impl FnMut(usize) -> bool + Send + 'static,
) -> (JoinHandle<()>, Arc<AtomicUsize>) {
    let emitted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&emitted);
    let emits = move || {
        while emit(count.load(SeqCst)) {
            count.fetch_add(1, SeqCst);
        }
    };
    let emitter = thread::Builder::new().spawn(emits).unwrap();
    let mut seen = (0, Instant::now());
    eventually("the emitter waits", || {
        let now = emitted.load(SeqCst);
        if now != seen.0 {
            seen = (now, Instant::now());
        }
        now > 400 && seen.1.elapsed() > Duration::from_millis(300)
    });
    (emitter, emitted)
}

/// The client gets all of them, in their order.
fn receives_all(client: &mut Client, events: usize) {
    for number in 0..events {
        let event = client.text("an event");
        assert!(event.starts_with(&format!(r#"42["n",{number},"#)), "{number}");
    }
}

/// Emitters wait when too much waits for the store; nothing is lost, and the order is kept.
#[rstest]
fn what_waits_for_a_store_that_blocks_is_bounded(
    #[values(Durability::EveryPacket, Durability::Every(Duration::from_millis(1)))] durability: Durability,
) {
    const EVENTS: usize = 3_000;
    let gate = Gate::default();
    let store = Gated(MemoryStore::new(), gate.clone());
    let server = serve(|builder| chat(builder.hub_queue(16)).store(store, durability));
    let mut client = Client::connected(addr(&server), Transport::WebSocket);
    let io = server.of("/").unwrap();
    let closed = gate.close();
    client.send(r#"42["echo","kept"]"#);
    closed.holds_up("the commit");
    let (emitter, emitted) = emit_until_it_waits(numbered(io, EVENTS));
    assert!(emitted.load(SeqCst) < EVENTS, "6 MB were taken at once");
    drop(closed);
    client.text("the echo");
    receives_all(&mut client, EVENTS);
    emitter.join().unwrap();
}

/// Its methods may use everything that the server has, and wait for nothing that waits for them.
#[rstest]
fn a_store_that_uses_the_server_blocks_nothing(
    #[values(Durability::EveryPacket, Durability::Every(Duration::from_millis(1)))] durability: Durability,
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    let mut store = Store::new(&MemoryStore::new());
    let sockets: Arc<Mutex<Option<Socket>>> = Arc::default();
    let (calls, called) = mpsc::channel();
    let of_store = Arc::clone(&sockets);
    store.commit = Box::new(move |kept, changes| {
        if let Some(socket) = of_store.lock().take() {
            let io = socket.namespace();
            let soon = Duration::from_millis(50);
            socket.join("from the store");
            socket.emit("from the store", 1).unwrap();
            let waited = socket.emit_timeout("from the store", 2, soon);
            socket.set_data(1);
            socket.leave("never joined");
            io.to("from the store").emit("from the store", 3).unwrap();
            socket.emit_with_callback("from the store", 4, soon, |_, _| {}).unwrap();
            let acknowledged = socket.emit_with_ack("from the store", 5, soon);
            let found = (socket.rooms().len(), io.sockets().len(), io.room_len("x"), io.len());
            calls.send((waited.is_ok(), acknowledged.is_ok(), found)).unwrap();
        }
        tinysio::server::Store::commit(kept, changes)
    });
    let server = serve(|builder| chat(builder).store(store, durability));
    let mut client = Client::connected(addr(&server), transport);
    *sockets.lock() = server.of("/").unwrap().sockets().pop();
    client.send(r#"420["ask"]"#);
    client.send(r#"42["echo","to be kept"]"#);
    assert_eq!(next(&called, "the commit"), (true, false, (0, 0, 0, 1)));
    let mut heard = 0;
    while heard < 6 {
        heard += usize::from(client.text("what the store has emitted").starts_with("42"));
    }
    assert!(server.shutdown(WAITS_FOR_CLIENTS), "every thread has ended");
}

/// The log, the members and who is away are written to a store that works again, and a restart finds them.
#[rstest]
fn a_store_that_works_again_has_everything(
    #[values(Durability::EveryPacket, Durability::Every(Duration::from_millis(1)))] durability: Durability,
    #[values("at the start", "later")] fails: &str,
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    let kept = MemoryStore::new();
    let mut store = Store::new(&kept);
    let mut failures = if fails == "later" { 0 } else { 1 };
    store.open = Box::new(move |kept| {
        if failures > 0 {
            failures -= 1;
            return Err(failure());
        }
        tinysio::server::Store::open(kept)
    });
    let broken = Arc::new(AtomicBool::new(false));
    let of_store = Arc::clone(&broken);
    store.commit = Box::new(move |kept, changes| {
        if of_store.load(SeqCst) { Err(failure()) } else { tinysio::server::Store::commit(kept, changes) }
    });
    let begin =
        |store| recovering(|builder| builder.store(store, durability).store_required(fails == "later"));
    let (server, io) = begin(store);
    let mut caller = Caller::new(addr(&server), transport);
    caller.client.send(r#"42["join","a room"]"#);
    broken.store(fails == "later", SeqCst);
    io.emit("while it works, or not", ()).unwrap();
    caller.expect(json!(["while it works, or not"]));
    if fails == "later" {
        eventually("it has failed", || matches!(server.store_watch().status(), StoreStatus::Failed(_)));
    }
    let lost = caller.lose();
    empty(&io);
    io.to("a room").emit("missed while it does not", ()).unwrap();
    broken.store(false, SeqCst);
    eventually("it works again", || server.store_watch().status() == StoreStatus::Working);
    io.to("a room").emit("missed since", ()).unwrap();
    assert!(server.shutdown(WAITS_FOR_CLIENTS), "every thread has ended");

    let (server, io) = begin(Store::new(&kept));
    let mut caller = Lost { addr: addr(&server), ..lost }.back();
    assert!(caller.recovered);
    caller.expect(json!(["missed while it does not"]));
    caller.expect(json!(["missed since"]));
    io.to("a room").emit("new", ()).unwrap();
    caller.expect(json!(["new"]));
}

/// What a client's data does when it is written or read, by its text.
#[derive(Debug, PartialEq)]
struct Data(String);

static LOCK: Mutex<()> = Mutex::new(());

static GATE: LazyLock<Gate> = LazyLock::new(Gate::default);

impl Data {
    fn act(text: &str) {
        match text {
            "panics" => panic!("the test's data panics"),
            "blocks" => GATE.pass(),
            "takes a lock" => drop(LOCK.lock()),
            _ => {}
        }
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(how) = self.0.strip_prefix("written: ") {
            Self::act(how);
        }
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Some(how) = text.strip_prefix("read: ") {
            Self::act(how);
        }
        Ok(Self(text))
    }
}

/// Holds up data that does this, until it is dropped.
fn hold_up(how: &str) -> (Option<MutexGuard<'static, ()>>, Option<Closed<'static>>) {
    ((how == "takes a lock").then(|| LOCK.lock()), (how == "blocks").then(|| GATE.close()))
}

/// Whatever the data does, other clients are served; a panic costs the data.
#[rstest]
fn data_that_misbehaves_costs_its_own_client_only(
    #[values("written: ", "read: ")] when: &str,
    #[values("panics", "blocks", "takes a lock")] how: &str,
    #[values(Transport::Polling, Transport::WebSocket, Transport::Upgrade)] transport: Transport,
) {
    let kept = MemoryStore::new();
    let begin = || {
        recovering(|builder| {
            builder.store(kept.clone(), Durability::EveryPacket).namespace("/", |ns| {
                ns.keep_data::<Data>();
                ns.on("keep", |socket, event| event.arg(0).map(|text| socket.set_data(Data(text))));
                ns.on("ask", |socket, event| event.ack(socket.data::<Data>().map(|data| data.0.clone())));
            })
        })
    };
    let (server, io) = begin();
    let (mut caller, mut other) =
        (Caller::new(addr(&server), transport), Client::connected(addr(&server), transport));
    let held = hold_up(how);
    caller.client.send(r#"42["keep","at first"]"#);
    caller.expect_nothing();
    let (text, sid) = (format!("{when}{how}"), caller.sid.clone());
    let keeps = move || {
        caller.client.send(&format!(r#"42["keep","{text}"]"#));
        caller.expect_nothing();
        caller.client.send(r#"421["ask"]"#);
        caller.client.expect(&format!(r#"431["{text}"]"#));
        caller
    };
    let keeps = thread::Builder::new().spawn(keeps).unwrap();
    other.send(r#"421["ask"]"#);
    other.expect("431[null]");
    assert_eq!(io.room_len(&sid), 1);
    drop(held);
    let lost = keeps.join().unwrap().lose();
    drop((other, io));
    assert!(server.shutdown(WAITS_FOR_CLIENTS), "every thread has ended");

    let (server, io) = begin();
    let held = hold_up(how);
    let address = addr(&server);
    let returns = thread::Builder::new().spawn(move || Lost { addr: address, ..lost }.back()).unwrap();
    let mut other = Client::connected(address, transport);
    other.send(r#"421["ask"]"#);
    other.expect("431[null]");
    assert_eq!(io.room_len("nobody"), 0);
    drop(held);
    let mut caller = returns.join().unwrap();
    assert!(caller.recovered);
    let found = if how == "panics" { "null".into() } else { format!(r#""{when}{how}""#) };
    caller.client.send(r#"421["ask"]"#);
    caller.client.expect(&format!("431[{found}]"));
}
