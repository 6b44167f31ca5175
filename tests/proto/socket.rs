//! Socket.IO packets and their assembly.

use rstest::rstest;
use tinysio::{
    Bytes,
    proto::{
        Error, limits,
        socket::{Assembler, Body, Encoded, Opcode, Outgoing, Packet, is_namespace},
    },
};

use crate::{
    reference,
    wire::{self, Message, Row, Taken},
};

fn assembler() -> Assembler {
    Assembler::new(limits::MAX_ATTACHMENTS, limits::MAX_HTTP_BUFFER_SIZE)
}

/// What the last of the messages gave.
fn last(messages: &[Message]) -> Result<Taken, Error> {
    let mut assembler = assembler();
    let mut taken = Ok(Taken::Wait);
    for message in messages {
        taken = wire::take(&mut assembler, message);
    }
    taken
}

fn check(row: &Row) {
    let messages = wire::messages(&row.wire);
    let taken = last(&messages).unwrap_or_else(|error| panic!("line {}: {error:?}", row.line));
    let packet = taken.packet();
    let shown = packet.as_ref().map_or("WAIT".into(), wire::show_socket);
    assert_eq!(shown, row.expected, "line {}", row.line);
    if let (Some(packet), true) = (packet, row.canonical) {
        let sent = sent(&encode(&packet));
        assert!(messages.ends_with(&sent), "line {}: {sent:?}", row.line);
    }
}

fn reject(row: &Row) {
    let messages = wire::messages(&row.wire);
    let Err(error) = last(&messages) else { panic!("line {}: accepted", row.line) };
    assert_eq!(wire::rejection(&error), row.expected, "line {}", row.line);
}

#[test]
fn packets() {
    for row in wire::rows("socket.txt") {
        if row.expected.starts_with('!') { reject(&row) } else { check(&row) }
    }
}

fn encode(packet: &Packet<'_>) -> Encoded {
    let namespace = packet.namespace;
    match &packet.body {
        Body::Connect(data) => Outgoing::connect(namespace).encode(data),
        Body::Disconnect => Outgoing::disconnect(namespace).encode(&()),
        Body::Event { name, args, id } => Outgoing::event(namespace, name, *id).encode(args),
        Body::Ack { id, args } => Outgoing::ack(namespace, *id).encode(args),
        Body::ConnectError(data) => Outgoing::connect_error(namespace).encode(data),
    }
    .unwrap()
}

/// The messages that an encoded packet becomes.
pub(crate) fn sent(encoded: &Encoded) -> Vec<Message> {
    let message = |frame: tinysio::proto::socket::Frame<'_>| match frame.opcode {
        Opcode::Text => Message::Text(frame.text().unwrap().strip_prefix('4').unwrap().into()),
        Opcode::Binary => Message::Binary(Bytes::copy_from_slice(frame.data)),
        Opcode::Control => panic!("a control frame"),
    };
    encoded.frames().map(message).collect()
}

/// `Packet::decode` agrees with the assembler whenever the attachments are as many as announced, and refuses
/// any other number.
#[test]
fn decoding_at_once() {
    for row in wire::rows("socket.txt") {
        let messages = wire::messages(&row.wire);
        let [Message::Text(text), rest @ ..] = &*messages else { continue };
        let attachment = |message: &Message| match message {
            Message::Binary(data) => Some(data.clone()),
            Message::Text(_) => None,
        };
        let Some(attachments) = rest.iter().map(attachment).collect::<Option<Vec<_>>>() else { continue };
        let at_once = Packet::decode(text, &attachments);
        if row.expected == "WAIT" || row.expected == "!UnexpectedBinary" {
            assert!(at_once.is_err(), "line {}", row.line);
        } else {
            assert_eq!(wire::verdict(&at_once, wire::show_socket), row.expected, "line {}", row.line);
            let surplus: Vec<_> = attachments.iter().cloned().chain([Bytes::new()]).collect();
            assert!(Packet::decode(text, &surplus).is_err(), "line {}", row.line);
        }
    }
}

/// Every prefix of every row, every row with a character taken out, and every row with a character put in: our
/// verdict is that of the naive reading in `reference`.
#[test]
fn mutilated_packets() {
    const INSERTED: &str = "0159[]{}\",:/- +.\\é";
    let one = [Bytes::new()];
    let mut accepted = 0;
    let mut compare = |text: &str| {
        let attachments = if text.starts_with(['5', '6']) { &one[..] } else { &[] };
        let ours = Packet::decode(text, attachments);
        assert_eq!(ours.is_ok(), reference::accepts(text, attachments.len()), "{text:?}: {ours:?}");
        accepted += usize::from(ours.is_ok());
    };
    for row in wire::rows("socket.txt") {
        let Message::Text(text) = &wire::messages(&row.wire)[0] else { continue };
        // The naive reading knows neither of numbers nor of strings that only raw JSON can hold.
        if text.contains("1e999") || text.contains("\\ud") {
            continue;
        }
        for (at, taken) in text.char_indices() {
            let (before, after) = text.split_at(at);
            compare(before);
            compare(&format!("{before}{}", &after[taken.len_utf8()..]));
            for inserted in INSERTED.chars() {
                compare(&format!("{before}{inserted}{after}"));
            }
        }
    }
    assert!(accepted > 1000, "{accepted} accepted");
}

