//! Connections that become idle: every kind of input, wake-up and end at this moment is seen.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{SOON, all_over, check, go, peer::Peer};
use crate::{
    server::{Server, Socket},
    sys::{
        channel::{Receiver, bounded},
        sim, thread,
        time::Instant,
    },
};

const PARK_AFTER: Duration = Duration::from_millis(50);

/// Far beyond everything else: what was lost is not found by a heartbeat that happens to come.
const PING: Duration = Duration::from_secs(100);

/// In haste the clock goes on while threads work, though never so far.
const LATE: Duration = Duration::from_secs(50);

fn serve(ends: &Arc<AtomicUsize>, ping: Duration) -> (Server, Receiver<Socket>) {
    let (connected, sockets) = bounded(4);
    let ends = Arc::clone(ends);
    let server = Server::builder()
        .park_after(PARK_AFTER)
        .ping_interval(ping)
        .ping_timeout(ping)
        .namespace("/", move |ns| {
            ns.on_connect(move |socket| connected.send(socket.clone()).expect("the scene waits"));
            ns.on("echo", |socket, event| socket.emit("w", event.args()));
            ns.on_disconnect(move |_, _| _ = ends.fetch_add(1, SeqCst));
        })
        .listen("127.0.0.1:1")
        .expect("it starts");
    // Parking and waking may meet at every step.
    sim::set_haste(PARK_AFTER);
    (server, sockets)
}

/// A client speaks just when its connection parks.
#[test]
fn the_first_byte_at_the_moment_of_parking_is_not_lost() {
    check("parking, first byte", || {
        let ends = Arc::default();
        let (server, _sockets) = serve(&ends, PING);
        let (mut peer, _) = Peer::websocket();
        for number in 0..3 {
            thread::sleep(PARK_AFTER);
            let said = Instant::now();
            assert!(peer.say(&format!(r#"42["echo","a{number}"]"#)));
            assert_eq!(peer.words(1), [format!("a{number}")]);
            assert!(said.elapsed() < LATE, "{:?}", said.elapsed());
        }
        peer.leave();
        all_over(server);
        assert_eq!(ends.load(SeqCst), 1);
    });
}

/// Half a frame arrives, the connection parks, the other half follows.
#[test]
fn half_a_frame_is_kept_while_parked() {
    check("parking, half a frame", || {
        let ends = Arc::default();
        let (server, _sockets) = serve(&ends, PING);
        let (mut peer, _) = Peer::websocket();
        let mut frame = vec![0x81, 0x80 | 17, 0, 0, 0, 0];
        frame.extend(br#"42["echo","half"]"#);
        for at in [1, 9] {
            assert!(peer.send(&frame[..at]));
            thread::sleep(PARK_AFTER);
            assert!(peer.send(&frame[at..]));
            assert_eq!(peer.words(1), ["half"]);
        }
        peer.leave();
        all_over(server);
        assert_eq!(ends.load(SeqCst), 1);
    });
}

/// Emits while a connection parks, on WebSocket and to a held GET.
fn emits(websocket: bool) {
    let ends = Arc::default();
    let (server, sockets) = serve(&ends, PING);
    let (mut peer, id) = if websocket { Peer::websocket() } else { Peer::polling() };
    let socket = sockets.recv().unwrap();
    let emitter = go(move || {
        for number in 0..3 {
            thread::sleep(PARK_AFTER);
            socket.emit("w", format!("a{number}")).expect("the client is there");
        }
    });
    let mut heard = Vec::new();
    let began = Instant::now();
    while heard.len() < 3 {
        if websocket {
            heard.extend(peer.words(1));
            continue;
        }
        let packets = peer.get(&format!("&sid={id}")).expect("the session lives");
        if packets.iter().any(|packet| packet == "2") {
            assert_eq!(peer.post(&id, "3"), Some(200));
        }
        heard.extend(packets.iter().filter_map(|packet| super::peer::word(packet)));
    }
    assert!(began.elapsed() < LATE, "{:?}", began.elapsed());
    assert_eq!(heard, ["a0", "a1", "a2"]);
    emitter.join().unwrap();
    if websocket {
        peer.leave();
    } else {
        peer.post(&id, "1");
    }
    all_over(server);
    assert_eq!(ends.load(SeqCst), 1);
}

#[test]
fn an_emit_at_the_moment_of_parking_is_not_lost() {
    check("parking, emit, websocket", || emits(true));
    check("parking, emit, held GET", || emits(false));
}

/// Silence but for pongs: the heartbeat lives through parking, and a client that stops answering is found out.
#[test]
fn heartbeats_of_parked_connections() {
    check("parking, heartbeat", || {
        let ends = Arc::default();
        let (server, sockets) = serve(&ends, 4 * PARK_AFTER);
        sim::set_haste(Duration::from_millis(2));
        let (mut peer, _) = Peer::websocket();
        let socket = sockets.recv().unwrap();
        let late = go(move || {
            thread::sleep(20 * PARK_AFTER);
            let emitted = socket.emit("w", "late");
            assert!(emitted.is_ok(), "answered every ping, and yet: {emitted:?}");
        });
        assert_eq!(peer.words(1), ["late"]);
        late.join().unwrap();
        // From now on silent.
        let silent = Instant::now();
        super::eventually("the silent client is found out", || server.clients_count() == 0);
        assert!(silent.elapsed() >= PARK_AFTER);
        peer.hang_up();
        all_over(server);
        assert_eq!(ends.load(SeqCst), 1);
    });
}

/// A connection that goes, is closed or is stopped just when it parks.
fn goes(how: usize) {
    let ends = Arc::default();
    let (server, sockets) = serve(&ends, PING);
    let (mut peer, _) = Peer::websocket();
    let socket = sockets.recv().unwrap();
    thread::sleep(PARK_AFTER);
    match how {
        0 => peer.stream.reset(),
        1 => drop(peer.frame(0x88, &[])),
        2 => socket.disconnect(true),
        3 => peer.hang_up(),
        _ => assert!(server.shutdown(SOON)),
    }
    drop(socket);
    while peer.packet().is_some() {}
    peer.hang_up();
    all_over(server);
    assert_eq!(ends.load(SeqCst), 1);
}

#[test]
fn an_end_at_the_moment_of_parking_is_seen() {
    for (how, name) in ["reset", "close frame", "disconnect", "hang-up", "stop"].into_iter().enumerate() {
        check(&format!("parking, {name}"), move || goes(how));
    }
}

/// Requests that follow each other at the moment when a silent HTTP connection parks, or has waited long enough.
#[test]
fn a_request_at_the_moment_of_parking_is_answered() {
    check("parking, request", || {
        let ends = Arc::default();
        let (server, _sockets) = serve(&ends, PING);
        let (mut peer, id) = Peer::polling();
        for _ in 0..3 {
            thread::sleep(PARK_AFTER);
            assert_eq!(peer.post(&id, "3"), Some(200));
        }
        peer.post(&id, "1");
        all_over(server);
        assert_eq!(ends.load(SeqCst), 1);
    });
}
