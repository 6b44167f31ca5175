//! Connection state recovery (official `connectionStateRecovery`): what the hub keeps, so that a client whose
//! connection was lost can go on where it was. All of it belongs to the hub's thread; the store has a thread of its
//! own.
//!
//! ```text
//!   emit ──► stamp: offset into the packet, packet into the log ──► recipients
//!   connect ─► Member ── connection lost ──► DisconnectedClient ── CONNECT with its pid: claim, restore ──► Member
//!               │ disconnect                  │ max_disconnection_duration
//!               └────────► forgotten ◄────────┘
//! ```
//! * [`log`](mod@log): the packets that were sent. [`members`]: who was in which room at which offset.
//!   [`disconnected`]: the clients that may come back. These are plain types. [`Recovery`] combines them and tells
//!   the store what has changed.
//! * [`claim`]: how a client comes back. [`journal`]: the way to the store's thread.
//!
//! A client receives what was for it at the time, whatever it has joined or left since. A client that may lack a
//! packet that is not in the log any more is not recovered, and learns that from the answer to its CONNECT.
//!
//! Unlike on the official server, a client need not have received an event before, can be recovered again and again,
//! and also after hours without events: the question is not whether the client's offset is in the log, but whether a
//! packet for the client has left it.
//!
//! It may use the hub's memberships and selections, the configuration and the protocol. It never sends a packet, and
//! never waits for the store, except at the shutdown.

mod claim;
mod disconnected;
pub(crate) mod journal;
mod log;
mod members;
pub(crate) mod origins;

use std::{any::Any, collections::HashMap, sync::Arc};

use bytes::Bytes;

use self::{
    claim::Waiters,
    disconnected::{DisconnectedClient, DisconnectedClients},
    journal::{HandedOver, Report},
    log::{Entry, Log},
    members::{Member, Members, OPEN},
};
use crate::server::{
    config::Config,
    hub::{Selection, membership::Membership},
    recovery::{
        ConnectionStateRecovery,
        store::{Change, Kept, KeptPacket, KeptSession},
    },
};
use crate::{
    proto::socket::{Encoded, Offset},
    random,
    sys::time::Instant,
};

pub(crate) use claim::{Claim, Resume};
pub(crate) use journal::Journal;
pub(crate) use members::MEMBER_BYTES;

/// The application's data of a client that may come back. The hub cannot look into it. The last reference may be
/// dropped on the hub's thread, so dropping it must not run code of the application.
pub(crate) type RetainedData = Arc<dyn Any + Send + Sync>;

/// The hub's part in connection state recovery.
pub(crate) struct Recovery {
    /// The names of the namespaces, by their index.
    names: Vec<Arc<str>>,
    log: Log,
    members: Members,
    /// The sockets of the members by their pid.
    connected: HashMap<Arc<str>, Arc<Membership>>,
    disconnected: DisconnectedClients,
    waiters: Waiters,
    journal: Option<Journal>,
    /// More bytes than this are not sent to one client at once.
    replay_max: usize,
    /// Counts the changes that must be durable before their effects are sent.
    durable_changes: u64,
}

impl Recovery {
    /// Goes on with what an earlier process has kept.
    pub(crate) fn new(
        config: &Config,
        options: &ConnectionStateRecovery,
        names: Vec<Arc<str>>,
        kept: Kept,
        journal: Option<Journal>,
    ) -> Self {
        let last = match &journal {
            Some(journal) if journal.is_on() => Offset::of_life(kept.life),
            // In the generation before that of any store: the store may be opened later.
            Some(_) => random_start(),
            // Without a store the generations are not counted. Any other than the one before will do.
            None => Offset::of_life(random_generation()),
        };
        let floor = Offset::new(kept.floor);
        let before = kept.packets.last().map_or(Offset::ZERO, |packet| Offset::new(packet.offset)).max(floor);
        let age = options.max_disconnection_duration;
        let log = log::Limits {
            packets: options.max_packets,
            bytes: options.max_bytes,
            // A client may be gone for so long before the server notices.
            age: age + config.ping_interval + config.ping_timeout,
        };
        let clients = config.max_connections.saturating_mul(names.len().clamp(1, config.max_namespaces));
        let disconnected = disconnected::Limits { clients, bytes: options.max_bytes, age };
        let mut recovery = Self {
            log: Log::new(log, floor, before, last),
            members: Members::new(names.len()),
            connected: HashMap::new(),
            disconnected: DisconnectedClients::new(disconnected),
            waiters: Waiters::default(),
            journal,
            names,
            replay_max: config.outbox_bytes() / 2,
            durable_changes: 0,
        };
        let now = Instant::now();
        for packet in kept.packets {
            recovery.restore_packet(packet, now);
        }
        for session in kept.sessions {
            recovery.restore_session(session, now);
        }
        recovery
    }

