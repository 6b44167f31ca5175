//! The store on disk: its path, its lock, and what is done with a file that cannot be used.
//!
//! ```text
//!   PATH           the store, locked as long as it is open
//!   PATH.damaged   a file that was at PATH and could not be read
//!   PATH.failed    a file that a server has abandoned, because a commit had failed
//! ```

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::StorageBackend;

use super::{
    Change, Kept, Store, StoreError,
    disk::{FORMAT, FileDisk, Head, read_head},
    first_generation,
    tables::{Refusal, Tables},
};
use crate::server::guard;

/// A store in one file. It outlives the process and power cuts.
///
/// A commit is one `fdatasync`. The file is locked while it is open. Only its owner can read a new file, because it
/// has the secrets by which sessions are recovered. `docs/STORE.md` says what is stored, how large the file becomes
/// and what may be lost.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    /// `None` before it is opened, and after it was abandoned.
    opened: Option<Opened>,
    /// The last generation that it has begun, 0 for none. A file that replaces an abandoned one begins above it.
    life: u32,
    /// The file was moved to `PATH.damaged`, and nothing was committed since.
    set_aside: bool,
}

#[derive(Debug)]
struct Opened {
    tables: Tables,
    /// The file, and with it the lock.
    disk: Arc<dyn StorageBackend>,
}

/// How often an opening begins again because another file has come to the path.
const TRIES: usize = 4;

impl FileStore {
    /// The store at this path. Nothing is done there before the server starts. The directory must exist; the file is
    /// made if there is none.
    ///
    /// At the start, a file that cannot be read, or is not a store, is moved to `PATH.damaged` (in place of an older
    /// one) with a line in the log at `error`, and a new store begins. [`open`](Store::open) fails if another process
    /// has the file open, if a newer version has written it, if the disk is full, or if the system refuses.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), opened: None, life: 0, set_aside: false }
    }

    fn opened(&mut self) -> Result<Opened, StoreError> {
        let path = self.path.clone();
        let mut what = String::from("other processes keep replacing it");
        for _ in 0..TRIES {
            let Some(file) = locked(&path)? else { continue };
            let disk: Arc<dyn StorageBackend> = Arc::new(FileDisk(file));
            match guarded(|| Tables::open(&disk)) {
                Ok(tables) => return Ok(Opened { tables, disk }),
                Err(Refusal::Newer(found)) => return Err(StoreError::TooNew { path, found, known: FORMAT }),
                Err(Refusal::Failed(error)) => {
                    what = damage(&path, error)?;
                    if self.set_aside {
                        // The file is new, so the disk is damaged.
                        fs::remove_file(&path).map_err(|source| failed(&path, source))?;
                        break;
                    }
                    let aside = beside(&path, ".damaged");
                    fs::rename(&path, &aside).map_err(|source| failed(&path, source))?;
                    self.set_aside = true;
                    guard::error!(
                        "the store {} is damaged ({what}); moved to {}, a new one begins",
                        path.display(),
                        aside.display()
                    );
                }
            }
        }
        Err(StoreError::Damaged { path, what })
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Tables) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let Some(Opened { tables, .. }) = &mut self.opened else {
            return Err(failed(&self.path, io::Error::other("it is not open")));
        };
        guarded(|| work(tables).map_err(Refusal::Failed)).map_err(|refusal| match refusal {
            Refusal::Newer(found) => StoreError::TooNew { path: self.path.clone(), found, known: FORMAT },
            Refusal::Failed(error) => match damage(&self.path, error) {
                Ok(what) => StoreError::Damaged { path: self.path.clone(), what },
                Err(error) => error,
            },
        })
    }

    /// Closing writes to the file, which may be damaged.
    fn close(&mut self) {
        let opened = self.opened.take();
        let _ = guarded(|| {
            drop(opened);
            Ok(())
        });
    }
}

impl Store for FileStore {
    fn open(&mut self) -> Result<Kept, StoreError> {
        if self.opened.is_none() {
            self.opened = Some(self.opened()?);
        }
        let first = if (1..Kept::LIFE_MAX).contains(&self.life) { self.life + 1 } else { first_generation() };
        let kept = self.with(|tables| tables.begin_generation(first))?;
        (self.life, self.set_aside) = (kept.life, false);
        Ok(kept)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.with(|tables| tables.commit(changes))
    }

