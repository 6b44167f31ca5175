//! What a client of our library notes in the ledger.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;
use tinysio::{
    Bytes,
    client::{Event, Socket},
};

use crate::{
    Failure,
    audit::{Kind, Ledger, Sender},
    serve::Body,
};

/// Sets the handlers of a listener; `on_new` is called for the first session, and again when one was not recovered.
pub(crate) fn listen(
    socket: &Socket,
    ledger: &Arc<Ledger>,
    listener: usize,
    on_new: impl Fn(&Socket) + Send + Sync + 'static,
) {
    // `None` before the first session.
    let lost = Arc::new(Mutex::new(None::<Instant>));
    let (its, since) = (Arc::clone(ledger), Arc::clone(&lost));
    socket.on_disconnect(move |_, _| *since.lock() = Some(Instant::now()));
    socket.on_connect(move |socket| {
        let recovered = recovered(socket);
        if let Some(lost) = *lost.lock() {
            its.comes_back(listener, recovered, lost.elapsed());
        }
        if !recovered {
            on_new(socket);
        }
    });
    for name in ["news", "note"] {
        let its = Arc::clone(ledger);
        socket.on(name, move |_, event| hear(&its, listener, &event));
    }
    let its = Arc::clone(ledger);
    socket.on("tick", move |_, event| -> Result<(), Failure> {
        let (life, number) = event.parse()?;
        its.hears(listener, Sender::Ticker(life), number);
        Ok(())
    });
}

/// Whether this session is the one of before.
fn recovered(socket: &Socket) -> bool {
    socket.recovered()
}

fn hear(ledger: &Ledger, listener: usize, event: &Event<'_>) -> Result<(), Failure> {
    let (_, publisher, number): (String, usize, u64) = event.parse()?;
    let length = match Body::is_binary(number) {
        true => event.arg::<Bytes>(3)?.len(),
        false => event.arg::<String>(3)?.len(),
    };
    // The offset is the library's business.
    let count = event.args().len();
    if length != Body::len(number) || count != 4 {
        let text = format!("{number} of publisher {publisher} has {count} arguments, {length} bytes");
        ledger.notice(Kind::Strange, text);
    }
    ledger.hears(listener, Sender::Publisher(publisher), number);
    Ok(())
}
