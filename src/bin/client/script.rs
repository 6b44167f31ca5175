//! The forms for scripts: `emit`, `listen`, `health`.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use serde::{Serialize, Serializer, ser::SerializeTuple};
use serde_json::{Value, json};
use tinysio::{
    Bytes,
    chat::events,
    client::{Builder, Client, CloseReason, Delivery, Error, Event, Socket},
    proto::socket::Args,
};

use super::flags::{Emit, Flags, Listen};
use crate::clients::{
    common::{exit::Failure, visible::Visible},
    flags::read,
    line::text,
    stage::write_line,
    stop::Stop,
};

/// The server said no.
const REFUSED: u8 = 3;

/// The server said nothing.
const NO_ANSWER: u8 = 4;

/// An argument of an event.
#[derive(Debug, Clone, PartialEq)]
enum Argument {
    Json(Value),
    Binary(Bytes),
}

/// The arguments of an event; a tuple, so that each is one.
#[derive(Debug, Clone, PartialEq)]
struct Arguments(Vec<Argument>);

impl Serialize for Arguments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        for argument in &self.0 {
            match argument {
                Argument::Json(value) => tuple.serialize_element(value)?,
                Argument::Binary(bytes) => tuple.serialize_element(bytes)?,
            }
        }
        tuple.end()
    }
}

impl Emit {
    fn arguments(&self) -> Result<Arguments, Failure> {
        let mut all = self.args.iter().map(|text| argument(text)).collect::<Result<Vec<_>, _>>()?;
        if let (Some(room), events::ROOM_MESSAGE, [Argument::Json(message)]) =
            (&self.room, self.event.as_str(), all.as_mut_slice())
            && message.get("room").is_none()
        {
            *message = json!({ "room": room, "message": message.take() });
        }
        for path in &self.binary {
            all.push(Argument::Binary(bytes_of(path)?.into()));
        }
        Ok(Arguments(all))
    }
}

/// JSON, or a plain text that does not look like it.
fn argument(text: &str) -> Result<Argument, Failure> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(Argument::Json(value)),
        Err(error) if text.trim_start().starts_with(['{', '[', '"']) => {
            Err(Failure::Usage(format!("{text} is no JSON: {error}")))
        }
        Err(_) => Ok(Argument::Json(text.into())),
    }
}

fn bytes_of(path: &PathBuf) -> Result<Vec<u8>, Failure> {
    if path.as_os_str() != "-" {
        return read(path);
    }
    let mut bytes = Vec::new();
    io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Failed(format!("cannot read standard input: {error}")))?;
    Ok(bytes)
}

/// Emits one event.
pub(crate) fn emit(flags: &Flags, emit: &Emit) -> Result<ExitCode, Failure> {
    let arguments = emit.arguments()?;
    let client = build(flags.builder(&flags.url)?.reconnection(false))?;
    let socket = client.socket(client.namespace());
    let refusal = Arc::new(Mutex::new(None));
    let its = refusal.clone();
    socket.on(events::ERROR, move |_, event| {
        let said: Value = event.arg(0).unwrap_or_default();
        its.lock().get_or_insert(text(said.get("message").unwrap_or(&said)));
    });
    let (leaving, left) = bounded(1);
    socket.on_disconnect(move |_, _| {
        // There is room for the one that counts.
        let _ = leaving.try_send(());
    });
    if let Err(error) = emit_on(&client, &socket, flags, emit, &arguments) {
        return Ok(explain(&error));
    }
    // Handlers run in order: with this one, that of a refusal which came before has run too.
    let _ = left.recv_timeout(flags.connection.timeout);
    let refusal = refusal.lock().take();
    Ok(match refusal {
        Some(refusal) => {
            complain(&refusal);
            ExitCode::from(REFUSED)
        }
        None => ExitCode::SUCCESS,
    })
}

