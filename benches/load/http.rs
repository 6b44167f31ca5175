//! The little of HTTP that a client of long-polling needs.

use std::{io::Write, net::TcpStream};

use super::{Result, peer};

/// What every polling request begins with, behind its method.
pub(crate) const PATH: &str = "/socket.io/?EIO=4&transport=polling";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    pub(crate) body: &'a [u8],
    /// Of head and body.
    pub(crate) size: usize,
}

/// The first whole response, if it has come. Anything but 200 and 101 is an error.
pub(crate) fn response(input: &[u8]) -> Result<Option<Response<'_>>> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = (&input[..end], end + 4);
    if head.starts_with(b"HTTP/1.1 101") {
        return Ok(Some(Response { body: b"", size: body }));
    }
    if !head.starts_with(b"HTTP/1.1 200") {
        return Err(String::from_utf8_lossy(input).into_owned().into());
    }
    for line in head.split(|&byte| byte == b'\n') {
        if let Some(length) = value(line, b"content-length:") {
            let size = body + std::str::from_utf8(length)?.trim().parse::<usize>()?;
            return Ok(input.get(body..size).map(|body| Response { body, size }));
        }
        if value(line, b"transfer-encoding:").is_some() {
            return chunk(input, body);
        }
    }
    Err("a response without a length".into())
}

/// A body of one chunk: the only kind that was seen for bodies this short.
fn chunk(input: &[u8], at: usize) -> Result<Option<Response<'_>>> {
    let Some(line) = input[at..].windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
    let length = usize::from_str_radix(std::str::from_utf8(&input[at..at + line])?, 16)?;
    let begin = at + line + 2;
    let last = b"\r\n0\r\n\r\n";
    let size = begin + length + last.len();
    let Some(rest) = input.get(begin + length..size) else { return Ok(None) };
    if rest != last {
        return Err("a response in more than one chunk".into());
    }
    Ok(Some(Response { body: &input[begin..begin + length], size }))
}

fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (head, value) = line.split_at_checked(name.len())?;
    head.eq_ignore_ascii_case(name).then_some(value)
}

/// The sid of an open packet.
pub(crate) fn sid(open: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(open)?;
    let sid = text.strip_prefix(r#"0{"sid":""#).and_then(|rest| rest.split('"').next());
    Ok(sid.ok_or_else(|| format!("no open packet: {text}"))?.to_owned())
}

pub(crate) fn get(sid: &str) -> Vec<u8> {
    format!("GET {PATH}&sid={sid} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

pub(crate) fn post(sid: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {PATH}&sid={sid} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain;charset=UTF-8\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Asks and waits for the answer's body, blocking.
pub(crate) fn ask(mut stream: &TcpStream, request: &[u8]) -> Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut input = Vec::new();
    loop {
        peer::more(stream, &mut input)?;
        if let Some(answer) = response(&input)? {
            return Ok(answer.body.to_vec());
        }
    }
}
