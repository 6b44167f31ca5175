//! The way of a request: to a route of the application, to a new session, or to the session that it names.
//!
//! It uses the checks, and the two transports beside it. It answers on the thread of the connection.

use std::{io, sync::Arc};

use crate::server::{
    connection::checks::{Refusal, Wanted, check},
    connection::polling::{self, Served},
    connection::websocket,
    connection::{HeldGet, Next, Stage},
    dispatch::core::Core,
    guard::{self, Callee},
    http::cors::Cors,
    http::response::Answer,
    http::{self, Awaited, Connection, Head, Method, NextHead, Request, header},
    lead,
    limits::refusals::RefusalReason,
    net::poller::ConnectionWaker,
    session::{Handshake, Session},
    transport::websocket_handshake::{self, Unfit},
};
use crate::{
    proto::{CloseReason, engine::HandshakeError},
    sys::time::Instant,
};

/// Reads and serves the next request. `waker`: of the connection.
pub(super) fn request(
    core: &Arc<Core>,
    connection: &mut Connection,
    waker: ConnectionWaker,
    mut awaited: Awaited,
) -> Next {
    // It is marked as waiting: by its permit at first, later by `next_request`.
    if core.shared.is_closed() {
        return Next::End;
    }
    let head = match connection.read_head(&core.shared.config.request_limits(), &mut awaited) {
        Ok(NextHead::Head(head)) => {
            connection.permit.set_asked();
            head
        }
        Ok(NextHead::Later) => return Next::Wait(Stage::Request(awaited)),
        Ok(NextHead::None) => return Next::End,
        Ok(NextHead::Over) => return Next::Over,
        Err(error) => {
            connection.permit.set_waiting(false);
            connection.end_after_response();
            if let Some(status) = error.status() {
                let why = format_args!("the request is answered with HTTP status {status}");
                core.shared.refusals.add(RefusalReason::BadRequest, connection.peer, &why);
                let _ = connection.respond(http::text(status, "text/html", ""), None);
            }
            return Next::End;
        }
    };
    connection.permit.set_waiting(false);
    lead::begin_work();
    route(core, connection, waker, head).unwrap_or(Next::End)
}

/// What follows the answer to a request.
fn next_request(core: &Core, connection: &Connection) -> Next {
    // Set before a stop is looked for: either this connection or the stop sees the other.
    connection.permit.set_waiting(true);
    if !connection.keeps_alive() || core.shared.is_closed() {
        return Next::End;
    }
    let stage = Stage::Request(Awaited::new(Instant::now() + core.shared.config.keep_alive_timeout));
    if connection.has_input() { Next::Stage(stage) } else { Next::Wait(stage) }
}

fn route(
    core: &Arc<Core>,
    connection: &mut Connection,
    waker: ConnectionWaker,
    head: Head,
) -> io::Result<Next> {
    if let Some(endpoint) = core.endpoint_at(head.path()) {
        let wants_websocket =
            head.has_token("upgrade", "websocket") && head.has_token("connection", "upgrade");
        if wants_websocket {
            return websocket_request(core, connection, endpoint, head);
        }
        return polling_request(core, connection, waker, endpoint, head);
    }
    let response = match core.route(head.path()) {
        Some(handler) => {
            // Routes take no bodies. A body is not read, so the connection must end.
            if !matches!(head.method(), Method::Get | Method::Head) {
                connection.end_after_response();
            }
            let request = Request::new(&head, connection.peer);
            guard::call(Callee::ROUTE, format_args!("the route {:?}", head.path()), || handler(&request))
                .unwrap_or_else(|| http::text(500, "text/plain; charset=UTF-8", "Internal Server Error\n"))
        }
        None => {
            connection.end_after_response();
            http::text(404, "text/plain; charset=UTF-8", "Not Found\n")
        }
    };
    connection.respond(response, Some(&head))?;
    Ok(next_request(core, connection))
}

