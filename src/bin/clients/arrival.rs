//! Received events as text.

use std::time::Instant;

use serde_json::Value;
use tinysio::{chat::events, client::Event};

use super::{
    json::Json,
    line::{Line, Mark, Tone},
};

/// A received event as the programs keep it.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) event: String,
    /// The first argument, the only one that the chat uses.
    pub(crate) value: Json,
    /// Number of arguments.
    pub(crate) args: usize,
    pub(crate) at: Instant,
}

impl Arrival {
    pub(crate) fn new(event: &Event<'_>) -> Self {
        Self {
            event: event.name().to_owned(),
            value: event.args().raw(0).map_or_else(|| Value::Null.into(), Json::of),
            args: event.args().len(),
            at: Instant::now(),
        }
    }

    /// A member of the payload; `null` if missing.
    pub(crate) fn field(&self, name: &str) -> Json {
        self.value.member(name)
    }

    /// Whether a member of the payload is this text.
    pub(crate) fn says(&self, name: &str, text: &str) -> bool {
        self.field(name).get::<String>().as_deref() == Some(text)
    }

    /// A member of the payload in readable form.
    pub(crate) fn text(&self, name: &str) -> String {
        self.field(name).words()
    }

    /// The lines to print.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let event = self.event.as_str();
        match event {
            events::ERROR => self.error(),
            events::SERVER_STATUS => self.server_status(),
            _ => vec![self.line(event)],
        }
    }

    fn line(&self, event: &str) -> Line {
        let come = |tone, words| Line::new(Mark::In, tone, words);
        match event {
            events::MESSAGE => come(Tone::Server, format!("Server message: {}", self.greeting())),
            events::MESSAGE_RECEIVED => {
                Line::good(format!("Message confirmed: {}", self.text_or_all("message")))
            }
            events::BROADCAST_MESSAGE => come(Tone::People, self.broadcast()),
            events::CUSTOM_RESPONSE => {
                Line::info(format!("Custom response: {}", self.custom())).marked(Mark::Done)
            }
            events::ROOM_JOINED => self.room_joined(),
            events::ROOM_LEFT => self.room_left(),
            events::USER_JOINED_ROOM => Line::info(self.user("joined")).marked(Mark::In),
            events::USER_LEFT_ROOM => Line::info(self.user("left")).marked(Mark::In),
            events::ROOM_BROADCAST => come(
                Tone::People,
                format!("Room {} - {}: {}", self.text("room"), self.text("sender"), self.text("message")),
            ),
            events::CLIENT_NOTIFICATION => self.client_notification(),
            events::SERVER_NOTIFICATION => self.server_notification(),
            _ if self.args == 0 => Line::info(format!("Event {event:?}")).marked(Mark::In),
            _ => Line::info(format!("Event {event:?}: {}", self.value.words())).marked(Mark::In),
        }
    }

    /// The welcome, or another message of a server.
    fn greeting(&self) -> String {
        if self.field("data").is_null() {
            return self.value.words();
        }
        match self.field("client_id") {
            id if id.is_null() => self.text("data"),
            id => format!("{} (your id: {})", self.text("data"), id.words()),
        }
    }

    fn broadcast(&self) -> String {
        match self.field("sender") {
            sender if sender.is_null() => format!("Broadcast: {}", self.value.words()),
            sender => format!("Broadcast from {}: {}", sender.words(), self.text("message")),
        }
    }

    fn custom(&self) -> String {
        match self.field("original_data") {
            data if data.is_null() => self.value.words(),
            data => format!("{} ({}, {} bytes)", data.words(), self.text("status"), self.text("data_size")),
        }
    }

    fn room_joined(&self) -> Line {
        let room = self.text("room");
        if self.says("status", "already_in_room") {
            return Line::warning(format!("Already in room: {room}"));
        }
        Line::good(format!("Joined room: {room}")).marked(Mark::Out)
    }

    fn room_left(&self) -> Line {
        let room = self.text("room");
        if self.says("status", "not_in_room") {
            return Line::warning(format!("You weren't in room: {room}"));
        }
        Line::warning(format!("Left room: {room}")).marked(Mark::Out)
    }

    fn user(&self, did: &str) -> String {
        format!("User {} {did} room {}", self.text("user_id"), self.text("room"))
    }

    fn client_notification(&self) -> Line {
        let total = self.text("total_clients");
        match self.field("type").get().unwrap_or_default() {
            "user_connected" => {
                Line::new(Mark::In, Tone::Good, format!("New user connected (Total: {total})"))
            }
            "user_disconnected" => {
                Line::new(Mark::In, Tone::Bad, format!("User disconnected (Total: {total})"))
            }
            _ => Line::info(format!("Notification: {}", self.value.words())).marked(Mark::In),
        }
    }

    fn server_notification(&self) -> Line {
        let message = self.text_or_all("message");
        if self.says("type", "server_shutdown") {
            return Line::bad(format!("SERVER SHUTTING DOWN: {message}"));
        }
        Line::new(Mark::In, Tone::Server, format!("Server notification: {message}"))
    }

    fn error(&self) -> Vec<Line> {
        let mut lines = vec![Line::bad(format!("Server error: {}", self.text_or_all("message")))];
        if !self.field("original_data").is_null() {
            let related = format!("   Related to: {}", self.text("original_data"));
            lines.push(Line::warning(related).marked(Mark::None));
        }
        lines
    }

    fn server_status(&self) -> Vec<Line> {
        let rooms: Vec<_> = self.field("client_rooms").elements().iter().map(Json::words).collect();
        let rooms = if rooms.is_empty() { "none".to_owned() } else { rooms.join(", ") };
        let uptime = self.field("server_uptime").get::<f64>().unwrap_or_default();
        let indented = |words: String| Line::info(words).marked(Mark::None);
        vec![
            Line::info("Server status:"),
            indented(format!("    Connected clients: {}", self.text("total_clients"))),
            indented(format!("    Server uptime: {uptime:.1} seconds")),
            indented(format!("    My rooms: {rooms}")),
            indented(format!("    My messages: {}", self.text("client_messages"))),
        ]
    }

    fn text_or_all(&self, name: &str) -> String {
        match self.field(name) {
            value if value.is_null() => self.value.words(),
            value => value.words(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn arrival(event: &str, value: Value) -> Arrival {
        Arrival { event: event.to_owned(), value: value.into(), args: 1, at: Instant::now() }
    }

    #[rstest]
    #[case("message", json!("hi"), "Server message: hi", Tone::Server)]
    #[case("message_received", json!({"message": "hi"}), "Message confirmed: hi", Tone::Good)]
    #[case("message_received", json!({"message": [1]}), "Message confirmed: [1]", Tone::Good)]
    #[case("broadcast_message", json!({"sender": "x", "message": "hi"}), "Broadcast from x: hi", Tone::People)]
    #[case("broadcast_message", json!("hi"), "Broadcast: hi", Tone::People)]
    #[case("room_joined", json!({"room": "r", "status": "joined"}), "Joined room: r", Tone::Good)]
    #[case("room_joined", json!({"room": "r", "status": "already_in_room"}), "Already in room: r", Tone::Warning)]
    #[case("room_left", json!({"room": "r", "status": "left"}), "Left room: r", Tone::Warning)]
    #[case("room_left", json!({"room": "r", "status": "not_in_room"}), "You weren't in room: r", Tone::Warning)]
    #[case("user_joined_room", json!({"user_id": "u", "room": "r"}), "User u joined room r", Tone::Info)]
    #[case("user_left_room", json!({"user_id": "u", "room": "r"}), "User u left room r", Tone::Info)]
    #[case("room_broadcast", json!({"sender": "u", "room": "r", "message": "hi"}), "Room r - u: hi", Tone::People)]
    #[case("client_notification", json!({"type": "user_connected", "total_clients": 2}),
           "New user connected (Total: 2)", Tone::Good)]
    #[case("client_notification", json!({"type": "user_disconnected", "total_clients": 1}),
           "User disconnected (Total: 1)", Tone::Bad)]
    #[case("client_notification", json!({"type": "x"}), r#"Notification: {"type":"x"}"#, Tone::Info)]
    #[case("server_notification", json!({"type": "server_shutdown", "message": "bye"}),
           "SERVER SHUTTING DOWN: bye", Tone::Bad)]
    #[case("server_notification", json!({"message": "hello"}), "Server notification: hello", Tone::Server)]
    #[case("other", json!(1), "Event \"other\": 1", Tone::Info)]
    fn the_words_of_the_contract(
        #[case] event: &str,
        #[case] value: Value,
        #[case] words: &str,
        #[case] tone: Tone,
    ) {
        let lines = arrival(event, value).lines();
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].text.as_str(), lines[0].tone), (words, tone));
    }

    /// Values that JavaScript can send but Rust's strings and numbers cannot hold are printed as received,
    /// beside a readable form.
    #[rstest]
    #[case::half_an_emoji(r#""\ud83d""#)]
    #[case::digits("12345678901234567890123")]
    #[case::beyond_every_float("1e999")]
    #[case::equal_keys(r#"{"a":1,"a":2}"#)]
    fn values_are_shown_as_they_came(#[case] json: &str) {
        let payload = format!(r#"{{"sender":"ann","\ud83d":0,"message":{json}}}"#);
        let arrival = |event: &str| Arrival {
            event: event.to_owned(),
            value: payload.parse().unwrap(),
            args: 1,
            at: Instant::now(),
        };
        assert_eq!(arrival("broadcast_message").lines()[0].text, format!("Broadcast from ann: {json}"));
        assert_eq!(arrival("message").lines()[0].text, format!("Server message: {payload}"));
        assert_eq!(arrival("other").lines()[0].text, format!("Event \"other\": {payload}"));
    }

    #[test]
    fn the_welcome_says_who_one_is() {
        let welcome = json!({"data": "Welcome!", "server_time": 1.0, "client_id": "abc", "total_clients": 3});
        let lines = arrival("message", welcome).lines();
        assert_eq!(lines[0].text, "Server message: Welcome! (your id: abc)");
    }

    #[test]
    fn an_error_says_what_it_is_about() {
        let lines = arrival("error", json!({"message": "no", "original_data": "{\"a\":1}"})).lines();
        assert_eq!((lines[0].text.as_str(), lines[0].tone), ("Server error: no", Tone::Bad));
        assert_eq!((lines[1].text.as_str(), lines[1].tone), ("   Related to: {\"a\":1}", Tone::Warning));
    }
}
