//! Clients that send faster than they may.

use std::{sync::mpsc, time::Duration};

use Transport::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use tinysio::{
    proto::{CloseReason, engine::payload, socket::OwnedArgs},
    server::{AckError, Builder, Message, Rate, Server, Socket},
};

use crate::support::{Client, Frame, Http, PATIENCE, Transport, Ws, addr, all_gone, eventually, next, serve};

/// A server that answers `x`, and says `slower` to whoever is too fast.
fn strict(set_up: impl FnOnce(Builder) -> Builder) -> (Server, mpsc::Receiver<String>) {
    let (report, reports) = mpsc::channel();
    let server = serve(|builder| {
        set_up(builder).namespace("/other", |_| {}).namespace("/", |ns| {
            ns.on("x", |socket, _| socket.emit("fine", ()));
            ns.on_rate_limited(|socket, event| {
                socket.emit("slower", event.name())?;
                event.ack(())
            });
            ns.on_disconnect(move |_, reason| report.send(reason.to_string()).unwrap());
        })
    });
    (server, reports)
}

const FEW: Rate = Rate { per_second: 1, burst: 4 };

#[rstest]
fn too_many_events_are_refused_and_then_the_client(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let (server, reports) = strict(|builder| builder.event_rate(FEW));
    let mut control_client = Client::connected(addr(&server), transport);
    let mut client = Client::connected(addr(&server), transport);
    client.send_burst(&vec![Frame::text(r#"421["x"]"#); 300]);
    let came: Vec<String> = client
        .closed("the end")
        .into_iter()
        .map(|frame| if let Frame::Text(text) = frame { text } else { format!("{frame:?}") })
        .collect();
    let count = |text: &str| came.iter().filter(|came| *came == text).count();
    // A slow machine may earn itself one more.
    assert!((4..=6).contains(&count(r#"42["fine"]"#)), "{came:?}");
    assert_eq!((count(r#"42["slower","x"]"#), count("431[]")), (100, 100), "{came:?}");
    assert_eq!(came.last().map(String::as_str), Some("41"));
    assert_eq!(next(&reports, "the disconnect handler"), "rate limited");
    control_client.send(r#"42["x"]"#);
    control_client.expect(r#"42["fine"]"#);
    control_client.leave();
    all_gone(&server);
}

#[rstest]
fn too_many_bytes_are_refused(#[values(Polling, WebSocket)] transport: Transport) {
    let (server, reports) = strict(|builder| builder.byte_rate(Rate { per_second: 1, burst: 50_000 }));
    let mut client = Client::connected(addr(&server), transport);
    // More than the burst, with its attachment: on credit.
    client.send_burst(&[
        Frame::text(r#"451-["x",{"_placeholder":true,"num":0}]"#),
        Frame::Binary(vec![0; 60_000]),
    ]);
    client.expect(r#"42["fine"]"#);
    client.send(r#"42["x"]"#);
    client.expect(r#"42["slower","x"]"#);
    client.leave();
    assert_eq!(next(&reports, "the disconnect handler"), "transport close");
}

#[rstest]
fn connects_are_counted_too(#[values(Polling, WebSocket)] transport: Transport) {
    let (server, _reports) = strict(|builder| builder.event_rate(Rate { per_second: 1, burst: 1 }));
    let mut client = Client::new(addr(&server), transport);
    client.send_texts(&["40", "40/other,"]);
    client.text("the consent");
    client.expect(r#"44/other,{"message":"Rate limit exceeded"}"#);
}

#[rstest]
fn without_a_handler_what_is_too_fast_is_dropped(#[values(Polling, WebSocket)] transport: Transport) {
    let server = serve(|builder| {
        builder.event_rate(Rate { per_second: 1, burst: 2 }).namespace("/", |ns| {
            ns.on("x", |_, event| event.ack(()));
        })
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send_burst(&vec![Frame::text(r#"421["x"]"#); 150]);
    let came = client.closed("the end");
    assert!(came.contains(&Frame::text("431[]")) && came.len() < 5, "{came:?}");
    all_gone(&server);
}

/// Sends this so often, or until the server takes no more.
fn flood(client: &mut Client, at_most: usize, frame: &Frame) {
    for _ in 0..at_most / 10 {
        if client.is_polling() {
            // The session may be over by now.
            let mut body = payload::Builder::new();
            for _ in 0..10 {
                match frame {
                    Frame::Text(text) => body.push_text(text),
                    frame => panic!("{frame:?} is no packet of polling"),
                }
            }
            let response = Http::connect(client.addr).post(&client.target("polling"), &body.finish());
            if response.status != 200 {
                return;
            }
        } else {
            let bytes = match frame {
                Frame::Text(text) => Ws::frame(0x81, text.as_bytes()),
                Frame::Ping(bytes) => Ws::frame(0x89, bytes),
                Frame::Pong(bytes) => Ws::frame(0x8a, bytes),
                frame => panic!("{frame:?} is nothing to flood with"),
            };
            client.ws().send_raw(&bytes.repeat(10));
        }
    }
}

const SLOW: Rate = Rate { per_second: 1_000, burst: 1_000 };

/// Whatever a client sends counts, or that is the way around the limit.
#[rstest]
#[case::acknowledgements(format!(r#"4399["{}"]"#, "x".repeat(10_000)))]
#[case::pongs(format!("3{}", "x".repeat(10_000)))]
#[case::open_packets(format!("0{}", "x".repeat(10_000)))]
#[case::connects(format!(r#"40/nowhere,{{"x":"{}"}}"#, "x".repeat(10_000)))]
#[case::unhandled_events(format!(r#"42["nobody","{}"]"#, "x".repeat(10_000)))]
fn no_packet_goes_around_byte_rate(
    #[case] packet: String,
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let (server, reports) = strict(|builder| builder.byte_rate(SLOW));
    let mut client = Client::connected(addr(&server), transport);
    flood(&mut client, 1_000, &Frame::Text(packet));
    client.closed("the end of who sends ten megabytes");
    assert_eq!(next(&reports, "the disconnect handler"), "rate limited");
    all_gone(&server);
}

/// A client that has a debt for hours lives on, as long as it does nothing but answer pings.
#[rstest]
fn heartbeats_cost_nothing(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let (server, reports) = strict(|builder| {
        builder.byte_rate(Rate { per_second: 1, burst: 1 }).ping_interval(Duration::from_millis(5))
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send(&format!(r#"42["x","{}"]"#, "x".repeat(100_000)));
    client.text("the answer to an event on credit");
    for n in 0..150 {
        let mut ping = std::iter::repeat_with(|| client.next_raw(&format!("ping {n}")));
        assert_eq!(ping.find(|frame| *frame != Frame::text("6")), Some(Frame::text("2")));
        client.send("3");
    }
    assert!(reports.try_recv().is_err(), "it was disconnected");
    client.leave();
    assert_eq!(next(&reports, "the disconnect handler"), "transport close");
}

#[rstest]
#[case::pings(Frame::Ping(vec![b'x'; 125]))]
#[case::pongs(Frame::Pong(vec![b'x'; 125]))]
fn no_frame_goes_around_byte_rate(#[case] frame: Frame, #[values(WebSocket, Upgrade)] transport: Transport) {
    let (server, reports) = strict(|builder| builder.byte_rate(Rate { per_second: 10, burst: 1_000 }));
    let mut client = Client::connected(addr(&server), transport);
    flood(&mut client, 1_000, &frame);
    client.closed("the end of who sends frames");
    assert_eq!(next(&reports, "the disconnect handler"), "rate limited");
}

/// Where signs of life are taken without a thread, they are charged later.
#[rstest]
fn a_parked_client_does_not_go_around_byte_rate(#[values(true, false)] of_engine: bool) {
    let (server, reports) = strict(|builder| {
        builder.byte_rate(Rate { per_second: 10, burst: 1_000 }).park_after(Duration::from_millis(1))
    });
    let mut client = Client::connected(addr(&server), WebSocket);
    let frame = if of_engine { Ws::frame(0x81, &[b'3'; 100]) } else { Ws::frame(0x89, &[b'x'; 100]) };
    let ended = std::cell::OnceCell::new();
    eventually("it is disconnected", || {
        // One at a time, each when the connection is idle.
        if server.parked_count() > 0 {
            client.ws().send_raw(&frame);
        }
        reports.try_recv().is_ok_and(|reason| ended.set(reason).is_ok())
    });
    assert_eq!(ended.get().map(String::as_str), Some("rate limited"));
}

#[rstest]
fn acknowledgements_that_nobody_awaits_count_as_events(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let (server, reports) = strict(|builder| builder.event_rate(FEW));
    let mut client = Client::connected(addr(&server), transport);
    flood(&mut client, 300, &Frame::text("4399[]"));
    client.closed("the end of who answers nothing");
    assert_eq!(next(&reports, "the disconnect handler"), "rate limited");
}

/// How many questions there are is the server's doing.
#[rstest]
fn acknowledgements_that_are_awaited_cost_no_event(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let (server, _reports) = strict(|builder| builder.event_rate(Rate { per_second: 1, burst: 1 }));
    let mut client = Client::connected(addr(&server), transport);
    let socket = server.of("/").unwrap().sockets().pop().unwrap();
    let (answers, answered) = mpsc::channel();
    for _ in 0..200 {
        let answers = answers.clone();
        let report =
            move |_: &Socket, answer: Result<OwnedArgs, AckError>| answers.send(answer.is_ok()).unwrap();
        socket.emit_with_callback("q", (), PATIENCE, report).unwrap();
    }
    for _ in 0..200 {
        let question = client.text("a question");
        let id = question.strip_prefix("42").and_then(|rest| rest.strip_suffix(r#"["q"]"#)).unwrap();
        client.send(&format!("43{id}[]"));
    }
    for _ in 0..200 {
        assert!(next(&answered, "an answer"));
    }
    client.send(r#"42["x"]"#);
    client.expect(r#"42["fine"]"#);
}

/// A bare Engine.IO session has no events; its messages count.
#[rstest]
#[case::messages(|builder: Builder| builder.event_rate(FEW))]
#[case::bytes(|builder: Builder| builder.byte_rate(Rate { per_second: 1, burst: 10 }))]
fn a_bare_session_is_limited_too(
    #[case] limit: impl FnOnce(Builder) -> Builder,
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let (report, reports) = mpsc::channel();
    let server = serve(|builder| {
        limit(builder).engine("/engine.io/", |engine| {
            engine.on_message(|session, message: Message<'_>| drop(session.send(&message)));
            engine.on_close(move |_, reason| report.send(reason).unwrap());
        })
    });
    let mut client = Client::at(addr(&server), transport, "/engine.io/");
    flood(&mut client, 300, &Frame::text("4hello"));
    let came = client.closed("the end of who is too fast");
    assert!((1..=8).contains(&came.len()), "{came:?}");
    assert_eq!(next(&reports, "the close handler"), CloseReason::RateLimited);
}
