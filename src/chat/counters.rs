//! What the chat counts, for the log's line of counters and for `/metrics`.

use std::sync::atomic::Ordering::Relaxed;

use crate::wide::AtomicU64;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the start. Read at one moment, they may be an event apart from each other.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(pub(super) $name: Counter,)*
        }

        impl Counters {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(&self) -> u64 {
                    self.$name.get()
                }
            )*
        }
    };
}

counters! {
    /// Clients that have connected.
    connects,
    /// Clients that have disconnected.
    disconnects,
    /// Clients turned away for a missing or wrong token.
    unauthorized,
    /// Events that have come from clients, unknown ones too.
    events_in,
    /// Events emitted, an emit to many counting once.
    events_out,
    /// `message` events accepted.
    messages,
    /// `room_message` events accepted.
    room_messages,
    /// Events refused with an `error`, whatever for.
    refusals,
    /// Events among them that came too fast.
    rate_limited,
}

impl Counters {
    /// Clients connected at this moment.
    #[must_use]
    pub fn clients(&self) -> u64 {
        // The disconnects first: the other way round a client that comes and goes in between would count below zero.
        let gone = self.disconnects.get();
        self.connects.get().saturating_sub(gone)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
