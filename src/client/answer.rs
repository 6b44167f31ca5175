//! What the server's HTTP answers mean for an attempt: the text of a good one, the error of any other.
//!
//! Owns nothing. Uses [`Error`] and the client's HTTP types.

use super::{Error, http::Reply};
use crate::proto::engine::TransportKind;

/// The body of a successful answer to a poll.
pub(super) fn text(reply: Reply) -> Result<String, Error> {
    if reply.status != 200 {
        return Err(unexpected(TransportKind::Polling, reply.status, reply.location.as_deref(), &reply.body));
    }
    String::from_utf8(reply.body.to_vec()).map_err(|_| {
        let detail = format!("an answer that is not text ({})", reply.content_type);
        Error::handshake(TransportKind::Polling, Some(reply.status), detail)
    })
}

/// The error of an unexpected HTTP answer.
pub(super) fn unexpected(
    transport: TransportKind,
    status: u16,
    location: Option<&str>,
    body: &[u8],
) -> Error {
    #[derive(serde::Deserialize)]
    struct Refusal {
        code: u32,
        message: String,
    }
    let detail = match (location, serde_json::from_slice(body)) {
        (Some(location), _) if (300..400).contains(&status) => {
            format!("status {status}, a redirect to {location}, which is not followed")
        }
        (_, Ok(Refusal { code, message })) => format!("status {status}: {message} (code {code})"),
        _ if body.is_empty() => format!("status {status}"),
        _ => format!("status {status}: {}", excerpt(body)),
    };
    Error::handshake(transport, Some(status), detail)
}

/// The beginning of an answer, quoted.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]);
    if bytes.len() > 100 { format!("{text:?}…") } else { format!("{text:?}") }
}
