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
    disk::{FORMAT, FileDisk, Head, read_head},
    first_life,
    tables::{Refusal, Tables},
};

/// A store in one file, for everything that must survive the process and the power.
///
/// A commit is one `fdatasync`. The file is locked while it is open, and only its owner can read a new one: it holds the
/// secrets by which sessions are recovered. `docs/STORE.md` says what is kept, how large the file becomes and what may be lost.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    /// `None` before it is opened, and once it is abandoned.
    opened: Option<Opened>,
    /// The last life that it has begun, 0 for none: a file that replaces one that was abandoned begins above it.
    life: u32,
    /// What was at the path is at `PATH.damaged`, and nothing has been kept since.
    set_aside: bool,
}

#[derive(Debug)]
struct Opened {
    tables: Tables,
    /// The file, and with it the lock.
    disk: Arc<dyn StorageBackend>,
}

/// So often an opening begins again, each time with another file at the path.
const TRIES: usize = 4;

impl FileStore {
    /// The store at this path, which is not touched before the server starts. The directory must be there; a file that is not is
    /// made.
    ///
    /// A file that cannot be read, or is not a store, is then moved to `PATH.damaged` (in place of an older one) with a line in the
    /// log at `error`, and a new store begins. [`open`](Store::open) fails when another process has it open, a newer version has
    /// written it, the disk is full, or the system refuses.
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
                        // It was made a moment ago, and it is the disk that is damaged.
                        fs::remove_file(&path).map_err(|source| failed(&path, source))?;
                        break;
                    }
                    let aside = beside(&path, ".damaged");
                    fs::rename(&path, &aside).map_err(|source| failed(&path, source))?;
                    self.set_aside = true;
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

    /// Closing writes, and what is there may be damaged.
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
        let first = if (1..Kept::LIFE_MAX).contains(&self.life) { self.life + 1 } else { first_life() };
        let kept = self.with(|tables| tables.begin_life(first))?;
        (self.life, self.set_aside) = (kept.life, false);
        Ok(kept)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.with(|tables| tables.commit(changes))
    }

    /// Renames the file to `PATH.failed`, in place of an older one, which needs no room on the disk. Where not even that can
    /// be done the file is emptied; and where the system refuses that too, the log says what to do by hand.
    ///
    /// After an opening that failed as well: the next start would find what was kept before this one, and not what was sent
    /// since. Only a file that another process holds, or that a newer version has written, is left as it is.
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
            Ok(()) => log::error!("the store {shown} is abandoned; the next start begins a new one"),
            Err(StoreError::InUse { .. } | StoreError::NoDirectory { .. }) => {}
            // A device or a directory: nothing was kept there, and nobody should remove it.
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) => log::error!(
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

/// A file that could not be opened as a store, with the lock, if it is ours to abandon.
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

/// What Linux says, on every processor, of a block that it cannot read; the standard library has no kind for it.
const EIO: i32 = 5;

/// Something that ends too early, something that is no database, and a block that the disk cannot read any more.
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
mod tests {
    use std::{
        os::unix::fs::PermissionsExt,
        sync::atomic::{AtomicU64, Ordering},
    };

    use rstest::rstest;

    use super::{
        super::{
            FIRST_LIFE_MAX,
            tests::{Author, Folder, Model, packet, session},
        },
        *,
    };

    /// What is in the folder beside the store.
    fn beside_it(folder: &Folder) -> Vec<String> {
        let entries = fs::read_dir(&folder.0).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "store").collect();
        names.sort();
        names
    }

    /// A store with something in it, closed properly or left as a killed process leaves it.
    fn filled(folder: &Folder, properly: bool) -> Vec<Kept> {
        let (mut author, mut model, mut states) = (Author::default(), Model::default(), Vec::new());
        let mut store = FileStore::new(folder.file());
        model.0.life = store.open().unwrap().life;
        author.begin(model.0.life);
        for verb in 0..60 {
            let changes = [author.change((verb, verb / 7, verb / 5)), author.change((verb + 5, 1, 3))];
            store.commit(&changes).unwrap();
            changes.iter().for_each(|change| model.apply(change));
            states.push(model.0.clone());
        }
        let killed = fs::read(folder.file()).unwrap();
        drop(store);
        if !properly {
            fs::write(folder.file(), killed).unwrap();
        }
        states
    }

    /// Opens what is there. `None`: it was moved aside, unchanged, and a new store has begun.
    fn found(folder: &Folder) -> Option<Kept> {
        let before = fs::read(folder.file()).unwrap();
        let kept = FileStore::new(folder.file()).open().unwrap();
        if beside_it(folder).is_empty() {
            return Some(Kept { life: kept.life - 1, ..kept });
        }
        assert_eq!(beside_it(folder), ["store.damaged"]);
        assert_eq!(kept, Kept { life: kept.life, ..Kept::default() });
        assert!(fs::read(folder.0.join("store.damaged")).unwrap() == before, "changed");
        fs::remove_file(folder.0.join("store.damaged")).unwrap();
        None
    }

    /// Whatever happened to the file: it is read as it was, or moved aside, and the server starts.
    #[rstest]
    #[case::closed_properly(true)]
    #[case::killed(false)]
    fn a_damaged_file_is_moved_aside(#[case] properly: bool) {
        let folder = Folder::new();
        let states = filled(&folder, properly);
        let sound = fs::read(folder.file()).unwrap();
        assert_eq!(found(&folder).as_ref(), states.last());
        let mut seed = 1_u64;
        let mut below = |limit: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % limit
        };
        let mut moved = 0;
        for round in 0..200 {
            let mut file = sound.clone();
            let at = if round % 2 == 0 { below(8192) } else { below(file.len()) };
            match round % 5 {
                0 => file.truncate(at),
                1 => file[at] ^= 1 << below(8),
                2 => file[at..].iter_mut().take(4096).for_each(|byte| *byte = 0),
                3 => file[at..].iter_mut().take(64).for_each(|byte| *byte = below(256) as u8),
                _ => file.extend(vec![7; at]),
            }
            fs::write(folder.file(), &file).unwrap();
            match found(&folder) {
                // After a power cut the last commit may have been under way, and damage looks as if it had.
                Some(kept) => {
                    let possible = &states[states.len() - if properly { 1 } else { 2 }..];
                    assert!(possible.contains(&kept), "round {round}");
                }
                None => moved += 1,
            }
        }
        assert!(moved > 50, "{moved}");
    }

    #[rstest]
    #[case::garbage(b"garbage".repeat(10_000))]
    #[case::a_text(b"# notes\n".to_vec())]
    #[case::a_database_of_somebody_else(b"SQLite format 3\0".repeat(300))]
    #[case::zeros(vec![0; 100_000])]
    #[case::a_head_without_a_body([b"tinysio store 1\n".repeat(2), vec![0; 9000]].concat())]
    #[case::a_head_and_nothing(b"tinysio store 1\n".repeat(2))]
    #[case::an_older_format([b"tinysio store 0\n".repeat(2), vec![0; 9000]].concat())]
    #[case::a_number_out_of_bounds(b"tinysio store 99999999999999999999\n".repeat(2))]
    fn what_is_no_store_is_moved_aside(#[case] file: Vec<u8>) {
        let folder = Folder::new();
        for _ in 0..2 {
            fs::write(folder.file(), &file).unwrap();
            assert_eq!(found(&folder), None);
            fs::write(folder.0.join("store.damaged"), "an older one").unwrap();
        }
    }

    /// Its making was cut short, so it never held anything.
    #[rstest]
    #[case::empty(vec![])]
    #[case::half_a_line(b"tinysio".to_vec())]
    #[case::one_line(b"tinysio store 1\n".to_vec())]
    #[case::a_line_and_a_half([b"tinysio store 1\ntiny".to_vec(), vec![0; 9000]].concat())]
    fn an_unfinished_file_is_a_new_one(#[case] file: Vec<u8>) {
        let folder = Folder::new();
        fs::write(folder.file(), file).unwrap();
        let kept = found(&folder).expect("it was left in its place");
        assert_eq!(kept, Kept { life: kept.life, ..Kept::default() });
    }

    #[test]
    fn a_newer_format_is_left_as_it_is() {
        let folder = Folder::new();
        let file = b"tinysio store 12\n".repeat(2);
        fs::write(folder.file(), &file).unwrap();
        let error = FileStore::new(folder.file()).open().unwrap_err();
        assert!(matches!(error, StoreError::TooNew { found: 12, known: 1, .. }), "{error}");
        assert_eq!(fs::read(folder.file()).unwrap(), file);
        assert!(beside_it(&folder).is_empty());
    }

    /// The server runs without it, so the next start must not believe it; unless it is not ours.
    #[test]
    fn a_store_that_could_not_be_opened_is_abandoned_too() {
        let folder = Folder::new();
        FileStore::new(folder.file()).abandon();
        assert!(beside_it(&folder).is_empty());

        let mut running = FileStore::new(folder.file());
        running.open().unwrap();
        let mut second = FileStore::new(folder.file());
        second.open().unwrap_err();
        second.abandon();
        running.commit(&[Change::Session(session("a", 1))]).unwrap();
        drop(running);
        assert_eq!(FileStore::new(folder.file()).open().unwrap().sessions, [session("a", 1)]);

        FileStore::new(folder.file()).abandon();
        assert_eq!(beside_it(&folder), ["store.failed"]);
        let kept = FileStore::new(folder.file()).open().unwrap();
        assert_eq!(kept, Kept { life: kept.life, ..Kept::default() });

        let newer = b"tinysio store 12\n".repeat(2);
        fs::write(folder.file(), &newer).unwrap();
        FileStore::new(folder.file()).abandon();
        assert_eq!(fs::read(folder.file()).unwrap(), newer);
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = Folder::new();
        let mut store = FileStore::new(folder.file());
        store.open().unwrap();
        let error = FileStore::new(folder.file()).open().unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        drop(store);
        FileStore::new(folder.file()).open().unwrap();
    }

    #[test]
    fn only_the_owner_may_read_it() {
        let folder = Folder::new();
        FileStore::new(folder.file()).open().unwrap();
        assert_eq!(fs::metadata(folder.file()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_path_that_cannot_be() {
        let folder = Folder::new();
        let missing = FileStore::new(folder.0.join("missing/store")).open().unwrap_err();
        assert!(matches!(missing, StoreError::NoDirectory { .. }), "{missing}");
        for path in [&*folder.0, Path::new("/dev/null")] {
            let error = FileStore::new(path).open().unwrap_err();
            assert!(matches!(error, StoreError::Io { .. }), "{error}");
        }
        assert!(beside_it(&folder).is_empty());
    }

    /// A disk with so much room.
    #[derive(Debug)]
    struct Small(FileDisk, AtomicU64);

    impl Small {
        fn fits(&self, end: u64) -> io::Result<()> {
            let fits = end <= self.1.load(Ordering::Relaxed);
            fits.then_some(()).ok_or_else(|| io::ErrorKind::StorageFull.into())
        }
    }

    impl StorageBackend for Small {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.fits(len)?;
            self.0.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.fits(offset + data.len() as u64)?;
            self.0.write(offset, data)
        }
    }

    #[test]
    fn a_full_disk_is_said_and_the_store_can_be_abandoned() {
        let folder = Folder::new();
        let path = folder.file();
        let small = Small(FileDisk(locked(&path).unwrap().unwrap()), AtomicU64::new(400_000));
        let disk: Arc<dyn StorageBackend> = Arc::new(small);
        let tables = Tables::open(&disk).unwrap();
        let mut store = FileStore { path, opened: Some(Opened { tables, disk }), life: 0, set_aside: false };
        store.open().unwrap();
        let commits = (1..).map(|offset| store.commit(&[Change::Packet(packet(offset, 1000))]));
        let error = commits.take(1000).find_map(Result::err).expect("the disk is full");
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert!(error.to_string().starts_with("no room on the disk for the store /"), "{error}");
        // It does not come to its senses, so nothing is lost between two commits.
        store.commit(&[Change::Session(session("a", 1))]).unwrap_err();
        store.abandon();
        assert_eq!(beside_it(&folder), ["store.failed"]);
        assert!(!folder.file().exists());
        store.commit(&[]).unwrap_err();
        // The lock is on the file that was abandoned.
        let kept = FileStore::new(folder.file()).open().unwrap();
        assert_eq!(kept, Kept { life: kept.life, ..Kept::default() });
    }

    /// The 20 bits of an offset are used up: everything is forgotten, so that nobody with an old offset is known.
    #[test]
    fn after_the_last_life_comes_a_first() {
        let folder = Folder::new();
        let mut store = FileStore::new(folder.file());
        store.open().unwrap();
        store
            .commit(&[Change::Packet(packet(7, 1)), Change::Trim(3), Change::Session(session("a", 1))])
            .unwrap();
        store.with(|tables| tables.set_life(Kept::LIFE_MAX)).unwrap();
        drop(store);
        store = FileStore::new(folder.file());
        let first = store.open().unwrap();
        assert!((1..=FIRST_LIFE_MAX).contains(&first.life));
        assert_eq!(first, Kept { life: first.life, ..Kept::default() });
        drop(store);
        let next = FileStore::new(folder.file()).open().unwrap();
        assert_eq!(next, Kept { life: first.life + 1, ..first });
    }
}
