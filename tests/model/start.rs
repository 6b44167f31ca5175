//! Threads that do not start: a start that fails leaves nothing behind.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{MOODY, all_over, check, eventually};
use crate::{
    server::{Change, Durability, Kept, MemoryStore, Server, StartError, Store, StoreError},
    sys::{
        net::TcpStream,
        sim::{self, Faults},
        thread,
    },
};

/// A store that is open until it is dropped.
struct Tracked {
    kept: MemoryStore,
    open: Arc<AtomicUsize>,
}

impl Store for Tracked {
    fn open(&mut self) -> Result<Kept, StoreError> {
        assert_eq!(self.open.fetch_add(1, SeqCst), 0, "the store is open already");
        self.kept.open()
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.kept.commit(changes)
    }

    fn abandon(&mut self) {
        panic!("no commit fails");
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // To close takes a while, as with a file.
        thread::sleep(Duration::from_millis(500));
        self.open.fetch_sub(1, SeqCst);
    }
}

fn start(kept: &MemoryStore, open: &Arc<AtomicUsize>) -> Result<Server, StartError> {
    let store = Tracked { kept: kept.clone(), open: Arc::clone(open) };
    Server::builder().store(store, Durability::EveryPacket).namespace("/", |_| {}).listen("127.0.0.1:1")
}

/// Every thread of the server in turn is the first that does not start.
#[test]
fn threads_that_do_not_start() {
    check("thread", || {
        let (kept, open) = (MemoryStore::new(), Arc::default());
        // About half of the starts fail.
        sim::set_faults(Faults { thread: 80, ..MOODY });
        let started = start(&kept, &open);
        sim::set_faults(MOODY);
        match started {
            Ok(server) => all_over(server),
            Err(StartError::System(error)) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(open.load(SeqCst), 0, "the store is still open");
        // Nothing holds the handle of a thread that has done its last step.
        eventually("no thread is left", || sim::threads() == 1);
        assert!(TcpStream::connect(()).is_err(), "somebody still listens");
        all_over(start(&kept, &open).expect("the next start finds everything free"));
    });
}
