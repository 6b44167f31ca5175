//! The programs as people and scripts use them: in a pseudo-terminal, through pipes, with the exit codes that they
//! give.
//!
//! Every wait has a bound, and prints what it waited for with what there was to see so far.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on ends its test")]

mod demos;
mod interactive;
mod piped;
mod program;
mod scripts;
mod served;
mod terminal;
