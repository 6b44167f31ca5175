//! A sequence of operations on sessions and hub, against a model that a child could check: who is in which room, and
//! what each client must hear, in which order.
//!
//! One thread does all of it, so the order in which anybody hears anything is known. The bytes of the sequence come
//! from a fuzzer (`fuzz/`), or from the checker's dice.

use std::{collections::BTreeSet, time::Duration};

use super::{
    SOON, all_over,
    peer::{Consent, Peer, word},
};
use crate::{
    proto::engine::TransportKind,
    server::{ConnectionStateRecovery, Server, Socket},
    sys::{
        channel::{Receiver, bounded},
        thread,
        time::Instant,
    },
};

const CLIENTS: usize = 4;

const ROOMS: [&str; 3] = ["red", "green", "blue"];

/// More in one sequence adds nothing new.
const OPERATIONS_MAX: usize = 48;

struct Client {
    transport: Transport,
    consent: Consent,
    /// What came with the consent.
    early: Vec<String>,
    /// Of the last event that it has heard.
    offset: Option<String>,
    socket: Socket,
    rooms: BTreeSet<&'static str>,
    /// What it has yet to hear.
    due: Vec<String>,
}

enum Transport {
    Polling { peer: Peer, id: String },
    WebSocket(Peer),
}

/// Two bytes an operation; one too many turns recovery on.
pub(crate) fn run(bytes: &[u8]) {
    let mut scene = Scene::new(bytes.len() % 2 == 1);
    for (number, operation) in bytes.chunks_exact(2).take(OPERATIONS_MAX).enumerate() {
        scene.step(number, operation[0], operation[1]);
    }
    scene.end();
}

struct Scene {
    server: Server,
    sockets: Receiver<Socket>,
    clients: [Option<Client>; CLIENTS],
    recovers: bool,
}

impl Scene {
    fn new(recovers: bool) -> Self {
        let (connected, sockets) = bounded(CLIENTS);
        let mut builder = Server::builder();
        if recovers {
            builder = builder.connection_state_recovery(ConnectionStateRecovery::new());
        }
        let server = builder
            .park_after(Duration::from_millis(20))
            .namespace("/", move |ns| {
                ns.on_connect(move |socket| connected.send(socket.clone()).expect("the scene waits"));
                ns.on("join", |socket, event| {
                    let room: String = event.arg(0)?;
                    socket.join(&room);
                    socket.emit("w", "joined")?;
                    Ok::<_, Box<dyn std::error::Error>>(())
                });
                ns.on("tell", |socket, event| -> Result<(), Box<dyn std::error::Error>> {
                    let (room, word): (String, String) = event.parse()?;
                    socket.to(&room).emit("w", word)?;
                    socket.emit("w", "told")?;
                    Ok(())
                });
            })
            .listen("127.0.0.1:1")
            .expect("it starts");
        Self { server, sockets, clients: [const { None }; CLIENTS], recovers }
    }

    fn step(&mut self, number: usize, verb: u8, object: u8) {
        let index = usize::from(object) % CLIENTS;
        let room = ROOMS[usize::from(object / 4) % ROOMS.len()];
        let other = ROOMS[usize::from(object / 16) % ROOMS.len()];
        let word = format!("w{number}");
        match verb % 16 {
            0..=2 => self.open(index, verb % 2 == 0),
            3 => self.join(index, room),
            4 => self.leave(index, room),
            5 => self.say_join(index, room),
            6 => self.tell(index, room, &word),
            7 => {
                let to_room = self.server.of("/").expect("it is there").to(room).except(other);
                to_room.emit("w", &word).expect("the server runs");
                self.note(&word, |_, client| client.rooms.contains(room) && !client.rooms.contains(other));
            }
            8 => {
                self.server.emit("w", &word).expect("the server runs");
                self.note(&word, |_, _| true);
            }
            9 => {
                let Some(client) = &mut self.clients[index] else { return };
                client.socket.emit("w", &word).expect("the client is there");
                client.due.push(word);
            }
            10 => self.upgrade(index),
            11 => self.hear(index),
            12 => self.cut(index, object / 16),
            13 => self.count(room),
            14 if self.recovers => self.come_back(index, object / 4, &word),
            _ => thread::sleep(Duration::from_millis(u64::from(object % 32))),
        }
    }

