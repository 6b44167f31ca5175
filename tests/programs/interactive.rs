//! The interactive client in a terminal.

use rustix::process::{Pid, Signal, kill_process};
use tinysio::client::Client;

use crate::{
    program::CLIENT,
    served::{Served, free_port},
    terminal::{CTRL_C, CTRL_D, Colour, LEFT, Terminal, UP},
};

const PROMPT: &str = ">>> ";
const OFFLINE: &str = "DISCONNECTED >>> ";

/// A client at its prompt.
fn client(served: &Served, args: &[&str]) -> Terminal {
    let url = served.url();
    // The first attempt to reconnect after 0.1 s on average.
    let args = [&[url.as_str(), "--speed", "10"], args].concat();
    let terminal = Terminal::start(CLIENT, &args);
    terminal.shows("Type 'help' to see available commands");
    terminal.edits(PROMPT, 0);
    terminal
}

/// Somebody else says something.
fn somebody_says(served: &Served, text: &str) {
    let client = Client::builder(&served.url()).build().unwrap();
    client.connect().unwrap();
    client.socket("/").emit("message", text).unwrap();
    client.disconnect();
}

#[test]
fn a_conversation() {
    let served = Served::new();
    let terminal = client(&served, &[]);
    assert_eq!(terminal.colour_of(PROMPT), Colour::Green);
    terminal.shows("Server message: Welcome! You are connected to the server.");
    terminal.enters("msg Hello World!");
    terminal.shows("→ Sent message: Hello World!");
    terminal.shows("✓ Message confirmed: Hello World!");
    assert_eq!(terminal.colour_of("✓ Message confirmed"), Colour::Green);
    terminal.enters("JOIN chatroom");
    terminal.shows("→ Requesting to join room: chatroom");
    terminal.shows("→ Joined room: chatroom");
    terminal.enters("room chatroom hi all");
    terminal.shows("← Room chatroom");
    assert_eq!(terminal.colour_of("← Room chatroom"), Colour::Magenta);
    terminal.enters("status");
    terminal.shows("My rooms: chatroom");
    terminal.shows("Current room: chatroom");
    terminal.enters("room nope hi");
    terminal.shows("Server error: You are not in room 'nope'. Join the room first.");
    assert_eq!(terminal.colour_of("Server error"), Colour::Red);
    terminal.enters("leave chatroom");
    terminal.shows("Left room: chatroom");
    terminal.enters("quit");
    terminal.shows("Disconnected from server");
    terminal.exits(0);
}

#[test]
fn what_is_misunderstood() {
    let served = Served::new();
    let terminal = client(&served, &[]);
    terminal.enters("dance");
    terminal.shows("Unknown command: 'dance'");
    terminal.enters("msg");
    terminal.shows("Usage: msg <message>");
    terminal.enters("room lobby");
    terminal.shows("Usage: room <room> <message>");
    terminal.enters("join a&b");
    terminal.shows("Room name contains invalid characters");
    terminal.enters("custom {");
    terminal.shows("Invalid JSON");
    terminal.enters("?");
    terminal.shows("Available commands:");
    terminal.enters("exit");
    terminal.exits(0);
}

#[test]
fn history() {
    let served = Served::new();
    let terminal = client(&served, &[]);
    terminal.enters("msg first");
    terminal.shows("Message confirmed: first");
    terminal.enters("msg second");
    terminal.shows("Message confirmed: second");
    terminal.edits(PROMPT, 0);
    terminal.types(UP);
    terminal.edits(">>> msg second", 0);
    terminal.types(UP);
    terminal.edits(">>> msg first", 0);
    terminal.types(" again\r");
    terminal.shows("Message confirmed: first again");
    terminal.enters("history");
    terminal.shows("    2  msg second");
    terminal.shows("    4  history");
    terminal.types("hist\t");
    terminal.edits(">>> history ", 0);
}

