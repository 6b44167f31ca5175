//! HTTP long-polling (EIO "HTTP long-polling"): a GET fetches packets, a POST brings packets.
//!
//! ```text
//!   GET  ─► packets there: 200 payload      none: held until one comes, or the peer is gone
//!   POST ─► decoded, handled, 200 ok        broken: 200 ok, session closed; too big: 413, session lives
//! ```
//! A second GET, a second POST or a binary body is answered with 400 and ends the session, as on the official server.
//!
//! It uses the session, its turn and its outbox. The router beside it sends the answers.

use std::{cell::RefCell, io, sync::Arc, time::Duration};

use crate::server::{
    connection::Work,
    http::response::Answer,
    http::{self, Connection, Head, HttpError, Method, Response, header},
    limits::budget::Charge,
    net::idle::{IdleConnections, Token},
    net::stream::{self, Waker},
    session::{self, CloseMode, Session},
    transport::outbox::{Holder, Poll},
};
use crate::{
    proto::{
        CloseReason, Error,
        engine::{HandshakeError, TransportKind, payload},
    },
    sys::{
        os::{PollFd, PollFlags},
        sync::atomic::Ordering::{AcqRel, Acquire, Release},
        thread, thread_local,
        time::Instant,
    },
};

thread_local! {
    /// Wakes this thread while it holds a GET.
    static WAKER: RefCell<Option<Arc<Waker>>> = const { RefCell::new(None) };
}

/// `None`: there is no descriptor for it. A GET that is held is parked at once then, and is woken without one.
fn thread_waker() -> Option<Arc<Waker>> {
    WAKER.with_borrow_mut(|waker| {
        if waker.is_none() {
            *waker = Waker::new().ok().map(Arc::new);
        }
        waker.clone()
    })
}

/// The result of a request of a session.
pub(super) enum Served {
    Answer(Answer),
    /// A GET that has been held for `park_after`. It can wait without a thread.
    Parks,
}

/// Serves a request of an existing session.
pub(super) fn serve(connection: &mut Connection, head: &Head, session: &Arc<Session>) -> io::Result<Served> {
    match head.method() {
        Method::Get => get(connection, session),
        Method::Post => post(connection, head, session).map(Served::Answer),
        // As the official server without its CORS handler. EIO has no other method.
        _ => Ok(Served::Answer(refused(500))),
    }
}

fn get(connection: &mut Connection, session: &Arc<Session>) -> io::Result<Served> {
    let waker = thread_waker();
    if session.outbox.backlog() == 0 {
        // A thread that is ready to run, such as that of a POST, often emits the packets that this GET asks for.
        connection.pause();
    }
    // Read before the outbox: a GET that finds the session on a WebSocket has come too late.
    let late = session.upgrading.load(Acquire);
    let holder = || waker.as_ref().map_or(Holder::Nobody, |waker| Holder::Thread(Arc::clone(waker)));
    match (session.outbox.poll(holder), waker) {
        (Poll::Held, Some(waker)) => hold(connection, session, &waker, late),
        (Poll::Held, None) => Ok(Served::Parks),
        (found, _) => Ok(Served::Answer(answer(session, found, true))),
    }
}

/// A held GET has a thread again.
pub(super) fn resume(connection: &Connection, session: &Arc<Session>) -> io::Result<Served> {
    let waker = thread_waker();
    let holder = waker.as_ref().map(|waker| Holder::Thread(Arc::clone(waker)));
    match (session.outbox.resume(true, holder), waker) {
        (Poll::Held, Some(waker)) => hold(connection, session, &waker, false),
        (Poll::Held, None) => Ok(Served::Parks),
        (found, _) => Ok(Served::Answer(answer(session, found, false))),
    }
}

/// The held GET is to be parked. `false`: there is something for it now.
pub(super) fn park(session: &Arc<Session>, idle: &Arc<IdleConnections<Work>>, token: Token) -> bool {
    let holder = Holder::Parked(Arc::<IdleConnections<Work>>::clone(idle), token);
    session.outbox.park(holder)
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

/// Waits until there are packets for the held GET, until its peer is gone, or until it can wait without this thread.
/// `late`: it came during an upgrade.
fn hold(connection: &Connection, session: &Arc<Session>, waker: &Waker, late: bool) -> io::Result<Served> {
    let mut grace = late.then(|| Instant::now() + grace(session));
    let parks_at = session.core.silence().map(|silence| Instant::now() + silence);
    loop {
        let mut fds = [waker.poll_fd(), PollFd::new(&*connection.stream, PollFlags::RDHUP)];
        if !stream::wait(&mut fds, grace.or(parks_at))? && grace.take().is_none() {
            return Ok(Served::Parks);
        }
        if !fds[1].revents().is_empty() {
            // EIO: "poll connection closed prematurely".
            session.end(CloseReason::TransportError);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        waker.reset();
        match session.outbox.resume(grace.is_none(), None) {
            Poll::Held => {}
            found => {
                if late && matches!(&found, Poll::Payload(body) if body == "6") {
                    session.noops.fetch_add(1, AcqRel);
                }
                return Ok(Served::Answer(answer(session, found, late)));
            }
        }
    }
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
    let mut charge = Charge::new(&session.core.receiving);
    let body = match connection.read_body(head, &session.core.config.request_limits(), &mut charge) {
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
    receive(session, &body);
    if session.ended() == Some(CloseReason::TransportClose) {
        let deadline = Instant::now() + LEAVE_GRACE;
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
        log::info!("session {}: {error}", session.name());
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
    let _ = session.settle(uncorked);
}

/// Pending packets are flushed into the held GET before the session closes, if the client closes it.
fn close_mode(reason: CloseReason) -> CloseMode {
    if reason == CloseReason::TransportClose { CloseMode::Close(None) } else { CloseMode::for_reason(reason) }
}

/// The JSON answer to a request that belongs to no session.
pub(super) fn refusal(error: HandshakeError) -> Response {
    http::text(error.status(), "application/json", error.body())
}
