//! The store: what anybody has received or was promised is in it, whenever the server ends. A handler's work and its
//! answer are one commit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use shuttle::rand::{Rng, thread_rng};

use super::{
    SOON, all_over, check, go, numbers_of,
    peer::{Consent, Peer, word},
};
use crate::{
    proto::socket::Offset,
    server::{Change, Durability, Kept, MemoryStore, Server, Store, StoreError},
    sys::{
        sync::{Condvar, Mutex},
        thread,
    },
};

/// A memory store that knows its commits, and can be killed: from then on nothing is kept, and no commit returns, so
/// nobody hears of anything more.
#[derive(Clone, Default)]
struct Recorder {
    kept: MemoryStore,
    tape: Arc<(Mutex<Tape>, Condvar)>,
}

#[derive(Default)]
struct Tape {
    commits: Vec<Vec<Change>>,
    /// So many commits more, and it is killed: before the last one is kept, or behind.
    left: Option<(usize, bool)>,
    killed: bool,
    /// The killed one has nobody left to tell.
    released: bool,
}

impl Store for Recorder {
    fn open(&mut self) -> Result<Kept, StoreError> {
        self.kept.open()
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let (tape, moved) = &*self.tape;
        let mut tape = tape.lock();
        let mut kept = !tape.killed;
        if let Some((left, behind)) = &mut tape.left {
            if *left == 0 {
                (kept, tape.killed) = (*behind && !tape.killed, true);
                moved.notify_all();
            } else {
                *left -= 1;
            }
        }
        if kept {
            self.kept.commit(changes)?;
            tape.commits.push(changes.to_vec());
        }
        while tape.killed && !tape.released {
            moved.wait(&mut tape);
        }
        Ok(())
    }

    fn abandon(&mut self) {
        panic!("no commit fails");
    }
}

impl Recorder {
    /// Whether one of the commits has a change like this.
    fn has(&self, is: impl Fn(&Change) -> bool) -> bool {
        self.tape.0.lock().commits.iter().flatten().any(is)
    }

    /// Whether this consent was kept.
    fn knows(&self, consent: &Consent) -> bool {
        self.has(|change| matches!(change, Change::Session(session) if *session.pid == *consent.pid))
    }

    fn has_packet(&self, offset: &str) -> bool {
        let offset = Offset::parse(offset).expect("an offset").number();
        self.has(|change| matches!(change, Change::Packet(packet) if packet.offset == offset))
    }

    fn has_answer(&self, id: u64) -> bool {
        self.has(|change| matches!(change, Change::Answer(answer) if answer.id == id))
    }

