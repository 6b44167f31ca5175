//! A client of the simulated network: HTTP and WebSocket by hand, so that it does just what the scene says.

use std::{net::Shutdown, sync::Arc};

use serde::Deserialize;

use crate::{
    proto::engine::{Data, Open, Packet, payload},
    sys::net::TcpStream,
};

/// One connection.
pub(super) struct Peer {
    pub(super) stream: Arc<TcpStream>,
    input: Vec<u8>,
    /// The offset of the last event that came with one.
    pub(super) offset: Option<String>,
}

/// What a CONNECT was answered.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Consent {
    pub(super) sid: String,
    /// Empty without recovery.
    #[serde(default)]
    pub(super) pid: String,
}

impl Consent {
    /// `None`: it is another packet.
    fn read(packet: &str) -> Option<Self> {
        serde_json::from_str(packet.strip_prefix("40")?).ok()
    }

    /// The CONNECT of the same client when it comes back; with its `rid` if it has one.
    pub(super) fn connect_again(&self, offset: Option<&str>, rid: Option<&str>) -> String {
        let of =
            |name: &str, value: Option<&str>| value.map_or(String::new(), |v| format!(r#","{name}":"{v}""#));
        format!(r#"40{{"pid":"{}"{}{}}}"#, self.pid, of("offset", offset), of("rid", rid))
    }
}

impl Peer {
    pub(super) fn connect() -> Self {
        let stream = TcpStream::connect(()).expect("somebody listens");
        Self { stream: Arc::new(stream), input: Vec::new(), offset: None }
    }

    /// A session on WebSocket, connected to `/`; with its id.
    pub(super) fn websocket() -> (Self, String) {
        let (mut peer, open) = Self::open();
        peer.say("40");
        let consent = peer.packet().expect("the consent");
        assert!(consent.starts_with("40{"), "{consent}");
        (peer, id_of(&open))
    }

    /// A session on WebSocket that has said nothing yet; with its open packet.
    fn open() -> (Self, String) {
        let mut peer = Self::on_websocket("");
        let open = peer.packet().expect("the open packet");
        (peer, open)
    }

    /// A session on WebSocket whose CONNECT is `connect`. `None`: the server ends it without a consent.
    pub(super) fn enter(connect: &str) -> Option<(Self, Consent)> {
        let (mut peer, _) = Self::open();
        peer.say(connect);
        let packet = peer.packet()?;
        Some((peer, Consent::read(&packet).unwrap_or_else(|| panic!("a consent and not {packet}"))))
    }

    /// As [`enter`](Self::enter), on polling; with the session's id, and the packets that came with the consent.
    pub(super) fn enter_polling(connect: &str) -> Option<(Self, String, Consent, Vec<String>)> {
        let mut peer = Self::connect();
        let id = id_of(peer.get("")?.first()?);
        peer.post(&id, connect);
        let mut packets = peer.get(&format!("&sid={id}")).filter(|packets| packets[0] != "1")?;
        let consent = Consent::read(&packets[0]).unwrap_or_else(|| panic!("a consent and not {packets:?}"));
        packets.remove(0);
        Some((peer, id, consent, packets))
    }

    /// A WebSocket that the server has agreed to, with this behind the query.
    pub(super) fn on_websocket(rest: &str) -> Self {
        let mut peer = Self::connect();
        peer.ask_websocket(rest);
        assert_eq!(peer.status(), Some(101));
        peer
    }

    pub(super) fn ask_websocket(&mut self, rest: &str) {
        self.send(
            format!(
                "GET /socket.io/?EIO=4&transport=websocket{rest} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            .as_bytes(),
        );
    }

    /// A session on polling, connected to `/`; its id. This connection may be used on.
    pub(super) fn polling() -> (Self, String) {
        let mut peer = Self::connect();
        let open = peer.get("").expect("the open packet").pop().expect("one packet");
        let id = id_of(&open);
        assert_eq!(peer.post(&id, "40"), Some(200));
        let consent = peer.get(&format!("&sid={id}")).expect("the consent").remove(0);
        assert!(consent.starts_with("40{"), "{consent}");
        (peer, id)
    }

    pub(super) fn send(&self, bytes: &[u8]) -> bool {
        send_all(&self.stream, bytes)
    }

    /// `false`: the stream has ended.
    fn fill(&mut self) -> bool {
        loop {
            match self.stream.recv(4096, true) {
                Ok(bytes) => {
                    self.input.extend_from_slice(&bytes);
                    return !bytes.is_empty();
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                return Some(String::from_utf8(self.input.drain(..at + 4).collect()).expect("ASCII"));
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// The status of an answer without a body.
    pub(super) fn status(&mut self) -> Option<u16> {
        Some(self.head()?[9..12].parse().expect("a status"))
    }

    /// `None`: the stream ended.
    pub(super) fn answer(&mut self) -> Option<(u16, String)> {
        let head = self.head()?;
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().expect("a number"));
        while self.input.len() < length {
            if !self.fill() {
                return None;
            }
        }
        let body = String::from_utf8(self.input.drain(..length).collect()).expect("UTF-8");
        Some((head[9..12].parse().expect("a status"), body))
    }

    pub(super) fn ask(&mut self, rest: &str) {
        self.send(
            format!("GET /socket.io/?EIO=4&transport=polling{rest} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
        );
    }

    /// The packets that a GET brings. `None`: the session is over, or the stream.
    pub(super) fn get(&mut self, rest: &str) -> Option<Vec<String>> {
        self.ask(rest);
        let (status, body) = self.answer()?;
        (status == 200).then(|| {
            let packets = payload::decode(&body).map(|packet| match packet.expect("well-formed") {
                Packet::Message(Data::Binary(_)) => "binary".into(),
                packet => packet.text().expect("text"),
            });
            packets.inspect(|packet| self.note_offset(packet)).collect()
        })
    }

    pub(super) fn post(&mut self, id: &str, body: &str) -> Option<u16> {
        let length = body.len();
        self.send(
            format!(
                "POST /socket.io/?EIO=4&transport=polling&sid={id} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        );
        Some(self.answer()?.0)
    }

    /// Says a packet on WebSocket.
    pub(super) fn say(&self, packet: &str) -> bool {
        self.frame(0x81, packet.as_bytes())
    }

    /// Says several in one send, as far as the kernel takes them.
    #[cfg(test)]
    pub(super) fn say_all(&self, packets: &[String]) -> bool {
        let frames = packets.iter().flat_map(|packet| masked(0x81, packet.as_bytes()));
        self.send(&frames.collect::<Vec<u8>>())
    }

    pub(super) fn frame(&self, first: u8, payload: &[u8]) -> bool {
        self.send(&masked(first, payload))
    }

    /// The next packet on WebSocket, pings answered. `None`: a close frame, or the end.
    pub(super) fn packet(&mut self) -> Option<String> {
        loop {
            while let Some((first, payload)) = self.take_frame() {
                match first {
                    0x81 if payload == b"2" => drop(self.say("3")),
                    0x81 => {
                        let packet = String::from_utf8(payload).expect("UTF-8");
                        self.note_offset(&packet);
                        return Some(packet);
                    }
                    0x88 => return None,
                    other => panic!("a frame of type {other:#x}"),
                }
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, second) = (*self.input.first()?, *self.input.get(1)?);
        let (header, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.input.get(2..4)?.try_into().expect("two")))),
            127 => panic!("a frame of that size"),
            length => (2, usize::from(length)),
        };
        let payload = self.input.get(header..header + length)?.to_vec();
        self.input.drain(..header + length);
        Some((first, payload))
    }

    /// The words of the events that come, until `enough` of them or the end.
    pub(super) fn words(&mut self, enough: usize) -> Vec<String> {
        let mut words = Vec::new();
        while words.len() < enough {
            let Some(packet) = self.packet() else { break };
            words.extend(word(&packet));
        }
        words
    }

    fn note_offset(&mut self, packet: &str) {
        if let Some((_, offset @ Some(_))) = event(packet) {
            self.offset = offset;
        }
    }

    /// Says good-bye, and waits until the server has hung up.
    pub(super) fn leave(mut self) {
        self.frame(0x88, &[]);
        while self.packet().is_some() {}
        self.hang_up();
    }

    pub(super) fn hang_up(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

/// Sends all of it. `false`: the server wants nothing more.
pub(super) fn send_all(stream: &TcpStream, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match stream.send(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => stream.wait_writable(),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

fn id_of(open: &str) -> String {
    let open: Open = serde_json::from_str(&open[1..]).expect("an open packet");
    open.sid
}

/// What an event `42["w","word"]` says.
pub(super) fn word(packet: &str) -> Option<String> {
    Some(event(packet)?.0)
}

/// What an event says, and its offset where there is recovery: `42["w","word","offset"]`.
fn event(packet: &str) -> Option<(String, Option<String>)> {
    let mut args: Vec<String> = serde_json::from_str(packet.strip_prefix("42")?).ok()?;
    let offset = if args.len() == 3 { args.pop() } else { None };
    match args.as_slice() {
        [name, padded] if name == "w" => Some((padded.trim_end_matches('.').to_owned(), offset)),
        _ => None,
    }
}
