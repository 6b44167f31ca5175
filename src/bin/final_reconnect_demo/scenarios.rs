//! The scenarios. Each starts with its server down or up, as needed, and with its own client.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use serde_json::json;
use tinysio::client::CloseReason;

use super::{Flags, world::World};
use crate::clients::{
    common::exit::Failure,
    figures::milliseconds,
    request::Request,
    session::Session,
    stage::Stage,
    verdict::{Outcome, Verdicts},
};

/// Reconnections before a client gives up, in scenarios about something else.
const ATTEMPTS: u32 = 10;

/// The first delay between two attempts.
const DELAY: Duration = Duration::from_millis(500);

/// How long a lost server stays away.
const AWAY: Duration = Duration::from_millis(1_500);

/// How long a disconnected client is watched for wrong attempts.
const WATCH: Duration = Duration::from_secs(2);

const ROOM: &str = "reconnect_room";

/// Runs all scenarios.
pub(crate) fn run(flags: &Flags, url: Option<&str>, stage: &Stage) -> Result<Verdicts, Failure> {
    let world = match url {
        Some(url) => World::relayed(url)?,
        None => World::own(&stage.stop)?,
    };
    let play = Play { flags, stage, world: RefCell::new(world) };
    let mut verdicts = Verdicts::default();
    verdicts.check(stage, "Late server", || play.late_server());
    verdicts.check(stage, "Loss and automatic return", || play.loss_and_return());
    verdicts.check(stage, "Manual reconnection", || play.manual());
    verdicts.check(stage, "Messages queued offline", || play.queued());
    verdicts.check(stage, "Rooms joined again", || play.rooms());
    if play.world.borrow().is_own() {
        verdicts.check(stage, "Disconnected by the server", || play.thrown_out());
    } else {
        verdicts.skip(stage, "Disconnected by the server", "somebody else's server cannot be asked for it");
    }
    verdicts.check(stage, "Attempts used up", || play.used_up());
    Ok(verdicts)
}

struct Play<'a> {
    flags: &'a Flags,
    stage: &'a Stage,
    world: RefCell<World>,
}