    /// Renames the file to `PATH.failed`, in place of an older one, which needs no room on the disk. If that fails,
    /// the file is emptied. If that fails too, the log says what to do by hand.
    ///
    /// Also called after a failed opening. Otherwise the next start would use an old state, without the packets that
    /// were sent since.
    /// Only a file that another process has open, or that a newer version has written, is left as it is.
    fn abandon(&mut self) {
        let path = self.path.clone();
        let shown = path.display();
        let disk = match &self.opened {
            Some(opened) => Ok(Arc::clone(&opened.disk)),
            None => held(&path),
        };
        let set_aside = disk.and_then(|disk| {
            let renamed = fs::rename(&path, beside(&path, ".failed")).and_then(|()| sync_directory(&path));
            self.close();
            let emptied = renamed.or_else(|_| disk.set_len(0).and_then(|()| disk.sync_data()));
            emptied.map_err(|source| failed(&path, source))
        });
        match set_aside {
            Ok(()) => guard::error!("the store {shown} is abandoned; the next start begins a new one"),
            Err(StoreError::InUse { .. } | StoreError::NoDirectory { .. }) => {}
            // A device or a directory: nothing was stored there, and it must not be removed.
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) => guard::error!(
                "the store {shown} is abandoned and stays where it is: {error}; remove it before the next start, \
                 or messages may be missing without anybody being told"
            ),
        }
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.close();
    }
}

/// A file that could not be opened as a store; with its lock, if this process may abandon it.
fn held(path: &Path) -> Result<Arc<dyn StorageBackend>, StoreError> {
    let found = fs::metadata(path).and_then(|_| opened(path)).map_err(|source| failed(path, source))?;
    match found.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(failed(path, source)),
    }
    let disk = FileDisk(found);
    match read_head(&disk).map_err(|source| failed(path, source))? {
        Head::Newer(found) => Err(StoreError::TooNew { path: path.to_owned(), found, known: FORMAT }),
        _ => Ok(Arc::new(disk)),
    }
}

/// The file at this path, locked. It is made if there is none. `None`: another file has taken its place meanwhile.
fn locked(path: &Path) -> Result<Option<File>, StoreError> {
    let file = opened(path).map_err(|source| failed(path, source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(failed(path, source)),
    }
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let same = file.metadata().and_then(|ours| Ok(id(ours) == id(fs::metadata(path)?)));
    match same {
        Ok(same) => Ok(same.then_some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(path, source)),
    }
}

fn opened(path: &Path) -> io::Result<File> {
    let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    let file = match made {
        Ok(file) => {
            sync_directory(path)?;
            file
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Not a device or a pipe: those must not be written to or renamed.
            if !fs::metadata(path)?.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
            }
            OpenOptions::new().read(true).write(true).open(path)?
        }
        Err(error) => return Err(error),
    };
    Ok(file)
}

/// Makes the file's name durable. Otherwise a power cut may lose the name, and with it a file with durable contents.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// For a damaged file that is checked at the opening, redb promises errors and no panics. A panic counts as damage too.
fn guarded<T>(work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Refusal::Failed(redb::Error::Corrupted(text.unwrap_or_else(|| "a panic".to_owned()))))
    })
}

/// `Ok`: the file is damaged. `Err`: the system has failed, and the file may be intact.
fn damage(path: &Path, error: redb::Error) -> Result<String, StoreError> {
    match error {
        redb::Error::Corrupted(what) => Ok(what),
        redb::Error::Io(source) if !is_damage(&source) => Err(failed(path, source)),
        other => Ok(other.to_string()),
    }
}

/// Linux's error for a block that it cannot read, on every processor. The standard library has no `ErrorKind` for it.
const EIO: i32 = 5;

/// A file that ends too early, a file that is no database, and a block that the disk cannot read.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
        || error.raw_os_error() == Some(EIO)
}

fn failed(path: &Path, source: io::Error) -> StoreError {
    use io::ErrorKind::{
        FileTooLarge, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    let path = path.to_owned();
    match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => StoreError::Full { path, source },
        PermissionDenied | ReadOnlyFilesystem => StoreError::Permission { path, source },
        NotFound => StoreError::NoDirectory { path },
        _ => StoreError::Io { path, source },
    }
}

#[cfg(test)]
mod tests;
