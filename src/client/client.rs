//! The top of the API: [`Client`], which owns the threads.
//!
//! Builds what the threads share, starts them, and ends them. Everything else is done through its [`Handle`].

use std::{
    fmt, io,
    ops::Deref,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    Builder, Error, Handle, backoff,
    core::{Core, spawn},
    dial::Dialer,
    events,
    handle::no_resources,
    link, polling,
    url::Endpoint,
};
use crate::proto::engine::TransportKind;

/// Stack of the client's own threads. They use a few pages; the system's name lookup uses most of it.
const STACK: usize = 512 << 10;

/// Stack of the handlers' thread: the standard library's default, because handlers are the user's code.
const HANDLER_STACK: usize = 2 << 20;

/// How long a dropped client writes what was emitted before.
const DROP_TIME: Duration = Duration::from_millis(500);

/// How long a dropped client waits for its threads.
const JOIN_TIME: Duration = Duration::from_millis(400);

/// A Socket.IO client: one connection to one server, carrying any number of namespaces.
///
/// It owns the threads, which run until it is dropped. Dropping it first disconnects, as
/// [`disconnect`](Handle::disconnect) does. Its methods are those of [`Handle`], to which it dereferences. A handle
/// can be cloned into handlers and threads without keeping the client alive.
pub struct Client {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
}

impl Builder {
    /// Checks URL and options and starts the client's threads; nothing is connected yet, so handlers can be set before
    /// [`Handle::connect`](super::Handle::connect).
    ///
    /// URLs: `http://`, `https://`, `ws://`, `wss://` (the schemes choose TLS, not the transport), and
    /// `unix:///path/to/socket`. A path is the namespace, as in the official client, and a query is sent along.
    ///
    /// # Errors
    /// [`Error::Invalid`], and [`Error::Closed`] when the operating system gives no more threads or descriptors.
    pub fn build(self) -> Result<Client, Error> {
        Client::build(self)
    }
}

impl Client {
    /// A client for the server at `url`; see [`Builder::build`] for its forms.
    #[must_use]
    pub fn builder(url: &str) -> Builder {
        Builder::new(url)
    }

    fn build(builder: Builder) -> Result<Self, Error> {
        let config = builder.config;
        config.validate()?;
        let endpoint = Endpoint::new(&builder.url, &config.path, &config.query)?;
        let dialer = Dialer {
            #[cfg(feature = "tls")]
            tls: endpoint.secure.then(|| super::tls::config(&config.ca)).transpose()?,
            endpoint: Arc::new(endpoint),
        };
        let polling = config.transports.contains(&TransportKind::Polling);
        let core = Core::new(config, dialer).map(Arc::new).map_err(no_resources)?;
        let mut client = Self { handle: Handle::new(core), threads: Vec::new() };
        client.spawn(polling).map_err(no_resources)?;
        Ok(client)
    }

    /// Starts the threads. Each owns the channel to the next: when `backoff` ends, `link` ends, then `poll`.
    fn spawn(&mut self, polling: bool) -> io::Result<()> {
        let Self { handle, threads } = self;
        let (core, client) = (handle.core(), handle.clone());
        let (jobs, link_jobs) = crossbeam_channel::bounded(1);
        let (polls, poll_jobs) = crossbeam_channel::bounded(1);
        if polling {
            threads.push(spawn(core, "sio-poll", STACK, move |core| polling::run(core, &poll_jobs))?);
        }
        let polls = polling.then_some(polls);
        threads
            .push(spawn(core, "sio-link", STACK, move |core| link::run(core, &link_jobs, polls.as_ref()))?);
        threads.push(spawn(core, "sio-backoff", STACK, move |core| backoff::run(core, &jobs))?);
        threads.push(spawn(core, "sio-events", HANDLER_STACK, move |_| events::run(&client))?);
        Ok(())
    }

    /// The handle, to be cloned into threads and handlers.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Client {
    /// Disconnects, for at most half a second, then ends the threads, and waits for them for at most 0.4 s. A thread
    /// that is in a handler or in the system's name lookup ends when that returns.
    fn drop(&mut self) {
        let core = self.handle.core();
        let _ = core.disconnect(DROP_TIME);
        core.shut_down();
        let own = usize::from(core.in_handler());
        let ended =
            core.wait_for(Some(Instant::now() + JOIN_TIME), |state| (state.threads <= own).then_some(()));
        for thread in self.threads.drain(..) {
            let this = thread.thread().id() == std::thread::current().id();
            if !this && (ended.is_some() || thread.is_finished()) {
                let _ = thread.join();
            }
        }
    }
}

impl Deref for Client {
    type Target = Handle;
    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("status", &self.handle.status()).finish()
    }
}

/// Builds a client with the default options and connects it.
///
/// # Errors
/// As [`Builder::build`] and [`Handle::connect`].
pub fn connect(url: &str) -> Result<Client, Error> {
    let client = Client::builder(url).build()?;
    client.connect()?;
    Ok(client)
}
