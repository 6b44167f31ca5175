//! Connection state recovery (official `connectionStateRecovery`): what the hub keeps, so that a client that was lost goes
//! on where it was.
//!
//! ```text
//!   emit ──► stamp: offset into the packet, packet into the log ──► recipients
//!   enter ─► Member ──── exit, the connection lost ────► Away ──── CONNECT with its pid: claim, enter ────► Member
//!             │ exit for good                             │ max_disconnection_duration
//!             └──────────────► forgotten ◄────────────────┘
//! ```
//! The log has each packet once, however many get it, with the selection that it was sent to. Who was in which room at
//! which offset is kept with each member; so what a client has missed is what was meant for it at the time, whatever it joined or
//! left since. The log's oldest packets go when it is full or they are old; the **floor** is the last one gone. A client
//! that may lack one of those is not recovered, and told so.
//!
//! Unlike the official server's, a recovery needs no event received before, works again and again, and after hours of quiet:
//! what counts is not whether the client's offset is in the log, but whether anything meant for the client has left it.

pub(crate) mod journal;
pub(crate) mod origins;
pub(crate) mod store;

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::server::{
    config::Config,
    hub::Selection,
    hub::membership::Membership,
    recovery::journal::{HandedOver, Journal, Report},
    recovery::origins::{Origin, Origins},
    recovery::store::{Change, Kept, KeptPacket, KeptSession, Stay},
};
use crate::{
    proto::{
        CloseReason,
        socket::{Encoded, Offset},
    },
    random,
    sys::{
        channel::{Receiver, Sender, bounded},
        time::Instant,
    },
};

/// The options of connection state recovery: the official `connectionStateRecovery`.
///
/// Each event without an acknowledgement then carries its offset as one more last argument, which handlers of the official
/// clients see. A client that says `"recovery": false` in its auth payload gets its events as without recovery, and is not
/// recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStateRecovery {
    /// Official `maxDisconnectionDuration`: how long a client may be away. Default 2 min.
    pub max_disconnection_duration: Duration,
    /// Official `skipMiddlewares`: whether a client that is recovered passes the middlewares unasked. Default true.
    pub skip_middlewares: bool,
    /// Packets that are kept for all clients together. Default 50,000. A client that has missed an older one is not
    /// recovered.
    pub max_packets: usize,
    /// Bytes of memory that the packets kept may take, about 400 each beside their own; as much again for the records of clients
    /// that are away, and as much again for the answers to clients with `retries`. Default 8 MiB. A client that has missed an
    /// older packet is not recovered; of the clients that are away the first that left of the address that has most of them is
    /// forgotten; of the answers the one that was not asked for the longest time.
    pub max_bytes: usize,
}

impl Default for ConnectionStateRecovery {
    fn default() -> Self {
        Self {
            max_disconnection_duration: Duration::from_secs(120),
            skip_middlewares: true,
            max_packets: 50_000,
            max_bytes: 8 << 20,
        }
    }
}

impl ConnectionStateRecovery {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`max_disconnection_duration`](Self::max_disconnection_duration).
    #[must_use]
    pub fn max_disconnection_duration(mut self, duration: Duration) -> Self {
        self.max_disconnection_duration = duration;
        self
    }

    /// Sets [`skip_middlewares`](Self::skip_middlewares).
    #[must_use]
    pub fn skip_middlewares(mut self, skip: bool) -> Self {
        self.skip_middlewares = skip;
        self
    }

    /// Sets [`max_packets`](Self::max_packets).
    #[must_use]
    pub fn max_packets(mut self, packets: usize) -> Self {
        self.max_packets = packets;
        self
    }

    /// Sets [`max_bytes`](Self::max_bytes).
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }
}

/// What an entry of the log takes beside the packet itself: its place in a queue that may have twice the room that it needs, and a
/// buffer that may have more than the packet needs.
const ENTRY_COST: usize = 400;

/// What the record of a client that is away takes beside its rooms.
const AWAY_COST: usize = 640;

/// What a stay in a room takes beside the room's name, which others share.
const STAY_COST: usize = 48;

/// Rooms that a member has left and the log may still need to know of.
const LEFT_MAX: usize = 64;

/// What a member takes beside the rooms that it is in.
pub(crate) const MEMBER_BYTES: usize = 1_024 + LEFT_MAX * STAY_COST;

/// A part of the log of this size is worth a change of the store.
const TRIM_SHARE: usize = 8;

/// What is missed goes out in pieces of this size.
const PIECE: usize = 64 << 10;

