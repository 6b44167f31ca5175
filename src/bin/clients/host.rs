//! A server in this process, which can be lost and started again.

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

/// How long to wait for a port that the system has not released yet.
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

    /// As [`start`](Self::start), on a port that was in use shortly before.
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

    /// Ends it at once with all connections, like a crash: no notification.
    pub(crate) fn kill(self) {
        drop(self.server);
    }
}

/// A port without a listener that the system does not give to outgoing connections either. With port 0, such a
/// connection could block the port while the server is away.
pub(crate) fn free_port() -> io::Result<u16> {
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let mut tried = (first..=u16::MAX).map(|port| TcpListener::bind(("127.0.0.1", port)).map(|_| port));
    tried.find(Result::is_ok).unwrap_or_else(|| Err(io::ErrorKind::AddrNotAvailable.into()))
}
