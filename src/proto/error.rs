//! The protocol errors of a peer: one variant for each rule.

/// A rule of Engine.IO v4 or Socket.IO v5 that the peer broke. Each error closes the connection with
/// [`CloseReason::ParseError`](super::CloseReason::ParseError), as in the official server; in a client, all but
/// [`AckWithoutId`](Self::AckWithoutId).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// EIO "Packet encoding": a packet has at least its type.
    #[error("empty packet")]
    EmptyPacket,
    /// EIO "Packet types": `0` to `6`.
    #[error("unknown engine packet type")]
    UnknownEngineType,
    /// EIO "Packet encoding": a packet without data has nothing after its type.
    #[error("unexpected data after the packet type")]
    UnexpectedData,
    /// EIO "Handshake": the data of an open packet.
    #[error("malformed open packet")]
    BadOpenPacket,
    /// EIO "Heartbeat": the server pings, the client answers.
    #[error("invalid heartbeat direction")]
    HeartbeatDirection,
    /// EIO "HTTP long-polling": binary data is a `b` and standard base64 with padding.
    #[error("invalid base64 in a binary packet")]
    BadBase64,
    /// A payload or a text message that is not UTF-8.
    #[error("invalid UTF-8")]
    BadUtf8,
    /// EIO "Upgrade": the first packet on the new transport is `2probe`.
    #[error("the upgrade did not begin with a probe")]
    ProbeExpected,
    /// EIO "Upgrade": `5` follows the probe.
    #[error("an upgrade packet was expected after the probe")]
    UpgradeExpected,

    /// SIO "Packet types": `0` to `6`.
    #[error("unknown packet type")]
    UnknownType,
    /// SIO "Packet encoding": the count of attachments, decimal, from 1, then `-`.
    #[error("malformed number of attachments")]
    BadAttachmentCount,
    /// More attachments than [`MAX_ATTACHMENTS`](super::limits::MAX_ATTACHMENTS), or than configured.
    #[error("too many attachments")]
    TooManyAttachments,
    /// Text and attachments of one packet exceed the configured size.
    #[error("binary packet too large")]
    PacketTooLarge,
    /// A namespace name longer than [`MAX_NAMESPACE`](super::limits::MAX_NAMESPACE).
    #[error("namespace too long")]
    NamespaceTooLong,
    /// SIO "Packet encoding": a comma stands between the namespace and the JSON.
    #[error("malformed namespace")]
    BadNamespace,
    /// SIO "Packet encoding": the acknowledgement id, decimal, at most `u64::MAX`.
    #[error("malformed acknowledgement id")]
    BadAckId,
    /// SIO "Acknowledgement": an ACK names the event it answers. Our client ignores such a packet, as the
    /// official client does; the server closes the connection.
    #[error("acknowledgement without id")]
    AckWithoutId,
    /// The data is not JSON, or something follows it.
    #[error("malformed JSON")]
    BadJson,
    /// More levels of arrays and objects than configured, by default [`MAX_JSON_DEPTH`](super::limits::MAX_JSON_DEPTH).
    #[error("too many levels of arrays and objects")]
    TooDeep,
    /// SIO "Packet types": each type has its own form of data.
    #[error("invalid payload for the packet type")]
    InvalidPayload,
    /// SIO "Event": the array begins with a name. A number counts as a name, as in the official parser.
    #[error("event name is neither a string nor a number")]
    BadEventName,
    /// SIO "Event": a name that is reserved for the protocol.
    #[error("reserved event name")]
    ReservedEvent,
    /// A placeholder that names no attachment of its packet.
    #[error("illegal attachments")]
    IllegalAttachments,
    /// A text packet while attachments of an earlier packet are missing.
    #[error("got plaintext data when reconstructing a packet")]
    TextWhileReconstructing,
    /// An attachment that no packet announced.
    #[error("got binary data when not reconstructing a packet")]
    UnexpectedBinary,
    /// SIO "Connection": one CONNECT per namespace and session.
    #[error("already connected to this namespace")]
    AlreadyConnected,
    /// SIO "Connection": a packet for a namespace that the session has not joined.
    #[error("not connected to this namespace")]
    NotConnected,
    /// A packet that only the other side may send.
    #[error("packet from the wrong side")]
    WrongSide,
}
