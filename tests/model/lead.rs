//! The lead: a handler that waits or takes long delays no other client, and nothing is lost when the lead changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{SOON, all_over, check, go, peer::Peer};
use crate::{
    server::{Builder, Server},
    sys::{
        sync::{Condvar, Mutex, atomic::AtomicBool},
        thread,
        time::Instant,
    },
};

/// Longer than a leader may take, and far shorter than what a client notices.
const SLOW: Duration = Duration::from_millis(20);

fn serve(set_up: impl FnOnce(Builder) -> Builder, ends: &Arc<AtomicUsize>) -> Server {
    let ends = Arc::clone(ends);
    let (meeting, inside) = (Arc::new((Mutex::new(0), Condvar::new())), Arc::new(AtomicBool::new(false)));
    set_up(Server::builder())
        .namespace("/", move |ns| {
            // Waits for the other client's handler.
            ns.on("meet", move |socket, event| {
                let mut arrived = meeting.0.lock();
                *arrived += 1;
                meeting.1.notify_all();
                while *arrived % 2 != 0 {
                    meeting.1.wait(&mut arrived);
                }
                drop(arrived);
                socket.emit("w", event.args())
            });
            ns.on("slow", move |socket, event| {
                assert!(!inside.swap(true, SeqCst), "two handlers of one session at a time");
                thread::sleep(SLOW);
                inside.store(false, SeqCst);
                socket.emit("w", event.args())
            });
            ns.on("ask", |socket, event| {
                // A question to the hub.
                assert!(socket.rooms().is_empty());
                socket.emit("w", event.args())
            });
            ns.on("echo", |socket, event| socket.emit("w", event.args()));
            ns.on_disconnect(move |_, _| _ = ends.fetch_add(1, SeqCst));
        })
        .listen("127.0.0.1:1")
        .expect("it starts")
}

/// Each handler returns when the other one has begun, so a second thread must take the lead.
#[test]
fn handlers_that_wait_for_each_other_both_run() {
    check("lead, two that wait for each other", || {
        let ends = Arc::default();
        let server = serve(|builder| builder, &ends);
        let clients = ["a", "b"].map(|name| {
            go(move || {
                let (mut peer, _) = Peer::websocket();
                assert!(peer.say(&format!(r#"42["meet","{name}"]"#)));
                assert_eq!(peer.words(1), [name]);
                peer.leave();
            })
        });
        for client in clients {
            client.join().expect("it meets the other");
        }
        all_over(server);
        assert_eq!(ends.load(SeqCst), 2);
    });
}

/// A client with slow handlers sends on while they run; another one is answered meanwhile. `alone`: clients keep a
/// thread.
fn slow(alone: bool) {
    let ends = Arc::default();
    let server = serve(|builder| if alone { builder.park_after(None) } else { builder }, &ends);
    let sluggish = go(|| {
        let (mut peer, _) = Peer::websocket();
        for number in 0..4 {
            // The second comes while the first is handled, and the third when the lead may just have changed.
            assert!(peer.say(&format!(r#"42["slow","a{number}"]"#)));
            thread::sleep(if number == 1 { SLOW } else { Duration::ZERO });
        }
        assert_eq!(peer.words(4), ["a0", "a1", "a2", "a3"]);
        peer.leave();
    });
    let (mut peer, _) = Peer::websocket();
    for number in 0..4 {
        let said = Instant::now();
        let event = if number % 2 == 0 { "echo" } else { "ask" };
        assert!(peer.say(&format!(r#"42["{event}","b{number}"]"#)));
        assert_eq!(peer.words(1), [format!("b{number}")]);
        assert!(said.elapsed() < SLOW, "{:?}", said.elapsed());
    }
    peer.leave();
    sluggish.join().expect("it is answered");
    all_over(server);
    assert_eq!(ends.load(SeqCst), 2);
}

#[test]
fn a_slow_handler_delays_its_own_client_only() {
    check("lead, slow handlers", || slow(false));
    check("lead, slow handlers, a thread for each client", || slow(true));
}

/// A stop while the leader waits, works, or hands over.
fn stopped(leaders: usize) {
    let ends = Arc::default();
    let server = serve(|builder| builder.leaders(leaders), &ends);
    let clients = ["slow", "ask"].map(|event| {
        go(move || {
            let (mut peer, _) = Peer::websocket();
            while peer.say(&format!(r#"42["{event}","a"]"#)) && peer.packet().is_some() {}
            peer.hang_up();
        })
    });
    thread::sleep(SLOW / 2);
    assert!(server.shutdown(SOON), "every thread has ended");
    for client in clients {
        client.join().expect("it ends");
    }
}

#[test]
fn a_stop_at_any_moment_ends_every_thread() {
    check("lead, stop", || stopped(1));
    check("lead, stop, two leaders", || stopped(2));
}
