//! Failing system calls, at every step that there is: the server lives, each end is reported once, and a control client
//! is served.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{check, eventually, go, peer::Peer};
use crate::{
    server::Server,
    sys::{
        sim::{self, Faults},
        thread,
    },
};

/// Some clients on all transports, under these faults; then the faults end, and the server is what it was.
fn survive(faults: Faults) {
    let starts: Arc<AtomicUsize> = Arc::default();
    let ends: Arc<AtomicUsize> = Arc::default();
    let [of_start, of_end] = [Arc::clone(&starts), Arc::clone(&ends)];
    let server = Server::builder()
        .head_timeout(Duration::from_millis(200))
        .upgrade_timeout(Duration::from_millis(200))
        .ping_interval(Duration::from_millis(300))
        .ping_timeout(Duration::from_millis(200))
        .park_after(Duration::from_millis(50))
        .close_timeout(Duration::from_millis(100))
        .namespace("/", move |ns| {
            ns.on_connect(move |_| _ = of_start.fetch_add(1, SeqCst));
            ns.on("echo", |socket, event| socket.namespace().emit("w", event.args()));
            ns.on_disconnect(move |_, _| _ = of_end.fetch_add(1, SeqCst));
        })
        .listen("127.0.0.1:1")
        .expect("it starts");
    sim::set_faults(faults);
    let clients = [0, 1, 2].map(|transport| go(move || client(transport)));
    for client in clients {
        client.join().unwrap();
    }
    sim::set_faults(Faults::default());
    // Sessions whose clients are gone end within their heartbeat; a polling one that was closed, when it is fetched
    // no more.
    let deadline = crate::sys::time::Instant::now() + Duration::from_secs(40);
    while server.clients_count() > 0 && crate::sys::time::Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(server.clients_count(), 0);
    eventually("each end is told once", || starts.load(SeqCst) == ends.load(SeqCst));
    assert_eq!(server.outbox_bytes(), 0);
    let (mut control_client, _) = Peer::websocket();
    assert!(control_client.say(r#"42["echo","a0"]"#));
    assert_eq!(control_client.words(1), ["a0"]);
    control_client.leave();
    super::all_over(server);
    assert_eq!(starts.load(SeqCst), ends.load(SeqCst));
}

/// Goes as far as it gets. Every answer but a broken one is fine.
fn client(transport: usize) -> Option<()> {
    let mut peer = Peer::connect();
    if transport == 0 {
        peer.ask_websocket("");
        (peer.status()? == 101).then_some(())?;
        peer.packet()?;
        peer.say("40").then_some(())?;
        peer.say(r#"42["echo","a0"]"#).then_some(())?;
        peer.packet()?;
        peer.hang_up();
        return Some(());
    }
    let open = peer.get("")?.pop()?;
    let id = open.split('"').nth(3)?.to_owned();
    (peer.post(&id, "40")? == 200).then_some(())?;
    (peer.post(&id, r#"42["echo","a0"]"#)? == 200).then_some(())?;
    peer.get(&format!("&sid={id}"))?;
    if transport == 2 {
        let mut ws = Peer::connect();
        ws.ask_websocket(&format!("&sid={id}"));
        (ws.status()? == 101).then_some(())?;
        ws.say("2probe").then_some(())?;
        ws.packet()?;
        ws.say("5").then_some(())?;
        ws.say(r#"42["echo","a1"]"#).then_some(())?;
        ws.packet()?;
        ws.hang_up();
    }
    Some(())
}

const CALM: Faults =
    Faults { interrupted: 0, again: 0, short: 0, no_buffers: 0, reset: 0, accept: 0, thread: 0 };

#[test]
fn interrupted_calls_are_repeated() {
    check("EINTR", || survive(Faults { interrupted: 128, ..CALM }));
}

#[test]
fn a_kernel_that_takes_and_gives_single_bytes() {
    check("EAGAIN, short", || survive(Faults { again: 128, short: 255, ..CALM }));
}

#[test]
fn no_buffers() {
    check("ENOBUFS", || survive(Faults { no_buffers: 16, ..CALM }));
}

#[test]
fn resets_at_any_step() {
    check("ECONNRESET", || survive(Faults { reset: 6, ..CALM }));
}

#[test]
fn accepts_that_fail() {
    check("accept", || survive(Faults { accept: 160, ..CALM }));
}

#[test]
fn everything_at_once() {
    let faults =
        Faults { interrupted: 32, again: 64, short: 128, no_buffers: 2, reset: 2, accept: 64, ..CALM };
    check("everything", move || survive(faults));
}
