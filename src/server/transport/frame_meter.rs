//! Counts the bytes that a WebSocket client sends, frame by frame. The codec does not report how many bytes it keeps.
//!
//! ```text
//!   socket ─► bytes ─┬─► codec ─► Message ─► handled
//!                    └─► Meter: bytes of messages that are not handled yet; whether the codec can have any left
//! ```

use std::sync::Arc;

use crate::server::limits::budget::{Budget, Charge, Full};

/// After a frame of this size the buffer of the codec is replaced.
const LARGE: u64 = 16 << 10;

/// The longest header: two bytes, a length of eight, a mask.
const HEADER_MAX: usize = 14;

/// How far the stream of frames has come (RFC 6455 5.2).
#[derive(Debug)]
pub(crate) struct Meter {
    charge: Charge,
    header: [u8; HEADER_MAX],
    filled: usize,
    /// Bytes of the frame that are still to come.
    left: u64,
    /// The frame is a control frame, which is not a part of a message.
    control: bool,
    last: bool,
    /// The message has begun and its last frame has not ended.
    unfinished: bool,
    /// Bytes of that message.
    message: usize,
    /// Bytes of messages that are complete and not handled.
    complete: usize,
    /// Messages and control frames that are complete, and that the codec has not given out.
    ready: usize,
    /// A large frame has come since the last [`renewed`](Self::renewed).
    large: bool,
}

impl Meter {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            charge: Charge::new(budget),
            header: [0; HEADER_MAX],
            filled: 0,
            left: 0,
            control: false,
            last: false,
            unfinished: false,
            message: 0,
            complete: 0,
            ready: 0,
            large: false,
        }
    }

    /// The codec is given these bytes next.
    ///
    /// # Errors
    /// [`Full`]: the budget has no room for them. The connection must end.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Full> {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left == 0 {
                bytes = rest;
                self.take_header(first);
                continue;
            }
            let count = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            bytes = &bytes[count..];
            self.left -= count as u64;
            if !self.control {
                self.message += count;
            }
            if self.left == 0 {
                self.end_frame();
            }
        }
        self.charge.hold(self.message + self.complete)
    }

    fn take_header(&mut self, byte: u8) {
        self.header[self.filled] = byte;
        self.filled += 1;
        let [first, second, ..] = self.header;
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let whole = 2 + extended + if second & 0x80 == 0 { 0 } else { 4 };
        if self.filled < 2 || self.filled < whole {
            return;
        }
        self.left = match extended {
            0 => u64::from(second & 0x7f),
            count => self.header[2..2 + count].iter().fold(0, |length, &byte| length << 8 | u64::from(byte)),
        };
        self.filled = 0;
        self.control = first & 0x08 != 0;
        self.last = first & 0x80 != 0;
        self.large |= self.left > LARGE;
        if self.left == 0 {
            self.end_frame();
        }
    }

    fn end_frame(&mut self) {
        self.ready += usize::from(self.last);
        if self.control {
            return;
        }
        self.unfinished = !self.last;
        if self.last {
            self.complete += std::mem::take(&mut self.message);
        }
    }

    /// The codec has given out a message or a control frame.
    pub(crate) fn given_out(&mut self) {
        self.ready = self.ready.saturating_sub(1);
    }

    /// Whether the codec can give out a message or a control frame without reading.
    pub(crate) fn has_ready(&self) -> bool {
        self.ready > 0
    }

    /// A message of this size has been handled and dropped.
    pub(crate) fn handled(&mut self, bytes: usize) {
        self.complete = self.complete.saturating_sub(bytes);
        // A smaller charge cannot fail.
        let _ = self.charge.hold(self.message + self.complete);
    }

    /// Whether the codec has a large buffer that is empty now. The codec has taken all bytes and has no further
    /// message.
    pub(crate) fn wants_renewal(&self) -> bool {
        self.large && self.left == 0 && self.filled == 0 && !self.unfinished && self.complete == 0
    }

    /// The codec has a new buffer.
    pub(crate) fn renewed(&mut self) {
        self.large = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::limits::budget::ALLOWANCE;

    /// A frame of a client. Its mask does not matter here.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(0x80 | length as u8),
            126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend([0; 4]);
        bytes.extend(vec![b'x'; length]);
        bytes
    }

    fn meter(max: usize) -> (Meter, Arc<Budget>) {
        let budget = Arc::new(Budget::new(max));
        (Meter::new(&budget), budget)
    }

    #[test]
    fn counts_the_same_however_the_bytes_come() {
        let stream = [
            frame(0x81, 5),
            frame(0x02, 200),
            frame(0x89, 3),
            frame(0x00, 0),
            frame(0x80, 70_000),
            frame(0x8a, 0),
        ]
        .concat();
        for step in [1, 2, 3, 7, 1_000, stream.len()] {
            let (mut meter, budget) = meter(1 << 20);
            for chunk in stream.chunks(step) {
                meter.feed(chunk).expect("there is room");
            }
            assert_eq!((meter.complete, meter.message), (70_205, 0), "in steps of {step}");
            assert_eq!(meter.ready, 4, "two messages, a ping and a pong, in steps of {step}");
            assert_eq!(budget.used(), 70_205 - ALLOWANCE);
            assert!(!meter.wants_renewal());
            meter.handled(5);
            meter.handled(70_200);
            assert_eq!((budget.used(), meter.wants_renewal()), (0, true));
        }
    }

    #[test]
    fn a_client_that_fills_the_budget_is_refused() {
        let (mut meter, budget) = meter(10_000);
        let stream = frame(0x01, ALLOWANCE + 10_001);
        assert_eq!(meter.feed(&stream[..stream.len() - 1]), Ok(()));
        assert_eq!(meter.feed(&stream[stream.len() - 1..]), Err(Full));
        drop(meter);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_buffer_that_may_hold_something_is_kept() {
        let large = frame(0x01, 20_000);
        for rest in [&large[..], &[0x80], &frame(0x80, 0)[..5]] {
            let (mut meter, _budget) = meter(1 << 20);
            meter.feed(&large).expect("there is room");
            meter.feed(rest).expect("there is room");
            assert!(!meter.wants_renewal());
        }
    }
}
