//! Sending: what may be sent, what waits for it and for how long, and acknowledgements.

use std::{
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

use rstest::rstest;
use tinysio::client::{Client, Delivery, Error, Socket};

use crate::support::{LONG, Way, hear, own_server, prompt, quick, url_of};

#[test]
fn the_offline_buffer_has_bounds_and_an_end() {
    let server = own_server("127.0.0.1:0");
    let client = quick(&url_of(&server)).offline_buffer(3, 1_000).build().unwrap();
    let socket = client.socket("/");
    for n in 0..3 {
        assert_eq!(socket.emit("shout", n).unwrap(), Delivery::Buffered);
    }
    assert!(matches!(socket.emit("shout", 3), Err(Error::BufferFull { packets: 3, .. })));
    assert!(matches!(socket.emit_with_ack("echo", 3, LONG), Err(Error::BufferFull { .. })));
    assert_eq!(socket.emit_volatile("shout", 4).unwrap(), Delivery::Dropped);
    let (said, heard) = hear("what was buffered");
    socket.on("shouted", move |_, event| said.send(event.arg::<u32>(0).unwrap()).unwrap());
    client.connect().unwrap();
    assert_eq!([heard.next(), heard.next(), heard.next()], [0, 1, 2]);

    let client = quick(&url_of(&server)).offline_buffer(0, 0).build().unwrap();
    assert!(matches!(client.socket("/").emit("shout", ()), Err(Error::NotConnected)));

    let client = quick(&url_of(&server)).offline_ttl(Duration::from_millis(50)).build().unwrap();
    let socket = client.socket("/");
    socket.emit("shout", "old").unwrap();
    let (gave_up, given_up) = hear("the expiry");
    socket.emit_with_callback("echo", "old", LONG, move |_, answer| gave_up.send(answer).unwrap()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    socket.emit("shout", "new").unwrap();
    let (said, heard) = hear("what has not expired");
    socket.on("shouted", move |_, event| said.send(event.arg::<String>(0).unwrap()).unwrap());
    client.connect().unwrap();
    assert_eq!(heard.next(), "new");
    assert!(matches!(given_up.next(), Err(Error::Expired)));
}

#[test]
fn what_was_given_up_offline_is_not_delivered_later() {
    let server = own_server("127.0.0.1:0");
    let client = quick(&url_of(&server)).build().unwrap();
    let socket = client.socket("/");
    let timeout = Duration::from_millis(50);
    let answer = socket.emit_with_ack("shout", "a thread has given up", timeout);
    assert!(matches!(answer, Err(Error::Timeout { .. })));
    let (said, given_up) = hear("the callback");
    let callback = move |_: &Socket, answer: Result<_, Error>| said.send(answer.map(|_| ())).unwrap();
    socket.emit_with_callback("shout", "a callback has given up", timeout, callback).unwrap();
    assert!(matches!(given_up.next(), Err(Error::Timeout { .. })));
    assert_eq!((client.status().buffered, client.status().buffered_bytes), (0, 0));
    socket.emit("shout", "wanted").unwrap();
    let (said, heard) = hear("what was shouted");
    socket.on("shouted", move |_, event| said.send(event.arg::<String>(0).unwrap()).unwrap());
    client.connect().unwrap();
    assert_eq!(heard.next(), "wanted");
}

#[test]
fn the_send_queue_has_a_bound() {
    // Takes the WebSocket, joins, and then reads nothing more.
    let url = crate::hostile::deaf_websocket();
    let client = Way::Websocket.set(Client::builder(&url)).send_queue(20_000_000).build().unwrap();
    let socket = client.socket("/");
    client.connect().unwrap();
    // The system takes some megabytes by itself, and more of them later.
    let big = "x".repeat(900_000);
    let (mut sent, mut refused) = (0, 0);
    // Full because nobody reads, not because the writing has not come to it yet.
    let error = loop {
        match socket.emit("big", &big) {
            Ok(_) => (sent, refused) = (sent + 1, 0),
            Err(error) if refused == 50 => break error,
            Err(_) => refused += 1,
        }
        std::thread::sleep(Duration::from_millis(if refused > 0 { 10 } else { 0 }));
        assert!(sent < 100, "the queue has no end");
    };
    assert!(matches!(error, Error::QueueFull { bytes } if bytes <= 20_000_000), "{error}");
    assert_eq!(socket.emit_volatile("big", &big).unwrap(), Delivery::Dropped);
    // And a goodbye to somebody who does not listen is not waited for.
    let goodbye = prompt("disconnect", || client.disconnect_within(Duration::from_millis(300)));
    assert!(matches!(goodbye, Err(Error::Timeout { .. })), "{goodbye:?}");
    prompt("drop", || drop(client));
}

#[test]
fn names_of_the_protocol_and_of_nothing_are_refused() {
    let client = quick("http://127.0.0.1:1").build().unwrap();
    for name in ["connect", "disconnect", "connect_error", "disconnecting", "newListener", "removeListener"] {
        assert!(matches!(client.socket("/").emit(name, ()), Err(Error::ReservedEvent(_))));
    }
    // What no packet can carry, and what the official client takes for a query.
    for name in ["/a,b", "/a[b", "/a{b", "/a\"b", "/a?b", &format!("/{}", "a".repeat(256))] {
        let bad = client.socket(name);
        assert!(matches!(bad.emit("x", ()), Err(Error::Invalid(_))), "{name}");
        assert!(matches!(bad.connect(), Err(Error::Invalid(_))), "{name}");
    }
    assert!(matches!(client.connect(), Err(Error::Invalid(_))));
}

#[test]
fn an_acknowledgement_in_the_callback_of_another() {
    // rust_socketio deadlocks here.
    fn next(socket: &Socket, left: u32, said: Sender<()>) {
        if left == 0 {
            return said.send(()).unwrap();
        }
        let again = move |socket: &Socket, answer: Result<tinysio::client::OwnedArgs, Error>| {
            answer.unwrap();
            next(socket, left - 1, said);
        };
        socket.emit_with_callback("echo", left, LONG, again).unwrap();
    }
    let server = own_server("127.0.0.1:0");
    let client = tinysio::client::connect(&url_of(&server)).unwrap();
    let (said, heard) = hear("the innermost callback");
    next(&client.socket("/"), 100, said);
    heard.next();
}

#[test]
fn callbacks_time_out_in_their_order() {
    let server = own_server("127.0.0.1:0");
    let client = tinysio::client::connect(&url_of(&server)).unwrap();
    let (said, heard) = hear("the timeout");
    for ms in [300, 50, 150] {
        let said = said.clone();
        let late = move |_: &Socket, answer: Result<_, Error>| {
            assert!(matches!(answer, Err::<tinysio::client::OwnedArgs, _>(Error::Timeout { .. })));
            said.send(ms).unwrap();
        };
        client.socket("/").emit_with_callback("silent", (), Duration::from_millis(ms), late).unwrap();
    }
    assert_eq!([heard.next(), heard.next(), heard.next()], [50, 150, 300]);
    let begun = Instant::now();
    let answer = client.socket("/").emit_with_ack("silent", (), Duration::from_millis(50));
    assert!(matches!(answer, Err(Error::Timeout { .. })) && begun.elapsed() < Duration::from_secs(1));
}

#[rstest]
fn no_limit_is_no_trap(#[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way) {
    let server = own_server("127.0.0.1:0");
    let builder =
        way.set(quick(&url_of(&server))).offline_buffer(usize::MAX, usize::MAX).send_queue(usize::MAX);
    let client = builder.event_queue(usize::MAX).max_message(usize::MAX).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("what was shouted");
    socket.on("shouted", move |socket, event| {
        // Inside a handler the bounds grow.
        let answer = socket.emit_with_ack("echo", event.args(), LONG).unwrap();
        said.send(answer.get::<u32>(0).unwrap()).unwrap();
    });
    socket.emit("shout", 1).unwrap();
    client.connect().unwrap();
    socket.emit("shout", 2).unwrap();
    assert_eq!((heard.next(), heard.next()), (1, 2));
}
