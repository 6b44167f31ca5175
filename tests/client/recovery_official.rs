//! Connection state recovery against the official server, through a proxy that is cut.

use std::{
    io,
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex},
};

use rstest::rstest;
use serde::Serialize;
use tinysio::{
    Bytes,
    client::{Client, Socket, TransportKind},
};

use crate::{
    hostile::listen,
    support::{Heard, LONG, Peer, Server, Way, hear, in_thread, quick, until},
};

/// Passes connections on to a server, while it is open.
pub(crate) struct Proxy {
    pub(crate) url: String,
    /// What it carries. `None`: it is shut, and takes no connection.
    streams: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Proxy {
    pub(crate) fn to(port: u16) -> Self {
        let streams = Arc::new(Mutex::new(Some(Vec::new())));
        let its = streams.clone();
        let url = listen(move |client| {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
            match its.lock().unwrap().as_mut() {
                Some(streams) => {
                    streams.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                }
                None => return,
            }
            let (back, there) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            in_thread(move || pass(back, there));
            pass(client, server);
        });
        Self { url, streams }
    }

    /// Takes no more connections; those that there are stay.
    fn shut(&self) -> Vec<TcpStream> {
        self.streams.lock().unwrap().take().unwrap_or_default()
    }

    /// Takes no more connections, and cuts those that there are.
    pub(crate) fn cut(&self) {
        for stream in self.shut() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn open(&self) {
        *self.streams.lock().unwrap() = Some(Vec::new());
    }
}

pub(crate) fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// Has the server emit `told` to a room, or to all.
fn tell(publisher: &Socket, room: &str, what: impl Serialize) {
    publisher.emit_with_ack("tell", (room, what), LONG).unwrap();
}

/// What `told` says: a number, or the first byte of an attachment.
fn told(socket: &Socket) -> Heard<u32> {
    let (said, heard) = hear("what was told");
    socket.on("told", move |_, event| {
        // To this server the offset is an argument, and so its handlers see it.
        assert!(event.args().len() == 2 && event.arg::<String>(1).is_ok(), "{event:?}");
        let bytes = event.args().attachments().first();
        let number = bytes.map_or_else(|| event.arg(0).unwrap(), |bytes| bytes[0].into());
        let _ = said.send(number);
    });
    heard
}

/// How the client loses its connection.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// The network is cut.
    Cut,
    /// The server closes it.
    Close,
}

impl Loss {
    /// The connection is lost, the server knows, and there will be no other until the proxy is open again.
    fn happens(self, proxy: &Proxy, client: &Client, publisher: &Socket) {
        let id = client.socket("/").id().unwrap();
        match self {
            Self::Cut => proxy.cut(),
            Self::Close => {
                let _carried = proxy.shut();
                publisher.emit_with_ack("close", id, LONG).unwrap();
                until("the client's loss", || !client.socket("/").is_connected());
            }
        }
        until("the server's loss", || {
            publisher.emit_with_ack("sockets", (), LONG).unwrap().get::<usize>(0).unwrap() == 1
        });
    }
}

#[rstest]
#[ignore = "needs Node"]
fn what_was_missed_arrives(
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
    #[values(Loss::Cut, Loss::Close)] loss: Loss,
) {
    // A cut between two GETs is noticed by the missing pong only.
    let options = ["--recovery", "--ping-interval", "1000", "--ping-timeout", "5000"];
    let mut server = Server::start(Peer::Node, &options);
    let proxy = Proxy::to(server.port);
    let publishing = quick(&server.url()).transports(&[TransportKind::Websocket]).build().unwrap();
    publishing.connect().unwrap();
    let publisher = publishing.socket("/");

    let client = way.set(quick(&proxy.url)).build().unwrap();
    let socket = client.socket("/");
    let heard = told(&socket);
    client.connect().unwrap();
    let id = socket.id().unwrap();
    socket.emit_with_ack("join", "mine", LONG).unwrap();
    for round in 0..3 {
        if way == Way::Upgrade {
            until("the upgrade", || client.status().transport == Some(TransportKind::Websocket));
        }
        tell(&publisher, "", 1);
        assert_eq!(heard.next(), 1);
        loss.happens(&proxy, &client, &publisher);
        tell(&publisher, "", 2);
        tell(&publisher, "mine", Bytes::from_static(b"\x03"));
        tell(&publisher, "other", 99);
        tell(&publisher, "mine", 4);
        tell(&publisher, &id, 5);
        tell(&publisher, "", Bytes::from_static(b"\x06"));
        proxy.open();
        until("the reconnection", || socket.is_connected());
        assert!(socket.recovered(), "round {round}");
        assert_eq!(socket.id().as_ref(), Some(&id));
        // Still in its room, and each comes once.
        tell(&publisher, "mine", 7);
        assert_eq!((2..=7).map(|_| heard.next()).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7], "round {round}");
    }

    // The server forgets.
    server.kill();
    until("the loss", || !socket.is_connected() && !publisher.is_connected());
    let _server = Server::start_at(Peer::Node, server.port, &options);
    publishing.wait_connected(LONG).unwrap();
    until("the reconnection", || socket.is_connected());
    assert!(!socket.recovered());
    assert_ne!(socket.id(), Some(id));
    tell(&publisher, "mine", 99);
    tell(&publisher, "", 8);
    assert_eq!(heard.next(), 8);
}
