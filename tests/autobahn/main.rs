//! The conformance suite of WebSocket, Autobahn's cases 1 to 10, against `harness/ws_echo.rs`: see the README beside
//! this file.
//!
//! It needs kosoku, its runner, and so it is ignored by default: `cargo test --test autobahn -- --ignored`.
#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::Value;

#[allow(dead_code, reason = "its main is for the command line")]
#[path = "../../harness/ws_echo.rs"]
mod ws_echo;

/// Text that goes bad in the midst of a frame: the suite would see the close before the frame is whole. The codec
/// looks at the frame then, and closes with the same code; RFC 6455 8.1 asks for no more.
const NON_STRICT: [&str; 2] = ["6.4.3", "6.4.4"];

/// Cases in sections 1 to 7, 9 and 10. The others are about compression, which is not offered.
const CASES: usize = 301;

#[test]
#[ignore = "needs kosoku"]
fn every_case_passes_or_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runner = root.join("tests/interop/.venv/bin/kosoku");
    assert!(runner.exists(), "kosoku is missing: see tests/autobahn/README.md");
    let server = ws_echo::start(0).unwrap();
    let target = format!("ws://{}/?EIO=4&transport=websocket", server.local_addr().unwrap());
    let reports = Path::new(env!("CARGO_TARGET_TMPDIR")).join("autobahn");
    let output = Command::new(runner)
        .args(["--exclude", "12.*", "--exclude", "13.*", "--parallelism", "2", "--outdir"])
        .arg(&reports)
        .arg(target)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let index = std::fs::read(reports.join("index.json")).unwrap_or_else(|_| panic!("no report: {said}"));
    let index: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_slice(&index).unwrap();
    let cases: Vec<_> = index.into_values().flatten().collect();
    let of = |wanted: &str| -> Vec<&str> {
        let is_wanted = |verdict: &Value| verdict["behavior"] == wanted || verdict["behaviorClose"] == wanted;
        cases.iter().filter(|(_, verdict)| is_wanted(verdict)).map(|(case, _)| &**case).collect()
    };
    println!("{} cases, {} informational", cases.len(), of("INFORMATIONAL").len());
    assert_eq!(cases.len(), CASES);
    assert_eq!(of("NON-STRICT"), NON_STRICT, "not strict, and not explained");
    for failure in ["FAILED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT", "UNIMPLEMENTED"] {
        assert_eq!(of(failure), [""; 0], "{failure}: {said}");
    }
    assert!(output.status.success(), "{said}");
}
