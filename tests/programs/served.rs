//! A chat to talk to, in this process.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use tinysio::{
    chat::{Chat, Options},
    server::{Builder, Server},
};

/// How long anything may take.
const BOUND: Duration = Duration::from_secs(20);

/// The chat on a port of its own, which stays the same when the server is lost and comes back.
pub(crate) struct Served {
    server: Option<Server>,
    pub(crate) port: u16,
}

impl Served {
    pub(crate) fn new() -> Self {
        Self::with(Options { test_events: true, ..Options::default() }, |builder| builder)
    }

    pub(crate) fn with(options: Options, set_up: impl Fn(Builder) -> Builder) -> Self {
        let port = free_port();
        Self { server: Some(listen(port, options, set_up)), port }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("the server is up")
    }

    /// Waits until so many clients are in the chat.
    pub(crate) fn waits_for_clients(&self, count: usize) {
        let chat = self.server().of("/").expect("the chat");
        let deadline = Instant::now() + BOUND;
        while chat.len() != count {
            assert!(Instant::now() < deadline, "{} clients instead of {count}", chat.len());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Disconnects everybody from the chat.
    pub(crate) fn throw_all_out(&self) {
        self.server().of("/").expect("the chat").disconnect_sockets(false);
    }

    /// Ends it with all connections.
    pub(crate) fn kill(&mut self) {
        drop(self.server.take());
    }

    /// Brings it back where it was.
    pub(crate) fn restart(&mut self) {
        let options = Options { test_events: true, ..Options::default() };
        self.server = Some(listen(self.port, options, |builder| builder));
    }
}

/// The port may be taken for a moment yet: by a process that another test is just starting, and that has inherited
/// everything that is open here until it runs its own program.
fn listen(port: u16, options: Options, set_up: impl Fn(Builder) -> Builder) -> Server {
    let deadline = Instant::now() + BOUND;
    loop {
        let builder = set_up(Chat::new(options.clone()).install(Server::builder()));
        match builder.listen(format!("127.0.0.1:{port}")) {
            Ok(server) => return server,
            Err(error) => assert!(Instant::now() < deadline, "no server on port {port}: {error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A port where nobody listens, and below those that the system gives to outgoing connections: one of these could keep
/// a server from coming back to it. Each call gives another one.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 80) as u16 * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
