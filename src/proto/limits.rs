//! The protocols' numbers: official defaults and the bounds that keep memory finite.

use std::time::Duration;

/// Engine.IO protocol revision, the `EIO` query parameter.
pub const ENGINE_PROTOCOL: &str = "4";

/// Default path of the Socket.IO endpoint, the official `path` option.
pub const DEFAULT_PATH: &str = "/socket.io/";

/// The namespace that is written as nothing.
pub const DEFAULT_NAMESPACE: &str = "/";

/// Official `pingInterval`: how often the server pings.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);

/// Official `pingTimeout`: how long the server waits for the pong.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Official `upgradeTimeout`: how long a probing WebSocket may take to finish the upgrade.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Official `connectTimeout`: how long a session may live without a namespace.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);

/// Official `maxHttpBufferSize`: bytes of one WebSocket message or one polling request body.
pub const MAX_HTTP_BUFFER_SIZE: usize = 1_000_000;

/// Attachments that one packet may announce; the official parser's `maxAttachments`. More are refused, and never
/// sent, because the JavaScript parser closes the connection on an eleventh.
pub const MAX_ATTACHMENTS: usize = 10;

/// Packets in one polling payload that we *send*. The Python implementation refuses a seventeenth and drops the
/// connection; what we accept is bounded by the bytes instead.
pub const MAX_SENT_PACKETS: usize = 16;

/// Bytes of a namespace's name. The official server has no limit.
pub const MAX_NAMESPACE: usize = 256;

/// Digits of an acknowledgement id: every `u64` has at most twenty.
pub const MAX_ACK_DIGITS: usize = 20;

/// Default of `max_depth`: levels of arrays and objects in one argument of an event or an acknowledgement, or in the
/// payload of a CONNECT or a CONNECT_ERROR, with attachments and without. A deeper packet is a parse error. The official
/// implementations have no limit.
pub const MAX_JSON_DEPTH: usize = 2_000;

/// Levels that a handler reads into a type, or sends on, from an argument of a packet with attachments; for more it
/// gets an error, and the connection goes on. Half of what `serde_json` reads (127 levels, which is the limit without
/// attachments), because looking for bytes on the way takes twice its stack.
pub const MAX_READ_DEPTH: usize = 64;

/// Event names that the protocol keeps for itself (SIO "Event"; the parser's `RESERVED_EVENTS`). `connection` is
/// not one of them.
pub const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];
