//! What user code does, and what the log says of it.

use std::{
    sync::{
        Arc, Condvar, Mutex, Once, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use tinysio::server::{Namespace, Server, Socket};

use crate::support::PATIENCE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    Panics,
    /// Until the test lets it go.
    Blocks,
    CallsEverything,
    /// Wants a lock whose holder asks the server.
    WantsALock,
    ShutsDown,
}

/// The user's code: it does what it does when it is armed, and reports its beginning and its end.
pub(super) struct Act {
    behaviour: Behaviour,
    /// What it says when it panics.
    pub(super) name: String,
    armed: AtomicUsize,
    report: Mutex<Sender<()>>,
    released: Mutex<bool>,
    release: Condvar,
    pub(super) server: OnceLock<Weak<Server>>,
    lock: Mutex<()>,
}

impl Act {
    pub(super) fn new(behaviour: Behaviour) -> (Arc<Self>, Receiver<()>) {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        watch_log();
        let (report, reports) = channel();
        let act = Self {
            behaviour,
            name: format!("misbehaviour {};", NUMBER.fetch_add(1, SeqCst)),
            armed: AtomicUsize::new(0),
            report: Mutex::new(report),
            released: Mutex::new(false),
            release: Condvar::new(),
            server: OnceLock::new(),
            lock: Mutex::new(()),
        };
        (Arc::new(act), reports)
    }

    /// The next so many calls count.
    pub(super) fn arm(&self, calls: usize) {
        self.armed.store(calls, SeqCst);
    }

    /// A call of the user's code.
    pub(super) fn run(&self, socket: Option<&Socket>) {
        if self.armed.fetch_update(SeqCst, SeqCst, |armed| armed.checked_sub(1)).is_err() {
            return;
        }
        let Some(server) = self.server.get().and_then(Weak::upgrade) else { return };
        match self.behaviour {
            Behaviour::Panics => {
                self.tell();
                panic!("{}", self.name);
            }
            Behaviour::Blocks => {
                self.tell();
                let released = self.released.lock().unwrap();
                let wait = self.release.wait_timeout_while(released, 2 * PATIENCE, |released| !*released);
                drop(wait.unwrap());
            }
            Behaviour::CallsEverything => {
                self.tell();
                call_everything(&server, socket);
            }
            Behaviour::WantsALock => self.want_the_lock(&server),
            Behaviour::ShutsDown => {
                self.tell();
                assert!(!server.shutdown(Duration::from_millis(100)), "it would wait for itself");
            }
        }
        self.tell();
    }

    /// As two threads of an application that each want the other's: the holder of the lock asks the hub.
    fn want_the_lock(&self, server: &Arc<Server>) {
        std::thread::scope(|scope| {
            let (held, holding) = channel();
            scope.spawn(move || {
                let _held = self.lock.lock().unwrap();
                held.send(()).unwrap();
                // The hub answers although another thread waits for the lock.
                for _ in 0..20 {
                    ask_the_hub(server);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            holding.recv().unwrap();
            self.tell();
            drop(self.lock.lock().unwrap());
        });
    }

    fn tell(&self) {
        // Nobody listens to calls after the test.
        let _ = self.report.lock().unwrap().send(());
    }

    pub(super) fn release(&self) {
        *self.released.lock().unwrap() = true;
        self.release.notify_all();
    }
}

impl Drop for Act {
    fn drop(&mut self) {
        self.release();
    }
}

fn ask_the_hub(server: &Server) {
    let io = server.of("/").unwrap();
    let _ = io.room_len("room");
    for socket in io.sockets() {
        let _ = socket.rooms();
    }
}

/// Every method that may be called inside a handler; shutting down has a test of its own.
fn call_everything(server: &Server, socket: Option<&Socket>) {
    const MOMENT: Duration = Duration::from_millis(5);
    let _ = (server.local_addr(), server.clients_count(), server.connections_count(), server.parked_count());
    let _ = (server.store_watch().status(), server.memory_bound());
    let _ = server.emit("unheard", 1);
    let _ = server.to("room").unwrap().emit("unheard", 1);
    call_everything_of(&server.of("/").unwrap());
    let Some(socket) = socket else { return };
    let _ = (socket.id(), socket.handshake().peer(), socket.auth(), socket.transport(), socket.recovered());
    let _ = (socket.is_connected(), socket.backlog(), socket.auth_as::<serde_json::Value>());
    let _ = socket.emit("unheard", 1);
    let _ = socket.emit_volatile("unheard", 1);
    let _ = socket.emit_timeout("unheard", 1, MOMENT);
    let _ = socket.emit_with_ack("unheard", 1, MOMENT);
    let _ = socket.emit_with_callback("unheard", 1, MOMENT, |_, _| {});
    socket.join("another");
    let _ = socket.rooms();
    socket.leave("another");
    let _ = socket.broadcast().emit("unheard", 1);
    let _ = socket.to("room").emit("unheard", 1);
    socket.set_data(7_u8);
    let _ = socket.data::<u8>();
    call_everything_of(socket.namespace());
    socket.disconnect(false);
    socket.disconnect(true);
}

fn call_everything_of(io: &Namespace) {
    let nobody = || io.to("nobody");
    let _ = (io.name(), io.of("/"), io.len(), io.is_empty(), io.sockets(), io.room_len("room"));
    let _ = io.emit("unheard", 1);
    let _ = io.except("room").volatile().emit("unheard", 1);
    let _ = io.volatile().emit("unheard", 1);
    let _ = nobody().emit_with_ack("unheard", 1, Duration::from_millis(5));
    let _ = nobody().sockets();
    nobody().sockets_join("room");
    nobody().sockets_leave("room");
    nobody().disconnect_sockets(true);
}

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Log;

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }
    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            LOG.lock().unwrap().push(record.args().to_string());
        }
    }
    fn flush(&self) {}
}

fn watch_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Log).expect("nobody else logs in this test program");
        log::set_max_level(log::LevelFilter::Warn);
    });
}

/// Whether a line of the log has this, and all of these.
pub(super) fn is_logged(what: &str, parts: &[String]) -> bool {
    let log = LOG.lock().unwrap();
    log.iter().any(|line| line.contains(what) && parts.iter().all(|part| line.contains(part)))
}
