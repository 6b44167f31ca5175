//! What is encoded is decoded to itself, over WebSocket frames and over polling payloads.

use std::collections::BTreeMap;

use proptest::{
    collection::{btree_map, vec},
    prelude::*,
    test_runner::{Config, RngSeed},
};
use serde::{Deserialize, Serialize};
use tinysio::{
    Bytes,
    proto::{
        engine::{self, Data, payload},
        limits,
        socket::{Args, Assembler, Body, EncodeError, Encoded, Opcode, Outgoing, Packet},
    },
};

use crate::{
    socket::sent,
    wire::{self, Message, Taken},
};

/// The same cases on every run.
fn config() -> Config {
    Config { cases: 200, failure_persistence: None, rng_seed: RngSeed::Fixed(4), ..Config::default() }
}

/// Every shape that serde knows, with bytes inside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Node {
    Unit,
    Bool(bool),
    Int(i64),
    Wide(u128),
    Float(f32),
    Char(char),
    Text(String),
    Blob(Bytes),
    Numbers(Vec<u8>),
    Fixed([u8; 3]),
    Maybe(Option<Bytes>),
    List(Vec<Self>),
    Map(BTreeMap<String, Self>),
    Keys(BTreeMap<u16, Bytes>),
    Pair(Box<Self>, Box<Self>),
    Record { data: Bytes, inner: Box<Self> },
}

impl Node {
    fn attachments(&self) -> usize {
        match self {
            Self::Blob(_) | Self::Maybe(Some(_)) => 1,
            Self::List(nodes) => nodes.iter().map(Self::attachments).sum(),
            Self::Map(nodes) => nodes.values().map(Self::attachments).sum(),
            Self::Keys(blobs) => blobs.len(),
            Self::Pair(left, right) => left.attachments() + right.attachments(),
            Self::Record { inner, .. } => 1 + inner.attachments(),
            _ => 0,
        }
    }
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![9 => vec(any::<u8>(), 0..8), 1 => vec(any::<u8>(), 120..130)].prop_map(Bytes::from)
}

/// Texts that are fond of the names with a meaning.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), Just("_placeholder".into()), Just("num".into()), Just("\"\\}]".into())]
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        Just(Node::Unit),
        any::<bool>().prop_map(Node::Bool),
        any::<i64>().prop_map(Node::Int),
        any::<u128>().prop_map(Node::Wide),
        (-1e9f32..1e9).prop_map(Node::Float),
        any::<char>().prop_map(Node::Char),
        text().prop_map(Node::Text),
        bytes().prop_map(Node::Blob),
        vec(any::<u8>(), 0..4).prop_map(Node::Numbers),
        any::<[u8; 3]>().prop_map(Node::Fixed),
        proptest::option::of(bytes()).prop_map(Node::Maybe),
        btree_map(any::<u16>(), bytes(), 0..3).prop_map(Node::Keys),
    ];
    leaf.prop_recursive(5, 24, 4, |node| {
        prop_oneof![
            vec(node.clone(), 0..4).prop_map(Node::List),
            btree_map(text(), node.clone(), 0..4).prop_map(Node::Map),
            (node.clone(), node.clone()).prop_map(|(a, b)| Node::Pair(a.into(), b.into())),
            (bytes(), node).prop_map(|(data, inner)| Node::Record { data, inner: inner.into() }),
        ]
    })
}

fn namespace() -> impl Strategy<Value = String> {
    prop_oneof![Just("/".to_owned()), "/[a-z0-9/?=é.-]{1,40}"]
}

fn event_name() -> impl Strategy<Value = String> {
    text().prop_filter("reserved", |name| !limits::RESERVED_EVENTS.contains(&&**name))
}

/// The packet, having travelled in WebSocket messages, and again in polling payloads.
fn deliver(encoded: &Encoded) -> Taken {
    let messages = sent(encoded);
    assert_eq!(messages, polled(encoded));
    let mut assembler = Assembler::new(limits::MAX_ATTACHMENTS, usize::MAX);
    let mut taken = Taken::Wait;
    for message in &messages {
        assert!(matches!(taken, Taken::Wait));
        taken = wire::take(&mut assembler, message).unwrap();
    }
    assert!(!assembler.is_waiting());
    taken
}

fn polled(encoded: &Encoded) -> Vec<Message> {
    let mut builder = payload::Builder::new();
    for frame in encoded.frames() {
        match frame.opcode {
            Opcode::Text => builder.push_text(frame.text().unwrap()),
            _ => builder.push_binary(frame.data),
        }
    }
    let message = |packet| match packet {
        Ok(engine::Packet::Message(Data::Text(text))) => Message::Text(text.into_owned()),
        Ok(engine::Packet::Message(Data::Binary(data))) => Message::Binary(data),
        other => panic!("{other:?}"),
    };
    payload::decode(&builder.finish()).map(message).collect()
}

