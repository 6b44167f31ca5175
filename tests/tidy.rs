//! The layers, held: which file may name what.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A word, and the files or folders under `src` that may name it.
const HOMES: [(&str, &[&str]); 3] = [
    ("tungstenite", &["server/transport/websocket", "server/connection/websocket", "client/websocket.rs"]),
    ("tiny_http", &["server/http", "server/operator.rs", "bin/"]),
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
fn each_file_says_what_it_is() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "src/{path} does not open with //!");
    }
}
