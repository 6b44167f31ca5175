//! A run: everybody comes, the storm rages, peace, and the audit.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Failure,
    audit::{Kind, Ledger, Listener, ROOMS, Verdict},
    official::{Official, Plan, TRANSPORTS},
    ours::Crowd,
    random::Random,
    relay::Relay,
    serve::{KEPT_BYTES, Mutant},
    usage::{Usage, eventually},
    victim::{Recipe, Victim},
};

/// Of a hundred directions of connections, so many are left in peace by the relay.
const CALM: usize = 60;

/// How long all may take to be in their rooms, and at the end to have everything.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same for a server that errs: what it has lost does not come.
const LITTLE_PATIENCE: Duration = Duration::from_secs(2);

/// What one death, and one cut, may take at most, for the bound of the whole.
const PER_DEATH: Duration = Duration::from_secs(3);
const PER_CUT: Duration = Duration::from_millis(200);

/// The store's file: what is kept, and as much again three times, for what is thrown away and not yet used anew.
const FILE_MAX: u64 = 4 * KEPT_BYTES as u64;

/// Publishers of the official client.
const OFFICIAL_PUBLISHERS: usize = 2;

/// What is to happen.
#[derive(Clone, Copy)]
pub(crate) struct Storm {
    pub(crate) seed: u64,
    pub(crate) kills: u32,
    pub(crate) cuts: usize,
    pub(crate) store: bool,
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    pub(crate) official: bool,
    pub(crate) mutant: Option<Mutant>,
}

impl Default for Storm {
    fn default() -> Self {
        Self {
            seed: 0,
            kills: 200,
            cuts: 0,
            store: true,
            publishers: 4,
            subscribers: 8,
            official: true,
            mutant: None,
        }
    }
}

/// Everybody and everything of a run.
struct Scene {
    recipe: Recipe,
    life: u32,
    /// `None` while it is dead.
    victim: Option<Victim>,
    relay: Relay,
    ledger: Arc<Ledger>,
    crowd: Crowd,
    official: Option<Official>,
    /// How many join rooms before the first message.
    expected: usize,
    random: Random,
    terms: u32,
    cuts: usize,
    /// By then the storm is over, or it has failed.
    deadline: Instant,
}

impl Storm {
    /// Runs it, and prints a line. An error says that the harness could not go on; what was found is the verdict.
    pub(crate) fn rage(&self, what: &str) -> Result<Verdict, Failure> {
        let before = Usage::now()?;
        let begun = Instant::now();
        let folder = Folder::new()?;
        let mut scene = Scene::set(self, &folder.0)?;
        scene.gather()?;
        let kills = scene.storm(self)?;
        let verdict = scene.end(self)?;
        let (terms, cuts) = (scene.terms, scene.all_cuts());
        let store = scene.recipe.store.clone();
        let peak = scene.leave()?;
        let file = store.map_or(Ok(0), |path| check_file(&path))?;
        eventually("no thread and no file is left", Duration::from_secs(10), || {
            Usage::now().is_ok_and(|now| now.threads <= before.threads && now.files <= before.files)
        })?;
        println!(
            "{what}: {kills} kills and {terms} SIGTERM, {cuts} cuts, {verdict}; server {peak} KiB, \
             file {} KiB, {:.0} s (seed {})",
            file / 1024,
            begun.elapsed().as_secs_f32(),
            self.seed
        );
        Ok(verdict)
    }
}

impl Scene {
    fn set(storm: &Storm, folder: &Path) -> Result<Self, Failure> {
        let store = storm.store.then(|| folder.join("sessions"));
        let recipe = Recipe { port: free_port()?, store, mutant: storm.mutant };
        let mut victim = recipe.start(1)?;
        victim.wait_up()?;
        let relay = Relay::start(recipe.port, storm.seed, CALM)?;
        let officials = if storm.official { OFFICIAL_PUBLISHERS } else { 0 };
        let publishers = storm.publishers + officials;
        let wanderers = storm.subscribers / 4;
        let settled = storm.subscribers - wanderers;
        let listeners = cast(storm, publishers);
        let ledger = Arc::new(Ledger::new(storm.publishers, officials, listeners));

        let mut crowd = Crowd::new(&ledger, relay.port(), storm.seed);
        for publisher in 0..storm.publishers {
            crowd.publish(publisher, publisher)?;
        }
        for number in 0..storm.subscribers {
            match number < settled {
                true => crowd.subscribe(publishers + number, &rooms_of(number))?,
                false => crowd.wander(publishers + number)?,
            }
        }
        let mut plan = Plan::default();
        for publisher in storm.publishers..publishers {
            plan.publish(publisher, publisher);
        }
        let subscribers = if storm.official { TRANSPORTS.len() } else { 0 };
        for number in 0..subscribers {
            plan.subscribe(publishers + storm.subscribers + number, &rooms_of(number));
        }
        let official = match storm.official {
            true => Some(Official::start(&plan, &ledger, relay.port(), storm.seed)?),
            false => None,
        };
        Ok(Self {
            recipe,
            life: 1,
            victim: Some(victim),
            relay,
            ledger,
            crowd,
            official,
            expected: settled + subscribers,
            random: Random::new(storm.seed, 0),
            terms: 0,
            cuts: 0,
            deadline: Instant::now()
                + Duration::from_secs(60)
                + PER_DEATH * storm.kills
                + PER_CUT * storm.cuts as u32,
        })
    }

