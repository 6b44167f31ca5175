//! The commands for scripts: `emit`, `listen`, `health`.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{json, ser::Formatter};
use tinysio::{
    Bytes, RawValue,
    chat::{events, payload::Health},
    client::{Builder, Client, CloseReason, Delivery, Error, Event, Socket},
    proto::socket::{Arg, Args, EncodeError, OwnedArgs},
};

use super::flags::{Emit, Flags, Listen};
use crate::clients::{
    common::{exit::Failure, visible::Visible},
    flags::read,
    line::text,
    stage::write_line,
    stop::Stop,
};

/// Wrong usage.
pub(crate) const WRONG: u8 = 2;

/// The server refused.
pub(crate) const REFUSED: u8 = 3;

/// The server did not answer.
pub(crate) const NO_ANSWER: u8 = 4;

/// The argument of `room_message`.
#[derive(Debug, Serialize)]
struct RoomMessage<'a> {
    room: &'a str,
    message: &'a RawValue,
}

impl Emit {
    fn arguments(&self) -> Result<OwnedArgs, Failure> {
        let usage = |error: EncodeError| Failure::Usage(error.to_string());
        let mut arguments = OwnedArgs::default();
        for text in &self.args {
            let json = argument(text)?;
            match &self.room {
                Some(room) if self.is_only_a_message(&json) => {
                    arguments.push(&RoomMessage { room, message: &json }).map_err(usage)?;
                }
                _ => arguments.push(&json).map_err(usage)?,
            }
        }
        for path in &self.binary {
            arguments.push(&Bytes::from(bytes_of(path)?)).map_err(usage)?;
        }
        Ok(arguments)
    }

    /// Whether `json` is the message of a `room_message` without the room.
    fn is_only_a_message(&self, json: &RawValue) -> bool {
        let names_a_room = || Arg::of(json).member("room").is_some();
        self.event == events::ROOM_MESSAGE && self.args.len() == 1 && !names_a_room()
    }
}

/// JSON exactly as typed, or a plain text that does not look like JSON.
fn argument(text: &str) -> Result<Box<RawValue>, Failure> {
    match RawValue::from_string(text.to_owned()) {
        Ok(json) => Ok(json),
        Err(error) if text.trim_start().starts_with(['{', '[', '"']) => {
            Err(Failure::Usage(format!("{text} is no JSON: {error}")))
        }
        Err(_) => serde_json::value::to_raw_value(text).map_err(|error| Failure::Usage(error.to_string())),
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
        let said = event.args().raw(0).map(|said| said.member("message").unwrap_or(said));
        its.lock().get_or_insert(said.map_or_else(String::new, |said| text(said.json())));
    });
    let (leaving, left) = bounded(1);
    socket.on_disconnect(move |_, _| {
        // The channel has room for the first result, which counts.
        let _ = leaving.try_send(());
    });
    match emit_on(&client, &socket, flags, emit, &arguments) {
        Err(error) => return Ok(explain(&error)),
        Ok(shown) => {
            shown.map_err(|error| Failure::Failed(format!("the answer cannot be shown: {error}")))?;
        }
    }
    // Handlers run in order: the handler of an earlier refusal has run too.
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

/// Emits and prints the answer; the inner result says whether it could be printed.
fn emit_on(
    client: &Client,
    socket: &Socket,
    flags: &Flags,
    emit: &Emit,
    arguments: &OwnedArgs,
) -> Result<serde_json::Result<()>, Error> {
    let timeout = flags.connection.timeout;
    client.connect()?;
    if let Some(room) = &emit.room {
        ask(socket, events::JOIN_ROOM, json!({ "room": room }), timeout)?;
    }
    let mut shown = Ok(());
    if emit.ack {
        let answer = ask(socket, &emit.event, arguments, timeout)?;
        shown = json_line(&answer).map(|line| {
            // Output may be closed.
            let _ = write_line(&line);
        });
    } else if socket.emit(&emit.event, arguments)? != Delivery::Sent {
        return Err(Error::NotConnected);
    }
    client.disconnect_within(timeout)?;
    Ok(shown)
}

/// Emits and waits for the answer on the thread of the handlers, so the handlers of all earlier events have
/// run.
fn ask(socket: &Socket, event: &str, args: impl Serialize, timeout: Duration) -> Result<OwnedArgs, Error> {
    let (tell, told) = bounded(1);
    socket.emit_with_callback(event, args, timeout, move |_, answer| {
        // The channel has room for the only answer.
        let _ = tell.try_send(answer);
    })?;
    // The callback is always called.
    told.recv().unwrap_or(Err(Error::Closed))
}

