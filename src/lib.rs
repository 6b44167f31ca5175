//! **tinysio**: Socket.IO for small Linux boxes, on plain threads, with no async runtime.
//!
//! A server that every official Socket.IO v4 client connects to:
//!
//! ```
//! use tinysio::{HandlerResult, Server};
//!
//! let server = Server::builder()
//!     .namespace("/", |ns| {
//!         ns.on("greet", |socket, event| -> HandlerResult {
//!             let name: String = event.arg(0)?;
//!             socket.emit("greeting", format!("Hello, {name}!"))?;
//!             Ok(())
//!         });
//!     })
//!     .listen("127.0.0.1:0")?;
//! # Ok::<(), tinysio::server::StartError>(())
//! ```
//!
//! A client that survives bad networks:
//!
//! ```no_run
//! use tinysio::Client;
//!
//! let client = Client::builder("http://localhost:5000").build()?;
//! let socket = client.socket("/");
//! socket.on("greeting", |_, event| println!("{:?}", event.arg::<String>(0)));
//! client.connect()?;
//! socket.emit("greet", "World")?;
//! # Ok::<(), tinysio::client::Error>(())
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`server`] | the server library: sessions, namespaces, rooms, handlers |
//! | [`client`] | the client library: transports, reconnection, buffers |
//! | [`chat`] | the application that the programs `server` and `client` speak |
//! | [`proto`] | the protocols, pure: for those who bring their own transport |

pub mod chat;
pub mod client;
#[cfg(all(shuttle, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod outcome;
pub mod proto;
mod random;
pub mod server;
mod sys;
mod wide;

pub use bytes::Bytes;
pub use client::Client;
pub use outcome::{HandlerResult, Outcome};
pub use proto::{
    CloseReason,
    engine::TransportKind,
    socket::{Arg, Args, EncodeError, OwnedArgs},
};
pub use serde_json::value::RawValue;
pub use server::Server;

/// The README's examples, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
