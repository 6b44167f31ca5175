//! Events for tests and tools (`--test-events`): `echo`, `ask`, `kick`, and the namespace `/custom`.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::app::App;
use crate::{
    proto::socket::OwnedArgs,
    server::{AckError, EmitError, Event, NamespaceBuilder, Socket},
};

/// The namespace that returns the payload of the CONNECT.
pub(super) const NAMESPACE: &str = "/custom";

/// How long `ask` waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn install(app: &Arc<App>, ns: &mut NamespaceBuilder) {
    for (name, handler) in [("echo", echo as Handler), ("ask", ask), ("kick", kick)] {
        let app = Arc::clone(app);
        ns.on(name, move |socket, event| match app.admit(socket, &event) {
            Some(_) => handler(socket, event),
            None => event.ack(()),
        });
    }
}

pub(super) fn install_namespace(app: &Arc<App>, ns: &mut NamespaceBuilder) {
    app.require_token(ns);
    ns.on_connect(|socket| match socket.auth() {
        Some(auth) => socket.emit("auth", auth),
        None => socket.emit("auth", json!({})),
    });
}

type Handler = fn(&Socket, Event<'_>) -> Result<(), EmitError>;

fn echo(socket: &Socket, event: Event<'_>) -> Result<(), EmitError> {
    if event.wants_ack() { event.ack(event.args()) } else { socket.emit("echo_back", event.args()) }
}

/// Sends the question to its sender; the answer arrives as `answered`, followed by the acknowledgement.
fn ask(socket: &Socket, event: Event<'_>) -> Result<(), EmitError> {
    let ack = event.take_ack();
    let answered = move |socket: &Socket, answer: Result<OwnedArgs, AckError>| {
        let told = match answer {
            Ok(args) => socket.emit("answered", &args),
            Err(_) => socket.emit("ask_timeout", ()),
        };
        let acked = told.and_then(|()| ack.map_or(Ok(()), |ack| ack.send(())));
        if let Err(error) = acked {
            log::debug!(client = socket.id(); "gone before its answer: {error}");
        }
    };
    match socket.emit_with_callback("question", event.args(), PATIENCE, answered) {
        Err(AckError::Emit(error)) => Err(error),
        Err(error) => {
            log::warn!(client = socket.id(); "cannot ask: {error}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn kick(socket: &Socket, event: Event<'_>) -> Result<(), EmitError> {
    let acked = event.ack(());
    socket.disconnect(false);
    acked
}