/// The reasons after which a client may come back: the official list, and those of ours by which a client is cut and not sent away.
pub(crate) fn is_recoverable(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::TransportError
            | CloseReason::TransportClose
            | CloseReason::ForcedClose
            | CloseReason::PingTimeout
            // The official server calls both "forced close" or "transport error".
            | CloseReason::ParseError
            | CloseReason::MessageTooBig
            | CloseReason::ServerShuttingDown
            | CloseReason::ForcedServerClose
            | CloseReason::SlowConsumer
            | CloseReason::Overloaded
    )
}

/// A packet that was sent.
struct Entry {
    offset: Offset,
    namespace: usize,
    to: Arc<Selection>,
    packet: Encoded,
    at: Instant,
    /// Bytes of all packets ever kept, up to this one.
    total: u64,
}

impl Entry {
    /// What the store keeps of it.
    fn kept(&self, namespace: &Arc<str>) -> KeptPacket {
        KeptPacket {
            offset: self.offset.number(),
            namespace: Arc::clone(namespace),
            only: self.to.only.clone(),
            rooms: self.to.rooms.to_vec(),
            except: self.to.except.to_vec(),
            skip: self.to.skip.clone(),
            frames: self.packet.bytes().clone(),
        }
    }

    fn bytes(&self) -> usize {
        let names = self.to.rooms.iter().chain(&self.to.except).chain(&self.to.skip).chain(&self.to.only);
        ENTRY_COST + self.packet.bytes().len() + names.map(|name| name.len()).sum::<usize>()
    }
}

/// A time in a room, counted in offsets.
#[derive(Debug, Clone)]
struct Time {
    room: Arc<str>,
    from: Offset,
    to: Offset,
}

/// The end of a stay that has none.
const STILL: Offset = Offset::new(u64::MAX);

/// What is kept of a socket that is connected, beside what the namespace knows of it.
#[derive(Debug, Clone)]
struct Member {
    sid: Arc<str>,
    pid: Arc<str>,
    /// Where it began: it gets what comes later.
    entered: Offset,
    /// The last packet that was meant for it.
    last: Offset,
    times: Vec<Time>,
    /// At and before this offset it is not known any more where it was.
    blind: Offset,
    /// The application's data, as the store keeps it.
    data: Option<Bytes>,
    /// The store has to learn of a change.
    dirty: bool,
    /// `last`, as the store has it.
    noted: Offset,
}

/// What is kept of a socket that is gone and may come back.
struct Away {
    namespace: usize,
    member: Member,
    /// Up to here, `member.last` tells whether anything was meant for it.
    known: Offset,
    data: Option<RetainedData>,
    /// The one that left, until its disconnect handlers have returned.
    leaving: Option<Arc<Membership>>,
    /// Somebody is about to take its place.
    claimed: bool,
    bytes: usize,
    since: Instant,
    origin: Origin,
    /// Of all that have ever left.
    number: u64,
}

/// The application's data of a client that may come back. The hub cannot look into it. The last reference may be dropped on
/// the hub's thread, so dropping it must not run code of the application.
pub(crate) type RetainedData = Arc<dyn Any + Send + Sync>;

/// The answer to a pid.
pub(crate) enum Claim {
    /// Nobody is known by it, or something that was meant for it is not there any more.
    Unknown,
    /// It is still there: its session is to be ended, if that has not happened, and the question asked again when the channel
    /// closes.
    Busy(Option<Arc<Membership>>, Receiver<()>),
    Ready(Box<Resume>),
}

/// The right to take the place of a client that was lost.
#[derive(Debug)]
pub(crate) struct Resume {
    pub(crate) sid: Arc<str>,
    pub(crate) pid: Arc<str>,
    pub(crate) data: Option<RetainedData>,
    /// The application's data as the store has kept it, when `data` did not survive.
    pub(crate) kept: Option<Bytes>,
    /// What the client has.
    pub(crate) offset: Offset,
}

/// What a client that comes back gets.
pub(crate) struct Restored {
    pub(crate) rooms: SmallVec<[Arc<str>; 1]>,
    /// What it has missed, in order, in pieces.
    pub(crate) missed: Vec<Encoded>,
}

