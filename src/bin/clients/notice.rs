//! Changes of a session as text.

use std::time::Duration;

use tinysio::client::{CloseReason, Error};

use super::{
    arrival::Arrival,
    common::visible::Visible,
    line::{Line, Mark},
};

/// A change that a program may print.
#[derive(Debug)]
pub(crate) enum Notice<'a> {
    /// Connected.
    Connected { url: &'a str, again: bool },
    /// Disconnected by the server, the network or us.
    Disconnected(CloseReason),
    /// An attempt failed.
    ConnectError(&'a Error),
    /// One of the first attempts starts.
    Connecting { attempt: u32, of: u32 },
    /// One of the first attempts starts after this time.
    ConnectingIn(Duration),
    /// The next reconnection has this attempt number and starts after this time.
    Scheduled { attempt: u32, of: Option<u32>, delay: Duration },
    /// A reconnection starts.
    Attempt { attempt: u32, of: Option<u32> },
    /// The maximum of reconnections is reached.
    GaveUp { attempts: Option<u32> },
    /// An event was received.
    Arrived(&'a Arrival),
    /// Other output: sent, refused, …
    Said(&'a Line),
}

impl Notice<'_> {
    /// The lines to print.
    pub(crate) fn lines(&self) -> Vec<Line> {
        vec![match self {
            Self::Connected { url, again: false } => Line::good(format!("Connected to server {url}")),
            Self::Connected { url, again: true } => Line::good(format!("Reconnected to server {url}")),
            Self::Disconnected(CloseReason::IoClientDisconnect) => Line::warning("Disconnected from server"),
            Self::Disconnected(reason) => Line::warning(format!("Disconnected from server ({reason})")),
            Self::ConnectError(error) => {
                Line::bad(format!("Connection error: {}", Visible(&error.to_string())))
            }
            Self::Connecting { attempt, of } => {
                Line::info(format!("Connecting to server (attempt {attempt}/{of})...")).marked(Mark::Out)
            }
            Self::ConnectingIn(delay) => {
                Line::warning(format!("Retrying in {:.1} s...", delay.as_secs_f32()))
            }
            Self::Scheduled { attempt, of, .. } => Line::info(format!(
                "Scheduling automatic reconnection... (attempt will be {})",
                Counted(*attempt, *of)
            )),
            Self::Attempt { attempt, of } => {
                Line::warning(format!("Attempting reconnection {}...", Counted(*attempt, *of)))
                    .marked(Mark::Out)
            }
            Self::GaveUp { attempts: Some(attempts) } => {
                Line::bad(format!("Reconnection failed after {attempts} attempts"))
            }
            Self::GaveUp { attempts: None } => Line::bad("Reconnection failed"),
            Self::Arrived(arrival) => return arrival.lines(),
            Self::Said(line) => (*line).clone(),
        }]
    }
}

/// `2/5`, or `2` without a maximum.
struct Counted(u32, Option<u32>);

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            Some(of) => write!(f, "{}/{of}", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_up_to_their_end_if_there_is_one() {
        let attempt = |of| Notice::Attempt { attempt: 2, of }.lines()[0].text.clone();
        assert_eq!(attempt(Some(5)), "Attempting reconnection 2/5...");
        assert_eq!(attempt(None), "Attempting reconnection 2...");
        let scheduled = Notice::Scheduled { attempt: 1, of: Some(5), delay: Duration::ZERO };
        assert_eq!(scheduled.lines()[0].text, "Scheduling automatic reconnection... (attempt will be 1/5)");
    }
}
