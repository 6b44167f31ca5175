//! `working`: a running server.

use std::{process::ExitCode, time::Duration};

use super::Flags;
use crate::clients::{common::exit::Failure, session::Session, stage::Stage};

/// How long a port may take to answer.
const PROBE: Duration = Duration::from_secs(2);

/// Number of messages.
const MESSAGES: u32 = 5;

/// Finds a server and talks to it.
pub(crate) fn run(flags: &Flags, stage: &Stage) -> Result<ExitCode, Failure> {
    stage.heading("Working connection");
    for port in &flags.ports {
        if stage.stop.is_set() {
            break;
        }
        stage.plain(format!("Looking for a server on port {port}..."));
        let url = format!("http://localhost:{port}");
        let builder = flags.connection.builder(&url)?;
        let builder = builder.timeout(PROBE.min(flags.connection.timeout)).reconnection(false);
        let session = Session::new(builder, &url, None, &stage.stop, stage.show())?;
        if session.client().connect().is_ok() {
            stage.good(format!("Found a server on port {port}"));
            return Ok(talk(&session, flags, stage));
        }
    }
    stage.bad("No server found");
    Ok(ExitCode::FAILURE)
}

fn talk(session: &Session, flags: &Flags, stage: &Stage) -> ExitCode {
    let confirmed =
        session.confirm_messages("Working connection test message", MESSAGES, flags.connection.timeout);
    session.leave();
    match confirmed {
        Ok(()) => {
            stage.good(format!("All {MESSAGES} messages confirmed"));
            ExitCode::SUCCESS
        }
        Err(why) => {
            stage.bad(format!("Not all messages were confirmed: {why}"));
            ExitCode::FAILURE
        }
    }
}
