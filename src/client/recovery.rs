//! Connection state recovery: what a namespace keeps of its session, so that the server can continue it.
//!
//! Owns the pid, the offset, and the events that come before the answer to CONNECT. It must not know what an event is.
//!
//! ```text
//!   0                                   ──►
//!                                       ◄──  0{"sid":"a","pid":"p"}                  kept: p
//!                                       ◄──  2["news",1,"x"]                         the offset is x
//!            (the connection is lost; the server has more news)
//!   0{"pid":"p","offset":"x"}           ──►
//!                                       ◄──  2["news",2,"y"], 0{"sid":"a","pid":"p"}     recovered
//! ```
//!
//! The official server appends the offset to the arguments of most events, and handlers see it there. A server that
//! gives an offset with its CONNECT, as tinysio's does, appends one to the arguments of **every** event without an
//! acknowledgement. It is then removed from the arguments.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::proto::socket::Args;

/// The longest pid or offset that is kept, in bytes. The official client takes any string at the end of an event for an
/// offset. A megabyte of it would make the next CONNECT too large for the server.
const MAX_TOKEN: usize = 256;

/// The server's answer to a CONNECT.
#[derive(Deserialize)]
pub(super) struct ConnectAnswer {
    pub(super) sid: String,
    /// The secret id for the recovery. Anything but a string counts as none.
    #[serde(default)]
    pid: serde_json::Value,
    /// Where the session begins.
    #[serde(default)]
    offset: serde_json::Value,
}

/// What one namespace keeps. It also outlives a disconnect by the user, as in the official client: the server decides
/// whether the session can continue.
pub(super) struct Recovery<E> {
    pid: Option<String>,
    /// The offset of the last event that was received.
    offset: Option<String>,
    /// Whether the last argument of every event without an acknowledgement is its offset.
    stamped: bool,
    /// Whether the last CONNECT continued the session before it.
    pub(super) recovered: bool,
    /// Events that came before the answer to CONNECT, with their offsets: the official server sends missed events
    /// first.
    early: Vec<(E, Option<String>)>,
    early_bytes: usize,
}

impl<E> Default for Recovery<E> {
    fn default() -> Self {
        Self { pid: None, offset: None, stamped: false, recovered: false, early: Vec::new(), early_bytes: 0 }
    }
}

impl<E> Recovery<E> {
    /// The server has answered CONNECT. Gives the events that came before the answer.
    pub(super) fn connected(&mut self, answer: &ConnectAnswer) -> Vec<E> {
        let (pid, offset) = (token(&answer.pid), token(&answer.offset));
        self.recovered = pid.is_some() && pid == self.pid.as_deref();
        let early = if self.recovered { self.take_early() } else { Vec::new() };
        if !self.recovered {
            self.forget_early();
            self.pid = pid.map(str::to_owned);
            self.offset = None;
        }
        self.stamped = pid.is_some() && offset.is_some();
        // After a recovery the missed events are still to come, so the old offset is kept until they bring theirs.
        if self.offset.is_none() && self.stamped {
            self.offset = offset.map(str::to_owned);
        }
        early
    }

