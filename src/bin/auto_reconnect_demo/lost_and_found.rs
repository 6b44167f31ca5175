//! The default demonstration, step by step.
//!
//! ```text
//!   no server ── manual attempts, growing delays ──► a server ── messages ──► killed
//!                                              messages ◄── automatic attempts ◄── started again
//! ```

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use super::Flags;
use crate::clients::{
    common::exit::Failure,
    host::Host,
    notice::Notice,
    session::{Session, Show},
    stage::Stage,
};

/// Number of failed attempts before the server is started.
const FAILURES: u32 = 3;

/// The first delay between two manual attempts; it doubles up to [`DELAY_MAX`].
const DELAY: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(8);

/// How long the killed server stays away: long enough for one failed attempt.
const AWAY: Duration = Duration::from_secs(3);

/// How long the user may take to stop and start an external server.
const PATIENCE: Duration = Duration::from_secs(120);

/// Messages sent after each connection.
const MESSAGES: u32 = 3;

/// Runs the demonstration. The exit code says whether the connection came back.
pub(crate) fn run(flags: &Flags, stage: &Stage) -> Result<ExitCode, Failure> {
    let url = format!("http://localhost:{}", flags.port);
    let manual = Arc::new(AtomicBool::new(true));
    let builder = flags.connection.builder(&url)?.reconnection_delay(stage.scaled(DELAY));
    let session =
        Session::new(builder, &url, Some(flags.attempts), &stage.stop, show(stage, manual.clone()))?;
    let play = Play { flags, stage, session: &session };
    // The server is dropped after the session, so that the end is not a connection loss.
    let outcome = play.find().and_then(|host| {
        manual.store(false, Relaxed);
        play.lose_and_return(host)
    });
    session.leave();
    Ok(match outcome {
        Ok(_) => {
            stage.good("\nThe connection came back, and messages flow again");
            ExitCode::SUCCESS
        }
        Err(why) => {
            stage.bad(format!("\nThe connection did not come back: {why}"));
            ExitCode::FAILURE
        }
    })
}

/// Automatic attempts are not reported during the manual ones.
fn show(stage: &Stage, manual: Arc<AtomicBool>) -> Show {
    let all = stage.show();
    Box::new(move |notice| {
        let is_automatic = matches!(notice, Notice::Scheduled { .. } | Notice::Attempt { .. });
        if !(is_automatic && manual.load(Relaxed)) {
            all(notice);
        }
    })
}

struct Play<'a> {
    flags: &'a Flags,
    stage: &'a Stage,
    session: &'a Session,
}

impl Play<'_> {
    /// Manual attempts until there is a connection. Returns the server, unless it is external.
    fn find(&self) -> Result<Option<Host>, String> {
        let (stage, attempts) = (self.stage, self.flags.attempts);
        let mut host = None;
        stage.heading(&format!("Manual reconnection: port {}, where nobody listens", self.flags.port));
        for attempt in 1..=attempts {
            stage.info(format!("Manual reconnection attempt {attempt}/{attempts}..."));
            match self.session.client().connect() {
                Ok(()) if host.is_none() && !self.flags.external => {
                    return Err(format!("somebody listens on port {} already", self.flags.port));
                }
                Ok(()) => {
                    stage.good(format!("Connected with attempt {attempt}"));
                    return Ok(host);
                }
                // Automatic attempts come later.
                Err(_) => self.session.client().disconnect(),
            }
            if attempt == FAILURES.min(attempts - 1) && !self.flags.external {
                host = Some(self.start()?);
            }
            self.wait_for_next(attempt)?;
        }
        Err(format!("{attempts} attempts failed"))
    }

    fn start(&self) -> Result<Host, String> {
        let port = self.flags.port;
        self.stage.warning(format!("Starting a server on port {port}"));
        Host::restart(port, false, &self.stage.stop).map_err(|error| error.to_string())
    }

    /// Doubled after each attempt.
    fn wait_for_next(&self, attempt: u32) -> Result<(), String> {
        if attempt == self.flags.attempts {
            return Ok(());
        }
        let delay = DELAY.saturating_mul(1 << (attempt - 1).min(10)).min(DELAY_MAX);
        self.stage.warning(format!("Next attempt in {:.1} s (exponential backoff)", delay.as_secs_f32()));
        if self.stage.pause(delay) { Ok(()) } else { Err("interrupted".to_owned()) }
    }

    fn lose_and_return(&self, host: Option<Host>) -> Result<Option<Host>, String> {
        let (session, timeout) = (self.session, self.flags.connection.timeout);
        session.confirm_messages("Post-reconnect message", MESSAGES, timeout)?;
        self.stage.heading("Automatic reconnection");
        let patience = match &host {
            Some(_) => timeout,
            None => PATIENCE,
        };
        let host = match host {
            Some(host) => {
                self.stage.warning("Killing the server");
                host.kill();
                self.wait_for_loss(patience)?;
                self.stage.pause(AWAY);
                Some(self.start()?)
            }
            None => {
                self.stage.warning("Stop the server now, and start it again");
                self.wait_for_loss(patience)?;
                None
            }
        };
        if !session.wait_connected(patience.max(Duration::from_secs(30))) {
            return Err("no attempt succeeded".to_owned());
        }
        session.confirm_messages("Message after the automatic reconnection", MESSAGES, timeout)?;
        Ok(host)
    }

    fn wait_for_loss(&self, patience: Duration) -> Result<(), String> {
        if self.session.wait_disconnected(patience) {
            Ok(())
        } else {
            Err("the connection was never lost".to_owned())
        }
    }
}
