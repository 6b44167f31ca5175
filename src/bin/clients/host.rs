//! A server of one's own, to be lost and found again.

use std::{
    io,
    net::TcpListener,
    time::{Duration, Instant},
};

use tinysio::{
    chat::{Chat, Options},
    server::{Server, StartError},
};

use super::stop::Stop;

/// How long a port is waited for that the system does not give yet.
const BIND_TIME: Duration = Duration::from_secs(5);

/// The chat on a port of this machine, until it is dropped or [killed](Self::kill).
#[derive(Debug)]
pub(crate) struct Host {
    server: Server,
}

impl Host {
    /// Serves on `port` of the loopback interface; `test_events` as for the `server` program.
    pub(crate) fn start(port: u16, test_events: bool) -> Result<Self, StartError> {
        let options = Options { test_events, ..Options::default() };
        let server = Chat::new(options).install(Server::builder()).listen(format!("127.0.0.1:{port}"))?;
        Ok(Self { server })
    }

    /// As [`start`](Self::start), on a port that was in use a moment ago.
    pub(crate) fn restart(port: u16, test_events: bool, stop: &Stop) -> Result<Self, StartError> {
        let deadline = Instant::now() + BIND_TIME;
        loop {
            match Self::start(port, test_events) {
                Err(StartError::Bind { source, .. })
                    if source.kind() == io::ErrorKind::AddrInUse
                        && Instant::now() < deadline
                        && stop.pause(Duration::from_millis(50)) => {}
                result => return result,
            }
        }
    }

    /// Ends it at once, with all connections, as a crash would: nobody is told.
    pub(crate) fn kill(self) {
        drop(self.server);
    }
}

/// A port where nobody listens, and that the system gives to nobody's outgoing connection either, which port 0 would be:
/// while the server is away, such a connection could keep it from coming back.
pub(crate) fn free_port() -> io::Result<u16> {
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let mut tried = (first..=u16::MAX).map(|port| TcpListener::bind(("127.0.0.1", port)).map(|_| port));
    tried.find(Result::is_ok).unwrap_or_else(|| Err(io::ErrorKind::AddrNotAvailable.into()))
}