    /// The offset in the arguments of an event without an acknowledgement. It is removed unless handlers are to see it.
    pub(super) fn read<'a>(&self, args: &mut Args<'a>) -> Option<Cow<'a, str>> {
        self.pid.as_ref()?;
        let offset = args.last_string().filter(|offset| offset.len() <= MAX_TOKEN)?;
        if self.stamped {
            args.pop();
        }
        Some(offset)
    }

    /// Records the offset of an event that is queued for the handlers. The server need not send it again.
    pub(super) fn note(&mut self, offset: &str) {
        let noted = self.offset.get_or_insert_default();
        noted.clear();
        noted.push_str(offset);
    }

    /// Whether events may come before the answer to CONNECT.
    pub(super) fn is_possible(&self) -> bool {
        self.pid.is_some()
    }

    /// Keeps an event that came before the answer to CONNECT. Gives how many there are, and their bytes.
    pub(super) fn keep_early(&mut self, event: E, bytes: usize, offset: Option<String>) -> (usize, usize) {
        self.early_bytes += bytes;
        self.early.push((event, offset));
        (self.early.len(), self.early_bytes)
    }

    /// Takes the early events, and records their offsets.
    pub(super) fn take_early(&mut self) -> Vec<E> {
        self.early_bytes = 0;
        let early = std::mem::take(&mut self.early);
        if let Some(last) = early.iter().rev().find_map(|(_, offset)| offset.as_deref()) {
            self.note(last);
        }
        early.into_iter().map(|(event, _)| event).collect()
    }

    /// Drops the early events: they belong to no session, or will be sent again.
    pub(super) fn forget_early(&mut self) {
        self.early = Vec::new();
        self.early_bytes = 0;
    }

    /// The keys for the next CONNECT.
    pub(super) fn remembered(&self) -> Vec<(&'static str, String)> {
        let Some(pid) = self.pid.clone() else { return Vec::new() };
        let offset = self.offset.clone().map(|offset| ("offset", offset));
        [("pid", pid)].into_iter().chain(offset).collect()
    }
}

/// The payload of a CONNECT: `own` keys, and those of `auth`, which take precedence.
///
/// # Errors
/// When `auth` is neither an object nor `null`.
pub(super) fn payload(
    own: Vec<(&str, String)>,
    auth: Option<Box<RawValue>>,
) -> Result<Option<Box<RawValue>>, serde_json::Error> {
    if own.is_empty() {
        return Ok(auth);
    }
    let mut payload = BTreeMap::new();
    for (key, value) in own {
        payload.insert(key.to_owned(), to_raw_value(&value)?);
    }
    if let Some(auth) = auth {
        let auth: Option<BTreeMap<String, Box<RawValue>>> = serde_json::from_str(auth.get())?;
        payload.extend(auth.into_iter().flatten());
    }
    to_raw_value(&payload).map(Some)
}

