//! The database in the file: four tables, and which of them a commit touches.
//!
//! | table | key | value |
//! |---|---|---|
//! | `packets` | the first offset of a batch | the packets of one commit, and the floor as of it |
//! | `sessions` | pid | one session |
//! | `answers` | client, namespace | one answer |
//! | `numbers` | `life`, `floor` | a number |
//!
//! Each page that a commit changes is written again, with the pages above it up to the root. So all packets of a
//! commit are one value, the floor is stored with them, and trimmed packets are removed many batches at a time.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use redb::{
    Builder, Database, Error, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
    WriteTransaction,
};

use super::{
    Change, Kept, KeptPacket, codec,
    disk::{self, Body, Head},
    next_generation,
};

const PACKETS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("packets");
const SESSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sessions");
const ANSWERS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("answers");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// Pages of the file in memory, in bytes. Everything is read once, at the start; a commit needs a handful of pages.
const CACHE: usize = 512 * 1024;

/// Trimmed batches are removed when there are so many, or when they have so many bytes: each removal changes the
/// oldest page too.
const REMOVED_AT_ONCE: usize = 64;
const REMOVED_BYTES_AT_ONCE: usize = 64 * 1024;

/// A file of at least this length is compacted at the start if three quarters of it, or more, are unused.
const COMPACTED_FROM: u64 = 1 << 20;

/// The open database.
#[derive(Debug)]
pub(super) struct Tables {
    database: Database,
    floor: u64,
    /// The batches in `packets`, in order.
    batches: VecDeque<Batch>,
}

#[derive(Debug, Clone, Copy)]
struct Batch {
    first: u64,
    last: u64,
    bytes: usize,
}

