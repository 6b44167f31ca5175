//! One open Engine.IO session: its transport, its send queue, its end, and its upgrade to WebSocket.
//!
//! Owns what begins and ends with the session. Uses [`SendQueue`], [`CancelToken`] and the WebSocket that takes over.
//! It must not lock, log, or know the namespaces.

use std::{sync::Arc, time::Instant};

use super::{Error, cancel::CancelToken, send_queue::SendQueue, websocket::WebSocket};
use crate::proto::{
    CloseReason,
    engine::{Open, TransportKind, payload},
    socket::{Encoded, Frame, Opcode},
};

/// A session from its handshake to its end.
pub(super) struct Session {
    /// What waits to be written.
    pub(super) queue: SendQueue,
    epoch: u64,
    sid: String,
    transport: TransportKind,
    max_payload: Option<usize>,
    /// Whether a namespace was ever joined in this session: only then does the attempt count as a success.
    joined: bool,
    /// The deadline for the first namespace.
    join_by: Instant,
    /// When the attempt began.
    begun: Instant,
    closing: Option<Closing>,
    upgrade: Upgrade,
}

/// A session that is being closed: no new packets are accepted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    /// The deadline for what is not written yet.
    pub(super) by: Instant,
    pub(super) reason: CloseReason,
    /// Whether everything was written.
    pub(super) flushed: bool,
}

/// The state of the upgrade from polling to WebSocket.
enum Upgrade {
    /// Impossible, off, failed, or done.
    Settled,
    /// The `backoff` thread is to probe, not before `after`. When the probe fails, it is repeated so many times.
    Wanted { after: Option<Instant>, retries: u32 },
    /// A probe is under way. The token cancels the probe, not the session.
    Probing(Arc<CancelToken>),
    /// The probe has succeeded. Polling ends with its next answer, and `link` takes the WebSocket.
    Ready(Box<WebSocket>),
}

/// The transport and the times of a new session.
pub(super) struct Begin {
    pub(super) transport: TransportKind,
    /// Whether an upgrade is wanted.
    pub(super) upgrade: bool,
    pub(super) begun: Instant,
    pub(super) join_by: Instant,
}

impl Session {
    pub(super) fn new(epoch: u64, open: &Open, begin: &Begin) -> Self {
        Self {
            queue: SendQueue::default(),
            epoch,
            sid: open.sid.clone(),
            transport: begin.transport,
            max_payload: open.max_payload.and_then(|max| max.try_into().ok()),
            joined: false,
            join_by: begin.join_by,
            begun: begin.begun,
            closing: None,
            upgrade: if begin.upgrade {
                Upgrade::Wanted { after: None, retries: 0 }
            } else {
                Upgrade::Settled
            },
        }
    }