/// A string that can be a pid or an offset.
fn token(value: &serde_json::Value) -> Option<&str> {
    value.as_str().filter(|token| token.len() <= MAX_TOKEN)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::proto::socket::{Body, Packet};

    fn raw(json: &str) -> Option<Box<RawValue>> {
        (!json.is_empty()).then(|| RawValue::from_string(json.to_owned()).unwrap())
    }

    #[rstest]
    #[case::nothing(&[], "", "")]
    #[case::auth_alone_is_left_as_it_is(&[], r#"{ "a" : 1.0 }"#, r#"{ "a" : 1.0 }"#)]
    #[case::no_auth(&[("pid", "p"), ("offset", "o")], "", r#"{"offset":"o","pid":"p"}"#)]
    #[case::null(&[("pid", "p")], "null", r#"{"pid":"p"}"#)]
    #[case::both(&[("rid", "r")], r#"{"a":1e400,"z":[ ]}"#, r#"{"a":1e400,"rid":"r","z":[ ]}"#)]
    #[case::auth_wins(&[("pid", "p"), ("offset", "o")], r#"{"pid":7,"pid":8}"#, r#"{"offset":"o","pid":8}"#)]
    #[case::quotes(&[("pid", "\"")], "", r#"{"pid":"\""}"#)]
    fn payloads(#[case] own: &[(&'static str, &str)], #[case] auth: &str, #[case] expected: &str) {
        let own = own.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let payload = payload(own, raw(auth)).unwrap();
        assert_eq!(payload.map_or(String::new(), |payload| payload.get().to_owned()), expected);
    }

    /// A CONNECT's answer; what is remembered after it, and whether it was a recovery.
    #[track_caller]
    fn answer(recovery: &mut Recovery<()>, answer: serde_json::Value, recovered: bool, remembered: &[&str]) {
        recovery.connected(&serde_json::from_value(answer).unwrap());
        let values: Vec<_> = recovery.remembered().into_iter().map(|(_, value)| value).collect();
        assert_eq!((recovery.recovered, values), (recovered, remembered.iter().map(|&s| s.into()).collect()));
    }

    #[test]
    fn what_is_remembered() {
        let mut of = Recovery::<()>::default();
        answer(&mut of, json!({"sid": "a"}), false, &[]);
        answer(&mut of, json!({"sid": "a", "pid": "p"}), false, &["p"]);
        of.note("1");
        answer(&mut of, json!({"sid": "a", "pid": "p"}), true, &["p", "1"]);
        answer(&mut of, json!({"sid": "a", "pid": "q"}), false, &["q"]);
        of.note("2");
        answer(&mut of, json!({"sid": "a"}), false, &[]);
        answer(&mut of, json!({"sid": "a", "pid": "p", "offset": "3"}), false, &["p", "3"]);
        // What was missed is still to come: the answer's offset is behind it.
        answer(&mut of, json!({"sid": "a", "pid": "p", "offset": "9"}), true, &["p", "3"]);
        answer(&mut of, json!({"sid": "a", "pid": "q", "offset": "9"}), false, &["q", "9"]);
        // Neither a pid nor an offset, and no reason to refuse the connection.
        answer(&mut of, json!({"sid": "a", "pid": 7, "offset": {}}), false, &[]);
        answer(&mut of, json!({"sid": "a", "pid": "p".repeat(MAX_TOKEN + 1)}), false, &[]);
        answer(&mut of, json!({"sid": "a", "offset": "1"}), false, &[]);
    }

    #[rstest]
    #[case::a_plain_server(json!({"sid": "a"}), r#"2["e",1,"o"]"#, None, 2)]
    #[case::an_offset_without_a_pid(json!({"sid": "a", "offset": "0"}), r#"2["e",1,"o"]"#, None, 2)]
    #[case::the_official_server(json!({"sid": "a", "pid": "p"}), r#"2["e",1,"o"]"#, Some("o"), 2)]
    #[case::official_volatile(json!({"sid": "a", "pid": "p"}), r#"2["e",1]"#, None, 1)]
    #[case::ours(json!({"sid": "a", "pid": "p", "offset": "0"}), r#"2["e",1,"o"]"#, Some("o"), 1)]
    #[case::ours_without_arguments(json!({"sid": "a", "pid": "p", "offset": "0"}), r#"2["e","o"]"#, Some("o"), 0)]
    #[case::ours_at_fault(json!({"sid": "a", "pid": "p", "offset": "0"}), r#"2["e","o",1]"#, None, 2)]
    #[case::ours_with_nothing(json!({"sid": "a", "pid": "p", "offset": "0"}), r#"2["e"]"#, None, 0)]
    fn offsets_of_events(
        #[case] answer: serde_json::Value,
        #[case] event: &str,
        #[case] offset: Option<&str>,
        #[case] left: usize,
    ) {
        let mut of = Recovery::<()>::default();
        of.connected(&serde_json::from_value(answer).unwrap());
        let Body::Event { mut args, .. } = Packet::decode(event, &[]).unwrap().body else {
            panic!("{event}")
        };
        assert_eq!((of.read(&mut args).as_deref(), args.len()), (offset, left));
    }

    #[test]
    fn a_long_string_is_no_offset() {
        let mut of = Recovery::<()>::default();
        of.connected(&serde_json::from_value(json!({"sid": "a", "pid": "p"})).unwrap());
        let event = format!(r#"2["e","{}"]"#, "x".repeat(MAX_TOKEN + 1));
        let Body::Event { mut args, .. } = Packet::decode(&event, &[]).unwrap().body else {
            panic!("{event}")
        };
        assert_eq!((of.read(&mut args), args.len()), (None, 1));
    }
}
