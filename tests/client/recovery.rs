//! Connection state recovery, and retries that a server can tell from new events, against a server by script.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
};

use rstest::rstest;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use tinysio::{
    Bytes,
    client::{Client, Delivery, Error, OwnedArgs, Socket, TransportKind},
};

use crate::{
    fake::Fake,
    support::{Heard, LONG, Way, hear, quick, until},
};

/// What a client's handlers tell: `connect`, `disconnect`, and each event with all that it has.
fn story(socket: &Socket) -> Heard<String> {
    let (said, heard) = hear("the next part of the story");
    let tell = said.clone();
    socket.on_connect(move |socket| {
        let _ = tell.send(if socket.recovered() { "recovered" } else { "connected" }.into());
    });
    let tell = said.clone();
    socket.on_disconnect(move |_, _| drop(tell.send("disconnected".into())));
    socket.on_any(move |_, event| {
        let args: Vec<_> = event.args().iter().map(|arg| arg.json().to_owned()).collect();
        assert_eq!(args.len(), event.args().len());
        let _ = said.send(format!("{}({})", event.name(), args.join(",")));
    });
    heard
}

#[track_caller]
fn hears(story: &Heard<String>, expected: &[&str]) {
    for part in expected {
        assert_eq!(story.next(), *part);
    }
}

/// A client of a fake, started.
fn client(fake: &Fake, way: Way) -> (Client, Socket, Heard<String>) {
    let client = way.set(quick(&fake.url)).build().unwrap();
    let socket = client.socket("/");
    let story = story(&socket);
    client.start().unwrap();
    (client, socket, story)
}

fn upgraded(client: &Client, way: Way) {
    if way == Way::Upgrade {
        until("the upgrade", || client.status().transport == Some(TransportKind::Websocket));
    }
}