/// The hub's part in connection state recovery.
pub(crate) struct Recovery {
    options: ConnectionStateRecovery,
    /// How long a client may be gone before anybody notices.
    patience: Duration,
    /// Clients that may be away at one time.
    max_away: usize,
    /// More than this is not sent to one client at once.
    replay_max: usize,
    log: VecDeque<Entry>,
    bytes: usize,
    total: u64,
    floor: Offset,
    last: Offset,
    /// The last offset that earlier lives have left.
    before: Offset,
    names: Vec<Arc<str>>,
    /// By namespace and seat.
    members: Vec<Vec<Option<Box<Member>>>>,
    /// Members of all namespaces by their pid.
    here: HashMap<Arc<str>, Arc<Membership>>,
    away: HashMap<Arc<str>, Away>,
    away_bytes: usize,
    /// Those away in the order of their leaving; some may have come back.
    leaving: VecDeque<(Instant, Arc<str>)>,
    /// How many have ever left.
    left: u64,
    /// Those away by where they came from.
    origins: Origins,
    /// Who waits for the end of a socket.
    waits: Vec<(Arc<str>, Sender<()>)>,
    journal: Option<Journal>,
    /// Members with changes for the store.
    dirty: Vec<(usize, u32)>,
    /// Bytes that have left the log, and not the store.
    trimmed: usize,
    /// Counts the changes that must be durable before anybody hears of them.
    held_back: u64,
}

impl Recovery {
    /// Goes on with what an earlier life has kept.
    pub(crate) fn new(
        config: &Config,
        options: &ConnectionStateRecovery,
        names: Vec<Arc<str>>,
        kept: Kept,
        journal: Option<Journal>,
    ) -> Self {
        let last = match &journal {
            Some(journal) if journal.is_on() => Offset::of_life(kept.life),
            // Somewhere in the life before that of any store: the store may be opened later.
            Some(_) => random_place(),
            // Without a store the lives are not counted; any other than the one before will do.
            None => Offset::of_life(random_life()),
        };
        let now = Instant::now();
        let offset =
            |packet: Option<&KeptPacket>| packet.map_or(Offset::ZERO, |packet| Offset::new(packet.offset));
        let floor = Offset::new(kept.floor);
        let mut recovery = Self {
            options: options.clone(),
            patience: config.ping_interval + config.ping_timeout,
            max_away: config.max_connections.saturating_mul(names.len().clamp(1, config.max_namespaces)),
            replay_max: config.outbox_bytes() / 2,
            log: VecDeque::new(),
            bytes: 0,
            total: 0,
            floor,
            last,
            before: offset(kept.packets.last()).max(floor),
            members: names.iter().map(|_| Vec::new()).collect(),
            names,
            here: HashMap::new(),
            away: HashMap::new(),
            away_bytes: 0,
            leaving: VecDeque::new(),
            left: 0,
            origins: Origins::default(),
            waits: Vec::new(),
            journal,
            dirty: Vec::new(),
            trimmed: 0,
            held_back: 0,
        };
        for packet in kept.packets {
            recovery.remember(packet, now);
        }
        for session in kept.sessions {
            recovery.await_again(session, now);
        }
        recovery
    }

