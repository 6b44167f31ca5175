//! A relay to an external server, so that its connections can be lost and restored without touching the server.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;

/// How often the relay checks whether it should end.
const LOOK: Duration = Duration::from_millis(10);

/// Forwards all connections of a local port, until it is [cut](Self::cut) or dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    target: String,
    port: u16,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    ending: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// A relay to the server at `url`. `None`: the URL is not plain TCP.
    pub(crate) fn to(url: &str) -> Option<io::Result<Self>> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?']).next()?;
        let target = match (scheme, authority.rsplit_once(':')) {
            ("http" | "ws", Some((_, port))) if !port.ends_with(']') => authority.to_owned(),
            ("http" | "ws", _) => format!("{authority}:80"),
            _ => return None,
        };
        let mut relay = Self { target, port: 0, open: None };
        Some(relay.mend().map(|()| relay))
    }

    /// The URL of the relay: `url` with another host and port.
    pub(crate) fn url(&self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let path = rest.find(['/', '?']).map_or("", |at| &rest[at..]);
        format!("{scheme}://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Listens again.
    pub(crate) fn mend(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", self.port))?;
        listener.set_nonblocking(true)?;
        self.port = listener.local_addr()?.port();
        let (ending, streams) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (its_ending, its_streams, target) = (ending.clone(), streams.clone(), self.target.clone());
        let accepting = thread::Builder::new().name("relay".into()).spawn(move || {
            while !its_ending.load(Relaxed) {
                match listener.accept() {
                    Ok((near, _)) => drop(join(near, &target, &its_streams)),
                    Err(_) => thread::sleep(LOOK),
                }
            }
        })?;
        self.open = Some(Open { ending, streams, accepting });
        Ok(())
    }

    /// Closes all connections and the listener.
    pub(crate) fn cut(&mut self) {
        let Some(open) = self.open.take() else { return };
        open.ending.store(true, Relaxed);
        let _ = open.accepting.join();
        for stream in open.streams.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Connects two streams. If the server is not reachable, the client's stream is closed.
fn join(near: TcpStream, target: &str, streams: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    near.set_nonblocking(false)?;
    let far = TcpStream::connect(target)?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        streams.lock().push(stream.try_clone()?);
    }
    pump(near.try_clone()?, far.try_clone()?)?;
    pump(far, near)
}

fn pump(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    thread::Builder::new().name("relay-pump".into()).spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_tcp_can_be_relayed() {
        assert!(Relay::to("https://example.org").is_none());
        assert!(Relay::to("unix:///run/x.sock").is_none());
        let relay = Relay::to("http://127.0.0.1:9/chat?x=1").unwrap().unwrap();
        assert_eq!(
            relay.url("http://127.0.0.1:9/chat?x=1"),
            format!("http://127.0.0.1:{}/chat?x=1", relay.port)
        );
    }
}
