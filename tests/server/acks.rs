//! Acknowledgements both ways.

use std::{sync::mpsc, time::Duration};

use Transport::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use tinysio::{
    Bytes,
    server::{AckError, Server, Socket},
};

use crate::support::{Client, PATIENCE, Transport, addr, next, serve, serve_root};

const SOON: Duration = Duration::from_millis(20);

fn only_socket(server: &Server) -> Socket {
    let mut sockets = server.of("/").unwrap().sockets();
    assert_eq!(sockets.len(), 1);
    sockets.remove(0)
}

#[rstest]
fn the_client_gets_one_answer_at_once_later_or_from_another_thread(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let (later, deferred) = mpsc::channel();
    let server = serve_root(|ns| {
        ns.on("twice", |_, event| {
            assert!(event.wants_ack());
            event.ack("first")?;
            assert!(!event.wants_ack());
            event.ack("second")
        });
        ns.on("later", move |_, event| later.send(event.take_ack().unwrap()).unwrap());
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send_texts(&[r#"4218446744073709551615["twice"]"#, r#"420["later"]"#, r#"421["twice"]"#]);
    client.expect(r#"4318446744073709551615["first"]"#);
    client.expect(r#"431["first"]"#);
    next(&deferred, "the deferred acknowledgement").send(("late", 1)).unwrap();
    client.expect(r#"430["late",1]"#);
}

#[rstest]
fn the_server_waits_for_an_answer_on_another_thread(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let server = serve_root(|_| {});
    let mut client = Client::connected(addr(&server), transport);
    let socket = only_socket(&server);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| socket.emit_with_ack("add", (1, 2), PATIENCE));
        client.expect(r#"420["add",1,2]"#);
        // Ids that nobody waits for are ignored.
        client.send_texts(&["437[]", r#"430[3,"x"]"#, "430[4]"]);
        let answer = asked.join().unwrap().unwrap();
        assert_eq!(answer.args().parse::<(u8, String)>().unwrap(), (3, "x".into()));
        let asked = scope.spawn(|| socket.emit_with_ack("bytes", (), PATIENCE));
        client.expect(r#"421["bytes"]"#);
        client.send_burst(&[
            crate::support::Frame::text(r#"461-1[{"_placeholder":true,"num":0}]"#),
            crate::support::Frame::Binary(vec![1, 2]),
        ]);
        assert_eq!(asked.join().unwrap().unwrap().get::<Bytes>(0).unwrap(), [1u8, 2][..]);
    });
}

#[rstest]
fn the_callback_form_works_inside_a_handler_and_the_blocking_one_says_so(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let server = serve_root(|ns| {
        ns.on("ask me", |socket, _| {
            assert!(matches!(socket.emit_with_ack("q", (), PATIENCE), Err(AckError::WouldDeadlock)));
            socket.emit_with_callback("q", (), PATIENCE, |socket, answer| {
                let answer: u8 = answer.unwrap().get(0).unwrap();
                assert!(matches!(socket.emit_with_ack("q", (), PATIENCE), Err(AckError::WouldDeadlock)));
                socket.emit("you said", answer).unwrap();
            })
        });
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send(r#"42["ask me"]"#);
    client.expect(r#"420["q"]"#);
    client.send("430[5]");
    client.expect(r#"42["you said",5]"#);
}

/// The way out that it names is there, also for a broadcast.
#[rstest]
fn a_broadcast_inside_a_handler_asks_each_recipient(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let server = serve_root(|ns| {
        ns.on("ask all", |socket, _| {
            let everybody = socket.namespace().to(socket.id());
            let refused = everybody.clone().emit_with_ack("q", (), PATIENCE).unwrap_err();
            assert!(matches!(refused, AckError::WouldDeadlock));
            socket.emit("refused", refused.to_string()).unwrap();
            for socket in everybody.sockets() {
                let thank = |socket: &Socket, _: Result<_, AckError>| socket.emit("thanks", ()).unwrap();
                socket.emit_with_callback("q", (), PATIENCE, thank).unwrap();
            }
        });
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send(r#"42["ask all"]"#);
    assert!(client.text("the refusal").contains("Socket::emit_with_callback does not wait"));
    client.expect(r#"420["q"]"#);
    client.send("430[]");
    client.expect(r#"42["thanks"]"#);
}

#[rstest]
fn an_answer_that_does_not_come_is_a_timeout(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let (report, reports) = mpsc::channel();
    let server = serve_root(|_| {});
    let mut client = Client::connected(addr(&server), transport);
    let socket = only_socket(&server);
    assert!(matches!(socket.emit_with_ack("q", (), SOON), Err(AckError::Timeout)));
    let callback = move |_: &Socket, answer: Result<_, AckError>| report.send(answer).unwrap();
    socket.emit_with_callback("q", (), SOON, callback).unwrap();
    assert!(matches!(next(&reports, "the callback"), Err(AckError::Timeout)));
    client.expect(r#"420["q"]"#);
    client.expect(r#"421["q"]"#);
    // Too late: ignored.
    client.send_texts(&["430[]", "431[]"]);
    assert!(reports.recv().is_err(), "the callback is dropped when it has been called");
}

#[rstest]
fn a_disconnect_fails_what_is_awaited(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let (report, reports) = mpsc::channel();
    let server = serve_root(|_| {});
    let mut client = Client::connected(addr(&server), transport);
    let socket = only_socket(&server);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| socket.emit_with_ack("a", (), PATIENCE));
        client.expect(r#"420["a"]"#);
        let callback = move |_: &Socket, answer: Result<_, AckError>| report.send(answer).unwrap();
        socket.emit_with_callback("b", (), PATIENCE, callback).unwrap();
        client.expect(r#"421["b"]"#);
        client.leave();
        assert!(matches!(asked.join().unwrap(), Err(AckError::Disconnected)));
        assert!(matches!(next(&reports, "the callback"), Err(AckError::Disconnected)));
    });
    assert!(matches!(socket.emit_with_ack("c", (), PATIENCE), Err(AckError::Emit(_))));
}

#[test]
fn more_than_max_pending_acks_are_refused() {
    let server = serve(|builder| builder.max_pending_acks(2).namespace("/", |_| {}));
    let mut client = Client::connected(addr(&server), WebSocket);
    let socket = only_socket(&server);
    let ask = || socket.emit_with_callback("q", (), PATIENCE, |_, _| {});
    ask().unwrap();
    ask().unwrap();
    assert!(matches!(ask(), Err(AckError::TooMany)));
    client.expect(r#"420["q"]"#);
    client.expect(r#"421["q"]"#);
    client.send("431[]");
    crate::support::eventually("an answer makes room", || ask().is_ok());
}

#[rstest]
fn a_broadcast_collects_the_answers(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve_root(|_| {});
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connected(addr(&server), transport)).collect();
    std::thread::scope(|scope| {
        let io = server.of("/").unwrap();
        let asked = scope.spawn(move || io.to("nobody").to("").except("x").volatile().sockets().len());
        assert_eq!(asked.join().unwrap(), 0);
        let io = server.of("/").unwrap();
        let asked = scope.spawn(move || io.except("nobody").emit_with_ack("q", (), PATIENCE).unwrap());
        for (index, client) in clients.iter_mut().enumerate() {
            client.expect(r#"420["q"]"#);
            if index < 2 {
                client.send(&format!("430[{index}]"));
            } else {
                client.leave();
            }
        }
        let mut answers: Vec<Option<u8>> = asked
            .join()
            .unwrap()
            .into_iter()
            .map(|(_, answer)| answer.ok().map(|answer| answer.get(0).unwrap()))
            .collect();
        answers.sort();
        assert_eq!(answers, [None, Some(0), Some(1)]);
    });
}
