//! A client that takes any of the three transports: each scenario is written once.

use std::{
    collections::VecDeque,
    net::{Shutdown, SocketAddr},
};

use serde_json::Value;
use tinysio::proto::engine::{Data, Open, Packet, payload};

use super::{Frame, Http, Response, Ws};

/// How a client comes to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Polling,
    WebSocket,
    /// Polling, then upgraded.
    Upgrade,
}

/// The target of an Engine.IO request at the Socket.IO endpoint; `rest` begins with `&` or is empty.
pub(crate) fn socket_target(transport: &str, rest: &str) -> String {
    format!("/socket.io/?EIO=4&transport={transport}{rest}")
}

pub(crate) struct Client {
    pub(crate) addr: SocketAddr,
    pub(crate) open: Open,
    path: String,
    connection: Connection,
    /// What has come and was not asked for yet.
    queue: VecDeque<Frame>,
}

enum Connection {
    /// `asked`, `posted`: a GET, a POST is on its way.
    Polling {
        gets: Box<Http>,
        asked: bool,
        posts: Box<Http>,
        posted: bool,
    },
    WebSocket(Box<Ws>),
}

impl Client {
    /// A session at the Socket.IO endpoint.
    pub(crate) fn new(addr: SocketAddr, transport: Transport) -> Self {
        Self::at(addr, transport, "/socket.io/")
    }

    /// A session at an endpoint.
    pub(crate) fn at(addr: SocketAddr, transport: Transport, path: &str) -> Self {
        let mut client = match transport {
            Transport::WebSocket => Self::websocket(addr, path),
            Transport::Polling | Transport::Upgrade => Self::polling(addr, path),
        };
        if transport == Transport::Upgrade {
            client.upgrade();
        }
        client
    }

    fn websocket(addr: SocketAddr, path: &str) -> Self {
        let mut ws = Ws::open(addr, &format!("{path}?EIO=4&transport=websocket"));
        let open = read_open(&ws.text("the open packet"));
        Self {
            addr,
            open,
            path: path.into(),
            connection: Connection::WebSocket(Box::new(ws)),
            queue: VecDeque::new(),
        }
    }

    fn polling(addr: SocketAddr, path: &str) -> Self {
        let mut gets = Http::connect(addr);
        let response = gets.get(&format!("{path}?EIO=4&transport=polling"));
        assert_eq!(response.status, 200, "{response:?}");
        let (gets, posts) = (Box::new(gets), Box::new(Http::connect(addr)));
        let connection = Connection::Polling { gets, asked: false, posts, posted: false };
        Self { addr, open: read_open(&response.body), path: path.into(), connection, queue: VecDeque::new() }
    }

    /// A client of this server that is connected to `/`.
    pub(crate) fn connected(addr: SocketAddr, transport: Transport) -> Self {
        let mut client = Self::new(addr, transport);
        client.join("/", "");
        client
    }

    /// CONNECT to a namespace, with an auth payload or none; gives the socket's id.
    pub(crate) fn join(&mut self, namespace: &str, auth: &str) -> String {
        let prefix = if namespace == "/" { "40".to_owned() } else { format!("40{namespace},") };
        self.send(&format!("{prefix}{auth}"));
        let answer = self.text(&format!("the consent to join {namespace}"));
        let consent = answer.strip_prefix(&prefix).unwrap_or_else(|| panic!("{answer} for {prefix}"));
        let consent: Value = serde_json::from_str(consent).unwrap();
        consent["sid"].as_str().expect("a socket id").to_owned()
    }

    /// As the official client upgrades, with what comes meanwhile kept.
    pub(crate) fn upgrade(&mut self) {
        let target = self.target("websocket");
        let mut ws = Ws::open(self.addr, &target);
        ws.send("2probe");
        ws.expect("3probe");
        self.end_poll();
        ws.send("5");
        self.connection = Connection::WebSocket(Box::new(ws));
    }

    /// Reads the answer to the GET that is on its way, if there is one.
    pub(crate) fn end_poll(&mut self) {
        if matches!(self.connection, Connection::Polling { asked: true, .. }) {
            self.poll("the held GET's release");
        }
    }

    /// The target of this session's requests.
    pub(crate) fn target(&self, transport: &str) -> String {
        format!("{}?EIO=4&transport={transport}&sid={}", self.path, self.open.sid)
    }

    /// Sends a packet.
    pub(crate) fn send(&mut self, packet: &str) {
        self.send_burst(&[Frame::text(packet)]);
    }

    /// Sends packets in one POST, or in one write.
    pub(crate) fn send_burst(&mut self, packets: &[Frame]) {
        self.begin_burst(packets);
        self.end_post();
    }

    /// Sends a packet. On polling the answer to the POST, which comes after the handlers, is read later.
    pub(crate) fn begin(&mut self, packet: &str) {
        self.begin_burst(&[Frame::text(packet)]);
    }

    /// Reads the answer to the POST that is on its way, if there is one.
    pub(crate) fn end_post(&mut self) {
        if let Connection::Polling { posts, posted, .. } = &mut self.connection
            && std::mem::take(posted)
        {
            let response = posts.response("the answer to a POST");
            assert_eq!((response.status, &*response.body), (200, "ok"), "{response:?}");
        }
    }

