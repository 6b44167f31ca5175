//! `client demo`: the features of the chat, in six steps.

use std::{process::ExitCode, time::Duration};

use serde_json::{Value, json};

use super::flags::Flags;
use crate::clients::{
    common::exit::Failure,
    line::{Line, Mark, Tone},
    request::Request,
    session::{Session, Show},
    stage::Stage,
};

/// Pause between the connection and the first step.
const BEFORE: Duration = Duration::from_secs(1);

/// Pause after each step.
const BETWEEN: Duration = Duration::from_millis(1_500);

/// Runs the demonstration.
pub(crate) fn run(flags: &Flags) -> Result<ExitCode, Failure> {
    let stage = stage(flags)?;
    let session = session(flags, &flags.url, &stage)?;
    if !session.first_connect() {
        stage.say_signed(&Line::bad(format!("Could not connect to {}", flags.url)));
        return Ok(ExitCode::FAILURE);
    }
    stage.pause(BEFORE);
    let mut failed = 0;
    for (title, tone, request) in steps() {
        if stage.stop.is_set() {
            failed += 1;
            break;
        }
        stage.say_signed(&Line::new(Mark::None, tone, format!("{title}...")));
        match session.confirm(&request, flags.connection.timeout) {
            Ok(_) => stage.say_signed(&Line::good("Step completed").marked(Mark::None)),
            Err(why) => {
                failed += 1;
                stage.say_signed(&Line::warning(format!("Step failed: {why}")).marked(Mark::None));
            }
        }
        stage.pause(BETWEEN);
    }
    stage.say_signed(&Line::good("Demo completed successfully!"));
    stage.say_signed(&Line::warning("Cleaning up demo...").marked(Mark::None));
    session.leave();
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Standard output, configured by the flags.
pub(crate) fn stage(flags: &Flags) -> Result<Stage, Failure> {
    Stage::new(flags.connection.color, flags.speed, false)
}

/// A session that prints everything.
pub(crate) fn session(flags: &Flags, url: &str, stage: &Stage) -> Result<Session, Failure> {
    let builder = flags.builder(url)?;
    let its = stage.clone();
    let show: Show = Box::new(move |notice| notice.lines().iter().for_each(|line| its.say_signed(line)));
    Session::new(builder, url, flags.max_attempts(), &stage.stop, show)
}

fn steps() -> [(&'static str, Tone, Request); 6] {
    const ROOM: &str = "test_room";
    let event = json!({
        "type": "test_event",
        "timestamp": now(),
        "data": { "key": "value", "number": 42 },
    });
    [
        ("Sending basic message", Tone::Good, Request::message("Hello from Python client!")),
        ("Sending test message", Tone::Good, Request::message("This is a test message")),
        ("Sending custom event", Tone::Info, Request::Custom(event.into())),
        ("Joining test room", Tone::People, Request::join(ROOM)),
        (
            "Sending room message",
            Tone::People,
            Request::room_message(ROOM, "Hello everyone in the test room!"),
        ),
        ("Leaving test room", Tone::Warning, Request::leave(ROOM)),
    ]
}

/// The current time in ISO 8601, UTC.
fn now() -> Value {
    humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string().into()
}
