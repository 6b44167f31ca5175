//! `success`: a running server.

use super::{Flags, world::World};
use crate::clients::{
    common::exit::Failure,
    figures::milliseconds,
    flags::DEFAULT_URL,
    request::Request,
    session::Session,
    stage::Stage,
    verdict::{Outcome, Verdicts},
};

/// Sends, disconnects, reconnects, sends. Without a URL, and if no server is on the default port, it starts
/// one.
pub(crate) fn run(flags: &Flags, url: Option<&str>, stage: &Stage) -> Result<Verdicts, Failure> {
    let mut world = World::own(&stage.stop)?;
    let url = match url {
        Some(url) => url.to_owned(),
        None if is_usual_one_up(flags)? => DEFAULT_URL.to_owned(),
        None => {
            stage.warning(format!("Nobody listens at {DEFAULT_URL}: starting a server"));
            world.up().map_err(Failure::Failed)?;
            world.url()
        }
    };
    let builder = flags.connection.builder(&url)?;
    let session = Session::new(builder, &url, Some(0), &stage.stop, stage.show())?;
    let timeout = flags.connection.timeout;
    let confirm =
        |text: &str| session.confirm(&Request::message(text), timeout).map(|_| "confirmed".to_owned());
    let connect = || -> Outcome {
        session.client().connect().map_err(|error| error.to_string())?;
        Ok(format!("in {}", milliseconds(session.client().stats().connect_time)))
    };
    let mut verdicts = Verdicts::default();
    verdicts.check(stage, "Connect", connect);
    if !session.is_connected() {
        return Ok(verdicts);
    }
    verdicts.check(stage, "Message", || confirm("Message before the disconnection"));
    verdicts.check(stage, "Disconnect", || {
        session.client().disconnect();
        match session.wait_disconnected(timeout) {
            true => Ok("in good order".to_owned()),
            false => Err("the connection did not end".to_owned()),
        }
    });
    verdicts.check(stage, "Manual reconnection", connect);
    verdicts.check(stage, "Message after it", || confirm("Message after the reconnection"));
    session.leave();
    Ok(verdicts)
}

fn is_usual_one_up(flags: &Flags) -> Result<bool, Failure> {
    let client = flags.connection.builder(DEFAULT_URL)?.build();
    let client = client.map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(client.http_get("/health", flags.connection.timeout).is_ok())
}
