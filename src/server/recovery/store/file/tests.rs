//! What is done with a file that is damaged, unfinished, locked, abandoned, or on a full disk.

use std::{
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicU64, Ordering},
};

use rstest::rstest;

use super::{
    super::{
        FIRST_GENERATION_MAX,
        tests::{Author, Folder, Model, packet, session},
    },
    *,
};

/// What is in the folder beside the store.
fn beside_it(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(&folder.0).expect("no error");
    let names = entries.map(|entry| entry.expect("no error").file_name().into_string().expect("no error"));
    let mut names: Vec<_> = names.filter(|name| name != "store").collect();
    names.sort();
    names
}

/// A store with something in it, closed properly or left as a killed process leaves it.
fn filled(folder: &Folder, properly: bool) -> Vec<Kept> {
    let (mut author, mut model, mut states) = (Author::default(), Model::default(), Vec::new());
    let mut store = FileStore::new(folder.file());
    model.0.life = store.open().expect("no error").life;
    author.begin(model.0.life);
    for verb in 0..60 {
        let changes = [author.change((verb, verb / 7, verb / 5)), author.change((verb + 5, 1, 3))];
        store.commit(&changes).expect("no error");
        changes.iter().for_each(|change| model.apply(change));
        states.push(model.0.clone());
    }
    let killed = fs::read(folder.file()).expect("no error");
    drop(store);
    if !properly {
        fs::write(folder.file(), killed).expect("no error");
    }
    states
}

/// Opens what is there. `None`: it was moved aside, unchanged, and a new store has begun.
fn found(folder: &Folder) -> Option<Kept> {
    let before = fs::read(folder.file()).expect("no error");
    let kept = FileStore::new(folder.file()).open().expect("no error");
    if beside_it(folder).is_empty() {
        return Some(Kept { life: kept.life - 1, ..kept });
    }
    assert_eq!(beside_it(folder), ["store.damaged"]);
    assert_eq!(kept, Kept { life: kept.life, ..Kept::default() });
    assert!(fs::read(folder.0.join("store.damaged")).expect("no error") == before, "changed");
    fs::remove_file(folder.0.join("store.damaged")).expect("no error");
    None
}

/// Whatever happened to the file: it is read as it was, or moved aside, and the server starts.
#[rstest]
#[case::closed_properly(true)]
#[case::killed(false)]
fn a_damaged_file_is_moved_aside(#[case] properly: bool) {
    let folder = Folder::new();
    let states = filled(&folder, properly);
    let sound = fs::read(folder.file()).expect("no error");
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
        fs::write(folder.file(), &file).expect("no error");
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
        fs::write(folder.file(), &file).expect("no error");
        assert_eq!(found(&folder), None);
        fs::write(folder.0.join("store.damaged"), "an older one").expect("no error");
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
    fs::write(folder.file(), file).expect("no error");
    let kept = found(&folder).expect("it was left in its place");
    assert_eq!(kept, Kept { life: kept.life, ..Kept::default() });
}

#[test]
fn a_newer_format_is_left_as_it_is() {
    let folder = Folder::new();
    let file = b"tinysio store 12\n".repeat(2);
    fs::write(folder.file(), &file).expect("no error");
    let error = FileStore::new(folder.file()).open().unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 12, known: 1, .. }), "{error}");
    assert_eq!(fs::read(folder.file()).expect("no error"), file);
    assert!(beside_it(&folder).is_empty());
}

/// The server runs without it, so the next start must not believe it; unless it is not ours.
#[test]
fn a_store_that_could_not_be_opened_is_abandoned_too() {
    let folder = Folder::new();
    FileStore::new(folder.file()).abandon();
    assert!(beside_it(&folder).is_empty());

    let mut running = FileStore::new(folder.file());
    running.open().expect("no error");
    let mut second = FileStore::new(folder.file());
    second.open().unwrap_err();
    second.abandon();
    running.commit(&[Change::Session(session("a", 1))]).expect("no error");
    drop(running);
    assert_eq!(FileStore::new(folder.file()).open().expect("no error").sessions, [session("a", 1)]);

    FileStore::new(folder.file()).abandon();
    assert_eq!(beside_it(&folder), ["store.failed"]);
    let kept = FileStore::new(folder.file()).open().expect("no error");
    assert_eq!(kept, Kept { life: kept.life, ..Kept::default() });

    let newer = b"tinysio store 12\n".repeat(2);
    fs::write(folder.file(), &newer).expect("no error");
    FileStore::new(folder.file()).abandon();
    assert_eq!(fs::read(folder.file()).expect("no error"), newer);
}

#[test]
fn one_process_at_a_time() {
    let folder = Folder::new();
    let mut store = FileStore::new(folder.file());
    store.open().expect("no error");
    let error = FileStore::new(folder.file()).open().unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop(store);
    FileStore::new(folder.file()).open().expect("no error");
}

#[test]
fn only_the_owner_may_read_it() {
    let folder = Folder::new();
    FileStore::new(folder.file()).open().expect("no error");
    assert_eq!(fs::metadata(folder.file()).expect("no error").permissions().mode() & 0o777, 0o600);
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
    let small = Small(FileDisk(locked(&path).expect("no error").expect("no error")), AtomicU64::new(400_000));
    let disk: Arc<dyn StorageBackend> = Arc::new(small);
    let tables = Tables::open(&disk).expect("no error");
    let mut store = FileStore { path, opened: Some(Opened { tables, disk }), life: 0, set_aside: false };
    store.open().expect("no error");
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
    let kept = FileStore::new(folder.file()).open().expect("no error");
    assert_eq!(kept, Kept { life: kept.life, ..Kept::default() });
}

/// The 20 bits of an offset are used up: everything is forgotten, so that nobody with an old offset is known.
#[test]
fn after_the_last_life_comes_a_first() {
    let folder = Folder::new();
    let mut store = FileStore::new(folder.file());
    store.open().expect("no error");
    store
        .commit(&[Change::Packet(packet(7, 1)), Change::Trim(3), Change::Session(session("a", 1))])
        .expect("no error");
    store.with(|tables| tables.set_life(Kept::LIFE_MAX)).expect("no error");
    drop(store);
    store = FileStore::new(folder.file());
    let first = store.open().expect("no error");
    assert!((1..=FIRST_GENERATION_MAX).contains(&first.life));
    assert_eq!(first, Kept { life: first.life, ..Kept::default() });
    drop(store);
    let next = FileStore::new(folder.file()).open().expect("no error");
    assert_eq!(next, Kept { life: first.life + 1, ..first });
}
