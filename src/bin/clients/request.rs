//! Requests to the chat: their checks, their output and their answers.

use serde_json::{Value, json};
use tinysio::chat::{
    Excerpt, Limits, events,
    sending::{self, Unsendable},
};

use super::{
    arrival::Arrival,
    json::Json,
    line::{Line, Mark},
};

const LIMITS: Limits = Limits::DEFAULT;

/// Characters of a message in the output.
const MESSAGE_EXCERPT: usize = 100;

/// Characters of a custom event in the output.
const CUSTOM_EXCERPT: usize = 200;

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    Message(Value),
    Custom(Json),
    Join(Value),
    Leave(Value),
    RoomMessage(Value, Value),
    Status,
}

/// A checked request.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) event: &'static str,
    /// `None`: without an argument.
    pub(crate) payload: Option<Json>,
    /// The output when it is sent.
    pub(crate) sent: Line,
}

impl Request {
    pub(crate) fn message(text: &str) -> Self {
        Self::Message(text.into())
    }

    pub(crate) fn join(room: &str) -> Self {
        Self::Join(room.into())
    }

    pub(crate) fn leave(room: &str) -> Self {
        Self::Leave(room.into())
    }

    pub(crate) fn room_message(room: &str, text: &str) -> Self {
        Self::RoomMessage(room.into(), text.into())
    }

    /// Checks the request.
    pub(crate) fn ready(&self) -> Result<Ready, Unsendable> {
        Ok(match self {
            Self::Message(message) => {
                sending::message(message, &LIMITS)?;
                let words = Json::from(message.clone()).words();
                let sent = Line::good(format!("Sent message: {}", Excerpt(&words, MESSAGE_EXCERPT)));
                ready(events::MESSAGE, message.clone(), sent)
            }
            Self::Custom(data) => {
                let words = sending::custom_event(data, &LIMITS)?;
                let sent = Line::info(format!("Sent custom event: {}", Excerpt(&words, CUSTOM_EXCERPT)));
                ready(events::CUSTOM_EVENT, data.clone(), sent)
            }
            Self::Join(room) => {
                let room = sending::room(room, &LIMITS)?;
                let sent = Line::good(format!("Requesting to join room: {room}"));
                ready(events::JOIN_ROOM, json!({ "room": room }), sent)
            }
            Self::Leave(room) => {
                let room = sending::room(room, &LIMITS)?;
                let sent = Line::warning(format!("Requesting to leave room: {room}"));
                ready(events::LEAVE_ROOM, json!({ "room": room }), sent)
            }
            Self::RoomMessage(room, message) => {
                let room = sending::room_message(room, message, &LIMITS)?;
                let words = Json::from(message.clone()).words();
                let words = Excerpt(&words, MESSAGE_EXCERPT);
                let sent = Line::good(format!("Sent message to room {room}: {words}"));
                ready(events::ROOM_MESSAGE, json!({ "room": room, "message": message }), sent)
            }
            Self::Status => Ready {
                event: events::GET_SERVER_STATUS,
                payload: None,
                sent: Line::info("Requesting server status...").marked(Mark::Out),
            },
        })
    }

    /// The output when it fails.
    pub(crate) fn failure(&self) -> &'static str {
        match self {
            Self::Message(_) => "Failed to send message",
            Self::Custom(_) => "Failed to send custom event",
            Self::Join(_) => "Failed to join room",
            Self::Leave(_) => "Failed to leave room",
            Self::RoomMessage(..) => "Failed to send room message",
            Self::Status => "Failed to get server status",
        }
    }

    /// Whether this is the server's answer to the request. `me`: our own id.
    pub(crate) fn is_answered_by(&self, arrival: &Arrival, me: &str) -> bool {
        let event = arrival.event.as_str();
        let is_room = |room: &Value| room.as_str().is_some_and(|room| arrival.says("room", room.trim()));
        let is = |name: &str, value: &Value| arrival.field(name) == Json::from(value.clone());
        match self {
            Self::Message(message) => event == events::MESSAGE_RECEIVED && is("message", message),
            Self::Custom(data) => event == events::CUSTOM_RESPONSE && arrival.field("original_data") == *data,
            Self::Join(room) => event == events::ROOM_JOINED && is_room(room),
            Self::Leave(room) => event == events::ROOM_LEFT && is_room(room),
            Self::RoomMessage(room, message) => {
                event == events::ROOM_BROADCAST
                    && is_room(room)
                    && is("message", message)
                    && arrival.says("sender", me)
            }
            Self::Status => event == events::SERVER_STATUS,
        }
    }
}

fn ready(event: &'static str, payload: impl Into<Json>, sent: Line) -> Ready {
    Ready { event, payload: Some(payload.into()), sent: sent.marked(Mark::Out) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::clients::line::Tone;

    #[rstest]
    #[case(Request::message("Hello World!"), "Sent message: Hello World!", Tone::Good)]
    #[case(Request::Custom(json!({"a": 1}).into()), r#"Sent custom event: {"a":1}"#, Tone::Info)]
    #[case(Request::Custom(r#"{"a":1, "a":1e999}"#.parse().unwrap()), r#"Sent custom event: {"a":1, "a":1e999}"#, Tone::Info)]
    #[case(Request::join(" chatroom "), "Requesting to join room: chatroom", Tone::Good)]
    #[case(Request::leave("chatroom"), "Requesting to leave room: chatroom", Tone::Warning)]
    #[case(Request::room_message("r", "hi"), "Sent message to room r: hi", Tone::Good)]
    #[case(Request::Status, "Requesting server status...", Tone::Info)]
    fn what_is_said(#[case] request: Request, #[case] words: &str, #[case] tone: Tone) {
        let sent = request.ready().unwrap().sent;
        assert_eq!((sent.text.as_str(), sent.tone, sent.mark), (words, tone, Mark::Out));
    }

    #[test]
    fn long_messages_are_cut_in_print_only() {
        let long = "x".repeat(150);
        let ready = Request::message(&long).ready().unwrap();
        assert_eq!(ready.sent.text, format!("Sent message: {}...", "x".repeat(100)));
        assert_eq!(ready.payload, Some(json!(long).into()));
    }

    #[test]
    fn rooms_go_out_trimmed() {
        let ready = Request::room_message("  r ", "hi").ready().unwrap();
        assert_eq!(ready.payload, Some(json!({"room": "r", "message": "hi"}).into()));
    }

    #[test]
    fn what_stays_here() {
        let refused = |request: Request| request.ready().unwrap_err().to_string();
        assert_eq!(refused(Request::message("  ")), "Cannot send empty message");
        assert_eq!(refused(Request::room_message("r", "")), "Cannot send empty message to room");
        assert_eq!(refused(Request::join("a&b")), "Room name contains invalid characters");
        assert_eq!(refused(Request::Custom(Value::Null.into())), "Cannot send None as custom event data");
    }
}
