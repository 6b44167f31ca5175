//! The server: what accepts, speaks both transports, keeps sessions and rooms, and calls your handlers.
//!
//! ```text
//!  in    accept ─► front_door ─► http ─► polling ─┐
//!                            └─► websocket ───────┴─► session ─► dispatch ─► your handler
//!                                                                      └──► hub (join, leave, broadcast)
//!  out   emit ─► encoded once ─► own socket: outbox, at once
//!                            └─► room, broadcast: hub ─► outboxes of the recipients ─► socket, or held poll
//! ```
//! `docs/ARCHITECTURE.md` follows a byte through all of it, and lists the threads, locks and queues.
//!
//! # Recovery
//!
//! A client that was lost begins anew, unless the server has [connection state recovery](ConnectionStateRecovery): then it gets its
//! id, its rooms, its data and what it has missed. A [`Store`] carries that through the end of the process, and with
//! [`Durability::EveryPacket`] through a power cut too. `docs/RECOVERY.md` says what is promised, to which clients, and what it
//! costs.
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

mod acks;
mod admission;
mod answer;
mod broadcast;
mod budget;
mod chunks;
mod config;
mod connect;
mod connections;
mod cors;
mod descriptors;
mod dispatch;
mod drain;
mod engine;
mod error;
mod front_door;
mod guard;
mod handle;
mod held;
mod http;
mod hub;
mod journal;
mod lot;
mod membership;
mod memory;
mod meter;
#[cfg(all(shuttle, any(test, fuzzing)))]
pub(crate) mod model;
mod namespace;
mod origins;
mod outbox;
mod polling;
mod rate;
mod recovery;
mod refused;
mod retried;
mod rhythm;
mod rooms;
mod session;
mod socket;
mod socket_file;
mod stats;
mod store;
mod stream;
mod websocket;
mod workers;

pub use broadcast::{Broadcast, Reply};
pub use config::Config;
pub use cors::Cors;
pub use engine::{EngineHandlers, EngineSession, Message};
pub use error::{AckError, ConnectError, EmitError, StartError};
pub use handle::{Builder, Server};
pub use http::{Header, Method, Request, Response, StatusCode};
pub use journal::{Durability, StoreStatus, StoreWatch};
pub use namespace::{Namespace, NamespaceBuilder};
pub use rate::Rate;
pub use recovery::ConnectionStateRecovery;
pub use refused::{RefusalCounts, RefusalReason};
pub use session::Handshake;
pub use socket::{Ack, Event, Socket};
pub use stats::{Stats, StatsWatch};
#[cfg(feature = "store")]
pub use store::FileStore;
pub use store::{Change, Kept, KeptAnswer, KeptPacket, KeptSession, MemoryStore, Stay, Store, StoreError};
pub use stream::Peer;

pub use crate::{
    outcome::{HandlerResult, Outcome},
    proto::{
        CloseReason,
        engine::TransportKind,
        socket::{Arg, Args, EncodeError, OwnedArgs},
    },
};
