//! Clients that come and go by every way at once, while everybody talks: nothing is left, and nobody waits for ever.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use rstest::rstest;

use crate::support::{Client, Transport, Ws, addr, all_gone, reset, serve};

#[rstest]
fn clients_come_and_go(#[values(1, 1024)] hub_queue: usize) {
    const THREADS: usize = 6;
    const EACH: usize = 40;
    let server = serve(|builder| {
        // Who goes without a word on polling is found out by the heartbeat.
        let builder = builder.ping_interval(Duration::from_millis(500)).ping_timeout(Duration::from_secs(2));
        builder.hub_queue(hub_queue).namespace("/", |ns| {
            ns.on_connect(|socket| {
                socket.join("room");
                socket.to("room").emit("came", ())
            });
            ns.on("echo", |_, event| event.ack(()));
            ns.on("close", |socket, _| socket.disconnect(true));
            ns.on("ask", |socket, _| {
                let soon = Duration::from_millis(1);
                socket.emit_with_callback("q", (), soon, |socket, _| socket.leave("room"))
            });
            ns.on_disconnect(|socket, _| {
                // Nobody hears of it any more, or everybody does.
                let _ = socket.to("room").emit("went", socket.rooms().len());
            });
        })
    });
    let io = server.of("/").unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let talkers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(SeqCst) {
                        io.to("room").emit("talk", "x").unwrap();
                        for socket in io.sockets() {
                            // It may be gone by now.
                            let _ = socket.emit("talk", "y");
                        }
                    }
                })
            })
            .collect();
        let clients: Vec<_> = (0..THREADS)
            .map(|thread| {
                let addr = addr(&server);
                scope.spawn(move || {
                    for n in 0..EACH {
                        come_and_go(addr, thread + n);
                    }
                })
            })
            .collect();
        let all_well = clients.into_iter().all(|client| client.join().is_ok());
        over.store(true, SeqCst);
        assert!(all_well && talkers.into_iter().all(|talker| talker.join().is_ok()));
    });
    all_gone(&server);
    assert_eq!((io.len(), io.room_len("room"), io.sockets().len()), (0, 0, 0));
}

fn come_and_go(addr: std::net::SocketAddr, n: usize) {
    let transport = [Transport::Polling, Transport::WebSocket, Transport::Upgrade][n % 3];
    let mut client = Client::new(addr, transport);
    client.send("40");
    until(&mut client, |text| text.starts_with("40"));
    client.send(r#"421["echo"]"#);
    until(&mut client, |text| text == "431[]");
    match n % 7 {
        0 => client.leave(),
        1 => drop(client),
        2 => {
            client.send(r#"42["close"]"#);
            client.closed("the close by the server");
        }
        3 => {
            client.send("42{}");
            client.closed("the close after a broken packet");
        }
        4 => {
            client.send(r#"42["ask"]"#);
            client.send("41");
            client.leave();
        }
        5 if !client.is_polling() => reset(client.into_ws().http.stream),
        5 => {
            client.ask();
            let mut ws = Ws::open(addr, &client.target("websocket"));
            ws.send("2probe");
            reset(ws.http.stream);
            client.end_poll();
            client.leave();
        }
        _ => {
            client.send(r#"42["ask"]"#);
            until(&mut client, |text| text.contains(r#"["q"]"#));
            client.send("1");
        }
    }
}

fn until(client: &mut Client, wanted: impl Fn(&str) -> bool) {
    while !wanted(&client.text("an answer among the talk")) {}
}
