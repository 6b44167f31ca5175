//! Clients that come back: one that keeps its place as the official client does, and one that takes packets apart by
//! hand.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tinysio::server::{Builder, ConnectionStateRecovery, Namespace, Server};

use super::{Client, Transport, eventually, serve};

/// A client that recovers as the official one does: it sends its `pid`, and the last argument of the last event that
/// was a string.
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) transport: Transport,
    pub(crate) sid: String,
    pub(crate) pid: String,
    /// What the consent said of where it stands.
    pub(crate) stands: String,
    pub(crate) offset: Option<String>,
    pub(crate) recovered: bool,
}

impl Caller {
    pub(crate) fn new(addr: SocketAddr, transport: Transport) -> Self {
        Self::join(addr, transport, "/", "", None)
    }

    pub(crate) fn join(
        addr: SocketAddr,
        transport: Transport,
        namespace: &str,
        auth: &str,
        offset: Option<String>,
    ) -> Self {
        let mut client = Client::new(addr, transport);
        let prefix = if namespace == "/" { "40".to_owned() } else { format!("40{namespace},") };
        client.send(&format!("{prefix}{auth}"));
        let answer = client.text("the consent");
        let consent: Value = serde_json::from_str(answer.strip_prefix(&prefix).unwrap()).unwrap();
        let text = |key: &str| consent[key].as_str().unwrap().to_owned();
        let (sid, pid, stands) = (text("sid"), text("pid"), text("offset"));
        let recovered = !pid.is_empty() && auth.contains(&pid);
        Self { client, transport, sid, pid, stands, offset, recovered }
    }

    /// Loses its connection; the server notices, because there is one.
    pub(crate) fn lose(mut self) -> Lost {
        self.client.ask();
        self.lost()
    }

    /// Has lost its connection.
    pub(crate) fn lost(self) -> Lost {
        Lost { addr: self.client.addr, transport: self.transport, pid: self.pid, offset: self.offset }
    }

    /// The next event, without its offset, which is noted.
    pub(crate) fn event(&mut self) -> Value {
        let text = self.client.text("an event");
        let event = text.strip_prefix("42").unwrap_or_else(|| panic!("{text} is no event"));
        let mut event: Value = serde_json::from_str(event).unwrap();
        let offset = event.as_array_mut().unwrap().pop().unwrap();
        let offset = offset.as_str().expect("an offset").to_owned();
        assert_eq!(offset.len(), 11, "{text}");
        self.offset = Some(offset);
        event
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, event: Value) {
        assert_eq!(self.event(), event);
    }

    /// Nothing is on its way to it.
    pub(crate) fn expect_nothing(&mut self) {
        self.client.send(r#"420["echo"]"#);
        assert_eq!(self.client.text("the answer, and nothing before it"), r#"430[]"#);
    }
}

/// A client without a connection.
pub(crate) struct Lost {
    pub(crate) addr: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) pid: String,
    pub(crate) offset: Option<String>,
}

impl Lost {
    pub(crate) fn back(self) -> Caller {
        let offset = self.offset.as_ref().map(|offset| json!(offset)).unwrap_or_default();
        let auth = json!({ "pid": self.pid, "offset": offset });
        self.back_with(&auth)
    }

    pub(crate) fn back_with(self, auth: &Value) -> Caller {
        Caller::join(self.addr, self.transport, "/", &auth.to_string(), self.offset)
    }
}

/// Whether it is the same client to the server.
#[track_caller]
pub(crate) fn assert_same(caller: &Caller, sid: &str) {
    assert!(caller.recovered, "not recovered");
    assert_eq!(caller.sid, sid);
}

pub(crate) fn recovering(set_up: impl FnOnce(Builder) -> Builder) -> (Server, Namespace) {
    let server = serve(|builder| {
        set_up(builder.connection_state_recovery(ConnectionStateRecovery::new()).namespace("/", |ns| {
            ns.on("join", |socket, event| event.arg::<String>(0).map(|room| socket.join(&room)));
            ns.on("leave", |socket, event| event.arg::<String>(0).map(|room| socket.leave(&room)));
            ns.on("echo", |_, event| event.ack(()));
            ns.on("others", |socket, event| socket.broadcast().emit("of another", event.args()));
        }))
    });
    let namespace = server.of("/").unwrap();
    (server, namespace)
}

/// The server has noticed that everybody is gone.
pub(crate) fn empty(namespace: &Namespace) {
    eventually("the server notices the loss", || namespace.is_empty());
}

/// The server has noticed that this one is gone.
pub(crate) fn gone(io: &Namespace, sid: &str) {
    eventually("the server notices the loss", || !io.sockets().iter().any(|socket| socket.id() == sid));
}

/// CONNECT; gives the consent.
pub(crate) fn connect(addr: SocketAddr, auth: &Value) -> (Client, Value) {
    let mut client = Client::new(addr, Transport::WebSocket);
    client.send(&format!("40{auth}"));
    let consent = client.text("the consent");
    (client, serde_json::from_str(consent.strip_prefix("40").unwrap()).unwrap())
}

/// The next event and its offset.
pub(crate) fn event(client: &mut Client) -> (Value, String) {
    let text = client.text("an event");
    let mut event: Value =
        serde_json::from_str(text.strip_prefix("42").unwrap_or_else(|| panic!("{text}"))).unwrap();
    let offset = event.as_array_mut().unwrap().pop().unwrap().as_str().unwrap().to_owned();
    (event, offset)
}

pub(crate) fn drain(client: &mut Client) -> Vec<Value> {
    client.send(r#"42777["echo"]"#);
    let mut events = Vec::new();
    loop {
        let text = client.text("an event or the answer");
        if text == "43777[]" {
            return events;
        }
        events.push(serde_json::from_str(text.strip_prefix("42").unwrap()).unwrap());
    }
}
