//! HTTP long-polling (EIO "HTTP long-polling"): a GET fetches packets, a POST brings packets.
//!
//! ```text
//!   GET  ─► packets there: 200 payload      none: held until one comes, or the peer is gone
//!   POST ─► decoded, handled, 200 ok        broken: 200 ok, session closed; too big: 413, session lives
//! ```
//! A second GET, a second POST or a binary body is answered with 400 and ends the session, as on the official server.
//!
//! It uses the session, its turn and its outbox. The router beside it sends the answers.

use std::{io, sync::Arc, time::Duration};

use crate::server::{
    guard,
    http::response::Answer,
    http::{self, Connection, Head, HttpError, Method, Response, header},
    lead,
    limits::budget::Charge,
    net::poller::ConnectionWaker,
    session::{self, CloseMode, Session},
    transport::outbox::Poll,
};
use crate::{
    proto::{
        CloseReason, Error,
        engine::{HandshakeError, TransportKind, payload},
    },
    sys::{
        sync::atomic::Ordering::{AcqRel, Acquire, Release},
        thread,
        time::Instant,
    },
};

/// The result of a request of a session.
pub(super) enum Served {
    Answer(Answer),
    /// A GET is held.
    Held(Hold),
}

/// What a held GET waits for, beside packets and the end of its peer.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// It came during an upgrade.
    late: bool,
    /// When a GET that came during an upgrade is answered with a noop.
    pub(super) noop_at: Option<Instant>,
}

/// Serves a request of an existing session. `waker`: of the connection.
pub(super) fn serve(
    connection: &mut Connection,
    waker: ConnectionWaker,
    head: &Head,
    session: &Arc<Session>,
) -> io::Result<Served> {
    match head.method() {
        Method::Get => get(waker, session),
        Method::Post => post(connection, head, session).map(Served::Answer),
        // As the official server without its CORS handler. EIO has no other method.
        _ => Ok(Served::Answer(refused(500))),
    }
}

fn get(waker: ConnectionWaker, session: &Arc<Session>) -> io::Result<Served> {
    // Read before the outbox: a GET that finds the session on a WebSocket has come too late.
    let late = session.upgrading.load(Acquire);
    match session.outbox.poll(waker) {
        Poll::Held if late => match grace(session) {
            Duration::ZERO => resume(session, Hold { late, noop_at: None }, false),
            grace => Ok(Served::Held(Hold { late, noop_at: Some(Instant::now() + grace) })),
        },
        Poll::Held => Ok(Served::Held(Hold { late, noop_at: None })),
        found => Ok(Served::Answer(answer(session, found, true))),
    }
}

