//! The workers' queue: handlers that wait for one another each get a thread.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{all_over, check, eventually, go, peer::Peer};
use crate::{
    server::Server,
    sys::{
        channel::bounded,
        sync::{Condvar, Mutex},
    },
};

/// Each handler returns when all of them have begun: with fewer threads than handlers none would.
fn scene(sessions: usize) {
    let (connected, sockets) = bounded(sessions);
    let meeting = Arc::new((Mutex::new(0), Condvar::new()));
    let ends = Arc::new(AtomicUsize::new(0));
    let of_handlers = (Arc::clone(&meeting), Arc::clone(&ends));
    let server = Server::builder()
        .namespace("/", move |ns| {
            ns.on_connect(move |socket| connected.send(socket.clone()).expect("the scene waits"));
            ns.on_disconnect(move |_, _| {
                let (meeting, ends) = (&of_handlers.0, &of_handlers.1);
                let mut begun = meeting.0.lock();
                *begun += 1;
                meeting.1.notify_all();
                while *begun < sessions {
                    meeting.1.wait(&mut begun);
                }
                ends.fetch_add(1, SeqCst);
            });
        })
        .listen("127.0.0.1:1")
        .expect("it starts");
    let peers: Vec<_> = (0..sessions).map(|_| Peer::polling()).collect();
    let sockets: Vec<_> = (0..sessions).map(|_| sockets.recv().expect("it connects")).collect();
    let closers: Vec<_> = sockets.into_iter().map(|socket| go(move || socket.disconnect(true))).collect();
    for closer in closers {
        closer.join().expect("it disconnects");
    }
    eventually("every handler has returned", || ends.load(SeqCst) == sessions);
    for (_, id) in &peers {
        while Peer::connect().get(&format!("&sid={id}")).is_some_and(|packets| packets != ["1"]) {}
    }
    drop(peers);
    all_over(server);
}

#[test]
fn queued_handlers_that_block_do_not_hold_up_others() {
    check("workers, three that wait for each other", || scene(3));
}

/// A stop while handlers are queued: they run, or the stop says that they did not.
#[test]
fn a_stop_waits_for_queued_handlers() {
    check("workers, stop", || {
        let ends = Arc::new(AtomicUsize::new(0));
        let of_handlers = Arc::clone(&ends);
        let server = Server::builder()
            .namespace("/", move |ns| {
                ns.on_disconnect(move |_, _| _ = of_handlers.fetch_add(1, SeqCst));
            })
            .listen("127.0.0.1:1")
            .expect("it starts");
        let peers: Vec<_> = (0..2).map(|_| Peer::polling()).collect();
        assert!(server.shutdown(Duration::from_millis(10)), "every thread has ended");
        drop(peers);
        assert_eq!(ends.load(SeqCst), 2, "each end is told");
    });
}
