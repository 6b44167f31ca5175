//! Our client and our server: nothing is lost and nothing handled twice, through cuts and through a restart.

use std::{
    sync::{Arc, Mutex, mpsc::channel},
    time::Duration,
};

use rstest::rstest;
use tinysio::{
    Bytes, Server,
    client::{OwnedArgs, TransportKind},
    server::{Durability, MemoryStore},
};

use crate::{
    recovery_official::Proxy,
    support::{LONG, Way, hear, quick, until},
};

/// A server whose memory is in `store`: puts everybody into the room `mine`, does each `job`, and answers it.
fn serve(address: &str, store: &MemoryStore, job: impl Fn(u32) + Clone + Send + Sync + 'static) -> Server {
    let mut server = None;
    until("the port", || {
        let work = job.clone();
        server = Server::builder()
            .store(store.clone(), Durability::EveryPacket)
            .namespace("/", move |ns| {
                ns.on_connect(|socket| socket.join("mine"));
                ns.on("job", move |_, event| {
                    let job = event.arg(0).unwrap();
                    work(job);
                    event.ack(job)
                });
            })
            .listen(address)
            .ok();
        server.is_some()
    });
    server.unwrap()
}

#[rstest]
fn what_was_missed_arrives_without_its_offset(
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let store = MemoryStore::new();
    let mut server = serve("127.0.0.1:0", &store, |_| ());
    let address = server.local_addr().unwrap();
    let proxy = Proxy::to(address.port());
    let client = way.set(quick(&proxy.url)).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("news");
    socket.on("news", move |_, event| {
        let bytes = event.args().attachments().first().cloned();
        let _ = said.send((event.args().len(), bytes.map_or_else(|| event.arg(0).unwrap(), |b| b[0].into())));
    });
    client.connect().unwrap();
    let id = socket.id().unwrap();
    for round in 0..4 {
        if way == Way::Upgrade {
            until("the upgrade", || client.status().transport == Some(TransportKind::Websocket));
        }
        proxy.cut();
        until("the loss", || !socket.is_connected());
        if round == 2 {
            // With everything in the store, as it is after each packet.
            drop(server);
            server = serve(&address.to_string(), &store, |_| ());
        }
        let to = server.of("/").unwrap();
        for n in 0..10_u8 {
            let sent = match n % 3 {
                0 => to.to("mine").emit("news", u32::from(n)),
                1 => to.emit("news", Bytes::copy_from_slice(&[n])),
                _ => to.to(&id).emit("news", u32::from(n)),
            };
            sent.unwrap();
            to.to("other").emit("news", 99).unwrap();
        }
        proxy.open();
        for n in 0..10 {
            assert_eq!(heard.next(), (1, n), "round {round}");
        }
        until("the reconnection", || socket.is_connected());
        assert!(socket.recovered(), "round {round}");
        assert_eq!(socket.id().as_ref(), Some(&id));
    }
}

#[rstest]
fn each_job_is_done_once(#[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way) {
    let (done, jobs) = hear("a job");
    let (go, gone) = channel();
    let gone = Arc::new(Mutex::new(gone));
    let server = serve("127.0.0.1:0", &MemoryStore::new(), move |job| {
        let _ = done.send(job);
        // One in three is still being done when the connection is cut.
        if job % 3 == 1 {
            let _: Result<(), _> = gone.lock().unwrap().recv_timeout(LONG);
        }
    });
    let address = server.local_addr().unwrap();
    let proxy = Proxy::to(address.port());
    let client = way.set(quick(&proxy.url)).retries(u32::MAX).build().unwrap();
    let socket = client.socket("/");
    client.connect().unwrap();
    let (said, answers) = hear("the answer");
    for job in 0..50_u32 {
        let said = said.clone();
        let answer = move |_: &_, answer: Result<OwnedArgs, _>| {
            let _ = said.send(answer.unwrap().get::<u32>(0).unwrap());
        };
        socket.emit_with_callback("job", job, 3 * LONG, answer).unwrap();
    }
    for job in 0..50 {
        assert_eq!(jobs.next(), job);
        if job % 3 > 0 {
            proxy.cut();
            proxy.open();
        }
        if job % 3 == 1 {
            go.send(()).unwrap();
        }
        assert_eq!(answers.next(), job);
    }
    assert_eq!(jobs.within(Duration::from_millis(50)), None, "done again");
    // Those that were cut while they were done, at the least, were sent again.
    assert!(client.stats().sent >= 50 + 50 / 3, "{:?}", client.stats());
}
