//! The file under the database: a first page that says what it is, and the database's own file after that.
//!
//! ```text
//!   0      "tinysio store 1\n", then zeros            written first
//!   4096   redb's file                                written when that is durable
//!   16     "tinysio store 1\n" once more              written when redb's file is: the store is complete
//! ```
//! So an unfinished new file differs from a damaged one, and no single damaged bit makes a file of this version look
//! like one of a newer version.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use redb::StorageBackend;

/// The format that this version writes: that of the codec, of the tables, and redb's file format 3. A change of any
/// of them is a new number.
pub(super) const FORMAT: u64 = 1;

/// The length of the first page, so that redb's pages are aligned with those of the file system.
const HEAD: u64 = 4096;

const NAME: &str = "tinysio store ";

/// The whole file, as the operating system gives it.
#[derive(Debug)]
pub(super) struct FileDisk(pub(super) File);

impl StorageBackend for FileDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// The part of the file that redb uses.
#[derive(Debug)]
pub(super) struct Body(pub(super) Arc<dyn StorageBackend>);

impl StorageBackend for Body {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len()?.saturating_sub(HEAD))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(shifted(offset)?, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(shifted(len)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(shifted(offset)?, data)
    }
}

/// A damaged file may contain any position.
fn shifted(offset: u64) -> io::Result<u64> {
    offset.checked_add(HEAD).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The content of the first page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Empty or incomplete: the file is new, and nothing was ever committed to it.
    Unfinished,
    /// A complete file of this version.
    Ours,
    /// A file of a format that this version does not know.
    Newer(u64),
    /// Something else.
    Foreign,
}

pub(super) fn read_head(disk: &dyn StorageBackend) -> io::Result<Head> {
    let mut page = [0; HEAD as usize];
    let long = disk.len()? > HEAD;
    let length = usize::try_from(disk.len()?.min(HEAD)).unwrap_or(page.len());
    disk.read(0, &mut page[..length])?;
    let used = page.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let (head, line) = (&page[..used], line(FORMAT));
    let ours = line.repeat(2);
    if head == ours.as_bytes() && long {
        return Ok(Head::Ours);
    }
    if head.len() < ours.len() && ours.as_bytes().starts_with(head) && (head.len() >= line.len() || !long) {
        return Ok(Head::Unfinished);
    }
    Ok(newer(head).map_or(Head::Foreign, Head::Newer))
}

fn newer(head: &[u8]) -> Option<u64> {
    let head = str::from_utf8(head).ok()?;
    let format = head.strip_prefix(NAME)?.split_once('\n')?.0.parse().ok()?;
    (format > FORMAT && head.starts_with(&line(format).repeat(2))).then_some(format)
}

/// Empties the file and writes the first mark.
pub(super) fn begin_head(disk: &dyn StorageBackend) -> io::Result<()> {
    disk.set_len(0)?;
    disk.set_len(HEAD)?;
    disk.write(0, line(FORMAT).as_bytes())?;
    disk.sync_data()
}

/// redb's file is durable: from now on the file is a store.
pub(super) fn finish_head(disk: &dyn StorageBackend) -> io::Result<()> {
    let line = line(FORMAT);
    disk.write(line.len() as u64, line.as_bytes())?;
    disk.sync_data()
}

fn line(format: u64) -> String {
    format!("{NAME}{format}\n")
}