    fn namespace(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|other| **other == *name)
    }

    fn restore_packet(&mut self, packet: KeptPacket, now: Instant) {
        // The packets of a namespace that is not served any more have no recipients.
        let Some(namespace) = self.namespace(&packet.namespace) else { return };
        let KeptPacket { only, skip, .. } = packet;
        let to = Selection { only, rooms: packet.rooms.into(), except: packet.except.into(), skip };
        let (offset, packet) = (Offset::new(packet.offset), Encoded::from_bytes(packet.frames));
        self.log.push(Entry::new(offset, namespace, to.into(), packet, now));
    }

    fn restore_session(&mut self, session: KeptSession, now: Instant) {
        let Some(namespace) = self.namespace(&session.namespace) else { return };
        let mut valid_until = Offset::new(session.known);
        let member = Member::from_kept(session);
        if valid_until == OPEN {
            // It was connected, and `last` is right as of the last trim. From now on it is disconnected, and trims go
            // on.
            valid_until = self.log.floor();
            self.note(Change::Session(member.kept(&self.names[namespace], valid_until)));
        }
        self.add_disconnected(DisconnectedClient::new(namespace, member, valid_until, now));
    }

    /// The offset of the last packet that was sent.
    pub(crate) fn last(&self) -> Offset {
        self.log.last()
    }

    /// Removes the slots of sockets whose clients have declined recovery, and returns them: they get no offsets.
    pub(crate) fn take_non_recoverable(&self, namespace: usize, slots: &mut Vec<u32>) -> Vec<u32> {
        self.members.take_non_recoverable(namespace, slots)
    }

    /// Writes the packet's offset into it, and keeps the packet unless no client could ask for it. `recipients`: the
    /// slots of those who get it now.
    pub(crate) fn stamp(
        &mut self,
        namespace: usize,
        to: &Arc<Selection>,
        packet: &mut Encoded,
        volatile: bool,
        recipients: &[u32],
    ) {
        if volatile || (self.connected.is_empty() && self.disconnected.is_empty()) {
            // The official client takes the last string of any event for its offset. So the packet carries the last
            // offset.
            return packet.set_offset(self.log.last());
        }
        let offset = self.log.next_offset();
        packet.set_offset(offset);
        for &slot in recipients {
            if let Some(member) = self.members.get_mut(namespace, slot) {
                member.last = offset;
            }
        }
        let at = Instant::now();
        let entry = Entry::new(offset, namespace, Arc::clone(to), packet.clone(), at);
        if self.is_storing() {
            let packet = entry.kept(&self.names[namespace]);
            self.note(Change::Packet(packet));
        }
        self.log.push(entry);
        self.trim(at);
    }

    fn trim(&mut self, now: Instant) {
        if self.log.trim(now) {
            self.trim_store();
        }
    }

    /// The store forgets the packets that have left the log. Before that it is given each member's last packet: a
    /// client that has received that one misses nothing of what is forgotten.
    fn trim_store(&mut self) {
        let Some(journal) = self.journal.as_mut().filter(|journal| journal.is_on()) else { return };
        let names = &self.names;
        self.members.store_last(|namespace, member| {
            journal.note(Change::Session(member.kept(&names[namespace], OPEN)));
        });
        journal.note(Change::Trim(self.log.floor().number()));
    }

    /// A new client has connected.
    pub(crate) fn connect(&mut self, socket: &Arc<Membership>) {
        let Some(pid) = socket.pid() else { return };
        self.insert(socket, Member::new(socket.shared_id(), Arc::clone(pid), self.log.last()));
    }

    fn insert(&mut self, socket: &Arc<Membership>, member: Member) {
        self.connected.insert(Arc::clone(&member.pid), Arc::clone(socket));
        self.members.insert(socket.namespace_index(), socket.slot(), member);
        self.mark_dirty(socket);
    }

    /// The store is to be given the member of this socket.
    fn mark_dirty(&mut self, socket: &Arc<Membership>) {
        if self.is_storing() {
            self.durable_changes += 1;
            self.members.mark_dirty(socket.namespace_index(), socket.slot());
        }
    }

    /// Whether the socket is the member of its slot.
    fn is_connected(&self, socket: &Arc<Membership>) -> bool {
        let connected = socket.pid().and_then(|pid| self.connected.get(pid));
        connected.is_some_and(|connected| connected.is_same(socket))
    }

    /// Changes the member of this socket, if it is connected.
    fn change(&mut self, socket: &Arc<Membership>, change: impl FnOnce(&mut Member, &Log)) {
        if self.is_connected(socket)
            && let Some(member) = self.members.get_mut(socket.namespace_index(), socket.slot())
        {
            change(member, &self.log);
            self.mark_dirty(socket);
        }
    }

    pub(crate) fn join(&mut self, socket: &Arc<Membership>, room: &Arc<str>) {
        self.change(socket, |member, log| member.join(Arc::clone(room), log.last()));
    }

    pub(crate) fn leave(&mut self, socket: &Arc<Membership>, room: &str) {
        self.change(socket, |member, log| member.leave(room, log.last(), log.floor()));
    }

    /// The application's data of this socket, as the store keeps it.
    pub(crate) fn keep_data(&mut self, socket: &Arc<Membership>, data: Option<Bytes>) {
        self.change(socket, |member, _| member.data = data);
    }

    /// A socket disconnects. `lost`: it may come back, and then finds this data again.
    pub(crate) fn disconnect(&mut self, socket: &Arc<Membership>, lost: Option<RetainedData>, now: Instant) {
        if !self.is_connected(socket) {
            return;
        }
        let (namespace, slot) = (socket.namespace_index(), socket.slot());
        let Some(mut member) = self.members.remove(namespace, slot) else { return };
        self.connected.remove(&member.pid);
        let Some(data) = lost else {
            self.waiters.wake(&member.pid);
            return self.note(Change::Forget(member.pid));
        };
        member.mark_stored();
        let valid_until = self.log.last();
        self.note(Change::Session(member.kept(&self.names[namespace], valid_until)));
        let mut client = DisconnectedClient::new(namespace, member, valid_until, now);
        (client.data, client.leaving) = (Some(data), Some(Arc::clone(socket)));
        self.add_disconnected(client);
    }

    fn add_disconnected(&mut self, client: DisconnectedClient) {
        self.disconnected.insert(client);
        while let Some(pid) = self.disconnected.surplus().cloned() {
            self.forget(&pid);
        }
    }

    /// A disconnected client cannot come back any more.
    fn forget(&mut self, pid: &Arc<str>) {
        if self.disconnected.remove(pid).is_some() {
            self.waiters.wake(pid);
            self.note(Change::Forget(Arc::clone(pid)));
        }
    }

    /// The disconnect handlers of a socket have returned.
    pub(crate) fn handlers_done(&mut self, socket: &Arc<Membership>) {
        let Some(pid) = socket.pid() else { return };
        let Some(client) = self.disconnected.get_mut(pid) else { return };
        if client.leaving.as_ref().is_some_and(|leaving| leaving.is_same(socket)) {
            client.leaving = None;
            self.waiters.wake(pid);
        }
    }

    /// When a packet or a client is to be forgotten. `None`: there is none.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.log.deadline().into_iter().chain(self.disconnected.deadline()).min()
    }

    /// Forgets the packets and the clients that are too old.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(pid) = self.disconnected.next_expired(now) {
            self.forget(&pid);
        }
        self.trim(now);
        self.log.shrink();
    }

    /// The store is to be given this change.
    pub(crate) fn note(&mut self, change: Change) {
        if let Some(journal) = &mut self.journal {
            self.durable_changes += 1;
            journal.note(change);
        }
    }

    /// Whether there is a store, and it works.
    fn is_storing(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::is_on)
    }

    /// A number that changes with each change that must be durable before its effects are sent.
    pub(crate) fn durable_changes(&self) -> u64 {
        let holds_back = self.journal.as_ref().is_some_and(Journal::holds_back);
        if holds_back { self.durable_changes } else { 0 }
    }

    /// The answer to a client's retries is not needed any more.
    pub(crate) fn forget_answer(&mut self, client: Arc<str>, namespace: usize) {
        let namespace = Arc::clone(&self.names[namespace]);
        self.note(Change::ForgetAnswer { client, namespace });
    }

    /// Gives the store the changes, if it is free and the time has come. `all`: at any time.
    pub(crate) fn hand_over(&mut self, now: Instant, all: bool) -> HandedOver {
        let Some(journal) = &mut self.journal else { return HandedOver::Nothing };
        let names = &self.names;
        self.members.store_dirty(|namespace, member| {
            journal.note(Change::Session(member.kept(&names[namespace], OPEN)));
        });
        journal.hand_over(now, all)
    }

    /// Whether the store is behind by so much that the hub must take no more commands.
    pub(crate) fn is_full(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::is_full)
    }

    /// When the journal is to be handed over. `None`: it is empty, or the store is busy.
    pub(crate) fn journal_deadline(&self) -> Option<Instant> {
        self.journal.as_ref()?.deadline()
    }

    pub(crate) fn store_reported(&mut self, report: &Report) {
        let Some(journal) = &mut self.journal else { return };
        match report {
            Report::Committed => journal.committed(),
            Report::Failed => journal.switch_off(),
            Report::Reopened(generation) => {
                journal.switch_on();
                self.fill_store(*generation);
            }
        }
    }

    /// The store works again, is empty, and has begun this generation. It gets the packets and the clients that are
    /// in memory, in one commit.
    fn fill_store(&mut self, generation: u32) {
        self.log.begin_generation(Offset::of_life(generation));
        let names = &self.names;
        let mut changes = vec![Change::Trim(self.log.floor().number())];
        changes.extend(self.log.entries().map(|entry| Change::Packet(entry.kept(&names[entry.namespace]))));
        self.members.store_all(|namespace, member| {
            changes.push(Change::Session(member.kept(&names[namespace], OPEN)));
        });
        changes.extend(
            self.disconnected.iter().map(|client| {
                Change::Session(client.member.kept(&names[client.namespace], client.valid_until))
            }),
        );
        changes.into_iter().for_each(|change| self.note(change));
    }

    /// Whether everything that is to be durable is durable.
    pub(crate) fn is_done(&self) -> bool {
        self.journal.as_ref().is_none_or(Journal::is_done)
    }

    /// Waits for the store's end. `false`: it has not come by the deadline.
    pub(crate) fn close(&mut self, deadline: Instant) -> bool {
        self.journal.take().is_none_or(|journal| journal.close(deadline))
    }
}

