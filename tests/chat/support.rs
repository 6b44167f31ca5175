//! A chat on a free port, the `server` program as a process, and a bare WebSocket client that counts every byte.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, value::RawValue};
use tinysio::{
    chat::{Chat, Options},
    server::{Builder, Server},
};
use tungstenite::{Error, Message, WebSocket, client};

/// Bound of every wait; only a failure uses it up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A chat in this process.
pub(crate) struct Stage {
    pub(crate) chat: Chat,
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        Self::built(options, |builder| builder)
    }

    pub(crate) fn built(options: Options, set_up: impl FnOnce(Builder) -> Builder) -> Self {
        let chat = Chat::new(options);
        let server = set_up(chat.install(Server::builder())).listen("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        Self { chat, server, address }
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer::connect(self.address)
    }

    /// Peers who have heard of each other.
    pub(crate) fn peers<const N: usize>(&self) -> [Peer; N] {
        let mut peers: Vec<Peer> = Vec::new();
        for _ in 0..N {
            let peer = self.peer();
            for earlier in &mut peers {
                earlier.next("client_notification");
            }
            peers.push(peer);
        }
        peers.try_into().ok().unwrap()
    }
}

/// A client that is nothing but a WebSocket.
pub(crate) struct Peer<S: Read + Write = TcpStream> {
    socket: WebSocket<S>,
    /// Its socket id.
    pub(crate) id: String,
    /// Packets that have come and were not asked for yet.
    inbox: VecDeque<Packet>,
    acks: u64,
}

/// A Socket.IO packet, raw, with its attachments.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) text: String,
    pub(crate) attachments: Vec<Vec<u8>>,
}

impl Packet {
    /// The event's name and arguments, raw.
    fn event(&self) -> Option<(String, Vec<String>)> {
        let rest = self.text.strip_prefix("42").or_else(|| self.text.strip_prefix("45"))?;
        let rest = &rest[rest.find('[')?..];
        let parts: Vec<Box<RawValue>> = serde_json::from_str(rest).unwrap();
        let name = serde_json::from_str(parts[0].get()).unwrap();
        Some((name, parts[1..].iter().map(|part| part.get().to_owned()).collect()))
    }
}

impl Peer {
    /// A TCP connection with the Engine.IO handshake done and no namespace joined.
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::open_with(address, &[])
    }

    pub(crate) fn open_with(address: SocketAddr, headers: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::over(stream, headers)
    }

    /// Joined and welcomed.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut peer = Self::open(address);
        peer.join("");
        peer
    }

    /// Nothing that was sent is read, but the connection stays.
    pub(crate) fn never_read_again(self) -> TcpStream {
        self.socket.get_ref().try_clone().unwrap()
    }
}

impl<S: Read + Write> Peer<S> {
    pub(crate) fn over(stream: S, headers: &[(&str, &str)]) -> Self {
        let mut request = http::Request::get("ws://localhost/socket.io/?EIO=4&transport=websocket")
            .header("Host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap();
        let Ok((socket, _)) = client(request, stream) else { panic!("the server refused a WebSocket") };
        let mut peer = Self { socket, id: String::new(), inbox: VecDeque::new(), acks: 0 };
        let open = peer.read("the open packet");
        assert!(matches!(&open, Message::Text(text) if text.starts_with('0')), "{open:?}");
        peer
    }

    /// Sends CONNECT with this auth payload, and takes its answer and the welcome.
    pub(crate) fn join(&mut self, auth: &str) -> String {
        self.send(&format!("40{auth}"));
        let connect = self.packet("the answer to CONNECT");
        let sid = connect.text.strip_prefix("40").unwrap_or_else(|| panic!("refused: {}", connect.text));
        self.id = serde_json::from_str::<Value>(sid).unwrap()["sid"].as_str().unwrap().to_owned();
        self.next("message")
    }

    /// Sends an Engine.IO packet as it is.
    pub(crate) fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    pub(crate) fn send_binary(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).unwrap();
    }

    /// Emits an event with raw arguments: `emit("join_room", r#"{"room":"r"}"#)`.
    pub(crate) fn emit(&mut self, event: &str, args: &str) {
        let comma = if args.is_empty() { "" } else { "," };
        self.send(&format!("42[\"{event}\"{comma}{args}]"));
    }

