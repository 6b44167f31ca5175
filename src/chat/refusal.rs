//! Why the server refuses an event: one variant and one text for each rule.

use std::fmt;

/// The reason in the `error` event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The client is not registered: its welcome failed.
    #[error("Client not properly connected")]
    NotRegistered,
    /// Faster than [`Options::rate`](super::Options::rate) allows.
    #[error("Rate limit exceeded")]
    RateLimited,
    /// A message of `null`, or a room message that is not a string, object or list.
    #[error("Invalid message format")]
    InvalidMessage,
    /// A message with more characters than the limit, which is the value.
    #[error("Message too long (max {})", Thousands(*.0))]
    MessageTooLong(usize),
    /// A custom event of `null`.
    #[error("Invalid custom event data")]
    InvalidCustomEvent,
    /// A custom event with this number of bytes.
    #[error("Custom event data too large: {0} bytes")]
    CustomEventTooLarge(usize),
    /// A custom event with binary values, which JSON cannot hold.
    #[error("Custom event data not serializable")]
    CustomEventNotSerializable,
    /// A join without a room.
    #[error("Invalid room join request - 'room' field required")]
    JoinWithoutRoom,
    /// A leave without a room.
    #[error("Invalid room leave request - 'room' field required")]
    LeaveWithoutRoom,
    /// A room message that lacks one of its fields.
    #[error("Invalid room message - 'room' and 'message' fields required")]
    RoomMessageIncomplete,
    /// A join of a value that is not a string.
    #[error("Room name must be a string")]
    RoomNotString,
    /// A name with more characters than the limit, which is the value.
    #[error("Room name too long (max {0} characters)")]
    RoomNameTooLong(usize),
    /// A join of a blank name.
    #[error("Room name cannot be empty")]
    RoomNameEmpty,
    /// A name with one of `< > " ' &` or a control character.
    #[error("Room name contains invalid characters")]
    RoomNameForbidden,
    /// A leave of, or message to, a room whose name is blank or not a string.
    #[error("Invalid room name")]
    InvalidRoom,
    /// The client is in the maximum number of rooms, which is the value.
    #[error("Too many rooms (max {0})")]
    TooManyRooms(usize),
    /// A room message with more characters than the limit, which is the value.
    #[error("Room message too long (max {})", Thousands(*.0))]
    RoomMessageTooLong(usize),
    /// A message to a room that the sender is not in, whether it exists or not.
    #[error("You are not in room '{0}'. Join the room first.")]
    NotInRoom(String),
    /// The event was valid, but its answer could not be sent.
    #[error("Failed to {0}")]
    Failed(&'static str),
    /// The welcome could not be sent.
    #[error("Connection error occurred")]
    Connection,
}

/// Whether an `error` quotes the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quote {
    Never,
    /// Unless it is empty, zero, false or null.
    IfTruthy,
    Always,
}

impl Refusal {
    pub(super) fn quote(&self) -> Quote {
        match self {
            Self::JoinWithoutRoom | Self::LeaveWithoutRoom | Self::RoomMessageIncomplete => Quote::IfTruthy,
            Self::Failed(doing) if *doing != GET_STATUS => Quote::Always,
            _ => Quote::Never,
        }
    }
}

/// The text of [`Refusal::Failed`] for `get_server_status`, whose argument is ignored and not quoted.
pub(super) const GET_STATUS: &str = "get server status";

/// A readable limit: 10KB for 10,000.
struct Thousands(usize);

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            limit if limit > 0 && limit % 1_000 == 0 => write!(f, "{}KB", limit / 1_000),
            limit => write!(f, "{limit} characters"),
        }
    }
}