/// The arguments of a delivered event or acknowledgement.
fn args(taken: &Taken) -> Args<'_> {
    match taken.packet().unwrap().body {
        Body::Event { args, .. } | Body::Ack { args, .. } => args,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn engine_packets(kind in 0..7, data in any::<String>()) {
        let packet = match kind {
            0 => engine::Packet::Open(&data),
            1 => engine::Packet::Close,
            2 => engine::Packet::Ping(&data),
            3 => engine::Packet::Pong(&data),
            4 => engine::Packet::Message(Data::Text((&*data).into())),
            5 => engine::Packet::Upgrade,
            _ => engine::Packet::Noop,
        };
        let text = packet.text().unwrap();
        prop_assert_eq!(engine::Packet::decode(&text), Ok(packet));
    }

    #[test]
    fn payloads(packets in vec(prop_oneof![
        "[^\u{1e}]{0,20}".prop_map(Message::Text),
        bytes().prop_map(Message::Binary),
    ], 1..20)) {
        let mut builder = payload::Builder::new();
        for packet in &packets {
            match packet {
                Message::Text(text) => builder.push_text(&format!("4{text}")),
                Message::Binary(data) => builder.push_binary(data),
            }
        }
        let body = builder.finish();
        let decoded = payload::decode(&body).map(|packet| match packet.unwrap() {
            engine::Packet::Message(Data::Text(text)) => Message::Text(text.into_owned()),
            engine::Packet::Message(Data::Binary(data)) => Message::Binary(data),
            other => panic!("{other:?}"),
        });
        prop_assert_eq!(decoded.collect::<Vec<_>>(), packets);
    }

    #[test]
    fn events_and_acks(
        namespace in namespace(),
        name in event_name(),
        id in proptest::option::of(any::<u64>()),
        first in node(),
        second in node(),
    ) {
        let attachments = first.attachments() + second.attachments();
        let data = (&first, &second);
        let event = Outgoing::event(&namespace, &name, id).encode(&data);
        if attachments > limits::MAX_ATTACHMENTS {
            let refused = matches!(event, Err(EncodeError::TooManyAttachments(n)) if n == attachments);
            prop_assert!(refused);
            return Ok(());
        }
        let event = deliver(&event.unwrap());
        let Packet { namespace: to, body: Body::Event { name: named, args: got, id: with } } = event.packet().unwrap()
        else { panic!("{event:?}") };
        prop_assert_eq!((to, &*named, with), (&*namespace, &*name, id));
        prop_assert_eq!(got.attachments().len(), attachments);
        prop_assert_eq!(got.parse::<(Node, Node)>().unwrap(), (first.clone(), second.clone()));
        prop_assert_eq!(got.to_owned().get::<Node>(1).unwrap(), second.clone());

        let id = id.unwrap_or(0);
        let ack = deliver(&Outgoing::ack(&namespace, id).encode(&data).unwrap());
        let Packet { namespace: to, body: Body::Ack { id: with, args: got } } = ack.packet().unwrap()
        else { panic!("{ack:?}") };
        prop_assert_eq!((to, with), (&*namespace, id));
        prop_assert_eq!(got.parse::<(Node, Node)>().unwrap(), (first, second));
    }

    /// What came is sent on behind an attachment of the sender's own, so every placeholder changes its number,
    /// and comes out as if it had been sent by the first sender.
    #[test]
    fn forwarding(first in node(), second in node(), own in bytes()) {
        prop_assume!(first.attachments() + second.attachments() < limits::MAX_ATTACHMENTS);
        let event = Outgoing::event("/", "first", None);
        let came = deliver(&event.encode(&(&first, &second)).unwrap());
        let came = args(&came);

        let forwarded = deliver(&event.encode(&(&own, came.raw(1), &came, 1)).unwrap_or_else(|_| {
            // The second argument twice may be more than fit; once always fits.
            event.encode(&(&own, (), &came, 1)).unwrap()
        }));
        let (got_own, got_second, both, one): (Bytes, Option<Node>, (Node, Node), u8) = args(&forwarded).parse().unwrap();
        prop_assert_eq!((got_own, one), (own, 1));
        prop_assert!(got_second.is_none_or(|got| got == second));
        prop_assert_eq!(&both, &(first.clone(), second.clone()));

        // Sent on as they are, they are the same bytes again, from an owned copy too.
        let again = event.encode(&came).unwrap();
        prop_assert_eq!(&again, &event.encode(&(first, second)).unwrap());
        prop_assert_eq!(&again, &event.encode(&came.to_owned()).unwrap());
    }

    /// Nothing that looks like a packet makes a decoder panic, and each gives what the naive reading gives.
    #[test]
    fn near_packets(text in "[0-6]?[0-9]{0,2}-?(/[a-z]{0,2},?)?[0-9]{0,2}([\\[{\"]{0,3}[a-z0-9\\]}\",:\\\\ -]{0,8}[\\]}]{0,2})?") {
        for attachments in [&[][..], &[Bytes::new()], &[Bytes::new(), Bytes::new()]] {
            let ours = Packet::decode(&text, attachments).is_ok();
            prop_assert_eq!(ours, crate::reference::accepts(&text, attachments.len()));
        }
        let _ = Assembler::new(10, 100).text(&text);
    }

    #[test]
    fn noise(text in any::<String>(), bytes in vec(any::<u8>(), 0..40)) {
        let _ = engine::Packet::decode(&text);
        let _ = Packet::decode(&text, &[]);
        let _ = engine::Query::parse(&text);
        let _ = payload::decode(&text).count();
        let _ = tinysio::proto::socket::Frames::new(&bytes).count();
    }
}
