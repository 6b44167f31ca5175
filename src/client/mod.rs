//! The client: one connection to one server, on a few fixed threads. It reconnects by itself.
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
//!
//! ```text
//!   emit ──► send queue ──► link ──────────► server
//!      └──► offline buffer ──┘ when joined    │
//!                                             ▼
//!   handlers ◄── events ◄── event queue ◄── link (WebSocket) or poll (held GET)
//!
//!   backoff   makes each connection, waits between the attempts, joins namespaces, probes the upgrade
//! ```
//!
//! | thread | owns | waits on | ends |
//! |---|---|---|---|
//! | `sio-backoff` | attempts and delays, the auth function | the state's condition, or the attempt's sockets | client dropped |
//! | `sio-link` | the transport of the open session; all writes | `poll(2)`: socket, waker, cancel token, next deadline | after `backoff` |
//! | `sio-poll` | the held GET; runs only when polling is allowed | its socket and cancel token | after `link` |
//! | `sio-events` | the user's handlers, in order | the event queue, or the next acknowledgement's deadline | client dropped |
//!
//! | queue | limit | when it is full |
//! |---|---|---|
//! | send queue | [`Builder::send_queue`] bytes | the emit is refused; a volatile one is dropped |
//! | offline buffer, retry queue | [`Builder::offline_buffer`] packets and bytes | the emit is refused |
//! | acknowledgements waited for | 10,000 for each namespace | the emit is refused |
//! | event queue | [`Builder::event_queue`] events, 16 MiB; four times that while a handler waits for an acknowledgement | nothing more is read, the network pushes back, pongs are sent unasked |
//! | one polling answer, before that queue | [`Builder::max_message`] bytes | the connection ends |
//! | pongs | one | it answers all pings before it |
//! | sessions for `link`, for `poll` | 1 each | never: one session ends before the next begins |
//!
//! A lost connection is made again. Where the server allows it, the session continues without a loss of events
//! ([`Socket::recovered`]). Events that are emitted meanwhile are kept in the offline buffer, or in the retry queue of
//! their namespace.
//!
//! Left out: HTTP proxies, cookies, WebTransport, and the official options `forceBase64`, `withCredentials` and
//! `transportOptions`, which apply to browsers only.
//!
//! # Modules
//! Imports run from the top to the bottom (`tests/tidy.rs` checks it).
//!
//! | layer | modules |
//! |---|---|
//! | what owns the threads | `client` |
//! | the threads | `backoff`, `link`, `polling`, `events` |
//! | the API, one unit: handlers get sockets, sockets set handlers | `handle`, `socket`, `event`, `handlers` |
//! | what a change means for the rest: methods of `Core` | `lifecycle`, `membership`, `emit`, `inbound`, `work` |
//! | shared by all threads | `core`, `state` |
//! | what the state consists of, without locks | `connection`, `session`, `namespaces` |
//! | transports | `open`, `websocket`, `http`, `answer` |
//! | the queue for the handlers' thread | `event_queue` |
//! | lists without locks; ends | `send_queue`, `offline`, `retry_queue`, `acks`, `recovery`, `namespace`, `end` |
//! | streams | `dial`, `stream`, `tls`, `url`, `cancel` |
//! | options, counters, errors, helpers | `config`, `stats`, `error`, `delay`, `guard` |
//!
//! # From a lost connection to the next
//! ```text
//!   link: its transport ends        Link::run ─► Core::session_ended
//!     lifecycle: session_ended      takes the session, with its send queue, from the state
//!       emit: keep_unwritten        send queue ─► offline buffer, in front of what waits there
//!       membership: leave           queues on_disconnect; fails acknowledgements of events that were sent, but not of
//!                                   `retries`
//!       lifecycle: schedule_attempt chooses the delay, or gives up
//!   backoff: next_task              waits for the delay
//!   backoff: attempt                opens a session: Core::session_opened, or Core::attempt_failed, which schedules
//!   backoff: run                    queues CONNECT of each active namespace
//!   inbound: route                  the server has answered CONNECT
//!     membership: joined            queues on_connect
//!       emit: send_buffered         offline buffer ─► send queue, in order; then the first event of the retry queue
//! ```

mod acks;
mod answer;
mod backoff;
mod cancel;
#[expect(clippy::module_inception, reason = "it holds `Client`")]
mod client;
mod config;
mod connection;
mod core;
mod delay;
mod dial;
mod emit;
mod end;
mod error;
mod event;
mod event_queue;
mod events;
mod guard;
mod handle;
mod handlers;
mod http;
mod inbound;
mod lifecycle;
mod link;
mod membership;
mod namespace;
mod namespaces;
mod offline;
mod open;
mod polling;
mod recovery;
mod retry_queue;
mod send_queue;
mod session;
mod socket;
mod state;
mod stats;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod url;
mod websocket;
mod work;

pub use client::{Client, connect};
pub use config::Builder;
pub use emit::Delivery;
pub use error::{Error, Step};
pub use event::{Ack, Event};
pub use handle::{Handle, HttpAnswer};
#[cfg(all(shuttle, fuzzing))]
pub(crate) use open::read_open_for_fuzzing;
pub use socket::Socket;
pub use stats::{ConnectionState, Stats, Status};

pub use crate::outcome::{HandlerResult, Outcome};
pub use crate::proto::{
    CloseReason,
    engine::TransportKind,
    socket::{Arg, Args, EncodeError, OwnedArgs},
};