#[rstest]
fn nothing_received_is_no_reason_not_to_recover(
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let fake = Fake::start();
    let (client, socket, story) = client(&fake, way);
    assert!(!socket.recovered());
    let welcome = json!({"sid": "a", "pid": "p", "offset": "AAAAAAAAAAA"});
    assert_eq!(fake.joins(0, &welcome), Value::Null);
    hears(&story, &["connected"]);
    for session in 0..3 {
        upgraded(&client, way);
        fake.cut(session);
        hears(&story, &["disconnected"]);
        // The answer's offset is behind what was missed, so it is not the client's yet, in however many sessions.
        let later = json!({"sid": "a", "pid": "p", "offset": "AAAAAAAAAA9"});
        assert_eq!(fake.joins(session + 1, &later), json!({"pid": "p", "offset": "AAAAAAAAAAA"}));
        hears(&story, &["recovered"]);
        assert_eq!((socket.recovered(), socket.id().as_deref()), (true, Some("a")));
    }
    fake.says(3, r#"42["missed",1,"AAAAAAAAAAB"]"#);
    hears(&story, &["missed(1)"]);
    fake.cut(3);
    hears(&story, &["disconnected"]);
    // The server has begun anew.
    let anew = json!({"sid": "b", "pid": "q", "offset": "AAAAAAAAAAC"});
    assert_eq!(fake.joins(4, &anew), json!({"pid": "p", "offset": "AAAAAAAAAAB"}));
    hears(&story, &["connected"]);
    assert!(!socket.recovered());
    fake.cut(4);
    assert_eq!(fake.joins(5, &json!({"sid": "c"})), json!({"pid": "q", "offset": "AAAAAAAAAAC"}));
    hears(&story, &["disconnected", "connected"]);
    // A server without recovery: nothing is remembered, and nothing sent.
    fake.cut(5);
    assert_eq!(fake.joins(6, &json!({"sid": "d"})), Value::Null);
}

#[rstest]
fn what_goes_into_the_payload(#[values(Way::Polling, Way::Websocket)] way: Way) {
    let fake = Fake::start();
    let client = way.set(quick(&fake.url)).auth(json!({"token": 7, "pid": "mine"})).build().unwrap();
    client.start().unwrap();
    let official = json!({"sid": "a", "pid": "p"});
    assert_eq!(fake.joins(0, &official), json!({"token": 7, "pid": "mine"}));
    fake.cut(0);
    // No offset is known. The user's own keys win, as in the official client.
    assert_eq!(fake.joins(1, &official), json!({"token": 7, "pid": "mine"}));
    fake.says(1, r#"42["e","o"]"#);
    until("the event", || client.stats().received == 1);
    fake.cut(1);
    assert_eq!(fake.joins(2, &official), json!({"token": 7, "pid": "mine", "offset": "o"}));
}

#[rstest]
fn what_was_left_on_purpose_is_offered_again_too(#[values(Way::Polling, Way::Websocket)] way: Way) {
    let fake = Fake::start();
    let (client, socket, story) = client(&fake, way);
    fake.joins(0, &json!({"sid": "a", "pid": "p"}));
    hears(&story, &["connected"]);
    client.disconnect();
    assert_eq!(fake.hears(), (0, "41".to_owned()));
    client.start().unwrap();
    // As the official client does; that server then begins anew.
    let session = loop {
        let (session, packet) = fake.hears();
        if packet == r#"40{"pid":"p"}"# {
            break session;
        }
        assert_eq!(packet, "1", "the end of the first session");
    };
    fake.says(session, r#"40{"sid":"b","pid":"q"}"#);
    hears(&story, &["disconnected", "connected"]);
    // Removed by the server.
    fake.says(session, "41");
    hears(&story, &["disconnected"]);
    socket.connect().unwrap();
    let packet = std::iter::repeat_with(|| fake.hears().1).find(|packet| packet.starts_with("40"));
    assert_eq!(packet.as_deref(), Some(r#"40{"pid":"q"}"#));
}

/// Events, and what their handlers see where the offset is no argument, and where it is one.
const EVENTS: [(&str, &str, &str); 8] = [
    (r#"42["none","AAAAAAAAAAB"]"#, "none()", r#"none("AAAAAAAAAAB")"#),
    (r#"42["one",1,"AAAAAAAAAAC"]"#, "one(1)", r#"one(1,"AAAAAAAAAAC")"#),
    (r#"42["six",1,2,3,4,5,6,"AAAAAAAAAAD"]"#, "six(1,2,3,4,5,6)", r#"six(1,2,3,4,5,6,"AAAAAAAAAAD")"#),
    (r#"42["text","a","AAAAAAAAAAE"]"#, r#"text("a")"#, r#"text("a","AAAAAAAAAAE")"#),
    // Asks for an acknowledgement: has no offset.
    (r#"427["asks","a"]"#, r#"asks("a")"#, r#"asks("a")"#),
    // A server's fault.
    (r#"42["odd","a",1]"#, r#"odd("a",1)"#, r#"odd("a",1)"#),
    (r#"42["bare"]"#, "bare()", "bare()"),
    (
        r#"451-["bytes",{"_placeholder":true,"num":0},"AAAAAAAAAAF"]"#,
        r#"bytes({"_placeholder":true,"num":0})"#,
        r#"bytes({"_placeholder":true,"num":0},"AAAAAAAAAAF")"#,
    ),
];

#[rstest]
fn the_offset_is_no_argument_where_the_server_says_so(
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
    #[values(false, true)] says_so: bool,
) {
    let fake = Fake::start();
    let (client, socket, story) = client(&fake, way);
    let (said, bytes) = hear("the attachment");
    socket.on("bytes", move |_, event| said.send(event.arg::<Bytes>(0).unwrap()).unwrap());
    socket.on("asks", |_, event| event.ack(event.args()));
    let welcome = if says_so {
        json!({"sid": "a", "pid": "p", "offset": "AAAAAAAAAAA"})
    } else {
        json!({"sid": "a", "pid": "p"})
    };
    fake.joins(0, &welcome);
    hears(&story, &["connected"]);
    upgraded(&client, way);
    for (packet, taken_off, left) in EVENTS {
        fake.says(0, packet);
        if packet.starts_with("45") {
            fake.shows(0, b"\x00\x01");
        }
        hears(&story, &[if says_so { taken_off } else { left }]);
    }
    assert_eq!(bytes.next(), Bytes::from_static(b"\x00\x01"));
    assert_eq!(fake.hears(), (0, r#"437["a"]"#.to_owned()));
    fake.cut(0);
    // Of the last event that had one; a binary one, here.
    assert_eq!(fake.joins(1, &welcome), json!({"pid": "p", "offset": "AAAAAAAAAAF"}));
}

/// A handler that waits for each event's turn.
fn slow(socket: &Socket) -> Sender<()> {
    let (go, gone): (_, Receiver<()>) = channel();
    let gone = Mutex::new(gone);
    socket.on("n", move |_, _| {
        let _ = gone.lock().unwrap().recv_timeout(LONG);
    });
    go
}

#[rstest]
fn what_waits_for_its_handler_is_neither_lost_nor_sent_again(
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let fake = Fake::start();
    let (client, socket, story) = client(&fake, way);
    let go = slow(&socket);
    let welcome = json!({"sid": "a", "pid": "p", "offset": "o"});
    fake.joins(0, &welcome);
    for n in 0..5 {
        fake.says(0, &format!(r#"42["n",{n},"o{n}"]"#));
    }
    until("all five", || client.stats().received == 5);
    fake.cut(0);
    assert_eq!(fake.joins(1, &welcome), json!({"pid": "p", "offset": "o4"}));
    for n in 5..8 {
        fake.says(1, &format!(r#"42["n",{n},"o{n}"]"#));
    }
    until("the others", || client.stats().received == 8);
    (0..8).for_each(|_| go.send(()).unwrap());
    hears(&story, &["connected", "n(0)", "n(1)", "n(2)", "n(3)", "n(4)", "disconnected", "recovered"]);
    hears(&story, &["n(5)", "n(6)", "n(7)"]);
}

#[rstest]
fn what_was_missed_may_come_ahead_of_the_answer(
    #[values(Way::Polling, Way::Websocket)] way: Way,
    #[values(1, 2, 3, 20)] missed: usize,
) {
    let fake = Fake::start();
    // Fewer may wait than come.
    let client = way.set(quick(&fake.url)).event_queue(3).build().unwrap();
    let socket = client.socket("/");
    let story = story(&socket);
    client.start().unwrap();
    let welcome = json!({"sid": "a", "pid": "p"});
    // Before there is anything to recover they are nobody's, as before.
    fake.expects_connect(0);
    fake.says(0, r#"42["early","x"]"#);
    fake.says(0, &format!("40{welcome}"));
    fake.says(0, r#"42["n","o"]"#);
    hears(&story, &["connected", r#"n("o")"#]);

    // Lost before the answer: unless there are so many of them that they cannot wait for it, they come again.
    fake.cut(0);
    assert_eq!(fake.expects_connect(1), json!({"pid": "p", "offset": "o"}));
    fake.says(1, r#"42["n","o0"]"#);
    until("the event", || client.stats().received == 2);
    fake.cut(1);
    assert_eq!(fake.expects_connect(2), json!({"pid": "p", "offset": "o"}));
    for n in 0..missed {
        fake.says(2, &format!(r#"42["n","o{n}"]"#));
    }
    fake.says(2, &format!("40{welcome}"));
    hears(&story, &["disconnected"]);
    for n in 0..missed {
        hears(&story, &[&format!(r#"n("o{n}")"#)]);
    }
    hears(&story, &["recovered"]);

    // Those of a session that does not go on are of no session.
    fake.cut(2);
    assert_eq!(fake.expects_connect(3), json!({"pid": "p", "offset": format!("o{}", missed - 1)}));
    fake.says(3, r#"42["n","late"]"#);
    fake.says(3, r#"40{"sid":"b","pid":"q"}"#);
    hears(&story, &["disconnected", "connected"]);
    fake.cut(3);
    assert_eq!(fake.expects_connect(4), json!({"pid": "q"}));
}

fn retrying(fake: &Fake, way: Way, retries: u32) -> Client {
    way.set(quick(&fake.url)).retries(retries).ack_timeout(LONG).build().unwrap()
}

type Answer = Result<OwnedArgs, Error>;

/// Emits with a callback that tells the answer.
fn ask(socket: &Socket, event: &str, args: impl Serialize, said: &Sender<Answer>) {
    let said = said.clone();
    socket.emit_with_callback(event, args, LONG, move |_, answer| said.send(answer).unwrap()).unwrap();
}

#[rstest]
fn a_retry_is_the_same_event_of_the_same_client(
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let fake = Fake::start();
    let client = retrying(&fake, way, 5);
    let socket = client.socket("/");
    let (said, answers) = hear("the acknowledgement");
    ask(&socket, "job", "a", &said);
    socket.emit("job", "b").unwrap();
    client.start().unwrap();
    let welcome = json!({"sid": "a"});
    let rid = fake.joins(0, &welcome)["rid"].as_str().unwrap().to_owned();
    assert!(rid.len() == 20 && rid.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)), "{rid}");
    for session in 0..3 {
        assert_eq!(fake.hears(), (session, r#"420["job","a"]"#.to_owned()));
        // Neither is the next one sent, nor has what is not in the queue an id.
        assert_eq!(socket.emit_volatile("now", ()).unwrap(), Delivery::Sent);
        assert_eq!(fake.hears(), (session, r#"42["now"]"#.to_owned()));
        upgraded(&client, way);
        fake.cut(session);
        assert_eq!(fake.joins(session + 1, &welcome), json!({ "rid": rid }));
    }
    // Answered in the fourth session, by a server that did it in the first.
    assert_eq!(fake.hears(), (3, r#"420["job","a"]"#.to_owned()));
    fake.says(3, r#"430["done"]"#);
    assert_eq!(answers.next().unwrap().get::<String>(0).unwrap(), "done");
    assert_eq!(fake.hears(), (3, r#"421["job","b"]"#.to_owned()));
    // An answer that has been given already is nobody's.
    fake.says(3, r#"430["again"]"#);
    fake.says(3, "431[]");
    ask(&socket, "job", "c", &said);
    assert_eq!(fake.hears(), (3, r#"422["job","c"]"#.to_owned()));
    fake.cut(3);
    // With a session that goes on, too.
    assert_eq!(fake.joins(4, &json!({"sid": "a", "pid": "p", "offset": "o"})), json!({ "rid": rid }));
    assert_eq!(fake.hears(), (4, r#"422["job","c"]"#.to_owned()));
    fake.cut(4);
    assert_eq!(fake.joins(5, &welcome), json!({"rid": rid, "pid": "p", "offset": "o"}));
    fake.says(5, "432[]");
    answers.next().unwrap();
    let other = retrying(&fake, way, 5);
    other.start().unwrap();
    let others = std::iter::repeat_with(|| fake.hears()).find(|(session, _)| *session == 6).unwrap();
    assert!(!others.1.contains(&rid), "{}", others.1);
}

#[rstest]
#[case::a_few(3, 4)]
#[case::without_end(u32::MAX, 12)]
fn sessions_lost_before_the_answer(
    #[case] retries: u32,
    #[case] lost: usize,
    #[values(Way::Polling, Way::Websocket)] way: Way,
) {
    let fake = Fake::start();
    let client = retrying(&fake, way, retries);
    let socket = client.socket("/");
    let (said, answers) = hear("the acknowledgement");
    ask(&socket, "job", (), &said);
    client.start().unwrap();
    for session in 0..lost {
        fake.joins(session, &json!({"sid": "a"}));
        assert_eq!(fake.hears(), (session, r#"420["job"]"#.to_owned()));
        fake.cut(session);
    }
    fake.joins(lost, &json!({"sid": "a"}));
    if retries == u32::MAX {
        assert_eq!(fake.hears(), (lost, r#"420["job"]"#.to_owned()));
        fake.says(lost, "430[]");
        answers.next().unwrap();
    } else {
        assert!(matches!(answers.next(), Err(Error::Disconnected(_))));
        assert_eq!(client.stats().dropped, 1);
    }
    assert_eq!(client.status().buffered, 0);
}

#[test]
fn a_session_that_joins_nothing_is_no_try() {
    let fake = Fake::start();
    let client = retrying(&fake, Way::Websocket, 1);
    let (said, answers) = hear("the acknowledgement");
    ask(&client.socket("/"), "job", (), &said);
    client.start().unwrap();
    for session in 0..5 {
        fake.expects_connect(session);
        fake.cut(session);
    }
    fake.joins(5, &json!({"sid": "a"}));
    assert_eq!(fake.hears(), (5, r#"420["job"]"#.to_owned()));
    fake.says(5, "430[]");
    answers.next().unwrap();
}

#[rstest]
fn an_event_too_large_for_this_server_does_not_hold_up_the_rest(
    #[values(Way::Polling, Way::Websocket)] way: Way,
) {
    let fake = Fake::with_max_payload(500);
    let client = retrying(&fake, way, u32::MAX);
    let socket = client.socket("/");
    let (said, answers) = hear("the end of it");
    ask(&socket, "job", "x".repeat(1_000), &said);
    ask(&socket, "job", "y".repeat(1_000), &said);
    socket.emit("job", "small").unwrap();
    client.start().unwrap();
    fake.joins(0, &json!({"sid": "a"}));
    assert_eq!(fake.hears(), (0, r#"422["job","small"]"#.to_owned()));
    for _ in 0..2 {
        assert!(matches!(answers.next(), Err(Error::TooLarge { max: 500, .. })));
    }
}

/// Emits another event while it is encoded, once: what a quicker thread would do.
struct Overtaken<'a>(&'a Socket, Cell<bool>);

impl Serialize for Overtaken<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.1.replace(true) {
            self.0.emit("quick", Bytes::from_static(b"\x01")).unwrap();
        }
        serializer.serialize_str("slow")
    }
}

#[test]
fn ids_count_up_in_the_order_of_the_queue() {
    let fake = Fake::start();
    let client = retrying(&fake, Way::Websocket, 5);
    let socket = client.socket("/");
    let answer = std::thread::scope(|scope| {
        client.start().unwrap();
        fake.joins(0, &json!({"sid": "a"}));
        let asked = std::thread::Builder::new()
            .spawn_scoped(scope, || socket.emit_with_ack("slow", Overtaken(&socket, Cell::new(false)), LONG))
            .unwrap();
        assert_eq!(fake.hears().1, r#"451-1["quick",{"_placeholder":true,"num":0}]"#);
        fake.says(0, "431[]");
        assert_eq!(fake.hears().1, r#"422["slow","slow"]"#);
        fake.says(0, r#"432["answered"]"#);
        asked.join().unwrap().unwrap()
    });
    assert_eq!(answer.get::<String>(0).unwrap(), "answered");

    let socket = Arc::new(socket);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let socket = socket.clone();
            let work = move || (0..100).for_each(|n| assert!(socket.emit("n", n).is_ok()));
            std::thread::Builder::new().spawn(work).unwrap()
        })
        .collect();
    let mut last = 2;
    for _ in 0..400 {
        let (_, packet) = fake.hears();
        let id = packet[2..packet.find('[').unwrap()].parse().unwrap();
        assert!(id > last, "{id} after {last}");
        last = id;
        fake.says(0, &format!("43{id}[]"));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    until("the end of the queue", || client.status().buffered == 0);
    assert!(client.stats().ack_rtt < Some(LONG));
}
