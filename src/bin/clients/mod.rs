//! Shared by the client programs: connecting, sending, waiting for answers, and the output for all of it.
//!
//! ```text
//!   flags ─► session ─► the library's client
//!              │  ▲
//!              │  └── request      requests, their checks, their answers
//!              ▼
//!           notice, arrival ─► line      output text and colours
//! ```

pub(crate) mod arrival;
pub(crate) mod figures;
pub(crate) mod flags;
pub(crate) mod host;
pub(crate) mod json;
pub(crate) mod line;
pub(crate) mod notice;
pub(crate) mod pace;
pub(crate) mod relay;
pub(crate) mod request;
pub(crate) mod session;
pub(crate) mod stage;
pub(crate) mod stop;
pub(crate) mod tally;
pub(crate) mod verdict;

#[path = "../common/mod.rs"]
pub(crate) mod common;
