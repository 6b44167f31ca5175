//! WebSocket frames, and messages that are built once and sent with a new number each time.

/// Digits of a sequence number.
pub(crate) const DIGITS: usize = 10;

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A whole frame as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
}

/// Appends a masked frame; the mask is zero, so the payload is what it is.
pub(crate) fn push(output: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    output.push(0x80 | opcode);
    match payload.len() {
        len @ 0..=125 => output.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            output.push(0x80 | 126);
            output.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            output.push(0x80 | 127);
            output.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    output.extend_from_slice(&[0; 4]);
    output.extend_from_slice(payload);
}

/// The first whole frame, and its size with the header. Servers neither mask nor fragment what they send here.
pub(crate) fn first(input: &[u8]) -> Option<(Message<'_>, usize)> {
    let opcode = input.first()? & 0x0f;
    let (header, len) = match *input.get(1)? & 0x7f {
        126 => (4, u16::from_be_bytes(input.get(2..4)?.try_into().ok()?).into()),
        127 => (10, u64::from_be_bytes(input.get(2..10)?.try_into().ok()?) as usize),
        len => (2, len.into()),
    };
    Some((Message { opcode, payload: input.get(header..header + len)? }, header + len))
}

/// Writes a number in decimal, filled up with zeros.
pub(crate) fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// A number in decimal.
pub(crate) fn read_digits(place: &[u8]) -> Option<u64> {
    place
        .iter()
        .try_fold(0_u64, |number, &byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

/// Frames with a number in them, and perhaps an acknowledgement id.
#[derive(Debug)]
pub(crate) struct Numbered {
    bytes: Vec<u8>,
    number: usize,
    id: Option<usize>,
}

impl Numbered {
    /// The number replaces `DIGITS` zeros in a row. An id replaces three nines before the arguments.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let id = bytes.windows(6).position(|window| window == b"42999[").map(|at| at + 2);
        Self { number: zeros(&bytes), id, bytes }
    }

    /// The frames with this number.
    pub(crate) fn with(&mut self, number: u64) -> &[u8] {
        write_digits(&mut self.bytes[self.number..self.number + DIGITS], number);
        if let Some(at) = self.id {
            write_digits(&mut self.bytes[at..at + 3], ack_id(number));
        }
        &self.bytes
    }
}

/// The acknowledgement id that goes with a number: always of three digits, so that all messages have one length.
pub(crate) fn ack_id(number: u64) -> u64 {
    100 + number % 900
}

/// Where `DIGITS` zeros in a row are.
fn zeros(bytes: &[u8]) -> usize {
    bytes.windows(DIGITS).position(|window| window == [b'0'; DIGITS]).unwrap_or_default()
}

/// What must arrive, but for its number.
#[derive(Debug)]
pub(crate) struct Expected {
    bytes: Vec<u8>,
    at: usize,
    /// An offset of connection state recovery comes behind it, as one more last argument.
    offset: bool,
}

/// Behind what comes before an offset.
const OFFSET: &[u8] = br#","00000000000"]"#;

impl Expected {
    /// The number is where `DIGITS` zeros are. With `offset` the bytes are those of an event.
    pub(crate) fn new(mut bytes: Vec<u8>, offset: bool) -> Self {
        if offset {
            bytes.pop();
        }
        Self { at: zeros(&bytes), bytes, offset }
    }

    /// The number, if all else is as it must be. The first `free` bytes are the caller's to check.
    pub(crate) fn number(&self, payload: &[u8], free: usize) -> Option<u64> {
        let payload = if self.offset { without_offset(payload)? } else { payload };
        let tail = self.at + DIGITS;
        (payload.len() == self.bytes.len()
            && payload[free..self.at] == self.bytes[free..self.at]
            && payload[tail..] == self.bytes[tail..])
            .then(|| read_digits(&payload[self.at..tail]))?
    }
}

/// An event without its last argument and the bracket behind it, if that looks like an offset.
fn without_offset(payload: &[u8]) -> Option<&[u8]> {
    let (event, offset) = payload.split_at_checked(payload.len().checked_sub(OFFSET.len())?)?;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let alike = |(&byte, &other): (&u8, &u8)| if other == b'0' { is_letter(byte) } else { byte == other };
    offset.iter().zip(OFFSET).all(alike).then_some(event)
}
