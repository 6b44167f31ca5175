//! Encoded packets as WebSocket frames (RFC 6455 5.2).

use rstest::rstest;
use tinysio::{
    Bytes,
    proto::socket::{Encoded, Frames, Opcode, Outgoing},
};

/// Each length of a header, and its neighbours.
#[rstest]
#[case(0, &[0])]
#[case(1, &[1])]
#[case(125, &[125])]
#[case(126, &[126, 0, 126])]
#[case(127, &[126, 0, 127])]
#[case(65535, &[126, 0xff, 0xff])]
#[case(65536, &[127, 0, 0, 0, 0, 0, 1, 0, 0])]
#[case(1_000_000, &[127, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40])]
fn sizes(#[case] len: usize, #[case] header: &[u8]) {
    let text = "x".repeat(len);
    for (encoded, first, opcode) in
        [(Encoded::text(&text), 0x81, Opcode::Text), (Encoded::binary(text.as_bytes()), 0x82, Opcode::Binary)]
    {
        let bytes = encoded.bytes();
        assert_eq!((bytes[0], &bytes[1..=header.len()]), (first, header));
        let frame = encoded.frames().next().unwrap();
        assert_eq!((frame.opcode, frame.data, frame.size), (opcode, text.as_bytes(), bytes.len()));
        assert_eq!(frame.text(), (opcode == Opcode::Text).then_some(&*text));
    }
}

/// The header that is written backwards into its room, at every length of it.
#[rstest]
fn packets_of_each_size(
    #[values(124, 125, 126, 127, 65534, 65535, 65536, 65537)] size: usize,
    #[values("/", "/a", "/a-namespace-of-some-length")] namespace: &str,
    #[values(None, Some(0), Some(u64::MAX))] id: Option<u64>,
    #[values(false, true)] binary: bool,
) {
    let packet = Outgoing::event(namespace, "e", id);
    let attachment = Bytes::from(vec![7; size]);
    let encode = |text: &str| {
        if binary { packet.encode(&(text, &attachment)) } else { packet.encode(&(text,)) }.unwrap()
    };
    let empty = encode("").frames().next().unwrap().data.len();
    let encoded = encode(&"x".repeat(size - empty));
    let frames: Vec<_> = encoded.frames().collect();
    assert_eq!(frames[0].data.len(), size);
    assert_eq!(frames.iter().map(|frame| frame.size).sum::<usize>(), encoded.bytes().len());

    let count = if binary { "51-" } else { "2" };
    let namespace = if namespace == "/" { "".into() } else { format!("{namespace},") };
    let id = id.map_or("".into(), |id| id.to_string());
    let head = format!(r#"4{count}{namespace}{id}["e","x"#);
    assert!(frames[0].text().unwrap().starts_with(&head), "{head}");
    assert_eq!(frames.len(), if binary { 2 } else { 1 });
    assert!(frames[1..].iter().all(|frame| frame.opcode == Opcode::Binary && frame.data == attachment));
}

#[test]
fn a_buffer_is_used_again() {
    let mut buffer = b"what was there before".to_vec();
    let first = Outgoing::event("/", "e", None).encode_into(&("x".repeat(1000),), &mut buffer).unwrap();
    assert_eq!(buffer[first].len(), 4 + 8 + 1000 + 2);
    let capacity = buffer.capacity();
    assert!(Outgoing::event("/", "connect", None).encode_into(&(), &mut buffer).is_err());
    let second = Outgoing::ack("/a", 1).encode_into(&Bytes::from_static(&[1]), &mut buffer).unwrap();
    let frames: Vec<_> = Frames::new(&buffer[second]).map(|frame| frame.data.to_vec()).collect();
    assert_eq!(frames, [br#"461-/a,1[{"_placeholder":true,"num":0}]"#.to_vec(), vec![1]]);
    assert_eq!(buffer.capacity(), capacity);
}

#[test]
fn every_prefix_ends_at_a_frame() {
    let packet = Outgoing::event("/", "e", None)
        .encode(&(Bytes::from(vec![1; 200]), Bytes::new(), Bytes::from(vec![2; 66_000])))
        .unwrap();
    let ends: Vec<_> = packet
        .frames()
        .scan(0, |end, frame| {
            *end += frame.size;
            Some(*end)
        })
        .collect();
    assert_eq!(ends.len(), 4);
    for end in (0..packet.bytes().len()).step_by(97).chain(ends.iter().flat_map(|end| [end - 1, *end])) {
        let whole = ends.iter().filter(|&&frame_end| frame_end <= end).count();
        assert_eq!(Frames::new(&packet.bytes()[..end]).count(), whole, "{end}");
    }
}

/// What this module does not write, it does not read either.
#[rstest]
#[case::masked(&[0x81, 0x81, 0, 0, 0, 0, b'2'])]
#[case::masked_long(&[0x81, 0xfe, 0, 0, 0, 0, 0, 0])]
#[case::not_final(&[0x01, 1, b'2'])]
#[case::reserved_bit(&[0xc1, 1, b'2'])]
#[case::longer_than_memory(&[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])]
#[case::longer_than_there_is(&[0x82, 127, 0x40, 0, 0, 0, 0, 0, 0, 0, 1])]
#[case::half_a_header(&[0x82, 126, 0])]
#[case::one_byte(&[0x81])]
fn no_frame(#[case] bytes: &[u8]) {
    assert_eq!(Frames::new(bytes).next(), None);
}

#[test]
fn control_frames_are_told_apart() {
    let bytes = [0x88, 2, 3, 0xe8, 0x8a, 0, 0x81, 1, b'2'];
    let opcodes: Vec<_> = Frames::new(&bytes).map(|frame| frame.opcode).collect();
    assert_eq!(opcodes, [Opcode::Control, Opcode::Control, Opcode::Text]);
}