    /// Emits with an ack id, and gives the ack's arguments. What comes before it waits in the inbox.
    pub(crate) fn call(&mut self, event: &str, args: &str) -> String {
        let id = self.acks;
        self.acks += 1;
        let comma = if args.is_empty() { "" } else { "," };
        self.send(&format!("42{id}[\"{event}\"{comma}{args}]"));
        self.ack(id)
    }

    /// As [`call`](Self::call). `None`: the server has closed the connection.
    pub(crate) fn try_call(&mut self, event: &str, args: &str) -> Option<String> {
        let id = self.acks;
        self.acks += 1;
        // The end is found by reading.
        let _ = self.socket.send(Message::text(format!("42{id}[\"{event}\"{args}]")));
        let prefix = format!("43{id}");
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    if let Some(args) = text.as_str().strip_prefix(&prefix) {
                        return Some(args.to_owned());
                    }
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => panic!("no answer, no end"),
                Err(_) => return None,
            }
        }
    }

    /// Waits for an ack.
    pub(crate) fn ack(&mut self, id: u64) -> String {
        let prefix = format!("43{id}");
        loop {
            let packet = self.packet(&format!("the ack {id}"));
            match packet.text.strip_prefix(&prefix) {
                Some(args) => return args.to_owned(),
                None => self.inbox.push_back(packet),
            }
        }
    }

    /// Emits, takes the ack, which must be `[]`, and gives what the sender was answered before it.
    pub(crate) fn ask(&mut self, event: &str, args: &str, answer: &str) -> String {
        assert_eq!(self.call(event, args), "[]", "ack of {event} {args}");
        self.taken(answer)
            .unwrap_or_else(|| panic!("no {answer} before the ack of {event}: {:?}", self.inbox))
    }

    /// Waits for an event, and gives its first argument, raw.
    pub(crate) fn next(&mut self, event: &str) -> String {
        loop {
            if let Some(data) = self.taken(event) {
                return data;
            }
            let packet = self.packet(event);
            self.inbox.push_back(packet);
        }
    }

    /// As [`next`](Self::next), as a value.
    pub(crate) fn value(&mut self, event: &str) -> Value {
        serde_json::from_str(&self.next(event)).unwrap()
    }

    /// Waits for any Socket.IO packet and its attachments.
    pub(crate) fn packet(&mut self, what: &str) -> Packet {
        loop {
            match self.read(what) {
                Message::Text(text) if text.as_str() == "2" => self.send("3"),
                Message::Text(text) => {
                    let text = text.as_str().to_owned();
                    let count = text.strip_prefix("45").and_then(|rest| rest.split_once('-'));
                    let count: usize = count.map_or(0, |(count, _)| count.parse().unwrap());
                    let attachments = (0..count).map(|_| self.binary()).collect();
                    return Packet { text, attachments };
                }
                Message::Binary(bytes) => panic!("bytes that nobody announced: {bytes:?}"),
                _ => {}
            }
        }
    }

    fn binary(&mut self) -> Vec<u8> {
        match self.read("an attachment") {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("no attachment: {other:?}"),
        }
    }

    /// Everything that was sent to it so far by its own doing has come; then none of these must be there.
    pub(crate) fn none(&mut self, events: &[&str]) {
        self.ask("get_server_status", "", "server_status");
        for event in events {
            assert_eq!(self.taken(event), None, "an uncalled-for {event}");
        }
    }

    /// Waits until the server has closed the connection; gives the last packets.
    pub(crate) fn closed(&mut self) -> Vec<String> {
        let mut last = Vec::new();
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => last.push(text.as_str().to_owned()),
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => return last,
                Err(Error::Io(error)) if error.kind() != ErrorKind::WouldBlock => return last,
                Err(error) => panic!("waited for the close: {error}; came: {last:?}"),
            }
        }
    }

    pub(crate) fn take_packets(&mut self) -> Vec<Packet> {
        self.inbox.drain(..).collect()
    }

    fn taken(&mut self, event: &str) -> Option<String> {
        let found =
            self.inbox.iter().position(|packet| packet.event().is_some_and(|(name, _)| name == event))?;
        let (_, args) = self.inbox.remove(found)?.event()?;
        Some(args.into_iter().next().unwrap_or_default())
    }

    fn read(&mut self, what: &str) -> Message {
        match self.socket.read() {
            Ok(message) => message,
            Err(error) => panic!("waited for {what}: {error}; in the inbox: {:?}", self.inbox),
        }
    }
}