/// A held GET was woken, or it is time for a noop, or its connection has an event. `gone`: its peer has left.
pub(super) fn resume(session: &Arc<Session>, mut hold: Hold, gone: bool) -> io::Result<Served> {
    if gone {
        // EIO: "poll connection closed prematurely".
        session.end(CloseReason::TransportError);
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    hold.noop_at = hold.noop_at.filter(|at| *at > Instant::now());
    match session.outbox.poll_again(hold.noop_at.is_none()) {
        Poll::Held => Ok(Served::Held(hold)),
        found => {
            if hold.late && matches!(&found, Poll::Payload(body) if body == "6") {
                session.noops.fetch_add(1, AcqRel);
            }
            Ok(Served::Answer(answer(session, found, hold.late)))
        }
    }
}

fn answer(session: &Arc<Session>, found: Poll, late: bool) -> Answer {
    let moved = session.transport() == TransportKind::Websocket;
    match found {
        Poll::Payload(body) => Answer::Payload(body),
        Poll::Over => {
            session.abort();
            // A client that has sent the close packet itself gets a noop, as from the official server.
            let last = if session.ended() == Some(CloseReason::TransportClose) { "6" } else { "1" };
            Answer::Payload(last.into())
        }
        Poll::Overlap => {
            session.end(CloseReason::TransportError);
            refused(400)
        }
        Poll::Gone if late && moved => Answer::Other(refusal(HandshakeError::BadRequest)),
        Poll::Gone if moved => Answer::Payload("6".into()),
        Poll::Held | Poll::Gone => Answer::Payload("1".into()),
    }
}

/// An answer without a body, as from the official server.
fn refused(status: u16) -> Answer {
    Answer::Other(http::text(status, "text/html", ""))
}

/// The first answer to a new session: its open packet.
pub(super) fn open_answer(session: &Arc<Session>) -> Answer {
    let packet = session::open_packet(session).packet();
    session::opened(session);
    Answer::Payload(packet)
}

/// The longest time that a GET is held during an upgrade before it is answered with a noop. The official server checks
/// every 100 ms.
const UPGRADE_GRACE: Duration = Duration::from_millis(50);

/// How long the next GET is held during an upgrade. A client may have sent it before the answer to its probe, and it
/// sends nothing on the WebSocket before this GET is answered. So the first GET is answered at once. Some clients send
/// one GET after another, and each of these is held longer.
fn grace(session: &Session) -> Duration {
    let doubled = 1_u64 << session.noops.load(Acquire).min(6);
    UPGRADE_GRACE.min(Duration::from_millis(doubled - 1))
}

/// How long the POST of a client that closes its session waits for the GET that the client may have sent at the same
/// time, so that the GET finds a session.
const LEAVE_GRACE: Duration = Duration::from_millis(100);

fn post(connection: &mut Connection, head: &Head, session: &Arc<Session>) -> io::Result<Answer> {
    if session.posting.swap(true, AcqRel) {
        session.end(CloseReason::TransportError);
        connection.end_after_response();
        return Ok(refused(400));
    }
    let answer = post_alone(connection, head, session);
    session.posting.store(false, Release);
    answer
}

fn post_alone(connection: &mut Connection, head: &Head, session: &Arc<Session>) -> io::Result<Answer> {
    if head.header("content-type") == Some("application/octet-stream") {
        session.end(CloseReason::TransportError);
        connection.end_after_response();
        return Ok(refused(400));
    }
    // Held until the packets have been handled.
    let mut charge = Charge::new(&session.shared.receiving);
    let body = match connection.read_body(head, &session.shared.config.request_limits(), &mut charge) {
        Ok(body) => body,
        Err(error) => {
            // The session survives a body that is too large. The next one may fit.
            if !matches!(error, HttpError::BodyTooLarge | HttpError::Busy) {
                session.end(CloseReason::TransportError);
            }
            return match error.status() {
                Some(503) => Ok(Answer::Other(
                    http::text(503, "text/html", "").with_header(header("Retry-After", "1")),
                )),
                Some(status) => Ok(refused(status)),
                None => Err(io::ErrorKind::ConnectionAborted.into()),
            };
        }
    };
    lead::begin_work();
    receive(session, &body);
    if session.ended() == Some(CloseReason::TransportClose) {
        let deadline = Instant::now() + LEAVE_GRACE;
        lead::before_wait();
        while !session.outbox.is_closed() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        session.abort();
    }
    Ok(Answer::Received)
}

/// Handles the packets of a body in order, up to the first that is broken. Packets that the handlers emit are kept
/// until the POST is [`answered`], so that the held GET takes all of them in one response.
fn receive(session: &Arc<Session>, body: &[u8]) {
    let mut turn = session.enter();
    session.outbox.cork();
    // The official server drops a session after a broken payload. After broken Socket.IO it closes the session
    // properly.
    let broken = |error: Error| {
        guard::info!("session {}: {error}", session.name());
        (CloseReason::ParseError, CloseMode::Abort)
    };
    let handled = match std::str::from_utf8(body) {
        Err(_) => Err(broken(Error::BadUtf8)),
        Ok(body) => payload::decode(body).try_for_each(|packet| {
            let packet = packet.map_err(broken)?;
            turn.packet(session, packet).map_err(|reason| (reason, close_mode(reason)))
        }),
    };
    if let Err((reason, mode)) = handled {
        session.end_with(reason, mode);
    }
}

/// A POST was answered. Now the held GET gets the packets that the POST has caused. Not earlier, as on the official
/// server: if the GET reports a disconnect before the POST is answered, the Python client does not close the session.
pub(super) fn answered(session: &Arc<Session>) {
    let uncorked = session.outbox.uncork();
    // A failure has ended the session already.
    let _ = session.complete_push(uncorked);
}

/// Pending packets are flushed into the held GET before the session closes, if the client closes it.
fn close_mode(reason: CloseReason) -> CloseMode {
    if reason == CloseReason::TransportClose { CloseMode::Close(None) } else { CloseMode::for_reason(reason) }
}

/// The JSON answer to a request that belongs to no session.
pub(super) fn refusal(error: HandshakeError) -> Response {
    http::text(error.status(), "application/json", error.body())
}
