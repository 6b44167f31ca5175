//! The layers, held: which file may name what.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A word, and the files or folders under `src` that may name it.
const HOMES: [(&str, &[&str]); 3] = [
    (
        "tungstenite",
        &[
            "server/transport/websocket",
            "server/connection/websocket",
            "server/model/requests.rs",
            "client/websocket.rs",
        ],
    ),
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

/// The list that follows `key` in `deny.toml`; comments end with their line.
fn deny_list(key: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    let text = fs::read_to_string(path).expect("deny.toml is text");
    let lines = text.lines().map(|line| line.split_once('#').map_or(line, |(code, _)| code));
    let text = lines.collect::<Vec<_>>().join("\n");
    let (_, list) =
        text.split_once(&format!("\n{key} = [")).unwrap_or_else(|| panic!("no {key} in deny.toml"));
    let (list, _) = list
        .split_once("\n]")
        .filter(|_| list.starts_with('\n'))
        .unwrap_or_else(|| list.split_once(']').unwrap_or_else(|| panic!("the list {key} has no end")));
    list.split(['\n', ',']).map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

/// The texts between quotes.
fn quoted(items: &[String]) -> Vec<&str> {
    items.iter().filter_map(|item| item.split('"').nth(1)).collect()
}

/// Whether an SPDX expression can be met with these licences. `/` is an old way to write `OR`.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let met = either(&mut words, allowed);
    met && words.next().is_none()
}

type Words<'a, 'w> = &'a mut std::iter::Peekable<std::str::SplitWhitespace<'w>>;

fn either(words: Words<'_, '_>, allowed: &[&str]) -> bool {
    let mut met = both(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= both(words, allowed);
    }
    met
}

fn both(words: Words<'_, '_>, allowed: &[&str]) -> bool {
    let mut met = licence(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= licence(words, allowed);
    }
    met
}

fn licence(words: Words<'_, '_>, allowed: &[&str]) -> bool {
    match words.next() {
        Some("(") => either(words, allowed) & (words.next() == Some(")")),
        Some(name) if words.next_if_eq(&"WITH").is_some() => {
            let exception = words.next().unwrap_or_default();
            allowed.contains(&format!("{name} WITH {exception}").as_str())
        }
        name => name.is_some_and(|name| allowed.contains(&name)),
    }
}

#[test]
fn licences_are_read_as_they_are_meant() {
    let allowed = ["MIT", "ISC"];
    for fine in
        ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR ISC", "(GPL-3.0 OR MIT) AND ISC", "GPL-3.0 OR MIT AND ISC"]
    {
        assert!(is_allowed(fine, &allowed), "{fine}");
    }
    for not in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "MIT WITH x", "MIT ISC"] {
        assert!(!is_allowed(not, &allowed), "{not}");
    }
}

/// What `cargo deny check bans licenses sources` would say, from the same file, without the long build of that tool.
#[test]
fn the_tree_is_what_deny_toml_allows() {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let (bans, licences) = (deny_list("deny"), deny_list("allow"));
    let bans: Vec<&str> = quoted(&bans);
    let licences: Vec<&str> = quoted(&licences);
    assert!(bans.contains(&"tokio") && licences.contains(&"MIT"), "{bans:?} {licences:?}");
    let packages = tree["packages"].as_array().expect("packages");
    assert!(packages.len() > 50, "only {} packages", packages.len());
    let mut broken = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let licence = package["license"].as_str().unwrap_or("none");
        if bans.contains(&name) {
            broken.push(format!("{name} is banned"));
        }
        if !is_allowed(licence, &licences) {
            broken.push(format!("{name} has the licence {licence}"));
        }
        let ours = name == env!("CARGO_PKG_NAME") && package["source"].is_null();
        let registry = "registry+https://github.com/rust-lang/crates.io-index";
        if !ours && package["source"] != registry {
            broken.push(format!("{name} comes from {}", package["source"]));
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}
