//! A chat server with a web page: names, rooms, history, and errors as answers. Copy it and change it.
//!
//! ```console
//! $ cargo run --example chat -- 127.0.0.1:3000
//! listening on http://127.0.0.1:3000
//! ```
//! Open that address in two browser windows. The page (`chat.html`) loads the official client from a content delivery
//! network. On a machine without internet access, give the address of your own copy of `socket.io.min.js`:
//!
//! ```console
//! $ cargo run --example chat -- 127.0.0.1:3000 http://192.168.1.10/socket.io.min.js
//! ```
//! Every Socket.IO client can join in:
//!
//! ```console
//! $ cargo run --bin client http://127.0.0.1:3000 emit enter '{"name":"Ada","room":"lobby"}' --ack
//! ```
//!
//! | a client emits | the acknowledgement | the other clients in the room get |
//! |---|---|---|
//! | `enter` `{"name": …, "room": …}` | `{"ok": true, "history": [...]}` | `entered` name |
//! | `say` text | `{"ok": true}` | `said` `{"name": …, "text": …}`; the sender gets it too |
//! | anything that is wrong | `{"ok": false, "error": …}` | |
//! | (it disconnects) | | `left` name |

use std::{
    collections::{HashMap, VecDeque},
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tinysio::{
    CloseReason,
    server::{Event, HandlerResult, Header, Response, Server, Socket, StartError},
};

/// The page; `{{client}}` stands for the address of the official client.
const PAGE: &str = include_str!("chat.html");

/// Where the page loads the official client from, unless the command line has another address.
const OFFICIAL_CLIENT: &str = "https://cdn.socket.io/4.8.1/socket.io.min.js";

/// Messages that are kept for each room.
const HISTORY: usize = 20;

/// Rooms that have a history. Clients choose the names of rooms, so their number needs a limit.
const ROOMS: usize = 1_000;

/// The largest size of a name, of a room's name and of a message, in bytes.
const TEXT_MAX: usize = 1_000;

/// The argument of `enter`. The server keeps it as the data of the socket.
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

/// The state that all handlers share. Handlers run on many threads, so the state is behind an `Arc` and a lock. The
/// lock is not held while something is sent.
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
    let client = std::env::args().nth(2).unwrap_or_else(|| OFFICIAL_CLIENT.into());
    let server = start(&address, &client)?;
    if let Some(address) = server.local_addr() {
        println!("listening on http://{address}");
    }
    server.wait();
    Ok(())
}

/// Starts the server on `address`. Its page loads the official client from the address `client`.
pub(crate) fn start(address: &str, client: &str) -> Result<Server, StartError> {
    let page = PAGE.replace("{{client}}", client);
    let chat = Arc::new(Chat::default());
    let (entering, saying) = (Arc::clone(&chat), chat);
    Server::builder()
        .namespace("/", |ns| {
            // To refuse clients, add a middleware: see `examples/auth.rs`.
            ns.on_connect(|socket| println!("{} connected", socket.id()));
            // Errors of the handler and of the library become an answer in one place.
            ns.on("enter", move |socket, event| answer(&event, enter(&entering, socket, &event)));
            ns.on("say", move |socket, event| answer(&event, say(&saying, socket, &event)));
            ns.on_disconnect(announce_departure);
        })
        // Plain HTTP on the same port. A page of the same origin needs no CORS.
        .route("/", move |_| {
            let response = Response::from_string(page.clone());
            match "Content-Type: text/html; charset=utf-8".parse::<Header>() {
                Ok(html) => response.with_header(html),
                Err(()) => response,
            }
        })
        .listen(address)
}

/// Acknowledges an event with the result of its handler. A client that did not ask for an acknowledgement gets none.
fn answer(event: &Event<'_>, result: Result<serde_json::Value, Box<dyn Error>>) -> HandlerResult {
    let mut answer = result.unwrap_or_else(|error| json!({ "error": error.to_string() }));
    answer["ok"] = answer.get("error").is_none().into();
    Ok(event.ack(answer)?)
}

/// The library's name of a room. Each socket's id is the name of a room too, with that socket in it. Without the
/// prefix, a client could choose the id of another client as the name of its room, and read that client's private
/// events.
fn library_room(room: &str) -> String {
    format!("room:{room}")
}

fn enter(chat: &Chat, socket: &Socket, event: &Event<'_>) -> Result<serde_json::Value, Box<dyn Error>> {
    let member: Member = event.arg(0)?;
    if member.name.is_empty() || member.name.len() > TEXT_MAX || member.room.len() > TEXT_MAX {
        return Err("the name must have 1 to 1,000 bytes".into());
    }
    if let Some(before) = socket.data::<Member>() {
        socket.leave(&library_room(&before.room));
    }
    socket.join(&library_room(&member.room));
    // `socket.to(room)` leaves out the sender. `socket.namespace().to(room)` does not.
    socket.to(&library_room(&member.room)).emit("entered", &member.name)?;
    let history = chat.history(&member.room);
    socket.set_data(member);
    Ok(json!({ "history": history }))
}

fn say(chat: &Chat, socket: &Socket, event: &Event<'_>) -> Result<serde_json::Value, Box<dyn Error>> {
    let text: String = event.arg(0)?;
    let member = socket.data::<Member>().ok_or("enter a room first")?;
    if text.len() > TEXT_MAX {
        return Err("the text is too long".into());
    }
    let said = Said { name: member.name.clone(), text };
    socket.namespace().to(&library_room(&member.room)).emit("said", &said)?;
    chat.remember(&member.room, said);
    Ok(json!({}))
}

/// The socket has left its rooms at this point. Its data is still there.
fn announce_departure(socket: &Socket, reason: CloseReason) {
    if let Some(member) = socket.data::<Member>() {
        // A server that is stopping sends nothing more; that is no error here.
        let _ = socket.to(&library_room(&member.room)).emit("left", &member.name);
    }
    println!("{} disconnected: {reason}", socket.id());
}
