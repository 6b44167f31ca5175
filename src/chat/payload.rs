//! Payloads of the server's events: one struct for each event, keys in the order on the wire.
//!
//! The server uses borrowed texts and raw values; a client reads them as `Welcome<'static>` or
//! `BroadcastMessage<'static, serde_json::Value>`.

use std::{
    borrow::Cow,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// Seconds since 1970, with fractions.
pub type Timestamp = f64;

/// The current time, in milliseconds precision.
#[must_use]
pub fn now() -> Timestamp {
    // A clock before 1970 counts as 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    seconds(since)
}

/// A duration in seconds, to the millisecond.
pub(super) fn seconds(duration: std::time::Duration) -> f64 {
    duration.as_millis() as f64 / 1_000.0
}

/// `message` from the server: the first event after CONNECT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome<'a> {
    /// The greeting.
    pub data: Cow<'a, str>,
    /// Uptime of the server in seconds.
    pub server_time: f64,
    /// Socket id of the new client.
    pub client_id: Cow<'a, str>,
    /// Clients connected, the new one included.
    pub total_clients: usize,
}

/// `client_notification`: another client connected or disconnected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientNotification<'a> {
    /// `user_connected` or `user_disconnected`.
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    /// Socket id of that client.
    pub user_id: Cow<'a, str>,
    /// Clients connected after it.
    pub total_clients: usize,
    /// Time of the event.
    pub timestamp: Timestamp,
}

/// `server_notification`: the state of the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerNotification<'a> {
    /// `server_shutdown`.
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    /// Readable text.
    pub message: Cow<'a, str>,
    /// Time of the event.
    pub timestamp: Timestamp,
}

/// `message_received`: the recipient's message was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageReceived<'a, M> {
    /// Socket id of the recipient.
    pub sender: Cow<'a, str>,
    /// The message as sent.
    pub message: M,
    /// Time of the event.
    pub timestamp: Timestamp,
    /// `<sender>_<n>`, n counting this client's accepted messages from 1.
    pub message_id: Cow<'a, str>,
}

/// `broadcast_message`: the message of another client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BroadcastMessage<'a, M> {
    /// Socket id of that client.
    pub sender: Cow<'a, str>,
    /// The message as sent.
    pub message: M,
    /// Time of the event.
    pub timestamp: Timestamp,
    /// Clients connected.
    pub total_clients: usize,
}

/// `custom_response`: a custom event was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustomResponse<'a, D> {
    /// `received`.
    pub status: Cow<'a, str>,
    /// The data as sent.
    pub original_data: D,
    /// `server`.
    pub processed_by: Cow<'a, str>,
    /// Socket id of the recipient.
    pub client_id: Cow<'a, str>,
    /// Time of the event.
    pub timestamp: Timestamp,
    /// Bytes of the data's JSON.
    pub data_size: usize,
}

/// `room_joined`: the recipient is in the room, newly or already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomJoined<'a> {
    /// The room, trimmed.
    pub room: Cow<'a, str>,
    /// `joined`, or `already_in_room` without the two numbers.
    pub status: Cow<'a, str>,
    /// Members, the new one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_members: Option<usize>,
    /// Time of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
}

/// `user_joined_room`: another client joined a room of the recipient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserJoinedRoom<'a> {
    /// Socket id of that client.
    pub user_id: Cow<'a, str>,
    /// The room.
    pub room: Cow<'a, str>,
    /// Members, the new one included.
    pub room_members: usize,
    /// Time of the event.
    pub timestamp: Timestamp,
}

/// `room_left`: the recipient is not in the room any more, or never was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomLeft<'a> {
    /// The room, trimmed.
    pub room: Cow<'a, str>,
    /// `left`, or `not_in_room` without the two numbers.
    pub status: Cow<'a, str>,
    /// Remaining members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_members: Option<usize>,
    /// Time of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
}

/// `user_left_room`: another client left a room of the recipient, or disconnected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserLeftRoom<'a> {
    /// Socket id of that client.
    pub user_id: Cow<'a, str>,
    /// The room.
    pub room: Cow<'a, str>,
    /// `user_left_room`.
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    /// Remaining members.
    pub remaining_members: usize,
    /// Time of the event.
    pub timestamp: Timestamp,
}

/// `room_broadcast`: a message in a room of the recipient, also its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomBroadcast<'a, M> {
    /// Socket id of that client.
    pub sender: Cow<'a, str>,
    /// The room.
    pub room: Cow<'a, str>,
    /// The message as sent.
    pub message: M,
    /// Time of the event.
    pub timestamp: Timestamp,
    /// Members.
    pub room_members: usize,
}

/// `server_status`: the status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus<'a> {
    /// Clients connected.
    pub total_clients: usize,
    /// Uptime of the server in seconds.
    pub server_uptime: f64,
    /// Rooms of the recipient, in no fixed order.
    pub client_rooms: Vec<Cow<'a, str>>,
    /// Accepted `message` events of the recipient.
    pub client_messages: u64,
    /// Time of the event.
    pub timestamp: Timestamp,
}

/// `error`: an event was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorReport<'a> {
    /// Always true.
    pub error: bool,
    /// The reason: the text of a [`Refusal`](super::Refusal).
    pub message: Cow<'a, str>,
    /// Time of the event.
    pub timestamp: Timestamp,
    /// Socket id of the recipient.
    pub client_id: Cow<'a, str>,
    /// The offending data as JSON text, at most [`ORIGINAL_DATA_MAX`] characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_data: Option<Cow<'a, str>>,
}

/// Characters of [`ErrorReport::original_data`].
pub const ORIGINAL_DATA_MAX: usize = 500;

/// The answer to `GET /health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health<'a> {
    /// [`HEALTHY`](Self::HEALTHY), [`DEGRADED`](Self::DEGRADED) or [`SHUTTING_DOWN`](Self::SHUTTING_DOWN).
    pub status: Cow<'a, str>,
    /// Clients connected.
    pub clients: u64,
    /// Time of the event.
    pub timestamp: Timestamp,
    /// Uptime of the server in seconds.
    pub uptime: f64,
    /// The server's version.
    pub version: Cow<'a, str>,
    /// State of the store, if there is one: `working`, or `failed: ` and the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Cow<'a, str>>,
    /// The problems of a degraded server, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Cow<'a, str>>,
}

impl Health<'_> {
    /// No problems. HTTP status 200.
    pub const HEALTHY: &'static str = "healthy";
    /// The server works but has a problem: its store has failed, or it is full. HTTP status 200, because a load
    /// balancer should not remove it for that.
    pub const DEGRADED: &'static str = "degraded";
    /// New clients are not accepted any more. HTTP status 503.
    pub const SHUTTING_DOWN: &'static str = "shutting_down";

    /// Whether new clients are accepted: the server is healthy or degraded.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        [Self::HEALTHY, Self::DEGRADED].contains(&&*self.status)
    }
}
