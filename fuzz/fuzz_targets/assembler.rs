//! The assembler of binary packets, fed texts and attachments in any order: bounded, and complete only when it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinysio::{
    Bytes,
    proto::socket::{Assembler, Body},
};

/// Bytes a packet may have here.
const MAX_BYTES: usize = 256;

fuzz_target!(|messages: Vec<Result<&str, u8>>| {
    let mut assembler = Assembler::new(4, MAX_BYTES);
    let mut bytes = 0;
    for message in messages {
        let waiting = assembler.is_waiting();
        let body_size = |body: &Body<'_>| match body {
            Body::Event { args, .. } | Body::Ack { args, .. } => args.attachments().len(),
            _ => 0,
        };
        match message {
            Ok(text) => match assembler.text(text) {
                Ok(Some(packet)) => assert_eq!((waiting, body_size(&packet.body)), (false, 0)),
                Ok(None) => {
                    assert!(!waiting && assembler.is_waiting());
                    bytes = text.len();
                    assert!(bytes <= MAX_BYTES);
                }
                Err(_) => return assert!(!assembler.is_waiting()),
            },
            Err(size) => match assembler.binary(Bytes::from(vec![7; size.into()])) {
                Ok(complete) => {
                    bytes += usize::from(size);
                    assert!(waiting && bytes <= MAX_BYTES);
                    assert_eq!(complete.is_none(), assembler.is_waiting());
                    if let Some(packet) = complete.as_ref().and_then(|complete| complete.packet().ok()) {
                        assert!((1..=4).contains(&body_size(&packet.body)));
                    }
                }
                Err(_) => return assert!(!assembler.is_waiting()),
            },
        }
    }
});
