//! The query of a request, its errors, and the open packet that answers it.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::proto::limits;

/// The supported transports. The official server's third, WebTransport, needs QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// HTTP long-polling.
    Polling,
    /// WebSocket, RFC 6455.
    Websocket,
}

impl TransportKind {
    /// The name in the query and in the official API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::Websocket => "websocket",
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request that was refused before it became, or reached, a session; the official server's error table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HandshakeError {
    /// Code 0: `transport` missing, unknown, or not allowed here.
    #[error("Transport unknown")]
    TransportUnknown,
    /// Code 1: no session of that id.
    #[error("Session ID unknown")]
    SessionUnknown,
    /// Code 2: a session begins with GET.
    #[error("Bad handshake method")]
    BadMethod,
    /// Code 3: the request does not fit the session or the transport.
    #[error("Bad request")]
    BadRequest,
    /// Code 4, status 403: the origin is not allowed.
    #[error("Forbidden")]
    Forbidden,
    /// Code 5: `EIO` is not 4.
    #[error("Unsupported protocol version")]
    UnsupportedVersion,
}

impl HandshakeError {
    /// The number in the JSON body.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::TransportUnknown => 0,
            Self::SessionUnknown => 1,
            Self::BadMethod => 2,
            Self::BadRequest => 3,
            Self::Forbidden => 4,
            Self::UnsupportedVersion => 5,
        }
    }

    /// The HTTP status: 403 for [`Forbidden`](Self::Forbidden), 400 for the rest.
    #[must_use]
    pub const fn status(self) -> u16 {
        if matches!(self, Self::Forbidden) { 403 } else { 400 }
    }

    /// The official body: `{"code":0,"message":"Transport unknown"}`.
    #[must_use]
    pub fn body(self) -> String {
        format!(r#"{{"code":{},"message":"{self}"}}"#, self.code())
    }
}

/// The query of an Engine.IO request. A parameter with two different values is invalid, as in the official
/// server.
///
/// ```
/// use tinysio::proto::engine::{Query, TransportKind};
///
/// let query = Query::parse("EIO=4&transport=polling&t=abc");
/// assert_eq!(query.transport(), Ok(TransportKind::Polling));
/// assert!(query.version().is_ok() && query.sid().is_none());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Query<'a> {
    eio: Param<'a>,
    transport: Param<'a>,
    sid: Param<'a>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Param<'a> {
    #[default]
    Missing,
    One(&'a str),
    Conflict,
}

impl<'a> Param<'a> {
    fn add(&mut self, value: &'a str) {
        *self = match *self {
            Self::Missing => Self::One(value),
            Self::One(first) if first == value => Self::One(value),
            _ => Self::Conflict,
        };
    }
}

impl<'a> Query<'a> {
    /// Reads the part of the request target behind `?`. Unknown parameters are left to the application.
    ///
    /// No parameter that we know has a value that needs percent-encoding, so an encoded one is simply another
    /// value, and unknown.
    #[must_use]
    pub fn parse(query: &'a str) -> Self {
        let mut parsed = Self::default();
        let mut rest = Some(query);
        while let Some(pairs) = rest {
            let (pair, others) = cut(pairs, b'&');
            rest = others;
            let (name, value) = cut(pair, b'=');
            let value = value.unwrap_or_default();
            match name {
                "EIO" => parsed.eio.add(value),
                "transport" => parsed.transport.add(value),
                "sid" => parsed.sid.add(value),
                _ => {}
            }
        }
        parsed
    }

    /// The transport asked for.
    ///
    /// # Errors
    /// [`HandshakeError::TransportUnknown`].
    pub fn transport(&self) -> Result<TransportKind, HandshakeError> {
        match self.transport {
            Param::One("polling") => Ok(TransportKind::Polling),
            Param::One("websocket") => Ok(TransportKind::Websocket),
            _ => Err(HandshakeError::TransportUnknown),
        }
    }

    /// The session meant, `None` when a new one is wanted. An empty `sid` wants a new one, as with the official
    /// server; two different ones name none that exists.
    #[must_use]
    pub fn sid(&self) -> Option<&'a str> {
        match self.sid {
            Param::Missing | Param::One("") => None,
            Param::One(sid) => Some(sid),
            Param::Conflict => Some("?"),
        }
    }

    /// Whether the protocol revision is ours.
    ///
    /// # Errors
    /// [`HandshakeError::UnsupportedVersion`].
    pub fn version(&self) -> Result<(), HandshakeError> {
        if self.eio == Param::One(limits::ENGINE_PROTOCOL) {
            Ok(())
        } else {
            Err(HandshakeError::UnsupportedVersion)
        }
    }
}

/// The text before and after the first `at`. Faster for short texts than the standard library's search.
fn cut(text: &str, at: u8) -> (&str, Option<&str>) {
    match text.bytes().position(|byte| byte == at) {
        Some(place) => (&text[..place], Some(&text[place + 1..])),
        None => (text, None),
    }
}

/// The data of the open packet (EIO "Handshake").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Open {
    /// Session id, a secret: it is enough to act for the session.
    pub sid: String,
    /// Transports the client may upgrade to.
    pub upgrades: Vec<String>,
    /// Milliseconds between two pings.
    pub ping_interval: u64,
    /// Milliseconds that the peer waits after the interval.
    pub ping_timeout: u64,
    /// Bytes of the largest payload or message that this server takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_payload: Option<u64>,
}

impl Open {
    /// The packet's text, type digit included: `0{"sid":…}`.
    #[must_use]
    pub fn packet(&self) -> String {
        let mut packet = vec![b'0'];
        // A struct of strings and numbers always serialises, as text.
        let _ = serde_json::to_writer(&mut packet, self);
        String::from_utf8(packet).unwrap_or_default()
    }

    /// How long a client waits for the next ping before it considers the server lost.
    #[must_use]
    pub fn silence_allowed(&self) -> Duration {
        Duration::from_millis(self.ping_interval.saturating_add(self.ping_timeout))
    }
}
