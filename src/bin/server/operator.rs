//! The operator's listener: `/health` and `/metrics` on a separate address, off by default.
//!
//! `tiny_http::Server` limits neither heads nor connections, so only the operator should be able to reach it.

use std::{
    fmt::Write,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
};

use tinysio::{
    chat::Chat,
    server::{Header, Method, RefusalReason, Response, StatusCode, StoreStatus},
};

use crate::common::exit::Failure;

/// The running listener. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Operator {
    server: Arc<OperatorServer>,
    thread: Option<JoinHandle<()>>,
}

struct OperatorServer(tiny_http::Server);

impl std::fmt::Debug for OperatorServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OperatorServer")
    }
}

impl Operator {
    pub(crate) fn start(address: SocketAddr, chat: &Chat) -> Result<(Self, SocketAddr), Failure> {
        let cannot =
            |error: io::Error| Failure::Failed(format!("cannot serve the operator on {address}: {error}"));
        let listener = TcpListener::bind(address).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let server = tiny_http::Server::from_listener(listener, None)
            .map_err(|error| Failure::Failed(format!("cannot serve the operator on {address}: {error}")))?;
        let server = Arc::new(OperatorServer(server));
        let (serving, chat) = (Arc::clone(&server), chat.clone());
        let thread = thread::Builder::new()
            .name("operator".into())
            .spawn(move || serve(&serving.0, &chat))
            .map_err(cannot)?;
        Ok((Self { server, thread: Some(thread) }, address))
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.server.0.unblock();
        if let Some(thread) = self.thread.take() {
            // A panic there has already been logged.
            let _ = thread.join();
        }
    }
}

fn serve(server: &tiny_http::Server, chat: &Chat) {
    for request in server.incoming_requests() {
        let response = answer(request.method(), request.url(), chat);
        if let Err(error) = request.respond(response) {
            log::debug!("the operator disconnected before the answer: {error}");
        }
    }
}

fn answer(method: &Method, url: &str, chat: &Chat) -> Response {
    let path = url.split('?').next().unwrap_or(url);
    let (status, kind, body) = match path {
        "/health" => chat.health_answer(),
        "/metrics" => (200, METRICS, metrics(chat)),
        _ => (404, "text/plain; charset=utf-8", "try /health or /metrics\n".to_owned()),
    };
    if status != 404 && !matches!(method, Method::Get | Method::Head) {
        return with_header(Response::from_string("").with_status_code(405), "Allow", "GET, HEAD");
    }
    with_header(Response::from_string(body).with_status_code(StatusCode(status)), "Content-Type", kind)
}

fn with_header(response: Response, name: &str, value: &str) -> Response {
    match Header::from_bytes(name, value) {
        Ok(header) => response.with_header(header),
        Err(()) => response,
    }
}

/// The type of Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Prometheus' text format. Two dozen values need no crate: `prometheus-client` would bring a second
/// `parking_lot`, a derive macro and 9,000 lines.
fn metrics(chat: &Chat) -> String {
    let counters = chat.counters();
    let mut text = String::with_capacity(2_048);
    let mut put = |kind: &str, name: &str, help: &str, value: f64| {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "# HELP tinysio_{name} {help}\n# TYPE tinysio_{name} {kind}\ntinysio_{name} {value}\n"
        );
    };
    put("gauge", "clients", "Clients connected.", counters.clients() as f64);
    put("gauge", "rooms", "Rooms with members.", chat.rooms() as f64);
    put("gauge", "uptime_seconds", "Seconds since the start.", chat.uptime());
    for (name, help, value) in [
        ("connects_total", "Clients that have connected.", counters.connects()),
        ("disconnects_total", "Clients that have disconnected.", counters.disconnects()),
        ("unauthorized_total", "Clients refused for a missing or wrong token.", counters.unauthorized()),
        ("events_received_total", "Events from clients.", counters.events_in()),
        (
            "events_emitted_total",
            "Events emitted; an event to several clients counts once.",
            counters.events_out(),
        ),
        ("messages_total", "Messages accepted.", counters.messages()),
        ("room_messages_total", "Room messages accepted.", counters.room_messages()),
        ("refusals_total", "Events refused.", counters.refusals()),
        ("rate_limited_total", "Events refused because of the rate limit.", counters.rate_limited()),
    ] {
        put("counter", name, help, value as f64);
    }
    let Some(stats) = chat.stats() else { return text };
    for (name, help, value) in [
        ("sessions", "Engine.IO sessions, with and without a client in the chat.", stats.sessions),
        ("sessions_max", "Maximum number of sessions.", stats.max_connections),
        ("connections", "Connections, with and without a session.", stats.connections),
        ("connections_max", "Maximum number of connections.", stats.max_tcp_connections),
    ] {
        put("gauge", name, help, value as f64);
    }
    if stats.store != StoreStatus::Off {
        let works = matches!(stats.store, StoreStatus::Working);
        put("gauge", "store_up", "1 while the store works, 0 when it has failed.", works.into());
    }
    text += "# HELP tinysio_refused_total Connections and handshakes refused, by reason.\n\
             # TYPE tinysio_refused_total counter\n";
    for reason in RefusalReason::ALL {
        let (name, count) = (reason.as_str(), stats.refused.of(reason));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "tinysio_refused_total{{reason=\"{name}\"}} {count}");
    }
    text
}