    /// Everybody is in its rooms, under a network that cuts, and the first message is said.
    fn gather(&mut self) -> Result<(), Failure> {
        eventually("all are in their rooms", PATIENCE, || {
            self.crowd.joined() + self.official.as_ref().map_or(0, Official::joined) >= self.expected
        })?;
        self.crowd.begin();
        self.official.as_mut().map_or(Ok(()), |official| official.tell("publish"))
    }

    /// Kills and cuts, so many as are wanted; how many died by `kill -9`.
    fn storm(&mut self, storm: &Storm) -> Result<u32, Failure> {
        let mut deaths = 0;
        while deaths < storm.kills || self.all_cuts() < storm.cuts {
            if Instant::now() > self.deadline {
                return Err(format!("the storm takes too long, after {deaths} kills").into());
            }
            // Sometimes while everybody is still coming back.
            let short = self.random.percent(25);
            self.pause(if short { 150 } else { 1_000 });
            if self.random.percent(if storm.kills == 0 { 50 } else { 15 }) {
                self.cuts += self.relay.cut_all();
            }
            if deaths < storm.kills {
                self.kill()?;
                deaths += 1;
                self.pause(200);
                self.start()?;
                if deaths < storm.kills && self.random.percent(15) {
                    // While it reads back what there was.
                    self.pause(40);
                    self.kill()?;
                    deaths += 1;
                    self.start()?;
                }
                self.victim.as_mut().map_or(Ok(()), Victim::wait_up)?;
            }
        }
        Ok(deaths - self.terms)
    }

    fn all_cuts(&self) -> usize {
        self.cuts + self.relay.counts().0
    }

    fn pause(&mut self, at_most: usize) {
        thread::sleep(Duration::from_millis(self.random.below(at_most) as u64));
    }

    fn kill(&mut self) -> Result<(), Failure> {
        let Some(mut victim) = self.victim.take() else { return Ok(()) };
        self.ledger.death();
        if self.random.percent(10) {
            // One that has not said that it is there has nobody yet who listens to SIGTERM.
            victim.wait_up()?;
            self.terms += 1;
            return victim.stop();
        }
        victim.kill()
    }

    fn start(&mut self) -> Result<(), Failure> {
        self.life += 1;
        self.victim = Some(self.recipe.start(self.life)?);
        Ok(())
    }

    /// No more cuts and no more messages; what is due has time to come.
    fn end(&mut self, storm: &Storm) -> Result<Verdict, Failure> {
        self.relay.have_mercy();
        self.crowd.hush()?;
        if let Some(official) = &mut self.official {
            official.tell("hush")?;
        }
        let patience = if storm.mutant.is_some() { LITTLE_PATIENCE } else { PATIENCE };
        let deadline = Instant::now() + patience;
        while self.ledger.unsure() > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        let last_tick = self.ledger.last_tick();
        loop {
            let verdict = self.ledger.check(last_tick);
            if verdict.count(Kind::Lost) == 0 || Instant::now() > deadline {
                return Ok(verdict);
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Everybody goes, the server last; its greatest memory in KiB.
    fn leave(self) -> Result<usize, Failure> {
        let peak = self.victim.as_ref().map_or(Ok(0), Victim::check_memory)?;
        self.official.map_or(Ok(()), Official::leave)?;
        drop(self.crowd);
        self.victim.map_or(Ok(()), Victim::stop)?;
        self.relay.stop();
        Ok(peak)
    }
}

/// # Errors
/// The store's file is too large, or not the only one.
fn check_file(path: &Path) -> Result<u64, Failure> {
    let size = fs::metadata(path)?.len();
    if size > FILE_MAX {
        return Err(format!("the store's file has {size} bytes, above its bound of {FILE_MAX}").into());
    }
    let others = fs::read_dir(path.parent().ok_or("no folder")?)?.count() - 1;
    if others > 0 {
        return Err("a store was given up, and set aside".into());
    }
    Ok(size)
}

/// The listeners: publishers, settled subscribers, those who wander, official subscribers.
fn cast(storm: &Storm, publishers: usize) -> Vec<Listener> {
    let settled = storm.subscribers - storm.subscribers / 4;
    let name = |number: usize| match number {
        _ if number < storm.publishers => format!("publisher {number}"),
        _ if number < publishers => format!("official publisher {number}"),
        _ if number < publishers + settled => format!("subscriber {number}"),
        _ if number < publishers + storm.subscribers => format!("wanderer {number}"),
        _ => {
            format!("official subscriber {number} ({})", TRANSPORTS[number - publishers - storm.subscribers])
        }
    };
    let ours = (0..storm.subscribers).map(|number| match number < settled {
        true => Listener::subscriber(name(publishers + number), &rooms_of(number)),
        false => Listener::wanderer(name(publishers + number)),
    });
    let officials = 0..if storm.official { TRANSPORTS.len() } else { 0 };
    let officials = officials
        .map(|number| Listener::subscriber(name(publishers + storm.subscribers + number), &rooms_of(number)));
    let publishers = (0..publishers).map(|number| Listener::publisher(name(number), number));
    publishers.chain(ours).chain(officials).collect()
}

/// One, two, … all rooms.
fn rooms_of(number: usize) -> Vec<usize> {
    (0..=number % ROOMS).map(|more| (number + more) % ROOMS).collect()
}

/// A port that no outgoing connection gets while the server is dead: below the system's own choices.
fn free_port() -> Result<u16, Failure> {
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let free = (first..first + 500).find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    Ok(free.ok_or("no port is free")?)
}

/// A folder of the run, gone after it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("tinysio-crash-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is in the system's folder for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}