impl Play<'_> {
    fn timeout(&self) -> Duration {
        self.flags.connection.timeout
    }

    fn session(&self, attempts: u32) -> Result<Session, String> {
        let url = self.world.borrow().url();
        let builder = self.flags.connection.builder(&url).map_err(|failure| failure.to_string())?;
        let builder = builder.reconnection_delay(self.stage.scaled(DELAY));
        Session::new(builder, &url, Some(attempts), &self.stage.stop, self.stage.show())
            .map_err(|failure| failure.to_string())
    }

    /// A connected client.
    fn connected(&self, attempts: u32) -> Result<Session, String> {
        self.world.borrow_mut().up()?;
        let session = self.session(attempts)?;
        if session.first_connect() { Ok(session) } else { Err("no connection to begin with".to_owned()) }
    }

    /// Stops the server and waits until the client has noticed.
    fn lose(&self, session: &Session) -> Result<(), String> {
        self.stage.warning("The server goes away");
        self.world.borrow_mut().down();
        if session.wait_disconnected(self.timeout()) {
            Ok(())
        } else {
            Err("the loss was not noticed".into())
        }
    }

    /// Starts the server again and waits until the client has reconnected. Returns the time.
    fn regain(&self, session: &Session) -> Result<Duration, String> {
        self.stage.pause(AWAY);
        self.stage.warning("The server comes back");
        self.world.borrow_mut().up()?;
        let begun = Instant::now();
        if session.wait_connected(self.timeout() * 2) {
            Ok(begun.elapsed())
        } else {
            Err("the client did not come back".to_owned())
        }
    }

    fn confirm(&self, session: &Session, text: &str) -> Result<(), String> {
        session.confirm(&Request::message(text), self.timeout()).map(drop)
    }

    fn late_server(&self) -> Outcome {
        self.world.borrow_mut().down();
        let session = self.session(ATTEMPTS)?;
        if session.first_connect() {
            return Err("somebody answered where nobody should".to_owned());
        }
        let failed = session.tally().errors;
        let took = self.regain(&session)?;
        self.confirm(&session, "Hello, late server!")?;
        session.leave();
        Ok(format!("{failed} attempts failed; connected {} after the start", milliseconds(Some(took))))
    }

    fn loss_and_return(&self) -> Outcome {
        let session = self.connected(ATTEMPTS)?;
        self.confirm(&session, "Message before the loss")?;
        self.lose(&session)?;
        let took = self.regain(&session)?;
        self.confirm(&session, "Message after the return")?;
        session.leave();
        Ok(format!("back {} after the server", milliseconds(Some(took))))
    }

    fn manual(&self) -> Outcome {
        let session = self.connected(ATTEMPTS)?;
        session.client().disconnect();
        self.stays_away(&session)?;
        self.stage.info("Reconnecting by hand");
        let begun = Instant::now();
        session.client().connect().map_err(|error| error.to_string())?;
        let took = begun.elapsed();
        self.confirm(&session, "Message after the manual reconnection")?;
        session.leave();
        Ok(format!("stayed away until told; back in {}", milliseconds(Some(took))))
    }

    /// Checks that no attempt is made.
    fn stays_away(&self, session: &Session) -> Result<(), String> {
        if !session.wait_disconnected(self.timeout()) || !session.wait_at_rest(self.timeout()) {
            return Err("the connection did not end".to_owned());
        }
        let attempts = session.client().stats().attempts;
        self.stage.pause(WATCH);
        let more = session.client().stats().attempts - attempts;
        if more == 0 { Ok(()) } else { Err(format!("{more} attempts were made unasked")) }
    }

    fn queued(&self) -> Outcome {
        const COUNT: usize = 3;
        let session = self.connected(ATTEMPTS)?;
        self.lose(&session)?;
        let mark = session.mark();
        let requests: Vec<_> =
            (1..=COUNT).map(|number| Request::message(&format!("Offline message {number}"))).collect();
        if !requests.iter().all(|request| session.send(request)) {
            return Err("not all could be sent".to_owned());
        }
        self.regain(&session)?;
        let answers = requests.iter().map(|request| session.answer(request, mark, self.timeout()));
        let answers = answers.collect::<Result<Vec<_>, _>>()?;
        if !answers.is_sorted_by_key(|answer| answer.at) {
            return Err("they were delivered in another order".to_owned());
        }
        session.leave();
        Ok(format!("{COUNT} messages delivered in order after the return"))
    }

    fn rooms(&self) -> Outcome {
        let session = self.connected(ATTEMPTS)?;
        session.confirm(&Request::join(ROOM), self.timeout())?;
        self.lose(&session)?;
        self.regain(&session)?;
        session.confirm(&Request::room_message(ROOM, "Still in the room"), self.timeout())?;
        session.leave();
        Ok("joined without being told, and a message came back".to_owned())
    }

    fn thrown_out(&self) -> Outcome {
        let session = self.connected(ATTEMPTS)?;
        session.socket().emit("kick", json!({})).map_err(|error| error.to_string())?;
        self.stays_away(&session)?;
        match session.client().status().last_reason {
            Some(CloseReason::IoServerDisconnect) => Ok("no attempt was made".to_owned()),
            reason => Err(format!("it ended with {reason:?}")),
        }
    }

    fn used_up(&self) -> Outcome {
        const FEW: u32 = 3;
        let session = self.connected(FEW)?;
        let before = session.client().stats().attempts;
        self.lose(&session)?;
        if !session.wait_at_rest(self.timeout() * 3) {
            return Err("it never gave up".to_owned());
        }
        let made = session.client().stats().attempts - before;
        if made != u64::from(FEW) {
            return Err(format!("it gave up after {made} attempts instead of {FEW}"));
        }
        Ok(format!("gave up after {FEW} attempts"))
    }
}
