//! HTTP long-polling (EIO "HTTP long-polling"): GET fetches packets, POST brings some.
//!
//! ```text
//!   GET  ─► packets there: 200 payload      none: held until one comes, or the peer goes
//!   POST ─► decoded, handled, 200 ok        broken: 200 ok, session closed; too big: 413, session lives
//! ```
//! The rules that the official server answers with 400 and the end of the session (a second GET, a second POST,
//! binary bodies) are kept as they are.

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

/// What a request of a session comes to.
pub(super) enum Served {
    Answer(Answer),
    /// A GET that is held, and has been for so long that it can wait without a thread.
    Parks,
}

/// Serves a request of an existing session.
pub(super) fn serve(connection: &mut Connection, head: &Head, session: &Arc<Session>) -> io::Result<Served> {
    match head.method() {
        Method::Get => get(connection, session),
        Method::Post => post(connection, head, session).map(Served::Answer),
        // As the official server without its CORS handler: E4 knows no other method.
        _ => Ok(Served::Answer(refused(500))),
    }
}

fn get(connection: &mut Connection, session: &Arc<Session>) -> io::Result<Served> {
    let waker = thread_waker();
    if session.outbox.backlog() == 0 {
        // What it asks for is often made by a thread that can run already, as that of the POST beside it.
        connection.pause();
    }
    // A GET that finds the session gone to a WebSocket is late in any case.
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
            session.cut();
            // A client that has said `1` itself gets a noop, as from the official server.
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

/// An answer that says nothing but its status, as from the official server.
fn refused(status: u16) -> Answer {
    Answer::Other(http::text(status, "text/html", ""))
}

/// The first answer to a new session: its open packet.
pub(super) fn greet(session: &Arc<Session>) -> Answer {
    let packet = session::open_packet(session).packet();
    session::opened(session);
    Answer::Payload(packet)
}

/// The longest that a GET that came during an upgrade is held for the upgrade's end, before it is sent home with a noop. The
/// official server looks every 100 ms.
const UPGRADE_GRACE: Duration = Duration::from_millis(50);

/// How long the next one is held. Its client may have asked before it had its probe's answer, and says nothing on the WebSocket
/// before it has this one: so the first goes home at once. One that does not wait for the probe's answer asks again and again,
/// and waits longer each time.
fn grace(session: &Session) -> Duration {
    let doubled = 1_u64 << session.sent_home.load(Acquire).min(6);
    UPGRADE_GRACE.min(Duration::from_millis(doubled - 1))
}

/// Waits until there is something for the held GET, its peer is gone, or it can wait without this thread. `late`: it came
/// during an upgrade.
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
                    session.sent_home.fetch_add(1, AcqRel);
                }
                return Ok(Served::Answer(answer(session, found, late)));
            }
        }
    }
}

/// How long the POST of a client that closes its session waits for the GET that the client may have sent at the same time, so
/// that the GET finds a session.
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
            // Only too much is forgiven: what the client sends next may be fine.
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
        session.cut();
    }
    Ok(Answer::Received)
}

/// Handles the packets of a body in order, up to the first that is broken. What the handlers emit meanwhile is
/// gathered until the POST is [`answered`], so that a held GET takes it home in one response.
fn receive(session: &Arc<Session>, body: &[u8]) {
    let mut turn = session.enter();
    session.outbox.cork();
    // The official server lets a session whose payload is broken go at once, but takes leave of one whose Socket.IO is.
    let broken = |error: Error| {
        log::info!("session {}: {error}", session.name());
        (CloseReason::ParseError, CloseMode::Abort)
    };
    let verdict = match std::str::from_utf8(body) {
        Err(_) => Err(broken(Error::BadUtf8)),
        Ok(body) => payload::decode(body).try_for_each(|packet| {
            let packet = packet.map_err(broken)?;
            turn.packet(session, packet).map_err(|reason| (reason, close_mode(reason)))
        }),
    };
    if let Err((reason, mode)) = verdict {
        session.end_with(reason, mode);
    }
}

/// A POST has its answer: now the held GET gets what the POST has brought about. Not earlier, as on the official server:
/// the Python client, told by the GET that it was disconnected while it still waits for the POST's answer, forgets
/// to close the session.
pub(super) fn answered(session: &Arc<Session>) {
    let uncorked = session.outbox.uncork();
    // Its failure has ended the session by itself.
    let _ = session.settle(uncorked);
}

/// A client that closes its session takes what waits for it home with its held GET.
fn close_mode(reason: CloseReason) -> CloseMode {
    if reason == CloseReason::TransportClose { CloseMode::Close(None) } else { CloseMode::for_reason(reason) }
}

/// The JSON answer to a request that is no session's.
pub(super) fn refusal(error: HandshakeError) -> Response {
    http::text(error.status(), "application/json", error.body())
}
