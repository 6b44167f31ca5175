//! What each file of `src` may name: crates, the system, and the modules below its own.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

/// A word, and the files or folders under `src` that may name it.
const HOMES: [(&str, &[&str]); 3] = [
    ("tungstenite", &["server/transport/websocket", "server/connection/websocket", "client/websocket.rs"]),
    ("tiny_http", &["server/http", "bin/"]),
    ("ureq", &["client/polling.rs", "client/http.rs", "bin/"]),
];

/// A file or folder under `src`, and the words that it may not name. Clippy finds what is a type of the system: see
/// `clippy.toml`.
const BANS: [(&str, &[&str]); 5] = [
    ("proto/", &["rustix", "Instant::now", "SystemTime", "crate::server", "crate::client"]),
    ("server", &["crate::client"]),
    // Functions of a crate, and functions of a module, are more than Clippy can be told.
    ("server", &["rustix", "std::thread", "crossbeam_channel"]),
    // The logger is code of the application: `guard` calls it, with macros of the same names.
    ("server", &["log::error!", "log::warn!", "log::info!", "log::debug!", "log::trace!", "log::log!"]),
    ("client", &["crate::server"]),
];

/// The modules of `src/server`, from the top to the bottom. Those of one line may import each other: they are one
/// thing.
const SERVER: [&[&str]; 13] = [
    &["builder", "server", "start", "shutdown", "stats", "memory", "descriptors"],
    &["connection"],
    &["dispatch"],
    &["engine", "socket"],
    &["session"],
    &["hub"],
    &["transport"],
    &["config", "error"],
    &["recovery"],
    &["http"],
    &["net"],
    &["limits"],
    &["guard", "lead", "peer"],
];

/// The modules of `src/client`, likewise. The table in its `mod.rs` says what each line is.
const CLIENT: [&[&str]; 11] = [
    &["client"],
    &["backoff", "link", "polling", "events"],
    &["handle", "socket", "event", "handlers"],
    &["lifecycle", "membership", "emit", "inbound", "work"],
    &["core", "state"],
    &["connection", "session", "namespaces"],
    &["open", "websocket", "http", "answer"],
    &["event_queue"],
    &["send_queue", "offline", "retry_queue", "acks", "recovery", "namespace", "end"],
    &["dial", "stream", "tls", "url", "cancel"],
    &["config", "stats", "error", "delay", "guard"],
];

/// The sources: path under `src`, and text.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source is text");
        (path.strip_prefix(&root).expect("under src").display().to_string(), text)
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder is readable") {
        let path = entry.expect("an entry is readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Each line of code, without comments and without the tests at the bottom of the file.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]") && !line.starts_with("#[cfg(all(test"));
    let code = lines.map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    code.enumerate().map(|(index, line)| (index + 1, line))
}

/// Fails with every line of code for which `rule` has a complaint.
fn hold(rule: impl Fn(&str, &str) -> Option<String>) {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        for (number, line) in code(&text) {
            broken.extend(rule(&path, line).map(|complaint| format!("src/{path}:{number}: {complaint}")));
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// The paths that a `use` tree names: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(tree: &str, prefix: &str, found: &mut Vec<String>) {
    let Some((head, rest)) = tree.split_once('{') else {
        found.push(format!("{prefix}{}", tree.trim()));
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut start) = (0, 0);
    for (at, character) in inner.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                paths(&inner[start..at], &prefix, found);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inner[start..].trim().is_empty() {
        paths(&inner[start..], &prefix, found);
    }
}

/// The modules below `root` that a file imports, or names with their whole path. What `mod.rs` makes public may be
/// named without its module: `homes` has it.
fn imports(text: &str, root: &str, homes: &HashMap<String, String>) -> Vec<String> {
    let code: Vec<&str> = code(text).map(|(_, line)| line).collect();
    let code = code.join("\n");
    let mut found = uses(&code, "use crate::");
    found.extend(uses(&code, "use super::"));
    for (at, _) in code.match_indices(root) {
        let end =
            code[at..].find(|character: char| !character.is_alphanumeric() && !"_:".contains(character));
        found.push(code[at..end.map_or(code.len(), |end| at + end)].to_owned());
    }
    let module = |path: String| {
        let name = path.strip_prefix(root)?.split("::").next()?;
        Some(homes.get(name).map_or(name, String::as_str).to_owned())
    };
    // A type without a home is named by the path that the public has for it.
    found
        .into_iter()
        .filter_map(module)
        .filter(|name| name.starts_with(|first: char| first.is_lowercase()))
        .collect()
}

/// The paths of all statements that begin with `statement`, which ends with `use ` and perhaps a first name.
fn uses(code: &str, statement: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(statement) {
        let (_, tree) = code[at..].split_once("use ").expect("a statement has it");
        paths(tree.split(';').next().unwrap_or(tree), "", &mut found);
    }
    found
}

/// What a `mod.rs` makes public of its modules: the name, and the module.
fn homes(mod_rs: &str) -> HashMap<String, String> {
    let public = uses(mod_rs, "\npub use ").into_iter().filter(|path| !path.starts_with("crate::"));
    public
        .filter_map(|path| path.split_once("::").map(|(module, name)| (name.to_owned(), module.to_owned())))
        .collect()
}

/// Fails with every import of a module in `folder` that runs up. `mod.rs` is above all of them only in the tree: it
/// declares the modules and says what is public.
fn hold_layers(folder: &str, layers: &[&[&str]], root: &str, homes: &HashMap<String, String>) {
    let layer = |module: &str| {
        let found = layers.iter().position(|layer| layer.contains(&module));
        found.unwrap_or_else(|| panic!("{module} is in no layer"))
    };
    let mut up = BTreeSet::new();
    for (path, text) in sources() {
        let Some(file) = path.strip_prefix(folder).filter(|file| *file != "mod.rs") else { continue };
        let module = file.split('/').next().unwrap_or(file).trim_end_matches(".rs");
        let above = imports(&text, root, homes).into_iter().filter(|import| layer(import) < layer(module));
        up.extend(above.map(|import| format!("src/{path} imports {import}")));
    }
    assert!(up.is_empty(), "{up:#?}");
}

#[test]
fn crates_stay_in_their_files() {
    hold(|path, line| {
        let named = HOMES.iter().find(|(word, homes)| {
            line.contains(&format!("{word}::")) && !homes.iter().any(|home| path.starts_with(home))
        });
        named.map(|(word, homes)| format!("names {word}, which stays in {homes:?}"))
    });
}

#[test]
fn layers_do_not_reach_up_or_across() {
    hold(|path, line| {
        let words = BANS.iter().filter(|(layer, _)| path.starts_with(layer)).flat_map(|(_, words)| *words);
        // What is in quotes names nothing.
        let line: String = line.split('"').step_by(2).collect();
        words.into_iter().find(|word| line.contains(*word)).map(|word| format!("names {word}"))
    });
}

#[test]
fn imports_of_the_server_run_down() {
    hold_layers("server/", &SERVER, "crate::server::", &HashMap::new());
}

#[test]
fn imports_of_the_client_run_down() {
    let mod_rs = sources().into_iter().find(|(path, _)| path == "client/mod.rs");
    let homes = homes(&mod_rs.expect("the client has one").1);
    assert_eq!(homes.get("Socket").map(String::as_str), Some("socket"));
    hold_layers("client/", &CLIENT, "super::", &homes);
}

#[test]
fn each_file_says_what_it_is() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "src/{path} does not open with //!");
    }
}
