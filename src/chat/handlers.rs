//! The six events of the chat: check, process, answer, acknowledge.

use std::{fmt, sync::Arc};

use super::{
    Refusal,
    app::{App, Client, address_of},
    events,
    payload::{
        self, BroadcastMessage, CustomResponse, MessageReceived, RoomBroadcast, RoomJoined, RoomLeft,
        ServerStatus,
    },
    refusal::{GET_STATUS, Quote},
    rules,
    text::{Excerpt, first_characters, is_falsy},
};
use crate::{
    proto::socket::{Arg, EncodeError},
    server::{EmitError, Event, NamespaceBuilder, Socket},
};

/// Characters of a message that the log shows at `debug`.
const LOGGED: usize = 100;

/// One event of one client during its processing.
struct Turn<'a> {
    app: &'a App,
    socket: &'a Socket,
    client: &'a Client,
    /// The first argument; others are ignored.
    data: Option<Arg<'a>>,
}

/// Why an event has no regular answer.
enum Trouble {
    Refused(Refusal),
    /// Its answer cannot be encoded.
    Unsendable(EncodeError),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<EncodeError> for Trouble {
    fn from(error: EncodeError) -> Self {
        Self::Unsendable(error)
    }
}

type Handler = fn(&Turn<'_>) -> Result<(), Trouble>;

/// Each event with its handler, and the text for a failed answer.
const HANDLERS: [(&str, Handler, &str); 6] = [
    (events::MESSAGE, message, "process message"),
    (events::CUSTOM_EVENT, custom_event, "process custom event"),
    (events::JOIN_ROOM, join_room, "join room"),
    (events::LEAVE_ROOM, leave_room, "leave room"),
    (events::ROOM_MESSAGE, room_message, "send room message"),
    (events::GET_SERVER_STATUS, get_server_status, GET_STATUS),
];

pub(super) fn install(app: &Arc<App>, ns: &mut NamespaceBuilder) {
    for (name, handler, doing) in HANDLERS {
        let app = Arc::clone(app);
        ns.on(name, move |socket, event| app.serve(socket, event, handler, doing));
    }
    let too_fast = Arc::clone(app);
    ns.on_rate_limited(move |socket, event| too_fast.too_fast(socket, &event));
    let app = Arc::clone(app);
    // Counted but not acknowledged, as by the official server: the sender must not believe that it was handled.
    ns.on_unhandled(move |socket, event| {
        app.admit(socket, &event);
        log::debug!(client = socket.id(); "no handler for the event {:?}", event.name());
    });
}

impl App {
    fn serve(
        &self,
        socket: &Socket,
        event: Event<'_>,
        handler: Handler,
        doing: &'static str,
    ) -> Result<(), EmitError> {
        let Some(client) = self.admit(socket, &event) else { return event.ack(()) };
        let turn = Turn { app: self, socket, client: &client, data: event.raw(0) };
        let refusal = match handler(&turn) {
            Ok(()) => None,
            Err(Trouble::Refused(refusal)) => Some(refusal),
            Err(Trouble::Unsendable(error)) => {
                log::warn!(client = socket.id(); "{}: {error}", event.name());
                Some(Refusal::Failed(doing))
            }
        };
        if let Some(refusal) = refusal {
            self.refuse(socket, event.name(), &refusal, original_data(&refusal, turn.data));
        }
        event.ack(())
    }

    /// Counts an event and finds its client, or answers with an `error`.
    pub(super) fn admit(&self, socket: &Socket, event: &Event<'_>) -> Option<Arc<Client>> {
        self.counters.events_in.add_one();
        let client = socket.data::<Client>();
        if client.is_none() {
            self.refuse(socket, event.name(), &Refusal::NotRegistered, None);
        }
        client
    }

    /// An event that exceeded the rate.
    fn too_fast(&self, socket: &Socket, event: &Event<'_>) -> Result<(), EmitError> {
        self.counters.events_in.add_one();
        self.counters.rate_limited.add_one();
        self.refuse(socket, event.name(), &Refusal::RateLimited, None);
        event.ack(())
    }
}

/// The data that an `error` quotes.
fn original_data<'a>(refusal: &Refusal, data: Option<Arg<'a>>) -> Option<&'a str> {
    let quoted = match refusal.quote() {
        Quote::Never => None,
        Quote::IfTruthy => data.filter(|data| !is_falsy(data.json())),
        Quote::Always => data,
    };
    quoted.map(|data| first_characters(data.json(), payload::ORIGINAL_DATA_MAX))
}

/// Logs the event, and its content only at `debug`: logs are kept and read by third parties.
fn log_text(socket: &Socket, what: &dyn fmt::Display, data: Arg<'_>) {
    log::info!(client = socket.id(); "{what}, {} bytes", data.json().len());
    log::debug!(client = socket.id(); "{what}: {}", Excerpt(data.json(), LOGGED));
}