#[test]
fn what_is_typed_ahead_is_not_lost() {
    let served = Served::new();
    let terminal = client(&served, &[]);
    terminal.types("msg one\rmsg two\rmsg thr");
    terminal.shows("Message confirmed: two");
    terminal.edits(">>> msg thr", 0);
    terminal.types("ee\r");
    terminal.shows("Message confirmed: three");
}

#[test]
fn what_arrives_while_one_types_leaves_the_line_alone() {
    let served = Served::new();
    let terminal = client(&served, &[]);
    terminal.types("msg half a li");
    terminal.edits(">>> msg half a li", 0);
    somebody_says(&served, "I interrupt");
    terminal.shows(": I interrupt");
    assert_eq!(terminal.colour_of("← Broadcast from"), Colour::Magenta);
    terminal.edits(">>> msg half a li", 0);
    terminal.types(LEFT);
    terminal.types(LEFT);
    terminal.edits(">>> msg half a li", 2);
    somebody_says(&served, "Again");
    terminal.shows(": Again");
    terminal.edits(">>> msg half a li", 2);
    terminal.types("big ");
    terminal.edits(">>> msg half a big li", 2);
    assert_eq!(terminal.count("half a"), 1);
    terminal.types("\r");
    terminal.shows("Message confirmed: half a big li");
}

#[test]
fn messages_cannot_play_with_the_terminal() {
    let served = Served::new();
    let terminal = client(&served, &[]);
    somebody_says(&served, "\x1b[2J\x1b[31mgone\r\nforged");
    terminal.shows(": \\u{1b}[2J\\u{1b}[31mgone\\r\\nforged");
    terminal.edits(PROMPT, 0);
}

#[test]
fn the_prompt_follows_the_connection() {
    let mut served = Served::new();
    let terminal = client(&served, &[]);
    terminal.enters("join den");
    terminal.shows("Joined room: den");
    terminal.types("room den I was");
    terminal.types(LEFT);
    terminal.edits(">>> room den I was", 1);
    served.kill();
    terminal.shows("Disconnected from server");
    terminal.shows("Scheduling automatic reconnection... (attempt will be 1/5)");
    terminal.edits("DISCONNECTED >>> room den I was", 1);
    assert_eq!(terminal.colour_of(OFFLINE), Colour::Red);
    assert_eq!(terminal.count("room den I was"), 1);
    served.restart();
    terminal.shows("Attempting reconnection");
    terminal.shows("Reconnected to server");
    terminal.edits(">>> room den I was", 1);
    assert_eq!(terminal.colour_of(">>> room den"), Colour::Green);
    terminal.types("\r");
    terminal.shows("← Room den");
    assert_eq!(terminal.count("Joined room: den"), 2);
}

#[test]
fn a_long_line_survives_the_change_of_the_prompt() {
    let mut served = Served::new();
    let terminal = client(&served, &[]);
    let long = format!("msg begin{}end", "·".repeat(110));
    terminal.types(&long);
    terminal.shows("end");
    served.kill();
    terminal.shows(OFFLINE);
    terminal.shows("end");
    served.restart();
    terminal.shows("Reconnected to server");
    terminal.waits_until("the line is there once, behind the usual prompt", |screen| {
        let text = screen.contents();
        text.matches(">>> msg begin").count() == 1 && !text.contains(OFFLINE)
    });
    assert_eq!(terminal.count("end"), 1);
    terminal.types("\r");
    terminal.shows("✓ Message confirmed: begin");
}

#[test]
fn what_is_sent_offline_is_queued_and_delivered() {
    let mut served = Served::new();
    let terminal = client(&served, &["--max-attempts", "0"]);
    terminal.enters("join den");
    terminal.shows("Joined room: den");
    served.kill();
    terminal.edits(OFFLINE, 0);
    terminal.enters("room den from the dark");
    terminal.shows("queued");
    terminal.enters("msg patience");
    terminal.waits_until("both are queued", |screen| screen.contents().matches("queued").count() == 2);
    served.restart();
    terminal.shows("← Room den");
    terminal.shows("Message confirmed: patience");
}

