//! Connection state recovery: a client that is lost and comes back, while others emit, or claim the same place. It gets
//! missed and new events once and in order; one of two claims succeeds; an exceeded bound is reported.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use shuttle::rand::{Rng, thread_rng};

use super::{
    SOON, all_over, check, eventually, go, numbers_of,
    peer::{Consent, Peer, word},
};
use crate::{
    server::{ConnectionStateRecovery, Server, Socket},
    sys::{
        channel::{Receiver, bounded},
        sync::atomic::AtomicBool,
        thread,
    },
};

/// What the handlers have seen of all sockets with the same id.
#[derive(Default)]
pub(super) struct Seen {
    leaving: AtomicBool,
    connects: AtomicUsize,
    ends: AtomicUsize,
    wrong: AtomicUsize,
}

impl Seen {
    /// A client connects, and none that was it is there any more.
    fn connect(&self) {
        let before = self.connects.fetch_add(1, SeqCst);
        if self.leaving.load(SeqCst) || self.ends.load(SeqCst) != before {
            self.wrong.fetch_add(1, SeqCst);
        }
    }

    /// A disconnect handler that takes its time.
    fn end(&self) {
        self.leaving.store(true, SeqCst);
        thread::sleep(Duration::from_millis(5));
        self.leaving.store(false, SeqCst);
        self.ends.fetch_add(1, SeqCst);
    }
}

fn serve(options: ConnectionStateRecovery, seen: &Arc<Seen>) -> (Server, Receiver<Socket>) {
    let (connected, sockets) = bounded(16);
    let [of_connect, of_end] = [Arc::clone(seen), Arc::clone(seen)];
    let server = Server::builder()
        .connection_state_recovery(options)
        .namespace("/", move |ns| {
            ns.on_connect(move |socket| {
                of_connect.connect();
                connected.send(socket.clone()).expect("the scene waits");
            });
            ns.on_disconnect(move |_, _| of_end.end());
        })
        .listen("127.0.0.1:1")
        .expect("it starts");
    (server, sockets)
}

/// A client that keeps what it needs to come back.
struct Client {
    transport: Transport,
    consent: Consent,
    offset: Option<String>,
    heard: Vec<String>,
    /// Packets that came with the consent.
    early: Vec<String>,
    /// Connections that it left without a word; they end with the client.
    left: Vec<Peer>,
}

enum Transport {
    WebSocket(Peer),
    Polling(Peer, String),
}

impl Client {
    fn new() -> Self {
        let (transport, consent, early) = enter("40").expect("a consent");
        Self { transport, consent, offset: None, heard: Vec::new(), early, left: Vec::new() }
    }

    fn peer(&mut self) -> &mut Peer {
        let (Transport::WebSocket(peer) | Transport::Polling(peer, _)) = &mut self.transport;
        peer
    }

    /// Hears until `enough`. `false`: the session has ended before, or it took too long.
    fn hear(&mut self, mut enough: impl FnMut(&[String]) -> bool) -> bool {
        self.peer().stream.set_read_timeout(Some(10 * SOON)).expect("a stream");
        self.heard.extend(self.early.drain(..).filter_map(|packet| word(&packet)));
        while !enough(&self.heard) {
            let packets = match &mut self.transport {
                Transport::WebSocket(peer) => peer.packet().map(|packet| vec![packet]),
                Transport::Polling(peer, id) => peer.get(&format!("&sid={id}")),
            };
            let Some(packets) = packets else { return false };
            self.heard.extend(packets.iter().filter_map(|packet| word(packet)));
        }
        true
    }

    /// The connection breaks: the server is told, or not at all.
    fn lose(&mut self) {
        match (thread_rng().gen_range(0..3), &mut self.transport) {
            (0, _) => {}
            (1, transport) => {
                let (Transport::WebSocket(peer) | Transport::Polling(peer, _)) = transport;
                peer.stream.reset();
            }
            (_, Transport::WebSocket(peer)) => drop(peer.frame(0x88, &[])),
            (_, Transport::Polling(_, id)) => drop(Peer::connect().post(id, "1")),
        }
    }

