//! Rooms, and who gets a broadcast.

use Transport::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use tinysio::server::{Namespace, Server, Socket};

use crate::support::{Client, Transport, addr, eventually, serve, serve_root};

/// Three clients: the first in `red`, the second in `red` and `blue`, the third in `green`.
struct Scene {
    server: Server,
    clients: Vec<Client>,
    sockets: Vec<Socket>,
}

impl Scene {
    fn new(transport: Transport) -> Self {
        let server = serve_root(|_| {});
        let mut clients: Vec<Client> = (0..3).map(|_| Client::new(addr(&server), transport)).collect();
        let ids: Vec<String> = clients.iter_mut().map(|client| client.join("/", "")).collect();
        let io = server.of("/").unwrap();
        let socket = |id: &String| io.to(id).sockets().pop().unwrap();
        let sockets: Vec<Socket> = ids.iter().map(socket).collect();
        for (socket, rooms) in sockets.iter().zip([&["red"][..], &["red", "blue"], &["green"]]) {
            for room in rooms {
                socket.join(room);
            }
        }
        Self { server, clients, sockets }
    }

    fn io(&self) -> Namespace {
        self.server.of("/").unwrap()
    }

    /// How many packets each client has got since the last question.
    fn received(&mut self) -> Vec<usize> {
        self.io().emit("end", ()).unwrap();
        let count = |client: &mut Client| {
            (0..).take_while(|_| client.text("a broadcast, or the last") != r#"42["end"]"#).count()
        };
        self.clients.iter_mut().map(count).collect()
    }
}

type Emit = fn(&Namespace, &[Socket]) -> Result<(), tinysio::server::EmitError>;

/// What is emitted, and how many packets of it each client gets.
const BROADCASTS: [(&str, Emit, [usize; 3]); 14] = [
    ("everybody", |io, _| io.emit("x", 1), [1, 1, 1]),
    ("a room", |io, _| io.to("red").emit("x", 1), [1, 1, 0]),
    ("an empty room", |io, _| io.to("nobody").emit("x", 1), [0, 0, 0]),
    ("two rooms and nobody twice", |io, _| io.to("red").to("blue").emit("x", 1), [1, 1, 0]),
    ("except", |io, _| io.except("red").emit("x", 1), [0, 0, 1]),
    ("a room except another", |io, _| io.to("red").except("blue").emit("x", 1), [1, 0, 0]),
    ("a socket by its id", |io, all| io.to(all[2].id()).emit("x", 1), [0, 0, 1]),
    ("except a socket", |io, all| io.except(all[0].id()).emit("x", 1), [0, 1, 1]),
    ("a room and a socket in it", |io, all| io.to("red").to(all[0].id()).emit("x", 1), [1, 1, 0]),
    ("everybody but the sender", |_, all| all[1].broadcast().emit("x", 1), [1, 0, 1]),
    ("a room but the sender", |_, all| all[0].to("red").emit("x", 1), [0, 1, 0]),
    ("a room the sender is not in", |_, all| all[2].to("red").emit("x", 1), [1, 1, 0]),
    ("sender and exception", |_, all| all[2].broadcast().except("blue").emit("x", 1), [1, 0, 0]),
    ("one socket", |_, all| all[1].emit("x", 1), [0, 1, 0]),
];

#[rstest]
fn a_broadcast_reaches_whom_it_is_for(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let mut scene = Scene::new(transport);
    for (name, emit, expected) in BROADCASTS {
        emit(&scene.io(), &scene.sockets).unwrap();
        assert_eq!(scene.received(), expected, "{name}");
    }
}

#[rstest]
fn rooms_are_joined_and_left(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let mut scene = Scene::new(transport);
    let io = scene.io();
    let mut rooms = scene.sockets[1].rooms();
    rooms.sort();
    assert_eq!(rooms, ["blue".into(), "red".into()]);
    assert_eq!((io.room_len("red"), io.room_len("green"), io.room_len("nobody")), (2, 1, 0));
    scene.sockets[0].join("red");
    assert_eq!(io.room_len("red"), 2, "joining twice is joining once");
    scene.sockets[0].leave("red");
    scene.sockets[0].leave("never joined");
    io.to("red").emit("x", 1).unwrap();
    assert_eq!(scene.received(), [0, 1, 0]);
    io.to("green").sockets_join("blue");
    io.to("blue").emit("x", 1).unwrap();
    assert_eq!(scene.received(), [0, 1, 1]);
    io.to("blue").sockets_leave("blue");
    assert_eq!(io.room_len("blue"), 0);
    scene.clients[2].leave();
    eventually("who has left is in no room", || io.room_len("green") == 0);
}

/// As on the official server, but that nobody leaves it, and that it gives nobody else what is emitted to the socket
/// itself.
#[rstest]
fn a_sockets_id_is_a_room_that_it_is_in(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let mut scene = Scene::new(transport);
    let io = scene.io();
    let own = scene.sockets[0].id().to_owned();
    assert_eq!(io.room_len(&own), 1);
    scene.sockets[0].join(&own);
    scene.sockets[1].join(&own);
    assert_eq!(io.room_len(&own), 2);
    io.to(&own).emit("x", 1).unwrap();
    assert_eq!(scene.received(), [1, 1, 0]);
    scene.sockets[0].emit("x", 1).unwrap();
    assert_eq!(scene.received(), [1, 0, 0]);
    scene.sockets[0].leave(&own);
    assert_eq!(io.room_len(&own), 2);
    io.to(&own).emit("x", 1).unwrap();
    assert_eq!(scene.received(), [1, 1, 0]);
    io.except(&own).emit("x", 1).unwrap();
    assert_eq!(scene.received(), [0, 0, 1]);
}

#[test]
fn a_join_beyond_max_rooms_is_refused() {
    let server = serve(|builder| builder.max_rooms(2).namespace("/", |_| {}));
    let _client = Client::connected(addr(&server), WebSocket);
    let socket = server.of("/").unwrap().sockets().pop().unwrap();
    for room in ["a", "b", "c"] {
        socket.join(room);
    }
    assert_eq!(socket.rooms().len(), 2);
    socket.leave("a");
    socket.join("c");
    assert_eq!(server.of("/").unwrap().room_len("c"), 1);
}

#[rstest]
fn sockets_can_be_disconnected_together(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let mut scene = Scene::new(transport);
    scene.io().to("red").disconnect_sockets(true);
    for client in &mut scene.clients[..2] {
        client.expect("41");
        assert_eq!(client.closed("the close by the server"), []);
    }
    assert_eq!(scene.io().sockets().len(), 1);
    scene.io().disconnect_sockets(false);
    scene.clients[2].expect("41");
}

/// A seat is given to the next session; what the last one's socket still does must not touch it.
#[test]
fn a_socket_that_is_gone_has_no_hand_in_its_successor() {
    let server = serve(|builder| builder.max_connections(1).namespace("/", |_| {}));
    let io = server.of("/").unwrap();
    let mut first = Client::connected(addr(&server), WebSocket);
    let old = io.sockets().pop().unwrap();
    first.leave();
    crate::support::all_gone(&server);
    let mut second = Client::connected(addr(&server), WebSocket);
    let new = io.sockets().pop().unwrap();
    new.join("room");
    assert_eq!(old.rooms(), []);
    old.leave("room");
    old.join("other");
    assert_eq!(new.rooms(), ["room".into()]);
    assert!(old.emit("x", 1).is_err());
    old.disconnect(true);
    old.broadcast().emit("everybody else", 1).unwrap();
    second.expect(r#"42["everybody else",1]"#);
    old.to("room").emit("the room", 1).unwrap();
    second.expect(r#"42["the room",1]"#);
}

#[rstest]
fn volatile_packets_reach_who_is_ready(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve_root(|_| {});
    let mut client = Client::connected(addr(&server), transport);
    let io = server.of("/").unwrap();
    let socket = io.sockets().pop().unwrap();
    if transport == Polling {
        assert!(socket.emit_volatile("lost", 1).is_err(), "no GET is held");
        client.ask();
        eventually("a GET is held", || socket.emit_volatile("x", 1).is_ok());
    } else {
        socket.emit_volatile("x", 1).unwrap();
        io.volatile().emit("x", 2).unwrap();
    }
    client.expect(r#"42["x",1]"#);
}

/// The hub did not know the socket yet, and dropped the join.
#[test]
fn rooms_joined_in_a_middleware_are_kept() {
    let server = serve_root(|ns| {
        ns.middleware(|socket| {
            socket.join("vip");
            Ok(())
        });
        ns.on_connect(|socket| socket.emit("rooms", socket.rooms().len()));
    });
    let mut client = Client::connected(addr(&server), WebSocket);
    client.expect(r#"42["rooms",1]"#);
    assert_eq!(server.of("/").unwrap().room_len("vip"), 1);
}

/// A handler reaches the rest of the server without anything that it was given before the start.
#[rstest]
fn a_handler_reaches_the_other_namespaces(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve(|builder| {
        let builder = builder.namespace("/", |ns| {
            ns.on("tell", |socket, event| {
                let io = socket.namespace();
                assert!(io.of("/nowhere").is_none() && io.of("/").unwrap().len() == io.len());
                io.of("/admin").unwrap().to("duty").emit("told", event.args()).unwrap();
                event.ack(io.of("/admin").unwrap().name())
            });
        });
        builder.namespace("/admin", |ns| _ = ns.on_connect(|socket| socket.join("duty")))
    });
    let (mut client, mut admin) =
        (Client::connected(addr(&server), transport), Client::new(addr(&server), transport));
    admin.join("/admin", "");
    client.send(r#"421["tell","fire"]"#);
    client.expect(r#"431["/admin"]"#);
    admin.expect(r#"42/admin,["told","fire"]"#);
    let io = server.of("/").unwrap();
    drop((client, admin, server));
    eventually("the namespaces of a server that is gone", || io.of("/admin").is_none());
}
