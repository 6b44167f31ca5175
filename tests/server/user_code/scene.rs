//! A server in which every place calls user code, somebody who provokes it, and others who must be served.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use tinysio::server::{Builder, NamespaceBuilder, Rate, Response, Server, Socket};

use super::acts::Act;
use crate::support::{
    Client, Http, PATIENCE, Transport, Ws, addr, from, in_time, next, serve, socket_target,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    On,
    OnAny,
    OnUnhandled,
    OnRateLimited,
    Middleware,
    OnConnect,
    OnDisconnecting,
    OnDisconnect,
    OnDisconnectQueued,
    Acknowledgement,
    AcknowledgementTimeout,
    ErrorText,
    DropOfData,
    DropOfReplacedData,
    AllowRequest,
    Exempt,
    Route,
    EngineOpen,
    EngineMessage,
    EngineClose,
}

pub(super) struct Scene {
    server: Option<Arc<Server>>,
    addr: SocketAddr,
    act: Arc<Act>,
    others: Vec<Client>,
    /// The ids of sockets whose disconnect handlers ran, and of those whose acknowledgements timed out.
    reports: Receiver<(&'static str, String)>,
    /// The id of the socket whose handler misbehaves.
    victim: Option<String>,
}

/// What belongs to a client that provokes user code: it stays connected, and unanswered.
#[allow(dead_code, reason = "kept until the test ends")]
pub(super) struct Victim {
    pub(super) client: Option<Client>,
    requests: Vec<Http>,
}

/// A value whose `Drop` is user code.
struct Data(Arc<Act>);

impl Drop for Data {
    fn drop(&mut self) {
        self.0.run(None);
    }
}

/// An error whose text is user code.
struct Error(Arc<Act>);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.run(None);
        f.write_str("an error")
    }
}