fn message(turn: &Turn<'_>) -> Result<(), Trouble> {
    let Turn { app, socket, .. } = turn;
    let message = rules::message(turn.data, &app.options.limits)?;
    let (number, id) = {
        let state = turn.client.state.lock();
        (state.messages + 1, state.ids_from + state.messages + 1)
    };
    let timestamp = payload::now();
    let received = MessageReceived {
        sender: socket.id().into(),
        message,
        timestamp,
        message_id: format!("{}_{id}", socket.id()).into(),
    };
    app.reply(socket, events::MESSAGE_RECEIVED, &received)?;
    turn.client.state.lock().messages = number;
    app.counters.messages.add_one();
    log_text(socket, &"message", message);
    let broadcast = BroadcastMessage {
        sender: socket.id().into(),
        message,
        timestamp,
        total_clients: socket.namespace().len(),
    };
    Ok(app.tell(socket, socket.broadcast(), events::BROADCAST_MESSAGE, &broadcast)?)
}

fn custom_event(turn: &Turn<'_>) -> Result<(), Trouble> {
    let Turn { app, socket, .. } = turn;
    let (data, data_size) = rules::custom_event(turn.data, &app.options.limits)?;
    log_text(socket, &"custom event", data);
    let response = CustomResponse {
        status: "received".into(),
        original_data: data,
        processed_by: "server".into(),
        client_id: socket.id().into(),
        timestamp: payload::now(),
        data_size,
    };
    Ok(app.reply(socket, events::CUSTOM_RESPONSE, &response)?)
}

fn join_room(turn: &Turn<'_>) -> Result<(), Trouble> {
    let Turn { app, socket, .. } = turn;
    let room = rules::join(turn.data, &app.options.limits)?;
    if !enter(turn, &room)? {
        let still = RoomJoined {
            room: room.into(),
            status: "already_in_room".into(),
            room_members: None,
            timestamp: None,
        };
        return Ok(app.reply(socket, events::ROOM_JOINED, &still)?);
    }
    socket.join(&address_of(&room));
    let room_members = app.members.join(&room);
    log::info!(client = socket.id(); "joined '{room}', members: {room_members}");
    let timestamp = payload::now();
    let joined = RoomJoined {
        room: room.as_str().into(),
        status: "joined".into(),
        room_members: Some(room_members),
        timestamp: Some(timestamp),
    };
    app.reply(socket, events::ROOM_JOINED, &joined)?;
    Ok(app.tell_joined(socket, &room, room_members, timestamp)?)
}

/// Records that the client is in the room. `false`: it already was.
fn enter(turn: &Turn<'_>, room: &str) -> Result<bool, Refusal> {
    let limit = turn.app.options.limits.rooms;
    let mut state = turn.client.state.lock();
    if state.rooms.contains(room) {
        return Ok(false);
    }
    if state.rooms.len() >= limit {
        return Err(Refusal::TooManyRooms(limit));
    }
    Ok(state.rooms.insert(room.to_owned()))
}

fn leave_room(turn: &Turn<'_>) -> Result<(), Trouble> {
    let Turn { app, socket, .. } = turn;
    let room = rules::leave(turn.data, &app.options.limits)?;
    if !turn.client.state.lock().rooms.remove(&room) {
        let never = RoomLeft {
            room: room.into(),
            status: "not_in_room".into(),
            remaining_members: None,
            timestamp: None,
        };
        return Ok(app.reply(socket, events::ROOM_LEFT, &never)?);
    }
    socket.leave(&address_of(&room));
    let remaining_members = app.members.leave(&room);
    log::info!(client = socket.id(); "left '{room}', members: {remaining_members}");
    let left = RoomLeft {
        room: room.as_str().into(),
        status: "left".into(),
        remaining_members: Some(remaining_members),
        timestamp: Some(payload::now()),
    };
    app.reply(socket, events::ROOM_LEFT, &left)?;
    app.tell_left(socket, &room, remaining_members);
    Ok(())
}

fn room_message(turn: &Turn<'_>) -> Result<(), Trouble> {
    let Turn { app, socket, .. } = turn;
    let (room, message) = rules::room_message(turn.data, &app.options.limits)?;
    if !turn.client.state.lock().rooms.contains(&room) {
        return Err(Refusal::NotInRoom(room).into());
    }
    let broadcast = RoomBroadcast {
        sender: socket.id().into(),
        room: room.as_str().into(),
        message,
        timestamp: payload::now(),
        room_members: app.members.count(&room),
    };
    let members = socket.namespace().to(&address_of(&room));
    app.tell(socket, members, events::ROOM_BROADCAST, &broadcast)?;
    app.counters.room_messages.add_one();
    log_text(socket, &format_args!("message to '{room}'"), message);
    Ok(())
}

fn get_server_status(turn: &Turn<'_>) -> Result<(), Trouble> {
    let Turn { app, socket, .. } = turn;
    let (rooms, client_messages) = {
        let state = turn.client.state.lock();
        (state.rooms.clone(), state.messages)
    };
    let status = ServerStatus {
        total_clients: socket.namespace().len(),
        server_uptime: app.uptime(),
        client_rooms: rooms.into_iter().map(Into::into).collect(),
        client_messages,
        timestamp: payload::now(),
    };
    Ok(app.reply(socket, events::SERVER_STATUS, &status)?)
}
