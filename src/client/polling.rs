//! HTTP long-polling: the `poll` thread with its held GET, and the payloads of the POSTs.
//!
//! Uses `core`, the receiving half of the session, and the HTTP client. It must not hold the lock during a request.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};

use super::{
    Error, answer, cancel::CancelToken, core::Core, end::End, http::HttpClient, inbound::Inbound,
    send_queue::Frame,
};
use crate::proto::{CloseReason, engine::payload, limits, socket::Opcode};

/// How long the close packet of a failed session may take. The next session of the client does not wait for it.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// A session for the `poll` thread.
pub(super) struct PollJob {
    pub(super) epoch: u64,
    pub(super) http: HttpClient,
    pub(super) target: String,
    /// Packets that came with the handshake.
    pub(super) early: String,
    pub(super) inbound: Inbound,
    pub(super) token: Arc<CancelToken>,
    /// Where the result goes. `Ok`: polling has ended for an upgrade.
    pub(super) result: Sender<Result<Inbound, End>>,
}

/// The thread.
pub(super) fn run(core: &Arc<Core>, jobs: &Receiver<PollJob>) {
    for mut job in jobs {
        let result = fetch(core, &mut job);
        let failed = result.is_err();
        // The channel has room for one result.
        let _ = job.result.send(result.map(|()| job.inbound));
        core.poll_ended(job.epoch, failed);
    }
}

/// Polls until the session breaks, or is to be upgraded.
fn fetch(core: &Arc<Core>, job: &mut PollJob) -> Result<(), End> {
    job.inbound.payload(std::mem::take(&mut job.early))?;
    loop {
        while job.inbound.has_rest() && core.events.wait_room(&job.token) {
            job.inbound.next()?;
        }
        if job.token.is_cancelled() {
            return Err(End::failed(CloseReason::TransportClose, "given up"));
        }
        // The rest of the last answer goes to the `link` thread.
        if job.token.is_upgrading() {
            return Ok(());
        }
        if !core.events.wait_room(&job.token) {
            continue;
        }
        let body = job
            .http
            .get(&job.target, None)
            .and_then(answer::text)
            .map_err(|error| End::failed(CloseReason::TransportError, error.to_string()))?;
        job.inbound.payload(body)?;
    }
}

/// Sends one payload.
pub(super) fn post(http: &HttpClient, target: &str, body: &str, deadline: Instant) -> Result<(), Error> {
    http.post(target, body, Some(deadline)).and_then(answer::text).map(drop)
}

/// Tells the server that the session has failed on this side, as the official client does. Otherwise the server would
/// keep its sockets until the ping timeout.
pub(super) fn send_close(core: &Core, token: &Arc<CancelToken>, target: &str) {
    let http = HttpClient::new(&core.dialer, &core.config, token, None);
    if let Err(error) = post(&http, target, "1", Instant::now() + CLOSE_TIME) {
        log::debug!("the server was not told of the end: {error}");
    }
}

/// Takes as many frames as one POST may carry: sixteen, because python-engineio refuses more, and `max` bytes.
pub(super) fn payload(pending: &mut VecDeque<Frame>, max: usize) -> String {
    let mut payload = payload::Builder::new();
    while let Some(frame) = pending.front() {
        let bytes = match frame.opcode {
            Opcode::Binary => payload::binary_len(frame.data.len()),
            _ => frame.data.len(),
        };
        let full = payload.packets() >= limits::MAX_SENT_PACKETS || payload.len() + 1 + bytes > max;
        if full && !payload.is_empty() {
            break;
        }
        match (frame.opcode, std::str::from_utf8(&frame.data)) {
            (Opcode::Binary, _) => payload.push_binary(&frame.data),
            // The client has encoded it, so it is UTF-8.
            (_, text) => payload.push_text(text.unwrap_or_default()),
        }
        pending.pop_front();
    }
    payload.finish()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn frame(opcode: Opcode, size: usize) -> Frame {
        Frame { opcode, data: Bytes::from("4".repeat(size)) }
    }

    fn sizes(frames: Vec<Frame>, max: usize) -> Vec<usize> {
        let mut pending = VecDeque::from(frames);
        let mut sizes = Vec::new();
        while !pending.is_empty() {
            sizes.push(payload::decode(&payload(&mut pending, max)).count());
        }
        sizes
    }

    #[test]
    fn sixteen_packets_a_post() {
        assert_eq!(sizes(vec![frame(Opcode::Text, 1); 40], 1_000), [16, 16, 8]);
    }

    #[test]
    fn never_more_bytes_than_the_server_takes() {
        assert_eq!(sizes(vec![frame(Opcode::Text, 40); 5], 100), [2, 2, 1]);
        // 30 bytes of binary are 41 in base64.
        assert_eq!(sizes(vec![frame(Opcode::Binary, 30); 4], 83), [2, 2]);
        assert_eq!(sizes(vec![frame(Opcode::Binary, 30); 4], 82), [1, 1, 1, 1]);
    }

    #[test]
    fn one_that_is_too_large_goes_alone() {
        assert_eq!(sizes(vec![frame(Opcode::Text, 40), frame(Opcode::Text, 400)], 100), [1, 1]);
    }
}
