//! A client that does what clients do, all the time of an attack, and measures how long it is kept waiting.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread::{Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use crate::support::{Client, Transport};

/// How long an echo may take, attack or not.
pub(crate) const SERVED_WITHIN: Duration = Duration::from_secs(1);

/// What it went through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub(crate) echoes: usize,
    pub(crate) longest: Duration,
}

/// Connects, and exchanges echoes on a thread until `over`; counts itself as `settled` when it has all it needs.
pub(crate) fn watch<'scope>(
    scope: &'scope Scope<'scope, '_>,
    addr: SocketAddr,
    transport: Transport,
    over: &'scope AtomicBool,
    settled: &'scope AtomicUsize,
) -> ScopedJoinHandle<'scope, Account> {
    let mut client = Client::connected(addr, transport);
    client.send(r#"420["control"]"#);
    client.expect("430[]");
    scope.spawn(move || {
        let mut account = Account { echoes: 0, longest: Duration::ZERO };
        while !over.load(SeqCst) {
            let asked = Instant::now();
            // On polling, the answer comes with a GET that waits for it.
            client.ask();
            client.send(&format!(r#"42{}["echo","still there?"]"#, account.echoes));
            client.expect(&format!(r#"43{}["still there?"]"#, account.echoes));
            account.longest = account.longest.max(asked.elapsed());
            account.echoes += 1;
            if account.echoes == 3 {
                settled.fetch_add(1, SeqCst);
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        client.leave();
        account
    })
}
