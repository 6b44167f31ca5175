//! Emits of several threads to one client, by every way out, while the session may end: they arrive once, in order and
//! soon; what arrives before an end has no gap; a slow consumer costs only itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{
    SOON, all_over, check, go, numbers_of,
    peer::{Peer, send_all, word},
};
use crate::{
    server::{Server, Socket},
    sys::{channel::Receiver, sync::Mutex, time::Instant},
};

const EACH: usize = 5;

fn serve(ends: &Arc<AtomicUsize>) -> (Server, Receiver<Socket>) {
    super::serve(Server::builder().max_http_buffer_size(32 << 10).outbox_bytes_max(64 << 10), ends)
}

fn pad(word: &str, large: bool) -> String {
    if large { format!("{word}{}", ".".repeat(1_500)) } else { word.to_owned() }
}

/// `a`: to the socket. `b`: to its room. `c`: alternating, whose order must hold across both ways.
fn emit_all(socket: &Socket, letter: char, large: bool) -> usize {
    for number in 0..EACH {
        let word = pad(&format!("{letter}{number}"), large);
        let emitted = match (letter, number % 2) {
            ('a', _) | ('c', 0) => socket.emit("w", word),
            _ => socket.namespace().to("room").emit("w", word),
        };
        if emitted.is_err() {
            return number;
        }
    }
    EACH
}

fn check_order(heard: &[String]) {
    for letter in ['a', 'b', 'c'] {
        let numbers = numbers_of(letter, heard);
        assert!(numbers.iter().copied().eq(0..numbers.len()), "in order, once, no gap: {heard:?}");
    }
}

fn arrive(large: bool) {
    let ends = Arc::default();
    let (server, sockets) = serve(&ends);
    let (mut peer, _) = Peer::websocket();
    let socket = sockets.recv().unwrap();
    let emitters = ['a', 'b', 'c'].map(|letter| {
        let socket = socket.clone();
        go(move || emit_all(&socket, letter, large))
    });
    let began = Instant::now();
    let heard = peer.words(3 * EACH);
    assert!(began.elapsed() < SOON, "nothing lies about: {:?}", began.elapsed());
    assert_eq!(heard.len(), 3 * EACH, "all of it: {heard:?}");
    check_order(&heard);
    for emitter in emitters {
        assert_eq!(emitter.join().unwrap(), EACH);
    }
    drop(socket);
    peer.leave();
    all_over(server);
    assert_eq!(ends.load(SeqCst), 1);
}

#[test]
fn every_emit_arrives_once_and_in_order() {
    check("emits", || arrive(false));
}

#[test]
fn every_emit_arrives_when_the_kernel_is_full() {
    check("emits, full kernel", || arrive(true));
}

#[derive(Debug, Clone, Copy)]
enum End {
    ClientCloses,
    ClientResets,
    ServerDisconnects,
    ServerStops,
}

/// The session ends while it is emitted to: what arrives is a beginning of what each emitter said.
fn end(end: End, large: bool) {
    let ends: Arc<AtomicUsize> = Arc::default();
    let (server, sockets) = serve(&ends);
    let (mut peer, _) = Peer::websocket();
    let socket = sockets.recv().unwrap();
    let emitters = ['a', 'b', 'c'].map(|letter| {
        let socket = socket.clone();
        go(move || emit_all(&socket, letter, large))
    });
    let stream = Arc::clone(&peer.stream);
    let reader = go(move || {
        let heard = peer.words(usize::MAX);
        peer.hang_up();
        heard
    });
    match end {
        End::ClientCloses => assert!(send_all(&stream, &[0x88, 0x80, 0, 0, 0, 0])),
        End::ClientResets => stream.reset(),
        End::ServerDisconnects => {
            assert_eq!(emit_all(&socket, 'd', large), EACH);
            socket.disconnect(true);
        }
        End::ServerStops => assert!(server.shutdown(Duration::from_secs(2))),
    }
    drop(stream);
    let heard = reader.join().unwrap();
    check_order(&heard);
    if matches!(end, End::ServerDisconnects) {
        assert_eq!(numbers_of('d', &heard).len(), EACH, "said before the goodbye: {heard:?}");
    }
    for emitter in emitters {
        emitter.join().unwrap();
    }
    drop(socket);
    all_over(server);
    assert_eq!(ends.load(SeqCst), 1, "told of the end once");
}

#[test]
fn a_session_that_its_client_closes_ends_once() {
    check("emits, client closes", || end(End::ClientCloses, true));
}

