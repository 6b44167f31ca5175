//! Micro-benchmarks: the codec, polling payloads, and the rooms index.
//!
//! `cargo bench --bench micro [-- PART-OF-A-NAME]` prints nanoseconds an operation: the median of eleven batches,
//! each of about 20 ms, and the least of them. For what a change costs in a whole server, see `benches/compare`; for
//! what repeats exactly, `benches/instructions`.

// The index is the server's own affair; here is its source, since nothing but its speed is of interest.
#[path = "../src/server/hub/rooms.rs"]
#[allow(dead_code, unused_imports, reason = "the server uses all of it, and its tests are run there")]
mod rooms;

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use rooms::Rooms;
use tinysio::{
    Bytes,
    proto::{
        engine::{Data, Packet, payload},
        socket::{Assembler, Body, Outgoing},
    },
};

const BATCHES: usize = 11;
const BATCH: Duration = Duration::from_millis(20);

/// Members of a room, as in the benchmark of the whole server; and of one that everybody is in.
const SMALL_ROOM: u32 = 16;
const LARGE_ROOM: u32 = 10_000;

fn main() {
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let bench = Bench { only };
    println!("{:44} {:>10} {:>10}", "", "median ns", "least ns");
    decoding(&bench);
    encoding(&bench);
    payloads(&bench);
    indexing(&bench);
}

struct Bench {
    only: Option<String>,
}

impl Bench {
    /// Times `work`, which does its thing once each call.
    fn run(&self, name: &str, mut work: impl FnMut()) {
        if self.only.as_ref().is_some_and(|only| !name.contains(only)) {
            return;
        }
        let calls = calls_in_a_batch(&mut work);
        let mut batches: Vec<f64> = (0..BATCHES).map(|_| nanoseconds(calls, &mut work)).collect();
        batches.sort_by(f64::total_cmp);
        println!("{name:44} {:>10.1} {:>10.1}", batches[BATCHES / 2], batches[0]);
    }
}

fn calls_in_a_batch(work: &mut impl FnMut()) -> u64 {
    let mut calls = 1;
    loop {
        let took = nanoseconds(calls, work) * calls as f64;
        if took >= BATCH.as_nanos() as f64 / 4.0 {
            return (calls as f64 * BATCH.as_nanos() as f64 / took).max(1.0) as u64;
        }
        calls *= 4;
    }
}

/// Nanoseconds a call.
fn nanoseconds(calls: u64, work: &mut impl FnMut()) -> f64 {
    let begun = Instant::now();
    for _ in 0..calls {
        work();
    }
    begun.elapsed().as_nanos() as f64 / calls as f64
}

fn text(size: usize) -> String {
    "x".repeat(size - 2)
}

fn decoding(bench: &Bench) {
    for size in [64, 1024, 16 * 1024] {
        let wire = format!(r#"42["echo","{}"]"#, text(size));
        bench.run(&format!("decode an event, {size} B"), || {
            let mut assembler = Assembler::new(10, 4_000_000);
            let Ok(Packet::Message(Data::Text(packet))) = Packet::decode(black_box(&wire)) else {
                unreachable!()
            };
            let Ok(Some(packet)) = assembler.text(black_box(&packet)) else { unreachable!() };
            black_box(packet);
        });
    }
    let wire = format!(r#"2["room_msg","room7","{}"]"#, text(64));
    bench.run("decode an event and parse a String, 64 B", || {
        let Ok(Some(packet)) = Assembler::new(10, 4_000_000).text(black_box(&wire)) else { unreachable!() };
        let Body::Event { args, .. } = packet.body else { unreachable!() };
        black_box(args.get::<String>(0)).expect("a string");
    });
    let header = r#"51-["echo",{"_placeholder":true,"num":0}]"#;
    let bytes = Bytes::from(vec![7; 64]);
    bench.run("decode a binary event, 64 B", || {
        let mut assembler = Assembler::new(10, 4_000_000);
        assembler.text(black_box(header)).expect("a header");
        let complete = assembler.binary(bytes.clone()).expect("an attachment").expect("the last");
        black_box(complete.packet()).expect("a packet");
    });
}

fn encoding(bench: &Bench) {
    for size in [64, 1024, 16 * 1024] {
        let text = text(size);
        bench.run(&format!("encode an event of a str, {size} B"), || {
            black_box(Outgoing::event("/", "echo", None).encode(black_box(text.as_str()))).expect("encodes");
        });
        let wire = format!(r#"2["echo","{text}"]"#);
        let mut buffer = Vec::new();
        let Ok(Some(packet)) = Assembler::new(10, 4_000_000).text(&wire) else { unreachable!() };
        let Body::Event { args, .. } = packet.body else { unreachable!() };
        bench.run(&format!("encode what was decoded, own buffer, {size} B"), || {
            let encoded = Outgoing::event("/", "echo", None).encode_into(black_box(&args), &mut buffer);
            black_box(encoded).expect("encodes");
        });
    }
    let bytes = Bytes::from(vec![7; 64]);
    bench.run("encode a binary event, 64 B", || {
        black_box(Outgoing::event("/", "echo", None).encode(black_box(&bytes))).expect("encodes");
    });
}

fn payloads(bench: &Bench) {
    let packet = format!(r#"42["echo","{}"]"#, text(64));
    let wire = vec![packet.as_str(); 16].join("\u{1e}");
    bench.run("decode a payload of 16 events, 64 B", || {
        for packet in payload::decode(black_box(&wire)) {
            black_box(packet).expect("a packet");
        }
    });
    bench.run("build a payload of 16 events, 64 B", || {
        let mut builder = payload::Builder::new();
        for _ in 0..16 {
            builder.push_text(black_box(&packet));
        }
        black_box(builder.finish());
    });
    bench.run("build a payload of one binary, 1 KiB", || {
        let mut builder = payload::Builder::new();
        builder.push_binary(black_box(&[7; 1024]));
        black_box(builder.finish());
    });
}

fn indexing(bench: &Bench) {
    for size in [SMALL_ROOM, LARGE_ROOM] {
        let name: Arc<str> = "room".into();
        let mut rooms = Rooms::default();
        for member in 0..size {
            rooms.join(member, &name);
        }
        bench.run(&format!("join and leave a room of {size}"), || {
            rooms.join(black_box(size), &name);
            rooms.leave(size, &name);
        });
        bench.run(&format!("list a room of {size}"), || {
            black_box(black_box(&rooms).members(&name).iter().fold(0, |sum, member| sum ^ member));
        });
    }
    let names: Vec<Arc<str>> = (0..100).map(|index| format!("room {index}").into()).collect();
    let mut rooms = Rooms::default();
    bench.run("join 100 rooms, then leave them all", || {
        for name in &names {
            rooms.join(black_box(1), name);
        }
        rooms.leave_all(1);
    });
}