    fn namespace(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|other| **other == *name)
    }

    fn remember(&mut self, packet: KeptPacket, now: Instant) {
        // A namespace that is not served any more has nobody to send to.
        let Some(namespace) = self.namespace(&packet.namespace) else { return };
        let KeptPacket { only, skip, .. } = packet;
        let to = Selection { only, rooms: packet.rooms.into(), except: packet.except.into(), skip };
        let (offset, packet) = (Offset::new(packet.offset), Encoded::from_bytes(packet.frames));
        self.push(Entry { offset, namespace, to: to.into(), packet, at: now, total: 0 });
    }

    fn await_again(&mut self, session: KeptSession, now: Instant) {
        let Some(namespace) = self.namespace(&session.namespace) else { return };
        let times = session.stays.into_iter().map(|Stay { room, from, to }| Time {
            room,
            from: Offset::new(from),
            to: Offset::new(to),
        });
        let last = Offset::new(session.last);
        let member = Member {
            sid: session.sid,
            pid: session.pid,
            entered: Offset::new(session.entered),
            last,
            times: times.collect(),
            blind: Offset::new(session.blind),
            data: session.data,
            dirty: false,
            noted: last,
        };
        let mut known = Offset::new(session.known);
        if known == STILL {
            // It was there, and `last` is right as of the trim; from now on it is away, and trims go on.
            known = self.floor;
            self.note(Change::Session(record(&self.names[namespace], &member, known)));
        }
        self.put_away(namespace, member, known, None, None, now);
    }

    /// The offset of the last packet that was kept.
    pub(crate) fn last(&self) -> Offset {
        self.last
    }

    /// Takes out the seats of those who have declined recovery, and get no offsets.
    pub(crate) fn take_strangers(&self, namespace: usize, slots: &mut Vec<u32>) -> Vec<u32> {
        let members = &self.members[namespace];
        let is_member = |slot: u32| members.get(slot as usize).is_some_and(Option::is_some);
        slots.extract_if(.., |slot| !is_member(*slot)).collect()
    }

    /// Gives a packet its offset, and keeps it unless nobody could ask for it. `recipients`: those who get it now.
    pub(crate) fn stamp(
        &mut self,
        namespace: usize,
        to: &Arc<Selection>,
        packet: &mut Encoded,
        volatile: bool,
        recipients: &[u32],
    ) {
        if volatile || (self.here.is_empty() && self.away.is_empty()) {
            // The official client takes the last string of any event for its offset; so it gets the one that it has.
            return packet.set_offset(self.last);
        }
        self.last = self.last.next();
        packet.set_offset(self.last);
        for &slot in recipients {
            if let Some(member) = member(&mut self.members, namespace, slot) {
                member.last = self.last;
            }
        }
        let at = Instant::now();
        let (offset, to, packet) = (self.last, Arc::clone(to), packet.clone());
        let entry = Entry { offset, namespace, to, packet, at, total: 0 };
        if self.is_storing() {
            let packet = entry.kept(&self.names[namespace]);
            self.note(Change::Packet(packet));
        }
        self.push(entry);
        self.trim(at);
    }

    fn push(&mut self, mut entry: Entry) {
        self.total += entry.packet.bytes().len() as u64;
        entry.total = self.total;
        self.bytes += entry.bytes();
        self.log.push_back(entry);
    }

    /// Drops what is too much or too old.
    fn trim(&mut self, now: Instant) {
        let retention = self.options.max_disconnection_duration + self.patience;
        let is_over = |recovery: &Self, entry: &Entry| {
            recovery.log.len() > recovery.options.max_packets
                || recovery.bytes > recovery.options.max_bytes
                // At the very moment of its deadline too, or the hub would ring for it without end.
                || now.saturating_duration_since(entry.at) >= retention
        };
        while self.log.front().is_some_and(|entry| is_over(self, entry)) {
            let Some(entry) = self.log.pop_front() else { return };
            self.bytes -= entry.bytes();
            self.trimmed += entry.bytes();
            self.floor = entry.offset;
        }
        if self.trimmed > self.options.max_bytes / TRIM_SHARE {
            self.trim_store();
        }
    }

    /// The store forgets what the log has. Before that it learns of each member the last packet that was meant for it: what it
    /// forgets was not meant for anybody who had that.
    fn trim_store(&mut self) {
        self.trimmed = 0;
        let Some(journal) = self.journal.as_mut().filter(|journal| journal.is_on()) else { return };
        for (namespace, members) in self.members.iter_mut().enumerate() {
            for member in members.iter_mut().flatten().filter(|member| member.last != member.noted) {
                member.noted = member.last;
                journal.note(Change::Session(record(&self.names[namespace], member, STILL)));
            }
        }
        journal.note(Change::Trim(self.floor.number()));
    }

    /// A new client has come.
    pub(crate) fn enter(&mut self, socket: &Arc<Membership>) {
        let Some(pid) = socket.pid() else { return };
        let member = Member {
            sid: socket.shared_id(),
            pid: Arc::clone(pid),
            entered: self.last,
            last: self.last,
            times: Vec::new(),
            blind: Offset::ZERO,
            data: None,
            dirty: false,
            noted: self.last,
        };
        self.sit(socket, member);
    }

    fn sit(&mut self, socket: &Arc<Membership>, member: Member) {
        let (namespace, slot) = (socket.namespace_index(), socket.slot());
        self.here.insert(Arc::clone(&member.pid), Arc::clone(socket));
        let members = &mut self.members[namespace];
        let at = slot as usize;
        if members.len() <= at {
            members.resize_with(at + 1, || None);
        }
        members[at] = Some(Box::new(member));
        self.soil(namespace, slot);
    }

    /// The store has to learn of a member.
    fn soil(&mut self, namespace: usize, slot: u32) {
        if !self.is_storing() {
            return;
        }
        self.held_back += 1;
        if let Some(member) = member(&mut self.members, namespace, slot)
            && !std::mem::replace(&mut member.dirty, true)
        {
            self.dirty.push((namespace, slot));
        }
    }

    /// Whether the socket is the member of its seat.
    fn is_here(&self, socket: &Arc<Membership>) -> bool {
        let here = socket.pid().and_then(|pid| self.here.get(pid));
        here.is_some_and(|here| here.is_same(socket))
    }

    pub(crate) fn join(&mut self, socket: &Arc<Membership>, room: &Arc<str>) {
        if !self.is_here(socket) {
            return;
        }
        let (namespace, slot, from) = (socket.namespace_index(), socket.slot(), self.last);
        if let Some(member) = member(&mut self.members, namespace, slot) {
            member.times.push(Time { room: Arc::clone(room), from, to: STILL });
            self.soil(namespace, slot);
        }
    }

    pub(crate) fn leave(&mut self, socket: &Arc<Membership>, room: &str) {
        if !self.is_here(socket) {
            return;
        }
        let (namespace, slot) = (socket.namespace_index(), socket.slot());
        let (floor, last) = (self.floor, self.last);
        if let Some(member) = member(&mut self.members, namespace, slot) {
            member.leave(room, last, floor);
            self.soil(namespace, slot);
        }
    }

    /// The application's data of this socket, as the store keeps it.
    pub(crate) fn keep_data(&mut self, socket: &Arc<Membership>, data: Option<Bytes>) {
        if !self.is_here(socket) {
            return;
        }
        let (namespace, slot) = (socket.namespace_index(), socket.slot());
        if let Some(member) = member(&mut self.members, namespace, slot) {
            member.data = data;
            self.soil(namespace, slot);
        }
    }

    /// A socket leaves, and may come back if it was only `lost`.
    pub(crate) fn exit(&mut self, socket: &Arc<Membership>, lost: Option<RetainedData>, now: Instant) {
        if !self.is_here(socket) {
            return;
        }
        let (namespace, slot) = (socket.namespace_index(), socket.slot());
        let Some(mut member) = self.members[namespace][slot as usize].take() else { return };
        self.here.remove(&member.pid);
        let Some(data) = lost else {
            self.waits.retain(|(pid, _)| *pid != member.pid);
            return self.note(Change::Forget(member.pid));
        };
        (member.dirty, member.noted) = (false, member.last);
        self.note(Change::Session(record(&self.names[namespace], &member, self.last)));
        let known = self.last;
        self.put_away(namespace, *member, known, Some(data), Some(Arc::clone(socket)), now);
    }

    fn put_away(
        &mut self,
        namespace: usize,
        member: Member,
        known: Offset,
        data: Option<RetainedData>,
        leaving: Option<Arc<Membership>>,
        since: Instant,
    ) {
        let names: usize = member.times.iter().map(|time| STAY_COST + time.room.len()).sum();
        let bytes = AWAY_COST + names + member.data.as_ref().map_or(0, Bytes::len);
        let pid = Arc::clone(&member.pid);
        self.take_away(&pid);
        self.left += 1;
        let number = self.left;
        let origin =
            leaving.as_ref().map_or(Origin::Kept(number), |socket| Origin::of(socket.session().peer()));
        self.origins.add(origin, number, Arc::clone(&pid));
        self.away_bytes += bytes;
        self.leaving.push_back((since, Arc::clone(&pid)));
        let away =
            Away { namespace, member, known, data, leaving, claimed: false, bytes, since, origin, number };
        self.away.insert(pid, away);
        while self.away.len() > self.max_away || self.away_bytes > self.options.max_bytes {
            let Some(first) = self.origins.first().cloned() else { return };
            self.forget(&first);
        }
        if self.leaving.len() > 2 * self.away.len() + 64 {
            // Those who have come back have left their marks behind.
            let away = &self.away;
            self.leaving.retain(|(since, pid)| away.get(pid).is_some_and(|away| away.since == *since));
        }
    }

    fn take_away(&mut self, pid: &str) -> Option<Away> {
        let away = self.away.remove(pid)?;
        self.away_bytes -= away.bytes;
        self.origins.remove(away.origin, away.number);
        Some(away)
    }

    fn forget(&mut self, pid: &Arc<str>) {
        if self.take_away(pid).is_some() {
            self.waits.retain(|(other, _)| other != pid);
            self.note(Change::Forget(Arc::clone(pid)));
        }
    }

    /// The handlers of a socket that left have been told.
    pub(crate) fn left(&mut self, socket: &Arc<Membership>) {
        let Some(pid) = socket.pid() else { return };
        let Some(away) = self.away.get_mut(pid) else { return };
        if away.leaving.as_ref().is_some_and(|leaving| leaving.is_same(socket)) {
            away.leaving = None;
            self.waits.retain(|(other, _)| other != pid);
        }
    }

    /// Whoever has claimed it does not take its place.
    pub(crate) fn release(&mut self, resume: &Resume) {
        if let Some(away) = self.away.get_mut(&resume.pid) {
            away.claimed = false;
        }
        self.waits.retain(|(pid, _)| *pid != resume.pid);
    }

    /// A client says who it was, and what it has received last.
    pub(crate) fn claim(&mut self, namespace: usize, pid: &str, offset: Option<&str>) -> Claim {
        if let Some(socket) = self.here.get(pid) {
            if socket.namespace_index() != namespace {
                return Claim::Unknown;
            }
            let socket = Arc::clone(socket);
            return self.busy(pid, Some(socket));
        }
        // On a busy machine a claim may come before the wakeup that forgets the client. It would be forgotten before it enters.
        self.expire(Instant::now());
        let Some(away) = self.away.get(pid).filter(|away| away.namespace == namespace) else {
            log::debug!(
                "a client of {} is not recovered: it is not known, or not any more",
                self.names[namespace]
            );
            return Claim::Unknown;
        };
        if away.leaving.is_some() || away.claimed {
            return self.busy(pid, None);
        }
        let entered = away.member.entered;
        let offset = match offset.map(Offset::parse) {
            // It has received nothing yet.
            None => Some(entered),
            // The official client keeps the offset that it had under another pid until it has received something under this one;
            // that may be of a server that is gone.
            Some(Some(offset)) if entered.is_of_life_of(self.last) && !offset.is_of_life_of(self.last) => {
                Some(entered)
            }
            Some(offset) => offset.map(|offset| offset.max(entered)),
        };
        let whole = offset.ok_or("its offset is none of ours").and_then(|offset| {
            self.has_everything(away, offset)?;
            if self.is_too_much(away, offset) {
                Err("it has missed more than is sent at once")
            } else {
                Ok(offset)
            }
        });
        let offset = match whole {
            Ok(offset) => offset,
            Err(gap) => {
                // It does not close any more, and need not be looked for again; nor does this client know where it stands.
                self.refuse(&Arc::clone(&away.member.pid), gap);
                return Claim::Unknown;
            }
        };
        let Some(away) = self.away.get_mut(pid) else { return Claim::Unknown };
        away.claimed = true;
        Claim::Ready(Box::new(Resume {
            sid: Arc::clone(&away.member.sid),
            pid: Arc::clone(&away.member.pid),
            data: away.data.clone(),
            kept: away.member.data.clone(),
            offset,
        }))
    }

    fn busy(&mut self, pid: &str, socket: Option<Arc<Membership>>) -> Claim {
        let (done, wait) = bounded(0);
        self.waits.push((pid.into(), done));
        Claim::Busy(socket, wait)
    }

    /// A client that is known cannot go on where it was.
    fn refuse(&mut self, pid: &Arc<str>, gap: &str) {
        let Some(away) = self.away.get(pid) else { return };
        log::info!(
            "a client of {} is not recovered after {:.1?}: {gap} (the log has {} packets, {} bytes)",
            self.names[away.namespace],
            away.since.elapsed(),
            self.log.len(),
            self.bytes,
        );
        self.forget(pid);
    }

    /// Whether everything that was meant for it after `offset` is in the log; or why not.
    fn has_everything(&self, away: &Away, offset: Offset) -> Result<(), &'static str> {
        if offset > self.last {
            return Err("it has what has not been sent yet");
        }
        if offset < away.member.blind {
            return Err("it is not known any more in which rooms it was");
        }
        if offset > self.before && !offset.is_of_life_of(self.last) && !offset.begins_a_life() {
            // And with it perhaps more that the client has not.
            return Err("it has what this server has lost");
        }
        // Nothing after the offset has left the log; or nothing that was meant for it has.
        if offset >= self.floor || (offset >= away.member.last && self.floor <= away.known) {
            Ok(())
        } else {
            Err("what it has missed is not kept any more")
        }
    }

    fn missed<'a>(&'a self, away: &'a Away, offset: Offset) -> impl Iterator<Item = &'a Entry> {
        let places = Places::new(&away.member);
        let begin = self.log.partition_point(|entry| entry.offset <= offset);
        self.log
            .range(begin..)
            .filter(move |entry| entry.namespace == away.namespace && places.gets(&entry.to, entry.offset))
    }

    /// Whether it has missed more than is sent at once. Most have not even if all of it was meant for them.
    fn is_too_much(&self, away: &Away, offset: Offset) -> bool {
        let begin = self.log.partition_point(|entry| entry.offset <= offset);
        let since = self
            .log
            .get(begin)
            .map_or(0, |first| self.total - first.total + first.packet.bytes().len() as u64);
        since > self.replay_max as u64
            && self.missed(away, offset).map(|entry| entry.packet.bytes().len()).sum::<usize>()
                > self.replay_max
    }

    /// A client takes the place of one that was lost. `None`: it cannot any more.
    pub(crate) fn restore(
        &mut self,
        socket: &Arc<Membership>,
        resume: &Resume,
        fits: impl FnOnce(&[Arc<str>]) -> bool,
    ) -> Option<Restored> {
        let away = self.away.get(&resume.pid)?;
        let still = away.member.times.iter().filter(|time| time.to == STILL);
        let rooms: SmallVec<_> = still.map(|time| Arc::clone(&time.room)).collect();
        let whole = self.has_everything(away, resume.offset);
        if let Err(gap) = whole.and_then(|()| fits(&rooms).then_some(()).ok_or("its rooms are too many now"))
        {
            self.refuse(&resume.pid, gap);
            return None;
        }
        let (mut last, mut missed, mut piece) = (resume.offset, Vec::new(), Vec::new());
        for entry in self.missed(away, resume.offset) {
            last = entry.offset;
            piece.extend_from_slice(entry.packet.bytes());
            if piece.len() >= PIECE {
                missed.push(Encoded::from_bytes(std::mem::take(&mut piece).into()));
            }
        }
        if !piece.is_empty() {
            missed.push(Encoded::from_bytes(piece.into()));
        }
        let mut member = self.take_away(&resume.pid)?.member;
        member.last = last;
        self.waits.retain(|(pid, _)| *pid != resume.pid);
        self.sit(socket, member);
        Some(Restored { rooms, missed })
    }

    /// When there is something to be forgotten. `None`: there is nothing.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let retention = self.options.max_disconnection_duration + self.patience;
        let old = self.log.front().map(|entry| entry.at + retention);
        let gone = self.leaving.front().map(|(since, _)| *since + self.options.max_disconnection_duration);
        old.into_iter().chain(gone).min()
    }

    /// Forgets what is too old by `now`.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((since, pid)) = self.leaving.front() {
            if *since + self.options.max_disconnection_duration > now {
                break;
            }
            let (since, pid) = (*since, Arc::clone(pid));
            self.leaving.pop_front();
            if self.away.get(&pid).is_some_and(|away| away.since == since) {
                self.forget(&pid);
            }
        }
        self.trim(now);
        if self.log.is_empty() {
            self.log.shrink_to(64);
        }
    }

    pub(crate) fn note(&mut self, change: Change) {
        if let Some(journal) = &mut self.journal {
            self.held_back += 1;
            journal.note(change);
        }
    }

    /// Whether there is a store, and it works.
    fn is_storing(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::is_on)
    }

    /// A number that changes with each change that must be durable before anybody hears of it.
    pub(crate) fn held_back(&self) -> u64 {
        let holds_back = self.journal.as_ref().is_some_and(Journal::holds_back);
        if holds_back { self.held_back } else { 0 }
    }

    /// A client's answer is not remembered any more.
    pub(crate) fn forget_answer(&mut self, client: Arc<str>, namespace: usize) {
        let namespace = Arc::clone(&self.names[namespace]);
        self.note(Change::ForgetAnswer { client, namespace });
    }

    /// Gives the store what has changed, if it is free and the time has come. `all`: whatever the time.
    pub(crate) fn hand_over(&mut self, now: Instant, all: bool) -> HandedOver {
        self.note_dirty();
        self.journal.as_mut().map_or(HandedOver::Nothing, |journal| journal.hand_over(now, all))
    }

    fn note_dirty(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        for (namespace, slot) in self.dirty.drain(..) {
            if let Some(member) = member(&mut self.members, namespace, slot) {
                (member.dirty, member.noted) = (false, member.last);
                journal.note(Change::Session(record(&self.names[namespace], member, STILL)));
            }
        }
    }

    /// Whether the store is behind by so much that nothing more may be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::is_full)
    }

    /// When the journal wants to be asked again. `None`: it has nothing to write.
    pub(crate) fn journal_deadline(&self) -> Option<Instant> {
        self.journal.as_ref()?.deadline()
    }

    pub(crate) fn store_reported(&mut self, report: &Report) {
        let Some(journal) = &mut self.journal else { return };
        match report {
            Report::Committed => journal.committed(),
            Report::Failed => journal.switch_off(),
            Report::Reopened(life) => self.store_reopened(*life),
        }
    }

    /// The store works again, is empty, and has begun this life: it gets the packets and sessions in memory, in one commit.
    fn store_reopened(&mut self, life: u32) {
        let Some(journal) = &mut self.journal else { return };
        journal.switch_on();
        // Whatever was sent until now is in the log, or below its floor.
        self.before = self.last;
        self.last = Offset::of_life(life);
        self.trimmed = 0;
        self.dirty.clear();
        self.note(Change::Trim(self.floor.number()));
        let packets: Vec<_> = self.log.iter().map(|entry| entry.kept(&self.names[entry.namespace])).collect();
        packets.into_iter().for_each(|packet| self.note(Change::Packet(packet)));
        let mut sessions = Vec::new();
        for (name, members) in self.names.iter().zip(&mut self.members) {
            for member in members.iter_mut().flatten() {
                (member.dirty, member.noted) = (false, member.last);
                sessions.push(record(name, member, STILL));
            }
        }
        let away = self.away.values();
        sessions.extend(away.map(|away| record(&self.names[away.namespace], &away.member, away.known)));
        sessions.into_iter().for_each(|session| self.note(Change::Session(session)));
    }

    /// Whether everything is durable that is to be.
    pub(crate) fn is_done(&self) -> bool {
        self.journal.as_ref().is_none_or(Journal::is_done)
    }

    /// Waits for the store's end. `false`: it has not come by the deadline.
    pub(crate) fn close(&mut self, deadline: Instant) -> bool {
        self.journal.take().is_none_or(|journal| journal.close(deadline))
    }
}

