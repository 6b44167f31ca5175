//! Authentication: a middleware admits clients with a valid token; a second namespace admits administrators only.
//!
//! ```console
//! $ cargo run --example auth -- 127.0.0.1:3000
//! $ cargo run --bin client http://127.0.0.1:3000 --auth-token ada-secret emit whoami --ack
//! $ cargo run --bin client http://127.0.0.1:3000 emit whoami --ack       # refused: "unauthorized"
//! ```
//! In a browser: `io({ auth: { token: "ada-secret" } })`, and `socket.on("connect_error", (error) => …)`, where
//! `error.message` and `error.data` are what the middleware below gave.
//!
//! A token can be read by everybody on the way, unless a proxy in front of the server terminates TLS.

use std::{collections::HashMap, error::Error, sync::Arc};

use serde::Deserialize;
use serde_json::json;
use tinysio::server::{ConnectError, HandlerResult, Server, Socket, StartError};

/// The payload of `auth` that a client must send.
#[derive(Deserialize)]
struct Credentials {
    token: String,
}

/// A user that has been recognised.
#[derive(Debug, Clone)]
struct User {
    name: &'static str,
    is_admin: bool,
}

/// The users by their tokens. Your program would ask a database, or verify a signature; both may block the thread.
type Users = HashMap<&'static str, User>;

fn users() -> Users {
    HashMap::from([
        ("ada-secret", User { name: "Ada", is_admin: true }),
        ("bob-secret", User { name: "Bob", is_admin: false }),
    ])
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let server = start(&address)?;
    if let Some(address) = server.local_addr() {
        println!("listening on http://{address}");
    }
    server.wait();
    Ok(())
}

pub(crate) fn start(address: &str) -> Result<Server, StartError> {
    let users = Arc::new(users());
    let for_admin = Arc::clone(&users);
    Server::builder()
        .namespace("/", move |ns| {
            ns.middleware(move |socket| authenticate(&users, socket));
            ns.on("whoami", |socket, event| -> HandlerResult { Ok(event.ack(user(socket)?.name)?) });
        })
        // Each namespace has sockets and middlewares of its own.
        .namespace("/admin", move |ns| {
            // Middlewares run in this order. The first refusal ends the sequence.
            ns.middleware(move |socket| authenticate(&for_admin, socket));
            ns.middleware(require_admin);
            ns.on("kick", |socket, event| -> HandlerResult {
                let name: String = event.arg(0)?;
                let everybody = socket.namespace().of("/").ok_or("the namespace is missing")?.sockets();
                let of_user =
                    everybody.iter().filter(|socket| user(socket).is_ok_and(|user| user.name == name));
                Ok(event.ack(of_user.inspect(|socket| socket.disconnect(true)).count())?)
            });
        })
        .listen(address)
}

/// Refuses a client without a valid token. Otherwise keeps its user as the data of the socket.
fn authenticate(users: &Users, socket: &Socket) -> Result<(), ConnectError> {
    // The details of a refusal are for the log of the server, not for strangers.
    let refusal = || ConnectError::new("unauthorized").with_data(json!({ "code": 401 }));
    let credentials: Credentials = socket.auth_as().map_err(|_| refusal())?;
    let user = users.get(credentials.token.as_str()).ok_or_else(refusal)?;
    socket.set_data(user.clone());
    Ok(())
}

fn require_admin(socket: &Socket) -> Result<(), ConnectError> {
    let refusal = || ConnectError::new("forbidden").with_data(json!({ "code": 403 }));
    user(socket).ok().filter(|user| user.is_admin).map(drop).ok_or_else(refusal)
}

/// The user of a socket. Every socket has one, because the middleware refused all others.
fn user(socket: &Socket) -> Result<Arc<User>, &'static str> {
    socket.data().ok_or("the socket has no user")
}
