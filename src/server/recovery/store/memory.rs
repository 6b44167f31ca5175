//! A store in memory: it outlives a server, but not the process.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::sys::sync::Mutex;

use super::{
    Change, Kept, KeptAnswer, KeptPacket, KeptSession, Store, StoreError, first_generation, next_generation,
};

/// A store in memory. Its clones share the same data: give one to a server, keep another, and give that to the next
/// server.
///
/// For tests, and for programs that start their server anew without ending.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    /// Locked during a call. No other lock is taken meanwhile.
    shared: Arc<Mutex<Contents>>,
}

#[derive(Debug, Default)]
struct Contents {
    life: u32,
    floor: u64,
    /// In order of their offsets.
    packets: VecDeque<KeptPacket>,
    sessions: BTreeMap<Arc<str>, KeptSession>,
    answers: BTreeMap<(Arc<str>, Arc<str>), KeptAnswer>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Store for MemoryStore {
    fn open(&mut self) -> Result<Kept, StoreError> {
        let mut contents = self.shared.lock();
        if contents.life >= Kept::LIFE_MAX {
            *contents = Contents::default();
        }
        contents.life = next_generation(contents.life, first_generation());
        Ok(Kept {
            life: contents.life,
            floor: contents.floor,
            packets: contents.packets.iter().cloned().collect(),
            sessions: contents.sessions.values().cloned().collect(),
            answers: contents.answers.values().cloned().collect(),
        })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut contents = self.shared.lock();
        for change in changes {
            contents.apply(change);
        }
        Ok(())
    }

    fn abandon(&mut self) {
        let mut contents = self.shared.lock();
        *contents = Contents { life: contents.life, ..Contents::default() };
    }
}

impl Contents {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Packet(packet) => self.packets.push_back(packet.clone()),
            Change::Trim(offset) => {
                self.floor = self.floor.max(*offset);
                while self.packets.front().is_some_and(|packet| packet.offset <= self.floor) {
                    self.packets.pop_front();
                }
            }
            Change::Session(session) => {
                self.sessions.insert(Arc::clone(&session.pid), session.clone());
            }
            Change::Forget(pid) => {
                self.sessions.remove(pid);
            }
            Change::Answer(answer) => {
                let key = (Arc::clone(&answer.client), Arc::clone(&answer.namespace));
                self.answers.insert(key, answer.clone());
            }
            Change::ForgetAnswer { client, namespace } => {
                self.answers.remove(&(Arc::clone(client), Arc::clone(namespace)));
            }
        }
    }
}