/// With no randomness it is 0: then a client that comes from an earlier process of such a box may not be told of a gap.
fn random_life() -> u32 {
    random::u32().unwrap_or_default()
}

/// Of a server whose store could not be opened: somewhere in life 0, which no store begins, so that what a store gives later is
/// above it. As with [`random_life`], no other start has the same.
fn random_place() -> Offset {
    const BITS: u32 = 43;
    Offset::new(random::u64().unwrap_or_default() >> (u64::BITS - BITS))
}

/// A namespace's member by its seat.
fn member(members: &mut [Vec<Option<Box<Member>>>], namespace: usize, slot: u32) -> Option<&mut Member> {
    members[namespace].get_mut(slot as usize)?.as_deref_mut()
}

/// What the store keeps of a member. `known`: up to where its last packet is right; [`STILL`] for one that is there.
fn record(namespace: &Arc<str>, member: &Member, known: Offset) -> KeptSession {
    let times = member.times.iter().map(|time| Stay {
        room: Arc::clone(&time.room),
        from: time.from.number(),
        to: time.to.number(),
    });
    KeptSession {
        pid: Arc::clone(&member.pid),
        sid: Arc::clone(&member.sid),
        namespace: Arc::clone(namespace),
        entered: member.entered.number(),
        blind: member.blind.number(),
        stays: times.collect(),
        data: member.data.clone(),
        last: member.last.number(),
        known: known.number(),
    }
}