/// Replaces what differs from run to run: socket ids by names, times by T.
pub(crate) fn mask(json: &str, names: &[(&str, &str)]) -> String {
    let mut text = json.to_owned();
    for (id, name) in names {
        text = text.replace(id, name);
    }
    for key in ["\"timestamp\":", "\"server_time\":", "\"server_uptime\":", "\"uptime\":"] {
        if let Some(at) = text.find(key) {
            let start = at + key.len();
            let is_digit = |c: char| c.is_ascii_digit() || c == '.';
            let end = text[start..].find(|c| !is_digit(c)).map_or(text.len(), |length| start + length);
            assert!(end > start, "no number after {key} in {json}");
            text.replace_range(start..end, "T");
        }
    }
    text
}

/// Waits until `holds`, with a bound.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// One HTTP exchange on a connection of its own: status line and headers, and body.
pub(crate) fn exchange(mut stream: impl Read + Write, request: &str) -> (String, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The server closes behind its answer; if it resets, what came before counts.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (head.to_owned(), body.to_owned())
}

/// `GET`, `HEAD` … of a path on TCP.
pub(crate) fn request(address: SocketAddr, method: &str, path: &str) -> (String, String) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(stream, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

/// The `server` program.
pub(crate) struct Program {
    child: Child,
    /// What it printed first.
    pub(crate) banner: String,
    stdout: BufReader<ChildStdout>,
    log: Receiver<String>,
}

impl Program {
    /// The program with these flags, its environment without ours.
    pub(crate) fn command(flags: &[&str]) -> Command {
        let mut command = Self::wrapped(env!("CARGO_BIN_EXE_server"));
        command.args(flags);
        command
    }

    /// Another program that becomes it.
    pub(crate) fn wrapped(program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars() {
            if name.starts_with("TINYSIO_") || name == "NO_COLOR" {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end, with a bound: exit code, standard output, standard error.
    pub(crate) fn run(flags: &[&str]) -> (Option<i32>, String, String) {
        let mut child = Self::command(flags).spawn().unwrap();
        let status = wait(&mut child, PATIENCE, "the program to end");
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (status.code(), out, err)
    }

    /// Starts it on a free port of this machine.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::spawn(Self::command(&[&["--host", "127.0.0.1", "--port", "0"], flags].concat()))
    }

    /// Starts it, and waits for its first lines.
    pub(crate) fn spawn(command: Command) -> Self {
        let mut program = Self::spawn_unread(command);
        program.read_log();
        program
    }

    /// As [`spawn`](Self::spawn), but nobody reads its log before [`read_log`](Self::read_log).
    pub(crate) fn spawn_unread(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains("Ctrl+C") {
            let read = stdout.read_line(&mut banner).unwrap();
            if read == 0 {
                let mut log = String::new();
                let _ = child.stderr.take().unwrap().read_to_string(&mut log);
                panic!("the program ended: {banner} {log}");
            }
        }
        Self { child, banner, stdout, log: channel().1 }
    }

    pub(crate) fn read_log(&mut self) {
        let (sender, log) = channel();
        let stderr = BufReader::new(self.child.stderr.take().unwrap());
        thread::Builder::new()
            .name("log".into())
            .spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)))
            .unwrap();
        self.log = log;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let line = self.banner.lines().next().unwrap();
        let (_, address) = line.split_once("Starting Socket.IO server on http://").unwrap();
        // In JSON there is a quote behind it.
        address.split('"').next().unwrap().parse().unwrap()
    }

    /// Where `--operator 127.0.0.1:0` listens.
    pub(crate) fn operator(&self) -> SocketAddr {
        let line = self.banner.lines().find_map(|line| line.strip_prefix("Operator: http://"));
        line.and_then(|rest| rest.strip_suffix("/metrics")).unwrap().parse().unwrap()
    }

    /// Waits for a line of the log that holds all of `words`.
    pub(crate) fn logged(&self, words: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if words.iter().all(|word| line.contains(word)) => return line,
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("waited for a line with {words:?}; there were {seen:#?}")
                }
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end, with its log unread.
    pub(crate) fn exit_code(&mut self, within: Duration) -> Option<i32> {
        wait(&mut self.child, within, "the server to end").code()
    }

    /// Waits for its end. Gives the exit code and all of the log that nobody has asked for.
    pub(crate) fn ended(&mut self, within: Duration) -> (Option<i32>, Vec<String>) {
        let status = wait(&mut self.child, within, "the server to end");
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (status.code(), self.log.iter().collect())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn wait(child: &mut Child, within: Duration, what: &str) -> ExitStatus {
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("waited {within:?} for {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
