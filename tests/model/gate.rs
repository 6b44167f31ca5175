//! The gate: handlers of one session run one at a time, and what is left at it is always worked off. Each
//! acknowledgement is answered once, and each end is reported once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{all_over, check, eventually, go, peer::Peer};
use crate::{
    server::{Server, Socket},
    sys::{
        channel::{Receiver, bounded},
        sync::atomic::AtomicBool,
    },
};

#[derive(Default)]
struct Seen {
    inside: AtomicBool,
    events: AtomicUsize,
    answers: AtomicUsize,
    ends: AtomicUsize,
}

impl Seen {
    /// A handler runs; nobody else may be in one. The swaps are places where others may run.
    fn alone(&self, count: &AtomicUsize) {
        assert!(!self.inside.swap(true, SeqCst), "two handlers of one session at a time");
        count.fetch_add(1, SeqCst);
        crate::sys::thread::sleep(Duration::from_millis(1));
        self.inside.store(false, SeqCst);
    }
}

fn serve(seen: &Arc<Seen>) -> (Server, Receiver<Socket>) {
    let (connected, sockets) = bounded(1);
    let [of_event, of_end] = [Arc::clone(seen), Arc::clone(seen)];
    let server = Server::builder()
        .namespace("/", move |ns| {
            ns.on_connect(move |socket| connected.send(socket.clone()).expect("the scene waits"));
            ns.on("e", move |_, _| of_event.alone(&of_event.events));
            ns.on_disconnect(move |_, _| of_end.alone(&of_end.ends));
        })
        .listen("127.0.0.1:1")
        .expect("it starts");
    (server, sockets)
}

/// Acknowledgements of which some come, some are overdue and some fail with the end: each callback once.
fn asks(socket: &Socket, seen: &Arc<Seen>) -> usize {
    let mut asked = 0;
    for timeout in [1, 20, 5_000] {
        let seen = Arc::clone(seen);
        let timeout = Duration::from_millis(timeout);
        if socket.emit_with_callback("q", (), timeout, move |_, _| seen.alone(&seen.answers)).is_ok() {
            asked += 1;
        }
    }
    asked
}

/// Events on one connection, acknowledgements and a disconnect from other threads.
fn scene(websocket: bool, close: bool) {
    let seen = Arc::new(Seen::default());
    let (server, sockets) = serve(&seen);
    let (mut peer, id) = if websocket { Peer::websocket() } else { Peer::polling() };
    let socket = sockets.recv().unwrap();
    let asker = {
        let (socket, seen) = (socket.clone(), Arc::clone(&seen));
        go(move || asks(&socket, &seen))
    };
    let closer = go(move || socket.disconnect(close));
    for _ in 0..3 {
        let _ = if websocket { peer.say(r#"42["e"]"#) } else { peer.post(&id, r#"42["e"]"#).is_some() };
    }
    let asked = asker.join().unwrap();
    closer.join().unwrap();
    eventually("the end is told", || seen.ends.load(SeqCst) == 1);
    eventually("every callback was called", || seen.answers.load(SeqCst) >= asked);
    assert_eq!(seen.answers.load(SeqCst), asked, "a callback was called of an emit that had failed");
    if websocket {
        peer.leave();
    } else {
        // An event that came behind the disconnect has ended the session, perhaps, and the connection with it.
        if !close {
            Peer::connect().post(&id, "1");
        }
        while Peer::connect().get(&format!("&sid={id}")).is_some_and(|packets| packets != ["1"]) {}
    }
    all_over(server);
    assert_eq!(seen.answers.load(SeqCst), asked, "each callback once");
    assert_eq!(seen.ends.load(SeqCst), 1, "the end once");
    assert!(seen.events.load(SeqCst) <= 3);
}

#[test]
fn handlers_of_a_websocket_run_one_at_a_time() {
    check("gate, websocket", || scene(true, false));
}

#[test]
fn handlers_of_a_polling_session_run_one_at_a_time() {
    check("gate, polling", || scene(false, false));
}

#[test]
fn a_hang_up_comes_in_turn() {
    check("gate, hang-up, websocket", || scene(true, true));
    check("gate, hang-up, polling", || scene(false, true));
}