impl Member {
    /// It was in the room until `last`.
    fn leave(&mut self, room: &str, last: Offset, floor: Offset) {
        let still = self.times.iter_mut().find(|time| time.to == STILL && *time.room == *room);
        let Some(time) = still else { return };
        time.to = last;
        // Nobody asks about what the log does not have any more, or about a stay in which nothing happened.
        self.times.retain(|time| time.to > floor && time.from < time.to);
        let left = self.times.iter().filter(|time| time.to != STILL);
        if left.clone().count() > LEFT_MAX
            && let Some(first) = left.map(|time| time.to).min()
        {
            self.blind = first;
            self.times.retain(|time| time.to != first);
        }
    }
}

/// Where a member was, by room.
struct Places<'a> {
    member: &'a Member,
    times: HashMap<&'a str, SmallVec<[(Offset, Offset); 1]>>,
}

impl<'a> Places<'a> {
    fn new(member: &'a Member) -> Self {
        let mut times: HashMap<_, SmallVec<_>> = HashMap::new();
        for time in &member.times {
            times.entry(&*time.room).or_default().push((time.from, time.to));
        }
        Self { member, times }
    }

    fn is_in(&self, room: &str, at: Offset) -> bool {
        room == &*self.member.sid
            || self.times.get(room).is_some_and(|times| times.iter().any(|&(from, to)| from < at && at <= to))
    }

    /// Whether a packet was meant for the member.
    fn gets(&self, to: &Selection, at: Offset) -> bool {
        if let Some(only) = &to.only {
            return *only == self.member.sid;
        }
        let is_in = |room: &Arc<str>| self.is_in(room, at);
        at > self.member.entered
            && (to.rooms.is_empty() || to.rooms.iter().any(is_in))
            && !to.except.iter().any(is_in)
            && to.skip.as_ref() != Some(&self.member.sid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hub asks again for the next deadline, and rings for all that are due: one that was due and stayed is an endless ring.
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
        assert_eq!((recovery.deadline(), recovery.log.len(), recovery.away.len()), (None, 0, 0));
    }
}