fn polling_request(
    core: &Arc<Core>,
    connection: &mut Connection,
    waker: ConnectionWaker,
    endpoint: usize,
    head: Head,
) -> io::Result<Next> {
    let cors = &core.shared.config.cors;
    if *head.method() == Method::Options && *cors != Cors::SameOrigin {
        let preflight = http::text(204, "text/html", "")
            .with_header(header("Access-Control-Allow-Methods", "GET,HEAD,PUT,PATCH,POST,DELETE"))
            .with_header(header("Access-Control-Allow-Headers", allowed_headers(&head)))
            .with_header(header("Vary", "Access-Control-Request-Headers"));
        connection.answer(Answer::Other(preflight), cors.headers(head.header("origin")), Some(&head))?;
        return Ok(next_request(core, connection));
    }
    match check(&core.shared, connection.peer, endpoint, &head, false) {
        Ok(Wanted::Session(session)) => {
            let served = polling::serve(connection, waker, &head, &session);
            return answer_session(core, connection, (head, session), served);
        }
        Ok(Wanted::NewSession) => {
            let origin = head.header("origin").map(ToOwned::to_owned);
            let answer = core
                .open_session(endpoint, Handshake::new(head, connection.peer))
                .map(|session| polling::open_answer(&session))
                .unwrap_or_else(|refused| {
                    Answer::Other(Refusal::Session(refused).response(&core.shared, connection.peer, false))
                });
            connection.answer(answer, cors.headers(origin.as_deref()), None)?;
        }
        Err(refusal) => {
            if !matches!(head.method(), Method::Get | Method::Head) {
                // The body is not read.
                connection.end_after_response();
            }
            let refusal = Answer::Other(refusal.response(&core.shared, connection.peer, false));
            connection.answer(refusal, cors.headers(head.header("origin")), Some(&head))?;
        }
    }
    Ok(next_request(core, connection))
}

/// Answers a request of a session, or holds the GET.
pub(super) fn answer_session(
    core: &Arc<Core>,
    connection: &mut Connection,
    request: (Head, Arc<Session>),
    served: io::Result<Served>,
) -> io::Result<Next> {
    let (head, session) = &request;
    let answer = match served? {
        Served::Held(hold) => return Ok(Next::Wait(Stage::Poll(Box::new(HeldGet::new(request, hold))))),
        Served::Answer(answer) => answer,
    };
    let write = session.outbox.begin_payload(&connection.stream, answer.len());
    let responded =
        connection.answer(answer, core.shared.config.cors.headers(head.header("origin")), Some(head));
    drop(write);
    if *head.method() == Method::Post {
        polling::answered(session);
    } else if responded.is_err() {
        // The packets in the answer are lost (the official "poll connection closed prematurely").
        session.end(CloseReason::TransportError);
    }
    responded.map(|()| next_request(core, connection))
}

fn allowed_headers(head: &Head) -> &str {
    head.header("access-control-request-headers").filter(|value| value.is_ascii()).unwrap_or("content-type")
}

fn websocket_request(
    core: &Arc<Core>,
    connection: &mut Connection,
    endpoint: usize,
    head: Head,
) -> io::Result<Next> {
    connection.end_after_response();
    let wanted = match check(&core.shared, connection.peer, endpoint, &head, true) {
        Ok(wanted) => wanted,
        Err(refusal) => {
            connection.respond(refusal.response(&core.shared, connection.peer, true), Some(&head))?;
            return Ok(Next::End);
        }
    };
    let accepted = match websocket_handshake::accept(&head) {
        Ok(accepted) => accepted,
        Err(unfit) => {
            let mut refusal =
                Refusal::Rule(HandshakeError::BadRequest).response(&core.shared, connection.peer, true);
            if unfit == Unfit::Version {
                // RFC 6455 4.4: the client may try again with the version that this header names.
                refusal = refusal.with_header(header("Sec-WebSocket-Version", websocket_handshake::VERSION));
            }
            connection.respond(refusal, Some(&head))?;
            return Ok(Next::End);
        }
    };
    let stage = match wanted {
        Wanted::Session(session) => websocket::upgrade(connection, &accepted, session)
            .map(|upgrade| Stage::Upgrade(Box::new(upgrade))),
        Wanted::NewSession => match core.open_session(endpoint, Handshake::new(head, connection.peer)) {
            Ok(session) => websocket::begin(connection, accepted, &session)
                .map(|socket| Stage::WebSocket(Box::new(socket))),
            Err(refused) => {
                connection
                    .respond(Refusal::Session(refused).response(&core.shared, connection.peer, true), None)?;
                None
            }
        },
    };
    Ok(stage.map_or(Next::End, Next::Stage))
}