/// Prints on standard error why it failed, and returns the exit code.
fn explain(error: &Error) -> ExitCode {
    complain(&error.to_string());
    match error {
        Error::Invalid(_) | Error::ReservedEvent(_) | Error::Encode(_) | Error::TooLarge { .. } => {
            ExitCode::from(WRONG)
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

/// Prints the events.
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

/// Why listening has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The wanted number of events was printed, or the output was closed.
    Satisfied,
    /// The connection is lost.
    Lost,
    /// The server refused the connection.
    Refused,
}

/// The first reason counts.
fn tell(end: &Sender<End>, reason: End) {
    let _ = end.try_send(reason);
}

/// Sends every reason to end on a channel.
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
    let printed = Mutex::new(0_u64);
    socket.on_any(move |_, event| {
        let is_wanted = names.is_empty() || names.iter().any(|name| name == event.name());
        let is_over = count.is_some_and(|count| *printed.lock() >= count);
        if !is_wanted || is_over {
            return;
        }
        let line = match if json { in_json(event) } else { in_words(event) } {
            Ok(line) => line,
            Err(error) => return complain(&format!("event {:?} cannot be shown: {error}", event.name())),
        };
        let written = write_line(&line);
        let mut printed = printed.lock();
        *printed += 1;
        if written.is_err() || Some(*printed) == count {
            tell(&end, End::Satisfied);
        }
    });
}

/// An event as `--json` prints it.
#[derive(Debug, Serialize)]
struct Printed<'a> {
    event: &'a str,
    args: &'a Args<'a>,
}

fn in_json(event: &Event<'_>) -> serde_json::Result<String> {
    json_line(&Printed { event: event.name(), args: event.args() })
}

fn in_words(event: &Event<'_>) -> serde_json::Result<String> {
    let mut words = Visible(event.name()).to_string();
    for arg in event.args().iter() {
        words += " ";
        words += &text(&json_line(&arg)?);
    }
    Ok(words)
}

/// JSON on one line, as received except for line breaks between values; bytes are written as `{"base64": …}`.
/// Error: bytes below more levels than can be written.
fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    let mut json = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, Base64))?;
    // A string contains no line break, so only space between values changes.
    Ok(String::from_utf8_lossy(&json).replace(['\n', '\r'], " "))
}

/// Compact JSON with bytes in base64.
struct Base64;

impl Formatter for Base64 {
    fn write_byte_array<W: ?Sized + Write>(&mut self, writer: &mut W, bytes: &[u8]) -> io::Result<()> {
        write!(writer, r#"{{"base64":"{}"}}"#, STANDARD.encode(bytes))
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
    // Output may be closed.
    let _ = write_line(&Visible(body.trim_end()).to_string());
    let Ok(health) = serde_json::from_slice::<Health<'_>>(&answer.body) else {
        let status = answer.status;
        complain(&format!("that is not the health of a tinysio server (HTTP status {status})"));
        return Ok(ExitCode::FAILURE);
    };
    if health.status != Health::HEALTHY {
        complain(&format!("the server is {}", health.status));
    }
    Ok(if health.is_serving() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn emitted(event: &str, args: &[&str], room: Option<&str>) -> String {
        let emit = Emit {
            event: event.into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ack: false,
            room: room.map(str::to_owned),
            binary: Vec::new(),
        };
        json_line(&emit.arguments().unwrap()).unwrap()
    }

    #[test]
    fn arguments_are_json_or_plain_text() {
        let given = emitted("x", &["1", "true", "hello world", r#""1""#, r#"{"a":[]}"#], None);
        assert_eq!(given, r#"[1,true,"hello world","1",{"a":[]}]"#);
        assert!(argument(r#"{"a":"#).is_err());
        assert!(argument(r#""open"#).is_err());
    }

    /// JSON is sent as typed, also where our numbers or maps could not hold it.
    #[rstest]
    #[case::digits("12345678901234567890123")]
    #[case::zeros("1.10")]
    #[case::beyond_every_float("1e999")]
    #[case::negative_zero("-0")]
    #[case::equal_keys(r#"{"a":1,"a":2}"#)]
    #[case::half_an_emoji(r#""\ud83d""#)]
    #[case::escapes(r#""\u0041\/""#)]
    #[case::spaces(r#"[1, {"b" : 2}]"#)]
    fn raw_json_goes_out_as_typed(#[case] typed: &str) {
        assert_eq!(emitted("x", &[typed], None), format!("[{typed}]"));
        assert_eq!(
            emitted("room_message", &[typed], Some("r")),
            format!(r#"[{{"room":"r","message":{typed}}}]"#)
        );
    }

    #[test]
    fn a_room_message_goes_to_the_room() {
        assert_eq!(emitted("room_message", &["hi"], Some("r")), r#"[{"room":"r","message":"hi"}]"#);
        let whole = r#"{"room":"s","message":"hi"}"#;
        assert_eq!(emitted("room_message", &[whole], Some("r")), format!("[{whole}]"));
        assert_eq!(emitted("message", &["hi"], Some("r")), r#"["hi"]"#);
    }

    #[test]
    fn bytes_are_shown_in_base64() {
        let mut args = OwnedArgs::default();
        args.push(&[Bytes::from_static(b"abc")]).unwrap();
        args.push(&RawValue::from_string("[1,\r\n2]".to_owned()).unwrap()).unwrap();
        assert_eq!(json_line(&args).unwrap(), r#"[[{"base64":"YWJj"}],[1,  2]]"#);
    }
}
