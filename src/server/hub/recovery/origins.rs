//! Which disconnected client is removed when there are too many: the oldest one of the address that has the most of
//! them.
//!
//! So an address whose clients connect and disconnect all the time removes its own records, and not those of others.
//! A plain type: it knows pids and addresses only.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::server::{limits::admission::Address, peer::Peer};

/// Where a client's record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Origin {
    Address(Address),
    /// On a Unix socket.
    Local,
    /// From an earlier process, so the address is not known. Each record counts alone.
    Kept(u64),
}

impl Origin {
    pub(super) fn of(peer: Peer) -> Self {
        match peer {
            Peer::Tcp(peer) => Self::Address(Address::of(peer.ip())),
            Peer::Unix => Self::Local,
        }
    }
}

/// The number of records, the oldest of them, and their origin. The greatest is removed first.
type Rank = (usize, Reverse<u64>, Origin);

/// Records by their origin. Later records have greater numbers.
#[derive(Debug, Default)]
pub(super) struct Origins {
    pids: BTreeMap<(Origin, u64), Arc<str>>,
    counts: HashMap<Origin, usize>,
    ranks: BTreeSet<Rank>,
}

impl Origins {
    /// Adds a new record.
    pub(super) fn add(&mut self, origin: Origin, number: u64, pid: Arc<str>) {
        self.change(origin, |pids, count| {
            pids.insert((origin, number), pid);
            *count += 1;
        });
    }

    /// Removes a record that was added.
    pub(super) fn remove(&mut self, origin: Origin, number: u64) {
        self.change(origin, |pids, count| {
            pids.remove(&(origin, number));
            *count -= 1;
        });
    }

    /// The pid of the record that is to be removed first.
    pub(super) fn first(&self) -> Option<&Arc<str>> {
        let &(_, Reverse(oldest), origin) = self.ranks.last()?;
        self.pids.get(&(origin, oldest))
    }

    fn change(
        &mut self,
        origin: Origin,
        how: impl FnOnce(&mut BTreeMap<(Origin, u64), Arc<str>>, &mut usize),
    ) {
        if let Some(rank) = self.rank(origin) {
            self.ranks.remove(&rank);
        }
        how(&mut self.pids, self.counts.entry(origin).or_default());
        if let Some(rank) = self.rank(origin) {
            self.ranks.insert(rank);
        } else {
            self.counts.remove(&origin);
        }
    }

    fn rank(&self, origin: Origin) -> Option<Rank> {
        let (&(whose, oldest), _) = self.pids.range((origin, 0)..).next()?;
        (whose == origin).then(|| (self.counts[&origin], Reverse(oldest), origin))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use rstest::rstest;

    use super::*;

    fn origin(letter: char) -> Origin {
        match letter {
            'l' => Origin::Local,
            'k' | 'K' => Origin::Kept(letter.into()),
            letter => {
                let last = u8::try_from(letter).expect("ASCII");
                Origin::Address(Address::of(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))))
            }
        }
    }

    /// `records`: one record for each character, which stands for its address, in the order in which they are added.
    /// The second word is the order in which they are removed.
    #[rstest]
    #[case::alone("aaa", "aaa")]
    #[case::each_has_one("abc", "abc")]
    #[case::one_has_more("abbb", "bbab")]
    #[case::two_have_more("aabbc", "ababc")]
    #[case::the_later_has_more("caabbb", "babcab")]
    #[case::without_an_address("lalb", "lalb")]
    #[case::kept_count_alone("kKaa", "akKa")]
    fn the_oldest_of_the_largest(#[case] records: &str, #[case] go: &str) {
        let mut origins = Origins::default();
        let pid = |number: usize| Arc::from(number.to_string());
        for (number, letter) in records.chars().enumerate() {
            origins.add(origin(letter), number as u64, pid(number));
        }
        let mut left: Vec<_> = records.chars().enumerate().collect();
        for expected in go.chars() {
            let first: usize = origins.first().expect("a record").parse().expect("a number");
            let at = left.iter().position(|&(number, _)| number == first).expect("it is there");
            let (number, letter) = left.remove(at);
            assert_eq!(letter, expected, "of {left:?}");
            assert!(left.iter().all(|&(other, of)| of != letter || other > number), "the oldest");
            origins.remove(origin(letter), number as u64);
        }
        assert!(origins.first().is_none() && origins.counts.is_empty() && origins.ranks.is_empty());
    }
}
