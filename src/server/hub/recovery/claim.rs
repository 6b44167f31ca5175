//! The recovery of a client in two steps: a new connection claims the record of a disconnected client, and then its
//! socket takes over the record. They are two steps, because handlers and middlewares run in between.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::server::{
    guard,
    hub::membership::Membership,
    hub::recovery::{Recovery, RetainedData, disconnected::DisconnectedClient},
};
use crate::{
    proto::socket::{Encoded, Offset},
    sys::{
        channel::{Receiver, Sender, bounded},
        time::Instant,
    },
};

/// Missed packets are sent in pieces of about this size.
const PIECE: usize = 64 << 10;

/// The answer to a claim.
pub(crate) enum Claim {
    /// No client is known by this pid, or a packet for it is not kept any more.
    Unknown,
    /// The old socket is still there. End its session, unless that has happened; ask again when the channel closes.
    Busy(Option<Arc<Membership>>, Receiver<()>),
    Ready(Box<Resume>),
}

/// The right to take the place of a disconnected client.
#[derive(Debug)]
pub(crate) struct Resume {
    pub(crate) sid: Arc<str>,
    pub(crate) pid: Arc<str>,
    pub(crate) data: Option<RetainedData>,
    /// The application's data as the store has kept it, if `data` is gone with the process.
    pub(crate) kept: Option<Bytes>,
    /// The last offset that the client has received.
    pub(crate) offset: Offset,
}

/// What a recovered client gets.
pub(crate) struct Restored {
    pub(crate) rooms: SmallVec<[Arc<str>; 1]>,
    /// The packets that it has missed, in order, in pieces.
    pub(crate) missed: Vec<Encoded>,
}

/// The connections that wait until a place can be claimed.
#[derive(Default)]
pub(super) struct Waiters(Vec<(Arc<str>, Sender<()>)>);

impl Waiters {
    /// The receiver closes when the client with this pid can be asked for again.
    fn add(&mut self, pid: &str) -> Receiver<()> {
        let (done, wait) = bounded(0);
        self.0.push((pid.into(), done));
        wait
    }

    /// Wakes those that wait for this client.
    pub(super) fn wake(&mut self, pid: &str) {
        self.0.retain(|(other, _)| **other != *pid);
    }
}

impl Recovery {
    /// A client claims the place of the client with this pid. `offset`: the last that it has received.
    pub(crate) fn claim(&mut self, namespace: usize, pid: &str, offset: Option<&str>) -> Claim {
        if let Some(socket) = self.connected.get(pid) {
            if socket.namespace_index() != namespace {
                return Claim::Unknown;
            }
            return Claim::Busy(Some(Arc::clone(socket)), self.waiters.add(pid));
        }
        // On a busy machine a claim may come before the timer that forgets the client. The client would then be
        // forgotten before the new connection takes its place.
        self.expire(Instant::now());
        let Some(client) = self.disconnected.get(pid).filter(|client| client.namespace == namespace) else {
            guard::debug!(
                "a client of {} is not recovered: it is not known, or not any more",
                self.names[namespace]
            );
            return Claim::Unknown;
        };
        if client.leaving.is_some() || client.claimed {
            return Claim::Busy(None, self.waiters.add(pid));
        }
        let offset = match self.check(client, offset) {
            Ok(offset) => offset,
            Err(reason) => {
                // The missing packets do not come back, so the client is forgotten.
                let pid = Arc::clone(&client.member.pid);
                self.refuse(&pid, reason);
                return Claim::Unknown;
            }
        };
        let Some(client) = self.disconnected.get_mut(pid) else { return Claim::Unknown };
        client.claimed = true;
        Claim::Ready(Box::new(Resume {
            sid: Arc::clone(&client.member.sid),
            pid: Arc::clone(&client.member.pid),
            data: client.data.clone(),
            kept: client.member.data.clone(),
            offset,
        }))
    }

    /// The offset from which the client goes on, or why it cannot be recovered.
    fn check(&self, client: &DisconnectedClient, offset: Option<&str>) -> Result<Offset, &'static str> {
        let (entered, last) = (client.member.entered, self.log.last());
        let offset = match offset.map(Offset::parse) {
            // It has received nothing yet.
            None => entered,
            Some(None) => return Err("its offset is none of ours"),
            // The official client keeps the offset that it had under another pid until it has received an event under
            // this one. That offset may be of a server that is gone.
            Some(Some(offset)) if entered.is_of_life_of(last) && !offset.is_of_life_of(last) => entered,
            Some(Some(offset)) => offset.max(entered),
        };
        self.log.is_complete(&client.member, client.valid_until, offset)?;
        if self.log.has_missed_more(&client.member, client.namespace, offset, self.replay_max) {
            return Err("it has missed more than is sent at once");
        }
        Ok(offset)
    }

    /// A known client cannot be recovered.
    fn refuse(&mut self, pid: &Arc<str>, reason: &str) {
        let Some(client) = self.disconnected.get(pid) else { return };
        guard::info!(
            "a client of {} is not recovered after {:.1?}: {reason} (the log has {} packets, {} bytes)",
            self.names[client.namespace],
            client.since.elapsed(),
            self.log.len(),
            self.log.bytes(),
        );
        self.forget(pid);
    }

    /// The claim is given up.
    pub(crate) fn release(&mut self, resume: &Resume) {
        if let Some(client) = self.disconnected.get_mut(&resume.pid) {
            client.claimed = false;
        }
        self.waiters.wake(&resume.pid);
    }

    /// A socket takes the place that was claimed for it. `None`: it cannot any more.
    pub(crate) fn restore(
        &mut self,
        socket: &Arc<Membership>,
        resume: &Resume,
        fits: impl FnOnce(&[Arc<str>]) -> bool,
    ) -> Option<Restored> {
        let client = self.disconnected.get(&resume.pid)?;
        let rooms: SmallVec<_> = client.member.rooms().cloned().collect();
        let complete = self.log.is_complete(&client.member, client.valid_until, resume.offset);
        let fits = complete.and_then(|()| fits(&rooms).then_some(()).ok_or("its rooms are too many now"));
        if let Err(reason) = fits {
            self.refuse(&resume.pid, reason);
            return None;
        }
        let (mut last, mut missed, mut piece) = (resume.offset, Vec::new(), Vec::new());
        for entry in self.log.missed(&client.member, client.namespace, resume.offset) {
            last = entry.offset;
            piece.extend_from_slice(entry.packet.bytes());
            if piece.len() >= PIECE {
                missed.push(Encoded::from_bytes(std::mem::take(&mut piece).into()));
            }
        }
        if !piece.is_empty() {
            missed.push(Encoded::from_bytes(piece.into()));
        }
        let mut member = self.disconnected.remove(&resume.pid)?.member;
        member.last = last;
        self.waiters.wake(&resume.pid);
        self.insert(socket, member);
        Some(Restored { rooms, missed })
    }
}
