//! Executes the commands, typed or piped.

use tinysio::client::ConnectionState;

use super::{
    command::{COMMANDS, Command, Misunderstood},
    flags::Flags,
};
use crate::clients::{
    common::exit::Failure,
    line::{Line, Mark},
    notice::Notice,
    request::Request,
    session::{Session, Show},
    stop::Stop,
};

/// A session with the chat.
#[derive(Debug)]
pub(crate) struct Talk {
    pub(crate) session: Session,
    url: String,
    history: Vec<String>,
    /// A line was not a command, or could not be sent.
    is_mistaken: bool,
}

impl Talk {
    pub(crate) fn new(flags: &Flags, stop: &Stop, show: Show) -> Result<Self, Failure> {
        let builder = flags.builder(&flags.url)?;
        let session = Session::new(builder, &flags.url, flags.max_attempts(), stop, show)?;
        Ok(Self { session, url: flags.url.clone(), history: Vec::new(), is_mistaken: false })
    }

    /// Hints after the first attempts have failed.
    pub(crate) fn hint(&self) {
        let hint = |text: &str| self.session.say(&Line::warning(text).marked(Mark::None));
        self.session.say(&Line::bad(format!("Could not connect to {}", self.url)));
        hint("    Is the server running?");
        hint("    Is the URL right?");
        hint("    Does the network, or a firewall, let you through?");
        if !self.session.is_at_rest() {
            self.session.say(&Line::info("Still trying. What you send is queued until then."));
        }
    }

    /// Whether there was wrong usage.
    pub(crate) fn is_mistaken(&self) -> bool {
        self.is_mistaken
    }

    /// Executes a line. `false`: it was the last one.
    pub(crate) fn execute(&mut self, line: &str) -> bool {
        let command = Command::parse(line);
        if command != Err(Misunderstood::Blank) {
            self.history.push(line.trim().to_owned());
            self.is_mistaken |= command.is_err();
        }
        match command {
            Ok(Command::Quit) => return false,
            Ok(Command::Message(text)) => self.send(&Request::Message(text.into())),
            Ok(Command::Custom(data)) => self.send(&Request::Custom(data)),
            Ok(Command::Join(room)) => self.send(&Request::Join(room.into())),
            Ok(Command::Leave(room)) => self.send(&Request::Leave(room.into())),
            Ok(Command::Room(room, text)) => self.send(&Request::RoomMessage(room.into(), text.into())),
            Ok(Command::Status) => self.status(),
            Ok(Command::Reconnect) => self.reconnect(),
            Ok(Command::History) => self.print_history(),
            Ok(Command::Help) => self.help(),
            Err(Misunderstood::Blank) => {}
            Err(usage @ Misunderstood::Usage(..)) => self.session.say(&Line::warning(usage.to_string())),
            Err(unknown @ Misunderstood::Unknown(_)) => {
                self.session.say(&Line::bad(unknown.to_string()));
                self.session.say(&Line::info("Type 'help' to see available commands"));
            }
            Err(error) => self.session.say(&Line::bad(error.to_string())),
        }
        true
    }

    fn send(&mut self, request: &Request) {
        self.is_mistaken |= request.ready().is_err();
        // The session has reported whether it was sent.
        let _ = self.session.send(request);
    }

    fn status(&mut self) {
        let status = self.session.client().status();
        let tally = self.session.tally();
        let none = || "none".to_owned();
        let state = match status.state {
            ConnectionState::Connected => "yes",
            ConnectionState::Connecting => "no, connecting",
            ConnectionState::Reconnecting => "no, waiting for the next attempt",
            _ => "no",
        };
        let rooms = self.session.rooms();
        let max = self.session.max_attempts().map_or_else(|| "no limit".to_owned(), |max| max.to_string());
        let rows = [
            ("Connected", state.to_owned()),
            ("Rooms", if rooms.is_empty() { none() } else { rooms.join(", ") }),
            ("Current room", self.session.current_room().unwrap_or_else(none)),
            ("Server", self.url.clone()),
            ("Transport", status.transport.map_or_else(none, |kind| kind.as_str().to_owned())),
            ("Reconnection attempts", format!("{}/{max}", status.attempts)),
            ("Errors", tally.errors.to_string()),
            ("Last error", tally.last_error.unwrap_or_else(none)),
            ("Queued messages", status.buffered.to_string()),
        ];
        self.session.say(&Line::info("Client status:"));
        for (name, value) in rows {
            self.session.say(&Line::info(format!("    {name}: {value}")).marked(Mark::None));
        }
        if self.session.is_connected() {
            self.send(&Request::Status);
        } else {
            self.session.say(&Line::bad("Not connected to server"));
        }
    }

    fn reconnect(&self) {
        if self.session.is_connected() {
            return self.session.say(&Line::warning("Already connected to server"));
        }
        self.session.say(&Line::warning("Attempting reconnection now...").marked(Mark::Out));
        self.session.client().reconnect_now();
    }

    fn print_history(&self) {
        for (number, line) in self.history.iter().enumerate() {
            self.session.say(&Line::plain(format!("{:5}  {line}", number + 1)));
        }
    }

    fn help(&self) {
        self.session.say(&Line::info("Available commands:").marked(Mark::None));
        for (name, arguments, about) in COMMANDS {
            let usage = format!("{name} {arguments}");
            self.session.say(&Line::plain(format!("    {usage:24}  {about}")));
        }
    }
}

/// Additional output after a notice.
pub(crate) fn advice(notice: &Notice<'_>) -> Option<Line> {
    match notice {
        Notice::GaveUp { .. } => Some(Line::info("Type 'reconnect' to try again")),
        _ => None,
    }
}
