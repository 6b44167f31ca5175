//! The clients: one session each, connected one after the other.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tinysio::chat::events;

use super::Flags;
use crate::clients::{
    common::exit::Failure,
    line::Line,
    notice::Notice,
    request::Request,
    session::{Session, Show},
    stage::Stage,
};

/// The first clients have names, the others numbers.
const NAMES: [&str; 3] = ["Alice", "Bob", "Charlie"];

/// Pause between two attempts to connect.
const DELAY: Duration = Duration::from_secs(1);

/// Reconnections before a client gives up.
const ATTEMPTS: u32 = 5;

/// A client with a name.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) name: String,
    pub(crate) session: Session,
    /// Time of the first and the last sent message.
    pub(crate) active: Mutex<Option<(Instant, Instant)>>,
}

impl Actor {
    /// Whether it was ever connected.
    pub(crate) fn is_present(&self) -> bool {
        self.session.was_ever_connected()
    }

    /// Sends, if it was ever connected.
    pub(crate) fn send(&self, request: &Request) -> bool {
        if !self.is_present() {
            return false;
        }
        let now = Instant::now();
        let mut active = self.active.lock();
        *active = Some((active.map_or(now, |(first, _)| first), now));
        self.session.send(request)
    }
}

/// Connects the clients one by one. Failed ones are reported and left out.
pub(crate) fn connect_all(flags: &Flags, stage: &Stage) -> Result<Vec<Actor>, Failure> {
    stage.info(format!("Connecting {} clients to {}", flags.clients, flags.url));
    let mut cast = Vec::new();
    for number in 0..flags.clients as usize {
        if stage.stop.is_set() {
            break;
        }
        let name = NAMES.get(number).map_or_else(|| format!("Client{}", number + 1), |&name| name.to_owned());
        let actor = Actor { session: session(flags, stage, &name)?, name, active: Mutex::default() };
        if !actor.session.first_connect() {
            actor.session.client().disconnect();
        }
        cast.push(actor);
    }
    let absent: Vec<_> =
        cast.iter().filter(|actor| !actor.is_present()).map(|actor| actor.name.as_str()).collect();
    if absent.is_empty() {
        stage.good(format!("All {} clients connected", cast.len()));
    } else {
        stage.warning(format!("Could not connect: {}", absent.join(", ")));
    }
    Ok(cast)
}

fn session(flags: &Flags, stage: &Stage, name: &str) -> Result<Session, Failure> {
    let builder = flags.connection.builder(&flags.url)?.reconnection_delay(stage.scaled(DELAY));
    let show = show(stage.clone(), name.to_owned());
    Session::new(builder, &flags.url, Some(ATTEMPTS), &stage.stop, show)
}

/// Prints the events of the conversation after the client's name.
fn show(stage: Stage, name: String) -> Show {
    const SHOWN: [&str; 6] = [
        events::MESSAGE,
        events::BROADCAST_MESSAGE,
        events::ROOM_BROADCAST,
        events::ERROR,
        events::ROOM_JOINED,
        events::USER_JOINED_ROOM,
    ];
    Box::new(move |notice| {
        let lines = match notice {
            Notice::Arrived(arrival) if !SHOWN.contains(&arrival.event.as_str()) => return,
            // It makes no difference whether the client is already in it.
            Notice::Arrived(arrival) if arrival.event == events::ROOM_JOINED => {
                vec![Line::good(format!("Joined room: {}", arrival.text("room")))]
            }
            notice => notice.lines(),
        };
        for line in lines {
            stage.write(&format!("[{name}] {}", line.words(stage.palette)));
        }
    })
}

/// Disconnects all clients.
pub(crate) fn disconnect_all(cast: &[Actor], stage: &Stage) {
    stage.info("\nDisconnecting all clients...");
    cast.iter().for_each(|actor| actor.session.leave());
}
