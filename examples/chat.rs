//! A chat server of one's own: names, rooms, history, errors, a page for HTTP. Copy it and change it.
//!
//! ```console
//! $ cargo run --example chat -- 127.0.0.1:3000
//! $ cargo run --bin client http://127.0.0.1:3000 emit enter '{"name":"Ada","room":"lobby"}' --ack
//! ```
//!
//! | event | answer (acknowledgement) | others in the room get |
//! |---|---|---|
//! | `enter` `{"name": …, "room": …}` | `{"ok": true, "history": [...]}` | `entered` name |
//! | `say` text | `{"ok": true}` | `said` `{"name": …, "text": …}`, also the sender |
//! | anything wrong | `{"ok": false, "error": …}` | |
//! | (the end of the connection) | | `left` name |

use std::{
    collections::{HashMap, VecDeque},
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tinysio::{
    CloseReason,
    server::{Event, HandlerResult, Header, Response, Server, Socket},
};

/// Messages that a room remembers.
const HISTORY: usize = 20;

/// Rooms that have a history. Clients choose the names, so there must be a limit.
const ROOMS: usize = 1_000;

/// Bytes of a name, of a room's name and of a message.
const TEXT_MAX: usize = 1_000;

/// What a client sends with `enter`, and what the server keeps with its socket.
#[derive(Debug, Clone, Deserialize)]
struct Member {
    name: String,
    room: String,
}

#[derive(Debug, Clone, Serialize)]
struct Said {
    name: String,
    text: String,
}

/// What all handlers share. They run on many threads, so it is behind an `Arc` and a lock; no lock is held while
/// something is sent.
#[derive(Debug, Default)]
struct Chat {
    history: Mutex<HashMap<String, VecDeque<Said>>>,
}

impl Chat {
    fn history(&self, room: &str) -> Vec<Said> {
        let rooms = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.get(room).map(|messages| messages.iter().cloned().collect()).unwrap_or_default()
    }

    fn remember(&self, room: &str, said: Said) {
        let mut rooms = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if rooms.len() >= ROOMS && !rooms.contains_key(room) {
            return;
        }
        let messages = rooms.entry(room.to_owned()).or_default();
        if messages.len() == HISTORY {
            messages.pop_front();
        }
        messages.push_back(said);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let chat = Arc::new(Chat::default());
    let (entering, saying) = (Arc::clone(&chat), chat);
    let server = Server::builder()
        .namespace("/", |ns| {
            // A client is refused here, before it is connected: `ns.middleware(|socket| …)` sees `socket.auth()`.
            ns.on_connect(|socket| println!("{} connected", socket.id()));
            // The handler's own errors and those of the library become an answer, in one place.
            ns.on("enter", move |socket, event| answer(&event, enter(&entering, socket, &event)));
            ns.on("say", move |socket, event| answer(&event, say(&saying, socket, &event)));
            ns.on_disconnect(gone);
        })
        // Plain HTTP beside Socket.IO, for a browser or a load balancer.
        .route("/", |_| {
            let page = Response::from_string("<h1>The chat is running.</h1>");
            match "Content-Type: text/html".parse::<Header>() {
                Ok(html) => page.with_header(html),
                Err(()) => page,
            }
        })
        .listen(address)?;
    if let Some(address) = server.local_addr() {
        println!("listening on http://{address}");
    }
    server.wait();
    Ok(())
}

/// Acknowledges an event with what its handler came to. A client that did not ask for an acknowledgement gets none.
fn answer(event: &Event<'_>, result: Result<serde_json::Value, Box<dyn Error>>) -> HandlerResult {
    let mut answer = result.unwrap_or_else(|error| json!({ "error": error.to_string() }));
    answer["ok"] = answer.get("error").is_none().into();
    Ok(event.ack(answer)?)
}

/// The library's name of a room. A client must not name a room after another client's id, because what is sent to one
/// client only goes to the room of that name; the prefix keeps the two apart.
fn address(room: &str) -> String {
    format!("room:{room}")
}

fn enter(chat: &Chat, socket: &Socket, event: &Event<'_>) -> Result<serde_json::Value, Box<dyn Error>> {
    let member: Member = event.arg(0)?;
    if member.name.is_empty() || member.name.len() > TEXT_MAX || member.room.len() > TEXT_MAX {
        return Err("a name of 1 to 1,000 bytes, please".into());
    }
    if let Some(before) = socket.data::<Member>() {
        socket.leave(&address(&before.room));
    }
    socket.join(&address(&member.room));
    // `to` leaves out the sender; `socket.namespace().to(room)` does not.
    socket.to(&address(&member.room)).emit("entered", &member.name)?;
    let history = chat.history(&member.room);
    socket.set_data(member);
    Ok(json!({ "history": history }))
}

fn say(chat: &Chat, socket: &Socket, event: &Event<'_>) -> Result<serde_json::Value, Box<dyn Error>> {
    let text: String = event.arg(0)?;
    let member = socket.data::<Member>().ok_or("enter a room first")?;
    if text.len() > TEXT_MAX {
        return Err("that is too long".into());
    }
    let said = Said { name: member.name.clone(), text };
    socket.namespace().to(&address(&member.room)).emit("said", &said)?;
    chat.remember(&member.room, said);
    Ok(json!({}))
}

/// The socket has left its rooms by now, and its data are still there.
fn gone(socket: &Socket, reason: CloseReason) {
    if let Some(member) = socket.data::<Member>() {
        // Nobody may be left to hear it.
        let _ = socket.to(&address(&member.room)).emit("left", &member.name);
    }
    println!("{} disconnected: {reason}", socket.id());
}