/// Into every sequence of messages, at every place, one more text and one more attachment.
#[test]
fn intruders() {
    for row in wire::rows("socket.txt") {
        let messages = wire::messages(&row.wire);
        for end in 0..messages.len() {
            let before = &messages[..end];
            let waiting = end > 0 && matches!(last(before), Ok(Taken::Wait));
            let feed = |message| {
                let mut assembler = assembler();
                for message in before {
                    let _ = wire::take(&mut assembler, message);
                }
                assert_eq!(assembler.is_waiting(), waiting, "line {}", row.line);
                (wire::take(&mut assembler, &message), assembler)
            };

            let (text, mut after) = feed(Message::Text(r#"2["a"]"#.into()));
            assert_eq!(text.err(), waiting.then_some(Error::TextWhileReconstructing), "line {}", row.line);
            // Whatever was kept is gone, so what follows cannot complete it.
            assert!(!after.is_waiting());
            assert_eq!(after.binary(Bytes::new()).err(), Some(Error::UnexpectedBinary));

            let (binary, _) = feed(Message::Binary(Bytes::new()));
            assert_eq!(binary.err() == Some(Error::UnexpectedBinary), !waiting, "line {}", row.line);
        }
    }
}

#[rstest]
#[case::text_alone(r#"51-["a"]"#, &[], 7)]
#[case::first_attachment(r#"52-["a"]"#, &[1], 8)]
#[case::last_attachment(r#"52-["a"]"#, &[3, 3], 13)]
#[case::far_too_large(r#"51-["a"]"#, &[1000], 100)]
fn a_packet_has_a_size(#[case] text: &str, #[case] attachments: &[usize], #[case] max_bytes: usize) {
    let total = text.len() + attachments.iter().sum::<usize>();
    assert!(total > max_bytes);
    let feed = |max_bytes| {
        let mut assembler = Assembler::new(limits::MAX_ATTACHMENTS, max_bytes);
        let mut error = assembler.text(text).err();
        for &size in attachments {
            error = error.or(assembler.binary(vec![0; size].into()).err());
        }
        (error, assembler)
    };
    let (error, mut assembler) = feed(max_bytes);
    assert_eq!(error, Some(Error::PacketTooLarge));
    // Nothing is kept, and nothing breaks when the owner goes on.
    assert!(!assembler.is_waiting());
    assert_eq!(assembler.binary(Bytes::new()).err(), Some(Error::UnexpectedBinary));
    assert!(assembler.text(r#"2["a"]"#).is_ok());
    assert_eq!(feed(total).0, None);
}

#[rstest]
#[case(0, r#"51-["a"]"#, false)]
#[case(1, r#"51-["a"]"#, true)]
#[case(1, r#"52-["a"]"#, false)]
#[case(10, r#"510-["a"]"#, true)]
#[case(1000, r#"511-["a"]"#, false)]
fn a_packet_has_a_number_of_attachments(#[case] max: usize, #[case] text: &str, #[case] good: bool) {
    let result = Assembler::new(max, 1000).text(text).map(|packet| packet.is_none());
    assert_eq!(result, if good { Ok(true) } else { Err(Error::TooManyAttachments) });
}

#[rstest]
#[case(limits::MAX_NAMESPACE, true)]
#[case(limits::MAX_NAMESPACE + 1, false)]
fn a_namespace_has_a_length(#[case] len: usize, #[case] good: bool) {
    let name = format!("/{}", "n".repeat(len - 1));
    let expected = if good { Ok(name.clone()) } else { Err(Error::NamespaceTooLong) };
    for text in [format!("0{name}"), format!("0{name},"), format!("2{name},1[\"a\"]")] {
        assert_eq!(Packet::decode(&text, &[]).map(|packet| packet.namespace.into()), expected);
    }
    // The bound may fall into a character.
    let split = format!("0/{}é", "n".repeat(limits::MAX_NAMESPACE - 1));
    assert_eq!(Packet::decode(&split, &[]).err(), Some(Error::NamespaceTooLong));
}

/// Of every character: a name that may be given can be connected to, and spoken in.
#[test]
fn every_name_of_a_namespace_can_be_connected_to() {
    let mut refused = String::new();
    for character in (0..0x250).filter_map(char::from_u32).chain(['\u{2028}', '\u{ffff}', '\u{1f600}']) {
        let name = format!("/a{character}1");
        if !is_namespace(&name) {
            refused.push(character);
            continue;
        }
        for packet in [
            Outgoing::connect(&name).encode(&()),
            Outgoing::event(&name, "e", Some(1)).encode(&()),
            Outgoing::connect_error(&name).encode(&serde_json::json!({ "message": "no" })),
        ] {
            let packet = packet.unwrap();
            let text = packet.frames().next().unwrap().text().unwrap().strip_prefix('4').unwrap().to_owned();
            assert_eq!(Packet::decode(&text, &[]).unwrap().namespace, name);
        }
    }
    assert_eq!(refused, "\",?[{");
    assert!(!is_namespace("") && !is_namespace("a") && is_namespace("/"));
    assert!(is_namespace(&"/".repeat(limits::MAX_NAMESPACE)));
    assert!(!is_namespace(&"/".repeat(limits::MAX_NAMESPACE + 1)));
}