    fn begin_burst(&mut self, packets: &[Frame]) {
        self.end_post();
        let target = self.target("polling");
        match &mut self.connection {
            Connection::Polling { posts, posted, .. } => {
                let mut body = payload::Builder::new();
                for packet in packets {
                    match packet {
                        Frame::Text(text) => body.push_text(text),
                        Frame::Binary(bytes) => body.push_binary(bytes),
                        other => panic!("{other:?} is no packet"),
                    }
                }
                posts.begin("POST", &target, &body.finish());
                *posted = true;
            }
            Connection::WebSocket(ws) => {
                let mut bytes = Vec::new();
                for packet in packets {
                    bytes.extend(match packet {
                        Frame::Text(text) => Ws::frame(0x81, text.as_bytes()),
                        Frame::Binary(bytes) => Ws::frame(0x82, bytes),
                        other => panic!("{other:?} is no packet"),
                    });
                }
                ws.send_raw(&bytes);
            }
        }
    }

    /// Sends several texts at once.
    pub(crate) fn send_texts(&mut self, packets: &[&str]) {
        let packets: Vec<Frame> = packets.iter().map(|packet| Frame::text(packet)).collect();
        self.send_burst(&packets);
    }

    /// Sends a GET whose answer is read later. Of no meaning on WebSocket.
    pub(crate) fn ask(&mut self) {
        let target = self.target("polling");
        if let Connection::Polling { gets, asked, .. } = &mut self.connection
            && !std::mem::replace(asked, true)
        {
            gets.begin("GET", &target, "");
        }
    }

    /// The next message; pings are answered.
    pub(crate) fn next(&mut self, what: &str) -> Frame {
        loop {
            match self.next_raw(what) {
                Frame::Text(text) if text == "2" => self.pong(),
                Frame::Text(text) if text == "6" => {}
                frame => return frame,
            }
        }
    }

    /// The next packet, be it a ping.
    pub(crate) fn next_raw(&mut self, what: &str) -> Frame {
        loop {
            if let Some(frame) = self.queue.pop_front() {
                return frame;
            }
            match &mut self.connection {
                Connection::WebSocket(ws) => {
                    let frame = ws.next(what);
                    self.queue.push_back(frame);
                }
                Connection::Polling { .. } => self.poll(what),
            }
        }
    }

    /// The session may be over by now, and then there is nobody to answer.
    fn pong(&mut self) {
        let target = self.target("polling");
        match &mut self.connection {
            Connection::WebSocket(ws) => ws.send("3"),
            Connection::Polling { .. } => drop(Http::connect(self.addr).post(&target, "3")),
        }
    }

    /// One GET's answer into the queue.
    fn poll(&mut self, what: &str) {
        self.ask();
        let Connection::Polling { gets, asked, .. } = &mut self.connection else { return };
        *asked = false;
        let Response { status, body, .. } = gets.response(what);
        if status != 200 {
            self.queue.push_back(Frame::End);
            return;
        }
        let frames = payload::decode(&body).map(|packet| match packet.unwrap() {
            Packet::Message(Data::Binary(bytes)) => Frame::Binary(bytes.to_vec()),
            Packet::Close => Frame::Close(None),
            text => Frame::Text(text.text().unwrap()),
        });
        self.queue.extend(frames);
    }

    pub(crate) fn text(&mut self, what: &str) -> String {
        match self.next(what) {
            Frame::Text(text) => text,
            other => panic!("{other:?} came instead of {what}"),
        }
    }

    pub(crate) fn expect(&mut self, text: &str) {
        assert_eq!(self.text(text), text);
    }

    pub(crate) fn expect_binary(&mut self, bytes: &[u8]) {
        assert_eq!(self.next("a binary message"), Frame::Binary(bytes.to_vec()));
    }

    /// Waits for the end of the session, and hangs up; what else comes is given back.
    pub(crate) fn closed(&mut self, what: &str) -> Vec<Frame> {
        let mut before = Vec::new();
        loop {
            match self.next(what) {
                Frame::Close(_) | Frame::End => break,
                frame => before.push(frame),
            }
        }
        if let Connection::WebSocket(ws) = &mut self.connection {
            ws.send_close();
            // The server may have been faster.
            let _ = ws.http.stream.shutdown(Shutdown::Both);
        }
        before
    }

    /// Says good-bye below Socket.IO: `1` on polling, a close frame on WebSocket.
    pub(crate) fn leave(&mut self) {
        match &mut self.connection {
            Connection::WebSocket(ws) => ws.send_close(),
            Connection::Polling { .. } => self.send("1"),
        }
    }

    /// The stream that the server writes to, where there is one.
    pub(crate) fn ws(&mut self) -> &mut Ws {
        match &mut self.connection {
            Connection::WebSocket(ws) => ws,
            Connection::Polling { .. } => panic!("the client is on polling"),
        }
    }

    pub(crate) fn into_ws(self) -> Ws {
        match self.connection {
            Connection::WebSocket(ws) => *ws,
            Connection::Polling { .. } => panic!("the client is on polling"),
        }
    }

    pub(crate) fn is_polling(&self) -> bool {
        matches!(self.connection, Connection::Polling { .. })
    }
}

fn read_open(packet: &str) -> Open {
    let json = packet.strip_prefix('0').unwrap_or_else(|| panic!("{packet} is no open packet"));
    serde_json::from_str(json).unwrap()
}
