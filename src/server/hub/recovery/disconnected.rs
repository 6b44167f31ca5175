//! The table of disconnected clients that may be recovered.
//!
//! It is a plain type: a bounded table with an age limit. It knows no store and no log. When it is full, the oldest
//! client of the address that has the most of them is removed first (see [`origins`](super::origins)).

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use crate::server::{
    hub::membership::Membership,
    hub::recovery::{
        RetainedData,
        members::{INTERVAL_COST, Member},
        origins::{Origin, Origins},
    },
};
use crate::{proto::socket::Offset, sys::time::Instant};

/// The bytes that a disconnected client takes beside its rooms.
const CLIENT_COST: usize = 640;

/// A client that has disconnected and may be recovered.
pub(super) struct DisconnectedClient {
    pub(super) namespace: usize,
    pub(super) member: Member,
    /// Up to this offset `member.last` is right.
    pub(super) valid_until: Offset,
    pub(super) data: Option<RetainedData>,
    /// Its socket, until the disconnect handlers have returned.
    pub(super) leaving: Option<Arc<Membership>>,
    /// Another connection is about to take its place.
    pub(super) claimed: bool,
    pub(super) since: Instant,
    bytes: usize,
    origin: Origin,
    /// Counts the clients that have ever disconnected.
    number: u64,
}

impl DisconnectedClient {
    pub(super) fn new(namespace: usize, member: Member, valid_until: Offset, since: Instant) -> Self {
        let name = |interval: &super::members::RoomInterval| INTERVAL_COST + interval.room.len();
        let names: usize = member.intervals().iter().map(name).sum();
        let bytes = CLIENT_COST + names + member.data.as_ref().map_or(0, Bytes::len);
        Self {
            namespace,
            member,
            valid_until,
            data: None,
            leaving: None,
            claimed: false,
            since,
            bytes,
            origin: Origin::Local,
            number: 0,
        }
    }
}

/// How much the table keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) clients: usize,
    pub(super) bytes: usize,
    pub(super) age: Duration,
}

pub(super) struct DisconnectedClients {
    limits: Limits,
    by_pid: HashMap<Arc<str>, DisconnectedClient>,
    bytes: usize,
    /// When each client disconnected, the first one first. Clients that are not in the table any more may still be in
    /// it.
    queue: VecDeque<(Instant, Arc<str>)>,
    /// How many clients have ever disconnected.
    count: u64,
    origins: Origins,
}

