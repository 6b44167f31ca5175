//! Power cuts, simulated: the store's own code runs on a disk that writes down what it is asked for, and the store is
//! opened on everything that such a disk may hold when the power fails.
//!
//! ```text
//!   run      three generations on one disk: closed, killed, killed ─► each write, change of length and sync in order
//!   image    what is synced, and of what is not: nothing, all, or some, sector by sector, older or newer
//!   promise  opened, it holds what a commit left: the last one that had returned, or the one that was under way
//! ```
//! A sector is 512 bytes, and is written or not. An unsynced sector holds what any of the writes since the last sync
//! left there, or what was there before; which one is drawn for each sector, or for each page of eight.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::sys::sync::Mutex;
use redb::StorageBackend;
use rstest::rstest;

use super::{
    Change, Kept,
    tables::Tables,
    tests::{Author, Model},
};

const SECTOR: usize = 512;

/// What a disk was asked for.
#[derive(Debug, Clone)]
enum Step {
    Write(usize, Vec<u8>),
    Length(usize),
    Sync,
}

impl Step {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                if image.len() < offset + data.len() {
                    image.resize(offset + data.len(), 0);
                }
                image[*offset..offset + data.len()].copy_from_slice(data);
            }
            Self::Length(length) => image.resize(*length, 0),
            Self::Sync => {}
        }
    }
}

/// A disk in memory, and all it was asked for. Clones are the same disk; a killed one does nothing any more.
#[derive(Debug, Clone, Default)]
struct Disk {
    record: Arc<Mutex<(Vec<u8>, Vec<Step>)>>,
    killed: Arc<AtomicBool>,
}

impl Disk {
    fn holding(image: Vec<u8>) -> Self {
        Self { record: Arc::new(Mutex::new((image, Vec::new()))), killed: Arc::default() }
    }

    /// The same disk for the next process.
    fn for_the_next(&self) -> Self {
        Self { record: Arc::clone(&self.record), killed: Arc::default() }
    }

    /// From now on the process is dead: what it still does on its way out reaches nobody.
    fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
    }

    fn steps(&self) -> usize {
        self.record.lock().1.len()
    }

    fn step(&self, step: Step) {
        if !self.killed.load(Ordering::Relaxed) {
            let (image, steps) = &mut *self.record.lock();
            step.apply(image);
            steps.push(step);
        }
    }

    fn tables(&self) -> Tables {
        let disk: Arc<dyn StorageBackend> = Arc::new(self.clone());
        Tables::open(&disk).unwrap_or_else(|refusal| panic!("the store was refused: {refusal:?}"))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.record.lock().0.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (image, _) = &*self.record.lock();
        let end = usize::try_from(offset).ok().and_then(|start| start.checked_add(out.len()));
        let part = end.and_then(|end| image.get(end - out.len()..end)).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step(Step::Length(usize::try_from(len).expect("a length")));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.step(Step::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.step(Step::Write(usize::try_from(offset).expect("an offset"), data.to_vec()));
        Ok(())
    }
}

/// Small numbers without end, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }

    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }
}

