//! The move from polling to WebSocket: nothing is lost or doubled between GETs, a POST and the WebSocket; concurrent
//! upgrades and disconnects do not block.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{SOON, all_over, check, go, numbers_of, peer};
use crate::{
    server::{Server, Socket},
    sys::{
        channel::{Receiver, bounded},
        thread,
        time::Instant,
    },
};

use peer::{Peer, word};

const EACH: usize = 8;

fn serve(ends: &Arc<AtomicUsize>) -> (Server, Receiver<Socket>) {
    super::serve(Server::builder(), ends)
}

/// Everything that is emitted meanwhile arrives once and in order, by the GETs and then by the WebSocket; what a POST
/// brings meanwhile is answered.
#[test]
fn nothing_is_lost_or_twice_in_an_upgrade() {
    check("upgrade", || {
        let ends = Arc::default();
        let (server, sockets) = serve(&ends);
        let (mut gets, id) = Peer::polling();
        let socket = sockets.recv().unwrap();
        let emitters = ['a', 'b'].map(|letter| {
            let socket = socket.clone();
            go(move || {
                for number in 0..EACH {
                    let word = format!("{letter}{number}");
                    let emitted = if letter == 'a' {
                        socket.emit("w", word)
                    } else {
                        socket.namespace().to("room").emit("w", word)
                    };
                    emitted.expect("the session lives");
                    if number % 3 == 0 {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            })
        });
        // As the official client: polls until the probe is answered, and then ends its polling.
        let (probed, pause) = bounded::<()>(1);
        let sid = format!("&sid={id}");
        let polled = {
            let sid = sid.clone();
            go(move || {
                let mut heard = Vec::new();
                while pause.try_recv().is_err() {
                    let packets = gets.get(&sid).expect("the session lives");
                    heard.extend(packets.iter().filter_map(|packet| word(packet)));
                }
                heard
            })
        };
        let poster = {
            let id = id.clone();
            go(move || Peer::connect().post(&id, r#"42["echo","c0"]"#))
        };
        let mut ws = Peer::on_websocket(&sid);
        assert!(ws.say("2probe"));
        assert_eq!(ws.packet().as_deref(), Some("3probe"));
        probed.send(()).unwrap();
        let mut heard = polled.join().unwrap();
        assert_eq!(poster.join().unwrap(), Some(200));
        assert!(ws.say("5"));
        let moved = Instant::now();
        heard.extend(ws.words(2 * EACH + 1 - heard.len()));
        assert!(moved.elapsed() < SOON, "{:?}", moved.elapsed());
        for (letter, count) in [('a', EACH), ('b', EACH), ('c', 1)] {
            assert!(numbers_of(letter, &heard).into_iter().eq(0..count), "{letter}: {heard:?}");
        }
        for emitter in emitters {
            emitter.join().unwrap();
        }
        drop(socket);
        ws.leave();
        all_over(server);
        assert_eq!(ends.load(SeqCst), 1);
    });
}

/// Two WebSockets want the session, a GET is open, and the session is disconnected. In every order it ends once, and
/// all three are released.
#[test]
fn an_upgrade_races_with_another_and_with_the_end() {
    check("upgrade, race", || {
        let ends = Arc::default();
        let (server, sockets) = serve(&ends);
        let (mut gets, id) = Peer::polling();
        let socket = sockets.recv().unwrap();
        let sid = format!("&sid={id}");
        let poll = {
            let sid = sid.clone();
            go(move || while gets.get(&sid).is_some_and(|packets| packets != ["1"] && packets != ["6"]) {})
        };
        let movers = [(); 2].map(|()| {
            let sid = sid.clone();
            go(move || {
                let mut ws = Peer::connect();
                ws.ask_websocket(&sid);
                if ws.status() == Some(101) && ws.say("2probe") && ws.packet().is_some() {
                    ws.say("5");
                    while ws.packet().is_some() {}
                }
                ws.hang_up();
            })
        });
        let closer = go(move || socket.disconnect(true));
        for mover in movers {
            mover.join().unwrap();
        }
        closer.join().unwrap();
        poll.join().unwrap();
        // On polling its last packets may be fetched for a while. A GET ends that.
        Peer::connect().get(&sid);
        all_over(server);
        assert_eq!(ends.load(SeqCst), 1);
    });
}

/// A client sends nothing on its WebSocket before the GET is answered that it may have sent beside the probe: that
/// goes home with the probe's answer, or at once when it comes later.
#[test]
fn a_get_beside_the_probe_holds_nobody_up() {
    check("upgrade, GET beside the probe", || {
        let ends = Arc::default();
        let (server, sockets) = serve(&ends);
        let (mut gets, id) = Peer::polling();
        drop(sockets.recv().unwrap());
        let sid = format!("&sid={id}");
        let mut ws = Peer::on_websocket(&sid);
        let asked = go(move || gets.get(&sid));
        assert!(ws.say("2probe"));
        assert_eq!(ws.packet().as_deref(), Some("3probe"));
        let probed = Instant::now();
        assert_eq!(asked.join().unwrap().expect("the session lives"), ["6"]);
        assert!(probed.elapsed() < Duration::from_millis(40), "{:?}", probed.elapsed());
        assert!(ws.say("5"));
        ws.leave();
        all_over(server);
        assert_eq!(ends.load(SeqCst), 1);
    });
}
