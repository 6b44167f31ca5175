//! One thread serves all connections that are ready: a slow handler delays no other client, and nothing is lost when
//! another thread takes the lead.
//!
//! A handler is slow until the test opens its gate, a channel: `send` lets one handler go, `drop` lets all go.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread,
};

use Transport::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use tinysio::server::{NamespaceBuilder, Server, Socket};

use crate::support::{
    Client, Frame, PATIENCE, Transport, Ws, addr, in_time, next, serve_root, socket_target,
};

/// The clients of a test, with the slow ones. A thread takes 64 events from the kernel at once.
const CLIENTS: usize = 64;

/// What a slow handler does until its gate is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slow {
    Waits,
    /// It asks the hub again and again. Before each answer another thread may take the lead.
    AsksTheHub,
    /// It waits for the acknowledgement of another client, which answers when the gate is open.
    AsksAnother,
    /// While it waits, a thread waits for the acknowledgement of its own client.
    AsksItsOwn,
    /// It asks its own client. The callback waits.
    WaitsInACallback,
}

struct Gate {
    slow: Slow,
    begun: Mutex<Sender<()>>,
    closed: Mutex<Receiver<()>>,
}

impl Gate {
    fn begin(&self) {
        self.begun.lock().unwrap().send(()).unwrap();
    }

    fn wait(&self) {
        self.begin();
        let _ = self.closed.lock().unwrap().recv();
    }

    /// The handler of "slow". Its client hears "done" in the end, unless it has left.
    fn handle(self: &Arc<Self>, socket: &Socket) {
        match self.slow {
            Slow::Waits => self.wait(),
            Slow::AsksTheHub => {
                self.begin();
                while self.closed.lock().unwrap().try_recv() == Err(TryRecvError::Empty) {
                    assert!(socket.rooms().is_empty());
                }
            }
            Slow::AsksAnother => {
                let another = socket.namespace().to("answering").sockets().remove(0);
                self.begin();
                another.emit_with_ack("q", (), 2 * PATIENCE).unwrap();
            }
            Slow::AsksItsOwn => {
                let asking = socket.clone();
                let ask = move || {
                    asking.emit_with_ack("q", (), 2 * PATIENCE).unwrap();
                    let _ = asking.emit("done", ());
                };
                thread::Builder::new().spawn(ask).unwrap();
                return self.wait();
            }
            Slow::WaitsInACallback => {
                let gate = Arc::clone(self);
                let callback = move |socket: &Socket, _: Result<_, _>| {
                    gate.wait();
                    let _ = socket.emit("done", ());
                };
                return socket.emit_with_callback("q", (), 2 * PATIENCE, callback).unwrap();
            }
        }
        let _ = socket.emit("done", ());
    }
}

/// A server whose handler of "slow" is slow.
struct Scene {
    // Dropped first: when a test fails, the handlers return.
    gate: Option<Sender<()>>,
    begun: Receiver<()>,
    slow: Slow,
    /// The client that slow handlers ask.
    another: Option<Client>,
    server: Server,
}

