//! The memory bound: what a server can use at most, computed from its configuration. `docs/MEMORY.md` explains each
//! term.
//!
//! It uses the constants of every module that keeps something for clients. Nothing but the application and `Server`
//! calls it.

use crate::server::{
    config::Config, http, hub, hub::held, hub::recovery, hub::recovery::journal, limits::budget, socket,
    transport::outbox, transport::websocket_codec,
};

/// The program, the stacks of the threads that every server has, and empty tables.
const BASE: usize = 16 << 20;

/// Bytes that the library uses of the stack of a worker thread, which each connection may need for a handler that
/// waits. Handlers may use more, up to `stack_size`.
const STACK: usize = 64 << 10;

/// The structures of a connection: codec, meter, permit, its entry in the poller, and the overhead of the allocator.
const CONNECTION: usize = 8 << 10;

/// The structures of a session: outbox, turn, slot, deadlines in the hub, the ranges of the headers of its handshake.
const SESSION: usize = 12 << 10;

/// The structures of a socket: its entries in the namespace and in the list of its session.
const SOCKET: usize = 2 << 10;

/// An acknowledgement that is awaited, with a callback that keeps little.
const ACK: usize = 192;

impl Config {
    /// Bytes of memory that a server with this configuration and so many namespaces can use at most. `docs/MEMORY.md`
    /// explains it, and `cargo run --release --example soak` tests it.
    ///
    /// It does not count what belongs to the application or to the kernel: what handlers allocate, and the stack that
    /// they use beyond 64 KiB; a packet until the call that emits it returns; the socket buffers of the kernel.
    #[must_use]
    pub fn memory_bound(&self, namespaces: usize) -> usize {
        let terms = [
            BASE,
            self.leaders.saturating_mul(STACK + websocket_codec::READ_MAX),
            self.tcp_connections().saturating_mul(self.bytes_of_a_connection()),
            self.max_connections.saturating_mul(self.bytes_of_a_session(namespaces)),
            self.total_outbox_bytes(),
            // While a buffer grows, the old and the new one exist.
            self.total_receive_bytes().saturating_mul(2),
            self.room_bytes_total,
            hub::INFLIGHT_MAX,
            (self.hub_commands() + hub::BATCH_MAX).saturating_mul(hub::INFLIGHT_MIN),
            self.bytes_of_recovery(namespaces),
        ];
        terms.into_iter().fold(0, usize::saturating_add)
    }

    /// The log, the records of disconnected clients, and the kept answers; the log once more for a store that works
    /// again; the rooms of each socket; what is under way to the store; the batches of the threads that run handlers.
    fn bytes_of_recovery(&self, namespaces: usize) -> usize {
        let Some(options) = &self.connection_state_recovery else { return 0 };
        let sockets = self.max_connections.saturating_mul(namespaces.clamp(1, self.max_namespaces));
        options
            .max_bytes
            .saturating_mul(4)
            .saturating_add(sockets.saturating_mul(recovery::MEMBER_BYTES))
            .saturating_add(self.room_bytes_total)
            .saturating_add(journal::BYTES_MAX)
            .saturating_add(hub::BATCH_BYTES_TOTAL)
            // A worker thread for each value that is being dropped.
            .saturating_add(self.max_connections.saturating_mul(STACK))
            // A batch may pass its bound by one replay.
            .saturating_add(hub::REPLAY_MAX + self.outbox_bytes() / 2)
            // The same for what waits for the store, under way and gathered.
            .saturating_add((2 * held::HELD_MAX).saturating_add(self.outbox_bytes()))
    }

    fn bytes_of_a_connection(&self) -> usize {
        let head = self.head_size().saturating_add(http::READ_CHUNK).saturating_mul(2);
        let answer = 2 * outbox::PAYLOAD_WRITE_MIN;
        let receiving = websocket_codec::READ_MAX + 2 * budget::ALLOWANCE;
        head.saturating_add(STACK + CONNECTION + socket::SCRATCH_MAX + answer + receiving)
    }

    fn bytes_of_a_session(&self, namespaces: usize) -> usize {
        let socket = SOCKET
            .saturating_add(self.max_auth_size)
            .saturating_add(ACK.saturating_mul(self.max_pending_acks));
        let sockets = namespaces.clamp(1, self.max_namespaces).saturating_mul(socket);
        // Attachments that are received have an allowance of their own. A worker thread may run queued handlers.
        (STACK + SESSION + self.head_size() + budget::ALLOWANCE).saturating_add(sockets)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::of_the_defaults(|_: &mut Config| {}, 1_088)]
    #[case::of_a_small_box(small, 64)]
    fn the_bound_is_near_the_documented_figure(
        #[case] set_up: impl FnOnce(&mut Config),
        #[case] mebibytes: usize,
    ) {
        let mut config = Config::default();
        set_up(&mut config);
        let bound = config.memory_bound(1) >> 20;
        assert!((mebibytes / 2..=mebibytes).contains(&bound), "{bound} MiB");
    }

    /// The example of `docs/MEMORY.md`.
    fn small(config: &mut Config) {
        config.max_connections = 32;
        config.max_tcp_connections = Some(72);
        config.outbox_bytes_max = Some(2 << 20);
        config.outbox_bytes_total = Some(4 << 20);
        config.max_packet_size = Some(1 << 20);
        config.receive_bytes_total = Some(2 << 20);
        config.room_bytes_total = 1 << 20;
        config.max_pending_acks = 16;
        config.hub_queue = 64;
    }

    #[test]
    fn no_configuration_overflows() {
        let config = Config {
            max_connections: usize::MAX / 4,
            max_pending_acks: usize::MAX,
            hub_queue: usize::MAX,
            ..Config::default()
        };
        assert_eq!(config.memory_bound(usize::MAX), usize::MAX);
    }
}
