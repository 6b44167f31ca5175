//! A server that can be lost: our own, or the connection to an external one.

use crate::clients::{
    common::exit::Failure,
    host::{Host, free_port},
    relay::Relay,
    stop::Stop,
};

/// The server of the scenarios.
#[derive(Debug)]
pub(crate) enum World {
    /// Our own server on this port, if it is up.
    Own { port: u16, host: Option<Host>, stop: Stop },
    /// A relay to the server at this URL.
    Relayed { relay: Relay, url: String },
}

impl World {
    /// Our own server, not started yet.
    pub(crate) fn own(stop: &Stop) -> Result<Self, Failure> {
        let port = free_port().map_err(|error| Failure::Failed(format!("no free port: {error}")))?;
        Ok(Self::Own { port, host: None, stop: stop.clone() })
    }

    /// The relay to the server at `url`, not open yet.
    pub(crate) fn relayed(url: &str) -> Result<Self, Failure> {
        let relay = Relay::to(url).ok_or_else(|| {
            Failure::Usage(format!(
                "{url}: only the way to http:// and ws:// servers can be lost and regained"
            ))
        })?;
        let mut relay = relay.map_err(|error| Failure::Failed(format!("cannot relay: {error}")))?;
        relay.cut();
        Ok(Self::Relayed { relay, url: url.to_owned() })
    }

    /// The URL for clients.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Own { port, .. } => format!("http://127.0.0.1:{port}"),
            Self::Relayed { relay, url } => relay.url(url),
        }
    }

    /// Whether the server accepts commands like `kick`.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Own { .. })
    }

    /// Starts it, unless it is up.
    pub(crate) fn up(&mut self) -> Result<(), String> {
        match self {
            Self::Own { host: Some(_), .. } => Ok(()),
            Self::Own { port, host, stop } => {
                *host = Some(Host::restart(*port, true, stop).map_err(|error| error.to_string())?);
                Ok(())
            }
            Self::Relayed { relay, .. } if relay.is_open() => Ok(()),
            Self::Relayed { relay, .. } => relay.mend().map_err(|error| error.to_string()),
        }
    }

    /// Kills it, with all connections.
    pub(crate) fn down(&mut self) {
        match self {
            Self::Own { host, .. } => {
                if let Some(host) = host.take() {
                    host.kill();
                }
            }
            Self::Relayed { relay, .. } => relay.cut(),
        }
    }
}
