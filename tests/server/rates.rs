//! Clients that send faster than they may.

use std::sync::mpsc;

use Road::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use tinysio::server::{Builder, Rate, Server};

use crate::support::{Client, Frame, Road, addr, all_gone, next, serve};

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
fn too_many_events_are_refused_and_then_the_client(#[values(Polling, WebSocket, Upgrade)] road: Road) {
    let (server, reports) = strict(|builder| builder.event_rate(FEW));
    let mut bystander = Client::connected(addr(&server), road);
    let mut client = Client::connected(addr(&server), road);
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
    bystander.send(r#"42["x"]"#);
    bystander.expect(r#"42["fine"]"#);
    bystander.leave();
    all_gone(&server);
}

#[rstest]
fn too_many_bytes_are_refused(#[values(Polling, WebSocket)] road: Road) {
    let (server, reports) = strict(|builder| builder.byte_rate(Rate { per_second: 1, burst: 50_000 }));
    let mut client = Client::connected(addr(&server), road);
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
fn connects_are_counted_too(#[values(Polling, WebSocket)] road: Road) {
    let (server, _reports) = strict(|builder| builder.event_rate(Rate { per_second: 1, burst: 1 }));
    let mut client = Client::new(addr(&server), road);
    client.send_texts(&["40", "40/other,"]);
    client.text("the consent");
    client.expect(r#"44/other,{"message":"Rate limit exceeded"}"#);
}

#[rstest]
fn without_a_handler_what_is_too_fast_is_dropped(#[values(Polling, WebSocket)] road: Road) {
    let server = serve(|builder| {
        builder.event_rate(Rate { per_second: 1, burst: 2 }).namespace("/", |ns| {
            ns.on("x", |_, event| event.ack(()));
        })
    });
    let mut client = Client::connected(addr(&server), road);
    client.send_burst(&vec![Frame::text(r#"421["x"]"#); 150]);
    let came = client.closed("the end");
    assert!(came.contains(&Frame::text("431[]")) && came.len() < 5, "{came:?}");
    all_gone(&server);
}