/// 0 if there is no randomness. Then a client of an earlier process may not be told that it has missed events.
fn random_generation() -> u32 {
    random::u32().unwrap_or_default()
}

/// Where the offsets begin if the store could not be opened: within generation 0, which no store begins, so that the
/// offsets that a store gives later are above it. As with [`random_generation`], no other start has the same.
fn random_start() -> Offset {
    const BITS: u32 = 43;
    Offset::new(random::u64().unwrap_or_default() >> (u64::BITS - BITS))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// The hub asks again for the next deadline. One that was due and stayed would keep the hub busy without end.
    #[test]
    fn what_is_due_at_this_very_moment_is_forgotten() {
        let packet = KeptPacket {
            offset: 1,
            namespace: "/".into(),
            only: None,
            rooms: Vec::new(),
            except: Vec::new(),
            skip: None,
            frames: Bytes::from_static(b"42[]"),
        };
        let session = KeptSession {
            pid: "p".into(),
            sid: "s".into(),
            namespace: "/".into(),
            entered: 0,
            blind: 0,
            stays: Vec::new(),
            data: None,
            last: 1,
            known: 1,
        };
        let kept = Kept { life: 1, packets: vec![packet], sessions: vec![session], ..Kept::default() };
        let options = ConnectionStateRecovery::new();
        let mut recovery = Recovery::new(&Config::default(), &options, vec!["/".into()], kept, None);
        for _ in 0..2 {
            let due = recovery.deadline().expect("a client, and then a packet");
            recovery.expire(due);
            assert_ne!(recovery.deadline(), Some(due));
        }
        assert_eq!(
            (recovery.deadline(), recovery.log.len(), recovery.disconnected.is_empty()),
            (None, 0, true)
        );
    }
}
