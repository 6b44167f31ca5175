//! The commands of the interactive client: parses a typed line.

use crate::clients::json::Json;

/// All commands with their arguments and descriptions, in the order of the help.
pub(crate) const COMMANDS: [(&str, &str, &str); 10] = [
    ("msg", "<message>", "send a message to everybody"),
    ("custom", "<json>", "send a custom event"),
    ("join", "<room>", "enter a room"),
    ("leave", "<room>", "leave a room"),
    ("room", "<room> <message>", "send a message to a room; a name with spaces in quotes"),
    ("status", "", "the connection, and the server's figures"),
    ("reconnect", "", "connect now"),
    ("history", "", "the commands so far"),
    ("help", "", "this; also ?"),
    ("quit", "", "leave; also exit, Ctrl-C or Ctrl-D"),
];

/// A parsed line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    Message(String),
    Custom(Json),
    Join(String),
    Leave(String),
    Room(String, String),
    Status,
    Reconnect,
    History,
    Help,
    Quit,
}

/// Why a line is not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misunderstood {
    /// A blank line, which is ignored.
    #[error("")]
    Blank,
    /// Arguments are missing.
    #[error("Usage: {0} {1}")]
    Usage(&'static str, &'static str),
    /// The argument of `custom` is not JSON.
    #[error("Invalid JSON: {0}")]
    Json(String),
    /// Unknown command.
    #[error("Unknown command: '{0}'")]
    Unknown(String),
}

impl Command {
    /// The first word in any case, the rest as typed.
    pub(crate) fn parse(line: &str) -> Result<Self, Misunderstood> {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim_start();
        Ok(match word.to_lowercase().as_str() {
            "" => return Err(Misunderstood::Blank),
            "msg" => Self::Message(some("msg", rest)?.to_owned()),
            "custom" => {
                let json = some("custom", rest)?;
                Self::Custom(
                    json.parse()
                        .map_err(|error: serde_json::Error| Misunderstood::Json(error.to_string()))?,
                )
            }
            "join" => Self::Join(whole_room("join", rest)?),
            "leave" => Self::Leave(whole_room("leave", rest)?),
            "room" => {
                let (room, message) = first_room(rest).ok_or_else(|| usage("room"))?;
                Self::Room(room.to_owned(), some("room", message)?.to_owned())
            }
            "status" => Self::Status,
            "reconnect" => Self::Reconnect,
            "history" => Self::History,
            "help" | "?" => Self::Help,
            "quit" | "exit" => Self::Quit,
            _ => return Err(Misunderstood::Unknown(word.to_owned())),
        })
    }
}

fn usage(command: &'static str) -> Misunderstood {
    let of = COMMANDS.iter().find(|(name, ..)| *name == command);
    Misunderstood::Usage(command, of.map_or("", |(_, arguments, _)| arguments))
}

/// The argument, which is required.
fn some<'a>(command: &'static str, rest: &'a str) -> Result<&'a str, Misunderstood> {
    if rest.is_empty() { Err(usage(command)) } else { Ok(rest) }
}

/// The rest as the name of a room, with or without quotes around it.
fn whole_room(command: &'static str, rest: &str) -> Result<String, Misunderstood> {
    let name = some(command, rest)?;
    match first_room(name) {
        Some((room, "")) => Ok(room.to_owned()),
        _ => Ok(name.to_owned()),
    }
}

/// The first word, or the text in quotes, and the rest.
fn first_room(text: &str) -> Option<(&str, &str)> {
    for quote in ['"', '\''] {
        if let Some(inside) = text.strip_prefix(quote) {
            let (room, rest) = inside.split_once(quote)?;
            return Some((room, rest.trim_start()));
        }
    }
    let (room, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (!room.is_empty()).then(|| (room, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("msg Hello World!", Command::Message("Hello World!".into()))]
    #[case("  MSG  a  b ", Command::Message("a  b".into()))]
    #[case(r#"custom {"a": [1]}"#, Command::Custom(json!({"a": [1]}).into()))]
    #[case("join chatroom", Command::Join("chatroom".into()))]
    #[case("join my room", Command::Join("my room".into()))]
    #[case(r#"Join "my room""#, Command::Join("my room".into()))]
    #[case("leave 'my room'", Command::Leave("my room".into()))]
    #[case("room r hi  there", Command::Room("r".into(), "hi  there".into()))]
    #[case(r#"room "my room" "quoted""#, Command::Room("my room".into(), r#""quoted""#.into()))]
    #[case("?", Command::Help)]
    #[case("EXIT", Command::Quit)]
    #[case("status now", Command::Status)]
    fn understood(#[case] line: &str, #[case] command: Command) {
        assert_eq!(Command::parse(line), Ok(command));
    }

    #[rstest]
    #[case("", "")]
    #[case("msg", "Usage: msg <message>")]
    #[case("custom ", "Usage: custom <json>")]
    #[case("join", "Usage: join <room>")]
    #[case("leave", "Usage: leave <room>")]
    #[case("room", "Usage: room <room> <message>")]
    #[case("room r", "Usage: room <room> <message>")]
    #[case(r#"room "my room"#, "Usage: room <room> <message>")]
    #[case("custom {", "Invalid JSON: EOF while parsing an object at line 1 column 1")]
    #[case("Dance now", "Unknown command: 'Dance'")]
    fn misunderstood(#[case] line: &str, #[case] words: &str) {
        assert_eq!(Command::parse(line).unwrap_err().to_string(), words);
    }
}