type Reporter = Arc<Mutex<Sender<(&'static str, String)>>>;

fn tell(reporter: &Reporter, what: &'static str, socket: &Socket) {
    let _ = reporter.lock().unwrap().send((what, socket.id().to_owned()));
}

/// Where others are, and the handlers of events.
fn root(ns: &mut NamespaceBuilder, place: Place, act: &Arc<Act>, reporter: &Reporter) {
    let at = |here: Place| (here == place).then(|| Arc::clone(act));
    ns.on("echo", |_, event| event.ack(event.args()));
    let late = Arc::clone(reporter);
    ns.on("late", move |socket, _| {
        let late = Arc::clone(&late);
        socket.emit_with_callback("q", (), Duration::from_millis(20), move |socket, _| {
            tell(&late, "late", socket);
        })
    });
    if let Some(act) = at(Place::On) {
        ns.on("act", move |socket, _| act.run(Some(socket)));
    }
    if let Some(act) = at(Place::OnAny) {
        ns.on_any(move |socket, event| {
            if event.name() == "any" {
                act.run(Some(socket));
            }
        });
    }
    if let Some(act) = at(Place::OnUnhandled) {
        ns.on_unhandled(move |socket, _| act.run(Some(socket)));
    }
    if let Some(act) = at(Place::OnRateLimited) {
        ns.on_rate_limited(move |socket, _| act.run(Some(socket)));
    }
    if let Some(act) = at(Place::ErrorText) {
        ns.on("fail", move |_, _| Err::<(), _>(Error(Arc::clone(&act))));
    }
    let callback = Arc::clone(act);
    let timeout = if place == Place::Acknowledgement { PATIENCE } else { Duration::from_millis(1) };
    ns.on("ask", move |socket, _| {
        let act = Arc::clone(&callback);
        socket.emit_with_callback("q", (), timeout, move |socket, _| act.run(Some(socket)))
    });
    let data = Arc::clone(act);
    ns.on("keep", move |socket, _| socket.set_data(Data(Arc::clone(&data))));
    ns.on("replace", |socket, _| socket.set_data(0_u8));
    let gone = Arc::clone(reporter);
    ns.on_disconnect(move |socket, _| tell(&gone, "gone", socket));
}

fn other_namespaces(builder: Builder, place: Place, act: &Arc<Act>) -> Builder {
    let at = |here: Place| (here == place).then(|| Arc::clone(act));
    let disconnected = at(Place::OnDisconnect).or_else(|| at(Place::OnDisconnectQueued));
    builder
        .namespace("/middleware", |ns| {
            if let Some(act) = at(Place::Middleware) {
                ns.middleware(move |socket| {
                    act.run(Some(socket));
                    Ok(())
                });
            }
        })
        .namespace("/connect", |ns| {
            if let Some(act) = at(Place::OnConnect) {
                ns.on_connect(move |socket| act.run(Some(socket)));
            }
        })
        .namespace("/disconnect", |ns| {
            if let Some(act) = at(Place::OnDisconnecting) {
                ns.on_disconnecting(move |socket, _| act.run(Some(socket)));
            }
            if let Some(act) = disconnected {
                ns.on_disconnect(move |socket, _| act.run(Some(socket)));
            }
        })
}

fn below_socket_io(builder: Builder, place: Place, act: &Arc<Act>) -> Builder {
    let at = |here: Place| (here == place).then(|| Arc::clone(act));
    let run = |act: &Option<Arc<Act>>| {
        if let Some(act) = act {
            act.run(None);
        }
    };
    let (route, allow, exempt) = (at(Place::Route), at(Place::AllowRequest), at(Place::Exempt));
    let (open, message, close) = (at(Place::EngineOpen), at(Place::EngineMessage), at(Place::EngineClose));
    builder
        .route("/act", move |_| {
            run(&route);
            Response::from_string("done")
        })
        .route("/health", |_| Response::from_string("well"))
        .allow_request(move |request| {
            if request.query().contains("act") {
                run(&allow);
            }
            Ok(())
        })
        .max_connections_per_ip(2)
        .exempt_from_ip_limit(move |ip| {
            if ip != Ipv4Addr::LOCALHOST {
                run(&exempt);
            }
            true
        })
        .engine("/engine.io/", move |engine| {
            engine
                .on_open(move |_| run(&open))
                .on_message(move |_, _| run(&message))
                .on_close(move |_, _| run(&close));
        })
}

impl Scene {
    pub(super) fn new(place: Place, act: &Arc<Act>) -> Self {
        let (reporter, reports) = channel();
        let reporter = Arc::new(Mutex::new(reporter));
        let server = Arc::new(serve(|builder| {
            let builder = builder
                .event_rate(Rate { per_second: 1_000, burst: 100 })
                .namespace("/", |ns| root(ns, place, act, &reporter));
            below_socket_io(other_namespaces(builder, place, act), place, act)
        }));
        act.server.set(Arc::downgrade(&server)).unwrap();
        let addr = addr(&server);
        let others = [Transport::Polling, Transport::WebSocket]
            .map(|transport| Client::connected(addr, transport))
            .into();
        Self { server: Some(server), addr, act: Arc::clone(act), others, reports, victim: None }
    }

    fn server(&self) -> &Server {
        self.server.as_deref().expect("it was not stopped")
    }

    /// Has the user's code called in this place.
    pub(super) fn provoke(&mut self, place: Place, transport: Transport) -> Victim {
        self.act.arm(1);
        self.provoke_unarmed(place, transport)
    }

    pub(super) fn provoke_unarmed(&mut self, place: Place, transport: Transport) -> Victim {
        match place {
            Place::On => self.say(transport, &[r#"42["act"]"#]),
            Place::OnAny => self.say(transport, &[r#"42["any"]"#]),
            Place::OnUnhandled => self.say(transport, &[r#"42["nobody listens"]"#]),
            Place::OnRateLimited => self.say(transport, &[r#"42["echo"]"#; 160]),
            Place::ErrorText => self.say(transport, &[r#"42["fail"]"#]),
            Place::Middleware => self.say(transport, &["40/middleware,"]),
            Place::OnConnect => self.say(transport, &["40/connect,"]),
            Place::OnDisconnecting | Place::OnDisconnect => {
                self.say(transport, &["40/disconnect,", "41/disconnect,"])
            }
            Place::OnDisconnectQueued => self.disconnect(transport),
            Place::Acknowledgement => self.acknowledge(transport),
            Place::AcknowledgementTimeout => self.say(transport, &[r#"42["ask"]"#]),
            Place::DropOfData => self.say(transport, &[r#"42["keep"]"#, "41"]),
            Place::DropOfReplacedData => self.say(transport, &[r#"42["keep"]"#, r#"42["replace"]"#]),
            Place::AllowRequest => self.request(&socket_target("polling", "&act=1")),
            Place::Route => self.request("/act"),
            Place::Exempt => from(Ipv4Addr::new(127, 0, 0, 9), || {
                // Two for each of two sessions, and 8: of the next one the application is asked.
                let requests = (0..13).map(|_| Http::connect(self.addr)).collect();
                Victim { client: None, requests }
            }),
            Place::EngineOpen => self.request("/engine.io/?EIO=4&transport=polling"),
            Place::EngineMessage | Place::EngineClose => self.engine(place, transport),
        }
    }

    /// A client says this, and does not wait for answers.
    fn say(&mut self, transport: Transport, packets: &[&str]) -> Victim {
        let mut client = Client::new(self.addr, transport);
        self.victim = Some(client.join("/", ""));
        let mut victim = Victim { client: None, requests: Vec::new() };
        victim.say(self.addr, &mut client, packets);
        victim.client = Some(client);
        victim
    }

    fn acknowledge(&mut self, transport: Transport) -> Victim {
        let mut client = Client::new(self.addr, transport);
        self.victim = Some(client.join("/", ""));
        client.send(r#"42["ask"]"#);
        let question = client.text("a question");
        let id = question.trim_start_matches("42").trim_end_matches(r#"["q"]"#).to_owned();
        let mut victim = Victim { client: None, requests: Vec::new() };
        victim.say(self.addr, &mut client, &[&format!("43{id}[]")]);
        victim.client = Some(client);
        victim
    }

    /// The server disconnects a client for which no thread is there.
    fn disconnect(&mut self, transport: Transport) -> Victim {
        let mut client = Client::new(self.addr, transport);
        client.join("/", "");
        let id = client.join("/disconnect", "");
        self.server().of("/disconnect").unwrap().to(&id).disconnect_sockets(false);
        self.victim = Some(id);
        Victim { client: Some(client), requests: Vec::new() }
    }

    fn engine(&self, place: Place, transport: Transport) -> Victim {
        let mut client = Client::at(self.addr, transport, "/engine.io/");
        let mut victim = Victim { client: None, requests: Vec::new() };
        match (place, transport) {
            (Place::EngineClose, Transport::WebSocket) => client.leave(),
            (Place::EngineClose, _) => victim.say(self.addr, &mut client, &["1"]),
            _ => victim.say(self.addr, &mut client, &["4hello"]),
        }
        victim.client = Some(client);
        victim
    }

    fn request(&self, target: &str) -> Victim {
        let mut http = Http::connect(self.addr);
        http.begin("GET", target, "");
        Victim { client: None, requests: vec![http] }
    }

    /// What the log must say of a panic in this place.
    pub(super) fn log_of(&self, place: Place) -> Vec<String> {
        let what = match place {
            Place::On => r#"event "act""#,
            Place::OnAny => r#"on_any (event "any")"#,
            Place::OnUnhandled => r#"event "nobody listens""#,
            Place::OnRateLimited => r#"on_rate_limited of event "echo""#,
            Place::ErrorText => r#"event "fail""#,
            Place::Middleware => "middleware",
            Place::OnConnect => "on_connect",
            Place::OnDisconnecting => "on_disconnecting",
            Place::OnDisconnect | Place::OnDisconnectQueued => "on_disconnect",
            Place::Acknowledgement | Place::AcknowledgementTimeout => file!(),
            Place::DropOfData => "Drop",
            Place::DropOfReplacedData => "",
            Place::AllowRequest => "allow_request",
            Place::Exempt => "exempt_from_ip_limit",
            Place::Route => r#"route "/act""#,
            Place::EngineOpen => "on_open",
            Place::EngineMessage => "on_message",
            Place::EngineClose => "on_close",
        };
        let namespace = match place {
            Place::Middleware => Some("/middleware"),
            Place::OnConnect => Some("/connect"),
            Place::OnDisconnecting | Place::OnDisconnect | Place::OnDisconnectQueued => Some("/disconnect"),
            Place::On
            | Place::OnAny
            | Place::OnUnhandled
            | Place::OnRateLimited
            | Place::ErrorText
            | Place::Acknowledgement
            | Place::AcknowledgementTimeout
            | Place::DropOfReplacedData => Some("/"),
            _ => None,
        };
        let mut parts = vec![what.to_owned(), "panicked".to_owned()];
        parts.extend(namespace.map(|name| format!("namespace {name:?}")));
        if namespace == Some("/") || place == Place::OnDisconnectQueued {
            parts.extend(self.victim.clone());
        }
        parts
    }

    /// What the log must say of code in this place that a stop did not wait for.
    pub(super) fn running_of(&self, place: Place, victim: &Victim) -> Vec<String> {
        let what = match place {
            Place::On => r#"the handler of event "act" of namespace "/""#,
            Place::OnAny => r#"on_any of namespace "/""#,
            Place::OnUnhandled => r#"on_unhandled of namespace "/""#,
            Place::OnRateLimited => r#"on_rate_limited of namespace "/""#,
            Place::ErrorText => r#"the handler of event "fail" of namespace "/""#,
            Place::Middleware => r#"a middleware of namespace "/middleware""#,
            Place::OnConnect => r#"on_connect of namespace "/connect""#,
            Place::OnDisconnecting => r#"on_disconnecting of namespace "/disconnect""#,
            Place::OnDisconnect | Place::OnDisconnectQueued => r#"on_disconnect of namespace "/disconnect""#,
            Place::Acknowledgement | Place::AcknowledgementTimeout => "acknowledgement callback",
            Place::DropOfData => "Drop",
            Place::DropOfReplacedData => r#"the handler of event "replace" of namespace "/""#,
            Place::AllowRequest => "allow_request",
            Place::Exempt => "exempt_from_ip_limit",
            Place::Route => "a route",
            Place::EngineOpen | Place::EngineMessage | Place::EngineClose => "Engine.IO endpoint",
        };
        let session = victim.client.as_ref().filter(|_| place != Place::DropOfData);
        let session = session.map(|client| format!("session {}", &client.open.sid[..6]));
        [what.to_owned()].into_iter().chain(session).collect()
    }

    /// The other clients are served in every way.
    pub(super) fn others_are_served(&mut self) {
        for client in &mut self.others {
            client.send(r#"421["echo","there"]"#);
            assert_eq!(heard(client), r#"431["there"]"#);
            client.send(r#"42["late"]"#);
            let question = heard(client);
            assert!(question.ends_with(r#"["q"]"#), "{question}");
        }
        self.reported("late", self.others.len());
        self.server().emit("news", 1).unwrap();
        for client in &mut self.others {
            assert_eq!(heard(client), r#"42["news",1]"#);
        }
        let mut http = Http::connect(self.addr);
        assert_eq!(http.get("/health").body, "well");
        for transport in [Transport::Polling, Transport::WebSocket, Transport::Upgrade] {
            let mut newcomer = Client::new(self.addr, transport);
            let id = newcomer.join("/", "");
            newcomer.send(r#"421["echo"]"#);
            assert_eq!(heard(&mut newcomer), "431[]");
            // For one without a thread.
            self.server().of("/").unwrap().to(&id).disconnect_sockets(true);
            self.reported_of("gone", &id);
        }
    }

    fn reported(&self, what: &str, count: usize) {
        let mut left = count;
        while left > 0 {
            left -= usize::from(next(&self.reports, what).0 == what);
        }
    }

    fn reported_of(&self, what: &'static str, id: &str) {
        while next(&self.reports, what) != (what, id.to_owned()) {}
    }

    /// Stops the server, in time.
    pub(super) fn stop(&mut self, deadline: Duration) -> bool {
        let server = self.server.take().expect("it was not stopped");
        in_time("the shutdown", move || server.shutdown(deadline))
    }

    /// Waits until somebody else has stopped the server.
    pub(super) fn wait(&mut self) {
        let server = self.server.take().expect("it was not stopped");
        in_time("the server", move || server.wait());
    }
}

/// What it is told, but for what user code says to everybody.
fn heard(client: &mut Client) -> String {
    loop {
        let text = client.text("what is due to it");
        if !text.contains("unheard") {
            return text;
        }
    }
}

impl Victim {
    fn say(&mut self, addr: SocketAddr, client: &mut Client, packets: &[&str]) {
        if !client.is_polling() {
            let bytes: Vec<u8> =
                packets.iter().flat_map(|packet| Ws::frame(0x81, packet.as_bytes())).collect();
            return client.ws().send_raw(&bytes);
        }
        let mut http = Http::connect(addr);
        http.begin("POST", &client.target("polling"), &packets.join("\x1e"));
        self.requests.push(http);
    }
}
