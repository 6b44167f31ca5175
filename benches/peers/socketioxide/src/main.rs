//! socketioxide with the handlers of `harness/bench_server.rs`.
//!
//! `socketioxide-peer PORT multi|single`: tokio's multi-threaded or its current-thread runtime.
//!
//! As fast as its interface lets it be: hyper without a framework in front, `TCP_NODELAY`, no permessage-deflate,
//! payloads read into one string or one buffer instead of a tree, and no task for a handler that waits for nothing.

use std::{fmt, marker::PhantomData, net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Visitor},
};
use socketioxide::{
    SocketIo,
    adapter::LocalAdapter,
    extract::{AckSender, Data, SocketRef},
    handler::{FromMessageParts, MessageHandler, Value},
    socket::Socket,
};
use tokio::{net::TcpListener, runtime, time};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: socketioxide-peer PORT multi|single";
    let port: u16 = args.next().ok_or(usage)?.parse()?;
    let mut builder = match args.next().as_deref() {
        Some("multi") => runtime::Builder::new_multi_thread(),
        Some("single") => runtime::Builder::new_current_thread(),
        _ => return Err(usage.into()),
    };
    builder.enable_all().build()?.block_on(serve(port))
}

async fn serve(port: u16) -> Result<(), Error> {
    let (service, io) = SocketIo::builder()
        // Packets that may wait for one client, beyond which an emit fails: enough for every window measured.
        .max_buffer_size(4096)
        .max_payload(1_000_000)
        .build_svc();
    io.ns("/", on_connect);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone()).with_upgrades();
        tokio::spawn(async move {
            // A client that went away; the generator notices if it should not have.
            let _ = connection.await;
        });
    }
}

async fn on_connect(socket: SocketRef) {
    socket.on(
        "echo",
        Now(|socket: SocketRef, x: Payload, _: AckSender| {
            let _ = socket.emit("echo", &x);
        }),
    );
    socket.on(
        "ack_echo",
        Now(|_: SocketRef, x: Payload, ack: AckSender| {
            let _ = ack.send(&x);
        }),
    );
    socket.on("join", Now(|socket: SocketRef, room: String, _: AckSender| socket.join(room)));
    socket.on("broadcast", async |io: SocketIo, Data(x): Data<Payload>| {
        let _ = io.emit("broadcast", &x).await;
    });
    socket.on("room_msg", async |io: SocketIo, Data((room, x)): Data<(String, Payload)>| {
        let _ = io.to(room).emit("room_msg", &x).await;
    });
    socket.on("slow", async |socket: SocketRef, Data(x): Data<Payload>| {
        time::sleep(Duration::from_millis(50)).await;
        let _ = socket.emit("slow", &x);
    });
}

/// A handler that is done when it returns. Handlers as the documentation has them are `async`, and each message then
/// is a task of its own: with two threads and 8 messages in flight that makes a third of the echoes of this.
struct Now<F>(F);

/// Tells this implementation of the trait from those for `async` functions.
struct Whole<T>(PhantomData<T>);

impl<F, T> MessageHandler<LocalAdapter, Whole<T>> for Now<F>
where
    F: Fn(SocketRef, T, AckSender) + Send + Sync + 'static,
    T: DeserializeOwned + Send + Sync + 'static,
{
    fn call(&self, socket: Arc<Socket>, mut value: Value, id: Option<i64>) {
        let Ok(Data(x)) = Data::<T>::from_message_parts(&socket, &mut value, &id) else { return };
        let Ok(ack) = AckSender::from_message_parts(&socket, &mut value, &id);
        (self.0)(SocketRef::from(socket), x, ack);
    }
}

/// What the generator sends: a string, or bytes.
enum Payload {
    Text(String),
    Binary(Bytes),
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Binary(bytes) => bytes.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PayloadVisitor)
    }
}

struct PayloadVisitor;

impl Visitor<'_> for PayloadVisitor {
    type Value = Payload;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string or bytes")
    }

    fn visit_str<E>(self, text: &str) -> Result<Payload, E> {
        Ok(Payload::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Payload, E> {
        Ok(Payload::Binary(Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Payload, E> {
        Ok(Payload::Binary(bytes.into()))
    }
}