/// Why the file cannot be used.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Its format is newer than [`disk::FORMAT`].
    Newer(u64),
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Tables {
    /// Opens the database on the disk, or makes a new one if nothing was ever committed to it. When this returns, all
    /// of it has been read and checked.
    pub(super) fn open(disk: &Arc<dyn StorageBackend>) -> Result<Self, Refusal> {
        match disk::read_head(&**disk)? {
            Head::Ours => {}
            Head::Unfinished => create(disk)?,
            Head::Newer(format) => return Err(Refusal::Newer(format)),
            Head::Foreign => return Err(damaged("it is not a store, or its first page is damaged").into()),
        }
        let mut tables = Self { database: database(disk)?, floor: 0, batches: VecDeque::new() };
        let (_, live) = tables.load()?;
        let length = disk.len()?;
        if length >= COMPACTED_FROM && length / 4 > live {
            tables.database.compact()?;
        }
        Ok(tables)
    }

    /// Reads everything, and makes the next generation durable: `first`, if there was none.
    pub(super) fn begin_generation(&mut self, first: u32) -> Result<Kept, Error> {
        let (mut kept, _) = self.load()?;
        let write = self.database.begin_write()?;
        if kept.life >= Kept::LIFE_MAX {
            kept = Kept::default();
            self.batches.clear();
            write.open_table(PACKETS)?.retain(|_, _| false)?;
            write.open_table(SESSIONS)?.retain(|_, _| false)?;
            write.open_table(ANSWERS)?.retain(|_, _| false)?;
            write.open_table(NUMBERS)?.insert("floor", 0)?;
        }
        kept.life = next_generation(kept.life, first);
        write.open_table(NUMBERS)?.insert("life", u64::from(kept.life))?;
        write.commit()?;
        self.floor = kept.floor;
        Ok(kept)
    }

    /// Makes all of the changes durable, or none.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Result<(), Error> {
        let floor = changes.iter().fold(self.floor, |floor, change| match change {
            Change::Trim(offset) => floor.max(*offset),
            _ => floor,
        });
        let packets: Vec<&KeptPacket> =
            changes.iter().filter_map(|change| packet_above(floor, change)).collect();
        let write = self.database.begin_write()?;
        put_sessions(&write, changes)?;
        put_answers(&write, changes)?;
        if packets.is_empty() && floor > self.floor {
            write.open_table(NUMBERS)?.insert("floor", floor)?;
        }
        let gone = self.gone(floor);
        let mut batch = None;
        if !packets.is_empty() || gone > 0 {
            let mut table = write.open_table(PACKETS)?;
            for batch in self.batches.iter().take(gone) {
                table.remove(batch.first)?;
            }
            if let [first, ..] = packets[..] {
                let value = codec::encode_batch(floor, &packets);
                table.insert(first.offset, value.as_slice())?;
                let last = packets.last().map_or(first.offset, |last| last.offset);
                batch = Some(Batch { first: first.offset, last, bytes: value.len() });
            }
        }
        write.commit()?;
        self.floor = floor;
        self.batches.drain(..gone);
        self.batches.extend(batch);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn set_life(&mut self, life: u32) -> Result<(), Error> {
        let write = self.database.begin_write()?;
        write.open_table(NUMBERS)?.insert("life", u64::from(life))?;
        Ok(write.commit()?)
    }

    /// The number of batches to be removed at this floor: all that are below it, or none yet.
    fn gone(&self, floor: u64) -> usize {
        let below = self.batches.iter().take_while(|batch| batch.last <= floor);
        let (count, bytes) = below.fold((0, 0), |(count, bytes), batch| (count + 1, bytes + batch.bytes));
        if count >= REMOVED_AT_ONCE || bytes >= REMOVED_BYTES_AT_ONCE { count } else { 0 }
    }

    /// Everything that is stored, and the bytes of all values.
    fn load(&mut self) -> Result<(Kept, u64), Error> {
        let read = self.database.begin_read()?;
        let numbers = read.open_table(NUMBERS)?;
        let number = |name| Ok::<_, Error>(numbers.get(name)?.map_or(0, |value| value.value()));
        let life = u32::try_from(number("life")?).ok().filter(|&life| life <= Kept::LIFE_MAX);
        let mut kept = Kept {
            life: life.ok_or_else(|| damaged("a life that cannot be"))?,
            floor: number("floor")?,
            ..Kept::default()
        };
        let mut live = 0;
        self.batches.clear();
        for entry in read.open_table(PACKETS)?.iter()? {
            let (key, value) = entry?;
            let value = Bytes::copy_from_slice(value.value());
            live += value.len() as u64;
            let (floor, packets) =
                codec::decode_batch(&value).ok_or_else(|| damaged("a batch of packets"))?;
            self.batches.push_back(batch(key.value(), &packets, value.len(), self.batches.back())?);
            kept.floor = kept.floor.max(floor);
            kept.packets.extend(packets);
        }
        kept.packets.retain(|packet| packet.offset > kept.floor);
        for entry in read.open_table(SESSIONS)?.iter()? {
            let (pid, value) = entry?;
            live += value.value().len() as u64;
            let session = codec::decode_session(pid.value(), value.value());
            kept.sessions.push(session.ok_or_else(|| damaged("a session"))?);
        }
        for entry in read.open_table(ANSWERS)?.iter()? {
            let (key, value) = entry?;
            live += value.value().len() as u64;
            let (client, namespace) = key.value();
            let answer = codec::decode_answer(client, namespace, value.value());
            kept.answers.push(answer.ok_or_else(|| damaged("an answer"))?);
        }
        self.floor = kept.floor;
        Ok((kept, live))
    }
}

/// Every opening verifies the checksum of every page in use: without that, redb trusts a file that was closed properly.
fn database(disk: &Arc<dyn StorageBackend>) -> Result<Database, Error> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    Ok(builder.create_with_backend(Body(Arc::clone(disk)))?)
}

fn create(disk: &Arc<dyn StorageBackend>) -> Result<(), Error> {
    disk::begin_head(&**disk)?;
    let database = database(disk)?;
    let write = database.begin_write()?;
    write.open_table(PACKETS)?;
    write.open_table(SESSIONS)?;
    write.open_table(ANSWERS)?;
    write.open_table(NUMBERS)?;
    write.commit()?;
    database.close()?;
    Ok(disk::finish_head(&**disk)?)
}

fn packet_above(floor: u64, change: &Change) -> Option<&KeptPacket> {
    match change {
        Change::Packet(packet) if packet.offset > floor => Some(packet),
        _ => None,
    }
}

