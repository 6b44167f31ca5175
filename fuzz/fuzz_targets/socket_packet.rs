//! A Socket.IO packet with attachments: what is decoded is encoded to a packet that is decoded to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinysio::{
    Bytes,
    proto::socket::{Args, Body, Opcode, Outgoing, Packet},
};

/// The JSON of the arguments, and their attachments in the order in which their placeholders come.
fn meaning(args: &Args<'_>) -> Option<Vec<serde_json::Value>> {
    args.iter().map(|arg| resolve(serde_json::from_str(arg.json()).ok()?, args.attachments())).collect()
}

/// Puts attachments in the place of their placeholders.
fn resolve(value: serde_json::Value, attachments: &[Bytes]) -> Option<serde_json::Value> {
    use serde_json::Value;
    Some(match value {
        Value::Object(members) => {
            if members.get("_placeholder") == Some(&Value::Bool(true)) && !attachments.is_empty() {
                let num: usize = members.get("num")?.as_u64()?.try_into().ok()?;
                return Some(Value::String(format!("bytes {:?}", attachments.get(num)?)));
            }
            let members = members.into_iter().map(|(key, value)| Some((key, resolve(value, attachments)?)));
            Value::Object(members.collect::<Option<_>>()?)
        }
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|item| resolve(item, attachments)).collect::<Option<_>>()?)
        }
        plain => plain,
    })
}

fuzz_target!(|input: (&str, u8)| {
    let (text, count) = input;
    let attachments: Vec<Bytes> =
        (0..count % 12).map(|number| Bytes::from(vec![number; number.into()])).collect();
    let Ok(packet) = Packet::decode(text, &attachments) else { return };
    let (outgoing, args) = match &packet.body {
        Body::Event { name, args, id } => (Outgoing::event(packet.namespace, name, *id), args),
        Body::Ack { id, args } => (Outgoing::ack(packet.namespace, *id), args),
        _ => return,
    };
    for index in 0..=args.len() {
        let _ = (args.get::<serde_json::Value>(index), args.get::<Bytes>(index), args.get::<Vec<u8>>(index));
        let _ = args.raw(index).and_then(|arg| arg.member("room").map(|member| member.json().len()));
    }
    let _ = args.parse::<(serde_json::Value, Option<Bytes>, String)>();
    let owned = args.to_owned();
    assert_eq!(owned.args().len(), args.len());
    let Ok(encoded) = outgoing.encode(args) else { return };
    let mut frames = encoded.frames();
    let head = frames.next().expect("a frame");
    let head = head.text().and_then(|text| text.strip_prefix('4')).expect("a message").to_owned();
    let sent: Vec<Bytes> = frames
        .map(|frame| (frame.opcode == Opcode::Binary).then(|| Bytes::copy_from_slice(frame.data)))
        .flatten()
        .collect();
    let again = Packet::decode(&head, &sent).unwrap_or_else(|error| panic!("{error} in {head:?}"));
    assert_eq!(again.namespace, packet.namespace);
    let (Body::Event { args: again, .. } | Body::Ack { args: again, .. }) = &again.body else {
        panic!("{again:?}")
    };
    if let Some(meant) = meaning(args) {
        assert_eq!(meaning(again), Some(meant), "{text:?} became {head:?}");
    }
});