impl DisconnectedClients {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            by_pid: HashMap::new(),
            bytes: 0,
            queue: VecDeque::new(),
            count: 0,
            origins: Origins::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_pid.is_empty()
    }

    pub(super) fn get(&self, pid: &str) -> Option<&DisconnectedClient> {
        self.by_pid.get(pid)
    }

    pub(super) fn get_mut(&mut self, pid: &str) -> Option<&mut DisconnectedClient> {
        self.by_pid.get_mut(pid)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &DisconnectedClient> {
        self.by_pid.values()
    }

    /// Adds a client, in place of the one with its pid. Then the table may be too full: see [`surplus`](Self::surplus).
    pub(super) fn insert(&mut self, mut client: DisconnectedClient) {
        let pid = Arc::clone(&client.member.pid);
        self.remove(&pid);
        self.count += 1;
        client.number = self.count;
        client.origin = client
            .leaving
            .as_ref()
            .map_or(Origin::Kept(self.count), |socket| Origin::of(socket.session().peer()));
        self.origins.add(client.origin, client.number, Arc::clone(&pid));
        self.bytes += client.bytes;
        self.queue.push_back((client.since, Arc::clone(&pid)));
        self.by_pid.insert(pid, client);
        if self.queue.len() > 2 * self.by_pid.len() + 64 {
            let clients = &self.by_pid;
            self.queue.retain(|(since, pid)| clients.get(pid).is_some_and(|client| client.since == *since));
        }
    }

    pub(super) fn remove(&mut self, pid: &str) -> Option<DisconnectedClient> {
        let client = self.by_pid.remove(pid)?;
        self.bytes -= client.bytes;
        self.origins.remove(client.origin, client.number);
        Some(client)
    }

    /// The client that must be removed next, because the table is too full.
    pub(super) fn surplus(&self) -> Option<&Arc<str>> {
        let is_full = self.by_pid.len() > self.limits.clients || self.bytes > self.limits.bytes;
        is_full.then(|| self.origins.first()).flatten()
    }

    /// The next client that has been disconnected for too long. It must be removed.
    pub(super) fn next_expired(&mut self, now: Instant) -> Option<Arc<str>> {
        while let Some((since, pid)) = self.queue.pop_front_if(|(since, _)| *since + self.limits.age <= now) {
            if self.by_pid.get(&pid).is_some_and(|client| client.since == since) {
                return Some(pid);
            }
        }
        None
    }

    /// When the first client has been disconnected for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.queue.front().map(|(since, _)| *since + self.limits.age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { clients: 2, bytes: 1 << 20, age: Duration::from_secs(60) };

    fn client(pid: &str, since: Instant) -> DisconnectedClient {
        let member = Member::new("sid".into(), pid.into(), Offset::ZERO);
        DisconnectedClient::new(0, member, Offset::ZERO, since)
    }

    fn surplus(clients: &DisconnectedClients) -> Option<&str> {
        clients.surplus().map(|pid| &**pid)
    }

    #[test]
    fn the_oldest_is_too_many() {
        let (mut clients, now) = (DisconnectedClients::new(LIMITS), Instant::now());
        clients.insert(client("a", now));
        clients.insert(client("b", now));
        assert_eq!(surplus(&clients), None);
        clients.insert(client("c", now));
        assert_eq!(surplus(&clients), Some("a"));
        clients.remove("a");
        assert_eq!(surplus(&clients), None);
    }

    #[test]
    fn bytes_are_bounded() {
        let mut clients = DisconnectedClients::new(Limits { bytes: CLIENT_COST + 10, ..LIMITS });
        let mut large = client("a", Instant::now()).member;
        large.data = Some(Bytes::from_static(b"eleven byte"));
        clients.insert(DisconnectedClient::new(0, large, Offset::ZERO, Instant::now()));
        assert_eq!(surplus(&clients), Some("a"));
        clients.remove("a");
        clients.insert(client("b", Instant::now()));
        assert_eq!(surplus(&clients), None);
    }

    #[test]
    fn a_client_expires_at_its_deadline() {
        let (mut clients, now) = (DisconnectedClients::new(LIMITS), Instant::now());
        clients.insert(client("a", now));
        let due = clients.deadline().expect("a client");
        assert_eq!(clients.next_expired(due - Duration::from_millis(1)), None);
        assert_eq!(clients.next_expired(due).as_deref(), Some("a"));
        assert_eq!((clients.next_expired(due), clients.deadline()), (None, None));
    }

    /// A client that was recovered and disconnects again has its whole time again.
    #[test]
    fn only_the_last_disconnection_counts() {
        let (mut clients, now) = (DisconnectedClients::new(LIMITS), Instant::now());
        clients.insert(client("a", now));
        clients.remove("a");
        let later = now + Duration::from_secs(30);
        clients.insert(client("a", later));
        assert_eq!(clients.next_expired(now + LIMITS.age), None);
        assert_eq!(clients.next_expired(later + LIMITS.age).as_deref(), Some("a"));
    }

    #[test]
    fn the_queue_does_not_grow_with_clients_that_come_back() {
        let mut clients = DisconnectedClients::new(LIMITS);
        for _ in 0..1_000 {
            clients.insert(client("a", Instant::now()));
            clients.remove("a");
        }
        assert!(clients.is_empty() && clients.bytes == 0);
        assert!(clients.queue.len() <= 2 + 64 + 1, "{}", clients.queue.len());
    }
}
