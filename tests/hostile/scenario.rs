//! An attack, repeated, and the three questions.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

use crate::{
    control_client::{SERVED_WITHIN, watch},
    server::{Kind, Report, Subject, Usage},
    support::{Client, PATIENCE, Transport, eventually},
};

/// How much more memory than after the first round the process may have after the last one: what an allocator needs
/// for its own order. A leak of what one round brings is several times this.
const TOLERANCE_KIB: usize = 3 << 10;

/// How much memory the process may have needed at any moment beyond what it had at rest: a message of 1 MB is there
/// as it came, as text and as an answer, and each transport's rows bring a few of them.
const PEAK_KIB: usize = 24 << 10;

/// Threads that served connections may rest for a while, each with a file of its own to be woken by. One that has not
/// let go of its connection is told by the socket.
const RESTING: usize = 16;

/// The control clients' transports.
const TRANSPORTS: [Transport; 2] = [Transport::WebSocket, Transport::Polling];

/// How a scenario is held. The attack is made `rounds` times, the first time to warm up.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    kind: Kind,
    rounds: usize,
    reasons: Vec<&'static str>,
    any_reasons: bool,
    errors: bool,
    peak: usize,
    patience: Duration,
}

/// A scenario of a server as it is by default.
pub(crate) fn scenario() -> Scenario {
    scenario_of(Kind::Plain)
}

/// A scenario of a server of this kind.
pub(crate) fn scenario_of(kind: Kind) -> Scenario {
    Scenario {
        kind,
        rounds: 2,
        reasons: Vec::new(),
        any_reasons: false,
        errors: false,
        peak: PEAK_KIB,
        patience: PATIENCE,
    }
}

/// Says that all is over also when a test fails, because the control clients' threads are waited for then.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

impl Scenario {
    /// Why the attacker's sockets end in each round, in the words of the server's handlers. Default: it has none.
    pub(crate) fn ends(mut self, reasons: &[&'static str]) -> Self {
        self.reasons = reasons.to_vec();
        self
    }

    /// Its sockets may end for any reason: they are many, or the attacker lets go of them in its own way.
    pub(crate) fn ends_anyhow(mut self) -> Self {
        self.any_reasons = true;
        self
    }

    pub(crate) fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    /// It may take this long until everything has come back.
    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// It may have needed this many KiB at a time.
    pub(crate) fn peak(mut self, kib: usize) -> Self {
        self.peak = kib;
        self
    }

    /// The log may have errors: the attack is on the machine.
    pub(crate) fn may_log_errors(mut self) -> Self {
        self.errors = true;
        self
    }

    /// Attacks; the attack asserts that its answers are the documented ones.
    pub(crate) fn run(self, attack: impl Fn(SocketAddr)) {
        self.run_with(|subject| attack(subject.addr));
    }

    /// The same for an attack that looks at the server meanwhile.
    pub(crate) fn run_with(self, mut attack: impl FnMut(&mut Subject)) {
        let mut subject = Subject::start(self.kind);
        let (over, ready) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let end = Over(&over);
            let control_clients =
                TRANSPORTS.map(|transport| (transport, watch(scope, subject.addr, transport, &over, &ready)));
            eventually("the control clients have what they need", || ready.load(SeqCst) == TRANSPORTS.len());
            let mut before = subject.usage();
            let peak = before.resident + self.peak;
            for round in 0..self.rounds {
                attack(&mut subject);
                let report = self.settled(&mut subject);
                assert_eq!(report.panics, 0, "a thread of the server panicked");
                assert_eq!(report.unfit, 0, "the log has a control character, or a secret");
                assert!(self.errors || report.errors == 0, "the log has errors");
                if round == 0 {
                    // What the first round has made the allocator and the tables grow to is there for every later one.
                    before.resident = before.resident.max(subject.usage().resident);
                }
                self.comes_back(&subject, &before, round);
            }
            drop(end);
            let needed = subject.usage().peak;
            assert!(needed <= peak, "{needed} KiB were needed at a time, from {before:?} on");
            for (transport, control_client) in control_clients {
                let account = control_client.join().expect("the control client was served");
                assert!(account.echoes > 0, "the control client on {transport:?} had no turn");
                assert!(
                    account.longest < SERVED_WITHIN,
                    "the control client on {transport:?} waited: {account:?}"
                );
            }
        });
    }

    /// The attacker's sessions are gone, and their handlers have been told why.
    fn settled(&self, subject: &mut Subject) -> Report {
        let deadline = Instant::now() + self.patience;
        let mut told: Vec<String> = Vec::new();
        loop {
            let mut report = subject.report();
            told.append(&mut report.reasons);
            let all_told = self.any_reasons || told.len() >= self.reasons.len();
            if report.sessions == TRANSPORTS.len() && all_told {
                told.sort();
                let mut expected = self.reasons.to_vec();
                expected.sort_unstable();
                assert!(self.any_reasons || told == expected, "ended with {told:?}, not with {expected:?}");
                return report;
            }
            assert!(
                Instant::now() < deadline,
                "sessions are left: {report:?}, {told:?} of {:?}",
                self.reasons
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn comes_back(&self, subject: &Subject, before: &Usage, round: usize) {
        let deadline = Instant::now() + self.patience;
        loop {
            let now = subject.usage();
            let is_back = now.sockets <= before.sockets
                && now.threads <= before.threads + RESTING
                && now.files <= before.files + RESTING
                && now.resident <= before.resident + TOLERANCE_KIB;
            if is_back {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "does not come back after round {round}: {before:?}, now {now:?}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Leaves in good order: on polling, with a GET that the server may answer.
pub(crate) fn goodbye(mut client: Client) {
    client.ask();
    client.leave();
    client.end_poll();
}

/// What a scenario must notice, and does.
mod notices {
    use super::*;
    use crate::support::{Http, eventually};

    fn says(event: &'static str) {
        scenario().ends_anyhow().patience(Duration::from_secs(1)).run(|addr| {
            let mut client = Client::connected(addr, Transport::WebSocket);
            client.send(&format!(r#"42["{event}"]"#));
            client.send(r#"420["echo"]"#);
            client.expect("430[]");
            goodbye(client);
        });
    }

    #[test]
    #[should_panic(expected = "does not come back")]
    fn memory_that_is_kept() {
        says("leak");
    }

    #[test]
    #[should_panic(expected = "a thread of the server panicked")]
    fn a_panic() {
        says("panic");
    }

    #[test]
    #[should_panic(expected = "does not come back")]
    fn a_connection_that_is_kept() {
        let mut kept = Vec::new();
        scenario().patience(Duration::from_secs(1)).run_with(|subject| {
            let before = subject.usage().sockets;
            kept.push(Http::connect(subject.addr));
            eventually("the server has accepted it", || subject.usage().sockets > before);
        });
    }

    #[test]
    #[should_panic(expected = "sessions are left")]
    fn a_session_that_is_kept() {
        let mut kept = Vec::new();
        let scenario = scenario().patience(Duration::from_secs(1));
        scenario.run_with(|subject| kept.push(Client::connected(subject.addr, Transport::WebSocket)));
    }

    #[test]
    #[should_panic(expected = "ended with")]
    fn another_reason() {
        scenario().ends(&["parse error"]).run(|addr| goodbye(Client::connected(addr, Transport::WebSocket)));
    }
}
