//! The layers, held: which file may name what.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A word, and the files or folders under `src` that may name it.
const HOMES: [(&str, &[&str]); 3] = [
    ("tungstenite", &["server/websocket.rs", "server/model/requests.rs", "client/websocket.rs"]),
    ("tiny_http", &["server/http", "server/operator.rs", "bin/"]),
    ("ureq", &["client/polling.rs", "client/http.rs", "bin/"]),
];

/// A file or folder under `src`, and the words that it may not name.
const BANS: [(&str, &[&str]); 4] = [
    (
        "proto/",
        &[
            "net::",
            "thread::",
            "sync::",
            "crossbeam",
            "parking_lot",
            "rustix",
            "Instant::now",
            "SystemTime",
            "thread_local",
            "crate::server",
            "crate::client",
        ],
    ),
    ("server", &["crate::client"]),
    // What goes past the one door to the system is not seen by the model checker.
    ("server", &["parking_lot", "crossbeam_channel", "rustix", "std::thread", "Instant as", "TcpStream as"]),
    ("client", &["crate::server"]),
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
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
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
        words.into_iter().find(|word| line.contains(*word)).map(|word| format!("names {word}"))
    });
}

#[test]
fn nothing_is_unwrapped() {
    // The scenes of the model checker are tests.
    hold(|path, line| {
        (line.contains(".unwrap()") && !path.starts_with("server/model/")).then(|| "unwraps".into())
    });
}

#[test]
fn each_file_says_what_it_is() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "src/{path} does not open with //!");
    }
}
