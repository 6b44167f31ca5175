//! Constants of the protocols: official defaults, and limits that bound memory.

use std::time::Duration;

/// Engine.IO protocol revision, the `EIO` query parameter.
pub const ENGINE_PROTOCOL: &str = "4";

/// Default path of the Socket.IO endpoint, the official `path` option.
pub const DEFAULT_PATH: &str = "/socket.io/";

/// The default namespace, which is not written in a packet.
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

/// Most attachments of one packet; the official parser's `maxAttachments`. A packet with more is refused, and
/// never sent, because the JavaScript parser closes the connection.
pub const MAX_ATTACHMENTS: usize = 10;

/// Most packets in one polling payload that is *sent*. The Python implementation refuses a 17th and drops the
/// connection. Received payloads are limited by their bytes.
pub const MAX_SENT_PACKETS: usize = 16;

/// Most bytes of a namespace name. The official server has no limit.
pub const MAX_NAMESPACE: usize = 256;

/// Most digits of an acknowledgement id: a `u64` has at most 20.
pub const MAX_ACK_DIGITS: usize = 20;

/// Default of `max_depth`: levels of arrays and objects in one argument of an event or an acknowledgement, or
/// in the payload of a CONNECT or a CONNECT_ERROR. A deeper packet is a parse error. The official
/// implementations have no limit.
pub const MAX_JSON_DEPTH: usize = 2_000;

/// Levels that a handler can read into a type, or send on, from an argument of a packet with attachments; more
/// is an error of that call, and the connection stays. This is half of the 127 levels that `serde_json` reads
/// (the limit without attachments), because looking for bytes takes twice the stack.
pub const MAX_READ_DEPTH: usize = 64;

/// Reserved event names (SIO "Event"; the parser's `RESERVED_EVENTS`). `connection` is not one of them.
pub const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];
