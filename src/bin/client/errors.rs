//! `client errors`: sends everything that the server must refuse, then puts it under load.

use std::{
    fmt,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tinysio::{
    Bytes,
    chat::{Limits, Refusal, events, limits},
};

use super::{
    demo::stage,
    flags::{Errors, Flags},
};
use crate::clients::{
    common::exit::Failure,
    figures::{Table, Times, milliseconds},
    request::Request,
    session::Session,
    stage::Stage,
};

const LIMITS: Limits = Limits::DEFAULT;

/// Input that the server must refuse.
struct Invalid {
    event: &'static str,
    data: Data,
    refusal: Refusal,
    /// Whether the answer quotes the input.
    quoted: bool,
}

/// The input.
enum Data {
    /// No argument.
    Nothing,
    Json(Value),
    Binary,
}

/// Checks the answers, then runs the load.
pub(crate) fn run(flags: &Flags, errors: &Errors) -> Result<ExitCode, Failure> {
    let stage = stage(flags)?;
    let session = quiet_session(flags, &stage)?;
    session.client().connect().map_err(|error| Failure::Failed(format!("Connection error: {error}")))?;
    stage.heading("Invalid input");
    let mut wrong = 0;
    let all = invalid_inputs();
    for invalid in &all {
        if stage.stop.is_set() {
            break;
        }
        match check(&session, invalid, flags.connection.timeout) {
            Ok(()) => stage.good(format!("refused as it should be: {invalid}")),
            Err(why) => {
                wrong += 1;
                stage.bad(format!("{invalid}: {why}"));
            }
        }
    }
    stage.plain(format!("{} of {} answered rightly", all.len() - wrong, all.len()));
    let alive = session.confirm(&Request::message("Still here after all errors"), flags.connection.timeout);
    match &alive {
        Ok(_) => stage.good("The connection has survived all of them"),
        Err(why) => stage.bad(format!("The connection has not survived them: {why}")),
    }
    session.leave();
    let held = stress(flags, errors, &stage)?;
    let good = wrong == 0 && alive.is_ok() && held && !stage.stop.is_set();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A session that prints nothing.
fn quiet_session(flags: &Flags, stage: &Stage) -> Result<Session, Failure> {
    let builder = flags.builder(&flags.url)?;
    Session::new(builder, &flags.url, flags.max_attempts(), &stage.stop, Box::new(|_| ()))
}

/// Sends the input and checks the answer.
fn check(session: &Session, invalid: &Invalid, timeout: Duration) -> Result<(), String> {
    let mark = session.mark();
    let sent = match &invalid.data {
        Data::Nothing => session.socket().emit(invalid.event, ()),
        Data::Json(value) => session.socket().emit(invalid.event, value),
        Data::Binary => session.socket().emit(invalid.event, Bytes::from_static(b"\0\x01\x02")),
    };
    sent.map_err(|error| error.to_string())?;
    let answer = session
        .expect(mark, timeout, |arrival| !comes_unasked(&arrival.event))
        .ok_or_else(|| "no answer".to_owned())?;
    let expected = invalid.refusal.to_string();
    let quoted = !answer.field("original_data").is_null();
    if answer.event != events::ERROR {
        return Err(format!("it was answered with {}", answer.event));
    }
    if !answer.says("message", &expected) {
        return Err(format!("the answer was {:?} and not {expected:?}", answer.text("message")));
    }
    let has_time = answer.field("timestamp").get::<f64>().is_some();
    if answer.field("error").get() != Some(true) || !has_time {
        return Err(format!("the answer is incomplete: {}", answer.value.words()));
    }
    match (quoted, invalid.quoted) {
        (true, false) => Err("the answer quotes the data".to_owned()),
        (false, true) => Err("the answer does not quote the data".to_owned()),
        _ => Ok(()),
    }
}

/// Whether an event with this name can come without a request.
fn comes_unasked(event: &str) -> bool {
    [events::MESSAGE, events::BROADCAST_MESSAGE, events::CLIENT_NOTIFICATION].contains(&event)
}

/// The error table of the chat, as far as a client can provoke the errors.
fn invalid_inputs() -> Vec<Invalid> {
    let mut all = messages_and_custom_events();
    all.extend(rooms());
    all.extend(room_messages());
    all
}

fn messages_and_custom_events() -> Vec<Invalid> {
    let long = "x".repeat(LIMITS.message + 1);
    let large = "x".repeat(LIMITS.custom_event - 1);
    let size = LIMITS.custom_event + 1;
    let message = |data| Invalid::new(events::MESSAGE, data, Refusal::InvalidMessage);
    let custom = |data, refusal| Invalid::new(events::CUSTOM_EVENT, data, refusal);
    vec![
        message(Data::Nothing),
        message(Data::Json(Value::Null)),
        Invalid::new(events::MESSAGE, long.into(), Refusal::MessageTooLong(LIMITS.message)),
        custom(Data::Nothing, Refusal::InvalidCustomEvent),
        custom(Data::Json(Value::Null), Refusal::InvalidCustomEvent),
        custom(large.into(), Refusal::CustomEventTooLarge(size)),
        custom(Data::Binary, Refusal::CustomEventNotSerializable),
    ]
}

fn rooms() -> Vec<Invalid> {
    let join = |data: Value, refusal| Invalid::new(events::JOIN_ROOM, Data::Json(data), refusal);
    let leave = |data: Value, refusal| Invalid::new(events::LEAVE_ROOM, Data::Json(data), refusal);
    let long = "r".repeat(LIMITS.room_name + 1);
    let mut all = vec![
        join(json!({}), Refusal::JoinWithoutRoom),
        join(json!({"rom": "x"}), Refusal::JoinWithoutRoom).quoted(),
        join(json!("lobby"), Refusal::JoinWithoutRoom).quoted(),
        join(json!(null), Refusal::JoinWithoutRoom),
        join(json!({"room": 42}), Refusal::RoomNotString),
        join(json!({"room": null}), Refusal::RoomNotString),
        join(json!({ "room": long }), Refusal::RoomNameTooLong(LIMITS.room_name)),
        join(json!({"room": "   "}), Refusal::RoomNameEmpty),
        leave(json!({}), Refusal::LeaveWithoutRoom),
        leave(json!(["lobby"]), Refusal::LeaveWithoutRoom).quoted(),
        leave(json!({"room": 42}), Refusal::InvalidRoom),
        leave(json!({"room": " "}), Refusal::InvalidRoom),
        leave(json!({"room": "a<b"}), Refusal::RoomNameForbidden),
    ];
    for name in ["<x>", "a\"b", "a'b", "a&b", "a\nb"] {
        all.push(join(json!({ "room": name }), Refusal::RoomNameForbidden));
    }
    all
}

fn room_messages() -> Vec<Invalid> {
    let send = |data: Value, refusal| Invalid::new(events::ROOM_MESSAGE, Data::Json(data), refusal);
    let long = "x".repeat(LIMITS.message + 1);
    vec![
        send(json!({}), Refusal::RoomMessageIncomplete),
        send(json!({"room": "x"}), Refusal::RoomMessageIncomplete).quoted(),
        send(json!({"message": "x"}), Refusal::RoomMessageIncomplete).quoted(),
        send(json!({"room": 42, "message": "x"}), Refusal::InvalidRoom),
        send(json!({"room": "", "message": "x"}), Refusal::InvalidRoom),
        send(json!({"room": "a>b", "message": "x"}), Refusal::RoomNameForbidden),
        send(json!({"room": "x", "message": 42}), Refusal::InvalidMessage),
        send(json!({"room": "x", "message": true}), Refusal::InvalidMessage),
        send(json!({"room": "x", "message": null}), Refusal::InvalidMessage),
        send(json!({"room": "x", "message": long}), Refusal::RoomMessageTooLong(LIMITS.message)),
        send(json!({"room": "nope", "message": "x"}), Refusal::NotInRoom("nope".into())),
    ]
}

impl Invalid {
    fn new(event: &'static str, data: Data, refusal: Refusal) -> Self {
        Self { event, data, refusal, quoted: false }
    }

    fn quoted(self) -> Self {
        Self { quoted: true, ..self }
    }
}

impl From<String> for Data {
    fn from(text: String) -> Self {
        Self::Json(text.into())
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = match &self.data {
            Data::Nothing => "without data".to_owned(),
            Data::Json(value) => value.to_string(),
            Data::Binary => "of bytes".to_owned(),
        };
        write!(f, "{} {}", self.event, tinysio::chat::Excerpt(&data, 50))
    }
}

/// Many clients that send at once, as fast as the chat allows.
fn stress(flags: &Flags, errors: &Errors, stage: &Stage) -> Result<bool, Failure> {
    let (clients, messages) = (errors.clients, errors.messages);
    stage.heading(&format!("Stress: {clients} clients × {messages} messages"));
    let sessions = (0..clients).map(|_| quiet_session(flags, stage)).collect::<Result<Vec<_>, _>>()?;
    let connected = sessions.iter().filter(|session| session.client().connect().is_ok()).count();
    stage.info(format!("{connected} of {clients} connected"));
    let begun = Instant::now();
    thread::scope(|scope| {
        for session in &sessions {
            scope.spawn(|| send_all(session, messages, flags.connection.timeout, stage));
        }
    });
    let took = begun.elapsed();
    let (mut sent, mut confirmed, mut failed, mut times) = (0, 0, 0, Times::default());
    for session in &sessions {
        let tally = session.tally();
        sent += tally.sent;
        confirmed += tally.confirmed;
        failed += tally.errors;
        times.extend(&tally.round_trips);
        session.leave();
    }
    let mut table = Table::new(&["sent", "confirmed", "errors", "took", "messages/s", "p50", "p99"]);
    table.row(vec![
        sent.to_string(),
        confirmed.to_string(),
        failed.to_string(),
        milliseconds(Some(took)),
        format!("{:.0}", confirmed as f64 / took.as_secs_f64()),
        milliseconds(times.percentile(50)),
        milliseconds(times.percentile(99)),
    ]);
    stage.plain(table.to_string());
    Ok(confirmed == u64::from(clients) * u64::from(messages) && failed == 0)
}

/// Sends within the chat's limits: a burst, then a constant rate.
fn send_all(session: &Session, messages: u32, timeout: Duration, stage: &Stage) {
    let mut pace = crate::clients::pace::Pace::new(limits::RATE);
    for number in 1..=messages {
        pace.wait(&stage.stop);
        if stage.stop.is_set() || !session.send(&Request::message(&format!("Stress message {number}"))) {
            return;
        }
    }
    session.settle(timeout);
}
