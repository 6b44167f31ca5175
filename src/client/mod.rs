//! The client: one connection to one server, on a fixed few threads, that survives bad networks.
//!
//! ```no_run
//! use std::time::Duration;
//! use tinysio::client::Client;
//!
//! let client = Client::builder("http://localhost:5000").build()?;
//! let socket = client.socket("/");
//! socket.on("news", |_socket, event| println!("{:?}", event.arg::<String>(0)));
//! client.connect()?;
//! let answer = socket.emit_with_ack("ask", "how late?", Duration::from_secs(3))?;
//! println!("{:?}", answer.get::<String>(0));
//! client.disconnect();
//! # Ok::<(), tinysio::client::Error>(())
//! ```

mod backoff;
mod config;
mod core;
mod delay;
mod dial;
mod emit;
mod error;
mod event;
mod events;
mod fetch;
mod handle;
mod http;
mod inbound;
mod lifecycle;
mod link;
mod offline;
mod open;
mod polling;
mod socket;
mod space;
mod stats;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod url;
mod wake;
mod websocket;

use std::time::Duration;

pub use config::Builder;
pub use error::{Error, Step};
pub use event::{Ack, Event, Outcome};
pub use fetch::Answer;
pub use handle::{Client, Handle, connect};
pub use socket::{Delivery, Socket};
pub use stats::{ConnectionState, Stats, Status};

pub use crate::proto::{CloseReason, engine::TransportKind, socket::OwnedArgs};

/// How long [`Handle::disconnect`] writes what was emitted before it.
const DISCONNECT_TIME: Duration = Duration::from_millis(800);
