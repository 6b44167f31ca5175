//! The chat: the application that the `server` program serves and the client programs speak.
//!
//! Owns the events, their payloads, limits and checks. Uses `server` for the server's side; the client's side
//! (`sending`) is pure. It never reads flags and never prints: that is `src/bin`.
//!
//! ```text
//!   events, payload, limits ◄── shared by both sides
//!      ▲                  ▲
//!   refusal, rules     sending      checks of the server and their texts; checks of a client before it sends
//!      ▲
//!   app ─► handlers, health, test_events      installed on a `server::Builder`
//! ```
//!
//! ```no_run
//! use tinysio::{chat::{Chat, Options}, server::Server};
//!
//! let chat = Chat::new(Options::default());
//! let server = chat.install(Server::builder()).listen("127.0.0.1:5000")?;
//! // `/health` reports the state of this server.
//! chat.watch(&server);
//! server.wait();
//! # Ok::<(), tinysio::server::StartError>(())
//! ```

mod address;
mod app;
mod counters;
pub mod events;
mod handlers;
mod health;
pub mod limits;
mod members;
pub mod payload;
mod refusal;
mod rules;
pub mod sending;
mod test_events;
mod text;

pub use crate::server::Rate;
pub use address::{Network, NetworkError};
pub use app::{Chat, Options};
pub use counters::Counters;
pub use limits::Limits;
pub use refusal::Refusal;
pub use rules::{RoomNameError, room_name};
pub use text::Excerpt;