    /// Each answer is in the commit of what its handler has emitted: `a1` for the id 1.
    fn check_together(&self) {
        for commit in &self.tape.0.lock().commits {
            let has = |id: u64| {
                let word = format!(r#""a{id}""#);
                commit.iter().any(|change| match change {
                    Change::Packet(packet) => String::from_utf8_lossy(&packet.frames).contains(&word),
                    _ => false,
                })
            };
            for change in commit {
                if let Change::Answer(answer) = change {
                    assert!(has(answer.id), "an answer without its event: {commit:?}");
                }
            }
        }
    }

    /// Killed with the commit after so many more, which is kept (`behind`) or not.
    fn kill_after(&self, commits: usize, behind: bool) {
        self.tape.0.lock().left = Some((commits, behind));
    }

    fn wait_killed(&self) {
        let (tape, moved) = &*self.tape;
        let mut tape = tape.lock();
        while !tape.killed {
            moved.wait(&mut tape);
        }
    }

    /// Nobody can hear of the killed server any more; its threads may end.
    fn release(&self) {
        let (tape, moved) = &*self.tape;
        tape.lock().released = true;
        moved.notify_all();
    }

    /// The next server may begin.
    fn revive(&self) {
        let mut tape = self.tape.0.lock();
        (tape.left, tape.killed, tape.released) = (None, false, false);
    }
}

/// A server that tells everybody what it is told, and acknowledges.
fn serve(store: &Recorder, durability: Durability) -> Server {
    Server::builder()
        .store(store.clone(), durability)
        .namespace("/", move |ns| {
            ns.on("tell", |socket, event| {
                socket.namespace().emit("w", event.arg::<String>(0)?)?;
                event.ack("ok")?;
                Ok::<_, Box<dyn std::error::Error>>(())
            });
        })
        .listen("127.0.0.1:1")
        .expect("it starts")
}

const EVENTS: u64 = 3;

/// A client through all lives of the server.
#[derive(Default)]
struct Client {
    consent: Option<Consent>,
    offset: Option<String>,
    heard: Vec<String>,
    /// Its last event that was acknowledged.
    told: u64,
}

impl Client {
    /// Connects, and is known if it was there before.
    fn enter(&mut self, rid: Option<&str>, store: &Recorder) -> Peer {
        let connect = match (&self.consent, rid) {
            (Some(consent), rid) => consent.connect_again(self.offset.as_deref(), rid),
            (None, Some(rid)) => format!(r#"40{{"rid":"{rid}"}}"#),
            (None, None) => "40".to_owned(),
        };
        let (peer, consent) = Peer::enter(&connect).expect("the server is up");
        assert!(store.knows(&consent), "a consent that is not kept");
        if let Some(before) = self.consent.replace(consent) {
            assert_eq!(
                self.consent.as_ref().map(|consent| &consent.pid),
                Some(&before.pid),
                "it is known still"
            );
        }
        peer
    }

    /// The next packet, if it is kept. `None`: the connection has ended.
    fn packet(&mut self, peer: &mut Peer, store: &Recorder) -> Option<String> {
        let packet = peer.packet()?;
        if let Some(word) = word(&packet) {
            self.offset.clone_from(&peer.offset);
            let offset = self.offset.as_deref().expect("every event has one");
            assert!(store.has_packet(offset), "an event that is not kept: {word}");
            self.heard.push(word);
        }
        Some(packet)
    }

    /// Hears until this word, or the end.
    fn hear(&mut self, peer: &mut Peer, last: &str, store: &Recorder) {
        while self.heard.last().is_none_or(|word| word != last) && self.packet(peer, store).is_some() {}
    }

    /// Tells each event, again where need be, until it is acknowledged. `None`: the connection has ended before.
    fn tell(&mut self, peer: &mut Peer, store: &Recorder) -> Option<()> {
        while self.told < EVENTS {
            let id = self.told + 1;
            peer.say(&format!(r#"42{id}["tell","a{id}"]"#));
            while self.packet(peer, store)? != format!(r#"43{id}["ok"]"#) {}
            assert!(store.has_answer(id), "an answer that is not kept");
            self.told = id;
        }
        Some(())
    }
}

/// How a server's life ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Killed,
    ShutDown,
    /// When everything is said.
    Lives,
}

/// One life of the server. Both clients know it before its fate comes.
fn live(store: &Recorder, fate: Fate, mut listener: Client, mut teller: Client) -> (Client, Client) {
    let server = serve(store, Durability::EveryPacket);
    let (mut ear, mut mouth) = (listener.enter(None, store), teller.enter(Some("r"), store));
    let streams = [Arc::clone(&ear.stream), Arc::clone(&mouth.stream)];
    if fate == Fate::Killed {
        // Each event that is acknowledged has a commit of its own.
        store.kill_after(thread_rng().gen_range(0..EVENTS as usize), thread_rng().gen_bool(0.5));
    }
    let [of_listener, of_teller] = [store.clone(), store.clone()];
    let hears = go(move || {
        listener.hear(&mut ear, "z0", &of_listener);
        (listener, ear)
    });
    let tells = go(move || {
        teller.tell(&mut mouth, &of_teller);
        (teller, mouth)
    });
    let both = match fate {
        Fate::Killed => {
            store.wait_killed();
            streams.iter().for_each(|stream| stream.reset());
            store.release();
            (hears.join().unwrap(), tells.join().unwrap())
        }
        Fate::ShutDown => {
            thread::sleep(Duration::from_millis(thread_rng().gen_range(0..3)));
            // A client that closes its side lets the server go at once.
            let stops = go(move || server.shutdown(SOON));
            let both = (hears.join().unwrap(), tells.join().unwrap());
            streams.iter().for_each(|stream| stream.reset());
            assert!(stops.join().unwrap(), "every thread has ended");
            return (both.0.0, both.1.0);
        }
        Fate::Lives => {
            let teller = tells.join().unwrap();
            server.emit("w", "z0").unwrap();
            (hears.join().unwrap(), teller)
        }
    };
    let ((listener, ear), (teller, mouth)) = both;
    [ear, mouth].into_iter().for_each(Peer::leave);
    all_over(server);
    store.revive();
    (listener, teller)
}

/// A server is killed at any commit, before or behind it; the next is shut down in the middle; the third goes on.
#[test]
fn nothing_that_was_heard_or_acknowledged_is_lost_with_the_process() {
    check("store, killed and shut down", || {
        let store = Recorder::default();
        let (mut listener, mut teller) = (Client::default(), Client::default());
        for fate in [Fate::Killed, Fate::ShutDown, Fate::Lives] {
            (listener, teller) = live(&store, fate, listener, teller);
        }
        assert_eq!(teller.told, EVENTS);
        assert_eq!(listener.heard, ["a1", "a2", "a3", "z0"]);
        store.check_together();
    });
}

/// Two connections of a client send the same event: the answer is stored, whichever of them gets it.
#[test]
fn an_answer_that_is_repeated_is_kept_too() {
    check("store, asked twice", || {
        let store = Recorder::default();
        let server = serve(&store, Durability::EveryPacket);
        let askers = [(); 2].map(|()| {
            let store = store.clone();
            go(move || {
                let mut client = Client::default();
                let mut peer = client.enter(Some("r"), &store);
                peer.stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a stream");
                // Nobody who was asked after this one is waited for.
                let told = (0..2).any(|_| client.tell(&mut peer, &store).is_some());
                peer.leave();
                told
            })
        });
        let told = askers.map(|asker| asker.join().unwrap());
        assert!(told.contains(&true), "nobody was answered");
        store.check_together();
        all_over(server);
    });
}

/// A shutdown waits until everything is kept that was said before.
#[test]
fn a_shutdown_keeps_what_was_gathered() {
    check("store, gathered", || {
        let store = Recorder::default();
        let durability = Durability::Every(Duration::from_millis(10));
        let server = serve(&store, durability);
        let (mut peer, consent) = Peer::enter("40").unwrap();
        let said: Arc<AtomicUsize> = Arc::default();
        let emitter = {
            let (said, namespace) = (Arc::clone(&said), server.of("/").unwrap());
            go(move || {
                for number in 0..4 {
                    if namespace.emit("w", format!("a{number}")).is_err() {
                        break;
                    }
                    said.fetch_add(1, SeqCst);
                    thread::sleep(Duration::from_millis(4));
                }
            })
        };
        let hears = go(move || {
            let mut heard = peer.words(usize::MAX);
            peer.hang_up();
            (peer.offset.take(), std::mem::take(&mut heard))
        });
        thread::sleep(Duration::from_millis(thread_rng().gen_range(0..12)));
        let due = said.load(SeqCst);
        assert!(server.shutdown(SOON), "every thread has ended");
        emitter.join().unwrap();
        let (offset, mut heard) = hears.join().unwrap();
        drop(server);
        let server = serve(&store, durability);
        let (mut peer, again) = Peer::enter(&consent.connect_again(offset.as_deref(), None)).unwrap();
        assert_eq!(again.pid, consent.pid, "it is known still");
        server.emit("w", "z0").unwrap();
        while heard.last().is_none_or(|word| word != "z0") {
            heard.extend(peer.words(1));
        }
        let numbers = numbers_of('a', &heard);
        assert!(numbers.iter().copied().eq(0..numbers.len()), "in order, once: {heard:?}");
        assert!(numbers.len() >= due, "{due} were said before the shutdown: {heard:?}");
        peer.leave();
        all_over(server);
    });
}
