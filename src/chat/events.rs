//! Event names.

/// Client → server: any value for all clients. Server → client: the welcome.
pub const MESSAGE: &str = "message";
/// Client → server: any JSON, answered with [`CUSTOM_RESPONSE`].
pub const CUSTOM_EVENT: &str = "custom_event";
/// Client → server: enter a room.
pub const JOIN_ROOM: &str = "join_room";
/// Client → server: leave a room.
pub const LEAVE_ROOM: &str = "leave_room";
/// Client → server: a message to a joined room.
pub const ROOM_MESSAGE: &str = "room_message";
/// Client → server: request of the status.
pub const GET_SERVER_STATUS: &str = "get_server_status";

/// Server → client: a [`MESSAGE`] was accepted.
pub const MESSAGE_RECEIVED: &str = "message_received";
/// Server → client: the [`MESSAGE`] of another client.
pub const BROADCAST_MESSAGE: &str = "broadcast_message";
/// Server → client: the answer to [`CUSTOM_EVENT`].
pub const CUSTOM_RESPONSE: &str = "custom_response";
/// Server → client: the answer to [`JOIN_ROOM`].
pub const ROOM_JOINED: &str = "room_joined";
/// Server → client: the answer to [`LEAVE_ROOM`].
pub const ROOM_LEFT: &str = "room_left";
/// Server → client: another client joined a room of the recipient.
pub const USER_JOINED_ROOM: &str = "user_joined_room";
/// Server → client: another client left a room of the recipient, or disconnected.
pub const USER_LEFT_ROOM: &str = "user_left_room";
/// Server → client: a [`ROOM_MESSAGE`], also to its sender.
pub const ROOM_BROADCAST: &str = "room_broadcast";
/// Server → client: the answer to [`GET_SERVER_STATUS`].
pub const SERVER_STATUS: &str = "server_status";
/// Server → client: an event was refused.
pub const ERROR: &str = "error";
/// Server → client: another client connected or disconnected.
pub const CLIENT_NOTIFICATION: &str = "client_notification";
/// Server → client: a notification about the server.
pub const SERVER_NOTIFICATION: &str = "server_notification";
