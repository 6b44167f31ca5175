//! A client that says how far it came, in place of failing.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Sender, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use super::program::spawn;

const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Transport {
    Polling,
    WebSocket,
    Upgrade,
}

struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
}

fn broken(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

impl Peer {
    fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::new() })
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        let read = self.stream.read(&mut chunk)?;
        self.input.extend_from_slice(&chunk[..read]);
        if read == 0 { Err(broken("the stream has ended")) } else { Ok(()) }
    }

    /// A request's answer: status and body.
    fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &str,
        body: &str,
    ) -> io::Result<(u16, String)> {
        let length =
            if method == "POST" { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
        let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}{length}\r\n{body}");
        self.stream.write_all(request.as_bytes())?;
        let end = loop {
            if let Some(at) = self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&self.input[..end]).to_lowercase();
        self.input.drain(..end);
        let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(|| broken(&head))?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let length: usize = length.parse().map_err(|_| broken(&head))?;
        while self.input.len() < length {
            self.fill()?;
        }
        let body = self.input.drain(..length).collect();
        Ok((status, String::from_utf8(body).map_err(|_| broken("no text"))?))
    }

    fn get(&mut self, target: &str) -> io::Result<String> {
        match self.request("GET", target, "", "")? {
            (200, body) => Ok(body),
            (status, body) => Err(broken(&format!("GET {target}: {status} {body}"))),
        }
    }

    fn post(&mut self, target: &str, body: &str) -> io::Result<()> {
        match self.request("POST", target, "", body)? {
            (200, _) => Ok(()),
            (status, body) => Err(broken(&format!("POST: {status} {body}"))),
        }
    }

    fn become_websocket(&mut self, target: &str) -> io::Result<()> {
        const HEADERS: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                               Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        match self.request("GET", target, HEADERS, "")? {
            (101, _) => Ok(()),
            (status, body) => Err(broken(&format!("WebSocket: {status} {body}"))),
        }
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.stream.write_all(&frame)
    }

    /// The next text on WebSocket.
    fn text(&mut self) -> io::Result<String> {
        loop {
            if let Some((first, payload)) = self.take_frame() {
                return match first {
                    0x81 => String::from_utf8(payload).map_err(|_| broken("no text")),
                    other => Err(broken(&format!("a frame of type {other:#x}"))),
                };
            }
            self.fill()?;
        }
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, second) = (*self.input.first()?, *self.input.get(1)?);
        let (header, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.input.get(2..4)?.try_into().ok()?))),
            length => (2, usize::from(length)),
        };
        let payload = self.input.get(header..header + length)?.to_vec();
        self.input.drain(..header + length);
        Some((first, payload))
    }

    fn text_with(&mut self, part: &str) -> io::Result<String> {
        loop {
            match self.text()? {
                ping if ping == "2" => self.say("3")?,
                text if text.contains(part) => return Ok(text),
                _ => {}
            }
        }
    }
}

fn target(transport: &str, sid: &str) -> String {
    format!("/socket.io/?EIO=4&transport={transport}{sid}")
}

/// A session that is connected, and how it is spoken to.
enum Session {
    Polling { peer: Peer, sid: String },
    WebSocket(Peer),
}

fn connect(port: u16, transport: Transport) -> io::Result<Session> {
    let mut peer = Peer::connect(port)?;
    if transport == Transport::WebSocket {
        peer.become_websocket(&target("websocket", ""))?;
        peer.text_with("0{")?;
        peer.say("40")?;
        peer.text_with("40{")?;
        return Ok(Session::WebSocket(peer));
    }
    let open = peer.get(&target("polling", ""))?;
    let sid = open.split('"').nth(3).ok_or_else(|| broken(&open))?;
    let sid = format!("&sid={sid}");
    peer.post(&target("polling", &sid), "40")?;
    while !peer.get(&target("polling", &sid))?.contains("40{") {}
    if transport == Transport::Polling {
        return Ok(Session::Polling { peer, sid });
    }
    let mut ws = Peer::connect(port)?;
    ws.become_websocket(&target("websocket", &sid))?;
    ws.say("2probe")?;
    ws.text_with("3probe")?;
    ws.say("5")?;
    Ok(Session::WebSocket(ws))
}

/// Comes, asks, is answered, and looks at `/health`.
pub(crate) fn talk(port: u16, transport: Transport) -> io::Result<()> {
    const QUESTION: &str = r#"42["custom_event",{"n":1}]"#;
    match connect(port, transport)? {
        Session::WebSocket(mut ws) => {
            ws.say(QUESTION)?;
            ws.text_with("custom_response")?;
        }
        Session::Polling { mut peer, sid } => {
            peer.post(&target("polling", &sid), QUESTION)?;
            while !peer.get(&target("polling", &sid))?.contains("custom_response") {}
            peer.post(&target("polling", &sid), "1")?;
        }
    }
    health(port).map(drop)
}

/// What `/health` says.
pub(crate) fn health(port: u16) -> io::Result<String> {
    Peer::connect(port)?.get("/health")
}

/// A client that answers each ping, when it is told to.
pub(crate) struct Living {
    over: Arc<AtomicBool>,
}

/// A ping that has come; dropped, it is answered.
pub(crate) type Ping = SyncSender<()>;

impl Living {
    pub(crate) fn new(port: u16, transport: Transport, pings: Sender<Ping>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let living = Self { over: Arc::clone(&over) };
        let session = connect(port, transport).unwrap();
        spawn(move || {
            // The end that this waits for is the stream's.
            let _ = live(port, session, &pings);
            over.store(true, SeqCst);
        });
        living
    }

    pub(crate) fn is_alive(&self) -> bool {
        !self.over.load(SeqCst)
    }
}

/// Tells of a ping, and waits until it may be answered.
fn tell(pings: &Sender<Ping>) {
    let (ping, answer) = sync_channel(0);
    // At the end of the test nobody wants to know any more.
    let _ = pings.send(ping);
    let _ = answer.recv();
}

fn live(port: u16, session: Session, pings: &Sender<Ping>) -> io::Result<()> {
    match session {
        Session::WebSocket(mut ws) => loop {
            if ws.text()? == "2" {
                tell(pings);
                ws.say("3")?;
            }
        },
        Session::Polling { mut peer, sid } => loop {
            let packets = peer.get(&target("polling", &sid))?;
            if packets.split('\u{1e}').any(|packet| packet == "1") {
                return Ok(());
            }
            if packets.split('\u{1e}').any(|packet| packet == "2") {
                tell(pings);
                Peer::connect(port)?.post(&target("polling", &sid), "3")?;
            }
        },
    }
}

/// A client that reads and says nothing.
pub(crate) fn silent(port: u16) -> TcpStream {
    let Ok(Session::WebSocket(ws)) = connect(port, Transport::WebSocket) else { panic!("no WebSocket") };
    ws.stream
}

pub(crate) fn ends_within(mut stream: TcpStream, bound: Duration) -> bool {
    let deadline = Instant::now() + bound;
    let mut sink = [0; 256];
    stream.set_read_timeout(Some(bound)).unwrap();
    while Instant::now() < deadline {
        match stream.read(&mut sink) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
    false
}
