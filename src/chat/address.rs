//! Where a client is: its own address, or what a proxy that we trust says about it.

use std::{net::IpAddr, str::FromStr};

use crate::server::{Handshake, Peer};

/// The address for the log. `X-Forwarded-For` counts only as far as trusted proxies vouch for it: everything before
/// the last address that none of them has may be made up by the client.
pub(super) fn client_address(handshake: &Handshake, trusted: &[Network]) -> String {
    let peer = match handshake.peer() {
        Peer::Tcp(address) => address,
        peer @ Peer::Unix => return peer.to_string(),
    };
    if !is_trusted(peer.ip(), trusted) {
        return peer.to_string();
    }
    let claims: Vec<&str> =
        handshake.header_values("x-forwarded-for").flat_map(|list| list.split(',')).map(str::trim).collect();
    match forwarded_for(&claims, trusted) {
        Some(client) => format!("{client} (by way of {peer})"),
        None => peer.to_string(),
    }
}

/// The last address in the list that is no trusted proxy's. `None`: what a proxy wrote is no address.
fn forwarded_for(claims: &[&str], trusted: &[Network]) -> Option<IpAddr> {
    let mut client = None;
    for claim in claims.iter().rev() {
        client = claim.parse().ok();
        if !client.is_some_and(|address| is_trusted(address, trusted)) {
            break;
        }
    }
    client
}

fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// An address, or a range of them: `10.1.2.3`, `10.0.0.0/8`, `::1`, `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no [`Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address like 10.1.2.3 or a range like 10.0.0.0/8")]
pub struct NetworkError;

impl FromStr for Network {
    type Err = NetworkError;
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(longest), str::parse).map_err(|_| NetworkError)?;
        if bits > longest { Err(NetworkError) } else { Ok(Self { address, bits }) }
    }
}

impl Network {
    /// Whether the address is in the range. An IPv4 address in IPv6 clothes counts as what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(address)) => {
                same_start(u128::from(range.to_bits()) << 96, u128::from(address.to_bits()) << 96, self.bits)
            }
            (IpAddr::V6(range), IpAddr::V6(address)) => {
                same_start(range.to_bits(), address.to_bits(), self.bits)
            }
            _ => false,
        }
    }
}

fn same_start(a: u128, b: u128, bits: u8) -> bool {
    bits == 0 || (a ^ b).leading_zeros() >= u32::from(bits)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("10.1.2.3", "10.1.2.3", true)]
    #[case("10.1.2.3", "10.1.2.4", false)]
    #[case("10.0.0.0/8", "10.255.0.1", true)]
    #[case("10.0.0.0/8", "11.0.0.1", false)]
    #[case("0.0.0.0/0", "1.2.3.4", true)]
    #[case("0.0.0.0/0", "::1", false)]
    #[case("127.0.0.1", "::ffff:127.0.0.1", true)]
    #[case("fd00::/8", "fd12::1", true)]
    #[case("fd00::/8", "fe80::1", false)]
    fn ranges(#[case] network: Network, #[case] address: IpAddr, #[case] inside: bool) {
        assert_eq!(network.contains(address), inside);
    }

    #[rstest]
    #[case("")]
    #[case("localhost")]
    #[case("10.0.0.0/33")]
    #[case("10.0.0.0/-1")]
    #[case("::1/129")]
    #[case("10.0.0.0/8/8")]
    fn no_ranges(#[case] text: &str) {
        assert_eq!(text.parse::<Network>(), Err(NetworkError));
    }

    #[rstest]
    #[case::one_proxy(&["203.0.113.7"], Some("203.0.113.7"))]
    #[case::made_up_before_it(&["1.1.1.1", "203.0.113.7"], Some("203.0.113.7"))]
    #[case::two_proxies(&["1.1.1.1", "203.0.113.7", "10.0.0.2"], Some("203.0.113.7"))]
    #[case::only_proxies(&["10.0.0.3", "10.0.0.2"], Some("10.0.0.3"))]
    #[case::no_address(&["203.0.113.7", "unknown"], None)]
    #[case::none(&[], None)]
    fn believes_trusted_proxies_only(#[case] claims: &[&str], #[case] expected: Option<&str>) {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        assert_eq!(forwarded_for(claims, &trusted), expected.map(|address| address.parse().unwrap()));
    }
}