#[test]
fn a_session_that_is_reset_ends_once() {
    check("emits, reset", || end(End::ClientResets, true));
}

#[test]
fn what_was_said_before_a_disconnect_arrives_before_it() {
    check("emits, disconnect", || end(End::ServerDisconnects, true));
}

#[test]
fn a_stop_ends_every_thread() {
    check("emits, stop", || end(End::ServerStops, false));
}

/// A client that does not read is closed, and its memory given back; the other one gets everything.
#[test]
fn a_slow_consumer_is_closed_and_its_account_settled() {
    check("slow consumer", || {
        let ends: Arc<AtomicUsize> = Arc::default();
        let (server, sockets) = serve(&ends);
        let (slow, _) = Peer::websocket();
        let (mut quick, _) = Peer::websocket();
        let both = [sockets.recv().unwrap(), sockets.recv().unwrap()];
        let refused = Arc::new(Mutex::new(0));
        let emitters = both.map(|socket| {
            let refused = Arc::clone(&refused);
            go(move || {
                // 100 KiB to each, one at a time as it is read, and 64 KiB may wait.
                for number in 0..25 {
                    if socket.emit("w", pad(&format!("a{number}"), true).repeat(3)).is_err() {
                        *refused.lock() += 1;
                    }
                    crate::sys::thread::sleep(Duration::from_millis(5));
                }
            })
        });
        let heard = go(move || {
            let count = std::iter::from_fn(|| quick.packet()).take(25).count();
            quick.leave();
            count
        });
        for emitter in emitters {
            emitter.join().unwrap();
        }
        assert_eq!(heard.join().unwrap(), 25, "the quick one is not disturbed");
        assert!(*refused.lock() > 0, "the emitter was told");
        drop(slow);
        all_over(server);
        assert_eq!(ends.load(SeqCst), 2);
    });
}

/// A client that reads slowly, but within `close_timeout`, gets all that was said before the server hung up, although
/// the server has been silent towards it for longer than connections talk before they park.
#[test]
fn a_goodbye_waits_for_a_slow_reader() {
    check("slow goodbye", || {
        let ends: Arc<AtomicUsize> = Arc::default();
        let (server, sockets) = serve(&ends);
        let (mut peer, _) = Peer::websocket();
        let socket = sockets.recv().unwrap();
        for number in 0..20 {
            socket.emit("w", pad(&format!("a{number}"), true)).expect("there is room");
        }
        socket.disconnect(true);
        drop(socket);
        let mut heard = Vec::new();
        while let Some(packet) = peer.packet() {
            heard.extend(word(&packet));
            crate::sys::thread::sleep(Duration::from_millis(200));
        }
        assert!(numbers_of('a', &heard).into_iter().eq(0..20), "{heard:?}");
        peer.hang_up();
        all_over(server);
        assert_eq!(ends.load(SeqCst), 1);
    });
}

/// What handlers say to several messages of one read, or of one POST, is gathered, and then it leaves, whole and soon.
fn answers(websocket: bool) {
    let ends = Arc::default();
    let (server, sockets) = serve(&ends);
    let (mut peer, id) = if websocket { Peer::websocket() } else { Peer::polling() };
    drop(sockets.recv().unwrap());
    let began = Instant::now();
    let texts = ["a0", "a1", "a2"].map(|word| format!(r#"42["echo","{word}"]"#));
    let heard = if websocket {
        assert!(peer.say_all(&texts));
        peer.words(3)
    } else {
        // A GET that is held, and the POST beside it.
        let post = {
            let id = id.clone();
            go(move || Peer::connect().post(&id, &texts.join("\u{1e}")))
        };
        let mut heard = Vec::new();
        while heard.len() < 3 {
            let packets = peer.get(&format!("&sid={id}")).expect("the session lives");
            heard.extend(packets.iter().filter_map(|packet| word(packet)));
        }
        assert_eq!(post.join().unwrap(), Some(200));
        heard
    };
    assert_eq!(heard, ["a0", "a1", "a2"]);
    assert!(began.elapsed() < SOON, "nothing lies about: {:?}", began.elapsed());
    if websocket {
        peer.leave();
    } else {
        peer.post(&id, "1");
    }
    all_over(server);
}

#[test]
fn gathered_answers_leave_soon() {
    check("gathered, websocket", || answers(true));
    check("gathered, held GET", || answers(false));
}