    /// Connects again as who it was; whether it was recovered. `None`: it is to try again.
    fn come_back(&mut self) -> Option<bool> {
        let offset = self.peer().offset.take();
        self.offset = offset.or(self.offset.take());
        let connect = self.consent.connect_again(self.offset.as_deref(), None);
        let (transport, consent, early) = enter(&connect)?;
        self.heard.extend(std::mem::replace(&mut self.early, early).iter().filter_map(|packet| word(packet)));
        let (Transport::WebSocket(peer) | Transport::Polling(peer, _)) =
            std::mem::replace(&mut self.transport, transport);
        self.left.push(peer);
        let before = std::mem::replace(&mut self.consent, consent);
        let recovered = before.pid == self.consent.pid;
        assert_eq!(recovered, before.sid == self.consent.sid, "either all that it was, or nothing");
        if !recovered {
            self.offset = None;
        }
        Some(recovered)
    }

    fn leave(self) {
        match self.transport {
            Transport::WebSocket(peer) => peer.leave(),
            Transport::Polling(_, id) => drop(Peer::connect().post(&id, "1")),
        }
    }
}

/// On a transport that chance takes; with what came behind the consent.
fn enter(connect: &str) -> Option<(Transport, Consent, Vec<String>)> {
    if thread_rng().gen_bool(0.75) {
        let (peer, consent) = Peer::enter(connect)?;
        return Some((Transport::WebSocket(peer), consent, Vec::new()));
    }
    let (peer, id, consent, early) = Peer::enter_polling(connect)?;
    Some((Transport::Polling(peer, id), consent, early))
}

/// Time for others, now and then.
fn pause() {
    if thread_rng().gen_bool(0.25) {
        thread::sleep(Duration::from_millis(thread_rng().gen_range(1..8)));
    }
}

/// One emitter, to everybody (`*`), to the socket (`1`), and to a room (`r`) that it has the socket join (`+`) and
/// leave (`-`).
const STEPS: &str = "*+rr1-r+r*";

/// Gives how many of the joins and leaves came while the socket was surely there.
fn emit_steps(socket: &Socket) -> usize {
    let (mut number, mut ops, mut sure) = (0, 0, 0);
    let here = || socket.namespace().to(socket.id()).sockets().iter().any(|other| other.is_same(socket));
    for step in STEPS.chars() {
        let word = format!("a{number}");
        pause();
        match step {
            '+' => socket.join("r"),
            '-' => socket.leave("r"),
            '*' => socket.namespace().emit("w", word).expect("the server runs"),
            '1' => socket.emit("w", word).expect("it is there, or may come back"),
            _ => socket.namespace().to("r").emit("w", word).expect("the server runs"),
        }
        if "+-".contains(step) {
            ops += 1;
            sure = if here() { ops } else { sure };
        } else {
            number += 1;
        }
    }
    sure
}

/// What the client is due when the first `ops` joins and leaves found it there.
fn due(ops: usize) -> Vec<usize> {
    let (mut number, mut op, mut is_in) = (0, 0, false);
    let mut due = Vec::new();
    for step in STEPS.chars() {
        if "+-".contains(step) {
            is_in = if op < ops { step == '+' } else { is_in };
            op += 1;
            continue;
        }
        if step != 'r' || is_in {
            due.push(number);
        }
        number += 1;
    }
    due
}

