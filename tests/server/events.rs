//! Events both ways: typed and raw arguments, binary, catch-all handlers, data of a socket, panics.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    mpsc,
};

use Transport::{Polling, Upgrade, WebSocket};
use rstest::rstest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tinysio::{
    Bytes,
    proto::CloseReason,
    server::{EmitError, Server, StartError},
};

use crate::support::{Client, Frame, Transport, addr, eventually, next, serve, serve_root};

#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Point {
    x: i32,
    name: Option<String>,
}

#[rstest]
fn arguments_are_typed_or_raw(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve_root(|ns| {
        ns.on("typed", |socket, event| {
            let (point, rest): (Point, Option<String>) = event.parse().unwrap();
            assert_eq!(event.arg::<Point>(0).unwrap(), point);
            socket.emit("typed", &(point, rest.is_none(), event.args().len()))
        });
        ns.on("raw", |socket, event| {
            let raw = event.raw(0).unwrap();
            assert!(event.raw(1).is_none() && event.arg::<u8>(0).is_err());
            socket.emit("raw", (raw, raw.json().len()))
        });
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send(r#"42["typed",{"x":-1,"name":"ü\n\u2028"}]"#);
    client.expect("42[\"typed\",{\"x\":-1,\"name\":\"ü\\n\u{2028}\"},true,1]");
    client.send(r#"42["raw",{"b" : [1.50, true]}]"#);
    client.expect(r#"42["raw",{"b" : [1.50, true]},20]"#);
}

#[rstest]
fn arguments_of_every_shape_are_sent(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve_root(|_| {});
    let mut client = Client::connected(addr(&server), transport);
    let io = server.of("/").unwrap();
    io.emit("none", ()).unwrap();
    io.emit("one", "text").unwrap();
    io.emit("two", (1, "b")).unwrap();
    io.emit("list", vec![1, 2]).unwrap();
    client.expect(r#"42["none"]"#);
    client.expect(r#"42["one","text"]"#);
    client.expect(r#"42["two",1,"b"]"#);
    client.expect(r#"42["list",[1,2]]"#);
    assert!(matches!(io.emit("disconnect", ()), Err(EmitError::Encode(_))), "a reserved name");
}

/// In every method that sends: a tuple spreads, an array and `null` are one argument.
#[rstest]
fn only_tuples_spread(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve_root(|ns| {
        ns.on("go", |socket, event| {
            socket.emit("floats", [1.0, 2.0, 3.0])?;
            socket.emit("null", Value::Null)?;
            socket.emit("null in an array", &[Value::Null])?;
            socket.emit("tuple", Box::new((1, [2])))?;
            socket.emit("again", event.args())?;
            event.ack([1, 2])
        });
        ns.on("ack null", |_, event| event.ack(Value::Null));
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send(r#"421["go",[1],null]"#);
    client.expect(r#"42["floats",[1.0,2.0,3.0]]"#);
    client.expect(r#"42["null",null]"#);
    client.expect(r#"42["null in an array",[null]]"#);
    client.expect(r#"42["tuple",1,[2]]"#);
    client.expect(r#"42["again",[1],null]"#);
    client.expect("431[[1,2]]");
    client.send(r#"422["ack null"]"#);
    client.expect("432[null]");
    let io = server.of("/").unwrap();
    io.emit("all", [[1, 2], [3, 4]]).unwrap();
    io.except("nobody").emit("all", ["one"]).unwrap();
    server.emit("all", Value::Null).unwrap();
    client.expect(r#"42["all",[[1,2],[3,4]]]"#);
    client.expect(r#"42["all",["one"]]"#);
    client.expect(r#"42["all",null]"#);
}

/// As Node: a number is the name of its digits, and half an emoji may be in a name.
#[rstest]
fn event_names_that_are_no_plain_text(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve_root(|ns| {
        ns.on("7", |_, event| event.ack(("seven", event.args().len())));
        ns.on(r"half \ud83d", |_, event| event.ack(("half", event.args().len())));
        ns.on_any(|socket, event| socket.emit("any", event.name()).unwrap());
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send(r#"421[7,1]"#);
    client.expect(r#"42["any","7"]"#);
    client.expect(r#"431["seven",1]"#);
    client.send(r#"422["half \ud83d",1,2]"#);
    client.expect(r#"42["any","half \\ud83d"]"#);
    client.expect(r#"432["half",2]"#);
    client.send(r#"423[-1.50]"#);
    client.expect(r#"42["any","-1.50"]"#);
}

const PLACEHOLDER: &str = r#"{"_placeholder":true,"num":0}"#;

/// As many lists around `inside`.
fn lists(levels: usize, inside: &str) -> String {
    format!("{}{inside}{}", "[".repeat(levels), "]".repeat(levels))
}

/// On the smallest stack that can be configured, what is taken is read, or the handler gets an error: of the one
/// call, not of the connection.
#[rstest]
fn deep_json_keeps_the_connection(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
    #[values(false, true)] bytes: bool,
    #[values(64, 65, 127, 128, 2_000)] depth: usize,
) {
    let server = serve(|builder| {
        builder.stack_size(384 << 10).namespace("/", |ns| {
            ns.on("deep", |socket, event| {
                let read = (event.arg::<Value>(0).is_ok(), event.parse::<(Value,)>().is_ok());
                let sent_on = socket.emit("on", event.args()).is_ok();
                event.ack((event.raw(0).unwrap().json().len(), read, sent_on))
            });
            ns.on("back", |_, event| event.ack(event.args()));
        })
    });
    let mut client = Client::connected(addr(&server), transport);
    let deep = if bytes { lists(depth - 1, PLACEHOLDER) } else { lists(depth, "") };
    let readable = depth <= if bytes { 64 } else { 127 };
    let is_sent_on = readable || !bytes;
    let (head, frames) = if bytes { ("451-", vec![Frame::Binary(b"x".to_vec())]) } else { ("42", vec![]) };
    let say = |client: &mut Client, event: &str| {
        let text = Frame::text(&format!("{head}{event},{deep}]"));
        client.send_burst(&[vec![text], frames.clone()].concat());
    };
    say(&mut client, r#"1["deep""#);
    if is_sent_on {
        client.expect(&format!(r#"{head}["on",{deep}]"#));
        if bytes {
            client.expect_binary(b"x");
        }
    }
    client.expect(&format!("431[{},[{readable},{readable}],{is_sent_on}]", deep.len()));
    say(&mut client, r#"2["back""#);
    if is_sent_on {
        let head = if bytes { "461-" } else { "43" };
        client.expect(&format!("{head}2[{deep}]"));
        if bytes {
            client.expect_binary(b"x");
        }
    }
    client.send(r#"423["back","still here"]"#);
    client.expect(r#"433["still here"]"#);
}

/// One limit, whatever the packet is, with bytes and without.
#[rstest]
#[case::event(r#"42["deep",[[["x"]]]]"#, r#"42["deep",[[[[]]]]]"#, false)]
#[case::event_with_bytes(
    r#"451-["deep",[[{"_placeholder":true,"num":0}]]]"#,
    r#"451-["deep",[[[{"_placeholder":true,"num":0}]]]]"#,
    true
)]
#[case::bytes_beside(
    r#"451-["deep",{"_placeholder":true,"num":0},[[[]]]]"#,
    r#"451-["deep",{"_placeholder":true,"num":0},[[[[]]]]]"#,
    true
)]
#[case::ack("430[[[[]]]]", "430[[[[[]]]]]", false)]
#[case::connect(r#"40/other,{"a":{"b":[]}}"#, r#"40/another,{"a":{"b":[[]]}}"#, false)]
fn deeper_json_than_max_depth_is_a_parse_error(
    #[case] taken: &str,
    #[case] refused: &str,
    #[case] bytes: bool,
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let (report, reports) = mpsc::channel();
    let server = serve(|builder| {
        builder.max_depth(3).namespace("/other", |_| {}).namespace("/another", |_| {}).namespace("/", |ns| {
            ns.on("deep", |_, _| {});
            ns.on("alive", |_, event| event.ack(()));
            ns.on_disconnect(move |_, reason| report.send(reason).unwrap());
        })
    });
    let mut client = Client::connected(addr(&server), transport);
    let text = |text: &str| Frame::text(text);
    let attachments = if bytes { vec![Frame::Binary(b"x".to_vec())] } else { vec![] };
    client.send_burst(&[vec![text(taken)], attachments, vec![text(r#"429["alive"]"#)]].concat());
    if taken.starts_with("40") {
        assert!(client.text("the consent").starts_with("40/other,"));
    }
    client.expect("439[]");
    client.send(refused);
    assert_eq!(next(&reports, "the end"), CloseReason::ParseError);
    client.closed("the session");
}

#[derive(Debug, Serialize, Deserialize)]
struct Picture {
    title: String,
    parts: Vec<Bytes>,
}

#[rstest]
fn binary_goes_both_ways(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve_root(|ns| {
        ns.on("picture", |socket, event| {
            let (mut picture, last): (Picture, Bytes) = event.parse().unwrap();
            picture.parts.push(last);
            picture.parts.reverse();
            socket.emit("back", (&picture, "end"))?;
            event.ack(&picture.parts[0])
        });
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send_burst(&[
        Frame::text(concat!(
            r#"453-9["picture",{"title":"t","parts":[{"_placeholder":true,"num":0},"#,
            r#"{"_placeholder":true,"num":1}]},{"_placeholder":true,"num":2}]"#
        )),
        Frame::Binary(vec![]),
        Frame::Binary(vec![0, 255, 30]),
        Frame::Binary(vec![7; 70_000]),
    ]);
    client.expect(concat!(
        r#"453-["back",{"title":"t","parts":[{"_placeholder":true,"num":0},"#,
        r#"{"_placeholder":true,"num":1},{"_placeholder":true,"num":2}]},"end"]"#
    ));
    client.expect_binary(&[7; 70_000]);
    client.expect_binary(&[0, 255, 30]);
    client.expect_binary(&[]);
    client.expect(r#"461-9[{"_placeholder":true,"num":0}]"#);
    client.expect_binary(&[7; 70_000]);
}

#[rstest]
fn binary_packets_of_many_threads_do_not_mix(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    const EACH: usize = 40;
    let server = serve_root(|_| {});
    let mut client = Client::connected(addr(&server), transport);
    let io = server.of("/").unwrap();
    let socket = io.sockets().pop().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (io, socket) = (&io, &socket);
            scope.spawn(move || {
                for round in 0..EACH {
                    let parts = (Bytes::from(vec![thread; 3000]), Bytes::from(vec![thread; 2]));
                    // By the hub and past it.
                    if round % 2 == 0 {
                        io.emit("b", &parts).unwrap();
                    } else {
                        socket.emit("b", &parts).unwrap();
                    }
                }
            });
        }
        for _ in 0..4 * EACH {
            client.expect(r#"452-["b",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#);
            let Frame::Binary(large) = client.next("the large part") else { panic!("no binary") };
            client.expect_binary(&large[..2]);
        }
    });
}

#[rstest]
fn catch_all_handlers_see_what_they_should(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let (report, reports) = mpsc::channel();
    let (any, unhandled) = (report.clone(), report.clone());
    let server = serve_root(|ns| {
        ns.on_any(move |_, event| any.send(("any", event.name().to_owned())).unwrap());
        ns.on("known", move |_, event| report.send(("known", event.name().to_owned())).unwrap());
        ns.on_unhandled(move |_, event| unhandled.send(("unhandled", event.name().to_owned())).unwrap());
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send_texts(&[r#"42["known"]"#, r#"42["error","x"]"#, r#"42["__proto__"]"#]);
    let seen: Vec<_> = (0..6).map(|_| next(&reports, "a handler")).collect();
    let seen: Vec<_> = seen.iter().map(|(who, what)| (*who, &**what)).collect();
    assert_eq!(
        seen,
        [
            ("any", "known"),
            ("known", "known"),
            ("any", "error"),
            ("unhandled", "error"),
            ("any", "__proto__"),
            ("unhandled", "__proto__"),
        ]
    );
}

#[rstest]
fn a_socket_keeps_data(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve_root(|ns| {
        ns.on_connect(|socket| socket.set_data(Mutex::new(0u32)));
        ns.on("count", |socket, event| {
            let data = socket.data::<Mutex<u32>>().unwrap();
            *data.lock().unwrap() += 1;
            assert!(socket.data::<String>().is_none());
            event.ack(*data.lock().unwrap())
        });
    });
    let mut clients =
        [Client::connected(addr(&server), transport), Client::connected(addr(&server), transport)];
    for round in 1..4 {
        for client in &mut clients {
            client.send(r#"420["count"]"#);
            client.expect(&format!("430[{round}]"));
        }
    }
}

#[rstest]
fn a_panic_in_a_handler_costs_that_event(#[values(Polling, WebSocket, Upgrade)] transport: Transport) {
    let server = serve_root(|ns| {
        ns.on("bad", |_, _| -> Result<(), EmitError> { panic!("on purpose") });
        ns.on("failing", |_, _| Err("on purpose"));
        ns.on("good", |_, event| event.ack(()));
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send_texts(&[r#"421["good"]"#, r#"422["bad"]"#, r#"423["failing"]"#, r#"424["good"]"#]);
    client.expect("431[]");
    client.expect("434[]");
}

/// Notices when two handlers run at the same time.
#[derive(Default)]
struct Alone {
    running: AtomicBool,
    runs: AtomicUsize,
}

impl Alone {
    fn run(&self) {
        assert!(!self.running.swap(true, SeqCst), "two handlers of one client at the same time");
        std::thread::yield_now();
        self.running.store(false, SeqCst);
        self.runs.fetch_add(1, SeqCst);
    }
}

#[rstest]
fn handlers_of_one_client_never_run_at_the_same_time(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    const EVENTS: usize = 200;
    let (done, waits) = mpsc::channel();
    let alone = Arc::new(Alone::default());
    let (in_handler, in_end) = (Arc::clone(&alone), Arc::clone(&alone));
    let server = serve_root(|ns| {
        ns.on("work", move |socket, _| {
            in_handler.run();
            // Comes due on the hub's clock, while further events are read.
            let in_callback = Arc::clone(&in_handler);
            socket.emit_with_callback("ask", (), std::time::Duration::from_millis(1), move |_, _| {
                in_callback.run();
            })
        });
        ns.on_disconnect(move |_, _| {
            in_end.run();
            done.send(()).unwrap();
        });
    });
    let mut client = Client::connected(addr(&server), transport);
    for _ in 0..EVENTS / 20 {
        client.send_texts(&[r#"42["work"]"#; 20]);
    }
    // In the midst of it.
    eventually("half of the handlers ran", || alone.runs.load(SeqCst) > EVENTS / 2);
    server.of("/").unwrap().sockets()[0].disconnect(true);
    next(&waits, "the disconnect handler");
}

/// As in the official API: each `on` adds a handler.
#[rstest]
fn several_handlers_of_one_event_are_called_in_their_order(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let server = serve_root(|ns| {
        ns.on("x", |socket, event| {
            socket.emit("first", (event.name(), event.args().len(), event.wants_ack()))
        });
        ns.on("x", |_, event| assert!(event.args().len() > 9, "on purpose"));
        ns.on("x", |_, event| event.ack("third"));
        ns.on("x", |socket, event| {
            let unanswered = event.wants_ack() || event.take_ack().is_some();
            event.ack("not again")?;
            socket.emit("fourth", (event.arg::<Option<Bytes>>(0).unwrap(), unanswered))
        });
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send_burst(&[
        Frame::text(r#"451-7["x",{"_placeholder":true,"num":0}]"#),
        Frame::Binary(b"bytes".to_vec()),
    ]);
    client.expect(r#"42["first","x",1,true]"#);
    client.expect(r#"437["third"]"#);
    client.expect(r#"451-["fourth",{"_placeholder":true,"num":0},false]"#);
    client.expect_binary(b"bytes");
    client.send(r#"421["x"]"#);
    client.expect(r#"42["first","x",0,true]"#);
    client.expect(r#"431["third"]"#);
    client.expect(r#"42["fourth",null,false]"#);
}

#[rstest]
fn an_acknowledgement_that_one_handler_took_is_no_others(#[values(Polling, WebSocket)] transport: Transport) {
    let (give, taken) = mpsc::channel();
    let server = serve_root(|ns| {
        ns.on("x", move |_, event| give.send(event.take_ack().expect("nobody had it before")).unwrap());
        ns.on("x", |_, event| assert!(event.take_ack().is_none() && event.ack("now").is_ok()));
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send(r#"421["x"]"#);
    next(&taken, "the acknowledgement").send("later").unwrap();
    client.expect(r#"431["later"]"#);
}

#[rstest]
fn several_handlers_of_everything_are_called_in_their_order(
    #[values(Polling, WebSocket, Upgrade)] transport: Transport,
) {
    let (report, reports) = mpsc::channel();
    let server = serve(|builder| {
        let builder = builder.event_rate(tinysio::server::Rate { per_second: 1, burst: 1 });
        builder.namespace("/", |ns| {
            for n in [1, 2] {
                ns.on_connect(move |socket| socket.emit("connected", n));
                ns.on_any(move |socket, _| socket.emit("any", n).unwrap());
                ns.on_unhandled(move |socket, _| socket.emit("unhandled", n));
                ns.on_rate_limited(move |socket, _| socket.emit("slower", n));
                let (leaving, left) = (report.clone(), report.clone());
                ns.on_disconnecting(move |_, _| leaving.send(("leaving", n)).unwrap());
                ns.on_disconnect(move |_, _| left.send(("left", n)).unwrap());
            }
        })
    });
    let mut client = Client::connected(addr(&server), transport);
    client.send_texts(&[r#"42["x"]"#, r#"42["y"]"#]);
    for (event, n) in
        ["connected", "any", "unhandled", "slower"].iter().flat_map(|event| [(event, 1), (event, 2)])
    {
        client.expect(&format!(r#"42["{event}",{n}]"#));
    }
    client.leave();
    let told: Vec<_> = (0..4).map(|_| next(&reports, "a close handler")).collect();
    assert_eq!(told, [("leaving", 1), ("leaving", 2), ("left", 1), ("left", 2)]);
}

/// A handler that would never be called is a mistake, and is named before anybody connects.
#[rstest]
#[case("connect", "use on_connect")]
#[case("connection", "use on_connect")]
#[case("disconnect", "use on_disconnect")]
#[case("disconnecting", "use on_disconnecting")]
#[case("connect_error", "an event of clients")]
#[case("newListener", "reserved")]
#[case("removeListener", "reserved")]
fn a_handler_for_an_event_that_never_comes_is_refused_at_the_start(
    #[case] name: &str,
    #[case] way_out: &str,
) {
    let started = Server::builder()
        .namespace("/", |ns| {
            ns.on("x", |_, _| {});
        })
        .namespace("/admin", |ns| {
            ns.on(name, |_, _| {});
        })
        .listen("127.0.0.1:0");
    let Err(StartError::Config(sentence)) = started else { panic!("it started, or failed otherwise") };
    assert!(sentence.contains(&format!("{name:?}")) && sentence.contains("\"/admin\""), "{sentence}");
    assert!(sentence.contains(way_out), "{sentence}");
}