fn emit_on(
    client: &Client,
    socket: &Socket,
    flags: &Flags,
    emit: &Emit,
    arguments: &Arguments,
) -> Result<(), Error> {
    let timeout = flags.connection.timeout;
    client.connect()?;
    if let Some(room) = &emit.room {
        socket.emit_with_ack(events::JOIN_ROOM, json!({ "room": room }), timeout)?;
    }
    if emit.ack {
        let answer = socket.emit_with_ack(&emit.event, arguments, timeout)?;
        // Nobody may be reading.
        let _ = write_line(&Value::Array(values(&answer.args())).to_string());
    } else if socket.emit(&emit.event, arguments)? != Delivery::Sent {
        return Err(Error::NotConnected);
    }
    client.disconnect_within(timeout)
}

/// Says on standard error why something failed, and gives its exit code.
fn explain(error: &Error) -> ExitCode {
    complain(&error.to_string());
    match error {
        Error::Invalid(_) | Error::ReservedEvent(_) | Error::Encode(_) | Error::TooLarge { .. } => {
            ExitCode::from(2)
        }
        Error::Refused { .. } => ExitCode::from(REFUSED),
        Error::Timeout { what: "acknowledgement", .. } => ExitCode::from(NO_ANSWER),
        _ => ExitCode::FAILURE,
    }
}

fn complain(why: &str) {
    let _ = writeln!(io::stderr(), "{}", Visible(why));
}

fn build(builder: Builder) -> Result<Client, Failure> {
    builder.build().map_err(|error| Failure::Usage(error.to_string()))
}

/// Prints what comes.
pub(crate) fn listen(flags: &Flags, listen: &Listen) -> Result<ExitCode, Failure> {
    let builder = flags.builder(&flags.url)?;
    let client = build(builder.reconnection_attempts(flags.max_attempts()))?;
    let socket = client.socket(client.namespace());
    let (end, ended) = ends(&client, &socket)?;
    print_events(&socket, listen, end);
    for room in listen.room.clone() {
        socket.on_connect(move |socket| {
            if let Err(error) = socket.emit(events::JOIN_ROOM, json!({ "room": room })) {
                complain(&error.to_string());
            }
        });
    }
    client.start().map_err(|error| Failure::Usage(error.to_string()))?;
    let end = ended.recv().unwrap_or(End::Satisfied);
    client.disconnect();
    Ok(match end {
        End::Satisfied => ExitCode::SUCCESS,
        End::Lost => ExitCode::FAILURE,
        End::Refused => ExitCode::from(REFUSED),
    })
}

/// Why listening is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// As many events as were wanted, or nobody wants more.
    Satisfied,
    /// There is no connection any more.
    Lost,
    /// The server does not let us in.
    Refused,
}

/// Only the first reason counts.
fn tell(end: &Sender<End>, reason: End) {
    let _ = end.try_send(reason);
}

/// Everything that ends the listening says so on a channel.
fn ends(client: &Client, socket: &Socket) -> Result<(Sender<End>, Receiver<End>), Failure> {
    let (end, ended) = bounded(1);
    let its = end.clone();
    Stop::on_signals()?.on_set(move || tell(&its, End::Satisfied));
    let its = end.clone();
    client.on_reconnect_failed(move |_| tell(&its, End::Lost));
    let its = end.clone();
    socket.on_connect_error(move |_, error| {
        complain(&error.to_string());
        if !error.is_transient() {
            tell(&its, End::Refused);
        }
    });
    let its = end.clone();
    socket.on_disconnect(move |_, reason| match reason {
        CloseReason::IoClientDisconnect => {}
        reason => {
            complain(&format!("disconnected: {reason}"));
            if reason == CloseReason::IoServerDisconnect {
                tell(&its, End::Lost);
            }
        }
    });
    Ok((end, ended))
}