/// Everything that was meant for it, once and in the order of its emitters, over any number of lost connections.
#[test]
fn a_client_that_comes_back_has_missed_nothing() {
    check("recovery", || {
        let seen = Arc::default();
        let (server, sockets) = serve(ConnectionStateRecovery::new(), &seen);
        let mut client = Client::new();
        let socket = sockets.recv().unwrap();
        let of_steps = socket.clone();
        let steps = go(move || emit_steps(&of_steps));
        let direct = go(move || {
            for number in 0..6 {
                let word = format!("b{number}");
                match number % 3 {
                    0 => socket.namespace().to(socket.id()).emit("w", word).expect("the server runs"),
                    1 => socket.namespace().emit("w", word).expect("the server runs"),
                    _ => socket.emit("w", word).expect("it is there, or may come back"),
                }
                pause();
            }
        });
        for round in 0..2 {
            // Whatever became of the joins, it is due more.
            let some = 4 * round + thread_rng().gen_range(0..4);
            assert!(client.hear(|heard| heard.len() >= some), "{some} and {:?}", client.heard);
            client.lose();
            assert_eq!(client.come_back(), Some(true), "it was not away for long");
        }
        let sure = steps.join().unwrap();
        direct.join().unwrap();
        server.emit("w", "z0").unwrap();
        assert!(client.hear(|heard| heard.iter().any(|word| word == "z0")), "{:?}", client.heard);
        let of_steps = numbers_of('a', &client.heard);
        assert!((sure..=3).any(|ops| of_steps == due(ops)), "{sure}: {:?}", client.heard);
        assert!(numbers_of('b', &client.heard).into_iter().eq(0..6), "{:?}", client.heard);
        assert_eq!(numbers_of('z', &client.heard), [0]);
        client.leave();
        all_over(server);
        assert_eq!(seen.wrong.load(SeqCst), 0, "connected before it was gone");
    });
}

/// The old connection is still there, ends by itself at the same moment, or is ending; its handlers have been told
/// before the new one connects, and one of both is a member.
#[test]
fn a_takeover_waits_for_the_disconnect_handlers() {
    check("recovery, takeover", || {
        let seen: Arc<Seen> = Arc::default();
        let (server, sockets) = serve(ConnectionStateRecovery::new(), &seen);
        let mut client = Client::new();
        let socket = sockets.recv().unwrap();
        let id = socket.id().to_owned();
        socket.emit("w", "a0").unwrap();
        let stream = Arc::clone(&client.peer().stream);
        let how = thread_rng().gen_range(0..3);
        let other = go(move || match how {
            0 => drop(socket.emit("w", "a1")),
            1 => {
                socket.emit("w", "a1").unwrap();
                stream.reset();
            }
            _ => {
                stream.reset();
                socket.emit("w", "a1").unwrap();
            }
        });
        assert_eq!(client.come_back(), Some(true));
        other.join().unwrap();
        let here = server.of("/").unwrap();
        let ids: Vec<_> = here.sockets().iter().map(|socket| socket.id().to_owned()).collect();
        assert_eq!((ids, here.len()), (vec![id], 1));
        here.emit("w", "a2").unwrap();
        assert!(client.hear(|heard| heard.iter().any(|word| word == "a2")));
        assert_eq!(client.heard, ["a0", "a1", "a2"]);
        client.leave();
        all_over(server);
        assert_eq!(seen.wrong.load(SeqCst), 0, "connected before the old one was gone");
        assert_eq!((seen.connects.load(SeqCst), seen.ends.load(SeqCst)), (2, 2));
    });
}

/// Two connections say that they are the same client: one after the other is, and it is the last who stays.
#[test]
fn two_who_claim_the_same_place_take_turns() {
    check("recovery, two claims", || {
        let seen: Arc<Seen> = Arc::default();
        let (server, sockets) = serve(ConnectionStateRecovery::new(), &seen);
        let (peer, consent) = Peer::enter("40").unwrap();
        let socket = sockets.recv().unwrap();
        if thread_rng().gen_bool(0.5) {
            peer.stream.reset();
        }
        socket.emit("w", "a0").unwrap();
        let emitter = go(move || socket.namespace().emit("w", "a1").unwrap());
        let claimants = [(); 2].map(|()| {
            let (connect, sid) = (consent.connect_again(None, None), consent.sid.clone());
            go(move || {
                // The one that is taken over before it heard of its luck is cut without a word.
                let (mut peer, consent) = Peer::enter(&connect)?;
                assert_eq!(consent.sid, sid, "it was away for a moment only");
                let mut heard = Vec::new();
                while !heard.iter().any(|word| word == "z0") {
                    let Some(packet) = peer.packet() else { break };
                    heard.extend(word(&packet));
                }
                Some((peer, heard))
            })
        });
        emitter.join().unwrap();
        let here = server.of("/").unwrap();
        eventually("both have had their turn", || {
            seen.connects.load(SeqCst) == 3 && seen.ends.load(SeqCst) == 2
        });
        assert_eq!((here.sockets().len(), here.len()), (1, 1));
        here.emit("w", "z0").unwrap();
        let mut stayed = 0;
        for (peer, heard) in claimants.map(|claimant| claimant.join().unwrap()).into_iter().flatten() {
            let whole = ["a0", "a1", "z0"];
            assert!(whole.starts_with(&heard.iter().map(String::as_str).collect::<Vec<_>>()), "{heard:?}");
            stayed += usize::from(heard.len() == whole.len());
            peer.leave();
        }
        assert_eq!(stayed, 1, "one of both has the place");
        drop(peer);
        all_over(server);
        assert_eq!(seen.wrong.load(SeqCst), 0, "two at a time");
    });
}