/// A recorded run: what the disk was asked for, and what every commit left.
struct Run {
    steps: Vec<Step>,
    /// What was kept after so many commits; a life's beginning is one too.
    states: Vec<Kept>,
    /// For each commit the number of steps before it and after it.
    spans: Vec<(usize, usize)>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let (mut dice, mut author, mut model) = (Dice(seed), Author::default(), Model::default());
        let mut disk = Disk::default();
        let mut run = Self { steps: Vec::new(), states: vec![Kept::default()], spans: Vec::new() };
        for (life, properly) in [(1, true), (2, false), (3, false)] {
            disk = disk.for_the_next();
            let mut tables = disk.tables();
            model.0.life = life;
            author.begin(life);
            let kept = run.commit(&disk, &model, || tables.begin_generation(1).expect("a life"));
            assert_eq!(kept, model.0);
            for _ in 0..20 {
                let count = 1 + dice.below(8);
                let mut change = || author.change((dice.byte(), dice.byte(), dice.byte()));
                let changes: Vec<Change> = (0..count).map(|_| change()).collect();
                changes.iter().for_each(|change| model.apply(change));
                run.commit(&disk, &model, || tables.commit(&changes).expect("a commit"));
            }
            if !properly {
                disk.kill();
            }
        }
        run.steps.clone_from(&disk.record.lock().1);
        run
    }

    fn commit<T>(&mut self, disk: &Disk, after: &Model, work: impl FnOnce() -> T) -> T {
        let begun = disk.steps();
        let result = work();
        self.spans.push((begun, disk.steps()));
        self.states.push(after.0.clone());
        result
    }

    /// What may be found after so many steps.
    fn allowed(&self, steps: usize) -> &[Kept] {
        let returned = self.spans.iter().take_while(|(_, end)| *end <= steps).count();
        let under_way = self.spans.iter().take_while(|(begun, _)| *begun < steps).count();
        &self.states[returned..=under_way.max(returned)]
    }

    /// Opens this image. Gives what it held, and the disk with what the opening has written.
    fn check(&self, image: Vec<u8>, allowed: &[Kept], place: &dyn std::fmt::Debug) -> (Kept, Disk) {
        let disk = Disk::holding(image);
        let mut kept = disk.tables().begin_generation(1).expect("a life");
        kept.life -= 1;
        assert!(allowed.contains(&kept), "at {place:?}: found {kept:?}, allowed are {allowed:?}");
        (kept, disk)
    }
}

/// One of the images that a disk may hold, which held `synced` and was asked for these steps since.
fn torn(synced: &[u8], since: &[Step], dice: &mut Dice) -> Vec<u8> {
    let (odds, grain) = (dice.below(4), SECTOR * [1, 8][dice.below(2)]);
    // How many of the steps have reached a part of the disk.
    let mut reached = || match odds {
        0 => [0, since.len()][dice.below(2)],
        1 if dice.below(48) > 0 => since.len(),
        2 if dice.below(48) > 0 => 0,
        _ => dice.below(since.len() + 1),
    };
    let mut image = synced.to_vec();
    let mut length = image.len();
    let seen = reached();
    let mut drawn = BTreeMap::new();
    for (index, step) in since.iter().enumerate() {
        match step {
            Step::Write(offset, data) => {
                let end = offset + data.len();
                for part in offset / grain..=(end - 1) / grain {
                    if *drawn.entry(part).or_insert_with(&mut reached) > index {
                        let (from, to) = ((part * grain).max(*offset), ((part + 1) * grain).min(end));
                        Step::Write(from, data[from - offset..to - offset].to_vec()).apply(&mut image);
                    }
                }
                length = if index < seen { length.max(end) } else { length };
            }
            // What is cut off is gone for good when the file grows again.
            Step::Length(new) if index < seen => {
                let kept = image.len().min(*new);
                image[kept..].fill(0);
                length = *new;
            }
            Step::Length(_) | Step::Sync => {}
        }
    }
    image.resize(length, 0);
    image
}

/// Goes through the record; `look` sees, for each number of steps, what was synced and what was asked for since.
fn at_every_step(start: Vec<u8>, steps: &[Step], mut look: impl FnMut(usize, &[u8], &[Step])) {
    let (mut synced, mut from) = (start, 0);
    for count in 0..=steps.len() {
        if count > 0 && matches!(steps[count - 1], Step::Sync) {
            steps[from..count].iter().for_each(|step| step.apply(&mut synced));
            from = count;
        }
        look(count, &synced, &steps[from..count]);
    }
}