impl Scene {
    fn new(slow: Slow, transport: Transport, set_up: impl FnOnce(&mut NamespaceBuilder)) -> Self {
        let ((begin, begun), (gate, closed)) = (channel(), channel());
        let handler = Arc::new(Gate { slow, begun: Mutex::new(begin), closed: Mutex::new(closed) });
        let server = serve_root(|ns| {
            ns.on("slow", move |socket, _| handler.handle(socket));
            ns.on("will answer", |socket, event| {
                socket.join("answering");
                event.ack(())
            });
            ns.on("echo", |_, event| event.ack(event.args()));
            set_up(ns);
        });
        let another = (slow == Slow::AsksAnother).then(|| {
            let mut another = Client::connected(addr(&server), transport);
            another.send(r#"420["will answer"]"#);
            another.expect("430[]");
            another
        });
        Self { gate: Some(gate), begun, slow, another, server }
    }

    fn clients(&self, transport: Transport, count: usize) -> Vec<Client> {
        (0..count).map(|_| Client::connected(addr(&self.server), transport)).collect()
    }

    /// The handler of this client begins, and is slow from now on.
    fn begin(&self, mut client: Client) -> SlowClient {
        client.begin(r#"42["slow"]"#);
        let mut answer = None;
        if matches!(self.slow, Slow::AsksItsOwn | Slow::WaitsInACallback) {
            answer = Some(answer_to(&client.text("a question")));
        }
        // On polling its POST is answered after the handler, and only then it may send another one.
        if self.slow == Slow::WaitsInACallback || !client.is_polling() {
            answer.take().into_iter().for_each(|answer| client.begin(&answer));
        }
        next(&self.begun, "a slow handler");
        SlowClient { client, answer }
    }

    /// Opens the gate for all handlers, of which this many have begun.
    fn open(&mut self, handlers: usize) {
        self.gate = None;
        if let Some(another) = &mut self.another {
            for _ in 0..handlers {
                let question = another.text("a question");
                another.send(&answer_to(&question));
            }
        }
    }
}

struct SlowClient {
    client: Client,
    /// Its answer to the server's question, if it was not sent yet.
    answer: Option<String>,
}

impl SlowClient {
    /// Its handler returns.
    fn end(mut self) -> Client {
        self.answer.into_iter().for_each(|answer| self.client.begin(&answer));
        self.client.expect(r#"42["done"]"#);
        self.client.end_post();
        self.client
    }
}

fn answer_to(question: &str) -> String {
    question.replacen("42", "43", 1).replace(r#""q""#, "")
}

/// All of them ask, and all are answered.
fn all_echo(clients: &mut [Client], round: usize) {
    for client in &mut *clients {
        client.begin(&format!(r#"42{round}["echo","here"]"#));
    }
    for client in clients {
        client.expect(&format!(r#"43{round}["here"]"#));
        client.end_post();
    }
}

#[rstest]
fn slow_handlers_delay_nobody_else(
    #[values(Slow::Waits, Slow::AsksTheHub, Slow::AsksAnother, Slow::AsksItsOwn, Slow::WaitsInACallback)]
    slow: Slow,
    #[values(1, 5)] at_once: usize,
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let mut scene = Scene::new(slow, transport, |_| {});
    let mut others = scene.clients(transport, CLIENTS);
    let slow: Vec<_> = others.drain(..at_once).map(|client| scene.begin(client)).collect();
    for round in 0..3 {
        all_echo(&mut others, round);
    }
    scene.open(at_once);
    // The threads that served them serve others again.
    others.extend(slow.into_iter().map(SlowClient::end));
    all_echo(&mut others, 3);
}

/// Each of them is slow once, amid the events of all: the lead changes at each place of the list of those that are
/// ready, and the thread that has lost it comes back in each round.
#[rstest]
fn the_lead_changes_while_all_have_events(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let scene = Scene::new(Slow::Waits, transport, |_| {});
    let mut clients = scene.clients(transport, CLIENTS);
    for round in 0..CLIENTS {
        for (number, client) in clients.iter_mut().enumerate() {
            let event =
                if number == round { r#"42["slow"]"#.into() } else { format!(r#"42{round}["echo"]"#) };
            client.begin(&event);
        }
        for (_, client) in clients.iter_mut().enumerate().filter(|(number, _)| *number != round) {
            client.expect(&format!("43{round}[]"));
            client.end_post();
        }
        scene.gate.as_ref().unwrap().send(()).unwrap();
        clients[round].expect(r#"42["done"]"#);
        clients[round].end_post();
    }
}

/// What happens to a client while its handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    /// Its next events are handled afterwards, in order. On polling a second POST would be an error.
    Says,
    /// It hears at once what is sent to it.
    Hears,
    /// Its disconnect handler runs afterwards.
    HangsUp,
    IsDisconnected,
}

#[rstest]
#[case::says(Meanwhile::Says, &[WebSocket, Upgrade])]
#[case::hears(Meanwhile::Hears, &[Polling, WebSocket, Upgrade])]
#[case::hangs_up(Meanwhile::HangsUp, &[WebSocket, Upgrade])]
#[case::is_disconnected(Meanwhile::IsDisconnected, &[Polling, WebSocket, Upgrade])]
fn a_client_whose_handler_runs_is_not_forgotten(
    #[case] meanwhile: Meanwhile,
    #[case] transports: &[Transport],
    #[values(1, 5)] at_once: usize,
) {
    for &transport in transports {
        let (report, reports) = channel();
        let mut scene = Scene::new(Slow::Waits, transport, |ns| {
            ns.on_disconnect(move |_, _| report.send(()).unwrap());
        });
        let mut others = scene.clients(transport, 4);
        let mut slow: Vec<_> =
            scene.clients(transport, at_once).into_iter().map(|client| scene.begin(client).client).collect();
        match meanwhile {
            Meanwhile::Says => {
                for client in &mut slow {
                    (0..3).for_each(|number| client.begin(&format!(r#"42{number}["echo"]"#)));
                }
            }
            Meanwhile::Hears => {
                scene.server.emit("news", ()).unwrap();
                slow.iter_mut().chain(&mut others).for_each(|client| client.expect(r#"42["news"]"#));
            }
            Meanwhile::HangsUp => slow.clear(),
            Meanwhile::IsDisconnected => {
                let io = scene.server.of("/").unwrap();
                io.except("nobody").disconnect_sockets(true);
                others.iter_mut().for_each(|client| drop(client.closed("the end")));
                others = scene.clients(transport, 4);
            }
        }
        all_echo(&mut others, 0);
        scene.open(at_once);
        match meanwhile {
            Meanwhile::Says => {
                for client in &mut slow {
                    client.expect(r#"42["done"]"#);
                    (0..3).for_each(|number| client.expect(&format!("43{number}[]")));
                }
            }
            Meanwhile::Hears => slow.iter_mut().for_each(|client| client.expect(r#"42["done"]"#)),
            Meanwhile::HangsUp => (0..at_once).for_each(|_| next(&reports, "the end of a client")),
            Meanwhile::IsDisconnected => {
                slow.iter_mut().for_each(|client| drop(client.closed("the end")));
                (0..at_once + 4).for_each(|_| next(&reports, "the end of a client"));
            }
        }
        all_echo(&mut others, 1);
    }
}

/// The stop begins when the first handler has, so while another thread takes the lead.
#[rstest]
fn a_stop_while_the_lead_changes_ends_all_threads(
    #[values(Slow::Waits, Slow::AsksTheHub)] slow: Slow,
    #[values(1, 5)] at_once: usize,
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    for _ in 0..5 {
        let scene = Scene::new(slow, transport, |_| {});
        let mut clients = scene.clients(transport, at_once + 4);
        for (number, client) in clients.iter_mut().enumerate() {
            client.begin(if number < at_once { r#"42["slow"]"# } else { r#"42["echo"]"# });
        }
        next(&scene.begun, "a slow handler");
        let Scene { server, gate, .. } = scene;
        let close = || clients.into_iter().for_each(|mut client| drop(client.closed("the end")));
        let closed = thread::Builder::new().spawn(close).unwrap();
        drop(gate);
        assert!(in_time("the stop", move || server.shutdown(PATIENCE)), "a thread is left");
        closed.join().unwrap();
    }
}

/// It sends as fast as the server reads, and asks for nothing.
#[rstest]
fn a_flood_of_one_client_delays_nobody_else(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let (report, reports) = channel();
    let scene = Scene::new(Slow::Waits, transport, |ns| {
        ns.on("flood", move |_, _| _ = report.send(()));
    });
    let mut quiet = scene.clients(transport, 16);
    let mut flood = Client::connected(addr(&scene.server), transport);
    let over = AtomicBool::new(false);
    let burst = vec![Frame::text(r#"42["flood"]"#); 1_000];
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                flood.send_burst(&burst);
            }
        });
        next(&reports, "the flood");
        let ends = Ends(&over);
        for round in 0..30 {
            all_echo(&mut quiet, round);
        }
        drop(ends);
    });
}

/// Its first frame opens a message, and each of the others continues it with nothing. The codec reads on until it has
/// a whole message.
#[rstest]
fn a_message_without_an_end_delays_nobody_else(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let scene = Scene::new(Slow::Waits, transport, |_| {});
    let mut quiet = scene.clients(transport, 16);
    let mut flood = Ws::open(addr(&scene.server), &socket_target("websocket", ""));
    let over = AtomicBool::new(false);
    flood.send_raw(&Ws::frame(0x01, b""));
    let continued = Ws::frame(0x00, b"").repeat(10_000);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                flood.send_raw(&continued);
            }
        });
        let ends = Ends(&over);
        for round in 0..30 {
            all_echo(&mut quiet, round);
        }
        drop(ends);
    });
}

/// Sets it when dropped, so also when a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
