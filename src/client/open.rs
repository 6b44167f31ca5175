//! One attempt to open a session, and the probe of an upgrade to WebSocket.
//!
//! Uses the two transports. It must not know the state: `lifecycle` decides what an attempt means.

use std::{sync::Arc, time::Instant};

use super::{
    Error, Step,
    answer::{excerpt, text},
    cancel::CancelToken,
    config::Config,
    dial::Dialer,
    http::HttpClient,
    websocket::WebSocket,
};
use crate::proto::engine::{Open, Packet, TransportKind, payload};

/// A new session.
pub(super) struct Opened {
    pub(super) open: Open,
    pub(super) transport: Transport,
}

/// The transport of a new session.
pub(super) enum Transport {
    /// The connection of the handshake, for the GETs, and the packets that came with the handshake.
    Polling(HttpClient, String),
    WebSocket(Box<WebSocket>),
}

impl Transport {
    pub(super) fn kind(&self) -> TransportKind {
        match self {
            Self::Polling(..) => TransportKind::Polling,
            Self::WebSocket(_) => TransportKind::Websocket,
        }
    }
}

/// Opens a session by `deadline`, over the first of `transports` that works.
///
/// # Errors
/// The first transport's: the others were only a way around it.
pub(super) fn session(
    dialer: &Dialer,
    config: &Config,
    transports: &[TransportKind],
    token: &Arc<CancelToken>,
    deadline: Instant,
) -> Result<Opened, Error> {
    let mut first = None;
    for (index, kind) in transports.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        // A transport that does not answer must leave time for the next one.
        let tries = if config.try_all_transports { transports.len() - index } else { 1 };
        let by = Instant::now() + left / tries.try_into().unwrap_or(1);
        let result = match kind {
            TransportKind::Polling => polling(dialer, config, token, by),
            TransportKind::Websocket => websocket(dialer, config, token, by),
        };
        let error = match result {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        log::debug!("{error}");
        // Without a connection the next transport would fail too.
        let hopeless = matches!(
            error,
            Error::Unreachable { step: Step::Resolve | Step::Connect | Step::Tls, .. } | Error::Invalid(_)
        );
        first.get_or_insert(error);
        if hopeless || tries == 1 || token.is_cancelled() {
            break;
        }
    }
    Err(first.unwrap_or(Error::Closed))
}

fn polling(
    dialer: &Dialer,
    config: &Config,
    token: &Arc<CancelToken>,
    deadline: Instant,
) -> Result<Opened, Error> {
    let http = HttpClient::new(dialer, config, token, None);
    let target = dialer.endpoint.target(TransportKind::Polling, None);
    let text = text(http.get(&target, Some(deadline))?)?;
    let (first, early) = text.split_once(payload::SEPARATOR).unwrap_or((&text, ""));
    let open = read_open(TransportKind::Polling, first)?;
    Ok(Opened { open, transport: Transport::Polling(http, early.to_owned()) })
}

fn websocket(
    dialer: &Dialer,
    config: &Config,
    token: &Arc<CancelToken>,
    deadline: Instant,
) -> Result<Opened, Error> {
    let mut websocket = WebSocket::open(dialer, config, None, token, deadline)?;
    let open = read_open(TransportKind::Websocket, &websocket.wait_text()?)?;
    websocket.go_nonblocking(token);
    Ok(Opened { open, transport: Transport::WebSocket(Box::new(websocket)) })
}

/// Opens a WebSocket for the session `sid` and probes it (EIO "Upgrade").
pub(super) fn probe(
    dialer: &Dialer,
    config: &Config,
    sid: &str,
    token: &Arc<CancelToken>,
    deadline: Instant,
) -> Result<WebSocket, Error> {
    let mut websocket = WebSocket::open(dialer, config, Some(sid), token, deadline)?;
    websocket.send_text("2probe")?;
    let answer = websocket.wait_text()?;
    if *answer == *"3probe" {
        Ok(websocket)
    } else {
        let detail = format!("answered the probe with {}", excerpt(answer.as_bytes()));
        Err(Error::handshake(TransportKind::Websocket, None, detail))
    }
}

fn read_open(transport: TransportKind, packet: &str) -> Result<Open, Error> {
    let open = match Packet::decode(packet) {
        Ok(Packet::Open(json)) => serde_json::from_str(json).ok(),
        _ => None,
    };
    open.ok_or_else(|| {
        Error::handshake(transport, None, format!("no Engine.IO handshake: {}", excerpt(packet.as_bytes())))
    })
}

/// Reads any answer to a handshake.
#[cfg(all(shuttle, fuzzing))]
pub(crate) fn read_open_for_fuzzing(status: u16, body: &[u8]) -> Result<Open, Error> {
    let reply = super::http::Reply {
        status,
        location: None,
        content_type: String::new(),
        body: body.to_vec().into(),
    };
    let text = text(reply)?;
    let (first, _) = text.split_once(payload::SEPARATOR).unwrap_or((&text, ""));
    read_open(TransportKind::Polling, first)
}