const AWAY_MAX: Duration = Duration::from_millis(20);

/// A client comes back just when it is forgotten, or when what it has missed leaves the log: it gets all of it, or is
/// told and gets nothing old.
#[test]
fn what_leaves_the_log_is_got_or_told() {
    check("recovery, bounds", || {
        const EVENTS: usize = 16;
        let seen = Arc::default();
        let options = ConnectionStateRecovery::new().max_disconnection_duration(AWAY_MAX).max_packets(4);
        let (server, _sockets) = serve(options, &seen);
        let mut client = Client::new();
        let namespace = server.of("/").unwrap();
        let emitter = go(move || {
            for number in 0..EVENTS {
                namespace.emit("w", format!("a{number}")).expect("the server runs");
                if thread_rng().gen_bool(0.25) {
                    thread::sleep(Duration::from_millis(4));
                }
            }
        });
        // What was heard since it was told the last time, and before.
        let mut last = None;
        for round in 0..3 {
            let some = client.heard.len() + thread_rng().gen_range(0..2);
            // It does not wait for more than there is.
            client.hear(|heard| heard.len() >= some.min(EVENTS * usize::from(round == 0)));
            client.lose();
            if thread_rng().gen_bool(0.5) {
                thread::sleep(AWAY_MAX.mul_f64(thread_rng().gen_range(0.5..1.25)));
            }
            let recovered = loop {
                // Cut without an answer: its place was lost between the claim and the entry, and now it is told.
                if let Some(recovered) = client.come_back() {
                    break recovered;
                }
            };
            if !recovered {
                check_part(&std::mem::take(&mut client.heard), &mut last, EVENTS);
            }
        }
        emitter.join().unwrap();
        server.emit("w", "z0").unwrap();
        assert!(client.hear(|heard| heard.iter().any(|word| word == "z0")));
        let heard = std::mem::take(&mut client.heard);
        assert_eq!(numbers_of('z', &heard), [0]);
        let untold = last.is_none();
        let numbers = numbers_of('a', &heard);
        assert!(!untold || numbers.iter().copied().eq(0..EVENTS), "not told of a gap: {heard:?}");
        assert!(numbers.last().is_none_or(|&last| last == EVENTS - 1), "{heard:?}");
        check_part(&heard, &mut last, EVENTS);
        client.leave();
        all_over(server);
    });
}

/// What was heard from one time of being told to the next is without a gap, and behind all before. `last`: the first
/// number that may come.
fn check_part(heard: &[String], last: &mut Option<usize>, most: usize) {
    let numbers = numbers_of('a', heard);
    let first = numbers.first().copied().unwrap_or_default();
    assert!(numbers.iter().copied().eq(first..first + numbers.len()), "a gap, or twice: {heard:?}");
    assert!(numbers.is_empty() || first >= last.unwrap_or_default(), "replayed though told: {heard:?}");
    assert!(numbers.len() <= most);
    let next = first + numbers.len();
    *last = Some(last.unwrap_or_default().max(next));
}
