//! What a request to an endpoint must fulfil before it reaches a session, and the answer when it does not.
//!
//! It reads the head, the configuration and the table of sessions. It calls the application's `allow_request`, and
//! changes nothing but the counters of refusals.

use std::{fmt, sync::Arc};

use crate::proto::engine::{HandshakeError, Query, TransportKind};
use crate::server::{
    guard::{self, Callee},
    http::cors::Target,
    http::{self, Head, Method, Request, Response, header},
    limits::refusals::RefusalReason,
    peer::Peer,
    session::{Refused, Session, Shared},
};

/// What a request to an endpoint is for.
pub(super) enum Wanted {
    Session(Arc<Session>),
    NewSession,
}

/// Makes the checks of the official server, in its order.
pub(super) fn check(
    shared: &Shared,
    peer: Peer,
    endpoint: usize,
    head: &Head,
    websocket: bool,
) -> Result<Wanted, Refusal> {
    let query = Query::parse(head.query());
    let transport = query.transport()?;
    if !shared.config.transports.contains(&transport) {
        return Err(HandshakeError::TransportUnknown.into());
    }
    check_origin(shared, head, websocket)?;
    let Some(sid) = query.sid() else {
        if *head.method() != Method::Get {
            return Err(HandshakeError::BadMethod.into());
        }
        if websocket != (transport == TransportKind::Websocket) {
            return Err(HandshakeError::BadRequest.into());
        }
        if let Some(allow) = &shared.config.allow_request {
            let request = Request::new(head, peer);
            guard::call(Callee::ALLOW_REQUEST, format_args!("allow_request"), || allow(&request))
                .unwrap_or_else(|| Err("Internal server error".into()))
                .map_err(Refusal::Message)?;
        }
        query.version()?;
        return Ok(Wanted::NewSession);
    };
    let find = || shared.sessions.get(sid).filter(|session| session.endpoint == endpoint);
    let mut session = find();
    if session.as_ref().is_some_and(|session| session.is_overdue()) {
        // The hub may be late. Clients ask right at the deadline whether a session has timed out.
        shared.hub.run_timers();
        session = find();
    }
    let session = session.ok_or(HandshakeError::SessionUnknown)?;
    let fits = if websocket {
        transport == TransportKind::Websocket
    } else {
        transport == TransportKind::Polling && session.transport() == TransportKind::Polling
    };
    if !fits || query.version().is_err() {
        return Err(HandshakeError::BadRequest.into());
    }
    if session.ended().is_some() && *head.method() != Method::Get {
        // Its last packets can still be fetched. Packets of the client are refused.
        return Err(HandshakeError::SessionUnknown.into());
    }
    Ok(Wanted::Session(session))
}

fn check_origin(shared: &Shared, head: &Head, websocket: bool) -> Result<(), Refusal> {
    if head.is_illegible("origin") {
        return Err(HandshakeError::BadRequest.into());
    }
    let Some(origin) = head.header("origin") else { return Ok(()) };
    let target = target(head);
    if shared.config.cors.allows(origin, target, websocket) {
        return Ok(());
    }
    Err(Refusal::Origin(format!("the origin {origin:?} for the host {:?}", target.host)))
}

/// The host that the browser has sent the request to. Behind a proxy, a header of the proxy names it. A page of
/// another origin cannot make a browser send these headers on a WebSocket.
fn target(head: &Head) -> Target<'_> {
    // Several proxies make a list. The first item is from the proxy that the browser has asked.
    let forwarded = head.header("x-forwarded-host").and_then(|list| list.split(',').next()).map(str::trim);
    let proxied = ["x-forwarded-for", "x-forwarded-proto", "x-real-ip", "forwarded", "via"];
    Target {
        host: forwarded.or_else(|| head.header("host")),
        proxied: proxied.iter().any(|name| head.header(name).is_some()),
    }
}

/// Why a request to an endpoint is refused.
pub(super) enum Refusal {
    /// A rule of the Engine.IO handshake.
    Rule(HandshakeError),
    /// The origin of the page may not connect. The text is for the log.
    Origin(String),
    /// The message of `allow_request`.
    Message(String),
    /// No session can be opened.
    Session(Refused),
}

impl From<HandshakeError> for Refusal {
    fn from(error: HandshakeError) -> Self {
        Self::Rule(error)
    }
}

impl Refusal {
    /// Counts the refusal and makes the response. For polling it is JSON. On WebSocket it is the bare message, always
    /// with status 400, as from the official server.
    pub(super) fn response(self, shared: &Shared, peer: Peer, websocket: bool) -> Response {
        let count = |reason, why: &dyn fmt::Display| shared.refusals.add(reason, peer, why);
        let (status, code, message) = match self {
            Self::Rule(error) => {
                let is_unknown = error == HandshakeError::SessionUnknown;
                let reason =
                    if is_unknown { RefusalReason::UnknownSession } else { RefusalReason::BadRequest };
                count(reason, &error);
                (error.status(), error.code(), error.to_string())
            }
            Self::Origin(origin) => {
                count(RefusalReason::Cors, &origin);
                let error = HandshakeError::Forbidden;
                (error.status(), error.code(), error.to_string())
            }
            Self::Message(message) => {
                count(RefusalReason::AllowRequest, &message);
                (403, HandshakeError::Forbidden.code(), message)
            }
            Self::Session(Refused::Busy { reason, retry_after }) => {
                count(reason, &reason.message());
                return http::text(503, "text/html", reason.message())
                    .with_header(header("Retry-After", &retry_after.to_string()));
            }
            Self::Session(Refused::NoId(error)) => {
                count(RefusalReason::System, &format_args!("no randomness for a session id: {error}"));
                return http::text(500, "text/html", "");
            }
        };
        if websocket {
            return http::text(400, "text/html", message);
        }
        let body = serde_json::json!({ "code": code, "message": message }).to_string();
        http::text(status, "application/json", body)
    }
}
