//! The folders of `src/server`, in their order: imports run from the top to the bottom.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The modules of `src/server`, from the top to the bottom. Those of one line may import each other: they are one
/// thing.
const LAYERS: [&[&str]; 14] = [
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
    // Above all of them only in the tree: it declares the modules and says what is public.
    &["mod"],
];

/// The paths that a `use` tree names: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(tree: &str, prefix: &str, found: &mut Vec<String>) {
    let Some((head, rest)) = tree.split_once('{') else {
        found.push(format!("{prefix}{}", tree.trim()));
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in inner.char_indices() {
        match letter {
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

/// The modules of the server that a file imports, or names with their whole path.
fn imports(text: &str) -> Vec<String> {
    let code: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]") && !line.starts_with("#[cfg(all(test"))
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use crate::") {
        let tree = &code[at + 4..];
        paths(&tree[..tree.find(';').expect("a statement ends")], "", &mut found);
    }
    for (at, _) in code.match_indices("crate::server::") {
        let end = code[at..].find(|letter: char| !letter.is_alphanumeric() && !"_:".contains(letter));
        found.push(code[at..end.map_or(code.len(), |end| at + end)].to_owned());
    }
    let module = |path: String| path.strip_prefix("crate::server::")?.split("::").next().map(str::to_owned);
    // A type is named by the path that the public has for it.
    found
        .into_iter()
        .filter_map(module)
        .filter(|name| name.starts_with(|first: char| first.is_lowercase()))
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder is readable") {
        let path = entry.expect("an entry is readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|layer| layer.contains(&module))
        .unwrap_or_else(|| panic!("{module} is in no layer"))
}

#[test]
fn imports_run_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let mut up = Vec::new();
    for file in files {
        let path = file.strip_prefix(&root).expect("under src/server").with_extension("");
        let module = path.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
        if module == "mod" || module == "model" {
            continue;
        }
        for import in imports(&fs::read_to_string(&file).expect("a source is text")) {
            if layer(&import) < layer(&module) {
                up.push(format!("{} imports {import}", path.display()));
            }
        }
    }
    up.sort();
    up.dedup();
    assert!(up.is_empty(), "{up:#?}");
}
