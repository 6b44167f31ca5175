//! Counters of the chat, for the log and `/metrics`.

use std::sync::atomic::Ordering::Relaxed;

use crate::wide::AtomicU64;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the start. The values may differ by an event, because they are not read together.
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
    /// Clients refused for a missing or wrong token.
    unauthorized,
    /// Events from clients, unknown ones included.
    events_in,
    /// Events emitted; an emit to several clients counts once.
    events_out,
    /// `message` events accepted.
    messages,
    /// `room_message` events accepted.
    room_messages,
    /// Events refused with an `error`.
    refusals,
    /// Refused events that exceeded the rate.
    rate_limited,
}

impl Counters {
    /// Clients connected now.
    #[must_use]
    pub fn clients(&self) -> u64 {
        // Disconnects are read first: otherwise a client that connects and disconnects in between would make
        // the count negative.
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
