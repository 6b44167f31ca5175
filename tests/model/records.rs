//! Log records of the hub's thread: worker threads deliver all of them before a stop returns, also to a logger that
//! waits for the hub, and when no further thread can be started.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{MOODY, check, go, log_with, peer::Peer};
use crate::{
    server::Server,
    sys::{
        channel::bounded,
        sim::{self, Faults},
        thread,
    },
};

const CLIENTS: usize = 2;

/// The hub refuses two rooms of each client. `threads`: a thread can be started. Otherwise a stop does not know whether
/// every handler has run.
fn scene(threads: bool, logger: fn(&Server)) {
    let (joined, ids) = bounded(CLIENTS);
    let server = Server::builder()
        .max_rooms(1)
        .namespace("/", move |ns| {
            ns.on("join", move |socket, _| {
                ["a", "b", "c"].into_iter().for_each(|room| socket.join(room));
                joined.send(socket.id().to_owned()).expect("the scene waits");
            });
        })
        .listen("127.0.0.1:1");
    let server = Arc::new(server.expect("it starts"));
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let (server_of_logger, heard_by_logger) = (Arc::downgrade(&server), Arc::clone(&heard));
    log_with(move |text| {
        let Some((id, _)) = text.split_once(": refused to join") else { return };
        logger(&server_of_logger.upgrade().expect("it has not stopped"));
        heard_by_logger.lock().unwrap().push(id.trim_start_matches("socket ").to_owned());
    });
    let clients = [(); CLIENTS].map(|()| go(|| Peer::websocket().0));
    let clients = clients.map(|client| client.join().expect("it connects"));
    sim::set_faults(Faults { thread: if threads { 0 } else { 255 }, ..MOODY });
    clients.iter().for_each(|client| _ = client.say(r#"42["join"]"#));
    let mut expected: Vec<String> = (0..CLIENTS).map(|_| ids.recv().expect("it joins")).collect();
    drop(clients);
    assert!(server.shutdown(Duration::from_secs(1)) || !threads, "every thread has ended");
    expected.extend(expected.clone());
    expected.sort();
    let mut heard = heard.lock().unwrap();
    heard.sort();
    assert_eq!(*heard, expected);
}

#[test]
fn a_logger_that_takes_its_time() {
    check("records, slow", || scene(true, |_| thread::sleep(Duration::from_millis(5))));
}

#[test]
fn a_logger_that_asks_the_hub() {
    check("records, hub", || scene(true, |server| _ = server.of("/").expect("it is there").room_len("a")));
}

#[test]
fn no_thread_for_the_delivery() {
    check("records, no thread", || scene(false, |_| {}));
}
