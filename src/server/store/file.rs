//! The store on disk: its path, its lock, and what becomes of a file that cannot be used.
//!
//! ```text
//!   PATH           the store, locked as long as it is open
//!   PATH.damaged   what was found at PATH and could not be read
//!   PATH.failed    what a server gave up while it ran, because a commit had failed
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
    disk::{FORMAT, FileDisk},
    tables::{Refusal, Tables},
};

/// A store in one file, for everything that must survive the process and the power.
///
/// A commit is one `fdatasync`. The file is locked while it is open, and only its owner can read a new one: it holds the
/// secrets by which sessions are recovered. `docs/STORE.md` says what is kept, how large the file becomes and what may be lost.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    /// `None` once it is abandoned.
    tables: Option<Tables>,
    /// The file, and with it the lock.
    disk: Arc<dyn StorageBackend>,
}

/// So often an opening begins again, each time with another file at the path.
const TRIES: usize = 4;

impl FileStore {
    /// Opens the store at this path, or makes a new one there; the directory must be there.
    ///
    /// A file that cannot be read, or is not a store, is moved to `PATH.damaged` (in place of an older one) with a line in
    /// the log at `error`, and a new store begins.
    ///
    /// # Errors
    /// Another process has it open, a newer version has written it, the disk is full, or the system refuses.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let mut what = String::from("other processes keep replacing it");
        for _ in 0..TRIES {
            let Some(file) = locked(&path)? else { continue };
            let disk: Arc<dyn StorageBackend> = Arc::new(FileDisk(file));
            match guarded(|| Tables::open(&disk)) {
                Ok(tables) => return Ok(Self { path, tables: Some(tables), disk }),
                Err(Refusal::Newer(found)) => return Err(StoreError::TooNew { path, found, known: FORMAT }),
                Err(Refusal::Failed(error)) => {
                    what = damage(&path, error)?;
                    let aside = beside(&path, ".damaged");
                    fs::rename(&path, &aside).map_err(|source| failed(&path, source))?;
                    log::error!(
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
        let Some(tables) = &mut self.tables else {
            return Err(failed(&self.path, io::Error::other("it was abandoned")));
        };
        guarded(|| work(tables).map_err(Refusal::Failed)).map_err(|refusal| match refusal {
            Refusal::Newer(found) => StoreError::TooNew { path: self.path.clone(), found, known: FORMAT },
            Refusal::Failed(error) => match damage(&self.path, error) {
                Ok(what) => StoreError::Damaged { path: self.path.clone(), what },
                Err(error) => error,
            },
        })
    }

    /// Closing writes, and what is there may be damaged.
    fn close(&mut self) {
        let tables = self.tables.take();
        let _ = guarded(|| {
            drop(tables);
            Ok(())
        });
    }
}

impl Store for FileStore {
    fn open(&mut self) -> Result<Kept, StoreError> {
        self.with(Tables::begin_life)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.with(|tables| tables.commit(changes))
    }

    /// Renames the file to `PATH.failed`, in place of an older one, which needs no room on the disk. Where not even that can
    /// be done the file is emptied; and where the system refuses that too, the log says what to do by hand.
    fn abandon(&mut self) {
        let aside = beside(&self.path, ".failed");
        let renamed = fs::rename(&self.path, &aside).and_then(|()| sync_directory(&self.path));
        self.close();
        let path = self.path.display();
        match renamed.or_else(|_| self.disk.set_len(0).and_then(|()| self.disk.sync_data())) {
            Ok(()) => log::error!("the store {path} is abandoned; the next start begins a new one"),
            Err(error) => log::error!(
                "the store {path} is abandoned and cannot be moved away: {error}; remove it before the next start, \
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

/// The file at this path, made if it was not there, and locked. `None`: another file has taken its place meanwhile.
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
            // Not a device or a pipe: nothing may be written to those, nor may they be moved aside.
            if !fs::metadata(path)?.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
            }
            OpenOptions::new().read(true).write(true).open(path)?
        }
        Err(error) => return Err(error),
    };
    Ok(file)
}

/// Without this a power cut may take the name away, and with it a file whose contents were durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// redb promises errors, not panics, for a damaged file that is checked when it is opened; should it panic all the same,
/// that is damage too.
fn guarded<T>(work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Refusal::Failed(redb::Error::Corrupted(text.unwrap_or_else(|| "a panic".to_owned()))))
    })
}

/// `Ok`: what is damaged. `Err`: it is the system that fails, and the file may be as it should.
fn damage(path: &Path, error: redb::Error) -> Result<String, StoreError> {
    match error {
        redb::Error::Corrupted(what) => Ok(what),
        redb::Error::Io(source) if !is_damage(&source) => Err(failed(path, source)),
        other => Ok(other.to_string()),
    }
}

/// Something that ends too early, something that is no database, and a block that the disk cannot read any more.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
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
