//! `client validate`: checks that this server and the network to it do what a client needs, with timings.

use std::{
    cell::RefCell,
    process::ExitCode,
    time::{Duration, Instant},
};

use super::{
    demo::{session, stage},
    flags::Flags,
};
use crate::clients::{
    common::exit::Failure,
    figures::{Times, milliseconds},
    relay::Relay,
    request::Request,
    session::Session,
    stage::Stage,
    verdict::{Outcome, Verdicts},
};

/// Messages whose round trips are measured: fewer than the chat allows at once.
const MESSAGES: usize = 20;

const ROOM: &str = "validation";

/// Runs the checks.
pub(crate) fn run(flags: &Flags) -> Result<ExitCode, Failure> {
    let stage = stage(flags)?;
    let relay = Relay::to(&flags.url).transpose();
    let relay = relay.map_err(|error| Failure::Failed(format!("cannot relay: {error}")))?;
    let url = relay.as_ref().map_or_else(|| flags.url.clone(), |relay| relay.url(&flags.url));
    let relay = relay.map(RefCell::new);
    let session = session(flags, &url, &stage)?;
    let check = Check { stage: &stage, session: &session, timeout: flags.connection.timeout };
    let mut verdicts = Verdicts::default();
    verdicts.check(&stage, "Connect", || check.connect());
    if session.was_ever_connected() {
        verdicts.check(&stage, "Round trip", || check.round_trip());
        verdicts.check(&stage, "Room", || check.room());
        match &relay {
            Some(relay) => {
                verdicts.check(&stage, "Automatic reconnection", || check.lose_and_return(relay));
            }
            None => {
                verdicts.skip(&stage, "Automatic reconnection", "the way to this URL cannot be interrupted");
            }
        }
        verdicts.check(&stage, "Manual reconnection", || check.manual());
    }
    session.leave();
    verdicts.print(&stage);
    Ok(if verdicts.all_passed(&stage) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Check<'a> {
    stage: &'a Stage,
    session: &'a Session,
    timeout: Duration,
}

impl Check<'_> {
    fn confirm(&self, request: &Request) -> Result<(), String> {
        self.session.confirm(request, self.timeout).map(drop)
    }

    fn connect(&self) -> Outcome {
        if !self.session.first_connect() {
            return Err(self.session.tally().last_error.unwrap_or_else(|| "no connection".to_owned()));
        }
        Ok(format!("connected in {}", milliseconds(self.session.client().stats().connect_time)))
    }

    fn round_trip(&self) -> Outcome {
        let mut times = Times::default();
        for number in 1..=MESSAGES {
            let begun = Instant::now();
            self.confirm(&Request::message(&format!("Validation message {number}")))?;
            times.push(begun.elapsed());
        }
        let [median, worst] = [50, 99].map(|percent| milliseconds(times.percentile(percent)));
        Ok(format!("{MESSAGES} messages confirmed, p50 {median}, p99 {worst}"))
    }

    fn room(&self) -> Outcome {
        self.confirm(&Request::join(ROOM))?;
        self.confirm(&Request::room_message(ROOM, "Validation of rooms"))?;
        Ok("joined, and a message came back".to_owned())
    }

    /// Loses the connection, sends meanwhile, and gets it back.
    fn lose_and_return(&self, relay: &RefCell<Relay>) -> Outcome {
        relay.borrow_mut().cut();
        if !self.session.wait_disconnected(self.timeout) {
            return Err("the loss was not noticed".to_owned());
        }
        let lost = Instant::now();
        let mark = self.session.mark();
        let queued = Request::room_message(ROOM, "Sent while offline");
        if !self.session.send(&queued) {
            return Err("nothing can be sent while offline".to_owned());
        }
        self.stage.pause(Duration::from_millis(300));
        relay.borrow_mut().mend().map_err(|error| format!("the way cannot be opened again: {error}"))?;
        if !self.session.wait_connected(self.timeout * 2) {
            return Err("not connected again".to_owned());
        }
        let back = lost.elapsed();
        // Its room must be joined again before it.
        self.session.answer(&queued, mark, self.timeout)?;
        let attempt = milliseconds(self.session.client().stats().connect_time);
        Ok(format!(
            "back after {}, the attempt took {attempt}; room joined again, queued message delivered",
            milliseconds(Some(back))
        ))
    }

    fn manual(&self) -> Outcome {
        self.session.client().disconnect();
        let begun = Instant::now();
        self.session.client().connect().map_err(|error| error.to_string())?;
        let back = milliseconds(Some(begun.elapsed()));
        self.confirm(&Request::message("Validation after the reconnection"))?;
        Ok(format!("back in {back}, a message confirmed"))
    }
}