    fn note(&mut self, word: &str, hears: impl Fn(usize, &Client) -> bool) {
        for (index, client) in self.clients.iter_mut().enumerate() {
            if let Some(client) = client
                && hears(index, client)
            {
                client.due.push(word.to_owned());
            }
        }
    }

    fn open(&mut self, index: usize, websocket: bool) {
        if self.clients[index].is_some() {
            return;
        }
        let (transport, consent, early) = enter("40", websocket);
        assert_eq!(early, [""; 0], "nothing is due to it yet");
        let socket = self.sockets.recv().expect("it has connected");
        let (rooms, due) = (BTreeSet::new(), Vec::new());
        self.clients[index] = Some(Client { transport, consent, early, offset: None, socket, rooms, due });
    }

    fn join(&mut self, index: usize, room: &'static str) {
        let Some(client) = &mut self.clients[index] else { return };
        client.socket.join(room);
        client.rooms.insert(room);
    }

    fn leave(&mut self, index: usize, room: &str) {
        let Some(client) = &mut self.clients[index] else { return };
        client.socket.leave(room);
        client.rooms.remove(room);
    }

    /// Asks its handler to join, and hears that it has.
    fn say_join(&mut self, index: usize, room: &'static str) {
        // Between two threads there is no order, so nothing of this one's may be on its way.
        self.hear(index);
        let Some(client) = &mut self.clients[index] else { return };
        client.say(&format!(r#"42["join","{room}"]"#));
        client.rooms.insert(room);
        client.due.push("joined".into());
        self.hear(index);
    }

    /// Has its handler tell a room, and hears that it has.
    fn tell(&mut self, index: usize, room: &str, word: &str) {
        (0..CLIENTS).for_each(|index| self.hear(index));
        let Some(client) = &mut self.clients[index] else { return };
        client.say(&format!(r#"42["tell","{room}","{word}"]"#));
        client.due.push("told".into());
        self.note(word, |other, client| other != index && client.rooms.contains(room));
        (0..CLIENTS).for_each(|index| self.hear(index));
    }

    /// Everything that is due to a client comes, in its order, soon, and nothing else.
    fn hear(&mut self, index: usize) {
        let Some(client) = &mut self.clients[index] else { return };
        let began = Instant::now();
        let due = std::mem::take(&mut client.due);
        let mut heard: Vec<String> = client.early.drain(..).filter_map(|packet| word(&packet)).collect();
        while heard.len() < due.len() {
            match &mut client.transport {
                Transport::WebSocket(peer) => heard.extend(peer.words(1)),
                Transport::Polling { peer, id } => {
                    let packets = peer.get(&format!("&sid={id}")).expect("the session lives");
                    heard.extend(packets.iter().filter_map(|packet| word(packet)));
                }
            }
        }
        assert_eq!(heard, due);
        let (Transport::WebSocket(peer) | Transport::Polling { peer, .. }) = &client.transport;
        client.offset = peer.offset.clone().or(client.offset.take());
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }

    fn upgrade(&mut self, index: usize) {
        let Some(Client { transport, socket, .. }) = &mut self.clients[index] else { return };
        let Transport::Polling { id, .. } = transport else { return };
        let mut ws = Peer::on_websocket(&format!("&sid={id}"));
        assert!(ws.say("2probe"));
        assert_eq!(ws.packet().as_deref(), Some("3probe"));
        assert!(ws.say("5"));
        // A stream that ends before its `5` was read has failed to upgrade, and the session lives on.
        super::eventually("it has moved", || socket.transport() == TransportKind::Websocket);
        *transport = Transport::WebSocket(ws);
    }

    /// It is lost, or not even that, and comes back: it hears all the same what it is due.
    fn come_back(&mut self, index: usize, how: u8, word: &str) {
        let Some(mut client) = self.clients[index].take() else { return };
        match (how % 2, &mut client.transport) {
            // The old connection hangs around.
            (0, _) => {}
            (_, Transport::WebSocket(peer)) => peer.stream.reset(),
            (_, Transport::Polling { peer, id }) => assert_eq!(peer.post(id, "1"), Some(200)),
        }
        let before = self.clients.iter().flatten().count() + usize::from(how % 2 == 0);
        super::eventually("it is gone, or is not", || self.server.clients_count() == before);
        self.server.emit("w", word).expect("the server runs");
        let connect = client.consent.connect_again(client.offset.as_deref(), None);
        let pid = client.consent.pid;
        let old = client.transport;
        (client.transport, client.consent, client.early) = enter(&connect, how & 2 == 0);
        drop(old);
        assert_eq!(client.consent.pid, pid, "it is known still");
        client.socket = self.sockets.recv().expect("it has connected");
        assert!(client.socket.recovered());
        self.clients[index] = Some(client);
        self.note(word, |_, _| true);
    }

    fn cut(&mut self, index: usize, how: u8) {
        let Some(client) = self.clients[index].take() else { return };
        match (how % 4, client.transport) {
            (0, Transport::WebSocket(peer)) => peer.stream.reset(),
            (1, Transport::WebSocket(peer)) => peer.leave(),
            (2, Transport::WebSocket(mut peer)) => {
                client.socket.disconnect(true);
                while peer.packet().is_some() {}
                peer.hang_up();
            }
            (_, Transport::WebSocket(peer)) => peer.hang_up(),
            (0, Transport::Polling { id, .. }) => {
                client.socket.disconnect(true);
                while Peer::connect().get(&format!("&sid={id}")).is_some_and(|packets| packets != ["1"]) {}
            }
            (_, Transport::Polling { mut peer, id }) => assert_eq!(peer.post(&id, "1"), Some(200)),
        }
        // Its handlers are told in their turn, and until then it is in its rooms.
        let left = self.clients.iter().flatten().count();
        super::eventually("it is gone", || self.server.clients_count() == left);
    }

    /// What the hub knows of a room, and each socket of its rooms, is what the model knows.
    fn count(&self, room: &str) {
        let in_room = self.clients.iter().flatten().filter(|client| client.rooms.contains(room));
        assert_eq!(self.server.of("/").expect("it is there").to(room).sockets().len(), in_room.count());
        for client in self.clients.iter().flatten() {
            let rooms: BTreeSet<String> = client.socket.rooms().iter().map(ToString::to_string).collect();
            assert!(rooms.iter().eq(client.rooms.iter()), "{rooms:?} and not {:?}", client.rooms);
        }
    }

    fn end(mut self) {
        for index in 0..CLIENTS {
            self.hear(index);
        }
        ROOMS.iter().for_each(|room| self.count(room));
        for index in 0..CLIENTS {
            self.cut(index, 3);
        }
        all_over(self.server);
    }
}

/// A session with this CONNECT; with what came behind the consent.
fn enter(connect: &str, websocket: bool) -> (Transport, Consent, Vec<String>) {
    if websocket {
        let (peer, consent) = Peer::enter(connect).expect("a consent");
        return (Transport::WebSocket(peer), consent, Vec::new());
    }
    let (peer, id, consent, early) = Peer::enter_polling(connect).expect("a consent");
    (Transport::Polling { peer, id }, consent, early)
}

impl Client {
    fn say(&mut self, packet: &str) {
        match &mut self.transport {
            Transport::WebSocket(peer) => assert!(peer.say(packet)),
            Transport::Polling { peer, id } => assert_eq!(peer.post(id, packet), Some(200)),
        }
    }
}

#[cfg(test)]
mod tests {
    use shuttle::rand::{Rng, thread_rng};

    #[test]
    fn any_sequence_of_operations() {
        super::super::check("operations", || {
            let length = thread_rng().gen_range(0..64);
            let bytes: Vec<u8> = (0..length).map(|_| thread_rng().gen_range(0..=255)).collect();
            super::run(&bytes);
        });
    }
}
