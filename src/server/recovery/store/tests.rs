//! What the stores promise, on each of them.

#[cfg(feature = "store")]
use std::{
    fs,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use proptest::prelude::*;
use rstest::rstest;

use super::*;

/// What a store should hold, as plainly as it can be said.
#[derive(Debug, Clone, Default)]
pub(super) struct Model(pub(super) Kept);

impl Model {
    pub(super) fn apply(&mut self, change: &Change) {
        let Kept { floor, packets, sessions, answers, .. } = &mut self.0;
        match change {
            Change::Packet(packet) => packets.push(packet.clone()),
            Change::Trim(offset) => {
                *floor = (*floor).max(*offset);
                packets.retain(|packet| packet.offset > *floor);
            }
            Change::Session(session) => {
                sessions.retain(|other| other.pid != session.pid);
                sessions.push(session.clone());
                sessions.sort_by(|one, other| one.pid.cmp(&other.pid));
            }
            Change::Forget(pid) => sessions.retain(|session| session.pid != *pid),
            Change::Answer(answer) => {
                let key = |answer: &KeptAnswer| (Arc::clone(&answer.client), Arc::clone(&answer.namespace));
                answers.retain(|other| key(other) != key(answer));
                answers.push(answer.clone());
                answers.sort_by_key(key);
            }
            Change::ForgetAnswer { client, namespace } => {
                answers.retain(|answer| (&answer.client, &answer.namespace) != (client, namespace));
            }
        }
    }
}

/// Makes changes of three small numbers, with offsets as the server gives them.
#[derive(Debug, Default)]
pub(super) struct Author {
    last: u64,
}

impl Author {
    pub(super) fn begin(&mut self, life: u32) {
        self.last = u64::from(life) << 40;
    }

    pub(super) fn change(&mut self, (verb, one, other): (u8, u8, u8)) -> Change {
        let name = |kind: &str, number: u8| Arc::from(format!("{kind} {number}"));
        let frames = |length: usize| Bytes::from(vec![one; length]);
        let (client, namespace) = (name("client", one % 5), name("/", other % 3));
        match verb % 12 {
            0 => Change::Trim(self.last.saturating_sub(u64::from(one % 32))),
            1 => Change::Forget(name("pid", one % 7)),
            2 => Change::ForgetAnswer { client, namespace },
            3 => Change::Answer(KeptAnswer { client, namespace, id: other.into(), frames: frames(30) }),
            4 | 5 => Change::Session(KeptSession {
                pid: name("pid", one % 7),
                sid: name("sid", other),
                namespace,
                stays: (0..other % 4)
                    .map(|room| stay(&format!("room {room}"), u64::from(one), u64::MAX))
                    .collect(),
                data: (other % 2 == 0).then(|| frames(other.into())),
                last: self.last,
                entered: self.last / 2,
                blind: self.last / 3,
                known: self.last + 1,
            }),
            kind => {
                self.last += 1 + u64::from(one % 3);
                let length = if kind == 6 { usize::from(other) * 64 } else { usize::from(other) };
                Change::Packet(KeptPacket {
                    namespace,
                    rooms: (0..one % 3).map(|room| name("room", room)).collect(),
                    except: (0..other % 3).map(|room| name("room", room)).collect(),
                    skip: (one % 2 == 0).then(|| name("sid", other)),
                    ..packet(self.last, length)
                })
            }
        }
    }
}

pub(super) fn packet(offset: u64, length: usize) -> KeptPacket {
    let frames = Bytes::from(vec![offset as u8; length]);
    KeptPacket {
        offset,
        namespace: "/".into(),
        only: None,
        rooms: vec![],
        except: vec![],
        skip: None,
        frames,
    }
}

fn stay(room: &str, from: u64, to: u64) -> Stay {
    Stay { room: room.into(), from, to }
}

pub(super) fn session(pid: &str, last: u64) -> KeptSession {
    let stays = vec![stay("room", 1, u64::MAX), stay("other room", 0, 7)];
    KeptSession {
        pid: pid.into(),
        sid: "sid".into(),
        namespace: "/".into(),
        stays,
        data: None,
        last,
        entered: 1,
        blind: 2,
        known: last,
    }
}

fn answer(client: &str, namespace: &str, id: u64) -> KeptAnswer {
    KeptAnswer { client: client.into(), namespace: namespace.into(), id, frames: Bytes::from_static(b"31[]") }
}

/// A directory of the test's own.
#[cfg(feature = "store")]
pub(super) struct Folder(pub(super) PathBuf);

#[cfg(feature = "store")]
impl Folder {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tinysio-store-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    pub(super) fn file(&self) -> PathBuf {
        self.0.join("store")
    }
}

#[cfg(feature = "store")]
impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Something to reopen: both stores, so that they cannot differ.
enum Kind {
    Memory(MemoryStore),
    #[cfg(feature = "store")]
    File(Folder),
}

impl Kind {
    fn all() -> Vec<Self> {
        vec![
            Self::Memory(MemoryStore::new()),
            #[cfg(feature = "store")]
            Self::File(Folder::new()),
        ]
    }

    fn store(&self) -> Box<dyn Store> {
        match self {
            Self::Memory(store) => Box::new(store.clone()),
            #[cfg(feature = "store")]
            Self::File(folder) => Box::new(FileStore::new(folder.file())),
        }
    }
}

#[rstest]
#[case::nothing(vec![])]
#[case::an_empty_commit(vec![vec![]])]
#[case::packets(vec![vec![Change::Packet(packet(1, 100)), Change::Packet(packet(4, 0))], vec![Change::Packet(packet(5, 9000))]])]
#[case::packets_trimmed_as_they_come(vec![vec![Change::Packet(packet(1, 1)), Change::Packet(packet(2, 1)), Change::Trim(1)]])]
#[case::all_packets_trimmed(vec![vec![Change::Packet(packet(1, 1))], vec![Change::Trim(1)]])]
#[case::half_a_commit_trimmed(vec![vec![Change::Packet(packet(1, 1)), Change::Packet(packet(2, 1))], vec![Change::Trim(1)]])]
#[case::the_floor_does_not_sink(vec![vec![Change::Trim(9)], vec![Change::Trim(3)]])]
#[case::a_floor_above_everything(vec![vec![Change::Packet(packet(1, 1))], vec![Change::Trim(9), Change::Packet(packet(10, 1))]])]
#[case::a_session_replaced(vec![vec![Change::Session(session("a", 1))], vec![Change::Session(session("a", 2))]])]
#[case::sessions_in_order(vec![vec![Change::Session(session("b", 1)), Change::Session(session("a", 1))]])]
#[case::a_session_forgotten(vec![vec![Change::Session(session("a", 1)), Change::Forget("a".into())]])]
#[case::an_unknown_session_forgotten(vec![vec![Change::Forget("a".into())]])]
#[case::an_answer_for_each_namespace(vec![vec![Change::Answer(answer("a", "/", 1)), Change::Answer(answer("a", "/x", 1))]])]
#[case::an_answer_replaced(vec![vec![Change::Answer(answer("a", "/", 1))], vec![Change::Answer(answer("a", "/", 2))]])]
#[case::an_answer_forgotten(vec![vec![Change::Answer(answer("a", "/", 1))], vec![Change::ForgetAnswer { client: "a".into(), namespace: "/".into() }]])]
#[case::the_largest_numbers(vec![vec![Change::Packet(packet(u64::MAX, 1)), Change::Session(session("", u64::MAX))]])]
fn what_was_committed_is_there_in_the_next_life(#[case] commits: Vec<Vec<Change>>) {
    for kind in Kind::all() {
        let mut store = kind.store();
        let first = store.open().expect("a life");
        let mut model = Model(Kept { life: first.life, ..Kept::default() });
        assert_eq!(first, model.0);
        for changes in &commits {
            store.commit(changes).expect("a commit");
            changes.iter().for_each(|change| model.apply(change));
        }
        drop(store);
        for _ in 0..2 {
            model.0.life += 1;
            assert_eq!(kind.store().open().expect("a life"), model.0);
        }
    }
}

#[test]
fn an_abandoned_store_is_not_believed() {
    for kind in Kind::all() {
        let mut store = kind.store();
        store.open().expect("a life");
        store.commit(&[Change::Packet(packet(1, 1)), Change::Session(session("a", 1))]).expect("a commit");
        store.abandon();
        drop(store);
        let kept = kind.store().open().expect("a life");
        assert_eq!(kept, Kept { life: kept.life, ..Kept::default() });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is committed, and however often it is opened: both stores hold what the model holds.
    #[test]
    fn agrees_with_the_model(lives in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<(u8, u8, u8)>(), 0..12), 0..8), 1..4)) {
        let kinds = Kind::all();
        let (mut model, mut author) = (Model::default(), Author::default());
        // What each store has counted, which the model does not.
        let mut counts = vec![0; kinds.len()];
        let mut open = |store: &mut Box<dyn Store>, which: usize| {
            let kept = store.open().expect("a life");
            let before = std::mem::replace(&mut counts[which], kept.life);
            assert!(before == 0 || kept.life == before + 1);
            Kept { life: 0, ..kept }
        };
        for (life, commits) in (1..).zip(lives) {
            author.begin(life);
            let mut stores: Vec<_> = kinds.iter().map(Kind::store).collect();
            for (which, store) in stores.iter_mut().enumerate() {
                prop_assert_eq!(&open(store, which), &model.0);
            }
            for steps in commits {
                let changes: Vec<_> = steps.into_iter().map(|step| author.change(step)).collect();
                changes.iter().for_each(|change| model.apply(change));
                for store in &mut stores {
                    store.commit(&changes).expect("a commit");
                }
            }
        }
        for (which, kind) in kinds.iter().enumerate() {
            prop_assert_eq!(&open(&mut kind.store(), which), &model.0);
        }
    }
}
