//! The server: accepts connections, speaks both transports, keeps sessions and rooms, and calls your handlers.
//!
//! ```text
//!  in    accept ─► http ─► router ─► polling ───┐
//!                               └─► websocket ──┴─► session ─► dispatch ─► your handler
//!                                                                    └──► hub (join, leave, broadcast)
//!  out   emit ─► encoded once ─► own socket: outbox, at once
//!                            └─► room, broadcast: hub ─► outboxes of the recipients ─► WebSocket, or open GET
//! ```
//! `docs/ARCHITECTURE.md` follows a byte through all of it, and lists the threads, locks and queues.
//!
//! The folders, from the top to the bottom. A module imports only what is in its line or below; `tests/tidy.rs` has the
//! same order, and checks that.
//!
//! | module | owns |
//! |---|---|
//! | `builder`, `server`, `start`, `shutdown`, `stats`, `memory`, `descriptors` | start, stop and figures of a server |
//! | `connection` | connections: requests, routes, and the readers of both transports |
//! | `dispatch` | from packets to handlers |
//! | `socket`, `engine` | sockets, namespaces, broadcasts and events, as the application sees them |
//! | `session` | Engine.IO sessions: whose turn it is, their end; the worker threads and the drain thread |
//! | `hub` | the hub thread: rooms, broadcasts, timers, recovery |
//! | `transport` | the bytes that wait for a client |
//! | `config`, `error` | the options and the errors |
//! | `recovery` | the options of recovery, and stores |
//! | `http`, `net`, `limits` | HTTP, sockets of the system, and the bounds of what is taken |
//! | `guard`, `lead`, `peer` | calls of user code and of the logger; which thread leads; who is at the other end |
//!
//! # Log
//!
//! The server logs through the crate [`log`]. The logger may block, panic, or call every function of the server: it is
//! called on worker threads and on threads of the application, without a lock. What other threads of the server report
//! comes from a worker thread a moment later. While the logger is behind, up to 256 of these records wait; further ones
//! are counted and dropped. [`Server::shutdown`] returns after the last one, unless the logger takes longer than a
//! handler may.
//!
//! # Recovery
//!
//! A client that reconnects is a new client. With [connection state recovery](ConnectionStateRecovery) it gets its
//! id, its rooms, its data and the events that it has missed. With a [`Store`] this also works after a restart of
//! the process, and with [`Durability::EveryPacket`] after a power cut. `docs/RECOVERY.md` has the promises for each
//! kind of client, and the cost.
//!
//! ```no_run
//! # #[cfg(feature = "store")] {
//! use std::time::Duration;
//! use tinysio::server::{ConnectionStateRecovery, Durability, FileStore, Server};
//!
//! let server = Server::builder()
//!     .connection_state_recovery(
//!         ConnectionStateRecovery::new().max_disconnection_duration(Duration::from_secs(300)),
//!     )
//!     .store(FileStore::new("/var/lib/gateway/store"), Durability::EveryPacket)
//!     .namespace("/", |ns| {
//!         ns.keep_data::<String>();
//!         ns.on_connect(|socket| {
//!             if !socket.recovered() {
//!                 socket.set_data("a new client".to_owned());
//!                 socket.join("everybody");
//!             }
//!         });
//!     })
//!     .listen("127.0.0.1:3000")?;
//! println!("the store is {}", server.store_watch().status());
//! # }
//! # Ok::<(), tinysio::server::StartError>(())
//! ```

#![cfg_attr(shuttle, deny(clippy::disallowed_types, reason = "what is not from crate::sys is not simulated"))]

mod builder;
mod config;
mod connection;
mod descriptors;
mod dispatch;
mod engine;
mod error;
mod guard;
mod http;
mod hub;
mod lead;
mod limits;
mod memory;
#[cfg(all(shuttle, any(test, fuzzing)))]
#[path = "../../tests/model/mod.rs"]
pub(crate) mod model;
mod net;
mod peer;
mod recovery;
#[expect(clippy::module_inception, reason = "it holds `Server`")]
mod server;
mod session;
mod shutdown;
mod socket;
mod start;
mod stats;
mod transport;

pub use builder::Builder;
pub use config::Config;
pub use engine::{EngineHandlers, EngineSession, Message};
pub use error::{AckError, ConnectError, EmitError, StartError};
pub use http::cors::Cors;
pub use http::{Header, Method, Request, Response, StatusCode};
pub use limits::rate::Rate;
pub use limits::refusals::{RefusalCounts, RefusalReason};
pub use peer::Peer;
pub use recovery::ConnectionStateRecovery;
#[cfg(feature = "store")]
pub use recovery::store::FileStore;
pub use recovery::store::{
    Change, Kept, KeptAnswer, KeptPacket, KeptSession, MemoryStore, Stay, Store, StoreError,
};
pub use recovery::store::{Durability, StoreStatus, StoreWatch};
pub use server::Server;
pub use session::Handshake;
pub use socket::broadcast::{Broadcast, Reply};
pub use socket::namespace::{Namespace, NamespaceBuilder};
pub use socket::{Ack, Event, Socket};
pub use stats::{Stats, StatsWatch};

pub use crate::{
    outcome::{HandlerResult, Outcome},
    proto::{
        CloseReason,
        engine::TransportKind,
        socket::{Arg, Args, EncodeError, OwnedArgs},
    },
};
