//! Admission: how many connections and sessions one address may have, and how fast sessions may be opened.
//!
//! ```text
//!   accept ────► max_tcp_connections, streams of this address ─ no: 503, closed, no thread
//!   handshake ─► max_connections, sessions of this address, accept_rate ─ no: 503 with Retry-After
//! ```
//! Only a request that opens a session is asked for here. Those of a session that exists are not.
//!
//! It owns the counts of each address and the bucket of `accept_rate`. It uses [`Bucket`] and [`Peer`], and nothing
//! else of the server.

use std::{collections::HashMap, fmt, net::IpAddr, sync::Arc};

use crate::server::{
    limits::rate::{Bucket, Rate},
    peer::Peer,
};
use crate::sys::{sync::Mutex, time::Instant};

/// Whether the limit of an address does not hold for this one.
pub(crate) type Exempt = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// TCP connections that an address may have beside two for each session, for requests that open no session.
const SPARE_STREAMS: usize = 8;

/// The addresses that the limit counts as one: an IPv4 address, or the 64-bit network of an IPv6 address, because a
/// client usually has all addresses of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Address {
    V4(u32),
    V6(u64),
}

impl Address {
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => Self::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

/// What is counted of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stream,
    Session,
}

#[derive(Debug, Default)]
struct Counts {
    streams: usize,
    sessions: usize,
}

impl Counts {
    fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Stream => &mut self.streams,
            Kind::Session => &mut self.sessions,
        }
    }
}

/// One connection or session in the counts of its address. Given back on drop.
#[derive(Debug)]
pub(crate) struct Share {
    admission: Arc<Admission>,
    address: Address,
    kind: Kind,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut addresses = self.admission.addresses.lock();
        let Some(counts) = addresses.get_mut(&self.address) else { return };
        *counts.of(self.kind) -= 1;
        if counts.streams == 0 && counts.sessions == 0 {
            addresses.remove(&self.address);
        }
    }
}

/// The address is at its limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

pub(crate) struct Admission {
    per_address: Option<usize>,
    exempt: Option<Exempt>,
    /// The addresses that have something. There are at most as many as connections and sessions.
    addresses: Mutex<HashMap<Address, Counts>>,
    opening: Mutex<Bucket>,
}

impl Admission {
    /// `exempt` may be code of the application. It must not panic.
    pub(crate) fn new(per_address: Option<usize>, accept_rate: Rate, exempt: Option<Exempt>) -> Self {
        let bucket = Bucket::new(Instant::now(), accept_rate);
        Self { per_address, exempt, addresses: Mutex::default(), opening: Mutex::new(bucket) }
    }

    /// Counts a new connection. The application is not asked: see [`is_exempt`](Self::is_exempt).
    pub(crate) fn stream(self: &Arc<Self>, peer: Peer) -> Result<Option<Share>, TooMany> {
        self.share(peer, Kind::Stream)
    }

    /// Counts a new session. If the address is at its limit, the application is asked whether it is exempt.
    pub(crate) fn session(self: &Arc<Self>, peer: Peer) -> Result<Option<Share>, TooMany> {
        self.share(peer, Kind::Session)
            .or_else(|refused| if self.is_exempt(peer) { Ok(None) } else { Err(refused) })
    }

    /// Whether the application can exempt addresses. It must be asked on a worker thread, because it may block.
    pub(crate) fn has_exemptions(&self) -> bool {
        self.exempt.is_some()
    }

    /// Asks the application whether the address is exempt.
    pub(crate) fn is_exempt(&self, peer: Peer) -> bool {
        let (Some(exempt), Peer::Tcp(peer)) = (&self.exempt, peer) else { return false };
        exempt(peer.ip())
    }

    /// `None`: there is no limit for this peer.
    fn share(self: &Arc<Self>, peer: Peer, kind: Kind) -> Result<Option<Share>, TooMany> {
        let (Some(sessions), Peer::Tcp(peer)) = (self.per_address, peer) else { return Ok(None) };
        let max = match kind {
            Kind::Session => sessions,
            Kind::Stream => sessions.saturating_mul(2).saturating_add(SPARE_STREAMS),
        };
        let address = Address::of(peer.ip());
        let mut addresses = self.addresses.lock();
        let counts = addresses.entry(address).or_default();
        if *counts.of(kind) >= max {
            return Err(TooMany);
        }
        *counts.of(kind) += 1;
        Ok(Some(Share { admission: Arc::clone(self), address, kind }))
    }

    /// Takes a token of `accept_rate` for a new session. `Err`: there is none. The client may try again after so many
    /// seconds.
    pub(crate) fn take_turn(&self) -> Result<(), u64> {
        self.opening.lock().take(Instant::now(), 1).map_err(|wait| wait.as_secs() + 1)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("per_address", &self.per_address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn admission(exempt: Option<Exempt>) -> Arc<Admission> {
        Arc::new(Admission::new(Some(1), Rate::NONE, exempt))
    }

    fn peer(ip: &str) -> Peer {
        Peer::Tcp((ip.parse::<IpAddr>().expect("an address"), 1).into())
    }

    #[rstest]
    #[case::the_same("203.0.113.7", "203.0.113.7", false)]
    #[case::a_neighbour("203.0.113.7", "203.0.113.8", true)]
    #[case::mapped_to_ipv6("203.0.113.7", "::ffff:203.0.113.7", false)]
    #[case::the_same_network("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", false)]
    #[case::another_network("2001:db8:0:1::1", "2001:db8:0:2::1", true)]
    #[case::two_families("::1", "127.0.0.1", true)]
    fn the_addresses_that_the_limit_counts_as_one(
        #[case] first: &str,
        #[case] second: &str,
        #[case] apart: bool,
    ) {
        let admission = admission(None);
        let kept = admission.session(peer(first));
        assert!(kept.is_ok());
        assert_eq!(admission.session(peer(second)).is_ok(), apart);
        drop(kept);
        assert!(admission.session(peer(second)).is_ok());
        assert!(admission.addresses.lock().is_empty(), "an address that has nothing is remembered");
    }

    #[test]
    fn sessions_and_connections_are_counted_apart() {
        let admission = admission(None);
        let ip = peer("203.0.113.7");
        let streams: Vec<_> = (0..2 + SPARE_STREAMS).map(|_| admission.stream(ip)).collect();
        assert!(streams.iter().all(Result::is_ok));
        assert!(admission.stream(ip).is_err() && admission.session(ip).is_ok());
    }

    #[test]
    fn an_exempt_address_has_no_limit() {
        let admission = admission(Some(Arc::new(|ip| ip.is_loopback())));
        for exempt in [Peer::Unix, peer("127.0.0.1"), peer("::1")] {
            let kept: Vec<_> = (0..3).map(|_| admission.session(exempt)).collect();
            assert!(kept.iter().all(Result::is_ok));
        }
    }
}