#[test]
fn it_gives_up_and_begins_again_when_told() {
    let mut served = Served::new();
    let terminal = client(&served, &["--max-attempts", "2"]);
    served.kill();
    terminal.shows("Attempting reconnection 2/2...");
    terminal.shows("Reconnection failed after 2 attempts");
    terminal.shows("Type 'reconnect' to try again");
    served.restart();
    terminal.enters("reconnect");
    terminal.shows("Reconnected to server");
    terminal.edits(PROMPT, 0);
    terminal.enters("reconnect");
    terminal.shows("Already connected to server");
}

#[test]
fn thrown_out_it_stays_out_until_told() {
    let served = Served::new();
    let terminal = client(&served, &[]);
    served.throw_all_out();
    terminal.shows("Disconnected from server (io server disconnect)");
    terminal.edits(OFFLINE, 0);
    assert_eq!(terminal.count("Scheduling"), 0);
    terminal.enters("reconnect");
    terminal.shows("Reconnected to server");
    terminal.edits(PROMPT, 0);
}

#[test]
fn without_a_server_it_hints_and_goes_on_trying() {
    let mut served = Served::new();
    served.kill();
    let terminal = Terminal::start(CLIENT, &[&served.url(), "--speed", "10", "--max-attempts", "0"]);
    terminal.shows("Connecting to server (attempt 3/3)...");
    terminal.shows("Is the server running?");
    terminal.edits(OFFLINE, 0);
    terminal.enters("msg early");
    terminal.shows("queued");
    served.restart();
    terminal.shows("Connected to server");
    terminal.shows("Message confirmed: early");
    terminal.edits(PROMPT, 0);
    terminal.types(CTRL_D);
    terminal.exits(0);
}

#[test]
fn ctrl_c_leaves_in_good_order() {
    let served = Served::new();
    let terminal = client(&served, &[]);
    terminal.enters("msg last words");
    terminal.types(CTRL_C);
    terminal.shows("Message confirmed: last words");
    terminal.shows("Disconnected from server");
    terminal.exits(0);
}

#[test]
fn ctrl_d_leaves_in_good_order() {
    let served = Served::new();
    let terminal = client(&served, &[]);
    terminal.types(CTRL_D);
    terminal.shows("Disconnected from server");
    terminal.exits(0);
}

#[test]
fn sigterm_leaves_in_good_order() {
    let served = Served::new();
    let terminal = client(&served, &[]);
    terminal.types("msg unfinished");
    terminal.edits(">>> msg unfinished", 0);
    let pid = Pid::from_raw(i32::try_from(terminal.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    terminal.shows("Disconnected from server");
    terminal.exits(0);
}

#[test]
fn who_was_never_connected_leaves_with_1() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let terminal = Terminal::start(CLIENT, &[&url, "--speed", "20"]);
    terminal.edits(OFFLINE, 0);
    terminal.types(CTRL_C);
    terminal.exits(1);
    // And in the middle of the first attempts.
    let terminal = Terminal::start(CLIENT, &[&url]);
    terminal.shows("Retrying in");
    terminal.types(CTRL_C);
    terminal.exits(1);
}

#[test]
fn colours_can_be_switched_off() {
    let served = Served::new();
    let url = served.url();
    let without = Terminal::start_with(CLIENT, &[&url], &[("NO_COLOR", "1")]);
    let never = Terminal::start(CLIENT, &[&url, "--color", "never"]);
    for terminal in [without, never] {
        terminal.shows("Type 'help'");
        terminal.edits(PROMPT, 0);
        assert_eq!(terminal.colour_of("Connected to server"), Colour::None);
        assert_eq!(terminal.colour_of(PROMPT), Colour::None);
        terminal.enters("msg plain");
        terminal.shows("Message confirmed: plain");
    }
}
