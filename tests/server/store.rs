//! Stores that fail, panic or block: what it costs the server, and what it says.

use std::time::Duration;

use rstest::rstest;
use tinysio::server::{
    Builder, Change, Durability, Kept, MemoryStore, Server, StartError, StoreError, StoreStatus,
};

use crate::support::{Client, Road, addr, eventually, serve};

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
fn assert_echoes(server: &Server, road: Road) {
    let mut client = Client::connected(addr(server), road);
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
    assert_echoes(&server, Road::WebSocket);
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
    #[values(Road::Polling, Road::WebSocket, Road::Upgrade)] road: Road,
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
    assert_echoes(&server, road);
    eventually("the store has failed", || matches!(server.store_watch().status(), StoreStatus::Failed(_)));
    assert_echoes(&server, road);
    assert!(server.shutdown(Duration::from_secs(5)), "every thread has ended");
}