/// The process dies: what was written is there, up to any byte of a write.
#[test]
fn killed_at_every_write() {
    let run = Run::new(1);
    let mut dice = Dice(1);
    let mut image = Vec::new();
    for (index, step) in run.steps.iter().enumerate() {
        run.check(image.clone(), run.allowed(index), &index);
        if let Step::Write(offset, data) = step {
            for length in [1, 1 + dice.below(data.len())] {
                let mut image = image.clone();
                Step::Write(*offset, data[..length].to_vec()).apply(&mut image);
                run.check(image, run.allowed(index + 1), &(index, length));
            }
        }
        step.apply(&mut image);
    }
    run.check(image, run.allowed(run.steps.len()), &"the end");
}

/// The power fails: what was not synced is there or not, in any order, and pages are torn.
#[rstest]
#[case(3)]
#[case(4)]
#[case(5)]
fn power_cut_at_every_write(#[case] seed: u64) {
    let run = Run::new(seed);
    let mut dice = Dice(seed);
    let mut found = [0, 0];
    at_every_step(Vec::new(), &run.steps, |count, synced, since| {
        let allowed = run.allowed(count);
        // Most is at stake when all is written and the sync is what comes next.
        let images = if matches!(run.steps.get(count), Some(Step::Sync)) { 10 } else { 1 };
        for _ in 0..images {
            let (kept, disk) = run.check(torn(synced, since, &mut dice), allowed, &count);
            let which = allowed.iter().position(|state| *state == kept);
            found[which.expect("one of them")] += 1;
            if dice.below(8) == 0 {
                goes_on(&disk, kept);
            }
        }
    });
    // The commit under way was lost in some images and complete in others, or the images are not what they should be.
    assert!(found.iter().all(|&count| count > 100), "{found:?}");
}

/// After a power cut the store is as good as any: it takes more, and has it after the next one.
fn goes_on(disk: &Disk, before: Kept) {
    let (mut author, mut model) = (Author::default(), Model(before));
    disk.kill();
    for _ in 0..2 {
        let disk = disk.for_the_next();
        let mut tables = disk.tables();
        model.0.life = tables.begin_generation(1).expect("a life").life;
        author.begin(model.0.life);
        for verb in 0..12 {
            let change = author.change((verb, 200 + verb, 30));
            model.apply(&change);
            tables.commit(&[change]).expect("a commit");
        }
        disk.kill();
    }
    let kept = disk.for_the_next().tables().begin_generation(1).expect("a life");
    model.0.life = kept.life;
    assert_eq!(kept, model.0);
}

/// The power fails again while the store is being repaired.
#[test]
fn power_cut_during_the_repair() {
    let run = Run::new(7);
    let mut dice = Dice(7);
    let mut images = Vec::new();
    at_every_step(Vec::new(), &run.steps, |count, synced, since| {
        if since.len() > 2 && dice.below(8) == 0 {
            images.push((count, torn(synced, since, &mut dice)));
        }
    });
    for (count, image) in images {
        let (mut first, disk) = run.check(image.clone(), run.allowed(count), &count);
        first.life += 1;
        let allowed: Vec<Kept> = run.allowed(count).iter().cloned().chain([first]).collect();
        let steps = disk.record.lock().1.clone();
        at_every_step(image, &steps, |repair, synced, since| {
            run.check(torn(synced, since, &mut dice), &allowed, &(count, repair));
        });
    }
}

/// What the tests above would not see: that the images are such as a careless store does not survive.
#[test]
fn a_sync_that_does_nothing_is_noticed() {
    let mut run = Run::new(3);
    run.steps.retain(|step| !matches!(step, Step::Sync));
    let (images, mut dice) = (run.steps.len(), Dice(3));
    let wrong = (0..50).filter(|_| {
        let image = torn(&[], &run.steps[..images / 2 + dice.below(images / 2)], &mut dice);
        let disk: Arc<dyn StorageBackend> = Arc::new(Disk::holding(image));
        !Tables::open(&disk)
            .is_ok_and(|mut tables| tables.begin_generation(1).is_ok_and(|kept| kept.life == 4))
    });
    assert!(wrong.count() > 25);
}
