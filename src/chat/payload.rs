//! What the server's events carry: one struct an event, keys in the order in which they travel.
//!
//! The server fills them with borrowed texts and raw values; a client reads them as `Welcome<'static>` or
//! `BroadcastMessage<'static, serde_json::Value>`.

use std::{
    borrow::Cow,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// Seconds since 1970, with fractions.
pub type Timestamp = f64;

/// This moment, to the millisecond.
#[must_use]
pub fn now() -> Timestamp {
    // A clock before 1970 is as good as one at 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    seconds(since)
}

/// A duration in seconds, to the millisecond.
pub(super) fn seconds(duration: std::time::Duration) -> f64 {
    duration.as_millis() as f64 / 1_000.0
}

/// `message`, from the server: the first thing after CONNECT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome<'a> {
    /// The greeting.
    pub data: Cow<'a, str>,
    /// Seconds that the server has been up.
    pub server_time: f64,
    /// The newcomer's socket id.
    pub client_id: Cow<'a, str>,
    /// Clients connected, the newcomer included.
    pub total_clients: usize,
}

/// `client_notification`: somebody else came or went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientNotification<'a> {
    /// `user_connected` or `user_disconnected`.
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    /// Whose socket id.
    pub user_id: Cow<'a, str>,
    /// Clients connected afterwards.
    pub total_clients: usize,
    /// When.
    pub timestamp: Timestamp,
}

/// `server_notification`: the server about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerNotification<'a> {
    /// `server_shutdown`.
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    /// The same for people.
    pub message: Cow<'a, str>,
    /// When.
    pub timestamp: Timestamp,
}

/// `message_received`: one's own message was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageReceived<'a, M> {
    /// One's own socket id.
    pub sender: Cow<'a, str>,
    /// The message, as it was sent.
    pub message: M,
    /// When.
    pub timestamp: Timestamp,
    /// `<sender>_<n>`, n counting this client's accepted messages from 1.
    pub message_id: Cow<'a, str>,
}

/// `broadcast_message`: somebody else's message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BroadcastMessage<'a, M> {
    /// Whose socket id.
    pub sender: Cow<'a, str>,
    /// The message, as it was sent.
    pub message: M,
    /// When.
    pub timestamp: Timestamp,
    /// Clients connected.
    pub total_clients: usize,
}

/// `custom_response`: a custom event was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustomResponse<'a, D> {
    /// `received`.
    pub status: Cow<'a, str>,
    /// The data, as they were sent.
    pub original_data: D,
    /// `server`.
    pub processed_by: Cow<'a, str>,
    /// One's own socket id.
    pub client_id: Cow<'a, str>,
    /// When.
    pub timestamp: Timestamp,
    /// Bytes of the data's JSON.
    pub data_size: usize,
}

/// `room_joined`: one is in the room, newly or still.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomJoined<'a> {
    /// The room, trimmed.
    pub room: Cow<'a, str>,
    /// `joined`, or `already_in_room` without the two figures.
    pub status: Cow<'a, str>,
    /// Members, the joiner included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_members: Option<usize>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
}

/// `user_joined_room`: somebody else entered a room that one is in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserJoinedRoom<'a> {
    /// Whose socket id.
    pub user_id: Cow<'a, str>,
    /// The room.
    pub room: Cow<'a, str>,
    /// Members, the joiner included.
    pub room_members: usize,
    /// When.
    pub timestamp: Timestamp,
}

/// `room_left`: one is not in the room, no longer or never was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomLeft<'a> {
    /// The room, trimmed.
    pub room: Cow<'a, str>,
    /// `left`, or `not_in_room` without the two figures.
    pub status: Cow<'a, str>,
    /// Members, without the leaver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_members: Option<usize>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
}

/// `user_left_room`: somebody else left a room that one is in, by leaving it or by disconnecting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserLeftRoom<'a> {
    /// Whose socket id.
    pub user_id: Cow<'a, str>,
    /// The room.
    pub room: Cow<'a, str>,
    /// `user_left_room`.
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    /// Members, without the leaver.
    pub remaining_members: usize,
    /// When.
    pub timestamp: Timestamp,
}

/// `room_broadcast`: a message in a room that one is in, also one's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomBroadcast<'a, M> {
    /// Whose socket id.
    pub sender: Cow<'a, str>,
    /// The room.
    pub room: Cow<'a, str>,
    /// The message, as it was sent.
    pub message: M,
    /// When.
    pub timestamp: Timestamp,
    /// Members.
    pub room_members: usize,
}

/// `server_status`: the figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus<'a> {
    /// Clients connected.
    pub total_clients: usize,
    /// Seconds that the server has been up.
    pub server_uptime: f64,
    /// The rooms that one is in, in no fixed order.
    pub client_rooms: Vec<Cow<'a, str>>,
    /// One's own accepted `message` events.
    pub client_messages: u64,
    /// When.
    pub timestamp: Timestamp,
}

/// `error`: an event was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorReport<'a> {
    /// Always true.
    pub error: bool,
    /// Why: the text of a [`Refusal`](super::Refusal).
    pub message: Cow<'a, str>,
    /// When.
    pub timestamp: Timestamp,
    /// One's own socket id.
    pub client_id: Cow<'a, str>,
    /// The offending data as JSON text, at most [`ORIGINAL_DATA_MAX`] characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_data: Option<Cow<'a, str>>,
}

/// Characters of [`ErrorReport::original_data`].
pub const ORIGINAL_DATA_MAX: usize = 500;

/// What `GET /health` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health<'a> {
    /// [`HEALTHY`](Self::HEALTHY), [`DEGRADED`](Self::DEGRADED) or [`SHUTTING_DOWN`](Self::SHUTTING_DOWN).
    pub status: Cow<'a, str>,
    /// Clients connected.
    pub clients: u64,
    /// When.
    pub timestamp: Timestamp,
    /// Seconds that the server has been up.
    pub uptime: f64,
    /// The server's version.
    pub version: Cow<'a, str>,
    /// How the store is, if the server was given one: `working`, or `failed: ` and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Cow<'a, str>>,
    /// What is wrong, if the server is degraded: a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Cow<'a, str>>,
}

impl Health<'_> {
    /// It does all that it was asked for. HTTP status 200.
    pub const HEALTHY: &'static str = "healthy";
    /// It serves, and something is wrong: its store has failed, or it is full. HTTP status 200, because a server that is
    /// taken out of its load balancer for that serves nobody.
    pub const DEGRADED: &'static str = "degraded";
    /// It takes no new clients any more. HTTP status 503.
    pub const SHUTTING_DOWN: &'static str = "shutting_down";

    /// Whether clients may come: the server is healthy or degraded.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        [Self::HEALTHY, Self::DEGRADED].contains(&&*self.status)
    }
}
