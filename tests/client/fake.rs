//! A server by script: the test reads each packet that the client says, and says what goes back, whatever carries it.

use std::{
    collections::VecDeque,
    io::Write,
    net::{Shutdown, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, mpsc::Sender},
};

use serde_json::Value;
use tinysio::{
    Bytes,
    proto::{
        engine::payload,
        socket::{Encoded, Opcode},
    },
};
use tungstenite::{Message, WebSocket, protocol::Role};

use crate::{
    hostile::{accept_websocket, answer, listen, request},
    support::{Heard, hear, in_thread},
};

/// The server, as the test has it. Sessions are numbered from 0 in the order in which they are opened.
pub(crate) struct Fake {
    pub(crate) url: String,
    said: Heard<(usize, String)>,
    shared: Arc<Shared>,
}

struct Shared {
    max_payload: usize,
    sessions: Mutex<Vec<Session>>,
    changed: Condvar,
    said: Mutex<Sender<(usize, String)>>,
}

#[derive(Default)]
struct Session {
    out: VecDeque<Encoded>,
    /// The WebSocket is probed: a held GET makes way.
    upgrading: bool,
    cut: bool,
    streams: Vec<TcpStream>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        Self::with_max_payload(1_000_000)
    }

    pub(crate) fn with_max_payload(max_payload: usize) -> Self {
        let (sender, said) = hear("the client's next packet");
        let shared = Arc::new(Shared {
            max_payload,
            sessions: Mutex::default(),
            changed: Condvar::new(),
            said: Mutex::new(sender),
        });
        let its = shared.clone();
        let url = listen(move |stream| its.serve(stream).unwrap_or_default());
        Self { url, said, shared }
    }

    /// The next packet of the client's, and the session that brought it.
    #[track_caller]
    pub(crate) fn hears(&self) -> (usize, String) {
        self.said.next()
    }

    /// Says a packet in a session.
    pub(crate) fn says(&self, session: usize, packet: &str) {
        self.shared.push(session, Encoded::text(packet));
    }

    /// Says an attachment in a session.
    pub(crate) fn shows(&self, session: usize, attachment: &'static [u8]) {
        self.shared.push(session, Encoded::binary(attachment));
    }

    /// Expects the CONNECT to `/` in a session, gives its payload, and lets the client in with `welcome`.
    #[track_caller]
    pub(crate) fn joins(&self, session: usize, welcome: &Value) -> Value {
        let payload = self.expects_connect(session);
        self.says(session, &format!("40{welcome}"));
        payload
    }

    /// Expects the CONNECT to `/` in a session and gives its payload, `null` for none.
    #[track_caller]
    pub(crate) fn expects_connect(&self, session: usize) -> Value {
        let (in_session, packet) = self.hears();
        assert_eq!((in_session, packet.get(..2)), (session, Some("40")), "{packet}");
        if packet.len() == 2 { Value::Null } else { serde_json::from_str(&packet[2..]).unwrap() }
    }

    /// Cuts every connection of a session, without a goodbye.
    pub(crate) fn cut(&self, session: usize) {
        let mut sessions = self.shared.sessions.lock().unwrap();
        sessions[session].cut = true;
        for stream in &sessions[session].streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn push(&self, session: usize, encoded: Encoded) {
        self.sessions.lock().unwrap()[session].out.push_back(encoded);
        self.changed.notify_all();
    }

    /// Adds a connection to its session, which may be new. `None`: the session is cut.
    fn attach(&self, session: Option<usize>, stream: &TcpStream) -> Option<usize> {
        let mut sessions = self.sessions.lock().unwrap();
        let session = session.unwrap_or(sessions.len());
        if sessions.get(session).is_some_and(|of| of.cut) {
            return None;
        }
        if session == sessions.len() {
            sessions.push(Session::default());
        }
        sessions[session].streams.push(stream.try_clone().unwrap());
        Some(session)
    }

    /// The session, once it has something to say or to do. `None`: it is cut.
    fn ready(&self, session: usize, idle: impl Fn(&Session) -> bool) -> Option<MutexGuard<'_, Vec<Session>>> {
        let sessions = self.sessions.lock().unwrap();
        let waiting = |sessions: &mut Vec<Session>| !sessions[session].cut && idle(&sessions[session]);
        let sessions = self.changed.wait_while(sessions, waiting).unwrap();
        (!sessions[session].cut).then_some(sessions)
    }

    fn hear(&self, session: usize, packet: &str) {
        // The test may be over.
        let _ = self.said.lock().unwrap().send((session, packet.to_owned()));
    }

    fn open(&self, session: usize) -> String {
        format!(
            r#"0{{"sid":"s{session}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":{}}}"#,
            self.max_payload
        )
    }

    /// One connection. `None`: its session is cut, or the client has gone.
    fn serve(self: &Arc<Self>, mut stream: TcpStream) -> Option<()> {
        loop {
            let request = request(&mut stream)?;
            let sid = request.split_once("sid=s").map(|(_, rest)| rest.split([' ', '&']).next().unwrap());
            let known = sid.map(|sid| sid.parse().unwrap());
            let session = self.attach(known, &stream)?;
            if request.contains("transport=websocket") {
                accept_websocket(&mut stream, &request);
                return self.websocket(session, known.is_none(), stream);
            } else if let Some((_, body)) =
                request.strip_prefix("POST").and_then(|r| r.split_once("\r\n\r\n"))
            {
                body.split('\x1e').for_each(|packet| self.hear(session, packet));
                answer(&mut stream, "200 OK", "ok");
            } else if known.is_some() {
                answer(&mut stream, "200 OK", &self.payload(session)?);
            } else {
                answer(&mut stream, "200 OK", &self.open(session));
            }
        }
    }

    /// The answer to a GET.
    fn payload(&self, session: usize) -> Option<String> {
        let mut sessions = self.ready(session, |of| of.out.is_empty() && !of.upgrading)?;
        let mut payload = payload::Builder::new();
        for encoded in sessions[session].out.drain(..) {
            for frame in encoded.frames() {
                match frame.opcode {
                    Opcode::Binary => payload.push_binary(frame.data),
                    _ => payload.push_text(frame.text().unwrap()),
                }
            }
        }
        Some(if payload.is_empty() { "6".to_owned() } else { payload.finish() })
    }

    fn websocket(self: &Arc<Self>, session: usize, new: bool, mut stream: TcpStream) -> Option<()> {
        if new {
            stream.write_all(Encoded::text(&self.open(session)).bytes()).ok()?;
            self.write(session, stream.try_clone().unwrap());
        }
        let mut websocket = WebSocket::from_raw_socket(stream.try_clone().unwrap(), Role::Server, None);
        loop {
            match websocket.read().ok()? {
                Message::Text(text) if *text == *"2probe" => {
                    stream.write_all(Encoded::text("3probe").bytes()).ok()?;
                    self.sessions.lock().unwrap()[session].upgrading = true;
                    self.changed.notify_all();
                }
                Message::Text(text) if *text == *"5" => self.write(session, stream.try_clone().unwrap()),
                Message::Text(text) => self.hear(session, &text),
                _ => {}
            }
        }
    }

    /// Writes whatever is said in a session from now on.
    fn write(self: &Arc<Self>, session: usize, mut stream: TcpStream) {
        let its = self.clone();
        in_thread(move || {
            while let Some(mut sessions) = its.ready(session, |of| of.out.is_empty()) {
                let out: Vec<Bytes> =
                    sessions[session].out.drain(..).map(|encoded| encoded.bytes().clone()).collect();
                drop(sessions);
                if stream.write_all(&out.concat()).is_err() {
                    return;
                }
            }
        });
    }
}
