//! Values both ways: what spreads, what arrives as it came, and names that are no plain texts.

use rstest::rstest;
use serde_json::{Value, json};
use tinysio::{
    Bytes, RawValue,
    client::{CloseReason, Error},
    proto::socket::OwnedArgs,
};

use crate::{
    fake::Fake,
    support::{LONG, Way, hear, own_server, quick, url_of},
};

/// As the server does: a tuple spreads, an array and `null` are one argument, in events, answers and what is sent on.
#[rstest]
fn only_tuples_spread(#[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way) {
    let server = own_server("127.0.0.1:0");
    let client = way.set(quick(&url_of(&server))).build().unwrap();
    let socket = client.socket("/");
    client.connect().unwrap();
    let echoed = |args: &dyn Fn() -> Result<OwnedArgs, Error>| {
        let args = args().unwrap();
        args.args().iter().map(|arg| arg.json().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(echoed(&|| socket.emit_with_ack("echo", [1.0, 2.0], LONG)), ["[1.0,2.0]"]);
    assert_eq!(echoed(&|| socket.emit_with_ack("echo", Value::Null, LONG)), ["null"]);
    assert_eq!(echoed(&|| socket.emit_with_ack("echo", [()], LONG)), ["[null]"]);
    assert_eq!(echoed(&|| socket.emit_with_ack("echo", (), LONG)), [""; 0]);
    assert_eq!(echoed(&|| socket.emit_with_ack("echo", Box::new((1, [2])), LONG)), ["1", "[2]"]);
    let args = socket.emit_with_ack("echo", ([1], Bytes::from_static(b"b")), LONG).unwrap();
    assert_eq!(echoed(&|| socket.emit_with_ack("echo", &args, LONG)).len(), 2);

    let (said, heard) = hear("what was shouted");
    socket.on("shouted", move |_, event| said.send(event.args().to_owned()).unwrap());
    socket.emit("shout", [[1, 2]]).unwrap();
    assert_eq!(heard.next().args().parse::<(Value, Option<u8>)>().unwrap(), (json!([[1, 2]]), None));
}

#[test]
fn an_answer_spreads_only_tuples() {
    let fake = Fake::start();
    let client = quick(&fake.url).build().unwrap();
    client.socket("/").on("array", |_, event| event.ack([1, 2]));
    client.socket("/").on("null", |_, event| event.ack(Value::Null));
    client.socket("/").on("again", |_, event| event.ack(event.args()));
    client.start().unwrap();
    fake.joins(0, &json!({"sid": "x"}));
    fake.says(0, r#"421["array"]"#);
    assert_eq!(fake.hears().1, "431[[1,2]]");
    fake.says(0, r#"422["null"]"#);
    assert_eq!(fake.hears().1, "432[null]");
    fake.says(0, r#"423["again",[1],"\ud83d"]"#);
    assert_eq!(fake.hears().1, r#"433[[1],"\ud83d"]"#);
}

/// As the server does: one limit, whatever the packet is, with bytes and without; what is taken is read, or is an
/// error of that call.
#[rstest]
fn deep_json_keeps_the_connection(
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
    #[values(false, true)] bytes: bool,
    #[values(64, 65, 127, 128, 2_000)] depth: usize,
) {
    let server = own_server("127.0.0.1:0");
    let client = way.set(quick(&url_of(&server))).build().unwrap();
    let socket = client.socket("/");
    let (said, heard) = hear("what was shouted");
    socket.on("shouted", move |_, event| {
        let sizes = event.args().iter().map(|arg| arg.json().len()).collect::<Vec<_>>();
        said.send((sizes, event.arg::<Value>(0).is_ok())).unwrap();
    });
    client.connect().unwrap();
    let deep = RawValue::from_string(format!("{}{}", "[".repeat(depth), "]".repeat(depth))).unwrap();
    // Beside the bytes, so that the server can send it on.
    let mut args = OwnedArgs::default();
    args.push(&deep).unwrap();
    if bytes {
        args.push(&Bytes::from_static(b"b")).unwrap();
    }
    let answer = socket.emit_with_ack("echo", &args, LONG).unwrap();
    assert_eq!(answer.args().raw(0).unwrap().json(), deep.get());
    let readable = depth <= if bytes { 64 } else { 127 };
    assert_eq!(answer.get::<Value>(0).is_ok(), readable);
    socket.emit("shout", &args).unwrap();
    let (sizes, read) = heard.next();
    assert_eq!((sizes[0], read), (2 * depth, readable));
    assert!(socket.emit_with_ack("echo", "still here", LONG).is_ok());
}

#[rstest]
#[case::event(r#"42["deep",[[[["x"]]]]]"#)]
#[case::event_with_bytes(r#"451-["deep",[[[{"_placeholder":true,"num":0}]]]]"#)]
#[case::ack("431[[[[[]]]]]")]
#[case::connect(r#"40/other,{"sid":"y","a":{"b":[[]]}}"#)]
#[case::connect_error(r#"44/other,{"message":"no","data":{"b":[[]]}}"#)]
fn deeper_json_than_max_depth_is_a_parse_error(#[case] packet: &str) {
    let fake = Fake::start();
    let client = quick(&fake.url).max_depth(3).reconnection(false).build().unwrap();
    let (said, heard) = hear("the end");
    client.socket("/").on_disconnect(move |_, reason| said.send(reason).unwrap());
    let (said, taken) = hear("what is as deep as it may be");
    client.socket("/").on("deep", move |_, event| said.send(event.args().len()).unwrap());
    client.start().unwrap();
    fake.joins(0, &json!({"sid": "x"}));
    fake.says(0, r#"42["deep",[[[]]]]"#);
    assert_eq!(taken.next(), 1);
    fake.says(0, packet);
    assert_eq!(heard.next(), CloseReason::ParseError);
}

#[test]
fn a_depth_of_nothing_is_refused() {
    let error = quick("http://localhost").max_depth(0).build().err().unwrap();
    assert!(matches!(&error, Error::Invalid(text) if text.contains("max_depth")), "{error}");
}

/// As the official client: a number is a name, half an emoji may be in one, and an answer to nothing is ignored.
#[test]
fn names_that_are_no_plain_text() {
    let fake = Fake::start();
    let client = quick(&fake.url).build().unwrap();
    let (said, heard) = hear("an event");
    client.socket("/").on_any(move |_, event| {
        let argument = event.arg::<u8>(0).unwrap();
        said.send((event.name().to_owned(), argument)).unwrap();
    });
    client.start().unwrap();
    fake.joins(0, &json!({"sid": "x"}));
    fake.says(0, "42[7,1]");
    fake.says(0, r#"42["\ud83d",2]"#);
    fake.says(0, "43[]");
    fake.says(0, r#"461-[{"_placeholder":true,"num":0}]"#);
    fake.shows(0, b"x");
    fake.says(0, r#"42["after the answers to nothing",3]"#);
    assert_eq!(heard.next(), ("7".to_owned(), 1));
    assert_eq!(heard.next(), (r"\ud83d".to_owned(), 2));
    assert_eq!(heard.next(), ("after the answers to nothing".to_owned(), 3));
}