/// A batch as it was read, if its offsets are possible.
fn batch(key: u64, packets: &[KeptPacket], bytes: usize, before: Option<&Batch>) -> Result<Batch, Error> {
    let ends = packets.first().zip(packets.last()).map(|(first, last)| (first.offset, last.offset));
    let (first, last) = ends.ok_or_else(|| damaged("a batch without packets"))?;
    let ordered = packets.is_sorted_by(|one, next| one.offset < next.offset);
    if !ordered || first != key || before.is_some_and(|before| before.last >= first) {
        return Err(damaged("packets out of order"));
    }
    Ok(Batch { first, last, bytes })
}

fn put_sessions(write: &WriteTransaction, changes: &[Change]) -> Result<(), Error> {
    let mut concerned =
        changes.iter().filter(|change| matches!(change, Change::Session(_) | Change::Forget(_))).peekable();
    if concerned.peek().is_none() {
        return Ok(());
    }
    let mut table = write.open_table(SESSIONS)?;
    for change in concerned {
        match change {
            Change::Session(session) => {
                table.insert(&*session.pid, codec::encode_session(session).as_slice())?;
            }
            Change::Forget(pid) => {
                table.remove(&**pid)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn put_answers(write: &WriteTransaction, changes: &[Change]) -> Result<(), Error> {
    let concerns = |change: &&Change| matches!(change, Change::Answer(_) | Change::ForgetAnswer { .. });
    let mut concerned = changes.iter().filter(concerns).peekable();
    if concerned.peek().is_none() {
        return Ok(());
    }
    let mut table = write.open_table(ANSWERS)?;
    for change in concerned {
        match change {
            Change::Answer(answer) => {
                let key = (&*answer.client, &*answer.namespace);
                table.insert(key, codec::encode_answer(answer).as_slice())?;
            }
            Change::ForgetAnswer { client, namespace } => {
                table.remove((&**client, &**namespace))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn damaged(what: &str) -> Error {
    Error::Corrupted(what.to_owned())
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use rstest::rstest;

    use super::{super::tests::packet, *};

    const KIB: usize = 1024;

    /// Twenty times what the log may hold goes through it. docs/STORE.md states the bound: five times that, and half
    /// a megabyte.
    #[rstest]
    #[case::small_packets_one_by_one(64 * KIB, 1, 100)]
    #[case::small_packets(1024 * KIB, 97, 300)]
    #[case::half_a_page(256 * KIB, 1, 2100)]
    #[case::a_little_over_a_page(1024 * KIB, 1, 4100)]
    #[case::a_little_over_sixteen_pages(4096 * KIB, 1, 16 * 4100)]
    #[case::commits_of_all_sizes(1024 * KIB, 0, 500)]
    fn the_file_is_bounded(#[case] bound: usize, #[case] count: u64, #[case] length: usize) {
        let disk: Arc<dyn StorageBackend> = Arc::new(InMemoryBackend::new());
        let mut tables = Tables::open(&disk).unwrap();
        tables.begin_generation(1).unwrap();
        let (mut last, mut largest) = (0, 0);
        let packets = (bound / length) as u64;
        while last < 20 * packets {
            let end = last + if count > 0 { count } else { 1 + last * last % 203 };
            let new = (last + 1..=end).map(|offset| Change::Packet(packet(offset, length)));
            let changes: Vec<_> = new.chain([Change::Trim(end.saturating_sub(packets))]).collect();
            tables.commit(&changes).unwrap();
            last = end;
            largest = largest.max(disk.len().unwrap());
        }
        assert_eq!(tables.load().unwrap().0.packets.len() as u64, packets);
        let most = (5 * bound + 512 * KIB) as u64;
        assert!(largest < most, "{largest} of {most} bytes");
        shrinks(tables, &disk, last);
    }

    /// When the log has become empty and the process is killed, the next start compacts the file.
    fn shrinks(mut tables: Tables, disk: &Arc<dyn StorageBackend>, last: u64) {
        tables.commit(&[Change::Trim(last)]).unwrap();
        std::mem::forget(tables);
        let before = disk.len().unwrap();
        let (_, live) = Tables::open(disk).unwrap().load().unwrap();
        let after = disk.len().unwrap();
        assert!(after < COMPACTED_FROM.max(4 * live), "{before} -> {after} bytes for {live}");
    }
}