    /// Its number: each session of a client has a higher one.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn sid(&self) -> &str {
        &self.sid
    }

    pub(super) fn transport(&self) -> TransportKind {
        self.transport
    }

    /// The largest message that the server takes.
    pub(super) fn max_payload(&self) -> Option<usize> {
        self.max_payload
    }

    /// Whether the server takes a packet of this size.
    pub(super) fn check_size(&self, encoded: &Encoded) -> Result<(), Error> {
        let Some(max) = self.max_payload else { return Ok(()) };
        let size_on_wire = |frame: Frame<'_>| match (self.transport, frame.opcode) {
            (TransportKind::Polling, Opcode::Binary) => payload::binary_len(frame.data.len()),
            _ => frame.data.len(),
        };
        match encoded.frames().map(size_on_wire).max() {
            Some(size) if size > max => Err(Error::TooLarge { size, max }),
            _ => Ok(()),
        }
    }

    pub(super) fn is_joined(&self) -> bool {
        self.joined
    }

    /// A namespace is joined. For the first one, gives when the attempt began.
    pub(super) fn joined(&mut self) -> Option<Instant> {
        (!std::mem::replace(&mut self.joined, true)).then_some(self.begun)
    }

    /// Until when a namespace must be joined. `None`: one was joined, or the session is being closed.
    pub(super) fn join_deadline(&self) -> Option<Instant> {
        (!self.joined && self.closing.is_none()).then_some(self.join_by)
    }

    pub(super) fn closing(&self) -> Option<Closing> {
        self.closing
    }

    /// Begins to close. The first call counts.
    pub(super) fn close(&mut self, reason: CloseReason, by: Instant) {
        self.closing.get_or_insert(Closing { by, reason, flushed: false });
    }

    /// Everything that was emitted before [`close`](Self::close) is written.
    pub(super) fn flushed(&mut self) {
        if let Some(closing) = &mut self.closing {
            closing.flushed = true;
        }
    }

    /// Whether a probe is to be made now.
    pub(super) fn wants_probe(&self, now: Instant) -> bool {
        matches!(self.upgrade, Upgrade::Wanted { after, .. } if after.is_none_or(|at| at <= now))
    }

    /// When a delayed probe is to be made.
    pub(super) fn next_probe(&self) -> Option<Instant> {
        if let Upgrade::Wanted { after, .. } = self.upgrade { after } else { None }
    }

    /// Begins a probe. Gives how many times it may be repeated.
    pub(super) fn begin_probe(&mut self, token: &Arc<CancelToken>) -> u32 {
        match std::mem::replace(&mut self.upgrade, Upgrade::Probing(token.clone())) {
            Upgrade::Wanted { retries, .. } => retries,
            _ => 0,
        }
    }

    /// The probe was cancelled, or has failed and may be repeated.
    pub(super) fn repeat_probe(&mut self, after: Option<Instant>, retries: u32) {
        self.upgrade = Upgrade::Wanted { after, retries };
    }

    /// The probe has ended: with a WebSocket, or for good.
    pub(super) fn end_probe(&mut self, websocket: Option<Box<WebSocket>>) {
        self.upgrade = websocket.map_or(Upgrade::Settled, Upgrade::Ready);
    }

    /// The probe that is under way.
    pub(super) fn probe(&self) -> Option<&CancelToken> {
        if let Upgrade::Probing(token) = &self.upgrade { Some(token) } else { None }
    }

    /// Whether a WebSocket is ready to take over.
    pub(super) fn is_upgrading(&self) -> bool {
        matches!(self.upgrade, Upgrade::Ready(_))
    }

    /// Moves the session to the WebSocket that is ready.
    pub(super) fn take_upgrade(&mut self) -> Option<Box<WebSocket>> {
        let Upgrade::Ready(websocket) = std::mem::replace(&mut self.upgrade, Upgrade::Settled) else {
            return None;
        };
        self.transport = TransportKind::Websocket;
        Some(websocket)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::socket::Outgoing;

    fn session(transport: TransportKind, max_payload: u64) -> Session {
        let open: Open = serde_json::from_value(serde_json::json!({
            "sid": "s", "upgrades": [], "pingInterval": 1, "pingTimeout": 1, "maxPayload": max_payload
        }))
        .unwrap();
        let now = Instant::now();
        Session::new(1, &open, &Begin { transport, upgrade: true, begun: now, join_by: now })
    }

    #[test]
    fn sizes_are_those_of_the_transport() {
        let bytes = bytes::Bytes::from(vec![0; 300]);
        let encoded = Outgoing::event("/", "e", None).encode(&bytes).unwrap();
        assert!(session(TransportKind::Websocket, 300).check_size(&encoded).is_ok());
        let refused = session(TransportKind::Polling, 300).check_size(&encoded);
        assert!(matches!(refused, Err(Error::TooLarge { size: 401, max: 300 })));
    }

    #[test]
    fn a_probe_can_be_repeated() {
        let mut session = session(TransportKind::Polling, 1_000);
        let (now, token) = (Instant::now(), Arc::new(CancelToken::new().unwrap()));
        assert!(session.wants_probe(now));
        assert_eq!(session.begin_probe(&token), 0);
        assert!(!session.wants_probe(now) && session.probe().is_some());
        let later = now + Duration::from_secs(1);
        session.repeat_probe(Some(later), 3);
        assert!(
            !session.wants_probe(now) && session.wants_probe(later) && session.next_probe() == Some(later)
        );
        assert_eq!(session.begin_probe(&token), 3);
        session.end_probe(None);
        assert!(!session.wants_probe(later) && !session.is_upgrading() && session.probe().is_none());
    }

    #[test]
    fn the_first_close_counts() {
        let mut session = session(TransportKind::Polling, 1_000);
        assert!(session.join_deadline().is_some());
        session.flushed();
        assert!(session.closing().is_none());
        let now = Instant::now();
        session.close(CloseReason::IoServerDisconnect, now);
        session.close(CloseReason::IoClientDisconnect, now + Duration::from_secs(1));
        session.flushed();
        let closing = session.closing().unwrap();
        assert_eq!(
            (closing.by, closing.reason, closing.flushed),
            (now, CloseReason::IoServerDisconnect, true)
        );
        assert!(session.join_deadline().is_none());
    }
}
