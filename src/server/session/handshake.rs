//! What the first request of a session said.

use std::time::SystemTime;

use crate::server::{http::Head, peer::Peer};

/// What the first request of a session said: the official `socket.handshake`.
#[derive(Debug)]
pub struct Handshake {
    head: Head,
    peer: Peer,
    time: SystemTime,
}

impl Handshake {
    pub(crate) fn new(head: Head, peer: Peer) -> Self {
        Self { head, peer, time: SystemTime::now() }
    }

    /// The value of a header, by its name in any case. The first one, if it came several times; `None` also for bytes
    /// that are no UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The values of a header that may come several times, like `X-Forwarded-For`, in their order.
    pub fn header_values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h str> {
        self.head.header_values(name)
    }

    /// The query of the first request, undecoded, without `?`.
    #[must_use]
    pub fn query(&self) -> &str {
        self.head.query()
    }

    /// Who connected. Behind a proxy, that is the proxy.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// When.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        self.time
    }
}
