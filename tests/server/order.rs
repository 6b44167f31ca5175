//! Packets arrive in the order of the calls, whichever way each of them takes.

use std::sync::mpsc;

use Transport::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use tinysio::server::Server;

use crate::support::{Client, Http, Transport, addr, next, serve};

fn number(packet: &str) -> usize {
    let digits = packet.strip_prefix(r#"42["n","#).and_then(|rest| rest.strip_suffix(']'));
    digits.unwrap_or_else(|| panic!("{packet}")).parse().unwrap()
}

/// How many packets. Where the hub's queue has one place, each is a change of threads.
fn packets(hub_queue: usize) -> usize {
    if hub_queue == 1 { 300 } else { 3_000 }
}

/// One handler that emits by every way there is.
fn talkative(hub_queue: usize) -> Server {
    serve(|builder| {
        builder.hub_queue(hub_queue).namespace("/", |ns| {
            ns.on("talk", move |socket, event| {
                let io = socket.namespace();
                let other = io.except(socket.id()).sockets().pop().unwrap();
                for n in 0..packets(hub_queue) {
                    match n % 7 {
                        0 | 1 => socket.emit("n", n)?,
                        2 => io.emit("n", n)?,
                        3 => socket.to("room").emit("n", n)?,
                        4 => other.emit("n", n)?,
                        5 => io.to("room").to(socket.id()).emit("n", n)?,
                        _ => socket.broadcast().emit("n", n)?,
                    }
                }
                event.ack(())
            });
        })
    })
}

#[rstest]
fn of_one_handler(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    #[values(1, 1024)] hub_queue: usize,
) {
    let server = talkative(hub_queue);
    let mut speaker = Client::new(addr(&server), transport);
    speaker.join("/", "");
    let mut listener = Client::new(addr(&server), transport);
    let id = listener.join("/", "");
    server.to(&id).unwrap().sockets_join("room");
    speaker.send(r#"421["talk"]"#);
    for n in (0..packets(hub_queue)).filter(|n| matches!(n % 7, 0 | 1 | 2 | 5)) {
        assert_eq!(number(&speaker.text("the speaker's packets")), n);
    }
    speaker.expect("431[]");
    for n in (0..packets(hub_queue)).filter(|n| !matches!(n % 7, 0 | 1)) {
        assert_eq!(number(&listener.text("the listener's packets")), n);
    }
}

#[rstest]
fn of_several_threads(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    #[values(1, 1024)] hub_queue: usize,
) {
    const THREADS: usize = 4;
    let each = packets(hub_queue) / 3;
    let server = serve(|builder| builder.hub_queue(hub_queue).namespace("/", |_| {}));
    let mut client = Client::connected(addr(&server), transport);
    let io = server.of("/").unwrap();
    let socket = io.sockets().pop().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (io, socket) = (&io, &socket);
            scope.spawn(move || {
                for n in 0..each {
                    let n = thread * each + n;
                    if n.is_multiple_of(3) { io.emit("n", n).unwrap() } else { socket.emit("n", n).unwrap() }
                }
            });
        }
        let mut due: Vec<usize> = (0..THREADS).map(|thread| thread * each).collect();
        for _ in 0..THREADS * each {
            let n = number(&client.text("a packet of some thread"));
            assert_eq!(n, due[n / each]);
            due[n / each] += 1;
        }
    });
}

/// A polling client's POSTs may come on several connections, so its handlers run on several threads.
#[test]
fn of_two_handlers_on_two_threads() {
    const ROUNDS: usize = 100;
    let (report, reports) = mpsc::channel();
    let server = serve(|builder| {
        builder.namespace("/", |ns| {
            ns.on("by the hub", |socket, event| socket.namespace().emit("n", event.arg::<usize>(0).unwrap()));
            ns.on("at once", |socket, event| socket.emit("n", event.arg::<usize>(0).unwrap()));
            ns.on("flood", move |socket, _| {
                let payload = "x".repeat(1000);
                let io = socket.namespace();
                while !io.to("stop").sockets().is_empty() {
                    for _ in 0..200 {
                        io.to("crowd").emit("flood", &payload)?;
                    }
                    report.send(()).unwrap();
                }
                Ok::<_, tinysio::server::EmitError>(())
            });
        })
    });
    let io = server.of("/").unwrap();
    let mut client = Client::new(addr(&server), Polling);
    let id = client.join("/", "");
    // Somebody who keeps the hub busy.
    let mut flooder = Client::new(addr(&server), WebSocket);
    let flooder_id = flooder.join("/", "");
    io.to(&id).sockets_join("stop");
    let crowd: Vec<Client> = (0..4).map(|_| Client::connected(addr(&server), WebSocket)).collect();
    io.except(&id).except(&flooder_id).sockets_join("crowd");
    flooder.send(r#"42["flood"]"#);
    next(&reports, "the flood");
    let target = client.target("polling");
    let mut posts = [Http::connect(addr(&server)), Http::connect(addr(&server))];
    for round in 0..ROUNDS {
        posts[0].post(&target, &format!(r#"42["by the hub",{}]"#, 2 * round));
        posts[1].post(&target, &format!(r#"42["at once",{}]"#, 2 * round + 1));
    }
    for n in 0..2 * ROUNDS {
        assert_eq!(number(&client.text("the packets of both threads")), n);
    }
    io.to("stop").sockets_leave("stop");
    drop(crowd);
}
