//! HTTP/1.1 on the main port: heads and bodies of requests within limits, and `tiny_http` responses.
//!
//! It uses `net` and the budgets of `limits`. It knows nothing of sessions, namespaces and the configuration.

pub(crate) mod chunked;
mod connection;
pub(crate) mod cors;
mod head;
pub(crate) mod response;

use std::io::Cursor;

pub use tiny_http::{Header, Method, StatusCode};

pub(crate) use self::connection::{Awaited, Connection, HttpError, NextHead, READ_CHUNK, RequestLimits};
pub(crate) use self::head::Head;
use crate::server::peer::Peer;

/// What a route answers: `tiny_http`'s response with a body in memory.
pub type Response = tiny_http::Response<Cursor<Vec<u8>>>;

/// The name of this server, instead of that of `tiny_http`.
fn server_header() -> Header {
    header("Server", "tinysio")
}

/// A header. Its name is a literal and its value was checked before.
pub(crate) fn header(name: &'static str, value: &str) -> Header {
    Header::from_bytes(name.as_bytes(), value.as_bytes())
        .unwrap_or_else(|()| unreachable!("header names are ASCII literals, and values were checked: {name}"))
}

/// A response with a text body.
pub(crate) fn text(status: u16, content_type: &str, body: impl Into<String>) -> Response {
    Response::from_string(body)
        .with_status_code(StatusCode(status))
        .with_header(header("Content-Type", content_type))
}

/// A request as routes and [`Config::allow_request`](crate::server::Config::allow_request) see it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    head: &'a Head,
    peer: Peer,
}

impl<'a> Request<'a> {
    pub(crate) fn new(head: &'a Head, peer: Peer) -> Self {
        Self { head, peer }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        self.head.method()
    }

    /// The path, undecoded.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.path()
    }

    /// The query, undecoded, without `?`.
    #[must_use]
    pub fn query(&self) -> &str {
        self.head.query()
    }

    /// The value of a header, by its name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The other end of the connection.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }
}
