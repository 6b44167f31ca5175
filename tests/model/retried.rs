//! Retries: an event that its client sends again, on another connection, while it is handled, answered or given up, is
//! handled once and answered each time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use shuttle::rand::{Rng, thread_rng};

use super::{
    all_over, check, go,
    peer::{Consent, Peer, word},
};
use crate::{
    server::{ConnectionStateRecovery, Event, Server, Socket},
    sys::{
        channel::{Receiver, Sender, bounded},
        thread,
    },
};

/// What becomes of the first try.
#[derive(Debug, Clone, Copy, PartialEq)]
enum First {
    Acknowledges,
    /// Another thread does.
    HandsOver,
    /// Returns without.
    Forgets,
    /// Another thread throws the acknowledgement away.
    Drops,
}

impl First {
    fn any() -> Self {
        [Self::Acknowledges, Self::HandsOver, Self::Forgets, Self::Drops][thread_rng().gen_range(0..4)]
    }

    fn is_answered(self) -> bool {
        matches!(self, Self::Acknowledges | Self::HandsOver)
    }
}

fn handle(first: First, handled: &AtomicUsize, begun: &Sender<()>, socket: &Socket, event: &Event<'_>) {
    let is_first = handled.fetch_add(1, SeqCst) == 0;
    let _ = begun.try_send(());
    thread::sleep(Duration::from_millis(2));
    socket.namespace().emit("w", "a0").expect("the server runs");
    match first {
        First::HandsOver | First::Drops if is_first => {
            let ack = event.take_ack().expect("it is wanted");
            // Ends by itself, at the latest when its server does.
            let _ = go(move || {
                thread::sleep(Duration::from_millis(thread_rng().gen_range(0..3)));
                if first == First::HandsOver {
                    ack.send("ok").expect("the server runs");
                }
            });
            // It may be over before this handler is.
            thread::sleep(Duration::from_millis(thread_rng().gen_range(0..4)));
        }
        First::Forgets if is_first => {}
        _ => event.ack("ok").expect("the server runs"),
    }
}

fn serve(first: First, handled: &Arc<AtomicUsize>) -> (Server, Receiver<()>) {
    let (begun, begins) = bounded(8);
    let handled = Arc::clone(handled);
    let server = Server::builder()
        .connection_state_recovery(ConnectionStateRecovery::new())
        .namespace("/", move |ns| {
            ns.on("do", move |socket, event| handle(first, &handled, &begun, socket, &event));
        })
        .listen("127.0.0.1:1")
        .expect("it starts");
    (server, begins)
}

const RID: &str = r#"40{"rid":"r"}"#;

/// Asks with this id, and hears until the answer, or not for very long.
fn ask(peer: &mut Peer, id: u64) -> Option<(String, Vec<String>)> {
    peer.stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a stream");
    assert!(peer.say(&format!(r#"42{id}["do"]"#)));
    let mut heard = Vec::new();
    loop {
        let packet = peer.packet()?;
        if packet.starts_with("43") {
            return Some((packet, heard));
        }
        heard.extend(word(&packet));
    }
}

/// A second connection of the client asks the same while the first try runs, or takes the first one's place.
#[test]
fn a_retried_event_is_handled_once_and_answered() {
    check("retried", || {
        let first = First::any();
        let handled: Arc<AtomicUsize> = Arc::default();
        let (server, begins) = serve(first, &handled);
        let (mut listener, _) = Peer::enter("40").unwrap();
        let (old, consent): (Peer, Consent) = Peer::enter(RID).unwrap();
        assert!(old.say(r#"421["do"]"#));
        begins.recv().expect("it is handled");
        let connect =
            if thread_rng().gen_bool(0.5) { consent.connect_again(None, Some("r")) } else { RID.to_owned() };
        let (mut peer, _) = Peer::enter(&connect).unwrap();
        let mut answer = ask(&mut peer, 1);
        if answer.is_none() {
            assert!(!first.is_answered(), "who asked last has no answer");
            // Nobody could know yet that the first try would be given up.
            answer = ask(&mut peer, 1);
        }
        assert_eq!(answer.expect("it is answered").0, r#"431["ok"]"#);
        let times = if first.is_answered() { 1 } else { 2 };
        assert_eq!(handled.load(SeqCst), times, "{first:?}");
        // Once more, from anywhere: the same answer, and no handler. One that is over is not asked about.
        let (mut again, _) = Peer::enter(RID).unwrap();
        assert_eq!(ask(&mut again, 1).expect("it is remembered").0, r#"431["ok"]"#);
        assert!(again.say(r#"420["do"]"#));
        assert_eq!(ask(&mut again, 2).expect("it is handled").0, r#"432["ok"]"#);
        assert_eq!(handled.load(SeqCst), times + 1, "{first:?}");
        // A handler whose acknowledgement another thread gave may still run: what it emitted leaves when it returns.
        let mut heard = listener.words(times + 1);
        server.emit("w", "z0").unwrap();
        while heard.last().is_none_or(|word| word != "z0") {
            heard.extend(word(&listener.packet().expect("the server runs")));
        }
        assert_eq!(heard.len(), times + 2, "each handler's event once: {heard:?}");
        for peer in [listener, peer, again, old] {
            peer.leave();
        }
        all_over(server);
    });
}

/// Two connections send the event at the same moment: it is handled once, and the last one gets the answer.
#[test]
fn of_two_who_ask_at_once_one_is_handled_and_one_answered() {
    check("retried, at once", || {
        let first = if thread_rng().gen_bool(0.5) { First::Acknowledges } else { First::HandsOver };
        let handled: Arc<AtomicUsize> = Arc::default();
        let (server, _begins) = serve(first, &handled);
        let askers = [(); 2].map(|()| {
            go(|| {
                let (mut peer, _) = Peer::enter(RID).unwrap();
                let answer = ask(&mut peer, 1);
                (peer, answer)
            })
        });
        let mut answers = 0;
        for asker in askers {
            let (peer, answer) = asker.join().unwrap();
            answers += usize::from(answer.is_some_and(|(packet, _)| packet == r#"431["ok"]"#));
            peer.leave();
        }
        assert!(answers > 0, "nobody was answered");
        assert_eq!(handled.load(SeqCst), 1, "{first:?}");
        all_over(server);
    });
}