fn print_events(socket: &Socket, listen: &Listen, end: Sender<End>) {
    let (names, json, count) = (listen.events.clone(), listen.json, listen.count);
    let printed = AtomicU64::new(0);
    socket.on_any(move |_, event| {
        let is_wanted = names.is_empty() || names.iter().any(|name| name == event.name());
        let is_over = count.is_some_and(|count| printed.load(Relaxed) >= count);
        if !is_wanted || is_over {
            return;
        }
        let written = write_line(&if json { in_json(event) } else { in_words(event) });
        let printed = printed.fetch_add(1, Relaxed) + 1;
        if written.is_err() || Some(printed) == count {
            tell(&end, End::Satisfied);
        }
    });
}

fn in_json(event: &Event<'_>) -> String {
    json!({ "event": event.name(), "args": values(event.args()) }).to_string()
}

fn in_words(event: &Event<'_>) -> String {
    let mut words = Visible(event.name()).to_string();
    for value in values(event.args()) {
        words += " ";
        words += &text(&value);
    }
    words
}

/// The arguments as JSON; binary values as `{"base64": …}`.
fn values(args: &Args<'_>) -> Vec<Value> {
    let value = |json: &str| serde_json::from_str(json).unwrap_or_default();
    let mut values: Vec<Value> = args.iter().map(|arg| value(arg.json())).collect();
    if !args.attachments().is_empty() {
        values.iter_mut().for_each(|value| fill(value, args.attachments()));
    }
    values
}

/// Puts the bytes where their placeholders are.
fn fill(value: &mut Value, attachments: &[Bytes]) {
    if value.get("_placeholder") == Some(&Value::Bool(true)) {
        let number = value.get("num").and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
        if let Some(bytes) = number.and_then(|number| attachments.get(number)) {
            *value = json!({ "base64": STANDARD.encode(bytes) });
        }
        return;
    }
    match value {
        Value::Array(list) => list.iter_mut().for_each(|value| fill(value, attachments)),
        Value::Object(map) => map.values_mut().for_each(|value| fill(value, attachments)),
        _ => {}
    }
}

/// Asks for the server's health.
pub(crate) fn health(flags: &Flags) -> Result<ExitCode, Failure> {
    let client = build(flags.builder(&flags.url)?)?;
    let answer = client.http_get("/health", flags.connection.timeout);
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Ok(explain(&error)),
    };
    let body = String::from_utf8_lossy(&answer.body);
    // Nobody may be reading.
    let _ = write_line(&Visible(body.trim_end()).to_string());
    if answer.status == 200 {
        return Ok(ExitCode::SUCCESS);
    }
    complain(&format!("the server answers with HTTP status {}", answer.status));
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emitted(event: &str, args: &[&str], room: Option<&str>) -> Vec<Argument> {
        let emit = Emit {
            event: event.into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ack: false,
            room: room.map(str::to_owned),
            binary: Vec::new(),
        };
        emit.arguments().unwrap().0
    }

    #[test]
    fn arguments_are_json_or_plain_text() {
        let given = emitted("x", &["1", "true", "hello world", r#""1""#, r#"{"a":[]}"#], None);
        let expected = [json!(1), json!(true), json!("hello world"), json!("1"), json!({"a": []})];
        assert_eq!(given, expected.map(Argument::Json));
        assert!(argument(r#"{"a":"#).is_err());
        assert!(argument(r#""open"#).is_err());
    }

    #[test]
    fn a_room_message_goes_to_the_room() {
        let expected = [Argument::Json(json!({"room": "r", "message": "hi"}))];
        assert_eq!(emitted("room_message", &["hi"], Some("r")), expected);
        assert_eq!(
            emitted("room_message", &[r#"{"room":"s","message":"hi"}"#], Some("r")),
            [Argument::Json(json!({"room": "s", "message": "hi"}))]
        );
        assert_eq!(emitted("message", &["hi"], Some("r")), [Argument::Json(json!("hi"))]);
    }

    #[test]
    fn bytes_are_shown_in_base64() {
        let mut value = json!([{"_placeholder": true, "num": 0}, {"_placeholder": true, "num": 7}]);
        fill(&mut value, &[Bytes::from_static(b"abc")]);
        assert_eq!(value, json!([{"base64": "YWJj"}, {"_placeholder": true, "num": 7}]));
    }
}
